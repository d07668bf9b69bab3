"""The verb `run`: what it prints, what --json holds, engines that die, and whose word is imported."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nervecord.cli.compiling import announced
from nervecord.compiler.compile import compile_graph
from nervecord.compiler.nir.file import read_nir, write_nir
from nervecord.errors import EngineError
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.targets.lava.target import LavaTarget

RUN = {
    "target",
    "engine",
    "env",
    "episodes",
    "seed",
    "return_mean",
    "return_ci95",
    "return_each",
    "length_mean",
    "latency_us",
    "spikes_per_action",
    "synaptic_events_per_action",
    "fail_safe",
    "deadline_missed",
}


@pytest.mark.parametrize(
    ("name", "target", "engine", "more"),
    [
        ("pendulum.nir", "reference", "float64", ()),
        ("pendulum.nervecord", "lava", "emulator", ()),
        ("pendulum.nervecord", "lava", "definition", ("--engine", "definition", "--num-envs", 3)),
    ],
)
def test_run_json(name: str, target: str, engine: str, more: tuple[Any, ...], nervecord_cli: Any, files: Path) -> None:
    pytest.importorskip("gymnasium")
    answer = nervecord_cli("run", files / name, "--episodes", 3, "--seed", 7, "--json", *more)
    assert answer.code == 0
    data = answer.json
    assert set(data) >= RUN
    assert (data["target"], data["env"], data["episodes"], data["seed"]) == (target, "Pendulum-v1", 3, 7)
    if target == "lava":
        assert data["engine"] == engine
    assert len(data["return_each"]) == 3
    assert data["return_mean"] == pytest.approx(np.mean(data["return_each"]))
    assert data["return_ci95"] == pytest.approx(4.30265 * np.std(data["return_each"], ddof=1) / np.sqrt(3))
    assert data["length_mean"] == 200
    assert set(data["latency_us"]) == {"median", "p99"}
    assert 0 < data["latency_us"]["median"] <= data["latency_us"]["p99"]
    assert 0 < data["spikes_per_action"] <= 8 * 7
    assert data["synaptic_events_per_action"] > 0
    assert data["fail_safe"] == {}


def test_run_is_the_same_by_every_engine_of_the_integers(nervecord_cli: Any, files: Path) -> None:
    pytest.importorskip("gymnasium")
    words = ("run", files / "pendulum.nervecord", "--episodes", 2, "--json", "--engine")
    emulator, definition = (nervecord_cli(*words, engine).json for engine in ("emulator", "definition"))
    for key in ("return_each", "spikes_per_action", "synaptic_events_per_action"):
        assert emulator[key] == definition[key]


def test_run_by_torch_is_the_same_and_has_a_device(nervecord_cli: Any, files: Path) -> None:
    """Integers to the last digit of the returns; floats as near as sums in another order are."""
    pytest.importorskip("gymnasium")
    pytest.importorskip("torch")
    words = ("--episodes", 3, "--num-envs", 3, "--json")
    batched = ("--engine", "torch", "--device", "cpu")
    expected = nervecord_cli("run", files / "pendulum.nervecord", *words).json
    actual = nervecord_cli("run", files / "pendulum.nervecord", *words, *batched).json
    assert actual["engine"] == "torch"
    for key in ("return_each", "spikes_per_action", "synaptic_events_per_action", "length_mean"):
        assert actual[key] == expected[key]
    expected = nervecord_cli("run", files / "pendulum.nir", *words).json
    actual = nervecord_cli("run", files / "pendulum.nir", *words, *batched, "--precision", "float64").json
    assert actual["return_each"] == pytest.approx(expected["return_each"], rel=1e-6)
    assert nervecord_cli("run", files / "pendulum.nervecord", *batched, "--precision", "float32").code == 2


def test_run_in_c(nervecord_cli: Any, files: Path) -> None:
    """Observations and actions are rounded to float32 on the way, so that returns are near the emulator's."""
    pytest.importorskip("gymnasium")
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler")
    words = ("run", files / "pendulum.nervecord", "--episodes", 2, "--json", "--engine")
    emulator, c = (nervecord_cli(*words, engine).json for engine in ("emulator", "c"))
    assert c["engine"] == "c"
    assert c["return_each"] == pytest.approx(emulator["return_each"], rel=0.05)
    assert c["spikes_per_action"] == pytest.approx(emulator["spikes_per_action"], rel=0.05)
    assert c["synaptic_events_per_action"] > 0


def test_run_text(nervecord_cli: Any, files: Path) -> None:
    pytest.importorskip("gymnasium")
    answer = nervecord_cli("run", files / "pendulum.nervecord", "--episodes", 1)
    assert answer.code == 0
    lines = dict(line.split("  ", 1) for line in answer.out.splitlines())
    assert {"policy", "environment", "return", "episode length", "latency", "spikes", "synaptic events"} <= set(lines)
    assert {"lava,", "emulator"} < set(lines["policy"].split())
    assert nervecord_cli("run", files / "pendulum.nervecord", "--episodes", 1, "--json").json["return_ci95"] is None


def test_a_dead_engine_ends_a_run_with_exit_code_1(
    nervecord_cli: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gymnasium")
    step = EmulatorSession.step

    def dying(self: EmulatorSession, observation: Any, active: Any = None) -> Any:
        if self.counts.actions >= 150:
            raise EngineError("ended", where="engine")
        return step(self, observation, active)

    monkeypatch.setattr(EmulatorSession, "step", dying)
    words = ("run", files / "pendulum.nervecord", "--episodes", 1)
    answer = nervecord_cli(*words, "--json")
    assert answer.code == 1
    assert answer.json["engine_error"] == "engine: ended"
    assert answer.json["fail_safe"] == {"engine failed": 50}
    assert len(answer.json["return_each"]) == 1
    text = nervecord_cli(*words)
    assert text.code == 1
    assert " engine: ended\n" in text.out
    # A dead engine has no spikes to draw, and the result is kept.
    pytest.importorskip("matplotlib")
    answer = nervecord_cli(*words, "--picture", tmp_path / "a.png", "--json")
    assert (answer.code, "picture" in answer.json) == (1, False)
    monkeypatch.undo()
    assert nervecord_cli(*words, "--json").json["engine_error"] is None


def test_an_engine_that_never_starts_is_exit_code_1(
    nervecord_cli: Any, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gymnasium")

    def dead(self: EmulatorSession, *_: Any, **__: Any) -> None:
        raise EngineError("ended", where="engine")

    monkeypatch.setattr(EmulatorSession, "reset", dead)
    answer = nervecord_cli("run", files / "pendulum.nervecord", "--json")
    assert answer.code == answer.json["exit_code"] == 1
    assert answer.json["error"]["type"] == "EngineError"


def test_run_imports_what_the_user_names_and_not_what_the_file_does(
    nervecord_cli: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gymnasium = pytest.importorskip("gymnasium")
    (tmp_path / "evil.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w').close()\n"
        "import gymnasium\n"
        "gymnasium.register('Evil-v0', lambda: gymnasium.make('Pendulum-v1'))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    graph = read_nir(files / "pendulum.nir")
    assert graph.contract is not None
    contract = dataclasses.replace(graph.contract, environment="evil:Evil-v0")
    write_nir(graph.replace(contract=contract), tmp_path / "p.nir")
    compile_graph(graph.replace(contract=contract), LavaTarget()).save(tmp_path / "p.nervecord")
    for name in ("p.nir", "p.nervecord"):
        nervecord_cli("run", tmp_path / name, "--episodes", 1).refused("evil:Evil-v0: ", "--env evil:Evil-v0")
    assert not (tmp_path / "ran").exists()
    try:
        assert nervecord_cli("run", tmp_path / "p.nir", "--env", "evil:Evil-v0", "--episodes", 1).code == 0
    finally:
        gymnasium.registry.pop("Evil-v0", None)
        sys.modules.pop("evil", None)
    assert (tmp_path / "ran").exists()


def test_run_draws_an_ant(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    pytest.importorskip("matplotlib")
    path = tmp_path / "ant.png"
    path.write_bytes(b"old")
    answer = nervecord_cli("run", files / "ant.nervecord", "--episodes", 1, "--picture", path, "--json")
    assert answer.code == 0
    assert answer.json["picture"] == str(path)
    assert answer.json["env"] == "Ant-v4"
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(content) > 20_000
    assert os.listdir(tmp_path) == ["ant.png"]


def test_run_counts_the_first_episode_as_neurobench_does(nervecord_cli: Any, files: Path) -> None:
    pytest.importorskip("gymnasium")
    words = ("run", files / "pendulum.nervecord", "--episodes", 2, "--neurobench")
    data = nervecord_cli(*words, "--json").json["neurobench"]
    assert data["actions"] == 200
    each, all_of_it = data["per_action"]["SynapticOperations"], data["per_episode"]["SynapticOperations"]
    assert 0 < each["Effective_ACs"] < each["Dense"]
    assert all_of_it["Dense"] == pytest.approx(200 * each["Dense"])
    text = nervecord_cli(*words).out
    for name in ("Footprint", "ActivationSparsity", "Effective_MACs", "per episode (200 actions)"):
        assert name in text
    assert "neurobench" not in nervecord_cli("run", files / "pendulum.nervecord", "--episodes", 1, "--json").json


def test_compile_certifies_and_the_program_keeps_it(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    pytest.importorskip("gymnasium")
    pytest.importorskip("plotly")
    path = tmp_path / "certified.nervecord"
    words = ("compile", files / "pendulum.nir", "--certify", "30%", "--certify-episodes", 50, "-o", path)
    answer = nervecord_cli(*words, "--env", "Pendulum-v1", "--html", tmp_path / "report.html")
    assert answer.code == 0
    assert "certificate" in answer.out
    assert "50 paired" in answer.out
    import nervecord

    certificate = nervecord.load(path).report["certificate"]
    assert (certificate["environment"], certificate["pairs"], certificate["tolerance"]) == ("Pendulum-v1", 50, 0.3)
    assert {"median", "p99", "max"} == set(certificate["action_error"])
    assert certificate["verdict"] in ("holds", "fails", "open")
    page = (tmp_path / "report.html").read_text()
    assert "<h2>Certificate</h2>" in page
    assert "50 paired" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--certify", "0%"), "between 0% and 100%"),
        (("--certify", "much"), "between 0% and 100%"),
        (("--env", "Pendulum-v1"), "--env: "),
        (("--certify", "1%", "--certify-episodes", "3"), "50 pairs"),
    ],
)
def test_certificates_that_make_no_sense(words: tuple[str, ...], message: str, nervecord_cli: Any, files: Path) -> None:
    pytest.importorskip("gymnasium")
    answer = nervecord_cli("compile", files / "pendulum.nir", *words)
    assert answer.code == 2
    assert message in answer.err


def test_where_a_policy_cannot_run_is_said_before_an_engine_is_opened(
    nervecord_cli: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gymnasium")
    monkeypatch.setattr("nervecord.open", lambda *_, **__: pytest.fail("an engine was opened"))
    policy = read_nir(files / "pendulum.nir")
    contract = dataclasses.replace(policy.contract, environment="my_tasks:Reach-v0", wrappers=("my_tasks:Offset",))
    write_nir(policy.replace(contract=contract), tmp_path / "own.nir")
    # All that is missing at once: a policy's file has nothing imported.
    nervecord_cli("run", tmp_path / "own.nir").refused("--env my_tasks:Reach-v0 --wrappers my_tasks:Offset")
    answer = nervecord_cli("run", tmp_path / "own.nir", "--env", "CartPole-v1")
    assert "topology" not in answer.refused("CartPole-v1: ", "--env my_tasks:Reach-v0")
    words = ("compile", tmp_path / "own.nir", "--certify", "1%")
    nervecord_cli(*words).refused("--env my_tasks:Reach-v0 --wrappers my_tasks:Offset")


def test_a_wrapper_that_cannot_be_put_around(nervecord_cli: Any, files: Path) -> None:
    pytest.importorskip("gymnasium")
    words = ("run", files / "pendulum.nir", "--episodes", 1, "--env", "Pendulum-v1", "--wrappers")
    nervecord_cli(*words, "TimeLimit").refused("--wrappers TimeLimit: ", "max_episode")
    short = nervecord_cli(*words, "TimeLimit:7", "--json").json
    assert (short["length_mean"], short["wrappers"]) == (7, ["TimeLimit:7"])
    assert "wrappers         TimeLimit:7" in nervecord_cli(*words, "TimeLimit:7").out


def test_a_compilation_is_announced(capfd: pytest.CaptureFixture[str]) -> None:
    lock = pytest.importorskip("numba.core.compiler_lock").global_compiler_lock

    def output(*, compiles: bool, quiet: bool = False) -> str:
        with announced(quiet=quiet, seconds=0.02), lock if compiles else contextlib.nullcontext():
            time.sleep(0.3)
        return capfd.readouterr().err

    assert output(compiles=True).count("emulator") == 1
    assert output(compiles=False) == ""
    assert output(compiles=True, quiet=True) == ""
