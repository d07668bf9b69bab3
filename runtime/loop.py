"""The control loop: a session in a Gymnasium environment, episode by episode, with everything a table needs.

Episodes are told apart by seeds of their own, drawn from one: the same seed gives the same episodes whatever the number
of environments that run side by side.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler.ops import Array
from nervecord.errors import EngineError, NervecordError
from nervecord.runtime.answer import ACTION_NOT_FINITE, DEAD, LATE
from nervecord.runtime.result import Episode, Result
from nervecord.runtime.session import Session
from nervecord.runtime.worker.environment import (
    check_environment,
    chosen_environment,
    episode_seeds,
    given_action,
    make_environments,
)
from nervecord.runtime.worker.simulator_messages import mujoco_log

MOST_EPISODES = 10_000_000
"""Of one call: each leaves a return, a length and a seed in memory."""

LATENCY_PROBES = 400
"""Actions at batch 1 that are timed after a run with several environments side by side."""

Progress: TypeAlias = Callable[[int, int, float], None]
"""(episodes done, of, mean return so far)."""


def run_policy(
    session: Session,
    environment: Any,
    episodes: int,
    seed: int,
    *,
    wrappers: Sequence[str] | None = None,
    environments: int = 1,
    record: bool = False,
    allow_other: bool = False,
    enforce_deadline: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Run a policy for whole episodes.

    Args:
        session: open; its batch is set to `environments`.
        environment: Gymnasium id, also "module:Id", which imports the module; an environment, or a function that makes
            one, whose name may be any; None is the contract's, which must be registered: what a file says is never
            imported.
        episodes: at least 1. seed: of the episodes' seeds.
        wrappers: around an environment that is named by its id, the innermost first: those of the contract, which the
            user names, since what a file says is never imported.
        environments: how many run side by side; 1 measures latency as a robot would feel it.
        record: keep the first episode.
        allow_other: an environment of another name than the contract's, of the same shapes.
        enforce_deadline: an action that took longer than the control period is replaced by the fail-safe one, as on a
            robot. By default it is only counted: a simulator waits, and a busy machine must not change a result.

    An engine that dies gives fail-safe actions to the end, and `Result.engine_error`.

    Raises:
        ContractError: policy and environment do not match.
        EngineError: the engine is dead from the start.
    """
    if episodes < 1:
        raise NervecordError(f"is {episodes}, at least 1 is needed", where="episodes")
    if episodes > MOST_EPISODES:
        raise NervecordError(f"is {episodes}, at most {MOST_EPISODES:,} can be played", where="episodes")
    if environments < 1:
        raise NervecordError(f"is {environments}, at least 1 is needed", where="environments")
    environment, name, around = chosen_environment(session.contract, environment, wrappers, allow_other=allow_other)
    allow_other |= not isinstance(environment, str)
    width = min(environments, episodes)
    with mujoco_log():
        worlds = make_environments(environment, width, around)
        try:
            check_environment(session.contract, worlds[0], name, allow_other=allow_other)
            loop = _Loop(session, name, worlds, episode_seeds(seed, episodes), seed)
            loop.recorder = _Recorder(loop.seeds[0]) if record else None
            loop.enforce_deadline = enforce_deadline
            loop.progress = progress
            return dataclasses.replace(loop.run(), wrappers=around)
        finally:
            for env in worlds:
                env.close()


class _Loop:
    """State of one `run_policy`: environments, their episodes, and the clocks."""

    def __init__(self, session: Session, name: str, environments: list[Any], seeds: list[int], seed: int) -> None:
        self.session, self.name, self.envs, self.seeds, self.seed = session, name, environments, seeds, seed
        self.contract = session.contract
        self.progress: Progress | None = None
        self.enforce_deadline = False
        self.returns = np.zeros(len(seeds))
        self.lengths = np.zeros(len(seeds), dtype=np.int64)
        self.latencies: list[float] = []
        self.missed = 0
        self.environment_seconds = 0.0
        self.recorder: _Recorder | None = None
        self.seen: list[Array] = []
        self.fail_safe = np.array(self.contract.fail_safe)
        self.failed: Counter[str] = Counter()
        self.engine_error: EngineError | None = None
        self.finished: list[float] = []
        self.playing: list[int | None] = list(range(len(environments)))

    def run(self) -> Result:
        """All episodes."""
        began = time.perf_counter()
        width = len(self.envs)
        self.session.reset(width)
        before = self.session.counts
        observations = np.zeros((width, self.contract.observation.size))
        waiting = list(range(width, len(self.seeds)))
        for row in range(width):
            observations[row] = self._begin(row, row)
        while any(episode is not None for episode in self.playing):
            actions = self._act(observations)
            for row, episode in enumerate(self.playing):
                if episode is None:
                    continue
                observations[row], ended = self._advance(row, episode, actions[row])
                if not ended:
                    continue
                self.finished.append(float(self.returns[episode]))
                if self.progress is not None:
                    self.progress(len(self.finished), len(self.seeds), float(np.mean(self.finished)))
                self.playing[row] = following = waiting.pop(0) if waiting else None
                observations[row] = 0.0
                if following is not None:
                    observations[row] = self._begin(row, following)
                    self._clear(row)
        seconds = time.perf_counter() - began
        done = self.session.counts.since(before)
        if width > 1:
            self._probe_latency()
        return Result(
            environment=self.name,
            engine=self.session.engine,
            seed=self.seed,
            returns=self.returns,
            lengths=self.lengths,
            latency_us=_latency(self.latencies),
            per_action=done.per_action(),
            fail_safe=dict(Counter(done.fail_safe) + self.failed),
            deadline_us=self.contract.control_period * 1e6,
            deadline_missed=self.missed,
            seconds=seconds,
            seconds_in_environment=self.environment_seconds,
            environments=width,
            choices=self.contract.choices,
            channels=self.contract.action.names,
            recorded=self.recorder.episode() if self.recorder else None,
            engine_error=None if self.engine_error is None else str(self.engine_error),
        )

    def _clear(self, row: int) -> None:
        """Clear the state of a row."""
        if self.engine_error is None:
            try:
                self.session.reset(rows=np.array([row]))
            except EngineError as error:
                self.engine_error = error

    def _begin(self, row: int, episode: int) -> Array:
        observation, _ = self.envs[row].reset(seed=self.seeds[episode])
        if self.recorder and episode == 0:
            self.recorder.begin(self.envs[row])
        return np.asarray(observation, dtype=np.float64)

    def _act(self, observations: Array) -> Array:
        if len(self.seen) < LATENCY_PROBES:
            self.seen.append(observations[0].copy())
        # A session steps all its rows; those whose episodes are over are not counted.
        playing = np.array([episode is not None for episode in self.playing])
        began = time.perf_counter()
        if self.engine_error is None:
            try:
                actions = self.session.step(observations, playing)
            except EngineError as error:
                self.engine_error = error
        if self.engine_error is not None:
            # A robot is attached: it gets the safe action now and the caller gets the count; never a stale action.
            self.failed[DEAD] += int(playing.sum())
            return np.tile(self.fail_safe, (len(observations), 1))
        seconds = time.perf_counter() - began
        if len(self.envs) == 1:
            self.latencies.append(seconds)
            if seconds > self.contract.control_period:
                self.missed += 1
                if self.enforce_deadline:
                    self.failed[LATE] += 1
                    actions = self.fail_safe[None].copy()
        bad = np.asarray(~np.isfinite(actions).all(axis=1))
        if bad.any():
            self.failed[ACTION_NOT_FINITE] += int(np.count_nonzero(bad & playing))
            actions = np.where(bad[:, None], self.fail_safe, actions)
        return actions

    def _advance(self, row: int, episode: int, action: Array) -> tuple[Array, bool]:
        began = time.perf_counter()
        env_action = given_action(action, self.contract.choices)
        observation, reward, terminated, truncated, _ = self.envs[row].step(env_action)
        self.environment_seconds += time.perf_counter() - began
        self.returns[episode] += float(reward)
        self.lengths[episode] += 1
        if self.recorder and episode == 0:
            self.recorder.add(self.envs[row], observation, action, float(reward))
        return np.asarray(observation, dtype=np.float64), bool(terminated or truncated)

    def _probe_latency(self) -> None:
        """Time single actions on observations of this run, as a robot would feel them."""
        if self.engine_error is not None:
            return
        try:
            self.session.reset(1)
            for observation in self.seen:
                began = time.perf_counter()
                self.session.step(observation[None])
                self.latencies.append(time.perf_counter() - began)
        except EngineError as error:
            self.engine_error = error


def _latency(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {"median": math.nan, "p99": math.nan}
    micro = np.array(seconds) * 1e6
    return {"median": float(np.median(micro)), "p99": float(np.quantile(micro, 0.99))}


class _Recorder:
    """Keeps the first episode."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.observations: list[Array] = []
        self.actions: list[Array] = []
        self.rewards: list[float] = []
        self.positions: list[Array] = []

    def begin(self, environment: Any) -> None:
        """The episode starts."""
        self._position(environment)

    def add(self, environment: Any, observation: Array, action: Array, reward: float) -> None:
        """One step."""
        self.observations.append(np.asarray(observation, dtype=np.float64))
        self.actions.append(action.copy())
        self.rewards.append(reward)
        self._position(environment)

    def _position(self, environment: Any) -> None:
        data = getattr(environment.unwrapped, "data", None)
        if data is not None and hasattr(data, "qpos"):
            self.positions.append(np.array(data.qpos))

    def episode(self) -> Episode:
        """What was kept."""
        return Episode(
            seed=self.seed,
            observations=np.array(self.observations),
            actions=np.array(self.actions),
            rewards=np.array(self.rewards),
            positions=np.array(self.positions) if self.positions else None,
        )
