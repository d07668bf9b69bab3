"""Engine `lava`: an INTEGER graph run by the stock fixed-point processes of lava-nc 0.10.0, in their own interpreter.

The emulator computes the same; this engine is what shows it. Each FixedDense becomes a Dense, each FixedLIF a LIF or
LIFReset, each FixedReadout one whose threshold is the largest there is and whose v is read. Lava executes an episode as
one run, one observation at a time (`lava_worker/`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.graph import Graph, Level
from nervecord.compiler.host import Host
from nervecord.compiler.node import Array
from nervecord.compiler.semantics import READOUT_THRESHOLD
from nervecord.compiler.verify import require as require_level
from nervecord.errors import ContractError, EngineError, GraphError, InfeasibleError
from nervecord.runtime.session import Closing, Counts, checked_observation
from nervecord.runtime.worker import Worker
from nervecord.targets.lava import environment

HANDLER = Path(__file__).parent / "lava_worker" / "handler.py"
START_TIMEOUT = 60.0
"""Seconds to start the interpreter and import Lava; about 1 where the disk is warm."""
BUILD_TIMEOUT = 60.0
"""Seconds to build the network and run its first window; about 0.5."""
STEP_TIMEOUT = 10.0
"""Seconds for one action; about 0.01."""

Backend: TypeAlias = Literal["sim", "loihi2"]
"""Where Lava runs the network. "loihi2" is a seam: it needs Intel's closed package and a board, and is untested."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A weighted connection and the neurons it feeds."""

    dense_name: str
    dense: n.FixedDense
    neuron_name: str
    neuron: n.FixedLIF | n.FixedReadout

    @property
    def readout(self) -> bool:
        """Whether the neurons are read and do not spike."""
        return isinstance(self.neuron, n.FixedReadout)

    def describe(self, *, membrane: bool) -> dict[str, Any]:
        """For the handler inside Lava's interpreter."""
        neuron = self.neuron
        return {
            "weight_exp": self.dense.weight_exp,
            "weight_bits": self.dense.weight_bits,
            "graded": self.dense.graded,
            "du": neuron.du,
            "dv": neuron.dv,
            "bias_exp": neuron.bias_exp,
            "threshold": READOUT_THRESHOLD if isinstance(neuron, n.FixedReadout) else neuron.threshold,
            "reset_interval": neuron.reset_interval,
            "reset_offset": neuron.reset_offset,
            "readout": self.readout,
            "membrane": membrane,
        }


def connections(graph: Graph) -> tuple[Connection, ...]:
    """The core of an INTEGER graph, in order.

    Raises:
        GraphError: the graph breaks the rules of its level.
        InfeasibleError: it is no chain of connections and neurons.
    """
    require_level(graph, Level.INTEGER)
    core = [(name, graph.nodes[name]) for name in graph.order() if name in graph.core]
    found: list[Connection] = []
    for k in range(0, len(core), 2):
        (name, dense), (neuron_name, neuron) = (*core[k : k + 2], ("", None))[:2]
        alone = len(graph.sources(name)) == 1 and graph.sources(neuron_name) == (name,)
        if not isinstance(dense, n.FixedDense) or not isinstance(neuron, (n.FixedLIF, n.FixedReadout)) or not alone:
            raise InfeasibleError("engine 'lava' runs chains of connection and neurons only", where=name)
        if found and (found[-1].readout or graph.sources(name) != (found[-1].neuron_name,)):
            raise InfeasibleError("engine 'lava' runs chains: spikes of one layer feed the next", where=name)
        found.append(Connection(name, dense, neuron_name, neuron))
    if not found:
        raise InfeasibleError("there is no layer to run", where="graph")
    return tuple(found)


class LavaNetwork:
    """A chain running in Lava, window by window.

    Args:
        chain: what `connections` gave.
        window: steps per window.
        membranes: v of "all" layers, or of the "readout" alone.
        every_step: v at each step, which costs Lava about a millisecond each; else in the window's last one.

    Raises:
        MissingDependencyError: Lava's environment is not installed.
        EngineError: it does not start.
    """

    def __init__(
        self,
        chain: tuple[Connection, ...],
        window: int,
        *,
        membranes: Literal["all", "readout"] = "readout",
        every_step: bool = True,
        backend: Backend = "sim",
        worker: Worker | None = None,
    ) -> None:
        self.chain = chain
        self.window = window
        self.every_step = every_step
        self._read = [membranes == "all" or connection.readout for connection in chain]
        self._owned = worker is None
        self.worker = worker or start_worker(backend=backend)
        self._begun = False
        layers = [c.describe(membrane=read) for c, read in zip(chain, self._read, strict=True)]
        arrays: dict[str, Array] = {}
        for k, connection in enumerate(chain):
            arrays |= {f"weight_{k}": connection.dense.weight, f"bias_{k}": connection.neuron.bias_mant}
        try:
            self.worker.call("open", {"layers": layers, "window": window, "every_step": every_step}, arrays)
        except BaseException:
            self.close()
            raise

    def play(self, x: Array, *, timeout: float = STEP_TIMEOUT) -> tuple[dict[str, Array], dict[str, Array]]:
        """One window.

        Args:
            x: (window, n) integers, what enters at each step.
            timeout: seconds; the first window also builds the network, and is given `BUILD_TIMEOUT` more.

        Returns:
            Spikes and membranes: neurons -> (window, n); membranes (1, n) unless they were asked for at every step.

        Raises:
            EngineError: Lava died or did not answer in time. Nothing of it is left.
        """
        limit = timeout if self._begun else timeout + BUILD_TIMEOUT
        self._begun = True
        try:
            reply = self.worker.call("play", arrays={"x": np.asarray(x, dtype=np.int32)}, timeout=limit)
        except EngineError:
            # Also where the worker itself lives on: a network that lost a process is of no use.
            self.worker.kill()
            raise
        spiking = [c for c in self.chain if not c.readout]
        read = [c for c, wanted in zip(self.chain, self._read, strict=True) if wanted]
        return dict(_split(spiking, reply.arrays["spikes"])), dict(_split(read, reply.arrays["membranes"]))

    def rewind(self) -> None:
        """Back to the state before the first step."""
        if self._begun:
            self._begun = False
            self.worker.call("rewind", timeout=BUILD_TIMEOUT)

    def close(self) -> None:
        """End Lava."""
        if self._owned:
            self.worker.close()


def start_worker(*, backend: Backend = "sim", start_timeout: float = START_TIMEOUT) -> Worker:
    """Lava's interpreter, ready for a network.

    Raises:
        MissingDependencyError: its environment is not installed.
        EngineError: it does not start.
    """
    return Worker(
        environment.require().python,
        HANDLER,
        name="lava",
        options={"backend": backend},
        start_timeout=start_timeout,
        # Its processes take turns; threads of theirs would only fight over the cores.
        environment={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def _split(connections: list[Connection], joined: Array) -> Iterator[tuple[str, Array]]:
    start = 0
    for connection in connections:
        size = connection.neuron.in_shape[0]
        yield connection.neuron_name, joined[:, start : start + size].astype(np.int64)
        start += size


class LavaSession(Closing):
    """A policy run by Lava, one robot.

    Args:
        graph: INTEGER, a chain with a contract.
        full_trace: record the readout at every step, not in the last alone; `trace` needs it. Costs time.
        timeout: seconds an action may take.
        backend: see `Backend`.

    An observation with a NaN or an infinity gives the contract's fail-safe action, counted, as in `MachineSession`.

    Raises:
        ContractError: the graph carries no contract.
        InfeasibleError: it is no chain.
        MissingDependencyError: Lava's environment is not installed.
        EngineError: it does not start.
    """

    engine = "lava"

    def __init__(
        self, graph: Graph, *, full_trace: bool = True, timeout: float = STEP_TIMEOUT, backend: Backend = "sim"
    ) -> None:
        if graph.contract is None:
            raise ContractError("carries no contract, so it cannot act", where="graph")
        chain = connections(graph)
        counted = any(graph.of_type(*n.COUNTING))
        if not (chain[-1].readout or counted):
            raise GraphError("a policy ends in neurons that are read or counted", where=chain[-1].neuron_name)
        self.graph = graph
        self.contract = graph.contract
        self.counts = Counts()
        self.timeout = timeout
        self._chain = chain
        self._host = Host(graph)
        self._mean: Array = np.zeros(self.contract.observation.size)
        for _, node in graph.of_type(n.Normalise):
            self._mean = node.mean  # type: ignore[attr-defined]
        self._last: tuple[dict[str, Array], dict[str, Array]] = ({}, {})
        self._network = LavaNetwork(chain, self.contract.window, every_step=full_trace, backend=backend)

    @property
    def batch(self) -> int:
        """One: Lava runs one network."""
        return 1

    @property
    def worker(self) -> Worker:
        """Lava's interpreter."""
        return self._network.worker

    @property
    def provenance(self) -> dict[str, str]:
        """What runs: versions, and whether a newer Python than Lava declares needed the shim."""
        worker = self._network.worker
        return {"python": worker.versions.python, **{k: str(v) for k, v in worker.info.items()}}

    def reset(self, batch: int | None = None, *, rows: Array | None = None) -> None:
        """Clear the state: Lava's run is ended, the next step starts another.

        Raises:
            ContractError: more than one robot is asked for.
        """
        self._alive()
        if batch not in (None, 1):
            raise ContractError(
                f"is {batch}, and engine 'lava' runs one robot", where="batch", hint="engine 'emulator' runs many"
            )
        if rows is None or np.zeros(1)[rows].size:
            self._network.rewind()
            self._host.reset()
            self._last = ({}, {})

    def step(self, observation: Array) -> Array:
        """(1, observations) or (observations,) -> the action of the same form.

        Raises:
            ContractError: the observation's shape or type is wrong.
            EngineError: Lava died or did not answer in time.
        """
        self._alive()
        given, trusted = checked_observation(self.contract, observation, 1)
        block = self._host.encode(given if trusted[0] else self._mean[None])[:, 0]
        spikes, membranes = self._network.play(block, timeout=self.timeout)
        self._last = (spikes, membranes)
        self._count(block, spikes)
        action = self._host.decode((spikes | membranes)[self._chain[-1].neuron_name][:, None])
        if not trusted[0]:
            self.counts.fail("observation not finite")
            action = np.array(self.contract.fail_safe)[None]
        return action if np.ndim(observation) == 2 else action[0]

    def trace(self) -> dict[str, Array]:
        """Spikes and readout of the last action: neurons -> (steps, 1, n). Connections are not observed.

        Raises:
            ContractError: the session was opened without `full_trace`.
        """
        if not self._network.every_step:
            raise ContractError("records the readout's last step alone", where="session", hint="use full_trace=True")
        return {name: values[:, None] for values_of in self._last for name, values in values_of.items()}

    def close(self) -> None:
        """End Lava; further calls are errors."""
        super().close()
        self._network.close()

    def _count(self, block: Array, spikes: dict[str, Array]) -> None:
        counts = self.counts
        counts.actions += 1
        active = (block != 0).sum(axis=0)
        for c in self._chain:
            fan_out = np.count_nonzero(c.dense.weight, axis=0)
            counts.synaptic_events[c.dense_name] = counts.synaptic_events.get(c.dense_name, 0.0) + float(
                active @ fan_out
            )
            counts.neuron_updates += c.neuron.in_shape[0] * self.contract.window
            if not c.readout:
                active = spikes[c.neuron_name].sum(axis=0)
                counts.spikes[c.neuron_name] = counts.spikes.get(c.neuron_name, 0.0) + float(active.sum())
