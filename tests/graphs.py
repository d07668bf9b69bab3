"""Random INTEGER graphs of every shape that is legal, within what an arithmetic can hold, for the conformance tests.

Directed graphs with skips, fan-in, several inputs and outputs, recurrence where state is carried; node and edge order
permuted; extremes of every parameter.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.graph import Edge, Graph, chain
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.ops import (
    Array,
    BiasChannel,
    Dense,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Level,
    Neuron,
    Op,
    Output,
)
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import GraphError

LAVA = Arithmetic(
    weight_bits=8,
    weight_signs="mode",
    weight_exponent_low=-8,
    weight_exponent_high=7,
    accumulate="sum-then-shift",
    product_bits=32,
    input_shift=6,
    current_bits=24,
    current_overflow="wrap-once",
    membrane_bits=24,
    membrane_overflow="saturate-symmetric",
    decay="factor",
    decay_bits=12,
    decay_rounding="zero",
    current_decay_low=1,
    order="current-first",
    threshold_bits=17,
    threshold_shift=6,
    compare=">",
    reset="zero",
    spikes_per_step=1,
    bias_bits=13,
    bias_exponent_high=7,
    bias_enters="membrane",
    readout="largest-threshold",
    graded_bits=16,
    connection_delay=1,
    delay_max=63,
)
"""Lava's fixed point, as targets/lava/spec.toml states it."""


@dataclass(frozen=True)
class Case:
    """A graph with its plan and what enters it.

    Args:
        inputs: Input -> (steps, n).
    """

    seed: int
    plan: Plan
    inputs: dict[str, Array]


class NoneDrawnError(AssertionError):
    """An arithmetic is so narrow that no graph was drawn in it."""


def draw(seed: int, arithmetic: Arithmetic = LAVA) -> Case:
    """A random case: legal, planned, and its ranges proved.

    Raises:
        NoneDrawnError: there is none.
    """
    for attempt in range(200):
        rng = np.random.default_rng([seed, attempt])
        sample = _attempt(rng, arithmetic)
        if sample is None:
            continue
        graph, schedule, inputs = sample
        network_plan = plan(graph, schedule)
        if not any(f.severity == "error" for f in overflows(prove(network_plan), arithmetic)):
            return Case(seed, network_plan, inputs)
    raise NoneDrawnError(f"no legal graph was drawn for seed {seed}")


def _attempt(rng: np.random.Generator, arithmetic: Arithmetic) -> tuple[Graph, Schedule, dict[str, Array]] | None:
    carried = bool(rng.random() < 0.5)
    steps = int(rng.integers(1, 12)) if not carried or rng.random() < 0.3 else 1
    nodes: dict[str, Op] = {}
    edges: list[Edge] = []
    limits: dict[str, int] = {}
    for k in range(int(rng.integers(1, 3))):
        graded = arithmetic.graded_bits > 0 and rng.random() < 0.5
        limit = min(int(rng.choice([1, 9, 500, arithmetic.graded_limit])), arithmetic.graded_limit) if graded else 1
        size = int(rng.integers(1, 8))
        nodes[f"input{k}"] = Input((size,), "values" if graded else "spikes", float(limit) if graded else None)
        limits[f"input{k}"] = limit if graded else 0
        if not graded and rng.random() < 0.3:
            nodes[f"bias{k}"] = BiasChannel(size)
            edges.append((f"input{k}", f"bias{k}"))
    behind = dict(edges)
    sources = [behind.get(name, name) for name in nodes if name.startswith("input")]
    populations: list[str] = []
    phases = dict.fromkeys(sources, 0)
    sizes = {name: nodes[name].size for name in sources}
    for k in range(int(rng.integers(1, 6))):
        name, size = f"neurons{k}", int(rng.integers(1, 9))
        count = min(int(rng.choice([1, 1, 1, 2, 3])), len(sources))
        origins = [str(s) for s in rng.choice(sources, size=count, replace=False)]
        phase = max(phases[s] for s in origins) + max(arithmetic.connection_delay, 1)
        phase += int(rng.choice([0, 0, 0, 3, 20]))
        largest = 1
        for j, source in enumerate(origins):
            delay = phase - phases[source]
            if carried:
                delay = int(rng.choice([arithmetic.connection_delay, 1, 2, 5, arithmetic.delay_max]))
                delay = max(delay, 1)
            if delay > arithmetic.delay_max:
                return None
            dense = _dense(rng, arithmetic, sizes[source], size, max(limits.get(source, 0), 1), delay, count)
            nodes[f"dense{k}.{j}"] = dense
            edges += [(source, f"dense{k}.{j}"), (f"dense{k}.{j}", name)]
            shifted = int(np.abs(dense.weight).max())
            largest = max(
                largest, shifted << dense.weight_exp if dense.weight_exp > 0 else shifted >> -dense.weight_exp
            )
        nodes[name] = _neurons(rng, arithmetic, size, largest)
        phases[name], sizes[name] = phase, size
        populations.append(name)
        sources.append(name)
    if carried:
        _recurrence(rng, arithmetic, nodes, edges, populations, sizes)
    fed = {a for a, _ in edges}
    for name in [n for n in limits if behind.get(n, n) not in fed]:
        del nodes[name], limits[name]
        if name in behind:
            del nodes[behind[name]]
            edges.remove((name, behind[name]))
    ends = [name for name in populations if name not in fed]
    ends += [name for name in populations if name in fed and rng.random() < 0.2]
    for k, name in enumerate(ends or populations[-1:]):
        nodes[f"output{k}"] = Output((sizes[name],))
        edges.append((name, f"output{k}"))
        if name not in fed and rng.random() < 0.5 and arithmetic.readout != "none":
            nodes[name] = _readout(rng, arithmetic, nodes[name])
    names = [str(name) for name in rng.permutation(list(nodes))]
    graph = Graph(
        Level.INTEGER,
        {name: nodes[name] for name in names},
        tuple(edges[int(i)] for i in rng.permutation(len(edges))),
        1e-3,
        arithmetic,
    )
    schedule = Schedule(steps, "carried" if carried else "reset")
    return graph, schedule, _inputs(rng, graph, limits, steps)


def _inputs(rng: np.random.Generator, graph: Graph, limits: dict[str, int], steps: int) -> dict[str, Array]:
    length = steps * max(1, int(rng.integers(20, 60)) // steps)
    inputs = {}
    for name in graph.inputs:
        limit, size = limits[name], graph.nodes[name].size
        x = rng.integers(-limit, max(limit, 1), endpoint=True, size=(length, size))
        # Stretches of extreme and of no input.
        x[rng.random(length) < 0.1] = max(limit, 1)
        x[rng.random(length) < 0.2] = 0
        inputs[name] = x
    return inputs


def _recurrence(
    rng: np.random.Generator,
    arithmetic: Arithmetic,
    nodes: dict[str, Op],
    edges: list[Edge],
    populations: list[str],
    sizes: dict[str, int],
) -> None:
    for k in range(int(rng.integers(0, 3))):
        a, b = (str(name) for name in rng.choice(populations, size=2))
        delay = min(max(int(rng.choice([arithmetic.connection_delay, 1, 3])), 1), arithmetic.delay_max)
        nodes[f"back{k}"] = _dense(rng, arithmetic, sizes[a], sizes[b], 1, delay, 3)
        edges += [(a, f"back{k}"), (f"back{k}", b)]


def _dense(
    rng: np.random.Generator, arithmetic: Arithmetic, fan_in: int, size: int, limit: int, delay: int, beside: int
) -> Dense:
    """beside: connections that share the accumulator."""
    mode = str(rng.choice(["mixed", "excitatory", "inhibitory"], p=[0.6, 0.25, 0.15]))
    mixed = mode == "mixed"
    low_bits = 2 if mixed else 1
    bits = int(rng.integers(min(low_bits, arithmetic.weight_bits), arithmetic.weight_bits + 1))
    step = arithmetic.weight_step(bits, mixed=mixed)
    low, high = arithmetic.weight_range(mixed=mixed, positive=mode == "excitatory")
    low, high = (low, high) if mixed else (0, high) if mode == "excitatory" else (low, 0)
    weight = rng.integers(-(-low // step), high // step, endpoint=True, size=(size, fan_in)) * step
    if rng.random() < 0.2:
        weight[rng.random(weight.shape) < 0.8] = 0
    product = int(np.abs(weight).sum(axis=1).max()) * limit
    while product * beside >= arithmetic.product_limit:
        weight[:, np.abs(weight).sum(axis=0).argmax()] = 0
        product = int(np.abs(weight).sum(axis=1).max()) * limit
    if weight.max() <= 0:  # then a chip with sign modes takes them for inhibitory, which have one value less
        weight[weight < arithmetic.weight_range(mixed=False, positive=False)[0]] += step
    room = arithmetic.accumulator_limit // beside - 1
    exponents = [
        e
        for e in range(arithmetic.weight_exponent_low, arithmetic.weight_exponent_high + 1)
        if (product << e if e > 0 else product >> -e) < room
    ]
    if not exponents:
        return Dense(np.zeros_like(weight), 0, bits, delay)
    # Often the largest exponent whose sum the accumulator still holds.
    exponent = exponents[-1] if rng.random() < 0.5 else int(rng.choice(exponents))
    return Dense(weight, exponent, bits, delay)


def _neurons(rng: np.random.Generator, arithmetic: Arithmetic, size: int, typical: int) -> Neuron:
    last = arithmetic.decay_codes - 1

    def code(least: int) -> int:
        return max(least, int(rng.choice([0, 1, last - 1, last, rng.integers(last + 1)])))

    low, high = arithmetic.bias_range
    bias = rng.integers(low, high, endpoint=True, size=size) // int(rng.choice([1, 40, 4096]))
    bias = np.where(rng.random(size) < 0.3, 0, bias)
    membrane = IntegerMembrane(code(0), bias, int(rng.integers(arithmetic.bias_exponent_high + 1)))
    synapse = IntegerSynapse(code(max(arithmetic.current_decay_low, 1))) if rng.random() < 0.4 else None
    most = arithmetic.threshold_largest
    threshold = int(rng.choice([0, 1, typical, 3 * typical, most, rng.integers(most + 1)]))
    if arithmetic.reset == "subtract":
        threshold = max(threshold, 1)
    return Neuron(membrane, synapse, IntegerSpike(min(threshold, most)))


def _readout(rng: np.random.Generator, arithmetic: Arithmetic, neuron: Op) -> Neuron:
    """Read instead of spiking, with biases that do not saturate it."""
    assert isinstance(neuron, Neuron)
    membrane = neuron.membrane
    assert isinstance(membrane, IntegerMembrane)
    bias = rng.integers(-1, 1, endpoint=True, size=membrane.bias.shape).clip(*arithmetic.bias_range)
    return neuron.replace(membrane=dataclasses.replace(membrane, bias=bias, bias_exp=0), spike=None)


def chained(seed: int) -> Case:
    """A random chain within netx's format: no exponent, biases in steps of 64, no delays."""
    for attempt in range(100):
        rng = np.random.default_rng([seed, attempt])
        sizes = [int(k) for k in rng.integers(1, 13, size=rng.integers(2, 5))]
        graded = bool(rng.random() < 0.6)
        nodes: list[tuple[str, Op]] = [
            ("input", Input((sizes[0],), "values" if graded else "spikes", 9.0 if graded else None))
        ]
        for k, size in enumerate(sizes[1:]):
            last = k == len(sizes) - 2 and rng.random() < 0.7
            nodes += [
                (f"dense{k}", _plain_dense(rng, size, sizes[k])),
                (f"neurons{k}", _plain_neurons(rng, size, last)),
            ]
        nodes.append(("output", Output((sizes[-1],))))
        steps = int(rng.integers(1, 12))
        schedule = Schedule(steps, "reset" if rng.random() < 0.6 else "carried")
        network_plan = plan(chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA), schedule)
        if any(f.severity == "error" for f in overflows(prove(network_plan), LAVA)):
            continue
        x = rng.integers(-9 if graded else 0, 9 if graded else 1, endpoint=True, size=(steps * (30 // steps), sizes[0]))
        return Case(seed, network_plan, {"input": x})
    raise AssertionError(f"no chain was drawn for seed {seed}")


def _plain_dense(rng: np.random.Generator, size: int, fan_in: int) -> Dense:
    low, high, mixed = ((-128, 127, True), (0, 255, False), (-255, 0, False))[int(rng.integers(3))]
    bits = int(rng.integers(2, 9))
    step = LAVA.weight_step(bits, mixed=mixed)
    return Dense(rng.integers(-(-low // step), high // step, endpoint=True, size=(size, fan_in)) * step, 0, bits, 1)


def _plain_neurons(rng: np.random.Generator, size: int, last: bool) -> Neuron:
    def decay(least: int) -> int:
        return int(rng.choice([least, 4094, 4095, rng.integers(least, 4096)]))

    bias = rng.integers(-20, 20, size=size) * int(rng.integers(2))
    synapse = IntegerSynapse(decay(1)) if rng.random() < 0.5 else None
    spike = None if last else IntegerSpike(int(rng.choice([1, 300, rng.integers(131072)])))
    return Neuron(IntegerMembrane(decay(1), bias, 6), synapse, spike)


def expected(case: Case) -> tuple[dict[str, Array], dict[str, Array]] | None:
    """By definition: (what every core node gave, what populations show) at every step; None where a readout fires."""
    machine = Machine(case.plan)
    populations = [unit.step.name for unit in case.plan.units]
    outputs: dict[str, list[Array]] = {step.name: [] for step in case.plan.core}
    membranes: dict[str, list[Array]] = {name: [] for name in populations}
    steps = case.plan.schedule.steps
    try:
        for start in range(0, len(next(iter(case.inputs.values()))), steps):
            entered = machine.before.enter(
                {n: x[start : start + steps, None] for n, x in case.inputs.items()}, np.int64
            )
            for t in range(case.plan.window):
                values = machine.step({name: rows[t] for name, rows in entered.items()})
                for name, value in values.items():
                    outputs[name].append(value[0])
                for name in populations:
                    membranes[name].append(machine.state[name][case.plan.step(name).op.SHOWN][0])
    except GraphError:
        return None
    return {n: np.stack(v) for n, v in outputs.items()}, {n: np.stack(v) for n, v in membranes.items()}
