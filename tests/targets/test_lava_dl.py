"""The HDF5 for netx, loaded by the real netx of lava-dl 0.6.0: the same membranes at every step.

lava-dl pins a torch that is gigabytes large and no longer needed for reading a file, so its environment is made here
without looking at its pins, on the interpreter of the tests, with the shim for Pythons newer than Lava declares. Marker
`lava_dl`: making it takes minutes, once; it is kept in NERVECORD_LAVA_DL, or in the user's data folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lava_graphs import Case, chained, entered, expected
from policies import random_policy

import nervecord
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.host_steps import split
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import InfeasibleError
from nervecord.runtime.worker.parent import Worker
from nervecord.targets.lava import environment
from nervecord.targets.lava.netx import export_netx

pytestmark = pytest.mark.lava_dl
SHIM = Path(environment.__file__).parent / "lava_worker"
HANDLER = Path(__file__).parent / "netx_handler.py"


def make(folder: Path) -> None:
    """An environment with lava-dl 0.6.0, whole or not at all."""
    building = folder.with_name(f"{folder.name}.building-{os.getpid()}")
    pip = [str(building / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run([sys.executable, "-m", "venv", str(building)], check=True)
        bare = ["--no-deps", "--ignore-requires-python"]
        subprocess.run([*pip, *bare, *environment.pins(), "lava-dl==0.6.0"], check=True)
        libraries = ["torch", "torchvision", "h5py", "opencv-python-headless<4.11", "matplotlib<3.10", "numpy==1.26.4"]
        subprocess.run([*pip, *libraries], check=True)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    folder = Path(os.environ.get("NERVECORD_LAVA_DL") or environment.home() / "lava-dl")
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        make(folder)
    with Worker(
        folder / "bin" / "python", HANDLER, name="lava-dl", options={"shim": str(SHIM)}, start_timeout=120
    ) as running:
        assert running.info == {"lava": environment.LAVA_VERSION, "lava_dl": "0.6.0"}
        yield running


def assert_equal(worker: Worker, network_plan: Plan, x: Array, reference: dict[str, Array], path: Path) -> None:
    """Membranes of all layers at every step, by lava-dl and by definition."""
    exported = export_netx(network_plan, path)
    reply = worker.call("play", {"file": str(path), "arguments": exported.arguments}, {"x": x}, timeout=120)
    for k, unit in enumerate(network_plan.units):
        name = unit.step.name
        np.testing.assert_array_equal(reply.arrays[f"v_{k}"], reference[name], err_msg=name)


def membranes(case: Case) -> dict[str, Array]:
    reference = expected(case)
    assert reference is not None
    return reference[1]


def test_random_graphs(worker: Worker, tmp_path: Path) -> None:
    same = 0
    for seed in range(60):
        case = chained(seed)
        try:
            export_netx(case.plan, tmp_path / "a.net")
        except InfeasibleError:
            continue
        assert_equal(worker, case.plan, entered(case)["input"], membranes(case), tmp_path / f"{seed}.net")
        same += 1
    assert same > 20


def test_a_compiled_policy(worker: Worker, tmp_path: Path) -> None:
    """Two actions of a policy, encoded as it encodes them."""
    policy = random_policy(sizes=(27, 64, 8))
    program = nervecord.compile(policy, "lava", netx=True)
    assert policy.recorded is not None
    network_plan = plan(program.policy)
    machine = Machine(network_plan)
    histories: dict[str, list[Array]] = {unit.step.name: [] for unit in network_plan.units}
    x = []
    for row in policy.recorded[:2]:
        entering = machine.before.enter(split(machine.plan, row[None]), np.int64)
        (rows,) = entering.values()
        for t in range(network_plan.window):
            machine.step({name: values[t] for name, values in entering.items()})
            for name, history in histories.items():
                history.append(machine.state[name]["v"][0])
        x.append(rows[:, 0])
    expected_membranes = {name: np.stack(values) for name, values in histories.items()}
    assert_equal(worker, network_plan, np.concatenate(x), expected_membranes, tmp_path / "policy.net")
