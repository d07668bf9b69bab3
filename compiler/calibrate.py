"""Facts about a policy from recorded observations: what the float graph does on them.

Calibration chooses scales; it proves nothing. Ranges are proved in `compiler.ranges`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler import semantics
from nervecord.compiler.graph import Graph, Level
from nervecord.compiler.interpret import Machine
from nervecord.compiler.node import Array
from nervecord.compiler.verify import require
from nervecord.errors import ContractError

MINIMUM_OBSERVATIONS = 16
"""Fewer say nothing about a scale."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a policy did on recorded observations.

    Args:
        observations: (k, observations), as recorded.
        actions: (k, actions) the float graph answered, starting each from a cleared core (state "reset") or running
            through them in order (state "carried").
        spikes_per_action: spiking node -> mean number of spikes in one action; the population code is one.
        saturated: share of normalised values at the normaliser's clip.
        preferences: (k, choices) what the float graph held of each action, where its action is a choice; else None.
    """

    observations: Array
    actions: Array
    spikes_per_action: Mapping[str, float]
    saturated: float
    preferences: Array | None = None


def calibrate(graph: Graph, observations: Array | None = None) -> Calibration:
    """Run the float policy on observations: the ones it carries, or others.

    Args:
        graph: DISCRETE, with a contract.
        observations: (k, observations), at least 16 rows of finite numbers; None takes `graph.recorded`.

    Raises:
        ContractError: there are no observations, or they do not match the contract.
    """
    require(graph, Level.DISCRETE)
    if graph.contract is None:
        raise ContractError("the graph carries no contract, so nothing can be calibrated", where="graph")
    given = graph.recorded if observations is None else np.asarray(observations, dtype=np.float64)
    if given is None:
        raise ContractError(
            "the policy carries no recorded observations",
            where="graph",
            hint="give some: --calibration observations.npz",
        )
    size = graph.contract.observation.size
    if given.ndim != 2 or given.shape[1] != size:
        raise ContractError(f"observations have shape {given.shape}, (k, {size}) is needed", where="calibration")
    if len(given) < MINIMUM_OBSERVATIONS:
        raise ContractError(
            f"{len(given)} observations are too few, {MINIMUM_OBSERVATIONS} are needed", where="calibration"
        )
    if not np.isfinite(given).all():
        raise ContractError("observations hold NaN or infinite values", where="calibration")
    return _run(graph, given)


def _run(graph: Graph, observations: Array) -> Calibration:
    assert graph.contract is not None
    # State "reset": every observation is its own window, so all are one batch.
    carried = graph.contract.state == "carried"
    rows = observations[:, None, :] if carried else observations[None]
    machine = Machine(graph, rows.shape[1])
    spiking = [name for name, _ in graph.of_type(*n.SPIKING)]
    coded = [name for name, _ in graph.of_type(n.PopulationEncode)]
    totals = dict.fromkeys((*coded, *spiking), 0.0)
    chooses = bool(graph.contract.choices)
    actions, preferences = [], []
    for row in rows:
        action, steps = machine.window(row)
        actions.append(action)
        if chooses:
            preferences.append(machine.host.preferences(machine.left))
        for name in coded:
            totals[name] += float(machine.entered.sum())
        for values in steps:
            for name in spiking:
                totals[name] += float(values[name].sum())
    normalisers = [node for _, node in graph.of_type(n.Normalise) if isinstance(node, n.Normalise)]
    return Calibration(
        observations=observations,
        actions=np.concatenate(actions),
        spikes_per_action={name: total / len(observations) for name, total in totals.items()},
        saturated=max((_saturated(node, observations) for node in normalisers), default=0.0),
        preferences=np.concatenate(preferences) if chooses else None,
    )


def _saturated(node: n.Normalise, observations: Array) -> float:
    return float(np.mean(np.abs(semantics.normalise(node, observations)) >= node.clip))
