"""Facts about a graph from recorded input: what its floats do on it.

Calibration chooses scales; it proves nothing. Ranges are proved in `compiler.lower.ranges`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array, Normalise
from nervecord.compiler.plan.host_steps import split
from nervecord.compiler.plan.interpret import Machine, Trace, simulate, stream_inputs, within_float64
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import ContractError

MINIMUM_OBSERVATIONS = 16
"""Fewer say nothing about a scale."""
WORK = 1_500_000_000
"""Multiplications that running recorded input may cost: of a large network fewer observations are taken."""
STEPS = 1 << 16
"""Steps of the core that may be run one after another: where an action takes many, fewer observations are taken."""
NODES = 16
"""Nodes of a core up to which `STEPS` count; those of a longer one count as if they were steps."""
MEMORY = 1 << 25
"""Values of float64 that a batch of windows may keep at once."""
LARGEST_WINDOW = 1 << 27
"""Values that the window of one observation may keep; 1 GiB."""
LARGEST_ACTION = 1e150
"""The squares of larger ones, which errors are made of, go beyond float64."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a policy did on recorded observations.

    Args:
        observations: (k, observations), as recorded.
        actions: (k, actions) the float graph answered, starting each from a cleared core (state "reset") or running
            through them in order (state "carried").
        spikes_per_action: spiking population -> mean number of spikes in one action; the population code is one.
        saturated: share of normalised values at the normaliser's clip.
        preferences: (k, choices) what the float graph held of each action, where its action is a choice; else None.
    """

    observations: Array
    actions: Array
    spikes_per_action: Mapping[str, float]
    saturated: float
    preferences: Array | None = None


@dataclass(frozen=True, slots=True)
class StreamCalibration:
    """What a graph that is no policy did on recorded input.

    Args:
        inputs: Input -> (steps, ...). left: Output -> (steps, ...) of the float graph.
        spikes_per_step: spiking population -> mean number of spikes in one step.
    """

    inputs: Mapping[str, Array]
    left: Mapping[str, Array]
    spikes_per_step: Mapping[str, float] = field(default_factory=dict)


def calibrate(policy: Policy, observations: Array | None = None) -> Calibration:
    """Run the float policy on observations: the ones it carries, or others.

    Args:
        policy: DISCRETE.
        observations: (k, observations), at least 16 rows of finite numbers; None takes `policy.recorded`.

    Raises:
        ContractError: there are no observations, they do not match the contract, one takes too many steps, or the
            actions are too large to be compared.
        GraphError: a value goes beyond float64.
    """
    recording = policy.recorded if observations is None else np.asarray(observations, dtype=np.float64)
    if recording is None:
        raise ContractError(
            "the policy carries no recorded observations",
            where="graph",
            hint="give some: --calibration observations.npz",
        )
    size = policy.contract.observation.size
    if recording.ndim != 2 or recording.shape[1] != size:
        raise ContractError(f"observations have shape {recording.shape}, (k, {size}) is needed", where="calibration")
    if len(recording) < MINIMUM_OBSERVATIONS:
        raise ContractError(
            f"{len(recording)} observations are too few, {MINIMUM_OBSERVATIONS} are needed", where="calibration"
        )
    if not np.isfinite(recording).all():
        raise ContractError("observations hold NaN or infinite values", where="calibration")
    policy_plan = plan(policy)
    return _run(
        policy_plan,
        recording[
            spread(len(recording), affordable(policy_plan, len(recording)), carried=not policy_plan.schedule.resets)
        ],
    )


def calibrate_stream(plan: Plan, inputs: Array | Mapping[str, Array]) -> StreamCalibration:
    """Run a float graph that is no policy on recorded input, (steps, n) of each Input.

    Raises:
        GraphError: an input is missing, unknown, or of another shape.
    """
    arrays = {name: rows[:, 0] for name, rows in stream_inputs(plan.graph, inputs).items()}
    count = affordable(plan, len(next(iter(arrays.values()))))
    arrays = {name: rows[:count] for name, rows in arrays.items()}
    trace: Trace = simulate(plan.graph, arrays, plan.schedule)
    spikes = {name: float(rows.sum()) / len(rows) for name, rows in trace.spikes(plan.graph).items()}
    return StreamCalibration(arrays, {name: rows[:, 0] for name, rows in trace.left.items()}, spikes)


def affordable(plan: Plan, count: int, work: int = WORK, steps: int = STEPS) -> int:
    """How many of `count` blocks can be run for `work` multiplications and `steps` steps one after another.

    At least `MINIMUM_OBSERVATIONS`, if so many do not take more steps.

    Raises:
        ContractError: a single one takes more steps.
    """
    if plan.window > steps:
        raise ContractError(
            f"one observation takes {plan.window} steps of the core, at most {steps} are run to choose scales",
            where="calibration",
            hint="fewer steps for an action; the target reference needs no scales",
        )
    weights = sum(s.stored for s in (step.op.synapses() for step in plan.connections) if s is not None)
    return min(count, max(MINIMUM_OBSERVATIONS, work // max(weights * plan.window, 1)), in_time(plan, steps))


def in_time(plan: Plan, steps: int = STEPS) -> int:
    """How many blocks can be run within so many steps one after another; at least one."""
    at_once = _at_once(plan) if plan.schedule.resets else 1
    return max(1, steps * NODES // (max(NODES, len(plan.core)) * plan.window)) * at_once


def spread(available: int, most: int, *, carried: bool) -> Array:
    """Row numbers: spread over all, or the first ones where they must follow one another."""
    count = min(available, most)
    return np.arange(count) if carried else np.unique(np.linspace(0, available - 1, count).astype(np.int64))


def _run(plan: Plan, observations: Array) -> Calibration:
    machine = Machine(plan)
    spiking = [step.name for step in plan.core if step.op.spikes]
    coded = [entry.name for entry in plan.entries if entry.entering == "pulses"]
    totals = dict.fromkeys((*coded, *spiking), 0.0)
    chooses = plan.contract is not None and bool(plan.contract.choices)
    actions, preferences = [], []
    for row in batches(plan, observations):
        if len(row) != machine.batch:
            machine.reset(len(row))
        with within_float64():
            action, steps = machine.window(row)
        largest = float(np.abs(action).max())
        if not largest <= LARGEST_ACTION:
            raise ContractError(
                f"the float policy's actions go up to {largest:.3g}, at most {LARGEST_ACTION:.3g} can be compared",
                where="calibration",
                hint="a smaller scale of the decoder, or limits of the action",
            )
        actions.append(action)
        if chooses:
            preferences.append(machine.preferences())
        for name in coded:
            totals[name] += float(machine.entered[name].sum())
        for values in steps:
            for name in spiking:
                totals[name] += float(values[name].sum())
    return Calibration(
        observations=observations,
        actions=np.concatenate(actions),
        spikes_per_action={name: total / len(observations) for name, total in totals.items()},
        saturated=_saturated(machine, observations),
        preferences=np.concatenate(preferences) if chooses else None,
    )


def batches(plan: Plan, observations: Array) -> list[Array]:
    """Observations as what a machine is given at once: one by one where state is carried, else as many as memory takes.

    With state "reset" every observation is its own window, so that all could be one batch.
    """
    if not plan.schedule.resets:
        return list(observations[:, None, :])
    most = _at_once(plan)
    return [observations[start : start + most] for start in range(0, len(observations), most)]


def _at_once(plan: Plan) -> int:
    """Windows that memory takes at once.

    Raises:
        ContractError: not one.
    """
    values = plan.window * sum(step.op.size for step in plan.core)
    if values > LARGEST_WINDOW:
        raise ContractError(
            f"one observation makes {values} values in {plan.window} steps, at most {LARGEST_WINDOW} are kept",
            where="calibration",
            hint="fewer steps for an action",
        )
    return max(1, MEMORY // max(values, 1))


def _saturated(machine: Machine, observations: Array) -> float:
    """Share of values at the clip of a normaliser that an Input feeds."""
    observed = split(machine.plan, observations)
    fed = [
        (step.op, observed[step.taps[0].source])
        for step in machine.plan.before
        if isinstance(step.op, Normalise) and step.taps[0].source in observed
    ]
    return max((float(np.mean(np.abs(op.step({}, x)) >= op.clip)) for op, x in fed), default=0.0)
