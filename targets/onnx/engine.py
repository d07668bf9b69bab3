"""The engine "onnxruntime": a policy in ONNX Runtime, on the CPU. The one door to that library.

It runs the nodes that `model.make_model` prints, for a batch of robots and with what every core op gave as further
outputs, so that spikes are counted and compared. Observations enter rounded to float32, and actions leave so, as in the
file that a robot runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nervecord.compiler.ops import Array, Level
from nervecord.compiler.plan import Plan
from nervecord.compiler.policy import Policy
from nervecord.errors import EngineError, MissingDependencyError, install_command
from nervecord.runtime.session import (
    Closing,
    Counts,
    add,
    check_inputs,
    checked_active,
    checked_batch,
    checked_observation,
    checked_rows,
    count_block,
    neurons,
    neutral,
    planned,
)
from nervecord.targets.onnx.model import TRACE, Model, make_model

ENGINE = "onnxruntime"


def inference_session(model: bytes) -> Any:
    """A session of ONNX Runtime on one thread of the CPU.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        EngineError: it refuses the model.
    """
    try:
        import onnxruntime
    except ImportError:
        raise MissingDependencyError(
            "onnxruntime is not installed", where=ENGINE, hint=install_command("onnxruntime")
        ) from None
    options = onnxruntime.SessionOptions()
    # A policy is small: threads that wait for one another take longer than the work.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # classes of a foreign library, which share no base of their own
        raise EngineError(f"refuses the model: {' '.join(str(error).split())[:300]}", where=ENGINE) from error


class OnnxSession(Closing):
    """A policy in ONNX Runtime.

    Args:
        subject: DISCRETE or INTEGER, a policy or its plan.
        batch: number of robots.

    An observation with a value that is not finite in float32 gives that robot the contract's fail-safe action, counted.
    Of a policy whose state is cleared before each action, the trace holds the useful steps; the others, which no action
    depends on, are not computed, and are zero there.

    Raises:
        InfeasibleError: an op has no form in ONNX here.
        MissingDependencyError: onnx or onnxruntime is not installed.
    """

    def __init__(self, subject: Policy | Plan, *, batch: int = 1) -> None:
        super().__init__()
        self.plan, self.contract = planned(subject)
        self.graph = self.plan.graph
        self.engine = ENGINE
        self._counts = Counts()
        self._neutral = neutral(self.plan)
        self._updates = neurons(self.plan) * self.plan.schedule.steps
        checked_batch(batch)
        self._open(batch)

    def _open(self, batch: int) -> None:
        """A model for so many robots, at the state before the first action."""
        self._batch = batch
        self._model: Model = make_model(self.plan, batch=batch, trace=True)
        self._session = inference_session(self._model.proto.SerializeToString())
        self._names = [output.name for output in self._session.get_outputs()]
        self._clear()

    def _clear(self) -> None:
        self._state = np.zeros((self._batch, self._model.state_size), dtype=np.float32)
        self._last: dict[str, Array] = {}

    def __getstate__(self) -> dict[str, Any]:
        # ONNX Runtime's session cannot be copied; one of the same model takes its place.
        return {key: value for key, value in super().__getstate__().items() if key != "_session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._session = inference_session(self._model.proto.SerializeToString())

    @property
    def batch(self) -> int:
        """Number of robots."""
        return self._batch

    @property
    def counts(self) -> Counts:
        """What it did since it was opened: a copy."""
        return self._counts.copy()

    def reset(self, batch: int | None = None, *, rows: Array | None = None) -> None:
        """Clear the state of all robots (setting their number), or of some rows."""
        with self._lock:
            self._alive()
            checked_batch(batch)
            if rows is not None:
                self._state[checked_rows(rows, self._batch)] = 0
            elif batch is not None and batch != self._batch:
                self._open(batch)
            else:
                self._clear()

    def step(self, observation: Array, active: Array | None = None) -> Array:
        """(batch, observations) -> (batch, actions); (observations,) -> (actions,) for one robot.

        Raises:
            ContractError: the observation's shape or type is wrong.
            GraphError: an Input that carries spikes is given something else.
            EngineError: ONNX Runtime failed.
        """
        with self._lock:
            self._alive()
            given, _ = checked_observation(self.contract, observation, self._batch)
            counted = checked_active(active, self._batch)
            with np.errstate(over="ignore"):  # what float32 does not hold is infinite there, and not trusted
                single = given.astype(np.float32)
            trusted = np.asarray(np.isfinite(single).all(axis=1))
            if self.graph.level is Level.INTEGER:
                known = np.where(trusted[:, None], single, self._neutral)
                check_inputs(self.plan, self._split(known))
            action = self._run(single)
            self._count(counted)
            if failed := int(np.count_nonzero(~trusted & counted)):
                self._counts.fail("observation not finite", failed)
            return action if np.ndim(observation) == 2 else action[0]

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last action: name -> (window, batch, n)."""
        with self._lock:
            return {step.name: self._last[step.name].copy() for step in self.plan.core if step.name in self._last}

    def _split(self, observation: Array) -> dict[str, Array]:
        graph, start = self.graph, 0
        found = {}
        for name in graph.inputs:
            found[name] = observation[:, start : start + graph.nodes[name].size]
            start += graph.nodes[name].size
        return found

    def _run(self, observation: Array) -> Array:
        feeds = {"obs": observation}
        if self._model.state_size:
            feeds["h_in"] = self._state
        try:
            values = dict(zip(self._names, self._session.run(None, feeds), strict=True))
        except Exception as error:
            raise EngineError(f"failed: {' '.join(str(error).split())[:300]}", where=ENGINE) from error
        if self._model.state_size:
            self._state = values["h_out"]
        self._last = {}
        for name in (*(entry.name for entry in self.plan.entries), *(step.name for step in self.plan.core)):
            self._last[name] = self._block(name, values[TRACE + name])
        return np.asarray(values["actions"], dtype=np.float64)

    def _block(self, name: str, rows: Array) -> Array:
        """Useful steps in their places of a block."""
        core = any(step.name == name for step in self.plan.core)
        dtype = np.int64 if self.graph.level is Level.INTEGER else np.float64
        block = np.zeros((self.plan.window, *rows.shape[1:]), dtype=dtype)
        block[self.plan.useful(name) if core else slice(0, len(rows))] = rows
        return block

    def _count(self, active: Array) -> None:
        counts, robots = self._counts, int(np.count_nonzero(active))
        counts.actions += robots
        counts.neuron_updates += self._updates * robots
        sent = {entry.name: self._last[entry.name] for entry in self.plan.entries}
        spikes, events = count_block(self.plan, sent, self._last, active)
        add(counts.spikes, spikes)
        add(counts.synaptic_events, events)
