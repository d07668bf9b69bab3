"""A policy as an ONNX model: observation in, action out, the T steps of its core unrolled inside.

    obs [1, O] float32 -> actions [1, A] float32                      where state is cleared before each action
    obs, h_in [1, S] -> actions, h_out [1, S], all float32            where it is carried; h_in of zeros is the reset

A graph that is no policy takes a block of steps, Input [T, 1, n] float32, and gives Output [T, 1, m], in float32 or, of
integers, in float64.

Static shapes, no operators of our own. An observation that is not finite gives the contract's fail-safe action, as in a
session. The steps of a plan of integers whose state is cleared are told apart by phases that make up for delays
exactly, so that step k of every population takes step k of what feeds it, and no delay is left.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.ops import Input, Level, is_core, is_host
from nervecord.compiler.plan.plan import Plan, Step
from nervecord.errors import InfeasibleError
from nervecord.runtime.session import neutral
from nervecord.targets.onnx.builder import MOST_BYTES, Builder, onnx_library
from nervecord.targets.onnx.equations import Slots, Value
from nervecord.targets.onnx.floats import Floats
from nervecord.targets.onnx.host import Host, all_true, finite
from nervecord.targets.onnx.integers import DOUBLE, Integers

OPSET = 18
OLDEST_OPSET, NEWEST_OPSET = 11, 18
MOST_STEPS = 50_000
"""Core ops times T that are unrolled."""
EXACT = 1 << 24
"""Whole numbers up to it are exact in float32, in which state travels."""
LARGEST_ACTION = float(np.finfo(np.float32).max)
"""Beyond it a float32 is infinite."""
HALF = 16
"""Bits of the lower of two columns that a wider state takes."""
TRACE = "trace:"
"""Begins the names of the outputs that a model for a session has beside: what each core op gave, [T, batch, n]."""
SOUND = "sound:actions"
"""One more of a policy's: [batch, 1], whether all of its action is finite, before the fail-safe one takes its place."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A part of the packed state.

    Args:
        node, name: whose state, and which: "v", "u", "rest", or "history", what the node gave in the last steps, all
            values of the oldest first.
        size: number of values. columns: that they take, in order; two of each value where `wide`.
        wide: first all values divided by 2^16, rounded down; then what is left of each.
    """

    node: str
    name: str
    size: int
    wide: bool = False

    @property
    def columns(self) -> int:
        """Columns of h_in."""
        return 2 * self.size if self.wide else self.size

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class Model:
    """What was made.

    Args:
        proto: an onnx.ModelProto.
        slots: of the packed state, in the order of its columns; none where state is cleared.
    """

    proto: Any
    slots: tuple[Slot, ...]

    @property
    def state_size(self) -> int:
        """Columns of h_in; 0 where there is none."""
        return sum(slot.columns for slot in self.slots)


def make_model(
    plan: Plan, *, batch: int = 1, trace: bool = False, opset: int = OPSET, metadata: dict[str, str] | None = None
) -> Model:
    """The model of a plan.

    Args:
        plan: DISCRETE (then the core computes in float32) or INTEGER (then exactly).
        batch: rows of every input and output.
        trace: also give what every core op gave, for a session.
        opset: of ONNX's operators.
        metadata: texts that the file carries.

    Raises:
        InfeasibleError: ONNX has no form of an op here (named), it is too large to unroll, or ranges are not proved.
        MissingDependencyError: onnx is not installed.
    """
    return _Printer(plan, Builder(batch)).model(trace, opset, metadata or {})


def check_ops(plan: Plan) -> None:
    """Refuse what has no form here, by its name.

    Raises:
        InfeasibleError: an op has none, or there is too much of it.
    """
    kernels = Floats(Builder()) if plan.graph.level is Level.DISCRETE else Integers(Builder(), plan)
    host = Host(Builder())
    for step in (*plan.before, *plan.core, *plan.after):
        if not (kernels if is_core(step.op) else host).takes(step.op):
            raise InfeasibleError(f"{step.op.kind} has no form in ONNX here", where=step.name)
    if plan.contract is None:
        if plan.schedule.held:
            raise InfeasibleError("holds its input over several steps, and has no contract", where="schedule")
        for name in (*plan.graph.inputs, *plan.graph.outputs):
            if name in ("h_in", "h_out"):
                raise InfeasibleError("has the name of the state in an ONNX file", where=name, hint="rename it")
    else:
        limits = (plan.contract.action.low or (), plan.contract.action.high or (), plan.contract.fail_safe)
        most = float(np.abs(np.concatenate(limits)).max(initial=0))
        if most > LARGEST_ACTION:
            raise InfeasibleError(
                f"may give an action of {most:.3g}, and float32 holds {LARGEST_ACTION:.3g}",
                where="contract",
                hint="give the action narrower limits, or larger units",
            )
    unrolled = len(plan.core) * plan.schedule.steps
    if unrolled > MOST_STEPS:
        raise InfeasibleError(
            f"{len(plan.core)} core nodes in {plan.schedule.steps} steps per action are {unrolled} to unroll, the "
            f"limit is {MOST_STEPS}",
            where="onnx",
            hint="train with fewer steps per action",
        )


class _Printer:
    """Makes one model."""

    def __init__(self, plan: Plan, builder: Builder) -> None:
        check_ops(plan)
        self.plan, self.builder, self.contract = plan, builder, plan.contract
        self.kernels: Floats | Integers = (
            Floats(builder) if plan.graph.level is Level.DISCRETE else Integers(builder, plan)
        )
        self.host = Host(builder)
        self.carried = not plan.schedule.resets
        self.steps = plan.schedule.steps
        self.order = plan.useful_steps
        self.slots: list[Slot] = []
        self.history: dict[str, str] = {}
        self.given: dict[str, list[Value]] = {}
        self.state: dict[str, Slots] = {}
        self.observation = self.sound = ""
        ends = ("obs", "actions") if self.contract is not None else (*plan.graph.inputs, *plan.graph.outputs)
        for name in (*ends, "h_in", "h_out"):
            builder.reserve(name)

    def model(self, trace: bool, opset: int, metadata: dict[str, str]) -> Model:
        self._lay_out()
        trusted = self._seen() if self.contract is not None else ""
        self._enter()
        for k in range(self.steps):
            for step in self.order:
                self._step(step, k)
        if self.contract is not None:
            self._act(self.contract, trusted)
        else:
            self._leave()
        if self.carried and self.slots:
            self._carry()
        traced = self._trace() if trace else {}
        return Model(self._proto(traced, opset, metadata), tuple(self.slots))

    # ------------------------------------------------------------------------------------------ state

    def _lay_out(self) -> None:
        """The slots of state, and what enters with them."""
        plan = self.plan
        for step in self.order:
            names = list(step.op.state(1))
            self.state[step.name] = dict.fromkeys(names)
            self.slots += [Slot(step.name, name, step.op.size, self.kernels.wide(step, name)) for name in names]
        for step in plan.before:
            states = step.op.state(1)
            if states:
                self.state[step.name] = dict.fromkeys(states)
                self.slots += [Slot(step.name, name, values.size) for name, values in states.items()]
        if not self.carried:
            self.slots = []
            return
        self.slots += [
            Slot(name, "history", source.op.size * source.keeps)
            for name, source in plan.sources.items()
            if source.keeps
        ]
        at = 0
        for slot in self.slots:
            value = self._unpacked(slot, at)
            at += slot.columns
            if slot.name == "history":
                self.history[slot.node] = value
            else:
                self.state[slot.node][slot.name] = value

    def _unpacked(self, slot: Slot, at: int) -> str:
        builder = self.builder.within(f"{slot.node}.{slot.name}")
        dtype = self._dtype_of(slot)

        def part(start: int) -> str:
            columns = builder.columns("h_in", start, start + slot.size)
            return columns if dtype is np.float32 else builder.cast(columns, dtype)

        if not slot.wide:
            return part(at)
        high = builder.op("Mul", part(at), builder.row(np.array([1 << HALF]), DOUBLE))
        return builder.op("Add", high, part(at + slot.size))

    def _dtype_of(self, slot: Slot) -> type:
        """Of its value inside; an encoder's state is the host's."""
        on_host = slot.name != "history" and is_host(self.plan.graph.nodes[slot.node])
        return DOUBLE if on_host else self.kernels.dtype

    def _carry(self) -> None:
        """h_out, of the same slots."""
        parts: list[str] = []
        for slot in self.slots:
            builder = self.builder.within(f"{slot.node}.{slot.name}")
            value = self._kept(slot) if slot.name == "history" else self.state[slot.node][slot.name]
            if value is None:
                parts += [builder.full(np.zeros(slot.columns), np.float32)]
            elif not slot.wide:
                parts += [value if self._dtype_of(slot) is np.float32 else builder.cast(value, np.float32)]
            else:
                scale = builder.row(np.array([2.0**HALF]), DOUBLE)
                high = builder.op("Floor", builder.op("Div", value, scale))
                low = builder.op("Sub", value, builder.op("Mul", high, scale))
                parts += [builder.cast(high, np.float32), builder.cast(low, np.float32)]
        self.builder.within("").op("Concat", *parts, output="h_out", axis=1)

    def _kept(self, slot: Slot) -> str:
        """What a node gave in the last steps, once this action is over."""
        size = self.plan.graph.nodes[slot.node].size
        builder, rows = self.builder, self.given[slot.node][-(slot.size // size) :]
        new = [builder.full(np.zeros(size), self.kernels.dtype) if row is None else row for row in rows]
        older = slot.size - size * len(new)
        old = [builder.columns(self.history[slot.node], slot.size - older, slot.size)] if older else []
        return builder.joined([*old, *new])

    def _was(self, node: str, k: int) -> Value:
        """What a node gave at step k of this action; before its first step, of the one before."""
        if k >= 0:
            return self.given[node][k]
        if node not in self.history:
            return None
        size = self.plan.graph.nodes[node].size
        at = (self.plan.sources[node].keeps + k) * size
        return self.builder.columns(self.history[node], at, at + size)

    # ------------------------------------------------------------------------------------------ the graph

    def _enter(self) -> None:
        """The host's ops before the core, for each of the T steps; where they are the same the nodes are, too."""
        plan = self.plan
        values: dict[str, list[str]] = {}
        for step in plan.before:
            builder, op = self.builder.within(step.name), step.op
            if isinstance(op, Input):
                rows = self._rows(step.name)
            else:
                terms = [[values[tap.source][k] for tap in step.taps] for k in range(self.steps)]
                rows = [builder.total(each) or "" for each in terms]
            if step.name in self.state:
                values[step.name] = self.host.train(op, self.state[step.name], rows[0], self.steps)
            else:
                values[step.name] = [self.host.step(op, row) for row in rows]
        for entry in plan.entries:
            builder, rows = self.builder.within(entry.name), values[entry.name]
            if isinstance(entry.op, Input) and plan.graph.level is Level.INTEGER:
                rows = [builder.cast(builder.cast(row, np.int64), DOUBLE) for row in rows]
            single = self.kernels.dtype is np.float32
            self.given[entry.name] = [builder.cast(row, np.float32) if single else row for row in rows]

    def _rows(self, name: str) -> list[str]:
        """What an Input carries at each step, in double: its part of the observation, or its own steps."""
        builder, graph = self.builder, self.plan.graph
        size = graph.nodes[name].size
        if self.contract is not None:
            start = sum(graph.nodes[other].size for other in graph.inputs[: graph.inputs.index(name)])
            whole = len(graph.inputs) == 1
            return [self.observation if whole else builder.columns(self.observation, start, start + size)] * self.steps
        steps = [builder.op("Gather", name, builder.constant(np.array(k)), axis=0) for k in range(self.steps)]
        return [builder.cast(row, DOUBLE) for row in steps]

    def _seen(self) -> str:
        """Whether an observation can be trusted, [batch, 1]; where it cannot, what is neutral takes its place."""
        plan, builder = self.plan, self.builder.within("obs")
        x = builder.cast("obs", DOUBLE)
        good = finite(builder, x)
        if plan.graph.level is Level.INTEGER:
            spiking = np.concatenate(
                [np.full(plan.graph.nodes[n].size, plan.graph.nodes[n].spikes) for n in plan.graph.inputs]
            )
            if spiking.any():
                zero, one = (builder.row(np.array([value]), DOUBLE) for value in (0.0, 1.0))
                binary = builder.op("Or", builder.op("Equal", x, zero), builder.op("Equal", x, one))
                other = builder.constant(~spiking[None])
                good = builder.op("And", good, builder.op("Or", binary, other))
        instead = neutral(plan)
        trusted = all_true(builder, good, instead.size)
        self.observation = builder.op("Where", trusted, x, builder.row(instead, DOUBLE))
        return trusted

    def _step(self, step: Step, k: int) -> None:
        builder = self.builder.within(step.name)
        values = [self._was(tap.source, k - tap.lag) for tap in step.taps]
        x = builder.total(values)
        self.given.setdefault(step.name, []).append(self.kernels.step(step, self.state[step.name], x))

    def _act(self, contract: Contract, trusted: str) -> None:
        """The host's ops after the core, and the fail-safe action."""
        builder = self.builder
        values = {}
        for read in self.plan.reads:
            rows = self._doubles(read.source)
            builder.within(read.source)
            values[read.source] = builder.total(rows[-1:] if read.first == read.last else rows) or ""
        after = self._after(values)
        builder.within("actions")
        action = builder.joined([after[name] for name in self.plan.graph.outputs])
        self.sound = all_true(builder, finite(builder, action), contract.action.size)
        good = builder.op("And", trusted, self.sound)
        safe = builder.op("Where", good, action, builder.row(np.array(contract.fail_safe), DOUBLE))
        builder.within("").op("Cast", safe, output="actions", to=1)

    def _leave(self) -> None:
        """The same of a graph that is no policy, at every step."""
        builder, graph = self.builder, self.plan.graph
        read = {read.source: self._doubles(read.source) for read in self.plan.reads}
        steps = [self._after({name: rows[k] for name, rows in read.items()}) for k in range(self.steps)]
        for name in graph.outputs:
            builder.within(name)
            rows = [after[name] for after in steps]
            if self.kernels.dtype is np.float32:
                rows = [builder.cast(row, np.float32) for row in rows]
            layers = [builder.reshaped(row, 1, builder.batch, graph.nodes[name].size) for row in rows]
            builder.within("").op("Concat", *layers, output=name, axis=0)

    def _doubles(self, name: str) -> list[str]:
        """What a core node gave at each step, in double."""
        builder, size = self.builder.within(name), self.plan.graph.nodes[name].size
        rows = [builder.full(np.zeros(size), self.kernels.dtype) if row is None else row for row in self.given[name]]
        return rows if self.kernels.dtype is DOUBLE else [builder.cast(row, DOUBLE) for row in rows]

    def _after(self, values: dict[str, str]) -> dict[str, str]:
        """Each op after the core, of what is read of the core."""
        results = dict(values)
        for step in self.plan.after:
            builder = self.builder.within(step.name)
            x = builder.total([results[tap.source] for tap in step.taps])
            assert x is not None
            results[step.name] = self.host.step(step.op, x)
        return results

    def _trace(self) -> dict[str, tuple[type, int]]:
        """Outputs for a session: name -> (type, values). Of entries those that change from step to step."""
        kinds: dict[str, tuple[type, int]] = {}
        dtype = self.kernels.dtype
        for name in self.plan.sources:
            builder, op = self.builder.within(TRACE + name), self.plan.graph.nodes[name]
            rows = [builder.full(np.zeros(op.size), dtype) if v is None else v for v in self.given[name]]
            layers = [builder.reshaped(row, 1, builder.batch, op.size) for row in rows]
            builder.op("Concat", *layers, output=builder.reserve(TRACE + name), axis=0)
            kinds[TRACE + name] = dtype, op.size
        if self.sound:
            self.builder.within("").op("Cast", self.sound, output=self.builder.reserve(SOUND), to=1)
        return kinds

    def _proto(self, traced: dict[str, tuple[type, int]], opset: int, metadata: dict[str, str]) -> Any:
        onnx = onnx_library()
        helper, batch, graph = onnx.helper, self.builder.batch, self.plan.graph

        def value(name: str, dtype: type, shape: list[int]) -> Any:
            return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

        if self.contract is not None:
            ins = [value("obs", np.float32, [batch, self.contract.observation.size])]
            outs = [value("actions", np.float32, [batch, self.contract.action.size])]
        else:
            sizes = {name: [self.steps, batch, graph.nodes[name].size] for name in (*graph.inputs, *graph.outputs)}
            ins = [value(name, np.float32, sizes[name]) for name in graph.inputs]
            outs = [value(name, self.kernels.dtype, sizes[name]) for name in graph.outputs]
        width = sum(slot.columns for slot in self.slots)
        if width:
            ins.append(value("h_in", np.float32, [batch, width]))
            outs.append(value("h_out", np.float32, [batch, width]))
        outs += [value(name, dtype, [self.steps, batch, size]) for name, (dtype, size) in traced.items()]
        if traced and self.sound:
            outs.append(value(SOUND, np.float32, [batch, 1]))
        onnx_graph = helper.make_graph(self.builder.nodes, "policy", ins, outs, self.builder.tensors)
        model = helper.make_model(
            onnx_graph,
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=8 if opset > 14 else 6,
            producer_name="nervecord",
        )
        layout = json.dumps([slot.to_dict() for slot in self.slots])
        helper.set_model_props(model, {**metadata, "nervecord_state_layout": layout})
        if model.ByteSize() > MOST_BYTES:
            raise InfeasibleError(
                f"takes {model.ByteSize()} bytes as ONNX, the limit is {MOST_BYTES}",
                where="onnx",
                hint="use fewer neurons",
            )
        return model
