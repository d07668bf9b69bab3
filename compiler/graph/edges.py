"""Edges of graphs that are read or rewritten: nodes taken out, cycles found, an order made. All in linear time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from nervecord.compiler.graph.graph import Edge
from nervecord.compiler.graph.verify import MOST_EDGES
from nervecord.errors import GraphError


def dissolve(edges: Sequence[Edge], names: Collection[str], *, where: str) -> list[Edge]:
    """The edges with the nodes `names` taken out: what fed one feeds what it fed, at the place of the edge to it.

    Raises:
        GraphError: nodes that are taken out feed one another in a circle, or more than `MOST_EDGES` edges are left.
    """
    out: dict[str, list[str]] = {name: [] for name in names}
    for a, b in edges:
        if a in out:
            out[a].append(b)
    reached: dict[str, list[str]] = {}
    for group in components(out, lambda name: (b for b in out[name] if b in out)):
        name = group[0]
        if len(group) > 1 or name in out[name]:
            raise GraphError(f"{', '.join(sorted(group)[:20])} feed one another and nothing else", where=where)
        reached[name] = _bounded(out[name], reached, where)
    inner = [(a, b) for a, b in edges if a not in out]
    if not any(b in out for _, b in inner):
        return inner
    result: list[Edge] = []
    for a, b in inner:
        result += [(a, c) for c in reached[b]] if b in out else [(a, b)]
        if len(result) > MOST_EDGES:
            raise _too_many(where)
    return result


def _bounded(names: Iterable[str], reached: Mapping[str, list[str]], where: str) -> list[str]:
    ends: list[str] = []
    for b in names:
        ends += reached.get(b, (b,))
        if len(ends) > MOST_EDGES:
            raise _too_many(where)
    return ends


def _too_many(where: str) -> GraphError:
    return GraphError(
        f"it has more than {MOST_EDGES} edges when nodes that only pass values on are taken out", where=where
    )


def components(names: Iterable[str], following: Callable[[str], Iterable[str]]) -> list[list[str]]:
    """Strongly connected components (Tarjan), each after every one that it leads to.

    Args:
        names: all nodes. following: the nodes that a node leads to.
    """
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    result: list[list[str]] = []
    for start in names:
        if start in number:
            continue
        walk = [(start, iter(following(start)))]
        number[start] = low[start] = len(number)
        stack.append(start)
        on_stack.add(start)
        while walk:
            name, ahead = walk[-1]
            for b in ahead:
                if b not in number:
                    number[b] = low[b] = len(number)
                    stack.append(b)
                    on_stack.add(b)
                    walk.append((b, iter(following(b))))
                    break
                if b in on_stack:
                    low[name] = min(low[name], number[b])
            else:
                walk.pop()
                if walk:
                    low[walk[-1][0]] = min(low[walk[-1][0]], low[name])
                if low[name] == number[name]:
                    group = [stack.pop()]
                    while group[-1] != name:
                        group.append(stack.pop())
                    on_stack.difference_update(group)
                    result.append(group[::-1])
    return result


def reading_order(names: Iterable[str], edges: Iterable[Edge]) -> list[str]:
    """Topological, ties by name; in a cycle, first the smallest name that something already placed feeds."""
    ordered = sorted(names)
    waiting = dict.fromkeys(ordered, 0)
    out: dict[str, list[str]] = {name: [] for name in waiting}
    for a, b in edges:
        waiting[b] += 1
        out[a].append(b)
    ready = [name for name, count in waiting.items() if count == 0]
    reached: list[str] = []
    smallest = iter(ordered)
    placed: set[str] = set()
    order: list[str] = []
    while len(order) < len(ordered):
        while reached and reached[0] in placed:
            heapq.heappop(reached)
        if ready:
            name = heapq.heappop(ready)
        elif reached:
            name = heapq.heappop(reached)
        else:
            name = next(k for k in smallest if k not in placed)
        placed.add(name)
        order.append(name)
        for b in out[name]:
            if b not in placed:
                waiting[b] -= 1
                heapq.heappush(ready if waiting[b] == 0 else reached, b)
    return order


def cycles(names: Iterable[str], edges: Iterable[Edge]) -> list[str]:
    """Names that lie on a cycle, or between two, in order."""
    rest = dict.fromkeys(names)
    sides = []
    inner = [(a, b) for a, b in edges if a in rest and b in rest]
    for pairs in (inner, [(b, a) for a, b in inner]):
        count = dict.fromkeys(rest, 0)
        out: dict[str, list[str]] = {name: [] for name in rest}
        for a, b in pairs:
            count[b] += 1
            out[a].append(b)
        ready = [name for name, c in count.items() if c == 0]
        for name in ready:
            for b in out[name]:
                count[b] -= 1
                if count[b] == 0:
                    ready.append(b)
        sides.append(set(ready))
    return [name for name in rest if not any(name in side for side in sides)]
