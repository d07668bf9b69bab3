"""The engine "onnxruntime": a policy in ONNX Runtime, on the CPU. The one door to that library.

It runs the nodes that `model.make_model` prints, for a batch of robots and with what every core op gave as further
outputs, so that spikes are counted and compared. Observations enter rounded to float32, and actions leave so, as in the
file that a robot runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array, Level, is_core
from nervecord.compiler.plan.host_steps import split
from nervecord.compiler.plan.plan import Plan
from nervecord.errors import EngineError, GraphError, MissingDependencyError, install_command
from nervecord.runtime.checks import check_inputs
from nervecord.runtime.machines import Tally
from nervecord.runtime.session import PolicySession, neurons
from nervecord.runtime.stream import GraphStream
from nervecord.targets.onnx.model import SOUND, TRACE, Model, make_model

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


class OnnxMachine:
    """A plan in ONNX Runtime, with its state, for a batch of independent copies.

    Args:
        plan: of a policy, or of a graph that is none. batch: number of copies.

    Raises:
        InfeasibleError: an op has no form in ONNX here.
        MissingDependencyError: onnx or onnxruntime is not installed.
    """

    def __init__(self, plan: Plan, batch: int) -> None:
        self.plan = plan
        self._core = {step.name for step in plan.core}
        self._nodes = (*(entry.name for entry in plan.entries), *(step.name for step in plan.core))
        self._integer = plan.graph.level is Level.INTEGER
        self._tally = Tally(plan)
        self.open(batch)

    def open(self, batch: int) -> None:
        """A model for so many copies, at the state before the first block."""
        self.batch = batch
        self.model: Model = make_model(self.plan, batch=batch, trace=True)
        self._start()
        self._blank()

    def _start(self) -> None:
        self._session = inference_session(self.model.proto.SerializeToString())
        self._names = [output.name for output in self._session.get_outputs()]

    def reset(self, batch: int) -> None:
        """Back to that state, with so many copies."""
        if batch != self.batch:
            self.open(batch)
        else:
            self._blank()

    def _blank(self) -> None:
        self.state = np.zeros((self.batch, self.model.state_size), dtype=np.float32)
        self.last: dict[str, Array] = {}

    def clear(self, rows: Array) -> None:
        """Some copies back to that state."""
        self.state[rows] = 0

    def standing(self) -> Any:
        """Everything that a block changes, as it is now, for `stand`: nothing writes into these."""
        return self.state, self.last, self._tally.sums

    def stand(self, before: Any) -> None:
        """Make it what it was; may be called twice."""
        self.state, self.last, self._tally.sums = before

    def __getstate__(self) -> dict[str, Any]:
        # ONNX Runtime's session cannot be copied; one of the same model takes its place.
        return {key: value for key, value in self.__dict__.items() if key != "_session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def block(self, inputs: Mapping[str, Array], active: Array) -> dict[str, Array]:
        """One block of a graph that is no policy, rounded to float32 where it enters; see `BlockMachine`.

        Raises:
            GraphError: an input is beyond what float32 holds.
        """
        graph, lead = self.plan.graph, (self.plan.schedule.steps, self.batch)
        if self._integer:
            check_inputs(self.plan, inputs)
        with np.errstate(over="ignore"):
            feeds = {name: x.reshape(*lead, -1).astype(np.float32) for name, x in inputs.items()}
        for name, x in feeds.items():
            if not np.isfinite(x).all():
                raise GraphError("holds values that float32 does not", where=name)
        values = self.run(feeds, active)
        leaving = {}
        for name in graph.outputs:
            # Integers leave where nothing decodes them.
            whole = self._integer and all(is_core(graph.nodes[source]) for source in graph.sources(name))
            rows = values[name].reshape(*lead, *graph.nodes[name].out_shape)
            leaving[name] = rows.astype(np.int64 if whole else np.float64)
        return leaving

    def run(self, feeds: dict[str, Array], active: Array) -> dict[str, Array]:
        """One block, counted: inputs by name, float32, to outputs by name; `last` holds what every node gave.

        Raises:
            EngineError: ONNX Runtime failed.
        """
        if self.model.state_size:
            feeds = {**feeds, "h_in": self.state}
        try:
            values = dict(zip(self._names, self._session.run(None, feeds), strict=True))
        except Exception as error:
            raise EngineError(f"failed: {' '.join(str(error).split())[:300]}", where=ENGINE) from error
        if self.model.state_size:
            self.state = values["h_out"]
        self.last = {name: self._whole_block(name, values[TRACE + name]) for name in self._nodes}
        self._tally.add({entry.name: self.last[entry.name] for entry in self.plan.entries}, self.last, active)
        return values

    def _whole_block(self, name: str, rows: Array) -> Array:
        """Useful steps in their places of a block: (window, batch, ...)."""
        shape = self.plan.graph.nodes[name].out_shape
        block = np.zeros((self.plan.window, self.batch, *shape), dtype=np.int64 if self._integer else np.float64)
        useful = self.plan.useful(name) if name in self._core else slice(0, len(rows))
        block[useful] = rows.reshape(len(rows), self.batch, *shape)
        return block

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last block: name -> (window, batch, ...)."""
        return {step.name: self.last[step.name].copy() for step in self.plan.core if step.name in self.last}

    def tally(self) -> tuple[dict[str, float], dict[str, float]]:
        """See `runtime.machines.BlockMachine`."""
        return self._tally.sums


class OnnxSession(PolicySession):
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
        super().__init__(subject, ENGINE, batch)
        self._updates = neurons(self.plan) * self.plan.schedule.steps  # the useful ones
        self._machine: OnnxMachine = OnnxMachine(self.plan, batch)

    def _act(self, rows: Array, trusted: Array, counted: Array) -> tuple[Array, Array]:
        with np.errstate(over="ignore"):  # what float32 does not hold is infinite there, and not trusted
            single = rows.astype(np.float32)
        trusted = np.asarray(np.isfinite(single).all(axis=1))
        if self.graph.level is Level.INTEGER:
            safe = np.where(trusted[:, None], single, self._neutral)
            check_inputs(self.plan, split(self.plan, safe))
        values = self._machine.run({"obs": single}, counted)
        # The model has replaced what is not finite itself; the session reports and counts it.
        return np.where(values[SOUND] != 0, values["actions"].astype(np.float64), np.nan), trusted


class OnnxStream(GraphStream):
    """A graph that is no policy in ONNX Runtime. What enters is rounded to float32.

    Args:
        subject: a graph, run step by step with its state carried, or a plan.
        batch: number of copies.

    Raises:
        GraphError: the graph is not executable, or it is a policy's plan.
        InfeasibleError: an op has no form in ONNX here.
        MissingDependencyError: onnx or onnxruntime is not installed.
    """

    def __init__(self, subject: Graph | Plan, *, batch: int = 1) -> None:
        super().__init__(subject, ENGINE, batch)
        self._machine = OnnxMachine(self.plan, batch)
