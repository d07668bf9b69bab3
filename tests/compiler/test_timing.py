"""What enters, loops, delays, ends and proofs, on a target that computes in integers; graphs of ten thousand nodes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import policies
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import (
    ARITHMETIC,
    LAVA,
    LOIHI1,
    REFERENCE,
    affine,
    current_lif,
    entry,
    fact,
    lif,
    net,
    readout,
    recurrent,
    skip,
    two_readouts,
)

from nervecord.compiler.check.placement import place
from nervecord.compiler.check.table import errors, findings_of, verdict
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.graph.verify import verify
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import Affine, Decode, Input, Level, Op, Output
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.compiler.plan.interpret import simulate
from nervecord.compiler.plan.timing import Lateness
from nervecord.compiler.plan.topology import Topology
from nervecord.compiler.target.protocol import TargetSpec
from nervecord.errors import InfeasibleError


def codes(subject: Graph | Policy, spec: TargetSpec = LAVA, **arguments: Any) -> dict[str, str]:
    return {finding.code: finding.severity for finding in findings_of(subject, spec, **arguments)}


def test_what_enters_is_declared_where_it_must_be() -> None:
    graph = net(affine(), lif())
    unknown = graph.replace(nodes={**graph.nodes, "input": Input((2,))})
    assert verdict(findings_of(graph, LAVA)) == "feasible"
    # Inspecting leaves it open; compiling must know.
    assert codes(unknown)["undeclared-input"] == "unknown"
    assert verdict(findings_of(unknown, LAVA)) == "unknown"
    (finding,) = errors(unknown, LAVA)
    assert (finding.code, finding.severity) == ("undeclared-input", "error")
    assert "--inputs" in finding.fix
    # Floats need no limits.
    assert verdict(findings_of(unknown, REFERENCE)) == "feasible"
    spiking = graph.replace(nodes={**graph.nodes, "input": Input((2,), "spikes")})
    assert verdict(findings_of(spiking, LAVA)) == verdict(findings_of(spiking, LOIHI1)) == "feasible"
    assert codes(graph, LOIHI1)["graded-input"] == "error"


def test_a_loop_must_pay_for_all_its_connections() -> None:
    nodes = {"there": affine(), "second": lif(), "back": affine(delay=1)}
    graph = recurrent(**nodes)
    edges = (*graph.edges[:3], ("lif", "there"), ("there", "second"), ("second", "back"), ("back", "lif"))
    long = graph.replace(edges=edges)
    (finding,) = errors(long, LAVA)
    assert (finding.code, finding.value, finding.limit) == ("loop-delay", 1, 2)
    assert "back" in finding.message
    assert "there" in finding.message
    for delays in ((1, 1), (2, 0), (0, 2), (5, 5)):
        paid = {**long.nodes, "there": affine(delay=delays[0]), "back": affine(delay=delays[1])}
        assert errors(long.replace(nodes=paid), LAVA) == []
    assert codes(recurrent(delay=1))["recurrence"] == "info"


def test_loops_and_delays_are_refused_where_state_is_cleared() -> None:
    window = Schedule(5, "reset")
    assert codes(recurrent(), schedule=window)["reset-with-delays"] == "error"
    assert codes(net(affine(delay=1), lif()), schedule=window)["reset-with-delays"] == "error"
    assert codes(skip(), schedule=window) == codes(skip())
    assert verdict(findings_of(skip(), LAVA, window)) == "feasible"


def test_the_shorter_path_waits_and_says_how_long(make_policy: Callable[..., Policy]) -> None:
    (finding,) = [finding for finding in findings_of(skip(), LAVA) if finding.code == "unbalanced-paths"]
    assert (finding.severity, finding.node, finding.value) == ("info", "around", 1)
    policy = make_policy((3, 4, 5, 2))
    edges = (*policy.graph.edges, ("normalise", "around"), ("around", "readout"))
    branched = policy.replace(
        graph=policy.graph.replace(nodes={**policy.graph.nodes, "around": affine(3, 2)}, edges=edges)
    )
    assert verify(branched) == []
    finding, late = [f for f in findings_of(branched, LAVA) if f.code in ("unbalanced-paths", "latency")]
    assert (finding.node, finding.value) == ("around", 2)
    assert late.value == 5 + 3


def test_spikes_are_relayed_and_values_are_not() -> None:
    relayed = net(affine(), lif(), affine(delay=200), lif())
    (finding,) = [finding for finding in findings_of(relayed, LAVA) if finding.code == "delay-range"]
    assert (finding.severity, finding.node, finding.value, finding.limit) == ("info", "affine2", 199, 63)
    # The first layer is one step late, which this delay takes back; three populations cut the rest into four.
    assert "3 further populations" in finding.message
    assert verdict(findings_of(relayed, LAVA)) == "feasible"
    assert codes(net(affine(delay=64), lif()))["delay-range"] == "error"
    assert "delay-range" not in codes(net(affine(delay=63), lif()))
    assert codes(net(affine(delay=64), lif(), spiking=True))["delay-range"] == "info"
    # A chip that only subtracts has no neuron that forgets.
    subtracting = dataclasses.replace(LAVA, behaviour=dataclasses.replace(LAVA.behaviour, resets=fact(("subtract",))))
    assert codes(relayed, subtracting)["delay-range"] == "error"


def test_a_bias_into_a_current_needs_something_that_can_carry_it() -> None:
    """The host can, beside values as beside spikes: it says in which steps they enter."""
    values = net(affine(bias=True), current_lif())
    assert codes(values)["bias-channel"] == "info"
    spikes = net(affine(bias=True), current_lif(), spiking=True)
    assert codes(spikes)["bias-channel"] == "info"
    assert place(spikes, LAVA).bias_inputs == place(values, LAVA).bias_inputs == 1
    lower(spikes, ARITHMETIC, None)
    deeper = net(affine(), lif(), affine(bias=True), current_lif(), spiking=True)
    assert codes(deeper)["bias-channel"] == "info"
    # A population that is read has no neuron to spare: its spikes are the output.
    with_readout = deeper.replace(
        nodes={**deeper.nodes, "output2": Output((2,))}, edges=(*deeper.edges, ("lif1", "output2"))
    )
    assert codes(with_readout)["bias-channel"] == "error"
    with pytest.raises(InfeasibleError, match=r"cubalif3: .*carry"):
        lower(with_readout, ARITHMETIC, None)


def test_a_decoder_of_membranes_does_not_read_spikes() -> None:
    decoded = net(affine(), lif(), Decode(*np.ones((4, 2))))
    assert codes(decoded)["spiking-readout"] == "error"
    assert "spiking-readout" not in codes(decoded, REFERENCE)
    assert "spiking-readout" not in codes(net(affine(), readout(), Decode(*np.ones((4, 2)))))


def test_what_outputs_add_up_may_have_any_scales() -> None:
    """Membranes ten thousand times apart, and spikes beside them: each leaves in its own unit."""
    rng = np.random.default_rng(0)
    nodes: dict[str, Op] = {"input": Input((3,), "values", 2.0), "out1": Output((2,)), "out2": Output((2,))}
    edges: list[Edge] = []
    for name, gain, op in (("a", 0.01, readout()), ("b", 1.0, readout()), ("c", 100.0, readout()), ("s", 1.0, lif())):
        nodes |= {f"fc.{name}": Affine(gain * rng.normal(size=(2, 3))), name: op}
        edges += [("input", f"fc.{name}"), (f"fc.{name}", name)]
    edges += [("a", "out1"), ("b", "out1"), ("b", "out2"), ("c", "out2"), ("s", "out1")]
    graph = Graph(Level.DISCRETE, nodes, tuple(edges), 1e-3)
    assert verdict(findings_of(graph, LAVA)) == "feasible"
    lowered, _ = lower(graph, ARITHMETIC, None)
    assert isinstance(lowered, Graph)
    x = rng.uniform(-2, 2, size=(200, 3))
    floats, integers = simulate(graph, x).left, simulate(lowered, x).left
    for name in ("out1", "out2"):
        expected, actual = floats[name][:-1], integers[name][1:]  # one connection: one step later
        # A spike more or less is one; all else is far closer.
        error = np.abs(actual - expected)
        assert np.median(error) < 0.02 * np.abs(expected).max()
        assert np.mean(error > 0.02 * np.abs(expected).max()) < 0.05


@settings(max_examples=examples(150), deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 5), cost=st.integers(0, 3))
def test_timing_equals_brute_force(seed: int, count: int, cost: int) -> None:
    """Longest paths and loops that are too short, by trying all walks."""
    draw = np.random.default_rng(seed)
    nodes: dict[str, Op] = {"input": entry(1), "output": Output((1,))}
    edges: dict[tuple[str, str], None] = {}
    late = np.full((count + 1, count + 1), -np.inf)  # by how much b is later than a; the last one is the input
    for k in range(count):
        nodes[f"lif{k}"] = lif(1)
    for k in range(2 * count):
        a, b, delay = draw.integers(count + 1), draw.integers(count), int(draw.integers(4))
        nodes[f"fc{k}"] = affine(1, 1, delay=delay)
        edges |= {("input" if a == count else f"lif{a}", f"fc{k}"): None, (f"fc{k}", f"lif{b}"): None}
        late[a, b] = max(late[a, b], cost - delay)
    names = [str(name) for name in draw.permutation(list(nodes))]
    graph = Graph(Level.DISCRETE, {name: nodes[name] for name in names}, tuple(edges), dt=1e-3)
    timing = Lateness.of(graph, Topology.of(graph), cost)
    longest = np.maximum(late, np.where(np.eye(count + 1, dtype=bool), 0, -np.inf))
    for _ in range(count + 2):  # walks of up to 2^k edges
        longest = np.maximum(longest, (longest[:, :, None] + longest[None]).max(axis=1))
    if (np.diag(longest) > 0).any():
        assert timing.loops
        assert all(loop.delay < loop.least == cost * len(loop.wires) for loop in timing.loops)
    else:
        assert timing.loops == ()
        # Nothing works earlier than the graph says, so every population is a start.
        assert [timing.late[f"lif{k}"] for k in range(count)] == longest.max(axis=0)[:count].tolist()


def large(kind: str, count: int = 5000) -> Graph:
    """Two nodes for each of `count`; a ring, a chain, or eighteen edges for each at random."""
    draw = np.random.default_rng(0)
    nodes: dict[str, Op] = {"input": entry(1)}
    nodes |= {f"lif{k}": lif(1) for k in range(count)}
    nodes |= {
        f"fc{k}": affine(1, 1, delay=2 if kind == "ring" and k % 2 else int(kind == "random")) for k in range(count)
    }
    edges = {("input", "fc0"): None, (f"lif{count - 1}", "output"): None}
    nodes["output"] = Output((1,))
    if kind == "random":
        for a, b, forth in zip(*draw.integers(count, size=(2, 18 * count)), draw.random(18 * count) < 0.5, strict=True):
            edges[(f"lif{a}", f"fc{b}") if forth else (f"fc{a}", f"lif{b}")] = None
    else:
        for k in range(count):
            edges |= {(f"fc{k}", f"lif{k}"): None, (f"lif{k}", f"fc{k + 1}"): None}
        del edges[f"lif{count - 1}", f"fc{count}"]
        if kind == "ring":
            edges[f"lif{count - 1}", "fc0"] = None
    return Graph(Level.DISCRETE, nodes, tuple(edges), dt=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["chain", "ring", pytest.param("random", marks=pytest.mark.slow)])
def test_time_grows_with_the_size_of_a_graph(kind: str) -> None:
    """Ten times the nodes take about ten times as long, on any machine; what grows with the square takes a hundred."""
    seconds = {}
    for count in (100, 1000):
        graph = large(kind, count)
        start = time.process_time()
        findings = findings_of(graph, LAVA)
        seconds[count] = time.process_time() - start
    assert seconds[1000] < 22 * seconds[100]
    assert "loop-delay" not in {finding.code for finding in findings}
    assert kind == "random" or Topology.of(graph).depth == (1000 if kind == "chain" else 0)


# --------------------------------------------------------------------------------------------------------------------
# What leaves, and what can be proved


def test_readouts_that_are_added_wait_for_each_other() -> None:
    graph = two_readouts(deep=readout())
    shallow = graph.replace(
        nodes={**graph.nodes, "around": affine(), "shallow": readout()},
        edges=(*graph.edges, ("input", "around"), ("around", "shallow"), ("shallow", "output")),
    )
    (finding,) = [finding for finding in findings_of(shallow, LAVA) if finding.code == "unbalanced-paths"]
    assert (finding.node, finding.value) == ("around", 1)
    assert verdict(findings_of(shallow, LAVA)) == "feasible"
    # In a window each is read in its own step.
    assert "unbalanced-paths" not in codes(shallow, schedule=Schedule(4, "reset"))
    # One that leads to the other cannot wait for it.
    inner = two_readouts()
    inner = inner.replace(edges=(*inner.edges, ("lif1", "output")))
    assert codes(inner)["ends-apart"] == "error"
    assert "ends-apart" not in codes(inner, schedule=Schedule(4, "reset"))
    apart = inner.replace(
        nodes={**inner.nodes, "output2": Output((2,))}, edges=(*inner.edges[:-1], ("lif1", "output2"))
    )
    assert verdict(findings_of(apart, LAVA)) == "feasible"


def test_a_layer_without_scales_is_found_by_inspecting() -> None:
    """Weights beside a threshold that is a million times smaller: no unit holds both."""
    far = net(affine(), lif(threshold=np.full(2, 1e-9)))
    (finding,) = [finding for finding in findings_of(far, LAVA) if finding.severity == "error"]
    assert finding.code == "no-scale"
    assert "no weight exponent" in finding.message
    with pytest.raises(InfeasibleError, match="lif1: ") as caught:
        lower(far, ARITHMETIC, None)
    assert caught.value.codes == ("no-scale",)
    assert "no-scale" not in codes(net(affine(), lif()))
    # Where another rule refuses it, nothing is tried.
    assert "no-scale" not in codes(net(affine(), lif(threshold=np.full(2, 1e-9), reset="none")))


def test_values_that_no_message_carries_are_found_by_inspecting() -> None:
    graph = net(affine(), lif())
    wide = graph.replace(nodes={**graph.nodes, "input": Input((2,), "values", 20_000.0)})
    (finding,) = [finding for finding in findings_of(wide, LAVA) if finding.severity == "error"]
    assert (finding.code, finding.value, finding.limit) == ("graded-range", 20_000, 16383.5)
    with pytest.raises(InfeasibleError, match="too large"):
        lower(wide, ARITHMETIC, None)


@pytest.mark.parametrize("carried", [False, True])
@pytest.mark.parametrize("seed", [*range(6), *(pytest.param(k, marks=pytest.mark.slow) for k in range(6, 12))])
def test_what_no_rule_refuses_is_lowered(seed: int, carried: bool) -> None:
    policy = policies.random_dag(seed, carried=carried, recurrent=carried)
    assert errors(policy, LAVA) == []
    assert verdict(findings_of(policy, LAVA)) == "feasible"
    lowered, _ = lower(policy, ARITHMETIC, calibrate(policy))
    assert {finding.severity for finding in findings_of(lowered, LAVA)} <= {"info", "warning"}
