"""The loops of docs/robot.md run as they stand there, and give the actions that the session gives."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nervecord
from nervecord.compiler.ops import Array
from nervecord.runtime.answer import NOT_FINITE

ROOT = Path(__file__).parent.parent
ANT = ROOT / "zoo" / "ant-small"
COUNT = 12
BROKEN = 5
"""The observation that holds a NaN."""


def block(kind: str, having: str) -> str:
    """The document's block of code of a language that has these words in it."""
    text = (ROOT / "docs" / "robot.md").read_text(encoding="utf-8")
    (code,) = [body for body in re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if having in body]
    return str(code)


@pytest.fixture(scope="module")
def rows() -> Array:
    """Observations that float32 holds; one of them is broken."""
    policy = nervecord.read(ANT / "policy.nir")
    assert isinstance(policy, nervecord.Policy)
    assert policy.recorded is not None
    observations = policy.recorded[:COUNT].astype(np.float32)
    observations[BROKEN, 3] = np.nan
    return observations


@pytest.fixture(scope="module")
def expected(rows: Array) -> Array:
    """What the emulator does."""
    with nervecord.open(ANT / "ant-small.nervecord", trace=False) as session:
        return np.array([session.step(row) for row in rows])


def test_python(rows: Array, expected: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    reports: list[str] = []
    actions: list[Array] = []
    observations = iter(rows)
    namespace: dict[str, Any] = {
        "running": lambda: len(actions) < COUNT,
        "read_sensors": lambda: next(observations),
        "drive": actions.append,
        "report": reports.append,
    }
    exec(compile(block("python", "running()"), "docs/robot.md", "exec"), namespace)
    # A busy machine may be late as well, and then the fail-safe action is right.
    assert NOT_FINITE in reports
    fail_safe = np.array(namespace["program"].contract.fail_safe)
    trusted = [(action != fail_safe).any() for action in actions]
    assert len(actions) - sum(trusted) == len(reports)
    assert not trusted[BROKEN]
    assert any(trusted), "late at every tick: nothing was compared"
    for action, same, sure in zip(actions, expected, trusted, strict=True):
        np.testing.assert_array_equal(action, same if sure else fail_safe)


MAIN_C = """
#include "policy.h"
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool wait_for_tick(void);
void read_sensors(float obs[POLICY_OBS_DIM]);
void drive(const float act[POLICY_ACT_DIM]);
void report(int code);
void control_loop(void);

static FILE *rows, *actions;
static int ticks;

bool wait_for_tick(void) { return ticks++ < COUNT; }

void read_sensors(float obs[POLICY_OBS_DIM])
{
    if (fread(obs, sizeof(float), POLICY_OBS_DIM, rows) != POLICY_OBS_DIM) {
        exit(2);
    }
}

void drive(const float act[POLICY_ACT_DIM]) { fwrite(act, sizeof(float), POLICY_ACT_DIM, actions); }

void report(int code) { printf("%d at %d\\n", code, ticks - 1); }

int main(void)
{
    rows = fopen("rows.bin", "rb");
    actions = fopen("actions.bin", "wb");
    if (rows == NULL || actions == NULL) {
        return 2;
    }
    control_loop();
    fclose(actions);
    return 0;
}
"""


def actions_in(folder: Path) -> Array:
    return np.fromfile(folder / "actions.bin", dtype=np.float32).reshape(COUNT, -1)


def test_c(rows: Array, expected: Array, tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    nervecord.emit(nervecord.compile(ANT / "ant-small.nervecord", "c"), tmp_path)
    (tmp_path / "loop.c").write_text(block("c", "control_loop"), encoding="utf-8")
    (tmp_path / "main.c").write_text(MAIN_C, encoding="utf-8")
    rows.tofile(tmp_path / "rows.bin")
    sources = ["main.c", "loop.c", "policy.c", "policy_weights.c", "policy_selftest.c"]
    flags = ["-std=c99", "-ffp-contract=off", "-O2", "-Wall", "-Wextra", "-Werror", f"-DCOUNT={COUNT}"]
    subprocess.run([compiler, *flags, *sources, "-o", "robot"], cwd=tmp_path, check=True)
    process = subprocess.run(["./robot"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert process.stdout == f"1 at {BROKEN}\n"  # POLICY_NOT_FINITE
    np.testing.assert_array_equal(actions_in(tmp_path), expected.astype(np.float32))


@pytest.fixture(scope="module")
def onnx_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With out/policy.onnx in it, in integers."""
    pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("onnx")
    nervecord.emit(ANT / "ant-small.nervecord", folder / "out", target="onnx")
    return folder


def test_onnx_in_python(rows: Array, expected: Array, onnx_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(onnx_folder)
    namespace: dict[str, Any] = {}
    exec(compile(block("python", "def act(observation)"), "docs/robot.md", "exec"), namespace)
    np.testing.assert_array_equal([namespace["act"](row) for row in rows], expected.astype(np.float32))


MAIN_CPP = """
#include <cstdio>

int main() {
  Policy policy("out/policy.onnx");
  std::FILE* rows = std::fopen("rows.bin", "rb");
  std::FILE* actions = std::fopen("actions.bin", "wb");
  if (!rows || !actions) return 2;
  std::vector<float> observation(SIZE);
  while (std::fread(observation.data(), sizeof(float), observation.size(), rows) == observation.size()) {
    const std::vector<float>& action = policy.act(observation);
    std::fwrite(action.data(), sizeof(float), action.size(), actions);
  }
  std::fclose(actions);
  return 0;
}
"""
HEADERS = [Path(folder) for folder in ("/usr/include/onnxruntime", "/usr/local/include/onnxruntime")]


def test_onnx_in_cpp(rows: Array, expected: Array, onnx_folder: Path) -> None:
    """With the headers and the library of the system, whose version is not that of the Python package."""
    include = [folder for folder in HEADERS if (folder / "onnxruntime_cxx_api.h").is_file()]
    compiler = shutil.which("g++") or shutil.which("clang++")
    if not include or compiler is None:
        pytest.skip("no C++ compiler, or no headers of ONNX Runtime (apt-get install g++ libonnxruntime-dev)")
    (onnx_folder / "robot.cpp").write_text(block("cpp", "class Policy") + MAIN_CPP, encoding="utf-8")
    rows.tofile(onnx_folder / "rows.bin")
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-DSIZE={rows.shape[1]}", "-isystem", str(include[0])]
    words = [compiler, *flags, "robot.cpp", "-o", "robot", "-lonnxruntime"]
    subprocess.run(words, cwd=onnx_folder, check=True)
    subprocess.run(["./robot"], cwd=onnx_folder, check=True)
    np.testing.assert_array_equal(actions_in(onnx_folder), expected.astype(np.float32))


@pytest.mark.long
def test_without_numba(rows: Array, expected: Array, tmp_path: Path) -> None:
    """The core without numba and llvmlite: compiling, the definition, and the engine c."""
    code = f"""
import sys
import numpy as np
sys.modules["numba"] = sys.modules["llvmlite"] = None
import nervecord
nervecord.compile({str(ANT / "policy.nir")!r}, "lava").save("ant.nervecord")
rows = np.load("rows.npy")
for engine in ("definition", {'"c"' if shutil.which("gcc") or shutil.which("clang") else ""}):
    with nervecord.open("ant.nervecord", engine=engine) as session:
        np.save(engine, [session.step(row) for row in rows])
"""
    np.save(tmp_path / "rows.npy", rows)
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    for path in tmp_path.glob("[cd]*.npy"):
        np.testing.assert_array_equal(np.load(path).astype(np.float32), expected.astype(np.float32))
    assert (tmp_path / "definition.npy").exists()


# --------------------------------------------------------------------------------------------------------------------
# ROS 2, of which stubs stand for rclpy


def rclpy_stubs(monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any]) -> dict[str, Any]:
    """What the node of the document uses of rclpy and std_msgs, by the signatures of ROS 2's documentation."""
    node_log: dict[str, Any] = {"published": [], "log": [], "now": 10.0, "timers": [], "subscriptions": {}}

    class Message:
        def __init__(self, *, data: Any = ()) -> None:
            assert all(isinstance(value, float) for value in data)  # rclpy refuses other types
            self.data = list(data)

    class Publisher:
        def publish(self, message: Message) -> None:
            assert isinstance(message, Message)
            node_log["published"].append(message.data)

    class Node:
        def __init__(self, name: str) -> None:
            assert name.isidentifier()

        def declare_parameter(self, name: str, default: Any) -> Any:
            return types.SimpleNamespace(value=parameters.get(name, default))

        def create_publisher(self, kind: type, topic: str, depth: int) -> Publisher:
            return Publisher()

        def create_subscription(self, kind: type, topic: str, callback: Any, depth: int) -> None:
            node_log["subscriptions"][topic] = callback

        def create_timer(self, period: float, callback: Any) -> None:
            node_log["timers"].append((period, callback))

        def get_clock(self) -> Any:
            return types.SimpleNamespace(now=lambda: types.SimpleNamespace(nanoseconds=int(node_log["now"] * 1e9)))

        def get_logger(self) -> Any:
            return types.SimpleNamespace(
                **{
                    level: lambda text, level=level: node_log["log"].append((level, text))
                    for level in ("info", "warning", "error")
                }
            )

        def destroy_node(self) -> None:
            node_log["destroyed"] = True

    rclpy, node, std, msg = (types.ModuleType(name) for name in ("rclpy", "rclpy.node", "std_msgs", "std_msgs.msg"))
    node.Node, msg.Float64MultiArray = Node, Message  # type: ignore[attr-defined]
    rclpy.init = rclpy.try_shutdown = lambda: None  # type: ignore[attr-defined]
    for module in (rclpy, node, std, msg):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    node_log.update(rclpy=rclpy, message=Message)
    return node_log


def test_ros(rows: Array, expected: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    node_log = rclpy_stubs(monkeypatch, {"program": str(ANT / "ant-small.nervecord")})
    fail_safe = list(nervecord.load(ANT / "ant-small.nervecord").contract.fail_safe)  # type: ignore[union-attr]

    def spin(node: Any) -> None:
        ((period, act),) = node_log["timers"]
        assert period == node.contract.control_period
        # At the rate of the contract, whatever this machine is busy with.
        node.session._clock = lambda: node_log["now"]
        act()
        for row in rows:
            node_log["now"] += period
            node_log["subscriptions"]["observation"](node_log["message"](data=[float(x) for x in row]))
            act()
        node_log["now"] += 1.0  # the sensor is gone
        act()
        node_log["subscriptions"]["observation"](node_log["message"](data=[0.0]))
        raise KeyboardInterrupt

    node_log["rclpy"].spin = spin
    exec(compile(block("python", "PolicyNode"), "docs/robot.md", "exec"), {"__name__": "__main__"})
    first, *acted, last = node_log["published"]
    assert first == last == fail_safe
    for k, (action, same) in enumerate(zip(acted, expected, strict=True)):
        assert action == (fail_safe if k == BROKEN else same.tolist())
    levels = [level for level, _ in node_log["log"]]
    assert levels == ["warning", "error", "info"]
    assert node_log["destroyed"]
