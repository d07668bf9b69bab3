"""In place of IsaacGymEnvs's tasks: such whose every number can be foretold, stepped as `VecTask.step` and
`Ant.post_physics_step` do it.

Observation of an environment: its index, the number of its episode (0 before the first), steps since its episode began,
the sum of the last actions it was given, a number drawn when its episode began, zeros.
"""

import os
import time

import numpy as np
import torch


class Box:
    """The part of gym's that is read."""

    def __init__(self, low, high):
        self.low, self.high = low, high


class ScriptedAnt:
    """Environment i falls after 4, 9 or 14 steps of an episode (i % 3); the time limit is in step 11."""

    num_obs, num_acts = 60, 8
    max_episode_length = 12
    control_freq_inv = 1

    def __init__(self, cfg, num_envs, rl_device):
        self.cfg, self.num_envs, self.rl_device = cfg, num_envs, rl_device
        self.action_space = Box(-np.ones(self.num_acts), np.ones(self.num_acts))
        self.reset_buf = torch.ones(num_envs, dtype=torch.long)
        self.progress_buf = torch.zeros(num_envs, dtype=torch.long)
        self.obs_buf = torch.zeros((num_envs, self.num_obs))
        self.episodes = torch.zeros(num_envs, dtype=torch.long)
        self.drawn = torch.zeros(num_envs)
        self.falls = torch.arange(num_envs) % 3 * 5 + 4
        self.rewards = torch.zeros(num_envs)
        self.extras = {}

    def reset(self):
        return {"obs": self.obs_buf}

    def step(self, actions):
        assert actions.shape == (self.num_envs, self.num_acts)
        assert actions.dtype == torch.float32
        self.actions = torch.clamp(actions, -1.0, 1.0)
        self.post_physics_step()
        late = self.progress_buf >= self.max_episode_length - 1
        self.extras["time_outs"] = late & (self.reset_buf != 0)
        return {"obs": self.obs_buf}, self.rewards, self.reset_buf, self.extras

    def post_physics_step(self):
        self.progress_buf += 1
        self.reset_idx(self.reset_buf != 0)
        self.observe_and_judge()

    def reset_idx(self, which):
        self.progress_buf[which] = 0
        self.episodes[which] += 1
        self.drawn = torch.where(which, torch.rand(self.num_envs), self.drawn)
        self.reset_buf[which] = 0

    def observe_and_judge(self):
        self.obs_buf[:, 0] = torch.arange(self.num_envs).float()
        self.obs_buf[:, 1] = self.episodes.float()
        self.obs_buf[:, 2] = self.progress_buf.float()
        self.obs_buf[:, 3] = self.actions.sum(1)
        self.obs_buf[:, 4] = self.drawn
        self.rewards = 0.5 + self.progress_buf.float()
        ended = self.judge() | (self.progress_buf >= self.max_episode_length - 1)
        self.reset_buf = torch.where(ended, torch.ones_like(self.reset_buf), self.reset_buf)

    def judge(self):
        return self.progress_buf >= self.falls


class AnymalTerrain(ScriptedAnt):
    """Resets in the step that ends an episode, as that task of IsaacGymEnvs does."""

    def post_physics_step(self):
        self.progress_buf += 1
        self.reset_buf[:] = 0
        self.observe_and_judge()
        ended = self.reset_buf != 0
        self.reset_idx(ended)
        self.reset_buf[ended] = 1
        self.obs_buf[ended, 2] = 0.0


class Restless(ScriptedAnt):
    """Every second episode of environment 1 ends in the step that begins it."""

    def judge(self):
        at_once = (self.progress_buf == 0) & (self.episodes % 2 == 0) & (torch.arange(self.num_envs) == 1)
        return super().judge() | at_once


class Hanging(ScriptedAnt):
    """Never comes back from its third step."""

    def step(self, actions):
        while (self.progress_buf >= 2).any():
            time.sleep(1.0)
        return super().step(actions)


isaacgym_task_map = {
    "Ant": ScriptedAnt,
    "AnymalTerrain": AnymalTerrain,
    "Restless": Restless,
    "Hanging": Hanging,
}

assert os.environ["NERVECORD_WORKER"]
