"""What the emulator's tests and its long run share: other arithmetics, policies of every shape, and the comparison."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from graphs import Case

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import Edge
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.ops import (
    ArgmaxDecode,
    Array,
    BiasChannel,
    CountArgmaxDecode,
    CountDecode,
    Decode,
    Input,
    Neuron,
    Normalise,
    Op,
    Output,
    PopulationEncode,
    Quantise,
)
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.runtime.engines.emulator.session import Emulator


def random_arithmetic(seed: int) -> Arithmetic:
    """Any arithmetic that the schema can say, of every choice and many widths."""
    rng = np.random.default_rng(seed)

    def one(*options: Any) -> Any:
        return options[int(rng.integers(len(options)))]

    decay = one("factor", "shift")
    current_bits, membrane_bits = int(rng.integers(14, 33)), int(rng.integers(12, 33))
    input_shift = int(rng.integers(0, 7))
    reset = one("zero", "subtract")
    threshold_shift = int(rng.integers(0, 7))
    delay = one(0, 1, 1)
    return Arithmetic(
        weight_bits=int(rng.integers(4, 17)),
        weight_signs=one("twos-complement", "mode"),
        weight_exponent_low=-int(rng.integers(0, 13)),
        weight_exponent_high=int(rng.integers(0, 8)),
        accumulate=one("sum-then-shift", "shift-each"),
        product_bits=int(rng.integers(32, 54)),
        input_shift=input_shift,
        current_bits=current_bits,
        current_overflow=one("saturate", "saturate-symmetric", "wrap", "wrap-once"),
        membrane_bits=membrane_bits,
        membrane_overflow=one("saturate", "saturate-symmetric", "wrap", "wrap-once"),
        decay=decay,
        decay_bits=int(rng.integers(2, 6)) if decay == "shift" else int(rng.integers(4, 17)),
        decay_rounding=one("floor", "at-least-one") if decay == "shift" else one("zero", "floor", "half-up"),
        current_decay_low=one(0, 1),
        order=one("current-first", "membrane-first"),
        threshold_bits=max(1, min(membrane_bits - 1 - threshold_shift, 20)),
        threshold_shift=threshold_shift,
        compare=one(">", ">="),
        reset=reset,
        spikes_per_step=one(1, 3, 255) if reset == "subtract" else 1,
        bias_bits=one(0, 8, 13),
        bias_exponent_high=int(rng.integers(0, 5)),
        bias_enters=one("membrane", "current"),
        readout=one("membrane", "membrane", "largest-threshold"),
        graded_bits=one(0, 8, 16, 24),
        connection_delay=delay,
        delay_max=one(max(delay, 1), 63, 4096),
    )


def widest_arithmetic(seed: int) -> Arithmetic:
    """Any arithmetic whose widths and shifts are often the smallest and the largest that the schema takes."""
    rng = np.random.default_rng([seed, 1])

    def number(low: int, high: int) -> int:
        return int(rng.choice([low, high, rng.integers(low, high, endpoint=True)]))

    def width() -> int:
        return int(rng.choice([8, 16, 24, 31, 32, rng.integers(8, 33)]))

    base = random_arithmetic(seed)
    current_bits, membrane_bits = width(), width()
    saturates = rng.random() < 0.5  # as what wraps is refused where it might
    return dataclasses.replace(
        base,
        weight_bits=number(1, 16),
        weight_exponent_low=-number(0, 24),
        weight_exponent_high=number(0, 24),
        product_bits=number(20, 53),
        input_shift=min(number(0, 16), min(current_bits, membrane_bits) - 2),
        current_bits=current_bits,
        current_overflow="saturate" if saturates else base.current_overflow,
        membrane_bits=membrane_bits,
        membrane_overflow="saturate" if saturates else base.membrane_overflow,
        decay_bits=number(1, 5) if base.decay == "shift" else number(1, 16),
        threshold_bits=number(1, 31),
        threshold_shift=number(0, 16),
        bias_bits=number(0, 24),
        bias_exponent_high=number(0, 16),
        graded_bits=int(rng.choice([0, 2, 24, rng.integers(2, 25)])),
    )


def policy_of(case: Case, *, choices: bool = False) -> Policy | None:
    """A case's graph as a policy: normalised and encoded observations in, decoded actions out.

    None where no range can be proved for it, and where a bias channel stands beside its spikes: the population code
    that stands for those has a channel of its own.
    """
    rng = np.random.default_rng(case.seed)
    graph = case.plan.graph
    if any(isinstance(op, BiasChannel) for op in graph.nodes.values()):
        return None
    nodes: dict[str, Op] = {}
    edges: list[Edge] = []
    observations = actions = 0
    for name, op in graph.nodes.items():
        if isinstance(op, Input):
            coded = op.spikes and op.size >= 2
            channels = op.size // 2 if coded else op.size
            code: Op = Quantise(channels, float(rng.choice([1, 30, 500])), int(op.bound or 1))
            if coded:
                means = np.sort(rng.normal(size=(channels, 2)) * 2, axis=1)
                code = PopulationEncode(means, float(rng.uniform(0.1, 2)), always=bool(op.size % 2))
            normalise = Normalise(rng.normal(size=channels), rng.uniform(0.1, 2, size=channels), 1e-8, 8.0)
            nodes |= {name: Input((channels,)), f"{name} normalised": normalise, f"{name} coded": code}
            edges += [(name, f"{name} normalised"), (f"{name} normalised", f"{name} coded")]
            observations += channels
        elif isinstance(op, Output):
            (source,) = graph.sources(name)
            decode = _decoder(rng, graph.nodes[source], choices and len(graph.outputs) == 1)
            nodes |= {f"{name} decoded": decode, name: Output(decode.out_shape)}
            edges.append((f"{name} decoded", name))
            actions += decode.size
        else:
            nodes[name] = op
    for a, b in graph.edges:
        start = f"{a} coded" if isinstance(graph.nodes[a], Input) else a
        edges.append((start, f"{b} decoded" if isinstance(graph.nodes[b], Output) else b))
    choice_count = next((op.choices for op in nodes.values() if isinstance(op, (ArgmaxDecode, CountArgmaxDecode))), 0)
    limits = ((0.0,), (choice_count - 1.0,)) if choice_count else ((-9.0,) * actions, (9.0,) * actions)
    contract = Contract(
        environment="none",
        steps=case.plan.schedule.steps,
        state=case.plan.schedule.state,
        control_period=0.05,
        observation=Channels(tuple(f"o{k}" for k in range(observations)), ("",) * observations),
        action=Channels(tuple(f"a{k}" for k in range(actions)), ("",) * actions, *limits),
        fail_safe=limits[1],
        choices=tuple(f"choice {k}" for k in range(choice_count)),
    )
    policy = Policy(graph.replace(nodes=nodes, edges=tuple(edges)), contract)
    assert graph.arithmetic is not None
    ranges = overflows(prove(plan(policy)), graph.arithmetic)
    return None if any(finding.severity == "error" for finding in ranges) else policy


def _decoder(rng: np.random.Generator, source: Op, choices: bool) -> Op:
    assert isinstance(source, Neuron)
    n = source.size
    if not source.spikes:
        if choices and n > 1:
            return ArgmaxDecode(n, 0.1)
        return Decode(rng.normal(size=n) * 0.01, rng.normal(size=n), [-9.0] * n, [9.0] * n)
    neurons = 2 if n % 2 == 0 else 1
    shape = (n // neurons, neurons)
    if choices and shape[0] > 1:
        return CountArgmaxDecode(rng.normal(size=shape), rng.normal(size=shape[0]))
    return CountDecode(rng.normal(size=shape), rng.normal(size=shape[0]), [-9.0] * shape[0], [9.0] * shape[0])


def observations_of(policy: Policy, seed: int, count: int, batch: int) -> Array:
    """(count, batch, observations), now and then far out."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, batch, policy.contract.observation.size)) * 3
    x[rng.random(x.shape) < 0.05] *= 1e6
    return x


def assert_same_blocks(case: Case, batch: int, **form: Any) -> Emulator:
    """Definition and emulator on a case: what leaves, every value of every step, and the state after every block."""
    network_plan: Plan = case.plan
    machine, emulator = Machine(network_plan, batch), Emulator(network_plan, batch, **form)
    steps = network_plan.schedule.steps
    inputs = {
        name: np.stack([np.roll(x, 3 * b, axis=0) for b in range(batch)], axis=1) for name, x in case.inputs.items()
    }
    every = np.ones(batch, dtype=np.bool_)
    for start in range(0, len(next(iter(inputs.values()))), steps):
        block = {name: x[start : start + steps] for name, x in inputs.items()}
        (outputs, values), actual = machine.block(block), emulator.block(block, every)
        for name, rows in outputs.items():
            np.testing.assert_array_equal(actual[name], rows, err_msg=f"seed {case.seed}, {start}: {name}")
        trace = emulator.trace()
        assert list(trace) == list(values[0])
        for name, rows in trace.items():
            expected = np.stack([step[name] for step in values])
            np.testing.assert_array_equal(rows, expected, err_msg=f"seed {case.seed}, {start}: {name}")
        assert_same_state(machine.state, emulator.state())
        if batch > 1 and start == 5 * steps:
            machine.clear(np.array([1]))
            emulator.clear(np.array([1]))
    return emulator


def assert_same_state(expected: dict[str, dict[str, Array]], actual: dict[str, dict[str, Array]]) -> None:
    """Integer states by node and name."""
    assert list(expected) == list(actual)
    for name, state in expected.items():
        assert sorted(state) == sorted(actual[name]), name
        for key, value in state.items():
            np.testing.assert_array_equal(actual[name][key], value, err_msg=f"{name}: {key}")
