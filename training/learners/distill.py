"""Distillation: a student learns to act as a trained policy does, in the states that the student visits.

It is DAgger (Ross, Gordon and Bagnell 2011, arXiv 1011.0686): the student acts, with noise; the teacher labels every
visited state; all states are kept, as a student that learns from the newest alone forgets how it got there; and the
student is trained on all of them. Rollouts, checkpoints, validation and export are those of `nervecord.training.run`;
the distance between two actions takes the place of PPO's loss.

The student takes over the statistics, the critic and the noise of a teacher that has them, and leaves them as they are;
else they are its own. So PPO can start from it (`nervecord.training.folder.start`), and stay near the teacher
(`nervecord.training.learners.ppo`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nervecord.training.algorithms.distill import Distill
from nervecord.training.folder.start import statistics
from nervecord.training.learners.advantages import explained_variance
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.learners.on_policy import OnPolicyLearner
from nervecord.training.learners.replay import WeightedRows
from nervecord.training.learners.teacher import Teacher, action_error
from nervecord.training.policy.actor import Act, first_largest
from nervecord.training.policy.limits import ActionLimits
from nervecord.training.policy.mirror import mirror_of


def distance(
    outputs: Tensor,
    labels: Tensor,
    limits: tuple[Tensor, Tensor] | None,
    margin: float = 0.0,
    unit: Tensor | float = 1.0,
) -> Tensor:
    """How far actions are from the teacher's, a mean over the batch.

    Args:
        outputs: action means, or preferences of choices, (B, outputs).
        labels: the teacher's.
        limits, margin: as of `action_error`; no limits for choices.
        unit: of each action, (actions,), in which the distance is taken.

    Returns:
        The squared distance of values; the cross-entropy of choices.
    """
    if limits is None:
        return functional.cross_entropy(outputs, labels.softmax(-1))
    return (action_error(outputs, labels, limits, margin) / unit).square().sum(-1).mean()


class Student(OnPolicyLearner):
    """A learner that imitates.

    The critic is the teacher's where that has one; where not, it is fitted to what the rollouts return.
    """

    settings: Distill
    teacher: Teacher
    _guides = False

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        config, group = setup.config, setup.group
        settings = self.settings
        # Beside a critic's values distances are in halves of the range, as in fine-tuning: a weight is then worth as
        # much whatever the limits are.
        self.unit: Tensor | float = 1.0
        if settings.critic_weight and self.limits is not None:
            self.unit = ActionLimits(*self.limits).half_range
        self.image = mirror_of(config.task.env) if settings.mirror_states else None
        self.states: WeightedRows | None = None
        if settings.kept_states:
            sizes = (setup.observations, setup.choices or len(setup.low), self.state_size)
            self.states = WeightedRows(sizes, settings.kept_states, config.run.seed + group.rank)
        self.seen = 0
        self.ages = torch.zeros(group.share(settings.num_envs), dtype=torch.int64)
        """Steps that the episode of each environment has lasted, since this process began."""
        self.numbered = 0
        """States that this process has kept: each has a number, and its row is that modulo the capacity."""
        self.before = torch.zeros((0, len(self.ages)), dtype=torch.int64)
        """Numbers of each environment's last states, (at most fall_steps - 1, N); -1 where a step only reset it."""
        self.guided = torch.zeros(group.share(settings.num_envs), dtype=torch.bool, device=self.device)
        """Where the teacher acts; drawn anew before each rollout."""
        if setup.content is None and setup.sources:
            self.take_over(setup.sources["teacher"])

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
        """Act with exploration noise; where the teacher acts, about its action."""
        own = super().act(observations, state)
        if not self._guides:
            return own
        if self.limits is None:
            labels = first_largest(self.teacher(observations)).float()
        else:
            labels = self.actor.draw(self.teacher(observations).clamp(*self.limits))
        return Act(torch.where(self.guided[:, None], labels, own.actions), own.outputs, own.state)

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Move the policy towards the teacher, in as many steps as passes over the rollout have; fit the critic."""
        parameters = [p for p in self.actor.net.parameters() if p.requires_grad]
        metrics = []
        for inputs, labels, states in self._batches(rollout):
            outputs, _ = self.actor.net(self.obs_rms(inputs), states)
            loss = policy_loss = distance(outputs, labels, self.limits, self.settings.margin, self.unit)
            if self.settings.critic_weight:
                # Of mirror images the critic, which is not symmetric, knows nothing.
                real = len(inputs) if self.image is None else len(inputs) // 2
                loss = loss - self.settings.critic_weight * self._judged(inputs[:real], outputs[:real])
            norm = self.descend(loss, parameters, len(inputs))
            metrics.append(torch.stack([policy_loss.detach(), norm]))
        means = dict(zip(("policy_loss", "gradient_norm"), torch.stack(metrics).mean(0), strict=True))
        if not self.teacher.gives_statistics and self.settings.value_epochs:
            means |= self._fit_critic(rollout)
        return self.read(means | self.measure(rollout))

    def _judged(self, observations: Tensor, outputs: Tensor) -> Tensor:
        """Mean value of the student's actions to the teacher's critic, divided by its mean absolute value, which makes
        weights mean the same in all tasks (Fujimoto and Gu 2021, arXiv 2106.06860)."""
        assert self.limits is not None
        values = self.teacher.value(observations, outputs.clamp(*self.limits))
        sizes = values.detach().abs()[:, None]
        size = self.group.moments(sizes, torch.ones_like(sizes[:, 0], dtype=torch.bool))[1][0]
        return values.mean() / size.clamp(min=1e-8).to(values)

    def _fit_critic(self, rollout: Rollout) -> dict[str, Tensor]:
        observations = self.obs_rms(rollout.observations)
        estimate = self.estimate(rollout, observations)
        inputs, returns = rollout.flat(observations), rollout.flat(estimate.returns)
        parameters, losses = list(self.critic.parameters()), []
        for part in self.minibatches(rollout, self.settings.value_epochs):
            loss = functional.mse_loss(self.critic(inputs[part])[:, 0], returns[part])
            self.descend(loss, parameters, len(part))
            losses.append(loss.detach())
        explained = explained_variance(estimate.values, estimate.returns, rollout.valid)
        return {"value_loss": torch.stack(losses).mean(), "explained_variance": explained}

    def _batches(self, rollout: Rollout) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Observations, the teacher's action in them, and the states carried there; with their mirror images where
        these are learnt too."""
        for inputs, labels, states in self._drawn(rollout):
            if self.image is None:
                yield inputs, labels, states
            else:
                images = self.image.observations(inputs), self.image.actions(labels)
                yield torch.cat([inputs, images[0]]), torch.cat([labels, images[1]]), None

    def _drawn(self, rollout: Rollout) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        if self.states is None:
            inputs = rollout.flat(rollout.observations)
            labels, states = self.teacher(inputs), None if rollout.states is None else rollout.flat(rollout.states)
            for part in self.minibatches(rollout):
                yield inputs[part], labels[part], None if states is None else states[part]
            return
        self._keep(self.states, rollout)
        settings = self.settings
        for _ in range(settings.epochs * max(1, round(settings.batch / settings.minibatch))):
            rows = self.states.draw(self.group.share(settings.minibatch))[0]
            inputs, labels, carried = (part.to(self.device) for part in rows)
            yield inputs, labels, carried if self.state_size else None

    def _keep(self, store: WeightedRows, rollout: Rollout) -> None:
        valid = rollout.valid
        inputs = rollout.observations[:-1][valid]
        states = inputs.new_zeros(len(inputs), 0) if rollout.states is None else rollout.states[valid]
        ages = self._ages(rollout)
        weights = torch.where(ages < self.settings.initial_steps, self.settings.initial_weight, 1.0)[valid.cpu()]
        store.append([part.cpu().numpy() for part in (inputs, self.teacher(inputs), states)], weights.numpy())
        self.seen += len(inputs)
        if self.settings.fall_weight > 1:
            self._weight_falls(store, rollout, ages)

    def _weight_falls(self, store: WeightedRows, rollout: Rollout, ages: Tensor) -> None:
        """Draw the states before each failure of a rollout more often, those of the rollouts before it too."""
        valid, reach = rollout.valid.cpu(), self.settings.fall_steps
        numbers = torch.full(valid.shape, -1)
        numbers[valid] = torch.arange(self.numbered, self.numbered + int(valid.sum()))
        self.numbered += int(valid.sum())
        numbers = torch.cat([self.before, numbers])
        first, falls = len(self.before), []
        for t, env in (rollout.terminated.cpu() & valid).nonzero().tolist():
            steps = min(reach, int(ages[t, env]) + 1)  # none of the episode before
            falls.append(numbers[max(0, first + t + 1 - steps) : first + t + 1, env])
        self.before = numbers[max(0, len(numbers) - reach + 1) :]
        if falls:
            rows = np.unique(torch.cat(falls).numpy())
            there = rows[rows >= max(0, self.numbered - store.capacity)]
            store.raise_weights(there % store.capacity, self.settings.fall_weight)

    def restart_episodes(self) -> None:
        """Begin the returns of new episodes, and their ages."""
        super().restart_episodes()
        self.ages, self.before = torch.zeros_like(self.ages), self.before[:0]

    def _ages(self, rollout: Rollout) -> Tensor:
        """How many steps the episode had lasted before each step, (T, N)."""
        ages, valid, done = [], rollout.valid.cpu(), rollout.done.cpu()
        for t in range(len(valid)):
            ages.append(self.ages)
            self.ages = torch.where(done[t], 0, self.ages + valid[t])
        return torch.stack(ages)

    def absorb(self, rollout: Rollout) -> None:
        """Nothing where the statistics are the teacher's."""
        if not self.teacher.gives_statistics:
            super().absorb(rollout)

    def prepare(self, collect: Callable[[], Rollout]) -> None:
        """Collect as many states again as had been kept."""
        if self.states is None:
            return
        needed, count = min(self.seen, self.settings.kept_states), self.seen
        self._guides = False
        while len(self.states) < needed:
            self._keep(self.states, collect())
        self.seen = count
        # The running returns were those of other episodes.
        self.reward_rms.restart()

    def take_over(self, content: dict[str, Any]) -> None:
        """Take the teacher's critic, statistics and noise, from the checkpoint of its training."""
        learnt = content["learner"]
        if not self.teacher.gives_statistics:
            return  # TD7, networks of other makers and functions have none of these
        self.load_state_dict({name: learnt[name] for name in ("critic", "obs_rms")})
        self.reward_rms.load_state_dict(statistics(learnt["reward_rms"]))
        if self.settings.noise == "learnt" and "log_std" in learnt["actor"]:
            self.actor.set_log_std(learnt["actor"]["log_std"])

    def state_dict(self) -> dict[str, Any]:
        """As of `OnPolicyLearner`, and how many states were seen."""
        return {**super().state_dict(), "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave, or a part of it."""
        self.seen = int(state.get("seen", 0))
        super().load_state_dict({name: values for name, values in state.items() if name != "seen"})
