"""What a feasibility rule is, and what it is given.

A rule is one small function that yields `Hit`s; the table in `compiler.check` gives it its code, severity and
documentation. Rules never raise on a graph whose arrays have their shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.findings import Finding, Severity
from nervecord.compiler.graph import Graph, Level
from nervecord.compiler.node import Array, Node
from nervecord.compiler.place import Placement, place
from nervecord.compiler.target import Fact, TargetSpec
from nervecord.compiler.topology import Topology, label

EVERY_LEVEL: tuple[Level, ...] = tuple(Level)
FLOAT_LEVELS: tuple[Level, ...] = (Level.IMPORTED, Level.DISCRETE)
INTEGER_LEVEL: tuple[Level, ...] = (Level.INTEGER,)

GRAPH = "graph"
"""The node a finding names when it concerns no single one."""


@dataclass(frozen=True, slots=True)
class Hit:
    """What a rule found; `Rule` and target turn it into a `Finding`. severity None: the rule's own."""

    node: str
    message: str
    value: float | int | str | None = None
    limit: float | int | str | None = None
    fix: str = ""
    source: str | None = None
    severity: Severity | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """A graph held against a target: what every rule is given."""

    graph: Graph
    spec: TargetSpec
    topology: Topology
    placement: Placement

    @classmethod
    def of(cls, graph: Graph, spec: TargetSpec) -> Case:
        """Analyse and place a graph for a target."""
        topology = Topology.of(graph)
        return cls(graph, spec, topology, place(graph, spec, topology))

    def named(self, name: str) -> str:
        """A node's name as its maker wrote it."""
        return label(self.graph, name)

    def populations(self, *types: type[Node]) -> Iterator[tuple[str, Node]]:
        """(name, node) of populations, of these types if any are given."""
        for name, node in self.topology.populations.items():
            if not types or isinstance(node, types):
                yield name, node

    @property
    def carried(self) -> bool:
        """Whether it is a policy whose state is carried from action to action."""
        return self.graph.contract is not None and self.graph.contract.state == "carried"

    @property
    def windowed(self) -> bool:
        """Whether it is a policy whose state is cleared before each action."""
        return self.graph.contract is not None and self.graph.contract.state == "reset"

    @property
    def connection_delay(self) -> float:
        """Steps the target adds to each connection; 0 where that is not known."""
        return self.spec.limits.connection_delay.value or 0


Check: TypeAlias = Callable[[Case], Iterator[Hit]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is checked.

    Args:
        code: stable, kebab-case: tools match on it.
        severity: of its findings, unless one says otherwise (a limit that is not exact makes "unknown" of "error").
        levels: of graphs it applies to.
        means: what a finding of this code says, for docs/findings.md.
        remedy: what to do about it, for the same.
        check: the function.
    """

    code: str
    severity: Severity
    levels: tuple[Level, ...]
    means: str
    remedy: str
    check: Check

    def __call__(self, case: Case) -> Iterator[Finding]:
        """Findings of this rule."""
        if case.graph.level not in self.levels:
            return
        for hit in self.check(case):
            yield Finding(
                code=self.code,
                severity=hit.severity or self.severity,
                node=hit.node,
                message=hit.message,
                value=hit.value,
                limit=hit.limit,
                fix=hit.fix,
                target=case.spec.name,
                source=hit.source,
            )


def above(fact: Fact[float], value: float, node: str, message: str, fix: str) -> Iterator[Hit]:
    """A hit if `value` exceeds a limit that has a value: unknown where the limit is not exact, the rule's own else."""
    if fact.value is not None and value > fact.value:
        yield Hit(node, message, _plain(value), _plain(fact.value), fix, cited(fact), broken(fact))


def broken(fact: Fact[Any]) -> Severity | None:
    """Severity of going against a fact: the rule's own where it is certain, else unknown."""
    return None if fact.decides else "unknown"


def cited(fact: Fact[Any]) -> str:
    """A fact's source, with its confidence where that is less than exact."""
    return fact.source if fact.confidence in ("exact", "unknown") else f"{fact.source} [{fact.confidence}]"


def decay_of(node: Node, dt: float | None) -> dict[str, Array]:
    """Decay factors per step of a population: "decay", "current decay"; empty where it has none or dt is missing.

    In continuous time the factor is taken as 1 - dt / tau, as forward Euler does.
    """
    found: dict[str, Array] = {}
    for name, discrete, continuous in (("decay", "decay", "tau"), ("current decay", "current_decay", "tau_syn")):
        if hasattr(node, discrete):
            found[name] = getattr(node, discrete)
        elif hasattr(node, continuous) and dt is not None:
            found[name] = np.clip(1 - dt / getattr(node, continuous), 0, 1)
    return found


def spikes(node: Node) -> bool:
    """Whether a population sends spikes."""
    return isinstance(node, n.SPIKING)


def _plain(value: float) -> float | int:
    return int(value) if float(value).is_integer() else float(value)
