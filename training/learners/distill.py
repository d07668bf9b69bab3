"""Distillation: a student learns to act as a trained policy does, in the states that it comes to itself.

The student acts, with noise; the teacher says what it would have done in each of those states; the student's network
moves towards that. It is DAgger (Ross, Gordon and Bagnell 2011, arXiv 1011.0686) on the newest rollout alone, in the
loop of a training: rollouts, checkpoints, validation and export are those of `nervecord.training.run`, and in the place
of PPO's loss stands the distance between two actions.

The student takes the teacher's observation and reward statistics, its critic and the size of its noise, and leaves them
as they are. So a training with PPO can begin with it (`nervecord.training.start`).
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nervecord.errors import NervecordError
from nervecord.training import run_folder
from nervecord.training.config import TrainConfig
from nervecord.training.distributed import SOLO, Group
from nervecord.training.learners.ppo import Agent, Learner, StillScaler, make_actor
from nervecord.training.start import read_best, require_equal

GIVEN = ("env", "critic", "obs_clip")
"""Fields of `TrainConfig` that the teacher sets: with others its critic and statistics would not fit."""


def read_teacher(config: TrainConfig) -> dict[str, Any]:
    """The checkpoint of the teacher: its best one where it is finished, else its newest.

    Args:
        config: of the student; its `teacher` names the run folder.

    Raises:
        NervecordError: the folder holds no run or no checkpoint, or this student cannot learn from it.
    """
    folder = Path(config.teacher)
    teacher = run_folder.open_existing(folder)
    where = str(folder)
    require_equal(teacher, config, GIVEN, where=where)
    if teacher.state != "reset":
        raise NervecordError(
            "carries state from action to action, so what it would do does not follow from an observation alone",
            where=where,
            hint="take a teacher with --state reset",
        )
    if config.mirror and not teacher.mirror:
        raise NervecordError(
            "was trained without --mirror, so its statistics are not those of a mirror image too",
            where=where,
            hint="drop --mirror",
        )
    return read_best(folder)


class Teacher(nn.Module):
    """A trained policy that is asked and does not learn.

    Args:
        content: checkpoint of its training, or what `state` gave.
        actions: size of an action.
        choices: number of actions to choose from, 0 where an action is values.
        device: where it is to answer.
    """

    def __init__(self, content: dict[str, Any], actions: int, choices: int, device: torch.device) -> None:
        super().__init__()
        parts = content["learner"]
        self.state = {
            "config": content["config"],
            "learner": {name: parts[name] for name in ("policy", "observation_preprocessor")},
        }
        config = dataclasses.replace(TrainConfig.from_dict(content["config"]), device=str(device))
        observations = len(parts["observation_preprocessor"]["running_mean"])
        self.actor = make_actor(observations, actions, choices, config, device)
        self.actor.load_state_dict(parts["policy"])
        self.scaler = StillScaler(observations, clip_threshold=config.obs_clip, device=device)
        self.scaler.load_state_dict(parts["observation_preprocessor"])

    @torch.no_grad()
    def forward(self, observations: Tensor) -> Tensor:
        """Action means, or preferences of choices, (B, outputs), for raw observations (B, observations)."""
        outputs: Tensor = self.actor.compute({"observations": self.scaler(observations)})[0]
        return outputs


def distance(outputs: Tensor, wanted: Tensor, limits: tuple[Tensor, Tensor] | None) -> Tensor:
    """How far actions are from those that are wanted, a mean over the batch.

    Args:
        outputs: action means, or preferences of choices, (B, outputs).
        wanted: the same of the teacher.
        limits: of an action's values, each (actions,): beyond one of them every mean is the same action. None for
            choices.

    Returns:
        The squared distance of values; the cross-entropy of choices.
    """
    if limits is None:
        return functional.cross_entropy(outputs, wanted.softmax(-1))
    low, high = limits
    error = outputs - wanted.clamp(low, high)
    error = torch.where(wanted >= high, error.clamp(max=0), error)
    error = torch.where(wanted <= low, error.clamp(min=0), error)
    return error.square().sum(-1).mean()


class Imitation(Agent):  # type: ignore[misc]
    """skrl's agent with another update: the same memory, optimiser and networks, and the teacher's answers."""

    teacher: Teacher
    limits: tuple[Tensor, Tensor] | None
    group: Group

    def update(self, *, timestep: int, timesteps: int) -> None:
        """Move the policy towards the teacher on the rollout's steps; the critic stays."""
        del timestep, timesteps
        observations = self.memory.tensors_view["observations"]
        self.memory.tensors_view["labels"].copy_(self.teacher(observations))
        parameters = [p for p in self.policy.net.parameters() if p.requires_grad]
        total, count = 0.0, 0
        for _ in range(self.cfg.learning_epochs):
            for seen, states, wanted in self.memory.sample(
                names=["observations", "states", "labels"], batch_size=0, mini_batches=self.cfg.mini_batches
            ):
                outputs, _ = self.policy.compute(
                    {"observations": self._observation_preprocessor(seen), "states": states}
                )
                loss = distance(outputs, wanted, self.limits)
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                if self.group.several:
                    self.group.mean_gradients(parameters, len(outputs))
                if self.cfg.grad_norm_clip > 0:
                    nn.utils.clip_grad_norm_(parameters, self.cfg.grad_norm_clip)
                self.optimizer.step()
                total, count = total + float(loss.detach()), count + 1
        self.track_data("Loss / Policy loss", total / count)


class Student(Learner):
    """A learner that imitates.

    Args:
        teacher: checkpoint of the teacher's training, or what `Teacher.state` of a distillation that goes on is.
        low, high: limits of an action, each (actions,).
    """

    algorithm = Imitation

    def __init__(
        self,
        observations: int,
        low: Tensor,
        high: Tensor,
        config: TrainConfig,
        group: Group = SOLO,
        *,
        choices: int = 0,
        teacher: dict[str, Any],
    ) -> None:
        super().__init__(observations, len(low), config, group, choices=choices)
        self.teacher = Teacher(teacher, len(low), choices, self.device)
        self.agent.teacher, self.agent.group = self.teacher, group
        limits = tuple(side.to(self.device, torch.float32) for side in (low, high))
        self.agent.limits = None if choices else limits
        self.memory.create_tensor("labels", size=choices or len(low), dtype=torch.float32)

    def absorb_observations(self) -> None:
        """Nothing: the statistics are the teacher's."""

    def take_over(self, content: dict[str, Any]) -> None:
        """Take the teacher's critic, statistics and noise, from the checkpoint of its training."""
        learnt = content["learner"]
        super().load_state_dict({name: learnt[name] for name in ("value", "observation_preprocessor")})
        if self.config.noise == "learnt" and "log_std" in learnt["policy"]:
            self.actor.log_std.data.copy_(learnt["policy"]["log_std"])

    def state_dict(self) -> dict[str, Any]:
        """As a learner's, and the teacher: a distillation that goes on does not need the teacher's folder."""
        return {**super().state_dict(), "teacher": self.teacher.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave, or a part of it."""
        super().load_state_dict({name: values for name, values in state.items() if name != "teacher"})
