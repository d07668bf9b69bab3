"""A policy: a graph, the contract of how it acts in the world, and observations it was recorded on."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from html import escape

import numpy as np

from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Array


@dataclass(frozen=True, eq=False)
class Policy:
    """What acts.

    Several Inputs share the observation in the graph's order, each taking the next of its values; several Outputs give
    the action in the same way.

    Args:
        graph: at any level.
        contract: how to drive it.
        recorded: (k, observations) raw observations from training, for calibration; None where there are none.
    """

    graph: Graph
    contract: Contract
    recorded: Array | None = None

    def __post_init__(self) -> None:
        if self.recorded is not None:
            array = np.array(self.recorded, dtype=np.float64)
            array.setflags(write=False)
            object.__setattr__(self, "recorded", array)

    @property
    def schedule(self) -> Schedule:
        """When it works: T steps per action, its state cleared before each or carried."""
        return Schedule(self.contract.steps, self.contract.state, held=True)

    def __repr__(self) -> str:
        graph = self.graph
        return f"<Policy for {self.contract.environment}, {graph.level.value}, {len(graph.nodes)} nodes>"

    def _repr_html_(self) -> str:
        return self.graph._repr_html_().replace(escape(repr(self.graph).strip("<>")), escape(repr(self).strip("<>")), 1)

    def replace(self, **changes: object) -> Policy:
        """A copy with these fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Policy):
            return NotImplemented
        if (self.recorded is None) != (other.recorded is None):
            return False
        same = self.recorded is None or np.array_equal(self.recorded, other.recorded)  # type: ignore[arg-type]
        return same and self.graph == other.graph and self.contract == other.contract

    __hash__ = None  # type: ignore[assignment]


def parts(subject: Graph | Policy) -> tuple[Graph, Contract | None]:
    """The graph and, of a policy, its contract."""
    return (subject.graph, subject.contract) if isinstance(subject, Policy) else (subject, None)


def with_graph(subject: Graph | Policy, graph: Graph) -> Graph | Policy:
    """The same subject with another graph."""
    return subject.replace(graph=graph) if isinstance(subject, Policy) else graph
