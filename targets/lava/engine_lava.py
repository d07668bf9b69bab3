"""Engine `lava`: sessions run by stock lava-nc (`network.py`), with the host's side in our own process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.host_steps import AfterCore, BeforeCore
from nervecord.compiler.plan.plan import Plan
from nervecord.errors import ContractError
from nervecord.runtime.checks import check_inputs
from nervecord.runtime.machines import Tally
from nervecord.runtime.session import BlockSession, PolicySession
from nervecord.runtime.stream import GraphStream
from nervecord.runtime.worker.parent import Worker
from nervecord.targets.lava.network import STEP_TIMEOUT, Backend, LavaNetwork


class Core:
    """A plan running in Lava, with the host's ops around it: what both kinds of session share.

    Args:
        plan: INTEGER, in Lava's arithmetic.
        full_trace: record the membranes that are read at every step, not only where they are read.
        timeout: seconds a block may take. backend: see `Backend`.
    """

    def __init__(self, plan: Plan, *, full_trace: bool, timeout: float, backend: Backend) -> None:
        self.plan = plan
        self.full_trace = full_trace
        self.timeout = timeout
        self._before, self._after = BeforeCore(plan), AfterCore(plan)
        self._last: dict[str, Array] = {}
        self._begun = 0
        self._tally = Tally(plan)
        self.network = LavaNetwork(plan, membranes="read" if full_trace else "due", backend=backend)

    def standing(self) -> Any:
        """What a block changes here, and how many Lava has begun, for `stand`."""
        return self._before.standing(), self._last, self._begun, self._tally.sums

    def stand(self, before: Any) -> None:
        """Make it what it was. Lava's state cannot be: where it was asked for a block, it is ended."""
        self._before.stand(before[0])
        self._last, self._tally.sums = before[1], before[3]
        if self._begun != before[2]:
            self.network.worker.kill()

    @property
    def provenance(self) -> dict[str, str]:
        """What runs: versions, and whether a newer Python than Lava declares needed the shim."""
        worker = self.network.worker
        return {"python": worker.versions.python, **{k: str(v) for k, v in worker.info.items()}}

    @property
    def batch(self) -> int:
        """One: Lava runs one network."""
        return 1

    def block(self, inputs: Mapping[str, Array], active: Array) -> dict[str, Array]:
        """One block, counted: as `compiler.plan.interpret.Machine.block` takes and gives it."""
        check_inputs(self.plan, inputs)
        entered = self._before.enter(inputs, np.int64)
        self._begun += 1
        played = self.network.play({name: rows[:, 0] for name, rows in entered.items()}, timeout=self.timeout)
        self._last = {name: rows[:, None] for kind in ("spikes", "membranes") for name, rows in played[kind].items()}
        self._tally.add(entered, self._last, active)
        return self._after.leave(self._last)

    def reset(self, batch: int) -> None:
        """Back to the state before the first step: Lava's run is ended, the next block starts another.

        Raises:
            ContractError: more than one copy is asked for.
        """
        one_robot(batch)
        self.network.rewind()
        self._before.reset(1)
        self._last = {}

    def clear(self, rows: Array) -> None:
        """The same where the one copy is among the rows."""
        if np.zeros(1)[rows].size:
            self.reset(1)

    def tally(self) -> tuple[dict[str, float], dict[str, float]]:
        """See `runtime.machines.BlockMachine`."""
        return self._tally.sums

    def trace(self) -> dict[str, Array]:
        """What every population gave in the last block: name -> (window, 1, n). Connections are not observed.

        Raises:
            ContractError: it was opened without `full_trace`.
        """
        if not self.full_trace:
            raise ContractError(
                "records membranes only where they are read", where="session", hint="use full_trace=True"
            )
        return dict(self._last)


def one_robot(batch: int | None) -> None:
    """Refuse more than one.

    Raises:
        ContractError: it is more, or less.
    """
    if batch not in (None, 1):
        raise ContractError(
            f"is {batch}, and engine 'lava' runs one", where="batch", hint="engine 'emulator' runs many"
        )


class _Elsewhere(BlockSession):
    """What runs in another process, and so in one place alone."""

    _machine: Core

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise ContractError(
            "runs in Lava's own process, and can be neither copied nor pickled",
            where="session",
            hint="pickle the program, and open it once more",
        )

    @property
    def worker(self) -> Worker:
        """Lava's interpreter."""
        return self._machine.network.worker

    @property
    def provenance(self) -> dict[str, str]:
        """What runs: versions, and whether a newer Python than Lava declares needed the shim."""
        return self._machine.provenance

    def close(self) -> None:
        """End Lava; further calls are errors."""
        super().close()
        self._machine.network.close()


class LavaSession(_Elsewhere, PolicySession):
    """A policy run by Lava, one robot.

    Args:
        subject: INTEGER policy in Lava's arithmetic, or its plan.
        full_trace: record the membranes that are read at every step, not only where they are read; `trace` needs it.
            Costs time.
        timeout: seconds an action may take.
        backend: see `Backend`.

    An observation with a NaN or an infinity gives the contract's fail-safe action, counted, as in `MachineSession`.

    Raises:
        GraphError, ContractError: it is no policy that can be executed.
        InfeasibleError: its arithmetic is not Lava's, or a range cannot be proved.
        MissingDependencyError: Lava's environment is not installed.
        EngineError: it does not start.
    """

    def __init__(
        self,
        subject: Policy | Plan,
        *,
        full_trace: bool = True,
        timeout: float = STEP_TIMEOUT,
        backend: Backend = "sim",
    ) -> None:
        super().__init__(subject, "lava")
        self._machine = Core(self.plan, full_trace=full_trace, timeout=timeout, backend=backend)


class LavaStream(_Elsewhere, GraphStream):
    """A graph that is no policy, run by Lava, one copy.

    Args:
        subject: INTEGER graph in Lava's arithmetic, run step by step with its state carried, or a plan.
        full_trace, timeout, backend: as of `LavaSession`; the timeout is that of a block.

    Raises:
        GraphError: it cannot be executed, or it is a policy's plan.
        InfeasibleError, MissingDependencyError, EngineError: as of `LavaSession`.
    """

    def __init__(
        self, subject: Graph | Plan, *, full_trace: bool = True, timeout: float = STEP_TIMEOUT, backend: Backend = "sim"
    ) -> None:
        super().__init__(subject, "lava", 1)
        self._machine = Core(self.plan, full_trace=full_trace, timeout=timeout, backend=backend)
