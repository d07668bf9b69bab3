"""From continuous time to steps of dt: an IMPORTED graph becomes a DISCRETE one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np

from nervecord.compiler.findings import Finding, raise_on_errors
from nervecord.compiler.graph.edges import components, dissolve
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.names import unused
from nervecord.compiler.graph.policy import parts, with_graph
from nervecord.compiler.graph.verify import Subject, require
from nervecord.compiler.ops import (
    Affine,
    Array,
    ContinuousMembrane,
    ContinuousSynapse,
    Delay,
    DelayLine,
    Input,
    Level,
    Neuron,
    Op,
    Output,
    Scale,
)
from nervecord.compiler.ops.connections import LONGEST_DELAY
from nervecord.compiler.ops.neurons import ROUNDING
from nervecord.errors import GraphError, unknown_name

Convention: TypeAlias = Literal["euler", "exact"]
"""How an equation in time becomes a step. "euler": as snnTorch, Norse and Lava; "exact": input held over the step."""

GRID = 1e-6
"""A delay may miss a whole number of steps by this part of itself: float32 files do."""


def discretise(subject: Subject, *, dt: float | None = None, convention: str = "euler") -> Subject:
    """Fix the time step: neurons get decays, delays become whole steps, recurrence waits one step.

    Before, at IMPORTED (tau in s)              After, at DISCRETE, "euler" ("exact": a = exp(-dt / tau))
        tau v' = (leak - v) + r x                   v = (1 - dt/tau) v + (r dt/tau) x + leak dt/tau
                                                    (exact: v = a v + r (1 - a) x + leak (1 - a))
        v' = r x                                    v = v + r dt x   (both)
        tau_syn i' = -i + w_in x                    i = (1 - dt/tau_syn) i + (w_in dt/tau_syn) x, then v with this i
                                                    (exact: i = a i + w_in (1 - a) x)
        Affine, no bias -> Delay of k dt            Affine with delay k (k = 0: the Delay goes)
        Delay of k dt -> Affine                     Affine with delay k
        Delay otherwise                             DelayLine of k steps (k = 0 throughout: it goes)
        neuron -> Affine -> the same neuron         the Affine gets delay 1

    Update, spike and reset happen in one step, in this order. "euler" reproduces what the makers of NIR files compute
    (r = tau/dt and w_in = tau_syn/dt, as snnTorch writes, give gains of 1), and differs from the equation by O(dt) per
    unit of time: (dt/tau)^2 / 2 of the distance to equilibrium in each step. "exact" is the equation's solution for
    input held over the step, exactly for I, IF, LI and LIF; for CubaLI and CubaLIF the new current is held too, which
    moves v by at most r (1 - a) |i(t) - i(t - dt)| per step.

    Recurrence means the spikes of the step before, as in snnTorch: the delay goes to the Affine that closes the cycle,
    one that a neuron feeds and that leads back to a neuron not farther from the inputs than itself.

    Before the first step all input is zero, so that an Affine behind a Delay gives its bias from the first step on.
    What a Delay gives is zero until its first input arrives: where an Affine with a bias stands before it, and none
    behind it, it becomes a delay line.

    What enters and leaves with nothing between passes a Scale of ones, as what leaves is what the core gives.

    Pure, deterministic, idempotent: a DISCRETE graph comes back as the same object.

    Args:
        subject: a graph or policy, IMPORTED (or DISCRETE).
        dt: seconds per step; by default the graph's own. Nothing is guessed.
        convention: "euler" or "exact".

    Raises:
        GraphError: no dt, one that is not the graph's, one longer than a time constant ("euler"), delays that are no
            whole steps, nodes without executable meaning, cycles that cannot be broken.
        NervecordError: an unknown convention.
    """
    check_convention(convention)
    graph, _ = parts(subject)
    step = _step(graph, dt)
    if graph.level is Level.INTEGER:
        raise GraphError("is integer already", where="graph")
    if graph.level is Level.DISCRETE:
        return subject
    findings = [finding for name, op in graph.nodes.items() for finding in _check(name, op, step, convention)]
    raise_on_errors(findings, GraphError)
    with np.errstate(all="ignore"):  # what overflows is not finite, and `require` says so by name
        nodes = {name: op.discrete(step, convention) for name, op in graph.nodes.items()}
    edges = _passing(nodes, _fold_delays(nodes, graph.edges, step))
    _close_cycles(nodes, edges)
    result = with_graph(subject, Graph(Level.DISCRETE, nodes, tuple(edges), step, notes=graph.notes))
    return require(result)  # type: ignore[return-value]


def check_convention(convention: str) -> None:
    """Raise NervecordError unless it is one of `Convention`."""
    if convention not in get_args(Convention):
        raise unknown_name("convention", convention, get_args(Convention))


def _step(graph: Graph, dt: float | None) -> float:
    if dt is not None and graph.dt is not None and dt != graph.dt:
        raise GraphError(f"dt is {dt} s, and the graph has {graph.dt} s", where="graph", hint="leave one of them out")
    step = graph.dt if dt is None else dt
    if step is None:
        raise GraphError(
            "NIR does not say its time step, and it is not guessed",
            where="graph",
            hint="give --dt, in seconds: snnTorch's files are made for 1e-4, Norse's usually for 1e-3",
        )
    if not (math.isfinite(step) and step > 0):
        raise GraphError(f"dt is {step} s, it must be positive", where="graph", hint="--dt 1e-3 is a millisecond")
    return step


def _check(name: str, op: Op, dt: float, convention: str) -> Iterable[Finding]:
    if isinstance(op, Neuron) and convention == "euler":
        for field, part in (("tau", op.membrane), ("tau_syn", op.synapse)):
            tau = part.tau if isinstance(part, (ContinuousMembrane, ContinuousSynapse)) else None
            if tau is not None and float(tau.min()) < dt * (1 - ROUNDING):
                yield Finding(
                    "time-step",
                    "error",
                    name,
                    f"{field} is shorter than the step, so that Euler's decay is negative",
                    value=float(tau.min()),
                    limit=dt,
                    fix="a smaller --dt: the step of its maker is no longer than that",
                )
    if isinstance(op, Delay):
        yield from _check_delay(name, op.delay, dt)


def _check_delay(name: str, delay: Array, dt: float) -> Iterable[Finding]:
    low, high = float(delay.min()), float(delay.max())
    if low < 0:
        yield Finding("delay", "error", name, "delay is negative", value=low, limit=0)
        return
    if high > LONGEST_DELAY * dt:
        yield Finding(
            "delay",
            "error",
            name,
            f"delay is longer than {LONGEST_DELAY} steps",
            value=high,
            limit=LONGEST_DELAY * dt,
            fix="a larger --dt; every step of it is kept in memory",
        )
        return
    steps = np.rint(delay / dt)
    apart = np.abs(delay / dt - steps) / np.maximum(steps, 1)
    worst = int(np.argmax(apart))
    if apart.flat[worst] > GRID:
        yield Finding(
            "delay-grid",
            "error",
            name,
            "delay is no whole number of steps",
            value=float(delay.flat[worst]),
            limit=dt,
            fix="choose dt so that it divides every delay",
        )


def _fold_delays(nodes: dict[str, Op], edges: Sequence[Edge], dt: float) -> list[Edge]:
    """Take the Delays into the Affine before or behind them, or make delay lines of them; in place, and the edges."""
    delays = {name: op for name, op in nodes.items() if isinstance(op, Delay)}
    before: dict[str, Counter[str]] = {name: Counter() for name in nodes}
    behind: dict[str, Counter[str]] = {name: Counter() for name in nodes}
    for a, b in edges:
        before[b][a] += 1
        behind[a][b] += 1
    dissolve(edges, delays, where="graph")  # Delays in a circle of their own are refused
    gone: dict[str, Op] = {}
    for name, delay in delays.items():
        steps = np.rint(delay.delay / dt).astype(np.int64)
        one = int(steps.flat[0])
        holder = _holder(name, nodes, before, behind) if (steps == one).all() else None
        if holder is None and steps.any():
            nodes[name] = DelayLine(steps, origin=delay.origin)
            continue
        if holder is not None and one:
            affine = nodes[holder]
            assert isinstance(affine, Affine)
            nodes[holder] = affine.replace(delay=affine.delay + one, origin=(*affine.origin, *delay.origin))
        gone[name] = nodes.pop(name)
        _take_out(name, before, behind)
    return dissolve(edges, gone, where="graph")


def _holder(
    name: str, nodes: Mapping[str, Op], before: Mapping[str, Counter[str]], behind: Mapping[str, Counter[str]]
) -> str | None:
    """The Affine whose output, or else whose input, is what the Delay `name` delays and nothing else.

    A bias of what comes before the Delay would arrive too early.
    """
    for near, back in ((before, behind), (behind, before)):
        if len(near[name]) == 1:
            (neighbour,) = near[name]
            alone = near[name][neighbour] == 1 and back[neighbour].total() == 1
            affine = nodes[neighbour]
            if alone and isinstance(affine, Affine) and not (near is before and _biased(affine)):
                return neighbour
    return None


def _biased(affine: Affine) -> bool:
    return affine.bias is not None and bool(affine.bias.any())


def _take_out(name: str, before: dict[str, Counter[str]], behind: dict[str, Counter[str]]) -> None:
    """What fed `name` feeds what it fed."""
    sources, destinations = before.pop(name), behind.pop(name)
    for a in sources:
        del behind[a][name]
        behind[a].update(destinations)
    for b in destinations:
        del before[b][name]
        before[b].update(sources)


def _passing(nodes: dict[str, Op], edges: Sequence[Edge]) -> list[Edge]:
    """A Scale of ones in each edge from an Input to an Output; in place, and the edges."""
    links: list[Edge] = []
    for a, b in edges:
        if isinstance(nodes[a], Input) and isinstance(nodes[b], Output):
            name = unused(f"{b}.{a}", nodes)
            nodes[name] = Scale(np.ones(nodes[a].out_shape), origin=(b,))
            links += [(a, name), (name, b)]
        else:
            links.append((a, b))
    return links


def _close_cycles(nodes: dict[str, Op], edges: Sequence[Edge]) -> None:
    """Give delay 1 to the Affines that close cycles, in place."""
    graph = Graph(Level.DISCRETE, nodes, tuple(edges))
    closed, open_cycles = closing(graph, {name for name, op in nodes.items() if op.lag})
    for name in closed:
        nodes[name] = nodes[name].replace(delay=1)
    raise_on_errors(tuple(_unbroken(open_cycles)), GraphError)


def closing(graph: Graph, waiting: Collection[str]) -> tuple[list[str], list[str]]:
    """(Affines that get a delay of one step, as they close a cycle; nodes that are on cycles then still).

    Args:
        waiting: nodes that have a delay of their own.
    """
    cyclic = _on_cycles(graph, waiting)
    back = _leading_back(graph) if cyclic else set()
    closed = [
        name
        for name in cyclic
        if name in back
        and isinstance(graph.nodes[name], Affine)
        and all(isinstance(graph.nodes[a], Neuron) for a in graph.sources(name))
    ]
    return closed, _on_cycles(graph, {*waiting, *closed}) if cyclic else []


def _unbroken(names: Sequence[str]) -> Iterator[Finding]:
    if names:
        yield Finding(
            "cycle",
            "error",
            names[0],
            f"a cycle has no Affine that could carry its delay: {', '.join(names[:20])}",
            fix="put an Affine (an identity will do) or a Delay into the way back",
        )


def waiting_nodes(graph: Graph) -> set[str]:
    """Nodes of a graph in continuous time that have a delay of their own, whatever the time step."""
    return {name for name, op in graph.nodes.items() if op.lag or (isinstance(op, Delay) and (op.delay > 0).all())}


def undiscretisable(subject: Subject) -> tuple[Finding, ...]:
    """What discretising a legal graph in continuous time would refuse; of one without a time step, at whatever one."""
    graph, _ = parts(subject)
    if graph.level is not Level.IMPORTED:
        return ()
    if graph.dt is None:
        return tuple(_unbroken(closing(graph, waiting_nodes(graph))[1]))
    try:
        discretise(subject)
    except GraphError as error:
        where = error.where or "graph"
        return error.findings or (Finding("time-step", "error", where, error.message, fix=error.hint or ""),)
    return ()


def _on_cycles(graph: Graph, waiting: Collection[str]) -> list[str]:
    """Names that depend on their own output in the same step, in the graph's order."""

    def following(name: str) -> list[str]:
        return [b for b in graph.destinations(name) if b not in waiting]

    members = set()
    for group in components(graph.nodes, following):
        if len(group) > 1 or group[0] in following(group[0]):
            members.update(group)
    return [name for name in graph.nodes if name in members]


def _distances(graph: Graph) -> dict[str, int]:
    """Name -> edges on the shortest way from an Input."""
    distance = dict.fromkeys(graph.inputs, 0)
    queue = list(graph.inputs)
    for name in queue:
        for b in graph.destinations(name):
            if b not in distance:
                distance[b] = distance[name] + 1
                queue.append(b)
    return distance


def _leading_back(graph: Graph) -> set[str]:
    """Names from which every way arrives at a population that is nearer to the inputs, before or at the first one."""
    distance = _distances(graph)

    def arrives(name: str) -> bool:
        return isinstance(graph.nodes[name], (Output, Neuron))

    def following(name: str) -> tuple[str, ...]:
        return () if arrives(name) else graph.destinations(name)

    # The farthest first population on any way from a node; nodes in a circle share it.
    farthest: dict[str, float] = {}
    names = set()
    for group in components(graph.nodes, following):
        reached = -math.inf
        for name in group:
            for b in graph.destinations(name):
                if isinstance(graph.nodes[b], Output):
                    reached = math.inf
                elif arrives(b):
                    reached = max(reached, distance.get(b, 0))
                else:
                    reached = max(reached, farthest.get(b, -math.inf))
        for name in group:
            farthest[name] = reached
            if reached < distance.get(name, 0):
                names.add(name)
    return names
