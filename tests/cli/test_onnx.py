"""The command line and ONNX: a folder for a robot out, another library's network in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nervecord

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def network(path: Path, observations: int = 3, actions: int = 1, *, last: str = "Tanh") -> Path:
    """A small perceptron of Pendulum-v1."""
    helper, rng = onnx.helper, np.random.default_rng(0)
    constants = {
        "w1": rng.normal(size=(8, observations)),
        "b1": rng.normal(size=8),
        "w2": rng.normal(size=(actions, 8)),
    }
    nodes = [
        helper.make_node("Gemm", ["obs", "w1", "b1"], ["h1"], transB=1, name="first"),
        helper.make_node("Relu", ["h1"], ["h2"], name="relu"),
        helper.make_node("Gemm", ["h2", "w2"], ["h3"], transB=1, name="second"),
        helper.make_node(last, ["h3"], ["actions"], name="last"),
    ]
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("obs", floats, [1, observations])],
        [helper.make_tensor_value_info("actions", floats, [1, actions])],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("form", ["float", "integer"])
def test_a_folder_for_a_robot(form: str, files: Path, nervecord_cli: Any, tmp_path: Path) -> None:
    out = f"{tmp_path}/made/out/"
    (tmp_path / "made").mkdir()
    answer = nervecord_cli("compile", files / "pendulum.nir", "--target", "onnx", "--form", form, "-o", out, "--json")
    assert answer.code == 0, answer.err
    assert sorted(path.name for path in Path(out).iterdir()) == ["policy.nervecord", "policy.onnx"]
    (emitted,) = answer.json["emitted"]
    assert emitted["arguments"]["shapes"] == {"obs": [1, 3], "actions": [1, 1]}
    played = nervecord_cli("run", f"{out}policy.nervecord", "--episodes", "1", "--json")
    assert played.code == 0, played.err
    assert played.json["engine"] == "onnxruntime"
    if form == "integer":
        other = nervecord_cli("run", f"{out}policy.nervecord", "--episodes", "1", "--engine", "emulator", "--json")
        # Pendulum's observations are float32, and its actions are given so.
        assert played.json["return_each"] == other.json["return_each"]
    compared = nervecord_cli("compare", files / "pendulum.nir", f"{out}policy.nervecord", "--mode", "layers", "--json")
    assert compared.code == 0, compared.err


@pytest.mark.parametrize("target", ["lava", "reference"])
def test_a_program_goes_to_a_robot_as_it_is(target: str, files: Path, nervecord_cli: Any, tmp_path: Path) -> None:
    """What was compiled before: the same integers, or the same floats, in another form."""
    path, out = tmp_path / "made.nervecord", f"{tmp_path}/out/"
    assert nervecord_cli("compile", files / "pendulum.nir", "--target", target, "-o", path).code == 0
    answer = nervecord_cli("compile", path, "--target", "onnx", "--opset", 17, "-o", out, "--json")
    assert answer.code == 0, answer.err
    model = onnx.load(f"{out}policy.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["nervecord_form"] == ("integer" if target == "lava" else "float")
    assert [entry.version for entry in model.opset_import] == [17]
    assert nervecord.load(f"{out}policy.nervecord").graph == nervecord.load(path).graph
    nervecord.emit(path, tmp_path / "emitted", target="onnx")
    again = onnx.load(tmp_path / "emitted" / "policy.onnx")
    assert again.graph.initializer == model.graph.initializer
    played = nervecord_cli("run", f"{out}policy.nervecord", "--episodes", "1", "--json")
    assert (played.code, played.json["engine"]) == (0, "onnxruntime")


def test_what_a_program_says_is_not_said_again(files: Path, nervecord_cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "made.nervecord"
    assert nervecord_cli("compile", files / "pendulum.nir", "-o", path).code == 0
    for flag, value in (("dt", "0.1"), ("steps", 3), ("inputs", "spikes"), ("reset", "zero"), ("calibration", "x.npz")):
        nervecord_cli("compile", path, "--target", "onnx", f"--{flag}", value).refused(f"{flag}: ", f"{path} ")
    nervecord_cli("compile", path, "--target", "onnx", "--form", "integer", "--weight-bits", 4).refused(
        "weight_bits: is 4"
    )
    # The definition runs integers as they are.
    assert nervecord_cli("compile", path, "--target", "reference").code == 0


def test_a_program_of_floats_may_still_be_quantised(files: Path, nervecord_cli: Any, tmp_path: Path) -> None:
    """So what chooses its scales may be said, and is heard."""
    path = tmp_path / "made.nervecord"
    assert nervecord_cli("compile", files / "pendulum.nir", "--target", "reference", "-o", path).code == 0
    nervecord_cli("compile", path, "--target", "lava").refused("--calibration")
    size = nervecord.load(path).graph.nodes["observation"].size
    graphs = []
    for number, (scale, more) in enumerate(((0.01, []), (1.0, []), (0.01, ["--allow-clustered-decays"]))):
        rows, out = tmp_path / f"rows{number}.npz", tmp_path / f"lava{number}.nervecord"
        np.savez(rows, observations=scale * np.linspace(-1, 1, 40 * size).reshape(40, size))
        answer = nervecord_cli("compile", path, "--target", "lava", "--calibration", rows, *more, "-o", out)
        assert answer.code == 0, answer.err
        graphs.append(nervecord.load(out).graph)
    assert graphs[0] == graphs[2]
    assert graphs[0] != graphs[1]
    nervecord_cli("compile", path, "--target", "lava", "--convention", "exact").refused("convention: ")
    for target in ("onnx", "reference"):
        nervecord_cli("compile", files / "pendulum.nir", "--target", target, "--allow-clustered-decays").refused(
            "allow_clustered_decays: "
        )


def test_a_folder_that_is_a_file(files: Path, nervecord_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    answer = nervecord_cli("compile", files / "pendulum.nir", "--target", "onnx", "-o", f"{tmp_path}/out/")
    answer.refused("--output:", f"{tmp_path}/out")


def test_a_network_runs_where_it_is_told(nervecord_cli: Any, tmp_path: Path) -> None:
    path = network(tmp_path / "mlp.onnx")
    answer = nervecord_cli("run", path, "--env", "Pendulum-v1", "--episodes", "1", "--json")
    assert answer.code == 0, answer.err
    assert (answer.json["engine"], answer.json["env"]) == ("reference", "Pendulum-v1")
    assert answer.json["spikes_per_action"] == 0
    nervecord_cli("run", path).refused("mlp.onnx: ", "--env")
    nervecord_cli("run", path, "--env", "CartPole-v1").refused("takes 3 observations, and CartPole-v1 gives 4")


def test_a_network_is_inspected(nervecord_cli: Any, tmp_path: Path) -> None:
    answer = nervecord_cli("inspect", network(tmp_path / "mlp.onnx"), "--json")
    assert answer.code == 0, answer.err
    verdicts = {target["target"]: target["verdict"] for target in answer.json["targets"]}
    assert (verdicts["reference"], verdicts["onnx"], verdicts["lava"]) == ("feasible", "feasible", "infeasible")
    text = nervecord_cli("inspect", tmp_path / "mlp.onnx", "--target", "lava").out
    assert "Tanh cannot be realised" in text
    assert "nervecord distill FILE --env ID" in " ".join(text.split())
    # What was not computed is no zero, and a network without neurons has no time step.
    assert answer.json["graph"]["dt"] is None
    assert all(target["resources"] is None and target["energy"] is None for target in answer.json["targets"])
    assert "time step 1 s" not in text
    assert "KiB" not in text


@pytest.mark.parametrize(
    "verb", [["run", "--env", "Pendulum-v1"], ["inspect"], ["compile"], ["distill"]], ids=lambda v: v[0]
)
def test_what_cannot_be_read_is_a_sentence(verb: list[str], nervecord_cli: Any, tmp_path: Path) -> None:
    name, *flags = verb
    odd = network(tmp_path / "odd.onnx", last="Sigmoid")
    (tmp_path / "cut.onnx").write_bytes(odd.read_bytes()[:40])
    (tmp_path / "text.onnx").write_text("no model")
    more = ["--env", "Pendulum-v1", "--out", tmp_path] if name == "distill" else []
    nervecord_cli(name, odd, *flags, *more).refused("odd.onnx: node 'last': ", "Sigmoid")
    for file in ("cut", "text"):
        nervecord_cli(name, tmp_path / f"{file}.onnx", *flags, *more).refused(f"{file}.onnx: ")
    nervecord_cli(name, tmp_path / "none.onnx", *flags, *more).refused("none.onnx: ")


def test_a_policy_of_ours_is_not_taken_for_a_network(files: Path, nervecord_cli: Any, tmp_path: Path) -> None:
    out = f"{tmp_path}/out/"
    assert nervecord_cli("compile", files / "pendulum.nir", "--target", "onnx", "-o", out).code == 0
    for words in (["inspect"], ["run", "--env", "Pendulum-v1"]):
        nervecord_cli(words[0], f"{out}policy.onnx", *words[1:]).refused("policy.onnx: ", "policy.nervecord")
