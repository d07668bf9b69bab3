"""Policies that choose an action: every engine of lava makes the same choices."""

from __future__ import annotations

import numpy as np
import pytest
from policies import random_policy

from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import ArgmaxDecode
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.session import MachineSession
from nervecord.targets.lava.arithmetic import lava_arithmetic
from nervecord.targets.lava.engine_lava import LavaSession
from nervecord.targets.lava.netx import export_netx
from nervecord.targets.lava.target import LavaTarget


def lowered(policy: Policy, **options: object) -> tuple[Policy, dict[str, object]]:
    integers, report = lower(policy, lava_arithmetic(), calibrate(policy), **options)  # type: ignore[arg-type]
    assert isinstance(integers, Policy)
    return integers, report


CASES = [(0, 0), (5, 0), (0, 4), (5, 4)]


@pytest.mark.parametrize("state", ["reset", "carried"])
@pytest.mark.parametrize(("population", "output_population"), CASES)
def test_definition_and_emulator(state: str, population: int, output_population: int) -> None:
    policy = random_policy(
        5, sizes=(6, 20, 4), state=state, population=population, output_population=output_population, choices=True
    )
    integers, report = lowered(policy)
    assert policy.recorded is not None
    plain, fast = MachineSession(integers), EmulatorSession(integers)
    actions = []
    for row in policy.recorded:
        actions.append(plain.step(row))
        assert np.array_equal(actions[-1], fast.step(row))
        for name, values in plain.trace().items():
            assert np.array_equal(values, fast.trace()[name])
    assert len(np.unique(actions)) > 1
    assert report["choices_different"] <= (0.1 if state == "reset" else 0.3) * len(policy.recorded)
    if state == "reset" and not output_population:
        assert isinstance(integers.graph.nodes["decode"], ArgmaxDecode)


def test_coarse_weights_change_choices_and_say_so() -> None:
    policy = random_policy(5, sizes=(6, 20, 4), choices=True)
    fine, coarse = (lowered(policy, weight_bits=bits)[1] for bits in (8, 2))
    assert coarse["choices_different"] > fine["choices_different"]
    assert coarse["choice_margin_max"] > 0
    assert any("another action is chosen" in warning for warning in coarse["warnings"])
    assert fine["preference_error_rms"] < coarse["preference_error_rms"]


def test_netx_takes_the_core_of_a_policy_that_chooses(tmp_path: object) -> None:
    policy = random_policy(5, sizes=(6, 20, 4), choices=True)
    integers, _ = lowered(policy, whole=True)
    path = f"{tmp_path}/choice.net"
    assert export_netx(integers, path).layers == 2
    assert LavaTarget().spec.engines[0] == "emulator"


@pytest.mark.lava
@pytest.mark.parametrize(("population", "output_population"), [(0, 0), (4, 3)])
def test_lava_itself(population: int, output_population: int) -> None:
    policy = random_policy(
        4, sizes=(5, 12, 3), population=population, output_population=output_population, choices=True
    )
    integers, _ = lowered(policy)
    assert policy.recorded is not None
    with LavaSession(integers, full_trace=False) as lava, EmulatorSession(integers) as fast:
        actions = [lava.step(row) for row in policy.recorded[:12]]
        np.testing.assert_array_equal(actions, [fast.step(row) for row in policy.recorded[:12]])
        assert len(np.unique(actions)) > 1
        broken = policy.recorded[0].copy()
        broken[0] = np.nan
        assert lava.step(broken).tolist() == [2.0]
