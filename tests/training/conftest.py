"""Runs that several tests read: each is trained once in a process, and nobody writes to it."""

from __future__ import annotations

import pytest
from runs import small

from nervecord.training.run import TrainResult, train


@pytest.fixture(scope="session")
def td7_run(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    return train(small(tmp_path_factory.mktemp("td7"), "td7", algorithm="td7"))


@pytest.fixture(scope="session")
def ann_run(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A network without spikes, which others imitate and begin with."""
    return train(small(tmp_path_factory.mktemp("ann"), "teacher", policy="ann", sim="envpool"))
