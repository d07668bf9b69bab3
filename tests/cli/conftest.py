"""The command line in process, and small files for it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import random_policy

from nervecord.cli.command import main
from nervecord.compiler.compile import compile_graph
from nervecord.compiler.graph.contract import Channels
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.nir.file import write_nir
from nervecord.targets.lava.target import LavaTarget


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call of the command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout, which must be one JSON object."""
        return json.loads(self.out)

    def refused(self, *words: str, notes: int = 0) -> str:
        """Asserts a refusal: exit code 2, nothing on stdout, a sentence and notes on stderr with these words."""
        assert self.code == 2, self
        assert self.out == ""
        assert self.err.startswith("nervecord ")
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1 + notes, self.err
        assert "Traceback" not in self.err
        for word in words:
            assert word in self.err, f"{word!r} is not in {self.err!r}"
        return self.err


@pytest.fixture
def nervecord_cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """call(*words): the command in this process, with what it wrote, that of C libraries included."""

    def call(*words: object) -> Answer:
        capfd.readouterr()
        code = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return Answer(code, out, err)

    return call


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sound files.

    ant.nir, ant.nervecord: a policy of Ant-v4, as trained and compiled. pendulum.nir, pendulum.nervecord: one whose
    episodes take milliseconds. rows.npz: observations of the ant.
    """
    folder = tmp_path_factory.mktemp("files")
    for name, graph in (("ant", random_policy(sizes=(27, 12, 8))), ("pendulum", pendulum())):
        write_nir(graph, folder / f"{name}.nir")
        compile_graph(graph, LavaTarget()).save(folder / f"{name}.nervecord")
    np.savez(folder / "rows.npz", observations=np.random.default_rng(5).normal(size=(10, 27)))
    return folder


def pendulum() -> Policy:
    """A policy of Gymnasium's Pendulum-v1, whose episodes have 200 steps and no MuJoCo."""
    policy = random_policy(sizes=(3, 8, 1), environment="Pendulum-v1", control_period=0.05)
    action = Channels(("torque",), ("N m",), (-2.0,), (2.0,))
    return policy.replace(contract=dataclasses.replace(policy.contract, action=action))
