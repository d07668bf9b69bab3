"""The engine "fpga-sim": the hardware of a program, simulated, with the host's part in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.host_steps import AfterCore, BeforeCore
from nervecord.compiler.plan.plan import Plan
from nervecord.errors import ContractError
from nervecord.runtime.checks import check_inputs
from nervecord.runtime.machines import Tally
from nervecord.runtime.session import PolicySession
from nervecord.runtime.stream import GraphStream
from nervecord.targets.fpga.layout import layout
from nervecord.targets.fpga.microcode import microcode
from nervecord.targets.fpga.simulator import Simulation

NAME = "fpga-sim"


class Simulated:
    """Copies of a simulated core, one for each robot; what sessions and streams share.

    Args:
        plan: a plan of integers. batch: copies. lanes: weights per cycle.

    Raises:
        InfeasibleError: an op has no hardware. MissingDependencyError: see `Simulation`.
    """

    def __init__(self, plan: Plan, batch: int = 1, *, lanes: int = 1) -> None:
        self.plan = plan
        self.code = microcode(layout(plan), lanes)
        self.before, self.after = BeforeCore(plan), AfterCore(plan)
        self.cores: list[Simulation] = []
        self.past: list[int] = []
        self._tally = Tally(plan)
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
        cores = [(core.standing(), len(core.cycles)) for core in self.cores]
        return cores, self.before.standing(), self._tally.sums

    def stand(self, before: Any) -> None:
        """Make it what it was; may be called twice."""
        for core, (state, blocks) in zip(self.cores, before[0], strict=True):
            core.stand(state)
            del core.cycles[blocks:]
        self.before.stand(before[1])
        self._tally.sums = before[2]

    def block(self, inputs: Mapping[str, Array], active: Array) -> dict[str, Array]:
        """One block of every copy; see `runtime.machines.BlockMachine`."""
        check_inputs(self.plan, inputs)
        self.entered = self.before.enter(inputs, np.int64)
        left = [self.code.leaving(core.block(self.code.entering(self.entered, k))) for k, core in enumerate(self.cores)]
        self._tally.add(self.entered, self.trace(), active)
        return self.after.leave({name: np.concatenate([each[name] for each in left], axis=1) for name in left[0]})

    def tally(self) -> tuple[dict[str, float], dict[str, float]]:
        """See `runtime.machines.BlockMachine`."""
        return self._tally.sums

    def trace(self) -> dict[str, Array]:
        """What every population gave in the last block: name -> (window, batch, ...); {} before the first.

        In steps in which it need not work, and does not, there are zeros.
        """
        if not self.entered:
            return {}
        values = {}
        for unit in self.plan.units:
            step = unit.step
            rows = np.stack([core.gave(step.name) for core in self.cores], axis=1)
            values[step.name] = rows.reshape(self.plan.window, self.batch, *step.op.out_shape)
        return values


class SimulatedSession(PolicySession):
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
    def cycles(self) -> list[int]:
        """Clock cycles of every action so far."""
        return self._machine.cycles


class SimulatedStream(GraphStream):
    """A graph of integers that is no policy, on simulated hardware.

    Args:
        subject: INTEGER graph, run step by step with its state carried, or a plan. batch: number of copies.

    Raises:
        As `SimulatedSession`.
    """

    _machine: Simulated

    def __init__(self, subject: Graph | Plan, batch: int = 1, *, lanes: int = 1, engine: str = NAME) -> None:
        super().__init__(subject, engine, batch)
        self._machine = Simulated(self.plan, batch, lanes=lanes)


def open_program(program: Any, *, lanes: int = 1) -> SimulatedSession:
    """A session of a policy's program.

    Raises:
        ContractError: it is no policy.
    """
    if program.contract is None:
        raise ContractError("carries no contract, so it cannot act", where="program")
    return SimulatedSession(program.policy, lanes=lanes)
