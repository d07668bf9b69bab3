"""Where two streams part: the first step, population and neuron, for networks that are no policies.

Two networks of other tools, or a network and its program, run on one recording. On a target whose connections cost
steps a population of a program with carried state works some steps later than in the network. The shift of each
population follows from the two graphs: balanced delays make every path longer by the same number of steps, so it is the
difference of the shortest ones. Step k means the same on both sides after it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.ops import Array, Level
from nervecord.compiler.plan.interpret import stream_inputs
from nervecord.compiler.plan.plan import Plan
from nervecord.errors import ContractError
from nervecord.runtime.measure.compare import Comparison, Ledger, Mode, alone, earliest, paired
from nervecord.runtime.measure.replay import Replay, useful_steps
from nervecord.runtime.stream import StreamSession


def compare_streams(
    a: StreamSession,
    b: StreamSession,
    inputs: Array | Mapping[str, Array],
    *,
    mode: Mode = "free",
    epsilon: float = 1e-9,
    tolerance: float | None = None,
) -> Comparison:
    """Drive two streams over the same recording.

    Args:
        a, b: sessions of graphs that are no policies.
        inputs: Input -> (steps, n), or the one array of a graph that has one Input.
        mode, epsilon, tolerance: of `compare.compare`; membranes are compared in the units of what leaves.

    Raises:
        ContractError: the two clear their state at different steps, or have no population in common.
        GraphError: the recording is not what one of the two takes.
    """
    left, right = a.plan, b.plan
    if left.schedule != right.schedule:
        raise ContractError(
            f"one clears its state {_rule(left)}, the other {_rule(right)}",
            where="compare",
            hint="--steps N says it of a network, a program says it itself",
        )
    pairs = paired(left, right)
    if tolerance is None:
        tolerance = 0.0 if left.graph.level is right.graph.level else 0.01
    recordings = [_recording(side.graph, inputs) for side in (a, b)]
    steps = len(next(iter(recordings[0].values())))
    shifts = _Shifts(left, right)
    later = [shifts.of(pair.name, pair.twin) for pair in pairs]
    ends = [shifts.of(*names) for names in zip(left.graph.outputs, right.graph.outputs, strict=False)]
    spare = max(map(abs, (*later, *ends)), default=0)
    filled, twins = (_filled(recording, spare) for recording in recordings)
    membranes, margins = _Rows(), Replay(left)

    def left_rows(first: int, block: dict[str, Array]) -> dict[str, Array]:
        rows = useful_steps(left, a.trace())
        replayed = margins.block(block, rows)
        membranes.add({name: it.membranes for name, it in replayed.items() if it.membranes is not None})
        return rows

    def right_rows(first: int, block: dict[str, Array]) -> dict[str, Array]:
        if mode == "free":
            return useful_steps(right, b.trace())
        heard = {
            pair.twin: pair.as_right(_window(own[pair.name], first - shift, right.schedule.steps))
            for pair, shift in zip(pairs, later, strict=True)
        }
        return {name: replayed.outputs for name, replayed in replay.block(block, heard).items()}

    replay = Replay(right)
    own, left_a = _traced(a, filled, left_rows)
    other, left_b = _traced(b, twins, right_rows)
    before_spikes = membranes.joined()
    ledgers = [Ledger(pair, epsilon, tolerance) for pair in pairs]
    for ledger, pair, shift in zip(ledgers, pairs, later, strict=True):
        begin = max(0, -shift)
        ledger.add(
            None,
            _window(own[pair.name], begin, steps),
            _window(other[pair.twin], begin + shift, steps),
            _window(before_spikes[pair.name], begin, steps) if pair.name in before_spikes else None,
        )
    layers = tuple(ledger.close() for ledger in ledgers)
    apart = _outputs(left_a, left_b, left, right, shifts, steps)
    return Comparison(
        a=a.engine,
        b=b.engine,
        mode=mode,
        observations=steps,
        epsilon=epsilon,
        tolerance=tolerance,
        layers=layers,
        alone=alone(pairs, left, right),
        action_rms=float(np.sqrt(np.mean(apart**2))),
        action_max=float(apart.max(initial=0.0)),
        actions_different=int(np.count_nonzero(apart.any(axis=1))),
        actions_beyond=int(np.count_nonzero(~(apart <= tolerance).all(axis=1))),
        first=earliest(layers),
        stream=True,
    )


def _rule(plan: Plan) -> str:
    return f"before each block of {plan.schedule.steps} steps" if plan.schedule.resets else "never"


def _recording(graph: Graph, inputs: Array | Mapping[str, Array]) -> dict[str, Array]:
    """Input -> (steps, 1, ...). One recording is for the only Input, whatever it is called in either graph."""
    if isinstance(inputs, Mapping) and len(inputs) == len(graph.inputs) == 1:
        inputs = next(iter(inputs.values()))
    return {name: rows[:, :1] for name, rows in stream_inputs(graph, inputs).items()}


def _filled(recording: dict[str, Array], spare: int) -> dict[str, Array]:
    """The recording and so many steps of zeros."""
    return {name: np.concatenate([x, np.zeros((spare, *x.shape[1:]))]) for name, x in recording.items()}


class _Rows:
    """Rows by name, as they come."""

    def __init__(self) -> None:
        self._found: dict[str, list[Array]] = {}

    def add(self, rows: Mapping[str, Array]) -> None:
        for name, values in rows.items():
            self._found.setdefault(name, []).append(values)

    def joined(self) -> dict[str, Array]:
        return {name: np.concatenate(values) for name, values in self._found.items()}


def _traced(
    session: StreamSession, recording: dict[str, Array], rows_of: Callable[[int, dict[str, Array]], dict[str, Array]]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Run a recording from cleared state.

    Args:
        rows_of: (first step of a block, Input -> (T, 1, ...)) -> population -> (T, ...), after the block was run.

    Returns:
        Population -> (steps, ...), Output -> (steps, ...).
    """
    session.reset(1)
    traces, outputs = _Rows(), _Rows()
    binary = {name for name, op in session.graph.nodes.items() if op.spikes and session.graph.level is Level.DISCRETE}
    for first, block in _blocks(recording, session.plan.schedule.steps):
        left: dict[str, Array] = session.step(block)
        outputs.add({name: rows[:, 0] for name, rows in left.items()})
        rows = rows_of(first, block)
        traces.add({name: row.astype(np.int8) if name in binary else row for name, row in rows.items()})
    return traces.joined(), outputs.joined()


def _blocks(recording: dict[str, Array], count: int) -> Iterator[tuple[int, dict[str, Array]]]:
    """(first step, Input -> (count, 1, ...)), the last block filled up with zeros."""
    steps = len(next(iter(recording.values())))
    for first in range(0, steps, count):
        block = {name: x[first : first + count] for name, x in recording.items()}
        missing = count - min(count, steps - first)
        yield first, _filled(block, missing) if missing else block


def _window(rows: Array, first: int, count: int) -> Array:
    """Rows first .. first + count - 1; zeros where there are none."""
    inside = rows[max(first, 0) : max(first + count, 0)]
    before = min(max(-first, 0), count)
    full = np.zeros((count, *rows.shape[1:]), dtype=rows.dtype)
    full[before : before + len(inside)] = inside
    return full


class _Shifts:
    """By how many steps what is on the right side works later than on the left."""

    def __init__(self, left: Plan, right: Plan) -> None:
        # Where state is cleared before each block the plan's phases make up for it.
        self._sides = None if left.schedule.resets else (_shortest(left.graph), _shortest(right.graph))

    def of(self, name: str, twin: str) -> int:
        if self._sides is None:
            return 0
        return self._sides[1].get(twin, 0) - self._sides[0].get(name, 0)


def _shortest(graph: Graph) -> dict[str, int]:
    """Node -> fewest steps from an Input to it (Dijkstra); what no Input reaches is left out."""
    steps_to: dict[str, int] = {}
    waiting = [(0, name) for name in graph.inputs]
    while waiting:
        steps, name = heapq.heappop(waiting)
        if name in steps_to:
            continue
        steps_to[name] = steps
        for b in graph.destinations(name):
            heapq.heappush(waiting, (steps + graph.nodes[b].lag, b))
    return steps_to


def _outputs(a: dict[str, Array], b: dict[str, Array], left: Plan, right: Plan, shifts: _Shifts, steps: int) -> Array:
    """(steps, values): distances of what leaves, Output by Output in order.

    Raises:
        ContractError: the two do not have the same Outputs.
    """
    sizes: list[list[int]] = [[plan.graph.nodes[n].size for n in plan.graph.outputs] for plan in (left, right)]
    if sizes[0] != sizes[1]:
        raise ContractError(f"one has Outputs of {sizes[0]} values, the other of {sizes[1]}", where="compare")
    differences = []
    for name, twin in zip(left.graph.outputs, right.graph.outputs, strict=True):
        shift = shifts.of(name, twin)
        begin = max(0, -shift)
        rows = [_window(values, start, steps) for values, start in ((a[name], begin), (b[twin], begin + shift))]
        differences.append(np.abs(rows[0].astype(np.float64) - rows[1]).reshape(steps, -1))
    return np.concatenate(differences, axis=1)
