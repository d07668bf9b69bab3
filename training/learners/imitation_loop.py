"""A spiking student of a TD7 teacher, from its first weights to a policy file.

    python -m nervecord.training.learners.imitation_loop --teacher zoo/ant/teachers/seed1 --name student \
        --layers 512 --steps-per-action 8 --steps 600000 --updates 60000

It writes a run folder like any training's (`nervecord.training.run_folder`), with `imitation.json` beside the
configuration, so that `nervecord train --start runs/student` goes on with PPO and `nervecord compile` takes its
`policy.nir`. With --start it goes on from another such folder, for example with the teacher's critic in the loss.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nervecord.compiler.files import write_atomically
from nervecord.errors import NervecordError
from nervecord.training import checkpoint, run_folder
from nervecord.training.config import TrainConfig
from nervecord.training.evaluate import evaluate
from nervecord.training.export import export
from nervecord.training.learners.imitation import Critic, Imitation, ImitationSettings, Teacher, ValueFit
from nervecord.training.learners.td7 import TD7, TD7Settings
from nervecord.training.learners.td7_networks import unpack_policy
from nervecord.training.mirror import mirror_of
from nervecord.training.ppo import Learner
from nervecord.training.rewards import RewardNormaliser
from nervecord.training.simulators import TRAINING, VALIDATION, environment_seeds, make_simulator, resolve_kind
from nervecord.training.start import LEARNT, read_best

Array = NDArray[Any]
ROWS = 5
"""Assessments of a student while it learns."""


class Raw(nn.Module):
    """A network of normalised observations as one of raw observations."""

    def __init__(self, network: nn.Module, scaler: nn.Module) -> None:
        super().__init__()
        self.network = network
        # Not a part: its statistics are not learnt by gradient.
        self.scale = [scaler]

    def forward(self, observations: Tensor) -> Tensor:
        out = self.network(self.scale[0](observations))
        result: Tensor = out[0] if isinstance(out, tuple) else out
        return result


def read_policy(folder: Path) -> dict[str, Any]:
    """The file of the best policy of a training with TD7.

    Raises:
        NervecordError: the folder holds none.
    """
    path = folder / "best.pt"
    if not path.exists():
        raise NervecordError("holds no best.pt", where=str(folder), hint="give the folder of a training with TD7")
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def td7_teacher(folder: Path, low: Tensor, high: Tensor) -> Teacher:
    """The best policy of a TD7 training as a function from raw observations to actions within the limits.

    Raises:
        NervecordError: the folder holds none.
    """
    policy = unpack_policy(read_policy(folder))

    def act(observations: Tensor) -> Tensor:
        with torch.no_grad():
            actions: Tensor = low + (policy(observations) + 1) / 2 * (high - low)
        return actions

    return act


def td7_critic(folder: Path, low: Tensor, high: Tensor) -> Critic:
    """The critic of the newest checkpoint of a TD7 training, for raw observations and actions within the limits."""
    content = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
    agent = TD7(content["sizes"][0], content["sizes"][1], TD7Settings(**content["settings"]))
    agent.load_state_dict(content["agent"])

    def value(observations: Tensor, actions: Tensor) -> Tensor:
        return agent.value(observations, (actions - low) / (high - low) * 2 - 1)

    return value


class Distillation:
    """A student's training.

    Args:
        config: of the student and its run folder; `steps` are environment steps.
        settings: of the imitation.
        teacher: folder of a training with TD7.
        updates: steps of the optimiser, spread evenly over those environment steps in which the student may act.
        start: run folder whose student it goes on with, None for new weights.
    """

    def __init__(
        self, config: TrainConfig, settings: ImitationSettings, teacher: Path, updates: int, start: Path | None
    ) -> None:
        self.config, self.settings, self.updates = config, settings, updates
        torch.set_num_threads(config.torch_threads)
        torch.manual_seed(config.seed)
        self.simulator = make_simulator(config.env, environment_seeds(config.seed, TRAINING, 0, config.num_envs))
        low, high = (torch.from_numpy(side).float() for side in (self.simulator.low, self.simulator.high))
        size = self.simulator.observation_size
        self.learner = Learner(size, len(low), config)
        self.rewards = RewardNormaliser(config.num_envs, config.gamma, config.reward_clip)
        self.scaled = start is not None
        if start:
            content = read_best(start)
            self.learner.load_state_dict({name: content["learner"][name] for name in LEARNT})
            rewards = {name: content["rewards"][name] for name in ("mean", "variance", "count")}
            self.rewards.load_state_dict({**self.rewards.state_dict(), **rewards})
        self.imitation = Imitation(
            Raw(self.learner.actor.net, self.learner.scaler),
            td7_teacher(teacher, low, high),
            size,
            low,
            high,
            config.num_envs,
            settings,
            seed=config.seed,
            critic=td7_critic(teacher, low, high) if settings.critic_weight else None,
            mirror=mirror_of(config.env) if settings.mirror else None,
        )
        self.values = ValueFit(Raw(self.learner.critic.net, self.learner.scaler), gamma=config.gamma, lam=config.lam)
        self.done = 0
        self.observations = self.simulator.reset()
        self.real = np.ones(config.num_envs, bool)

    def run(self, folder: Path) -> None:
        """Train to the end, with a row in metrics.jsonl for each fifth, then export."""
        config, began, parts, error = self.config, time.monotonic(), {"distance": 0.0}, 0.0
        rows = 0
        while self.imitation.steps < config.total_steps:
            rollout: list[tuple[Array, ...]] = []
            for _ in range(config.rollout):
                rollout.append(self._step())
                parts = self._update() or parts
            self.imitation.redraw(np.ones(config.num_envs, bool))
            if self.scaled and self.imitation.teacher_share() < 0.5:
                observations, following, rewards, terminated, ended, real = map(np.stack, zip(*rollout, strict=True))
                error = self.values.absorb(observations, following, rewards, terminated, ended, real)
            if ROWS * self.imitation.steps // config.total_steps > rows:
                rows += 1
                self._row(folder, {**parts, "value_error": error, "minutes": (time.monotonic() - began) / 60})
        self._conclude(folder)

    def _step(self) -> tuple[Array, ...]:
        observations, real = self.observations, self.real
        actions = self.imitation.act(torch.as_tensor(observations, dtype=torch.float32), real)
        result = self.simulator.step(actions.double().numpy())
        ended = (result.terminated | result.truncated) & real
        rewards = self.rewards(result.rewards, ended, real)
        self.imitation.end(result.terminated & real, result.truncated & real)
        self.observations, self.real = result.observations, ~ended
        return observations, result.observations, rewards, result.terminated, ended, real

    def _update(self) -> dict[str, float] | None:
        """As many updates as are due."""
        first = self.settings.teacher_steps
        if self.imitation.steps < first or not len(self.imitation.states):
            return None
        if not self.scaled:
            states = self.imitation.states
            self.learner.scaler.absorb(torch.from_numpy(states.rows[: len(states), : self.simulator.observation_size]))
            self.scaled = True
        due = self.updates * (self.imitation.steps - first) // max(1, self.config.total_steps - first)
        parts = None
        while self.done < min(due, self.updates):
            self.imitation.set_progress(self.done / self.updates)
            parts = self.imitation.update()
            self.done += 1
        return parts

    def _row(self, folder: Path, parts: dict[str, float]) -> None:
        result = evaluate(self.learner, 32, purpose=VALIDATION) if self.done else None
        row = {
            "step": self.imitation.steps,
            "updates": self.done,
            "teacher_share": self.imitation.teacher_share(),
            **{name: round(value, 4) for name, value in parts.items()},
            "return": round(result.mean, 1) if result else None,
            "std": round(float(np.std(result.returns, ddof=1)), 1) if result else None,
            "tenth": round(float(np.quantile(result.returns, 0.1)), 1) if result else None,
        }
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    def _conclude(self, folder: Path) -> None:
        config = self.config
        states, size = self.imitation.states, self.simulator.observation_size
        newest = (states.next - 1 - np.arange(min(len(states), 50 * config.record))) % states.capacity
        chosen = np.random.default_rng(config.seed).choice(newest, min(config.record, len(newest)), replace=False)
        content: dict[str, Any] = {
            "config": config.to_dict(),
            "generation": 0,
            "episodes": 0,
            "returns": [],
            "best": None,
            "learner": self.learner.state_dict(),
            "rewards": self.rewards.state_dict(),
            "torch_random": torch.get_rng_state(),
            "cuda_random": None,
            "recorded": torch.from_numpy(states.rows[chosen, :size].copy()),
            "low": torch.from_numpy(self.simulator.low.copy()),
            "high": torch.from_numpy(self.simulator.high.copy()),
            "choices": 0,
            "control_period": None,
        }
        step = self.imitation.steps
        checkpoint.save(folder / "checkpoints", step, content, best=None, keep=1)
        test = evaluate(self.learner, config.test_episodes, purpose=VALIDATION) if config.test_episodes else None
        result = {"step": step, "validation_return": None, "test": test.as_dict() if test else None}
        versions = json.loads((folder / "versions.json").read_text())
        content = checkpoint.load(folder / "checkpoints", step)
        export(config, content, folder / "policy.nir", versions=versions, result=result)
        write_atomically(folder / "result.json", (json.dumps(result, indent=2) + "\n").encode())
        print(json.dumps(result), flush=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--start", type=Path)
    parser.add_argument("--updates", type=int, default=60_000)
    parser.add_argument("--mirror-states", action="store_true", help="learn from mirror images too")
    parser.add_argument("--layers", type=int, nargs="+", default=[256])
    for name, kind, default in (
        ("env", str, "Ant-v4"), ("name", str, ""), ("steps-per-action", int, 5), ("steps", int, 600_000),
        ("num-envs", int, 64), ("seed", int, 0), ("slope", float, 5.0), ("test-episodes", int, 128),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=kind, default=default)
    own = [field for field in dataclasses.fields(ImitationSettings) if field.name != "mirror"]
    for field in own:
        number = int if str(field.type) == "int" else float
        parser.add_argument("--" + field.name.replace("_", "-"), type=number, default=field.default)
    flags = vars(parser.parse_args())
    names = ("env", "name", "steps_per_action", "steps", "num_envs", "seed", "slope", "test_episodes")
    config = TrainConfig.for_task(**{name: flags[name] for name in names}, layers=tuple(flags["layers"]), sim="auto")
    config = dataclasses.replace(config, sim=resolve_kind(config.env), name=config.run_name, tensorboard=False)
    settings = ImitationSettings(**{field.name: flags[field.name] for field in own}, mirror=flags["mirror_states"])
    folder = run_folder.create(config, sim=config.sim)
    said = {"teacher": str(flags["teacher"]), "start": str(flags["start"] or ""), "updates": flags["updates"]}
    said["teacher_row"] = read_policy(flags["teacher"]).get("row")
    text = json.dumps({**said, **dataclasses.asdict(settings)}, indent=2)
    write_atomically(folder / "imitation.json", (text + "\n").encode())
    Distillation(config, settings, flags["teacher"], flags["updates"], flags["start"]).run(folder)


if __name__ == "__main__":
    main()
