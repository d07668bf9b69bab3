"""The host's side of a policy: from the observation to what enters the core at each step, from the core to the action.

Every engine goes through it, or is tested against it. The observation is encoded once per action: it is held over the T
steps (real values, graded integers), or becomes T steps of spikes (`PopulationEncode`). What leaves the core is read in
the last step (`Decode`, `ArgmaxDecode`), or counted over the last layer's T steps (`CountDecode`, `CountArgmaxDecode`),
which are the window's last ones.
"""

from __future__ import annotations

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler import population, semantics
from nervecord.compiler.graph import Graph, Level
from nervecord.compiler.node import Array
from nervecord.errors import ContractError


class Host:
    """The host nodes of a graph, with their state.

    Args:
        graph: DISCRETE or INTEGER, legal.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.contract = graph.contract
        order = graph.order()
        self.before = _prefix(graph)
        """Input and host nodes before the core, in order; empty for a graph without host nodes there."""
        decoders = tuple(name for name in order if isinstance(graph.nodes[name], n.AFTER_CORE))
        self.after = (*decoders, *graph.outputs) if decoders else ()
        """Host nodes after the core and the Output, in order; empty for a graph without host nodes there."""
        self.reset()

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the nodes whose values enter the core: the last host node before it, or the graph's Inputs."""
        return (self.before[-1],) if self.before else self.graph.inputs

    @property
    def readouts(self) -> tuple[str, ...]:
        """Names of the nodes whose values leave the core."""
        return self.graph.sources(self.after[0]) if self.after else self.graph.outputs

    def reset(self) -> None:
        """Back to the state before the first action."""
        self._v: Array | None = None

    def clear(self, rows: Array) -> None:
        """The state of some copies (indices or mask) back to that before the first action."""
        if self._v is not None:
            self._v[rows] = 0

    def encode(self, observation: Array) -> Array:
        """What enters the core in one action.

        Args:
            observation: (batch, observations); with carried state the same copies in every call.

        Returns:
            (window, batch, n): T steps of the encoded observation, then zeros while the pipeline drains. Float64 at the
            discrete level, integers at the integer level.

        Raises:
            ContractError: the graph carries no contract.
        """
        if self.contract is None:
            raise ContractError("the graph carries no contract, so no action can be made of it", where="graph")
        steps = self.contract.steps
        x = np.asarray(observation, dtype=np.float64)
        sent: Array | None = None
        for name in self.before:
            node = self.graph.nodes[name]
            if isinstance(node, n.PopulationEncode):
                sent = self._pulses(node, x, steps)
            else:
                x = semantics.step(node, {}, x, 0)
        held = np.broadcast_to(x, (steps, *x.shape)) if sent is None else sent
        dtype = np.float64 if self.graph.level is Level.DISCRETE else np.int64
        block = np.zeros((self.contract.window, *held.shape[1:]), dtype=dtype)
        block[:steps] = held
        return block

    def _pulses(self, node: n.PopulationEncode, x: Array, steps: int) -> Array:
        units = population.activation(node, x)
        assert self.contract is not None
        if self.contract.state == "reset" or self._v is None:
            self._v = np.zeros_like(units)
        sent, self._v = population.pulses(node, units, self._v, steps)
        return sent

    def decode(self, readout: Array) -> Array:
        """The action from what the readout gave.

        Args:
            readout: (steps, batch, n) in all steps of the window; one that reads membranes looks at the last alone.

        Returns:
            (batch, actions); of a policy that chooses (batch, 1), the number of its action.
        """
        y = np.asarray(readout[-1], dtype=np.float64)
        for name in self.after:
            node = self.graph.nodes[name]
            if isinstance(node, n.CountDecode):
                assert self.contract is not None
                y = semantics.count_decode(node, readout[-self.contract.steps :].sum(axis=0))
            elif isinstance(node, n.CountArgmaxDecode):
                y = semantics.first_largest(self.preferences(readout))
            else:
                y = semantics.step(node, {}, y, 0)
        return y

    def preferences(self, readout: Array) -> Array:
        """What a policy that chooses holds of each of its actions, (batch, choices), in units of the float policy.

        Args:
            readout: as for `decode`.

        Raises:
            ContractError: it does not choose, its actions are values.
        """
        node = self.graph.nodes[self.after[0]] if self.after else None
        if isinstance(node, n.ArgmaxDecode):
            return np.asarray(readout[-1], dtype=np.float64) * node.scale
        if isinstance(node, n.CountArgmaxDecode):
            assert self.contract is not None
            return semantics.weigh_counts(node, readout[-self.contract.steps :].sum(axis=0))
        raise ContractError("has no choice among actions", where="graph")


def _prefix(graph: Graph) -> tuple[str, ...]:
    if not any(isinstance(node, n.BEFORE_CORE) for node in graph.nodes.values()):
        return ()
    name = graph.inputs[0]
    found = [name]
    while (following := graph.destinations(name)) and isinstance(graph.nodes[following[0]], n.BEFORE_CORE):
        name = following[0]
        found.append(name)
    return tuple(found)
