"""The learner of a configuration, and what it begins with that another run has learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from nervecord.training.config import PPO, TD7, Distill, SkrlAlgorithm, TrainConfig
from nervecord.training.distributed import Group
from nervecord.training.learners.base import Learner
from nervecord.training.learners.distill import Student, read_teacher
from nervecord.training.learners.off_policy import TD7Learner
from nervecord.training.learners.ppo import PPOLearner
from nervecord.training.simulators.base import Simulator
from nervecord.training.start import LEARNT, digest, read_start, statistics


@dataclass(frozen=True, slots=True)
class Source:
    """Another run that a training begins with, or learns from."""

    field: str
    """Of the configuration: "start" or "teacher"."""
    folder: str
    content: dict[str, Any]
    """Its checkpoint."""

    @property
    def origin(self) -> dict[str, Any]:
        """What the run folder says of it."""
        step = int(self.content["step"])
        return {"folder": self.folder, "step": step, "networks": digest(self.content["learner"])}


def begin(config: TrainConfig) -> Source | None:
    """What a new training begins with; None where that is nothing but its seed.

    Raises:
        NervecordError: there is no such run, or it does not fit.
    """
    algorithm = config.algorithm
    if isinstance(algorithm, Distill):
        return Source("teacher", algorithm.teacher, read_teacher(config))
    if isinstance(algorithm, PPO) and algorithm.start:
        return Source("start", algorithm.start, read_start(config))
    return None


def make_learner(
    simulator: Simulator,
    config: TrainConfig,
    group: Group,
    *,
    source: Source | None,
    content: dict[str, Any] | None,
) -> Learner:
    """The learner.

    Args:
        simulator: says the sizes.
        config, group: of the run.
        source: what `begin` gave.
        content: the checkpoint that the training goes on from, of which a distillation takes its teacher.
    """
    size, actions, choices = simulator.observation_size, len(simulator.low), simulator.choices
    low, high = torch.from_numpy(simulator.low), torch.from_numpy(simulator.high)
    if isinstance(config.algorithm, TD7):
        return TD7Learner(size, low, high, config, group, choices=choices)
    if isinstance(config.algorithm, SkrlAlgorithm):
        from nervecord.training.learners.skrl_agents import SkrlLearner  # it imports skrl, which others do not need

        return SkrlLearner(size, low, high, config, group, choices=choices)
    if isinstance(config.algorithm, Distill):
        teacher = content["learner"]["teacher"] if content is not None else None
        if source is not None:
            teacher = source.content
        assert teacher is not None
        student = Student(size, low, high, config, group, choices=choices, teacher=teacher)
        if source is not None:
            student.take_over(source.content)
        return student
    learner = PPOLearner(size, actions, config, group, choices=choices)
    if source is not None:
        learnt = source.content["learner"]
        learner.load_state_dict({name: learnt[name] for name in LEARNT})
        learner.reward_rms.load_state_dict(statistics(learnt["reward_rms"]))
    return learner
