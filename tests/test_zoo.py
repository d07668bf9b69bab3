"""The policy that comes with the repository: it is what its README says it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import nervecord
from nervecord.runtime.environment import episode_seeds, make_environment
from nervecord.targets.lava import environment

ANT = Path(__file__).parent.parent / "zoo" / "ant"


def test_the_program_is_the_policy_compiled() -> None:
    """Versions and the last bit of a report may differ between machines; what runs must not."""
    made, kept = nervecord.compile(ANT / "policy.nir", "lava"), nervecord.load(ANT / "ant.nervecord")
    assert made.target == kept.target == "lava"
    assert made.graph == kept.graph
    assert made.report["lowering"]["layers"] == kept.report["lowering"]["layers"]


def test_it_fits_and_says_where_it_is_from() -> None:
    policy = nervecord.read(ANT / "policy.nir")
    assert [target.verdict for target in nervecord.inspect(policy, ["lava"]).targets] == ["feasible"]
    assert policy.contract is not None
    assert policy.contract.environment == "Ant-v4"
    assert policy.contract.provenance


@pytest.mark.parametrize("name", ["policy.nir", "ant.nervecord"])
def test_it_walks(name: str) -> None:
    with nervecord.open(ANT / name) as session:
        result = nervecord.run(session, episodes=4, seed=5, environments=4)
    assert result.mean > 4500


def test_its_figures_are_those_of_its_episodes() -> None:
    sides = [json.loads((ANT / f"evaluation-{side}.json").read_text()) for side in ("float", "fixed")]
    assert [side["target"] for side in sides] == ["reference", "lava"]
    assert sides[0]["seed"] == sides[1]["seed"]
    for side in sides:
        assert side["episodes"] == len(side["return_each"]) >= 500
        assert side["return_mean"] == pytest.approx(np.mean(side["return_each"]))
    text = (ANT / "README.md").read_text()
    for side in sides:
        assert f"{side['return_mean']:,.0f} ± {side['return_ci95']:,.0f}" in text


@pytest.mark.lava
@pytest.mark.slow
def test_three_episodes_in_lava_action_by_action() -> None:
    if not environment.status().installed:
        pytest.skip(f"no Lava environment; run {environment.INSTALL_COMMAND}")
    program = nervecord.load(ANT / "ant.nervecord")
    compared = 0
    with nervecord.open(program) as emulator, nervecord.open(program, engine="lava", trace=False) as lava:
        world = make_environment("Ant-v4")
        for seed in episode_seeds(11, 3):
            emulator.reset(1)
            lava.reset(1)
            observation, _ = world.reset(seed=seed)
            ended = False
            while not ended:
                action = emulator.step(observation)
                np.testing.assert_array_equal(lava.step(observation), action)
                observation, _, terminated, truncated, _ = world.step(action)
                ended = terminated or truncated
                compared += 1
        world.close()
        assert emulator.counts.spikes == lava.counts.spikes
    assert compared > 1000
