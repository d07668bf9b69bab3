"""A session: a policy that is running. Observation in, action out, state kept.

`MachineSession` runs a policy by its definition (`compiler.plan.interpret`), float or integer, one robot or a batch.
Faster engines offer the same methods and are tested against it. For graphs that are no policies see `runtime.stream`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from nervecord.compiler.blas import matmul
from nervecord.compiler.budget import require_runnable
from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array, Level, Normalise
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import ContractError
from nervecord.runtime.answer import ACTION_NOT_FINITE, NOT_FINITE, Answer, answered
from nervecord.runtime.checks import (
    check_inputs,
    checked_active,
    checked_batch,
    checked_observation,
    checked_rows,
    room_for,
)
from nervecord.runtime.closing import Closing


@dataclass(slots=True)
class Counts:
    """What a session did since it was opened, summed over the robots that were active.

    Args:
        actions: number of actions; of a stream, of steps.
        spikes: spiking node -> spikes.
        synaptic_events: connection -> spikes (or non-zero graded values) times the synapses each reached.
        neuron_updates: neuron updates, idle ones included.
        fail_safe: reason -> actions that were replaced by the contract's fail-safe.
    """

    actions: int = 0
    spikes: dict[str, float] = field(default_factory=dict)
    synaptic_events: dict[str, float] = field(default_factory=dict)
    neuron_updates: float = 0.0
    fail_safe: dict[str, int] = field(default_factory=dict)

    def per_action(self) -> dict[str, float]:
        """Spikes, synaptic events and neuron updates per action."""
        actions = max(self.actions, 1)
        return {
            "spikes": sum(self.spikes.values()) / actions,
            "synaptic_events": sum(self.synaptic_events.values()) / actions,
            "neuron_updates": self.neuron_updates / actions,
        }

    def fail(self, reason: str, times: int = 1) -> None:
        """Count fail-safe actions; none are not noted."""
        if times:
            self.fail_safe[reason] = self.fail_safe.get(reason, 0) + times

    def copy(self) -> Counts:
        """As it stands now; a session's own counts go on."""
        return copy.deepcopy(self)

    def since(self, before: Counts) -> Counts:
        """What was done after `before`, a copy taken earlier."""
        failed = {k: n - before.fail_safe.get(k, 0) for k, n in self.fail_safe.items()}
        return Counts(
            self.actions - before.actions,
            {k: n - before.spikes.get(k, 0.0) for k, n in self.spikes.items()},
            {k: n - before.synaptic_events.get(k, 0.0) for k, n in self.synaptic_events.items()},
            self.neuron_updates - before.neuron_updates,
            {k: n for k, n in failed.items() if n},
        )


class Running(Protocol):
    """What policies and streams offer that are running. Also a context manager that closes it.

    It may be used from several threads: its calls wait for one another.
    """

    plan: Plan
    graph: Graph
    engine: str

    @property
    def batch(self) -> int:
        """Number of copies, each a robot of its own."""
        ...

    @property
    def counts(self) -> Counts:
        """What it did since it was opened: a copy."""
        ...

    def reset(self, batch: int | None = None, *, rows: Array | None = None) -> None:
        """Clear the state: of all copies, setting their number, or of the rows (indices or mask) given."""

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last block (a policy's action): name -> (window, batch, ...).

        Until the next reset.
        """

    def close(self) -> None:
        """Give everything back; further calls are errors."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class Session(Running, Protocol):
    """What every engine offers for a policy."""

    contract: Contract

    @property
    def last(self) -> Answer | None:
        """What the last action is: the policy's, or the fail-safe one, and why. None before the first."""
        ...

    def step(self, observation: Array, active: Array | None = None) -> Array:
        """(batch, observations) -> (batch, actions); without the batch axis for one robot.

        Of a policy that chooses, the one value of an action is the number of the contract's choice.

        Args:
            observation: of every robot.
            active: (batch,) bool, which robots are counted; all by default. The others go on as well.
        """


def planned(subject: Policy | Plan) -> tuple[Plan, Contract]:
    """The plan of a policy, and its contract.

    Raises:
        GraphError: it is not executable, or an action takes too many operations.
        ContractError: it is no policy.
    """
    made = subject if isinstance(subject, Plan) else plan(subject)
    require_runnable(made)
    if made.contract is None:
        raise ContractError(
            "carries no contract, so it cannot act", where="graph", hint="a stream session runs any graph step by step"
        )
    return made, made.contract


def neutral(plan: Plan) -> Array:
    """(observations,) what a core sees instead of an observation that cannot be trusted: the normalisers' means."""
    graph = plan.graph
    found = {name: np.zeros(graph.nodes[name].in_shape) for name in graph.inputs}
    for name in found:
        for b in graph.destinations(name):
            op = graph.nodes[b]
            if isinstance(op, Normalise):
                found[name] = op.mean
    return np.concatenate([values.ravel() for values in found.values()])


def neurons(plan: Plan) -> int:
    """Neurons of a plan."""
    return sum(step.op.neurons for step in plan.core)


def count_block(plan: Plan, entered: Mapping[str, Array], trace: Mapping[str, Array], active: Array) -> tuple[
    dict[str, float], dict[str, float]
]:  # fmt: skip
    """(spikes, synaptic events) of one block, counted when they are sent.

    Args:
        entered: entry -> (window, batch, ...). trace: core node -> the same. active: (batch,) bool.
    """
    spikes = {
        step.name: float(trace[step.name][:, active].sum())
        for step in plan.core if type(step.op).ROLE == "population" and step.op.spikes
    }  # fmt: skip
    events: dict[str, float] = {}
    for step in plan.connections:
        synapses = step.op.synapses()
        assert synapses is not None
        events[step.name] = 0.0
        for tap in step.taps:
            sent = entered[tap.source] if tap.source in entered else trace[tap.source]
            at_each = (sent[:, active] != 0).sum(axis=(0, 1)).ravel()
            events[step.name] += float(matmul(at_each, synapses.fan_out))
    return spikes, events


def add(total: dict[str, float], more: Mapping[str, float]) -> None:
    """Sums by name, in place."""
    for name, value in more.items():
        total[name] = total.get(name, 0.0) + value


class Standing(Protocol):
    """What runs a plan, whose state can be put back."""

    def standing(self) -> Any:
        """What a block changes, as it is now."""

    def stand(self, before: Any) -> None:
        """Make it what `standing` gave; may be called twice."""


class Acting(Closing):
    """A policy's session, which says what its last action is.

    An engine that replaces actions for what is not finite, and nothing else, gives them through `_safe`.
    """

    contract: Contract
    _counts: Counts
    _noted: tuple[Array, Array] | None = None

    def _safe(self, action: Array, trusted: Array, counted: Array) -> Array:
        """The action, or the fail-safe one for robots whose observation, or whose action, is not finite; counted.

        Args:
            action: (batch, actions). trusted: (batch,) bool, whose observation was finite.
            counted: (batch,) bool, which robots are counted.
        """
        sound = np.asarray(np.isfinite(action).all(axis=1))
        self._noted = trusted, sound
        if (trusted & sound).all():
            return action
        self._counts.fail(NOT_FINITE, int(np.count_nonzero(~trusted & counted)))
        self._counts.fail(ACTION_NOT_FINITE, int(np.count_nonzero(trusted & ~sound & counted)))
        safe: Array = np.where((trusted & sound)[:, None], action, np.array(self.contract.fail_safe))
        return safe

    @property
    def batch(self) -> int:
        """Number of robots."""
        raise NotImplementedError

    @property
    def last(self) -> Answer | None:
        """What the last action is; None before the first, and after a reset of all robots."""
        with self._lock:
            return None if self._noted is None else answered(*self._noted)


class Driven(Acting):
    """What the engines' sessions of a policy share: its plan, its counts, and what a reset is.

    Args:
        subject: a policy or its plan. engine: what to call it in results. batch: number of robots.

    Raises:
        GraphError: the graph is not executable.
        ContractError: it carries no contract; the batch is below 1.
    """

    _machine: Standing

    def __init__(self, subject: Policy | Plan, engine: str, batch: int = 1) -> None:
        super().__init__()
        self.plan, self.contract = planned(subject)
        self.graph = self.plan.graph
        self.engine = engine
        checked_batch(batch)
        self._counts = Counts()
        self._neutral = neutral(self.plan)
        self._updates = neurons(self.plan) * self.plan.window

    @property
    def counts(self) -> Counts:
        """What it did since it was opened: a copy."""
        with self._lock:
            return self._counts.copy()

    def reset(self, batch: int | None = None, *, rows: Array | None = None) -> None:
        """Clear the state of all robots (setting their number), or of some rows."""
        with self._lock:
            self._alive()
            checked_batch(batch)
            if rows is not None:
                self._clear(checked_rows(rows, self.batch))
                return
            count = batch or self.batch
            with room_for(count):
                self._restart(count)
            self._noted = None

    def step(self, observation: Array, active: Array | None = None) -> Array:
        """(batch, observations) -> (batch, actions); (observations,) -> (actions,) for one robot.

        A step that is refused, or interrupted, leaves state and counts as they were.

        Raises:
            ContractError: the observation's shape or type is wrong.
            GraphError: an Input that carries spikes is given something else.
            EngineError: the engine failed.
        """
        with self._lock:
            self._alive()
            self._noted = None
            return self._whole(lambda: self._step(observation, active))

    def _step(self, observation: Array, active: Array | None) -> Array:
        """See `step`."""
        raise NotImplementedError

    def _standing(self) -> Any:
        return self._counts.copy(), self._machine.standing()

    def _stand(self, before: Any) -> None:
        self._counts = before[0].copy()
        self._machine.stand(before[1])
        self._noted = None

    def _restart(self, batch: int) -> None:
        """Back to the state before the first action, with so many robots."""
        raise NotImplementedError

    def _clear(self, rows: Array) -> None:
        """The same for some robots."""
        raise NotImplementedError


class Seen(Standing, Protocol):
    """A machine that tells what it did: `compiler.plan.interpret.Machine` of an engine."""

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last block."""

    def state(self) -> dict[str, dict[str, Array]]:
        """State of every core node."""


class Traced(Closing):
    """A session of such a machine, which can be looked at between two calls."""

    _machine: Seen

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last block (a policy's action): name -> (window, batch, ...)."""
        with self._lock:
            return self._machine.trace()

    def state(self) -> dict[str, dict[str, Array]]:
        """State of every core node, as `compiler.plan.interpret.Machine` names it: a copy."""
        with self._lock:
            return self._machine.state()


class MachineSession(Driven):
    """A policy run by the definition of its ops.

    Args:
        subject: DISCRETE or INTEGER, a policy or its plan.
        engine: what to call it in results.
        batch: number of robots.

    An observation with a NaN or an infinity gives that robot the contract's fail-safe action, counted; its core sees
    the normaliser's mean meanwhile, so that nothing it holds is spoilt.

    Raises:
        GraphError: the graph is not executable.
        ContractError: it carries no contract.
    """

    def __init__(self, subject: Policy | Plan, *, engine: str = "definition", batch: int = 1) -> None:
        super().__init__(subject, engine, batch)
        self._machine: Machine = Machine(self.plan, batch)
        self._last: list[dict[str, Array]] = []

    @property
    def batch(self) -> int:
        """Number of robots."""
        return self._machine.batch

    def _restart(self, batch: int) -> None:
        self._machine.reset(batch)
        self._last = []

    def _clear(self, rows: Array) -> None:
        self._machine.clear(rows)

    def _step(self, observation: Array, active: Array | None) -> Array:
        given, trusted = checked_observation(self.contract, observation, self.batch)
        counted = checked_active(active, self.batch)
        if not trusted.all():
            given = np.where(trusted[:, None], given, self._neutral)
        if self.graph.level is Level.INTEGER:
            check_inputs(self.plan, self._machine.before.split(given))
        with np.errstate(over="ignore", invalid="ignore"):  # an action that is not finite is not given, and counted
            action, self._last = self._machine.window(given)
        self._count(counted)
        action = self._safe(action, trusted, counted)
        return action if np.ndim(observation) == 2 else action[0]

    def _standing(self) -> Any:
        return super()._standing(), self._last

    def _stand(self, before: Any) -> None:
        super()._stand(before[0])
        self._last = before[1]

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last action: name -> (window, batch, ...)."""
        with self._lock:
            return {name: np.stack([values[name] for values in self._last]) for name in (self._last or [{}])[0]}

    def state(self) -> dict[str, dict[str, Array]]:
        """State of every core node, as `compiler.plan.interpret.Machine` names it: a copy."""
        with self._lock:
            return copy.deepcopy(self._machine.state)

    def _count(self, active: Array) -> None:
        counts, robots = self._counts, int(np.count_nonzero(active))
        counts.actions += robots
        counts.neuron_updates += self._updates * robots
        spikes, events = count_block(self.plan, self._machine.entered, self.trace(), active)
        add(counts.spikes, spikes)
        add(counts.synaptic_events, events)
