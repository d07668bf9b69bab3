"""Whether a graph is legal at its level: every violation at once, each with the node it concerns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.findings import Finding, raise_on_errors
from nervecord.compiler.graph import Graph, Level
from nervecord.compiler.node import Node
from nervecord.errors import GraphError

_SHARED = (n.Input, n.Output)
LEGAL: dict[Level, tuple[type[Node], ...]] = {
    Level.IMPORTED: (
        *_SHARED,
        n.Affine,
        n.Scale,
        n.Flatten,
        n.Conv2d,
        n.Pool2d,
        n.Delay,
        n.Threshold,
        *n.CONTINUOUS_NEURONS,
    ),
    Level.DISCRETE: (
        *_SHARED,
        n.Affine,
        n.Scale,
        n.Flatten,
        n.Threshold,
        n.Normalise,
        n.PopulationEncode,
        *n.AFTER_CORE,
        *n.DISCRETE_NEURONS,
    ),
    Level.INTEGER: (*_SHARED, *n.HOST_NODES, n.FixedDense, *n.FIXED_NEURONS),
}
"""The node types of each level."""


def verify(graph: Graph, level: Level | None = None) -> list[Finding]:
    """Every violation of the rules of `level` (the graph's own by default); an empty list for a legal graph."""
    level = level or graph.level
    found: list[Finding] = []
    if graph.level is not level:
        found.append(_error("level", "graph", f"is at level {graph.level.value}, not {level.value}"))
    for name, node in graph.nodes.items():
        if not isinstance(node, LEGAL[level]):
            found.append(_error("illegal-node", name, f"{node.kind} has no meaning at level {level.value}"))
        found += _parameters(name, node)
    if any(isinstance(node, (n.Affine, n.FixedDense)) and node.weight.ndim != 2 for node in graph.nodes.values()):
        return found  # it has no shape to connect
    found += _connections(graph)
    if level is not Level.IMPORTED:
        found += _executable(graph)
    return found


def require(graph: Graph, level: Level | None = None, *, where: str | None = None) -> Graph:
    """The graph itself.

    Raises:
        GraphError: it is not legal; the message lists every violation.
    """
    raise_on_errors(verify(graph, level), GraphError, where=where)
    return graph


def _error(code: str, node: str, message: str, fix: str = "", **measure: float | int | str) -> Finding:
    return Finding(code, "error", node, message, fix=fix, **measure)  # type: ignore[arg-type]


def _parameters(name: str, node: Node) -> Iterator[Finding]:
    for field in type(node).ARRAYS:
        array = getattr(node, field)
        if array is None:
            continue
        bad = int(np.count_nonzero(~np.isfinite(array)))
        if bad and not (field == "tau" and not np.isnan(array).any()):
            yield _error(
                "not-finite", name, f"{field} has {bad} values that are NaN or infinite", "retrain or repair it"
            )
        if array.size == 0:
            yield _error("empty", name, f"{field} has no elements")
    yield from _population_shapes(name, node)
    for field in ("tau", "tau_syn"):
        tau = getattr(node, field, None)
        if tau is not None and (tau <= 0).any():
            yield _error(
                "time-constant", name, f"{field} must be positive", "a time constant is in seconds",
                value=float(tau.min()), limit=0,
            )  # fmt: skip
    for field in ("decay", "current_decay"):
        decay = getattr(node, field, None)
        if decay is not None and not ((decay >= 0) & (decay <= 1)).all():
            yield _error("decay", name, f"{field} lies outside 0..1", value=float(decay.max()), limit=1)
    if isinstance(node, n.Affine):
        if node.weight.ndim != 2:
            yield _error("shape", name, f"weight has {node.weight.ndim} axes, not 2")
        elif node.bias is not None and node.bias.shape != node.out_shape:
            yield _error("shape", name, f"bias has shape {node.bias.shape}, the output {node.out_shape}")
        if node.delay < 0:
            yield _error("delay", name, "delay is negative", value=node.delay, limit=0)
    if isinstance(node, n.HOST_NODES):
        yield from _host_node(name, node)
    if isinstance(node, n.FixedDense):
        yield from _fixed_dense(name, node)
    if isinstance(node, n.FIXED_NEURONS):
        yield from _fixed_neuron(name, node)


def _host_node(name: str, node: Node) -> Iterator[Finding]:
    if isinstance(node, n.Normalise):
        if (node.variance < 0).any():
            yield _error("variance", name, "variance is negative", value=float(node.variance.min()), limit=0)
        if not (node.clip > 0 and np.isfinite(node.clip)):
            yield _error("clip", name, "clip must be positive and finite", value=node.clip, limit=0)
        if not node.epsilon >= 0 or ((node.variance == 0).any() and node.epsilon == 0):
            yield _error("epsilon", name, "the divisor can be zero", value=node.epsilon, limit=0)
    if isinstance(node, (n.Decode, n.CountDecode)) and _crossed(node):
        yield _error("limits", name, "low exceeds high")
    if isinstance(node, n.PopulationEncode):
        yield from _population_code(name, node)
    if isinstance(node, (n.CountDecode, n.CountArgmaxDecode)):
        if node.weight.ndim != 2:
            yield _error("shape", name, f"weight has {node.weight.ndim} axes, not 2")
        for field in node.ARRAYS[1:]:
            shape = getattr(node, field).shape
            if shape != node.weight.shape[:1]:
                yield _error("shape", name, f"{field} has shape {shape}, the action {node.weight.shape[:1]}")
    if isinstance(node, n.ArgmaxDecode):
        if node.size < 1:
            yield _error("choices", name, "there is no action to choose", value=node.size, limit=1)
        if not (node.scale > 0 and np.isfinite(node.scale)):
            yield _error("scale", name, "scale must be positive and finite", value=node.scale, limit=0)


def _crossed(node: n.Decode | n.CountDecode) -> bool:
    return node.low.shape == node.high.shape and bool((node.low > node.high).any())


def _population_code(name: str, node: n.PopulationEncode) -> Iterator[Finding]:
    if node.mean.ndim != 2 or node.mean.shape[-1] < 2:
        yield _error("shape", name, f"mean has shape {node.mean.shape}, (channels, neurons) with 2 or more is needed")
    elif not (np.diff(node.mean, axis=1) > 0).all():
        yield _error("means", name, "the means of a channel do not ascend")
    if not (node.sigma > 0 and np.isfinite(node.sigma)):
        yield _error("sigma", name, "sigma must be positive and finite", value=node.sigma, limit=0)


def _population_shapes(name: str, node: Node) -> Iterator[Finding]:
    if isinstance(node, (n.Affine, n.Conv2d, n.FixedDense, n.PopulationEncode, *n.COUNTING)):
        return
    for field in type(node).ARRAYS:
        shape = getattr(node, field).shape
        if shape != node.in_shape:
            yield _error("shape", name, f"{field} has shape {shape}, the population {node.in_shape}")


def _between(name: str, field: str, value: int, low: int, high: int) -> Iterator[Finding]:
    if not low <= value <= high:
        yield _error(
            "range", name, f"{field} lies outside {low}..{high}", value=value, limit=high if value > high else low
        )


def _fixed_dense(name: str, node: n.FixedDense) -> Iterator[Finding]:
    yield from _between(name, "weight_exp", node.weight_exp, -8, 7)
    yield from _between(name, "weight_bits", node.weight_bits, 1, 8)
    if node.weight.ndim != 2:
        yield _error("shape", name, f"weight has {node.weight.ndim} axes, not 2")
        return
    low, high = (int(node.weight.min()), int(node.weight.max())) if node.weight.size else (0, 0)
    mixed = low < 0 < high
    yield from _between(name, "weight", low, -256 if mixed else -255, 255)
    yield from _between(name, "weight", high, -256, 254 if mixed else 255)
    step = 1 << (8 - node.weight_bits + (1 if mixed else 0))
    if (node.weight % step).any():
        yield _error("weight-grid", name, f"weights are no multiples of {step}, as {node.weight_bits} bits need")


def _fixed_neuron(name: str, node: Node) -> Iterator[Finding]:
    assert isinstance(node, n.FIXED_NEURONS)
    yield from _between(name, "du", node.du, 0, 4095)  # type: ignore[attr-defined]
    yield from _between(name, "dv", node.dv, 0, 4095)  # type: ignore[attr-defined]
    yield from _between(name, "bias_exp", node.bias_exp, 0, 7)  # type: ignore[attr-defined]
    bias = node.bias_mant  # type: ignore[attr-defined]
    if bias.size:
        yield from _between(name, "bias_mant", int(bias.min()), -4096, 4095)
        yield from _between(name, "bias_mant", int(bias.max()), -4096, 4095)
    if isinstance(node, n.FixedLIF):
        yield from _between(name, "threshold", node.threshold, 0, 131071)
    interval, offset = node.reset_interval, node.reset_offset  # type: ignore[attr-defined]
    if interval < 0 or not 0 <= offset < max(interval, 1):
        yield _error("reset-window", name, f"reset offset {offset} lies outside its interval of {interval} steps")


def _connections(graph: Graph) -> Iterator[Finding]:
    for kind, names in (("Input", graph.inputs), ("Output", graph.outputs)):
        if not names:
            yield _error("no-end", "graph", f"has no {kind} node")
    for a, b in graph.edges:
        shape, wanted = graph.nodes[a].out_shape, graph.nodes[b].in_shape
        if shape != wanted:
            yield _error("shape", b, f"takes shape {wanted}, and {a} gives {shape}")
    for name, node in graph.nodes.items():
        if not graph.sources(name) and not isinstance(node, n.Input):
            yield _error("disconnected", name, "nothing feeds it", "connect it or remove it")
        if not graph.destinations(name) and not isinstance(node, n.Output):
            yield _error("disconnected", name, "it feeds nothing", "connect it or remove it")
        if isinstance(node, n.Input) and graph.sources(name):
            yield _error("end", name, "an Input node is fed by another node")


def _executable(graph: Graph) -> Iterator[Finding]:
    if graph.dt is None or not (np.isfinite(graph.dt) and graph.dt > 0):
        yield _error("dt", "graph", f"dt is {graph.dt}, a positive number of seconds is needed", "give --dt")
    _, stuck = graph.partial_order()
    if stuck:
        yield _error(
            "cycle", stuck[0], "a cycle passes through no delay: " + " -> ".join(stuck),
            "a recurrent connection needs a delay of at least one step",
        )  # fmt: skip
    yield from _host_places(graph)
    if graph.contract is not None:
        yield from _policy(graph)


def _host_places(graph: Graph) -> Iterator[Finding]:
    """A population code stands between Normalise and core, a count between spiking neurons and the Output.

    A choice stands before the Output too.
    """
    for name, _ in graph.of_type(n.ArgmaxDecode):
        if not all(isinstance(graph.nodes[b], n.Output) for b in graph.destinations(name)):
            yield _error("misplaced", name, "ArgmaxDecode belongs before the Output")
    for name, node in graph.of_type(n.PopulationEncode, *n.COUNTING):
        if graph.contract is None:
            yield _error("contract", name, f"{node.kind} needs a contract, which says the steps per action")
        sources = [graph.nodes[a] for a in graph.sources(name)]
        if isinstance(node, n.PopulationEncode):
            if node.always and graph.level is not Level.INTEGER:
                yield _error("bias-source", name, "a float connection has its own bias and needs no source for it")
            misplaced = not all(isinstance(a, n.Normalise) for a in sources)
            misplaced |= any(len(graph.destinations(a)) > 1 for a in graph.sources(name))
            misplaced |= any(isinstance(graph.nodes[b], n.HOST_NODES) for b in graph.destinations(name))
            wanted = "after Normalise and before the core"
        else:
            counted = tuple(kind for kind in n.SPIKING if kind is not n.Threshold)
            misplaced = not all(isinstance(a, counted) for a in sources)
            misplaced |= not all(isinstance(graph.nodes[b], n.Output) for b in graph.destinations(name))
            wanted = "between neurons that spike and the Output"
        if misplaced or len(sources) > 1:
            yield _error("misplaced", name, f"{node.kind} belongs {wanted}")


def _policy(graph: Graph) -> Iterator[Finding]:
    contract = graph.contract
    assert contract is not None
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        yield _error("policy-ends", "graph", "a policy has one Input and one Output")
        return
    for name, label, size in (
        (graph.inputs[0], "observation", contract.observation.size),
        (graph.outputs[0], "action", contract.action.size),
    ):
        if graph.nodes[name].in_shape != (size,):
            shape = graph.nodes[name].in_shape
            yield _error("contract", name, f"has shape {shape}, and the contract's {label} has {size} values")
    yield from _choices(graph, contract.choices)


def _choices(graph: Graph, choices: tuple[str, ...]) -> Iterator[Finding]:
    """A contract with a choice of actions needs a decoder that chooses among as many, and the other way round."""
    deciding = [(name, node) for name, node in graph.of_type(*n.CHOOSING)]
    if choices and not deciding:
        yield _error("contract", "graph", f"the contract has a choice of {len(choices)} actions, and nothing chooses")
    for name, node in deciding:
        # The number of actions: of rows of weights, or of values compared.
        shape = node.weight.shape[:1] if isinstance(node, n.CountArgmaxDecode) else node.in_shape
        if shape != (len(choices),):
            count = sum(shape)
            yield _error("contract", name, f"chooses among {count} actions, and the contract has {len(choices)}")
