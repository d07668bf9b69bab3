"""Sessions of engine `torch`: policies and streams, for one copy or thousands.

`step` takes and gives numpy arrays, as every session does. `BatchedSession.act` takes and gives tensors on the device,
for loops that live there: nothing of it goes through the host, and nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array, Level
from nervecord.compiler.plan.host_steps import split
from nervecord.compiler.plan.interpret import checked
from nervecord.compiler.plan.plan import Plan
from nervecord.errors import ContractError
from nervecord.runtime.answer import ACTION_NOT_FINITE, NOT_FINITE, Answer, answered
from nervecord.runtime.checks import check_inputs, checked_active, checked_batch, checked_observation
from nervecord.runtime.engines.torch.agreement import Agreement, agreement
from nervecord.runtime.engines.torch.host_steps import DOUBLE
from nervecord.runtime.engines.torch.machine import BatchedMachine
from nervecord.runtime.session import Counts, PolicySession, Traced
from nervecord.runtime.stream import GraphStream

ENGINE = "torch"


class Batched:
    """A machine on a device, with numpy's arrays at its ends; see `runtime.machines.BlockMachine`.

    Args:
        plan: what to run. batch: number of copies. device, precision: of `BatchedMachine`.
    """

    def __init__(self, plan: Plan, batch: int, device: str | torch.device, precision: str) -> None:
        self.plan = plan
        self.core = BatchedMachine(plan, batch, device=device, precision=precision)
        self.device = self.core.place.device
        self.stepped = False
        whole = plan.graph.level is Level.INTEGER
        names = {step.name for step in plan.core}
        self._types: dict[str, Any] = {
            name: np.int64 if whole and set(plan.graph.sources(name)) <= names else np.float64
            for name in plan.graph.outputs
        }

    @property
    def batch(self) -> int:
        """Number of copies."""
        return self.core.batch

    def reset(self, batch: int) -> None:
        """Back to the state before the first block, with so many copies.

        Raises:
            MemoryError: there is no room for them; nothing is changed then.
        """
        copies, before = self.core.batch, self.core.standing()
        try:
            self.core.reset(batch)
        except RuntimeError as error:  # torch has no class of its own for it on every device
            self.core.reset(copies)
            self.core.stand(before)
            raise MemoryError(str(error).splitlines()[0]) from None

    def clear(self, rows: Array) -> None:
        """The same for some copies."""
        mask = np.zeros(self.batch, dtype=np.bool_)
        mask[rows] = True
        self.core.clear(torch.from_numpy(mask).to(self.device))

    def block(self, inputs: Mapping[str, Array], active: Array) -> dict[str, Array]:
        """One block."""
        if self.plan.graph.level is Level.INTEGER:
            check_inputs(self.plan, inputs)
        self.stepped = True
        tensors = {n: torch.from_numpy(np.array(x, dtype=np.float64)).to(self.device) for n, x in inputs.items()}
        outputs = self.core.block(tensors, torch.from_numpy(active).to(self.device))
        return {name: x.cpu().numpy().astype(self._types[name]) for name, x in outputs.items()}

    def tally(self) -> tuple[dict[str, float], dict[str, float]]:
        """Spikes and synaptic events; waits for the device."""
        if not self.stepped:
            return {}, {}
        sums = self.core.tally.spikes, self.core.tally.events
        spikes, events = ({name: value.item() for name, value in each.items()} for each in sums)
        return spikes, events

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last block: name -> (window, batch, ...).

        Raises:
            ContractError: it was opened without `trace`.
        """
        if not self.core.keeps_trace:
            raise ContractError("keeps no trace", where="session", hint="open it with trace=True")
        return self.core.trace()

    def state(self) -> dict[str, dict[str, Array]]:
        """State of every core node."""
        return self.core.state()

    def standing(self) -> Any:
        """What a block changes, as it is now."""
        return self.core.standing(), self.stepped

    def stand(self, before: Any) -> None:
        """Make it what it was; may be called twice."""
        self.core.stand(before[0])
        self.stepped = before[1]


class BatchedSession(Traced, PolicySession):
    """A policy, floats or integers, for a batch of robots on a device.

    Args:
        subject: DISCRETE or INTEGER, a policy or its plan.
        batch: number of robots.
        device: as torch names it: "cpu", "cuda", "cuda:1".
        precision: of floats, "float64" or "float32"; the host's ops are float64 always.
        trace: `trace` will be asked for: every step's values are kept until the next action.

    An observation with a NaN or an infinity gives that robot the contract's fail-safe action, counted; its core sees
    the normaliser's mean meanwhile.

    Raises:
        GraphError: the graph is not executable here.
        ContractError: it carries no contract.
        InfeasibleError: a range of integers cannot be proved.
        NervecordError: there is no such device or precision.
    """

    _machine: Batched

    def __init__(
        self,
        subject: Policy | Plan,
        batch: int = 1,
        *,
        device: str | torch.device = "cpu",
        precision: str = "float64",
        trace: bool = True,
    ) -> None:
        super().__init__(subject, ENGINE, batch)
        self._machine = Batched(self.plan, batch, device, precision)
        self._machine.core.keeps_trace = trace
        place = self._machine.core.place
        self.device, self.precision = place.device, precision
        self._mean = place.tensor(self._neutral, DOUBLE)
        self._fail_safe = place.tensor(np.array(self.contract.fail_safe), DOUBLE)
        self._actions = torch.zeros((), dtype=DOUBLE, device=place.device)
        self._failed = torch.zeros((), dtype=DOUBLE, device=place.device)
        self._unsound = torch.zeros((), dtype=DOUBLE, device=place.device)
        self._trusted: Tensor | None = None

    @property
    def last(self) -> Answer | None:
        """What the last action is; None before the first, and after a reset of all robots. Waits for the device."""
        with self._lock:
            return None if self._trusted is None else answered(self._trusted.cpu().numpy(), self._sound.cpu().numpy())

    @property
    def counts(self) -> Counts:
        """What it did since it was opened; waits for the device."""
        with self._lock:
            counts = super().counts
            counts.actions = int(self._actions.item())
            counts.neuron_updates = float(self._updates * counts.actions)
            counts.fail(NOT_FINITE, int(self._failed.item()))
            counts.fail(ACTION_NOT_FINITE, int(self._unsound.item()))
            return counts

    def reset(self, batch: int | None = None, *, rows: Array | Tensor | None = None) -> None:
        """Clear the state of all robots (setting their number), or of some rows.

        Args:
            batch: number of robots. rows: indices or a mask; a tensor on the device must be a mask, (batch,) bool.
        """
        if not isinstance(rows, Tensor):
            super().reset(batch, rows=rows)
            return
        with self._lock:
            self._alive()
            checked_batch(batch)
            if rows.dtype is not torch.bool or tuple(rows.shape) != (self.batch,):
                raise ContractError(
                    f"has shape {tuple(rows.shape)} of {rows.dtype}, ({self.batch},) of torch.bool is needed",
                    where="rows",
                )
            self._machine.core.clear(rows)

    def _restarted(self) -> None:
        self._trusted = None

    def _step(self, observation: Array, active: Array | None) -> Array:
        self._trusted = None
        x, trusted = checked_observation(self.contract, observation, self.batch)
        counted = None if active is None else torch.from_numpy(checked_active(active, self.batch)).to(self.device)
        if self.graph.level is Level.INTEGER:
            self._check_spikes(x[trusted])
        action = self._on_device(torch.from_numpy(x).to(self.device), counted).cpu().numpy()
        return action if np.ndim(observation) == 2 else action[0]

    def _standing(self) -> Any:
        return super()._standing(), (self._actions, self._failed, self._unsound)

    def _stand(self, before: Any) -> None:
        super()._stand(before[0])
        self._actions, self._failed, self._unsound = before[1]
        self._trusted = None

    def _check_spikes(self, rows: Array) -> None:
        if any(self.graph.nodes[name].spikes for name in self.graph.inputs):
            check_inputs(self.plan, split(self.plan, rows))

    @torch.no_grad()
    def act(self, observation: Tensor, active: Tensor | None = None) -> Tensor:
        """`step` on the device.

        What an Input that carries spikes is given is not looked at here: anything but 0 and 1 has no meaning.

        Args:
            observation: (batch, observations) of any float type. active: (batch,) bool, which robots are counted.

        Returns:
            (batch, actions) float64.

        Raises:
            ContractError: a tensor's shape, type or device is wrong.
        """
        with self._lock:
            self._alive()
            self._trusted = None
            return self._whole(lambda: self._on_device(observation, active))

    @torch.no_grad()
    def _on_device(self, observation: Tensor, active: Tensor | None) -> Tensor:
        self._require(observation, active)
        self._machine.stepped = True
        x = observation.to(DOUBLE)
        trusted = x.isfinite().all(1)
        safe = torch.where(trusted[:, None], x, self._mean)
        action = self._machine.core.act(safe, active)
        sound = action.isfinite().all(1)
        counted = torch.ones_like(trusted) if active is None else active
        # New tensors: those that were are kept until the step is done.
        self._actions = self._actions + counted.sum()
        self._failed = self._failed + (counted & ~trusted).sum()
        self._unsound = self._unsound + (counted & trusted & ~sound).sum()
        self._trusted, self._sound = trusted, sound
        return torch.where((trusted & sound)[:, None], action, self._fail_safe)

    def _require(self, observation: Tensor, active: Tensor | None) -> None:
        size = self.contract.observation.size
        if tuple(observation.shape) != (self.batch, size) or not observation.is_floating_point():
            raise ContractError(
                f"has shape {tuple(observation.shape)} of {observation.dtype}, and the policy takes "
                f"({self.batch}, {size}) of floats",
                where="observation",
                hint="reset(batch) sets the number of robots",
            )
        if active is not None and (tuple(active.shape) != (self.batch,) or active.dtype is not torch.bool):
            raise ContractError(
                f"has shape {tuple(active.shape)} of {active.dtype}, ({self.batch},) of torch.bool is needed",
                where="active",
            )
        for name, tensor in (("observation", observation), ("active", active)):
            if tensor is not None and tensor.device != self._fail_safe.device:
                raise ContractError(f"is on {tensor.device}, the session on {self._fail_safe.device}", where=name)

    def agreement(self, observations: Array) -> Agreement:
        """Compare what runs here with the definition, op by op, on this session's device and in its precision.

        Args:
            observations: (k, observations) or (k, batch, observations), finite, each one action.

        Raises:
            GraphError: they are of another shape.
        """
        rows = checked(np.asarray(observations), (self.contract.observation.size,), "observations")
        inputs = [split(self.plan, row) for row in rows]
        return agreement(self.plan, inputs, device=self.device, precision=self.precision)


class BatchedStream(Traced, GraphStream):
    """A graph that is no policy, for a batch of copies on a device.

    Args:
        subject: DISCRETE or INTEGER graph, run step by step with its state carried, or a plan.
        batch: number of copies.
        device, precision: of `BatchedSession`.

    Raises:
        GraphError, InfeasibleError, NervecordError: as of `BatchedSession`; or it is a policy's plan.
    """

    _machine: Batched

    def __init__(
        self, subject: Graph | Plan, batch: int = 1, *, device: str | torch.device = "cpu", precision: str = "float64"
    ) -> None:
        super().__init__(subject, ENGINE, batch)
        self._machine = Batched(self.plan, batch, device, precision)
        self.device, self.precision = self._machine.device, precision
