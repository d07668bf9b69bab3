"""Connections in compressed rows on every engine that runs integers, against the same matrices with their zeros."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from examples import examples
from graphs import LAVA
from hypothesis import given, settings
from hypothesis import strategies as st
from sparse_graphs import convolution, mantissas, sparse_stream

import nervecord
from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.verify import verify
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.ops import Conv, Csr, Dense, Op, Sparse
from nervecord.compiler.plan.interpret import simulate
from nervecord.compiler.plan.plan import plan
from nervecord.runtime.engines.emulator.session import EmulatorStream
from nervecord.targets.lava.engine_lava import LavaStream
from nervecord.targets.lava.processes import connection_of
from nervecord.targets.lava.target import LavaTarget

EACH = dataclasses.replace(LAVA, accumulate="shift-each")


def laid_out(graph: Graph) -> Graph:
    """The same graph with dense matrices."""

    def dense(op: Op) -> Op:
        if not isinstance(op, Sparse):
            return op
        return Dense(op.weight, op.weight_exp, op.weight_bits, op.delay)

    return graph.replace(nodes={name: dense(op) for name, op in graph.nodes.items()})


@pytest.mark.parametrize("arithmetic", [LAVA, EACH], ids=["sum-then-shift", "shift-each"])
@pytest.mark.parametrize("seed", range(12))
def test_they_are_what_the_dense_matrix_is(seed: int, arithmetic: Arithmetic) -> None:
    graph, x = sparse_stream(seed, arithmetic)
    assert verify(graph) == []
    dense = laid_out(graph)
    expected = simulate(dense, x).outputs
    actual = simulate(graph, x).outputs
    for name, rows in expected.items():
        np.testing.assert_array_equal(actual[name], rows, err_msg=name)
    ranges = prove(plan(graph))
    assert ranges == prove(plan(dense))
    assert not any(f.severity == "error" for f in overflows(ranges, arithmetic))
    for name in ("conv", "rows"):
        of_sparse, of_dense = graph.nodes[name].synapses(), dense.nodes[name].synapses()
        assert of_sparse is not None
        assert of_dense is not None
        np.testing.assert_array_equal(of_sparse.fan_out, of_dense.fan_out)
        assert of_sparse.fan_in == of_dense.fan_in


def test_networks_of_the_test_spike() -> None:
    """So that equality says something."""
    counts = [simulate(*sparse_stream(seed, LAVA)).left["output"].sum() for seed in range(12)]
    assert np.count_nonzero(counts) >= 8


@pytest.mark.parametrize(("engine", "seed"), [*(("emulator", k) for k in range(12)), *(("c", k) for k in range(2))])
def test_engines_equal_the_definition(engine: str, seed: int) -> None:
    graph, x = sparse_stream(seed, LAVA)
    program = Program("lava", graph, schedule=plan(graph).schedule)
    expected = simulate(graph, x).left["output"][:, 0]
    with LavaTarget().stream(program, engine=engine) as session:
        np.testing.assert_array_equal(np.asarray(session.run(x)["output"]).reshape(expected.shape), expected)
        assert isinstance(session, EmulatorStream) == (engine == "emulator")


@pytest.mark.lava
@pytest.mark.slow
def test_stock_lava_equals_the_definition() -> None:
    """Conv where exponent and delay allow it, else Sparse and DelaySparse; never Dense."""
    used: Counter[str] = Counter()
    for seed in range(6):
        graph, x = sparse_stream(seed, LAVA)
        network_plan = plan(graph)
        for step in network_plan.connections:
            process = connection_of(step).process
            used[process if step.op.lag == 1 else f"{process}, delayed"] += 1
        with LavaStream(network_plan) as session:
            np.testing.assert_array_equal(
                np.asarray(session.run(x)["output"]).reshape(30, -1), simulate(graph, x).left["output"][:, 0], str(seed)
            )
    assert set(used) == {"conv", "sparse", "sparse, delayed"}


def test_a_program_keeps_them(tmp_path: Path) -> None:
    for seed in range(4):
        graph, _ = sparse_stream(seed, LAVA)
        program = Program("lava", graph, schedule=plan(graph).schedule)
        program.save(tmp_path / "a.nervecord")
        back = nervecord.load(tmp_path / "a.nervecord")
        assert back.graph == graph
        assert back.schedule == program.schedule


# --------------------------------------------------------------------------------------------------------------------
# The convolution that a matrix unrolls


@settings(deadline=None, max_examples=examples(80))
@given(seed=st.integers(0, 10**6), axes=st.integers(1, 2))
def test_a_convolution_is_unrolled_and_found_again(seed: int, axes: int) -> None:
    rng = np.random.default_rng(seed)
    form = convolution(rng, axes)
    shape = (form.features, form.input_shape[0] // form.groups, *form.kernel)
    kernel = mantissas(rng, int(np.prod(shape)), LAVA).reshape(shape)
    rows = form.unrolled(kernel)
    op = Conv(kernel, None, form.stride, form.padding, form.dilation, form.groups, form.input_shape[1:])
    assert form.out_size == op.out_shape[1:]
    x = rng.integers(-5, 5, size=(3, *form.input_shape))
    np.testing.assert_array_equal(rows.products(x.reshape(3, -1)), op.step({}, x.astype(float)).reshape(3, -1))
    result = form.kernel_of(rows)
    assert result is not None
    # Taps that lie outside wherever the kernel stands are no part of the matrix.
    np.testing.assert_array_equal(form.unrolled(result).values, rows.values)
    assert (result == np.where(result != 0, kernel, 0)).all()
    changed = rows.values.copy()
    changed[rng.integers(len(changed))] += 2
    other = form.kernel_of(rows.with_values(changed))
    # A weight that stands once may be any.
    assert other is None or np.array_equal(form.unrolled(other).values, changed)


def test_a_matrix_that_is_no_convolution_is_refused() -> None:
    graph, _ = sparse_stream(0, LAVA)
    op = graph.nodes["conv"]
    assert isinstance(op, Sparse)
    assert op.convolution is not None
    values = op.values.copy()
    values[0] += 2
    worse = {
        "weights": op.replace(values=values),
        "stride": op.replace(convolution=dataclasses.replace(op.convolution, stride=(9,) * len(op.convolution.stride))),
        "axes": op.replace(convolution=dataclasses.replace(op.convolution, stride=(1, 1, 1))),
        "padding": op.replace(
            convolution=dataclasses.replace(op.convolution, padding=tuple(1 << 20 for _ in op.convolution.padding))
        ),
    }
    for name, other in worse.items():
        findings = verify(graph.replace(nodes={**graph.nodes, "conv": other}))
        assert [f.code for f in findings] == ["convolution"], name


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"starts": [0, 1]}, "rows"),
        ({"starts": [0, 2, 1, 3]}, "rows"),
        ({"starts": [0, 2**31 - 1, -(2**31), -1, 3]}, "rows"),
        ({"columns": [0, 9, 1]}, "columns"),
        ({"columns": [0, -1, 1]}, "columns"),
        ({"columns": [0, 3, 3]}, "columns"),
    ],
)
def test_rows_that_are_none_are_refused(changes: dict[str, list[int]], code: str) -> None:
    fields = {"values": [2, 4, 6], "columns": [0, 1, 3], "starts": [0, 1, 3, 3], "inputs": 5, **changes}
    op = Sparse(**{k: np.array(v) if isinstance(v, list) else v for k, v in fields.items()})  # type: ignore[arg-type]
    assert [violation[0] for violation in op.violations()] == [code]


def test_cut_and_grown_matrices() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        dense = rng.integers(-3, 4, size=(5, 6)) * (rng.random((5, 6)) < 0.4)
        rows, columns = rng.random(5) < 0.6, rng.random(6) < 0.6
        rows[0] = columns[0] = True
        sparse, other = Csr.of(dense), rng.integers(-3, 4, size=(6, 4)) * (rng.random((6, 4)) < 0.4)
        np.testing.assert_array_equal(sparse.dense(), dense)
        np.testing.assert_array_equal(sparse.cut(rows, columns).dense(), dense[rows][:, columns])
        np.testing.assert_array_equal((sparse @ Csr.of(other)).dense(), dense @ other)
        np.testing.assert_array_equal((sparse + Csr.of(dense)).dense(), 2 * dense)
        np.testing.assert_array_equal(sparse.with_row().dense()[-1], 0)
        np.testing.assert_array_equal(sparse.with_column(dense[:, 1]).dense()[:, -1], dense[:, 1])
        np.testing.assert_array_equal(sparse.rows(1, 3), dense[1:3])


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_both_storages_give_one_matrix_by_source(share: float) -> None:
    """Without the zeros that are stored; of a matrix of zeros one stays, as no engine takes an array of nothing."""
    rng = np.random.default_rng(1)
    dense = (rng.integers(1, 9, size=(5, 7)) * (rng.random((5, 7)) < share)).astype(np.int32)
    every = Sparse(dense.ravel(), np.tile(np.arange(7), 5), 7 * np.arange(6), 7)
    stored = every.by_source()
    np.testing.assert_array_equal(stored.dense(), dense.T)
    assert len(stored.values) == max(np.count_nonzero(dense), 1)
    assert list(stored.violations()) == []
    plain = Dense(dense).by_source()
    for name in ("values", "columns", "starts", "inputs"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(stored, name))
    np.testing.assert_array_equal(every.csr.nonzero().dense(), dense)
