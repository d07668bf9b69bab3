"""Whether a graph is legal at its level: every violation at once, each with the node it concerns.

Fields are checked by their declarations, whatever the op. What stands here is about how ops are connected.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np

from nervecord.compiler.findings import Finding, raise_on_errors
from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.sizes import sizes
from nervecord.compiler.ops import BiasChannel, Decoder, Input, Level, Neuron, Op, PopulationEncode, Quantise, is_core
from nervecord.compiler.ops.fields import declarations
from nervecord.errors import GraphError

Subject = TypeVar("Subject", bound=Graph | Policy)
MOST_NODES = 1 << 16
"""No graph has more nodes."""
MOST_EDGES = 1 << 17
"""No graph has more edges."""


def verify(subject: Graph | Policy, level: Level | None = None) -> list[Finding]:
    """Every violation of the rules of `level` (the graph's own by default); an empty list for a legal subject."""
    graph, contract = parts(subject)
    level = level or graph.level
    findings: list[Finding] = []
    if graph.level is not level:
        findings.append(_error("level", "graph", f"is at level {graph.level.value}, not {level.value}"))
    for what, count, most in (("nodes", len(graph.nodes), MOST_NODES), ("edges", len(graph.edges), MOST_EDGES)):
        if count > most:
            return [*findings, _error("size", "graph", f"has too many {what}", value=count, limit=most)]
    shapeless = False
    for name, op in graph.nodes.items():
        if level not in op.levels:
            findings.append(_error("illegal-node", name, f"{op.kind} has no meaning at level {level.value}"))
        for code, message, value, limit in op.violations():
            shapeless |= code in ("shape", "missing", "empty", "part", "type", "axes") or _has_sizes(op)
            findings.append(_error(code, name, message, value=value, limit=limit))
    if shapeless:
        return findings  # it has no shape to connect
    findings += sizes(graph, contract)
    if any(finding.code == "size" for finding in findings):
        return findings  # the rest would take as long as running it
    findings += _connections(graph)
    if level is not Level.IMPORTED:
        findings += _executable(graph, contract)
    if level is Level.INTEGER:
        findings += _integers(graph)
    if contract is not None:
        findings += _policy(graph, contract)
    return findings


def require(subject: Subject, level: Level | None = None, *, where: str | None = None) -> Subject:
    """The subject itself.

    Raises:
        GraphError: it is not legal; the message lists every violation.
    """
    raise_on_errors(verify(subject, level), GraphError, where=where)
    return subject


def _error(code: str, node: str, message: str, fix: str = "", **measure: float | int | str | None) -> Finding:
    return Finding(code, "error", node, message, fix=fix, **measure)  # type: ignore[arg-type]


def _has_sizes(op: Op) -> bool:
    return any(declared.kind == "shape" for _, declared in declarations(type(op)))


def _connections(graph: Graph) -> Iterator[Finding]:
    for kind, names in (("Input", graph.inputs), ("Output", graph.outputs)):
        if not names:
            yield _error("no-end", "graph", f"has no {kind} node")
    for a, b in graph.edges:
        shape, needed = graph.nodes[a].out_shape, graph.nodes[b].in_shape
        if shape != needed:
            yield _error("shape", b, f"takes shape {needed}, and {a} gives {shape}", _more_axes(shape, needed))
    for name, op in graph.nodes.items():
        role = type(op).ROLE
        if not graph.sources(name) and role != "input":
            yield _error("disconnected", name, "nothing feeds it", "connect it or remove it")
        if not graph.destinations(name) and role != "output":
            yield _error("disconnected", name, "it feeds nothing", "connect it or remove it")
        if role == "input" and graph.sources(name):
            yield _error("end", name, "an Input node is fed by another node")
        if role == "output" and graph.destinations(name):
            yield _error("end", name, "an Output node feeds another node")


def _more_axes(shape: tuple[int, ...], needed: tuple[int, ...]) -> str:
    """What to do where one of two shapes is the other with axes before it; else nothing."""
    longer, shorter = (shape, needed) if len(shape) > len(needed) else (needed, shape)
    axes = longer[: len(longer) - len(shorter)]
    if not axes or longer[len(axes) :] != shorter:
        return ""
    if len(axes) == 1:
        return f"its file carries a batch axis of {axes[0]}: export it with a sample that has none"
    return (
        f"its file carries axes {axes} of a batch and of time, as Rockpool's export writes them: give its Input and "
        f"Output the shapes {shorter} before it is written"
    )


def _executable(graph: Graph, contract: Contract | None) -> Iterator[Finding]:
    if graph.dt is None or not (np.isfinite(graph.dt) and graph.dt > 0):
        yield _error("dt", "graph", f"dt is {graph.dt}, a positive number of seconds is needed", "give --dt")
    _, stuck = graph.order()
    if stuck:
        yield _error(
            "cycle",
            stuck[0],
            "a cycle passes through no delay: " + " -> ".join(stuck[:20]),
            "a recurrent connection needs a delay of at least one step",
        )
    yield from _host_places(graph, contract)


def _host_places(graph: Graph, contract: Contract | None) -> Iterator[Finding]:
    """What runs on the host stands before the core or after it; spike encoders and counters stand at its border."""
    for name, op in graph.nodes.items():
        role = type(op).ROLE
        sources = [graph.nodes[a] for a in graph.sources(name)]
        destinations = [graph.nodes[b] for b in graph.destinations(name)]
        misplaced = ""
        if role == "before" and not all(type(a).ROLE in ("input", "before") for a in sources):
            misplaced = "belongs before the core, behind Inputs and what runs before it"
        if role == "after" and not all(type(b).ROLE == "output" for b in destinations):
            misplaced = "belongs after the core and before the Output"
        if role == "after" and not all(is_core(a) for a in sources):
            misplaced = "belongs behind the core's neurons"
        if isinstance(op, PopulationEncode):
            if op.always and graph.level is not Level.INTEGER:
                yield _error("bias-source", name, "a float connection has its own bias and needs no source for it")
            if not all(is_core(b) for b in destinations):
                misplaced = "belongs right before the core"
        counts = isinstance(op, Decoder) and type(op).READS == "sum"
        if counts and not all(isinstance(a, Neuron) and a.spikes for a in sources):
            misplaced = "belongs between neurons that spike and the Output"
        if (isinstance(op, PopulationEncode) or counts) and contract is None:
            yield _error("contract", name, f"{op.kind} needs a contract, which says the steps per action")
        if isinstance(op, Decoder) and op.choices and len(graph.destinations(name)) > 1:
            misplaced = "has one Output"
        if misplaced:
            yield _error("misplaced", name, f"{op.kind} {misplaced}")
        ways = {
            "counted" if isinstance(b, Decoder) and type(b).READS == "sum" else "read"
            for b in destinations
            if not is_core(b)
        }
        if is_core(op) and len(ways) > 1:
            yield _error(
                "read-twice", name, "is read at the end and counted over all steps at once", "read it in one way"
            )
        if role == "output" and len(sources) > 1 and any(isinstance(a, Decoder) and a.choices for a in sources):
            yield _error("misplaced", name, "takes a choice, to which nothing can be added")
        if role == "output" and not (all(map(is_core, sources)) or all(type(a).ROLE == "after" for a in sources)):
            yield _error("misplaced", name, "takes what the core or what decoders give, not both, and no input")


def _integers(graph: Graph) -> Iterator[Finding]:
    """At the integer level connections and neurons alternate, within what the arithmetic can hold."""
    arithmetic = graph.arithmetic
    if arithmetic is None:
        yield _error("arithmetic", "graph", "is in integers, and does not say of which arithmetic")
        return
    for name, op in graph.nodes.items():
        sources = [graph.nodes[a] for a in graph.sources(name)]
        for code, message, value, limit in op.misfits(arithmetic):
            yield _error(code, name, message, value=value, limit=limit)
        if type(op).ROLE == "connection":
            for a, source in zip(graph.sources(name), sources, strict=True):
                if type(source).ROLE == "connection":
                    yield _error("wiring", name, f"is fed by the connection {a}, with no neurons between")
                elif type(source).ROLE == "population" and not source.sending:
                    yield _error("analogue-layer", a, f"sends its membrane, not spikes, to {name}")
                elif type(source).ROLE == "before" and source.sends is None:
                    yield _error(
                        "wiring", name, f"is fed real numbers by {a}, and takes integers", "put a Quantise between them"
                    )
        elif type(op).ROLE == "population":
            if not all(type(a).ROLE == "connection" for a in sources):
                yield _error("wiring", name, "neurons are fed by connections only")
        elif type(op).ROLE in ("after", "output") and any(type(a).ROLE == "connection" for a in sources):
            yield _error("wiring", name, "is fed by a connection, with no neurons between")
        elif isinstance(op, BiasChannel) and not all(a.spikes for a in sources):
            yield _error("wiring", name, "sends spikes, and is fed values", "let its Input carry spikes")
        elif isinstance(op, Quantise) and max(op.limit, op.constant) > max(arithmetic.graded_limit, 1):
            yield _error(
                "limit",
                name,
                "sends larger values than the arithmetic takes",
                value=max(op.limit, op.constant),
                limit=arithmetic.graded_limit,
            )
        elif (
            isinstance(op, Input)
            and op.carries != "spikes"
            and any(is_core(graph.nodes[b]) for b in graph.destinations(name))
            and (op.limit is None or op.limit > arithmetic.graded_limit)
        ):
            yield _error(
                "limit",
                name,
                "what it carries into integers has no limit that they can hold",
                value=op.limit,
                limit=arithmetic.graded_limit,
            )


def _policy(graph: Graph, contract: Contract) -> Iterator[Finding]:
    for role, label, size in (
        ("input", "observation", contract.observation.size),
        ("output", "action", contract.action.size),
    ):
        ends = [(name, graph.nodes[name]) for name in graph.of_role(role)]
        for name, op in ends:
            if len(op.in_shape) != 1:
                yield _error("contract", name, f"has shape {op.in_shape}, and a policy's values are one row")
        total = sum(op.size for _, op in ends)
        if ends and total != size:
            names = " + ".join(name for name, _ in ends)
            yield _error("contract", names, f"has {total} values, and the contract's {label} has {size}")
    for name in graph.outputs:
        if any(is_core(graph.nodes[a]) for a in graph.sources(name)):
            yield _error(
                "decoder", name, "nothing decodes an action from what the core gives", "put a decoder before it"
            )
    yield from _choices(graph, contract.choices)
    yield from _limits(graph, contract)


def _limits(graph: Graph, contract: Contract) -> Iterator[Finding]:
    """No action outside the contract's limits: what the decoders of an Output can give together lies within them."""
    low, high = contract.action.low, contract.action.high
    first = 0
    for name in graph.outputs:
        size = graph.nodes[name].size
        decoders = [graph.nodes[a] for a in graph.sources(name)]
        part = slice(first, first + size)
        first += size
        if any(isinstance(op, Decoder) and op.choices for op in decoders):
            continue  # the contract's own check of choices covers it
        ranges = [op.limits for op in decoders if isinstance(op, Decoder)]
        for side, end, allowed in (("low", 0, low), ("high", 1, high)):
            if allowed is None or len(allowed) < first:
                continue
            if any(limits is None for limits in ranges):
                yield _error("limits", name, "its decoder has no limits, and the contract's action has")
                break
            total = sum(limits[end] for limits in ranges if limits is not None)
            contract_limit = np.array(allowed[part])
            beyond = total < contract_limit if end == 0 else total > contract_limit
            if np.any(beyond):
                k = int(np.flatnonzero(beyond)[0])
                yield _error(
                    "limits",
                    name,
                    f"can go beyond the contract's limit ({side}) of {contract.action.names[part][k]}",
                    value=float(np.broadcast_to(total, contract_limit.shape)[k]),
                    limit=float(contract_limit[k]),
                )


def _choices(graph: Graph, choices: tuple[str, ...]) -> Iterator[Finding]:
    """A contract with a choice of actions needs a decoder that chooses among as many, and the other way round."""
    deciding = [(name, op) for name, op in graph.nodes.items() if isinstance(op, Decoder) and op.choices]
    if choices and not deciding:
        yield _error("contract", "graph", f"the contract has a choice of {len(choices)} actions, and nothing chooses")
    for name, op in deciding:
        assert isinstance(op, Decoder)
        if op.choices != len(choices):
            yield _error("contract", name, f"chooses among {op.choices} actions, and the contract has {len(choices)}")


def unprintable(graph: Graph) -> str | None:
    """The first name that cannot be printed; None where all can."""
    names: list[str] = [*graph.nodes, *(text for op in graph.nodes.values() for text in op.origin)]
    return next((name for name in names if not name.isprintable()), None)
