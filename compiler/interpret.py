"""Executes a graph by its definition: step by step, node by node, in plain numpy.

`Machine` runs the core's steps and, for a policy, the window that makes an action of an observation. It is what every
faster engine is compared with. `simulate` runs any graph on recorded input and returns everything it did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler import semantics
from nervecord.compiler.graph import Graph, Level, delays
from nervecord.compiler.host import Host
from nervecord.compiler.node import Array
from nervecord.compiler.semantics import State
from nervecord.compiler.verify import require
from nervecord.errors import GraphError


class Machine:
    """A graph with its state, for a batch of independent copies.

    Args:
        graph: DISCRETE or INTEGER; verified here.
        batch: number of copies.

    Raises:
        GraphError: the graph is not executable.
    """

    def __init__(self, graph: Graph, batch: int = 1) -> None:
        if graph.level is Level.IMPORTED:
            raise GraphError(
                "a graph in continuous time cannot be executed",
                where="graph",
                hint="give its time step: --dt 1e-4, or read(path, dt=1e-4)",
            )
        self.graph = require(graph)
        order = graph.order()
        self.host = Host(graph)
        host = {*self.host.before, *self.host.after}
        self._core = tuple(name for name in order if name not in host)
        self._sources = {name: graph.sources(name) for name in order}
        self.batch = batch
        self.reset()

    def reset(self, batch: int | None = None) -> None:
        """Back to the state before the first step, with a new batch size if one is given."""
        self.batch = batch or self.batch
        self.t = 0
        self.host.reset()
        self.state: dict[str, State] = {
            name: semantics.initial_state(self.graph.nodes[name], self.batch) for name in self._core
        }

    def clear(self, rows: Array) -> None:
        """The state of some copies (indices or mask) back to that before the first step; time goes on."""
        self.host.clear(rows)
        for name, state in self.state.items():
            for key, value in state.items():
                fresh = value.copy()
                # A buffer's first axis is its depth, the batch comes second.
                fresh[(slice(None), rows) if key == "buffer" else rows] = 0
                self.state[name][key] = fresh

    def step(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One core time step: values (batch, ...) of `host.sources` in, the output of every core node out."""
        values: dict[str, Array] = dict(inputs)
        nodes = self.graph.nodes
        for name in self._core:
            node = nodes[name]
            if delays(node):
                values[name] = semantics.delayed_output(node, self.state[name])
            elif name not in values:
                values[name] = semantics.step(node, self.state[name], self._gather(name, values), self.t)
        for name in self._core:
            if delays(nodes[name]):
                semantics.push(self.state[name], semantics.product(nodes[name], self._gather(name, values)))
        self.t += 1
        return {name: values[name] for name in self._core}

    def _gather(self, name: str, values: Mapping[str, Array]) -> Array:
        sources = self._sources[name]
        total = values[sources[0]]
        for source in sources[1:]:
            total = total + values[source]
        return total

    def window(self, observation: Array) -> tuple[Array, list[dict[str, Array]]]:
        """One action: the observation (batch, observations) encoded for T steps, then the pipeline drained.

        With state "reset" a float core is cleared first; an integer core clears itself by its reset windows.
        Afterwards `entered` and `left`, (window, batch, n), are what entered the core and what left it.

        Returns:
            action (batch, actions), and what every core node gave at each step.
        """
        contract = self.graph.contract
        if contract is not None and contract.state == "reset" and self.graph.level is Level.DISCRETE:
            self.reset()
        self.entered = self.host.encode(observation)
        (source,) = self.host.sources
        (readout,) = self.host.readouts
        steps = [self.step({source: row}) for row in self.entered]
        self.left = np.stack([values[readout] for values in steps])
        return self.host.decode(self.left), steps


@dataclass(slots=True)
class Trace:
    """What a graph did.

    Args:
        outputs: node -> (steps, batch, ...): what every core node gave at every step.
        actions: (observations, batch, actions) of a policy, else None.
    """

    outputs: dict[str, Array] = field(default_factory=dict)
    actions: Array | None = None

    def spikes(self, graph: Graph) -> dict[str, Array]:
        """node -> (steps, batch, n) of the spiking nodes."""
        return {name: self.outputs[name] for name, _ in graph.of_type(*n.SPIKING) if name in self.outputs}


def simulate(graph: Graph, inputs: Array | Mapping[str, Array]) -> Trace:
    """Run a graph on recorded input.

    Args:
        graph: DISCRETE or INTEGER.
        inputs: for a policy (a graph with a contract): observations, (k, observations) or (k, batch, observations),
            each one action. Else: what enters at each step, (steps, n) or (steps, batch, n), or input name -> such.

    Raises:
        GraphError: the graph is not executable, or the input's shape does not match.
    """
    named = dict(inputs) if isinstance(inputs, Mapping) else {_only_input(graph): inputs}
    arrays = {name: _batched(graph, name, value) for name, value in named.items()}
    missing = [name for name in graph.inputs if name not in arrays]
    if missing:
        raise GraphError("no values given for this input", where=missing[0])
    if len({array.shape[:2] for array in arrays.values()}) != 1:
        raise GraphError("inputs differ in their number of steps or their batch", where="inputs")
    steps, batch = next(iter(arrays.values())).shape[:2]
    machine = Machine(graph, batch)
    taken: list[dict[str, Array]] = []
    actions: list[Array] = []
    for k in range(steps):
        if graph.contract is not None:
            action, window = machine.window(arrays[graph.inputs[0]][k])
            actions.append(action)
            taken += window
        else:
            taken.append(machine.step({name: array[k] for name, array in arrays.items()}))
    outputs = {name: np.stack([values[name] for values in taken]) for name in taken[0]} if taken else {}
    return Trace(outputs=outputs, actions=np.stack(actions) if actions else None)


def _only_input(graph: Graph) -> str:
    if len(graph.inputs) != 1:
        raise GraphError(f"has {len(graph.inputs)} inputs", where="graph", hint="give the values by name")
    return graph.inputs[0]


def _batched(graph: Graph, name: str, value: Array) -> Array:
    if name not in graph.inputs:
        raise GraphError(f"is no input; the inputs are {', '.join(graph.inputs)}", where=name)
    shape = graph.nodes[name].in_shape
    array = np.asarray(value)
    if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise GraphError("the values are not all finite numbers", where=name)
    batched = array[:, None] if array.ndim == len(shape) + 1 else array
    if batched.ndim != len(shape) + 2 or batched.shape[2:] != shape:
        raise GraphError(
            f"values have shape {array.shape}, (steps, [batch,] {', '.join(map(str, shape))}) is needed", where=name
        )
    if batched.size == 0:
        raise GraphError(f"values have shape {array.shape}, at least one step is needed", where=name)
    return batched
