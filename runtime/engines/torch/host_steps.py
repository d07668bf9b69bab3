"""The host's side of a plan in torch, float64 on the device: `compiler.plan.host_steps` for a batch that stays there.

Every operation is rounded on its own, as the definition says, so that the bits are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from nervecord.compiler.ops import (
    ArgmaxDecode,
    BiasChannel,
    CountArgmaxDecode,
    CountDecode,
    Decode,
    Input,
    Level,
    Normalise,
    Op,
    Output,
    PopulationEncode,
    Quantise,
    Rescale,
    population,
)
from nervecord.compiler.plan.plan import Plan, Step
from nervecord.errors import GraphError
from nervecord.runtime.engines.torch.place import Place

HostKernel: TypeAlias = Callable[[Tensor], Tensor]
DOUBLE = torch.float64


class Before:
    """Host ops before the core, with the state of spike encoders; see `compiler.plan.host_steps.Before`.

    Args:
        plan: of the graph. place: device, and the type of the core.

    Raises:
        GraphError: an op has no kernel here.
    """

    def __init__(self, plan: Plan, place: Place) -> None:
        self.plan = plan
        self.place = place
        self.encoders: dict[str, Encoder] = {}
        self._kernels: dict[str, HostKernel] = {}
        for step in plan.before:
            if isinstance(step.op, PopulationEncode):
                self.encoders[step.name] = Encoder(step.op, plan.schedule.steps, place)
            else:
                self._kernels[step.name] = host_kernel(step.op, place)
        self._whole = plan.graph.level is Level.INTEGER
        self.reset(1)

    def reset(self, batch: int) -> None:
        """Back to the state before the first action, for so many copies."""
        for encoder in self.encoders.values():
            encoder.reset(batch)

    def clear(self, rows: Tensor) -> None:
        """The state of some copies, (batch,) bool, back to that before the first action."""
        for encoder in self.encoders.values():
            encoder.v = encoder.v.masked_fill(rows[:, None], 0.0)

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
            given = inputs[step.name] if isinstance(step.op, Input) else _summed(step, values)
            encoder = self.encoders.get(step.name)
            if encoder is not None:
                values[step.name] = encoder.train(given, restart=self.plan.schedule.resets)
            elif held:
                values[step.name] = self._kernels[step.name](given)
            else:
                rows = self._kernels[step.name](given.reshape(-1, *given.shape[2:]))
                values[step.name] = rows.reshape(*given.shape[:2], *rows.shape[1:])
        found: dict[str, list[Tensor]] = {}
        for entry in self.plan.entries:
            x = values[entry.name]
            if self._whole:
                x = torch.trunc(x)
            # A copy: the caller may write into what she gave.
            x = x.to(self.place.dtype, copy=True)
            found[entry.name] = [x] * steps if entry.entering == "held" else list(x.unbind(0))
        return found


class After:
    """Host ops after the core; they have no state. See `compiler.plan.host_steps.After`.

    Args:
        plan: of the graph. place: device and type.

    Raises:
        GraphError: an op has no kernel here.
    """

    def __init__(self, plan: Plan, place: Place) -> None:
        self.plan = plan
        self._kernels = {step.name: host_kernel(step.op, place) for step in plan.after}

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
            values[step.name] = self._kernels[step.name](_summed(step, values))
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


class Encoder:
    """A population code, with its accumulators; `compiler.ops.population` in torch, to the bit.

    Args:
        op: the encoder. steps: T. place: its device.
    """

    def __init__(self, op: PopulationEncode, steps: int, place: Place) -> None:
        self.mean = place.tensor(op.mean, DOUBLE)
        self.powers = place.tensor(population.POWERS, DOUBLE)
        self.sigma, self.always, self.steps = op.sigma, op.always, steps
        self.reset(1)

    def reset(self, batch: int) -> None:
        """Accumulators of so many copies at zero."""
        self.v = self.mean.new_zeros(batch, self.mean.numel())

    def activation(self, x: Tensor) -> Tensor:
        """Units of 2^-20 that each accumulator gains per step, (batch, neurons)."""
        held = torch.minimum(torch.maximum(x, self.mean[:, 0]), self.mean[:, -1])
        z = (held[..., None] - self.mean) / self.sigma
        e = ((z * z) * population.HALF_LOG2_E).clamp(max=population.LARGEST_EXPONENT)
        k = torch.floor(e)
        f = e - k
        p = torch.full_like(f, float(population.COEFFICIENTS[population.DEGREE]))
        for c in population.COEFFICIENTS[population.DEGREE - 1 :: -1]:
            p = p * f + float(c)
        units = torch.round((p * self.powers[k.long()]) * float(population.ONE))
        return units.flatten(-2)

    def train(self, x: Tensor, *, restart: bool) -> Tensor:
        """An action's spikes, (T, batch, out); `restart`: the accumulators begin at zero."""
        units, one = self.activation(x), float(population.ONE)
        v = torch.zeros_like(units) if restart else self.v
        sent = []
        for _ in range(self.steps):
            v = v + units
            spikes = (v >= one).to(DOUBLE)
            v = v - one * spikes
            sent.append(spikes)
        self.v = v
        train = torch.stack(sent)
        return torch.cat([train, train.new_ones(*train.shape[:-1], 1)], dim=-1) if self.always else train


def host_kernel(op: Op, place: Place) -> HostKernel:
    """A host op's step on (batch, ...) float64.

    Raises:
        GraphError: there is none for this op.
    """
    match op:
        case Input():
            limit = op.limit
            return (lambda x: x) if limit is None or op.spikes else (lambda x: x.clamp(-limit, limit))
        case Output():
            return lambda x: x
        case Normalise():
            mean, divisor, clip = place.tensor(op.mean, DOUBLE), place.tensor(op.divisor, DOUBLE), op.clip
            return lambda x: ((x - mean) / divisor).clamp(-clip, clip)
        case Quantise():
            return _quantise(op)
        case BiasChannel():
            return lambda x: torch.cat([x, x.new_ones(len(x), 1)], dim=1)
        case Decode():
            scale, offset, low, high = (place.tensor(v, DOUBLE) for v in (op.scale, op.offset, op.low, op.high))
            return lambda x: torch.clamp(x * scale + offset, low, high)
        case Rescale():
            scale = place.tensor(op.scale, DOUBLE)
            return lambda x: x * scale
        case CountDecode():
            weigh = _weigh(op, place)
            low, high = place.tensor(op.low, DOUBLE), place.tensor(op.high, DOUBLE)
            return lambda x: torch.clamp(weigh(x), low, high)
        case ArgmaxDecode():
            return first_largest
        case CountArgmaxDecode():
            weigh = _weigh(op, place)
            return lambda x: first_largest(weigh(x))
    raise GraphError(
        f"{op.kind} is not among what engine torch runs", where=op.label, hint="the definition runs every op"
    )


def _quantise(op: Quantise) -> HostKernel:
    scale, limit, constant = op.scale, float(op.limit), float(op.constant)

    def run(x: Tensor) -> Tensor:
        y = torch.round(x * scale).clamp(-limit, limit)
        return torch.cat([y, y.new_full((len(y), 1), constant)], dim=1) if constant else y

    return run


def _weigh(op: CountDecode | CountArgmaxDecode, place: Place) -> HostKernel:
    """What spike counts say of each action, summed in the order that the definition states."""
    weight, offset = place.tensor(op.weight, DOUBLE), place.tensor(op.offset, DOUBLE)

    def run(x: Tensor) -> Tensor:
        c = x.reshape(len(x), *weight.shape)
        y = weight[:, 0] * c[..., 0]
        for k in range(1, weight.shape[1]):
            y = y + weight[:, k] * c[..., k]
        return y + offset

    return run


def first_largest(x: Tensor) -> Tensor:
    """The choice (batch, 1) among x (batch, actions): index of the first largest; NaN where not all are finite."""
    chosen = x.argmax(-1).to(DOUBLE)
    return torch.where(x.isfinite().all(-1), chosen, torch.nan)[..., None]
