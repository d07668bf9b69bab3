"""The default engine: our own integer simulator of Loihi 2, bit-exact with Lava, no Lava needed.

Same results as `runtime.session.MachineSession` on the same graph, at every step and to the bit; three orders faster
than Lava's own runtime.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler import semantics
from nervecord.compiler.contract import Contract
from nervecord.compiler.findings import raise_on_errors
from nervecord.compiler.graph import Graph, Level
from nervecord.compiler.host import Host
from nervecord.compiler.node import Array, Node
from nervecord.compiler.ranges import check, prove
from nervecord.compiler.verify import require
from nervecord.errors import ContractError, InfeasibleError
from nervecord.runtime.session import Closing, Counts, checked_observation
from nervecord.targets.lava.kernel import Column, act


class EmulatorSession(Closing):
    """A chain of FixedDense and fixed neurons, stepped by a compiled kernel.

    Args:
        graph: INTEGER policy. Its ranges are proved here again: outside them the kernel would not be exact.
        batch: number of robots.

    Raises:
        GraphError, ContractError: the graph is no integer policy.
        InfeasibleError: a range cannot be proved.
    """

    def __init__(self, graph: Graph, *, batch: int = 1, engine: str = "emulator") -> None:
        if graph.contract is None:
            raise ContractError("carries no contract, so it cannot act", where="graph")
        self.graph = require(graph, Level.INTEGER)
        raise_on_errors(check(prove(graph)), InfeasibleError, where="emulator")
        self.contract = graph.contract
        self.engine = engine
        self._counts = Counts()
        self._pack()
        # The kernel is compiled (or read from its cache) now, not within the first action's deadline.
        self._allocate(1)
        self.step(self._observation)
        self._counts = Counts()
        self._counters[:] = 0
        self._allocate(batch)

    @property
    def batch(self) -> int:
        """Number of robots."""
        return self._action.shape[0]

    @property
    def counts(self) -> Counts:
        """What it did since it was opened."""
        counts = self._counts
        for k, (connection, layer) in enumerate(zip(self._connections, self._layers, strict=True)):
            if self._table[k, Column.SPIKING]:
                counts.spikes[layer] = float(self._counters[k, 0])
            counts.synaptic_events[connection] = float(self._counters[k, 1])
        counts.neuron_updates = float(self._neurons * self.contract.window * counts.actions)
        return counts

    def _pack(self) -> None:
        """The graph as the kernel's flat arrays."""
        graph = self.graph
        self._pack_host()
        pairs = [(a, b) for a, b in graph.edges if isinstance(graph.nodes[a], n.FixedDense)]
        self._connections, self._layers = [a for a, _ in pairs], [b for _, b in pairs]
        self._table = np.zeros((len(pairs), Column.COLUMNS), dtype=np.int64)
        self._floats = np.zeros((len(pairs), 4))
        weights, biases, fan_out = [], [], []
        at_weight = at_neuron = at_fan_out = 0
        for k, (a, b) in enumerate(pairs):
            dense, neuron = graph.nodes[a], graph.nodes[b]
            assert isinstance(dense, n.FixedDense)
            assert isinstance(neuron, (n.FixedLIF, n.FixedReadout))
            outputs, inputs = dense.weight.shape
            spiking = isinstance(neuron, n.FixedLIF)
            self._table[k] = (
                inputs, outputs, at_weight, at_neuron, at_fan_out,
                neuron.reset_interval, neuron.reset_offset, spiking, neuron.du != semantics.DECAY_ONE - 1,
            )  # fmt: skip
            threshold = neuron.threshold if isinstance(neuron, n.FixedLIF) else semantics.READOUT_THRESHOLD
            self._floats[k] = (
                (semantics.DECAY_ONE - (neuron.du + 1)) / semantics.DECAY_ONE,
                (semantics.DECAY_ONE - neuron.dv) / semantics.DECAY_ONE,
                float(threshold << semantics.MANTISSA_SHIFT),
                2.0**dense.weight_exp,
            )
            weights.append(dense.weight.T.astype(np.float64).ravel())
            biases.append((neuron.bias_mant.astype(np.int64) << neuron.bias_exp).astype(np.float64))
            fan_out.append(np.count_nonzero(dense.weight, axis=0).astype(np.float64))
            at_weight, at_neuron, at_fan_out = at_weight + dense.weight.size, at_neuron + outputs, at_fan_out + inputs
        self._weights, self._biases = np.concatenate(weights), np.concatenate(biases)
        self._fan_out = np.concatenate(fan_out)
        self._counters = np.zeros((len(pairs), 2), dtype=np.int64)
        self._neurons = at_neuron

    def _pack_host(self) -> None:
        """The host nodes as the kernel's flat arrays."""
        graph, contract = self.graph, self.contract
        (normalise,) = (node for _, node in graph.of_type(n.Normalise))
        (encoder,) = (node for _, node in graph.of_type(n.Quantise, n.PopulationEncode))
        (decode,) = (node for _, node in graph.of_type(*n.AFTER_CORE))
        assert isinstance(normalise, n.Normalise)
        assert isinstance(decode, n.AFTER_CORE)
        self._host = np.stack([normalise.mean, semantics.divisor(normalise)])
        weights, fixed, summed = _decoder(decode, contract)
        self._decode = np.concatenate([fixed, weights.T])
        graded = (encoder.scale, encoder.limit, encoder.constant) if isinstance(encoder, n.Quantise) else (0, 0, 0)
        self._scalars = np.array(
            [normalise.clip, *graded, contract.steps, contract.window, 0, summed, bool(contract.choices)],
            dtype=np.float64,
        )
        self._population = encoder if isinstance(encoder, n.PopulationEncode) else None
        self._normalise = normalise

    def _allocate(self, batch: int) -> None:
        self._state = np.zeros((batch, 3, self._neurons), dtype=np.float32)
        self._spikes = np.zeros((batch, self.contract.window, self._neurons), dtype=np.float32)
        self._before = np.zeros((batch, self._neurons))
        self._action = np.zeros((batch, self.contract.action.size))
        self._observation = np.zeros((batch, self.contract.observation.size))
        self._scalars[6] = 0
        self._encoder: tuple[Any, ...] | None = None
        if self._population is not None:
            code = self._population
            accumulators = np.zeros((batch, code.mean.size))
            pulses = np.zeros((batch, self.contract.steps, *code.out_shape), dtype=np.float32)
            carried = self.contract.state == "carried"
            self._encoder = (code.mean, float(code.sigma), accumulators, carried, bool(code.always), pulses)
        self._single = (self.contract.observation.size,)

    def reset(self, batch: int | None = None, *, rows: Array | None = None) -> None:
        """Clear the state of all robots (setting their number), or of some rows."""
        self._alive()
        if rows is not None:
            self._state[rows] = 0
            if self._encoder is not None:
                self._encoder[2][rows] = 0
            return
        if batch is not None and batch < 1:
            raise ContractError(f"is {batch}, at least 1 is needed", where="batch")
        self._allocate(batch or self.batch)

    def step(self, observation: Array) -> Array:
        """(batch, observations) -> (batch, actions); (observations,) -> (actions,) for one robot.

        Raises:
            ContractError: the observation's shape or type is wrong.
        """
        if self._closed:
            self._alive()
        given = self._observation
        # The usual case of a robot's loop first: it costs a microsecond less than the general check.
        if type(observation) is np.ndarray and observation.dtype == np.float64 and observation.shape == given.shape:
            given[:] = observation
        elif (
            type(observation) is np.ndarray and observation.dtype == np.float64
            and observation.shape == self._single and len(given) == 1
        ):  # fmt: skip
            given[0] = observation
        else:
            given[:] = checked_observation(self.contract, observation, self.batch)[0]
        self._before[:] = self._state[:, 0]
        distrusted = act(
            given, self._action, self._host, self._decode, self._scalars, self._table, self._weights, self._biases,
            self._floats, self._fan_out, self._state, self._spikes, self._counters, self._encoder,
        )  # fmt: skip
        self._scalars[6] += self._scalars[5]
        self._counts.actions += len(given)
        if distrusted:
            self._counts.fail("observation not finite", distrusted)
        return self._action[0].copy() if np.ndim(observation) == 1 else self._action.copy()

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last action: name -> (steps, batch, ...), integers."""
        found: dict[str, Array] = {}
        one = 1 << semantics.MANTISSA_SHIFT
        for k, (connection, layer) in enumerate(zip(self._connections, self._layers, strict=True)):
            start = int(self._table[k, Column.NEURON])
            span = slice(start, start + int(self._table[k, Column.OUTPUTS]))
            source = self._source(k)
            node = self.graph.nodes[connection]
            later = [semantics.product(node, x) for x in source[:-1]]
            found[connection] = np.stack([(self._before[:, span] / one).astype(np.int64), *later])
            found[layer] = self._spikes[:, :, span].swapaxes(0, 1).astype(np.int64)
        return found

    def _source(self, k: int) -> Array:
        """(window, batch, in): what fed connection k in the last action."""
        if k > 0:
            start = int(self._table[k - 1, Column.NEURON])
            span = slice(start, start + int(self._table[k - 1, Column.OUTPUTS]))
            return self._spikes[:, :, span].swapaxes(0, 1).astype(np.int64)
        if self._encoder is not None:
            # As it was sent: with carried state it depends on the actions before.
            pulses: Array = self._encoder[5].swapaxes(0, 1).astype(np.int64)
            return np.concatenate([pulses, np.zeros((self.contract.latency, *pulses.shape[1:]), dtype=np.int64)])
        trusted = np.asarray(np.isfinite(self._observation).all(axis=1))[:, None]
        return Host(self.graph).encode(np.where(trusted, self._observation, self._normalise.mean))

    def state(self) -> dict[str, dict[str, Array]]:
        """Integer state of every core node, as `compiler.interpret.Machine` names it."""
        one = 1 << semantics.MANTISSA_SHIFT
        found: dict[str, dict[str, Array]] = {}
        for k, (connection, layer) in enumerate(zip(self._connections, self._layers, strict=True)):
            start = int(self._table[k, Column.NEURON])
            pending, u, v = (
                self._state[:, i, start : start + int(self._table[k, Column.OUTPUTS])].astype(np.int64)
                for i in range(3)
            )
            found[connection] = {"buffer": (pending // one)[None]}
            found[layer] = {"u": u, "v": v}
        return found


def _decoder(decode: Node, contract: Contract) -> tuple[Array, Array, int]:
    """A decoder as the kernel takes it.

    Returns:
        (actions, neurons) weights; (4, actions) offset, low, high, fail-safe; over how many of the window's last steps
        it sums. A choice has an entry for each action to choose from, no limits, and its fail-safe in the first.
    """
    if isinstance(decode, n.Decode):
        return decode.scale[:, None], np.array([decode.offset, decode.low, decode.high, contract.fail_safe]), 1
    if isinstance(decode, n.CountDecode):
        fixed = np.array([decode.offset, decode.low, decode.high, contract.fail_safe])
        return decode.weight, fixed, contract.steps
    fixed = np.zeros((4, len(contract.choices)))
    fixed[3, 0] = contract.fail_safe[0]
    if isinstance(decode, n.CountArgmaxDecode):
        fixed[0] = decode.offset
        return decode.weight, fixed, contract.steps
    # The integers themselves are compared.
    return np.ones((len(contract.choices), 1)), fixed, 1
