"""The reset rule that a NIR file cannot say: noticed, given by the user, executed as snnTorch does."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from examples import some

import nervecord
from nervecord.compiler import ops as n
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.nir.file import read_nir, write_nir
from nervecord.compiler.passes.resets import UNSAID, with_reset
from nervecord.compiler.plan.interpret import simulate
from nervecord.errors import GraphError, NervecordError

torch = pytest.importorskip("torch")
snntorch = pytest.importorskip("snntorch")
DATA = Path(__file__).parent.parent / "data" / "nir"
DT = 1e-4


def exported(path: Path, net: Any, sample: Any) -> Path:
    """The file that snnTorch's own export writes."""
    pytest.importorskip("nirtorch")  # what snnTorch exports by
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from snntorch.export_nir import export_to_nir

        nir.write(path, export_to_nir(net, sample))
    return path


def leaky(beta: Any, mechanism: str, delay: bool) -> Any:
    torch.manual_seed(3)
    beta = torch.full((5,), beta) if isinstance(beta, float) else beta
    threshold = torch.full((5,), 0.7)
    lif = snntorch.Leaky(beta, threshold=threshold, init_hidden=True, reset_mechanism=mechanism, reset_delay=delay)
    first = torch.nn.Linear(4, 5)
    torch.nn.init.zeros_(first.bias)
    return torch.nn.Sequential(first, lif)


def forward(net: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spikes and membranes of the maker's own forward, in float64."""
    net = net.double()
    net[1].reset_mem()
    with torch.no_grad():
        both = [(net(torch.from_numpy(row)).numpy(), net[1].mem.numpy().copy()) for row in x]
    return np.stack([spikes for spikes, _ in both]), np.stack([mem for _, mem in both])


RULES = {
    ("zero", True): "zero",
    ("zero", False): "zero",
    ("subtract", True): "subtract-late",
    ("subtract", False): "subtract-early",
}


@pytest.mark.parametrize(("mechanism", "delay"), RULES)
@pytest.mark.parametrize("beta", some([0.9, 0.5, 0.0], 1))
def test_snntorch_spike_for_spike(mechanism: str, delay: bool, beta: float, tmp_path: Path) -> None:
    """The three reset rules and a decay of 0, whose time constant is dt up to float32."""
    net = leaky(beta, mechanism, delay)
    path = exported(tmp_path / "a.nir", net, torch.zeros(4))
    x = np.random.default_rng(1).normal(1.5 / 8, 1.5, size=(600, 4))
    graph = nervecord.read(path, dt=DT, reset=RULES[mechanism, delay])
    assert isinstance(graph, Graph)
    actual = simulate(graph, x).left["output"][:, 0]
    expected, membranes = forward(net, x)
    if (mechanism, delay) == ("subtract", False):
        # Some stay above their threshold, where the rule is another one than "subtract".
        assert (membranes > 0.7).sum() > 20
        other = nervecord.read(path, dt=DT, reset="subtract")
        assert (simulate(other, x).left["output"][:, 0] != expected).any()
    assert 20 < expected.sum() < 2900
    assert np.array_equal(actual, expected)
    # Without the rule some spikes differ where the reset is not to zero, and the file is one that is warned of.
    plain = nervecord.read(path, dt=DT)
    assert [note.code for note in plain.notes] == [UNSAID]
    if mechanism == "subtract" and beta:
        assert not np.array_equal(simulate(plain, x).left["output"][:, 0], expected)


def test_the_late_rule_is_the_published_equation() -> None:
    """v(t) = decay v(t - 1) + x(t) - threshold s(t - 1), in plain Python."""
    op = n.Neuron(
        n.Membrane(np.array([0.8]), np.ones(1), np.array([0.05])),
        None,
        n.Spike(np.array([0.6]), np.zeros(1), "subtract-late"),
    )
    state, v, s = op.state(1), 0.0, 0.0
    for x in np.random.default_rng(0).normal(0.3, 0.5, size=200).tolist():
        inputs = op.step(state, np.array([[x]]))
        v = 0.8 * v + x + 0.05 - 0.6 * s
        s = float(v > 0.6)
        assert float(inputs[0, 0]) == s
        assert float(state["v"][0, 0]) == pytest.approx(v, abs=1e-12)


def test_what_is_subtracted_late_waits_until_a_neuron_rests_no_more() -> None:
    """v(t) = 0.5 v(t - 1) + 1, a threshold of 1 and two silent steps: the debt of the spike comes off in step 4."""
    membrane = n.Membrane(np.array([0.5]), np.ones(1), np.zeros(1))
    op = n.Neuron(membrane, None, n.Spike(np.ones(1), np.zeros(1), "subtract-late", 2))
    state = op.state(1)
    trace = [(float(op.step(state, np.ones((1, 1)))[0, 0]), float(state["v"][0, 0])) for _ in range(6)]
    assert trace == [(0, 1), (1, 1.5), (0, 1.5), (0, 1.5), (0, 0.75), (1, 1.375)]


@pytest.mark.parametrize("rule", sorted(set(RULES.values()) - {"zero"}))
def test_a_rule_comes_back_from_a_file_and_is_idempotent(rule: str, tmp_path: Path) -> None:
    path = exported(tmp_path / "a.nir", leaky(0.9, "subtract", True), torch.zeros(4))
    graph = nervecord.read(path, dt=DT, reset=rule)
    assert isinstance(graph, Graph)
    assert with_reset(graph, rule) is graph
    write_nir(graph, tmp_path / "b.nir")
    assert read_nir(tmp_path / "b.nir") == graph
    (spike,) = (op.spike for _, op in graph.of_type(n.Neuron))
    assert isinstance(spike, n.Spike)
    assert spike.reset == rule


def test_inspect_warns_and_lava_refuses_what_it_has_not(tmp_path: Path) -> None:
    path = exported(tmp_path / "a.nir", leaky(0.9, "subtract", True), torch.zeros(4))
    report = nervecord.inspect(nervecord.read(path, dt=DT), "lava", inputs=4.0)
    assert [(f.code, f.severity) for f in report.findings] == [(UNSAID, "warning")]
    assert "--reset subtract-late" in report.findings[0].fix
    assert report.feasible
    assert [note.code for note in nervecord.inspect(path, "reference").findings] == [UNSAID]
    late = nervecord.inspect(nervecord.read(path, dt=DT, reset="subtract-late"), "lava", inputs=4.0)
    assert late.findings == ()
    assert [f.code for f in late.targets[0].findings if f.severity == "error"] == ["reset-rule"]
    zero = nervecord.inspect(nervecord.read(path, dt=DT, reset="zero"), "lava", inputs=4.0)
    assert zero.feasible
    assert zero.findings == ()


def test_a_program_keeps_the_warning(tmp_path: Path) -> None:
    path = exported(tmp_path / "a.nir", leaky(0.9, "zero", True), torch.zeros(4))
    program = nervecord.compile(path, "lava", dt=DT, inputs=4.0)
    assert UNSAID in [finding["code"] for finding in program.report["findings"]]
    program = nervecord.compile(path, "lava", dt=DT, inputs=4.0, reset="zero")
    assert UNSAID not in [finding["code"] for finding in program.report["findings"]]


def test_who_is_taken_for_snntorchs() -> None:
    notes = {
        name: [note.code for note in read_nir(DATA / name).notes]
        for name in ("lif_norse.nir", "braille_noDelay_bias_zero.nir")  # type: ignore[union-attr]
    }
    assert notes == {"lif_norse.nir": [], "braille_noDelay_bias_zero.nir": [UNSAID]}


def test_rules_that_cannot_be_given(tmp_path: Path) -> None:
    op = n.Neuron(n.Membrane(np.ones(1), np.ones(1), np.zeros(1)), None, n.Spike(np.ones(1), np.full(1, -0.5)))
    nodes = {"in": n.Input((1,)), "lif": op, "out": n.Output((1,))}
    graph = Graph(n.Level.DISCRETE, nodes, (("in", "lif"), ("lif", "out")), 1e-3)
    with pytest.raises(GraphError, match="resets to a value that is not zero"):
        with_reset(graph, "subtract")
    with pytest.raises(NervecordError, match=r"'substract'.*'subtract'"):
        with_reset(graph, "substract")


def test_a_batch_axis_is_named(tmp_path: Path) -> None:
    """snnTorch's export of a batched sample writes an Input with the batch in its shape."""
    nodes = {
        "input": nir.Input({"input": np.array([1, 4])}),
        "fc": nir.Linear(np.ones((5, 4))),
        "output": nir.Output({"output": np.array([5])}),
    }
    nir.write(tmp_path / "a.nir", nir.NIRGraph(nodes, [("input", "fc"), ("fc", "output")], type_check=False))
    with pytest.raises(
        GraphError, match=r"fc: takes shape \(4,\), and input gives \(1, 4\).*batch axis of 1: export it"
    ):
        nervecord.read(tmp_path / "a.nir")


@pytest.mark.parametrize("end", ["in", "out"])
def test_an_inner_end_of_another_shape_is_named(end: str, tmp_path: Path) -> None:
    ones = np.ones(3)
    sizes = {"in": 3, "out": 3, end: 2}
    inner = nir.NIRGraph(
        {
            "in": nir.Input({"input": np.array([sizes["in"]])}),
            "li": nir.LI(ones / 100, ones, 0 * ones),
            "out": nir.Output({"output": np.array([sizes["out"]])}),
        },
        [("in", "li"), ("li", "out")],
        type_check=False,
    )
    nodes = {
        "input": nir.Input({"input": np.array([3])}),
        "sub": inner,
        "output": nir.Output({"output": np.array([3])}),
    }
    nir.write(tmp_path / "a.nir", nir.NIRGraph(nodes, [("input", "sub"), ("sub", "output")], type_check=False))
    with pytest.raises(NervecordError, match=rf"'sub\.{end}': .*\(2,\).*\(3,\)"):
        nervecord.read(tmp_path / "a.nir")
