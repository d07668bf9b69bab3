"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347).

Written out here and not taken from skrl, whose PPO has no mask of valid steps, moves its statistics during the first
epoch, keeps advantages per process and reads its losses back at every minibatch: what had to be put in their place was
longer than this file.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nervecord.training import config as configuration
from nervecord.training.learners.base import Rollout
from nervecord.training.learners.on_policy import OnPolicyLearner


class PPOLearner(OnPolicyLearner):
    """PPO with generalised advantage estimation, over the valid steps of a rollout."""

    settings: configuration.PPO

    def update(self, rollout: Rollout) -> dict[str, float]:
        """`epochs` passes over the rollout. Returns means over all minibatches, and what `measure` gives."""
        settings = self.settings
        observations = self.obs_rms(rollout.observations)
        rewards = rollout.rewards.float()
        if settings.normalise_reward:
            rewards = self.reward_rms(rollout.rewards, rollout.done, rollout.valid)
        with torch.no_grad():
            values = self.critic(observations)[..., 0]
        advantages = generalised_advantages(
            rewards, values, rollout.terminated, rollout.truncated, settings.gamma, settings.lam
        )
        returns = advantages + values[:-1]
        count, mean, squares = self.group.moments(advantages.reshape(-1, 1), rollout.flat(rollout.valid))
        deviation = (squares / (count - 1)).sqrt()
        advantages = (advantages - mean.float()) / (deviation.float() + 1e-8)

        x, taken = rollout.flat(observations), rollout.flat(rollout.actions)
        with torch.no_grad():
            before = self.actor.log_prob(rollout.flat(rollout.outputs), taken)
        advantage, wanted = rollout.flat(advantages), rollout.flat(returns)
        states = None if rollout.states is None else rollout.flat(rollout.states)
        parameters, measured = self.parameters(), []
        for part in self.minibatches(rollout):
            seen = x[part]
            outputs, _ = self.actor.net(seen, None if states is None else states[part])
            shift = self.actor.log_prob(outputs, taken[part]) - before[part]
            ratio, gain = shift.exp(), advantage[part]
            clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
            policy_loss = -torch.min(gain * ratio, gain * clipped).mean()
            value_loss = functional.mse_loss(self.critic(seen)[:, 0], wanted[part])
            loss = policy_loss + settings.value_weight * value_loss
            entropy = self.actor.entropy(outputs)
            if settings.entropy:
                loss = loss - settings.entropy * entropy
            norm = self.descend(loss, parameters, len(part))
            with torch.no_grad():
                # Schulman's estimate of the KL divergence, which is never negative.
                kl = (ratio - 1 - shift).mean()
                clips = (ratio != clipped).float().mean()
            measured.append(torch.stack([policy_loss.detach(), value_loss.detach(), entropy.detach(), kl, clips, norm]))
        names = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction", "gradient_norm")
        found = dict(zip(names, torch.stack(measured).mean(0), strict=True)) | self.measure(rollout)
        found["explained_variance"] = explained_variance(values[:-1], returns, rollout.valid)
        losses = dict(zip(found, torch.stack([value.float() for value in found.values()]).tolist(), strict=True))
        return losses | {"learning_rate": self.optimizer.param_groups[0]["lr"]}


def generalised_advantages(
    rewards: Tensor, values: Tensor, terminated: Tensor, truncated: Tensor, gamma: float, lam: float
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438).

    A step's value is bootstrapped from the observation it led to, but where the task ended in it, time limit or not.
    No advantage runs through an end; so what a step that only resets holds reaches no valid step.

    Args:
        rewards, terminated, truncated: (T, N).
        values: of the observations, (T + 1, N).
        gamma, lam: discount and lambda.

    Returns:
        (T, N).
    """
    advantages = torch.empty_like(rewards)
    deltas = rewards + gamma * values[1:].masked_fill(terminated, 0.0) - values[:-1]
    kept = gamma * lam * (~(terminated | truncated)).to(rewards)
    running = torch.zeros_like(rewards[0])
    for t in reversed(range(len(rewards))):
        running = deltas[t] + kept[t] * running
        advantages[t] = running
    return advantages


def explained_variance(values: Tensor, returns: Tensor, valid: Tensor) -> Tensor:
    """Share of the returns' variance that the values (T, N) explain, over the valid steps; a scalar, 1 at best."""
    weight = valid.to(values)
    count = weight.sum()

    def variance(x: Tensor) -> Tensor:
        mean = (x * weight).sum() / count
        return ((x - mean).square() * weight).sum() / count

    return 1 - variance(returns - values) / variance(returns).clamp(min=1e-12)
