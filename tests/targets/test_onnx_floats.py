"""policy.onnx in floats: within an epsilon of the definition, step by step.

Where one spike differs the membrane lay within EPSILON of its threshold, and the two trajectories part, so that the
action is not looked at any further.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from policies import random_dag, random_policy, with_node
from singles import EPSILON, single

from nervecord.compiler.graph.graph import chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Affine, Flatten, Level, Membrane, Neuron, Scale, Spike, Threshold
from nervecord.compiler.ops.neurons import RESETS
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import plan
from nervecord.errors import GraphError
from nervecord.runtime.measure.replay import before_spike
from nervecord.targets.onnx.engine import OnnxSession

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


class Watched(Machine):
    """The definition, with the membranes of its neurons before they spike."""

    def reset(self, batch: int | None = None) -> None:
        super().reset(batch)
        self.membranes: dict[str, list[Any]] = {}

    def window(self, observation: Any) -> Any:
        self.membranes = {}
        for step in self.plan.core:
            if isinstance(step.op, Neuron):
                self._steppers[step.name] = self._watching(step.name, step.op)
        return super().window(observation)

    def _watching(self, name: str, op: Neuron) -> Any:
        def step(state: Any, x: Any) -> Any:
            before = {key: value.copy() for key, value in state.items()}
            self.membranes.setdefault(name, []).append(before_spike(op, before, x))
            return op.step(state, x)

        return step


def agree(machine: Watched, steps: list[dict[str, Any]], trace: dict[str, Any]) -> bool:
    """Whether an action's trace is the same but for EPSILON; else that its first difference is at a threshold."""
    for k, values in enumerate(steps):
        for step in machine.plan.core:
            expected, actual = values[step.name], trace[step.name][k]
            if not step.op.spikes:
                np.testing.assert_allclose(actual, expected, rtol=0, atol=EPSILON, err_msg=f"step {k}: {step.name}")
            elif (expected != actual).any():
                assert isinstance(step.op, Neuron)
                assert isinstance(step.op.spike, Spike)
                distance = np.abs(machine.membranes[step.name][k] - step.op.spike.threshold)
                assert distance[expected != actual].max() <= EPSILON, f"step {k}: {step.name}"
                return False
    return True


def assert_close(policy: Policy, rows: Any) -> int:
    """Every action within EPSILON, or parted at a threshold; returns how many were the same to the end."""
    machine, same = Watched(policy), 0
    with OnnxSession(policy) as session:
        for row in rows:
            action, steps = machine.window(single(row))
            actual = session.step(single(row))
            if not agree(machine, steps, session.trace()):
                machine.reset()
                session.reset()
                continue
            same += 1
            np.testing.assert_allclose(actual, action, rtol=0, atol=2 * EPSILON)
    return same


FLOATS: list[dict[str, Any]] = [
    {},
    {"current": True},
    {"state": "carried"},
    {"population": 5, "output_population": 4},
    {"population": 5, "state": "carried"},
    {"choices": True},
    {"choices": True, "output_population": 3},
]


@pytest.mark.parametrize("shape", FLOATS, ids=lambda shape: "-".join(shape) or "plain")
def test_floats_are_within_epsilon_of_the_definition(shape: dict[str, Any]) -> None:
    policy = random_policy(2, **shape)
    rows = np.random.default_rng(0).normal(size=(40, 1, 27)) * 2
    assert assert_close(policy, rows) >= 38


@pytest.mark.parametrize("seed", range(6))
def test_branching_float_policies(seed: int) -> None:
    policy = random_dag(seed, carried=seed % 2 == 1, recurrent=seed % 4 == 3)
    rows = np.random.default_rng(seed).normal(size=(25, 1, policy.contract.observation.size)) * 2
    assert assert_close(policy, rows) >= 23


def test_a_difference_that_is_none_of_a_threshold_is_found() -> None:
    """The comparison above can fail: another decay is no rounding."""
    policy = random_policy(2)
    op = policy.graph.nodes["lif1"]
    assert isinstance(op, Neuron)
    assert isinstance(op.membrane, Membrane)
    other = dataclasses.replace(op.membrane, decay=op.membrane.decay * 0.9)
    machine, refused = Watched(policy), 0
    with OnnxSession(with_node(policy, "lif1", op.replace(membrane=other))) as session:
        for row in np.random.default_rng(0).normal(size=(40, 1, 27)):
            _, steps = machine.window(single(row))
            session.step(single(row))
            try:
                agree(machine, steps, session.trace())
            except AssertionError:
                refused += 1
    assert refused > 5


CHANGES: list[dict[str, Any]] = [
    *({"reset": rule, "refractory": silent} for rule in RESETS for silent in (0, 2)),
    {"reset_value": 0.25},
]


@pytest.mark.parametrize("state", ["reset", "carried"])
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_every_reset_rule(changes: dict[str, Any], state: str) -> None:
    policy = random_policy(4, sizes=(6, 20, 3), state=state)
    op = policy.graph.nodes["lif1"]
    assert isinstance(op, Neuron)
    assert isinstance(op.spike, Spike)
    changes = {k: np.full(20, v) if k == "reset_value" else v for k, v in changes.items()}
    leaking = dataclasses.replace(op.membrane, leak=np.linspace(-0.1, 0.2, 20))
    policy = with_node(policy, "lif1", op.replace(spike=dataclasses.replace(op.spike, **changes), membrane=leaking))
    assert assert_close(policy, np.random.default_rng(1).normal(size=(30, 1, 6)) * 2) >= 28


def test_what_passes_values_on() -> None:
    """Scale, Flatten and Threshold beside connections."""
    base = random_policy(5, sizes=(4, 6, 2), population=0)
    ops = base.graph.nodes
    nodes = [
        ("observation", ops["observation"]),
        ("normalise", ops["normalise"]),
        ("scale", Scale(np.linspace(0.5, 2, 4))),
        ("flat", Flatten((4,), 0, -1)),
        ("fc1", ops["fc1"]),
        ("over", Threshold(np.full(6, 0.1))),
        ("fc2", ops["fc2"]),
        ("readout", ops["readout"]),
        ("decode", ops["decode"]),
        ("action", ops["action"]),
    ]
    policy = base.replace(graph=chain(Level.DISCRETE, nodes, dt=1e-3))
    machine = Machine(policy)
    with OnnxSession(policy) as session:
        for row in np.random.default_rng(2).normal(size=(30, 1, 4)):
            action, _ = machine.window(single(row))
            np.testing.assert_allclose(session.step(single(row)), action, atol=EPSILON)


def test_affine_without_input_is_its_bias() -> None:
    """A delay that nothing has left yet: zeros, and the bias is there from the first step on."""
    policy = random_policy(7, sizes=(3, 6, 2), steps=4, state="reset")
    op = policy.graph.nodes["fc1"]
    assert isinstance(op, Affine)
    policy = with_node(policy, "fc1", op.replace(delay=2))
    assert assert_close(policy, np.random.default_rng(0).normal(size=(20, 1, 3)) * 3) >= 18
    with pytest.raises(GraphError):
        plan(policy.graph.replace(level=Level.IMPORTED))
