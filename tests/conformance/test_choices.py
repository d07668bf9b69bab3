"""A value of a choice that nobody has heard of: each reading refuses it by its name, and computes it as none other.

A choice is what an op's field declares, or a field of an arithmetic with a few values. Here one gets a value behind the
backs of verification and files, which refuse it long before, as it would be where somebody declares a new one.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
from graphs import LAVA

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.graph import chain
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.ops import (
    OPS,
    PART_TYPES,
    Activation,
    Affine,
    Delta,
    Dense,
    Flatten,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Level,
    Membrane,
    Neuron,
    Op,
    Output,
    Pool,
    SigmaDelta,
    Spike,
    fields,
)
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import InfeasibleError, MissingDependencyError, NervecordError
from nervecord.runtime.engines.c.session import CStream
from nervecord.runtime.engines.emulator.session import EmulatorStream
from nervecord.runtime.stream import MachineStream
from nervecord.targets.onnx.engine import OnnxStream

OTHER = "unheard of"


def batched_stream(network_plan: Plan) -> Any:
    pytest.importorskip("torch")
    from nervecord.runtime.engines.torch.session import BatchedStream

    return BatchedStream(network_plan)


ENGINES: dict[str, Callable[[Plan], Any]] = {
    "definition": MachineStream,
    "emulator": EmulatorStream,
    "torch": batched_stream,
    "onnx": OnnxStream,
    "c": CStream,
}
Literals = {
    name: typing.get_args(hint) for name, hint in typing.get_type_hints(Arithmetic).items() if typing.get_args(hint)
}


def changed(value: Any, name: str) -> None:
    """Give a frozen value a choice that it cannot have."""
    object.__setattr__(value, name, OTHER)


def run(engine: str, network_plan: Plan) -> None:
    try:
        opened = ENGINES[engine](network_plan)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    with opened as session:
        name = network_plan.graph.inputs[0]
        session.run(np.ones((3, *network_plan.graph.nodes[name].in_shape)))


# --------------------------------------------------------------------------------------------------------------------
# Arithmetics


def integers(arithmetic: Arithmetic) -> Plan:
    """What every field of an arithmetic matters to: currents, biases, decays, rounded sums, spikes, a readout."""
    neuron = Neuron(IntegerMembrane(2048, np.array([3, -2]), 1), IntegerSynapse(2048), IntegerSpike(20))
    nodes: list[tuple[str, Op]] = [
        ("in", Input((3,), "values", 60.0)),
        ("fc", Dense(np.array([[2, -4, 6], [8, 2, -2]]), -2, 8, 1)),
        ("lif", neuron),
        ("fc2", Dense(np.array([[2, 4]]), -1, 8, 1)),
        ("li", Neuron(IntegerMembrane(2048, np.array([0])), IntegerSynapse(2048))),
        ("out", Output((1,))),
    ]
    return plan(chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=arithmetic))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", Literals)
def test_an_arithmetic_with_an_unknown_choice_is_refused_by_its_name(name: str, engine: str) -> None:
    arithmetic = dataclasses.replace(LAVA)
    network_plan = integers(arithmetic)
    run(engine, network_plan)
    changed(arithmetic, name)
    network_plan = dataclasses.replace(network_plan)  # what was proved of the plan before is kept for that one
    choice = "overflow" if name.endswith("overflow") else name
    # Of the signs of weights only what weights may be depends on them, and verification asks for that.
    reading: Any = partial(run, engine, network_plan)
    if name == "weight_signs":
        reading = partial(list, network_plan.step("fc").op.misfits(arithmetic))
    with pytest.raises(InfeasibleError, match=f"no case for {choice} '{OTHER}'"):
        reading()


@pytest.mark.parametrize("name", sorted(set(Literals) - {"weight_signs", "order", "compare"}))
def test_proofs_refuse_it_too(name: str) -> None:
    """(A bound holds whenever a current arrives, and whether the threshold itself spikes.)"""
    arithmetic = dataclasses.replace(LAVA)
    network_plan = integers(arithmetic)
    changed(arithmetic, name)
    with pytest.raises(InfeasibleError, match=OTHER):
        overflows(prove(network_plan), arithmetic)


# --------------------------------------------------------------------------------------------------------------------
# Ops


def floats(*nodes: tuple[str, Op]) -> Plan:
    first, last = nodes[0][1], nodes[-1][1]
    items = [("in", Input(first.in_shape, "values", 4.0)), *nodes, ("out", Output(last.out_shape))]
    return plan(chain(Level.DISCRETE, items, dt=1e-3))


def spiking() -> Plan:
    one = np.ones(2)
    neuron = Neuron(Membrane(0.5 * one, one, 0 * one), None, Spike(0.7 * one, 0 * one))
    return floats(("fc", Affine(np.ones((2, 3)), None)), ("op", neuron))


def changes() -> Plan:
    nodes: list[tuple[str, Op]] = [
        ("in", Input((2,), "values", 30.0)),
        ("copy", Dense(2 * np.eye(2), -1, 8, 1)),
        ("delta", Delta(2, 1)),
        ("fc", Dense(2 * np.eye(2), -1, 8, 1)),
        ("op", SigmaDelta(np.array([1, -1]), 1)),
        ("fc2", Dense(2 * np.ones((1, 2)), -1, 8, 1)),
        ("li", Neuron(IntegerMembrane(5, np.array([0])))),
        ("out", Output((1,))),
    ]
    return plan(chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA))


PLANS: dict[tuple[str, str], tuple[Callable[[], Plan], Callable[[Plan], Any], tuple[str, ...]]] = {
    ("Spike", "reset"): (spiking, lambda case: case.step("op").op.spike, ("definition", "torch", "onnx")),
    ("Pool", "mode"): (
        lambda: floats(("op", Pool("sum", (2, 2), (2, 2), (0, 0), (1, 4, 4))), ("flat", Flatten((1, 2, 2), 0, -1))),
        lambda case: case.step("op").op,
        ("definition", "torch", "onnx"),
    ),
    ("Activation", "function"): (
        lambda: floats(("op", Activation("tanh", (2,)))),
        lambda case: case.step("op").op,
        ("definition", "torch", "onnx"),
    ),
    ("SigmaDelta", "activation"): (changes, lambda case: case.step("op").op, ("definition", "emulator")),
    ("Input", "carries"): (spiking, lambda case: case.graph.nodes["in"], ("definition", "torch", "onnx")),
}
"""(op or part, its choice) -> a plan, what to change in it, and the engines that run it."""


def choices() -> Iterator[tuple[str, str]]:
    for kind in (*OPS.values(), *PART_TYPES.values()):
        for name, declared in fields.declarations(kind):
            if declared.kind == "choice":
                yield kind.__name__, name


def test_every_declared_choice_is_here() -> None:
    assert sorted(choices()) == sorted(PLANS)


@pytest.mark.parametrize(("case", "engine"), [(case, engine) for case in PLANS for engine in PLANS[case][2]])
def test_an_op_with_an_unknown_choice_is_refused_by_its_name(case: tuple[str, str], engine: str) -> None:
    make, part, _ = PLANS[case]
    network_plan = make()
    run(engine, network_plan)
    changed(part(network_plan), case[1])
    network_plan = dataclasses.replace(network_plan)
    with pytest.raises(NervecordError, match=f"{case[1]} '{OTHER}'"):
        run(engine, network_plan)
