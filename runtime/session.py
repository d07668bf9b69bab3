"""A session: a policy that is running. Observation in, action out, state kept.

`MachineSession` runs a policy by its definition (`compiler.plan.interpret`), float or integer, one robot or a batch.
Faster engines offer the same methods and are tested against it. For graphs that are no policies see `runtime.stream`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array, Normalise
from nervecord.compiler.plan.host_steps import join, split
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.compiler.plan.work import require_runnable
from nervecord.errors import ContractError
from nervecord.runtime.answer import ACTION_NOT_FINITE, NOT_FINITE, Answer, answered
from nervecord.runtime.checks import checked_active, checked_batch, checked_observation, checked_rows, room_for
from nervecord.runtime.closing import Closing
from nervecord.runtime.machines import BlockMachine, Definition


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
    block_plan = subject if isinstance(subject, Plan) else plan(subject)
    require_runnable(block_plan)
    if block_plan.contract is None:
        raise ContractError(
            "carries no contract, so it cannot act", where="graph", hint="a stream session runs any graph step by step"
        )
    return block_plan, block_plan.contract


def neutral(plan: Plan) -> Array:
    """(observations,) what a core sees instead of an observation that cannot be trusted: the normalisers' means."""
    graph = plan.graph
    values_of = {name: np.zeros(graph.nodes[name].in_shape) for name in graph.inputs}
    for name in values_of:
        for b in graph.destinations(name):
            op = graph.nodes[b]
            if isinstance(op, Normalise):
                values_of[name] = op.mean
    return np.concatenate([values.ravel() for values in values_of.values()])


def neurons(plan: Plan) -> int:
    """Neurons of a plan."""
    return sum(step.op.neurons for step in plan.core)


class BlockSession(Closing):
    """What the engines' sessions share, of policies and of other graphs: a machine, and what was counted of it.

    Args:
        plan: what it runs. engine: what to call it in results.
    """

    _machine: BlockMachine

    def __init__(self, plan: Plan, engine: str) -> None:
        super().__init__()
        self.plan, self.graph, self.engine = plan, plan.graph, engine
        self._counts = Counts()
        self._updates = neurons(plan) * plan.window

    @property
    def batch(self) -> int:
        """Number of copies, of robots."""
        return self._machine.batch

    @property
    def counts(self) -> Counts:
        """What it did since it was opened: a copy."""
        with self._lock:
            counts = self._counts.copy()
            spikes, events = self._machine.tally()
            counts.spikes, counts.synaptic_events = dict(spikes), dict(events)
            return counts

    def reset(self, batch: int | None = None, *, rows: Array | None = None) -> None:
        """Clear the state of all copies (setting their number), or of some rows."""
        with self._lock:
            self._alive()
            checked_batch(batch)
            if rows is not None:
                self._machine.clear(checked_rows(rows, self.batch))
                return
            count = batch or self.batch
            with room_for(count):
                self._machine.reset(count)
                self._restarted()

    def _restarted(self) -> None:
        """What a reset of all copies changes beside the machine."""

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last block (a policy's action): name -> (window, batch, ...)."""
        with self._lock:
            return self._machine.trace()

    def _count(self, active: Array, steps: int = 1) -> None:
        """Count a block of so many steps."""
        robots = int(np.count_nonzero(active))
        self._counts.actions += steps * robots
        self._counts.neuron_updates += self._updates * robots

    def _standing(self) -> Any:
        return self._counts.copy(), self._machine.standing()

    def _stand(self, before: Any) -> None:
        self._counts = before[0].copy()
        self._machine.stand(before[1])


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
    def last(self) -> Answer | None:
        """What the last action is; None before the first, and after a reset of all robots."""
        with self._lock:
            return None if self._noted is None else answered(*self._noted)


class PolicySession(BlockSession, Acting):
    """What the engines' sessions of a policy share: what a step is. An engine says how it acts.

    Args:
        subject: a policy or its plan. engine: what to call it in results. batch: number of robots.

    An observation with a NaN or an infinity gives that robot the contract's fail-safe action, counted; its core sees
    the normaliser's mean meanwhile, so that nothing it holds is spoilt.

    Raises:
        GraphError: the graph is not executable.
        ContractError: it carries no contract; the batch is below 1.
    """

    def __init__(self, subject: Policy | Plan, engine: str, batch: int = 1) -> None:
        plan, self.contract = planned(subject)
        super().__init__(plan, engine)
        checked_batch(batch)
        self._neutral = neutral(plan)

    def _restarted(self) -> None:
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
        rows, trusted = checked_observation(self.contract, observation, self.batch)
        counted = checked_active(active, self.batch)
        action, trusted = self._act(rows, trusted, counted)
        self._count(counted)
        action = self._safe(action, trusted, counted)
        return action if np.ndim(observation) == 2 else action[0]

    def _act(self, rows: Array, trusted: Array, counted: Array) -> tuple[Array, Array]:
        """One action of every robot: (batch, actions), and (batch,) bool whose observation was finite.

        Args:
            rows: (batch, observations). trusted: (batch,) bool, which of them are finite.
            counted: (batch,) bool, which robots are counted.
        """
        safe = rows if trusted.all() else np.where(trusted[:, None], rows, self._neutral)
        with np.errstate(over="ignore", invalid="ignore"):  # an action that is not finite is not given, and counted
            return join(self.plan, self._machine.block(split(self.plan, safe), counted)), trusted

    def _stand(self, before: Any) -> None:
        super()._stand(before)
        self._noted = None


class Traced(Closing):
    """A session of a machine that tells its state, between two calls."""

    _machine: Any

    def state(self) -> dict[str, dict[str, Array]]:
        """State of every core node, as `compiler.plan.interpret.Machine` names it: a copy."""
        with self._lock:
            state: dict[str, dict[str, Array]] = self._machine.state()
            return state


class MachineSession(Traced, PolicySession):
    """A policy run by the definition of its ops.

    Args:
        subject: DISCRETE or INTEGER, a policy or its plan.
        engine: what to call it in results.
        batch: number of robots.

    Raises:
        GraphError: the graph is not executable.
        ContractError: it carries no contract.
    """

    def __init__(self, subject: Policy | Plan, *, engine: str = "definition", batch: int = 1) -> None:
        super().__init__(subject, engine, batch)
        self._machine = Definition(self.plan, batch)
