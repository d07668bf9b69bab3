"""Streams: sessions of graphs that are no policies. Spikes or values in, spikes or values out, state kept.

A stream works in the blocks of its schedule: a step at a time where state is carried, T steps at a time where it is
cleared before each block. `MachineStream` runs a graph by its definition; `runtime.engines.emulator` has the compiled
one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.interpret import plain_array, stream_inputs
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.compiler.plan.work import require_runnable
from nervecord.errors import GraphError
from nervecord.runtime.checks import checked_active, checked_batch
from nervecord.runtime.machines import Definition
from nervecord.runtime.session import BlockSession, Running, Traced

Values: TypeAlias = Array | Mapping[str, Array]
"""By name of the end, or the one array of a graph that has one end of the kind."""


@runtime_checkable
class StreamSession(Running, Protocol):
    """What every engine offers for a graph that is no policy. The `actions` of its counts are steps of input."""

    def step(self, inputs: Values, active: Array | None = None) -> Any:
        """One block. Arrays are (T, batch, ...); of a block of one step without T, of one copy without the batch.

        Args:
            inputs: by name of the Input, or one array where there is one Input. Of a schedule whose inputs are held
                (batch, ...), and so are the outputs.
            active: (batch,) bool, which copies are counted; all by default.

        Returns:
            As the inputs were given: by name of the Output, or one array where there is one Output.
        """

    def run(self, inputs: Values) -> dict[str, Array]:
        """All steps of a recording, from cleared state: (steps, n) or (steps, batch, n) in, (steps, batch, ...) out.

        By name of the Output. A last block that is not full is filled up with zeros.
        """


class GraphStream(BlockSession):
    """What streams share: the shapes of what comes and goes, and the counts. An engine's machine does the blocks.

    Args:
        subject: a graph that is no policy, run step by step with its state carried, or a plan of one.
        engine: what to call it in results.
        batch: number of copies.

    Raises:
        GraphError: it is not executable, it is a policy's plan, or a block takes too many operations.
    """

    def __init__(self, subject: Graph | Plan, engine: str, batch: int) -> None:
        block_plan = subject if isinstance(subject, Plan) else plan(subject)
        if block_plan.contract is not None:
            raise GraphError(
                "is a policy, and a stream is of a graph that is none", where="plan", hint="open a session"
            )
        checked_batch(batch)
        require_runnable(block_plan)
        super().__init__(block_plan, engine)

    def step(self, inputs: Values, active: Array | None = None) -> Any:
        """One block; see `StreamSession`.

        Raises:
            GraphError: an input is missing, unknown, of another shape, not finite, or beyond its limit.
        """
        with self._lock:
            self._alive()
            named = self._named(inputs)
            axes = {name: x.ndim - len(self.graph.nodes[name].in_shape) for name, x in named.items()}
            if len(set(axes.values())) != 1:
                raise GraphError("inputs differ in their number of steps or their batch", where="inputs")
            full = {name: self._full(name, x) for name, x in named.items()}
            outputs = self._counted(full, checked_active(active, self.batch))
            results = {name: self._as_given(name, x, next(iter(axes.values()))) for name, x in outputs.items()}
            return results if isinstance(inputs, Mapping) or len(results) > 1 else next(iter(results.values()))

    def run(self, inputs: Values) -> dict[str, Array]:
        """All steps of a recording, from cleared state; see `StreamSession`.

        Raises:
            GraphError: as of `step`.
        """
        with self._lock:
            self._alive()
            arrays = stream_inputs(self.graph, inputs)
            steps, batch = next(iter(arrays.values())).shape[:2]
            self.reset(batch)
            per_block = 1 if self.plan.schedule.held else self.plan.schedule.steps
            every = np.ones(batch, dtype=np.bool_)
            rows_of: dict[str, list[Array]] = {}
            for start in range(0, steps, per_block):
                block = {name: _filled(x[start : start + per_block], per_block) for name, x in arrays.items()}
                if self.plan.schedule.held:
                    block = {name: x[0] for name, x in block.items()}
                for name, rows in self._counted(block, every).items():
                    rows_of.setdefault(name, []).append(rows[None] if self.plan.schedule.held else rows)
            return {name: np.concatenate(rows)[:steps] for name, rows in rows_of.items()}

    def _counted(self, full: dict[str, Array], active: Array) -> dict[str, Array]:
        return self._whole(lambda: self._played(full, active))

    def _played(self, full: dict[str, Array], active: Array) -> dict[str, Array]:
        outputs = self._machine.block(full, active)
        self._count(active, 1 if self.plan.schedule.held else self.plan.schedule.steps)
        return outputs

    def _named(self, inputs: Values) -> dict[str, Array]:
        names = self.graph.inputs
        if not isinstance(inputs, Mapping):
            if len(names) != 1:
                raise GraphError(f"has {len(names)} inputs", where="graph", hint="give the values by name")
            inputs = {names[0]: inputs}
        for name in inputs:
            if name not in names:
                raise GraphError(f"is no input; the inputs are {', '.join(names)}", where=name)
        for name in names:
            if name not in inputs:
                raise GraphError("no values given for this input", where=name)
        return {name: plain_array(inputs[name], name) for name in names}

    def _full(self, name: str, x: Array) -> Array:
        """Values with every axis, checked."""
        shape = self.graph.nodes[name].in_shape
        steps = () if self.plan.schedule.held else (self.plan.schedule.steps,)
        full = (*steps, self.batch, *shape)
        short = {full}
        if steps == (1,):
            short.add(full[1:])
        if self.batch == 1:
            short |= {(*form[: len(form) - len(shape) - 1], *shape) for form in list(short)}
        if x.dtype.kind not in "fiub" or not np.isfinite(x).all():
            raise GraphError("the values are not all finite numbers", where=name)
        if x.shape not in short:
            raise GraphError(f"values have shape {x.shape}, {full} is needed", where=name)
        return x.reshape(full)

    def _as_given(self, name: str, x: Array, axes: int) -> Array:
        """Outputs (T, batch, ...) with as many axes before their shape as the inputs had."""
        shape = x.shape[-len(self.graph.nodes[name].in_shape) :]
        missing = x.ndim - len(shape) - axes
        if not missing:
            return x
        if axes == 0:
            return x.reshape(shape)
        # Of two axes the one that may be left out is missing: the steps of a block of one, else the batch of one.
        return x[0] if x.shape[0] == 1 and self.plan.schedule.steps == 1 else x[:, 0]


def _filled(x: Array, count: int) -> Array:
    """(count, batch, ...): zeros where x ends early."""
    return x if len(x) == count else np.concatenate([x, np.zeros((count - len(x), *x.shape[1:]), dtype=x.dtype)])


class MachineStream(Traced, GraphStream):
    """A stream by the definition of its ops.

    Args:
        subject: DISCRETE or INTEGER, a graph, run step by step with its state carried, or a plan.
        engine: what to call it in results.
        batch: number of copies.

    Raises:
        GraphError: the graph is not executable, or it is a policy's plan.
    """

    def __init__(self, subject: Graph | Plan, *, engine: str = "definition", batch: int = 1) -> None:
        super().__init__(subject, engine, batch)
        self._machine = Definition(self.plan, batch)
