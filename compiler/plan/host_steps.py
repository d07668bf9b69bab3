"""The host's side of a plan: from what comes in to what enters the core, and from what leaves it to what goes out.

Every engine goes through it, or is tested against it. Where inputs are held, the host's ops work once per action; in a
stream they work at every step.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nervecord.compiler.ops import Array, Decoder, HostStep, State
from nervecord.compiler.plan.plan import Plan
from nervecord.errors import ContractError


class BeforeCore:
    """Host ops before the core, with the state of spike encoders.

    Args:
        plan: of the graph.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._steps = {step.name: HostStep(step.op) for step in plan.before}
        self.reset(1)

    def reset(self, batch: int) -> None:
        """Back to the state before the first action, for so many copies."""
        self._states: dict[str, State] = {name: step.state(batch) for name, step in self._steps.items()}

    def standing(self) -> dict[str, State]:
        """What a block changes, as it is now, for `stand`."""
        return {name: {key: value.copy() for key, value in state.items()} for name, state in self._states.items()}

    def stand(self, before: Mapping[str, State]) -> None:
        """Make it what it was; may be called twice."""
        self._states = {name: {key: value.copy() for key, value in state.items()} for name, state in before.items()}

    def clear(self, rows: Array) -> None:
        """The state of some copies (indices or mask) back to that before the first action."""
        for state in self._states.values():
            for values in state.values():
                values[rows] = 0

    def enter(self, inputs: Mapping[str, Array], dtype: type = np.float64) -> dict[str, Array]:
        """What enters the core in a block.

        Args:
            inputs: Input -> (batch, ...) where it is held, (T, batch, ...) of a stream.
            dtype: of the result.

        Returns:
            Entry -> (window, batch, ...): T steps, then zeros until the last read has seen all of them.
        """
        steps, held = self.plan.schedule.steps, self.plan.schedule.held
        values: dict[str, Array] = {}
        for step in self.plan.before:
            if type(step.op).ROLE == "input":
                observed = np.asarray(inputs[step.name])
            else:
                observed = values[step.taps[0].source]
                for tap in step.taps[1:]:
                    observed = observed + values[tap.source]
            host = self._steps[step.name]
            if host.op.PULSES:
                if self.plan.schedule.resets:
                    self._states[step.name] = host.state(len(observed))
                values[step.name] = host.train(self._states[step.name], observed, steps)
            elif held:
                values[step.name] = host.step(observed)
            else:
                rows = host.step(observed.reshape(-1, *observed.shape[2:]))
                values[step.name] = rows.reshape(*observed.shape[:2], *rows.shape[1:])
        entering = {}
        for entry in self.plan.entries:
            x = values[entry.name]
            sent = np.broadcast_to(x, (steps, *x.shape)) if entry.entering == "held" else x
            block = np.zeros((self.plan.window, *sent.shape[1:]), dtype=dtype)
            block[:steps] = sent
            entering[entry.name] = block
        return entering


class AfterCore:
    """Host ops after the core; they have no state.

    Args:
        plan: of the graph.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._steps = {step.name: HostStep(step.op) for step in plan.after}

    def leave(self, left: Mapping[str, Array]) -> dict[str, Array]:
        """What goes out.

        Args:
            left: core step -> (window, batch, ...), of every read.

        Returns:
            Output -> (batch, ...) where inputs are held, (T, batch, ...) of a stream.
        """
        held = self.plan.schedule.held
        values: dict[str, Array] = {}
        for read in self.plan.reads:
            rows = left[read.source][read.first : read.last + 1]
            values[read.source] = rows.sum(axis=0) if held else rows
        for step in self.plan.after:
            x = values[step.taps[0].source]
            for tap in step.taps[1:]:
                x = x + values[tap.source]
            values[step.name] = self._steps[step.name].step(x)
        return {name: values[name] for name in self.plan.graph.outputs}

    def preferences(self, left: Mapping[str, Array]) -> Array:
        """What a policy that chooses holds of each of its actions, (batch, choices), in units of the float policy.

        Args:
            left: as for `leave`.

        Raises:
            ContractError: it does not choose, its actions are values.
        """
        for step in self.plan.after:
            if isinstance(step.op, Decoder) and step.op.choices:
                reads = [self.plan.read(tap.source) for tap in step.taps]
                x = sum(left[read.source][read.first : read.last + 1].sum(axis=0) for read in reads)
                return step.op.preferences(np.asarray(x, dtype=np.float64))
        raise ContractError("has no choice among actions", where="graph")


def split(plan: Plan, observation: Array) -> dict[str, Array]:
    """A policy's observation, (batch, observations), as its Inputs take it."""
    x = np.asarray(observation, dtype=np.float64)
    graph = plan.graph
    inputs: dict[str, Array] = {}
    start = 0
    for name in graph.inputs:
        size = graph.nodes[name].size
        inputs[name] = x[..., start : start + size]
        start += size
    return inputs


def join(plan: Plan, outputs: Mapping[str, Array]) -> Array:
    """A policy's action, (batch, actions), of what its Outputs give."""
    rows = [outputs[name] for name in plan.graph.outputs]
    return rows[0] if len(rows) == 1 else np.concatenate(rows, axis=-1)
