"""Imitation: a student learns to act as a teacher does, in every state that either of them has come to.

It is DAgger (Ross, Gordon and Bagnell 2011, arXiv 1011.0686): the teacher acts first, then more and more the student,
and the teacher says of all these states what it would have done there. All states are kept, as the newest alone make a
student forget how it got there. A teacher is any function from raw observations to actions.

Beside the distance to the teacher's action there can be the teacher's critic in the loss, so that the student's errors
lie where they cost least. A value function of the student can be fitted meanwhile (`ValueFit`), with which a training
with PPO goes on.

Nothing here knows a simulator: the caller steps the environments.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nervecord.training.learners.replay import WeightedRows
from nervecord.training.mirror import Mirror

Array = NDArray[Any]
Teacher = Callable[[Tensor], Tensor]
"""Raw observations (B, observations) to actions (B, actions)."""
Critic = Callable[[Tensor, Tensor], Tensor]
"""Raw observations (B, observations) and actions (B, actions) to values (B, 1)."""


@dataclass(frozen=True, slots=True)
class ImitationSettings:
    """Settings of an imitation."""

    batch: int = 512
    lr: float = 2e-3
    """Of Adam; it falls to 0 at the last update."""
    grad_norm: float = 1.0
    """Limit of the gradient's norm."""
    capacity: int = 2_000_000
    """States kept."""
    teacher_steps: int = 100_000
    """Environment steps in which the teacher alone acts."""
    handover_steps: int = 200_000
    """Environment steps in which its share then falls to 0."""
    noise: float = 0.05
    """Standard deviation of the noise of actions, whoever acts."""
    margin: float = 0.05
    """A wanted action this near to a limit is any action from there on: beyond the limit all are the same."""
    fall_steps: int = 40
    """Steps before a failure that are drawn more often."""
    fall_weight: float = 1.0
    """How much more often."""
    critic_weight: float = 0.0
    """Weight of the critic's part of the loss, whose values are divided by their mean size; 0 for none."""
    mirror: bool = False
    """Learn from each state's mirror image too, with the mirrored action."""


def distances(outputs: Tensor, wanted: Tensor, low: Tensor, high: Tensor, margin: float) -> Tensor:
    """Squared distance (B,) of actions from those wanted, which counts nothing beyond a limit that is wanted.

    Args:
        outputs: actions before they are limited, (B, actions).
        wanted: actions, (B, actions).
        low, high: limits, (actions,).
        margin: a wanted action nearer to a limit than this, of half the range, counts as the limit.
    """
    near = margin * (high - low) / 2
    error = outputs - wanted.clamp(low, high)
    error = torch.where(wanted >= high - near, error.clamp(max=0), error)
    error = torch.where(wanted <= low + near, error.clamp(min=0), error)
    return error.square().sum(-1)


def lambda_returns(
    rewards: Array, values: Array, terminated: Array, ended: Array, gamma: float, lam: float
) -> NDArray[np.float32]:
    """What the values of a rollout's states should be, (T, N).

    Args:
        rewards: (T, N).
        values: of the state after each step, (T, N).
        terminated: (T, N) bool, true where the state after a step has no value.
        ended: (T, N) bool, true where the next step begins another episode.
        gamma, lam: discount and lambda; 0 trusts the values, 1 the rewards.
    """
    returns = np.empty(rewards.shape, np.float32)
    following = values[-1]
    for t in reversed(range(len(rewards))):
        following = np.where(ended[t], values[t], (1 - lam) * values[t] + lam * following)
        following = rewards[t] + gamma * np.where(terminated[t], 0.0, following)
        returns[t] = following
    return returns


class Imitation:
    """A student, its teacher and the states they came to.

    Args:
        student: raw observations (B, observations) to actions before they are limited, (B, actions).
        teacher: what it learns from.
        observations: size of an observation.
        low, high: limits of an action, (actions,) float32.
        num_envs: environments that are stepped together.
        settings: see there.
        seed: of draws; the noise of actions comes from torch's global generator.
        critic: needed where `settings.critic_weight` is above 0.
        mirror: needed where `settings.mirror`.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        observations: int,
        low: Tensor,
        high: Tensor,
        num_envs: int,
        settings: ImitationSettings,
        *,
        seed: int,
        critic: Critic | None = None,
        mirror: Mirror | None = None,
    ) -> None:
        self.student, self.teacher, self.critic, self.mirror = student, teacher, critic, mirror
        self.low, self.high, self.settings = low, high, settings
        self.states = WeightedRows((observations, len(low)), settings.capacity, seed)
        self.generator = np.random.default_rng((seed, 1))
        self.optimizer = torch.optim.Adam(student.parameters(), lr=settings.lr, fused=True)
        self.steps = 0
        self.guided = np.ones(num_envs, bool)
        """Where the teacher acts; it is drawn anew with each episode and each `redraw`."""
        self.trails = np.full((settings.fall_steps, num_envs), -1, np.int64)
        """Where the newest states of each environment's episode are, oldest first; -1 before its first."""

    def teacher_share(self) -> float:
        """Part of the environments in which the teacher acts, now."""
        settings = self.settings
        late = self.steps - settings.teacher_steps
        if late < 0:
            return 1.0
        return max(0.0, 1.0 - late / settings.handover_steps) if settings.handover_steps else 0.0

    def redraw(self, where: Array) -> None:
        """Draw who acts in the environments where `where` (N,) is true."""
        self.guided[where] = self.generator.random(int(where.sum())) < self.teacher_share()

    @torch.no_grad()
    def act(self, observations: Tensor, real: Array) -> Tensor:
        """Noisy actions (N, actions) within the limits, for raw observations (N, observations).

        The states are stored with what the teacher would do, but for those where `real` (N,) is false: there the step
        only resets.
        """
        wanted = self.teacher(observations)
        actions = wanted
        if not self.guided.all():
            own = self.student(observations)
            actions = torch.where(torch.from_numpy(self.guided)[:, None], wanted, own)
        where = self.states.append((observations[real].numpy(), wanted[real].numpy()), 1.0)
        self.trails = np.roll(self.trails, -1, axis=0)
        self.trails[-1, real] = where
        self.steps += int(real.sum())
        noise = self.settings.noise * torch.randn_like(actions) * (self.high - self.low) / 2
        limited: Tensor = torch.clamp(torch.clamp(actions, self.low, self.high) + noise, self.low, self.high)
        return limited

    def end(self, terminated: Array, truncated: Array) -> None:
        """Say where episodes ended with the last step, (N,) bool each: states before a failure get their weight."""
        if self.settings.fall_weight != 1.0 and terminated.any():
            before = self.trails[:, terminated]
            self.states.tree.set(before[before >= 0], self.settings.fall_weight)
        ended = terminated | truncated
        self.trails[:, ended] = -1
        self.redraw(ended)

    def set_progress(self, done: float) -> None:
        """Set the learning rate; `done` is the part of the training that is over, 0 to 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.lr * (1 - done)

    def update(self) -> dict[str, float]:
        """One step on states drawn from all; returns the parts of the loss."""
        settings = self.settings
        (observations, wanted), _ = self.states.draw(settings.batch)
        if self.mirror is not None and settings.mirror:
            half = settings.batch // 2
            observations = torch.cat([observations[:half], self.mirror.observations(observations[half:])])
            wanted = torch.cat([wanted[:half], self.mirror.actions(wanted[half:])])
        outputs = self.student(observations)
        distance = distances(outputs, wanted, self.low, self.high, settings.margin).mean()
        loss, parts = distance, {"distance": float(distance.detach())}
        if self.critic is not None and settings.critic_weight:
            # The gradient of a limited action is that of the action before it, unless it leads further out.
            limited = outputs + (outputs.clamp(self.low, self.high) - outputs).detach()
            values = self.critic(observations, limited)
            loss = loss - settings.critic_weight * values.mean() / values.detach().abs().mean()
            parts["value"] = float(values.detach().mean())
        self.optimizer.zero_grad()
        loss.backward(inputs=[p for p in self.student.parameters() if p.requires_grad])  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.student.parameters(), settings.grad_norm)
        self.optimizer.step()
        return parts


class ValueFit:
    """Fits a value function to what the acting policy gets, rollout by rollout.

    Args:
        value: raw observations (B, observations) to values (B, 1).
        lr: of Adam.
        gamma, lam: discount, and lambda of the targets.
        batch: states of one step.
        epochs: passes over a rollout.
    """

    def __init__(
        self, value: nn.Module, *, lr: float = 1e-3, gamma: float = 0.99, lam: float = 0.95, batch: int = 512,
        epochs: int = 2,
    ) -> None:  # fmt: skip
        self.value, self.gamma, self.lam, self.batch, self.epochs = value, gamma, lam, batch, epochs
        self.optimizer = torch.optim.Adam(value.parameters(), lr=lr, fused=True)

    def absorb(
        self, observations: Array, following: Array, rewards: Array, terminated: Array, ended: Array, real: Array
    ) -> float:
        """Fit to a rollout of T steps of N environments; returns the mean squared error before.

        Args:
            observations, following: before and after each step, (T, N, observations).
            rewards, terminated, ended: as in `lambda_returns`.
            real: (T, N) bool, false where a step only reset an environment.
        """
        seen = torch.as_tensor(observations, dtype=torch.float32)
        with torch.no_grad():
            values = self.value(torch.as_tensor(following, dtype=torch.float32).flatten(0, 1))
        shaped = values.reshape(rewards.shape).numpy()
        targets = torch.from_numpy(lambda_returns(rewards, shaped, terminated, ended, self.gamma, self.lam))
        mask = torch.from_numpy(real)
        seen, targets = seen[mask], targets[mask]
        first = None
        for _ in range(self.epochs):
            order = torch.randperm(len(seen))
            total = 0.0
            for part in torch.split(order, self.batch):
                loss = (self.value(seen[part])[:, 0] - targets[part]).square().mean()
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                total += float(loss.detach()) * len(part)
            first = total / len(seen) if first is None else first
        return float(first or 0.0)
