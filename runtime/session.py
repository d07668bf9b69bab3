"""A session: a policy that is running. Observation in, action out, state kept.

`MachineSession` runs a graph by its definition (`compiler.interpret`), float or integer, one robot or many at once.
Faster engines offer the same methods and are tested against it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.contract import Contract
from nervecord.compiler.graph import Graph
from nervecord.compiler.interpret import Machine
from nervecord.compiler.node import Array
from nervecord.errors import ContractError


@dataclass(slots=True)
class Counts:
    """What a session did since it was opened, summed over its robots.

    Args:
        actions: number of actions.
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
        """Count fail-safe actions."""
        self.fail_safe[reason] = self.fail_safe.get(reason, 0) + times


@runtime_checkable
class Session(Protocol):
    """What every engine offers. Also a context manager that closes it."""

    graph: Graph
    contract: Contract
    engine: str

    @property
    def counts(self) -> Counts:
        """What it did since it was opened."""
        ...

    def reset(self, batch: int | None = None, *, rows: Array | None = None) -> None:
        """Clear the state: of all robots, setting their number, or of the rows (indices or mask) given."""

    def step(self, observation: Array) -> Array:
        """(batch, observations) -> (batch, actions); without the batch axis for one robot.

        Of a policy that chooses, the one value of an action is the number of the contract's choice.
        """

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last action: name -> (steps, batch, ...)."""

    def close(self) -> None:
        """Give everything back; further calls are errors."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def checked_observation(contract: Contract, observation: Array, batch: int) -> tuple[Array, Array]:
    """An observation as (batch, observations) float64, and which rows can be trusted (all values finite).

    Raises:
        ContractError: its shape or type is not the contract's.
    """
    array = np.asarray(observation)
    if array.dtype.kind not in "fiu":
        raise ContractError(f"holds {array.dtype}, not numbers", where="observation")
    size = contract.observation.size
    if array.shape not in {(batch, size)} | ({(size,)} if batch == 1 else set()):
        raise ContractError(
            f"has shape {array.shape}, and the policy takes ({batch}, {size})",
            where="observation",
            hint="the contract lists the channels in order: nervecord inspect",
        )
    array = array.astype(np.float64).reshape(batch, size)
    trusted = np.asarray(np.isfinite(array).all(axis=1))
    return array, trusted


class Closing:
    """A context manager that closes itself, and refuses to go on afterwards."""

    _closed = False

    def close(self) -> None:
        """Further calls are errors."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _alive(self) -> None:
        if self._closed:
            raise ContractError("is closed", where="session")


class MachineSession(Closing):
    """A policy run by the definition of its nodes.

    Args:
        graph: DISCRETE or INTEGER, with a contract.
        engine: what to call it in results.
        batch: number of robots.

    An observation with a NaN or an infinity gives that robot the contract's fail-safe action, counted; its core sees
    the normaliser's mean meanwhile, so that nothing it holds is spoilt.

    Raises:
        GraphError: the graph is not executable.
        ContractError: it carries no contract.
    """

    def __init__(self, graph: Graph, *, engine: str = "numpy", batch: int = 1) -> None:
        if graph.contract is None:
            raise ContractError(
                "carries no contract, so it cannot act", where="graph", hint="simulate runs any graph on recorded input"
            )
        self.graph = graph
        self.contract = graph.contract
        self.engine = engine
        self.counts = Counts()
        self._machine = Machine(graph, batch)
        self._mean: Array = np.zeros(self.contract.observation.size)
        for _, node in graph.of_type(n.Normalise):
            self._mean = node.mean  # type: ignore[attr-defined]
        self._fail_safe = np.array(self.contract.fail_safe)
        self._last: list[dict[str, Array]] = []
        (self._source,) = self._machine.host.sources
        self._fan_out = {
            name: np.count_nonzero(node.weight, axis=0).astype(np.float64)  # type: ignore[attr-defined]
            for name, node in graph.of_type(n.Affine, n.FixedDense)
        }
        neurons = sum(int(np.prod(node.in_shape)) for _, node in graph.of_type(*n.NEURONS))
        self._updates_per_action = neurons * self.contract.window

    @property
    def batch(self) -> int:
        """Number of robots."""
        return self._machine.batch

    def reset(self, batch: int | None = None, *, rows: Array | None = None) -> None:
        """Clear the state of all robots (setting their number), or of some rows."""
        self._alive()
        if rows is not None:
            self._machine.clear(rows)
            return
        if batch is not None and batch < 1:
            raise ContractError(f"is {batch}, at least 1 is needed", where="batch")
        self._machine.reset(batch)
        self._last = []

    def step(self, observation: Array) -> Array:
        """(batch, observations) -> (batch, actions); (observations,) -> (actions,) for one robot.

        Raises:
            ContractError: the observation's shape or type is wrong.
        """
        self._alive()
        given, trusted = checked_observation(self.contract, observation, self.batch)
        if not trusted.all():
            given = np.where(trusted[:, None], given, self._mean)
        action, self._last = self._machine.window(given)
        self._count()
        if not trusted.all():
            action = np.where(trusted[:, None], action, self._fail_safe)
            self.counts.fail("observation not finite", int(np.count_nonzero(~trusted)))
        return action if np.ndim(observation) == 2 else action[0]

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last action: name -> (steps, batch, ...)."""
        return {name: np.stack([values[name] for values in self._last]) for name in (self._last or [{}])[0]}

    def _count(self) -> None:
        counts, graph = self.counts, self.graph
        counts.actions += self.batch
        counts.neuron_updates += self._updates_per_action * self.batch
        trace = self.trace()
        for name, _ in graph.of_type(*n.SPIKING):
            counts.spikes[name] = counts.spikes.get(name, 0.0) + float(trace[name].sum())
        active = (self._machine.entered != 0).sum(axis=(0, 1))
        for name, fan_out in self._fan_out.items():
            events = 0.0
            for source in graph.sources(name):
                if source == self._source:
                    events += float(active @ fan_out)
                else:
                    events += float(((trace[source] != 0) @ fan_out).sum())
            counts.synaptic_events[name] = counts.synaptic_events.get(name, 0.0) + events
