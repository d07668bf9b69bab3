"""Lowering to integers: the schedule is exact, the quantisation close, the refusals named."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from examples import examples, some
from graphs import LAVA
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import li, lif, random_dag, random_policy, with_node

from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.lower.refusals import CARRIED_WITHOUT_DELAYS, NO_BIAS_CARRIER, RECURRENT_IN_A_WINDOW
from nervecord.compiler.ops import (
    Affine,
    Array,
    BiasChannel,
    Dense,
    Input,
    Level,
    Membrane,
    Neuron,
    Op,
    Output,
    PopulationEncode,
    Quantise,
)
from nervecord.compiler.plan.calibrate import calibrate, calibrate_stream
from nervecord.compiler.plan.host_steps import split
from nervecord.compiler.plan.interpret import Machine, simulate
from nervecord.compiler.plan.plan import plan
from nervecord.errors import InfeasibleError
from nervecord.runtime.measure.compare import compare
from nervecord.runtime.session import MachineSession

FREE = dataclasses.replace(LAVA, connection_delay=0)
"""Lava's arithmetic on a chip whose connections cost no steps."""


def lowered(policy: Policy, **options: object) -> tuple[Policy, dict[str, object]]:
    integers, report = lower(policy, LAVA, calibrate(policy), **options)  # type: ignore[arg-type]
    assert isinstance(integers, Policy)
    return integers, report


def delay_free(policy: Policy) -> Policy:
    """The same integer network on a chip whose connections take no steps: as it was trained."""
    nodes = {name: op.replace(delay=0) if isinstance(op, Dense) else op for name, op in policy.graph.nodes.items()}
    return policy.replace(graph=policy.graph.replace(nodes=nodes, arithmetic=FREE))


def useful(policy: Policy, observation: Array) -> dict[str, Array]:
    """What every population gave in the T steps that are its own."""
    machine = Machine(policy)
    _, steps = machine.window(observation[None])
    units = [unit.step.name for unit in machine.plan.units]
    return {name: np.stack([values[name][0] for values in steps])[machine.plan.useful(name)] for name in units}


@settings(max_examples=examples(25), deadline=None)
@given(
    seed=st.integers(0, 10**6),
    hidden=st.lists(st.integers(3, 12), min_size=1, max_size=3),
    steps=st.integers(1, 6),
    current=st.booleans(),
    bias=st.sampled_from([0.0, 0.1, 1.5]),
    population=st.sampled_from([0, 0, 4]),
)
def test_staggered_resets_give_the_delay_free_network_to_the_bit(
    seed, hidden, steps, current, bias, population
) -> None:
    policy = random_policy(
        seed, sizes=(5, *hidden, 2), steps=steps, current=current, bias=bias, recorded=24, population=population
    )
    integers, _ = lowered(policy)
    assert policy.recorded is not None
    for row in policy.recorded[:6]:
        late, free = useful(integers, row), useful(delay_free(integers), row)
        assert all(np.array_equal(late[name], free[name]) for name in free)


@settings(max_examples=examples(30), deadline=None)
@given(seed=st.integers(0, 10**6))
def test_balanced_paths_give_the_delay_free_network_to_the_bit(seed: int) -> None:
    """Skips, fan-in, several ends: on every way, whatever its length, step k means the same."""
    policy = random_dag(seed)
    try:
        integers, _ = lowered(policy)
    except InfeasibleError as error:
        assert "bias" in str(error)  # noqa: PT017
        return
    assert policy.recorded is not None
    machine = Machine(integers)
    assert machine.plan.window == policy.contract.steps + machine.plan.latency
    for row in policy.recorded[:4]:
        late, free = useful(integers, row), useful(delay_free(integers), row)
        assert free
        assert all(np.array_equal(late[name], free[name]) for name in free)
    # What one window leaves behind does not reach the next one.
    again = Machine(integers)
    for row in policy.recorded[:4]:
        action, _ = again.window(row[None])
        assert np.array_equal(action, Machine(delay_free(integers)).window(row[None])[0])


@settings(max_examples=examples(10), deadline=None)
@given(seed=st.integers(0, 10**6), recurrent=st.booleans())
def test_carried_branches_keep_the_delays_of_the_training(seed: int, recurrent: bool) -> None:
    policy = random_dag(seed, carried=True, recurrent=recurrent)
    try:
        integers, report = lowered(policy)
    except InfeasibleError as error:
        assert "bias" in str(error)  # noqa: PT017
        return
    assert report["latency"] == 0
    for name, op in policy.graph.nodes.items():
        if isinstance(op, Affine) and name in integers.graph.nodes:
            lowered_op = integers.graph.nodes[name]
            assert isinstance(lowered_op, Dense)
            assert lowered_op.delay == op.delay


def stream_graph(seed: int, *, skip: bool) -> Graph:
    """input -> two spiking layers, perhaps with a way around the first; no delays, so that a chip is later."""
    rng = np.random.default_rng(seed)
    nodes = {
        "input": Input((4,), "values", 3.0),
        "fc1": Affine(rng.normal(size=(6, 4))),
        "lif1": lif(6, 0.8),
        "fc2": Affine(rng.normal(size=(5, 6))),
        "lif2": lif(5, 0.9),
        "output": Output((5,)),
    }
    edges = [("input", "fc1"), ("fc1", "lif1"), ("lif1", "fc2"), ("fc2", "lif2"), ("lif2", "output")]
    if skip:
        nodes["around"] = Affine(rng.normal(size=(5, 4)))
        edges += [("input", "around"), ("around", "lif2")]
    return Graph(Level.DISCRETE, nodes, tuple(edges), 1e-3)


@pytest.mark.parametrize("skip", [False, True])
def test_a_stream_is_later_by_the_stated_latency_and_else_the_same(skip: bool) -> None:
    graph, x = stream_graph(1, skip=skip), np.random.default_rng(2).normal(size=(80, 4))
    schedule = Schedule()
    calibration = calibrate_stream(plan(graph, schedule), x)
    integers, report = lower(graph, LAVA, calibration, schedule=schedule)
    assert isinstance(integers, Graph)
    assert report["output_latency"] == {"output": 2}
    nodes = {n: op.replace(delay=0) if isinstance(op, Dense) else op for n, op in integers.nodes.items()}
    free = integers.replace(nodes=nodes, arithmetic=FREE)
    late, early = (simulate(g, x, schedule).left["output"][:, 0] for g in (integers, free))
    assert np.array_equal(late[2:], early[:-2])
    assert report["spikes_different"] < 0.1 * early.size
    assert early.sum() > 20


def test_a_stream_in_windows_is_read_in_its_own_steps() -> None:
    graph, x = stream_graph(1, skip=True), np.random.default_rng(2).normal(size=(80, 4))
    schedule = Schedule(8, "reset")
    integers, report = lower(graph, LAVA, calibrate_stream(plan(graph, schedule), x), schedule=schedule)
    assert isinstance(integers, Graph)
    outputs = simulate(integers, x, schedule).left["output"]
    assert outputs.shape == (80, 1, 5)
    floats = simulate(graph, x, schedule).left["output"]
    assert np.count_nonzero(outputs != floats) == report["spikes_different"] < 0.1 * outputs.size


def biased_currents(seed: int) -> Graph:
    """Spikes -> neurons with a synaptic current and a bias that enters it, two layers of them and a membrane."""
    rng = np.random.default_rng(seed)
    nodes: list[tuple[str, Op]] = [("input", Input((4,), "spikes"))]
    for k, size in enumerate((6, 5, 3)):
        fan_in = nodes[-1][1].size
        nodes.append((f"fc{k}", Affine(rng.normal(size=(size, fan_in)), rng.normal(size=size))))
        nodes.append((f"lif{k}", li(size, 0.8, current=0.7) if k == 2 else lif(size, 0.9, current=0.6)))
    return chain(Level.DISCRETE, [*nodes, ("output", Output((3,)))], dt=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_a_bias_into_a_current_that_only_spikes_feed_comes_through_a_channel_of_the_host(seed: int) -> None:
    graph, schedule = biased_currents(seed), Schedule(6, "reset")
    x = np.random.default_rng(seed).integers(0, 2, size=(120, 4))
    integer_graph, report = lower(graph, LAVA, calibrate_stream(plan(graph, schedule), x), schedule=schedule)
    assert isinstance(integer_graph, Graph)
    (entry,) = plan(integer_graph, schedule).entries
    assert isinstance(entry.op, BiasChannel)
    assert not plan(integer_graph, schedule).graded["fc0"]
    assert report["entries"] == [{"name": "input", "scale": None, "limit": None, "bias_channel": 1}]
    # The hidden layer carries the next one's bias, by a neuron of its own.
    assert integer_graph.nodes["lif0"].size == 7
    floats, integers = (simulate(g, x, schedule).left["output"] for g in (graph, integer_graph))
    # Far closer to the float network than that is to one without the first bias.
    bare = graph.replace(nodes={n: op.replace(bias=None) if n == "fc0" else op for n, op in graph.nodes.items()})
    error = simulate(bare, x, schedule).left["output"] - floats
    assert np.sqrt(np.mean((floats - integers) ** 2)) < 0.4 * np.sqrt(np.mean(error**2))
    # To the bit what the delay-free integer network does.
    nodes = {n: op.replace(delay=0) if isinstance(op, Dense) else op for n, op in integer_graph.nodes.items()}
    free = simulate(integer_graph.replace(nodes=nodes, arithmetic=FREE), x, schedule).left["output"]
    assert np.array_equal(free, integers)


def test_a_bias_that_nothing_can_carry_is_refused() -> None:
    """Neurons that are read cannot have one more among them."""
    graph = biased_currents(0)
    nodes = {n: op.replace(bias=None) if n == "fc0" else op for n, op in graph.nodes.items()}
    nodes["first"] = Output((6,))
    with_readout = graph.replace(nodes=nodes, edges=(*graph.edges, ("lif0", "first")))
    with pytest.raises(InfeasibleError, match=re.escape(NO_BIAS_CARRIER.message)):
        lower(with_readout, LAVA, None)


def test_a_wait_beyond_the_longest_delay_is_relayed() -> None:
    """A chip whose delays end at 1 step: the way around must go through neurons that pass spikes on."""
    rng = np.random.default_rng(0)
    nodes: dict[str, object] = {"input": Input((5,), "spikes")}
    edges = []
    for k in range(1, 4):
        nodes |= {f"fc{k}": Affine(rng.normal(size=(5, 5))), f"lif{k}": lif(5, 0.7)}
        edges += [("input" if k == 1 else f"lif{k - 1}", f"fc{k}"), (f"fc{k}", f"lif{k}")]
    nodes |= {"around": Affine(rng.normal(size=(5, 5))), "output": Output((5,))}
    edges += [("input", "around"), ("around", "lif3"), ("lif3", "output")]
    graph = Graph(Level.DISCRETE, nodes, tuple(edges), 1e-3)  # type: ignore[arg-type]
    x = rng.integers(0, 2, size=(60, 5))
    short = dataclasses.replace(LAVA, delay_max=1)
    integers, report = lower(graph, short, calibrate_stream(plan(graph), x))
    relays = [name for name in integers.nodes if "relay" in name and isinstance(integers.nodes[name], Neuron)]  # type: ignore[union-attr]
    assert len(relays) == 2
    direct, _ = lower(graph, LAVA, None)
    assert isinstance(integers, Graph)
    assert isinstance(direct, Graph)
    assert np.array_equal(simulate(integers, x).left["output"], simulate(direct, x).left["output"])
    assert report["latency"] == 3


def test_a_loop_must_pay_for_its_connections() -> None:
    rng = np.random.default_rng(0)
    nodes = {
        "input": Input((3,), "spikes"),
        "fc1": Affine(rng.normal(size=(4, 3)), delay=1),
        "lif1": lif(4),
        "fc2": Affine(rng.normal(size=(4, 4))),
        "lif2": lif(4),
        "back": Affine(rng.normal(size=(4, 4)), delay=1),
        "output": Output((4,)),
    }
    edges = (
        ("input", "fc1"),
        ("fc1", "lif1"),
        ("lif1", "fc2"),
        ("fc2", "lif2"),
        ("lif2", "back"),
        ("back", "lif1"),
        ("lif2", "output"),
    )
    graph = Graph(Level.DISCRETE, nodes, edges, 1e-3)
    with pytest.raises(InfeasibleError, match=r"\b2 connections .*\(1 against 2\)"):
        lower(graph, LAVA, None)
    longer = graph.replace(nodes={**nodes, "back": nodes["back"].replace(delay=2)})  # type: ignore[attr-defined]
    integers, _ = lower(longer, LAVA, None)
    delays = {name: op.delay for name, op in integers.nodes.items() if isinstance(op, Dense)}  # type: ignore[union-attr]
    assert delays["fc2"] + delays["back"] == 2


def test_several_connections_share_one_unit() -> None:
    """What is one unit of the accumulator on one connection is one on the others, however large their weights."""
    policy = random_dag(3)
    integers, report = lowered(policy)
    shared = [one for one in report["populations"] if len(one["connections"]) > 1]  # type: ignore[attr-defined]
    assert shared
    scales = {entry["name"]: entry["scale"] for entry in report["entries"]}  # type: ignore[attr-defined]
    for one in shared:
        for link in one["connections"]:
            (source,) = integers.graph.sources(link["connection"])
            quantised = isinstance(integers.graph.nodes[source], Quantise)
            sends = scales.get(integers.graph.sources(source)[0]) if quantised else 1.0
            unit = link["weight_scale"] * sends * 2.0 ** link["weight_exp"]
            assert unit == pytest.approx(1 / one["unit"], rel=1e-12)


@pytest.mark.parametrize("state", ["reset", "carried"])
@pytest.mark.parametrize("sizes", some([(27, 32, 32, 8), (27, 64, 8)], 1))
@pytest.mark.parametrize("current", some([True, False], 1))
def test_eight_bits_stay_close_to_float(state: str, sizes: tuple[int, ...], current: bool) -> None:
    policy = random_policy(3, sizes=sizes, state=state, current=current, bias=0.0 if current else 0.1, recorded=128)
    calibration = calibrate(policy)
    integers, report = lowered(policy)
    spread = float(calibration.actions.std())
    assert report["action_error_rms"] < 0.2 * spread  # type: ignore[operator]
    assert overflows(prove(plan(integers)), LAVA) == []
    rougher = lowered(policy, weight_bits=3)[1]
    assert rougher["action_error_rms"] > report["action_error_rms"]  # type: ignore[operator]


@pytest.mark.parametrize("state", ["reset", "carried"])
@pytest.mark.parametrize("current", [False, True])
@pytest.mark.parametrize(("population", "output_population"), some([(8, 6), (8, 0), (0, 6)], 1, several=True))
def test_spikes_in_and_counts_out_stay_close_to_float(
    state: str, current: bool, population: int, output_population: int
) -> None:
    policy = random_policy(
        3,
        sizes=(27, 64, 8),
        state=state,
        current=current,
        recorded=128,
        population=population,
        output_population=output_population,
    )
    calibration = calibrate(policy)
    integers, report = lowered(policy)
    # One spike more or less moves a count by one, and with carried state also what follows.
    bound = 0.2 if state == "reset" else 0.4
    assert report["action_error_rms"] < bound * float(calibration.actions.std())  # type: ignore[operator]
    assert policy.recorded is not None
    fed_alike = compare(MachineSession(policy), MachineSession(integers), policy.recorded[:16], mode="layers")
    for layer in fed_alike.layers:
        assert not layer.spiking or layer.different < 0.03 * layer.compared
    (entry,) = report["entries"]  # type: ignore[misc]
    assert (entry["scale"] is None) == (population > 0)
    code = integers.graph.nodes.get("encode")
    assert plan(integers).graded["fc1"] == (population == 0)
    if population:
        # The same fields, and one more channel where a bias must enter the synaptic current.
        assert isinstance(code, PopulationEncode)
        assert code == policy.graph.nodes["encode"].replace(always=current)
        assert entry["bias_channel"] == int(current)
    if output_population:
        assert integers.graph.nodes["decode"] == policy.graph.nodes["decode"]
        assert report["populations"][-1]["threshold"] > 0  # type: ignore[index]


def test_the_code_enters_the_integer_graph_spike_for_spike() -> None:
    policy = random_policy(sizes=(5, 9, 2), population=7, state="carried")
    integer_policy, _ = lowered(policy)
    assert policy.recorded is not None
    real, whole = Machine(policy).before, Machine(integer_policy).before
    for row in policy.recorded[:5]:
        floats, integers = (before.enter(split(before.plan, row[None]))["encode"] for before in (real, whole))
        assert floats.any()
        assert np.array_equal(floats, integers)


def test_report_names_range_step_and_error_of_every_population() -> None:
    _, report = lowered(random_policy())
    hidden, readout = report["populations"]  # type: ignore[misc]
    assert hidden["population"] == "lif1"
    assert readout["threshold"] is None
    for one in (hidden, readout):
        assert 0 < one["accumulator"] <= one["accumulator_limit"]
        assert one["membrane_low"] < 0 < one["membrane_high"] <= one["membrane_limit"]
        assert one["unit"] > 0
        (link,) = one["connections"]
        assert 0 < link["weight_error_rms"] < link["weight_error_max"] <= 1.01 / 254


def test_weights_are_what_the_chip_stores() -> None:
    integers, _ = lowered(random_policy(), weight_bits=4)
    weights = [op.weight for _, op in integers.graph.of_type(Dense)]
    assert weights
    for weight in weights:
        assert (weight % 32 == 0).all()
        assert np.abs(weight).max() <= 254


def parts(policy: Policy, name: str, **changes: object) -> Policy:
    """The policy with fields of a neuron's membrane or spike changed."""
    op = policy.graph.nodes[name]
    assert isinstance(op, Neuron)
    assert isinstance(op.membrane, Membrane)
    assert op.spike is not None
    inner = {field.name for field in dataclasses.fields(op.membrane)}
    membrane = dataclasses.replace(op.membrane, **{k: v for k, v in changes.items() if k in inner})
    spike = dataclasses.replace(op.spike, **{k: v for k, v in changes.items() if k not in inner})
    return with_node(policy, name, op.replace(membrane=membrane, spike=spike))


def affine(policy: Policy, name: str, **changes: object) -> Policy:
    return with_node(policy, name, policy.graph.nodes[name].replace(**changes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: parts(p, "lif1", decay=np.linspace(0.5, 0.9, 32)), "lif1.*decay"),
        (lambda p: parts(p, "lif1", threshold=np.linspace(0.5, 0.9, 32)), "lif1.*threshold"),
        (lambda p: affine(p, "fc2", delay=1), "fc2.*delay"),
        (lambda p: affine(p, "fc1", bias=np.full(32, 1e9)), "lif1: .*exponent"),
    ],
)
def test_what_the_arithmetic_cannot_do_is_refused_by_name(change, words: str) -> None:
    policy = change(random_policy())
    with pytest.raises(InfeasibleError, match=words):
        lowered(policy)


def test_carried_state_without_delays_is_refused() -> None:
    policy = affine(affine(random_policy(state="carried"), "fc1", delay=0), "fc2", delay=0)
    with pytest.raises(InfeasibleError, match=re.escape(f"{CARRIED_WITHOUT_DELAYS.message} (1 against 0)")):
        lowered(policy)


def test_a_loop_in_a_block_that_is_cleared_is_called_one() -> None:
    """No training without delays helps it."""
    policy = random_policy(state="reset")
    graph = policy.graph
    nodes = {**graph.nodes, "back": Affine(np.eye(32) / 4, None, 1)}
    looped = policy.replace(graph=graph.replace(nodes=nodes, edges=(*graph.edges, ("lif1", "back"), ("back", "lif1"))))
    with pytest.raises(InfeasibleError, match=re.escape(RECURRENT_IN_A_WINDOW.message)):
        lowered(looped)


def test_a_carried_readout_without_leak_cannot_be_bounded() -> None:
    policy = random_policy(state="carried")
    readout = policy.graph.nodes["readout"]
    assert isinstance(readout, Neuron)
    membrane = dataclasses.replace(readout.membrane, decay=np.ones(8))
    with pytest.raises(InfeasibleError, match=r"readout: .*spike"):
        lowered(with_node(policy, "readout", readout.replace(membrane=membrane)))


def test_a_membrane_that_may_saturate_is_warned_of_and_exact() -> None:
    """Spiking neurons that only integrate, carried: no bound but the arithmetic's own, which the definition keeps."""
    policy = parts(random_policy(state="carried"), "lif1", decay=np.ones(32))
    integers, report = lowered(policy)
    assert any("lif1: may saturate" in text for text in report["warnings"])  # type: ignore[attr-defined]
    codes = {finding["code"] for finding in report["findings"]}  # type: ignore[attr-defined]
    assert codes == {"membrane-saturates"}
    assert not any(f.severity == "error" for f in overflows(prove(plan(integers)), LAVA))


def test_an_input_without_a_limit_is_refused() -> None:
    graph = chain(
        Level.DISCRETE,
        [("in", Input((3,))), ("fc", Affine(np.eye(3))), ("lif", lif(3)), ("out", Output((3,)))],
        dt=1e-3,
    )
    with pytest.raises(InfeasibleError, match="in: sends values without a limit"):
        lower(graph, LAVA, None)


def test_lowering_is_deterministic_and_integer() -> None:
    policy = random_policy()
    first, _ = lowered(policy)
    second, _ = lowered(policy)
    assert first == second
    assert first.graph.level is Level.INTEGER
