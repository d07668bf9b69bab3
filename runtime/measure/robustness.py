"""How two policies do where the world is not as in training: noisy sensors, late actions, other friction and mass.

Both play the same episodes, with the same noise in every step, so that their difference is not the noise's.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.ops import Array
from nervecord.errors import EngineError, NervecordError, unknown_name
from nervecord.runtime.loop import run_policy
from nervecord.runtime.result import interval95
from nervecord.runtime.session import Session
from nervecord.runtime.worker.environment import chosen_environment, make_environment

KINDS = {
    "noise": "Gaussian noise on each observation, in standard deviations of its channel in recorded observations",
    "latency": "steps by which each action comes late; the fail-safe action before the first",
    "friction": "factor of all friction (MuJoCo)",
    "mass": "factor of all masses and inertias (MuJoCo)",
}
STANDARD = (
    ("noise", 0.05),
    ("noise", 0.2),
    ("latency", 1.0),
    ("friction", 0.7),
    ("friction", 1.3),
    ("mass", 0.8),
    ("mass", 1.2),
)
"""What is tried where nobody chooses; of tasks without MuJoCo only what does not change the model."""
LATEST = 100
"""Steps of latency, at most."""


@dataclass(frozen=True, slots=True)
class Perturbation:
    """One way in which the world differs. kind: of `KINDS`; value: see there.

    Raises:
        NervecordError: the kind is unknown, or the value impossible.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown_name("perturbation", self.kind, KINDS, where="--perturb")
        least = 0.0 if self.kind == "noise" else 1.0 if self.kind == "latency" else 1e-6
        whole = self.kind != "latency" or (self.value == math.floor(self.value) and self.value <= LATEST)
        if not (math.isfinite(self.value) and self.value >= least and whole):
            need = f"a whole number of steps, 1 to {LATEST}" if self.kind == "latency" else "a number above 0"
            raise NervecordError(f"{self.kind} is {self.value:g}, {need} is needed", where="--perturb")

    def __str__(self) -> str:
        return f"{self.kind} {self.value:g}"

    @property
    def changes_model(self) -> bool:
        """Whether it needs a MuJoCo model."""
        return self.kind in ("friction", "mass")


@dataclass(frozen=True, slots=True, eq=False)
class Perturbed:
    """Returns of both policies under a perturbation (None: none), pair by pair."""

    perturbation: Perturbation | None
    floating: Array
    compiled: Array

    @property
    def label(self) -> str:
        """What it is called in tables."""
        return "as trained" if self.perturbation is None else str(self.perturbation)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types. loss: float's mean return less the compiled one's, in parts of the size of float's."""
        size = max(abs(float(self.floating.mean())), 1e-12)
        return {
            "perturbation": self.label,
            "episodes": len(self.floating),
            "return_float": float(self.floating.mean()),
            "return_float_ci95": interval95(self.floating),
            "return_compiled": float(self.compiled.mean()),
            "return_compiled_ci95": interval95(self.compiled),
            "loss": float((self.floating - self.compiled).mean() / size),
            "loss_ci95": interval95(self.floating - self.compiled) / size,
        }


def robustness(
    floating: Session,
    compiled: Session,
    observations: Array,
    environment: str | None,
    perturbations: Sequence[Perturbation] | None,
    *,
    wrappers: Sequence[str] | None = None,
    episodes: int = 50,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[Perturbed, ...]:
    """Play the same episodes with both policies, first as trained, then under each perturbation.

    Args:
        observations: recorded ones, whose spread scales the noise.
        environment: as of `run_policy`, by its id. perturbations: None: `STANDARD`. wrappers: around it.
        episodes, seed: for each perturbation the same.
        progress: called with the perturbations done, their number, and the next one's name.

    Raises:
        NervecordError: a perturbation needs a MuJoCo model and the task has none.
        EngineError: an engine died.
    """
    contract = floating.contract
    _, name, around = chosen_environment(contract, environment, wrappers, allow_other=False)
    perturbations = possible(perturbations, name, around)
    spread = np.asarray(observations, dtype=np.float64).std(axis=0)
    results = []
    cases: list[Perturbation | None] = [None, *perturbations]
    for done, case in enumerate(cases):
        if progress is not None:
            progress(done, len(cases), "as trained" if case is None else str(case))

        def make(case: Perturbation | None = case) -> Any:
            return _World(make_environment(name, around), case, spread, contract)

        returns = []
        for session in (floating, compiled):
            result = run_policy(session, make, episodes, seed, environments=min(10, episodes))
            if result.engine_error is not None:
                raise EngineError(f"died: {result.engine_error}", where=session.engine)
            returns.append(result.returns)
        results.append(Perturbed(case, *returns))
    return tuple(results)


def possible(
    perturbations: Sequence[Perturbation] | None, environment: str, wrappers: Sequence[str] = ()
) -> Sequence[Perturbation]:
    """What an environment can be perturbed by: what was asked for, or of `STANDARD` what it can.

    Raises:
        NervecordError: one needs a MuJoCo model and the task has none.
    """
    probe = make_environment(environment, wrappers)
    has_model = getattr(probe.unwrapped, "model", None) is not None
    probe.close()
    if perturbations is None:
        standard = [Perturbation(kind, value) for kind, value in STANDARD]
        return [it for it in standard if has_model or not it.changes_model]
    for it in perturbations:
        if it.changes_model and not has_model:
            raise NervecordError(
                f"{it.kind} is of MuJoCo's models, and {environment} has none",
                where="--perturb",
                hint="noise and latency are for any environment",
            )
    return perturbations


class _World:
    """An environment that differs from that of the training."""

    def __init__(self, environment: Any, case: Perturbation | None, spread: Array, contract: Contract) -> None:
        self._environment, self._case, self._spread = environment, case, spread
        self._idle = np.array(contract.fail_safe)
        self._is_choice = bool(contract.choices)
        if case is not None and case.changes_model:
            model = environment.unwrapped.model
            if case.kind == "friction":
                model.geom_friction[:] *= case.value
                model.pair_friction[:] *= case.value
            else:
                model.body_mass[:] *= case.value
                model.body_inertia[:] *= case.value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        """Begin an episode; the noise is the seed's."""
        self._rng = np.random.default_rng(seed)
        late = int(self._case.value) if self._case is not None and self._case.kind == "latency" else 0
        idle = int(self._idle[0]) if self._is_choice else self._idle.astype(np.float32)
        self._waiting: deque[Any] = deque([idle] * late)
        observation, info = self._environment.reset(seed=seed, options=options)
        return self._seen(observation), info

    def step(self, action: Any) -> tuple[Any, ...]:
        """One step, with the action that is due."""
        self._waiting.append(action)
        observation, *rest = self._environment.step(self._waiting.popleft())
        return (self._seen(observation), *rest)

    def _seen(self, observation: Any) -> Any:
        if self._case is None or self._case.kind != "noise":
            return observation
        noise = self._rng.normal(size=self._spread.shape) * self._spread * self._case.value
        return np.asarray(observation, dtype=np.float64) + noise


def draw_robustness(path: str, results: Sequence[Perturbed], *, title: str) -> None:
    """Returns of both policies side by side, with 95 % intervals; needs matplotlib.

    Raises:
        MissingDependencyError: it is not installed. NervecordError: the file cannot be written.
    """
    from nervecord.runtime.report.picture import COLOURS, figure_type, save_figure

    figure = figure_type()(figsize=(2.5 + 1.1 * len(results), 4.2), dpi=150, facecolor="white")
    axes = figure.add_subplot()
    places = np.arange(len(results))
    for k, name in enumerate(("float", "compiled")):
        rows = [(it.floating, it.compiled)[k] for it in results]
        error = [interval95(row) if len(row) > 1 else 0.0 for row in rows]
        axes.bar(
            places + (k - 0.5) * 0.38,
            [row.mean() for row in rows],
            0.36,
            yerr=error,
            label=name,
            color=COLOURS[k],
            error_kw={"lw": 1, "ecolor": "#22262a"},
        )
    axes.set_xticks(places, [it.label for it in results], rotation=25, ha="right")
    axes.set_ylabel("return, mean with 95 % interval")
    axes.set_title(title, loc="left")
    axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    figure.tight_layout()
    save_figure(figure, path)
