"""Networks and policies in every engine that is here, beside what the definition makes of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from conformance.pairs import Row
from conformance.templates import CLIP, SCALE, SCHEDULES

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array, Level
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import MissingDependencyError
from nervecord.runtime.engines.c.session import CSession, CStream
from nervecord.runtime.engines.emulator.session import EmulatorSession, EmulatorStream
from nervecord.runtime.session import MachineSession
from nervecord.runtime.stream import MachineStream
from nervecord.targets.onnx.engine import OnnxSession, OnnxStream

QUICK = ("-O0",)
"""What C computes is not the optimiser's affair."""


def torch_stream(network_plan: Plan, **options: Any) -> Any:
    pytest.importorskip("torch")
    from nervecord.runtime.engines.torch.session import BatchedStream

    return BatchedStream(network_plan, **options)


def torch_session(policy: Policy, batch: int) -> Any:
    pytest.importorskip("torch")
    from nervecord.runtime.engines.torch.session import BatchedSession

    return BatchedSession(policy, batch)


Streams = Mapping[str, Callable[[Plan], Any]]
INTEGERS: Streams = {
    "emulator": EmulatorStream,
    "emulator, wide": lambda network_plan: EmulatorStream(network_plan, wide=True),
    "emulator, instructions": lambda network_plan: EmulatorStream(network_plan, fast=False),
    "torch": torch_stream,
    "onnx": OnnxStream,
    "c": lambda network_plan: CStream(network_plan, flags=QUICK),
}
FLOATS: Streams = {"torch": torch_stream, "onnx": OnnxStream}
NEAR = {"torch": 1e-9, "onnx": 1e-4}
"""What float64 and float32 leave between the definition's values and theirs; no spike may differ, as no membrane here
is as near to its threshold."""
POLICIES: Mapping[str, Callable[[Policy, int], Any]] = {
    "emulator": EmulatorSession,
    "emulator, host apart": lambda policy, batch: EmulatorSession(policy, batch, fuse=False),
    "torch": torch_session,
    "onnx": lambda policy, batch: OnnxSession(policy, batch=batch),
    "c": lambda policy, batch: CSession(policy, batch, flags=QUICK),
}


def opened(make: Callable[..., Any], *arguments: Any) -> Any:
    """A session; where what it needs is not installed, the test is skipped."""
    try:
        return make(*arguments)
    except MissingDependencyError as error:
        pytest.skip(str(error))


@dataclass(frozen=True)
class Run:
    """A network, what enters it, and what the definition makes of that.

    Args:
        row: what was chosen.
        blocks: by Input. outputs, traces: of each block. states: after each block.
    """

    row: Row
    plan: Plan
    blocks: list[dict[str, Array]]
    outputs: list[dict[str, Array]]
    traces: list[dict[str, Array]]
    states: list[dict[str, dict[str, Array]]]


def run_of(row: Row, graph: Graph, count: int = 20) -> Run:
    """The definition on some blocks of values and spikes."""
    schedule = SCHEDULES[row.get("schedule", "carried")]
    network_plan = plan(graph, schedule)
    blocks = list(_blocks(graph, schedule.steps, count // schedule.steps))
    run = Run(row, network_plan, blocks, [], [], [])
    with MachineStream(network_plan) as session:
        for block in blocks:
            run.outputs.append({name: rows.copy() for name, rows in session.step(block).items()})
            run.traces.append(session.trace())
            run.states.append(session.state())
    return run


def _blocks(graph: Graph, steps: int, count: int) -> Iterator[dict[str, Array]]:
    """Values and spikes at random; then for a while the largest, beyond what a limit allows, later the smallest."""
    rng = np.random.default_rng(7)
    high, low = (range(first, first + max(count // 5, 1)) for first in (count // 4, count // 2))
    whole = graph.level is Level.INTEGER
    for k in range(count):
        block = {}
        for name in graph.inputs:
            op: Any = graph.nodes[name]
            shape = (steps, 1, *op.in_shape)
            if op.spikes:
                block[name] = (rng.random(shape) < (1.0 if k in high else 0.0 if k in low else 0.5)).astype(np.float64)
                continue
            most = 3.0 if op.limit is None else min(op.limit + 1, LARGEST)
            x = rng.uniform(-most, most, size=shape).astype(np.float32).astype(np.float64)
            x = np.trunc(x) if whole else x
            block[name] = np.full(shape, most) if k in high else np.full(shape, -most) if k in low else x
        yield block


def assert_equal(run: Run, session: Any, tolerance: float = 0.0) -> None:
    """What leaves and what every population gives in its useful steps."""
    with session:
        for k, block in enumerate(run.blocks):
            actual = session.step(block)
            trace = session.trace()
            for name, rows in run.outputs[k].items():
                np.testing.assert_allclose(actual[name], rows, tolerance, tolerance, err_msg=f"{run.row}, {k}: {name}")
            for unit in run.plan.units:
                name, at = unit.step.name, run.plan.useful(unit.step.name)
                expected = run.traces[k][name][at]
                near = 0.0 if unit.step.op.spikes else tolerance
                np.testing.assert_allclose(trace[name][at], expected, near, near, err_msg=f"{run.row}, {k}: {name}")


def part_of(every: bool, engine: str, engines: Mapping[str, Any], runs: list[Any]) -> list[Any]:
    """All runs, or, of an engine that is not the first one, every third of them, another one for the next engine."""
    number = list(engines).index(engine)
    return runs if every or not number else runs[number % 3 :: 3]


every_row = pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["part", "all"])


# --------------------------------------------------------------------------------------------------------------------
# Policies


@dataclass(frozen=True)
class Actions:
    """A policy, what it observed, and what the definition did."""

    row: Row
    policy: Policy
    observations: Array
    expected: list[Array]
    reasons: list[Any]


TIES = [sign * (k + 0.5) / SCALE for k in range(4) for sign in (1, -1)]
"""Observations that the channel whose divisor is 1 makes the middle between two integers."""
LARGEST = float(np.finfo(np.float32).max)
BOUNDARIES = [
    0.0,
    -0.0,
    *TIES,
    0.5,
    -0.5,
    1.5,
    -1.5,
    2.0,
    -2.0,
    5.5,
    -5.5,
    6.5,
    -6.5,
    CLIP,
    -CLIP,
    100.0,
    LARGEST,
    -LARGEST,
    1e-45,
    -1e-45,
    float(np.nextafter(np.float32(5.5), np.float32(6))),
    np.nan,
    np.inf,
]


def actions_of(row: Row, policy: Policy) -> Actions:
    """Three actions, each robot with one value of the boundaries in all channels, and then another."""
    size = policy.contract.observation.size
    values = np.array(BOUNDARIES, dtype=np.float32).astype(np.float64)
    x = np.stack([np.repeat(np.roll(values, 5 * k)[:, None], size, axis=1) for k in range(3)])
    x[2, :, ::2] = x[0, :, ::2]
    expected, reasons = [], []
    with MachineSession(policy, batch=len(values)) as session:
        for rows in x:
            expected.append(session.step(rows).copy())
            reasons.append(session.last.reasons)  # type: ignore[union-attr]
    return Actions(row, policy, x, expected, reasons)


def assert_same_actions(run: Actions, engine: str) -> None:
    """To the bit, where an action is a float32 rounded, and why each was taken."""
    with opened(POLICIES[engine], run.policy, run.observations.shape[1]) as session:
        for k, x in enumerate(run.observations):
            actual, expected = session.step(x), run.expected[k]
            expected = expected.astype(np.float32).astype(np.float64) if engine in ("onnx", "c") else expected
            np.testing.assert_array_equal(actual, expected, err_msg=f"{run.row}, {k}")
            np.testing.assert_array_equal(np.signbit(actual), np.signbit(expected), err_msg=f"{run.row}, {k}: sign")
            assert session.last.reasons == run.reasons[k], run.row
