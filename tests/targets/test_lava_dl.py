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
from lava_graphs import expected, expressible
from policies import random_policy

import nervecord
from nervecord.compiler import nodes as n
from nervecord.compiler.graph import Graph
from nervecord.compiler.host import Host
from nervecord.compiler.node import Array
from nervecord.errors import InfeasibleError
from nervecord.runtime.worker import Worker
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
        subprocess.run([*pip, *bare, *environment.PINS, "lava-dl==0.6.0"], check=True)
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


def assert_equal(worker: Worker, graph: Graph, x: Array, path: Path) -> None:
    """Membranes of all layers at every step, by lava-dl and by definition."""
    exported = export_netx(graph, path)
    wanted = expected(graph, x)
    assert wanted is not None
    reply = worker.call("play", {"file": str(path), "arguments": exported.arguments}, {"x": x}, timeout=120)
    for k, (name, values) in enumerate(wanted[1].items()):
        np.testing.assert_array_equal(reply.arrays[f"v_{k}"], values, err_msg=name)


def test_random_graphs(worker: Worker, tmp_path: Path) -> None:
    same = 0
    for seed in range(60):
        graph, x = expressible(seed)
        try:
            export_netx(graph, tmp_path / "a.net")
        except InfeasibleError:
            continue
        if expected(graph, x) is None:
            continue
        assert_equal(worker, graph, x, tmp_path / f"{seed}.net")
        same += 1
    assert same > 20


def test_a_compiled_policy(worker: Worker, tmp_path: Path) -> None:
    """Two actions of a policy, encoded as it encodes them."""
    policy = random_policy(sizes=(27, 64, 8))
    program = nervecord.compile(policy, "lava", netx=True)
    core = core_of(program.graph)
    assert program.contract is not None
    assert policy.recorded is not None
    x = np.concatenate(list(Host(program.graph).encode(policy.recorded[:2]).swapaxes(0, 1)))
    assert_equal(worker, core, x, tmp_path / "policy.net")


def core_of(graph: Graph) -> Graph:
    """Without the nodes of the host."""
    names = [name for name in graph.order() if name in graph.core]
    first, last = graph.nodes[names[0]], graph.nodes[names[-1]]
    nodes = {"input": n.Input(first.in_shape), **{k: graph.nodes[k] for k in names}, "output": n.Output(last.out_shape)}
    order = list(nodes)
    return graph.replace(nodes=nodes, edges=tuple(zip(order, order[1:])), contract=None)  # noqa: B905, RUF007
