"""A rollout in numpy arrays: for simulators on the host, in one process or several."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nervecord.training.config import TrainConfig
from nervecord.training.distributed import Group
from nervecord.training.learners.ppo import Learner
from nervecord.training.rewards import RewardNormaliser, SharedRewardNormaliser
from nervecord.training.simulators.base import Simulator

Ended = tuple[int, int, float]
"""An episode that ended: step of the rollout, environment (of all processes), return."""


class ArrayRollout:
    """The running episodes of this process's environments.

    Args:
        config: the run's configuration.
        simulator: the environments; they are reset here.
        learner: the learner.
        rewards: the run's reward normaliser.
        group: the processes that train.
    """

    def __init__(
        self,
        config: TrainConfig,
        simulator: Simulator,
        learner: Learner,
        rewards: RewardNormaliser,
        group: Group,
    ) -> None:
        self.config, self.simulator, self.learner = config, simulator, learner
        self.rewards, self.group = rewards, group
        self.observations = simulator.reset()
        self.real = np.ones(simulator.num_envs, bool)
        self.running = np.zeros(simulator.num_envs)

    def collect(self) -> tuple[list[Ended], Tensor]:
        """Step all environments `rollout` times; the last step runs the update.

        Returns:
            The episodes that ended here, and the raw observations (n, observations) float32 of the real steps.
        """
        learner, simulator, steps = self.learner, self.simulator, self.config.rollout
        raw = np.empty((steps, *self.observations.shape), np.float32)
        real_steps = np.empty((steps, len(self.real)), bool)
        ended: list[Ended] = []
        inputs = torch.from_numpy(self.observations).float()
        for t in range(steps):
            raw[t], real_steps[t] = self.observations, self.real
            actions = learner.act(inputs.to(learner.device))
            result = simulator.step(np.clip(actions.cpu().numpy(), simulator.low, simulator.high))
            done = result.terminated | result.truncated
            ended += self._count(t, result.rewards, done)
            rewards, late = self._normalise(result.rewards, done, is_last=t + 1 == steps)
            following = torch.from_numpy(result.observations).float()
            learner.record(
                inputs.to(learner.device),
                actions,
                torch.from_numpy(rewards).float().to(learner.device),
                following.to(learner.device),
                torch.from_numpy(result.terminated).to(learner.device),
                torch.from_numpy(result.truncated).to(learner.device),
                torch.from_numpy(self.real).to(learner.device),
                late,
            )
            # The step after an end only resets.
            self.observations, inputs, self.real = result.observations, following, ~done
        learner.absorb_observations()
        return ended, torch.from_numpy(raw[real_steps])

    def _normalise(
        self, rewards: NDArray[np.float64], done: NDArray[np.bool_], *, is_last: bool
    ) -> tuple[NDArray[np.float64], Tensor | None]:
        """What to store as this step's rewards, and with a rollout's last step what is to be added to all of them."""
        if not self.config.normalise_reward:
            return rewards, None
        if not isinstance(self.rewards, SharedRewardNormaliser):
            return self.rewards(rewards, done, self.real), None
        self.rewards.note(rewards, done, self.real)
        late = torch.from_numpy(self.rewards.settle(self.group)).float().to(self.learner.device) if is_last else None
        return np.zeros_like(rewards), late

    def _count(self, t: int, rewards: NDArray[np.float64], done: NDArray[np.bool_]) -> list[Ended]:
        self.running += np.where(self.real, rewards, 0.0)
        first = self.group.rank * len(self.real)
        ended = [(t, first + int(index), float(self.running[index])) for index in np.flatnonzero(done)]
        self.running[done] = 0.0
        return ended
