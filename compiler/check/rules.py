"""What a feasibility rule is, and what it is given.

A rule is one small function that yields `Hit`s; the table in `compiler.check.table` gives it its code, severity and
documentation. Rules never raise on a graph whose arrays have their shapes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler.check.placement import Placement, place
from nervecord.compiler.findings import Finding, Severity
from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.lower.lower import trial
from nervecord.compiler.lower.prepare import prepared, prepares
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.ops import (
    Array,
    ContinuousMembrane,
    ContinuousSynapse,
    Level,
    Membrane,
    Neuron,
    Op,
    Spike,
    Synapse,
    Threshold,
)
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.plan.calibrate import Calibration, calibrate
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.plan.timing import Lateness, lateness_of, schedule_of
from nervecord.compiler.plan.topology import Topology, label
from nervecord.compiler.target.implied import integers
from nervecord.compiler.target.options import chosen_options
from nervecord.compiler.target.protocol import Fact, Target, TargetSpec
from nervecord.errors import GraphError, InfeasibleError

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


@dataclass(frozen=True)
class Case:
    """A graph or policy held against a target: what every rule is given.

    Args:
        contract: of a policy, else None.
        schedule: when it works; of a graph that is no policy a stream, unless something else is said.
        lateness: when things arrive on the target.
        target: whose options count where floats become integers; None: by default.
    """

    subject: Graph | Policy
    graph: Graph
    contract: Contract | None
    schedule: Schedule
    spec: TargetSpec
    topology: Topology
    placement: Placement
    lateness: Lateness
    target: Target[Any] | None = None

    @classmethod
    def of(
        cls,
        subject: Graph | Policy,
        spec: TargetSpec,
        schedule: Schedule | None = None,
        topology: Topology | None = None,
        target: Target[Any] | None = None,
    ) -> Case:
        """Analyse and place a graph for a target; `topology` if it is known already.

        For a target that graphs are lowered to, this is what lowering starts from: in steps of time where the graph
        says its own, and see `compiler.lower.prepare`.
        """
        graph, _ = parts(subject)
        if prepares(spec) and graph.level is Level.IMPORTED and graph.dt is not None:
            with contextlib.suppress(GraphError):  # what is no legal graph is looked at as it is
                subject, topology = discretise(subject), None
        for _, variant in prepared(subject, spec):
            subject, topology = variant, None
        graph, contract = parts(subject)
        topology = topology or Topology.of(graph)
        when = schedule_of(subject, schedule)
        cost = int(spec.limits.connection_delay.value or 0)
        lateness = lateness_of(graph, topology, cost, when)
        return cls(subject, graph, contract, when, spec, topology, place(graph, spec, topology), lateness, target)

    def named(self, name: str) -> str:
        """A node's name as its maker wrote it."""
        return label(self.graph, name)

    def neurons(self) -> Iterator[tuple[str, Neuron]]:
        """(name, op) of the populations that are composed neurons."""
        for name, op in self.topology.populations.items():
            if isinstance(op, Neuron):
                yield name, op

    @property
    def carried(self) -> bool:
        """Whether it is a policy whose state is carried from action to action."""
        return self.contract is not None and not self.schedule.resets

    @property
    def connection_delay(self) -> int:
        """Steps the target adds to each connection; 0 where that is not known."""
        return int(self.spec.limits.connection_delay.value or 0)

    @property
    def compiles(self) -> bool:
        """Whether graphs are compiled for the target, and not inspected only."""
        return bool(self.spec.engines) or self.spec.integers is not None

    @property
    def splits(self) -> bool:
        """Whether populations of this graph will be split by their decays, once it is in steps of time."""
        return self.graph.level is Level.IMPORTED and prepares(self.spec)

    @property
    def separates(self) -> bool:
        """Whether connections and neurons must alternate on the target."""
        return self.spec.behaviour.free_wiring.value is False

    @property
    def integers(self) -> bool:
        """Whether the target takes values that enter as integers of so many bits, which need a limit."""
        bits = self.spec.limits.message_bits.value
        counted = self.spec.integers is not None or (bits is not None and math.isfinite(bits))
        return bool(self.spec.behaviour.graded_input.value) and counted

    @cached_property
    def overflows(self) -> tuple[Finding, ...]:
        """What the ranges of a graph of integers are proved to exceed; nothing of a graph that is not legal."""
        try:
            integer_plan = plan(self.subject) if isinstance(self.subject, Policy) else plan(self.graph, self.schedule)
        except GraphError:
            return ()
        assert self.graph.arithmetic is not None
        try:
            return tuple(overflows(prove(integer_plan), self.graph.arithmetic))
        except InfeasibleError as error:  # there is something that nothing bounds
            where = error.where or integer_plan.units[0].step.name
            return (Finding("accumulator-overflow", "error", where, error.message, fix=error.hint or ""),)

    @cached_property
    def calibration(self) -> Calibration | None:
        """What compiling chooses second slices of weights by: the observations that a policy carries."""
        if not self.slices or not isinstance(self.subject, Policy) or self.subject.recorded is None:
            return None
        return calibrate(self.subject)

    @property
    def slices(self) -> bool:
        """Whether the target's options ask for second slices of weights."""
        return self.target is not None and chosen_options(self.target).get("weight_slices", 1) != 1

    @cached_property
    def lowered(self) -> Graph | Policy | InfeasibleError | None:
        """A float graph that the other rules allow in the target's integers, of scales that need not be the best; or
        why there are no scales. None where nothing is lowered."""
        if self.spec.integers is None:
            return None
        try:
            if self.target is not None and chosen_options(self.target):
                return self.target.lower(self.subject, self.calibration, self.schedule).subject
            return trial(self.subject, integers(self.spec), schedule=self.schedule)
        except InfeasibleError as error:
            return error
        except GraphError:
            return None  # it is not legal, which `verify` says


Look: TypeAlias = Callable[[Case], Iterator[Hit]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is looked at.

    Args:
        code: stable, kebab-case: tools match on it.
        severity: of its findings, unless one says otherwise (a limit that is not exact makes "unknown" of "error").
        levels: of graphs it applies to.
        means: what a finding of this code says, for docs/findings.md.
        remedy: what to do about it, for the same.
        look: the function.
        last: it is only asked where nothing else speaks against the graph.
    """

    code: str
    severity: Severity
    levels: tuple[Level, ...]
    means: str
    remedy: str
    look: Look
    last: bool = False

    def __call__(self, case: Case) -> Iterator[Finding]:
        """Findings of this rule."""
        if case.graph.level not in self.levels:
            return
        for hit in self.look(case):
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
        yield Hit(node, message, whole(value), whole(fact.value), fix, cited(fact), breaking(fact))


def breaking(fact: Fact[Any]) -> Severity | None:
    """Severity of going against a fact: the rule's own where it is certain, else unknown."""
    return None if fact.decides else "unknown"


def cited(fact: Fact[Any]) -> str:
    """A fact's source, with its confidence where that is less than exact."""
    return fact.source if fact.confidence in ("exact", "unknown") else f"{fact.source} [{fact.confidence}]"


def whole(value: float) -> float | int:
    """A number as an integer where it is one."""
    return int(value) if float(value).is_integer() else float(value)


# --------------------------------------------------------------------------------------------------------------------
# What neurons are made of, at the float levels


FINEST_BITS = 1000
"""Of a decay: a grid of more bits rounds no float that is one, and its step is too small for a float."""


def decays(op: Neuron, dt: float | None) -> dict[str, Array]:
    """Decay factors per step: "decay", "current decay"; empty where it has none or dt is missing.

    In continuous time the factor is taken as 1 - dt / tau, as forward Euler does.
    """
    factors: dict[str, Array] = {}
    for name, part in (("decay", op.membrane), ("current decay", op.synapse)):
        if isinstance(part, (Membrane, Synapse)):
            factors[name] = part.decay
        elif isinstance(part, (ContinuousMembrane, ContinuousSynapse)) and part.tau is not None and dt is not None:
            factors[name] = np.clip(1 - dt / part.tau, 0, 1)
    return factors


def decay_step(case: Case) -> float:
    """Between two decays that the chip tells apart; 0 where no decay is rounded, or nobody knows how."""
    bits = case.spec.limits.decay_bits.value
    return 0.0 if bits is None or bits > FINEST_BITS else 2.0 ** -float(bits)


def time_constants(op: Neuron) -> dict[str, Array]:
    """Time constants by the names of `decays`, s; empty where time is in steps."""
    constants: dict[str, Array] = {}
    for name, part in (("decay", op.membrane), ("current decay", op.synapse)):
        if isinstance(part, (ContinuousMembrane, ContinuousSynapse)) and part.tau is not None:
            constants[name] = part.tau
    return constants


def leak(op: Neuron) -> Array | None:
    """What the membrane leaks towards, or is given at every step; None where it has no such term."""
    part = op.membrane
    return part.leak if isinstance(part, (ContinuousMembrane, Membrane)) else None


def float_spike(op: Op) -> Spike | None:
    """Spike and reset at the float levels."""
    return op.spike if isinstance(op, Neuron) and isinstance(op.spike, Spike) else None


def threshold(op: Op) -> Array | None:
    """Thresholds at the float levels."""
    if isinstance(op, Threshold):
        return op.threshold
    spike = float_spike(op)
    return None if spike is None else spike.threshold
