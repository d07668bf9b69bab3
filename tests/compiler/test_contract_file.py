"""Networks of other makers become policies by a contract file."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from nervecord.compiler.files.attach import attach
from nervecord.compiler.files.contractfile import ContractFile, contract_from_toml, read_contract
from nervecord.compiler.files.contracttemplate import Surroundings, contract_template
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.verify import verify
from nervecord.compiler.ops import (
    Affine,
    ArgmaxDecode,
    CountArgmaxDecode,
    CountDecode,
    Decode,
    Input,
    Level,
    Membrane,
    Neuron,
    Normalise,
    Op,
    Output,
    PopulationEncode,
    Spike,
)
from nervecord.compiler.plan.interpret import Machine
from nervecord.errors import ContractError, FileFormatError, GraphError, NervecordError

TOML = """
environment = "Toy-v0"
steps = 4
state = "reset"
control_period = 0.05
[observation]
names = ["x", "v", "w"]
units = ["m", "m/s", "rad/s"]
[action]
names = ["left", "right"]
units = ["N m", "N m"]
low = [-1.0, -2.0]
high = [1.0, 2.0]
fail_safe = [0.0, 0.5]
[normaliser]
mean = [0.1, 0.2, 0.3]
variance = [1.0, 2.0, 3.0]
epsilon = 1e-8
clip = 5.0
[encoder]
kind = "current"
[decoder]
kind = "membrane"
scale = [1.0, 2.0]
offset = 0.25
"""
COUNT = '[decoder]\nkind = "count"\nneurons = {}\nweight = 0.5\n'
CHOICE = '[action]\nchoices = ["stay", "go"]\nfail_safe = "go"\n'


def changed(text: str = TOML, **tables: str) -> str:
    """The file with other tables."""
    for name, table in tables.items():
        start = text.index(f"[{name}]")
        end = text.find("\n[", start)
        text = text[:start] + table + (text[end:] if end > 0 else "")
    return text


def contract_file(text: str = TOML) -> ContractFile:
    return contract_from_toml(text, "contract.toml")


def neurons(size: int, *, spikes: bool) -> Neuron:
    one = np.ones(size)
    return Neuron(Membrane(0.8 * one, one, 0 * one), None, Spike(one, 0 * one) if spikes else None)


def network(inputs: int = 3, outputs: int = 2, *, spikes: bool = False) -> Graph:
    rng = np.random.default_rng(2)
    nodes: list[tuple[str, Op]] = [
        ("in", Input((inputs,))),
        ("fc1", Affine(rng.normal(size=(5, inputs)), rng.normal(size=5))),
        ("lif1", neurons(5, spikes=True)),
        ("fc2", Affine(rng.normal(size=(outputs, 5)))),
        ("last", neurons(outputs, spikes=spikes)),
        ("out", Output((outputs,))),
    ]
    return chain(Level.DISCRETE, nodes, dt=1e-3)


def test_current_and_membrane() -> None:
    policy = attach(network(), contract_file())
    assert verify(policy) == []
    graph = policy.graph
    assert list(graph.nodes) == ["in", "normalise", "fc1", "lif1", "fc2", "last", "decode", "out"]
    normalise, decode = graph.nodes["normalise"], graph.nodes["decode"]
    assert normalise == Normalise([0.1, 0.2, 0.3], [1.0, 2.0, 3.0], 1e-8, 5.0)  # type: ignore[arg-type]
    assert decode == Decode([1.0, 2.0], [0.25, 0.25], [-1.0, -2.0], [1.0, 2.0])  # type: ignore[arg-type]
    assert policy.contract.fail_safe == (0.0, 0.5)
    assert policy.contract.observation.names == ("x", "v", "w")
    assert [graph.nodes[name] for name in ("fc1", "lif1", "fc2", "last")] == [
        network().nodes[name] for name in ("fc1", "lif1", "fc2", "last")
    ]
    # What the network gives by itself, on what the normaliser gives: step by step, then decoded by hand.
    machine = Machine(network())
    x = np.array([[0.5, -1.0, 20.0]])
    clipped = np.clip((x - [0.1, 0.2, 0.3]) / np.sqrt(np.array([1.0, 2.0, 3.0]) + 1e-8), -5, 5)
    for _ in range(4):
        v = machine.step({"in": clipped})["last"]
    expected = np.clip(v * [1.0, 2.0] + 0.25, [-1, -2], [1, 2])
    assert Machine(policy).window(x)[0].tolist() == expected.tolist()


def test_population_and_counts() -> None:
    code = '[encoder]\nkind = "population"\nneurons = 4\nlow = -3\nhigh = 3.0\nsigma = 0.5\n'
    policy = attach(network(12, 6, spikes=True), contract_file(changed(encoder=code, decoder=COUNT.format(3))))
    encode, decode = policy.graph.nodes["encode"], policy.graph.nodes["decode"]
    assert encode == PopulationEncode(np.tile([-3.0, -1.0, 1.0, 3.0], (3, 1)), 0.5)
    assert isinstance(decode, CountDecode)
    assert decode.weight.tolist() == [[0.5] * 3] * 2
    assert policy.graph.nodes["in"].in_shape == (3,)
    assert verify(policy) == []


def test_choices_are_read_as_the_network_gives_them() -> None:
    text = changed(action=CHOICE, decoder='[decoder]\nkind = "choice"\n')
    policy = attach(network(), contract_file(text))
    assert policy.graph.nodes["decode"] == ArgmaxDecode(2)
    assert policy.contract.choices == ("stay", "go")
    assert policy.contract.fail_safe == (1.0,)
    spiking = attach(network(3, 6, spikes=True), contract_file(text))
    assert spiking.graph.nodes["decode"] == CountArgmaxDecode(np.ones((2, 3)), np.zeros(2))
    assert verify(policy) == verify(spiking) == []


def test_observations_that_are_spikes() -> None:
    text = changed(normaliser="", encoder='[encoder]\nkind = "spikes"\n')
    policy = attach(network(), contract_file(text))
    assert list(policy.graph.nodes)[:2] == ["in", "fc1"]
    assert policy.graph.nodes["in"] == Input((3,), carries="spikes")
    limited = attach(
        network(), contract_file(changed(normaliser="", encoder='[encoder]\nkind = "current"\nclip = 2\n'))
    )
    assert limited.graph.nodes["in"] == Input((3,), carries="values", limit=2.0)


def several() -> Graph:
    """Inputs of 2 and 1, outputs of 1 and 1; a name that a host op would like is taken."""
    rng = np.random.default_rng(0)
    nodes: dict[str, Op] = {
        "far": Input((2,)),
        "near": Input((1,)),
        "a": Affine(rng.normal(size=(3, 2))),
        "b": Affine(rng.normal(size=(3, 1))),
        "normalise": neurons(3, spikes=True),
        "c": Affine(rng.normal(size=(1, 3))),
        "u": neurons(1, spikes=False),
        "d": Affine(rng.normal(size=(1, 3))),
        "w": neurons(1, spikes=False),
        "left": Output((1,)),
        "right": Output((1,)),
    }
    edges = (
        ("far", "a"),
        ("near", "b"),
        ("a", "normalise"),
        ("b", "normalise"),
        ("normalise", "c"),
        ("c", "u"),
        ("u", "left"),
        ("normalise", "d"),
        ("d", "w"),
        ("w", "right"),
    )
    return Graph(Level.DISCRETE, nodes, edges, 1e-3)


def test_several_inputs_and_outputs_share_the_channels() -> None:
    policy = attach(several(), contract_file())
    assert verify(policy) == []
    graph = policy.graph
    means = [op.mean.tolist() for _, op in graph.of_type(Normalise)]
    assert means == [[0.1, 0.2], [0.3]]
    highs = [op.high.tolist() for _, op in graph.of_type(Decode)]
    assert highs == [[1.0], [2.0]]
    assert graph.nodes["normalise"] == several().nodes["normalise"]
    assert Machine(policy).window(np.ones((1, 3)))[0].shape == (1, 2)


@pytest.mark.parametrize(
    ("graph", "text", "cause"),
    [
        (network(4), TOML, r"\[observation\]: names 3 channels, and the network takes 4"),
        (network(3, 5), TOML, r"\[action\]: names 2 values, and the network gives 5"),
        (network(spikes=True), TOML, r"\[decoder\]: reads membranes, and spikes enter the Output out .*count"),
        (network(), changed(decoder=COUNT.format(1)), r"\[decoder\]: counts spikes, and values enter the Output out"),
        (
            network(3, 5, spikes=True),
            changed(decoder=COUNT.format(2)),
            r"\[decoder\]: decodes each action from 2 neurons, and the Output out has 5",
        ),
        (
            network(3, 3),
            changed(action=CHOICE, decoder='[decoder]\nkind = "choice"\n'),
            r"\[action\]: names 2 choices, and the Output out has 3 values",
        ),
        (
            several(),
            changed(action=CHOICE, decoder='[decoder]\nkind = "choice"\n'),
            r"\[action\]: is a choice, and the network has 2 Outputs",
        ),
        (
            network(10),
            changed(encoder='[encoder]\nkind="population"\nneurons=4\nlow=0\nhigh=1\nsigma=1\n'),
            r"\[encoder\]: makes 4 values of a channel, and the network's in takes 10",
        ),
        (
            network(),
            changed(decoder='[decoder]\nkind = "membrane"\nscale = [1.0, 2.0, 3.0]\n'),
            r"\[decoder\]: scale has 3 values, the action 2",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(graph: Graph, text: str, cause: str) -> None:
    with pytest.raises(ContractError, match=rf"^contract\.toml: {cause}"):
        attach(graph, contract_file(text))


def test_graphs_that_take_no_contract() -> None:
    coded = '[encoder]\nkind = "population"\nneurons = 3\nlow = -1.0\nhigh = 1.0\nsigma = 0.5\n'
    policy = attach(network(9), contract_file(changed(encoder=coded)))
    with pytest.raises(GraphError, match="encode"):
        attach(policy.graph, contract_file())
    with pytest.raises(GraphError, match=r"imported, .*discrete"):
        attach(Graph(Level.IMPORTED, dict(network().nodes), network().edges), contract_file())
    with pytest.raises(ContractError, match=r"\(2, 4\), \(k, 3\)"):
        attach(network(), contract_file(), np.zeros((2, 4)))
    assert attach(network(), contract_file(), np.ones((2, 3))).recorded is not None


def perceptron(end: Op | None = None) -> Graph:
    """What an ONNX file gives: a network without time that normalises, and limits or chooses where `end` does."""
    rng = np.random.default_rng(3)
    nodes: list[tuple[str, Op]] = [
        ("in", Input((3,))),
        ("own", Normalise(np.ones(3), np.full(3, 4.0), 0.0, 2.0)),
        ("fc", Affine(rng.normal(size=(2, 3)), rng.normal(size=2))),
        *([("end", end)] if end is not None else []),
        ("out", Output((2,) if not isinstance(end, ArgmaxDecode) else (1,))),
    ]
    return chain(Level.DISCRETE, nodes, dt=1.0)


NOTHING = changed(normaliser="", decoder='[decoder]\nkind = "membrane"\n')


def test_a_network_that_normalises_and_limits_itself() -> None:
    limits = Decode(np.ones(2), np.zeros(2), np.array([-0.5, -9.0]), np.array([9.0, 0.5]))
    x = np.array([[0.3, -0.2, 4.0], [9.0, -9.0, 1.0]])
    graph = perceptron(limits)
    affine = graph.nodes["fc"]
    assert isinstance(affine, Affine)
    values = np.clip((x - 1) / 2, -2, 2) @ affine.weight.T + affine.bias
    for network, low, high in ((perceptron(), [-1, -2], [1, 2]), (graph, [-0.5, -2], [1, 0.5])):
        policy = attach(network, contract_file(NOTHING))
        assert list(policy.graph.nodes) == ["in", "own", "fc", "decode" if network is not graph else "end", "out"]
        action, _ = Machine(policy, 2).window(x)
        np.testing.assert_allclose(action, np.clip(values, low, high), rtol=1e-12)
    chooser = attach(
        perceptron(ArgmaxDecode(2)),
        contract_file(changed(NOTHING, action=CHOICE, decoder='[decoder]\nkind = "choice"\n')),
    )
    action, _ = Machine(chooser, 2).window(x)
    np.testing.assert_array_equal(action[:, 0], values.argmax(axis=1))


@pytest.mark.parametrize(
    ("end", "text", "message"),
    [
        (None, TOML, r"\[normaliser\]: "),
        (None, changed(NOTHING, encoder='[encoder]\nkind = "current"\nclip = 3.0\n'), r"\[encoder\]: .* in "),
        (Decode(np.ones(2), np.zeros(2), -np.ones(2), np.ones(2)), changed(normaliser=""), r"\[decoder\]: "),
        (
            Decode(np.ones(2), np.zeros(2), -np.ones(2), np.ones(2)),
            changed(NOTHING, action=CHOICE, decoder='[decoder]\nkind = "choice"\n'),
            r"\[action\]: is a choice",
        ),
        (ArgmaxDecode(2), NOTHING, r"\[action\]: is values"),
    ],
)
def test_what_such_a_network_does_is_not_done_again(end: Op | None, text: str, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        attach(perceptron(end), contract_file(text))


HUGE = "9" * 400
ATTACKS = {
    "steps = 4 -> steps = 0": "steps: expected int >= 1, got 0",
    f"steps = 4 -> steps = {1 << 60}": "steps: expected int <=",
    f"steps = 4 -> steps = {HUGE}": "steps: expected int <=",
    f"steps = 4 -> steps = {'9' * 5000}": "is no TOML",
    "steps = 4 -> steps = 4.0": "steps: expected int, got float",
    "steps = 4 -> steps = [4]": "steps: expected int, got array",
    "steps = 4 -> steps = true": "steps: expected int, got bool",
    'state = "reset" -> state = "often"': "state: 'often' is unknown",
    "control_period = 0.05 -> control_period = nan": "control_period: expected float",
    "control_period = 0.05 -> control_period = inf": "control_period: expected float <=",
    "control_period = 0.05 -> control_period = 1e999": "control_period: expected float <=",
    f"control_period = 0.05 -> control_period = {HUGE}": "control_period",
    "control_period = 0.05 -> control_period = -1": "control_period: expected float > 0.0, got -1",
    "steps = 4 -> ": "field 'steps' is missing",
    "steps = 4 -> stepz = 4": "unknown field 'stepz'",
    "steps = 4 -> steps = 4\nmood = 1": "unknown field 'mood'",
    'units = ["m", "m/s", "rad/s"] -> units = ["m"]': "1 units for 3 names",
    'names = ["x", "v", "w"] -> names = ["x", "v", "\\u001b[2J"]': "the text '\\x1b[2J' cannot be printed",
    "fail_safe = [0.0, 0.5] -> fail_safe = [0.0, 5.0]": "the fail-safe value of right is 5, and its limits are -2..2",
    "fail_safe = [0.0, 0.5] -> fail_safe = [0.0]": "fail-safe action has 1 values, the action 2",
    'fail_safe = [0.0, 0.5] -> fail_safe = "go"': "fail_safe is a word, numbers are needed",
    "fail_safe = [0.0, 0.5] -> fail_safe = [0.0, nan]": "action.fail_safe",
    "high = [1.0, 2.0] -> high = [1.0, -3.0]": "the limits of right are -2..-3",
    "high = [1.0, 2.0] -> ": "[action]: field 'high' is missing",
    "variance = [1.0, 2.0, 3.0] -> variance = [1.0, -2.0, 3.0]": "normaliser.variance[1]: expected float >= 0.0",
    "mean = [0.1, 0.2, 0.3] -> mean = [0.1]": "[normaliser]: mean has 1 values, the observation 3",
    "clip = 5.0 -> clip = 0": "normaliser.clip: expected float > 0.0",
    "clip = 5.0 -> clip = 16777217": "normaliser.clip: expected float <=",
    'kind = "current" -> kind = "rate"': "encoder.kind: 'rate' is unknown",
    'kind = "current" -> kind = "current"\nclip = 3.0': "[encoder]: clip stands in [normaliser] already",
    'kind = "current" -> kind = "spikes"': "[normaliser]: what is normalised is no spike any more",
    'kind = "membrane"\nscale = [1.0, 2.0]\noffset = 0.25 -> kind = "choice"': "both, or neither",
    "scale = [1.0, 2.0] -> scale = [[1.0]]": "decoder.scale",
    "steps = 4 -> steps == 4": "is no TOML",
    "steps = 4 -> x = " + "[" * 5000: "is no TOML",
    "steps = 4 -> " + "a." * 20_000 + "a = 1": "has a key of more than 64 parts",
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda text: text[:40])
def test_hostile_contracts_are_one_sentence(attack: str) -> None:
    old, new = attack.split(" -> ", 1)
    assert old in TOML
    start = time.process_time()
    with pytest.raises(NervecordError) as caught:
        contract_file(TOML.replace(old, new, 1))
    assert time.process_time() - start < 2
    text = str(caught.value)
    assert text.startswith("contract.toml")
    assert ATTACKS[attack] in text
    assert text.isprintable()
    assert len(text) < 600


def test_what_is_no_contract_file(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="none:"):
        read_contract(tmp_path / "none")
    with pytest.raises(FileFormatError, match="folder"):
        read_contract(tmp_path)
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    with pytest.raises(FileFormatError, match="is no TOML"):
        read_contract(tmp_path / "a")
    with pytest.raises(FileFormatError, match=r"embedded null (byte|character)"):
        read_contract("a\0b")
    (tmp_path / "b").write_text(TOML)
    assert read_contract(tmp_path / "b").contract == contract_file().contract


# --------------------------------------------------------------------------------------------------------------------
# The file to start from


def test_a_template_reads_as_the_environment_says_it() -> None:
    surroundings = Surroundings("Ant-v4", ["torso.z", 'q"'], ["m", "1"], ["hip"], ["1"], [-1.0], [1.0], (), 0.05)
    text = contract_template(surroundings)
    contract = contract_from_toml(text, "t.toml").contract
    assert (contract.environment, contract.control_period) == ("Ant-v4", 0.05)
    assert (contract.observation.names, contract.observation.units) == (("torso.z", 'q"'), ("m", "1"))
    assert (contract.action.names, contract.action.low, contract.action.high) == (("hip",), (-1.0,), (1.0,))
    assert contract.fail_safe == (0.0,)
    assert max(len(line) for line in text.splitlines()) <= 120
    assert verify(attach(network(2, 1), contract_from_toml(text, "t.toml"))) == []


def test_a_template_of_choices() -> None:
    text = contract_template(Surroundings("CartPole-v1", 4, choices=2, period=0.02))
    contract = contract_from_toml(text, "t.toml").contract
    assert contract.choices == ("action 0", "action 1")
    assert contract.observation.names == tuple(f"observation_{k}" for k in range(4))
    assert verify(attach(network(4, 2), contract_from_toml(text, "t.toml"))) == []


def test_what_the_environment_does_not_say_is_asked_for() -> None:
    inf = float("inf")
    text = contract_template(Surroundings("Toy-v0", 300, actions=2, low=[-inf, -1], high=[inf, 1]))
    for missing, line in (
        ("control_period", "control_period = 0.1"),
        ("low", "low = [-1, -1]"),
        ("high", "high = [1, 1]"),
    ):
        with pytest.raises(ContractError, match=f"'{missing}'"):
            contract_from_toml(text, "t.toml")
        (question,) = [row for row in text.splitlines() if row.startswith(f"# {missing} = #")]
        text = text.replace(question, line)
    assert contract_from_toml(text, "t.toml").contract.observation.size == 300
