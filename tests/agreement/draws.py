"""Random targets and graphs for the agreement of `inspect` and `compile`: a case is its number.

A target is a chip that a file could describe: any [arithmetic] within its bounds, with and without limits. A graph is
a stream or a policy, in steps or in continuous time, most of it plain, any of it beyond what the target holds:
magnitudes from 1e-300 to 1e300, biases, delays and loops, several Inputs, resets and shapes that a chip may lack.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import emulated
import graphs
import numpy as np
from policies import random_dag, random_policy

import nervecord
from nervecord.compiler.arithmetic import BOUNDS, Arithmetic
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import (
    Affine,
    Array,
    ContinuousMembrane,
    ContinuousSynapse,
    Conv,
    Delay,
    DelayLine,
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
from nervecord.compiler.target.protocol import TargetSpec
from nervecord.compiler.target.specfile import spec_from_dict
from nervecord.errors import FileFormatError
from nervecord.targets.integers import IntegerTarget

DT = 1e-3
SHIPPED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("lava", {}),
    ("lava", {"weight_slices": 2}),
    ("lava", {"netx": True}),
    ("lava", {"weight_bits": 4}),
    ("c", {}),
    ("onnx", {"form": "integer"}),
    ("reference", {}),
)
"""Targets of the package, with options, that a part of the cases is for."""
LAVA = tomllib.loads((Path(__file__).parents[2] / "targets" / "lava" / "spec.toml").read_text(encoding="utf-8"))
PLAIN = {name: LAVA["arithmetic"][name] for name in (f.name for f in dataclasses.fields(Arithmetic))}


@dataclass(frozen=True)
class Case:
    """What is inspected and compiled.

    Args:
        steps: of a block before which a stream's state is cleared; None: carried, or a policy's own.
        calibration: recorded input of a stream; None without.
    """

    number: int
    target: Any
    subject: Graph | Policy
    steps: int | None = None
    calibration: dict[str, Array] | None = None


def draw(number: int) -> Case:
    """The case of this number."""
    rng = np.random.default_rng([number, 7])
    spec = random_spec(rng)
    options = {}
    if rng.random() < 0.15:
        options["weight_slices"] = 2
    if rng.random() < 0.15:
        options["weight_bits"] = int(rng.integers(2, 9))
    target: Any = IntegerTarget(spec, **options)
    if rng.random() < 0.06:
        return _of_integers(number, rng)
    if rng.random() < 0.2:
        name, more = SHIPPED[int(rng.integers(len(SHIPPED)))]
        target = nervecord.target(name, **more)
    arithmetic = target.spec.integers or spec.integers
    if rng.random() < 0.35:
        return Case(number, target, _policy(rng, arithmetic))
    steps = int(rng.integers(1, 7)) if rng.random() < 0.4 else None
    graph = _Maker(rng, arithmetic, carried=steps is None).graph()
    recorded = None
    if rng.random() < 0.3:
        recorded = {name: values(rng, graph.nodes[name], 24) for name in graph.inputs}
    return Case(number, target, graph, steps, recorded)


def _of_integers(number: int, rng: np.random.Generator) -> Case:
    """A stream in integers already, for a target that computes so, or for another one."""
    arithmetic = emulated.random_arithmetic(number)
    plan = graphs.draw(number, arithmetic).plan
    own = spec_from_dict(_described(rng, arithmetic.to_dict()))
    spec = own if rng.random() < 0.8 else random_spec(rng)
    return Case(number, IntegerTarget(spec), plan.graph, plan.schedule.steps if plan.schedule.resets else None)


def values(rng: np.random.Generator, op: Op, steps: int) -> Array:
    """What may enter an Input, (steps, ...): its limits too, and what lies beyond them."""
    assert isinstance(op, Input)
    shape = (steps, *op.in_shape)
    if op.spikes:
        return (rng.random(shape) < rng.random()).astype(np.float64)
    limit = op.limit or 1.0
    uniform: Array = rng.uniform(-1.5, 1.5, size=shape) * limit
    return np.where(rng.random(shape) < 0.3, rng.choice([-limit, limit]), uniform)


# --------------------------------------------------------------------------------------------------------------------
# Targets


def random_spec(rng: np.random.Generator) -> TargetSpec:
    """A chip of its own, of which only what a file may say is said."""
    while True:
        try:
            return spec_from_dict(_described(rng, random_arithmetic(rng)))
        except FileFormatError:
            continue  # two numbers of it contradict one another


def _described(rng: np.random.Generator, arithmetic: dict[str, Any]) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if rng.random() < 0.7:
        limits["neurons"] = int(rng.choice([4, 12, 30, 10_000], p=[0.03, 0.07, 0.1, 0.8]))
    for name, low, high in (
        ("synapses", 20, 400),
        ("fan_in", 3, 40),
        ("fan_out", 3, 40),
        ("inputs", 2, 12),
        ("cores", 1, 6),
        ("neurons_per_core", 1, 12),
        ("layers", 1, 4),
        ("axons_in_per_core", 3, 30),
        ("hidden", 1, 30),
        ("outputs", 1, 9),
    ):
        if rng.random() < 0.06:
            limits[name] = int(rng.integers(low, high))
    behaviour = {}
    for name in ("recurrence", "bias", "graded_input", "readout", "recurrent_readout"):
        if rng.random() < 0.03:
            behaviour[name] = False

    def stated(table: dict[str, Any]) -> dict[str, Any]:
        return {name: {"value": value, "source": "made up", "confidence": "exact"} for name, value in table.items()}

    header = {name: LAVA[name] for name in ("title", "summary", "nodes")}
    words = {name: LAVA["arithmetic"][name] for name in ("summary", "source", "confidence")}
    return {
        **header,
        "name": "mine",
        "engines": [],
        "arithmetic": {**words, **arithmetic},
        "behaviour": stated(behaviour),
        "limits": stated(limits),
    }


def random_arithmetic(rng: np.random.Generator) -> dict[str, Any]:
    """Lava's with some fields changed; or any at all, often at the ends of what a field may be."""
    kinds = _choices()
    names = list(PLAIN)
    changed = names
    if rng.random() < 0.85:
        changed = list(rng.choice(names, size=int(rng.integers(0, rng.choice([4, 10]))), replace=False))
    choices = dict(PLAIN)
    for name in changed:
        if name in kinds:
            choices[name] = str(rng.choice(kinds[name]))
            continue
        low, high = BOUNDS[name]
        ends = [low, high, min(low + 1, high)]
        choices[name] = int(rng.choice(ends)) if rng.random() < 0.25 else int(rng.integers(low, high, endpoint=True))
    if choices["decay"] == "shift":
        choices["decay_bits"] = min(choices["decay_bits"], 5)
        choices["decay_rounding"] = str(rng.choice(["floor", "at-least-one"]))
    elif choices["decay_rounding"] == "at-least-one":
        choices["decay_rounding"] = "floor"
    choices["current_decay_low"] = min(choices["current_decay_low"], 1 << choices["decay_bits"])
    if choices["spikes_per_step"] > 1 and choices["reset"] != "subtract":
        choices["spikes_per_step"] = 1
    if rng.random() < 0.8:
        choices["connection_delay"] = int(rng.choice([0, 1, 1, 2]))
        choices["delay_max"] = int(rng.choice([1, 2, 3, 63, 4096]))
    choices["delay_max"] = max(choices["delay_max"], choices["connection_delay"])
    return choices


def _choices() -> dict[str, tuple[str, ...]]:
    hints = get_type_hints(Arithmetic)
    return {name: get_args(hints[name]) for name in PLAIN if hints[name] is not int}


# --------------------------------------------------------------------------------------------------------------------
# Policies


def _policy(rng: np.random.Generator, arithmetic: Arithmetic) -> Policy:
    seed = int(rng.integers(1 << 30))
    carried = bool(rng.random() < 0.3)
    if rng.random() < 0.4:
        policy = random_dag(seed, carried=carried, recurrent=carried and bool(rng.random() < 0.5))
    else:
        depth = int(rng.integers(0, 3))
        sizes = (int(rng.integers(1, 6)), *(int(k) for k in rng.integers(1, 8, size=depth)), int(rng.integers(1, 4)))
        coded = bool(rng.random() < 0.35) or not arithmetic.graded_bits
        counted = bool(rng.random() < 0.35) or arithmetic.readout == "none"
        policy = random_policy(
            seed,
            sizes=sizes,
            steps=int(rng.integers(1, 7)),
            state="carried" if carried else "reset",
            current=bool(rng.random() < 0.3),
            bias=float(rng.choice([0.0, 0.1, 0.1, 1e-9, 1e4])),
            recorded=20,
            population=2 if coded else 0,
            output_population=2 if counted and depth else 0,
            choices=bool(rng.random() < 0.2) and sizes[-1] > 1,
        )
    nodes = {name: _changed(rng, arithmetic, op) for name, op in policy.graph.nodes.items()}
    return policy.replace(graph=policy.graph.replace(nodes=nodes))


def _changed(rng: np.random.Generator, arithmetic: Arithmetic, op: Op) -> Op:
    """The op in the chip's manner, seldom in another, seldom of another magnitude."""
    if isinstance(op, Affine) and rng.random() < 0.15:
        bias = None if op.bias is None else op.bias * _magnitude(rng)
        return op.replace(weight=op.weight * _magnitude(rng), bias=bias)
    if not isinstance(op, Neuron):
        return op
    assert isinstance(op.membrane, Membrane)
    decay = _decays(rng, arithmetic, op.size)
    membrane = dataclasses.replace(op.membrane, decay=decay)
    spike = op.spike
    if isinstance(spike, Spike):
        scale = 1.0 if rng.random() < 0.9 else _magnitude(rng)
        spike = dataclasses.replace(spike, reset=_reset(rng, arithmetic), threshold=spike.threshold * scale)
    return op.replace(membrane=membrane, spike=spike)


def _magnitude(rng: np.random.Generator) -> float:
    return float(10.0 ** rng.choice([-300, -30, -18, -12, -8, -5, -3, -1, 0, 1, 3, 6, 10, 30, 300]))


def _reset(rng: np.random.Generator, arithmetic: Arithmetic) -> str:
    own = "value" if arithmetic.reset == "zero" else "subtract"
    return own if rng.random() < 0.97 else str(rng.choice(["value", "subtract", "none", "subtract-late"]))


def _decays(rng: np.random.Generator, arithmetic: Arithmetic, size: int) -> Array:
    def one() -> float:
        if rng.random() < 0.15:
            return float(rng.choice([0.0, 1.0]))
        shift = 1.0 - 2.0 ** -float(rng.integers(0, 8))
        return shift if arithmetic.decay == "shift" or rng.random() < 0.2 else float(rng.uniform(0, 1))

    if rng.random() < 0.85:
        return np.full(size, one())
    return np.array([one() for _ in range(size)])


# --------------------------------------------------------------------------------------------------------------------
# Streams


class _Maker:
    """A graph that is no policy, population by population."""

    def __init__(self, rng: np.random.Generator, arithmetic: Arithmetic, *, carried: bool) -> None:
        self.rng, self.arithmetic, self.carried = rng, arithmetic, carried
        self.continuous = bool(rng.random() < 0.25)
        self.wild = bool(rng.random() < 0.3)
        self.delayed = bool(rng.random() < (0.35 if carried else 0.05))
        self.nodes: dict[str, Op] = {}
        self.edges: list[Edge] = []
        self.shapes: dict[str, tuple[int, ...]] = {}

    def graph(self) -> Graph:
        rng = self.rng
        for k in range(int(rng.integers(1, 3))):
            self.input(k)
        populations = int(rng.integers(1, 5))
        for k in range(populations):
            self.population(k, last=k == populations - 1)
        if (self.carried and rng.random() < 0.35) or rng.random() < 0.03:
            self.back()
        self.outputs()
        level = Level.IMPORTED if self.continuous else Level.DISCRETE
        names = [str(name) for name in rng.permutation(list(self.nodes))]
        edges = tuple(self.edges[int(i)] for i in rng.permutation(len(self.edges)))
        return Graph(level, {name: self.nodes[name] for name in names}, edges, DT)

    def add(self, name: str, op: Op, source: str | None = None) -> str:
        self.nodes[name] = op
        if source is not None:
            self.edges.append((source, name))
        return name

    def input(self, k: int) -> None:
        rng = self.rng
        shape: tuple[int, ...] = (int(rng.integers(1, 6)),)
        if self.wild and rng.random() < 0.4:
            shape = ((2, 4, 4), (1, 5, 3), (2, 5))[int(rng.integers(3))]
        graded = self.arithmetic.graded_bits > 0
        kind = str(rng.choice(["spikes", "values", "unknown"], p=[0.5, 0.47, 0.03] if graded else [0.94, 0.03, 0.03]))
        limit = None
        if kind == "values" and rng.random() < 0.97:
            limit = float(rng.choice([1.0, 4.0, 3.7, 100.0, 0.01, 1e-9, 1e5, 1e12]))
        self.shapes[self.add(f"input{k}", Input(shape, kind, limit))] = shape

    def delay(self) -> int:
        rng, cost = self.rng, self.arithmetic.connection_delay
        if not self.delayed:
            return 0
        most = min(self.arithmetic.delay_max, 70)
        return int(rng.choice([0, 1, cost, 2 * cost, min(most, 64), most + 1, most + int(rng.integers(1, 9))]))

    def population(self, k: int, *, last: bool) -> None:
        rng, name = self.rng, f"neurons{k}"
        unread = [s for s in self.shapes if s.startswith("input") and not any(a == s for a, _ in self.edges)]
        others = [s for s in self.shapes if s not in unread]
        sources = unread[:1] if unread else [str(rng.choice(others))]
        if last:
            sources = unread or sources
        more = [s for s in others if s not in sources]
        sources += [str(s) for s in rng.permutation(more)[: int(rng.integers(0, 2))]]
        size = int(rng.integers(1, 7))
        convolves = len(self.shapes[sources[0]]) > 1 and len(sources) == 1 and rng.random() < 0.7
        shape = self.convolved(f"conv{k}", sources[0], name) if convolves else (size,)
        if not convolves:
            for j, source in enumerate(sources):
                self.connect(f"{k}.{j}", source, name, size)
        spiking = rng.random() < (0.6 if last and self.arithmetic.readout != "none" else 0.97)
        self.add(name, self.neurons(shape, spiking=bool(spiking)))
        self.shapes[name] = shape

    def affine(self, out: int, width: int) -> Affine:
        rng = self.rng
        weight = rng.normal(size=(out, width)) / np.sqrt(width) * 2
        kind = rng.random()
        if kind < 0.12:
            weight *= _magnitude(rng)
        elif kind < 0.2:
            weight = np.abs(weight) * rng.choice([-1, 1])
        elif kind < 0.3:
            weight[rng.random(weight.shape) < 0.6] = 0
        elif kind < 0.33:
            weight[:] = 0
        elif kind < 0.4:
            weight.flat[0] *= 10.0 ** rng.integers(1, 9)
        bias = None
        if rng.random() < 0.4:
            bias = rng.normal(size=out) * (0.3 if rng.random() < 0.75 else _magnitude(rng))
        return Affine(weight, bias, 0 if self.continuous else self.delay())

    def connect(self, label: str, source: str, to: str, out: int) -> None:
        rng, shape, at = self.rng, self.shapes[source], source
        if self.wild and rng.random() < 0.2:
            at = self.add(f"scale{label}", Scale(rng.normal(size=shape)), at)
        if len(shape) > 1:
            at = self.add(f"flatten{label}", Flatten(shape, 0, -1), at)
        width = int(np.prod(shape))
        if self.wild and rng.random() < 0.15:
            at = self.waiting(f"wait{label}", at, width)
        if self.wild and rng.random() < 0.1:
            at, width = self.add(f"more{label}", self.affine(3, width), at), 3
        if self.wild and width == out and rng.random() < 0.1 and at != source:
            self.edges.append((at, to))
            return
        at = self.add(f"affine{label}", self.affine(out, width), at)
        if self.wild and rng.random() < 0.15:
            at = self.waiting(f"held{label}", at, out)
        self.edges.append((at, to))

    def waiting(self, name: str, at: str, width: int) -> str:
        steps = self.rng.integers(0, 4, size=width)
        if self.rng.random() < 0.5:
            steps[:] = steps[0]
        if self.continuous:
            return self.add(name, Delay(steps * DT), at)
        return self.add(name, DelayLine(steps), at)

    def convolved(self, name: str, source: str, to: str) -> tuple[int, ...]:
        rng, shape = self.rng, self.shapes[source]
        axes, channels = len(shape) - 1, shape[0]
        kernel = tuple(int(rng.integers(1, size + 1)) for size in shape[1:])
        weight = rng.normal(size=(int(rng.integers(1, 3)), channels, *kernel))
        if rng.random() < 0.15:
            weight[..., kernel[-1] // 2] = 0  # what is left may fall on the padding
        bias = rng.normal(size=len(weight)) * 0.3 if rng.random() < 0.4 else None
        conv = Conv(
            weight,
            bias,
            tuple(int(rng.integers(1, 5)) for _ in range(axes)),
            tuple(int(rng.integers(0, 3)) for _ in range(axes)),
            (1,) * axes,
            1,
            shape[1:],
        )
        at, shape = self.add(name, conv, source), conv.out_shape
        if axes == 2 and rng.random() < 0.3 and min(shape[1:]) >= 2:
            pool = Pool(str(rng.choice(["sum", "average"])), (2, 2), (2, 2), (0, 0), shape)
            at, shape = self.add(f"{name}.pool", pool, at), pool.out_shape
        self.edges.append((at, to))
        return shape

    def neurons(self, shape: tuple[int, ...], *, spiking: bool) -> Op:
        rng = self.rng
        if rng.random() < 0.02:
            return Threshold(np.ones(shape))
        size, one = int(np.prod(shape)), np.ones(shape)
        threshold = one * float(rng.choice([1.0, 0.37, 20.0])) if rng.random() < 0.85 else one * _magnitude(rng)
        if rng.random() < 0.1:
            threshold = threshold * rng.uniform(0.2, 2, size=shape)
        if rng.random() < 0.02:
            threshold = -threshold * rng.integers(0, 2)
        value = rng.normal(size=shape) if rng.random() < 0.03 else 0 * one
        refractory = int(rng.integers(1, 4)) if rng.random() < 0.02 else 0
        spike = Spike(threshold, value, _reset(rng, self.arithmetic), refractory) if spiking else None
        leak = rng.normal(size=shape) * (0.1 if rng.random() < 0.8 else _magnitude(rng))
        leak = leak if rng.random() < 0.15 else 0 * one
        decay, current = (_decays(rng, self.arithmetic, size).reshape(shape) for _ in range(2))
        has_current = rng.random() < 0.35
        gain = one if rng.random() < 0.7 else rng.normal(size=shape)
        if self.continuous:
            return self.continuous_neurons(decay, current if has_current else None, gain, leak, spike)
        synapse = Synapse(current, one) if has_current else None
        return Neuron(Membrane(decay, gain, leak), synapse, spike)

    def continuous_neurons(
        self, decay: Array, current: Array | None, gain: Array, leak: Array, spike: Spike | None
    ) -> Neuron:
        """tau of these decays; seldom one that is shorter than the step."""
        short = 0.5 if self.rng.random() < 0.03 else 1.0
        tau = short * DT / np.maximum(1 - decay, 1e-6)
        if self.rng.random() < 0.2:
            membrane = ContinuousMembrane(gain / DT)
        else:
            membrane = ContinuousMembrane(gain * tau / DT, tau, leak * tau / DT)
        synapse = None
        if current is not None:
            tau_syn = DT / np.maximum(1 - current, 1e-6)
            synapse = ContinuousSynapse(tau_syn, tau_syn / DT)
        return Neuron(membrane, synapse, spike)

    def back(self) -> None:
        """A connection that closes a loop."""
        rng = self.rng
        names = [name for name in self.shapes if name.startswith("neurons")]
        a, b = (str(name) for name in rng.choice(names, size=2))
        if len(self.shapes[b]) > 1:
            return
        at, shape = a, self.shapes[a]
        if len(shape) > 1:
            at = self.add("flatten.back", Flatten(shape, 0, -1), at)
        width = int(np.prod(shape))
        if self.wild and rng.random() < 0.4:
            at = self.add("scale.back", Scale(np.full(width, 0.5)), at)
        out = int(np.prod(self.shapes[b]))
        affine = self.affine(out, width)
        if not self.continuous:
            affine = affine.replace(delay=int(rng.choice([1, 1, self.arithmetic.connection_delay, 3])))
        at = self.add("back", affine, at)
        self.edges.append((at, b))

    def outputs(self) -> None:
        rng, fed = self.rng, {a for a, _ in self.edges}
        if self.wild and rng.random() < 0.1:  # what enters leaves as it is
            self.add("straight", Output(self.shapes["input0"]), "input0")
        names = [name for name in self.shapes if name.startswith("neurons")]
        ends = [name for name in names if name not in fed]
        ends += [name for name in names if name in fed and rng.random() < 0.15]
        ends = ends or names[-1:]
        for k, name in enumerate(ends):
            same = [j for j in range(k) if f"output{j}" in self.nodes and self.shapes[ends[j]] == self.shapes[name]]
            if same and rng.random() < 0.5:
                self.edges.append((name, f"output{same[0]}"))
                continue
            self.add(f"output{k}", Output(self.shapes[name]), name)
