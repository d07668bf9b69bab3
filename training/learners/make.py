"""The learner of a configuration, and what it begins with that another run has learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from nervecord.training.folder.start import LEARNT, digest, read_critic, read_start, statistics
from nervecord.training.learners import function_teacher
from nervecord.training.learners.base import Learner
from nervecord.training.learners.distill import Student
from nervecord.training.learners.finetune import FinetuneLearner
from nervecord.training.learners.off_policy import TD7Learner
from nervecord.training.learners.ppo import PPOLearner
from nervecord.training.learners.teacher import read_teacher
from nervecord.training.processes.distributed import Group
from nervecord.training.settings.config import PPO, TD7, Distill, Finetune, SkrlAlgorithm, TrainConfig
from nervecord.training.simulators.base import Simulator


@dataclass(frozen=True, slots=True)
class Source:
    """Another run that a training begins with, or learns from."""

    field: str
    """Of the configuration: "start" or "teacher"."""
    folder: str
    """Of the run; else the file or the name of a function."""
    content: dict[str, Any]
    """Its checkpoint."""

    @property
    def origin(self) -> dict[str, Any]:
        """What the run folder says of it."""
        if function_teacher.PART in self.content["learner"]:
            return {"function": self.folder}
        step = int(self.content["step"])
        return {"folder": self.folder, "step": step, "networks": digest(self.content["learner"])}


def begin(config: TrainConfig) -> list[Source]:
    """What a new training begins with beside its seed.

    Raises:
        NervecordError: there is no such run, or it does not fit.
    """
    algorithm = config.algorithm
    found = []
    if isinstance(algorithm, PPO | Distill) and algorithm.teacher:
        found.append(Source("teacher", algorithm.teacher, read_teacher(config)))
    if isinstance(algorithm, PPO | Finetune) and algorithm.start:
        found.append(Source("start", algorithm.start, read_start(config)))
    if isinstance(algorithm, Finetune):
        found.append(Source("teacher", algorithm.teacher, read_critic(config)))
    return found


def make_learner(
    simulator: Simulator,
    config: TrainConfig,
    group: Group,
    *,
    sources: list[Source],
    content: dict[str, Any] | None,
) -> Learner:
    """The learner.

    Args:
        simulator: says the sizes.
        config, group: of the run.
        sources: what `begin` gave.
        content: the checkpoint that the training goes on from, of which it takes its teacher.
    """
    size, choices = simulator.observation_size, simulator.choices
    low, high = torch.from_numpy(simulator.low), torch.from_numpy(simulator.high)
    if isinstance(config.algorithm, TD7):
        return TD7Learner(size, low, high, config, group, choices=choices)
    if isinstance(config.algorithm, SkrlAlgorithm):
        from nervecord.training.learners.skrl_agents import SkrlLearner  # it imports skrl, which others do not need

        return SkrlLearner(size, low, high, config, group, choices=choices)
    begun = {source.field: source.content for source in sources}
    if isinstance(config.algorithm, Finetune):
        return FinetuneLearner(size, low, high, config, group, choices=choices, begun=begun, content=content)
    teacher = begun.get("teacher") if content is None else content["learner"].get("teacher")
    if isinstance(config.algorithm, Distill):
        assert teacher is not None
        student = Student(size, low, high, config, group, choices=choices, teacher=teacher)
        if content is None:
            student.take_over(teacher)
        return student
    assert isinstance(config.algorithm, PPO)
    assert (teacher is not None) == bool(config.algorithm.teacher)
    learner = PPOLearner(size, low, high, config, group, choices=choices, teacher=teacher)
    if "start" in begun:
        learnt = begun["start"]["learner"]
        learner.load_state_dict({name: learnt[name] for name in LEARNT})
        learner.reward_rms.load_state_dict(statistics(learnt["reward_rms"]))
    return learner
