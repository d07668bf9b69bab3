"""Where two runs of a policy part: the first action, step, population and neuron, and how far apart they end.

Two modes. "free": each session runs on its own; one flipped spike changes what follows, as in closed loop. "layers":
every population of b is given what its sources gave in a, so a difference is that population's own.

A target with pipeline latency runs deeper populations some steps late; steps are counted within each population's
useful ones, so that step k means the same on both sides. Populations of the same name are compared, all their neurons:
widths that differ are an error. The one exception is a neuron that lowering appends as a bias source (`bias_source`):
it has no twin, and is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from nervecord.compiler.ops import ArgmaxDecode, Array, Decode, Level, Mantissas
from nervecord.compiler.plan.plan import Plan, Unit
from nervecord.errors import ContractError, unknown_name
from nervecord.runtime.measure.replay import Replay, threshold_of, useful_steps
from nervecord.runtime.session import Session

Mode: TypeAlias = Literal["free", "layers"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where two runs differ. action and step count from 0; a, b are the two values.

    Streams have no actions: their steps count over the whole recording.
    """

    action: int | None
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
        observations: of policies; of streams the steps of the recording.
        layers: of the populations that both have. alone: names of those that one side has only.
        action_rms, action_max: of the actions' differences; None where an action is a choice.
        actions_different: observations on which the actions are not the same. actions_beyond: those on which they
            differ by more than the tolerance; choices have none.
        first: the earliest difference over all populations, in time, then depth.
        stream: the two are no policies: what is said of actions is said of what leaves at each step.
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
    stream: bool = False

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
        fields = {**asdict(self), "layers": [asdict(layer) for layer in self.layers], "alone": list(self.alone)}
        return {**fields, "identical": self.identical, "agrees": self.agrees}


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
    pairs = paired(left, right)
    if tolerance is None:
        tolerance = 0.0 if left.graph.level is right.graph.level else 0.01
    ledgers = [Ledger(pair, epsilon, tolerance) for pair in pairs]
    margins, replay = Replay(left), Replay(right)
    a.reset(1)
    b.reset(1)
    errors = []
    for k, row in enumerate(rows):
        errors.append(a.step(row) - b.step(row))
        gave = useful_steps(left, a.trace())
        if mode == "layers":
            twin_outputs = {pair.twin: pair.as_right(gave[pair.name]) for pair in pairs}
            other = {name: replayed.outputs for name, replayed in replay.action(row, twin_outputs).items()}
        else:
            other = useful_steps(right, b.trace())
        membranes = margins.action(row, gave)
        for ledger in ledgers:
            name, twin = ledger.pair.name, ledger.pair.twin
            ledger.add(k, gave[name], other[twin], membranes[name].membranes)
        if progress is not None:
            progress(k + 1, len(rows))
    layers = tuple(ledger.close() for ledger in ledgers)
    difference = np.abs(np.stack(errors))
    chooses = bool(a.contract.choices)
    limit = 0.0 if chooses else tolerance
    return Comparison(
        a=a.engine,
        b=b.engine,
        mode=mode,
        observations=len(rows),
        epsilon=epsilon,
        tolerance=tolerance,
        layers=layers,
        alone=alone(pairs, left, right),
        action_rms=None if chooses else float(np.sqrt(np.mean(difference**2))),
        action_max=None if chooses else float(difference.max()),
        actions_different=int(np.count_nonzero(difference.any(axis=1))),
        # What is not a number is beyond every tolerance.
        actions_beyond=int(np.count_nonzero(~(difference <= limit).all(axis=1))),
        first=earliest(layers),
    )


def earliest(layers: Sequence[LayerComparison]) -> Difference | None:
    """The first difference over all populations, in time, then depth; None where there is none."""
    firsts = [(layer.first, depth) for depth, layer in enumerate(layers) if layer.first is not None]
    return min(firsts, key=lambda f: (f[0].action or 0, f[0].step, f[1]), default=(None, 0))[0]


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
class Pair:
    """A population that both sides have. size: neurons compared; extra: the right side has a bias source more.

    name, twin: what it is called on the left and on the right side.
    """

    name: str
    twin: str
    left: Plan
    right: Plan
    size: int
    extra: bool

    @property
    def label(self) -> str:
        """What it is called in a result."""
        return self.name if self.name == self.twin else f"{self.name} | {self.twin}"

    def as_right(self, values: Array) -> Array:
        """What the left population gave, (T, ...), as the right one would have given it."""
        rows = values.reshape(len(values), -1)[:, : self.size]
        if self.extra:
            rows = np.concatenate([rows, np.ones((len(rows), 1), dtype=rows.dtype)], axis=1)
        return rows.reshape(len(rows), *self.right.step(self.twin).op.out_shape)


def alone(pairs: Sequence[Pair], left: Plan, right: Plan) -> tuple[str, ...]:
    """Names of the populations that one side has only."""
    sides = ((left, {pair.name for pair in pairs}), (right, {pair.twin for pair in pairs}))
    return tuple(unit.step.name for side, names in sides for unit in side.units if unit.step.name not in names)


def paired(left: Plan, right: Plan) -> list[Pair]:
    """Populations of the same name, in the order of the left plan; where no name is the same, populations in order.

    Raises:
        ContractError: there is none, or two are of different width.
    """
    named = {unit.step.name: unit for unit in right.units}
    twins = [(unit, named[unit.step.name]) for unit in left.units if unit.step.name in named]
    if not twins and _widths(left) == _widths(right):
        twins = list(zip(left.units, right.units, strict=True))
    if not twins:
        raise ContractError(
            "the two have no population of the same name, and not the same populations in order", where="compare"
        )
    return [_pair(left, right, unit, other) for unit, other in twins]


def _widths(plan: Plan) -> list[tuple[int, bool]]:
    return [(math.prod(unit.step.op.out_shape), unit.step.op.spikes) for unit in plan.units]


def _pair(left: Plan, right: Plan, unit: Unit, other: Unit) -> Pair:
    name, shapes = unit.step.name, (unit.step.op.out_shape, other.step.op.out_shape)
    if unit.step.op.spikes is not other.step.op.spikes:
        raise ContractError("spikes on one side and is read as a membrane on the other", where=name)
    # A convolution is unrolled by compiling: its values then stand in one row, in the same order.
    sizes = [math.prod(shape) for shape in shapes]
    extra = sizes[1] - sizes[0]
    if extra == 0 or (extra == 1 and bias_source(right, other)) or (extra == -1 and bias_source(left, unit)):
        return Pair(name, other.step.name, left, right, min(sizes), extra=extra == 1)
    raise ContractError(
        f"has shape {shapes[0]} on one side and {shapes[1]} on the other, and the surplus is no bias source",
        where=name,
        hint="compare a network with what it was compiled to",
    )


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


class Ledger:
    """Differences of one population, as they come."""

    def __init__(self, pair: Pair, epsilon: float, tolerance: float) -> None:
        op = pair.left.step(pair.name).op
        self.pair = pair
        self.spiking = op.spikes
        self.epsilon = epsilon
        self.tolerance = 0.0 if self.spiking else tolerance
        # Membranes are compared in the action's units, where float and integer mean the same.
        self.scales = (1.0, 1.0) if self.spiking else (_scale(pair.left, pair.name), _scale(pair.right, pair.twin))
        self.threshold = threshold_of(op)
        self.compared = self.different = self.near = 0
        self.largest = 0.0
        self.first: Difference | None = None

    def add(self, action: int | None, a: Array, b: Array, membranes: Array | None) -> None:
        """One action, or all steps of a stream: (T, ...) on each side; `membranes` of a."""
        size = self.pair.size
        x, y = (
            side.reshape(len(side), -1)[:, :size] * np.ravel(scale)  # floats from here on
            for side, scale in zip((a, b), self.scales, strict=True)
        )
        distance = np.abs(x - y)
        differs = ~(distance <= self.tolerance)
        self.compared += differs.size
        self.largest = max(self.largest, float(distance.max(initial=0.0)))
        if not differs.any():
            return
        self.different += int(differs.sum())
        if self.threshold is not None and membranes is not None:
            gap = np.abs(membranes - self.threshold).reshape(len(x), -1)[:, :size]
            self.near += int(((gap <= self.epsilon) & differs).sum())
        if self.first is None:
            step, neuron = (int(index) for index in np.argwhere(differs)[0])
            self.first = Difference(
                action, step, self.pair.label, neuron, float(x[step, neuron]), float(y[step, neuron])
            )

    def close(self) -> LayerComparison:
        """The population's result."""
        return LayerComparison(
            layer=self.pair.label,
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
