"""Engine `lava`: sessions run by stock lava-nc (`network.py`), with the host's side in our own process."""

from __future__ import annotations

import numpy as np

from nervecord.compiler.host import After, Before
from nervecord.compiler.ops import Array
from nervecord.compiler.plan import plan
from nervecord.compiler.policy import Policy
from nervecord.errors import ContractError
from nervecord.runtime.session import Closing, Counts, checked_observation, count, neutral
from nervecord.runtime.worker import Worker
from nervecord.targets.lava.network import STEP_TIMEOUT, Backend, LavaNetwork


class LavaSession(Closing):
    """A policy run by Lava, one robot.

    Args:
        policy: INTEGER, in Lava's arithmetic.
        full_trace: record the membranes that are read at every step, not only where they are read; `trace` needs it.
            Costs time.
        timeout: seconds an action may take.
        backend: see `Backend`.

    An observation with a NaN or an infinity gives the contract's fail-safe action, counted, as in `MachineSession`.

    Raises:
        GraphError: the policy breaks the rules of its level.
        InfeasibleError: its arithmetic is not Lava's.
        MissingDependencyError: Lava's environment is not installed.
        EngineError: it does not start.
    """

    engine = "lava"

    def __init__(
        self, policy: Policy, *, full_trace: bool = True, timeout: float = STEP_TIMEOUT, backend: Backend = "sim"
    ) -> None:
        self.policy = policy
        self.graph = policy.graph
        self.contract = policy.contract
        self.plan = plan(policy)
        self.counts = Counts()
        self.timeout = timeout
        self._full_trace = full_trace
        self._before, self._after = Before(self.plan), After(self.plan)
        self._neutral = neutral(self.plan)
        self._last: dict[str, Array] = {}
        self._network = LavaNetwork(self.plan, membranes="read" if full_trace else "due", backend=backend)

    @property
    def batch(self) -> int:
        """One: Lava runs one network."""
        return 1

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
        self._alive()
        if batch not in (None, 1):
            raise ContractError(
                f"is {batch}, and engine 'lava' runs one robot", where="batch", hint="engine 'emulator' runs many"
            )
        if rows is None or np.zeros(1)[rows].size:
            self._network.rewind()
            self._before.reset(1)
            self._last = {}

    def step(self, observation: Array) -> Array:
        """(1, observations) or (observations,) -> the action of the same form.

        Raises:
            ContractError: the observation's shape or type is wrong.
            EngineError: Lava died or did not answer in time.
        """
        self._alive()
        given, trusted = checked_observation(self.contract, observation, 1)
        entered = self._before.enter(self._before.split(given if trusted[0] else self._neutral[None]), np.int64)
        played = self._network.play({name: rows[:, 0] for name, rows in entered.items()}, timeout=self.timeout)
        self._last = {name: rows[:, None] for kind in ("spikes", "membranes") for name, rows in played[kind].items()}
        count(self.counts, self.plan, entered, self._last)
        action = self._after.join(self._after.leave(self._last))
        if not trusted[0]:
            self.counts.fail("observation not finite")
            action = np.array(self.contract.fail_safe)[None]
        return action if np.ndim(observation) == 2 else action[0]

    def trace(self) -> dict[str, Array]:
        """What every population gave in the last action: name -> (steps, 1, n). Connections are not observed.

        Raises:
            ContractError: the session was opened without `full_trace`.
        """
        if not self._full_trace:
            raise ContractError(
                "records membranes only where they are read", where="session", hint="use full_trace=True"
            )
        return dict(self._last)

    def close(self) -> None:
        """End Lava; further calls are errors."""
        super().close()
        self._network.close()
