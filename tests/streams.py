"""Random INTEGER streams and policies with what `graphs.draw` and `emulated.policy_of` leave out.

Values that a Quantise rounds, with a bias source beside them; connections that several sources feed, or that feed
several populations; compressed rows; limits that are no integers. And what lowering makes of random float streams:
biases into synaptic currents, channels that carry them, second slices, skips, delays.
"""

from __future__ import annotations

import numpy as np
from emulated import policy_of
from graphs import LAVA, Case, draw
from policies import li, lif

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.ops import (
    Affine,
    Array,
    BiasChannel,
    Csr,
    Dense,
    Input,
    Level,
    Mantissas,
    Neuron,
    Op,
    Output,
    PopulationEncode,
    Quantise,
    Sparse,
)
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import GraphError, InfeasibleError


def draw_stream(seed: int, arithmetic: Arithmetic = LAVA) -> Case:
    """A drawn case with encoders and branches, if its ranges are still proved; else with fewer of them."""
    case = draw(seed, arithmetic)
    rng = np.random.default_rng([seed, 1])
    graph, inputs = case.plan.graph, dict(case.inputs)
    for name in graph.inputs:
        op = graph.nodes[name]
        assert isinstance(op, Input)
        if not op.spikes and rng.random() < 0.8:
            weights, scale = quantised(graph, name, rng)
            if proved(weights, case.plan.schedule) is not None:
                graph, inputs[name] = weights, reals(inputs[name], scale, rng)
    for change in (widened, branched, branched, compressed):
        weights = change(graph, rng)
        if weights is not graph and proved(weights, case.plan.schedule) is not None:
            graph = weights
    network_plan = proved(graph, case.plan.schedule)
    assert network_plan is not None
    return Case(seed, network_plan, inputs)


def draw_policy(seed: int, arithmetic: Arithmetic = LAVA, *, choices: bool = False) -> Policy | None:
    """A drawn policy with bias sources and branches; None where `policy_of` draws none."""
    policy = policy_of(draw(seed, arithmetic), choices=choices)
    if policy is None:
        return None
    rng = np.random.default_rng([seed, 2])
    for change in (widened, branched, branched, compressed):
        changed = policy.replace(graph=change(policy.graph, rng))
        if proved(changed) is not None:
            policy = changed
    return policy


def proved(subject: Graph | Policy, schedule: Schedule | None = None) -> Plan | None:
    """Its plan; None where it is not legal or may overflow."""
    arithmetic = (subject.graph if isinstance(subject, Policy) else subject).arithmetic
    assert arithmetic is not None
    try:
        network_plan = plan(subject, schedule)
    except GraphError:
        return None
    wrong = any(finding.severity == "error" for finding in overflows(prove(network_plan), arithmetic))
    return None if wrong else network_plan


# --------------------------------------------------------------------------------------------------------------------
# Changes of a graph


def quantised(graph: Graph, name: str, rng: np.random.Generator) -> tuple[Graph, float]:
    """A graph whose Input sends real numbers into a Quantise; and integers per unit."""
    op = graph.nodes[name]
    assert isinstance(op, Input)
    assert op.limit is not None
    scale = float(rng.choice([0.3, 1.0, 2.5, 900.0]))
    code = f"quantise {name}"
    nodes: dict[str, Op] = {
        **graph.nodes,
        name: op.replace(limit=None if rng.random() < 0.5 else (op.limit + 0.7) / scale),
        code: Quantise(op.size, scale, int(op.limit)),
    }
    edges = [(code, b) if a == name else (a, b) for a, b in graph.edges]
    return graph.replace(nodes=nodes, edges=(*edges, (name, code))), scale


def reals(values: Array, scale: float, rng: np.random.Generator) -> Array:
    """Integers as the real numbers that are rounded to them, now and then halves and what is far beyond any limit."""
    noise = rng.choice([0.0, 0.3, 0.5], size=values.shape)
    return as_float32(np.where(rng.random(values.shape) < 0.05, values * 1e9, values + noise) / scale)


def as_float32(values: Array) -> Array:
    """Rounded to what every engine's interface holds."""
    return values.astype(np.float32).astype(np.float64)


def widened(graph: Graph, rng: np.random.Generator) -> Graph:
    """With a bias source in some of the Quantise that have none, read through a column of weights like the others."""
    nodes = dict(graph.nodes)
    arithmetic = graph.arithmetic
    assert arithmetic is not None
    for name, op in graph.nodes.items():
        readers = [b for b in graph.destinations(name) if isinstance(graph.nodes[b], Dense)]
        if isinstance(op, Quantise) and not op.constant and rng.random() < 0.8:
            constant = int(rng.choice([1, 5, op.limit, arithmetic.graded_limit, rng.integers(op.limit) + 1]))
            nodes[name] = op.replace(constant=constant)
            for b in readers:
                dense = nodes[b]
                assert isinstance(dense, Dense)
                column = dense.weight[:, [int(rng.integers(op.width))]]
                nodes[b] = dense.replace(weight=np.concatenate([dense.weight, column], axis=1))
    return graph.replace(nodes=nodes)


def branched(graph: Graph, rng: np.random.Generator) -> Graph:
    """With one more source of a connection, or one more population behind it, where there is one of the right size."""
    arithmetic = graph.arithmetic
    assert arithmetic is not None
    senders = [
        n
        for n, op in graph.nodes.items()
        if isinstance(op, (Quantise, BiasChannel, PopulationEncode))
        or (isinstance(op, Neuron) and op.spikes)
        or (isinstance(op, Input) and all(isinstance(graph.nodes[b], Mantissas) for b in graph.destinations(n)))
    ]
    connections = [name for name, op in graph.nodes.items() if isinstance(op, Mantissas)]
    more: list[Edge] = [
        (a, b)
        for b in connections
        for a in senders
        if graph.nodes[a].out_shape == graph.nodes[b].in_shape and (a, b) not in graph.edges
    ]
    more += [
        (a, b)
        for a in connections
        for b, op in graph.nodes.items()
        if isinstance(op, Neuron) and op.in_shape == graph.nodes[a].out_shape and (a, b) not in graph.edges
    ]
    if not more:
        return graph
    edges = [*graph.edges, more[int(rng.integers(len(more)))]]
    return graph.replace(edges=tuple(edges[int(i)] for i in rng.permutation(len(edges))))


def compressed(graph: Graph, rng: np.random.Generator) -> Graph:
    """With some of its matrices in compressed rows."""
    nodes = dict(graph.nodes)
    for name, op in graph.nodes.items():
        if isinstance(op, Dense) and rng.random() < 0.2:
            rows = Csr.of(op.weight)
            nodes[name] = Sparse(
                rows.values.astype(np.int32),
                rows.columns.astype(np.int32),
                rows.starts.astype(np.int32),
                rows.inputs,
                op.weight_exp,
                op.weight_bits,
                op.delay,
            )
    return graph.replace(nodes=nodes)


# --------------------------------------------------------------------------------------------------------------------
# Float streams


def float_stream(seed: int) -> tuple[Graph, Schedule, dict[str, Array]]:
    """A DISCRETE stream that the rules allow, and what enters: values, spikes; currents, biases, skips, delays."""
    rng = np.random.default_rng([seed, 3])
    carried = bool(rng.random() < 0.6)
    steps = int(rng.integers(2, 7)) if not carried or rng.random() < 0.2 else 1
    delay = 1 if carried else 0
    nodes: dict[str, Op] = {}
    edges: list[Edge] = []
    inputs: dict[str, Array] = {}
    length = steps * (30 // steps)
    for k in range(int(rng.integers(1, 3))):
        name, size = f"in{k}", int(rng.integers(1, 6))
        values = bool(rng.random() < 0.6)
        limit = float(rng.choice([0.5, 1.0, 4.0]))
        nodes[name] = Input((size,), "values" if values else "spikes", limit if values else None)
        x = rng.normal(size=(length, size)) * limit if values else (rng.random((length, size)) < 0.4).astype(np.float64)
        x[rng.random(length) < 0.2] = 0
        inputs[name] = as_float32(x)
    sources = {name: op.size for name, op in nodes.items()}
    for k in range(int(rng.integers(1, 5))):
        name, size = f"lif{k}", int(rng.integers(1, 8))
        origins = [f"in{k}"] if f"in{k}" in inputs else []
        others = [str(source) for source in rng.permutation(sorted(sources)) if source not in origins]
        origins += others[: int(rng.integers(0 if origins else 1, 3))]
        for j, source in enumerate(origins):
            weight = rng.normal(size=(size, sources[source])) * 2 / np.sqrt(sources[source])
            bias = 0.3 * rng.normal(size=size) if rng.random() < 0.6 else None
            nodes[f"fc{k}.{j}"] = Affine(weight, bias, delay + (int(rng.choice([0, 0, 1, 4])) if carried else 0))
            edges += [(source, f"fc{k}.{j}"), (f"fc{k}.{j}", name)]
        nodes[name] = lif(
            size, float(rng.uniform(0.3, 0.98)), current=float(rng.uniform(0.2, 0.95)) if rng.random() < 0.5 else None
        )
        sources[name] = size
    if carried and rng.random() < 0.4:
        name = str(rng.choice([source for source in sources if source.startswith("lif")]))
        nodes["back"] = Affine(rng.normal(size=(sources[name],) * 2) / sources[name], None, delay)
        edges += [(name, "back"), ("back", name)]
    fed = {a for a, _ in edges if a != "back"}
    # The loop alone feeds nothing: such a population leaves, too.
    for name, size in list(sources.items()):
        others = [b for a, b in edges if a == name and b != "back"]
        if name.startswith("in") and name not in fed:
            nodes.pop(name), inputs.pop(name)
        elif name.startswith("lif") and not others:
            nodes[f"out {name}"] = Output((size,))
            edges.append((name, f"out {name}"))
            op = nodes[name]
            if rng.random() < 0.4 and (name, "back") not in edges and isinstance(op, Neuron):
                nodes[name] = li(size, 0.8, current=None if op.synapse is None else 0.5)
    names = [str(name) for name in rng.permutation(list(nodes))]
    order = rng.permutation(len(edges))
    graph = Graph(Level.DISCRETE, {n: nodes[n] for n in names}, tuple(edges[int(i)] for i in order), 1e-3)
    return graph, Schedule(steps, "carried" if carried else "reset"), inputs


def lowered_stream(seed: int, arithmetic: Arithmetic = LAVA) -> Case | None:
    """A float stream in an arithmetic's integers; None where it cannot be expressed there."""
    graph, schedule, inputs = float_stream(seed)
    slices = 2 if seed % 3 == 0 else 1
    try:
        integers, _ = lower(graph, arithmetic, None, schedule=schedule, weight_slices=slices)
    except InfeasibleError:
        return None
    assert isinstance(integers, Graph)
    return Case(seed, plan(integers, schedule), inputs)
