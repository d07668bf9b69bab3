"""The engine "c": what the target c emits for a microcontroller, compiled for this machine and stepped here.

The host's part of a policy is in it, as it is on the controller: it takes float32 and gives float32. So its actions are
those of the other engines, to the bit, where those are given observations rounded to float32 and their actions are
rounded to float32. The core is integers, and the same in any case.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from nervecord.compiler.blas import matmul
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.host_steps import AfterCore, BeforeCore, split
from nervecord.compiler.plan.plan import Plan
from nervecord.errors import ContractError, EngineError
from nervecord.runtime.checks import check_inputs
from nervecord.runtime.engines.c.layout import CLayout
from nervecord.runtime.engines.c.library import FAST, load_library, open_shared
from nervecord.runtime.engines.c.source import CODES, Source, c_source
from nervecord.runtime.session import PolicySession, Traced
from nervecord.runtime.stream import GraphStream

NOT_FINITE = CODES.index("NOT_FINITE")


class Compiled:
    """A plan in C with the states of a batch; what sessions and streams share.

    Args:
        plan: a plan of integers. flags: of the compiler. history: keep what was sent, for `trace`.
        library: built ahead of time by `c_library.build_shared`; None: it is built now.

    Raises:
        MissingDependencyError: there is no compiler. EngineError: it failed.
        GraphError, InfeasibleError: of `runtime.engines.c.source`.
    """

    def __init__(
        self,
        plan: Plan,
        batch: int,
        *,
        flags: tuple[str, ...] = FAST,
        history: bool = True,
        library: str | os.PathLike[str] | None = None,
    ) -> None:
        self.plan = plan
        self.source: Source = c_source(plan, observed=True)
        self.layout: CLayout = self.source.layout
        self.history = history
        self._dtype = self.source.dtype
        self._library = load_library(self.source, flags=flags) if library is None else open_shared(self.source, library)
        self._keeps: dict[str, int] = {}
        """Steps before the last block that connections still read, of each source."""
        for tap in (tap for step in plan.core for tap in step.taps):
            self._keeps[tap.source] = max(tap.lag, self._keeps.get(tap.source, 0))
        self._past: dict[str, float] = {}
        self._before, self._after = BeforeCore(plan), AfterCore(plan)
        self.reset(batch)

    @property
    def batch(self) -> int:
        """Number of copies."""
        return len(self.states)

    def function(self, name: str) -> Any:
        """A function of the library."""
        function = getattr(self._library, f"{self.source.prefix}_{name}")
        function.argtypes = [ctypes.c_void_p] * 3
        function.restype = ctypes.c_int
        return function

    def reset(self, batch: int) -> None:
        """Back to the state before the first step, with so many copies."""
        states: Array = np.zeros(batch, dtype=self._dtype)  # where there is not the memory, nothing has happened
        if hasattr(self, "states"):
            self._harvest(slice(None))
        self.states = states
        self._sent: dict[str, Array] = {}
        self._stepped = False

    def clear(self, rows: Array) -> None:
        """The same for some copies."""
        self._harvest(rows)
        self.states[rows] = np.zeros((), dtype=self._dtype)
        for values in self._sent.values():
            values[:, rows] = 0

    def standing(self) -> Any:
        """Everything that a block changes, as it is now, for `stand`."""
        return self.states.copy(), dict(self._sent), self._stepped

    def stand(self, before: Any) -> None:
        """Make it what it was; may be called twice."""
        self.states[:] = before[0]
        self._sent, self._stepped = dict(before[1]), before[2]

    def _harvest(self, rows: Any) -> None:
        """Counters of copies that are about to be cleared."""
        for name in self._counters():
            times = self.states[name][rows].sum(axis=0)
            self._past[name] = self._past.get(name, 0) + times

    def _counters(self) -> list[str]:
        names = [m.name for m in self.source.members]
        return [name for name in names if name.endswith(("_times", "_spikes"))]

    def _counted(self, name: str) -> Any:
        return self._past.get(name, 0) + self.states[name].sum(axis=0)

    def run(self, step: Any, rows: Array, out: Array, active: Array) -> Array:
        """One block of every copy; returns what the function returned for each, (batch,), all of them OK or NOT_FINITE.

        Args:
            step: of `function`. rows: (batch, ...) contiguous, what it takes. out: (batch, ...), written.
            active: (batch,) bool, which are counted.

        Raises:
            EngineError: it returned something else.
        """
        states = self.states
        states["counted"] = active
        codes = np.zeros(self.batch, dtype=np.int64)
        for b in range(self.batch):
            code = codes[b] = step(
                states.ctypes.data + b * states.itemsize,
                rows.ctypes.data + b * rows.strides[0],
                out.ctypes.data + b * out.strides[0],
            )
            if code > NOT_FINITE:
                raise EngineError(f"returned {CODES[code]}", where="engine c")
        self.after_block()
        return codes

    def after_block(self) -> None:
        """Keep what was sent, for the connections' part of a trace."""
        self._stepped = True
        if not self.history:
            return
        window = self.plan.window
        for name in self._sources():
            sent = self.given(name)
            before = self._sent.get(name)
            if before is None:
                before = np.zeros((self._keeps.get(name, 0) + window, *sent.shape[1:]), dtype=np.int64)
            self._sent[name] = np.concatenate([before[window:], sent])

    def _sources(self) -> list[str]:
        return [
            *(entry.name for entry in self.layout.entries),
            *(c.unit.step.name for c in self.layout.cells if c.ring),
        ]

    def given(self, name: str) -> Array:
        """What an entry or a population gave in the last block, (window, batch, n)."""
        values = self.states[f"{self.layout.names[name]}_given"]
        return values.reshape(self.batch, self.plan.window, -1).swapaxes(0, 1).astype(np.int64)

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last block: name -> (window, batch, ...); {} before the first.

        Of connections with history only.
        """
        values: dict[str, Array] = {}
        if not self._stepped:
            return values
        window, arithmetic = self.plan.window, self.layout.arithmetic
        for step in self.plan.core:
            if step.name not in self.layout.links:
                values[step.name] = self.given(step.name)
            elif self.history:
                starts = [(tap.source, self._keeps[tap.source] - tap.lag) for tap in step.taps]
                x = sum(self._sent[source][start : start + window] for source, start in starts)
                assert isinstance(x, np.ndarray)
                y = step.op.step({}, x.reshape(-1, *step.op.in_shape), arithmetic)
                values[step.name] = y.reshape(*x.shape[:2], *step.op.out_shape)
        return values

    def state(self) -> dict[str, dict[str, Array]]:
        """State of every core node, as `compiler.plan.interpret.Machine` names it."""
        result: dict[str, dict[str, Array]] = {}
        for step in self.plan.core:
            keys = [] if step.name in self.layout.links else list(step.op.state(1))
            result[step.name] = {k: self.states[f"{self.layout.names[step.name]}_{k}"].astype(np.int64) for k in keys}
        return result

    def block(self, inputs: Mapping[str, Array], active: Array) -> dict[str, Array]:
        """One block, the host's part in numpy; see `runtime.machines.BlockMachine`."""
        check_inputs(self.plan, inputs)
        words = entering(self.layout, self._before.enter(inputs, np.int64), self.batch)
        out = np.zeros((self.batch, self.layout.out_dim), dtype=np.int32)
        self.run(self.function("step_q"), words, out, active)
        return self._after.leave(left(self.layout, out))

    def tally(self) -> tuple[dict[str, float], dict[str, float]]:
        """Spikes of what spikes and events of every connection, since it was made."""
        sending = [cell for cell in self.layout.cells if cell.ring is not None]
        spikes = {cell.unit.step.name: float(self._counted(f"{cell.name}_spikes")) for cell in sending}
        events = {}
        for name, link in self.layout.links.items():
            synapses = link.dense.synapses()
            assert synapses is not None
            times = [self._counted(f"{self.layout.names[tap.source]}_times") for tap in link.step.taps]
            events[name] = float(sum(matmul(each, synapses.fan_out) for each in times))
        return spikes, events


class _Loaded:
    """What holds a loaded library, and so the state of one process alone."""

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise ContractError(
            "holds a loaded library, and can be neither copied nor pickled",
            where="session",
            hint="pickle the program, and open it once more",
        )


class CSession(_Loaded, Traced, PolicySession):
    """A policy of integers in C, by the same text that the target c emits.

    Args:
        subject: INTEGER policy or its plan. batch: number of robots. engine: what to call it in results.
        trace: `trace` will be asked for.
        flags: of the compiler. library: built ahead of time; see `Compiled`.

    Raises:
        GraphError, ContractError: it is no integer policy.
        InfeasibleError: a range cannot be proved, or an op has no form in C.
        MissingDependencyError: there is no C compiler. EngineError: it failed.
    """

    _machine: Compiled

    def __init__(
        self,
        subject: Policy | Plan,
        batch: int = 1,
        engine: str = "c",
        *,
        trace: bool = True,
        flags: tuple[str, ...] = FAST,
        library: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(subject, engine, batch)
        self._machine = Compiled(self.plan, batch, flags=flags, history=trace, library=library)
        self._function = self._machine.function("step")

    def _act(self, rows: Array, trusted: Array, counted: Array) -> tuple[Array, Array]:
        # Both as float32.
        check_inputs(self.plan, split(self.plan, rows[trusted]))
        with np.errstate(over="ignore"):  # what float32 cannot hold is not finite, and gives the fail-safe action
            obs = np.ascontiguousarray(rows, dtype=np.float32)
        act = np.zeros((self.batch, self.contract.action.size), dtype=np.float32)
        all_finite = self._machine.run(self._function, obs, act, counted) != NOT_FINITE
        return act.astype(np.float64), all_finite


class CStream(_Loaded, Traced, GraphStream):
    """A graph of integers that is no policy, its core in C; the host's part in numpy.

    Args:
        subject: INTEGER graph, run step by step with its state carried, or a plan. batch: number of copies.
        engine: what to call it in results. flags: of the compiler.

    Raises:
        As `CSession`.
    """

    _machine: Compiled

    def __init__(
        self, subject: Graph | Plan, batch: int = 1, engine: str = "c", *, flags: tuple[str, ...] = FAST
    ) -> None:
        super().__init__(subject, engine, batch)
        self._machine = Compiled(self.plan, batch, flags=flags)


def entering(layout: CLayout, entered: dict[str, Array], batch: int) -> Array:
    """What `step_q` takes, (batch, in_dim) int32, of what enters the core in a block: entry -> (window, batch, ...).

    Of a population code that is the same in each of its steps: here only graphs without one are stepped.
    """
    rows = []
    for entry, size in zip(layout.entries, layout.in_sizes, strict=True):
        assert entry.name not in layout.pulses
        values = entered[entry.name][: layout.in_rows].reshape(layout.in_rows, batch, -1)
        rows.append(values[..., :size])
    together = np.concatenate(rows, axis=2).swapaxes(0, 1)
    return np.ascontiguousarray(together.reshape(batch, -1), dtype=np.int32)


def left(layout: CLayout, out: Array) -> dict[str, Array]:
    """What `step_q` gave, as `AfterCore.leave` takes it: core step -> (window, batch, n), of every read."""
    leaving, at = {}, 0
    values = out.reshape(len(out), layout.in_rows, -1).swapaxes(0, 1).astype(np.int64)
    for read, size in zip(layout.plan.reads, layout.out_sizes, strict=True):
        rows = np.zeros((layout.plan.window, len(out), size), dtype=np.int64)
        # Where inputs are held it is the sum over the read, which is taken once more: it stands in its first step.
        rows[read.first : read.first + layout.in_rows] = values[..., at : at + size]
        leaving[read.source] = rows.reshape(layout.plan.window, len(out), *layout.plan.step(read.source).op.out_shape)
        at += size
    return leaving
