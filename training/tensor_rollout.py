"""A rollout that stays on the device: for simulators that give tensors.

It does what `ArrayRollout` does with numpy arrays, step for step; tests hold the two to the same result. Collecting
waits for the device once, after the update, to read the returns of the episodes that ended.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nervecord.training.array_rollout import Ended
from nervecord.training.config import TrainConfig
from nervecord.training.learners.ppo import Learner
from nervecord.training.simulators.base import DeviceSimulator


class TensorRewardNormaliser:
    """`RewardNormaliser` on a device: float64, and the same state.

    Args:
        num_envs: environments.
        gamma: discount of the return.
        clip: limit of a normalised reward.
        device: where the rewards are.
    """

    def __init__(self, num_envs: int, gamma: float, clip: float, device: torch.device) -> None:
        self.gamma, self.clip = gamma, clip
        self.returns = torch.zeros(num_envs, dtype=torch.float64, device=device)
        self.mean, self.variance, self.count = (
            torch.tensor(first, dtype=torch.float64, device=device) for first in (0.0, 1.0, 1e-4)
        )

    def __call__(self, rewards: Tensor, done: Tensor, real: Tensor) -> Tensor:
        """Normalised rewards (N,) float64; steps that are not `real` keep 0 and teach nothing."""
        rewards = rewards.double()
        self.returns = torch.where(real, self.gamma * self.returns + rewards, self.returns)
        self._absorb(self.returns, real)
        self.returns = self.returns.masked_fill(done, 0.0)
        scaled = (rewards / torch.sqrt(self.variance + 1e-8)).clamp(-self.clip, self.clip)
        return scaled.masked_fill(~real, 0.0)

    def restart(self) -> None:
        """Begin new episodes everywhere."""
        self.returns = torch.zeros_like(self.returns)

    def _absorb(self, values: Tensor, real: Tensor) -> None:
        # With no real value all of this adds nothing: no branch, which would wait for the device.
        count = real.sum()
        some = count.clamp(min=1)
        mean = torch.where(real, values, 0.0).sum() / some
        squares = torch.where(real, (values - mean).square(), 0.0).sum()
        delta, total = mean - self.mean, self.count + count
        squares = self.variance * self.count + squares + delta**2 * self.count * count / total
        self.mean = self.mean + delta * count / total
        self.variance, self.count = squares / total, total

    def state_dict(self) -> dict[str, Any]:
        """The running statistics and returns."""
        numbers = {name: float(getattr(self, name)) for name in ("mean", "variance", "count")}
        return {"returns": self.returns.cpu(), **numbers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.returns = state["returns"].to(self.returns)
        for name in ("mean", "variance", "count"):
            setattr(self, name, torch.tensor(state[name], dtype=torch.float64, device=self.returns.device))


class TensorRollout:
    """The running episodes of a simulator on the learner's device.

    Args:
        config: the run's configuration.
        simulator: the environments; they are reset here.
        learner: the learner, on the same device.
        rewards: the run's reward normaliser.
    """

    def __init__(
        self, config: TrainConfig, simulator: DeviceSimulator, learner: Learner, rewards: TensorRewardNormaliser
    ) -> None:
        self.config, self.simulator, self.learner, self.rewards = config, simulator, learner, rewards
        self.low, self.high = (
            torch.as_tensor(side, dtype=torch.float32, device=learner.device)
            for side in (simulator.low, simulator.high)
        )
        self.observations = simulator.reset_tensors()
        self.real = torch.ones(config.num_envs, dtype=torch.bool, device=learner.device)
        self.running = torch.zeros(config.num_envs, dtype=torch.float64, device=learner.device)

    def collect(self) -> tuple[list[Ended], Tensor]:
        """Step all environments `rollout` times; the last step runs the update.

        Returns:
            The episodes that ended, and the observations (n, observations) of the real steps, which lie on the device.
        """
        learner, shape = self.learner, (self.config.rollout, self.config.num_envs)
        raw = self.observations.new_empty((*shape, self.simulator.observation_size))
        real_steps, ended = (torch.empty(shape, dtype=torch.bool, device=learner.device) for _ in range(2))
        returns = torch.empty(shape, dtype=torch.float64, device=learner.device)
        for t in range(self.config.rollout):
            raw[t], real_steps[t] = self.observations, self.real
            actions = learner.act(self.observations)
            result = self.simulator.step_tensors(actions.clamp(self.low, self.high))
            done = result.terminated | result.truncated
            self.running += result.rewards.masked_fill(~self.real, 0.0)
            ended[t], returns[t] = done, self.running
            self.running = self.running.masked_fill(done, 0.0)
            rewards = result.rewards
            if self.config.normalise_reward:
                rewards = self.rewards(rewards, done, self.real).float()
            learner.record(
                self.observations, actions, rewards, result.observations, result.terminated, result.truncated, self.real
            )
            self.observations, self.real = result.observations, ~done
        learner.absorb_observations()
        where, values = ended.nonzero().tolist(), returns[ended].tolist()
        return [(t, index, value) for (t, index), value in zip(where, values, strict=True)], raw[real_steps]
