"""In place of Isaac Lab 3 and mjlab: what skrl's loader and the two adapters touch of them, with scripted tasks."""

from __future__ import annotations

import contextlib
import importlib.machinery
import random
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

TASKS = ("Ant", "Forgetful", "Limited", "Finite", "Images", "Broken")
"""Forgetful keeps no last observation, Limited has limits of its own and a fall at the time limit, Finite's time limit
is the end of the task, Images does not observe a flat box, Broken needs a file."""


class Scripted(gymnasium.Env):
    """A task whose every number can be foretold: environment i falls after 4 or 9 steps of an episode, or is cut
    after 11 (i % 3). Stepped in the order of Isaac Lab's `ManagerBasedRLEnv.step`, and mjlab's.

    Observation of an environment: its index, the number of its episode, steps since that began, the sum of the last
    actions, a number drawn when the episode began, zeros.
    """

    step_dt = 1 / 60

    def __init__(self, cfg: Any, device: str | None = None) -> None:
        self.cfg, self.num_envs, self.device = cfg, cfg.scene.num_envs, torch.device(device or cfg.sim.device)
        if cfg.task == "Broken":
            raise FileNotFoundError("no file ''")
        self.seed(cfg.seed)
        self.max_episode_length = 9 if cfg.task == "Limited" else 11
        low, high = (0.25, 2.0) if cfg.task == "Limited" else (-np.inf, np.inf)
        shape = (3, 8, 8) if cfg.task == "Images" else (60,)
        self.single_observation_space = Dict({cfg.group: Box(shape), "critic": Box((70,))})
        self.single_action_space = Box((8,), low, high)
        self.episode_length_buf = torch.zeros(self.num_envs, dtype=torch.long)
        self.episodes, self.drawn = torch.zeros(self.num_envs), torch.zeros(self.num_envs)
        self.actions = torch.zeros(self.num_envs, 8)
        self.terminated, self.truncated, self.pending = torch.zeros(3, self.num_envs, dtype=torch.bool)
        self.falls = torch.arange(self.num_envs) % 3 * 5 + 4
        self.extras: dict[str, Any] = {}
        self.closed = False
        print("made, on the standard output")

    def seed(self, seed: int) -> None:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - as both do
        torch.manual_seed(seed)

    def reset(self, *, seed: int | None = None, env_ids: torch.Tensor | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.seed(seed)
        which = torch.ones(self.num_envs, dtype=torch.bool)
        if env_ids is None:
            self.episodes[:] = 0
        else:
            which = torch.zeros_like(which).index_fill(0, env_ids, True)
        self.reset_idx(which)
        return self.observe(), self.extras

    def reset_idx(self, which: torch.Tensor) -> None:
        self.episode_length_buf[which] = 0
        self.episodes[which] += 1
        self.pending[which] = False
        self.drawn = torch.where(which, torch.rand(self.num_envs), self.drawn)

    def observe(self) -> dict[str, torch.Tensor]:
        observations = torch.zeros(self.num_envs, 60)
        columns = (torch.arange(self.num_envs), self.episodes, self.episode_length_buf, self.actions.sum(1), self.drawn)
        observations[:, :5] = torch.stack(columns, 1)
        return {self.cfg.group: observations, "critic": torch.zeros(self.num_envs, 70)}

    def step(self, actions: torch.Tensor) -> Any:
        assert actions.shape == (self.num_envs, 8)
        assert not self.pending.any(), "these must be reset first"
        self.actions = actions
        self.episode_length_buf += 1
        # Both keep their buffers from step to step.
        self.truncated[:] = self.episode_length_buf >= self.max_episode_length
        self.terminated[:] = self.episode_length_buf >= self.falls
        rewards = 0.5 + self.episode_length_buf.float()
        ended = self.truncated | self.terminated
        if not self.cfg.auto_reset:
            self.pending |= ended
        elif ended.any():
            if self.cfg.compute_final_obs and self.cfg.task != "Forgetful":
                self.extras["final_obs"] = self.observe()
            self.reset_idx(ended)
        return self.observe(), rewards, self.terminated, self.truncated, self.extras

    def close(self) -> None:
        self.closed = True


class Box(gymnasium.Space):
    """A box as mjlab's: its limits are one number."""

    def __init__(self, shape: tuple[int, ...], low: float = -np.inf, high: float = np.inf) -> None:
        super().__init__(shape, np.float32)
        self.low, self.high = low, high


class Dict(gymnasium.Space):
    """Spaces by name."""

    def __init__(self, spaces: dict[str, Box]) -> None:
        super().__init__()
        self.spaces = spaces


def configuration(task: str, group: str) -> SimpleNamespace:
    """Of a task, as both hand it out before it is made."""
    return SimpleNamespace(
        task=task,
        group=group,
        scene=SimpleNamespace(num_envs=4096),
        sim=SimpleNamespace(device="cuda:0"),
        seed=None,
        compute_final_obs=False,
        auto_reset=True,
        is_finite_horizon=task == "Finite",
    )


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both, for this test."""

    def resolve_task_config(task: str, agent: None, overrides: list[str]) -> tuple[SimpleNamespace, None]:
        gymnasium.spec(task)  # refuses an unknown one
        cfg = configuration(task.removeprefix("Isaac-"), "policy")
        settings = dict(override.split("=") for override in overrides)
        assert settings.pop("env.compute_final_obs") == "true"
        cfg.compute_final_obs, cfg.sim.device = True, settings.pop("env.sim.device")
        assert not settings
        return cfg, None

    @contextlib.contextmanager
    def launch_simulation(cfg: Any, args: Any) -> Iterator[None]:
        assert args.device == cfg.sim.device
        yield

    for task in TASKS:
        spec = gymnasium.envs.registration.EnvSpec(f"Isaac-{task}", entry_point=Scripted, disable_env_checker=True)
        monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    names = [f"Mjlab-{task}" for task in (*TASKS, "Two")]
    observed = {name: SimpleNamespace(obs_groups={"actor": ("actor",), "critic": ("critic",)}) for name in names}
    observed["Mjlab-Two"].obs_groups["actor"] = ("actor", "camera")
    contents: dict[str, dict[str, Any]] = {
        "isaaclab": {},
        "isaaclab.app": {
            "add_launcher_args": lambda parser: parser.add_argument("--device", default="cuda:0"),
            "launch_simulation": launch_simulation,
        },
        "isaaclab_tasks": {},
        "isaaclab_tasks.utils": {
            "setup_preset_cli": lambda parser: parser.parse_known_args(),
            "resolve_task_config": resolve_task_config,
        },
        "mjlab": {},
        "mjlab.envs": {"ManagerBasedRlEnv": Scripted},
        "mjlab.tasks": {},
        "mjlab.tasks.registry": {
            "list_tasks": lambda: sorted(names),
            "load_env_cfg": lambda name: configuration(name.removeprefix("Mjlab-"), "actor"),
            "load_rl_cfg": observed.__getitem__,
        },
    }
    for name, content in contents.items():
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
