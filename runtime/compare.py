"""Where two runs of a policy part: the first action, step, population and neuron, and how far apart they end.

Two modes. "free": each session runs on its own; one flipped spike changes what follows, as in closed loop. "layers":
every population of b is given what its sources gave in a, so a difference is that population's own.

A target with pipeline latency runs deeper populations some steps late; steps are counted within each population's
useful ones, so that step k means the same on both sides. Populations of the same name are compared, all their neurons:
widths that differ are an error. The one exception is a neuron that lowering appends as a bias source (`bias_source`):
it has no twin, and is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from nervecord.compiler.ops import ArgmaxDecode, Array, Decode, Level, Mantissas
from nervecord.compiler.plan import Plan, Unit
from nervecord.errors import ContractError, unknown_name
from nervecord.runtime.replay import Replay, threshold_of, useful_steps
from nervecord.runtime.session import Session

Mode: TypeAlias = Literal["free", "layers"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where two runs differ. action and step count from 0; a, b are the two values."""

    action: int
    step: int
    layer: str
    neuron: int
    a: float
    b: float


@dataclass(frozen=True, slots=True)
class LayerComparison:
    """One population.

    Args:
        spiking: its outputs are spikes; else membranes, in the action's units before the clip.
        compared, different: values. near: of the different spikes, those where a float membrane lies within `epsilon`
            of its threshold (None: no float side).
        largest: largest absolute difference. first: where the first one is, None where there is none.
    """

    layer: str
    spiking: bool
    compared: int
    different: int
    near: int | None
    largest: float
    first: Difference | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What `compare` found.

    Args:
        layers: of the populations that both have. alone: names of those that one side has only.
        action_rms, action_max: of the actions' differences; None where an action is a choice.
        actions_different: observations on which the actions are not the same. actions_beyond: those on which they
            differ by more than the tolerance; choices have none.
        first: the earliest difference over all populations, in time, then depth.
    """

    a: str
    b: str
    mode: Mode
    observations: int
    epsilon: float
    tolerance: float
    layers: tuple[LayerComparison, ...]
    alone: tuple[str, ...]
    action_rms: float | None
    action_max: float | None
    actions_different: int
    actions_beyond: int
    first: Difference | None

    @property
    def identical(self) -> bool:
        """Whether nothing differed, actions included."""
        return self.first is None and self.actions_different == 0

    @property
    def agrees(self) -> bool:
        """Whether nothing is beyond the tolerance: no action and no membrane that is read.

        Spikes have no tolerance. They must all be the same where it is zero, and are counted only where it is not: what
        a flipped spike does is then judged by the membranes and actions that it changes.
        """
        judged = [layer for layer in self.layers if self.tolerance == 0 or not layer.spiking]
        return self.actions_beyond == 0 and all(layer.different == 0 for layer in judged)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        found = {**asdict(self), "layers": [asdict(layer) for layer in self.layers], "alone": list(self.alone)}
        return {**found, "identical": self.identical, "agrees": self.agrees}


def compare(
    a: Session,
    b: Session,
    observations: Array,
    *,
    mode: Mode = "free",
    epsilon: float = 1e-9,
    tolerance: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Drive two sessions over the same observations.

    Args:
        a, b: sessions over policies with the same names of populations, such as a policy and what it was compiled to.
        observations: (k, observations), in order where state is carried.
        mode: "free" or "layers".
        epsilon: of |v - threshold|, for `LayerComparison.near`.
        tolerance: actions, and membranes that are read, which differ by no more agree; in the action's units. By
            default 0 where both compute in the same arithmetic, 0.01 where one is float and the other integer.

    Raises:
        ContractError: the two do not take the same observations, have no population in common, or one of different
            width.
    """
    rows = _checked(a, b, observations, mode, tolerance)
    left, right = a.plan, b.plan
    pairs = _pairs(left, right)
    if tolerance is None:
        tolerance = 0.0 if left.graph.level is right.graph.level else 0.01
    ledgers = [_Ledger(pair, epsilon, tolerance) for pair in pairs]
    margins, replay = Replay(left), Replay(right)
    a.reset(1)
    b.reset(1)
    errors = []
    for k, row in enumerate(rows):
        errors.append(a.step(row) - b.step(row))
        gave = useful_steps(left, a.trace())
        if mode == "layers":
            given = {pair.name: pair.as_right(gave[pair.name]) for pair in pairs}
            other = {name: replayed.outputs for name, replayed in replay.action(row, given).items()}
        else:
            other = useful_steps(right, b.trace())
        membranes = margins.action(row, gave)
        for ledger in ledgers:
            name = ledger.pair.name
            ledger.add(k, gave[name], other[name], membranes[name].membranes)
        if progress is not None:
            progress(k + 1, len(rows))
    layers = tuple(ledger.close() for ledger in ledgers)
    found = [(layer.first, depth) for depth, layer in enumerate(layers) if layer.first is not None]
    first = min(found, key=lambda f: (f[0].action, f[0].step, f[1]), default=(None, 0))[0]
    difference = np.abs(np.stack(errors))
    chooses = bool(a.contract.choices)
    limit = 0.0 if chooses else tolerance
    names = [{unit.step.name for unit in side.units} for side in (left, right)]
    return Comparison(
        a=a.engine,
        b=b.engine,
        mode=mode,
        observations=len(rows),
        epsilon=epsilon,
        tolerance=tolerance,
        layers=layers,
        alone=tuple(unit.step.name for side in (left, right) for unit in side.units
                    if unit.step.name not in names[0] & names[1]),
        action_rms=None if chooses else float(np.sqrt(np.mean(difference**2))),
        action_max=None if chooses else float(difference.max()),
        actions_different=int(np.count_nonzero(difference.any(axis=1))),
        # What is not a number is beyond every tolerance.
        actions_beyond=int(np.count_nonzero(~(difference <= limit).all(axis=1))),
        first=first,
    )  # fmt: skip


def _checked(a: Session, b: Session, observations: Array, mode: Mode, tolerance: float | None) -> Array:
    if mode not in get_args(Mode):
        raise unknown_name("mode", mode, get_args(Mode))
    if tolerance is not None and not tolerance >= 0:
        raise ContractError(f"is {tolerance}, zero or more is needed", where="tolerance")
    rows = np.asarray(observations, dtype=np.float64)
    for session in (a, b):
        size = session.contract.observation.size
        if rows.ndim != 2 or rows.shape[1] != size or len(rows) == 0:
            raise ContractError(f"have shape {rows.shape}, (k, {size}) is needed", where="observations")
    if not np.isfinite(rows).all():
        raise ContractError("hold NaN or infinite values", where="observations")  # both would give fail-safe actions
    if a.contract.choices != b.contract.choices:
        raise ContractError("the two policies do not choose among the same actions", where="compare")
    if a.contract.action.size != b.contract.action.size:
        raise ContractError("the two policies do not have the same number of actions", where="compare")
    if a.contract.steps != b.contract.steps or a.contract.state != b.contract.state:
        raise ContractError("the two policies do not have the same steps per action and state rule", where="compare")
    return rows


@dataclass(frozen=True, slots=True)
class _Pair:
    """A population that both sides have. size: neurons compared; extra: the right side has a bias source more."""

    name: str
    left: Plan
    right: Plan
    size: int
    extra: bool

    def as_right(self, values: Array) -> Array:
        """What the left population gave, (T, n), as the right one would have given it."""
        values = values[:, : self.size]
        if not self.extra:
            return values
        return np.concatenate([values, np.ones((len(values), 1), dtype=values.dtype)], axis=1)


def _pairs(left: Plan, right: Plan) -> list[_Pair]:
    """Populations of the same name, in the order of the left plan.

    Raises:
        ContractError: there is none, or two are of different width.
    """
    named = {unit.step.name: unit for unit in right.units}
    found = []
    for unit in left.units:
        name = unit.step.name
        other = named.get(name)
        if other is None:
            continue
        if unit.step.op.spikes is not other.step.op.spikes:
            raise ContractError("spikes on one side and is read as a membrane on the other", where=name)
        shapes = unit.step.op.out_shape, other.step.op.out_shape
        extra = shapes[1][0] - shapes[0][0] if shapes[0][1:] == shapes[1][1:] else None
        if extra == 0 or (extra == 1 and bias_source(right, other)) or (extra == -1 and bias_source(left, unit)):
            found.append(_Pair(name, left, right, min(shapes[0][0], shapes[1][0]), extra=extra == 1))
            continue
        raise ContractError(
            f"has shape {shapes[0]} on one side and {shapes[1]} on the other, and the surplus is no bias source",
            where=name, hint="compare a policy with what it was compiled to",
        )  # fmt: skip
    if not found:
        raise ContractError("the two policies have no population of the same name", where="compare")
    return found


def bias_source(plan: Plan, unit: Unit) -> bool:
    """Whether a population's last neuron is a bias source that lowering appended.

    It is one where no input reaches it (its rows of weights are zero) and it spikes in each useful step all the same.
    """
    op, arithmetic = unit.step.op, plan.graph.arithmetic
    if plan.graph.level is not Level.INTEGER or not op.spikes:
        return False
    if any(not isinstance(c.op, Mantissas) or c.op.rows(c.op.size - 1, c.op.size).any() for c in unit.incoming):
        return False
    state, nothing = op.state(1), np.zeros((1, *op.in_shape), dtype=np.int64)
    return all(op.step(state, nothing, arithmetic)[0, -1] == 1 for _ in range(plan.schedule.steps))


class _Ledger:
    """Differences of one population, as they come."""

    def __init__(self, pair: _Pair, epsilon: float, tolerance: float) -> None:
        op = pair.left.step(pair.name).op
        self.pair = pair
        self.spiking = op.spikes
        self.epsilon = epsilon
        self.tolerance = 0.0 if self.spiking else tolerance
        # Membranes are compared in the action's units, where float and integer mean the same.
        self.scales = (1.0, 1.0) if self.spiking else (_scale(pair.left, pair.name), _scale(pair.right, pair.name))
        self.threshold = threshold_of(op)
        self.compared = self.different = self.near = 0
        self.largest = 0.0
        self.first: Difference | None = None

    def add(self, action: int, a: Array, b: Array, membranes: Array | None) -> None:
        """One action: (T, ...) on each side; `membranes` of a."""
        size = self.pair.size
        x, y = a[:, :size] * self.scales[0], b[:, :size] * self.scales[1]  # floats from here on
        distance = np.abs(x - y).reshape(len(x), -1)
        differs = ~(distance <= self.tolerance)
        self.compared += differs.size
        self.largest = max(self.largest, float(distance.max(initial=0.0)))
        if not differs.any():
            return
        self.different += int(differs.sum())
        if self.threshold is not None and membranes is not None:
            close = np.abs(membranes - self.threshold)[:, :size].reshape(differs.shape) <= self.epsilon
            self.near += int((close & differs).sum())
        if self.first is None:
            step, neuron = (int(index) for index in np.argwhere(differs)[0])
            values = (float(side.reshape(len(side), -1)[step, neuron]) for side in (x, y))
            self.first = Difference(action, step, self.pair.name, neuron, *values)

    def close(self) -> LayerComparison:
        """The population's result."""
        return LayerComparison(
            layer=self.pair.name,
            spiking=self.spiking,
            compared=self.compared,
            different=self.different,
            near=self.near if self.threshold is not None else None,
            largest=self.largest,
            first=self.first,
        )


def _scale(plan: Plan, name: str) -> float | Array:
    """Factor from a membrane to the action's units, or a preference's, by the first decoder that reads it; else 1."""
    for step in plan.after:
        if isinstance(step.op, (Decode, ArgmaxDecode)) and any(tap.source == name for tap in step.taps):
            return step.op.scale
    return 1.0
