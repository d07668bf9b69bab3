"""Pictures, videos and reports of a result: checked before the work, made after the result is printed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from examples import some
from malformed import malformed
from policies import random_policy

from nervecord.compiler.compile import compile_graph
from nervecord.compiler.graph.contract import Channels
from nervecord.compiler.nir.file import write_nir
from nervecord.targets.lava.target import LavaTarget

gymnasium = pytest.importorskip("gymnasium")
imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")


class Lamp(gymnasium.Env):
    """An environment of a user's own: ten steps, a picture that is as bright as the last action."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}
    chance = False

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space = gymnasium.spaces.Box(-10.0, 10.0, (3,))
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps, self.light = 0, 0.0
        return self.np_random.normal(size=3).astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        self.light = float(np.clip(action[0], -1, 1))
        reward = self.light + (float(np.random.default_rng().normal()) if self.chance else 0.0)
        return self.np_random.normal(size=3).astype(np.float32), reward, False, self.steps >= 10, {}

    def render(self) -> np.ndarray:
        return np.full((60, 90, 3), round(127.5 * (1 + self.light)), dtype=np.uint8)


class Chance(Lamp):
    """The same with chance that no seed decides."""

    chance = True


class Dark(Lamp):
    """The same without pictures."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a policy and a program for each of the environments above, which Gymnasium knows meanwhile."""
    folder = tmp_path_factory.mktemp("own")
    for kind in (Lamp, Chance, Dark):
        name = f"{kind.__name__}-v0"
        gymnasium.register(name, kind, disable_env_checker=True)
        graph = random_policy(sizes=(3, 8, 1), environment=name, control_period=0.05)
        action = Channels(("light",), ("1",), (-1.0,), (1.0,))
        graph = graph.replace(contract=dataclasses.replace(graph.contract, action=action))
        write_nir(graph, folder / f"{kind.__name__}.nir")
        compile_graph(graph, LavaTarget()).save(folder / f"{kind.__name__}.nervecord")
    yield folder
    for kind in (Lamp, Chance, Dark):
        del gymnasium.registry[f"{kind.__name__}-v0"]


def frames(path: Path, width: int = 640) -> list[np.ndarray]:
    """The frames of a video, which are 720 high."""
    words = ["-v", "error", "-i", str(path), "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    process = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *words], capture_output=True, check=True)
    raw = np.frombuffer(process.stdout, dtype=np.uint8)
    return list(raw.reshape(-1, 720, width, 3))


# --------------------------------------------------------------------------------------------------------------------
# Videos


@pytest.mark.parametrize("suffix", some([".mp4", ".webm", ".mkv"], 1))
def test_a_video_of_an_environment_of_ones_own(suffix: str, nervecord_cli: Any, own: Path, tmp_path: Path) -> None:
    path = tmp_path / f"lamp{suffix}"
    answer = nervecord_cli("run", own / "Lamp.nervecord", "--episodes", 2, "--video", path, "--json")
    assert answer.code == 0
    assert answer.json["video"] == str(path)
    assert re.search(r"\(rendered .*, 0\.5 s\)", answer.err)
    images = frames(path)
    assert len(images) == 11
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_two_policies_side_by_side(nervecord_cli: Any, own: Path, tmp_path: Path) -> None:
    path = tmp_path / "both.mp4"
    words = ["run", own / "Lamp.nervecord", "--beside", own / "Lamp.nir", "--episodes", 2, "--video", path]
    answer = nervecord_cli(*words, "--video-seconds", 0.25, "--json")
    assert answer.code == 0
    assert re.search(r" 0\.[23] of 0\.5 s", answer.err)
    assert answer.json["target"] == "lava"
    assert answer.json["beside"]["target"] == "reference"
    assert answer.json["beside"]["episodes"] == answer.json["episodes"] == 2
    images = frames(path, 1280)
    assert len(images) == 5
    # Each column shows its own picture, as bright as what its policy did: at first both are at rest.
    left, right = (float(images[0][200:300, at : at + 100].mean()) for at in (270, 910))
    assert abs(left - 128) < 6
    assert abs(right - 128) < 6
    assert "lava" in nervecord_cli(*words[:-2], "--quiet").out


def test_an_episode_that_cannot_be_played_again_takes_nothing_away(
    nervecord_cli: Any, own: Path, tmp_path: Path
) -> None:
    words = ["run", own / "Chance.nervecord", "--episodes", 2, "--video", tmp_path / "a.mp4", "--picture"]
    answer = nervecord_cli(*words, tmp_path / "a.png", "--json")
    assert answer.code == 2
    assert len(answer.json["return_each"]) == 2
    assert "another one at step 1" in answer.err
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_what_cannot_be_filmed_is_refused_before_the_run(nervecord_cli: Any, own: Path, tmp_path: Path) -> None:
    words = ("run", own / "Dark.nervecord", "--video", tmp_path / "a.mp4")
    nervecord_cli(*words).refused("Dark-v0: ", "rgb_array")
    words = ("run", own / "Lamp.nervecord", "--video-seconds", 3)
    nervecord_cli(*words).refused("--video-seconds: nothing is filmed")
    words = ("run", own / "Lamp.nervecord", "--video", tmp_path / "a.mp4", "--video-seconds", "nan")
    nervecord_cli(*words).refused("--video-seconds: ", " nan")


def test_a_folder_that_cannot_be_written_is_refused_before_the_run(nervecord_cli: Any, own: Path) -> None:
    for flag, name in (("--video", "a.mp4"), ("--picture", "a.png"), ("--html", "a.html")):
        answer = nervecord_cli("run", own / "Lamp.nervecord", flag, f"/proc/{name}")
        answer.refused("/proc")


@pytest.mark.long
def test_mujoco_is_rendered_or_drawn(nervecord_cli: Any, files: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """On a device that does not exist EGL fails; then it is OSMesa or a drawing, and the answer says which."""
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "99")
    path = tmp_path / "ant.mp4"
    answer = nervecord_cli("run", files / "ant.nervecord", "--episodes", 1, "--video", path, "--video-seconds", 0.3)
    assert answer.code == 0
    assert re.search(r"no OpenGL|\(osmesa\)", answer.err)
    images = frames(path)
    assert len(images) == 6
    assert images[0][40:470].std() > 5


# --------------------------------------------------------------------------------------------------------------------
# Reports


def needs_report() -> None:
    for needed in ("plotly", "jinja2", "networkx"):
        pytest.importorskip(needed, reason="the extra report is not installed")


@pytest.mark.long
def test_reports_of_the_verbs(nervecord_cli: Any, own: Path, tmp_path: Path) -> None:
    needs_report()
    policy, program = own / "Lamp.nir", own / "Lamp.nervecord"
    for name, words in {
        "inspect": ["inspect", policy, "--svg", tmp_path / "a.svg", "--dot", tmp_path / "a.dot"],
        "compile": ["compile", policy],
        "run": ["run", program, "--beside", policy, "--episodes", 2],
        "compare": ["compare", policy, program],
    }.items():
        path = tmp_path / f"{name}.html"
        answer = nervecord_cli(*words, "--html", path, "--json")
        assert answer.code == 0, answer.err
        assert answer.json["html"] == str(path)
        assert f"wrote {path}" in answer.err
        text = path.read_text(encoding="utf-8")
        assert "Content-Security-Policy" in text
        figures = json.loads(text.split('id="figures">')[1].split("</script>")[0])
        assert len(figures) >= 3
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")
    assert (tmp_path / "a.dot").read_text().startswith("digraph")


@pytest.mark.parametrize("flag", ["--html", "--svg", "--dot"])
def test_reports_are_refused_before_the_work(flag: str, nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    needs_report()
    nervecord_cli("inspect", "none.nir", flag, tmp_path).refused(f"{flag}: {tmp_path} ")
    nervecord_cli("inspect", "none.nir", flag, tmp_path / "no" / "a.html").refused(f"{flag}: ", f"{tmp_path / 'no'} ")


def test_a_report_with_another_ending_is_refused(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    needs_report()
    nervecord_cli("compile", files / "ant.nir", "--html", tmp_path / "a.pdf").refused("a.pdf: ", "'.pdf'")


def test_a_drawing_of_a_damaged_graph_leaves_the_result(nervecord_cli: Any, tmp_path: Path) -> None:
    needs_report()
    damaged = malformed("decay_edited.nir")
    answer = nervecord_cli("inspect", damaged, "--svg", tmp_path / "a.svg")
    assert "Traceback" not in answer.err
    assert answer.code in (0, 2)


@pytest.mark.parametrize(
    "words", [["run", "{files}/ant.nervecord", "--episodes", "1"], ["train", "--env", "Ant-v4"]], ids=["run", "train"]
)
def test_an_opengl_that_does_not_exist(words: list[str], files: Path, tmp_path: Path) -> None:
    """MuJoCo says no when it is imported, so this is asked of a process of its own."""
    if words[0] == "train":
        pytest.importorskip("torch")
    command = [sys.executable, "-m", "nervecord", *(word.format(files=files) for word in words)]
    process = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "MUJOCO_GL": "nonsense"}, cwd=tmp_path
    )
    assert process.returncode == 2
    assert re.search("Ant-v4: .*MUJOCO_GL: nonsense .*egl .*osmesa", process.stderr)
    assert not list(tmp_path.glob("runs/*"))


ARM = """
<mujoco><option timestep="0.05"/><worldbody><body><joint type="hinge" axis="0 1 0"/>{geom}
<body pos="0 0 0.5"><joint type="hinge" axis="0 1 0"/>{geom}</body></body></worldbody>
<actuator><motor joint="{joint}" gear="0.1"/></actuator></mujoco>
"""


class Arm(gymnasium.Env):
    """A robot of a user's own in MuJoCo: an arm of two links that stands where it is."""

    dt = 0.05
    geom = '<geom type="capsule" fromto="0 0 0 0 0 0.5" size="0.05"/>'

    def __init__(self, render_mode: str | None = None) -> None:
        import mujoco

        xml = ARM.format(geom=self.geom, joint="j").replace("<joint type", '<joint name="j" type', 1)
        self.model = mujoco.MjModel.from_xml_string(xml)
        self.data = mujoco.MjData(self.model)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))

    def _observation(self) -> np.ndarray:
        return np.concatenate([self.data.qpos, self.data.qvel])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        import mujoco

        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = self.np_random.normal(size=2)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        import mujoco

        self.data.ctrl[:] = action
        mujoco.mj_step(self.model, self.data)
        return self._observation(), 0.0, False, False, {}


class Plate(Arm):
    """The same of links that cannot be drawn."""

    geom = '<inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>'


@pytest.mark.parametrize("kind", [Arm, Plate])
def test_a_picture_of_a_robot_that_stands(kind: type[Arm], nervecord_cli: Any, tmp_path: Path) -> None:
    pytest.importorskip("mujoco")
    from matplotlib.image import imread

    name = f"{kind.__name__}-v0"
    gymnasium.register(name, kind, max_episode_steps=30, disable_env_checker=True)
    try:
        policy = random_policy(sizes=(4, 8, 1), environment=name, control_period=0.05)
        limits = Channels(("torque",), ("1",), (-1.0,), (1.0,))
        write_nir(policy.replace(contract=dataclasses.replace(policy.contract, action=limits)), tmp_path / "arm.nir")
        answer = nervecord_cli("run", tmp_path / "arm.nir", "--episodes", 1, "--picture", tmp_path / "arm.png")
    finally:
        del gymnasium.registry[name]
    assert answer.code == 0, answer.err
    ink = (imread(tmp_path / "arm.png")[..., :3].min(axis=2) < 0.6).astype(float)
    shares = [band.mean() for band in np.array_split(ink[int(0.09 * len(ink)) : int(0.42 * len(ink))], 5, axis=1)]
    if kind is Arm:
        assert min(shares) > 0.005  # a snapshot in each fifth of the strip
        assert "without the robot" not in answer.err
    else:
        assert "without the robot: " in answer.err
