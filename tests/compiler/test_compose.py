"""Linear ops in a row become one connection (`compiler.passes.compose`)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_graphs import conv, dyadic, holds, lif, network, plain_lif, raster, same_spikes

from nervecord.compiler.check.table import findings_of
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.text import to_text
from nervecord.compiler.ops import (
    Affine,
    Conv,
    DelayLine,
    Flatten,
    Input,
    Level,
    Matrix,
    Op,
    Output,
    Pool,
    Scale,
    SparseAffine,
)
from nervecord.compiler.passes import linear
from nervecord.compiler.passes.compose import compose
from nervecord.compiler.plan.interpret import simulate
from nervecord.targets.catalogue import load_spec

LAVA = load_spec("lava")


def chained(*nodes: tuple[str, Op]) -> Graph:
    return chain(Level.DISCRETE, [*nodes, ("output", Output(nodes[-1][1].out_shape))], dt=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_meaning_is_kept(seed: int) -> None:
    graph = network(seed)
    result = holds(compose, graph)
    assert {op.kind for op in result.nodes.values()} <= {"Input", "Output", "Affine", "LIF", "CubaLIF"}
    assert all(len(op.out_shape) == 1 for op in result.nodes.values())
    # One connection for each length of the delay line, one for all others.
    assert sorted(op.lag for op in result.nodes.values() if isinstance(op, Matrix)) == [0, 0, 1, 1, 2, 2, 3]
    same_spikes(graph, result)


def passing(rng: np.random.Generator, shape: tuple[int, ...], *, waits: bool) -> Op:
    """A linear op that takes this shape; `waits`: a delay line may come, as no bias lies before it."""
    kinds = ["scale", "affine"] if len(shape) == 1 else ["scale", "conv", "pool", "flat"]
    match rng.choice([*kinds, *(["line"] if waits else [])]):
        case "conv":
            groups = int(rng.choice([1, shape[0]]))
            kernel = dyadic(rng, 2 * groups, shape[0] // groups, 2, 3)
            padding, stride = (int(rng.integers(0, 2)), 1), (1, int(rng.integers(1, 3)))
            return Conv(kernel, dyadic(rng, 2 * groups), stride, padding, (1, 1), groups, shape[1:])
        case "pool":
            # Windows of four values: an average of them rounds nothing.
            return Pool(str(rng.choice(["sum", "average"])), (2, 2), (1, 2), (1, 0), shape)
        case "flat":
            return Flatten(shape, 0, -1)
        case "scale":
            return Scale(dyadic(rng, *shape))
        case "line":
            return DelayLine(rng.integers(0, 3, size=shape))
    rows = int(rng.integers(1, 5))
    return Affine(dyadic(rng, rows, shape[0]), dyadic(rng, rows))


@settings(deadline=None, max_examples=examples(60))
@given(seed=st.integers(0, 10**6), length=st.integers(1, 4))
def test_any_chain_is_the_same_to_the_bit(seed: int, length: int) -> None:
    """With weights that round nothing the composed network spikes as the other does, whatever lies in the chain."""
    rng = np.random.default_rng(seed)
    nodes: list[tuple[str, Op]] = [("input", Input((2, 4, 4), "spikes"))]
    waits = True
    for k in range(length):
        op = passing(rng, nodes[-1][1].out_shape, waits=waits)
        if list(op.violations()):
            continue  # a window that does not fit
        waits = waits and getattr(op, "bias", None) is None
        nodes.append((f"op{k}", op))
    shape = nodes[-1][1].out_shape
    graph = chained(*nodes, ("lif", plain_lif(np.full(shape, 0.5), 0.75)))
    result = compose(graph)
    if result is not graph:
        assert compose(result) is result
    assert all(isinstance(op, Matrix) or op.kind in ("Input", "LIF", "Output") for op in result.nodes.values())
    x = raster(seed, 12, 2, 4, 4)
    expected = simulate(graph, x).left["output"].reshape(12, -1)
    actual = simulate(result, x.reshape(12, 1, *result.nodes["input"].in_shape)).left["output"].reshape(12, -1)
    np.testing.assert_array_equal(actual, expected)


def test_golden(golden: Callable[[str, str], None]) -> None:
    rng = np.random.default_rng(1)
    kernel = Conv(dyadic(rng, 3, 2, 3, 3), dyadic(rng, 3), (1, 1), (1, 1), (1, 1), 1, (6, 6))
    graph = chained(
        ("input", Input((2, 6, 6), "spikes")),
        ("conv", kernel),
        ("first", plain_lif(np.full((3, 6, 6), 0.5))),
        ("pool", Pool("sum", (2, 2), (2, 2), (0, 0), (3, 6, 6))),
        ("flat", Flatten((3, 3, 3), 0, -1)),
        ("fc", Affine(dyadic(rng, 4, 27), dyadic(rng, 4))),
        ("scale", Scale(dyadic(rng, 4))),
        ("last", plain_lif(np.full(4, 0.5))),
    )
    golden("passes/compose.txt", to_text(graph) + "\ncomposed\n\n" + to_text(compose(graph)))


def test_names_of_the_maker_are_kept() -> None:
    graph = network(0)
    nodes = {name: op.replace(origin=(f"model.{name}",)) for name, op in graph.nodes.items()}
    result = compose(graph.replace(nodes=nodes))
    assert result.nodes["c2"].origin == ("model.pool", "model.c2", "model.scale")


def test_what_is_plain_already_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    graph = chained(("input", Input((3,))), ("fc", Affine(rng.normal(size=(4, 3)))), ("lif", lif(rng, 4)))
    assert compose(graph) is graph


def test_a_convolution_is_kept_where_nothing_else_lies_on_the_way() -> None:
    rng = np.random.default_rng(0)
    alone, pooled = conv(rng, (2, 6, 6), 3), conv(rng, (2, 3, 3), 3)
    ends = ("flat", Flatten((3, 6, 6), 0, -1)), ("lif", lif(rng, 108))
    result = compose(chained(("input", Input((2, 6, 6), "spikes")), ("c", alone), *ends)).nodes["c"]
    assert isinstance(result, SparseAffine)
    assert result.convolution is not None
    kernel = result.convolution.kernel_of(result.csr)
    assert kernel is not None
    np.testing.assert_array_equal(kernel, alone.weight)
    pool = Pool("sum", (2, 2), (2, 2), (0, 0), (2, 6, 6))
    wide = pooled.replace(weight=pooled.weight[:, :, :1, :1], padding=(0, 0))
    graph = chained(
        ("input", Input((2, 6, 6), "spikes")), ("pool", pool), ("c", wide), ("lif", lif(rng, *wide.out_shape))
    )
    other = compose(graph).nodes["c"]
    assert isinstance(other, SparseAffine)
    assert other.convolution is None


def test_what_no_dense_matrix_could_hold_is_composed() -> None:
    """A convolution of 2^24 weights and more, zeros included, of which few are stored."""
    rng = np.random.default_rng(0)
    op = Conv(dyadic(rng, 4, 2, 5, 5), None, (1, 1), (2, 2), (1, 1), 1, (64, 64))
    graph = chained(("input", Input((2, 64, 64), "spikes")), ("c", op), ("lif", lif(rng, 4, 64, 64)))
    composed = compose(graph).nodes["c"]
    assert isinstance(composed, SparseAffine)
    assert composed.in_shape[0] * composed.out_shape[0] > linear.MOST_WEIGHTS
    assert len(composed.values) < 4 * 64 * 64 * 50
    x = raster(0, 2, 2, 64, 64)[:, 0]
    np.testing.assert_array_equal(composed.step({}, x.reshape(2, -1)), op.step({}, x).reshape(2, -1))


@pytest.mark.parametrize("kind", ["bias waits", "linear end", "too large"])
def test_what_has_no_matrix_stays_and_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    nodes: list[tuple[str, Op]] = [("input", Input((2, 4, 4), "spikes")), ("c", conv(rng, (2, 4, 4), 2))]
    match kind:
        case "bias waits":
            nodes += [("line", DelayLine(np.full((2, 4, 4), 2))), ("lif", lif(rng, 2, 4, 4))]
        case "linear end":
            nodes += [("lif", lif(rng, 2, 4, 4)), ("pool", Pool("sum", (2, 2), (2, 2), (0, 0), (2, 4, 4)))]
        case "too large":
            monkeypatch.setattr(linear, "MOST_WEIGHTS", 18 * 31)
            nodes += [("lif", lif(rng, 2, 4, 4))]
    graph = chained(*nodes)
    assert compose(graph) is graph
    assert "unsupported-node" in {f.code for f in findings_of(graph, LAVA)}
