"""policy.nir computes what the trained torch policy computes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import torch
from examples import some

from nervecord.compiler.graph.verify import verify
from nervecord.compiler.nir.file import read_nir
from nervecord.compiler.ops import Affine
from nervecord.compiler.plan.interpret import simulate
from nervecord.errors import NervecordError
from nervecord.training.folder import checkpoint
from nervecord.training.folder.export import describe_checkpoint, exportable, policy_from_checkpoint
from nervecord.training.run import train
from nervecord.training.settings.tasks import channels
from nervecord.training.simulators.base import control_period

KINDS = {
    "reset": {},
    "deep": {"layers": (12, 9)},
    "carried": {"state": "carried"},
    "delays": {"state": "carried", "delays": True, "layers": (12, 9)},
    "synaptic": {"neuron": "synaptic"},
    "population": {"encoder": "population", "population": 6},
    "count": {"decoder": "count", "output_population": 5},
    "population-count": {"encoder": "population", "decoder": "count"},
    "population-count-delays": {"encoder": "population", "decoder": "count", "state": "carried", "delays": True},
    "synaptic-delays": {"neuron": "synaptic", "state": "carried", "delays": True},
    "recurrent": {"recurrent": True, "state": "carried", "delays": True},
}


small = partial(
    runs.small,
    env="InvertedDoublePendulum-v4",
    layers=(12,),
    steps=8 * 64,
    steps_per_action=4,
    lr=3e-3,
    checkpoint_every=256,
    test_episodes=2,
    record=2048,
)


@pytest.mark.parametrize("changes", some(KINDS.values(), 5), ids=KINDS.keys())
def test_the_file_computes_what_was_trained(tmp_path: Path, changes: dict[str, Any]) -> None:
    result = train(small(tmp_path, **changes))
    assert result.policy is not None
    graph = read_nir(result.policy)
    assert verify(graph) == []
    assert graph.contract is not None
    assert graph.recorded is not None
    assert graph.recorded.shape[1] == len(graph.contract.observation.names)
    content = checkpoint.load(result.folder / "checkpoints", result.step)
    policy = policy_from_checkpoint(result.config, content).double()
    description = describe_checkpoint(result.config, content)

    observations = graph.recorded[:40].reshape(10, 4, -1)
    actions = simulate(graph, observations).actions
    assert actions is not None
    state, expected, spikes = None, [], 0
    with torch.no_grad():
        for batch in observations:
            inputs = (batch - description.mean) / (np.sqrt(description.variance) + description.epsilon)
            inputs = np.clip(inputs, -description.clip, description.clip)
            mean, state = policy(torch.from_numpy(inputs), state)
            expected.append(np.clip(mean.numpy(), description.low, description.high))
    traces = simulate(graph, observations).spikes(graph.graph)
    spikes = sum(int(train.sum()) for train in traces.values())
    assert spikes > 0, "a silent policy would agree with anything"
    assert np.ptp(actions) > 0
    # The policy's decays are float32 sigmoids, in double() they are float64 ones: 1e-7 apart.
    np.testing.assert_allclose(actions, np.stack(expected), rtol=0, atol=2e-5)


def test_provenance_and_contract(tmp_path: Path) -> None:
    result = train(small(tmp_path))
    assert result.policy is not None
    contract = read_nir(result.policy).contract
    assert contract is not None
    assert contract.environment == "InvertedDoublePendulum-v4"
    assert contract.control_period == pytest.approx(0.05)
    assert contract.steps == 4
    assert contract.state == "reset"
    assert contract.provenance["training_steps"] == str(result.step)
    assert result.test is not None
    assert contract.provenance["test_return"] == f"{result.test.mean:.1f}"
    assert len(contract.provenance["configuration_sha256"]) == 64


def test_a_policy_without_spikes_is_trained_and_not_exported(tmp_path: Path) -> None:
    result = train(small(tmp_path, policy="ann"))
    assert result.policy is None
    assert not (result.folder / "policy.nir").exists()
    assert result.test is not None
    content = checkpoint.load(result.folder / "checkpoints", result.step)
    with pytest.raises(NervecordError, match="without spikes"):
        policy_from_checkpoint(result.config, content)


def test_layers_that_hear_themselves_are_trained_and_exported(tmp_path: Path) -> None:
    result = train(small(tmp_path, recurrent=True, state="carried", delays=True))
    assert result.policy is not None
    assert exportable(result.config) is None
    back = read_nir(result.policy).graph.nodes["back1"]
    assert isinstance(back, Affine)
    content = checkpoint.load(result.folder / "checkpoints", result.step)
    (layer,) = describe_checkpoint(result.config, content).layers
    assert layer.recurrent is not None
    assert layer.recurrent.shape == (12, 12)
    np.testing.assert_allclose(back.weight, layer.recurrent, rtol=1e-6)
    first = checkpoint.load(result.folder / "checkpoints", 256)["learner"]["actor"]["net.recurrent.0.weight"]
    assert not torch.equal(first, content["learner"]["actor"]["net.recurrent.0.weight"]) or result.step == 256


def test_ant_channels_follow_the_model() -> None:
    """Against the MuJoCo model itself: order of qpos, qvel and actuators."""
    import gymnasium
    import mujoco

    with pytest.warns(DeprecationWarning, match="Ant-v4"):
        model = gymnasium.make("Ant-v4").unwrapped.model
    joints = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, k) for k in range(model.njnt)]
    observation, action = channels("Ant-v4", 27, (-1.0,) * 8, (1.0,) * 8)
    assert observation.size == 27
    assert [name.removesuffix(".angle") for name in observation.names[5:13]] == joints[1:]
    assert [name.removesuffix(".velocity") for name in observation.names[19:]] == joints[1:]
    assert list(action.names) == [joints[model.actuator_trnid[k, 0]] for k in range(model.nu)]
    assert control_period("Ant-v4") == 0.05
