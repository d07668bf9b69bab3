"""The default engine: plans of integers in any arithmetic, by a loop that is compiled once for all of them.

Same results as the definition (`compiler.plan.interpret`) on the same plan, at every step of a run, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nervecord.compiler.findings import raise_on_errors
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.ops import Array, Level
from nervecord.compiler.plan.host_steps import AfterCore, BeforeCore, join, split
from nervecord.compiler.plan.plan import Plan, plan
from nervecord.errors import GraphError, InfeasibleError, NervecordError
from nervecord.runtime.answer import ACTION_NOT_FINITE, NOT_FINITE, Answer, answered
from nervecord.runtime.checks import check_inputs, checked_active, checked_observation
from nervecord.runtime.engines.emulator.packing import pack
from nervecord.runtime.engines.emulator.tables import Header, Hold, Pop
from nervecord.runtime.session import Counts, PolicySession, Traced
from nervecord.runtime.stream import GraphStream

_FLOAT64 = np.dtype(np.float64)


def _kernel() -> Any:
    """The module of the compiled loop. numba is imported when the first emulator opens, not before."""
    try:
        from nervecord.runtime.engines.emulator import kernel
    except ImportError as error:
        raise NervecordError(
            f"needs numba: {error}", where="emulator", hint="pip install numba, or use the engine definition"
        ) from None
    return kernel


class Emulator:
    """A plan of integers with its state, for a batch of independent copies; the `Machine` of the compiled loop.

    Args:
        subject: what to run, or a graph or policy, planned here.
        batch: number of copies.
        fuse, wide, fast, sparse: of `runtime.engines.emulator.packing.pack`.

    Raises:
        GraphError: the graph is not at the integer level, or not executable.
        InfeasibleError: a range cannot be proved: the loop would not be exact, or there is not the memory.
    """

    def __init__(self, subject: Plan | Graph | Policy, batch: int = 1, **form: Any) -> None:
        self.plan = subject if isinstance(subject, Plan) else plan(subject)
        self.graph = self.plan.graph
        if self.graph.level is not Level.INTEGER:
            raise GraphError(
                f"is at level {self.graph.level.value}, and the emulator runs integers",
                where="graph",
                hint="compile it for a target",
            )
        assert self.graph.arithmetic is not None
        raise_on_errors(overflows(prove(self.plan), self.graph.arithmetic), InfeasibleError, where="emulator")
        self.packed = pack(self.plan, **form)
        self.before = BeforeCore(self.plan)
        self.after = AfterCore(self.plan)
        # Spikes, synaptic events; actions, and those of observations and actions that were not finite.
        self.counters = np.zeros(len(self.packed.populations) + len(self.packed.connections) + 3, dtype=np.int64)
        self._held = [entry.name for entry in self.plan.entries if entry.entering == "held"]
        self._streamed = [entry.name for entry in self.plan.entries if entry.entering != "held"]
        self._compile()
        self.reset(batch)

    def _compile(self) -> None:
        """Compile the loop for this plan's types, or read it from numba's cache: now, not within a deadline."""
        self._take_loop()
        _kernel().jit.mended(self._try, self._loop, self._take_loop_and_try)

    def _take_loop(self) -> None:
        self._loop = _kernel().loop()

    def _take_loop_and_try(self) -> None:
        self._take_loop()
        self._try()

    def _try(self) -> None:
        """One block of one copy, and a look at it."""
        self.reset(1)
        active = np.zeros(1, dtype=np.bool_)
        contract, steps = self.plan.contract, self.plan.schedule.steps
        if self.fused and contract is not None:
            ends = np.zeros((1, contract.observation.size)), np.zeros((1, contract.action.size))
            self.act(*ends, active, np.zeros(1, dtype=np.uint8))
        else:
            shapes = {name: self.graph.nodes[name].in_shape for name in self.graph.inputs}
            lead = (1,) if self.plan.schedule.held else (steps, 1)
            self.block({name: np.zeros((*lead, *shape)) for name, shape in shapes.items()}, active)
        self.trace()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_loop"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._take_loop()

    @property
    def fused(self) -> bool:
        """Whether `act` serves it, which does the host's part as well."""
        return self.packed.fused

    @property
    def batch(self) -> int:
        """Number of copies."""
        return len(self._memory)

    def reset(self, batch: int | None = None) -> None:
        """Back to the state before the first step, with a new batch size if one is given."""
        packed, count = self.packed, batch or self.batch
        state, memory = packed.dtypes
        try:
            arrays: tuple[Array, Array, Array] = (
                np.zeros((count, packed.state), dtype=state),
                np.zeros((count, packed.memory), dtype=memory),
                np.zeros((count, packed.scratch)),
            )
        except (MemoryError, ValueError):
            size = count * (packed.memory * np.dtype(memory).itemsize + packed.state * np.dtype(state).itemsize)
            raise InfeasibleError(
                f"needs {size / 1e9:.1f} GB for {count} copies, and there is not as much",
                where="emulator",
                hint="a smaller batch, shorter delays or shorter blocks",
            ) from None
        self.before.reset(count)
        packed.table[Header.CLOCK] = 0
        self._take(arrays)

    def _take(self, state: tuple[Array, Array, Array]) -> None:
        packed = self.packed
        self._state, self._memory, self._scratch = state
        self._arrays = (
            packed.table,
            packed.reals,
            packed.weights,
            packed.columns,
            packed.registers,
            *state,
            self.counters,
        )

    def standing(self) -> Any:
        """Everything that a block changes, as it is now, for `stand`."""
        state = (self._state.copy(), self._memory.copy(), self._scratch.copy())
        return state, self.counters.copy(), int(self.packed.table[Header.CLOCK]), self.before.standing()

    def stand(self, before: Any) -> None:
        """Make it what it was; may be called twice."""
        for now, was in zip(
            (self._state, self._memory, self._scratch, self.counters), (*before[0], before[1]), strict=True
        ):
            now[:] = was
        self.packed.table[Header.CLOCK] = before[2]
        self.before.stand(before[3])

    def clear(self, rows: Array) -> None:
        """The state of some copies (indices or mask) back to that before the first step; time goes on."""
        self.before.clear(rows)
        self._state[rows] = 0
        self._memory[rows] = 0
        self._scratch[rows] = 0

    def act(self, observation: Array, action: Array, active: Array, outcome: Array) -> int:
        """One action of a policy whose host part is fused.

        Args:
            observation: (batch, observations) float64, contiguous. action: (batch, actions), written.
            active: (batch,) bool, which are counted.
            outcome: (batch,) uint8, written: 0 where the policy acted, 1 where the observation was not finite, 2 where
                the action was not.

        Returns:
            Active copies whose action was not finite; it is the fail-safe one then. What is counted of the action is
            in `counters` when it is.
        """
        broken: int = self._loop.act(observation, action, *self._arrays, active, outcome)
        return broken

    def block(self, inputs: Mapping[str, Array], active: Array) -> dict[str, Array]:
        """One block of steps; of a policy, one action.

        Args:
            inputs: Input -> what it carries: (batch, ...) where it is held, (T, batch, ...) of a stream.
            active: (batch,) bool, which are counted.

        Returns:
            Output -> (batch, ...) where inputs are held, (T, batch, ...) of a stream.

        Raises:
            GraphError: an Input that carries spikes is given something else.
        """
        batch, steps = self.batch, self.plan.schedule.steps
        check_inputs(self.plan, inputs)
        entered = self.before.enter(inputs, np.int64)
        constant_rows = [entered[name][0].reshape(batch, -1) for name in self._held]
        streamed = [entered[name][:steps].reshape(steps, batch, -1) for name in self._streamed]
        self._loop.run(
            np.concatenate([np.zeros((batch, 0), np.int64), *constant_rows], axis=1),
            np.concatenate([np.zeros((steps, batch, 0), np.int64), *streamed], axis=2),
            *self._arrays,
            active,
        )
        return self.after.leave({read.source: self._gave(read.source) for read in self.plan.reads})

    # ------------------------------------------------------------------------------------------------ looking at it

    def tally(self) -> tuple[dict[str, float], dict[str, float]]:
        """Spikes of what spikes and events of every connection, since it was made."""
        packed = self.packed
        counted = dict(
            zip((*packed.populations, *packed.connections), self.counters.astype(float).tolist(), strict=False)
        )
        spiking = [name for name in packed.populations if self.plan.step(name).op.spikes]
        return {name: counted[name] for name in spiking}, {name: counted[name] for name in packed.connections}

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last block: name -> (window, batch, ...); {} before the first."""
        if self.packed.table[Header.CLOCK] == 0:
            return {}
        values: dict[str, Array] = {}
        arithmetic = self.graph.arithmetic
        for step in self.plan.core:
            if step.name not in self.packed.connections:
                values[step.name] = self._gave(step.name)
                continue
            x = sum(self._sent(tap.source, tap.lag) for tap in step.taps)
            assert isinstance(x, np.ndarray)
            y = step.op.step({}, x.reshape(-1, *step.op.in_shape), arithmetic)
            values[step.name] = y.reshape(*x.shape[:2], *step.op.out_shape)
        return values

    def state(self) -> dict[str, dict[str, Array]]:
        """State of every core node, as `compiler.plan.interpret.Machine` names it."""
        result: dict[str, dict[str, Array]] = {}
        for step in self.plan.core:
            result[step.name] = {}
            if step.name in self.packed.connections:
                continue
            n, place = self._row(step.name, Pop.NEURONS), self._row(step.name, Pop.STATE)
            for k, key in enumerate(self.packed.populations[step.name]):
                start = place + n * k
                result[step.name][key] = self._state[:, start : start + n].astype(np.int64)
        return result

    def _row(self, name: str, column: Pop) -> int:
        """A number of a population's row."""
        table = self.packed.table
        index = list(self.packed.populations).index(name)
        return int(table[table[Header.POPULATION] + index * Pop.SIZE + column])

    def _gave(self, name: str) -> Array:
        """What a population gave in the last block, (window, batch, n)."""
        window = self.plan.window
        if name in self.packed.rings:
            return self._sent(name, 0)
        n, start = self._row(name, Pop.NEURONS), self._row(name, Pop.VALUE)
        values = self._state[:, start : start + n * window].reshape(self.batch, window, n)
        return values.swapaxes(0, 1).astype(np.int64)

    def _sent(self, name: str, lag: int) -> Array:
        """What a source sent `lag` steps before those of the last block, (window, batch, n)."""
        packed, window = self.packed, self.plan.window
        first = int(packed.table[Header.CLOCK]) - window - lag
        if name in packed.rings:
            width = self.plan.entry(name).op.size if name not in packed.populations else self.plan.step(name).op.size
            values = np.empty((window, self.batch, width), dtype=np.int64)
            self._loop.look_back(packed.table, self._memory, packed.rings[name], first, values)
            return values
        row = packed.table[packed.held[name] :][: Hold.SIZE]
        width, blocks = int(row[Hold.WIDTH]), int(row[Hold.BLOCKS])
        values = np.zeros((window, self.batch, width), dtype=np.int64)
        for k in range(window):
            block, within = divmod(first + k, window)
            if first + k >= 0 and within < self.plan.schedule.steps:
                start = int(row[Hold.SENT]) + block % blocks * width
                values[k] = self._memory[:, start : start + width]
        return values


class EmulatorSession(Traced, PolicySession):
    """A policy of integers, run by the compiled loop.

    Args:
        subject: INTEGER policy or its plan. Its ranges are proved here again: outside them it would not be exact.
        batch: number of robots.
        engine: what to call it in results.
        form: of `Emulator`.

    Raises:
        GraphError, ContractError: it is no integer policy.
        InfeasibleError: a range cannot be proved.
    """

    _machine: Emulator

    def __init__(self, subject: Policy | Plan, batch: int = 1, engine: str = "emulator", **form: Any) -> None:
        super().__init__(subject, engine, batch)
        self._machine = Emulator(self.plan, 1, **form)
        self._fused = self._machine.fused
        self._fail_safe = np.array(self.contract.fail_safe)
        self._machine.reset(batch)
        self._restarted()

    def _restarted(self) -> None:
        batch = self._machine.batch
        buffers = (
            np.zeros((batch, self.contract.action.size)),
            np.zeros((batch, self.contract.observation.size)),
            np.ones(batch, dtype=np.bool_),
            np.zeros(batch, dtype=np.uint8),
        )
        self._action: Array
        self._observation: Array
        self._outcome: Array
        self._action, self._observation, self._every, self._outcome = buffers
        self._acted = False
        size = self.contract.observation.size
        self._shapes = {(batch, size)} | ({(size,)} if batch == 1 else set())

    @property
    def fused(self) -> bool:
        """Whether the host's part is in the compiled loop."""
        return self._fused

    @property
    def last(self) -> Answer | None:
        """What the last action is; None before the first, and after a reset of all robots.

        Made when it is asked for: a step takes microseconds.
        """
        with self._lock:
            if not self._acted:
                return None
            return answered(self._outcome != 1, self._outcome != 2)

    @property
    def counts(self) -> Counts:
        """What it did since it was opened: a copy."""
        with self._lock:
            counts = super().counts
            actions, distrusted, broken = self._machine.counters[-3:].tolist()
            counts.actions += actions
            counts.fail(NOT_FINITE, distrusted)
            counts.fail(ACTION_NOT_FINITE, broken)
            counts.neuron_updates = float(self._updates * counts.actions)
            return counts

    def step(self, observation: Array, active: Array | None = None) -> Array:
        """(batch, observations) -> (batch, actions); (observations,) -> (actions,) for one robot.

        Raises:
            ContractError: the observation's shape or type is wrong.
        """
        with self._lock:
            if self._closed:
                self._alive()
            x = self._observation
            self._acted = False
            # The usual case of a robot's loop first: it costs a microsecond less than the general check.
            if type(observation) is np.ndarray and observation.dtype == _FLOAT64 and observation.shape in self._shapes:
                x[:] = observation
                single = observation.ndim == 1
            else:
                x[:] = checked_observation(self.contract, observation, self.batch)[0]
                single = np.ndim(observation) == 1
            counted = self._every if active is None else checked_active(active, len(x))
            # The compiled loop is not interrupted, and counts itself.
            if self._fused:
                self._machine.act(x, self._action, counted, self._outcome)
            else:
                self._whole(lambda: self._general(x, counted))
            self._acted = True
            return self._action[0].copy() if single else self._action.copy()

    def _general(self, x: Array, active: Array) -> None:
        """One action with the host's ops in numpy; writes and counts what `Emulator.act` does."""
        emulator = self._machine
        trusted = np.asarray(np.isfinite(x).all(axis=1))
        safe = x if trusted.all() else np.where(trusted[:, None], x, self._neutral)
        action = join(self.plan, emulator.block(split(self.plan, safe), active))
        sound = np.asarray(np.isfinite(action).all(axis=1))
        self._action[:] = np.where((trusted & sound)[:, None], action, self._fail_safe)
        self._outcome[:] = np.where(trusted, np.where(sound, 0, 2), 1)
        broken = int(np.count_nonzero(trusted & ~sound & active))
        failed = int(np.count_nonzero(~trusted & active))
        emulator.counters[-3:] += np.array([np.count_nonzero(active), failed, broken])

    def _stand(self, before: Any) -> None:
        super()._stand(before)
        self._acted = False


class EmulatorStream(Traced, GraphStream):
    """A graph of integers that is no policy, run by the compiled loop.

    Args:
        subject: INTEGER graph, run step by step with its state carried, or a plan.
        batch: number of copies.
        engine: what to call it in results.
        form: of `Emulator`.

    Raises:
        GraphError: it is no graph of integers, or a policy's plan.
        InfeasibleError: a range cannot be proved.
    """

    _machine: Emulator

    def __init__(self, subject: Graph | Plan, batch: int = 1, engine: str = "emulator", **form: Any) -> None:
        super().__init__(subject, engine, batch)
        self._machine = Emulator(self.plan, batch, **form)
