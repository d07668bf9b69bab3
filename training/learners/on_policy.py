"""What learners of the newest rollout share: actor, critic, statistics, optimiser and minibatches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nervecord.training.algorithms.on_policy import OnPolicy
from nervecord.training.learners.advantages import Estimate, generalised_advantages
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.learners.teacher import Teacher, make_teacher
from nervecord.training.policy.actor import Act, make_actor
from nervecord.training.policy.mirror import mirror_of
from nervecord.training.policy.network import AnnPolicy, SpikingPolicy, critic_network
from nervecord.training.policy.normaliser import ObservationNormaliser, RewardNormaliser
from nervecord.training.processes.devices import check_device

WATCHED = 256
"""States of a rollout in which spikes are counted for the metrics."""


def firing(net: SpikingPolicy | AnnPolicy, obs_rms: ObservationNormaliser, rollout: Rollout) -> dict[str, Tensor]:
    """Firing rates and share of silent neurons of each layer of a spiking policy, in some states of a rollout; of
    others nothing."""
    metrics: dict[str, Tensor] = {}
    stride = max(1, rollout.valid.numel() // WATCHED)
    inputs = obs_rms(rollout.flat(rollout.observations)[::stride])
    state = None if rollout.states is None else rollout.flat(rollout.states)[::stride]
    for number, rates in enumerate(net.rates(inputs, state), 1):
        metrics[f"rate_{number}"] = rates.mean()
        metrics[f"silent_{number}"] = (rates == 0).float().mean()
    return metrics


class OnPolicyLearner:
    """An actor and a critic that learn from the newest rollout; a checkpoint keeps the teacher."""

    settings: OnPolicy
    restart_steps = 0
    teacher_field = "teacher"
    """The field that names its teacher, among `sources`."""
    teacher: Teacher | None
    """What it imitates, or stays near to."""

    def __init__(self, setup: Setup) -> None:
        observations, low, high, config, group = setup.observations, setup.low, setup.high, setup.config, setup.group
        assert isinstance(config.algorithm, OnPolicy)
        self.config, self.settings, self.group = config, config.algorithm, group
        settings = self.settings
        self.device = check_device(group.device(config.run.device))
        limits = (low.to(self.device, torch.float32), high.to(self.device, torch.float32))
        self.limits = None if setup.choices else limits
        """Of an action's values; None where an action is a choice."""
        self.actor = make_actor(observations, len(low), setup.choices, config).to(self.device)
        self.critic = critic_network(observations, config).to(self.device)
        # One call for all parameters; the loop over them costs more than the arithmetic.
        self.optimizer = torch.optim.Adam(self.parameters(), lr=settings.lr, fused=True)
        self.obs_rms = ObservationNormaliser(observations, config.task.obs_clip, self.device, group)
        self.reward_rms = RewardNormaliser(
            group.share(settings.num_envs), settings.gamma, settings.reward_clip, self.device, group
        )
        self.mirror = mirror_of(config.task.env) if config.network.mirror else None
        self.state_size = self.actor.net.state_size
        content = setup.content
        teacher = setup.sources.get(self.teacher_field) if content is None else content["learner"].get("teacher")
        sizes = (observations, low, high, setup.choices)
        network = None if teacher is None else make_teacher(teacher, *sizes, self.device)
        self.teacher = network
        for module in (self.actor, self.critic):
            group.broadcast(module)

    def parameters(self) -> list[nn.Parameter]:
        """Parameters of actor and critic."""
        return [p for p in (*self.actor.parameters(), *self.critic.parameters()) if p.requires_grad]

    def schedule(self, step: int, total: int) -> None:
        """Set learning rate and noise for the next rollout and its update."""
        settings, done = self.settings, step / total
        if settings.schedule == "linear":
            for group in self.optimizer.param_groups:
                group["lr"] = settings.lr * (1 - done)
        if settings.noise == "linear":
            first, last = settings.log_std, settings.log_std_final
            self.actor.set_log_std(first + done * (last - first))

    @torch.no_grad()
    def act(self, observations: Tensor, state: Tensor | None) -> Act:
        """Act with exploration noise in raw observations."""
        act: Act = self.actor(self.obs_rms(observations), state)
        return act

    @torch.no_grad()
    def mode(self, observations: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Actions without noise for raw observations, and the next state."""
        return self.actor.mode(self.obs_rms(observations), state)

    def absorb(self, rollout: Rollout) -> None:
        """Take the rollout's observations into the statistics."""
        observations, valid = rollout.flat(rollout.observations), rollout.flat(rollout.valid)
        if self.mirror is not None:
            observations = torch.cat([observations, self.mirror.observations(observations)])
            valid = valid.repeat(2)
        self.obs_rms.absorb(observations, valid)

    def restart_episodes(self) -> None:
        """Begin the returns of new episodes."""
        self.reward_rms.restart()

    def prepare(self, collect: Callable[[], Rollout]) -> None:
        """Nothing: the newest rollout is all it learns from."""

    def estimate(self, rollout: Rollout, observations: Tensor) -> Estimate:
        """Values, advantages and returns of a rollout, whose rewards go into their statistics.

        Args:
            rollout: the newest. observations: its observations, normalised, (T + 1, N, observations).
        """
        settings, rewards = self.settings, rollout.rewards.float()
        if settings.normalise_reward:
            rewards = self.reward_rms(rollout.rewards, rollout.done, rollout.valid)
        with torch.no_grad():
            values = self.critic(observations)[..., 0]
        advantages = generalised_advantages(
            rewards, values, rollout.terminated, rollout.truncated, settings.gamma, settings.lam
        )
        return Estimate(values[:-1], advantages, advantages + values[:-1])

    def minibatches(self, rollout: Rollout, epochs: int | None = None) -> Iterator[Tensor]:
        """Indices of the valid steps, `epochs` times (by default the setting) in random order, cut into near-equal
        minibatches."""
        settings = self.settings
        steps = rollout.flat(rollout.valid).nonzero()[:, 0]
        count = max(1, round(settings.batch / settings.minibatch))
        for _ in range(settings.epochs if epochs is None else epochs):
            order = steps[torch.randperm(len(steps), device=steps.device)]
            yield from order.tensor_split(count)

    def descend(self, loss: Tensor, parameters: list[nn.Parameter], rows: int) -> Tensor:
        """One step down the gradient of a loss, a mean over `rows`; the gradient's norm, before it is limited."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.group.several:
            self.group.mean_gradients(parameters, rows)
        limit = self.settings.grad_norm or float("inf")
        norm = nn.utils.clip_grad_norm_(parameters, limit)
        self.optimizer.step()
        return norm

    def read(self, metrics: dict[str, Tensor]) -> dict[str, float]:
        """Numbers for the metrics, taken from the device at once, and the learning rate."""
        values = torch.stack([value.float() for value in metrics.values()]).tolist()
        return dict(zip(metrics, values, strict=True)) | {"learning_rate": self.optimizer.param_groups[0]["lr"]}

    def measure(self, rollout: Rollout) -> dict[str, Tensor]:
        """What says how the policy is doing: noise, learning rate, firing rates and silent neurons of each layer."""
        return self.actor.exploration() | firing(self.actor.net, self.obs_rms, rollout)

    def state_dict(self) -> dict[str, Any]:
        """Networks, statistics, optimiser; and the teacher: a training that continues does not need the teacher's
        folder."""
        state: dict[str, Any] = {name: part.state_dict() for name, part in self._parts().items()}
        return state if self.teacher is None else {**state, "teacher": self.teacher.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave, or a part of it; the teacher is there from the beginning."""
        parts = self._parts()
        for name, values in state.items():
            if name != "teacher":
                parts[name].load_state_dict(values)

    def _parts(self) -> dict[str, Any]:
        return {
            "actor": self.actor,
            "critic": self.critic,
            "obs_rms": self.obs_rms,
            "reward_rms": self.reward_rms,
            "optimizer": self.optimizer,
        }
