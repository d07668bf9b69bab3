"""Populations run alone on recorded spikes: what each would have done with what it was given.

A plan is replayed in useful steps: step k is every population's k-th of the T steps that belong to an action, so that
the latency of a pipeline is not seen. Each population hears what its sources are said to have given, whatever they
would have given here, so that nothing it does reaches another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nervecord.compiler.body.evaluate import Evaluator
from nervecord.compiler.ops import Array, Level, Op, State
from nervecord.compiler.plan.host_steps import BeforeCore, split
from nervecord.compiler.plan.plan import Plan, Step


def useful_steps(plan: Plan, trace: Mapping[str, Array]) -> dict[str, Array]:
    """(T, n) of every population of one robot: the T steps of the last action that belong to it."""
    return {unit.step.name: trace[unit.step.name][plan.useful(unit.step.name), 0] for unit in plan.units}


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a population did in one action.

    Args:
        outputs: (T, ...).
        membranes: (T, ...) before the spike is decided, of floats that spike; else None.
    """

    outputs: Array
    membranes: Array | None


class Replay:
    """Runs each population alone, for one robot.

    Args:
        plan: DISCRETE or INTEGER.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._steps = plan.schedule.steps
        self._dtype = np.float64 if plan.graph.level is Level.DISCRETE else np.int64
        self._before = BeforeCore(plan)
        self._populations = {unit.step.name for unit in plan.units}
        self._keeps = {name: source.keeps for name, source in plan.sources.items()}
        self.reset()

    def reset(self) -> None:
        """Back to the state before the first action."""
        self._before.reset(1)
        self._clear()

    def _clear(self) -> None:
        self._states: dict[str, State] = {step.name: step.op.state(1) for step in self.plan.core}
        self._past: dict[str, Array] = {}

    def action(self, observation: Array, heard: Mapping[str, Array]) -> dict[str, Replayed]:
        """What every population does in one action.

        Args:
            observation: (observations,).
            heard: population -> (T, n), what its readers hear of it; one that is left out is heard as it is here.
        """
        return self.block(split(self.plan, observation[None]), heard)

    def block(self, inputs: Mapping[str, Array], recorded: Mapping[str, Array]) -> dict[str, Replayed]:
        """What every population does in one block of a policy or a stream.

        Args:
            inputs: Input -> (1, ...) where it is held, (T, 1, ...) of a stream.
            recorded: as of `action`.
        """
        if self.plan.schedule.resets:
            self._clear()
        entered = self._before.enter(inputs, self._dtype)
        heard = {name: rows[: self._steps, 0] for name, rows in entered.items()}
        heard |= {name: recorded[name].astype(self._dtype) for name in recorded if name in self._populations}
        # What was heard stands behind what was heard before, so that a lag reaches back.
        rows = {name: self._behind(name, values) for name, values in heard.items()}
        outputs: dict[str, list[Array]] = {name: [] for name in self._populations}
        membranes: dict[str, list[Array]] = {name: [] for name in self._populations}
        order = self.plan.useful_steps
        for step in order:
            if step.name not in heard:
                rows[step.name] = self._behind(step.name, np.zeros((self._steps, *step.op.out_shape), self._dtype))
        for k in range(self._steps):
            for step in order:
                x = self._input(step, rows, k)
                if step.name in self._populations:
                    v = before_spike(step.op, self._states[step.name], x)
                    if v is not None:
                        membranes[step.name].append(v[0])
                y = step.op.step(self._states[step.name], x, self.plan.graph.arithmetic)
                if step.name in self._populations:
                    outputs[step.name].append(y[0])
                if step.name not in heard:
                    rows[step.name][self._keeps[step.name] + k] = y[0]
        self._past = {name: values[len(values) - self._keeps[name] :].copy() for name, values in rows.items()}
        return {
            name: Replayed(np.stack(outputs[name]), np.stack(membranes[name]) if membranes[name] else None)
            for name in outputs
        }

    def _behind(self, name: str, values: Array) -> Array:
        keeps = self._keeps[name]
        before = self._past.get(name, np.zeros((keeps, *values.shape[1:]), dtype=self._dtype))
        return np.concatenate([before, values])

    def _input(self, step: Step, rows: dict[str, Array], k: int) -> Array:
        """What enters at useful step k, (1, ...)."""
        total: Array | None = None
        for tap in step.taps:
            part = rows[tap.source][self._keeps[tap.source] + k - tap.lag]
            total = part if total is None else total + part
        assert total is not None
        return total[None]


def before_spike(op: Op, state: State, x: Array) -> Array | None:
    """The value that is compared with the threshold in this step, of floats that spike; else None."""
    body = op.traced(None) if op.has_body and Level.DISCRETE in op.levels else None
    if body is None or "before_spike" not in body.observed:
        return None
    return Evaluator(body).observed("before_spike", state, x)


def threshold_of(op: Op) -> Array | None:
    """What `before_spike` is compared with."""
    body = op.traced(None) if op.has_body and Level.DISCRETE in op.levels else None
    return None if body is None or "before_spike" not in body.observed else body.constant("threshold")
