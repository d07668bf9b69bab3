"""skrl's agents: its PPO does the update of this package's, and none is given a step that only reset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nervecord.errors import NervecordError
from nervecord.training.folder import checkpoint
from nervecord.training.learners import skrl_ppo
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.learners.ppo import PPOLearner
from nervecord.training.learners.skrl_agents import SACLearner, SkrlLearner, TD3Learner
from nervecord.training.learners.skrl_ppo import SkrlPPOLearner, ValidMemory
from nervecord.training.run import resume, train
from nervecord.training.settings.config import TrainConfig

STEPS, ENVS, SIZE, ACTIONS = 16, 4, 5, 2
TOLERANCE = 1e-6
"""In float64, of parameters after 12 steps of Adam: sums are taken in another order, and Adam divides by them."""


class DoubleMemory(ValidMemory):
    """skrl makes its tensors in float32."""

    def create_tensor(self, *, dtype: torch.dtype | None = None, **options: Any) -> bool:
        is_new: bool = super().create_tensor(dtype=torch.float64 if dtype is torch.float32 else dtype, **options)
        return is_new


def config(algorithm: str, **changes: Any) -> TrainConfig:
    base = {
        "algorithm": algorithm,
        "policy": "ann",
        "layers": (16,),
        "critic": (16,),
        "num_envs": ENVS,
        "rollout": STEPS,
        "minibatch": STEPS * ENVS,
        "epochs": 12,
        "lr": 1e-3,
        "normalise_reward": False,
        "entropy": 0.01,
    }
    return TrainConfig.of(**{**base, **changes})


def rollout_of(actor: Any, resets: tuple[tuple[int, int], ...] = ()) -> Rollout:
    """A rollout in which steps `resets` only reset an environment, whose episode ended in the step before."""
    draw = torch.Generator().manual_seed(1)
    # Numbers of float32, which is what simulators give.
    observations = torch.randn(STEPS + 1, ENVS, SIZE, generator=draw).double()
    with torch.no_grad():
        outputs = actor.net(observations[:-1].flatten(0, 1))[0].view(STEPS, ENVS, ACTIONS)
    actions = (outputs + torch.randn(STEPS, ENVS, ACTIONS, generator=draw)).float().double()
    ends = torch.zeros(2, STEPS, ENVS, dtype=torch.bool)
    ends[0, -1, 0] = ends[1, -1, 1] = True  # a fall, and a time limit; a later step would only reset
    rewards, valid = torch.randn(STEPS, ENVS, generator=draw).double(), torch.ones(STEPS, ENVS).bool()
    for number, (t, env) in enumerate(resets):
        ends[number % 2, t - 1, env], valid[t, env] = True, False
        rewards[t, env] = 100.0  # which must count nowhere
    return Rollout(observations, actions, outputs, None, rewards, ends[0], ends[1], valid)


@pytest.mark.parametrize(
    ("minibatch", "resets"), [(STEPS * ENVS, ()), (STEPS * ENVS // 4, ()), (STEPS * ENVS // 4, ((4, 2), (9, 3)))]
)
def test_both_do_the_same_update(
    monkeypatch: pytest.MonkeyPatch, minibatch: int, resets: tuple[tuple[int, int], ...]
) -> None:
    monkeypatch.setattr(skrl_ppo, "ValidMemory", DoubleMemory)
    # skrl draws actions between two epochs, and does not use them: both get the same orders nevertheless.
    orders, permute = torch.Generator(), torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n, **options: permute(n, generator=orders))
    of = {"minibatch": minibatch, "epochs": 12 if minibatch == STEPS * ENVS else 3}
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        own = PPOLearner(Setup(SIZE, -torch.ones(ACTIONS), torch.ones(ACTIONS), config("ppo", **of)))
        reference = SkrlPPOLearner(Setup(SIZE, -torch.ones(ACTIONS), torch.ones(ACTIONS), config("skrl-ppo", **of)))
        for part in ("actor", "critic"):
            getattr(reference, part).load_state_dict(getattr(own, part).state_dict())
        before = [p.detach().clone() for p in own.parameters()]
        assert {p.dtype for p in (*own.parameters(), *reference.parameters())} == {torch.float64}
        rollout, losses = rollout_of(own.actor, resets), []
        for learner in (own, reference):
            orders.manual_seed(3)
            losses.append(learner.update(rollout))
    finally:
        torch.set_default_dtype(torch.float32)
    change = max((p - q).abs().max().item() for p, q in zip(own.parameters(), before, strict=True))
    apart = max((p - q).abs().max().item() for p, q in zip(own.parameters(), reference.parameters(), strict=True))
    assert change > 5e-3
    assert apart < TOLERANCE
    for name in ("policy_loss", "value_loss"):
        scale = 0.5 if name == "value_loss" else 1.0  # skrl's is weighted
        assert losses[1][name] == pytest.approx(scale * losses[0][name], abs=1e-5)


def test_a_step_that_only_resets_is_never_drawn() -> None:
    learner = SkrlPPOLearner(Setup(SIZE, -torch.ones(ACTIONS), torch.ones(ACTIONS), config("skrl-ppo", minibatch=16)))
    rollout = rollout_of(learner.actor.double())
    learner.actor.float()
    whole = {name: getattr(rollout, name) for name in Rollout.__dataclass_fields__}
    valid = rollout.valid.clone()
    valid[3, 2] = valid[9, 0] = False
    observations = whole["observations"].clone()
    observations[3, 2] = observations[9, 0] = 777.0
    parts = {**whole, "observations": observations, "valid": valid}
    parts = {
        name: x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for name, x in parts.items()
    }
    samples: list[torch.Tensor] = []
    original = learner.memory.sample

    def sample(names: list[str], **options: Any) -> Any:
        batches = original(names, **options)
        samples.extend(batch[names.index("observations")] for batch in batches)
        return batches

    learner.memory.sample = sample
    learner.update(Rollout(**parts))
    assert sum(len(batch) for batch in samples) == learner.settings.epochs * int(valid.sum())
    assert max(batch.max().item() for batch in samples) < 777.0 / 100  # normalised observations are clipped at 10


@pytest.mark.parametrize(("algorithm", "kind"), [("sac", SACLearner), ("td3", TD3Learner)])
def test_a_transition_that_only_resets_is_never_stored(algorithm: str, kind: type[SkrlLearner]) -> None:
    settings = TrainConfig.of(algorithm=algorithm, num_envs=ENVS, hidden=8, minibatch=4, capacity=50, random_steps=999)
    learner = kind(Setup(SIZE, -torch.ones(ACTIONS), torch.ones(ACTIONS), settings))
    valid = torch.rand(STEPS, ENVS, generator=torch.Generator().manual_seed(2)) < 0.7
    number = torch.arange(STEPS * ENVS, dtype=torch.float32).view(STEPS, ENVS)
    observations = torch.cat([number, number[-1:]])[..., None].expand(-1, -1, SIZE)
    no, zeros = torch.zeros(STEPS, ENVS, dtype=torch.bool), torch.zeros(STEPS, ENVS, ACTIONS)
    learner.update(Rollout(observations, zeros, zeros, None, number.double(), no, no, valid))
    numbers = number[valid]
    assert learner.stored == len(numbers) < 50
    for name in ("observations", "rewards"):  # all parts of a transition lie in one row
        assert torch.equal(learner.memory.get_tensor_by_name(name)[: len(numbers), 0, 0], numbers)
    assert torch.isnan(learner.memory.get_tensor_by_name("rewards")[len(numbers) :]).all()


@pytest.mark.parametrize("steps_per_update", [2.0, 3.0, 50.0])
@pytest.mark.parametrize(("algorithm", "kind"), [("sac", SACLearner), ("td3", TD3Learner)])
def test_an_update_takes_the_environment_steps_that_were_asked_for(
    algorithm: str, kind: type[SkrlLearner], steps_per_update: float
) -> None:
    fields = {"num_envs": ENVS, "hidden": 8, "minibatch": 4, "capacity": 500, "random_steps": ENVS}
    settings = TrainConfig.of(algorithm=algorithm, steps_per_update=steps_per_update, **fields)
    learner = kind(Setup(SIZE, -torch.ones(ACTIONS), torch.ones(ACTIONS), settings))
    updates, sample = [0], learner.memory.sample

    def count_and_sample(*arguments: Any, **options: Any) -> Any:
        updates[0] += 1
        return sample(*arguments, **options)

    learner.memory.sample = count_and_sample
    zeros, no = torch.zeros(STEPS, ENVS, ACTIONS), torch.zeros(STEPS, ENVS, dtype=torch.bool)
    valid = ~no
    valid[5, 1] = False  # a step that only resets is none
    steps = valid.sum().item() - ENVS  # the random ones before the first update count for none
    for number in range(3):
        learner.schedule(number * STEPS * ENVS, 3 * STEPS * ENVS)
        learner.update(Rollout(torch.zeros(STEPS + 1, ENVS, SIZE), zeros, zeros, None, zeros[..., 0], no, no, valid))
        assert updates[0] == int(steps / steps_per_update)
        steps += valid.sum().item()


@pytest.mark.long
def test_it_trains_a_spiking_policy_and_resumes(tmp_path: Path) -> None:
    base = {
        "algorithm": "skrl-ppo",
        "env": "InvertedPendulum-v4",
        "sim": "gymnasium",
        "layers": (16,),
        "critic": (16,),
        "steps": 512,
        "num_envs": 4,
        "rollout": 32,
        "minibatch": 64,
        "epochs": 2,
        "checkpoint_every": 256,
        "validation_episodes": 2,
        "test_episodes": 2,
        "tensorboard": False,
        "out": str(tmp_path),
        "name": "run",
    }
    result = train(TrainConfig.of(**base))
    assert result.policy is not None
    rows = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert all(row["value_loss"] > 0 for row in rows)
    last = checkpoint.load(result.folder / "checkpoints")["learner"]
    (result.folder / "result.json").unlink()
    checkpoint.checkpoint_path(result.folder / "checkpoints", 512).unlink()
    resume(result.folder)
    again = checkpoint.load(result.folder / "checkpoints")["learner"]
    assert all(torch.equal(value, again["actor"][name]) for name, value in last["actor"].items())
    # What it trained is what PPO trains: another training starts from it.
    student = train(TrainConfig.of(**{**base, "algorithm": "distill", "teacher": str(result.folder), "name": "fresh"}))
    assert student.policy is not None


def test_a_policy_that_carries_state_is_refused_before_anything_is_made() -> None:
    with pytest.raises(NervecordError, match="--state reset") as refusal:
        config("skrl-ppo", policy="snn", state="carried")
    assert refusal.value.where == "--algorithm skrl-ppo"
