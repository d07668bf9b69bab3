"""The host's side of a plan in torch, float64 on the device: `compiler.plan.host_steps` for a batch that stays there.

Every operation is rounded on its own, as the definition says, so that the bits are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from nervecord.compiler.ops import HostOp, Input, Level, Op
from nervecord.compiler.plan.plan import Plan, Step
from nervecord.runtime.engines.torch.equations import equations
from nervecord.runtime.engines.torch.place import Place

DOUBLE = torch.float64
State = dict[str, Tensor]


class BeforeCore:
    """Host ops before the core, with the state of spike encoders; see `compiler.plan.host_steps.Before`.

    Args:
        plan: of the graph. place: device, and the type of the core.

    Raises:
        GraphError: an operation of theirs has no reading here.
    """

    def __init__(self, plan: Plan, place: Place) -> None:
        self.plan = plan
        self.place = place
        self._steps = {step.name: HostKernel(step.op, place) for step in plan.before}
        self._whole = plan.graph.level is Level.INTEGER
        self.reset(1)

    def reset(self, batch: int) -> None:
        """Back to the state before the first action, for so many copies."""
        self.states: dict[str, State] = {name: step.state(batch) for name, step in self._steps.items()}

    def clear(self, rows: Tensor) -> None:
        """The state of some copies, (batch,) bool, back to that before the first action."""
        for state in self.states.values():
            state.update({name: value.masked_fill(rows[:, None], 0.0) for name, value in state.items()})

    def standing(self) -> dict[str, State]:
        """What a block changes, as it is now: nothing writes into these tensors."""
        return {name: dict(state) for name, state in self.states.items()}

    def stand(self, before: Mapping[str, State]) -> None:
        """Make it what it was; may be called twice."""
        self.states = {name: dict(state) for name, state in before.items()}

    def split(self, observation: Tensor) -> dict[str, Tensor]:
        """A policy's observation, (batch, observations), as its Inputs take it."""
        graph = self.plan.graph
        parts = torch.split_with_sizes(observation, [graph.nodes[name].size for name in graph.inputs], dim=-1)
        return dict(zip(graph.inputs, parts, strict=True))

    def enter(self, inputs: Mapping[str, Tensor]) -> dict[str, list[Tensor]]:
        """What enters the core: entry -> its T useful steps, each (batch, ...). What is held is one tensor, T times.

        Args:
            inputs: Input -> float64, (batch, ...) where it is held, (T, batch, ...) of a stream.
        """
        steps, held = self.plan.schedule.steps, self.plan.schedule.held
        values: dict[str, Tensor] = {}
        for step in self.plan.before:
            x = inputs[step.name] if isinstance(step.op, Input) else _summed(step, values)
            kernel = self._steps[step.name]
            if kernel.op.PULSES:
                if self.plan.schedule.resets:
                    self.states[step.name] = kernel.state(len(x))
                values[step.name] = kernel.train(self.states[step.name], x, steps)
            elif held:
                values[step.name] = kernel.step(x)
            else:
                rows = kernel.step(x.reshape(-1, *x.shape[2:]))
                values[step.name] = rows.reshape(*x.shape[:2], *rows.shape[1:])
        entering: dict[str, list[Tensor]] = {}
        for entry in self.plan.entries:
            x = values[entry.name]
            if self._whole:
                x = torch.trunc(x)
            # A copy: the caller may write into what she gave.
            x = x.to(self.place.dtype, copy=True)
            entering[entry.name] = [x] * steps if entry.entering == "held" else list(x.unbind(0))
        return entering


class AfterCore:
    """Host ops after the core; they have no state. See `compiler.plan.host_steps.After`.

    Args:
        plan: of the graph. place: device and type.

    Raises:
        GraphError: an operation of theirs has no reading here.
    """

    def __init__(self, plan: Plan, place: Place) -> None:
        self.plan = plan
        self._steps = {step.name: HostKernel(step.op, place) for step in plan.after}

    def leave(self, left: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
        """What goes out: Output -> float64, (batch, ...) where inputs are held, (T, batch, ...) of a stream.

        Args:
            left: core step -> its values at the steps of its read.
        """
        values: dict[str, Tensor] = {}
        for read in self.plan.reads:
            rows = torch.stack([row.to(DOUBLE) for row in left[read.source]])
            values[read.source] = rows.sum(0) if self.plan.schedule.held else rows
        for step in self.plan.after:
            values[step.name] = self._steps[step.name].step(_summed(step, values))
        return {name: values[name] for name in self.plan.graph.outputs}

    def join(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """A policy's action, (batch, actions), of what its Outputs give."""
        rows = [outputs[name] for name in self.plan.graph.outputs]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=-1)


def _summed(step: Step, values: Mapping[str, Tensor]) -> Tensor:
    x = values[step.taps[0].source]
    for tap in step.taps[1:]:
        x = x + values[tap.source]
    return x


class HostKernel:
    """A host op's stages on (batch, ...) float64: `compiler.ops.hostop.HostStep` in torch.

    Args:
        op: what to run, a `HostOp`. place: its device.
    """

    def __init__(self, op: Op, place: Place) -> None:
        assert isinstance(op, HostOp)  # what runs before and after a core is
        self.op = op
        self.place = Place(place.device, DOUBLE)
        self._body = equations(op.traced(), self.place, op.label)
        self._pulse = equations(op.pulse_body, self.place, op.label) if op.PULSES else None
        self._states = {name: value.shape[1:] for name, value in op.state(1).items()}
        self._weights = None if op.weights is None else self.place.tensor(op.weights)

    def state(self, batch: int) -> State:
        """Before the first step."""
        return {name: self.place.zeros(batch, *shape) for name, shape in self._states.items()}

    def step(self, x: Tensor) -> Tensor:
        """y of an op without `pulse`."""
        y = self._values(x)
        return first_largest(y) if self.op.CHOOSES else self._appended(y)

    def train(self, state: State, x: Tensor, steps: int) -> Tensor:
        """An action's T steps, (T, batch, out), of an op with `pulse`; its state goes on."""
        assert self._pulse is not None
        drive = self._values(x)
        return self._appended(torch.stack([self._pulse(state, drive) for _ in range(steps)]))

    def _values(self, x: Tensor) -> Tensor:
        if self.op.spread > 1:
            x = x.repeat_interleave(self.op.spread, dim=-1)
        if self._weights is not None:
            x = _ordered_sums(self._weights, x)
        return self._body({}, x)

    def _appended(self, y: Tensor) -> Tensor:
        if not self.op.appended:
            return y
        return torch.cat([y, y.new_full((*y.shape[:-1], 1), self.op.appended)], dim=-1)


def _ordered_sums(weights: Tensor, x: Tensor) -> Tensor:
    """The products are added in the order that the definition states."""
    values = x.reshape(len(x), *weights.shape)
    y = weights[:, 0] * values[..., 0]
    for k in range(1, weights.shape[1]):
        y = y + weights[:, k] * values[..., k]
    return y


def first_largest(x: Tensor) -> Tensor:
    """The choice (batch, 1) among x (batch, actions): index of the first largest; NaN where not all are finite."""
    chosen = x.argmax(-1).to(DOUBLE)
    return torch.where(x.isfinite().all(-1), chosen, torch.nan)[..., None]
