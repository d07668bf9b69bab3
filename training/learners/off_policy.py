"""TD7 as a learner: its agent and its replay (`td7`, `replay`) behind the protocol.

The replay is in the checkpoints where `keep_replay` asks for it. Else a resumed run fills it again by acting, before it
continues: without updates, and not counted. A replay grown in training holds what all the policies of the training did,
and that keeps the critic from overrating what the policy of now would not do. So some of the past policies are in the
checkpoints, and the environments are shared out among them and the one of now; where there are none, the noise is
greater from environment to environment. The actor then is frozen until the critic knows what it sees now.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nervecord.errors import NervecordError
from nervecord.training.algorithms.td7 import TD7Settings, TD7Updates
from nervecord.training.fields import flag_name
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.learners.n_step import windows
from nervecord.training.learners.replay import Replay
from nervecord.training.learners.td7 import TD7Agent
from nervecord.training.learners.td7_networks import TD7Policy, pack, unpack
from nervecord.training.policy.actor import Act
from nervecord.training.policy.limits import ActionLimits
from nervecord.training.processes.devices import check_device
from nervecord.training.settings.config import TrainConfig

REFILL = 400_000
"""Transitions that a resumed run fills the replay with, at most."""

REFILL_NOISE = 5.0
"""How much more noise than in training the last environment is refilled with, in units of that noise, where there is no
past policy."""
PAST_EVERY = 10_000
"""Updates between two policies that are kept, at first."""
MOST_PAST = 12
"""Past policies kept; when there are more, every second one goes, and from then on they are kept half as often."""

DRAWN_BY = ("n_step", "priority_exponent")
"""Settings that a replay's rows and weights follow."""


def td7_agent(content: dict[str, Any], observations: int, actions: int) -> TD7Agent:
    """The agent of a checkpoint of TD7."""
    settings = TrainConfig.from_dict(content["config"]).algorithm
    assert isinstance(settings, TD7Settings)
    agent = TD7Agent(observations, actions, dataclasses.replace(settings, torch_compile=False))
    agent.load_state_dict(content["learner"]["td7"])
    return agent


def _compile(agent: TD7Agent) -> None:
    """Have torch compile the updates before anything is trained.

    Raises:
        NervecordError: it cannot here.
    """
    try:
        agent.compile()
    except Exception as error:  # torch's compiler has no common one
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise NervecordError(
            f"torch cannot compile here: {lines[0][:300]}",
            where="--torch-compile",
            hint="install a C++ compiler (g++), or train without it",
        ) from error


class TD7Learner:
    """TD7 in raw observations, in one process; actions are values between limits."""

    state_size = 0
    restart_steps = 0

    def __init__(self, setup: Setup) -> None:
        config, low, high = setup.config, setup.low, setup.high
        assert isinstance(config.algorithm, TD7Updates)
        self.device = check_device(config.run.device)
        self.settings = config.algorithm
        self.limits, self.actions = ActionLimits(low.float(), high.float()), len(low)
        self.agent = self._make_agent(setup.observations, config)
        if self.settings.torch_compile:
            _compile(self.agent)
        self.replay = self._new_replay(config.run.seed)
        self.rate = self.settings.lr
        self.stored, self.owed = 0, 0.0
        """Transitions so far, and updates that they still allow."""
        self.refilling, self.hold_until = False, 0
        """Whether the replay is being filled again, and the number of updates before which the actor is frozen."""
        self.past_policies: list[dict[str, Any]] = []
        """Packed policies of the training so far, each with its number of updates, in order."""
        self.actors: list[TD7Policy] = []

    def _make_agent(self, observations: int, config: TrainConfig) -> TD7Agent:
        assert isinstance(self.settings, TD7Settings)
        return TD7Agent(observations, self.actions, self.settings)

    def _new_replay(self, seed: int) -> Replay:
        return Replay(*self.agent.sizes, self.settings.capacity, seed, later=self.settings.n_step > 1)

    @property
    def first_steps(self) -> int:
        """Steps before the first update."""
        assert isinstance(self.settings, TD7Settings)
        return self.settings.random_steps

    def schedule(self, step: int, total: int) -> None:
        """Set the learning rate, which falls in the last part of the training, where that has a cooldown."""
        settings, remaining = self.settings, 1 - step / total
        self.rate = settings.lr * (remaining / settings.cooldown if remaining < settings.cooldown else 1.0)
        self.agent.set_rate(self.rate)

    def act(self, observations: Tensor, state: Tensor | None) -> Act:
        """Noisy actions; others until there have been `first_steps`."""
        if self.stored < self.first_steps:
            actions = self._first(observations)
        else:
            actions = self._refilling(observations) if self.refilling else self._noisy(observations)
        return Act(self.limits.scaled(actions), actions, state)

    def _first(self, observations: Tensor) -> Tensor:
        return torch.rand(len(observations), self.actions) * 2 - 1

    def _noisy(self, observations: Tensor) -> Tensor:
        return self.agent.act(observations, self.settings.exploration)

    def _refilling(self, observations: Tensor) -> Tensor:
        """What the past policies do, and the one of now, each in a share of the environments."""
        if not self.past_policies:
            widest = 1 + REFILL_NOISE * torch.linspace(0, 1, len(observations))[:, None]
            return self.agent.act(observations, self.settings.exploration * widest)
        actions = self._noisy(observations)
        turn = torch.arange(len(observations)) % (len(self.actors) + 1)
        self._act_as(self.actors, turn, observations, actions)
        return actions

    @torch.no_grad()
    def _act_as(self, actors: list[TD7Policy], turn: Tensor, observations: Tensor, actions: Tensor) -> None:
        """Put in the place of `actions` (N, actions) what the policy of each number in `turn` (N,) does, with noise."""
        for k, actor in enumerate(actors):
            chosen = actor(observations[turn == k])
            noise = self.settings.exploration * torch.randn_like(chosen)
            actions[turn == k] = (chosen + noise).clamp(-1, 1)

    def _keep_policy(self) -> None:
        """Keep the policy of now among the past ones, when its time has come."""
        every = PAST_EVERY if not self.past_policies else max(PAST_EVERY, self.past_policies[-1]["every"])
        last = self.past_policies[-1]["updates"] if self.past_policies else 0
        if self.agent.updates < last + every:
            return
        self.past_policies.append({"updates": self.agent.updates, "every": every, **pack(self.agent.policy())})
        if len(self.past_policies) > MOST_PAST:
            self.past_policies = self.past_policies[::2]
            self.past_policies[-1]["every"] = 2 * every

    def mode(self, observations: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Actions without noise."""
        return self.limits.scaled(self.agent.act(observations, 0.0)), state

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Store the valid steps, then one update for every `steps_per_update` of them."""
        count = self._store(rollout)
        first = self.stored < self.first_steps
        self.stored += count
        if first:
            return {}
        self.owed += count / self.settings.steps_per_update
        sums: dict[str, float] = {}
        updates = int(self.owed)
        for _ in range(updates):
            hold_actor = self.agent.updates < self.hold_until
            for name, value in self.agent.update(self.replay, hold_actor=hold_actor).items():
                sums[name] = sums.get(name, 0.0) + value
        self.owed -= updates
        self._keep_policy()
        counted = {"updates": float(self.agent.updates), "learning_rate": self.rate}
        return {name: value / updates for name, value in sums.items()} | counted

    def _store(self, rollout: Rollout) -> int:
        valid = rollout.valid
        unit = self.limits.unit(rollout.actions).clamp(-1, 1)
        parts = (rollout.observations[:-1], unit, rollout.observations[1:])
        observations, actions, following = (part[valid].numpy() for part in parts)
        if penalty := self.settings.termination_penalty:
            rollout = dataclasses.replace(rollout, rewards=rollout.rewards - penalty * rollout.terminated)
        window = windows(rollout, self.settings.gamma, self.settings.n_step)
        rewards, continues = window.rewards[valid].numpy(), window.discount[valid].numpy()
        later = None
        if self.replay.later:
            environment = torch.arange(valid.shape[1]).expand_as(valid)
            later = rollout.observations[window.after[valid], environment[valid]].numpy()
        self.replay.add(observations, actions, following, rewards, continues, later)
        return int(valid.sum())

    def absorb(self, rollout: Rollout) -> None:
        """Nothing: TD7 sees observations as they are."""

    def restart_episodes(self) -> None:
        """Nothing: transitions stand alone."""

    def prepare(self, collect: Callable[[], Rollout]) -> None:
        """Fill the replay of a resumed run again, unless its checkpoint brought it."""
        target = min(self.stored, self.settings.capacity, REFILL)
        if len(self.replay) >= target:
            return
        self.refilling = True
        self.actors = [unpack(TD7Policy, policy) for policy in self.past_policies]
        while len(self.replay) < target:
            self._store(collect())
        self.refilling = False
        if self.agent.updates:
            self.hold_until = self.agent.updates + self.settings.freeze_updates

    def state_dict(self) -> dict[str, Any]:
        """The agent, how much it has seen, and the replay where it is to be kept."""
        return {
            "td7": self.agent.state_dict(),
            "stored": self.stored,
            "owed": self.owed,
            "hold_until": self.hold_until,
            "past": self.past_policies,
            "max_priority": self.replay.max_priority,
            "priority_exponent": self.settings.priority_exponent,
            "replay": self._kept_replay() if self.settings.keep_replay else None,
        }

    def _kept_replay(self) -> dict[str, Any]:
        rows = self.replay.content()
        return {
            "rows": torch.from_numpy(rows["rows"]),
            "weights": torch.from_numpy(rows["weights"]),
            "next": int(rows["next"]),
            "draws": json.dumps(self.replay.generator.bit_generator.state),
            **{name: getattr(self.settings, name) for name in DRAWN_BY},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.agent.load_state_dict(state["td7"])
        self.stored, self.owed = state["stored"], state["owed"]
        self.hold_until, self.past_policies, replay = state["hold_until"], state["past"], state["replay"]
        if replay is not None:
            self._check_kept(replay)
            self.replay = self._new_replay(0)
            self.replay.restore(replay["rows"].numpy(), replay["weights"].numpy(), replay["next"])
            self.replay.generator.bit_generator.state = json.loads(replay["draws"])
        if state["priority_exponent"] == self.settings.priority_exponent:
            self.replay.max_priority = state["max_priority"]

    def _check_kept(self, replay: dict[str, Any]) -> None:
        """Refuse a replay whose rows and weights mean something else than the settings say."""
        for name in DRAWN_BY:
            was, now, flag = replay[name], getattr(self.settings, name), flag_name(name)
            if was != now:
                raise NervecordError(
                    f"is {now}, and the replay in the checkpoint was made with {was}",
                    where=flag,
                    hint=f"resume with {flag} {was}, or from a checkpoint that was made without --keep-replay",
                )
