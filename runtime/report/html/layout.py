"""Where the nodes of a graph stand in a drawing: columns from input to output, laid out by NetworkX. And as DOT."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx


@dataclass(frozen=True, slots=True)
class Layout:
    """A layered drawing of a directed graph.

    Args:
        places: node -> (column, row); rows count down from 0 and may be halves, so that columns are centred.
        back: edges that run against the columns: those that close loops.
    """

    places: dict[str, tuple[int, float]]
    back: frozenset[tuple[str, str]]

    @property
    def columns(self) -> int:
        """How many there are."""
        return 1 + max((column for column, _ in self.places.values()), default=0)

    @property
    def rows(self) -> float:
        """Height of the highest column, in rows."""
        return 1 + max((row for _, row in self.places.values()), default=0.0)


def lay_out(graph: Mapping[str, Any]) -> Layout:
    """Place the nodes of `GraphFacts.to_dict`: each right of all that feed it, loops cut where they return."""
    digraph = nx.DiGraph()
    digraph.add_nodes_from(node["id"] for node in graph["nodes"])
    digraph.add_edges_from((a, b) for a, b in graph["edges"])
    back = _cut_loops(digraph)
    columns = [list(generation) for generation in nx.topological_generations(digraph)]
    _order(digraph, columns)
    positions = nx.multipartite_layout(digraph, subset_key=dict(enumerate(columns)), align="vertical", scale=1.0)
    most = max(map(len, columns), default=1)
    places: dict[str, tuple[int, float]] = {}
    for number, column in enumerate(columns):
        # Only the order is NetworkX's; boxes stand one row apart, and every column in the middle.
        ordered = sorted(column, key=lambda name: -float(positions[name][1]))
        top = (most - len(column)) / 2
        places |= {name: (number, top + row) for row, name in enumerate(ordered)}
    return Layout(places, frozenset(back))


def _cut_loops(digraph: nx.DiGraph) -> set[tuple[str, str]]:
    """Take the edges out that return towards the input, until no loop is left."""
    starts = [name for name, count in digraph.in_degree() if count == 0] or list(digraph.nodes)[:1]
    depth: dict[str, int] = dict(nx.multi_source_dijkstra_path_length(digraph, starts, weight=None)) if starts else {}
    back: set[tuple[str, str]] = set()
    done: set[str] = set()
    # Down from where the input is nearest: an edge that meets the way it came closes a loop. In linear time.
    for start in sorted(digraph.nodes, key=lambda name: depth.get(name, len(digraph))):
        if start in done:
            continue
        way, open_ = [(start, iter(digraph.successors(start)))], {start}
        while way:
            name, ahead = way[-1]
            for b in ahead:
                if b in open_:
                    back.add((name, b))
                elif b not in done:
                    way.append((b, iter(digraph.successors(b))))
                    open_.add(b)
                    break
            else:
                way.pop()
                open_.discard(name)
                done.add(name)
    digraph.remove_edges_from(back)
    return back


def _order(digraph: nx.DiGraph, columns: list[list[str]]) -> None:
    """Order each column by where its sources stand, so that fewer edges cross."""
    row = {name: float(k) for k, name in enumerate(columns[0])} if columns else {}
    for column in columns[1:]:
        middle = {name: _mean([row[a] for a in digraph.predecessors(name)]) for name in column}
        column.sort(key=lambda name: middle[name])
        row |= {name: float(k) - len(column) / 2 for k, name in enumerate(column)}
        # multipartite_layout counts upwards.
        column.reverse()


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def printable(text: str, length: int | None = None) -> str:
    """A name from a file, fit to be drawn: nothing that cannot be printed, no longer than `length`."""
    clean = "".join(letter if letter.isprintable() else "\ufffd" for letter in text)
    return clean if length is None or len(clean) <= length else clean[: length - 1] + "…"


def to_dot(graph: Mapping[str, Any]) -> str:
    """The graph in Graphviz' language: `dot -Tsvg graph.dot`. The core is a cluster; edges that close loops are dashed.

    Args:
        graph: `GraphFacts.to_dict`.
    """
    layout = lay_out(graph)
    lines = [
        "digraph nervecord {",
        "  rankdir=LR;",
        '  node [shape=box, style="rounded,filled", fontname="sans-serif"];',
    ]
    for side in ("host", "core"):
        nodes = [node for node in graph["nodes"] if node["side"] == side]
        if not nodes:
            continue
        inner = "  "
        if side == "core":
            lines += ["  subgraph cluster_core {", '    label="core"; style=rounded; color="#3d6b9c";']
            inner = "    "
        for node in nodes:
            shape = "x".join(map(str, node["shape"]))
            text = "\\n".join(
                _dot_escaped(part)
                for part in (node["name"], f"{node['kind']}, {shape}", f"{node['parameters']:,} parameters")
            )
            fill = "#eef3f8" if side == "core" else "#f3f4f5"
            lines.append(f'{inner}"{_dot_escaped(node["id"])}" [label="{text}", fillcolor="{fill}"];')
        if side == "core":
            lines.append("  }")
    for a, b in graph["edges"]:
        how = " [style=dashed, constraint=false]" if (a, b) in layout.back else ""
        lines.append(f'  "{_dot_escaped(a)}" -> "{_dot_escaped(b)}"{how};')
    return "\n".join([*lines, "}"]) + "\n"


def _dot_escaped(text: str) -> str:
    return printable(text).replace("\\", "\\\\").replace('"', '\\"')
