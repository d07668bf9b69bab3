"""A plan with its state for a batch of copies on a device: the `Machine` of `compiler.plan.interpret` in torch.

Nothing in a block looks at a value, so that a card is never waited for. What does not change from one step to the next
is not computed again: a connection that is given the very tensors it had before gives what it gave then, and so the
product of an observation that is held is made once for the T steps of an action.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nervecord.compiler.findings import raise_on_errors
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower.ranges import Proved, overflows, prove_bodies
from nervecord.compiler.ops import Array, Level
from nervecord.compiler.plan.plan import Plan, Step, Tap, plan
from nervecord.errors import InfeasibleError
from nervecord.runtime.engines.torch.host_steps import DOUBLE, AfterCore, BeforeCore
from nervecord.runtime.engines.torch.kernels import Kernel, KernelContext, kernel
from nervecord.runtime.engines.torch.place import place_of, require_exact_products
from nervecord.runtime.engines.torch.tally import Tally


class BatchedMachine:
    """See the module.

    Args:
        subject: what to run, DISCRETE or INTEGER, or its plan.
        batch: number of copies.
        device: as torch names it.
        precision: in which floats are computed, "float64" or "float32"; integers need float64, which is exact for them.

    Raises:
        GraphError: the graph is not executable, or one of its ops has no kernel here.
        InfeasibleError: a range of integers cannot be proved, so that float64 might not hold them.
        NervecordError: the device cannot be used.
    """

    def __init__(
        self,
        subject: Plan | Graph | Policy,
        batch: int = 1,
        *,
        device: str | torch.device = "cpu",
        precision: str = "float64",
    ) -> None:
        self.plan = subject if isinstance(subject, Plan) else plan(subject)
        self.graph = self.plan.graph
        arithmetic = self.graph.arithmetic if self.graph.level is Level.INTEGER else None
        self._proved: dict[str, Proved] = {}
        if arithmetic is not None:
            proofs = prove_bodies(self.plan)
            ranges = [proof.range for proof in proofs]
            raise_on_errors(overflows(ranges, arithmetic), InfeasibleError, where="engine torch")
            self._proved = {proof.range.name: proof for proof in proofs}
        self.place = place_of(self.graph, device, precision)
        self._make_kernels()
        self._clears_all = arithmetic is None and self.plan.schedule.resets
        self._clears = arithmetic is not None and self.plan.schedule.resets
        self._states = {s.name: {k: v.shape[1:] for k, v in s.op.state(1).items()} for s in self.plan.core}
        self._reads = {read.source: read for read in self.plan.reads}
        self.keeps_trace = True
        self.batch = batch
        self.tally = Tally(self.plan, self.place)
        self.reset()

    def _make_kernels(self) -> None:
        arithmetic = self.graph.arithmetic if self.graph.level is Level.INTEGER else None
        graded = self.plan.graded
        self.kernels: dict[str, Kernel] = {
            s.name: kernel(
                s.op, KernelContext(self.place, arithmetic, graded.get(s.name, True), self._proved.get(s.name))
            )
            for s in self.plan.core
        }
        self.before, self.after = BeforeCore(self.plan, self.place), AfterCore(self.plan, self.place)

    # Kernels are functions and cannot be copied; the state of the host's encoders, which stands beside them, can.
    def __getstate__(self) -> dict[str, Any]:
        rest = {key: value for key, value in self.__dict__.items() if key not in ("kernels", "before", "after")}
        return {**rest, "_encoders": self.before.states}

    def __setstate__(self, state: dict[str, Any]) -> None:
        encoders = state.pop("_encoders")
        self.__dict__.update(state)
        self._make_kernels()
        self.before.states = encoders

    # ------------------------------------------------------------------------------------------------ state

    def reset(self, batch: int | None = None) -> None:
        """Back to the state before the first step, with a new batch size if one is given."""
        self.batch = batch or self.batch
        self.before.reset(self.batch)
        self._zeros = {e.name: self.place.zeros(self.batch, *e.op.out_shape) for e in self.plan.entries}
        # Nothing writes into a tensor that is here, so that all states may begin as the same zeros.
        self._blank = {
            name: {key: self.place.zeros(self.batch, *shape) for key, shape in shapes.items()}
            for name, shapes in self._states.items()
        }
        self.trace_steps: list[dict[str, Tensor]] = []
        self.tally.reset(self.batch)
        self._begin()
        self.t = 0

    def _begin(self) -> None:
        """The core's state before the first step."""
        self.states = {name: dict(values) for name, values in self._blank.items()}
        self._seen: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}
        # What was given `lag` steps ago stands at [-lag].
        self._history: dict[str, deque[Tensor]] = {
            name: deque([self.place.zeros(self.batch, *source.op.out_shape)] * source.keeps, maxlen=source.keeps)
            for name, source in self.plan.sources.items()
            if source.keeps
        }

    def standing(self) -> Any:
        """Everything that a block changes, as it is now, for `stand`: nothing writes into these tensors."""
        return (
            self.t,
            {name: dict(values) for name, values in self.states.items()},
            dict(self._seen),
            {name: ring.copy() for name, ring in self._history.items()},
            self.trace_steps,
            self.tally.standing(),
            self.before.standing(),
        )

    def stand(self, before: Any) -> None:
        """Make it what it was; may be called twice."""
        self.t, states, results, history, self.trace_steps, tally, encoders = before
        self.states = {name: dict(values) for name, values in states.items()}
        self._seen, self._history = dict(results), {name: ring.copy() for name, ring in history.items()}
        self.tally.stand(tally)
        self.before.stand(encoders)

    def clear(self, rows: Tensor) -> None:
        """The state of some copies, (batch,) bool on the device, back to that before the first step; time goes on."""
        self.before.clear(rows)
        for state in self.states.values():
            for key, value in state.items():
                state[key] = _cleared(value, rows)
        for ring in self._history.values():
            # What was held for several steps is one tensor, and stays one.
            cleared = {id(value): _cleared(value, rows) for value in ring}
            ring.extend([cleared[id(value)] for value in list(ring)])

    # ------------------------------------------------------------------------------------------------ steps

    def step(self, entered: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """One core time step: values (batch, ...) of every entry in, the output of every core step out."""
        values: dict[str, Tensor] = dict(entered)
        for step in self.plan.core:
            inputs = tuple([self._tap(tap, values) for tap in step.taps])
            state = self.states[step.name]
            if state:
                if self._clears and self.plan.clears(step, self.t):
                    self.states[step.name] = state = dict(self._blank[step.name])
                values[step.name] = self.kernels[step.name](state, _added(inputs))
            else:
                values[step.name] = self._stateless(step, inputs)
        for name, ring in self._history.items():
            ring.append(values[name])
        self.t += 1
        return {step.name: values[step.name] for step in self.plan.core}

    def _stateless(self, step: Step, inputs: tuple[Tensor, ...]) -> Tensor:
        last = self._seen.get(step.name)
        if last is not None and all(a is b for a, b in zip(last[0], inputs, strict=True)):
            return last[1]
        result = self.kernels[step.name]({}, _added(inputs))
        self._seen[step.name] = inputs, result
        return result

    def _tap(self, tap: Tap, values: Mapping[str, Tensor]) -> Tensor:
        return self._history[tap.source][-tap.lag] if tap.lag else values[tap.source]

    @torch.no_grad()
    def block(self, inputs: Mapping[str, Tensor], active: Tensor | None = None) -> dict[str, Tensor]:
        """One block of steps; of a policy, one action.

        Args:
            inputs: Input -> float64 on the device: (batch, ...) where it is held, (T, batch, ...) of a stream.
            active: (batch,) bool on the device, which copies are counted; all by default.

        Returns:
            Output -> float64 on the device, (batch, ...) where inputs are held, (T, batch, ...) of a stream.
        """
        require_exact_products(self.place)
        if self._clears_all:
            self._begin()
        entered = self.before.enter(inputs)
        steps, window = self.plan.schedule.steps, self.plan.window
        left: dict[str, list[Tensor]] = {name: [] for name in self._reads}
        self.trace_steps = []
        for k in range(window):
            entering = {name: rows[k] if k < steps else self._zeros[name] for name, rows in entered.items()}
            values = self.step(entering)
            self.tally.step(entering, values)
            for name, read in self._reads.items():
                if read.first <= k <= read.last:
                    left[name].append(values[name])
            if self.keeps_trace:
                self.trace_steps.append(values)
        self.tally.block(active)
        return self.after.leave(left)

    def act(self, observation: Tensor, active: Tensor | None = None) -> Tensor:
        """One action of a policy: (batch, observations) float64 -> (batch, actions) float64, both on the device."""
        return self.after.join(self.block(self.before.split(observation), active))

    # ------------------------------------------------------------------------------------------------ looking at it

    def trace(self) -> dict[str, Array]:
        """What every core node gave in the last block: name -> (window, batch, ...); {} before the first."""
        if not self.trace_steps:
            return {}
        dtype = np.int64 if self.graph.level is Level.INTEGER else np.float64
        return {
            name: torch.stack([values[name] for values in self.trace_steps]).to(DOUBLE).cpu().numpy().astype(dtype)
            for name in self.trace_steps[0]
        }

    def state(self) -> dict[str, dict[str, Array]]:
        """State of every core node, as `compiler.plan.interpret.Machine` names it."""
        result: dict[str, dict[str, Array]] = {}
        for step in self.plan.core:
            dtypes = {key: value.dtype for key, value in step.op.state(1).items()}
            result[step.name] = {
                key: value.to(DOUBLE).cpu().numpy().astype(dtypes[key]) for key, value in self.states[step.name].items()
            }
        return result


def _added(inputs: tuple[Tensor, ...]) -> Tensor:
    x = inputs[0]
    for other in inputs[1:]:
        x = x + other
    return x


def _cleared(value: Tensor, rows: Tensor) -> Tensor:
    return value.masked_fill(rows.view(-1, *(1,) * (value.dim() - 1)), 0.0)
