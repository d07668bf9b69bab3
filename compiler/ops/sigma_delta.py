"""Networks that send changes, in integers: as the fixed-point models of lava-nc 0.10.0 (`lava.proc.sdn`) compute them.

    Delta        values in, graded spikes out: what changed since the last one, where that is enough
    SigmaDelta   graded spikes summed up again, an activation, and its changes as graded spikes
    Sigma        graded spikes summed up again: a value that is read

Connections between them pass whole numbers, of which most are zero. A connection with a negative exponent rounds each
message down, and sums never forget: they drift, by up to one unit at a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.bounds import UNBOUNDED, ZERO, Bounds
from nervecord.compiler.body.evaluate import sign, zero_state
from nervecord.compiler.body.expression import Body
from nervecord.compiler.body.intervals import Reached, over_steps
from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.ops import fields
from nervecord.compiler.ops.fields import Array, Shape
from nervecord.compiler.ops.level import Level
from nervecord.compiler.ops.op import Op, Role, State
from nervecord.compiler.ops.reach import LONGEST_RUN, Reach, Sent
from nervecord.errors import no_case

STATE_BITS = 32
"""Width of sums, activations, residues and graded spikes. Lava declares 24 bits for them, and computes in 32."""
LARGEST_THRESHOLD = (1 << 17) - 1
"""With both exponents at their largest its shifted value still fits in 32 bits."""
LARGEST_BIAS = (1 << 15) - 1
LARGEST_SHIFT = 7
Rectifier: TypeAlias = Literal["relu", "unit"]


class Summing(Op):
    """What these populations share: integers of one width, and the proof of their ranges."""

    __slots__ = ()

    ROLE: ClassVar[Role] = "population"
    LEVELS: ClassVar[frozenset[Level]] = frozenset({Level.INTEGER})

    @property
    def out_shape(self) -> Shape:
        return self.in_shape

    def state(self, batch: int) -> State:
        return zero_state(self.traced(None), (batch, *self.in_shape))

    def reach(self, arithmetic: Arithmetic, interval: int, entering: Sent) -> Reach:
        body, known = self.traced(arithmetic), {}
        if "sigma" in body.observed:
            known[body.observed["sigma"]] = _sums(entering, interval)
        reached = self._over_steps(body, entering, interval, known)
        state_bounds = [reached.named(name).hull(ZERO) for name in body.observed]
        low, high = min(bounds.lowest for bounds in state_bounds), max(bounds.highest for bounds in state_bounds)
        half = 1 << (STATE_BITS - 1)
        return Reach(
            current=0,
            state=(low, high),
            sends=self.sent(reached.named("act").hull(ZERO), reached.values[body.result], interval)
            if isinstance(self, Sending)
            else None,
            accumulator_limit=half,
            state_limits=(1 - half, half - 1),
            exact=False,
            reached=reached,
        )

    def _over_steps(self, body: Body, entering: Sent, interval: int, known: dict[int, Bounds]) -> Reached:
        return over_steps(body, Bounds.of(entering.low, entering.high), interval, known=known)


class Sending(Summing):
    """What those share that send changes of a value `act`.

    delta = act - (act before) + residue
    sent = delta where |delta| >= threshold << (spike_exp + state_exp), else 0;  residue = delta - sent
    y = sent >> state_exp
    """

    __slots__ = ()

    threshold: int
    spike_exp: int
    state_exp: int

    @property
    def messages(self) -> bool:
        return True

    @property
    def lift(self) -> int:
        """Bits by which threshold and bias are shifted up to the state's unit."""
        return self.spike_exp + self.state_exp

    @property
    def level(self) -> int:
        """The threshold in the state's unit."""
        return self.threshold << self.lift

    def send(self, do: Tracer, act: Value) -> Value:
        """Messages of an activation."""
        do.observe("act", act)
        delta = act - do.state("act") + do.state("residue")
        do.observe("delta", delta)
        level = do.constant("level", self.level)
        enough = (delta >= level) | (delta <= -level)
        do.keep("act", act)
        do.keep("residue", do.where(enough, 0, delta))
        return do.where(enough, delta, 0) >> do.constant("state_exp", self.state_exp)

    def _over_steps(self, body: Body, entering: Sent, interval: int, known: dict[int, Bounds]) -> Reached:
        """Also from what intervals cannot tell: an activation changes by no more at once than it can."""
        reached = Summing._over_steps(self, body, entering, interval, known)
        act, residue = reached.named("act").hull(ZERO), max(self.level - 1, 0)
        change = Bounds.of(act.low - act.high, act.high - act.low)
        step = self._largest_change(entering)
        change = change if step is None else change.meet(step)
        delta = Bounds.of(change.low - residue, change.high + residue)
        return Summing._over_steps(self, body, entering, interval, known | {body.observed["delta"]: delta})

    def _largest_change(self, entering: Sent) -> Bounds | None:
        """Of the activation in one step, where that is known of what enters."""
        return None

    def sent(self, act: Bounds, messages: Bounds, interval: int) -> Sent:
        """What it sends."""
        # The messages sent so far add up to act - residue, but for what each of them loses to the shift.
        residue = max(self.level - 1, 0)
        lost = (interval or LONGEST_RUN) if self.state_exp else 0
        total = ((act.low - residue) >> self.state_exp) - lost, (act.high + residue) >> self.state_exp
        low, high, least, most = (np.broadcast_to(end, self.size) for end in (messages.low, messages.high, *total))
        return Sent(low, high, (least, most))


@dataclass(frozen=True, slots=True, eq=False)
class Delta(Sending):
    """Values in, changes out: act = x << (spike_exp + state_exp), and of act's changes graded spikes are sent.

    delta = act - (act before) + residue
    sent = delta where |delta| >= threshold << (spike_exp + state_exp), else 0;  residue = delta - sent
    y = sent >> state_exp
    """

    width: int = fields.integer("number of values", 1, fields.LARGEST_AXIS)
    threshold: int = fields.integer("smallest change that is sent; 0: every one", 0, LARGEST_THRESHOLD)
    spike_exp: int = fields.integer("graded spikes are 2^spike_exp to a unit of x", 0, LARGEST_SHIFT, 0)
    state_exp: int = fields.integer("bits of the state below a graded spike's unit", 0, LARGEST_SHIFT, 0)

    SHOWN: ClassVar[str] = "act"

    @property
    def in_shape(self) -> Shape:
        return (self.width,)

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        return self.send(do, do.x << do.constant("lift", self.lift))


@dataclass(frozen=True, slots=True, eq=False)
class SigmaDelta(Sending):
    """Changes in, an activation of their sum, its changes out.

    sigma = sigma + x
    act = sigma + (bias << (spike_exp + state_exp)), with "relu" 0 where that is negative
    delta = act - (act before) + residue
    sent = delta where |delta| >= threshold << (spike_exp + state_exp), else 0;  residue = delta - sent
    y = sent >> state_exp
    """

    bias: Array = fields.array("mantissas", "n", dtype=np.int32, low=-LARGEST_BIAS - 1, high=LARGEST_BIAS)
    threshold: int = fields.integer("smallest change that is sent; 0: every one", 0, LARGEST_THRESHOLD)
    activation: Rectifier = fields.choice("what is made of the sum", get_args(Rectifier), "relu")
    spike_exp: int = fields.integer("graded spikes are 2^spike_exp to a unit", 0, LARGEST_SHIFT, 0)
    state_exp: int = fields.integer("bits of the state below a graded spike's unit", 0, LARGEST_SHIFT, 0)

    SHOWN: ClassVar[str] = "sigma"

    @property
    def in_shape(self) -> Shape:
        return (int(self.bias.size),)

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        sigma = do.state("sigma") + do.x
        do.observe("sigma", sigma)
        do.keep("sigma", sigma)
        act = sigma + do.constant("bias", self.bias.astype(np.int64) << self.lift)
        match self.activation:
            case "relu":
                return self.send(do, do.maximum(act, 0))
            case "unit":
                return self.send(do, act)
            case other:
                raise no_case(other, "activation", "definition")

    def _largest_change(self, entering: Sent) -> Bounds | None:
        # At the first step the bias comes in as well.
        bias = self.bias.astype(np.int64) << self.lift
        least = np.zeros_like(bias) if self.activation == "relu" else np.minimum(bias, 0)
        return Bounds.of(np.minimum(entering.low, 0) + least, np.maximum(entering.high, 0) + np.maximum(bias, 0))


@dataclass(frozen=True, slots=True, eq=False)
class Sigma(Summing):
    """Changes in, their sum out, at every step: sigma = sigma + x; y = sigma."""

    width: int = fields.integer("number of values", 1, fields.LARGEST_AXIS)

    SHOWN: ClassVar[str] = "sigma"

    @property
    def in_shape(self) -> Shape:
        return (self.width,)

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        sigma = do.state("sigma") + do.x
        do.observe("sigma", sigma)
        do.keep("sigma", sigma)
        return sigma


def _sums(entering: Sent, interval: int) -> Bounds:
    """What the sum of what enters can reach since it was cleared."""
    x = Bounds.of(entering.low, entering.high).hull(ZERO)
    ends = [end if isinstance(end, int) else end.astype(object) for end in (x.low, x.high)]
    bounds = Bounds.of(*(sign(end) * UNBOUNDED for end in ends))  # nothing bounds it but that nothing ever enters
    if entering.total is not None:
        bounds = bounds.meet(Bounds.of(*entering.total).hull(ZERO))
    if interval:
        bounds = bounds.meet(Bounds.of(*(end * interval for end in ends)))
    return bounds
