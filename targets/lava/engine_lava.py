"""Engine `lava`: sessions run by stock lava-nc (`network.py`), with the host's side in our own process."""

from __future__ import annotations

import numpy as np

from nervecord.compiler.host import After, Before
from nervecord.compiler.ops import Array
from nervecord.compiler.plan import Plan
from nervecord.compiler.policy import Policy
from nervecord.errors import ContractError
from nervecord.runtime.session import (
    Closing,
    Counts,
    add,
    check_entered,
    checked_active,
    checked_observation,
    count_block,
    neurons,
    neutral,
    planned,
)
from nervecord.runtime.worker import Worker
from nervecord.targets.lava.network import STEP_TIMEOUT, Backend, LavaNetwork


class LavaSession(Closing):
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
        InfeasibleError: its arithmetic is not Lava's.
        MissingDependencyError: Lava's environment is not installed.
        EngineError: it does not start.
    """

    engine = "lava"

    def __init__(
        self, subject: Policy | Plan, *, full_trace: bool = True, timeout: float = STEP_TIMEOUT,
        backend: Backend = "sim",
    ) -> None:  # fmt: skip
        super().__init__()
        self.plan, self.contract = planned(subject)
        self.graph = self.plan.graph
        self.timeout = timeout
        self._counts = Counts()
        self._full_trace = full_trace
        self._before, self._after = Before(self.plan), After(self.plan)
        self._neutral = neutral(self.plan)
        self._updates = neurons(self.plan) * self.plan.window
        self._last: dict[str, Array] = {}
        self._network = LavaNetwork(self.plan, membranes="read" if full_trace else "due", backend=backend)

    @property
    def batch(self) -> int:
        """One: Lava runs one network."""
        return 1

    @property
    def counts(self) -> Counts:
        """What it did since it was opened: a copy."""
        return self._counts.copy()

    @property
    def worker(self) -> Worker:
        """Lava's interpreter."""
        return self._network.worker

    @property
    def provenance(self) -> dict[str, str]:
        """What runs: versions, and whether a newer Python than Lava declares needed the shim."""
        worker = self._network.worker
        return {"python": worker.versions.python, **{k: str(v) for k, v in worker.info.items()}}

    def reset(self, batch: int | None = None, *, rows: Array | None = None) -> None:
        """Clear the state: Lava's run is ended, the next step starts another.

        Raises:
            ContractError: more than one robot is asked for.
        """
        with self._lock:
            self._alive()
            if batch not in (None, 1):
                raise ContractError(
                    f"is {batch}, and engine 'lava' runs one robot", where="batch", hint="engine 'emulator' runs many"
                )
            if rows is None or np.zeros(1)[rows].size:
                self._network.rewind()
                self._before.reset(1)
                self._last = {}

    def step(self, observation: Array, active: Array | None = None) -> Array:
        """(1, observations) or (observations,) -> the action of the same form.

        Raises:
            ContractError: the observation's shape or type is wrong.
            EngineError: Lava died or did not answer in time.
        """
        with self._lock:
            self._alive()
            given, trusted = checked_observation(self.contract, observation, 1)
            counted = checked_active(active, 1)
            entered = self._before.enter(self._before.split(given if trusted[0] else self._neutral[None]), np.int64)
            check_entered(self.plan, entered)
            played = self._network.play({name: rows[:, 0] for name, rows in entered.items()}, timeout=self.timeout)
            self._last = {n: rows[:, None] for kind in ("spikes", "membranes") for n, rows in played[kind].items()}
            self._count(entered, counted)
            action = self._after.join(self._after.leave(self._last))
            if not trusted[0]:
                action = np.array(self.contract.fail_safe)[None]
                if counted[0]:
                    self._counts.fail("observation not finite")
            return action if np.ndim(observation) == 2 else action[0]

    def _count(self, entered: dict[str, Array], active: Array) -> None:
        robots = int(np.count_nonzero(active))
        self._counts.actions += robots
        self._counts.neuron_updates += self._updates * robots
        spikes, events = count_block(self.plan, entered, self._last, active)
        add(self._counts.spikes, spikes)
        add(self._counts.synaptic_events, events)

    def trace(self) -> dict[str, Array]:
        """What every population gave in the last action: name -> (steps, 1, n). Connections are not observed.

        Raises:
            ContractError: the session was opened without `full_trace`.
        """
        if not self._full_trace:
            raise ContractError(
                "records membranes only where they are read", where="session", hint="use full_trace=True"
            )
        with self._lock:
            return dict(self._last)

    def close(self) -> None:
        """End Lava; further calls are errors."""
        super().close()
        self._network.close()
