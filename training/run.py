"""Training, from a configuration to a policy. The loop stands in `Run.train`: collect, update, absorb.

A checkpoint does not end episodes: what a simulator can save of them goes into it, and they are begun anew only where a
resumed run finds nothing saved. With `exact_resume` a simulator that cannot save its state is built anew at each
checkpoint, with seeds derived from its number, in a run that continues as in one that is resumed: then a run killed at
any moment and resumed writes the metrics it would have written.

Of several processes (`nervecord.training.processes.distributed`) each runs this loop over its share of the
environments. The first one alone writes the run folder, validates, tests and exports.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nervecord.compiler.files.atomic import write_atomically
from nervecord.errors import NervecordError, unknown_name
from nervecord.training.evaluate import Evaluation, evaluate
from nervecord.training.fields import flag_name
from nervecord.training.folder import checkpoint, run_folder
from nervecord.training.folder.damage import require_parts, restoring
from nervecord.training.folder.export import check_exportable, export, exportable
from nervecord.training.folder.figure import draw_learning_curve
from nervecord.training.folder.records import last_row, read_record
from nervecord.training.folder.start import digest
from nervecord.training.learners.base import Learner, Rollout
from nervecord.training.learners.collect import Collector, Episode
from nervecord.training.learners.make import make_learner
from nervecord.training.learners.sources import read_sources
from nervecord.training.processes.devices import check_device
from nervecord.training.processes.distributed import SOLO, Group, join
from nervecord.training.processes.interrupts import told_to_stop
from nervecord.training.processes.launch import launch
from nervecord.training.settings.config import TrainConfig, marked
from nervecord.training.simulators.base import TEST, TRAINING, VALIDATION, Simulator, environment_seeds
from nervecord.training.simulators.kinds import kind_named
from nervecord.training.simulators.make import make_simulator, resolve_kind

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
    """The exported policy, None where `export.exportable` says why there is none; as `test`."""


def train(config: TrainConfig, *, progress: ProgressCallback | None = None) -> TrainResult:
    """Train a policy and write it to a new run folder.

    Where torchrun started several processes with this call, they train together.

    Args:
        config: the whole configuration.
        progress: called after each update.

    Raises:
        NervecordError: the run folder exists, or the configuration cannot run here.
        EngineError: another process died or hangs.
        KeyboardInterrupt: interrupted; the text says the step and how to continue.
    """
    with contextlib.ExitStack() as stack, run_folder.mujoco_log() as logged, join() as group:
        config.algorithm.check_processes(group.world)
        check_device(group.device(config.run.device))
        config = resolved(config)
        check_exportable(config)
        run = Run(config, None, group)

        def created() -> Path:
            folder = run_folder.create(config, sim=config.run.sim, processes=group.world, origins=run.origins)
            stack.enter_context(run_folder.hold(folder))
            logged.append(folder)
            return folder

        run.folder = group.first(created)
        return run.finish(progress)


def resume(
    run_dir: str | Path, *, progress: ProgressCallback | None = None, overrides: dict[str, Any] | None = None
) -> TrainResult:
    """Continue a run from its newest checkpoint; a finished one is only tested and exported again.

    Args:
        run_dir: the run folder.
        progress: called after each update.
        overrides: fields to change, by their names alone: those that are marked as resumable. With others the run would
            not be the same.

    Raises:
        NervecordError: the folder holds no run or no checkpoint, an override may not change, another number of
            processes trained it, or another process trains it now.
        EngineError: another process died or hangs.
        KeyboardInterrupt: as of `train`.
    """
    folder = Path(run_dir)
    with contextlib.ExitStack() as stack, run_folder.mujoco_log() as logged, join() as group:

        def reopened() -> tuple[TrainConfig, dict[str, Any] | None]:
            run_folder.open_existing(folder)
            # Before the checkpoint is read: the process that holds the run may write a newer one meanwhile.
            stack.enter_context(run_folder.hold(folder))
            logged.append(folder)
            return _reopen(folder, overrides or {}, group.world)

        config, content = group.first(reopened)
        check_device(group.device(config.run.device))
        with contextlib.nullcontext() if content is None else restoring(_file_of(folder, content)):
            run = Run(config, content, group)
        run.folder = folder
        # Only now: what cannot continue so leaves the folder as it was.
        group.first(lambda: run_folder.reconfigure(folder, config))
        return run.finish(progress)


def resolved(config: TrainConfig) -> TrainConfig:
    """The same with what depends on this machine filled in: simulator, threads, and the run's name."""
    sim, threads = config.run.sim, config.run.threads
    if sim == "auto":
        sim = resolve_kind(config.task.env, config.task.wrappers)
    return config.replace(
        sim=sim, threads=threads or max(1, len(os.sched_getaffinity(0)) // launch().local_world), name=config.run_name
    )


def _reopen(folder: Path, overrides: dict[str, Any], processes: int) -> tuple[TrainConfig, dict[str, Any] | None]:
    """Configuration and newest checkpoint of a run that is to be continued."""
    config = run_folder.open_existing(folder)
    trained_by = run_folder.processes(folder)
    if trained_by != processes:
        start = f"torchrun --nproc-per-node {trained_by} -m nervecord" if trained_by > 1 else "nervecord"
        raise NervecordError(
            f"is a run of {trained_by} process{'es' * (trained_by > 1)}, which {processes} would not continue exactly",
            where=str(folder),
            hint=f"{start} train --resume {folder}",
        )
    for name in overrides:
        if name not in marked("resumable"):
            known = sorted(map(flag_name, marked("resumable")))
            raise unknown_name("flag to change on resuming", flag_name(name), known, where="--resume")
    changed = resolved(config.replace(**overrides))
    content = _newest(folder, changed)
    if content is not None:
        keep = changed.run.keep_checkpoints
        checkpoint.settle(folder / "checkpoints", best=content.get("best"), keep=keep)
    return changed, content


def _file_of(folder: Path, content: dict[str, Any]) -> Path:
    return checkpoint.checkpoint_path(folder / "checkpoints", content["step"])


def _newest(folder: Path, config: TrainConfig) -> dict[str, Any] | None:
    """The newest checkpoint of a run; None where it was stopped before the first: then it begins again, the same."""
    checkpoints = folder / "checkpoints"
    first = min(math.ceil(config.run.checkpoint_every / config.batch) * config.batch, config.total_steps)
    # The row of the step that brings the first checkpoint is written before it.
    if not checkpoint.steps_in(checkpoints) and run_folder.last_step(folder) <= first:
        return None
    return checkpoint.load_whole(checkpoints, config.algorithm.assets)


class Run:
    """One training in this process, or this process's part of one.

    Args:
        config: the configuration, `resolved`.
        content: a checkpoint to continue from, or None.
        group: the processes that train.
    """

    folder: Path

    def __init__(self, config: TrainConfig, content: dict[str, Any] | None, group: Group = SOLO) -> None:
        self.config, self.group = config, group
        torch.set_num_threads(config.run.torch_threads)
        torch.manual_seed(int(np.random.SeedSequence((config.run.seed, 3)).generate_state(1)[0]))
        self.step = 0
        self.generation: int = content["generation"] if content else 0
        self.returns: deque[float] = deque(maxlen=RETURNS)
        self.lengths: deque[int] = deque(maxlen=RETURNS)
        self.episodes = 0
        self.best: dict[str, float] | None = None
        self.simulation_lost = False
        """Whether a validation has taken over the simulation, of which a process has one alone."""
        self.origins: dict[str, Any] = {}
        """What is not this run's own work, by the field that asked for it: folder, step and a hash of the networks."""
        sources = group.first(lambda: read_sources(config)) if content is None else []
        self.simulator = self._open_simulator()
        contents = {source.field: source.content for source in sources}
        self.learner: Learner = make_learner(self.simulator, config, group, sources=contents, content=content)
        if not group.is_first:
            # All began with the same weights; noise and minibatches are each process's own.
            words = np.random.SeedSequence((config.run.seed, 3, group.rank)).generate_state(1)
            torch.manual_seed(int(words[0]))
        self.recorded = torch.zeros((0, self.simulator.observation_size))
        self.origins.update({source.field: source.record for source in sources})
        if content is not None:
            self._restore(content)
        else:
            self._begin_episodes()

    def _open_simulator(self) -> Simulator:
        config = self.config
        seeds = environment_seeds(config.run.seed, TRAINING, self.generation, config.algorithm.num_envs)
        return make_simulator(
            config.task.env,
            self.group.own(seeds),
            kind=config.run.sim,
            wrappers=config.task.wrappers,
            threads=config.run.threads,
            device=self.group.device(config.run.device),
        )

    def _begin_episodes(self, saved: dict[str, Any] | None = None) -> None:
        """Take up the running episodes that were saved, or begin new ones everywhere."""
        config = self.config
        rollout = config.batch // config.algorithm.num_envs
        words = np.random.SeedSequence((config.run.seed, 5, self.generation, self.group.rank)).generate_state(1)
        stagger = None if config.run.exact_resume else int(words[0])
        self.collector = Collector(
            self.simulator,
            self.learner,
            rollout,
            stagger=stagger,
            begin=saved is None,
            restart=self.learner.restart_steps,
        )
        if saved is not None:
            self.collector.load_state_dict(saved)
        else:
            self.learner.restart_episodes()

    def finish(self, progress: ProgressCallback | None) -> TrainResult:
        """Train to the last step, then test and export the checkpoint that `--export` chooses."""
        try:
            self.train(progress)
        finally:
            self.simulator.close()
        # Nobody waits for the test.
        self.group.leave()
        if not self.group.is_first:
            return TrainResult(self.folder, self.config, self.step, None, None, None)
        return self._conclude()

    def train(self, progress: ProgressCallback | None = None) -> None:
        """The loop: collect a rollout, update on it, absorb it into the statistics; note, and keep, its result."""
        config, total, first = self.config, self.config.total_steps, self.step
        started = time.monotonic()
        with told_to_stop() as interrupted, self._metrics() as metrics:
            while self.step < total:
                self.learner.schedule(self.step, total)
                rollout, episodes = self.collector.collect(self.learner)
                losses = self.learner.update(rollout)
                self.learner.absorb(rollout)

                self._record(rollout)
                before, self.step = self.step, self.step + config.batch
                stop, losses = self._exchange(episodes, losses, stop=interrupted.is_set())
                self._check_finite(losses)
                is_due = self.step >= total or self._crosses(before)
                seconds = time.monotonic() - started
                rate = (self.step - first) / seconds
                if metrics is not None:
                    metrics.write(self._row(losses, seconds, rate, self._validate() if is_due else None))
                if is_due or (stop and not self._only_exact()):
                    if metrics is not None:
                        metrics.sync()
                    self._checkpoint()
                if progress is not None and self.group.is_first:
                    progress(Progress(self.step, total, rate, (total - self.step) / rate, self._train_return()))
                if stop and self.step < total:
                    raise KeyboardInterrupt(self._stopped())

    def rollout(self) -> dict[str, float]:
        """One turn of the loop without metrics and checkpoints, for measuring it; returns the losses."""
        rollout, _ = self.collector.collect(self.learner)
        losses = self.learner.update(rollout)
        self.learner.absorb(rollout)
        return losses

    def _metrics(self) -> contextlib.AbstractContextManager[run_folder.Metrics | None]:
        if not self.group.is_first:
            return contextlib.nullcontext()
        return run_folder.Metrics(self.folder, step=self.step, tensorboard=self.config.run.tensorboard)

    def _row(
        self, losses: dict[str, float], seconds: float, rate: float, validation: float | None
    ) -> dict[str, float | int | None]:
        return {
            "step": self.step,
            "episodes": self.episodes,
            "train_return": self._train_return(),
            "episode_length": float(np.mean(self.lengths)) if self.lengths else None,
            **losses,
            "validation_return": validation,
            "seconds": seconds,
            "steps_per_second": rate,
        }

    def _crosses(self, before: int) -> bool:
        every = self.config.run.checkpoint_every
        return self.step // every > before // every

    def _only_exact(self) -> bool:
        """Whether a checkpoint at another step than planned would make the run another one."""
        return self.config.run.exact_resume and self.simulator.state_dict() is None

    def _stopped(self) -> str:
        steps = checkpoint.steps_in(self.folder / "checkpoints")
        continuation = f"from step {steps[-1]:,}" if steps else "from its beginning, as no checkpoint was due yet"
        return f"interrupted at step {self.step:,}; nervecord train --resume {self.folder} continues {continuation}"

    def _check_finite(self, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            if name.endswith("loss") and not math.isfinite(value):
                raise NervecordError(
                    f"diverged: the {name.replace('_', ' ')} is {value} in the update after step {self.step:,}",
                    where=str(self.folder),
                    hint=self._calmer(),
                )

    def _calmer(self) -> str:
        """Which settings of the algorithm to lower after a divergence."""
        names = [name for name in ("lr", "critic_lr", "clip", "grad_norm") if self.config.fields.get(name)]
        return "lower " + " or ".join(f"{flag_name(name)} {self.config.fields[name]:g}" for name in names)

    def _train_return(self) -> float | None:
        return float(np.mean(self.returns)) if self.returns else None

    def _exchange(self, here: list[Episode], losses: dict[str, float], *, stop: bool) -> tuple[bool, dict[str, float]]:
        """Count the episodes that ended anywhere, in the order one process would; whether any process was told to stop,
        and the mean of all losses."""
        first = self.group.rank * self.simulator.num_envs
        mine = [(episode.step, first + episode.environment, episode.value, episode.length) for episode in here]
        parts = self.group.gather((mine, losses, stop))
        for _, _, value, length in sorted(ended for part in parts for ended in part[0]):
            self.returns.append(value)
            self.lengths.append(length)
            self.episodes += 1
        if len(parts) > 1:
            losses = {name: float(np.mean([part[1][name] for part in parts])) for name in losses}
        return any(part[2] for part in parts), losses

    def _record(self, rollout: Rollout) -> None:
        """Keep a few of this rollout's raw observations, the oldest giving way: those of 64 rollouts.

        Of several processes the first keeps its own, which are as good as the others'.
        """
        config = self.config.run
        if not config.record or not self.group.is_first:
            return
        draw = np.random.default_rng((config.seed, 4, self.step))
        steps = rollout.flat(rollout.valid).nonzero()[:, 0]
        count = min(len(steps), max(1, config.record // 64))
        chosen = steps[torch.from_numpy(draw.choice(len(steps), count, replace=False)).to(steps.device)]
        self.recorded = torch.cat([self.recorded, rollout.flat(rollout.observations)[chosen].cpu()])[-config.record :]

    def _validate(self) -> float | None:
        run = self.config.run
        late = self.step >= run.validate_from * self.config.total_steps
        if not run.validation_episodes or not late:
            return None
        score = evaluate(self.learner, self.config, run.validation_episodes, purpose=VALIDATION).mean
        self.simulation_lost = kind_named(run.sim).is_shared
        if self.best is None or score > self.best["score"]:
            self.best = {"step": self.step, "score": score}
        return score

    def _checkpoint(self) -> None:
        """Save what this run and one that is resumed continue from."""
        episodes = self.collector.state_dict()
        self.generation += 1
        if self.simulation_lost or (episodes is None and self.config.run.exact_resume):
            self.simulation_lost = False
            self._warn_of_short_episodes()
            self.simulator.close()
            self.simulator = self._open_simulator()
            self._begin_episodes()
        device = self.learner.device
        own = {
            "torch_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
            "collector": episodes,
        }
        learnt = self.learner.state_dict()
        self.group.check_equal("the networks", digest(learnt) if self.group.several else "")
        everywhere = self.group.gather(own)
        if not self.group.is_first:
            return
        content: dict[str, Any] = {
            "config": self.config.to_dict(),
            "generation": self.generation,
            "episodes": self.episodes,
            "returns": list(self.returns),
            "lengths": list(self.lengths),
            "best": self.best,
            "learner": learnt,
            **own,
            "recorded": self.recorded.clone(),
            "low": torch.from_numpy(self.simulator.low.copy()),
            "high": torch.from_numpy(self.simulator.high.copy()),
            "choices": self.simulator.choices,
            # Of a task that Gymnasium does not know.
            "control_period": self.simulator.control_period,
        }
        if self.group.several:
            content["processes"] = everywhere
        folder = self.folder / "checkpoints"
        checkpoint.save(folder, self.step, content, best=self.best, keep=self.config.run.keep_checkpoints)

    def _warn_of_short_episodes(self) -> None:
        steps, limit = self.config.run.checkpoint_every // self.config.algorithm.num_envs, self.simulator.time_limit
        if self.generation == 1 and self.config.run.exact_resume and steps < limit:
            logging.getLogger("nervecord").warning(
                "--exact-resume begins all episodes anew at each checkpoint, here every %d steps of an environment, "
                "and an episode has up to %d: no whole one is seen; raise --checkpoint-every or drop --exact-resume",
                steps,
                limit,
            )

    def _restore(self, content: dict[str, Any]) -> None:
        self.step, self.episodes, self.best = (content[name] for name in ("step", "episodes", "best"))
        self.returns.extend(content["returns"])
        self.lengths.extend(content["lengths"])
        require_parts(content["learner"], self.learner.state_dict())
        self.learner.load_state_dict(content["learner"])
        own = content["processes"][self.group.rank] if self.group.several else content
        self._begin_episodes(own["collector"])
        torch.set_rng_state(own["torch_random"])
        if own["cuda_random"] is not None and self.learner.device.type == "cuda":
            torch.cuda.set_rng_state(own["cuda_random"], self.learner.device)
        self.recorded = content["recorded"]
        self.learner.prepare(lambda: self.collector.collect(self.learner)[0])

    def _conclude(self) -> TrainResult:
        config, folder = self.config, self.folder
        chosen: dict[str, Any] = self.best or {"step": self.step, "score": None}
        if config.run.export == "last" and chosen["step"] != self.step:
            chosen = {"step": self.step, "score": (last_row(folder / "metrics.jsonl") or {}).get("validation_return")}
        step, validation = int(chosen["step"]), chosen["score"]
        content = checkpoint.load(folder / "checkpoints", step)
        with restoring(_file_of(folder, content)):
            self.learner.load_state_dict(content["learner"])
        episodes = config.run.test_episodes
        test = evaluate(self.learner, config, episodes, purpose=TEST) if episodes else None
        result = {"step": step, "validation_return": validation, "test": test.as_dict() if test else None}
        policy = None
        if exportable(config) is None:
            policy = folder / "policy.nir"
            versions = read_record(folder / "versions.json")
            export(config, content, policy, versions=versions, result=result)
        # Last: a folder with a result is that of a finished run.
        write_atomically(folder / "result.json", (json.dumps(result, indent=2) + "\n").encode())
        # Not worth the run where matplotlib, which the extra brings, was taken away.
        with contextlib.suppress(ImportError):
            draw_learning_curve(folder, folder / "learning.png", title=config.run_name)
        return TrainResult(folder, config, step, validation, test, policy)
