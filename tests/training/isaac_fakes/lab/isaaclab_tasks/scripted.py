"""Tasks whose every number can be foretold, stepped as `ManagerBasedRLEnv.step` does it: a reset in the same step.

Observation of an environment: its index, the number of its episode, steps since that began, the sum of the last
actions, a number drawn when the episode began, zeros.
"""

import random

import gymnasium
import numpy as np
import torch


class Scripted(gymnasium.Env):
    """Environment i falls after 4 or 9 steps of an episode, or is cut after 11 (i % 3)."""

    max_episode_length = 11
    step_dt = 1 / 60

    def __init__(self, cfg):
        self.cfg, self.num_envs, self.device = cfg, cfg.scene.num_envs, torch.device(cfg.sim.device)
        self.seed(cfg.seed)
        box = gymnasium.spaces.Box
        self.single_observation_space = gymnasium.spaces.Dict({"policy": box(-np.inf, np.inf, (60,))})
        self.single_action_space = self.action_box(box)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, self.num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, self.num_envs)
        self.episode_length_buf = torch.zeros(self.num_envs, dtype=torch.long)
        self.episodes = torch.zeros(self.num_envs)
        self.drawn = torch.zeros(self.num_envs)
        self.actions = torch.zeros(self.num_envs, 8)
        self.falls = torch.arange(self.num_envs) % 3 * 5 + 4
        self.extras = {}
        self.closed = False

    def action_box(self, box):
        return box(-np.inf, np.inf, (8,))

    def seed(self, seed):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - as Isaac Lab does
        torch.manual_seed(seed)

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.seed(seed)
        self.episodes[:] = 0
        self.reset_idx(torch.ones(self.num_envs, dtype=torch.bool))
        return self.observe(), self.extras

    def reset_idx(self, which):
        self.episode_length_buf[which] = 0
        self.episodes[which] += 1
        self.drawn = torch.where(which, torch.rand(self.num_envs), self.drawn)
        self.extras["log"] = {}

    def observe(self):
        observations = torch.zeros(self.num_envs, 60)
        observations[:, 0] = torch.arange(self.num_envs)
        observations[:, 1] = self.episodes
        observations[:, 2] = self.episode_length_buf
        observations[:, 3] = self.actions.sum(1)
        observations[:, 4] = self.drawn
        return {"policy": observations}

    def step(self, actions):
        assert actions.shape == (self.num_envs, 8)
        self.actions = actions.to(self.device)
        self.episode_length_buf += 1
        truncated = self.episode_length_buf >= self.max_episode_length
        terminated = self.episode_length_buf >= self.falls
        rewards = 0.5 + self.episode_length_buf.float()
        ended = truncated | terminated
        if ended.any():
            if self.cfg.compute_final_obs:
                self.extras["final_obs"] = self.observe()
            self.reset_idx(ended)
        return self.observe(), rewards, terminated, truncated, self.extras

    def close(self):
        self.closed = True


class Forgetful(Scripted):
    """Keeps no last observation, whatever it is asked."""

    def __init__(self, cfg):
        cfg.compute_final_obs = False
        super().__init__(cfg)


class Limited(Scripted):
    """Has limits of its own, which the value 0 does not lie in, and a fall at the time limit."""

    max_episode_length = 9

    def action_box(self, box):
        return box(np.full(8, 0.25, np.float32), np.full(8, 2.0, np.float32))
