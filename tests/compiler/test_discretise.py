"""From continuous time to steps: published numbers, exact solutions, delays, recurrence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import random_policy

import nervecord
from nervecord.compiler import ops as n
from nervecord.compiler.files.serialise import graph_to_data
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.verify import verify
from nervecord.compiler.nir.file import read_nir
from nervecord.compiler.ops import Level, Op
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.plan.interpret import Machine, simulate
from nervecord.errors import GraphError, NervecordError

DATA = Path(__file__).parent.parent / "data" / "nir"
CONVENTIONS = ("euler", "exact")


def imported(*nodes: tuple[str, Op], size: int = 1, out: int | None = None, dt: float | None = None) -> Graph:
    ends = ("in", n.Input((size,))), ("out", n.Output((size if out is None else out,)))
    return chain(Level.IMPORTED, [ends[0], *nodes, ends[1]], dt=dt)


def column(file: str, k: int) -> np.ndarray:
    return np.loadtxt(DATA / file, delimiter=",")[:, k]


def membrane(graph: Graph, name: str, inputs: np.ndarray) -> np.ndarray:
    machine = Machine(graph)
    trace = []
    for x in inputs:
        machine.step({"input": np.array([[x]])})
        trace.append(machine.state[name]["v"][0, 0])
    return np.array(trace)


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
    fields = [
        "r",
        *(["tau", "leak"] if "L" in name else []),
        *(["tau_syn", "w_in"] if "Cuba" in name else []),
        *(["threshold", "reset_value"] if name.endswith("F") else []),
    ]
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


@settings(max_examples=examples(60), deadline=None)
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


@settings(max_examples=examples(60), deadline=None)
@given(tau=positive, x=st.floats(-5, 5), part=st.floats(0.001, 1))
def test_euler_error_is_what_the_docstring_says(tau: float, x: float, part: float) -> None:
    """(dt/tau)^2 / 2 of the distance to equilibrium, at most."""
    node = li([tau], [1.0], [0.0])
    step = membrane_of(discretise(imported(("x", node)), dt=part * tau), "x")
    v = 0.75
    error = abs(step.decay[0] * v + step.gain[0] * x - (x + (v - x) * np.exp(-part)))
    assert error <= part**2 / 2 * abs(v - x) * (1 + 1e-9) + 1e-12


@settings(max_examples=examples(20), deadline=None)
@given(tau=st.floats(0.5, 5), tau_syn=st.floats(0.5, 5), x=st.floats(-2, 2), dt=st.floats(0.05, 1))
def test_exact_current_is_held_within_its_bound(tau: float, tau_syn: float, x: float, dt: float) -> None:
    values = {"tau_syn": tau_syn, "tau": tau, "r": 1.0, "leak": 0.0, "w_in": 1.0}
    node = continuous("CubaLI", {field: np.array([value]) for field, value in values.items()})
    membrane, synapse = parts(discretise(imported(("x", node)), dt=dt, convention="exact").nodes["x"])
    i, v = 0.5, -0.25
    new = synapse.decay[0] * i + synapse.gain[0] * x
    expected = membrane.decay[0] * v + membrane.gain[0] * new
    assert new == pytest.approx(x + (i - x) * np.exp(-dt / tau_syn), rel=1e-12)
    # The truth, by a fine midpoint rule on v(dt) = a v + 1/tau * integral of exp(-(dt - s)/tau) i(s).
    s = (np.arange(4000) + 0.5) * dt / 4000
    current = x + (i - x) * np.exp(-s / tau_syn)
    truth = np.exp(-dt / tau) * v + float(np.mean(np.exp(-(dt - s) / tau) * current)) * dt / tau
    bound = -np.expm1(-dt / tau) * abs(new - i)
    assert abs(expected - truth) <= bound * (1 + 1e-6) + 1e-7  # the rule's own error: 1e-8


def test_a_step_longer_than_a_time_constant() -> None:
    graph = imported(("li", li([1e-3, 5e-3], [1, 1], [0, 0])), size=2)
    with pytest.raises(GraphError, match=r"li: tau .*\(0\.001 against 0\.002\)"):
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
    with pytest.raises(GraphError, match=r"time step.*--dt"):
        discretise(norse)
    with pytest.raises(GraphError, match=r"\bdt .*0\.001 s.*0\.0001 s"):
        discretise(norse.replace(dt=1e-4), dt=1e-3)
    with pytest.raises(GraphError, match=r"0\.001 s.*0\.0001 s"):
        discretise(discretise(norse, dt=1e-4), dt=1e-3)
    with pytest.raises(GraphError, match=r"\bdt .*-1\.0 s"):
        discretise(norse, dt=-1.0)
    assert discretise(norse.replace(dt=1e-4)).dt == 1e-4


def test_unknown_convention(norse: Graph) -> None:
    with pytest.raises(NervecordError, match=r"'exakt'.*'exact'"):
        discretise(norse, dt=1e-4, convention="exakt")


def test_all_that_is_wrong_is_said_at_once() -> None:
    graph = imported(
        ("li", li([1e-4], [1], [0])), ("fc", n.Affine([[1.0]])), ("d", n.Delay(np.array([0.0015]), origin=("d",)))
    )  # type: ignore[arg-type]
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


def test_a_policy_keeps_its_contract(norse: Graph) -> None:
    policy = Policy(norse, random_policy(sizes=(1, 1, 1)).contract)
    with pytest.raises(GraphError, match="nothing decodes an action"):  # looked at as a policy
        discretise(policy, dt=1e-4)
    ready = random_policy()
    assert discretise(ready) is ready


def test_what_enters_leaves_as_it_is_where_nothing_stands_between() -> None:
    """An Input straight into an Output, alone and beside a network."""
    graph = chain(Level.IMPORTED, [("in", n.Input((2, 3))), ("out", n.Output((2, 3)))], dt=1e-3)
    x = np.arange(24.0).reshape(4, 2, 3)
    assert np.array_equal(simulate(discretise(graph), x).left["out"][:, 0], x)
    nodes = {**graph.nodes, "fc": n.Flatten((2, 3), 0, -1), "flat": n.Output((6,))}
    beside = Graph(Level.IMPORTED, nodes, (*graph.edges, ("in", "fc"), ("fc", "flat")), 1e-3)
    outputs = simulate(discretise(beside), x).left
    assert np.array_equal(outputs["out"][:, 0].reshape(4, 6), outputs["flat"][:, 0])
    program = nervecord.compile(graph, "reference")
    with nervecord.stream(program) as stream:
        assert np.array_equal(stream.run(x)["out"][:, 0], x)
    assert nervecord.inspect(graph, "reference").feasible
