"""Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347).

Written out here: skrl's PPO (`nervecord.training.learners.skrl_ppo`), to which a test holds it, has no mask of valid
steps, takes no carried state, keeps advantages per process and reads its losses back at every minibatch.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from nervecord.training.algorithms.ppo import PPO
from nervecord.training.folder.start import LEARNT, statistics
from nervecord.training.learners.advantages import explained_variance
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.learners.on_policy import OnPolicyLearner
from nervecord.training.learners.teacher import divergence


class PPOLearner(OnPolicyLearner):
    """PPO with generalised advantage estimation, over the valid steps of a rollout; with a teacher also near to what it
    would do."""

    settings: PPO
    teacher_field = "reference"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        if "start" in setup.sources:
            learnt = setup.sources["start"]["learner"]
            self.load_state_dict({name: learnt[name] for name in LEARNT})
            self.reward_rms.load_state_dict(statistics(learnt["reward_rms"]))

    def update(self, rollout: Rollout) -> dict[str, float]:
        """`epochs` passes over the rollout. Returns means over all minibatches, and what `measure` gives."""
        settings = self.settings
        observations = self.obs_rms(rollout.observations)
        estimate = self.estimate(rollout, observations)
        count, mean, squares = self.group.moments(estimate.advantages.reshape(-1, 1), rollout.flat(rollout.valid))
        deviation = (squares / (count - 1)).sqrt()
        advantages = (estimate.advantages - mean.to(estimate.advantages)) / (deviation.to(estimate.advantages) + 1e-8)

        inputs, actions = rollout.flat(observations), rollout.flat(rollout.actions)
        with torch.no_grad():
            old_log_prob = self.actor.log_prob(rollout.flat(rollout.outputs), actions)
        advantages, returns = rollout.flat(advantages), rollout.flat(estimate.returns)
        reference = None if self.teacher is None else self.teacher(rollout.flat(rollout.observations))
        states = None if rollout.states is None else rollout.flat(rollout.states)
        parameters, metrics = self.parameters(), []
        for index in self.minibatches(rollout):
            batch = inputs[index]
            outputs, _ = self.actor.net(batch, None if states is None else states[index])
            log_ratio = self.actor.log_prob(outputs, actions[index]) - old_log_prob[index]
            ratio, advantage = log_ratio.exp(), advantages[index]
            clipped = ratio.clamp(1 - settings.clip, 1 + settings.clip)
            policy_loss = -torch.min(advantage * ratio, advantage * clipped).mean()
            value_loss = functional.mse_loss(self.critic(batch)[:, 0], returns[index])
            loss = policy_loss + settings.value_weight * value_loss
            entropy = self.actor.entropy(outputs)
            if settings.entropy:
                loss = loss - settings.entropy * entropy
            distance = loss.new_zeros(())
            if reference is not None:
                distance = divergence(self.actor, outputs, reference[index], self.limits)
                loss = loss + settings.reference_weight * distance
            norm = self.descend(loss, parameters, len(index))
            with torch.no_grad():
                # Schulman's estimate of the KL divergence, which is never negative.
                kl = (ratio - 1 - log_ratio).mean()
                clip_fraction = (ratio != clipped).float().mean()
            row = (policy_loss, value_loss, entropy, kl, clip_fraction, norm, distance)
            metrics.append(torch.stack([value.detach() for value in row]))
        names = ("policy_loss", "value_loss", "entropy", "kl", "clip_fraction", "gradient_norm", "reference_kl")
        means = dict(zip(names, torch.stack(metrics).mean(0), strict=True)) | self.measure(rollout)
        if reference is None:
            del means["reference_kl"]
        means["explained_variance"] = explained_variance(estimate.values, estimate.returns, rollout.valid)
        return self.read(means)
