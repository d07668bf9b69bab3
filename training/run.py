"""Training, from a configuration to a policy.

The loop: a rollout of all environments, skrl's PPO update, one row of metrics; now and then a checkpoint. What the run
does next depends on its checkpoint alone: at each one the simulators are built anew with seeds derived from its number
(EnvPool cannot save its state), in a run that goes on as in one that is resumed. To the learner that is a truncation,
and as it falls between two rollouts, where the critic's value continues every episode anyway, nothing is lost but the
rest of the running episodes. So a run killed at any moment and resumed writes the metrics it would have written.

Of several processes (`nervecord.training.distributed`) each runs this loop over its share of the environments. The
first one alone writes the run folder, validates, tests and exports.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nervecord.compiler.files import write_atomically
from nervecord.errors import NervecordError, unknown_name
from nervecord.training import checkpoint, run_folder
from nervecord.training.array_rollout import ArrayRollout, Ended
from nervecord.training.config import TrainConfig
from nervecord.training.learners.distill import Student, read_teacher
from nervecord.training.distributed import SOLO, Group, join
from nervecord.training.evaluate import Evaluation, evaluate
from nervecord.training.export import export
from nervecord.training.figure import draw_learning_curve
from nervecord.training.learners.ppo import Learner, check_device
from nervecord.training.rewards import RewardNormaliser, SharedRewardNormaliser
from nervecord.training.simulators.base import (
    TEST,
    TRAINING,
    VALIDATION,
    DeviceSimulator,
    Simulator,
    environment_seeds,
    make_simulator,
    resolve_kind,
)
from nervecord.training.start import LEARNT, digest, read_start, reward_statistics
from nervecord.training.tensor_rollout import TensorRewardNormaliser, TensorRollout

RETURNS = 100
"""Episodes of the training return that is reported: the last so many."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training stands, given to the callback after each update."""

    step: int
    total: int
    rate: float
    """Environment steps a second since this process took up the run."""
    eta: float
    """Seconds left at that rate."""
    mean_return: float | None
    """Mean return of the last 100 training episodes (with action noise), None before the first has ended."""


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training came to."""

    folder: Path
    config: TrainConfig
    step: int
    """Step of the checkpoint that was exported."""
    validation: float | None
    """Its mean return on the validation seeds, None where nothing was validated."""
    test: Evaluation | None
    """Its returns on the test seeds, None where none were asked for, and in all processes but the first."""
    policy: Path | None
    """The exported policy, None for a policy without spikes, which NIR has no words for; as `test`."""


def train(config: TrainConfig, *, progress: ProgressCallback | None = None) -> TrainResult:
    """Train a policy and write it to a new run folder.

    Where torchrun started several processes with this call, they train together.

    Args:
        config: the whole configuration.
        progress: called after each update.

    Raises:
        NervecordError: the run folder exists, or the configuration cannot run here.
        EngineError: another process died or hangs.
    """
    with join() as group:
        group.check(config)
        check_device(group.device(config.device))
        sim = resolve_kind(config.env) if config.sim == "auto" else config.sim
        config = dataclasses.replace(config, sim=sim, name=config.run_name)
        run = Run(config, None, group)
        run.folder = group.first(lambda: run_folder.create(config, sim=sim, processes=group.world, origins=run.origins))
        return run.finish(progress)


def resume(
    run_dir: str | Path, *, progress: ProgressCallback | None = None, overrides: dict[str, Any] | None = None
) -> TrainResult:
    """Continue a run from its newest checkpoint; a finished one is only tested and exported again.

    Args:
        run_dir: the run folder.
        progress: called after each update.
        overrides: fields to change: those of `CHANGEABLE`. With others the run would not be the same.

    Raises:
        NervecordError: the folder holds no run or no checkpoint, an override may not change, or another number of
            processes trained it.
        EngineError: another process died or hangs.
    """
    folder = Path(run_dir)
    with join() as group:
        config, content = group.first(lambda: _reopen(folder, overrides or {}, group.world))
        check_device(group.device(config.device))
        run = Run(config, content, group)
        run.folder = folder
        return run.finish(progress)


def _reopen(folder: Path, overrides: dict[str, Any], processes: int) -> tuple[TrainConfig, dict[str, Any] | None]:
    """Configuration and newest checkpoint of a run that is to be continued."""
    config = run_folder.open_existing(folder)
    trained_by = run_folder.processes(folder)
    if trained_by != processes:
        start = f"torchrun --nproc-per-node {trained_by} -m nervecord" if trained_by > 1 else "nervecord"
        raise NervecordError(
            f"is a run of {trained_by} process{'es' * (trained_by > 1)}, {processes} would not go on with it exactly",
            where=str(folder),
            hint=f"{start} train --resume {folder}",
        )
    for name in overrides:
        if name not in CHANGEABLE:
            raise unknown_name("field to change on resuming", name, CHANGEABLE, where="--resume")
    if overrides:
        config = dataclasses.replace(config, **overrides)
        write_atomically(folder / "config.json", config.to_json().encode())
    return config, _newest(folder, config)


def _newest(folder: Path, config: TrainConfig) -> dict[str, Any] | None:
    """The newest checkpoint of a run; None where it was stopped before the first: then it begins again, the same."""
    checkpoints = folder / "checkpoints"
    if not checkpoint.steps_in(checkpoints) and run_folder.last_step(folder) < config.checkpoint_every:
        return None
    return checkpoint.load(checkpoints)


CHANGEABLE = (
    "steps",
    "threads",
    "torch_threads",
    "device",
    "keep_checkpoints",
    "validation_episodes",
    "test_episodes",
    "tensorboard",
)
"""Fields that a resumed run may change."""


class Run:
    """One training in this process, or this process's part of one.

    Args:
        config: the configuration, its simulator resolved.
        content: a checkpoint to continue from, or None.
        group: the processes that train.
    """

    folder: Path

    def __init__(self, config: TrainConfig, content: dict[str, Any] | None, group: Group = SOLO) -> None:
        begin = read_start(config) if content is None and config.start else None
        teacher = read_teacher(config) if content is None and config.teacher else None
        self.config, self.group = config, group
        self.num_envs = group.share(config.num_envs)
        torch.set_num_threads(config.torch_threads)
        torch.manual_seed(int(np.random.SeedSequence((config.seed, 3)).generate_state(1)[0]))
        self.step = 0
        self.generation: int = content["generation"] if content else 0
        self.returns: deque[float] = deque(maxlen=RETURNS)
        self.episodes = 0
        self.best: dict[str, float] | None = None
        self.simulator = self._open_simulator()
        size = self.simulator.observation_size
        self.learner = self._make_learner(teacher, content)
        self.rewards = self._make_rewards()
        if not group.is_first:
            # All began with the same weights; noise and minibatches are each process's own.
            words = np.random.SeedSequence((config.seed, 3, group.rank)).generate_state(1)
            torch.manual_seed(int(words[0]))
        self.recorded = torch.zeros((0, size))
        self.origins: dict[str, Any] = {}
        """What is not this run's own work, by the field that asked for it: folder, step and a hash of the networks."""
        if content is not None:
            self._restore(content)
        elif begin is not None:
            self._begin_with(begin)
        elif teacher is not None:
            self._learn_from(teacher)
        self._start_episodes()

    def _begin_with(self, content: dict[str, Any]) -> None:
        self.learner.load_state_dict({name: content["learner"][name] for name in LEARNT})
        self.rewards.load_state_dict({**self.rewards.state_dict(), **reward_statistics(content["rewards"])})
        self.origins["start"] = self._origin(self.config.start, content)

    def _learn_from(self, teacher: dict[str, Any]) -> None:
        assert isinstance(self.learner, Student)
        self.learner.take_over(teacher)
        self.rewards.load_state_dict({**self.rewards.state_dict(), **reward_statistics(teacher["rewards"])})
        self.origins["teacher"] = self._origin(self.config.teacher, teacher)

    def _origin(self, folder: str, content: dict[str, Any]) -> dict[str, Any]:
        return {"folder": folder, "step": int(content["step"]), "networks": digest(content)}

    def _make_learner(self, teacher: dict[str, Any] | None, content: dict[str, Any] | None) -> Learner:
        config, simulator = self.config, self.simulator
        size, choices = simulator.observation_size, simulator.choices
        if not config.teacher:
            return Learner(size, len(simulator.low), config, self.group, choices=choices)
        if teacher is None:  # a distillation that goes on
            assert content is not None
            teacher = content["learner"]["teacher"]
        low, high = torch.from_numpy(simulator.low), torch.from_numpy(simulator.high)
        return Student(size, low, high, config, self.group, choices=choices, teacher=teacher)

    def _open_simulator(self) -> Simulator:
        config = self.config
        seeds = environment_seeds(config.seed, TRAINING, self.generation, config.num_envs)
        own = self.group.own(seeds)
        return make_simulator(config.env, own, kind=config.sim, threads=config.threads, device=config.device)

    def _make_rewards(self) -> RewardNormaliser | TensorRewardNormaliser:
        config = self.config
        if isinstance(self.simulator, DeviceSimulator):
            if self.group.several:
                raise NervecordError(
                    "steps on its device, and that is not joined across processes yet",
                    where=f"--sim {config.sim}",
                    hint="train in one process, or with --sim envpool",
                )
            return TensorRewardNormaliser(config.num_envs, config.gamma, config.reward_clip, self.learner.device)
        make = SharedRewardNormaliser if self.group.several else RewardNormaliser
        return make(self.num_envs, config.gamma, config.reward_clip)

    def _start_episodes(self) -> None:
        self.rewards.restart()
        self.learner.clear_state()
        if isinstance(self.rewards, TensorRewardNormaliser):
            assert isinstance(self.simulator, DeviceSimulator)
            self.under_way: ArrayRollout | TensorRollout = TensorRollout(
                self.config, self.simulator, self.learner, self.rewards
            )
        else:
            self.under_way = ArrayRollout(self.config, self.simulator, self.learner, self.rewards, self.group)

    def finish(self, progress: ProgressCallback | None) -> TrainResult:
        """Train to the last step, then test and export the best checkpoint."""
        try:
            self._train(progress)
        finally:
            self.simulator.close()
        # Nobody waits for the test.
        self.group.leave()
        if not self.group.is_first:
            return TrainResult(self.folder, self.config, self.step, None, None, None)
        return self._conclude()

    def _train(self, progress: ProgressCallback | None) -> None:
        config = self.config
        total = config.total_steps
        started, first = time.monotonic(), self.step
        with contextlib.ExitStack() as stack:
            metrics = None
            if self.group.is_first:
                opened = run_folder.Metrics(self.folder, step=self.step, tensorboard=config.tensorboard)
                metrics = stack.enter_context(opened)
            while self.step < total:
                self.learner.set_progress(self.step / total)
                losses = self.rollout()
                self._check_finite(losses)
                before, self.step = self.step, self.step + config.batch
                seconds = time.monotonic() - started
                rate = (self.step - first) / seconds
                row: dict[str, float | int | None] = {
                    "step": self.step,
                    "episodes": self.episodes,
                    "train_return": self._train_return(),
                    **losses,
                    **self.learner.actor.exploration(),
                    "validation_return": None,
                    "seconds": seconds,
                    "steps_per_second": rate,
                }
                is_checkpoint = self.step >= total or self.step // config.checkpoint_every > (
                    before // config.checkpoint_every
                )
                if metrics is not None:
                    if is_checkpoint:
                        row["validation_return"] = self._validate()
                    metrics.write(row)
                    if is_checkpoint:
                        metrics.sync()
                if is_checkpoint:
                    self._checkpoint()
                if progress is not None and self.group.is_first:
                    progress(Progress(self.step, total, rate, (total - self.step) / rate, self._train_return()))

    def _check_finite(self, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            if not math.isfinite(value):
                raise NervecordError(
                    f"diverged: the {name.replace('_', ' ')} is {value} in the update after step "
                    f"{self.step + self.config.batch:,}",
                    where=str(self.folder),
                    hint=f"train with a lower --lr than {self.config.lr:g}, or a smaller --clip or --grad-norm",
                )

    def _train_return(self) -> float | None:
        return float(np.mean(self.returns)) if self.returns else None

    def rollout(self) -> dict[str, float]:
        """Step all environments `rollout` times; the last step runs the update. Returns its losses."""
        ended, observations = self.under_way.collect()
        self._record(observations)
        return self._exchange(ended)

    def _exchange(self, here: list[Ended]) -> dict[str, float]:
        """Count the episodes that ended anywhere, in the order one process would; returns the losses of all."""
        parts = self.group.gather((here, self.learner.pop_losses(), self.learner.real_steps()))
        for _, _, value in sorted(ended for part in parts for ended in part[0]):
            self.returns.append(value)
            self.episodes += 1
        losses = parts[0][1]
        if len(parts) > 1:
            steps = sum(part[2] for part in parts)
            losses = {name: sum(part[1][name] * part[2] for part in parts) / steps for name in losses}
        return losses

    def _record(self, rows: torch.Tensor) -> None:
        """Keep a few of this rollout's raw observations (n, size), the oldest giving way: those of 64 rollouts.

        Of several processes the first keeps its own, which are as good as the others'.
        """
        if not self.config.record or not self.group.is_first:
            return
        draw = np.random.default_rng((self.config.seed, 4, self.step))
        count = min(len(rows), max(1, self.config.record // 64))
        chosen = torch.from_numpy(draw.choice(len(rows), count, replace=False)).to(rows.device)
        chosen = rows[chosen].cpu()
        self.recorded = torch.cat([self.recorded, chosen])[-self.config.record :]

    def _validate(self) -> float | None:
        config = self.config
        late = self.step >= config.validate_from * config.total_steps
        if not config.validation_episodes or not late:
            return None
        return self._consider(evaluate(self.learner, config.validation_episodes, purpose=VALIDATION).mean)

    def _consider(self, score: float) -> float:
        if self.best is None or score > self.best["score"]:
            self.best = {"step": self.step, "score": score}
        return score

    def _checkpoint(self) -> None:
        """Build the simulators anew, then save: the checkpoint and the run go on from the same state."""
        self.generation += 1
        self.simulator.close()
        self.simulator = self._open_simulator()
        self._start_episodes()
        device = self.learner.device
        random = {
            "torch_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        }
        self.group.check_equal("the networks", digest(self._state()) if self.group.several else "")
        everywhere = self.group.gather(random)
        if not self.group.is_first:
            return
        content: dict[str, Any] = {
            "config": self.config.to_dict(),
            "generation": self.generation,
            "episodes": self.episodes,
            "returns": list(self.returns),
            "best": self.best,
            **self._state(),
            **random,
            "recorded": self.recorded.clone(),
            "low": torch.from_numpy(self.simulator.low.copy()),
            "high": torch.from_numpy(self.simulator.high.copy()),
            "choices": self.simulator.choices,
            # Of a task that Gymnasium does not know.
            "control_period": getattr(self.simulator, "control_period", None),
        }
        if self.group.several:
            content["processes"] = everywhere
        folder = self.folder / "checkpoints"
        checkpoint.save(folder, self.step, content, best=self.best, keep=self.config.keep_checkpoints)

    def _state(self) -> dict[str, Any]:
        return {"learner": self.learner.state_dict(), "rewards": self.rewards.state_dict()}

    def _restore(self, content: dict[str, Any]) -> None:
        self.step = content["step"]
        self.episodes = content["episodes"]
        self.returns.extend(content["returns"])
        self.best = content["best"]
        self.learner.load_state_dict(content["learner"])
        self.rewards.load_state_dict(content["rewards"])
        random = content["processes"][self.group.rank] if self.group.several else content
        torch.set_rng_state(random["torch_random"])
        if random["cuda_random"] is not None and self.learner.device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda_random"], self.learner.device)
        self.recorded = content["recorded"]

    def _conclude(self) -> TrainResult:
        config, folder = self.config, self.folder
        step = int(self.best["step"]) if self.best else self.step
        content = checkpoint.load(folder / "checkpoints", step)
        self.learner.load_state_dict(content["learner"])
        test = evaluate(self.learner, config.test_episodes, purpose=TEST) if config.test_episodes else None
        validation = self.best["score"] if self.best else None
        result = {
            "step": step,
            "validation_return": validation,
            "test": test.as_dict() if test else None,
        }
        policy = None
        if config.policy == "snn":
            policy = folder / "policy.nir"
            versions = json.loads((folder / "versions.json").read_text())
            export(config, content, policy, versions=versions, result=result)
        # Last: a folder with a result is that of a finished run.
        write_atomically(folder / "result.json", (json.dumps(result, indent=2) + "\n").encode())
        # Not worth the run where matplotlib, which the extra brings, was taken away.
        with contextlib.suppress(ImportError):
            draw_learning_curve(folder, folder / "learning.png", title=config.run_name)
        return TrainResult(folder, config, step, validation, test, policy)
