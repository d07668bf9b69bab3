"""The engine "fpga-sim": the hardware of a program, simulated, with the host's part in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.host_steps import After, Before
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import ContractError
from nervecord.runtime.checks import check_inputs, checked_active, checked_observation
from nervecord.runtime.session import Counts, Driven, add, count_block
from nervecord.runtime.stream import Streaming
from nervecord.targets.fpga.layout import layout
from nervecord.targets.fpga.microcode import microcode
from nervecord.targets.fpga.simulator import Simulation

NAME = "fpga-sim"


class Simulated:
    """Copies of a simulated core, one for each robot; what sessions and streams share.

    Args:
        made: a plan of integers. batch: copies. lanes: weights per cycle.

    Raises:
        InfeasibleError: an op has no hardware. MissingDependencyError: see `Simulation`.
    """

    def __init__(self, made: Plan, batch: int = 1, *, lanes: int = 1) -> None:
        self.plan = made
        self.code = microcode(layout(made), lanes)
        self.before, self.after = Before(made), After(made)
        self.cores: list[Simulation] = []
        self.past: list[int] = []
        self.reset(batch)

    @property
    def batch(self) -> int:
        """Number of copies."""
        return len(self.cores)

    @property
    def cycles(self) -> list[int]:
        """Of every block so far."""
        return [*self.past, *(cycles for core in self.cores for cycles in core.cycles)]

    def reset(self, batch: int) -> None:
        """Back to the state before the first step, with so many copies."""
        while len(self.cores) > batch:
            core = self.cores.pop()
            self.past += core.cycles
            core.close()
        for core in self.cores:
            core.clear()
        while len(self.cores) < batch:
            self.cores.append(Simulation(self.code, like=self.cores[0] if self.cores else None))
        self.before.reset(batch)
        self.entered: dict[str, Array] = {}

    def clear(self, rows: Array) -> None:
        """The same for some copies."""
        for k in np.arange(self.batch)[rows]:
            self.cores[k].clear()
        self.before.clear(rows)

    def close(self) -> None:
        """Give the simulations' memory back."""
        for core in self.cores:
            core.close()

    def standing(self) -> Any:
        """Everything that a block changes, as it is now, for `stand`."""
        return [core.standing() for core in self.cores], self.before.standing()

    def stand(self, before: Any) -> None:
        """Make it what it was; may be called twice."""
        for core, state in zip(self.cores, before[0], strict=True):
            core.stand(state)
        self.before.stand(before[1])

    def block(self, inputs: dict[str, Array]) -> dict[str, Array]:
        """What leaves the core in a block of every copy: core step -> (window, batch, ...), of every read."""
        self.entered = self.before.enter(inputs, np.int64)
        left = [self.code.leaving(core.block(self.code.entering(self.entered, k))) for k, core in enumerate(self.cores)]
        return {name: np.concatenate([each[name] for each in left], axis=1) for name in left[0]}

    def trace(self) -> dict[str, Array]:
        """What every population gave in the last block: name -> (window, batch, ...); {} before the first.

        In steps in which it need not work, and does not, there are zeros.
        """
        if not self.entered:
            return {}
        found = {}
        for unit in self.plan.units:
            step = unit.step
            rows = np.stack([core.gave(step.name) for core in self.cores], axis=1)
            found[step.name] = rows.reshape(self.plan.window, self.batch, *step.op.out_shape)
        return found

    def count(self, counts: Counts, active: Array) -> None:
        """Add what was sent in the last block."""
        spikes, events = count_block(self.plan, self.entered, self.trace(), active)
        add(counts.spikes, spikes)
        add(counts.synaptic_events, events)


class SimulatedSession(Driven):
    """A policy on simulated hardware.

    Args:
        subject: INTEGER policy or its plan. batch: number of robots. lanes: weights per cycle.

    Raises:
        GraphError, ContractError: it is no integer policy.
        InfeasibleError, MissingDependencyError: see `Simulated`.
    """

    _machine: Simulated

    def __init__(self, subject: Policy | Plan, batch: int = 1, *, lanes: int = 1, engine: str = NAME) -> None:
        super().__init__(subject, engine, batch)
        self._machine = Simulated(self.plan, batch, lanes=lanes)

    @property
    def batch(self) -> int:
        """Number of robots."""
        return self._machine.batch

    @property
    def cycles(self) -> list[int]:
        """Clock cycles of every action so far."""
        return self._machine.cycles

    def trace(self) -> dict[str, Array]:
        """What every population gave in the last action; see `Simulated.trace`."""
        with self._lock:
            return self._machine.trace()

    def _restart(self, batch: int) -> None:
        self._machine.reset(batch)

    def _clear(self, rows: Array) -> None:
        self._machine.clear(rows)

    def _step(self, observation: Array, active: Array | None) -> Array:
        given, trusted = checked_observation(self.contract, observation, self.batch)
        counted = checked_active(active, self.batch)
        if not trusted.all():
            given = np.where(trusted[:, None], given, self._neutral)
        machine = self._machine
        inputs = machine.before.split(given)
        check_inputs(self.plan, inputs)
        left = machine.block(inputs)
        with np.errstate(over="ignore", invalid="ignore"):  # an action that is not finite is not given, and counted
            action = machine.after.join(machine.after.leave(left))
        machine.count(self._counts, counted)
        self._counts.actions += int(np.count_nonzero(counted))
        self._counts.neuron_updates += self._updates * int(np.count_nonzero(counted))
        action = self._safe(action, trusted, counted)
        return action if np.ndim(observation) == 2 else action[0]


class SimulatedStream(Streaming):
    """A graph of integers that is no policy, on simulated hardware.

    Args:
        subject: INTEGER graph, run step by step with its state carried, or a plan. batch: number of copies.

    Raises:
        As `SimulatedSession`.
    """

    _machine: Simulated

    def __init__(self, subject: Graph | Plan, batch: int = 1, *, lanes: int = 1, engine: str = NAME) -> None:
        super().__init__(subject if isinstance(subject, Plan) else plan(subject), engine, batch)
        self._machine = Simulated(self.plan, batch, lanes=lanes)

    @property
    def counts(self) -> Counts:
        """What it did since it was opened: a copy."""
        return self._counts.copy()

    def trace(self) -> dict[str, Array]:
        """What every population gave in the last block; see `Simulated.trace`."""
        with self._lock:
            return self._machine.trace()

    def _block(self, inputs: dict[str, Array], active: Array) -> dict[str, Array]:
        check_inputs(self.plan, inputs)
        outputs = self._machine.after.leave(self._machine.block(inputs))
        self._machine.count(self._counts, active)
        return outputs

    def _restart(self, batch: int) -> None:
        self._machine.reset(batch)

    def _clear(self, rows: Array) -> None:
        self._machine.clear(rows)


def open_program(program: Any, *, lanes: int = 1) -> SimulatedSession:
    """A session of a policy's program.

    Raises:
        ContractError: it is no policy.
    """
    if program.contract is None:
        raise ContractError("carries no contract, so it cannot act", where="program")
    return SimulatedSession(program.policy, lanes=lanes)
