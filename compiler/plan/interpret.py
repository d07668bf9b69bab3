"""Executes a plan by the definition of its ops: step by step, in plain numpy.

`Machine` runs the core's steps and, for a policy, the block that makes an action of an observation. It is what every
faster engine is compared with. `simulate` runs any graph on recorded input and returns everything it did.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Array, Level, State
from nervecord.compiler.plan.host_steps import AfterCore, BeforeCore, join, split
from nervecord.compiler.plan.plan import Plan, Tap, plan
from nervecord.compiler.plan.work import require_kept, require_runnable
from nervecord.errors import GraphError, NervecordError


class Machine:
    """A plan with its state, for a batch of independent copies.

    Args:
        plan: what to run, or a graph or policy, planned here.
        batch: number of copies.
    """

    def __init__(self, subject: Plan | Graph | Policy, batch: int = 1) -> None:
        self.plan = subject if isinstance(subject, Plan) else plan(subject)
        require_runnable(self.plan)
        self.graph = self.plan.graph
        self.before = BeforeCore(self.plan)
        self.after = AfterCore(self.plan)
        self._make_steppers()
        self._clears_all = self.graph.level is Level.DISCRETE and self.plan.schedule.resets
        self._dtype: type = np.float64 if self.graph.level is Level.DISCRETE else np.int64
        self.batch = batch
        self.reset()

    def _make_steppers(self) -> None:
        self._steppers = {step.name: step.op.stepper(self.graph.arithmetic) for step in self.plan.core}

    def __getstate__(self) -> dict[str, Any]:
        # They follow from the plan, and functions made in functions cannot be pickled.
        return {key: value for key, value in self.__dict__.items() if key != "_steppers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._make_steppers()

    def reset(self, batch: int | None = None) -> None:
        """Back to the state before the first step, with a new batch size if one is given."""
        require_kept(self.plan, self.plan.window, batch or self.batch)
        self.batch = batch or self.batch
        self.before.reset(self.batch)
        self._begin()
        self.t = 0

    def _begin(self) -> None:
        """The core's state before the first step."""
        self.state: dict[str, State] = {step.name: step.op.state(self.batch) for step in self.plan.core}
        # In a circle, as moving all of a long delay takes the most of a step: what is given at t stands at [t % keeps].
        self.history: dict[str, Array] = {
            name: np.zeros((source.keeps, self.batch, *source.op.out_shape), dtype=self._dtype)
            for name, source in self.plan.sources.items()
            if source.keeps
        }

    def standing(self) -> Any:
        """Everything that a block changes, as it is now, for `stand`."""
        states = {name: {key: value.copy() for key, value in state.items()} for name, state in self.state.items()}
        return self.t, states, {name: values.copy() for name, values in self.history.items()}, self.before.standing()

    def stand(self, before: Any) -> None:
        """Make it what it was; may be called twice."""
        self.t = before[0]
        self.state = {name: {key: value.copy() for key, value in state.items()} for name, state in before[1].items()}
        self.history = {name: values.copy() for name, values in before[2].items()}
        self.before.stand(before[3])

    def clear(self, rows: Array) -> None:
        """The state of some copies (indices or mask) back to that before the first step; time goes on."""
        self.before.clear(rows)
        for state in self.state.values():
            for key, value in state.items():
                state[key] = value.copy()
                state[key][rows] = 0
        for values in self.history.values():
            values[:, rows] = 0

    def step(self, entered: Mapping[str, Array]) -> dict[str, Array]:
        """One core time step: values (batch, ...) of every entry in, the output of every core step out."""
        values: dict[str, Array] = dict(entered)
        clears = self.graph.level is Level.INTEGER
        for step in self.plan.core:
            x = self._tap(step.taps[0], values)
            for tap in step.taps[1:]:
                x = x + self._tap(tap, values)
            if clears and self.state[step.name] and self.plan.clears(step, self.t):
                self.state[step.name] = step.op.state(self.batch)
            values[step.name] = self._advance(step.name, x)
        for name, ring in self.history.items():
            ring[self.t % len(ring)] = values[name]
        self.t += 1
        return {step.name: values[step.name] for step in self.plan.core}

    def _advance(self, name: str, x: Array) -> Array:
        """What a core step gives for what enters it; its state goes on."""
        try:
            return self._steppers[name](self.state[name], x)
        except FloatingPointError:  # only in `within_float64`
            raise _beyond_float64(f"{name}, step {self.t}") from None

    def _tap(self, tap: Tap, values: Mapping[str, Array]) -> Array:
        if not tap.lag:
            return values[tap.source]
        ring = self.history[tap.source]
        return ring[(self.t - tap.lag) % len(ring)]

    def block(self, inputs: Mapping[str, Array]) -> tuple[dict[str, Array], list[dict[str, Array]]]:
        """One block of steps; of a policy, one action.

        Afterwards `entered` holds what entered the core: entry -> (window, batch, ...).

        Args:
            inputs: Input -> what it carries: (batch, ...) where it is held, (T, batch, ...) of a stream.

        Returns:
            Output -> (batch, ...) where inputs are held, (T, batch, ...) of a stream; and what every core step gave at
            each step of the block.
        """
        steps = list(self.steps(inputs))
        self.left = {read.source: np.stack([values[read.source] for values in steps]) for read in self.plan.reads}
        return self.after.leave(self.left), steps

    def steps(self, inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """The steps of one block as they happen: the output of every core step. `inputs` as of `block`."""
        if self._clears_all:
            self._begin()
        self.entered = self.before.enter(inputs, self._dtype)
        for k in range(self.plan.window):
            yield self.step({name: rows[k] for name, rows in self.entered.items()})

    def window(self, observation: Array) -> tuple[Array, list[dict[str, Array]]]:
        """One action of a policy: (batch, observations) -> (batch, actions), and what every core step gave."""
        outputs, steps = self.block(split(self.plan, observation))
        return join(self.plan, outputs), steps

    def preferences(self) -> Array:
        """What a policy that chooses held of each of its actions in the last block, (batch, choices)."""
        return self.after.preferences(self.left)


@contextlib.contextmanager
def within_float64() -> Iterator[None]:
    """Recorded input is run here: what a value beyond float64 would lead to, infinity or NaN, says nothing.

    Raises:
        GraphError: there is one, with the node and the step if a core op made it.
    """
    try:
        with np.errstate(over="raise", invalid="raise"):
            yield
    except FloatingPointError:
        raise _beyond_float64("graph") from None


def _beyond_float64(where: str) -> GraphError:
    return GraphError(
        f"on this input a value goes beyond what float64 holds, {np.finfo(np.float64).max:.2e}",
        where=where,
        hint="smaller weights, or smaller values",
    )


@dataclass(slots=True)
class Trace:
    """What a graph did.

    Args:
        outputs: node -> (steps, batch, ...): what every core node gave at every step.
        actions: (observations, batch, actions) of a policy, else None.
        left: Output -> (steps, batch, ...) of a graph that is no policy.
    """

    outputs: dict[str, Array] = field(default_factory=dict)
    actions: Array | None = None
    left: dict[str, Array] = field(default_factory=dict)

    def spikes(self, graph: Graph) -> dict[str, Array]:
        """node -> (steps, batch, n) of the spiking nodes."""
        return {name: values for name, values in self.outputs.items() if graph.nodes[name].spikes}


def simulate(subject: Graph | Policy, inputs: Array | Mapping[str, Array], schedule: Schedule | None = None) -> Trace:
    """Run a graph on recorded input.

    Args:
        subject: DISCRETE or INTEGER.
        inputs: for a policy: observations, (k, observations) or (k, batch, observations), each one action. Else: what
            enters at each step, (steps, n) or (steps, batch, n), or input name -> such.
        schedule: of a graph that is no policy; by default a stream without resets. A block that is not full is filled
            up with zeros.

    Raises:
        GraphError: the graph is not executable, the input's shape does not match, or a value goes beyond float64.
    """
    block_plan = plan(subject, schedule)
    with within_float64():
        if isinstance(subject, Policy):
            return _act(block_plan, plain_array(inputs, "observations"))
        return _stream(block_plan, stream_inputs(block_plan.graph, inputs))


def _act(plan: Plan, observations: Array) -> Trace:
    assert plan.contract is not None
    rows = checked(observations, (plan.contract.observation.size,), "observations")
    require_kept(plan, len(rows) * plan.window, rows.shape[1])
    machine = Machine(plan, rows.shape[1])
    trace_steps: list[dict[str, Array]] = []
    actions = []
    for row in rows:
        action, steps = machine.window(row)
        actions.append(action)
        trace_steps += steps
    if not np.isfinite(actions).all():
        raise _beyond_float64("action")
    return Trace(_stacked(trace_steps), np.stack(actions))


def _stream(plan: Plan, arrays: dict[str, Array]) -> Trace:
    steps, batch = next(iter(arrays.values())).shape[:2]
    require_kept(plan, steps, batch)
    machine = Machine(plan, batch)
    trace_steps: list[dict[str, Array]] = []
    left: dict[str, list[Array]] = {}
    held = plan.schedule.held
    per_block = 1 if held else plan.schedule.steps
    for start in range(0, steps, per_block):
        block = {name: _part(x, start, per_block) for name, x in arrays.items()}
        outputs, values = machine.block({name: x[0] for name, x in block.items()} if held else block)
        trace_steps += values
        for name, rows in outputs.items():
            left.setdefault(name, []).append(rows[None] if held else rows)
    return Trace(
        outputs=_stacked(trace_steps), left={name: np.concatenate(rows)[:steps] for name, rows in left.items()}
    )


def _stacked(steps: list[dict[str, Array]]) -> dict[str, Array]:
    """name -> (steps, batch, ...); what is stacked is given back at once."""
    return {name: np.stack([values.pop(name) for values in steps]) for name in list(steps[0])}


def _part(x: Array, start: int, count: int) -> Array:
    part = x[start : start + count]
    if len(part) < count:
        part = np.concatenate([part, np.zeros((count - len(part), *x.shape[1:]), dtype=x.dtype)])
    return part


def stream_inputs(graph: Graph, inputs: Array | Mapping[str, Array]) -> dict[str, Array]:
    """Inputs of a stream by name, each (steps, batch, ...).

    Raises:
        GraphError: one is missing, unknown, of another shape, or not finite.
    """
    if not isinstance(inputs, Mapping):
        if len(graph.inputs) != 1:
            raise GraphError(f"has {len(graph.inputs)} inputs", where="graph", hint="give the values by name")
        inputs = {graph.inputs[0]: inputs}
    unknown = [name for name in inputs if name not in graph.inputs]
    if unknown:
        raise GraphError(f"is no input; the inputs are {', '.join(graph.inputs)}", where=unknown[0])
    missing = [name for name in graph.inputs if name not in inputs]
    if missing:
        raise GraphError("no values given for this input", where=missing[0])
    arrays = {name: checked(plain_array(inputs[name], name), graph.nodes[name].in_shape, name) for name in graph.inputs}
    if len({array.shape[:2] for array in arrays.values()}) != 1:
        raise GraphError("inputs differ in their number of steps or their batch", where="inputs")
    return arrays


def plain_array(values: Any, where: str, error: type[NervecordError] = GraphError) -> Array:
    """What a caller gives, as an array of numpy.

    Raises:
        error: its rows differ in length; or it is masked, and what is masked would count.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise error("is a masked array, whose mask says nothing here", where=where, hint="fill it: x.filled(0)")
    try:
        return np.asarray(values)
    except (TypeError, ValueError) as wrong:
        raise error(f"is no array of numbers: {' '.join(str(wrong).split())[:200]}", where=where) from None


def checked(array: Array, shape: tuple[int, ...], name: str) -> Array:
    """Values as (steps, batch, *shape).

    Compiling unrolls convolutions into matrices, whose values stand in one row. So an array whose axes were flattened,
    or are to be, is taken too: a network and its program take the same recording.

    Raises:
        GraphError: they are of another shape, none, or not finite.
    """
    if array.dtype.kind not in "fiub" or not np.isfinite(array).all():
        raise GraphError("the values are not all finite numbers", where=name)
    batched = _batched(array, shape)
    if batched is None:
        raise GraphError(
            f"values have shape {array.shape}, (steps, [batch,] {', '.join(map(str, shape))}) is needed", where=name
        )
    if batched.size == 0:
        raise GraphError(f"values have shape {array.shape}, at least one step is needed", where=name)
    return batched


def _batched(array: Array, shape: tuple[int, ...]) -> Array | None:
    """The values as (steps, batch, *shape), their last axes flattened or unflattened where they must be; or None."""
    axes = array.shape
    for batch in (0, 1):
        if axes[1 + batch :] == shape and len(axes) > batch:
            return array if batch else array[:, None]
    size = math.prod(shape)
    for batch in (0, 1):
        own = axes[1 + batch :]
        if own and math.prod(own) == size and 1 in (len(own), len(shape)):
            return array.reshape(axes[0], axes[1] if batch else 1, *shape)
    return None
