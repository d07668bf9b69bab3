"""Passes before lowering: linear chains, thresholds, decays, silent neurons. Meaning kept, pure, idempotent.

Spikes are compared exactly: the sums are the same numbers in another order, and no membrane of the drawn networks comes
within the rounding of its threshold.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nervecord
from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.check.table import findings_of, verdict
from nervecord.compiler.graph import Graph, chain
from nervecord.compiler.interpret import simulate
from nervecord.compiler.lower.prepare import prepared
from nervecord.compiler.ops import (
    Affine,
    ContinuousMembrane,
    Conv,
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
)
from nervecord.compiler.passes.compose import compose
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.passes.prune import prune
from nervecord.compiler.passes.split import MOST_GROUPS, split_decays
from nervecord.compiler.passes.thresholds import fold_thresholds
from nervecord.targets.catalogue import load_spec

LAVA = load_spec("lava")
assert LAVA.integers is not None
ARITHMETIC: Arithmetic = LAVA.integers


def lif(
    rng: np.random.Generator, *shape: int, decays: int = 1, thresholds: bool = False, current: bool = False,
    reset: str = "value",
) -> Neuron:  # fmt: skip
    keep = rng.choice(np.linspace(0.6, 0.95, decays), size=shape)
    level = rng.uniform(0.5, 1.5, size=shape) if thresholds else np.full(shape, 0.8)
    synapse = Synapse(np.full(shape, 0.5), np.ones(shape)) if current else None
    return Neuron(
        Membrane(keep, np.ones(shape), rng.uniform(0, 0.02, size=shape)), synapse,
        Spike(level, np.zeros(shape), reset),
    )  # fmt: skip


def conv(rng: np.random.Generator, shape: tuple[int, ...], out: int, bias: bool = True) -> Conv:
    weight = rng.normal(size=(out, shape[0], 3, 3)) * 0.4
    return Conv(weight, rng.normal(size=out) * 0.1 if bias else None, (1, 1), (1, 1), (1, 1), 1, shape[1:])


def network(seed: int) -> Graph:
    """Convolutions, poolings, flattening, scales, matrices in a row, a delay line, a loop, a skip over a population."""
    rng = np.random.default_rng(seed)
    c1, c2 = conv(rng, (2, 6, 6), 3), conv(rng, (3, 3, 3), 4, bias=seed % 2 == 0)
    nodes: dict[str, Op] = {
        "input": Input((2, 6, 6), "spikes"), "c1": c1, "n1": lif(rng, 3, 6, 6),
        "pool": Pool("average" if seed % 2 else "sum", (2, 2), (2, 2), (0, 0), (3, 6, 6)), "c2": c2,
        "scale": Scale(rng.uniform(0.5, 1.5, size=(4, 3, 3))), "n2": lif(rng, 4, 3, 3, current=seed % 3 == 0),
        "flat": Flatten((4, 3, 3), 0, -1), "line": DelayLine(rng.integers(1, 4, size=36)),
        "fc": Affine(rng.normal(size=(9, 36)) * 0.4), "fc2": Affine(rng.normal(size=(7, 9)) * 0.6, rng.normal(size=7)),
        "n3": lif(rng, 7), "back": Affine(rng.normal(size=(7, 7)) * 0.3, None, 2),
        "skip": Flatten((3, 6, 6), 0, -1), "over": Affine(rng.normal(size=(7, 108)) * 0.1, None, 1),
        "output": Output((7,)), "side": Output((4, 3, 3)),
    }  # fmt: skip
    edges = [
        "input c1", "c1 n1", "n1 pool", "pool c2", "c2 scale", "scale n2", "n2 flat", "flat line", "line fc", "fc fc2",
        "fc2 n3", "n3 back", "back n3", "n1 skip", "skip over", "over n3", "n3 output", "n2 side",
    ]  # fmt: skip
    return Graph(Level.DISCRETE, nodes, tuple((e.split()[0], e.split()[1]) for e in edges), 1e-3)


def raster(seed: int, steps: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).random((steps, 1, *shape)) < 0.3).astype(float)


def same_spikes(before: Graph, after: Graph, steps: int = 60) -> None:
    x = raster(5, steps, *before.nodes["input"].in_shape)
    left = simulate(before, x).left
    right = simulate(after, x.reshape(steps, 1, *after.nodes["input"].in_shape)).left
    assert list(left) == list(right)
    for name in left:
        assert 0 < left[name].sum() < left[name].size
        assert np.array_equal(left[name].reshape(steps, -1), right[name].reshape(steps, -1))


def holds(run: Callable[[Graph], Graph], graph: Graph) -> Graph:
    """The pass's result: pure, deterministic, idempotent, and the same object where nothing changes."""
    kept = pickle.dumps(graph)
    made = run(graph)
    assert pickle.dumps(graph) == kept
    assert made is not graph
    assert run(graph) == made
    assert run(made) is made
    return made


@pytest.mark.parametrize("seed", range(6))
def test_linear_chains_become_one_connection(seed: int) -> None:
    graph = network(seed)
    made = holds(compose, graph)
    assert {op.kind for op in made.nodes.values()} <= {"Input", "Output", "Affine", "LIF", "CubaLIF"}
    assert all(len(op.out_shape) == 1 for op in made.nodes.values())
    # One connection for each length of the delay line, one for all others.
    assert sorted(op.delay for _, op in made.of_type(Affine)) == [0, 0, 1, 1, 2, 2, 3]
    same_spikes(graph, made)


def test_names_of_the_maker_are_kept() -> None:
    graph = network(0)
    named = {name: op.replace(origin=(f"model.{name}",)) for name, op in graph.nodes.items()}
    made = compose(graph.replace(nodes=named))
    assert made.nodes["c2"].origin == ("model.pool", "model.c2", "model.scale")


def test_what_is_plain_already_stays_as_it_is() -> None:
    rng = np.random.default_rng(0)
    nodes: list[tuple[str, Op]] = [
        ("input", Input((3,))), ("fc", Affine(rng.normal(size=(4, 3)))), ("lif", lif(rng, 4)), ("output", Output((4,))),
    ]  # fmt: skip
    graph = chain(Level.DISCRETE, nodes, dt=1e-3)
    assert compose(graph) is graph
    assert fold_thresholds(graph) is graph
    assert split_decays(graph, ARITHMETIC) is graph
    assert prune(graph) is graph


@pytest.mark.parametrize("kind", ["bias waits", "linear end", "too large"])
def test_what_has_no_matrix_stays_and_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    c = conv(rng, (2, 4, 4), 2)
    nodes: list[tuple[str, Op]] = [("input", Input((2, 4, 4), "spikes")), ("c", c)]
    match kind:
        case "bias waits":
            nodes += [("line", DelayLine(np.full((2, 4, 4), 2))), ("lif", lif(rng, 2, 4, 4))]
        case "linear end":
            nodes += [("lif", lif(rng, 2, 4, 4)), ("pool", Pool("sum", (2, 2), (2, 2), (0, 0), (2, 4, 4)))]
        case "too large":
            monkeypatch.setattr("nervecord.compiler.passes.compose.MOST_WEIGHTS", 32 * 31)
            nodes += [("lif", lif(rng, 2, 4, 4))]
    graph = chain(Level.DISCRETE, [*nodes, ("output", Output(nodes[-1][1].out_shape))], dt=1e-3)
    assert compose(graph) is graph
    assert "unsupported-node" in {f.code for f in findings_of(graph, LAVA)}


@pytest.mark.parametrize("reset", ["value", "subtract", "subtract-late", "none"])
def test_thresholds_fold_into_what_enters(reset: str) -> None:
    rng = np.random.default_rng(1)
    neuron = lif(rng, 12, thresholds=True, reset=reset)
    neuron = neuron.replace(spike=Spike(neuron.spike.threshold, rng.uniform(-0.2, 0, size=12), reset))  # type: ignore[union-attr]
    nodes: list[tuple[str, Op]] = [
        ("input", Input((8,), "spikes")), ("fc", Affine(rng.normal(size=(12, 8)) * 0.5)), ("lif", neuron),
        ("output", Output((12,))),
    ]  # fmt: skip
    graph = chain(Level.DISCRETE, nodes, dt=1e-3)
    made = holds(fold_thresholds, graph)
    assert (made.nodes["lif"].spike.threshold == 1).all()  # type: ignore[attr-defined]
    same_spikes(graph, made)


def test_what_compiles_in_steps_is_feasible_in_continuous_time() -> None:
    """The verdict on a file does not turn with --dt: thresholds fold at once, decays will be split."""
    rng = np.random.default_rng(0)
    ones = np.ones(4)
    spike = Spike(rng.uniform(0.5, 1.5, size=4), 0 * ones)
    neuron = Neuron(ContinuousMembrane(10 * ones, np.array([0.01, 0.02, 0.02, 0.01]), 0 * ones), None, spike)
    nodes: list[tuple[str, Op]] = [
        ("input", Input((3,), "spikes")), ("fc", Affine(rng.normal(size=(4, 3)))), ("lif", neuron),
        ("output", Output((4,))),
    ]  # fmt: skip
    graph = chain(Level.IMPORTED, nodes)
    folded = fold_thresholds(graph)
    assert (folded.nodes["lif"].spike.threshold == 1).all()  # type: ignore[attr-defined]
    same_spikes(discretise(graph, dt=1e-3), discretise(folded, dt=1e-3))
    for given in (graph, discretise(graph, dt=1e-3)):
        found = findings_of(given, LAVA)
        assert verdict(found) == "feasible"
        assert ("population-parameters" in {f.code for f in found}) == (given is graph)


def layered(seed: int, decays: int) -> Graph:
    """A hidden recurrent population of several decays, heard by another one beside a second source; both are read."""
    rng = np.random.default_rng(seed)
    hidden = lif(rng, 12, decays=decays, current=seed % 2 == 1)
    if isinstance(hidden.synapse, Synapse):
        hidden = hidden.replace(synapse=Synapse(rng.choice([0.3, 0.6], size=12), np.ones(12)))
    nodes: dict[str, Op] = {
        "input": Input((8,), "spikes"), "fc": Affine(rng.normal(size=(12, 8)) * 0.5, rng.normal(size=12) * 0.1),
        "hidden": hidden, "back": Affine(rng.normal(size=(12, 12)) * 0.3, None, 1),
        "past": Affine(rng.normal(size=(12, 8)) * 0.5), "beside": lif(rng, 12),
        "fc2": Affine(rng.normal(size=(5, 12)) * 0.4, rng.normal(size=5) * 0.1), "last": lif(rng, 5, decays=decays),
        "output": Output((5,)),
    }  # fmt: skip
    edges = [
        "input fc", "fc hidden", "hidden back", "back hidden", "input past", "past beside", "hidden fc2", "beside fc2",
        "fc2 last", "last output",
    ]  # fmt: skip
    return Graph(Level.DISCRETE, nodes, tuple((e.split()[0], e.split()[1]) for e in edges), 1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_decays_split_into_populations(seed: int) -> None:
    graph = layered(seed, 3)
    made = holds(lambda it: split_decays(it, ARITHMETIC), graph)
    same_spikes(graph, made)
    pruned = holds(prune, made)
    same_spikes(graph, pruned)
    hidden = [op for name, op in pruned.nodes.items() if name.startswith("hidden.")]
    # Each hidden neuron is in one population; what is read is there whole in each.
    assert sum(op.size for op in hidden) == 12
    assert len(hidden) > 1
    assert {op.size for name, op in pruned.nodes.items() if name.startswith("last")} == {5}


def test_too_many_decays_stay() -> None:
    rng = np.random.default_rng(0)
    graph = layered(0, 2)
    neuron = lif(rng, 12 * 4, decays=200)
    nodes: list[tuple[str, Op]] = [
        ("input", Input((3,), "spikes")), ("fc", Affine(rng.normal(size=(48, 3)))), ("lif", neuron),
        ("output", Output((48,))),
    ]  # fmt: skip
    wide = chain(Level.DISCRETE, nodes, dt=1e-3)
    assert len(np.unique(neuron.membrane.decay)) > MOST_GROUPS  # type: ignore[union-attr]
    assert split_decays(wide, ARITHMETIC) is wide
    assert "population-parameters" in {f.code for f in findings_of(wide, LAVA)}
    assert verdict(findings_of(graph, LAVA)) == "feasible"


def test_silent_neurons_go() -> None:
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(6, 4))
    weight[[1, 4]] = 0
    neuron = lif(rng, 6)
    neuron = neuron.replace(membrane=Membrane(neuron.membrane.decay, np.ones(6), np.zeros(6)))  # type: ignore[union-attr]
    nodes: list[tuple[str, Op]] = [
        ("input", Input((4,), "spikes")), ("fc", Affine(weight)), ("lif", neuron),
        ("fc2", Affine(rng.normal(size=(3, 6)))), ("last", lif(rng, 3)), ("output", Output((3,))),
    ]  # fmt: skip
    graph = chain(Level.DISCRETE, nodes, dt=1e-3)
    made = holds(prune, graph)
    assert made.nodes["lif"].size == 4
    same_spikes(graph, made)


# --------------------------------------------------------------------------------------------------------------------
# All of it, compiled


def compiled(graph: Graph, steps: int = 200) -> tuple[Any, np.ndarray]:
    x = raster(9, steps, *graph.nodes["input"].in_shape)
    program = nervecord.compile(graph, "lava", calibration=x[:, 0])
    return program, x.reshape(steps, -1)


def convolutional(seed: int) -> Graph:
    rng = np.random.default_rng(seed)
    c1 = conv(rng, (1, 6, 6), 2)
    nodes: list[tuple[str, Op]] = [
        ("input", Input((1, 6, 6), "spikes")), ("c1", c1), ("n1", lif(rng, 2, 6, 6, decays=2, thresholds=True)),
        ("pool", Pool("sum", (2, 2), (2, 2), (0, 0), (2, 6, 6))), ("c2", conv(rng, (2, 3, 3), 3)),
        ("n2", lif(rng, 3, 3, 3)), ("flat", Flatten((3, 3, 3), 0, -1)),
        ("fc", Affine(rng.normal(size=(4, 27)) * 0.4, rng.normal(size=4) * 0.1)), ("n3", lif(rng, 4)),
        ("output", Output((4,))),
    ]  # fmt: skip
    return chain(Level.DISCRETE, nodes, dt=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_convolutional_network_compiles_and_runs(seed: int) -> None:
    """The emulator's integers are the definition's to the bit; what rounding changed of the spikes is reported."""
    graph = convolutional(seed)
    assert verdict(findings_of(graph, LAVA)) == "feasible"
    assert [name for name, _ in prepared(graph, LAVA)] == ["composed", "thresholds", "split"]
    program, x = compiled(graph)
    wanted = nervecord.simulate(program, x).left["output"][:, 0]
    with nervecord.stream(program) as session:
        got = np.asarray(session.run(x)["output"])[:, 0]
    assert np.array_equal(got, wanted)
    floats = simulate(graph, x.reshape(200, 1, 1, 6, 6)).left["output"][:, 0]
    latency = program.report["lowering"]["latency"]
    apart = int(np.count_nonzero(got[latency:] != floats[:-latency]))
    assert apart == program.report["lowering"]["spikes_different"]
    assert floats.sum() > 50
    # Three spiking layers carry every early difference on; how much is fired stays.
    assert abs(got.sum() - floats.sum()) < 0.2 * floats.sum()


def test_steps_are_dumped_by_name(tmp_path: Any) -> None:
    graph = convolutional(0)
    nervecord.compile(graph, "lava", dump=tmp_path)
    names = [path.name for path in sorted(tmp_path.iterdir())]
    assert names == [
        "00-read.txt", "01-discrete.txt", "02-composed.txt", "03-thresholds.txt", "04-split.txt", "05-lowered.txt",
    ]  # fmt: skip


@pytest.mark.lava
def test_stock_lava_runs_a_convolutional_network() -> None:
    program, x = compiled(convolutional(0), steps=60)
    wanted = nervecord.simulate(program, x).left["output"][:, 0]
    assert wanted.sum() > 0
    with nervecord.stream(program, engine="lava") as session:
        assert np.array_equal(np.asarray(session.run(x)["output"])[:, 0], wanted)
