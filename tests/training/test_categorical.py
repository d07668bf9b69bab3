"""The policy of a task whose action is a choice: draws, probabilities, learning, and the file it becomes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import runs
import torch
from examples import some

import nervecord
from nervecord.compiler import ops as n
from nervecord.compiler.nir.file import read_nir
from nervecord.compiler.plan.interpret import simulate
from nervecord.errors import NervecordError
from nervecord.training.folder import checkpoint
from nervecord.training.folder.export import describe_checkpoint, policy_from_checkpoint
from nervecord.training.policy.actor import CategoricalActor, first_largest
from nervecord.training.run import resume, train
from nervecord.training.settings.config import TrainConfig

KINDS: dict[str, dict[str, Any]] = {
    "membrane": {},
    "literal": {"operator": "snntorch"},
    "synaptic": {"neuron": "synaptic"},
    "population": {"encoder": "population", "population": 6},
    "count": {"decoder": "count", "output_population": 5},
    "population-count-delays": {"encoder": "population", "decoder": "count", "state": "carried", "delays": True},
}


small = partial(
    runs.small,
    env="CartPole-v1",
    layers=(12,),
    steps=8 * 64,
    steps_per_action=4,
    lr=3e-3,
    checkpoint_every=256,
    test_episodes=2,
    record=2048,
)


def actor(choices: int = 3) -> CategoricalActor:
    torch.manual_seed(4)
    actor = CategoricalActor(5, choices, TrainConfig.of(layers=(16,)))
    with torch.no_grad():
        actor.net.readout.weight.mul_(20)  # type: ignore[operator,union-attr]  # a policy with opinions
    return actor


@pytest.mark.parametrize("choices", [2, 3, 7])
def test_probabilities_and_entropy_are_those_of_a_categorical(choices: int) -> None:
    subject, x = actor(choices), torch.randn(40, 5)
    act = subject(x)
    assert act.actions.shape == (40, 1)
    logits, _ = subject.net(x)
    distribution = torch.distributions.Categorical(logits=logits)
    log_prob = subject.log_prob(act.outputs, act.actions)
    torch.testing.assert_close(log_prob, distribution.log_prob(act.actions[:, 0]))
    torch.testing.assert_close(subject.entropy(act.outputs), distribution.entropy().mean())
    assert log_prob.requires_grad


def test_draws_follow_the_probabilities() -> None:
    subject = actor()
    x = torch.randn(1, 5)
    torch.manual_seed(1)
    actions = subject(x.expand(20_000, 5)).actions
    logits, _ = subject.net(x)
    probabilities = torch.softmax(logits[0], 0).detach().numpy()
    assert probabilities.max() < 0.95, "a policy without doubt would prove nothing"
    share = np.bincount(actions[:, 0].long().numpy(), minlength=3) / 20_000
    np.testing.assert_allclose(share, probabilities, atol=4 * 0.5 / np.sqrt(20_000))


def test_without_noise_the_first_of_the_largest() -> None:
    ties = torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0], [0.0, -1.0, 0.0]])
    assert first_largest(ties)[:, 0].tolist() == [1, 0, 0]
    subject, x = actor(), torch.randn(30, 5)
    actions, _ = subject.mode(x, None)
    logits, _ = subject.net(x)
    assert actions.shape == (30, 1)
    assert actions[:, 0].tolist() == logits.argmax(-1).tolist()


def test_noise_that_falls_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NervecordError, match=r"--noise: .*'linear'.*CartPole-v1.*2 actions"):
        train(small(tmp_path, noise="linear"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("changes", some(KINDS.values(), 3), ids=KINDS.keys())
def test_the_file_chooses_as_what_was_trained(tmp_path: Path, changes: dict[str, Any]) -> None:
    result = train(small(tmp_path, **changes))
    assert result.policy is not None
    graph = read_nir(result.policy)
    assert graph.contract is not None
    assert graph.contract.choices == ("push left", "push right")
    assert graph.contract.action.names == ("action",)
    assert graph.contract.fail_safe == (0.0,)
    assert graph.contract.control_period == 0.02
    assert graph.recorded is not None
    content = checkpoint.load(result.folder / "checkpoints", result.step)
    policy = policy_from_checkpoint(result.config, content).double()
    description = describe_checkpoint(result.config, content)
    assert description.choices == 2
    observations = graph.recorded[:40].reshape(10, 4, -1)
    actions = simulate(graph, observations).actions
    assert actions is not None
    state, clear = None, 0
    with torch.no_grad():
        for batch, action in zip(observations, actions, strict=True):
            inputs = (batch - description.mean) / (np.sqrt(description.variance) + description.epsilon)
            logits, state = policy(torch.from_numpy(np.clip(inputs, -description.clip, description.clip)), state)
            lead = (logits[:, 1] - logits[:, 0]).numpy()
            # The decays of policy and file are 1e-7 apart; within that the order is open.
            sure = np.abs(lead) > 1e-5
            assert np.array_equal(action[sure, 0], (lead[sure] > 0).astype(float))
            clear += int(sure.sum())
    assert clear > 20
    kind = n.CountArgmaxDecode if result.config.network.decoder == "count" else n.ArgmaxDecode
    assert [type(node) for node in graph.graph.nodes.values() if isinstance(node, n.Decoder)] == [kind]


@pytest.mark.long
def test_a_spiking_policy_learns_to_choose(tmp_path: Path) -> None:
    """A random one keeps the pole up for about 22 steps of 500."""
    config = small(
        tmp_path,
        steps=20_000,
        num_envs=16,
        rollout=32,
        minibatch=128,
        epochs=8,
        layers=(24,),
        critic=(32,),
        checkpoint_every=5_000,
        validate_from=0.5,
        validation_episodes=5,
        test_episodes=20,
    )
    result = train(config)
    assert result.test is not None
    assert result.test.mean > 120
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert not any("log_std" in row for row in rows)
    assert 0 < rows[-1]["entropy"] < rows[0]["entropy"] <= np.log(2) + 1e-6
    program = nervecord.compile(result.policy, "lava")
    with nervecord.open(program) as session:
        evaluation = nervecord.run(session, episodes=20, seed=1, environments=10)
    assert evaluation.mean > 120
    assert evaluation.fail_safe == {}


def test_the_twin_without_spikes_chooses_too(tmp_path: Path) -> None:
    result = train(small(tmp_path, policy="ann", sim="gymnasium"))
    assert result.policy is None
    assert result.test is not None
    assert result.test.mean > 5


def test_a_resumed_run_goes_on_the_same(tmp_path: Path) -> None:
    part = train(small(tmp_path, name="part", steps=256, schedule="constant", exact_resume=True))
    assert part.step == 256
    straight = train(small(tmp_path, name="straight", schedule="constant", exact_resume=True))
    again = resume(part.folder, overrides={"steps": 512})
    a, b = (checkpoint.load(run.folder / "checkpoints", 512) for run in (straight, again))
    assert a["choices"] == b["choices"] == 2
    for name, value in a["learner"]["actor"].items():
        assert value.equal(b["learner"]["actor"][name]), name
