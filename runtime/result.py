"""What a run in the control loop measured, and the interval of its mean."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nervecord.compiler.ops import Array


@dataclass(slots=True)
class Episode:
    """One recorded episode. positions: (steps + 1, nq) where the simulator is MuJoCo, else None."""

    seed: int
    observations: Array
    actions: Array
    rewards: Array
    positions: Array | None


@dataclass(slots=True)
class Result:
    """What `run_policy` measured.

    Args:
        returns, lengths: per episode, in the order of their seeds.
        latency_us: {"median", "p99"} wall time of `session.step` for one robot; microseconds.
        per_action: spikes, synaptic_events, neuron_updates of this run's episodes.
        fail_safe: reason -> actions replaced by the fail-safe one.
        deadline_us: the control period. deadline_missed: actions that took longer, counted live for one robot only.
        choices: names of the actions, where an action is the number of one of them; else empty.
        channels: names of an action's values, such as joints, in order.
        recorded: the first episode, if it was asked for.
        engine_error: what the engine died of; from then on every action was the fail-safe one. None where it lived.
        wrappers: around the environment, as named.
    """

    environment: str
    engine: str
    seed: int
    returns: Array
    lengths: Array
    latency_us: dict[str, float]
    per_action: dict[str, float]
    fail_safe: dict[str, int]
    deadline_us: float
    deadline_missed: int
    seconds: float
    seconds_in_environment: float
    environments: int
    choices: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    recorded: Episode | None = None
    engine_error: str | None = None
    wrappers: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def ci95(self) -> float:
        """Half width of the 95 % interval of the mean return (Student's t); NaN for one episode."""
        return interval95(self.returns)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        ci = self.ci95
        return {
            "engine": self.engine,
            "env": self.environment,
            **({"wrappers": list(self.wrappers)} if self.wrappers else {}),
            "episodes": len(self.returns),
            "seed": self.seed,
            "return_mean": self.mean,
            "return_ci95": None if math.isnan(ci) else ci,
            "return_std": float(self.returns.std(ddof=1)) if len(self.returns) > 1 else None,
            "return_each": [float(x) for x in self.returns],
            "length_mean": float(self.lengths.mean()),
            "latency_us": self.latency_us,
            "deadline_us": self.deadline_us,
            "deadline_missed": self.deadline_missed,
            "spikes_per_action": self.per_action["spikes"],
            "synaptic_events_per_action": self.per_action["synaptic_events"],
            "neuron_updates_per_action": self.per_action["neuron_updates"],
            "fail_safe": self.fail_safe,
            "engine_error": self.engine_error,
            "environments": self.environments,
            "seconds": self.seconds,
            "share_of_time_in_environment": self.seconds_in_environment / max(self.seconds, 1e-9),
        }


def interval95(values: Array) -> float:
    """Half width of the 95 % confidence interval of a mean, by Student's t; NaN below two values."""
    count = len(values)
    if count < 2:
        return math.nan
    return _student95(count - 1) * float(values.std(ddof=1)) / math.sqrt(count)


def _student95(freedom: int) -> float:
    """97.5 % quantile of Student's t (Abramowitz and Stegun 1964, 26.7.5), exact where that is off by more than 0.1 %.

    Written out, as the core installation has no scipy.
    """
    exact = {1: 12.7062, 2: 4.30265, 3: 3.18245, 4: 2.77645, 5: 2.57058, 6: 2.44691}
    if freedom in exact:
        return exact[freedom]
    z = 1.959964
    f = float(freedom)
    return (
        z
        + (z**3 + z) / (4 * f)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * f**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * f**3)
    )
