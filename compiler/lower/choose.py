"""Which of several integer graphs answers most like the float one on recorded input, and by how much it differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration, affordable, batches, in_time, spread
from nervecord.compiler.plan.interpret import Machine, simulate
from nervecord.compiler.plan.plan import Plan

SEARCH_OBSERVATIONS = 256
"""Recorded observations that choose the encoder's scale."""
SEARCH_WORK = 200_000_000
"""Multiplications that judging one choice of scales may cost: of a large network fewer observations are taken."""
SEARCH_STEPS = 1 << 13
"""Steps of the core, one after another, that it may cost."""
MANY_CHOICES = 0.01
"""Above this share of observations on which integers choose another action than float: a warning."""
LARGE_ERROR = 0.5
"""Above this rms of the action's error, in shares of the rms of the action itself: a warning."""


class Planned(Protocol):
    """An integer subject that can be planned."""

    @property
    def subject(self) -> Graph | Policy:
        """It."""
        ...

    @property
    def late(self) -> Mapping[str, int]:
        """Output -> steps by which it is later than the float graph's."""
        ...

    def plan(self, schedule: Schedule) -> Plan:
        """Its plan."""
        ...


SPARE_ERROR = 1.1
"""As many times the error of the finest slices is worth the synapses that coarser ones save."""

C = TypeVar("C", bound=Planned)


def choose(candidates: Sequence[C], calibration: Calibration | StreamCalibration | None, floats: Plan) -> C:
    """The candidate with the smallest error on recorded input, of equal ones the first; without any the finest."""
    if len(candidates) == 1:
        return candidates[0]
    if calibration is None:
        return candidates[-1]
    errors = [_error(candidate, candidate.plan(floats.schedule), calibration) for candidate in candidates]
    return candidates[int(np.argmin(errors))]


def sparest(finest: C, others: Iterable[C], calibration: Calibration | StreamCalibration | None, floats: Plan) -> C:
    """The first of the others that is hardly worse on recorded input, or better; the finest where there is none.

    Args:
        others: from the one that costs least.
    """
    if calibration is None:
        return finest
    most = SPARE_ERROR * _error(finest, finest.plan(floats.schedule), calibration)
    fitting = (other for other in others if _error(other, other.plan(floats.schedule), calibration) <= most)
    return next(fitting, finest)


def _error(candidate: Planned, integers: Plan, calibration: Calibration | StreamCalibration) -> float:
    """The rms error of the action, or of the preferences where it is a choice; of a stream of what leaves."""
    if isinstance(calibration, StreamCalibration):
        return _stream_error(candidate, integers, calibration)[0]
    count = affordable(integers, SEARCH_OBSERVATIONS, SEARCH_WORK, SEARCH_STEPS)
    rows = spread(len(calibration.observations), count, carried=not integers.schedule.resets)
    actions, preferences = answers(integers, calibration.observations[rows])
    if calibration.preferences is None:
        return _errors(actions - calibration.actions[rows])[0]
    assert preferences is not None
    return _errors(preferences - calibration.preferences[rows])[0]


def answers(plan: Plan, observations: Array) -> tuple[Array, Array | None]:
    """Actions of a policy, and where they are choices (k, choices) what it held of each."""
    machine = Machine(plan)
    chooses = plan.contract is not None and bool(plan.contract.choices)
    actions, preferences = [], []
    for row in batches(plan, observations):
        if len(row) != machine.batch:
            machine.reset(len(row))
        actions.append(machine.window(row)[0])
        if chooses:
            preferences.append(machine.preferences())
    return np.concatenate(actions), np.concatenate(preferences) if chooses else None


def _errors(difference: Array) -> tuple[float, float]:
    return float(np.sqrt(np.mean(difference**2))), float(np.abs(difference).max())


def _rounded(measure: float) -> float:
    """To the six digits that a reader of a finding looks at; the report holds all of them."""
    return float(f"{measure:.6g}")


def report_error(
    best: Planned, calibration: Calibration | StreamCalibration | None, floats: Plan, integers: Plan
) -> tuple[dict[str, Any], list[Finding]]:
    """The integers' error against float on recorded input, as plain JSON types, and what is to be warned of."""
    if calibration is None:
        return {"observations": 0}, []
    if isinstance(calibration, StreamCalibration):
        rms, largest, different = _stream_error(best, integers, calibration)
        count = len(next(iter(calibration.inputs.values())))
        return {
            "output_error_rms": rms,
            "output_error_max": largest,
            "spikes_different": different,
            "observations": count,
        }, []
    # A step may take many of the target's: of the rows that the float policy was run on a part is enough then.
    rows = spread(len(calibration.observations), in_time(integers), carried=not integers.schedule.resets)
    actions, preferences = answers(integers, calibration.observations[rows])
    base = {"observations": len(rows), "observations_clipped": calibration.saturated}
    findings: list[Finding] = []
    if preferences is None or calibration.preferences is None:
        rms, largest = _errors(actions - calibration.actions[rows])
        size = float(np.sqrt(np.mean(calibration.actions[rows] ** 2)))
        if rms > LARGE_ERROR * size:
            findings.append(
                Finding(
                    "action-error",
                    "warning",
                    "graph",
                    "the integers' actions are far from the float policy's (rms)",
                    _rounded(rms),
                    _rounded(LARGE_ERROR * size),
                    "more weight bits or slices, or a network trained with a smaller range of weights",
                )
            )
        return {"action_error_rms": rms, "action_error_max": largest, **base}, findings
    error = choice_report(calibration.preferences[rows], actions, preferences)
    changed = error["choices_different"]
    if changed > MANY_CHOICES * len(rows):
        findings.append(
            Finding(
                "choice-error", "warning", "graph", f"on {changed} of {len(rows)} observations another action is chosen"
            )
        )
    return {**error, **base}, findings


def choice_report(preferred: Array, chosen: Array, integers: Array) -> dict[str, Any]:
    """What integers did to a choice of actions, on recorded observations.

    Args:
        preferred: (k, choices) preferences of the float policy. integers: of the integer one, in the same units.
        chosen: (k, 1) actions of the integer policy.

    Returns:
        "choices_different": observations on which it chose another action than float; "choice_margin_max": the largest
        lead, in the float policy, of an action that lost (0 where none did); "choice_ties": observations on which
        several integers were the largest, so that the rule of the first decided; "preference_error_rms" and
        "preference_error_max", in the float policy's units.
    """
    chosen_preference = np.take_along_axis(preferred, chosen.astype(np.int64), axis=1)[:, 0]
    lead = preferred.max(axis=1) - chosen_preference
    different = preferred.argmax(axis=1) != chosen[:, 0]
    rms, largest = _errors(integers - preferred)
    return {
        "choices_different": int(np.count_nonzero(different)),
        "choice_margin_max": float(lead.max()),
        "choice_ties": int(np.count_nonzero((integers == integers.max(axis=1, keepdims=True)).sum(axis=1) > 1)),
        "preference_error_rms": rms,
        "preference_error_max": largest,
    }


def _stream_error(candidate: Planned, integers: Plan, calibration: StreamCalibration) -> tuple[float, float, int]:
    """(rms, largest) error of what leaves, later by each output's latency, and how many spikes differ."""
    trace = simulate(integers.graph, dict(calibration.inputs), integers.schedule)
    # In a window that is cleared the reads have their own steps already.
    late = {} if integers.schedule.resets else candidate.late
    squares, count, largest, different = 0.0, 0, 0.0, 0
    for name, expected in calibration.left.items():
        shift = late.get(name, 0)
        got = trace.left[name][shift:, 0]
        error = got - expected[: len(got)]
        if not error.size:
            continue
        squares, count = squares + float(np.sum(error**2)), count + error.size
        largest = max(largest, float(np.abs(error).max()))
        if all(integers.graph.nodes[a].spikes for a in integers.graph.sources(name)):
            different += int(np.count_nonzero(error))
    return float(np.sqrt(squares / max(count, 1))), largest, different
