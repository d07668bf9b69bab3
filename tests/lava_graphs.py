"""Random graphs in stock Lava: what the conformance tests and benchmarks/lava_conformance.py share."""

from __future__ import annotations

import numpy as np
from graphs import LAVA, Case, draw, expected

from nervecord.compiler.graph import chain
from nervecord.compiler.host import Before
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.ops import (
    Array,
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
from nervecord.compiler.plan import plan
from nervecord.compiler.schedule import Schedule
from nervecord.runtime.worker import Worker
from nervecord.targets.lava.network import LavaNetwork

Recorded = dict[str, Array]


def entered(case: Case) -> Recorded:
    """Entry -> (steps, n): what enters the core over all blocks of a case."""
    before, steps = Before(case.plan), case.plan.schedule.steps
    length = len(next(iter(case.inputs.values())))
    blocks = [
        before.enter({name: x[start : start + steps, None] for name, x in case.inputs.items()}, np.int64)
        for start in range(0, length, steps)
    ]
    return {name: np.concatenate([block[name][:, 0] for block in blocks]) for name in blocks[0]}


def differences(case: Case, worker: Worker) -> tuple[list[str], Recorded]:
    """(the populations whose spikes or membranes are not the same in Lava and by definition, Lava's spikes)."""
    wanted = expected(case)
    assert wanted is not None  # the ranges of a case are proved
    outputs, membranes = wanted
    x = entered(case)
    network = LavaNetwork(case.plan, block=len(next(iter(x.values()))), membranes="all", worker=worker)
    got = network.play(x)
    network.rewind()
    wrong = [f"v of {name}" for name, v in got["membranes"].items() if not np.array_equal(v, membranes[name])]
    wrong += [f"spikes of {name}" for name, s in got["spikes"].items() if not np.array_equal(s, outputs[name])]
    assert len(got["membranes"]) == len(case.plan.units)
    return wrong, got["spikes"]


def traits(case: Case) -> dict[str, bool]:
    """What of all that there is this case has."""
    made = case.plan
    dense = [(step.name, step.op) for step in made.connections]
    neurons = [unit.step.op for unit in made.units]
    senders = [entry.name for entry in made.entries] + [unit.step.name for unit in made.units]
    return {
        "delays above 1": any(isinstance(op, Dense) and op.delay > 1 for _, op in dense),
        "the longest delay": any(isinstance(op, Dense) and op.delay == LAVA.delay_max for _, op in dense),
        "graded input": any(made.graded.values()),
        "graded input into a delay": any(
            made.graded[name] and isinstance(op, Dense) and op.delay > 1 for name, op in dense
        ),
        "fan-in": any(len(unit.incoming) > 1 for unit in made.units),
        "fan-out": any(
            sum(tap.source == name for step in made.connections for tap in step.taps) > 1
            for name in senders
        ),
        "several inputs": len(made.entries) > 1,
        "several ends": len(made.reads) > 1,
        "recurrence": any(name in _reached(case, name) for name in senders),
        "carried state": not made.schedule.resets,
        "reset windows": made.schedule.resets,
        "readouts": any(not op.spikes for op in neurons),
        "synaptic current": any(isinstance(op, Neuron) and op.synapse is not None for op in neurons),
        "negative exponents": any(isinstance(op, Dense) and op.weight_exp < 0 for _, op in dense),
    }  # fmt: skip


def _reached(case: Case, name: str) -> set[str]:
    found: set[str] = set()
    waiting = list(case.plan.graph.destinations(name))
    while waiting:
        following = waiting.pop()
        if following not in found:
            found.add(following)
            waiting += case.plan.graph.destinations(following)
    return found


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
        made = plan(chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA), schedule)
        if any(f.severity == "error" for f in overflows(prove(made), LAVA)):
            continue
        x = rng.integers(-9 if graded else 0, 9 if graded else 1, endpoint=True, size=(steps * (30 // steps), sizes[0]))
        return Case(seed, made, {"input": x})
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


__all__ = ["Case", "chained", "differences", "draw", "entered", "expected", "traits"]
