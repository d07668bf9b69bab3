"""skrl's PPO as a learner: its agent updates the actor and the critic that this package's PPO has.

Collecting, statistics, schedules and checkpoints are those of `OnPolicyLearner`; only the update is skrl's. skrl has no
mask of valid steps. Its advantages do not run through an end (`time_limit_bootstrap`), so steps that only reset an
environment are stored in their place and left out of the rest: `ValidMemory` normalises advantages without them, and
draws none of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nervecord.training.algorithms.skrl_ppo import SkrlPPO
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.learners.on_policy import OnPolicyLearner
from nervecord.training.policy.actor import Actor, GaussianActor
from nervecord.training.processes.quiet_skrl import import_skrl

import_skrl()

from gymnasium.spaces import Box  # noqa: E402
from skrl.agents.torch.ppo import PPO, PPO_CFG  # type: ignore[import-untyped]  # noqa: E402
from skrl.memories.torch import RandomMemory  # type: ignore[import-untyped]  # noqa: E402
from skrl.models.torch import DeterministicMixin, GaussianMixin, Model  # type: ignore[import-untyped]  # noqa: E402

LOSSES = {"Loss / Policy loss": "policy_loss", "Loss / Value loss": "value_loss"}
"""What skrl calls the losses, and their columns in the metrics."""


class ActorModel(GaussianMixin, Model):  # type: ignore[misc]
    """An actor in skrl's terms: observations are normalised already."""

    def __init__(self, actor: Actor, spaces: dict[str, Any]) -> None:
        Model.__init__(self, **spaces)
        GaussianMixin.__init__(self, clip_actions=False, clip_log_std=False)
        self.actor = actor

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """Means (B, actions) and the log standard deviation."""
        assert isinstance(self.actor, GaussianActor)
        return self.actor.net(inputs["observations"], None)[0], {"log_std": self.actor.spread()}


class CriticModel(DeterministicMixin, Model):  # type: ignore[misc]
    """A critic of states in skrl's terms."""

    def __init__(self, critic: torch.nn.Module, spaces: dict[str, Any]) -> None:
        Model.__init__(self, **spaces)
        DeterministicMixin.__init__(self)
        self.critic = critic

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """Values (B, 1)."""
        return self.critic(inputs["observations"]), {}


class ValidMemory(RandomMemory):  # type: ignore[misc]
    """A rollout, of which only the valid steps are drawn, each once, their advantages being normalised among them."""

    valid: Tensor
    """Indices of the valid steps among the T N of the rollout."""

    def set_tensor_by_name(self, name: str, tensor: Tensor) -> None:
        """Set a tensor; advantages, which skrl has normalised over all steps, are normalised over the valid ones."""
        if name == "advantages":
            valid = tensor.flatten(0, 1)[self.valid]
            tensor = (tensor - valid.mean()) / (valid.std() + 1e-8)
        super().set_tensor_by_name(name, tensor)

    def sample(self, names: list[str], *, batch_size: int, mini_batches: int = 1, sequence_length: int = 1) -> Any:
        """Near-equal minibatches of the valid steps in random order."""
        order = self.valid[torch.randperm(len(self.valid), device=self.valid.device)]
        return [self.sample_by_index(names, indexes=part)[0] for part in order.tensor_split(mini_batches)]


class SkrlPPOLearner(OnPolicyLearner):
    """Actor and critic of this package, updated by skrl's PPO."""

    settings: SkrlPPO

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        settings = self.settings
        assert isinstance(self.actor, GaussianActor)
        spaces: dict[str, Any] = {
            "observation_space": Box(-float("inf"), float("inf"), (setup.observations,)),
            "action_space": Box(-float("inf"), float("inf"), tuple(self.actor.log_std.shape)),
            "device": self.device,
        }
        models = {"policy": ActorModel(self.actor, spaces), "value": CriticModel(self.critic, spaces)}
        self.memory = ValidMemory(memory_size=settings.rollout, num_envs=settings.num_envs, device=self.device)
        cfg = PPO_CFG(
            rollouts=settings.rollout,
            learning_epochs=settings.epochs,
            mini_batches=max(1, round(settings.batch / settings.minibatch)),
            discount_factor=settings.gamma,
            gae_lambda=settings.lam,
            learning_rate=settings.lr,
            grad_norm_clip=settings.grad_norm,
            ratio_clip=settings.clip,
            value_clip=0.0,
            entropy_loss_scale=settings.entropy,
            value_loss_scale=settings.value_weight,
            time_limit_bootstrap=True,
            # The run folder is ours: skrl writes neither checkpoints nor events.
            experiment={"write_interval": 0, "checkpoint_interval": 0},
        )
        self.agent = PPO(models=models, memory=self.memory, cfg=cfg, **spaces)
        self.agent.init()
        self.agent.enable_training_mode(True)
        self.optimizer = self.agent.optimizer

    def update(self, rollout: Rollout) -> dict[str, float]:
        """skrl's update on the rollout; returns its losses, and what `measure` gives."""
        settings, observations = self.settings, self.obs_rms(rollout.observations)
        rewards = rollout.rewards.float()
        if settings.normalise_reward:
            rewards = self.reward_rms(rollout.rewards, rollout.done, rollout.valid)
        self.memory.valid = rollout.flat(rollout.valid).nonzero()[:, 0]
        with torch.no_grad():
            log_prob = self.actor.log_prob(rollout.outputs, rollout.actions)
            values = self.critic(observations)
        for t in range(len(rollout.valid)):
            # skrl keeps these two for the transition that follows its `act`, which would draw other actions; there is
            # no public way to hand over those of actions that were taken.
            self.agent._current_log_prob, self.agent._current_values = log_prob[t][:, None], values[t]
            self.agent.record_transition(
                observations=observations[t],
                states=None,
                actions=rollout.actions[t],
                rewards=rewards[t][:, None].clone(),
                next_observations=observations[t + 1],
                next_states=None,
                terminated=rollout.terminated[t][:, None],
                truncated=(rollout.truncated[t] & ~rollout.terminated[t])[:, None],
                infos={},
                timestep=t,
                timesteps=settings.rollout,
            )
        self.agent.enable_models_training_mode(True)
        self.agent.update(timestep=0, timesteps=settings.rollout)
        self.agent.enable_models_training_mode(False)
        metrics = {short: float(self.agent.tracking_data[name][-1]) for name, short in LOSSES.items()}
        self.agent.tracking_data.clear()
        return self.read(self.measure(rollout)) | metrics
