"""Tiny files that say large shapes: counted before anything is laid out, refused by name with the number and the limit.

What need not be laid out is not: sparse matrices stay sparse, and are placed, proved and run within seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import examples

import nervecord
from nervecord.compiler import budget
from nervecord.compiler.check.placement import place
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.graph.verify import verify
from nervecord.compiler.lower.ranges import dense_range
from nervecord.compiler.ops import (
    Affine,
    Conv,
    Csr,
    Dense,
    Input,
    Level,
    Membrane,
    Neuron,
    Op,
    Output,
    Pool,
    Sparse,
    SparseAffine,
    Spike,
    connections,
    csr,
)
from nervecord.compiler.passes import linear
from nervecord.compiler.plan import work
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import plan
from nervecord.errors import GraphError, NervecordError
from nervecord.targets.catalogue import load_specs

HERE = Path(__file__).parent


def lif(size: int) -> Neuron:
    one = np.ones(size)
    return Neuron(Membrane(0.5 * one, one, 0 * one), None, Spike(one, 0 * one))


def graph(*ops: Op) -> Graph:
    nodes = [(f"op{k}", op) for k, op in enumerate(ops)]
    return chain(Level.DISCRETE, [("in", Input(ops[0].in_shape)), *nodes, ("out", Output(ops[-1].out_shape))], dt=1e-3)


def wide(rows: int, inputs: int, *, each: int = 1) -> SparseAffine:
    """A few weights in rows of millions."""
    columns = np.sort(np.random.default_rng(0).choice(inputs, (rows, each)), axis=1).astype(np.int32)
    starts = np.arange(0, rows * each + 1, each, dtype=np.int32)
    return SparseAffine(np.linspace(-1, 1, rows * each), columns.ravel(), starts, inputs)


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Of processor time."""
    began = time.process_time()
    yield
    assert time.process_time() - began < seconds


TRIED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
sys.path.insert(0, {tests!r})
import nervecord
from nervecord.cli.command import main
code = main({words!r})
used = resource.getrusage(resource.RUSAGE_SELF)
print(code, round(used.ru_utime + used.ru_stime, 1), used.ru_maxrss >> 10, file=sys.stderr)
"""


def tried(*words: object) -> tuple[int, float, int, str]:
    """A verb in a process of its own: (exit code, seconds of processor time, MB, what it said)."""
    script = TRIED.format(tests=str(HERE.parent), words=[str(word) for word in words])
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=600)
    *messages, last = process.stderr.splitlines()
    code, seconds, memory = last.split()
    return int(code), float(seconds), int(memory), process.stdout + "\n".join(messages)


FILES: dict[str, Graph] = {
    "rows of 2^24": graph(wide(100, 1 << 24), lif(100)),
    "a dilation of 4000": graph(
        Conv(np.ones((1, 1, 2, 2)), None, (1, 1), (0, 0), (4000, 4000), 1, (4096, 4096)), wide(3, 97 * 97 - 1)
    ),
    "a padding of 2^14": graph(
        Conv(np.ones((1, 1, 2, 2)), None, (1 << 14,) * 2, (1 << 14,) * 2, (1, 1), 1, (4, 4)), wide(2, 9)
    ),
    "a padding of 2^26": graph(Conv(np.ones((1, 1, 2)), None, (1 << 26,), (1 << 26,), (1,), 1, (4,)), wide(2, 3)),
    "a pooling of 2^11": graph(Pool("sum", (2048,) * 2, (1, 1), (0, 0), (1, 4096, 4096)), wide(2, 2049 * 2049)),
    "a kernel along 2^24": graph(
        Conv(np.ones((1, 1, 1024)), None, (1,), (512,), (1,), 1, ((1 << 24) - 1,)), wide(2, 1 << 24)
    ),
}


def flat(graph: Graph) -> Graph:
    """Its last connection behind a map is taken out, where their shapes do not meet."""
    names = list(graph.nodes)
    (a, b) = graph.nodes[names[-3]], graph.nodes[names[-2]]
    if a.out_shape == b.in_shape:
        return graph
    return chain(Level.DISCRETE, [(n, graph.nodes[n]) for n in names[:-2]] + [("out", Output(a.out_shape))], dt=1e-3)


QUICK = (
    ("inspect", "rows of 2^24"),
    ("inspect", "a kernel along 2^24"),
    ("inspect", "a pooling of 2^11"),
    ("compile", "a dilation of 4000"),
    ("simulate", "a padding of 2^14"),
)
"""Each in a process of its own; the slow suite has all."""


@pytest.mark.long
@pytest.mark.parametrize(
    ("verb", "name"),
    [
        pytest.param(verb, name, marks=[] if (verb, name) in QUICK else [pytest.mark.slow])
        for verb in ("inspect", "compile", "simulate")
        for name in FILES
    ],
)
def test_a_tiny_file_takes_little_in_every_verb(verb: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "a.nervecord"
    path.write_bytes(Program("reference", flat(FILES[name])).to_bytes())
    assert path.stat().st_size < 20_000
    words: tuple[object, ...] = (verb, path)
    if verb == "compile":
        words = (*words, "--target", "lava", "-o", tmp_path / "b.nervecord")
    if verb == "simulate":
        size = flat(FILES[name]).nodes["in"].size
        if size > 1 << 16:
            pytest.skip("its input is as large as its layout")
        np.savez(tmp_path / "x.npz", inputs=np.ones((1, *flat(FILES[name]).nodes["in"].in_shape)))
        words = (*words, "--input", tmp_path / "x.npz")
    code, seconds, memory, log = tried(*words)
    assert code in (0, 2), log
    assert "defect" not in log
    assert (seconds < 30, memory < 2048) == (True, True), (seconds, memory)


def test_what_is_too_large_is_named_with_number_and_limit() -> None:
    findings = verify(flat(FILES["a padding of 2^26"]))
    assert [(f.code, f.node, f.value, f.limit) for f in findings] == [("size", "op0", 4 + (1 << 27), budget.MOST_HELD)]
    report = nervecord.inspect(flat(FILES["a padding of 2^26"]), "lava")
    assert not report.feasible
    assert report.findings[0].code == "size"


def test_operations_are_counted_before_anything_runs() -> None:
    large = graph(Pool("sum", (2048,) * 2, (1, 1), (0, 0), (1, 4096, 4096)))
    assert verify(large) == []
    count = 2049**2 * 2048**2 + budget.LAYING * large.nodes["op0"].laid_out
    with within(5), pytest.raises(GraphError, match=rf"^op0: .*\b{count} .*\b1 steps"):
        Machine(large)
    small = graph(Affine(np.ones((2, 3))))
    assert work.operations(Machine(small).plan) == 6
    with pytest.raises(NervecordError, match="at most"):
        nervecord.stream(large)


def test_zeros_that_every_step_lays_out_are_operations() -> None:
    """A few numbers in, and 190 MB of zeros around them in each of 4096 steps."""
    conv = Conv(np.ones((1, 3, 31)), None, (1,), (3_932_145,), (262_143,), 1, (8,))
    assert (conv.out_shape, conv.operations) == ((1, 8), 744)
    network = graph(conv)
    assert verify(network) == []
    Machine(network)
    with within(5), pytest.raises(GraphError, match=r"^op0: .*\b188743896 .*\b4096 steps"):
        Machine(plan(network, Schedule(4096, "carried")))


def test_a_long_delay_costs_a_step_nothing() -> None:
    one = np.ones(64)
    waits = SparseAffine.of(Csr.of(np.eye(64)))
    network = graph(dataclasses.replace(waits, delay=1 << 16), Neuron(Membrane(0 * one, one, 0 * one), None, None))
    machine = Machine(network)
    with within(2):
        for _ in range(400):
            machine.step({"in": np.ones((1, 64))})
    assert machine.history["in"].shape == (1 << 16, 1, 64)


@pytest.mark.parametrize("axes", [1, 2])
def test_positions_that_a_kernel_meets_are_counted_without_walking_it(axes: int) -> None:
    """Against the count one by one, over strides, paddings and dilations of every size."""
    draw = np.random.default_rng(axes)
    for _ in range(300):
        size_in, size_out, kernel, step, dilation = (int(x) for x in draw.integers(1, 40, 5))
        pad = int(draw.integers(0, 40))
        hits = np.zeros(size_in, dtype=np.int64)
        for k in range(kernel):
            place_of = np.arange(size_out) * step - pad + k * dilation
            np.add.at(hits, place_of[(place_of >= 0) & (place_of < size_in)], 1)
        np.testing.assert_array_equal(connections._hits(size_in, size_out, kernel, step, pad, dilation), hits)
    with within(10):
        assert connections._hits(1 << 22, 1 << 22, 1 << 20, 1, 1 << 19, 1).max() == 1 << 20


def test_rows_of_a_convolution_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    op = Conv(draw.normal(size=(4, 1, 3, 2)), draw.normal(size=4), (2, 1), (1, 2), (1, 2), 2, (9, 7))
    x = draw.normal(size=(3, *op.in_shape))
    whole = op.step({}, x)
    monkeypatch.setattr(connections, "WINDOWS", 1)
    np.testing.assert_allclose(op.step({}, x), whole, rtol=1e-13)


@pytest.mark.hypothesis
def test_placement_of_a_sparse_matrix_is_that_of_its_dense_one() -> None:
    draw = np.random.default_rng(0)
    for _ in range(examples(30)):
        rows, width = draw.integers(1, 80, 2)
        matrix = draw.normal(size=(rows, width)) * (draw.random((rows, width)) < draw.choice([0.02, 0.2, 0.7]))
        sparse, dense = (graph(op, lif(int(rows))) for op in (SparseAffine.of(Csr.of(matrix)), Affine(matrix)))
        for spec in load_specs():
            limit = dataclasses.replace(spec.limits.axons_in_per_core, value=float(draw.integers(2, 60)))
            tight = dataclasses.replace(spec, limits=dataclasses.replace(spec.limits, axons_in_per_core=limit))
            of_sparse, of_dense = place(sparse, tight).to_dict(), place(dense, tight).to_dict()
            for placement in (of_sparse, of_dense):
                placement.pop("stored")
                for layer in placement["layers"]:
                    layer.pop("stored")
            assert of_sparse == of_dense


@pytest.mark.parametrize("accumulate", ["sum-then-shift", "shift-each"])
def test_ranges_of_a_sparse_matrix_are_those_of_its_dense_one(accumulate: str) -> None:
    draw = np.random.default_rng(0)
    (spec,) = (spec for spec in load_specs() if spec.name == "lava")
    assert spec.integers is not None
    arithmetic = dataclasses.replace(spec.integers, accumulate=accumulate)
    for _ in range(100):
        rows, width = draw.integers(1, 30, 2)
        matrix = draw.integers(-127, 128, (rows, width)) * (draw.random((rows, width)) < draw.random())
        weights, exponent = Csr.of(matrix.astype(np.int32)), int(draw.integers(-6, 3))
        sparse = Sparse(
            weights.values.astype(np.int32), weights.columns, weights.starts, weights.inputs, weight_exp=exponent
        )
        low, high = -draw.integers(0, 2000, width), draw.integers(0, 2000, width)
        of_sparse = dense_range(sparse, arithmetic, low, high)
        of_dense = dense_range(Dense(matrix.astype(np.int32), weight_exp=exponent), arithmetic, low, high)
        assert of_sparse[0] == of_dense[0]
        for a, b in zip(of_sparse[1:], of_dense[1:], strict=True):
            np.testing.assert_array_equal(a, b)


def test_products_of_sparse_matrices_are_made_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    for _ in range(100):
        a, b, c = draw.integers(1, 25, 3)
        left, right = (
            Csr.of(draw.normal(size=shape) * (draw.random(shape) < draw.random())) for shape in ((a, b), (b, c))
        )
        whole = left @ right
        monkeypatch.setattr(csr, "PRODUCTS", int(draw.choice([1, 5, 50])))
        parts = left @ right
        monkeypatch.undo()
        assert (parts.shape, whole.shape) == ((a, c), (a, c))
        for name in ("values", "columns", "starts"):
            np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
        np.testing.assert_allclose(whole.dense(), left.dense() @ right.dense(), atol=1e-12)


def test_a_sparse_product_with_a_dense_matrix_lays_out_no_row(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    matrix, other = Csr.of(draw.normal(size=(9, 7)) * (draw.random((9, 7)) < 0.3)), draw.normal(size=(7, 4))
    expected = linear._product(matrix, other), linear._product(other.T, matrix.transposed())
    monkeypatch.setattr(linear, "MOST_PRODUCTS", 1)
    monkeypatch.setattr(Csr, "rows", lambda *args: pytest.fail("laid out"))
    np.testing.assert_allclose(linear._product(matrix, other), expected[0], atol=1e-12)
    np.testing.assert_allclose(linear._product(other.T, matrix.transposed()), expected[1], atol=1e-12)


def test_what_a_recording_would_keep_is_counted() -> None:
    large: Any = graph(Conv(np.ones((64, 1, 3)), None, (1,), (1,), (1,), 1, (1 << 10,)))
    with within(5), pytest.raises(GraphError, match=r"graph: .*\b4096 .*\b134217728"):
        nervecord.simulate(large, np.zeros((4096, 1, 1 << 10)))
