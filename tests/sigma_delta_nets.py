"""Random networks of changes, and what they stand for: a network of rectified linear units, computed anew each step."""

from __future__ import annotations

import itertools

import numpy as np
from graphs import LAVA, Case

from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.ops import (
    Array,
    Delta,
    Dense,
    Input,
    IntegerMembrane,
    IntegerSpike,
    Level,
    Neuron,
    Op,
    Output,
    Sigma,
    SigmaDelta,
)
from nervecord.compiler.plan.plan import plan


def draw(seed: int, *, carried: bool | None = None) -> Case:
    """A random case within what can be proved: values, changes of them, layers of activations, sums that are read.

    Some have ways around a layer, several connections into one population, delays, messages that make neurons spike.
    """
    for attempt in range(300):
        rng = np.random.default_rng([seed, attempt])
        keeps = bool(rng.random() < 0.6) if carried is None else carried
        graph, limit = _graph(rng, carried=keeps)
        schedule = Schedule() if keeps else Schedule(int(rng.integers(2, 9)), "reset")
        network_plan = plan(graph, schedule)
        if any(finding.severity == "error" for finding in overflows(prove(network_plan), LAVA)):
            continue
        steps = 6 * schedule.steps if schedule.resets else 60
        return Case(seed, network_plan, {"input": walk(rng, steps, graph.nodes["input"].size, limit)})
    raise AssertionError(f"no network was drawn for seed {seed}")


def walk(rng: np.random.Generator, steps: int, size: int, limit: int) -> Array:
    """(steps, size) integers that mostly change a little, sometimes not at all, sometimes to an extreme."""
    change = rng.integers(-max(limit // 10, 1), max(limit // 10, 1), endpoint=True, size=(steps, size))
    change[rng.random(steps) < 0.3] = 0
    x = np.clip(np.cumsum(change, axis=0), -limit, limit)
    x[rng.random(steps) < 0.05] = limit
    x[rng.random(steps) < 0.05] = -limit
    return x


def _graph(rng: np.random.Generator, *, carried: bool) -> tuple[Graph, int]:
    size, limit = int(rng.integers(1, 6)), int(rng.choice([1, 30, 500, 32767]))
    nodes: dict[str, Op] = {
        "input": Input((size,), "values", float(limit)),
        "copy": Dense(np.eye(size), 0, 8, 1),
        "delta": Delta(size, **_settings(rng)),
    }
    edges: list[Edge] = [("input", "copy"), ("copy", "delta")]
    phase = {"delta": 1}
    for k in range(int(rng.integers(1, 4))):
        name, width = f"layer{k}", int(rng.integers(1, 6))
        origins = [
            str(s) for s in rng.choice(list(phase), size=min(int(rng.choice([1, 1, 2])), len(phase)), replace=False)
        ]
        phase[name] = max(phase[s] for s in origins) + int(rng.choice([1, 1, 4]))
        for j, source in enumerate(origins):
            delay = int(rng.integers(1, 4)) if carried else phase[name] - phase[source]
            weight = 2 * rng.integers(-20, 20, endpoint=True, size=(width, nodes[source].size))
            nodes[f"dense{k}.{j}"] = Dense(weight, int(rng.integers(-8, 1)), 8, delay)
            edges += [(source, f"dense{k}.{j}"), (f"dense{k}.{j}", name)]
        nodes[name] = SigmaDelta(
            rng.integers(-200, 200, size=width), activation=str(rng.choice(["relu", "relu", "unit"])), **_settings(rng)
        )
    fed = {a for a, _ in edges}
    for name in [n for n in phase if n not in fed]:
        width = int(rng.integers(1, 4))
        weight = 2 * rng.integers(-40, 40, endpoint=True, size=(width, nodes[name].size))
        nodes[f"{name}.out"] = Dense(weight, int(rng.integers(-8, 1)), 8, 1)
        nodes[f"{name}.end"] = Sigma(width)
        if rng.random() < 0.25:
            membrane = IntegerMembrane(int(rng.integers(4096)), np.zeros(width))
            nodes[f"{name}.end"] = Neuron(membrane, None, IntegerSpike(int(rng.integers(300))))
        nodes[f"{name}.output"] = Output((width,))
        edges += [(name, f"{name}.out"), (f"{name}.out", f"{name}.end"), (f"{name}.end", f"{name}.output")]
    names = [str(name) for name in rng.permutation(list(nodes))]
    shuffled = tuple(edges[int(k)] for k in rng.permutation(len(edges)))
    return Graph(Level.INTEGER, {name: nodes[name] for name in names}, shuffled, 1e-3, LAVA), limit


def _settings(rng: np.random.Generator) -> dict[str, int]:
    return {
        "threshold": int(rng.choice([0, 0, 1, 5, 60])),
        "spike_exp": int(rng.choice([0, 0, 1, 3])),
        "state_exp": int(rng.choice([0, 0, 2])),
    }


def chain_of(weights: list[Array], exponents: list[int], biases: list[Array], limit: int, threshold: int = 0) -> Graph:
    """values -> Delta -> (Dense, SigmaDelta) ... -> Dense -> Sigma, one step for each connection."""
    nodes: dict[str, Op] = {
        "input": Input((weights[0].shape[1],), "values", float(limit)),
        "copy": Dense(np.eye(weights[0].shape[1]), 0, 8, 1),
        "delta": Delta(weights[0].shape[1], threshold),
    }
    for k, (weight, exponent) in enumerate(zip(weights, exponents, strict=True)):
        nodes[f"dense{k}"] = Dense(weight, exponent, 8, 1)
        last = k == len(weights) - 1
        nodes[f"layer{k}"] = Sigma(len(weight)) if last else SigmaDelta(biases[k], threshold)
    nodes["output"] = Output((len(weights[-1]),))
    names = list(nodes)
    return Graph(Level.INTEGER, nodes, tuple(itertools.pairwise(names)), 1e-3, LAVA)


def rectified(weights: list[Array], exponents: list[int], biases: list[Array], x: Array) -> Array:
    """The same network of values (steps, n), each layer rounded down once: relu(((W x) >> k) + b), the last without."""
    for k, (weight, exponent) in enumerate(zip(weights, exponents, strict=True)):
        x = LAVA.shifted(x @ weight.T, exponent)
        if k < len(weights) - 1:
            x = np.maximum(x + biases[k], 0)
    return x
