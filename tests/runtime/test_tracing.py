"""Equations are traced when a session opens, and in no step: of a robot's period nothing goes to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graphs import LAVA
from policies import random_policy

from nervecord.compiler.body.trace import Tracer
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.session import MachineSession, Session


def batched(policy: Policy) -> Session:
    pytest.importorskip("torch")
    from nervecord.runtime.engines.torch.session import BatchedSession

    return BatchedSession(policy)


def general(policy: Policy) -> Session:
    return EmulatorSession(policy, fuse=False)


@pytest.mark.parametrize("engine", [MachineSession, general, EmulatorSession, batched])
@pytest.mark.parametrize("state", ["reset", "carried"])
def test_a_step_traces_nothing(
    engine: Callable[[Policy], Session], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = random_policy(3, sizes=(4, 12, 2), population=4, output_population=2, state=state)
    policy, _ = lower(trained, LAVA, calibrate(trained))
    assert isinstance(policy, Policy)
    traced: list[Any] = []
    begin = Tracer.__init__

    def noted(self: Tracer, *arguments: Any) -> None:
        traced.append(arguments)
        begin(self, *arguments)

    with engine(policy) as session:
        monkeypatch.setattr(Tracer, "__init__", noted)
        session.step(np.ones(4))
        assert not traced
        policy.graph.nodes["encode"].traced()
        assert traced
