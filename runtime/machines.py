"""What runs blocks of a plan for a session, and what is counted of them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from nervecord.compiler.blas import matmul
from nervecord.compiler.ops import Array, Level
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import Plan
from nervecord.runtime.checks import check_inputs


class BlockMachine(Protocol):
    """What an engine is to its sessions: a plan with its state, for a batch of copies, run block by block."""

    @property
    def batch(self) -> int:
        """Number of copies."""
        ...

    def reset(self, batch: int) -> None:
        """Back to the state before the first block, with so many copies."""

    def clear(self, rows: Array) -> None:
        """The same for some copies, indices or a mask."""

    def block(self, inputs: Mapping[str, Array], active: Array) -> dict[str, Array]:
        """One block.

        Args:
            inputs: Input -> (batch, ...) where it is held, (T, batch, ...) of a stream.
            active: (batch,) bool, whose spikes and synaptic events are counted.

        Returns:
            Output -> the same form.
        """

    def tally(self) -> tuple[dict[str, float], dict[str, float]]:
        """Spikes by node, synaptic events by connection, since it was made."""

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last block: name -> (window, batch, ...); {} before the first."""

    def standing(self) -> Any:
        """What a block changes, as it is now."""

    def stand(self, before: Any) -> None:
        """Make it what `standing` gave; may be called twice."""


class Tally:
    """What is counted of blocks that can be looked at: spikes and synaptic events, summed.

    Args:
        plan: of the blocks.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.sums: tuple[dict[str, float], dict[str, float]] = {}, {}

    def add(self, entered: Mapping[str, Array], trace: Mapping[str, Array], active: Array) -> None:
        """One more block; see `count_block`. New sums take the place of those that were."""
        more = count_block(self.plan, entered, trace, active)
        spikes, events = (
            {**old, **{n: old.get(n, 0.0) + x for n, x in new.items()}}
            for old, new in zip(self.sums, more, strict=True)
        )
        self.sums = spikes, events


def count_block(
    plan: Plan, entered: Mapping[str, Array], trace: Mapping[str, Array], active: Array
) -> tuple[dict[str, float], dict[str, float]]:
    """(spikes, synaptic events) of one block, counted when they are sent.

    Args:
        entered: entry -> (window, batch, ...). trace: core node -> the same. active: (batch,) bool.
    """
    spikes = {
        step.name: float(trace[step.name][:, active].sum())
        for step in plan.core
        if type(step.op).ROLE == "population" and step.op.spikes
    }
    events: dict[str, float] = {}
    for step in plan.connections:
        synapses = step.op.synapses()
        assert synapses is not None
        events[step.name] = 0.0
        for tap in step.taps:
            values = entered[tap.source] if tap.source in entered else trace[tap.source]
            at_each = (values[:, active] != 0).sum(axis=(0, 1)).ravel()
            events[step.name] += float(matmul(at_each, synapses.fan_out))
    return spikes, events


class Definition:
    """The machine of the definition: `compiler.plan.interpret.Machine`, looked at and counted.

    Args:
        plan: what to run. batch: number of copies.
    """

    def __init__(self, plan: Plan, batch: int) -> None:
        self.plan = plan
        self._machine = Machine(plan, batch)
        self._last: list[dict[str, Array]] = []
        self._tally = Tally(plan)

    @property
    def batch(self) -> int:
        """Number of copies."""
        return self._machine.batch

    def reset(self, batch: int) -> None:
        """See `BlockMachine`."""
        self._machine.reset(batch)
        self._last = []

    def clear(self, rows: Array) -> None:
        """See `BlockMachine`."""
        self._machine.clear(rows)

    def block(self, inputs: Mapping[str, Array], active: Array) -> dict[str, Array]:
        """See `BlockMachine`."""
        if self.plan.graph.level is Level.INTEGER:
            check_inputs(self.plan, inputs)
        outputs, self._last = self._machine.block(inputs)
        self._tally.add(self._machine.entered, self.trace(), active)
        return outputs

    def tally(self) -> tuple[dict[str, float], dict[str, float]]:
        """See `BlockMachine`."""
        return self._tally.sums

    def trace(self) -> dict[str, Array]:
        """See `BlockMachine`."""
        return {name: np.stack([values[name] for values in self._last]) for name in (self._last or [{}])[0]}

    def state(self) -> dict[str, dict[str, Array]]:
        """State of every core node: a copy."""
        return copy.deepcopy(self._machine.state)

    def standing(self) -> Any:
        """See `BlockMachine`."""
        return self._machine.standing(), self._last, self._tally.sums

    def stand(self, before: Any) -> None:
        """See `BlockMachine`."""
        self._machine.stand(before[0])
        self._last, self._tally.sums = before[1:]
