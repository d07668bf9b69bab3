"""How a DISCRETE graph is said in NIR: names, edges, types and parameters, in plain numpy.

Writing makes NIR nodes of it; reading makes it again from the metadata and compares it with the file, so that somebody
who edited one of the two is told.

NIR is in continuous time, and forward Euler with step dt gives the discrete update back:

    v = decay v + gain x + leak   is   tau = dt / (1 - decay), r = gain tau / dt, v_leak = leak tau / dt
    decay = 1                     is   an integrator (I, IF) with r = gain / dt
    i = decay i + gain x          is   tau_syn = dt / (1 - decay), w_in = gain tau_syn / dt, of the synapse

in float64. The reset rules "subtract" and "none", refractory steps, host ops and the contract cannot be said in NIR;
they stand in the metadata, and Input and Output are those of the core: what a population code sends, the neurons whose
spikes count.
W x(t - k dt) + b becomes a Delay of k dt seconds with the Affine behind it: its bias does not wait.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervecord.compiler.graph.edges import dissolve
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.names import fresh
from nervecord.compiler.ops import Affine, Input, NirForm, Op, Output, SparseAffine, is_host
from nervecord.errors import GraphError


@dataclass(frozen=True, slots=True)
class Layout:
    """A graph in NIR.

    Args:
        nodes: NIR name -> type and fields, in the graph's order, a Delay before its Affine.
        edges: between NIR names, in the graph's order.
    """

    nodes: dict[str, NirForm]
    edges: tuple[Edge, ...]


def layout(graph: Graph) -> Layout:
    """The NIR form of a legal DISCRETE graph, host ops left out.

    Raises:
        GraphError: something cannot be said in NIR.
    """
    assert graph.dt is not None  # a legal DISCRETE graph has one
    hosts = [name for name, op in graph.nodes.items() if is_host(op)]
    edges = dissolve(graph.edges, hosts, where="edges")
    if len(set(edges)) != len(edges):
        raise GraphError(
            "without its host ops an edge appears twice", where="edges", hint="a host op must be the only way past it"
        )
    names = {name: nir_name(name) for name, op in graph.nodes.items() if not is_host(op)}
    used_names = set(names.values())
    forms: dict[str, NirForm] = {}
    entrances = dict(names)
    for name, nir in names.items():
        op = _end_of_core(graph, name)
        if isinstance(op, (Affine, SparseAffine)) and op.delay:
            before = fresh(f"{nir}%delay", used_names, "%")
            entrances[name] = before
            forms[before] = ("Delay", {"delay": np.full(op.in_shape, op.delay * graph.dt)})
        forms[nir] = op.to_nir(graph.dt, name)
    out: list[Edge] = [(entrances[name], names[name]) for name in names if entrances[name] != names[name]]
    out += [(names[a], entrances[b]) for a, b in edges]
    return Layout(forms, tuple(out))


def _end_of_core(graph: Graph, name: str) -> Op:
    """An op as it stands in the file: an Input or Output behind host ops gets the shape it has without them."""
    op = graph.nodes[name]
    if not isinstance(op, (Input, Output)):
        return op
    inward = isinstance(op, Input)
    step, role = (graph.destinations, "before") if inward else (graph.sources, "after")
    shape, at = op.shape, name
    while following := step(at):
        host = graph.nodes[following[0]]
        own_role = type(host).ROLE
        if own_role != role:
            break
        at = following[0]
        shape = host.out_shape if inward else host.in_shape
    return op.replace(shape=shape)


def nir_name(name: str) -> str:
    """The name under which a node stands in a file: "%", "/" and what cannot be printed as %XX of its UTF-8 bytes.

    Raises:
        GraphError: it is empty or no Unicode text.
    """
    try:
        data = {c: c.encode() for c in name}
    except UnicodeEncodeError:
        raise GraphError("its name is no Unicode text", where=ascii(name), hint="rename it") from None
    if not name:
        raise GraphError("a node has an empty name", where="graph", hint="rename it")
    return "".join(
        "".join(f"%{byte:02X}" for byte in data[c]) if c in "%/" or not c.isprintable() or name == "." else c
        for c in name
    )
