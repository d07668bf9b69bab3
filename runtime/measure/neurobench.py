"""What a policy costs in the names of NeuroBench (Yik et al. 2025, arXiv 2304.04640; the package neurobench 2.3.0).

Counted by the definition over the observations of an episode; every exact engine does the same. A call of a layer is
one core step of a connection. Of a program all steps of the window count, those of the pipeline's latency too, as a
chip takes them.

    footprint             bytes of weights, of the other parameters and of the neurons' state
    parameter count       weights and biases
    connection sparsity   zero weights, of all
    activation sparsity   outputs of spiking populations that are zero, of all
    synaptic operations   Dense: every weight at every call. Effective: weight and input are not zero. They are
                          accumulates (ACs) where all inputs of the call are -1, 0 or 1, else multiply-accumulates
                          (MACs). Biases do not count
    membrane updates      membranes that a step changed; in the first step after clearing, all
    execution rate        actions per second that the contract asks for
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.blas import matmul
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array, Level, Matrix, fields
from nervecord.compiler.plan.host_steps import split
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import ContractError

FLOAT_BYTES = 4
"""Of a parameter or a state variable: float32, in which policies are trained, or a whole number of 32 bits."""
WEIGHTS = ("weight", "values")
"""What connections call their weights."""


@dataclass(frozen=True, slots=True)
class NeuroBench:
    """NeuroBench's metrics. What happens is a mean per action; times `actions` it is that of the episode.

    Args:
        footprint: bytes. parameter_count: weights and biases. connection_sparsity: 0..1.
        actions: that were taken.
        activation_sparsity: 0..1.
        dense, effective_macs, effective_acs: synaptic operations per action.
        membrane_updates: per action.
        execution_rate: Hz.
    """

    footprint: int
    parameter_count: int
    connection_sparsity: float
    actions: int
    activation_sparsity: float
    dense: float
    effective_macs: float
    effective_acs: float
    membrane_updates: float
    execution_rate: float

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, by NeuroBench's names; what happens per action and per episode."""

        def operations(times: int) -> dict[str, float]:
            return {
                "Dense": self.dense * times,
                "Effective_MACs": self.effective_macs * times,
                "Effective_ACs": self.effective_acs * times,
            }

        return {
            "Footprint": self.footprint,
            "ParameterCount": self.parameter_count,
            "ConnectionSparsity": self.connection_sparsity,
            "ActivationSparsity": self.activation_sparsity,
            "ModelExecutionRate": self.execution_rate,
            "actions": self.actions,
            "per_action": {"SynapticOperations": operations(1), "MembraneUpdates": self.membrane_updates},
            "per_episode": {
                "SynapticOperations": operations(self.actions),
                "MembraneUpdates": self.membrane_updates * self.actions,
            },
        }


def neurobench(policy: Policy, observations: Array) -> NeuroBench:
    """The metrics of a policy over the observations of one episode.

    Args:
        policy: DISCRETE or INTEGER. observations: (actions, observations), in their order; state is carried from one to
            the next where the policy carries it.

    Raises:
        GraphError: the policy is not executable.
        ContractError: the observations are none, or not the contract's.
    """
    policy_plan = plan(policy)
    size = policy.contract.observation.size
    rows = np.asarray(observations, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != size or not len(rows):
        raise ContractError(f"have shape {rows.shape}, (actions, {size}) is needed", where="observations")
    counted = _Count(policy_plan)
    for row in rows:
        counted.action(row)
    count = len(rows)
    zeros, weights = _weights(policy_plan)
    return NeuroBench(
        footprint=_footprint(policy_plan),
        parameter_count=weights + _biases(policy_plan),
        connection_sparsity=zeros / weights if weights else 0.0,
        actions=count,
        activation_sparsity=1 - counted.active / counted.outputs if counted.outputs else 0.0,
        dense=counted.dense / count,
        effective_macs=counted.macs / count,
        effective_acs=counted.acs / count,
        membrane_updates=counted.updates / count,
        execution_rate=1 / policy.contract.control_period,
    )


class _Count:
    """Runs one robot and counts."""

    def __init__(self, plan: Plan) -> None:
        self.machine = Machine(plan, 1)
        self.plan = plan
        self.active = self.outputs = self.dense = self.macs = self.acs = self.updates = 0
        self._synapses = {step.name: step.op.synapses() for step in plan.connections}
        self._clears_block = plan.graph.level is Level.DISCRETE and plan.schedule.resets
        self._before: dict[str, Array] = {}

    def action(self, observation: Array) -> None:
        """One action."""
        machine, first = self.machine, self.machine.t
        for k, values in enumerate(machine.steps(split(machine.plan, observation[None]))):
            self._count_connections({**{name: rows[k] for name, rows in machine.entered.items()}, **values})
            self._count_populations(values, first + k, fresh=k == 0 and self._clears_block)

    def _count_connections(self, values: dict[str, Array]) -> None:
        """Counted when they are sent, whatever the connection's delay."""
        for step in self.plan.connections:
            synapses = self._synapses[step.name]
            assert synapses is not None
            x = sum(values[tap.source] for tap in step.taps)
            effective = int(matmul((np.asarray(x)[0] != 0).ravel(), synapses.fan_out))
            self.dense += synapses.stored
            if np.isin(x, (-1, 0, 1)).all():
                self.acs += effective
            else:
                self.macs += effective

    def _count_populations(self, values: dict[str, Array], t: int, *, fresh: bool) -> None:
        for unit in self.plan.units:
            name = unit.step.name
            if unit.step.op.spikes:
                self.active += int(np.count_nonzero(values[name]))
                self.outputs += values[name].size
            v = self.machine.state[name].get("v")
            if v is None:
                continue
            cleared = fresh or t == 0 or (self.plan.graph.level is Level.INTEGER and self.plan.clears(unit.step, t))
            self.updates += v.size if cleared else int(np.count_nonzero(v != self._before[name]))
            self._before[name] = v.copy()


def _arrays(value: object) -> Iterator[tuple[str, Array]]:
    """The arrays that an op or one of its parts declares."""
    for name, _ in fields.declarations(type(value)):
        value_of = getattr(value, name)
        if isinstance(value_of, np.ndarray):
            yield name, value_of
        elif dataclasses.is_dataclass(value_of):
            yield from _arrays(value_of)


def _weights(plan: Plan) -> tuple[int, int]:
    """Zero weights, and all."""
    zeros = places = 0
    for step in plan.connections:
        op = step.op
        stored = (
            op.stored
            if isinstance(op, Matrix)
            else np.concatenate([array.ravel() for name, array in _arrays(op) if name in WEIGHTS])
        )
        # What is stored without its zeros has them none the less.
        count = op.in_shape[0] * op.out_shape[0] if isinstance(op, Matrix) else stored.size
        places += count
        zeros += count - int(np.count_nonzero(stored))
    return zeros, places


def _biases(plan: Plan) -> int:
    """Biases, which integers have in the membrane."""
    return sum(array.size for step in plan.core for name, array in _arrays(step.op) if name == "bias")


def _footprint(plan: Plan) -> int:
    """Bytes: weights in the bits that they are stored in, everything else in 32."""
    bits = 0
    for step in plan.core:
        for name, array in _arrays(step.op):
            width = getattr(step.op, "weight_bits", 8 * FLOAT_BYTES) if name in WEIGHTS else 8 * FLOAT_BYTES
            bits += array.size * width
        bits += sum(values.size for values in step.op.state(1).values()) * 8 * FLOAT_BYTES
    return -(-bits // 8)
