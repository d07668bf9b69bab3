"""How a DISCRETE graph is said in NIR: names, edges, types and parameters, in plain numpy.

Writing makes NIR nodes of it; reading makes it again from the metadata and compares it with the file, so that somebody
who edited one of the two is told.

NIR is in continuous time, and forward Euler with step dt gives the discrete update back:

    v = decay v + gain x + leak   is   tau = dt / (1 - decay), r = gain tau / dt, v_leak = leak tau / dt
    decay = 1                     is   an integrator (I, IF) with r = gain / dt
    i = current_decay i + current_gain x   is   tau_syn = dt / (1 - current_decay), w_in = current_gain tau_syn / dt

in float64. The reset rules "subtract" and "none", host nodes and the contract cannot be said in NIR; they stand in the
metadata, and Input and Output are those of the core: what a population code sends, the neurons whose spikes count.
W x(t - k dt) + b becomes a Delay of k dt seconds with the Affine behind it: its bias does not wait.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.graph import Edge, Graph
from nervecord.compiler.nirimport import dissolve
from nervecord.compiler.node import Array, Node
from nervecord.errors import GraphError

Form: TypeAlias = tuple[str, dict[str, Array]]
"""NIR type and its fields as the file holds them."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A graph in NIR.

    Args:
        nodes: NIR name -> type and fields, in the graph's order, a Delay before its Affine.
        edges: between NIR names, in the graph's order.
    """

    nodes: dict[str, Form]
    edges: tuple[Edge, ...]


def layout(graph: Graph) -> Layout:
    """The NIR form of a legal DISCRETE graph, host nodes left out.

    Raises:
        GraphError: something cannot be said in NIR.
    """
    assert graph.dt is not None  # a legal DISCRETE graph has one
    edges = list(graph.edges)
    for name, _ in graph.of_type(*n.HOST_NODES):
        edges = dissolve(edges, name)
    if len(set(edges)) != len(edges):
        raise GraphError(
            "without its host nodes an edge appears twice", where="edges",
            hint="a host node must be the only way past it",
        )  # fmt: skip
    names = {name: nir_name(name) for name, node in graph.nodes.items() if not isinstance(node, n.HOST_NODES)}
    taken = set(names.values())
    forms: dict[str, Form] = {}
    entrances = dict(names)
    for name, nir in names.items():
        node = _end_of_core(graph, name)
        if isinstance(node, n.Affine) and node.delay:
            before = f"{nir}%delay"
            while before in taken:
                before += "%"
            taken.add(before)
            entrances[name] = before
            forms[before] = ("Delay", {"delay": np.full(node.in_shape, node.delay * graph.dt)})
        forms[nir] = _form(node, graph.dt, name)
    out: list[Edge] = [(entrances[name], names[name]) for name in names if entrances[name] != names[name]]
    out += [(names[a], entrances[b]) for a, b in edges]
    return Layout(forms, tuple(out))


def _end_of_core(graph: Graph, name: str) -> Node:
    """A node as it stands in the file: an Input or Output behind host nodes gets the shape it has without them."""
    node = graph.nodes[name]
    if not isinstance(node, (n.Input, n.Output)):
        return node
    inward = isinstance(node, n.Input)
    step, kinds = (graph.destinations, n.BEFORE_CORE) if inward else (graph.sources, n.AFTER_CORE)
    shape, at = node.shape, name
    while (following := step(at)) and isinstance(host := graph.nodes[following[0]], kinds):
        at = following[0]
        shape = host.out_shape if inward else host.in_shape
    return dataclasses.replace(node, shape=shape)


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


def _form(node: Node, dt: float, name: str) -> Form:
    for field in type(node).ARRAYS:
        value = getattr(node, field)
        if value is not None and value.ndim == 0:
            raise GraphError(f"{field} is a scalar, NIR files hold arrays", where=name, hint="give it the shape (1,)")
    match node:
        case n.Input() | n.Output():
            return node.kind, {"shape": np.array(node.shape)}
        case n.Affine(bias=None):
            return "Linear", {"weight": node.weight}
        case n.Affine():
            assert node.bias is not None
            return "Affine", {"weight": node.weight, "bias": node.bias}
        case n.Scale():
            return "Scale", {"scale": node.scale}
        case n.Threshold():
            return "Threshold", {"threshold": node.threshold}
        case n.Flatten():
            axes = len(node.input_shape)
            start, end = node.start % axes, node.end % axes
            # The released nir computes shapes right for -1 and for non-negative axes only.
            end = -1 if end == axes - 1 else end
            return "Flatten", {
                "input_type": np.array(node.input_shape), "start_dim": np.array(start), "end_dim": np.array(end)
            }  # fmt: skip
        case n.DiscreteLI() | n.DiscreteLIF() | n.DiscreteCubaLI() | n.DiscreteCubaLIF():
            return _neuron(node, dt, name)
    raise GraphError(f"{node.kind} cannot be written as NIR", where=name)


def _neuron(node: Any, dt: float, name: str) -> Form:
    fields: dict[str, Array] = {}
    cuba = isinstance(node, (n.DiscreteCubaLI, n.DiscreteCubaLIF))
    spikes = isinstance(node, (n.DiscreteLIF, n.DiscreteCubaLIF))
    integrates = bool((node.decay == 1).all()) and not cuba
    with np.errstate(all="ignore"):  # what overflows is refused below, by name
        if integrates:
            if node.leak.any():
                raise GraphError(
                    "decay is 1 and leak is not 0: NIR's I and IF have no leak", where=name,
                    hint="add the leak as a bias to what feeds it",
                )  # fmt: skip
            fields["r"] = node.gain / dt
        else:
            tau = _time_constant(node.decay, dt, "decay", name)
            fields |= {"tau_mem" if cuba else "tau": tau, "r": node.gain * tau / dt, "v_leak": node.leak * tau / dt}
        if cuba:
            tau_syn = _time_constant(node.current_decay, dt, "current_decay", name)
            fields |= {"tau_syn": tau_syn, "w_in": node.current_gain * tau_syn / dt}
    if spikes:
        fields |= {"v_threshold": node.threshold, "v_reset": node.reset_value}
    for field, value in fields.items():
        if not np.isfinite(value).all():
            raise GraphError(f"{field} is beyond float64 in NIR's units", where=name, hint="rescale it")
    kind = ("I" if integrates else "LI") + ("F" if spikes else "")
    return ("Cuba" if cuba else "") + kind, fields


def _time_constant(decay: Array, dt: float, field: str, name: str) -> Array:
    ones = int(np.count_nonzero(decay == 1))
    if ones:
        raise GraphError(
            f"{field} is 1 for {ones} of {decay.size} neurons, and NIR has no such neuron beside leaky ones",
            where=name, hint="split the population, or make it less than 1",
        )  # fmt: skip
    return dt / (1 - decay)
