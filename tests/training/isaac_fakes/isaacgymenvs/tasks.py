"""In place of IsaacGymEnvs's tasks: such whose every number can be foretold, stepped as `VecTask.step` and
`Ant.post_physics_step` do it, on the CPU whatever they are told.

Observation of an environment: its index, the number of its episode (0 before the first), steps since its episode began,
the sum of the last actions it was given, a number drawn when its episode began, zeros.
"""

import time
from types import MappingProxyType, SimpleNamespace

import numpy as np
import torch


class ScriptedAnt:
    """Environment i falls after 4, 9 or 14 steps of an episode (i % 3); the time limit is in step 11."""

    num_obs, num_acts, control_freq_inv = 60, 8, 1
    cfg = MappingProxyType({"sim": {"dt": 0.0166}})
    rl_device = "cpu"
    action_space = SimpleNamespace(low=-np.ones(8), high=np.ones(8))

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.index = torch.arange(num_envs)
        self.reset_buf = torch.ones(num_envs, dtype=torch.long)
        self.progress_buf, self.episodes = torch.zeros((2, num_envs), dtype=torch.long)
        self.drawn = torch.zeros(num_envs)

    def reset(self):
        return {"obs": torch.zeros((self.num_envs, self.num_obs))}

    def step(self, actions):
        assert actions.shape == (self.num_envs, self.num_acts)
        assert actions.dtype == torch.float32
        self.progress_buf += 1
        self.begin(self.reset_buf != 0)
        timeouts = self.progress_buf >= 11
        ends = self.fallen() | timeouts
        observations = torch.zeros((self.num_envs, self.num_obs))
        parts = (self.index, self.episodes, self.progress_buf, actions.clamp(-1.0, 1.0).sum(1), self.drawn)
        observations[:, :5] = torch.stack([part.float() for part in parts], 1)
        rewards = 0.5 + self.progress_buf.float()
        self.reset_buf = ends.long()
        return {"obs": observations}, rewards, self.reset_buf, {"time_outs": timeouts & ends}

    def begin(self, which):
        self.progress_buf[which] = 0
        self.episodes[which] += 1
        self.drawn = torch.where(which, torch.rand(self.num_envs), self.drawn)

    def fallen(self):
        return self.progress_buf >= self.index % 3 * 5 + 4


class AnymalTerrain(ScriptedAnt):
    """Resets in the step that ends an episode, as that task of IsaacGymEnvs does."""

    def step(self, actions):
        results = super().step(actions)
        self.begin(self.reset_buf != 0)
        return results


class Restless(ScriptedAnt):
    """Every second episode of environment 1 ends in the step that begins it."""

    def fallen(self):
        return super().fallen() | ((self.progress_buf == 0) & (self.episodes % 2 == 0) & (self.index == 1))


class Hanging(ScriptedAnt):
    """Never comes back from its third step."""

    def step(self, actions):
        while (self.progress_buf >= 2).any():
            time.sleep(1.0)
        return super().step(actions)


isaacgym_task_map = {"Ant": ScriptedAnt, "AnymalTerrain": AnymalTerrain, "Restless": Restless, "Hanging": Hanging}
