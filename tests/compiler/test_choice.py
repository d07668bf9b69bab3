"""Actions that are chosen among several: the rule of the first largest, in floats and integers, files, refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from policies import RECORDED, random_policy, with_node

from nervecord.compiler import ops as n
from nervecord.compiler.compile import compile_graph
from nervecord.compiler.files.program import load
from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.verify import verify
from nervecord.compiler.nir.file import read_nir, write_nir
from nervecord.compiler.ops.hostop import first_largest
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.compiler.plan.interpret import Machine, simulate
from nervecord.errors import ContractError, FileFormatError
from nervecord.targets.lava.target import LavaTarget


def choosing(**options: object) -> Policy:
    return random_policy(3, sizes=(4, 12, 3), choices=True, **options)  # type: ignore[arg-type]


def of(policy: Policy) -> Contract:
    return policy.contract


def test_the_first_of_the_largest_is_chosen() -> None:
    x = np.array([[1.0, 3.0, 2.0], [2.0, 2.0, 1.0], [0.0, 5.0, 5.0], [-1.0, -1.0, -1.0], [4.0, 0.0, 4.0]])
    expected = [[1.0], [0.0], [1.0], [0.0], [0.0]]
    assert first_largest(x).tolist() == expected
    node = n.ArgmaxDecode(3, scale=1e-4)
    assert (node.in_shape, node.out_shape) == ((3,), (1,))
    assert node.step({}, x).tolist() == expected
    assert node.step({}, x.astype(np.int64)).tolist() == expected
    assert n.ArgmaxDecode(3, scale=7.0).step({}, x).tolist() == expected
    bad = np.array([[0.0, np.nan, 1.0], [0.0, 1.0, np.inf], [2.0, 1.0, 0.0]])
    assert np.isnan(first_largest(bad)[:2]).all()
    assert first_largest(bad)[2, 0] == 0


def test_counts_are_weighed_then_the_first_of_the_largest_is_chosen() -> None:
    node = n.CountArgmaxDecode([[1.0, 2.0], [2.0, 1.0], [0.5, 0.5]], [0.0, 0.0, 1.0])
    assert (node.in_shape, node.out_shape) == ((6,), (1,))
    counts = np.array([[1, 1, 1, 1, 0, 0], [0, 1, 2, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 1, 0, 2, 4, 0]])
    assert node.preferences(counts).tolist() == [[3, 3, 1], [2, 4, 1], [0, 0, 1], [2, 2, 3]]
    assert node.step({}, counts).tolist() == [[0], [1], [2], [2]]


@pytest.mark.parametrize("output_population", [0, 4])
@pytest.mark.parametrize("population", [0, 5])
@pytest.mark.parametrize("state", ["reset", "carried"])
def test_a_policy_chooses_by_what_its_readout_holds(state: str, population: int, output_population: int) -> None:
    policy = choosing(state=state, population=population, output_population=output_population)
    assert verify(policy) == []
    assert policy.recorded is not None
    calibration = calibrate(policy)
    assert calibration.preferences is not None
    assert calibration.preferences.shape == (RECORDED, 3)
    assert np.array_equal(calibration.actions[:, 0], calibration.preferences.argmax(axis=1))
    assert len(np.unique(calibration.actions)) > 1
    trace = simulate(policy, policy.recorded)
    if not output_population:
        steps = of(policy).steps
        last = trace.outputs["readout"][steps - 1 :: steps, 0]
        # Batched products round otherwise in the last bit.
        np.testing.assert_allclose(last, calibration.preferences, rtol=0, atol=1e-12)


def test_two_equal_outputs_are_a_tie_in_every_engine() -> None:
    """The third action's weights are those of the first: in integers it is never chosen, and all ties are told.

    In floats a matrix product may give two equal rows values that differ in the last bit.
    """
    policy = choosing()
    readout = policy.graph.nodes["fc2"]
    assert isinstance(readout, n.Affine)
    assert readout.bias is not None
    weight, bias = readout.weight.copy(), readout.bias.copy()
    weight[2], bias[2] = weight[0], bias[0]
    policy = with_node(policy, "fc2", n.Affine(weight, bias))
    program = compile_graph(policy, LavaTarget())
    assert policy.recorded is not None
    integer = simulate(program.policy, policy.recorded).actions
    assert integer is not None
    assert set(np.unique(integer)) == {0.0, 1.0}
    with LavaTarget().open(program) as session:
        assert session.engine == "emulator"
        assert np.array_equal(np.stack([session.step(row) for row in policy.recorded])[:, None], integer)
    ties = int(np.count_nonzero(integer == 0))
    assert program.report["lowering"]["choice_ties"] == ties > 0


def test_integers_are_compared_without_a_scale_and_reported_with_one() -> None:
    policy = choosing()
    program = compile_graph(policy, LavaTarget())
    decode = program.graph.nodes["decode"]
    assert isinstance(decode, n.ArgmaxDecode)
    assert 0 < decode.scale < 1e-2
    report = program.report["lowering"]
    assert "action_error_rms" not in report
    preferences = calibrate(policy).preferences
    assert preferences is not None
    assert 0 < report["preference_error_rms"] < 0.2 * preferences.std()
    other = with_node(program.policy, "decode", decode.replace(scale=5.0))
    assert policy.recorded is not None
    pair = [simulate(graph, policy.recorded).actions for graph in (program.policy, other)]
    assert np.array_equal(*pair)  # type: ignore[arg-type]
    machine = Machine(random_policy())
    machine.window(np.zeros((1, 27)))
    with pytest.raises(ContractError, match="no choice"):
        machine.preferences()


@pytest.mark.parametrize("output_population", [0, 3])
def test_files_keep_choices(tmp_path: Path, output_population: int) -> None:
    policy = choosing(output_population=output_population)
    write_nir(policy, tmp_path / "policy.nir")
    assert read_nir(tmp_path / "policy.nir") == policy
    program = compile_graph(policy, LavaTarget())
    program.save(tmp_path / "p.nervecord")
    again = load(tmp_path / "p.nervecord")
    assert again.graph == program.graph
    assert again.policy.contract.choices == ("choice 0", "choice 1", "choice 2")
    assert again.to_bytes() == program.to_bytes()


def test_a_contract_without_choices_says_nothing_of_them() -> None:
    """So that files from before there were choices keep their bytes."""
    assert "choices" not in of(random_policy()).to_dict()
    data = json.loads(of(choosing()).to_json())
    assert data["choices"] == ["choice 0", "choice 1", "choice 2"]
    assert Contract.from_dict(data) == of(choosing())
    for broken in ("ab", [1, 2, 3], None):
        with pytest.raises(ContractError, match="contract: choices"):
            Contract.from_dict({**data, "choices": broken})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"choices": ("a", "b", "a")}, "same name"),
        ({"choices": ("a", "b")}, "choice of 2, "),
        ({"action": Channels(("a", "b"), ("1", "1")), "fail_safe": (0.0, 0.0)}, "has 2 channels"),
        ({"fail_safe": (3.0,)}, r"limits .*0\.\.2"),
        ({"fail_safe": (0.5,)}, r"none of 0\.\.2"),
    ],
)
def test_contracts_that_contradict_themselves(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        dataclasses.replace(of(choosing()), **changes)  # type: ignore[arg-type]


def test_graphs_that_are_refused(tmp_path: Path) -> None:
    policy = choosing()

    def codes(decode: n.Op) -> list[str]:
        return [finding.code for finding in verify(with_node(policy, "decode", decode))]

    one = np.ones(1)
    assert codes(decode=n.ArgmaxDecode(3, scale=0.0)) == ["scale"]
    assert codes(decode=n.ArgmaxDecode(3, scale=np.inf)) == ["not-finite"]
    assert "contract" in codes(decode=n.ArgmaxDecode(4))
    assert "width" in codes(decode=n.ArgmaxDecode(0))
    assert "contract" in codes(decode=n.Decode(one, one, -one, one))
    counted = choosing(output_population=2)
    decode = counted.graph.nodes["decode"]
    assert isinstance(decode, n.CountArgmaxDecode)
    for weight, offset in ((decode.weight, [0.0]), (decode.weight[0], decode.offset), (decode.weight[0, 0], one)):
        damaged = with_node(counted, "decode", n.CountArgmaxDecode(weight, offset))
        assert "shape" in [finding.code for finding in verify(damaged)]
    values = random_policy(sizes=(4, 12, 3))
    findings = verify(values.replace(contract=of(policy)))
    assert "the contract has a choice of 3 actions, and nothing chooses" in [finding.message for finding in findings]
    late = policy.graph.replace(
        nodes={**policy.graph.nodes, "more": n.Scale(one)},
        edges=(*policy.graph.edges[:-1], ("decode", "more"), ("more", "action")),
    )
    assert "misplaced" in [finding.code for finding in verify(policy.replace(graph=late))]


def test_a_newer_kind_of_choice_in_a_file_is_refused(tmp_path: Path) -> None:
    program = compile_graph(choosing(), LavaTarget())
    data = program.to_bytes().replace(b"ArgmaxDecode", b"RandomDecode")
    (tmp_path / "p.nervecord").write_bytes(data)
    with pytest.raises(FileFormatError):
        load(tmp_path / "p.nervecord")
