"""A training with TD7 from the first step to the last: collect, update, assess, keep.

    python -m nervecord.training.learners.td7_loop --env Ant-v4 --seed 1 --out runs/td7 --precision bfloat16

The folder holds `settings.json`, `state.pt` (the newest checkpoint), `best.pt` (the best policy so far) and
`metrics.jsonl` (one row for each assessment). The same command goes on with a training that was cut off. The replay is
not in the folder: it is filled again by acting, or read from --replay-file where that is there.

    python -m nervecord.training.learners.td7_loop --pack runs/td7 --out zoo/ant/teachers/seed1

makes a copy of a third of the size, from which a training can go on too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nervecord.errors import NervecordError
from nervecord.training.learners.replay import Replay
from nervecord.training.learners.td7 import TD7, TD7Settings
from nervecord.training.learners.td7_networks import TD7Policy, pack_policy
from nervecord.training.simulators.base import TRAINING, VALIDATION, Simulator, environment_seeds, make_simulator

Array = NDArray[Any]
FORMAT = 1
REFILL_NOISE = 5.0
"""How much more noise than in training the last environment is refilled with, in units of that noise."""


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """Of the loop, not of the learner."""

    env: str
    seed: int
    updates: int = 1_000_000
    num_envs: int = 16
    steps_per_update: float = 2.0
    """Environment steps for each update."""
    assess_every: int = 20_000
    """Updates between two assessments."""
    episodes: int = 16
    """Episodes of an assessment, without noise."""
    confirm: int = 64
    """More episodes that a policy is assessed over before it takes the place of the best one."""
    checkpoint_every: int = 10_000
    refill: int = 400_000
    """Steps that fill the replay after a resumption, at most as many as it had held."""
    settle: int = 2_000
    """Updates after a refill in which the actor stands still: the critic first has to know what it sees now."""
    torch_threads: int = 1
    """Threads of torch; more than one slows networks of this size."""


def scaled(simulator: Simulator, actions: Array) -> Array:
    """Actions between -1 and 1 as values between the limits of a simulator's actions."""
    values: Array = simulator.low + (actions + 1) / 2 * (simulator.high - simulator.low)
    return values


class Collector:
    """Steps environments and stores what really happened; the step that only resets an environment is left out."""

    def __init__(self, simulator: Simulator, replay: Replay) -> None:
        self.simulator, self.replay = simulator, replay
        self.observations = simulator.reset().numpy()
        self.real = np.ones(simulator.num_envs, bool)
        self.returns = np.zeros(simulator.num_envs)
        self.finished: list[float] = []
        """Returns of the episodes that ended."""

    def step(self, actions: Array) -> int:
        """Apply actions (N, actions) between -1 and 1; returns the number of transitions stored."""
        result = self.simulator.step(torch.as_tensor(scaled(self.simulator, actions)))
        observations, rewards, terminated = (
            x.numpy() for x in (result.observations, result.rewards, result.terminated)
        )
        real, ended = self.real, terminated | result.truncated.numpy()
        self.replay.add(
            self.observations[real],
            actions[real],
            observations[real],
            rewards[real],
            terminated[real],
        )
        self.returns += rewards
        self.finished += self.returns[ended & real].tolist()
        self.returns[ended] = 0
        self.observations, self.real = observations, ~(ended & real)
        return int(real.sum())


def assess(policy: TD7Policy, env: str, seeds: list[int], num_envs: int) -> tuple[Array, Array]:
    """Returns and lengths of one episode for each seed, without noise, `num_envs` at a time."""
    returns, lengths = [], []
    for first in range(0, len(seeds), num_envs):
        simulator = make_simulator(env, seeds[first : first + num_envs])
        observations, running = simulator.reset(), np.ones(simulator.num_envs, bool)
        total, length = np.zeros(simulator.num_envs), np.zeros(simulator.num_envs, int)
        while running.any():
            with torch.no_grad():
                actions = policy(observations.float()).double().numpy()
            result = simulator.step(torch.as_tensor(scaled(simulator, actions)))
            total, length = total + result.rewards.numpy() * running, length + running
            running &= ~(result.terminated | result.truncated).numpy()
            observations = result.observations
        simulator.close()
        returns.append(total)
        lengths.append(length)
    return np.concatenate(returns), np.concatenate(lengths)


def save(content: dict[str, Any], path: Path) -> None:
    """Write a file that is whole or not there."""
    partial = path.with_name(path.name + ".tmp")
    torch.save(content, partial)
    os.replace(partial, path)


class Training:
    """A training in its folder.

    Args:
        out: the folder; with a checkpoint in it the training goes on from there.
        loop, settings: of the loop and of the learner.
        replay_file: where the replay is kept beside each checkpoint, None to fill it again by acting.

    Raises:
        NervecordError: the task's actions are choices.
    """

    def __init__(self, out: Path, loop: LoopSettings, settings: TD7Settings, replay_file: Path | None = None) -> None:
        self.out, self.loop, self.settings, self.replay_file = out, loop, settings, replay_file
        self.steps, self.random_left, self.debt, self.seconds = 0, settings.random_steps, 0.0, 0.0
        self.generation, self.best = 0, -float("inf")
        self.hold_until = 0
        out.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(loop.torch_threads)
        content = None
        if (out / "state.pt").exists():
            content = torch.load(out / "state.pt", map_location="cpu", weights_only=True)
            self.generation = content["generation"] + 1
        # What follows a resumption depends on the checkpoint alone, and repeats nothing from before it.
        torch.manual_seed(loop.seed * 1000 + self.generation)
        seeds = environment_seeds(loop.seed, TRAINING, self.generation, loop.num_envs)
        self.simulator = make_simulator(loop.env, seeds)
        if self.simulator.choices:
            raise NervecordError(
                f"{loop.env} lets choose among {self.simulator.choices} actions, TD7 learns actions that are values",
                where="--env",
                hint="train it with PPO",
            )
        sizes = self.simulator.observation_size, len(self.simulator.low)
        self.agent = TD7(*sizes, settings)
        self.replay = Replay(*sizes, settings.capacity, loop.seed * 1000 + self.generation)
        self.collector = Collector(self.simulator, self.replay)
        if content:
            self._resume(content)

    def _resume(self, content: dict[str, Any]) -> None:
        self.agent.load_state_dict(content["agent"])
        self.steps, self.random_left, self.debt = content["steps"], content["random_left"], content["debt"]
        self.seconds, self.best = content["seconds"], content["best"]
        self.replay.max_priority = content["max_priority"]
        if self.replay_file and self.replay_file.exists():
            with np.load(self.replay_file) as kept:
                self.replay.restore(kept["rows"], kept["weights"], int(kept["next"]))
            return
        # A replay grown in training holds much that the policy of now would not do, which keeps the critic from
        # dreaming of it. So the environments are refilled with more and more noise.
        widest = 1 + REFILL_NOISE * torch.linspace(0, 1, self.loop.num_envs)[:, None]
        while len(self.replay) < min(self.loop.refill, content["held"]):
            self.collector.step(self._actions(self.settings.exploration * widest))
        self.hold_until = self.agent.updates + self.loop.settle

    def _actions(self, noise: float | Tensor) -> Array:
        if self.random_left > 0:
            actions = torch.rand(self.simulator.num_envs, self.agent.sizes[1]) * 2 - 1
        else:
            observations = torch.as_tensor(self.collector.observations, dtype=torch.float32)
            actions = self.agent.act(observations, noise)
        return actions.double().numpy()

    def run(self) -> None:
        """Go on to the last update."""
        loop, began = self.loop, time.monotonic() - self.seconds
        text = json.dumps({"loop": dataclasses.asdict(loop), "td7": dataclasses.asdict(self.settings)}, indent=1)
        (self.out / "settings.json").write_text(text + "\n")
        while self.agent.updates < loop.updates:
            taken = self.collector.step(self._actions(self.settings.exploration))
            self.steps += taken
            if self.random_left > 0:
                self.random_left -= taken
                continue
            self.debt += taken / loop.steps_per_update
            while self.debt >= 1 and self.agent.updates < loop.updates:
                self.debt -= 1
                losses = self.agent.update(self.replay, hold_actor=self.agent.updates < self.hold_until)
                self.seconds = time.monotonic() - began
                if self.agent.updates % loop.assess_every == 0:
                    self._assess(losses)
                if self.agent.updates % loop.checkpoint_every == 0:
                    self.checkpoint()

    def _assess(self, losses: dict[str, float]) -> None:
        """Play episodes without noise; keep the policy where it is the best so far over many of them."""
        loop, policy = self.loop, self.agent.policy()
        seeds = environment_seeds(loop.seed, VALIDATION, self.agent.updates, loop.episodes + loop.confirm)
        returns, lengths = assess(policy, loop.env, seeds[: loop.episodes], loop.num_envs)
        kept = False
        if returns.mean() > self.best and loop.confirm:
            more = assess(policy, loop.env, seeds[loop.episodes :], loop.num_envs)
            returns, lengths = np.concatenate([returns, more[0]]), np.concatenate([lengths, more[1]])
        kept = bool(returns.mean() > self.best)
        finished, self.collector.finished = self.collector.finished, []
        row = {
            "updates": self.agent.updates,
            "steps": self.steps,
            "hours": round(self.seconds / 3600, 3),
            "return": round(float(returns.mean()), 1),
            "median": round(float(np.median(returns)), 1),
            "std": round(float(returns.std(ddof=1)), 1),
            "least": round(float(returns.min()), 1),
            "episodes": len(returns),
            "length": round(float(lengths.mean()), 1),
            "training_return": round(float(np.mean(finished)), 1) if finished else None,
            "kept": kept,
            **{name: round(value, 4) for name, value in losses.items()},
            "target_range": [round(x, 1) for x in self.agent.clip],
        }
        if kept:
            self.best = float(returns.mean())
            save({"format": FORMAT, "env": loop.env, "row": row, **pack_policy(policy)}, self.out / "best.pt")
        with (self.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "format": FORMAT,
            "loop": dataclasses.asdict(self.loop),
            "settings": dataclasses.asdict(self.settings),
            "generation": self.generation,
            "sizes": list(self.agent.sizes),
            "agent": self.agent.state_dict(),
            "steps": self.steps,
            "random_left": self.random_left,
            "debt": self.debt,
            "seconds": self.seconds,
            "best": self.best,
            "held": len(self.replay),
            "max_priority": self.replay.max_priority,
        }

    def checkpoint(self) -> None:
        """Write everything but the replay; that too where a file for it was given."""
        if self.replay_file:
            partial = self.replay_file.with_suffix(".tmp.npz")
            held = self.replay.held()
            np.savez(partial, rows=held["rows"], weights=held["weights"], next=held["next"])
            os.replace(partial, self.replay_file)
        save(self.content(), self.out / "state.pt")


def pack(folder: Path, out: Path) -> None:
    """Copy a training's folder to `out` with its newest checkpoint made compact."""
    content = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    observations, actions = content["sizes"]
    agent = TD7(observations, actions, TD7Settings(**content["settings"]))
    agent.load_state_dict(content["agent"])
    out.mkdir(parents=True, exist_ok=True)
    save({**content, "agent": agent.compact_state_dict()}, out / "state.pt")
    for name in ("best.pt", "metrics.jsonl", "settings.json"):
        shutil.copy(folder / name, out / name)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pack", type=Path)
    parser.add_argument("--replay-file", type=Path)
    kinds: dict[str, Any] = {"int": int, "float": float, "str": str}
    defaults = {"env": "Ant-v4", "seed": 0}
    for kind in (LoopSettings, TD7Settings):
        for field in dataclasses.fields(kind):
            default = defaults.get(field.name, field.default)
            parser.add_argument("--" + field.name.replace("_", "-"), type=kinds[str(field.type)], default=default)
    flags = vars(parser.parse_args())
    out: Path = flags["out"]
    if flags["pack"]:
        pack(flags["pack"], out)
        return
    loop = LoopSettings(**{field.name: flags[field.name] for field in dataclasses.fields(LoopSettings)})
    settings = TD7Settings(**{field.name: flags[field.name] for field in dataclasses.fields(TD7Settings)})
    Training(out, loop, settings, flags["replay_file"]).run()


if __name__ == "__main__":
    main()
