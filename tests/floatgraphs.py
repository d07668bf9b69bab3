"""Random DISCRETE graphs of every op and shape, for the engines that run floats.

Directed graphs with skips, fan-in, several inputs and outputs, recurrence and delays; convolutions, pools, scales,
flattened axes; neurons with and without synapse, of every reset, resting or not; nodes and edges in any order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import (
    Affine,
    Array,
    Conv,
    Flatten,
    Input,
    Level,
    Membrane,
    Neuron,
    Op,
    Output,
    Pool,
    Scale,
    Spike,
    Synapse,
    Threshold,
)
from nervecord.compiler.ops.neurons import RESETS
from nervecord.compiler.plan.plan import Plan, plan

Shape = tuple[int, ...]


@dataclass(frozen=True)
class FloatCase:
    """A graph with its plan and what enters it: Input -> (steps, batch, ...), whole blocks."""

    seed: int
    plan: Plan
    inputs: dict[str, Array]

    def blocks(self) -> list[dict[str, Array]]:
        """What enters in each block."""
        steps = self.plan.schedule.steps
        length = len(next(iter(self.inputs.values())))
        return [{n: x[k : k + steps] for n, x in self.inputs.items()} for k in range(0, length, steps)]


def draw(seed: int, batch: int = 2) -> FloatCase:
    """A random case."""
    rng = np.random.default_rng(seed)
    schedule = Schedule(int(rng.integers(1, 6)), str(rng.choice(["carried", "reset"])))  # type: ignore[arg-type]
    maker = _Maker(rng)
    for k in range(int(rng.integers(1, 3))):
        maker.input(k)
    for k in range(int(rng.integers(2, 6))):
        maker.population(k)
    graph = maker.graph()
    steps = schedule.steps * 4
    inputs = {}
    for name in graph.inputs:
        op = graph.nodes[name]
        x = rng.normal(size=(steps, batch, *op.in_shape)) * 2
        inputs[name] = (x > 1).astype(np.float64) if op.spikes else x
    return FloatCase(seed, plan(graph, schedule), inputs)


class _Maker:
    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: dict[str, Op] = {}
        self.edges: list[Edge] = []
        self.shapes: dict[str, Shape] = {}
        self.populations: list[str] = []

    def add(self, name: str, op: Op, source: str | None = None) -> str:
        self.nodes[name] = op
        if source is not None:
            self.edges.append((source, name))
        return name

    def input(self, k: int) -> None:
        rng = self.rng
        shape: Shape = ((int(rng.integers(1, 6)),), (2, 5), (2, 6, 5))[int(rng.integers(3))]
        carries = str(rng.choice(["spikes", "values", "unknown"]))
        limit = 3.0 if carries == "values" and rng.random() < 0.5 else None
        self.shapes[self.add(f"input{k}", Input(shape, carries, limit))] = shape

    def population(self, k: int) -> None:
        rng, name = self.rng, f"population{k}"
        unread = [s for s in self.shapes if s.startswith("input") and not any(a == s for a, _ in self.edges)]
        first = unread[0] if unread else str(rng.choice(list(self.shapes)))
        if len(self.shapes[first]) > 1 and rng.random() < 0.8:
            shape = self.convolved(k, first, name)
        else:
            shape = (int(rng.integers(1, 7)),)
            others = [s for s in self.shapes if s != first]
            more = list(rng.permutation(others)[: int(rng.integers(0, 3))]) if others else []
            for j, source in enumerate([first, *more]):
                self.dense(f"{k}.{j}", str(source), name, shape[0], int(rng.choice([0, 0, 1, 3])))
            if rng.random() < 0.3:
                self.dense(f"{k}.back", name, name, shape[0], int(rng.integers(1, 4)), size=shape[0])
        self.add(name, self.neurons(shape))
        self.shapes[name] = shape
        self.populations.append(name)

    def dense(self, label: str, source: str, to: str, out: int, delay: int, size: int | None = None) -> None:
        rng = self.rng
        shape = (size,) if size is not None else self.shapes[source]
        at = source
        if rng.random() < 0.3:
            at = self.add(f"scale{label}", Scale(rng.normal(size=shape)), at)
        if len(shape) > 1:
            at = self.add(f"flatten{label}", Flatten(shape, 0, -1), at)
        n = int(np.prod(shape))
        bias = rng.normal(size=out) * 0.3 if rng.random() < 0.5 else None
        at = self.add(f"affine{label}", Affine(rng.normal(size=(out, n)) / np.sqrt(n) * 2, bias, delay), at)
        self.edges.append((at, to))

    def convolved(self, k: int, source: str, to: str) -> Shape:
        rng, shape = self.rng, self.shapes[source]
        axes, channels = len(shape) - 1, shape[0]
        groups = channels if rng.random() < 0.3 else 1
        out = groups * int(rng.integers(1, 3))
        kernel = tuple(int(rng.integers(1, min(4, size + 1))) for size in shape[1:])
        weight = rng.normal(size=(out, channels // groups, *kernel))
        conv = Conv(
            weight,
            rng.normal(size=out) * 0.3 if rng.random() < 0.5 else None,
            tuple(int(rng.integers(1, 3)) for _ in range(axes)),
            tuple(int(rng.integers(0, 3)) for _ in range(axes)),
            tuple(
                int(rng.choice([1, 1, 2])) if size > 2 * (kern - 1) else 1
                for size, kern in zip(shape[1:], kernel, strict=True)
            ),
            groups,
            shape[1:],
        )
        at = self.add(f"conv{k}", conv, source)
        shape = conv.out_shape
        if axes == 2 and rng.random() < 0.5 and min(shape[1:]) >= 2:
            mode = str(rng.choice(["sum", "average"]))
            pool = Pool(mode, (2, 2), (int(rng.integers(1, 3)), 2), (0, 1), shape)
            at, shape = self.add(f"pool{k}", pool, at), pool.out_shape
        self.edges.append((at, to))
        return shape

    def neurons(self, shape: Shape) -> Op:
        rng = self.rng
        if rng.random() < 0.1:
            return Threshold(rng.normal(size=shape))
        one = np.ones(shape)
        plain = rng.random() < 0.4
        gain, leak = (one, 0 * one) if plain else (rng.normal(size=shape), rng.normal(size=shape) * 0.1)
        decay = one if rng.random() < 0.2 else rng.uniform(0, 1, size=shape)
        synapse = Synapse(rng.uniform(0, 1, size=shape), one if plain else rng.normal(size=shape))
        reset = str(rng.choice(RESETS))
        value = 0 * one if plain else rng.normal(size=shape) * 0.2
        spike = Spike(rng.uniform(0.2, 1.5, size=shape), value, reset, int(rng.choice([0, 0, 1, 3])))
        return Neuron(
            Membrane(decay, gain, leak), synapse if rng.random() < 0.4 else None, spike if rng.random() < 0.8 else None
        )

    def graph(self) -> Graph:
        rng = self.rng
        fed = {a for a, _ in self.edges}
        for name in [n for n in self.shapes if n.startswith("input") and n not in fed]:
            del self.nodes[name]
        ends = [p for p in self.populations if p not in {a for a, b in self.edges if not b.endswith("back")}]
        ends += [p for p in self.populations if p not in ends and rng.random() < 0.2]
        for k, name in enumerate(ends or self.populations[-1:]):
            self.add(f"output{k}", Output(self.shapes[name]), name)
        names = [str(n) for n in rng.permutation(list(self.nodes))]
        edges = tuple(self.edges[int(i)] for i in rng.permutation(len(self.edges)))
        return Graph(Level.DISCRETE, {n: self.nodes[n] for n in names}, edges, 1e-3)
