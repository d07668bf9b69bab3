"""skrl's SAC and TD3 as learners: its agents, with transitions and time steps handed to them as they want them.

The networks are plain, of raw observations; actions lie between -1 and 1. The memory is in no checkpoint: a resumed run
fills it again by acting.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from nervecord.training.algorithms.skrl import SkrlAlgorithm
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.policy.actor import Act
from nervecord.training.policy.limits import ActionLimits
from nervecord.training.processes.devices import check_device
from nervecord.training.processes.quiet_skrl import import_skrl

import_skrl()

from gymnasium.spaces import Box  # noqa: E402
from skrl.agents.torch.sac import SAC, SAC_CFG  # type: ignore[import-untyped]  # noqa: E402
from skrl.agents.torch.td3 import TD3, TD3_CFG  # type: ignore[import-untyped]  # noqa: E402
from skrl.memories.torch import RandomMemory  # type: ignore[import-untyped]  # noqa: E402
from skrl.models.torch import DeterministicMixin, GaussianMixin, Model  # type: ignore[import-untyped]  # noqa: E402
from skrl.resources.noises.torch import GaussianNoise  # type: ignore[import-untyped]  # noqa: E402

REFILL = 400_000
"""Transitions that a resumed run fills the memory with, at most."""
NEVER = 2**62
"""An interval that no training comes to."""
LOG_STD = (-5.0, 2.0)
"""Limits of SAC's log standard deviation."""


def _network(inputs: int, outputs: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )


class _Stochastic(GaussianMixin, Model):  # type: ignore[misc]
    """SAC's policy."""

    def __init__(self, spaces: dict[str, Any], hidden: int) -> None:
        Model.__init__(self, **spaces)
        GaussianMixin.__init__(
            self, clip_actions=True, clip_log_std=True, min_log_std=LOG_STD[0], max_log_std=LOG_STD[1]
        )
        self.net = _network(self.num_observations, 2 * self.num_actions, hidden)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """Means between -1 and 1, and log standard deviations."""
        mean, log_std = self.net(inputs["observations"]).chunk(2, -1)
        return torch.tanh(mean), {"log_std": log_std.clamp(*LOG_STD)}


class _Certain(DeterministicMixin, Model):  # type: ignore[misc]
    """TD3's policy."""

    def __init__(self, spaces: dict[str, Any], hidden: int) -> None:
        Model.__init__(self, **spaces)
        DeterministicMixin.__init__(self, clip_actions=True)
        self.net = _network(self.num_observations, self.num_actions, hidden)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """Actions between -1 and 1."""
        return torch.tanh(self.net(inputs["observations"])), {}


class _Critic(DeterministicMixin, Model):  # type: ignore[misc]
    """A value of observation and action."""

    def __init__(self, spaces: dict[str, Any], hidden: int) -> None:
        Model.__init__(self, **spaces)
        DeterministicMixin.__init__(self)
        self.net = _network(self.num_observations + self.num_actions, 1, hidden)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """Values (B, 1)."""
        return self.net(torch.cat([inputs["observations"], inputs["taken_actions"]], -1)), {}


class SkrlLearner:
    """One of skrl's off-policy agents, in one process; actions are values, and it starts from nothing."""

    state_size = 0
    restart_steps = 0

    def __init__(self, setup: Setup) -> None:
        config, low, high = setup.config, setup.low, setup.high
        assert isinstance(config.algorithm, SkrlAlgorithm)  # for mypy: the declaration names this learner
        settings = self.settings = config.algorithm
        self.device = check_device(config.run.device)
        self.limits = ActionLimits(low.to(self.device, torch.float32), high.to(self.device, torch.float32))
        spaces: dict[str, Any] = {
            "observation_space": Box(-float("inf"), float("inf"), (setup.observations,)),
            "action_space": Box(-1.0, 1.0, (len(low),)),
            "device": self.device,
        }
        models = self._policies(spaces)
        for name in ("critic_1", "critic_2", "target_critic_1", "target_critic_2"):
            models[name] = _Critic(spaces, settings.hidden)
        # A row for each transition: those that are not valid are not stored.
        self.memory = RandomMemory(memory_size=settings.capacity, num_envs=1, device=self.device)
        self.agent = self._agent(models=models, memory=self.memory, **spaces)
        self.agent.init()
        self.agent.enable_training_mode(True)
        self._begin()
        self.step, self.total = 0, 1
        """Steps of the environments together, so far and in all: skrl's time."""
        self.stored, self.backlog = 0, 0.0
        """Transitions so far, and those that count towards the next update."""

    def _policies(self, spaces: dict[str, Any]) -> dict[str, Any]:
        """The agent's models but for the critics."""
        raise NotImplementedError

    def _agent(self, **parts: Any) -> Any:
        """The agent of models, memory and spaces."""
        raise NotImplementedError

    def _begin(self) -> None:
        """What the agent needs before its first step."""

    def schedule(self, step: int, total: int) -> None:
        """Tell the time."""
        self.step, self.total = step // self.settings.num_envs, total // self.settings.num_envs

    @torch.no_grad()
    def act(self, observations: Tensor, state: Tensor | None) -> Act:
        """Noisy actions; uniform ones in the first steps."""
        actions, _ = self.agent.act(observations, None, timestep=self.step, timesteps=self.total)
        return Act(self.limits.scaled(actions.clamp(-1, 1)), actions, state)

    @torch.no_grad()
    def mode(self, observations: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Actions without noise."""
        actions, _ = self.agent.policy.compute({"observations": observations}, role="policy")
        return self.limits.scaled(actions), state

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Hand the rollout's valid steps to the agent, which updates after each step of the environments."""
        for t in range(len(rollout.valid)):
            count, timestep = self._record(rollout, t), self.step + t
            self.stored += count
            if timestep >= self.agent.cfg.learning_starts:
                updates, self.backlog = divmod(self.backlog + count, self.settings.steps_per_update)
                self.agent.cfg.gradient_steps = int(updates)
            self.agent.post_interaction(timestep=timestep, timesteps=self.total)
        names = {"Loss / Policy loss": "policy_loss", "Loss / Critic loss": "value_loss"}
        tracked = self.agent.tracking_data
        metrics = {short: float(tracked[tag][-1]) for tag, short in names.items() if tracked.get(tag)}
        tracked.clear()
        return metrics

    def _record(self, rollout: Rollout, t: int) -> int:
        """Store the valid transitions of a step, one at a time, as skrl's memory keeps rows of one environment."""
        actions, rows = self.limits.unit(rollout.actions[t]), rollout.valid[t].nonzero()[:, 0].tolist()
        for k in rows:
            row = slice(k, k + 1)
            self.agent.record_transition(
                observations=rollout.observations[t, row],
                states=None,
                actions=actions[row],
                rewards=rollout.rewards[t, row, None].float(),
                next_observations=rollout.observations[t + 1, row],
                next_states=None,
                terminated=rollout.terminated[t, row, None],
                truncated=rollout.truncated[t, row, None],
                infos={},
                timestep=self.step + t,
                timesteps=self.total,
            )
        return len(rows)

    def absorb(self, rollout: Rollout) -> None:
        """Nothing: observations are seen as they are."""

    def restart_episodes(self) -> None:
        """Nothing: transitions stand alone."""

    def prepare(self, collect: Callable[[], Rollout]) -> None:
        """Fill the memory of a resumed run again."""
        target, count = min(self.stored, self.settings.capacity, REFILL), 0
        while count < target:
            rollout = collect()
            count += sum(self._record(rollout, t) for t in range(len(rollout.valid)))

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimisers and entropy of the agent."""
        parts = {name: part.state_dict() for name, part in self._parts().items()}
        return {"agent": parts, "stored": self.stored, "backlog": self.backlog, "entropy": None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        for name, part in self._parts().items():
            part.load_state_dict(state["agent"][name])
        self.stored, self.backlog = state["stored"], state["backlog"]

    def _parts(self) -> dict[str, Any]:
        return {n: part for n, part in self.agent.checkpoint_modules.items() if hasattr(part, "load_state_dict")}


class SACLearner(SkrlLearner):
    """skrl's soft actor-critic."""

    def _policies(self, spaces: dict[str, Any]) -> dict[str, Any]:
        return {"policy": _Stochastic(spaces, self.settings.hidden)}

    def _agent(self, **parts: Any) -> Any:
        return SAC(cfg=SAC_CFG(**_shared(self.settings)), **parts)

    def _begin(self) -> None:
        # skrl's SAC reports its losses only to a writer. An interval in its configuration would open an event file
        # beside the run folder's; this one is set once, here, and no time step comes to it.
        self.agent.write_interval = NEVER

    def state_dict(self) -> dict[str, Any]:
        """As of `SkrlLearner`, and the entropy's weight."""
        return {**super().state_dict(), "entropy": self.agent.log_entropy_coefficient.detach().cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        super().load_state_dict(state)
        with torch.no_grad():
            self.agent.log_entropy_coefficient.copy_(state["entropy"])
        # Its exponential, which skrl renews only after the next update.
        self.agent._entropy_coefficient = self.agent.log_entropy_coefficient.detach().exp()


class TD3Learner(SkrlLearner):
    """skrl's TD3."""

    def _policies(self, spaces: dict[str, Any]) -> dict[str, Any]:
        return {name: _Certain(spaces, self.settings.hidden) for name in ("policy", "target_policy")}

    def _agent(self, **parts: Any) -> Any:
        noise = {"mean": 0.0, "device": self.device}
        cfg = TD3_CFG(
            **_shared(self.settings),
            exploration_noise=GaussianNoise,
            exploration_noise_kwargs={**noise, "std": 0.1},
            smooth_regularization_noise=GaussianNoise,
            smooth_regularization_noise_kwargs={**noise, "std": 0.2},
            smooth_regularization_clip=0.5,
        )
        return TD3(cfg=cfg, **parts)


def _shared(settings: SkrlAlgorithm) -> dict[str, Any]:
    """What both agents' configurations have."""
    return {
        "batch_size": settings.minibatch,
        "discount_factor": settings.gamma,
        "learning_rate": settings.lr,
        "random_timesteps": settings.random_steps // settings.num_envs,
        "learning_starts": settings.random_steps // settings.num_envs,
        # No experiment: skrl writes neither checkpoints nor events, the run folder is ours.
        "experiment": {"write_interval": 0, "checkpoint_interval": 0},
    }
