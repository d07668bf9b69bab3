"""Engine `lava`: an INTEGER plan run by the stock fixed-point processes of lava-nc 0.10.0, in their own interpreter.

The emulator computes the same; this engine is what shows it. Each connection becomes a Dense, a Sparse or a Conv, or a
DelayDense or DelaySparse where its delay is longer than one step (`processes.py`); each population a LIF or LIFReset;
one that is read a LIF with the largest threshold there is. Whatever the plan's wiring is, Lava's ports take it: several
connections into one population add up there. DelayDense and DelaySparse are models of their own, which shift and round
together what has the same delay: all synapses of a connection here, so that they round as Dense does. Lava executes a
session as one run, a block at a time (`lava_worker/`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.findings import raise_on_errors
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.ops import Array, Level, Mantissas
from nervecord.compiler.plan.plan import Plan, Unit
from nervecord.errors import EngineError, InfeasibleError
from nervecord.runtime.worker.parent import Worker
from nervecord.targets.lava import environment
from nervecord.targets.lava.arithmetic import lava_arithmetic
from nervecord.targets.lava.processes import connection_of, process_of

HANDLER = Path(__file__).parent / "lava_worker" / "handler.py"
START_TIMEOUT = 60.0
"""Seconds to start the interpreter and import Lava; about 1 where the disk is warm."""
BUILD_TIMEOUT = 60.0
"""Seconds to build the network and run its first block; about 0.5."""
STEP_TIMEOUT = 10.0
"""Seconds for one block; about 0.01 for ten steps."""

Backend: TypeAlias = Literal["sim", "loihi2"]
"""Where Lava runs the network. "loihi2" is a seam: it needs Intel's closed package and a board, and is untested."""


LIMITS = ("graded_bits", "delay_max")
"""What a user may have given a smaller value: these bound a plan, and change nothing of how it is computed."""


def require_arithmetic(arithmetic: Arithmetic | None) -> None:
    """Whether Lava computes so.

    Raises:
        InfeasibleError: it does not; names every difference.
    """
    if arithmetic is None:
        raise InfeasibleError("is not in integers, and Lava computes in integers", where="graph", hint="compile it")
    lava = lava_arithmetic()
    differing = [
        f"{f.name} is {getattr(arithmetic, f.name)} where Lava has {getattr(lava, f.name)}"
        for f in dataclasses.fields(Arithmetic)
        if getattr(arithmetic, f.name) != getattr(lava, f.name)
        and not (f.name in LIMITS and getattr(arithmetic, f.name) < getattr(lava, f.name))
    ]
    if differing:
        raise InfeasibleError(
            "is not Lava's: " + "; ".join(differing),
            where="arithmetic",
            hint="the emulator runs any arithmetic: --engine emulator",
        )


def runnable(plan: Plan) -> Plan:
    """The plan itself.

    Its ranges are proved here again: outside them Lava's integers overflow, and a membrane that is read would spike.

    Raises:
        InfeasibleError: its arithmetic is not Lava's, a range cannot be proved, or it has no population.
    """
    require_arithmetic(plan.graph.arithmetic if plan.graph.level is Level.INTEGER else None)
    if not plan.units:
        raise InfeasibleError("there is no population to run", where="graph")
    raise_on_errors(overflows(prove(plan), lava_arithmetic()), InfeasibleError, where="lava")
    for unit in plan.units:
        if plan.schedule.resets and not process_of(unit.step).resets:
            raise InfeasibleError(
                f"is a {unit.step.op.kind}, which Lava cannot clear before each block",
                where=unit.step.name,
                hint="carry its state, or use the engine emulator",
            )
    return plan


class LavaNetwork:
    """A plan running in Lava, block by block.

    Args:
        plan: INTEGER, in Lava's arithmetic.
        block: steps that are played at once; by default the plan's window.
        membranes: what is shown (of neurons v) of "all" populations, of those that are "read" by the plan and send
            nothing, at each step; or, of the latter, in the steps in which the plan reads them alone ("due"). Each step
            with a membrane costs Lava about a millisecond.
        backend: see `Backend`.
        worker: Lava's interpreter, shared by networks that run one after the other; by default one of its own.

    Raises:
        InfeasibleError: the plan is none that Lava computes.
        MissingDependencyError: Lava's environment is not installed.
        EngineError: it does not start.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        block: int | None = None,
        membranes: Literal["all", "read", "due"] = "due",
        backend: Backend = "sim",
        worker: Worker | None = None,
    ) -> None:
        self.plan = runnable(plan)
        self.block = block or plan.window
        self._reads = list(_reads(plan, self.block, membranes))
        description, arrays = _describe(plan, self._reads)
        self._owned = worker is None
        self.worker = worker or start_worker(backend=backend)
        self._begun = False
        try:
            self.worker.call("open", description, arrays)
        except BaseException:
            self.close()
            raise

    def play(self, entered: Mapping[str, Array], *, timeout: float = STEP_TIMEOUT) -> dict[str, dict[str, Array]]:
        """One block.

        Args:
            entered: entry -> (block, n) integers, what enters at each step.
            timeout: seconds; the first block also builds the network, and is given `BUILD_TIMEOUT` more.

        Returns:
            "spikes": population that sends -> (block, n); "membranes": population -> (block, n), zeros in the steps in
            which it was not read.

        Raises:
            EngineError: Lava died or did not answer in time. Nothing of it is left.
        """
        limit = timeout if self._begun else timeout + BUILD_TIMEOUT
        self._begun = True
        x = np.concatenate([entered[entry.name] for entry in self.plan.entries], axis=1).astype(np.int32)
        try:
            reply = self.worker.call("play", arrays={"x": x}, timeout=limit)
        except EngineError:
            # Also where the worker itself lives on: a network that lost a process is of no use.
            self.worker.kill()
            raise
        return {
            "spikes": dict(_split(self.plan.units, reply.arrays["spikes"])),
            "membranes": self._membranes(reply.arrays["membranes"]),
        }

    def _membranes(self, joined: Array) -> dict[str, Array]:
        membranes: dict[str, Array] = {}
        at = 0
        for t, row in enumerate(self._reads):
            for k in row:
                op = self.plan.units[k].step
                size = op.op.size
                values = membranes.setdefault(op.name, np.zeros((self.block, size), dtype=np.int64))
                values[t] = joined[at : at + size]
                at += size
        return membranes

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


def _reads(plan: Plan, block: int, membranes: str) -> Iterator[list[int]]:
    """For every step of a block the numbers of the units whose membranes are read."""
    named = {read.source: read for read in plan.reads}
    for t in range(block):
        row = []
        for k, unit in enumerate(plan.units):
            read = named.get(unit.step.name)
            due = read is not None and read.first <= t % plan.window <= read.last
            silent = not unit.step.op.sending
            if membranes == "all" or (silent and read is not None and (membranes == "read" or due)):
                row.append(k)
        yield row


def _describe(plan: Plan, reads: list[list[int]]) -> tuple[dict[str, Any], dict[str, Array]]:
    """The network for the handler inside Lava's interpreter, and its arrays."""
    numbers: dict[str, tuple[str, int]] = {entry.name: ("entry", k) for k, entry in enumerate(plan.entries)}
    numbers |= {unit.step.name: ("population", k) for k, unit in enumerate(plan.units)}
    order = {step.name: k for k, step in enumerate(plan.connections)}
    arrays: dict[str, Array] = {}
    made_of = [connection_of(step) for step in plan.connections]
    for k, made_connection in enumerate(made_of):
        arrays |= {f"{name}_{k}": array for name, array in made_connection.arrays.items()}
    populations = []
    for k, unit in enumerate(plan.units):
        process = process_of(unit.step)
        arrays[f"bias_{k}"] = process.bias
        populations.append(
            {
                "incoming": [order[step.name] for step in unit.incoming],
                "process": process.process,
                "size": unit.step.op.size,
                "sends": unit.step.op.sending,
                "shown": unit.step.op.SHOWN,
                "reset_interval": plan.window if plan.schedule.resets else 0,
                "reset_offset": unit.step.phase % plan.window,
                **process.values,
            }
        )
    connections = []
    for step, built in zip(plan.connections, made_of, strict=True):
        op = step.op
        assert isinstance(op, Mantissas)
        connections.append(
            {
                "process": built.process,
                "sources": [numbers[tap.source] for tap in step.taps],
                "outputs": op.size,
                "weight_exp": op.weight_exp,
                "weight_bits": op.weight_bits,
                "delay": op.delay,
                "graded": plan.graded[step.name],
                **built.values,
            }
        )
    description = {
        "entries": [entry.op.size for entry in plan.entries],
        "connections": connections,
        "populations": populations,
        "reads": reads,
    }
    return description, arrays


def _split(units: tuple[Unit, ...], joined: Array) -> Iterator[tuple[str, Array]]:
    start = 0
    for unit in units:
        if not unit.step.op.sending:
            continue
        size = unit.step.op.size
        yield unit.step.name, joined[:, start : start + size].astype(np.int64)
        start += size
