"""Where two runs of a policy part: the first action, step, layer and neuron, and how far apart they end.

Two modes. "free": each session runs on its own; one flipped spike changes what follows, as in closed loop. "layers":
every layer of b is fed what the layer before it gave in a, so a difference is that layer's own.

A target with pipeline latency runs layer l some steps late; steps are counted within each layer's useful ones, so that
step k of a layer means the same on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.graph import Graph
from nervecord.compiler.node import Array
from nervecord.errors import ContractError, unknown_name
from nervecord.runtime.replay import Replay, useful_steps
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
    """One layer.

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
        action_rms, action_max: of the actions' differences; None where an action is a choice.
        actions_different: observations on which the actions are not the same.
        first: the earliest difference over all layers, in time, then depth.
    """

    a: str
    b: str
    mode: Mode
    observations: int
    epsilon: float
    tolerance: float
    layers: tuple[LayerComparison, ...]
    action_rms: float | None
    action_max: float | None
    actions_different: int
    first: Difference | None

    @property
    def identical(self) -> bool:
        """Whether nothing differed, actions included."""
        return self.first is None and self.actions_different == 0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**asdict(self), "layers": [asdict(layer) for layer in self.layers], "identical": self.identical}


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
        a, b: sessions over graphs with the same layer names, such as a policy and what it was compiled to.
        observations: (k, observations), in order where state is carried.
        mode: "free" or "layers".
        epsilon: of |v - threshold|, for `LayerComparison.near`.
        tolerance: membranes of a readout that differ by no more count as equal, in the action's units; by default 0
            where both compute in the same arithmetic, 0.01 where one is float and the other integer.

    Raises:
        ContractError: the two do not take the same observations, or have no layer in common.
    """
    if mode not in get_args(Mode):
        raise unknown_name("mode", mode, get_args(Mode))
    rows = np.asarray(observations, dtype=np.float64)
    for session in (a, b):
        size = session.contract.observation.size
        if rows.ndim != 2 or rows.shape[1] != size or len(rows) == 0:
            raise ContractError(f"have shape {rows.shape}, (k, {size}) is needed", where="observations")
    if not np.isfinite(rows).all():
        raise ContractError("hold NaN or infinite values", where="observations")  # both would give fail-safe actions
    if a.contract.choices != b.contract.choices:
        raise ContractError("the two policies do not choose among the same actions", where="compare")
    if a.contract.steps != b.contract.steps or a.contract.state != b.contract.state:
        raise ContractError("the two policies do not have the same steps per action and state rule", where="compare")
    shared = [name for name, _ in a.graph.of_type(*n.NEURONS) if name in b.graph.nodes]
    if not shared:
        raise ContractError("the two policies have no layer of the same name", where="compare")
    a.reset(1)
    b.reset(1)
    if tolerance is None:
        tolerance = 0.0 if a.graph.level is b.graph.level else 0.01
    ledgers = {name: _Ledger(name, a.graph, b.graph, epsilon, tolerance) for name in shared}
    margins, replay = Replay(a.graph), Replay(b.graph)
    errors = []
    for k, row in enumerate(rows):
        errors.append(a.step(row) - b.step(row))
        left = useful_steps(a.graph, a.trace())
        right = useful_steps(b.graph, b.trace())
        if mode == "layers":
            right = {name: values for name, (values, _) in replay.action(row, left).items()}
        near = {name: membranes for name, (_, membranes) in margins.action(row, left).items()}
        for name in shared:
            ledgers[name].add(k, left[name], right[name], near[name])
        if progress is not None:
            progress(k + 1, len(rows))
    layers = tuple(ledger.close() for ledger in ledgers.values())
    found = [(layer.first, depth) for depth, layer in enumerate(layers) if layer.first is not None]
    first = min(found, key=lambda f: (f[0].action, f[0].step, f[1]), default=(None, 0))[0]
    difference = np.stack(errors)
    chooses = bool(a.contract.choices)
    return Comparison(
        a=a.engine,
        b=b.engine,
        mode=mode,
        observations=len(rows),
        epsilon=epsilon,
        tolerance=tolerance,
        layers=layers,
        action_rms=None if chooses else float(np.sqrt(np.mean(difference**2))),
        action_max=None if chooses else float(np.abs(difference).max()),
        actions_different=int(np.count_nonzero(difference.any(axis=1))),
        first=first,
    )


class _Ledger:
    """Differences of one layer, as they come."""

    def __init__(self, name: str, a: Graph, b: Graph, epsilon: float, tolerance: float) -> None:
        node = a.nodes[name]
        self.name = name
        self.spiking = isinstance(node, n.SPIKING)
        self.epsilon = epsilon
        self.tolerance = 0.0 if self.spiking else tolerance
        # Membranes are compared in the action's units, where float and integer mean the same.
        self.scales = (1.0, 1.0) if self.spiking else (_action_scale(a, name), _action_scale(b, name))
        self.threshold: Array | None = node.threshold if isinstance(node, _FLOAT_SPIKING) else None
        self.compared = self.different = self.near = 0
        self.largest = 0.0
        self.first: Difference | None = None

    def add(self, action: int, a: Array, b: Array, membranes: Array | None) -> None:
        """One action: (T, n) on each side, the integer side perhaps with a bias neuron more; `membranes` of a."""
        size = min(a.shape[1], b.shape[1])
        x, y = a[:, :size] * self.scales[0], b[:, :size] * self.scales[1]  # (T, n), floats from here on
        differs = np.abs(x - y) > self.tolerance
        self.compared += differs.size
        self.largest = max(self.largest, float(np.abs(x - y).max(initial=0.0)))
        if not differs.any():
            return
        self.different += int(differs.sum())
        if self.threshold is not None and membranes is not None:
            close = np.abs(membranes[:, :size] - self.threshold[:size]) <= self.epsilon
            self.near += int((close & differs).sum())
        if self.first is None:
            step, neuron = (int(index) for index in np.argwhere(differs)[0])
            self.first = Difference(action, step, self.name, neuron, float(x[step, neuron]), float(y[step, neuron]))

    def close(self) -> LayerComparison:
        """The layer's result."""
        return LayerComparison(
            layer=self.name,
            spiking=self.spiking,
            compared=self.compared,
            different=self.different,
            near=self.near if self.threshold is not None else None,
            largest=self.largest,
            first=self.first,
        )


_FLOAT_SPIKING = (n.DiscreteLIF, n.DiscreteCubaLIF)


def _action_scale(graph: Graph, name: str) -> float | Array:
    """Factor from a readout's membrane to the action's units, or a preference's; 1 where no decoder follows."""
    for following in graph.destinations(name):
        node = graph.nodes[following]
        if isinstance(node, (n.Decode, n.ArgmaxDecode)):
            return node.scale
    return 1.0
