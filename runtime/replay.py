"""Single layers run on recorded inputs: what a layer would have done with what it was given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler import semantics
from nervecord.compiler.graph import Graph, delays
from nervecord.compiler.host import Host
from nervecord.compiler.node import Array, Node
from nervecord.compiler.semantics import State
from nervecord.compiler.verify import require
from nervecord.errors import ContractError


def useful_steps(graph: Graph, trace: Mapping[str, Array]) -> dict[str, Array]:
    """(T, n) of every neuron layer of one robot: the T steps of the last action that belong to it.

    With a reset window, layer l starts at its reset offset; else all layers work in all steps.
    """
    assert graph.contract is not None
    steps = graph.contract.steps
    found = {}
    for name, node in graph.of_type(*n.NEURONS):
        start = node.reset_offset if isinstance(node, (n.FixedLIF, n.FixedReadout)) and node.reset_interval else 0
        found[name] = trace[name][start : start + steps, 0]
    return found


@dataclass(slots=True)
class _Runner:
    """One connection and its neurons, from a source layer (None: the encoded observation)."""

    source: str | None
    connection: Node
    neuron: Node
    state: State
    pending: Array


class Replay:
    """Runs each layer of a policy alone.

    Args:
        graph: DISCRETE or INTEGER, a chain with a contract.

    Raises:
        ContractError: the graph carries no contract.
    """

    def __init__(self, graph: Graph) -> None:
        if graph.contract is None:
            raise ContractError("carries no contract", where="graph")
        self.contract = graph.contract
        self._host = Host(require(graph))
        self._runners: dict[str, _Runner] = {}
        previous: str | None = None
        for name in graph.order():
            node = graph.nodes[name]
            if not isinstance(node, n.NEURONS):
                continue
            (connection,) = graph.sources(name)
            self._runners[name] = _runner(previous, graph.nodes[connection], node)
            previous = name

    def action(self, observation: Array, given: Mapping[str, Array]) -> dict[str, tuple[Array, Array | None]]:
        """What every layer does in one action when the layer before it gives `given`, (T, n) each.

        Returns:
            layer -> (outputs (T, n), membranes before reset (T, n) of float neurons, else None).
        """
        sent = self._host.encode(observation[None])[: self.contract.steps, 0]
        return {
            name: _run(runner, sent if runner.source is None else given[runner.source], self.contract.state == "reset")
            for name, runner in self._runners.items()
        }


def _runner(source: str | None, connection: Node, neuron: Node) -> _Runner:
    if isinstance(neuron, (n.FixedLIF, n.FixedReadout)):
        # The window is the caller's here: inputs come without latency, state is cleared before each action.
        neuron = dataclasses.replace(neuron, reset_interval=0, reset_offset=0)
    return _Runner(source, connection, neuron, semantics.initial_state(neuron, 1), np.zeros((1, *connection.out_shape)))


def _run(runner: _Runner, inputs: Array, cleared: bool) -> tuple[Array, Array | None]:
    wanted = runner.connection.in_shape[0]
    if inputs.shape[1] == wanted - 1:
        # The bias channel of an integer layer: a neuron that spikes in every step.
        inputs = np.concatenate([inputs, np.ones((len(inputs), 1), dtype=inputs.dtype)], axis=1)
    inputs = inputs[:, :wanted]
    if cleared:
        runner.state = semantics.initial_state(runner.neuron, 1)
    outputs, membranes = [], []
    for x in inputs:
        y = semantics.product(runner.connection, x[None])
        if not cleared and delays(runner.connection):
            # Carried state: the connection's delay is part of the policy.
            y, runner.pending = runner.pending.astype(y.dtype), y
        if isinstance(runner.connection, n.Affine) and runner.connection.bias is not None:
            y = y + runner.connection.bias
        if isinstance(runner.neuron, (n.DiscreteLIF, n.DiscreteCubaLIF)):
            before = {key: value.copy() for key, value in runner.state.items()}
            membranes.append(semantics.float_membrane(runner.neuron, before, y)[0])
        outputs.append(semantics.step(runner.neuron, runner.state, y, 0)[0])
    return np.array(outputs), np.array(membranes) if membranes else None
