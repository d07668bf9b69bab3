"""Spikes and synaptic events of a batch, counted on the device: whole numbers below 2^53 in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nervecord.compiler.ops import Array
from nervecord.compiler.plan.plan import Plan
from nervecord.runtime.engines.torch.place import Place


class Tally:
    """What a machine's copies did since it was made, as `runtime.machines.count_block` counts it.

    Of every source the number of values other than zero is added up, of spiking populations the spikes; both are
    multiplied with the synapses that each reaches once per block.

    Args:
        plan: of the machine. place: its device.
    """

    def __init__(self, plan: Plan, place: Place) -> None:
        self.place = place
        self.spiking = tuple(u.step.name for u in plan.units if u.step.op.spikes)
        self.connections = tuple(step.name for step in plan.connections)
        arithmetic = plan.graph.arithmetic
        several = arithmetic is not None and arithmetic.spikes_per_step > 1
        self._binary = dict.fromkeys(self.spiking, not several)
        self._binary |= {entry.name: not entry.graded for entry in plan.entries}
        reach: dict[str, dict[str, Array]] = {}
        for step in plan.connections:
            synapses = step.op.synapses()
            assert synapses is not None
            for tap in step.taps:
                reach.setdefault(tap.source, {})[step.name] = synapses.fan_out
        self._sources = tuple(reach)
        self._columns = {name: tuple(fan_out) for name, fan_out in reach.items()}
        self._reach = {
            name: place.tensor(np.stack(list(fan_out.values()), axis=1), torch.float64)
            for name, fan_out in reach.items()
        }
        self._shapes = {name: plan.graph.nodes[name].out_shape for name in {*self._sources, *self.spiking}}
        self._alone = tuple(n for n in self.spiking if n not in reach or not self._binary[n])
        self.spikes = {name: self._zero() for name in self.spiking}
        self.events = {name: self._zero() for name in self.connections}
        self.reset(1)

    def _zero(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64, device=self.place.device)

    def reset(self, batch: int) -> None:
        """For another number of copies; what was counted stays."""
        self._sent = {name: self.place.zeros(batch, *self._shapes[name]) for name in self._sources}
        self._fired = {name: self.place.zeros(batch, *self._shapes[name]) for name in self._alone}
        self._last: dict[str, tuple[Tensor, Tensor]] = {}

    def standing(self) -> Any:
        """What was counted until the last block, for `stand`; nothing writes into these tensors."""
        return dict(self.spikes), dict(self.events)

    def stand(self, before: Any) -> None:
        """Make it what it was, at the beginning of a block; may be called twice."""
        self.spikes, self.events = dict(before[0]), dict(before[1])
        self._last = {}
        for total in (*self._sent.values(), *self._fired.values()):
            total.zero_()

    def step(self, entered: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
        """What was sent in a step of a block: of every entry, and of every core node."""
        for name, total in self._sent.items():
            x = entered[name] if name in entered else values[name]
            total += x if self._binary.get(name) else self._nonzero(name, x)
        for name, total in self._fired.items():
            total += values[name]

    def _nonzero(self, name: str, x: Tensor) -> Tensor:
        last = self._last.get(name)
        if last is not None and last[0] is x:
            return last[1]
        nonzero = (x != 0).to(x.dtype)
        self._last[name] = x, nonzero
        return nonzero

    def block(self, active: Tensor | None) -> None:
        """The block is over; `active`: (batch,) bool, which copies count."""
        self._last = {}
        for name, total in self._sent.items():
            per_source = _over(total, active)
            reached = per_source @ self._reach[name]
            for k, connection in enumerate(self._columns[name]):
                self.events[connection] = self.events[connection] + reached[k]
            if name in self.spikes and name not in self._fired:
                self.spikes[name] = self.spikes[name] + per_source.sum()
            total.zero_()
        for name, total in self._fired.items():
            self.spikes[name] = self.spikes[name] + _over(total, active).sum()
            total.zero_()


def _over(total: Tensor, active: Tensor | None) -> Tensor:
    """Sums over the active copies, one for each value of the source, in float64."""
    flat = total.flatten(1).to(torch.float64)
    return flat.sum(0) if active is None else active.to(torch.float64) @ flat
