"""Collecting rollouts: the running episodes of a simulator, acted in by a learner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nervecord.errors import NervecordError
from nervecord.training.learners.base import Learner, Rollout
from nervecord.training.simulators.base import Simulator
from nervecord.training.simulators.kinds import that_cut


@dataclass(frozen=True, slots=True)
class Episode:
    """An episode that ended: step of the rollout, environment of this process, return, length."""

    step: int
    environment: int
    value: float
    length: int


class Collector:
    """The running episodes.

    The first episodes end early, each after a number of steps drawn between 1 and the time limit, as if time were up:
    else environments that all began at once would reach the time limit at once ever after. Such an episode is not
    counted. With `restart` the episodes of half of the environments continue being cut, each after so many steps: more
    initial states are seen.

    Args:
        simulator: the environments. They are reset here, unless `load_state_dict` follows.
        learner: acts in them.
        steps: of a rollout.
        stagger: seed of the first lengths; None to leave them whole.
        begin: reset the environments now.
        restart: steps after which the episodes of two of every four environments are cut, all of which are not counted;
            0: they are not cut.

    Raises:
        NervecordError: episodes are to be cut, and the simulator cannot.
    """

    def __init__(
        self,
        simulator: Simulator,
        learner: Learner,
        steps: int,
        *,
        stagger: int | None,
        begin: bool = True,
        restart: int = 0,
    ) -> None:
        self.simulator, self.device = simulator, learner.device
        count, device = simulator.num_envs, learner.device
        self.low, self.high = (
            torch.as_tensor(side, dtype=torch.float32, device=device) for side in (simulator.low, simulator.high)
        )
        self.observations = torch.empty((steps + 1, count, simulator.observation_size), device=device)
        self.valid = torch.ones((steps + 1, count), dtype=torch.bool, device=device)
        self.state = torch.zeros((count, learner.state_size), device=device) if learner.state_size else None
        self.value = torch.zeros(count, dtype=torch.float64, device=device)
        """Return of the running episodes so far, and beside it their length."""
        self.length = torch.zeros(count, dtype=torch.int64, device=device)
        self.limit = torch.zeros(count, dtype=torch.int64, device=device)
        """Step of the collector before which the episode is cut; 0 where it is not cut."""
        self.age = 0
        if stagger is not None and simulator.time_limit > 1:
            draw = torch.Generator().manual_seed(stagger)
            self.limit = torch.randint(1, simulator.time_limit + 1, (count,), generator=draw).to(device)
        if restart and not simulator.can_cut:
            raise NervecordError(
                "needs a simulator that ends single episodes, and this one does not",
                where="--restart-steps",
                hint=f"drop it, or use --sim {' or '.join(that_cut())}",
            )
        self.restart = restart
        self.restarted = (torch.arange(count, device=device) % 4 >= 2) & (restart > 0)
        """Environments whose episodes are cut again and again, (N,) bool."""
        if restart:
            self.limit = torch.where(self.restarted, 1 + (self.limit - 1) % restart, self.limit)
        if begin:
            self.observations[steps] = simulator.reset()

    @torch.no_grad()
    def collect(self, learner: Learner) -> tuple[Rollout, list[Episode]]:
        """Step all environments; the rollout's observations are valid until the next call, and the episodes that
        ended."""
        steps, count = len(self.observations) - 1, self.simulator.num_envs
        self.observations[0], self.valid[0] = self.observations[steps], self.valid[steps]
        rewards = torch.empty((steps, count), dtype=torch.float64, device=self.device)
        terminated, truncated = torch.empty((2, steps, count), dtype=torch.bool, device=self.device)
        cut = torch.zeros_like(truncated)
        place = self.simulator.device
        actions, outputs, states = [], [], []
        for t in range(steps):
            act = learner.act(self.observations[t], self.state)
            result = self.simulator.step(act.actions.clamp(self.low, self.high).to(place))
            actions.append(act.actions)
            outputs.append(act.outputs)
            self.observations[t + 1] = result.observations
            rewards[t], terminated[t], truncated[t] = result.rewards, result.terminated, result.truncated
            if self.restart or self.age < self.simulator.time_limit:
                cut[t] = self._cut(terminated[t] | truncated[t])
                truncated[t] |= cut[t]
            done = terminated[t] | truncated[t]
            torch.logical_not(done, out=self.valid[t + 1])
            if self.state is not None and act.state is not None:
                states.append(self.state)
                # The step after an end only resets, and what it makes of the state is nobody's.
                self.state = act.state.masked_fill((done | ~self.valid[t])[:, None], 0.0)
            self.age += 1
        rollout = Rollout(
            self.observations,
            torch.stack(actions),
            torch.stack(outputs),
            torch.stack(states) if states else None,
            rewards,
            terminated,
            truncated,
            self.valid[:steps],
        )
        return rollout, self._count(rollout, cut)

    def _count(self, rollout: Rollout, cut: Tensor) -> list[Episode]:
        """The episodes that ended, but those that were cut; and the running ones' returns and lengths."""
        values = rollout.rewards.where(rollout.valid, 0.0).cumsum(0)
        lengths = rollout.valid.cumsum(0)
        done = rollout.done
        left_out = cut | ~rollout.valid | self.restarted
        rows = zip(done.nonzero().tolist(), *(part[done].tolist() for part in (values, lengths, left_out)), strict=True)
        before, passed = (-self.value).tolist(), (-self.length).tolist()
        episodes = []
        for (t, env), value, length, is_left_out in rows:
            if not is_left_out:
                episodes.append(Episode(t, env, value - before[env], length - passed[env]))
            before[env], passed[env] = value, length
        self.value = values[-1] - torch.tensor(before, dtype=torch.float64, device=self.device)
        self.length = lengths[-1] - torch.tensor(passed, device=self.device)
        return episodes

    def _cut(self, ended: Tensor) -> Tensor:
        """Where an episode is cut now, (N,) bool; `ended` are those that ended by themselves."""
        cut = (self.limit == self.age + 1) & ~ended
        # The step after this one only resets.
        following = torch.where(self.restarted, self.age + 2 + self.restart, 0)
        self.limit = torch.where(ended | cut, following, self.limit)
        self.simulator.cut(cut.to(self.simulator.device))
        return cut

    def state_dict(self) -> dict[str, Any] | None:
        """The running episodes, those of the simulator included; None where it cannot save them."""
        simulator = self.simulator.state_dict()
        if simulator is None:
            return None
        return {
            "simulator": simulator,
            "observations": self.observations[-1].cpu().clone(),
            "valid": self.valid[-1].cpu().clone(),
            "state": None if self.state is None else self.state.cpu(),
            "value": self.value.cpu(),
            "length": self.length.cpu(),
            "limit": self.limit.cpu(),
            "age": self.age,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume the episodes that `state_dict` gave."""
        self.simulator.load_state_dict(state["simulator"])
        self.observations[-1], self.valid[-1] = state["observations"].to(self.device), state["valid"].to(self.device)
        self.state = None if state["state"] is None else state["state"].to(self.device)
        self.value, self.length, self.limit = (state[k].to(self.device) for k in ("value", "length", "limit"))
        self.age = state["age"]
