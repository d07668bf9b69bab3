"""Random graphs in stock Lava: what the conformance tests and benchmarks/lava_conformance.py share."""

from __future__ import annotations

import numpy as np
from graphs import LAVA, Case, chained, draw, expected

from nervecord.compiler.ops import Array, BiasChannel, Dense, Neuron
from nervecord.compiler.plan.host_steps import BeforeCore
from nervecord.runtime.worker.parent import Worker
from nervecord.targets.lava.network import LavaNetwork

Recorded = dict[str, Array]


def entered(case: Case) -> Recorded:
    """Entry -> (steps, n): what enters the core over all blocks of a case."""
    before, steps = BeforeCore(case.plan), case.plan.schedule.steps
    length = len(next(iter(case.inputs.values())))
    blocks = [
        before.enter({name: x[start : start + steps, None] for name, x in case.inputs.items()}, np.int64)
        for start in range(0, length, steps)
    ]
    return {name: np.concatenate([block[name][:, 0] for block in blocks]) for name in blocks[0]}


def differences(case: Case, worker: Worker) -> tuple[list[str], Recorded]:
    """(the populations whose spikes or membranes are not the same in Lava and by definition, Lava's spikes)."""
    reference = expected(case)
    assert reference is not None  # the ranges of a case are proved
    outputs, membranes = reference
    x = entered(case)
    network = LavaNetwork(case.plan, block=len(next(iter(x.values()))), membranes="all", worker=worker)
    reply = network.play(x)
    network.rewind()
    wrong = [f"v of {name}" for name, v in reply["membranes"].items() if not np.array_equal(v, membranes[name])]
    wrong += [f"spikes of {name}" for name, s in reply["spikes"].items() if not np.array_equal(s, outputs[name])]
    assert len(reply["membranes"]) == len(case.plan.units)
    return wrong, reply["spikes"]


def traits(case: Case) -> dict[str, bool]:
    """What of all that there is this case has."""
    network_plan = case.plan
    dense = [(step.name, step.op) for step in network_plan.connections]
    neurons = [unit.step.op for unit in network_plan.units]
    senders = [entry.name for entry in network_plan.entries] + [unit.step.name for unit in network_plan.units]
    return {
        "delays above 1": any(isinstance(op, Dense) and op.delay > 1 for _, op in dense),
        "the longest delay": any(isinstance(op, Dense) and op.delay == LAVA.delay_max for _, op in dense),
        "graded input": any(network_plan.graded.values()),
        "graded input into a delay": any(
            network_plan.graded[name] and isinstance(op, Dense) and op.delay > 1 for name, op in dense
        ),
        "bias channel": any(isinstance(entry.op, BiasChannel) for entry in network_plan.entries),
        "fan-in": any(len(unit.incoming) > 1 for unit in network_plan.units),
        "fan-out": any(
            sum(tap.source == name for step in network_plan.connections for tap in step.taps) > 1 for name in senders
        ),
        "several inputs": len(network_plan.entries) > 1,
        "several ends": len(network_plan.reads) > 1,
        "recurrence": any(name in _reached(case, name) for name in senders),
        "carried state": not network_plan.schedule.resets,
        "reset windows": network_plan.schedule.resets,
        "readouts": any(not op.spikes for op in neurons),
        "synaptic current": any(isinstance(op, Neuron) and op.synapse is not None for op in neurons),
        "negative exponents": any(isinstance(op, Dense) and op.weight_exp < 0 for _, op in dense),
    }


def _reached(case: Case, name: str) -> set[str]:
    names: set[str] = set()
    waiting = list(case.plan.graph.destinations(name))
    while waiting:
        following = waiting.pop()
        if following not in names:
            names.add(following)
            waiting += case.plan.graph.destinations(following)
    return names


__all__ = ["Case", "chained", "differences", "draw", "entered", "expected", "traits"]
