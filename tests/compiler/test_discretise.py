"""From continuous time to steps: published numbers, exact solutions, delays, recurrence."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import random_policy

from nervecord.compiler import ops as n
from nervecord.compiler.files.serialise import graph_to_data
from nervecord.compiler.graph import Graph, chain
from nervecord.compiler.interpret import Machine, simulate
from nervecord.compiler.nir.file import read_nir
from nervecord.compiler.ops import Level, Op
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.policy import Policy
from nervecord.compiler.verify import verify
from nervecord.errors import GraphError, NervecordError

DATA = Path(__file__).parent.parent / "data" / "nir"
CONVENTIONS = ("euler", "exact")


def imported(*named: tuple[str, Op], size: int = 1, out: int | None = None, dt: float | None = None) -> Graph:
    ends = ("in", n.Input((size,))), ("out", n.Output((size if out is None else out,)))
    return chain(Level.IMPORTED, [ends[0], *named, ends[1]], dt=dt)


def column(file: str, k: int) -> np.ndarray:
    return np.loadtxt(DATA / file, delimiter=",")[:, k]


def membrane(graph: Graph, name: str, inputs: np.ndarray) -> np.ndarray:
    machine = Machine(graph)
    found = []
    for x in inputs:
        machine.step({"input": np.array([[x]])})
        found.append(machine.state[name]["v"][0, 0])
    return np.array(found)


# --------------------------------------------------------------------------------------------------------------------
# The published LIF graph


@pytest.fixture(scope="module")
def norse() -> Graph:
    graph = read_nir(DATA / "lif_norse.nir")
    assert isinstance(graph, Graph)
    return graph


@pytest.fixture(scope="module")
def braille() -> Graph:
    graph = read_nir(DATA / "braille_noDelay_bias_zero.nir")
    assert isinstance(graph, Graph)
    return graph


def parts(op: Op) -> tuple[n.Membrane, n.Synapse]:
    """Membrane and synapse of discrete neurons that have both."""
    assert isinstance(op, n.Neuron)
    assert isinstance(op.membrane, n.Membrane)
    assert isinstance(op.synapse, n.Synapse)
    return op.membrane, op.synapse


def spikes(graph: Graph) -> list[int]:
    trace = simulate(graph, column("lif_norse.csv", 0)[:, None])
    return np.flatnonzero(trace.outputs["1"][:, 0, 0]).tolist()


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_published_spikes(norse: Graph, convention: str) -> None:
    published = np.flatnonzero(column("lif_exact.csv", 2)).tolist()
    assert published == [460, 510, 710, 760]
    assert spikes(discretise(norse, dt=1e-4, convention=convention)) == published
    # A maker's usual step is not its file's: at Norse's 1e-3 the same graph fires ten times as fast.
    assert spikes(discretise(norse, dt=1e-3, convention=convention))[:2] == [60, 220]


def test_published_voltages(norse: Graph) -> None:
    v = membrane(discretise(norse, dt=1e-4), "1", column("lif_norse.csv", 0))
    # Norse computes in float32: up to 0.1, over memories of 25 steps. Measured: 2.4e-8.
    np.testing.assert_allclose(v, column("lif_norse.csv", 1), atol=5e-8, rtol=0)
    # snnTorch's input has gain 1 where NIR's has dt/tau = 1/25. Measured: 1e-6.
    np.testing.assert_allclose(25 * v, column("lif_snntorch.csv", 1), atol=2e-6, rtol=0)


def test_exact_convention_solves_the_equation(norse: Graph) -> None:
    """Until the first spike, after which the published solution resets between two steps."""
    inputs, exact = column("lif_exact.csv", 0)[:460], column("lif_exact.csv", 1)[:460]
    apart = {
        convention: float(
            np.abs(membrane(discretise(norse, dt=1e-4, convention=convention), "1", inputs) - exact).max()
        )
        for convention in CONVENTIONS
    }
    # The solution holds an input from its own step to the next as we do; what is left is its float32 tau.
    assert apart["exact"] < EXACT_TOLERANCE
    assert apart["euler"] > 10 * apart["exact"]


EXACT_TOLERANCE = 1e-6


# --------------------------------------------------------------------------------------------------------------------
# The published recurrent graph


def test_braille_parameters_are_snntorchs(braille: Graph) -> None:
    graph = discretise(braille, dt=1e-4)
    assert verify(graph) == []
    assert graph.nodes["lif1.lif"].kind == "CubaLIF"
    membrane, synapse = parts(graph.nodes["lif1.lif"])
    np.testing.assert_allclose(synapse.decay, 0.55, atol=2e-8)
    np.testing.assert_allclose(membrane.decay, 0.9, atol=3e-8)
    # snnTorch has no gains: r = tau_mem / dt and w_in = tau_syn / dt make them 1.
    np.testing.assert_allclose(synapse.gain, 1, rtol=1e-15)
    np.testing.assert_allclose(membrane.gain, 1, rtol=1e-15)


def test_braille_recurrence_is_that_of_the_step_before(braille: Graph) -> None:
    """Against the recurrence as snnTorch computes it, bias of the recurrent layer in the first step included."""
    graph = discretise(braille, dt=1e-4)
    recurrent = graph.nodes["lif1.w_rec"]
    assert isinstance(recurrent, n.Affine)
    assert recurrent.delay == 1
    x = (np.random.default_rng(3).random((256, 12)) < 0.05).astype(float)
    trace = simulate(graph, x)
    fc1, rec, fc2 = (braille.nodes[name] for name in ("fc1", "lif1.w_rec", "fc2"))
    assert isinstance(fc1, n.Affine)
    assert isinstance(rec, n.Affine)
    assert isinstance(fc2, n.Affine)
    (one, into_one), (two, into_two) = (parts(graph.nodes[name]) for name in ("lif1.lif", "lif2"))
    i1, v1, s1, i2, v2 = (np.zeros(k) for k in (38, 38, 38, 7, 7))
    for k, value in enumerate(x):
        i1 = into_one.decay * i1 + fc1.weight @ value + fc1.bias + rec.weight @ s1 + rec.bias
        v1 = one.decay * v1 + i1
        s1 = (v1 > 1).astype(float)
        v1 = np.where(s1 > 0, 0, v1)
        i2 = into_two.decay * i2 + fc2.weight @ s1 + fc2.bias
        v2 = two.decay * v2 + i2
        s2 = (v2 > 1).astype(float)
        v2 = np.where(s2 > 0, 0, v2)
        assert trace.outputs["lif1.lif"][k, 0].tolist() == s1.tolist(), f"step {k}"
        assert trace.outputs["lif2"][k, 0].tolist() == s2.tolist(), f"step {k}"
    assert trace.outputs["lif1.lif"].sum() > 100
    assert trace.outputs["lif2"].sum() > 10


# --------------------------------------------------------------------------------------------------------------------
# Equations

positive = st.floats(0.01, 10)
KINDS = ("LI", "LIF", "I", "IF", "CubaLI", "CubaLIF")


def continuous(kind: str, given_: dict[str, np.ndarray], origin: tuple[str, ...] = ()) -> n.Neuron:
    """Neurons in continuous time of NIR's kinds."""
    membrane = n.ContinuousMembrane(given_["r"], given_.get("tau"), given_.get("leak"))
    synapse = n.ContinuousSynapse(given_["tau_syn"], given_["w_in"]) if kind.startswith("Cuba") else None
    spike = n.Spike(given_["threshold"], given_["reset_value"]) if kind.endswith("F") else None
    return n.Neuron(membrane, synapse, spike, origin=origin)


def li(tau: list[float], r: list[float], leak: list[float]) -> n.Neuron:
    return continuous("LI", {"tau": np.array(tau), "r": np.array(r), "leak": np.array(leak)})


def membrane_of(graph: Graph, name: str) -> n.Membrane:
    op = graph.nodes[name]
    assert isinstance(op, n.Neuron)
    assert isinstance(op.membrane, n.Membrane)
    return op.membrane


@pytest.mark.parametrize("name", KINDS)
def test_euler_formulas(name: str) -> None:
    fields = ["r", *(["tau", "leak"] if "L" in name else []), *(["tau_syn", "w_in"] if "Cuba" in name else []),
              *(["threshold", "reset_value"] if name.endswith("F") else [])]  # fmt: skip
    given_ = {field: np.array([0.5 + 0.25 * k]) for k, field in enumerate(fields)}
    graph = discretise(imported(("x", continuous(name, given_, ("maker",)))), dt=0.1)
    node = graph.nodes["x"]
    # An integrator is what leaks nothing: the composition is the same.
    assert node.kind == {"I": "LI", "IF": "LIF"}.get(name, name)
    assert node.origin == ("maker",)
    share = 0.1 / given_["tau"] if "tau" in given_ else np.array([0.1])
    expected = {
        "membrane.decay": 1 - share if "tau" in given_ else np.ones(1),
        "membrane.gain": given_["r"] * share,
        "membrane.leak": given_["leak"] * share if "leak" in given_ else np.zeros(1),
    }
    if "tau_syn" in given_:
        expected["synapse.decay"] = 1 - 0.1 / given_["tau_syn"]
        expected["synapse.gain"] = given_["w_in"] * (0.1 / given_["tau_syn"])
    if "threshold" in given_:
        expected |= {"spike.threshold": given_["threshold"], "spike.reset_value": given_["reset_value"]}
        assert isinstance(node, n.Neuron)
        assert isinstance(node.spike, n.Spike)
        assert (node.spike.reset, node.spike.refractory) == ("value", 0)
    arrays = {key.removeprefix("x/"): value for key, value in graph_to_data(graph)[1].items()}
    assert sorted(arrays) == sorted(expected)
    for field, value in expected.items():
        assert arrays[field].tolist() == value.tolist(), field


@settings(max_examples=60, deadline=None)
@given(tau=positive, r=positive, leak=st.floats(-5, 5), x=st.floats(-5, 5), dt=positive)
def test_exact_step_is_the_solution(tau: float, r: float, leak: float, x: float, dt: float) -> None:
    """From any v, one step lands where v(t) = v_inf + (v - v_inf) exp(-t / tau) is; two halves, where the whole is."""
    node = li([tau], [r], [leak])
    whole = membrane_of(discretise(imported(("x", node)), dt=dt, convention="exact"), "x")
    half = membrane_of(discretise(imported(("x", node)), dt=dt / 2, convention="exact"), "x")
    rest, v = leak + r * x, 0.75

    def update(step: n.Membrane, v: float) -> float:
        return float(step.decay[0] * v + step.gain[0] * x + step.leak[0])

    solution = rest + (v - rest) * np.exp(-dt / tau)
    assert update(whole, v) == pytest.approx(solution, rel=1e-12, abs=1e-12)
    assert update(half, update(half, v)) == pytest.approx(solution, rel=1e-12, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(tau=positive, x=st.floats(-5, 5), part=st.floats(0.001, 1))
def test_euler_error_is_what_the_docstring_says(tau: float, x: float, part: float) -> None:
    """(dt/tau)^2 / 2 of the distance to equilibrium, at most."""
    node = li([tau], [1.0], [0.0])
    step = membrane_of(discretise(imported(("x", node)), dt=part * tau), "x")
    v = 0.75
    error = abs(step.decay[0] * v + step.gain[0] * x - (x + (v - x) * np.exp(-part)))
    assert error <= part**2 / 2 * abs(v - x) * (1 + 1e-9) + 1e-12


@settings(max_examples=20, deadline=None)
@given(tau=st.floats(0.5, 5), tau_syn=st.floats(0.5, 5), x=st.floats(-2, 2), dt=st.floats(0.05, 1))
def test_exact_current_is_held_within_its_bound(tau: float, tau_syn: float, x: float, dt: float) -> None:
    values = {"tau_syn": tau_syn, "tau": tau, "r": 1.0, "leak": 0.0, "w_in": 1.0}
    node = continuous("CubaLI", {field: np.array([value]) for field, value in values.items()})
    membrane, synapse = parts(discretise(imported(("x", node)), dt=dt, convention="exact").nodes["x"])
    i, v = 0.5, -0.25
    new = synapse.decay[0] * i + synapse.gain[0] * x
    ours = membrane.decay[0] * v + membrane.gain[0] * new
    assert new == pytest.approx(x + (i - x) * np.exp(-dt / tau_syn), rel=1e-12)
    # The truth, by a fine midpoint rule on v(dt) = a v + 1/tau * integral of exp(-(dt - s)/tau) i(s).
    s = (np.arange(4000) + 0.5) * dt / 4000
    current = x + (i - x) * np.exp(-s / tau_syn)
    truth = np.exp(-dt / tau) * v + float(np.mean(np.exp(-(dt - s) / tau) * current)) * dt / tau
    bound = -np.expm1(-dt / tau) * abs(new - i)
    assert abs(ours - truth) <= bound * (1 + 1e-6) + 1e-7  # the rule's own error: 1e-8


def test_a_step_longer_than_a_time_constant() -> None:
    graph = imported(("li", li([1e-3, 5e-3], [1, 1], [0, 0])), size=2)
    with pytest.raises(GraphError, match=r"li: tau is shorter than the step.*\(0\.001 against 0\.002\)"):
        discretise(graph, dt=2e-3)
    assert membrane_of(discretise(graph, dt=1e-3), "li").decay[0] == 0
    assert membrane_of(discretise(graph, dt=2e-3, convention="exact"), "li").decay[0] > 0


def test_an_endless_time_constant_is_an_integrator() -> None:
    node = membrane_of(discretise(imported(("li", li([np.inf], [1.0], [0.0]))), dt=1e-3), "li")
    assert node.decay[0] == 1
    assert node.gain[0] == 0


# --------------------------------------------------------------------------------------------------------------------
# Pass properties, dt


def test_idempotent_and_pure(braille: Graph) -> None:
    before = dict(braille.nodes.items())
    graph = discretise(braille, dt=1e-4)
    assert discretise(graph) is graph
    assert discretise(graph, dt=1e-4, convention="exact") is graph
    assert discretise(braille, dt=1e-4) == graph
    assert all(braille.nodes[name] is node for name, node in before.items())
    assert braille.level is Level.IMPORTED


def test_dt_is_never_guessed(norse: Graph) -> None:
    with pytest.raises(GraphError, match=r"does not say its time step, and it is not guessed.*--dt"):
        discretise(norse)
    with pytest.raises(GraphError, match=r"dt is 0\.001 s, and the graph has 0\.0001 s"):
        discretise(norse.replace(dt=1e-4), dt=1e-3)
    with pytest.raises(GraphError, match=r"dt is 0\.001 s, and the graph has 0\.0001 s"):
        discretise(discretise(norse, dt=1e-4), dt=1e-3)
    with pytest.raises(GraphError, match=r"dt is -1\.0 s, it must be positive"):
        discretise(norse, dt=-1.0)
    assert discretise(norse.replace(dt=1e-4)).dt == 1e-4


def test_unknown_convention(norse: Graph) -> None:
    with pytest.raises(NervecordError, match=r"unknown convention 'exakt'.*did you mean 'exact'"):
        discretise(norse, dt=1e-4, convention="exakt")


def test_all_that_is_wrong_is_said_at_once() -> None:
    graph = imported(("li", li([1e-4], [1], [0])), ("fc", n.Affine([[1.0]])), ("d", delay(0.0015)))  # type: ignore[arg-type]
    with pytest.raises(GraphError) as caught:
        discretise(graph, dt=1e-3)
    for name in ("li: tau is shorter than the step", "d: delay is no whole number of steps"):
        assert name in str(caught.value)


def test_convolutions_stay_what_they_are() -> None:
    conv = n.Conv(np.ones((1, 1, 2, 2)), None, input_size=(3, 3))
    pool = n.Pool("sum", (2, 2), (1, 1), (0, 0), (1, 2, 2))
    nodes = [("in", n.Input((1, 3, 3))), ("conv", conv), ("pool", pool), ("out", n.Output((1, 1, 1)))]
    graph = discretise(chain(Level.IMPORTED, nodes), dt=1e-3)
    assert graph.nodes["conv"] is conv
    assert simulate(graph, np.ones((2, 1, 3, 3))).outputs["pool"].ravel().tolist() == [16, 16]


# --------------------------------------------------------------------------------------------------------------------
# Delays

FC = n.Affine([[1.0, 2.0]], [3.0], origin=("fc",))  # type: ignore[arg-type]


def delay(*seconds: float) -> n.Delay:
    return n.Delay(np.array(seconds), origin=("d",))


def test_delay_behind_an_affine() -> None:
    graph = discretise(imported(("fc", FC), ("d", delay(0.003)), size=2, out=1), dt=1e-3)
    assert list(graph.nodes) == ["in", "fc", "out"]
    assert graph.edges == (("in", "fc"), ("fc", "out"))
    assert graph.nodes["fc"] == n.Affine(FC.weight, FC.bias, 3, origin=("fc", "d"))
    # y(t) = W x(t - 3 dt) + b, with zero input before the first step.
    x = np.arange(10.0).reshape(5, 2)
    y = simulate(graph, x).outputs["fc"][:, 0, 0]
    assert y.tolist() == [3, 3, 3, 2 + 3, 8 + 3]


def test_delay_before_an_affine() -> None:
    graph = discretise(imported(("d", delay(0.002, 0.002)), ("fc", FC), size=2, out=1), dt=1e-3)
    assert graph.nodes["fc"] == n.Affine(FC.weight, FC.bias, 2, origin=("fc", "d"))
    with pytest.raises(GraphError, match=r"d: a delay of 2 steps .* has no Affine"):
        discretise(imported(("d", delay(0.002)), ("s", n.Scale(np.ones(1)))), dt=1e-3)


def test_delays_add_up_and_zero_goes() -> None:
    graph = imported(("fc", FC), ("d", delay(0.001)), ("e", delay(0.0)), ("f", delay(0.002)), size=2, out=1)
    fc = discretise(graph, dt=1e-3).nodes["fc"]
    assert isinstance(fc, n.Affine)
    assert fc.delay == 3
    gone = discretise(imported(("d", delay(0.0)), ("s", n.Scale(np.ones(1)))), dt=1e-3)
    assert list(gone.nodes) == ["in", "s", "out"]
    assert gone.edges == (("in", "s"), ("s", "out"))


def test_a_delay_with_company_is_refused() -> None:
    nodes = {"in": n.Input((2,)), "fc": FC, "d": delay(0.001), "out": n.Output((1,)), "out2": n.Output((1,))}
    edges = (("in", "fc"), ("fc", "d"), ("fc", "out2"), ("d", "out"))
    with pytest.raises(GraphError, match="d: a delay of 1 steps"):
        discretise(Graph(Level.IMPORTED, nodes, edges), dt=1e-3)


@pytest.mark.parametrize(
    ("seconds", "cause"),
    [
        ((0.0015,), r"d: delay is no whole number of steps \(0\.0015 against 0\.001\)"),
        ((-0.001,), r"d: delay is negative \(-0\.001 against 0\)"),
        ((100.0,), r"d: delay is longer than 65536 steps \(100\.0 against 65\.536\)"),
        ((1e308,), r"d: delay is longer than 65536 steps"),
    ],
)
def test_impossible_delays(seconds: tuple[float, ...], cause: str) -> None:
    with pytest.raises(GraphError, match=cause):
        discretise(imported(("fc", FC), ("d", delay(*seconds)), size=2, out=1), dt=1e-3)


def test_channels_that_differ_in_delay() -> None:
    graph = imported(("d", delay(0.001, 0.002)), ("fc", FC), size=2, out=1)
    with pytest.raises(GraphError, match=r"d: its channels differ in delay \(0\.002 against 0\.001\)"):
        discretise(graph, dt=1e-3)


def test_delays_saved_as_float32() -> None:
    graph = imported(("fc", FC), ("d", delay(float(np.float32(0.007)))), size=2, out=1)
    fc = discretise(graph, dt=1e-3).nodes["fc"]
    assert isinstance(fc, n.Affine)
    assert fc.delay == 7


# --------------------------------------------------------------------------------------------------------------------
# Recurrence


def lif(size: int = 1) -> n.Neuron:
    ones = np.ones(size)
    return n.Neuron(n.ContinuousMembrane(ones, ones / 10, 0 * ones), None, n.Spike(ones, 0 * ones))


def eye(bias: bool = False) -> n.Affine:
    return n.Affine(np.eye(1), np.ones(1) if bias else None)


def recurrent(nodes: dict[str, Op], edges: list[str]) -> Graph:
    """Edges as "a b"."""
    ends: dict[str, Op] = {"in": n.Input((1,)), "out": n.Output((1,))}
    return Graph(Level.IMPORTED, {**ends, **nodes}, tuple((e.split()[0], e.split()[1]) for e in edges))


def delays(graph: Graph) -> dict[str, int]:
    return {name: node.delay for name, node in graph.of_type(n.Affine) if isinstance(node, n.Affine)}


def test_the_way_back_gets_the_delay_whatever_the_order() -> None:
    """Two layers, a loop over both: fc2 lies on the way from input to output, back does not."""
    nodes: dict[str, Op] = {"fc": eye(), "a": lif(), "fc2": eye(), "b": lif(), "back": eye()}
    edges = ["in fc", "fc a", "a fc2", "fc2 b", "b out", "b back", "back a"]
    for turn in range(len(edges)):
        mixed = dict(list(nodes.items())[turn % 5 :] + list(nodes.items())[: turn % 5])
        graph = discretise(recurrent(mixed, edges[turn:] + edges[:turn]), dt=1e-3)
        assert {name for name, k in delays(graph).items() if k} == {"back"}


def test_the_way_back_through_other_nodes() -> None:
    nodes: dict[str, Op] = {"fc": eye(), "a": lif(), "rec": eye(), "scale": n.Scale(np.ones(1)), "rec2": eye()}
    edges = ["in fc", "fc a", "a out", "a rec", "rec scale", "scale rec2", "rec2 a"]
    graph = discretise(recurrent(nodes, edges), dt=1e-3)
    # One delay on the way, at the Affine that the neuron feeds.
    assert delays(graph) == {"fc": 0, "rec": 1, "rec2": 0}


def test_a_delay_on_the_way_back_is_enough() -> None:
    nodes: dict[str, Op] = {"fc": eye(), "a": lif(), "rec": eye(bias=True), "d": delay(0.004)}
    graph = discretise(recurrent(nodes, ["in fc", "fc a", "a out", "a rec", "rec d", "d a"]), dt=1e-3)
    assert delays(graph) == {"fc": 0, "rec": 4}


def test_only_what_lies_on_a_cycle_is_delayed() -> None:
    """fc2 leads to a neuron nearer to the input than itself, and no cycle passes through it."""
    nodes: dict[str, Op] = {"fc": eye(), "a": lif(), "rec": eye(bias=True), "fc2": eye(), "near": lif()}
    edges = ["in near", "near out", "in fc", "fc a", "a rec", "rec a", "a fc2", "fc2 near"]
    graph = discretise(recurrent(nodes, edges), dt=1e-3)
    assert delays(graph) == {"fc": 0, "rec": 1, "fc2": 0}
    assert graph.nodes["rec"].bias is not None  # type: ignore[attr-defined]


def test_a_cycle_without_an_affine_for_the_delay() -> None:
    direct = recurrent({"fc": eye(), "a": lif()}, ["in fc", "fc a", "a out", "a a"])
    with pytest.raises(GraphError, match=r"a: a cycle has no Affine that could carry its delay: a.*put an Affine"):
        discretise(direct, dt=1e-3)
    # The only Affine in the cycle lies on the way forward: a delay there would be one of the network's own.
    forward = recurrent({"a": lif(), "fc": eye(), "b": lif()}, ["in a", "a fc", "fc b", "b out", "b a"])
    with pytest.raises(GraphError, match="a cycle has no Affine"):
        discretise(forward, dt=1e-3)


# --------------------------------------------------------------------------------------------------------------------
# Large graphs: linear time


def quickly(graph: Graph) -> Graph:
    start = time.process_time()
    made = discretise(graph, dt=1e-3)
    assert time.process_time() - start < 10  # a second or so; anything quadratic takes minutes
    return made


def test_a_long_chain_of_delays() -> None:
    named: list[tuple[str, Op]] = []
    for k in range(4_000):
        named += [(f"fc{k}", eye()), (f"d{k}", delay(0.002))]
    graph = quickly(imported(*named))
    assert list(graph.nodes) == ["in", *(f"fc{k}" for k in range(4_000)), "out"]
    assert set(delays(graph).values()) == {2}


def test_a_hub_of_delays() -> None:
    """One neuron feeds thousands of Affines over delays of their own, and all of them feed another one."""
    count = 5_000
    nodes: dict[str, Op] = {"fc": eye(), "a": lif(), "b": lif()}
    edges = ["in fc", "fc a", "b out"]
    for k in range(count):
        nodes |= {f"d{k}": delay(0.001), f"fc{k}": eye()}
        edges += [f"a d{k}", f"d{k} fc{k}", f"fc{k} b"]
    graph = quickly(recurrent(nodes, edges))
    assert len(graph.nodes) == 5 + count
    assert set(delays(graph).values()) == {0, 1}


def test_a_long_loop_and_many_short_ones() -> None:
    count = 3_000
    nodes: dict[str, Op] = {}
    edges = []
    before = "in"
    for k in range(count):
        nodes |= {f"fc{k}": eye(), f"a{k}": lif(), f"rec{k}": eye()}
        edges += [f"{before} fc{k}", f"fc{k} a{k}", f"a{k} rec{k}", f"rec{k} a{k}"]
        before = f"a{k}"
    nodes["back"] = eye()
    edges += [f"{before} out", f"{before} back", "back a0"]
    graph = quickly(recurrent(nodes, edges))
    assert {name for name, k in delays(graph).items() if k} == {"back", *(f"rec{k}" for k in range(count))}


def test_delays_that_multiply_edges_are_refused() -> None:
    """A delay between 600 sources and 600 destinations stands for 360,000 edges."""
    nodes: dict[str, Op] = {"fc": eye(), "d": delay(0.0)}
    edges = []
    for k in range(600):
        nodes |= {f"a{k}": eye(), f"b{k}": eye()}
        edges += [f"in a{k}", f"a{k} d", f"d b{k}", f"b{k} out"]
    edges += ["in fc", "fc out"]
    with pytest.raises(GraphError, match="graph: it has more than 131072 edges when nodes that only pass values on"):
        discretise(recurrent(nodes, edges), dt=1e-3)


def test_delays_in_a_circle_of_their_own() -> None:
    graph = recurrent({"d": delay(0.0), "e": delay(0.0), "fc": eye()}, ["in fc", "fc out", "d e", "e d"])
    with pytest.raises(GraphError, match="graph: d, e feed one another and nothing else"):
        discretise(graph, dt=1e-3)


def test_a_policy_keeps_its_contract(norse: Graph) -> None:
    policy = Policy(norse, random_policy(sizes=(1, 1, 1)).contract)
    with pytest.raises(GraphError, match="nothing decodes an action"):  # looked at as a policy
        discretise(policy, dt=1e-4)
    ready = random_policy()
    assert discretise(ready) is ready
