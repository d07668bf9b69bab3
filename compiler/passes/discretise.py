"""From continuous time to steps of dt: an IMPORTED graph becomes a DISCRETE one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.findings import Finding, raise_on_errors
from nervecord.compiler.graph import Edge, Graph, Level, delays
from nervecord.compiler.nirimport import dissolve
from nervecord.compiler.node import Array, Node
from nervecord.compiler.verify import require
from nervecord.errors import GraphError, unknown_name

Convention: TypeAlias = Literal["euler", "exact"]
"""How an equation in time becomes a step. "euler": as snnTorch, Norse and Lava; "exact": input held over the step."""

GRID = 1e-6
"""A delay may miss a whole number of steps by this part of itself: float32 files do."""
MAX_DELAY = 1 << 16
"""Steps of the longest delay: a connection's buffer holds them all."""


def discretise(graph: Graph, *, dt: float | None = None, convention: str = "euler") -> Graph:
    """Fix the time step: neurons get decays, delays become whole steps, recurrence waits one step.

    Before, at IMPORTED (tau in s)              After, at DISCRETE, "euler" ("exact": a = exp(-dt / tau))
        tau v' = (leak - v) + r x                   v = (1 - dt/tau) v + (r dt/tau) x + leak dt/tau
                                                    (exact: v = a v + r (1 - a) x + leak (1 - a))
        v' = r x                                    v = v + r dt x   (both)
        tau_syn i' = -i + w_in x                    i = (1 - dt/tau_syn) i + (w_in dt/tau_syn) x, then v with this i
                                                    (exact: i = a i + w_in (1 - a) x)
        Affine -> Delay of k dt                     Affine with delay k (k = 0: the Delay goes)
        Delay of k dt -> Affine                     Affine with delay k
        neuron -> Affine -> the same neuron         the Affine gets delay 1

    Update, spike and reset happen in one step, in this order. "euler" reproduces what the makers of NIR files compute
    (r = tau/dt and w_in = tau_syn/dt, as snnTorch writes, give gains of 1), and differs from the equation by O(dt) per
    unit of time: (dt/tau)^2 / 2 of the distance to equilibrium in each step. "exact" is the equation's solution for
    input held over the step, exactly for I, IF, LI and LIF; for CubaLI and CubaLIF the new current is held too, which
    moves v by at most r (1 - a) |i(t) - i(t - dt)| per step.

    Recurrence means the spikes of the step before, as in snnTorch: the delay goes to the Affine that closes the cycle,
    one that a neuron feeds and that leads back to a neuron not farther from the inputs than itself.

    Before the first step all input is zero, so that a delayed Affine gives its bias from the first step on, and it is
    the same whether a Delay stands before it or behind it.

    Pure, deterministic, idempotent: a DISCRETE graph comes back as the same object.

    Args:
        graph: IMPORTED (or DISCRETE).
        dt: seconds per step; by default the graph's own. Nothing is guessed.
        convention: "euler" or "exact".

    Raises:
        GraphError: no dt, one that is not the graph's, one longer than a time constant ("euler"), delays that are no
            whole steps or have no Affine to sit in, nodes without executable meaning, cycles that cannot be broken.
        NervecordError: an unknown convention.
    """
    check_convention(convention)
    if graph.level is Level.INTEGER:
        raise GraphError("is integer already", where="graph")
    step = _step(graph, dt)
    if graph.level is Level.DISCRETE:
        return graph
    found: list[Finding] = []
    nodes: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        found += _check(name, node, step, convention)
    raise_on_errors(found, GraphError)
    for name, node in graph.nodes.items():
        with np.errstate(all="ignore"):  # what overflows is not finite, and `require` says so by name
            nodes[name] = _neuron(node, step, convention)
    edges = list(graph.edges)
    for name, _ in graph.of_type(n.Delay):
        edges = _fold(name, nodes, edges, step)
    _close_cycles(nodes, edges)
    return require(Graph(Level.DISCRETE, nodes, tuple(edges), step, graph.contract, graph.recorded))


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
            "NIR does not say its time step, and it is not guessed", where="graph",
            hint="give --dt, in seconds: snnTorch's files are made for 1e-4, Norse's usually for 1e-3",
        )  # fmt: skip
    if not (math.isfinite(step) and step > 0):
        raise GraphError(f"dt is {step} s, it must be positive", where="graph", hint="--dt 1e-3 is a millisecond")
    return step


def _check(name: str, node: Node, dt: float, convention: str) -> Iterable[Finding]:
    if isinstance(node, (n.Conv2d, n.Pool2d)):
        yield Finding(
            "not-executable", "error", name, f"a {node.kind} is read to be inspected and has no executable meaning",
            fix="export the network with Affine in its place",
        )  # fmt: skip
    for field in ("tau", "tau_syn"):
        tau = getattr(node, field, None)
        if convention == "euler" and tau is not None and float(tau.min()) < dt:
            yield Finding(
                "time-step", "error", name, f"{field} is shorter than the step, so that Euler's decay is negative",
                value=float(tau.min()), limit=dt, fix="a smaller --dt, or convention 'exact'",
            )  # fmt: skip
    if isinstance(node, n.Delay):
        yield from _check_delay(name, node.delay, dt)


def _check_delay(name: str, delay: Array, dt: float) -> Iterable[Finding]:
    low, high = float(delay.min()), float(delay.max())
    if low < 0:
        yield Finding("delay", "error", name, "delay is negative", value=low, limit=0)
        return
    if high > MAX_DELAY * dt:
        yield Finding(
            "delay", "error", name, f"delay is longer than {MAX_DELAY} steps", value=high, limit=MAX_DELAY * dt,
            fix="a larger --dt; every step of it is kept in memory",
        )  # fmt: skip
        return
    steps = np.rint(delay / dt)
    apart = np.abs(delay / dt - steps) / np.maximum(steps, 1)
    worst = int(np.argmax(apart))
    if apart.flat[worst] > GRID:
        yield Finding(
            "delay-grid", "error", name, "delay is no whole number of steps", value=float(delay.flat[worst]), limit=dt,
            fix="choose dt so that it divides every delay",
        )  # fmt: skip
    elif steps.min() != steps.max():
        yield Finding(
            "delay-differs", "error", name, "its channels differ in delay", value=high, limit=low,
            fix="an Affine delays all its channels alike: split it",
        )  # fmt: skip


def _leak(tau: Array, dt: float, convention: str) -> tuple[Array, Array]:
    """(decay, 1 - decay), each with its own rounding."""
    share = dt / tau
    return (1 - share, share) if convention == "euler" else (np.exp(-share), -np.expm1(-share))


def _neuron(node: Node, dt: float, convention: str) -> Node:
    spike: dict[str, Any] = {}
    if isinstance(node, (n.ContinuousIF, n.ContinuousLIF, n.ContinuousCubaLIF)):
        spike = {"threshold": node.threshold, "reset_value": node.reset_value, "reset": "value"}
    kind: Callable[..., Node]
    match node:
        case n.ContinuousIntegrator() | n.ContinuousIF():
            kind = n.DiscreteLIF if spike else n.DiscreteLI
            one, zero = np.ones_like(node.r), np.zeros_like(node.r)
            return kind(one, node.r * dt, zero, **spike, origin=node.origin)
        case n.ContinuousLI() | n.ContinuousLIF():
            kind = n.DiscreteLIF if spike else n.DiscreteLI
            decay, share = _leak(node.tau, dt, convention)
            return kind(decay, node.r * share, node.leak * share, **spike, origin=node.origin)
        case n.ContinuousCubaLI() | n.ContinuousCubaLIF():
            kind = n.DiscreteCubaLIF if spike else n.DiscreteCubaLI
            decay, share = _leak(node.tau, dt, convention)
            current, entering = _leak(node.tau_syn, dt, convention)
            return kind(
                current, node.w_in * entering, decay, node.r * share, node.leak * share, **spike, origin=node.origin
            )
    return node


def _fold(name: str, nodes: dict[str, Node], edges: list[Edge], dt: float) -> list[Edge]:
    """Take the Delay `name` out of `nodes`, into the Affine before or behind it; the edges without it."""
    delay = nodes.pop(name)
    assert isinstance(delay, n.Delay)
    steps = round(float(delay.delay.flat[0]) / dt)
    if steps:
        holder = _holder(name, nodes, edges)
        if holder is None:
            raise GraphError(
                f"a delay of {steps} steps ({float(delay.delay.flat[0])} s) has no Affine that it could be folded into",
                where=name,
                hint="put it right behind an Affine that feeds nothing else, or right before one that nothing else "
                "feeds",
            )
        affine = nodes[holder]
        assert isinstance(affine, n.Affine)
        origin = (*affine.origin, *delay.origin)
        nodes[holder] = n.Affine(affine.weight, affine.bias, affine.delay + steps, origin=origin)
    return dissolve(edges, name)


def _holder(name: str, nodes: dict[str, Node], edges: list[Edge]) -> str | None:
    """The Affine whose output, or else whose input, is what the Delay `name` delays and nothing else."""
    before = [a for a, b in edges if b == name]
    if len(before) == 1 and isinstance(nodes[before[0]], n.Affine) and sum(a == before[0] for a, _ in edges) == 1:
        return before[0]
    behind = [b for a, b in edges if a == name]
    if len(behind) == 1 and isinstance(nodes[behind[0]], n.Affine) and sum(b == behind[0] for _, b in edges) == 1:
        return behind[0]
    return None


def _close_cycles(nodes: dict[str, Node], edges: list[Edge]) -> None:
    """Give delay 1 to the Affines that close cycles, in place."""
    graph = Graph(Level.DISCRETE, nodes, tuple(edges))
    _, stuck = graph.partial_order()
    distance = _distances(graph)
    for name in stuck:
        node = nodes[name]
        if (
            isinstance(node, n.Affine)
            and all(isinstance(nodes[a], n.NEURONS) for a in graph.sources(name))
            and _on_cycle(graph, name)
            and _leads_back(graph, name, distance)
        ):
            nodes[name] = n.Affine(node.weight, node.bias, delay=1, origin=node.origin)
    graph = Graph(Level.DISCRETE, nodes, tuple(edges))
    _, stuck = graph.partial_order()
    if stuck:
        cycle = [name for name in stuck if _on_cycle(graph, name)]
        raise GraphError(
            f"a cycle has no Affine that could carry its delay: {', '.join(cycle)}", where=cycle[0],
            hint="put an Affine (an identity will do) or a Delay into the way back",
        )  # fmt: skip


def _on_cycle(graph: Graph, name: str) -> bool:
    """Whether `name` depends on its own output in the same step."""
    seen: set[str] = set()
    queue = [name]
    for at in queue:
        for b in graph.destinations(at):
            if b not in seen and not delays(graph.nodes[b]):
                seen.add(b)
                queue.append(b)
    return name in seen


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


def _leads_back(graph: Graph, name: str, distance: dict[str, int]) -> bool:
    """Whether every way from `name` on arrives at a neuron that is nearer to the inputs, before or at the first one."""
    seen = {name}
    queue = [name]
    for at in queue:
        for b in graph.destinations(at):
            if isinstance(graph.nodes[b], (n.Output, *n.NEURONS)):
                if isinstance(graph.nodes[b], n.Output) or distance.get(b, 0) >= distance.get(name, 0):
                    return False
            elif b not in seen:
                seen.add(b)
                queue.append(b)
    return True
