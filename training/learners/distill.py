"""Distillation: a student learns to act as a trained policy does, in the states that they come to.

The teacher acts first, if it is to, then the student, with noise; the teacher says what it would have done in each of
those states, all of which are kept, as the newest alone make a student forget how it got there; the student's network
moves towards that. It is DAgger (Ross, Gordon and Bagnell 2011, arXiv 1011.0686) in the loop of a training: rollouts,
checkpoints, validation and export are those of `nervecord.training.run`, and in the place of PPO's loss stands the
distance between two actions.

The student takes the observation and reward statistics, the critic and the size of the noise of a teacher that has
them, and leaves them as they are. So a training with PPO can begin with it (`nervecord.training.start`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nervecord.compiler.onnx.file import is_onnx
from nervecord.errors import NervecordError
from nervecord.training import run_folder
from nervecord.training.config import TD7, Distill, SkrlAlgorithm, TrainConfig
from nervecord.training.distributed import SOLO, Group
from nervecord.training.learners.base import Rollout
from nervecord.training.learners.network_teacher import PART, NetworkTeacher, read_network_teacher
from nervecord.training.learners.off_policy import td7_settings
from nervecord.training.learners.on_policy import OnPolicyLearner
from nervecord.training.learners.replay import WeightedRows
from nervecord.training.learners.td7 import TD7 as TD7Agent
from nervecord.training.learners.td7_networks import TD7Policy, pack_policy, unpack_policy
from nervecord.training.policy.actor import Act, GaussianActor, first_largest, make_actor
from nervecord.training.policy.normaliser import ObservationNormaliser
from nervecord.training.start import read_best, require_equal, statistics


def read_teacher(config: TrainConfig) -> dict[str, Any]:
    """The checkpoint of the teacher: its best one where it is finished, else its newest.

    Args:
        config: of the student; its `algorithm.teacher` names the run folder, or an ONNX file.

    Raises:
        NervecordError: the folder holds no run or no checkpoint, or this student cannot learn from it.
    """
    assert isinstance(config.algorithm, Distill)
    folder = Path(config.algorithm.teacher)
    if is_onnx(folder):
        return read_network_teacher(folder, config)
    teacher = run_folder.open_existing(folder)
    where = str(folder)
    require_equal(teacher, config, where=where, network=False)
    if isinstance(teacher.algorithm, SkrlAlgorithm):
        raise NervecordError(
            f"was trained with {teacher.algorithm.name}, whose policies teach nothing yet",
            where=where,
            hint="take a teacher of ppo, td7 or distill",
        )
    if teacher.network.state != "reset":
        raise NervecordError(
            "carries state from action to action, so what it would do does not follow from an observation alone",
            where=where,
            hint="take a teacher with --state reset",
        )
    if config.network.mirror and not teacher.network.mirror:
        raise NervecordError(
            "was trained without --mirror, so its statistics are not those of a mirror image too",
            where=where,
            hint="drop --mirror",
        )
    return read_best(folder)


class Teacher(nn.Module):
    """A trained policy that is asked and does not learn.

    Args:
        content: checkpoint of its training, a network of another maker, or what `state` gave.
        low, high: limits of an action, (actions,).
        choices: number of actions to choose from, 0 where an action is values.
        device: where it is to answer.
    """

    def __init__(self, content: dict[str, Any], low: Tensor, high: Tensor, choices: int, device: torch.device) -> None:
        super().__init__()
        parts, config = content["learner"], TrainConfig.from_dict(content["config"])
        self.obs_rms: ObservationNormaliser | None = None
        self.network: NetworkTeacher | None = None
        if PART in parts:
            self.state = {"config": content["config"], "learner": {PART: parts[PART]}}
            self.network = NetworkTeacher(parts[PART]).to(device)
            return
        if isinstance(config.algorithm, TD7):
            learnt = td7_policy(config.algorithm, parts)
            self.state = {"config": content["config"], "learner": {"policy": pack_policy(learnt)}}
            self.low, self.high = low.to(device, torch.float32), high.to(device, torch.float32)
            self.policy = unpack_policy(self.state["learner"]["policy"]).to(device)
            return
        self.state = {
            "config": content["config"],
            "learner": {name: parts[name] for name in ("actor", "obs_rms")},
        }
        observations = len(parts["obs_rms"]["mean"])
        self.actor = make_actor(observations, len(low), choices, config).to(device)
        self.actor.load_state_dict(parts["actor"])
        self.obs_rms = ObservationNormaliser(observations, config.task.obs_clip, device)
        self.obs_rms.load_state_dict(parts["obs_rms"])

    @torch.no_grad()
    def forward(self, observations: Tensor) -> Tensor:
        """Action means, or preferences of choices, (B, outputs), for raw observations (B, observations)."""
        if self.network is not None:
            return self.network(observations)
        if self.obs_rms is None:
            return self.low + (self.policy(observations) + 1) / 2 * (self.high - self.low)
        return self.actor.net(self.obs_rms(observations))[0]


def td7_policy(settings: TD7, parts: dict[str, Any]) -> TD7Policy:
    """What acts of a checkpoint of TD7, or of what a teacher's `state` holds."""
    if "policy" in parts:
        return unpack_policy(parts["policy"])
    actor = (parts["td7"].get("compact") or parts["td7"]["modules"])["actor"]
    agent = TD7Agent(actor["first.weight"].shape[1], len(actor["rest.4.bias"]), td7_settings(settings))
    agent.load_state_dict(parts["td7"])
    return agent.policy()


def distance(outputs: Tensor, wanted: Tensor, limits: tuple[Tensor, Tensor] | None, margin: float = 0.0) -> Tensor:
    """How far actions are from those that are wanted, a mean over the batch.

    Args:
        outputs: action means, or preferences of choices, (B, outputs).
        wanted: the same of the teacher.
        limits: of an action's values, each (actions,): beyond one of them every mean is the same action. None for
            choices.
        margin: a wanted action nearer to a limit than this, in halves of the range, counts as the limit.

    Returns:
        The squared distance of values; the cross-entropy of choices.
    """
    if limits is None:
        return functional.cross_entropy(outputs, wanted.softmax(-1))
    low, high = limits
    near = margin * (high - low) / 2
    error = outputs - wanted.clamp(low, high)
    error = torch.where(wanted >= high - near, error.clamp(max=0), error)
    error = torch.where(wanted <= low + near, error.clamp(min=0), error)
    return error.square().sum(-1).mean()


class Student(OnPolicyLearner):
    """A learner that imitates.

    Args:
        observations: size of an observation.
        low, high: limits of an action, each (actions,).
        config, group, choices: as of `OnPolicyLearner`.
        teacher: checkpoint of the teacher's training, or what `Teacher.state` of a distillation that goes on is.
    """

    settings: Distill
    _guides = False

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
        self.teacher = Teacher(teacher, low, high, choices, self.device)
        if self.teacher.network is not None:
            self.teacher.network.require_sizes(observations, choices or len(low))
        self.limits = None if choices else (low.to(self.device, torch.float32), high.to(self.device, torch.float32))
        settings = self.settings
        self.kept: WeightedRows | None = None
        if settings.capacity:
            sizes = (observations, choices or len(low), self.state_size)
            self.kept = WeightedRows(sizes, settings.capacity, config.run.seed + group.rank)
        self.seen = 0
        self.guided = torch.zeros(group.share(settings.num_envs), dtype=torch.bool, device=self.device)
        """Where the teacher acts; drawn anew before each rollout."""

    def schedule(self, step: int, total: int) -> None:
        """Set learning rate and noise, and draw where the teacher acts."""
        super().schedule(step, total)
        settings, late = self.settings, step - self.settings.teacher_steps
        share = 1.0 if late < 0 else 1 - late / settings.handover_steps if late < settings.handover_steps else 0.0
        if share > 0:
            self.guided = torch.rand(self.guided.shape, device=self.device) < share
        else:
            self.guided = torch.zeros_like(self.guided)
        self._guides = share > 0

    def act(self, observations: Tensor, state: Tensor | None) -> Act:
        """Act with chance; where the teacher acts, about what it wants."""
        own = super().act(observations, state)
        if not self._guides:
            return own
        if self.limits is None:
            wanted = first_largest(self.teacher(observations)).float()
        else:
            assert isinstance(self.actor, GaussianActor)
            wanted = self.teacher(observations).clamp(*self.limits)
            wanted = wanted + self.actor.spread().exp() * torch.randn_like(wanted)
        return Act(torch.where(self.guided[:, None], wanted, own.actions), own.outputs, own.state)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Move the policy towards the teacher, in as many steps as passes over the rollout have; the critic stays."""
        parameters = [p for p in self.actor.net.parameters() if p.requires_grad]
        measured = []
        for seen, wanted, states in self._batches(rollout):
            outputs, _ = self.actor.net(self.obs_rms(seen), states)
            loss = distance(outputs, wanted, self.limits, self.settings.margin)
            norm = self.descend(loss, parameters, len(seen))
            measured.append(torch.stack([loss.detach(), norm]))
        found = dict(zip(("policy_loss", "gradient_norm"), torch.stack(measured).mean(0), strict=True))
        found |= self.measure(rollout)
        losses = dict(zip(found, torch.stack([value.float() for value in found.values()]).tolist(), strict=True))
        return losses | {"learning_rate": self.optimizer.param_groups[0]["lr"]}

    def _batches(self, rollout: Rollout) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Observations, what the teacher wants in them, and the states carried there."""
        if self.kept is None:
            seen = rollout.flat(rollout.observations)
            wanted, states = self.teacher(seen), None if rollout.states is None else rollout.flat(rollout.states)
            for part in self.minibatches(rollout):
                yield seen[part], wanted[part], None if states is None else states[part]
            return
        self._keep(self.kept, rollout)
        settings = self.settings
        for _ in range(settings.epochs * max(1, round(settings.batch / settings.minibatch))):
            rows = self.kept.draw(self.group.share(settings.minibatch))[0]
            seen, wanted, carried = (part.to(self.device) for part in rows)
            yield seen, wanted, carried if self.state_size else None

    def _keep(self, kept: WeightedRows, rollout: Rollout) -> None:
        valid, settings = rollout.valid, self.settings
        seen = rollout.observations[:-1][valid]
        states = seen.new_zeros(len(seen), 0) if rollout.states is None else rollout.states[valid]
        where = kept.append([part.cpu().numpy() for part in (seen, self.teacher(seen), states)], 1.0)
        self.seen += len(seen)
        if settings.fall_weight > 1:
            place = torch.full(valid.shape, -1, dtype=torch.int64)
            place[valid.cpu()] = torch.from_numpy(where)
            for t, env in (rollout.terminated & valid).nonzero().tolist():
                trail = place[max(0, t + 1 - settings.fall_steps) : t + 1, env].flip(0)
                ends = (trail < 0).nonzero()
                trail = trail[: int(ends[0])] if len(ends) else trail
                kept.tree.set(trail.numpy(), settings.fall_weight)

    def absorb(self, rollout: Rollout) -> None:
        """Nothing where the statistics are the teacher's."""
        if self.teacher.obs_rms is None:
            super().absorb(rollout)

    def prepare(self, collect: Callable[[], Rollout]) -> None:
        """Come to as many states again as had been kept."""
        if self.kept is None:
            return
        wanted, seen = min(self.seen, self.settings.capacity), self.seen
        self._guides = False
        while len(self.kept) < wanted:
            self._keep(self.kept, collect())
        self.seen = seen

    def take_over(self, content: dict[str, Any]) -> None:
        """Take the teacher's critic, statistics and noise, from the checkpoint of its training."""
        learnt = content["learner"]
        if self.teacher.obs_rms is None:
            return  # TD7 and networks of other makers have none of these
        super().load_state_dict({name: learnt[name] for name in ("critic", "obs_rms")})
        self.reward_rms.load_state_dict(statistics(learnt["reward_rms"]))
        if self.settings.noise == "learnt" and "log_std" in learnt["actor"]:
            assert isinstance(self.actor, GaussianActor)
            self.actor.log_std.data.copy_(learnt["actor"]["log_std"])

    def state_dict(self) -> dict[str, Any]:
        """As a learner's, and the teacher: a distillation that goes on does not need the teacher's folder."""
        return {**super().state_dict(), "teacher": self.teacher.state, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave, or a part of it."""
        self.seen = int(state.get("seen", 0))
        super().load_state_dict({name: values for name, values in state.items() if name not in ("teacher", "seen")})
