"""A policy as an ONNX model: observation in, action out, the T steps of its core unrolled inside.

    obs [1, O] float32 -> actions [1, A] float32                      where state is cleared before each action
    obs, h_in [1, S] -> actions, h_out [1, S], all float32            where it is carried; h_in of zeros is the reset

Static shapes, no operators of our own. An observation that is not finite gives the contract's fail-safe action, as in a
session. The steps of a plan of integers whose state is cleared are told apart by phases that make up for delays
exactly, so that step k of every population takes step k of what feeds it, and no delay is left.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.ops import Input, IntegerMembrane, Level, Neuron, Op, PopulationEncode
from nervecord.compiler.plan import Plan, Step, Tap
from nervecord.errors import InfeasibleError
from nervecord.runtime.session import neutral
from nervecord.targets.onnx.builder import MOST_BYTES, Builder, onnx_library
from nervecord.targets.onnx.floats import Floats, Slots, Value
from nervecord.targets.onnx.host import AFTER, BEFORE, all_true, decoded, entered, finite, train
from nervecord.targets.onnx.integers import DOUBLE, Integers

OPSET = 18
OLDEST_OPSET, NEWEST_OPSET = 11, 18
MOST_STEPS = 50_000
"""Core ops times T that are unrolled."""
EXACT = 1 << 24
"""Whole numbers up to it are exact in float32, in which state travels."""
HALF = 16
"""Bits of the lower of two columns that a wider state takes."""
TRACE = "trace:"
"""Begins the names of the outputs that a model for a session has beside: what each core op gave, [T, batch, n]."""


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
    plan: Plan,
    *,
    batch: int = 1,
    trace: bool = False,
    opset: int = OPSET,
    metadata: dict[str, str] | None = None,
) -> Model:
    """The model of a policy's plan.

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
    for step in (*plan.before, *plan.core, *plan.after):
        role = type(step.op).ROLE
        known: Callable[[Op], bool] = kernels.takes
        if role in ("input", "before"):
            known = lambda op: type(op) in BEFORE  # noqa: E731
        elif role in ("after", "output"):
            known = lambda op: type(op) in AFTER or type(op).ROLE == "output"  # noqa: E731
        if not known(step.op):
            raise InfeasibleError(f"{step.op.kind} has no form in ONNX here", where=step.name)
    unrolled = len(plan.core) * plan.schedule.steps
    if unrolled > MOST_STEPS:
        raise InfeasibleError(
            f"{len(plan.core)} core nodes in {plan.schedule.steps} steps per action are {unrolled} to unroll, the "
            f"limit is {MOST_STEPS}", where="onnx", hint="train with fewer steps per action",
        )  # fmt: skip


class _Printer:
    """Makes one model."""

    def __init__(self, plan: Plan, builder: Builder) -> None:
        check_ops(plan)
        assert plan.contract is not None
        self.plan, self.builder, self.contract = plan, builder, plan.contract
        self.kernels: Floats | Integers = (
            Floats(builder) if plan.graph.level is Level.DISCRETE else Integers(builder, plan)
        )
        self.carried = not plan.schedule.resets
        self.steps = plan.schedule.steps
        self.order, self.taps = _useful(plan)
        self.slots: list[Slot] = []
        self.history: dict[str, str] = {}
        self.given: dict[str, list[Value]] = {}
        self.state: dict[str, Slots] = {}
        builder.reserve("obs")
        builder.reserve("actions")

    def model(self, trace: bool, opset: int, metadata: dict[str, str]) -> Model:
        self._lay_out()
        trusted = self._enter()
        for k in range(self.steps):
            for step in self.order:
                self._step(step, k)
        self._leave(trusted)
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
            self.slots += [Slot(step.name, name, step.op.size, self._wide(step.op, name)) for name in names]
        encoders = [step for step in plan.before if isinstance(step.op, PopulationEncode)]
        for step in encoders:
            self.state[step.name] = {"v": None}
            self.slots.append(Slot(step.name, "v", int(step.op.mean.size)))  # type: ignore[attr-defined]
        if not self.carried:
            self.slots = []
            return
        keeping = [(entry.name, entry.op.size, entry.keeps) for entry in plan.entries]
        keeping += [(step.name, step.op.size, step.keeps) for step in plan.core]
        self.keeps = {name: keeps for name, _, keeps in keeping}
        self.slots += [Slot(name, "history", size * keeps) for name, size, keeps in keeping if keeps]
        if not self.slots:
            return
        self.builder.reserve("h_in")
        self.builder.reserve("h_out")
        at = 0
        for slot in self.slots:
            value = self._unpacked(slot, at)
            at += slot.columns
            if slot.name == "history":
                self.history[slot.node] = value
            else:
                self.state[slot.node][slot.name] = value

    def _wide(self, op: Op, name: str) -> bool:
        arithmetic = self.plan.graph.arithmetic
        if arithmetic is None or not isinstance(op, Neuron) or not isinstance(op.membrane, IntegerMembrane):
            return False
        low, high = arithmetic.membrane_range if name == "v" else arithmetic.current_range
        return max(-low, high) > EXACT

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
        """Of its value inside; an encoder's accumulators are the host's."""
        encoder = isinstance(self.plan.graph.nodes[slot.node], PopulationEncode)
        return DOUBLE if encoder and slot.name == "v" else self.kernels.dtype

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
        builder, rows = self.builder, self.given[slot.node][-self.keeps[slot.node] :]
        size = slot.size // self.keeps[slot.node]
        new = [builder.full(np.zeros(size), self.kernels.dtype) if row is None else row for row in rows]
        left = slot.size - size * len(new)
        old = [builder.columns(self.history[slot.node], slot.size - left, slot.size)] if left else []
        return builder.joined([*old, *new])

    def _was(self, node: str, k: int) -> Value:
        """What a node gave at step k of this action; before its first step, of the one before."""
        if k >= 0:
            return self.given[node][k]
        if node not in self.history:
            return None
        size = self.plan.graph.nodes[node].size
        at = (self.keeps[node] + k) * size
        return self.builder.columns(self.history[node], at, at + size)

    # ------------------------------------------------------------------------------------------ the graph

    def _enter(self) -> str:
        """The host's ops before the core. Returns whether the observation can be trusted, [batch, 1]."""
        plan, builder = self.plan, self.builder.within("obs")
        trusted, seen = self._seen()
        values: dict[str, str | list[str]] = {}
        for step in plan.before:
            builder.within(step.name)
            op = step.op
            if isinstance(op, Input):
                x = seen if len(plan.graph.inputs) == 1 else builder.columns(seen, *self._columns(step.name))
            else:
                terms = [values[tap.source] for tap in step.taps]
                x = builder.total([term for term in terms if isinstance(term, str)]) or ""
            if isinstance(op, PopulationEncode):
                values[step.name], self.state[step.name]["v"] = train(
                    builder, op, self.state[step.name]["v"], x, self.steps
                )
            else:
                values[step.name] = entered(builder, op, x)
        for entry in plan.entries:
            builder.within(entry.name)
            value = values[entry.name]
            if isinstance(entry.op, Input) and plan.graph.level is Level.INTEGER:
                value = builder.cast(builder.cast(str(value), np.int64), DOUBLE)
            rows = value if isinstance(value, list) else [value] * self.steps
            single = self.kernels.dtype is np.float32
            self.given[entry.name] = [builder.cast(row, np.float32) if single else row for row in rows]
        return trusted

    def _columns(self, name: str) -> tuple[int, int]:
        start = 0
        for other in self.plan.graph.inputs:
            size = self.plan.graph.nodes[other].size
            if other == name:
                return start, start + size
            start += size
        raise KeyError(name)

    def _seen(self) -> tuple[str, str]:
        """(whether an observation can be trusted, it in double or else what is neutral)."""
        plan, builder = self.plan, self.builder
        size = self.contract.observation.size
        given = builder.cast("obs", DOUBLE)
        good = finite(builder, given)
        if plan.graph.level is Level.INTEGER:
            spiking = np.concatenate([np.full(plan.graph.nodes[n].size, plan.graph.nodes[n].spikes)
                                      for n in plan.graph.inputs])  # fmt: skip
            if spiking.any():
                zero, one = (builder.row(np.array([value]), DOUBLE) for value in (0.0, 1.0))
                binary = builder.op("Or", builder.op("Equal", given, zero), builder.op("Equal", given, one))
                other = builder.constant(~spiking[None])
                good = builder.op("And", good, builder.op("Or", binary, other))
        trusted = all_true(builder, good, size)
        return trusted, builder.op("Where", trusted, given, builder.row(neutral(plan), DOUBLE))

    def _step(self, step: Step, k: int) -> None:
        builder = self.builder.within(step.name)
        values = [self._was(tap.source, k - tap.lag) for tap in self.taps[step.name]]
        x = builder.total(values)
        self.given.setdefault(step.name, []).append(self.kernels.step(step.op, self.state[step.name], x))

    def _leave(self, trusted: str) -> None:
        """The host's ops after the core, and the fail-safe action."""
        plan, builder = self.plan, self.builder
        values: dict[str, str] = {}
        for read in plan.reads:
            builder.within(read.source)
            rows = self.given[read.source][-1:] if read.first == read.last else self.given[read.source]
            size = plan.graph.nodes[read.source].size
            exact = self.kernels.dtype is DOUBLE
            parts = [row if row is None or exact else builder.cast(row, DOUBLE) for row in rows]
            values[read.source] = builder.total(parts) or builder.full(np.zeros(size), DOUBLE)
        for step in plan.after:
            builder.within(step.name)
            x = builder.total([values[tap.source] for tap in step.taps])
            assert x is not None
            values[step.name] = x if type(step.op).ROLE == "output" else decoded(builder, step.op, x)
        builder.within("actions")
        action = builder.joined([values[name] for name in plan.graph.outputs])
        good = builder.op("And", trusted, all_true(builder, finite(builder, action), self.contract.action.size))
        safe = builder.op("Where", good, action, builder.row(np.array(self.contract.fail_safe), DOUBLE))
        builder.within("").op("Cast", safe, output="actions", to=1)

    def _trace(self) -> dict[str, tuple[type, int]]:
        """Outputs for a session: name -> (type, values). Of entries those that change from step to step."""
        found: dict[str, tuple[type, int]] = {}
        dtype = self.kernels.dtype
        for name in (*(e.name for e in self.plan.entries), *(s.name for s in self.plan.core)):
            builder, op = self.builder.within(TRACE + name), self.plan.graph.nodes[name]
            rows = [builder.full(np.zeros(op.size), dtype) if v is None else v for v in self.given[name]]
            if name not in self.plan.graph.inputs and type(op).ROLE != "before":
                rows = [self.kernels.shown(op, row) for row in rows]
            layers = [builder.reshaped(row, 1, builder.batch, op.size) for row in rows]
            builder.op("Concat", *layers, output=builder.reserve(TRACE + name), axis=0)
            found[TRACE + name] = dtype, op.size
        return found

    def _proto(self, traced: dict[str, tuple[type, int]], opset: int, metadata: dict[str, str]) -> Any:
        onnx = onnx_library()
        helper, batch, contract = onnx.helper, self.builder.batch, self.contract

        def row(name: str, size: int) -> Any:
            return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [batch, size])

        ins, outs = [row("obs", contract.observation.size)], [row("actions", contract.action.size)]
        width = sum(slot.columns for slot in self.slots)
        if width:
            ins.append(row("h_in", width))
            outs.append(row("h_out", width))
        for name, (dtype, size) in traced.items():
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
            outs.append(helper.make_tensor_value_info(name, kind, [self.steps, batch, size]))
        graph = helper.make_graph(self.builder.nodes, "policy", ins, outs, self.builder.tensors)
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8 if opset > 14 else 6,
            producer_name="nervecord",
        )  # fmt: skip
        layout = json.dumps([slot.to_dict() for slot in self.slots])
        helper.set_model_props(model, {**metadata, "nervecord_state_layout": layout})
        if model.ByteSize() > MOST_BYTES:
            raise InfeasibleError(
                f"takes {model.ByteSize()} bytes as ONNX, the limit is {MOST_BYTES}", where="onnx",
                hint="use fewer neurons",
            )  # fmt: skip
        return model


def _useful(plan: Plan) -> tuple[list[Step], dict[str, tuple[Tap, ...]]]:
    """Core steps in an order to execute useful step k in, and their inputs with the lags that are left."""
    staggered = plan.graph.level is Level.INTEGER and plan.schedule.resets
    if not staggered:
        return list(plan.core), {step.name: step.taps for step in plan.core}
    taps = {step.name: tuple(Tap(tap.source, 0) for tap in step.taps) for step in plan.core}
    done = {entry.name for entry in plan.entries}
    order: list[Step] = []
    waiting = list(plan.core)
    while waiting:
        ready = [step for step in waiting if all(tap.source in done for tap in step.taps)]
        assert ready  # a plan has no loop in a window that is cleared
        order += ready
        done |= {step.name for step in ready}
        waiting = [step for step in waiting if step.name not in done]
    return order, taps
