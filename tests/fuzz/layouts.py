"""Tiny files that ask for large layouts: a few hundred weights, and shapes, paddings, strides, dilations, delays and
steps at the edges of what fields allow.

They are not damaged from sound files; every one is legal as far as its fields go. Whatever can be asked of a graph is
asked: each verb does its work within the campaign's memory and time, or refuses in a sentence.
"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

import nervecord
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.graph.text import to_text
from nervecord.compiler.graph.verify import require, verify
from nervecord.compiler.nir.reading import import_graph
from nervecord.compiler.ops import (
    Affine,
    Conv,
    Convolution,
    DelayLine,
    Flatten,
    Input,
    Level,
    Membrane,
    Neuron,
    Op,
    Output,
    Pool,
    SparseAffine,
    Spike,
)
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.plan.work import operations
from nervecord.errors import NervecordError
from nervecord.targets.source import load_program

MOST_RUN = 1 << 32
"""Operations of a block that is run here: more takes what it asks for."""
MOST_STEPS = 1 << 12
"""Steps of it."""
MOST_ENTERING = 1 << 24
"""Values that enter in it, which the caller has to bring."""
MOST_FILE = 1 << 16
"""Bytes; a larger one is drawn again."""


def draw_layout(sound: Path, rng: random.Random) -> Any:
    """A tiny file: the tree of a NIR file, or a program."""
    draw = _nir if rng.random() < 0.5 else _program
    while _length(layout := draw(rng)) > MOST_FILE:
        pass
    return layout


def _length(layout: bytes | dict[str, Any]) -> int:
    """Bytes of a program, or of the arrays in a tree."""
    if isinstance(layout, bytes):
        return len(layout)
    fields = (field for node in layout["node"]["nodes"].values() for field in node.values())
    return sum(field.nbytes for field in fields if isinstance(field, np.ndarray))


def check_layout(layout: Any, rng: random.Random) -> None:
    """Everything that can be asked of it."""
    if isinstance(layout, dict):
        subject = require(import_graph(layout["node"], where="case.nir", dt=1e-3), where="case.nir")
        use(Program("reference", discretise(subject, dt=1e-3)), rng)
        return
    use(load_program(layout), rng)


def use(program: Program, rng: random.Random) -> None:
    """Looked at, written, compiled for one target and run there, each on its own: one may refuse what another does."""
    graph = program.graph
    assert verify(program.subject) == []
    assert to_text(graph)
    refusals = []
    for ask in (_inspected, _simulated, _compiled):
        try:
            ask(program, rng)
        except NervecordError as error:
            refusals.append(error)
    if len(refusals) == 3:
        raise refusals[0]


def _inspected(program: Program, rng: random.Random) -> None:
    report = nervecord.inspect(program.subject, rng.choice(("lava", "loihi1", "xylo", "spinnaker2", "speck", "c")))
    json.dumps(report.to_dict(), allow_nan=False)


def _inputs(program: Program, rng: random.Random) -> dict[str, Any]:
    draw = np.random.default_rng(rng.getrandbits(32))
    steps = program.schedule.steps
    shapes = {name: program.graph.nodes[name].in_shape for name in program.graph.inputs}
    return {name: draw.integers(0, 2, (steps, *shape)).astype(np.float64) for name, shape in shapes.items()}


def _simulated(program: Program, rng: random.Random) -> None:
    if _affordable(program):
        nervecord.simulate(program, _inputs(program, rng))


def _affordable(program: Program) -> bool:
    network_plan = plan(program.graph, program.schedule)
    entering = sum(program.graph.nodes[name].size for name in program.graph.inputs) * network_plan.schedule.steps
    return operations(network_plan) <= MOST_RUN and network_plan.window <= MOST_STEPS and entering <= MOST_ENTERING


def _compiled(program: Program, rng: random.Random) -> None:
    target = rng.choice(("lava", "lava", "c", "onnx", "reference"))
    dense = rng.random() < 0.5
    result = nervecord.compile(
        program.graph,
        target,
        inputs="spikes",
        steps=rng.choice((None, 4)),
        **({"weight_bits": 4} if dense and target == "lava" else {}),
    )
    assert result.to_bytes()
    if _affordable(result) and target != "onnx":
        with nervecord.stream(result) as session:
            session.run(_inputs(result, rng))


# --------------------------------------------------------------------------------------------------------------------
# What is drawn


def _size(rng: random.Random, most: int = 26) -> int:
    return max(1, (1 << rng.randrange(most + 1)) + rng.choice((-1, 0, 0, 1)))


def _small(rng: random.Random) -> int:
    return rng.choice((1, 1, 2, 3, 5, 8))


def _neuron(shape: tuple[int, ...]) -> Neuron | None:
    """Neurons of a shape, if their arrays stay tiny."""
    if np.prod(shape, dtype=object) > 64:
        return None
    one = np.ones(shape)
    return Neuron(Membrane(0.5 * one, one, 0 * one), None, Spike(one, 0 * one))


def _linear(rng: random.Random, shape: tuple[int, ...] | None) -> Op:
    """An op that takes the shape, or any where none is said."""
    axes = rng.choice((1, 2)) if shape is None else len(shape) - 1
    choice = rng.randrange(6)
    if shape is not None and choice == 0:
        start = rng.randrange(len(shape))
        return Flatten(shape, start, rng.randrange(start, len(shape)))
    if axes in (1, 2) and choice < 4:
        channels = _small(rng) if shape is None else shape[0]
        size = tuple(_size(rng, rng.choice((4, 12, 24))) for _ in range(axes)) if shape is None else shape[1:]
        if choice == 1 and axes == 2:
            kernel, stride, padding = (
                tuple(_size(rng, rng.choice((2, 12, 24))) - low for _ in range(2)) for low in (0, 0, 1)
            )
            return Pool(rng.choice(("sum", "average")), kernel, stride, padding, (channels, *size))
        return _conv(rng, channels, size)
    if shape is None or (len(shape) == 1 and shape[0] < 1 << 31):
        return _sparse(rng, _size(rng, 24) if shape is None else shape[0])
    return Flatten(shape, 0, -1)


def _conv(rng: random.Random, channels: int, size: tuple[int, ...]) -> Conv:
    axes = len(size)
    groups = rng.choice([g for g in (1, 2, channels) if channels % g == 0 and g <= 64])
    kernel = tuple(rng.choice((1, 2, 3, 7, 31)) for _ in range(axes))
    features = groups * _small(rng)
    within = channels // groups if channels // groups * features * np.prod(kernel) < 4096 else 1
    stride, dilation = (tuple(_size(rng, rng.choice((1, 3, 14, 26))) for _ in range(axes)) for _ in range(2))
    padding = tuple(_size(rng, rng.choice((2, 14, 26))) - 1 for _ in range(axes))
    if rng.random() < 0.5:  # of a shape that its input just holds
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    weight = np.random.default_rng(rng.getrandbits(32)).normal(size=(features, within, *kernel))
    return Conv(weight, None, stride, padding, dilation, groups, size)


def _sparse(rng: random.Random, inputs: int) -> SparseAffine:
    rows = rng.choice((1, 2, 16, 64))
    counts = [rng.choice((0, 1, 1, 2)) for _ in range(rows)]
    counts[0] = counts[0] or 1
    columns = [sorted(rng.sample(range(inputs), min(count, inputs))) for count in counts]
    starts = np.cumsum([0, *map(len, columns)]).astype(np.int32)
    flat = np.array([column for row in columns for column in row], dtype=np.int32)
    values = np.random.default_rng(rng.getrandbits(32)).normal(size=len(flat))
    convolution = None
    if rng.random() < 0.2:
        axes = rng.choice((1, 2))
        sizes = [tuple(_size(rng, 12) for _ in range(axes)) for _ in range(4)]
        convolution = Convolution(_small(rng), (1, *sizes[0]), sizes[1], sizes[2], sizes[3], (1,) * axes)
    delay = rng.choice((0, 0, 1, 62, 1 << 16))
    return SparseAffine(values, flat, starts, inputs, None, delay, convolution)


def _ops(rng: random.Random) -> list[tuple[str, Op]]:
    ops: list[tuple[str, Op]] = []
    shape: tuple[int, ...] | None = None
    for k in range(rng.choice((1, 1, 2, 3))):
        op = _linear(rng, shape)
        try:
            shape = op.out_shape
        except (ZeroDivisionError, ValueError):
            break
        ops.append((f"op{k}", op))
        if min(shape) < 1:
            break
        neuron = _neuron(shape)
        if neuron is not None and rng.random() < 0.7:
            ops.append((f"neurons{k}", neuron))
    return ops


def _chain_nodes(rng: random.Random) -> list[tuple[str, Op]]:
    ops = _ops(rng)
    first, last = ops[0][1].in_shape, ops[-1][1].out_shape
    if rng.random() < 0.1 and np.prod(first, dtype=object) < 64:
        ops.insert(0, ("wait", DelayLine(np.full(first, rng.choice((1, 300, 1 << 16)), dtype=np.int64))))
    if not isinstance(ops[-1][1], Neuron) and len(last) == 1 and last[0] < 4096 and rng.random() < 0.8:
        weight = np.random.default_rng(rng.getrandbits(32)).normal(size=(2, last[0]))
        one = np.ones(2)
        ops += [("fc", Affine(weight)), ("last", Neuron(Membrane(0.5 * one, one, 0 * one), None, Spike(one, 0 * one)))]
        last = (2,)
    return [("input", Input(first)), *ops, ("output", Output(last))]


def _program(rng: random.Random) -> bytes:
    graph: Graph = chain(Level.DISCRETE, _chain_nodes(rng), dt=1e-3)
    steps = rng.choice((1, 1, 4, 1 << 12, 1 << 16))
    return Program("reference", graph, None, Schedule(steps, rng.choice(("reset", "carried")))).to_bytes()


def _nir(rng: random.Random) -> dict[str, Any]:
    """As the child that reads HDF5 hands it over."""
    nodes: dict[str, Any] = {}
    items = _chain_nodes(rng)
    for name, op in items:
        if isinstance(op, (Input, Output)):
            nodes[name] = {"type": type(op).__name__, "shape": np.array(op.shape)}
            continue
        if isinstance(op, SparseAffine) and op.inputs > 4096:
            op = Conv(np.ones((1, 1, 3)), None, (_size(rng, 20),), (_size(rng, 20),), (1,), 1, (op.inputs,))
        kind, fields = ("LIF", _lif(op)) if isinstance(op, Neuron) else op.to_nir(1e-3, name)
        nodes[name] = {"type": kind, **{key: np.asarray(value) for key, value in fields.items()}}
    edges = [list(edge) for edge in itertools.pairwise(nodes)]
    return {"node": {"type": "NIRGraph", "nodes": nodes, "edges": edges}}


def _lif(op: Neuron) -> dict[str, Any]:
    one = np.ones(op.out_shape)
    return {"tau": one / 100, "r": one, "v_leak": 0 * one, "v_threshold": one, "v_reset": 0 * one}
