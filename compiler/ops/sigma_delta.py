"""Networks that send changes, in integers: as the fixed-point models of lava-nc 0.10.0 (`lava.proc.sdn`) compute them.

    Delta        values in, messages out: what changed since the last message, where that is enough
    SigmaDelta   messages summed up again, an activation, and what changed of it as messages
    Sigma        messages summed up again: a value that is read

Connections between them pass whole numbers, of which most are zero. A connection with a negative exponent rounds each
message down, and sums never forget: they drift, by up to one unit at a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from nervecord.compiler.ops import fields
from nervecord.compiler.ops.fields import Array, Shape
from nervecord.compiler.ops.level import Level
from nervecord.compiler.ops.op import Op, Role, State
from nervecord.compiler.ops.reach import FAR, LONGEST_RUN, UNBOUNDED, Reach, Sent, raised
from nervecord.errors import no_case

if TYPE_CHECKING:
    from nervecord.compiler.arithmetic import Arithmetic

STATE_BITS = 32
"""Width of sums, activations, residues and messages. Lava declares 24 bits for them, and computes in 32."""
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
        return {name: np.zeros((batch, *self.in_shape), dtype=np.int64) for name in type(self).STATE}


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

    def send(self, state: State, act: Array) -> Array:
        """Messages of an activation; `state` is updated."""
        delta = act - state["act"] + state["residue"]
        sent = np.where(np.abs(delta) >= self.level, delta, 0)
        state["act"], state["residue"] = act, delta - sent
        return sent >> self.state_exp

    def messages_of(self, low: Array, high: Array, step: tuple[Array, Array], interval: int) -> tuple[Sent, int]:
        """(what it sends, largest magnitude of delta), where act lies in low..high and changes by `step` at once."""
        kept = max(self.level - 1, 0)
        least = np.maximum(low - high, step[0]) - kept
        most = np.minimum(high - low, step[1]) + kept
        # The messages sent so far add up to act - residue, but for what each of them loses to the shift.
        lost = (interval or LONGEST_RUN) if self.state_exp else 0
        total = ((low - kept) >> self.state_exp) - lost, (high + kept) >> self.state_exp
        bounded = max(int(total[1].max()), -int(total[0].min())) < FAR
        low, high = (np.clip(end >> self.state_exp, -FAR, FAR) for end in (least, most))
        return Sent(low, high, total if bounded else None), int(max(most.max(), -least.min()))


@dataclass(frozen=True, slots=True, eq=False)
class Delta(Sending):
    """Values in, changes out: act = x << (spike_exp + state_exp), and of act's changes messages are sent.

    delta = act - (act before) + residue
    sent = delta where |delta| >= threshold << (spike_exp + state_exp), else 0;  residue = delta - sent
    y = sent >> state_exp
    """

    width: int = fields.integer("number of values", 1, fields.LARGEST_AXIS)
    threshold: int = fields.integer("smallest change that is sent; 0: every one", 0, LARGEST_THRESHOLD)
    spike_exp: int = fields.integer("messages are 2^spike_exp to a unit of x", 0, LARGEST_SHIFT, 0)
    state_exp: int = fields.integer("bits of the state below a message's unit", 0, LARGEST_SHIFT, 0)

    STATE: ClassVar[tuple[str, ...]] = ("act", "residue")
    SHOWN: ClassVar[str] = "act"

    @property
    def in_shape(self) -> Shape:
        return (self.width,)

    def step(self, state: State, x: Array, arithmetic: Arithmetic | None = None) -> Array:
        return self.send(state, x << self.lift)

    def reach(self, arithmetic: Arithmetic, interval: int, entering: Sent) -> Reach:
        low, high = (raised(end, self.lift) for end in (np.minimum(entering.low, 0), np.maximum(entering.high, 0)))
        sends, delta = self.messages_of(low, high, (low - high, high - low), interval)
        return _reach(low, high, delta, sends)


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
    spike_exp: int = fields.integer("messages are 2^spike_exp to a unit", 0, LARGEST_SHIFT, 0)
    state_exp: int = fields.integer("bits of the state below a message's unit", 0, LARGEST_SHIFT, 0)

    STATE: ClassVar[tuple[str, ...]] = ("sigma", "act", "residue")
    SHOWN: ClassVar[str] = "sigma"

    @property
    def in_shape(self) -> Shape:
        return (int(self.bias.size),)

    def step(self, state: State, x: Array, arithmetic: Arithmetic | None = None) -> Array:
        state["sigma"] = state["sigma"] + x
        act = state["sigma"] + (self.bias.astype(np.int64) << self.lift)
        match self.activation:
            case "relu":
                return self.send(state, np.maximum(act, 0))
            case "unit":
                return self.send(state, act)
            case other:
                raise no_case(other, "activation", "definition")

    def reach(self, arithmetic: Arithmetic, interval: int, entering: Sent) -> Reach:
        bias = self.bias.astype(np.int64) << self.lift
        least, most = _sums(entering, interval)
        # Before the first step act is 0, whatever the bias.
        low, high = np.minimum(least + bias, 0), np.maximum(most + bias, 0)
        first = np.minimum(bias, 0), np.maximum(bias, 0)
        match self.activation:
            case "relu":
                low, first = np.zeros_like(low), (np.zeros_like(bias), first[1])
            case "unit":
                pass
            case other:
                raise no_case(other, "activation", "ranges")
        # An activation changes by no more than what enters, at the first step by the bias as well.
        step = np.minimum(entering.low, 0) + first[0], np.maximum(entering.high, 0) + first[1]
        sends, delta = self.messages_of(low, high, step, interval)
        return _reach(np.minimum(least, low), np.maximum(most, high), delta, sends)


@dataclass(frozen=True, slots=True, eq=False)
class Sigma(Summing):
    """Changes in, their sum out, at every step: sigma = sigma + x; y = sigma."""

    width: int = fields.integer("number of values", 1, fields.LARGEST_AXIS)

    STATE: ClassVar[tuple[str, ...]] = ("sigma",)
    SHOWN: ClassVar[str] = "sigma"

    @property
    def in_shape(self) -> Shape:
        return (self.width,)

    def step(self, state: State, x: Array, arithmetic: Arithmetic | None = None) -> Array:
        state["sigma"] = state["sigma"] + x
        return state["sigma"]

    def reach(self, arithmetic: Arithmetic, interval: int, entering: Sent) -> Reach:
        low, high = _sums(entering, interval)
        return _reach(low, high, 0, None)


def _sums(entering: Sent, interval: int) -> tuple[Array, Array]:
    """What the sum of what enters can reach since it was cleared."""
    low, high = np.minimum(entering.low, 0), np.maximum(entering.high, 0)
    found = []
    if entering.total is not None:
        found.append((np.minimum(entering.total[0], 0), np.maximum(entering.total[1], 0)))
    if interval:
        # So that int64 holds it, however many steps a block has.
        most = FAR // interval
        found.append((interval * np.maximum(low, -most - 1), interval * np.minimum(high, most + 1)))
    if not found:
        # Nothing bounds it but that nothing ever enters.
        return np.where(low < 0, -UNBOUNDED >> 1, 0), np.where(high > 0, UNBOUNDED >> 1, 0)
    return np.maximum.reduce([a for a, _ in found]), np.minimum.reduce([b for _, b in found])


def _reach(low: Array, high: Array, delta: int, sends: Sent | None) -> Reach:
    half = 1 << (STATE_BITS - 1)
    least, most = min(int(low.min()), -delta), max(int(high.max()), delta)
    return Reach(
        current=0,
        state=(least if least > -FAR else -UNBOUNDED, most if most < FAR else UNBOUNDED),
        sends=sends,
        accumulator_limit=half,
        state_limits=(1 - half, half - 1),
        exact=False,
    )
