"""Small graphs by hand, and targets made up for a test: what the rules are tried on."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import graphs
import nir
import numpy as np
import policies

from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import (
    Affine,
    ContinuousMembrane,
    Conv,
    Dense,
    Input,
    IntegerMembrane,
    IntegerSpike,
    Level,
    Membrane,
    Neuron,
    Op,
    Output,
    Quantise,
    Spike,
)
from nervecord.compiler.target.protocol import Fact, TargetSpec
from nervecord.targets.catalogue import load_spec

ARITHMETIC = graphs.LAVA
LAVA, LOIHI1, XYLO, SPECK, REFERENCE = (load_spec(name) for name in ("lava", "loihi1", "xylo", "speck", "reference"))


def fact(value: Any, confidence: Any = "exact") -> Fact[Any]:
    return Fact(value, "a chip made up for this test", confidence)


def chip(**values: Any) -> TargetSpec:
    """A target that can do everything but what these facts say."""
    behaviour = {name: value for name, value in values.items() if hasattr(REFERENCE.behaviour, name)}
    limits = {name: value for name, value in values.items() if name not in behaviour}
    facts = {name: value if isinstance(value, Fact) else fact(value) for name, value in (behaviour | limits).items()}
    return dataclasses.replace(
        REFERENCE,
        name="chip",
        engines=(),
        behaviour=dataclasses.replace(REFERENCE.behaviour, **{name: facts[name] for name in behaviour}),
        limits=dataclasses.replace(REFERENCE.limits, **{name: facts[name] for name in limits}),
    )


def affine(inputs: int = 2, outputs: int = 2, *, bias: bool = False, delay: int = 0) -> Affine:
    weight = 0.5 + np.arange(inputs * outputs).reshape(outputs, inputs) / (inputs * outputs)
    return Affine(weight, np.ones(outputs) if bias else None, delay)


def lif(size: int = 2, *, origin: tuple[str, ...] = (), **changes: Any) -> Neuron:
    """Spiking neurons; `changes` are fields of the membrane or the spike."""
    one = np.ones(size)
    membrane: dict[str, Any] = {"decay": 0.5 * one, "gain": one, "leak": 0 * one}
    spike: dict[str, Any] = {"threshold": one, "reset_value": 0 * one}
    for name, value in changes.items():
        (membrane if name in membrane else spike)[name] = value
    return Neuron(Membrane(**membrane), None, Spike(**spike), origin=origin)


def current_lif(size: int = 2) -> Neuron:
    return policies.lif(size, 0.5, current=0.5)


def readout(size: int = 2) -> Neuron:
    return policies.li(size, 0.5)


def entry(size: int = 2) -> Input:
    return Input((size,), "values", 1.0)


def net(
    *core: Op | tuple[str, Op], inputs: int = 2, outputs: int = 2, level: Level = Level.DISCRETE, spiking: bool = False
) -> Graph:
    """Input of values or of spikes, these nodes, Output in a row."""
    nodes = [item if isinstance(item, tuple) else (f"{item.kind.lower()}{k}", item) for k, item in enumerate(core)]
    first = Input((inputs,), "spikes") if spiking else entry(inputs)
    return chain(level, [("input", first), *nodes, ("output", Output((outputs,)))], dt=1e-3)


def recurrent(delay: int = 1, **nodes: Op) -> Graph:
    """input -> fc -> lif -> output, and lif -> back -> lif."""
    ops: dict[str, Op] = {
        "input": entry(),
        "fc": affine(),
        "lif": lif(),
        "back": affine(delay=delay),
        "output": Output((2,)),
    }
    edges = (("input", "fc"), ("fc", "lif"), ("lif", "output"), ("lif", "back"), ("back", "lif"))
    return Graph(Level.DISCRETE, {**ops, **nodes}, edges, dt=1e-3)


def skip() -> Graph:
    """Two ways of different length into the last layer."""
    nodes: dict[str, Op] = {
        "input": entry(),
        "fc1": affine(),
        "lif1": lif(),
        "fc2": affine(),
        "around": affine(),
        "lif2": lif(),
        "output": Output((2,)),
    }
    edges = (
        ("input", "fc1"),
        ("fc1", "lif1"),
        ("lif1", "fc2"),
        ("fc2", "lif2"),
        ("input", "around"),
        ("around", "lif2"),
        ("lif2", "output"),
    )
    return Graph(Level.DISCRETE, nodes, edges, dt=1e-3)


def fixed(limit: int = 100, weight: int = 2, threshold: int = 1000) -> Graph:
    """An integer graph: Quantise -> Dense -> LIF."""
    neuron = Neuron(IntegerMembrane(4000, np.zeros(2)), None, IntegerSpike(threshold))
    dense = Dense(np.full((2, 2), weight))
    return net(Quantise(2, 1.0, limit), dense, neuron, level=Level.INTEGER).replace(arithmetic=ARITHMETIC)


def continuous_if(shape: tuple[int, ...]) -> Neuron:
    return Neuron(ContinuousMembrane(np.ones(shape)), None, Spike(np.ones(shape), np.zeros(shape)))


def convolution(features: int = 2, kernel: int = 3) -> Graph:
    node = Conv(np.ones((features, 1, kernel, kernel)), None, input_size=(20, 20))
    shape = node.out_shape
    nodes: list[tuple[str, Op]] = [
        ("input", Input((1, 20, 20))),
        ("conv", node),
        ("if", continuous_if(shape)),
        ("output", Output(shape)),
    ]
    return chain(Level.IMPORTED, nodes, dt=1e-3)


def with_contract(subject: Policy, **changes: Any) -> Policy:
    return subject.replace(contract=dataclasses.replace(subject.contract, **changes))


def two_readouts(**nodes: Op) -> Graph:
    """input -> fc1 -> lif1 -> fc2 -> deep -> output."""
    ops: dict[str, Op] = {
        "input": entry(),
        "fc1": affine(),
        "lif1": lif(),
        "fc2": affine(),
        "deep": lif(),
        "output": Output((2,)),
    }
    ops |= nodes
    edges = (("input", "fc1"), ("fc1", "lif1"), ("lif1", "fc2"), ("fc2", "deep"), ("deep", "output"))
    return Graph(Level.DISCRETE, ops, edges, dt=1e-3)


def write_integrators(path: Path, *, names: tuple[str, str] = ("one", "two"), change: float = 0.0) -> None:
    """A file of another tool: 6 spikes to 5 to 3 integrate-and-fire neurons, whose weights are whole 128ths.

    Args:
        names: of the populations. change: of the weight from the first neuron of `one` to the last one of `two`.
    """
    rng = np.random.default_rng(3)
    first, second = rng.integers(-60, 127, (5, 6)), rng.integers(-60, 127, (3, 5))
    first[:, 0] = second[:2, 0] = 127  # so that mantissas of 8 bits hold them exactly
    first, second = first / 128, second / 128
    second[2, 0] = 63 / 128 + change
    one, two = names

    def neurons(size: int) -> nir.IF:
        return nir.IF(r=np.full(size, 1e3), v_threshold=np.ones(size), v_reset=np.zeros(size))

    nodes = {
        "input": nir.Input({"input": np.array([6])}),
        "fc1": nir.Linear(first),
        one: neurons(5),
        "fc2": nir.Linear(second),
        two: neurons(3),
        "output": nir.Output({"output": np.array([3])}),
    }
    order = list(nodes)
    nir.write(path, nir.NIRGraph(nodes, list(itertools.pairwise(order)), type_check=False))
