"""Neurons: a synapse (or none), a membrane, and a spike (or none); each part once for each level.

    Neuron(None, membrane, None)          leaky integrator (LI), an integrator where nothing leaks (I): gives its v
    Neuron(None, membrane, spike)         LIF, IF: gives spikes
    Neuron(synapse, membrane, spike)      current-based (CubaLIF)

Within a step the synapse is updated first, then the membrane with the new current, then the spike is decided and the
membrane reset. (An integer arithmetic may say another order.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.bounds import READINGS, UNBOUNDED, ZERO, Bounds, add
from nervecord.compiler.body.intervals import over_steps
from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.ops import fields
from nervecord.compiler.ops.fields import Array, Shape
from nervecord.compiler.ops.level import EVERY_LEVEL, FLOAT_LEVELS, Level
from nervecord.compiler.ops.nirnode import Fields
from nervecord.compiler.ops.op import NirForm, Op, Part, Role, State
from nervecord.compiler.ops.reach import Reach, Sent, spiking
from nervecord.errors import GraphError, no_case

Reset: TypeAlias = Literal["value", "subtract", "none", "subtract-late", "subtract-early"]
RESETS: tuple[Reset, ...] = get_args(Reset)
"""What a spike does to the membrane: set it to a value, subtract the threshold, or nothing, in the same step; or
subtract the threshold in the next one, after what that keeps of it ("subtract-late"). "subtract-early" is "subtract",
but a membrane that is above its threshold still is compared less one threshold in the next step."""
LONGEST_REFRACTORY = 1 << 16
ROUNDING = 1e-6
"""A time constant that is less than the step by this share of it is the step, as rounding to float32 leaves it."""


# --------------------------------------------------------------------------------------------------------------------
# Parts in continuous time, times in seconds


@dataclass(frozen=True, slots=True, eq=False)
class ContinuousSynapse(Part):
    """tau di/dt = -i + w_in x."""

    tau: Array = fields.array("time constant, s", "...", above=0)
    w_in: Array = fields.array("gain of the input", "...")

    LEVEL: ClassVar[Level] = Level.IMPORTED


@dataclass(frozen=True, slots=True, eq=False)
class ContinuousMembrane(Part):
    """tau dv/dt = (leak - v) + r i; without tau an integrator, dv/dt = r i. Without a synapse i is the input."""

    r: Array = fields.array("resistance; of an integrator its gain per second", "...")
    tau: Array | None = fields.array("time constant, s", "...", default=None, above=0, infinite=True)
    leak: Array | None = fields.array("what it leaks towards", "...", default=None)

    LEVEL: ClassVar[Level] = Level.IMPORTED


# --------------------------------------------------------------------------------------------------------------------
# Parts in steps


@dataclass(frozen=True, slots=True, eq=False)
class Synapse(Part):
    """i = decay * i + gain * x."""

    decay: Array = fields.array("what a step keeps", "...", low=0, high=1)
    gain: Array = fields.array("gain of the input", "...")

    LEVEL: ClassVar[Level] = Level.DISCRETE


@dataclass(frozen=True, slots=True, eq=False)
class Membrane(Part):
    """v = decay * v + gain * i + leak. Without a synapse i is the input. Decay 1: an integrator."""

    decay: Array = fields.array("what a step keeps", "...", low=0, high=1)
    gain: Array = fields.array("gain of the current", "...")
    leak: Array = fields.array("added at every step", "...")

    LEVEL: ClassVar[Level] = Level.DISCRETE


@dataclass(frozen=True, slots=True, eq=False)
class Spike(Part):
    """A spike where v > threshold, strictly; then the reset, in the same step. The synapse is not reset.

    "subtract-late" is v(t) = decay v(t - 1) + gain i(t) + leak - threshold s(t - 1): the spike stays in v for a step.
    "subtract-early": where v(t - 1) > threshold, the threshold is subtracted before the comparison, and given back
    where no spike follows; else it is "subtract". While v stays above the threshold, a spike needs twice the threshold.
    For `refractory` steps after a spike the membrane stays as it was reset and the neuron is silent; what
    "subtract-late" subtracts waits until they are over.
    """

    threshold: Array = fields.array("spikes above it", "...")
    reset_value: Array = fields.array("v after a spike, where the reset is to a value", "...")
    reset: Reset = fields.choice("what a spike does to v", RESETS, "value")
    refractory: int = fields.integer("silent steps after a spike", 0, LONGEST_REFRACTORY, 0)

    LEVEL: ClassVar[Level] = Level.DISCRETE
    """It has no time in it but `refractory`, so that it is the same in continuous time."""


# --------------------------------------------------------------------------------------------------------------------
# Parts in a target's integers


@dataclass(frozen=True, slots=True, eq=False)
class IntegerSynapse(Part):
    """The synaptic current: its decay, as a code of the arithmetic."""

    decay: int = fields.integer("code of the decay", 0, 1 << 16)

    LEVEL: ClassVar[Level] = Level.INTEGER


@dataclass(frozen=True, slots=True, eq=False)
class IntegerMembrane(Part):
    """The membrane: its decay, as a code of the arithmetic, and what is added at every step, bias << bias_exp."""

    decay: int = fields.integer("code of the decay", 0, 1 << 16)
    bias: Array = fields.array("mantissas", "n", dtype=np.int32)
    bias_exp: int = fields.integer("exponent of the bias", 0, 16, 0)

    LEVEL: ClassVar[Level] = Level.INTEGER


@dataclass(frozen=True, slots=True, eq=False)
class IntegerSpike(Part):
    """The threshold's mantissa, one for all neurons; comparison and reset are the arithmetic's."""

    threshold: int = fields.integer("mantissa", 0)

    LEVEL: ClassVar[Level] = Level.INTEGER


AnySynapse: TypeAlias = ContinuousSynapse | Synapse | IntegerSynapse
AnyMembrane: TypeAlias = ContinuousMembrane | Membrane | IntegerMembrane
AnySpike: TypeAlias = Spike | IntegerSpike
PARTS: tuple[type[Part], ...] = (
    ContinuousSynapse,
    ContinuousMembrane,
    Synapse,
    Membrane,
    Spike,
    IntegerSynapse,
    IntegerMembrane,
    IntegerSpike,
)
"""Every kind of part."""


@dataclass(frozen=True, slots=True, eq=False)
class Neuron(Op):
    """A population of neurons of one composition. Without a spike it gives its membrane, with one its spikes."""

    membrane: AnyMembrane = fields.part("the membrane")
    synapse: AnySynapse | None = fields.part("the synaptic current", optional=True, default=None)
    spike: AnySpike | None = fields.part("spike and reset", optional=True, default=None)

    ROLE: ClassVar[Role] = "population"
    LEVELS: ClassVar[frozenset[Level]] = EVERY_LEVEL
    SHOWN: ClassVar[str] = "v"
    NIR: ClassVar[tuple[str, ...]] = ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF")

    @classmethod
    def kinds(cls, level: Level) -> tuple[str, ...]:
        # In steps an integrator is a leaky neuron of decay 1.
        return cls.NIR if level is Level.IMPORTED else tuple(kind for kind in cls.NIR if "LI" in kind)

    @property
    def kind(self) -> str:
        membrane = self.membrane
        # NIR has no integrator behind a current: it is a leaky one whose time constant has no end.
        integrates = isinstance(membrane, ContinuousMembrane) and membrane.tau is None and self.synapse is None
        name = ("I" if integrates else "LI") + ("F" if self.spike is not None else "")
        return ("Cuba" if self.synapse is not None else "") + name

    @property
    def levels(self) -> frozenset[Level]:
        return frozenset({self.membrane.LEVEL}) if isinstance(self.membrane, AnyMembrane) else frozenset()

    @property
    def in_shape(self) -> Shape:
        membrane = self.membrane
        shape: Shape = (
            membrane.bias
            if isinstance(membrane, IntegerMembrane)
            else membrane.r
            if isinstance(membrane, ContinuousMembrane)
            else membrane.decay
        ).shape
        return shape

    @property
    def spikes(self) -> bool:
        return self.spike is not None

    def violations(self) -> Iterator[fields.Violation]:
        violations = list(fields.violations(self))
        yield from violations
        if not isinstance(self.membrane, AnyMembrane):
            return
        level = self.membrane.LEVEL
        for name, part in (("synapse", self.synapse), ("spike", self.spike)):
            if part is None:
                continue
            fits = part.LEVEL is level or (isinstance(part, Spike) and level in FLOAT_LEVELS)
            if not fits or (name == "synapse") != isinstance(part, AnySynapse):
                yield "part", f"its {name} is {type(part).__name__}, and its membrane {level.value}", None, None
        if level is Level.INTEGER:
            return
        for piece in (self.membrane, self.synapse, self.spike):
            for name, declared in fields.declarations(type(piece)) if piece is not None else ():
                value = getattr(piece, name)
                if declared.kind == "array" and value is not None and value.shape != self.in_shape:
                    yield "shape", f"{name} has shape {value.shape}, the population {self.in_shape}", None, None

    def misfits(self, arithmetic: Arithmetic) -> Iterator[fields.Violation]:
        a, last = arithmetic, arithmetic.decay_codes - 1
        if isinstance(self.membrane, IntegerMembrane):
            yield from fields.outside("decay", self.membrane.decay, 0, last)
            yield from fields.outside("bias_exp", self.membrane.bias_exp, 0, a.bias_exponent_high)
            low, high = a.bias_range
            yield from fields.outside("bias", int(self.membrane.bias.min()), low, high)
            yield from fields.outside("bias", int(self.membrane.bias.max()), low, high)
        if isinstance(self.synapse, IntegerSynapse):
            most = last + 1 if not a.decays_by_shift else last
            yield from fields.outside("synapse decay", self.synapse.decay, a.current_decay_low, most)
        if isinstance(self.spike, IntegerSpike):
            yield from fields.outside("threshold", self.spike.threshold, 0, a.threshold_largest)
        elif a.readout == "none":
            yield "readout", "is a membrane that is read, and this arithmetic reads none", None, None

    def reach(self, arithmetic: Arithmetic, interval: int, entering: Sent) -> Reach:
        body = self.traced(arithmetic)
        x = Bounds.of(entering.low, entering.high)
        proposals = () if interval else self._proposals(arithmetic, x)
        reached = over_steps(body, x, interval, proposals=proposals)
        # Neurons that wait for their first step stand at 0.
        membrane = reached.named("membrane").hull(ZERO)
        return Reach(
            current=reached.named("current").largest,
            state=(membrane.lowest, membrane.highest),
            sends=None if self.spike is None else spiking(self.size, arithmetic),
            accumulator_limit=arithmetic.accumulator_limit,
            state_limits=arithmetic.membrane_range,
            exact=arithmetic.membrane_overflow.startswith("saturate"),
            reached=reached,
            readout=self.spike is None,
        )

    def _proposals(self, arithmetic: Arithmetic, x: Bounds) -> Iterator[dict[str, Bounds]]:
        """Bounds of carried state: x = keep x + c cannot pass c / (1 - keep), from either side.

        The second proposal has room for what rounding down takes from negative values at each step.
        """
        membrane, a = self.membrane, arithmetic
        assert isinstance(membrane, IntegerMembrane)
        bias = membrane.bias.astype(np.int64) << membrane.bias_exp
        biased = Bounds.of(bias, bias)
        entering = READINGS["shift_left"](x.hull(ZERO), Bounds.of(a.input_shift, a.input_shift))
        for room in (0, 1):
            current, values = entering, {}
            if a.bias_in_current:
                current = add(current, biased).hull(ZERO)
            if isinstance(self.synapse, IntegerSynapse):
                current = a.settled(current, self.synapse.decay, room)
                if a.current_overflow.startswith("saturate"):
                    current = current.meet(Bounds.of(*a.current_range))
                values["u"] = current
            v = a.settled((current if a.bias_in_current else add(current, biased)).hull(ZERO), membrane.decay, room)
            if a.membrane_overflow.startswith("saturate"):
                v = v.meet(Bounds.of(*a.membrane_range))
            if isinstance(self.spike, IntegerSpike) and not a.subtracts:
                v = v.meet(Bounds.of(-UNBOUNDED, max(self.spike.threshold << a.threshold_shift, 0)))
            yield values | {"v": v}

    def state(self, batch: int) -> State:
        dtype = np.int64 if isinstance(self.membrane, IntegerMembrane) else np.float64
        names = ["v", *(["u"] if self.synapse is not None else [])]
        state = {name: np.zeros((batch, *self.in_shape), dtype=dtype) for name in names}
        if isinstance(self.spike, Spike) and self.spike.refractory:
            state["rest"] = np.zeros((batch, *self.in_shape), dtype=np.int64)
        if isinstance(self.spike, Spike) and self.spike.reset == "subtract-late":
            state["owed"] = np.zeros((batch, *self.in_shape))
        return state

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        membrane, x = self.membrane, do.x
        if isinstance(membrane, IntegerMembrane):
            assert arithmetic is not None
            return self._integer_body(do, membrane, arithmetic)
        if not isinstance(membrane, Membrane):
            raise GraphError(
                f"{self.kind} in continuous time has no steps", where=self.label, hint="give --dt, which makes them"
            )
        if isinstance(self.synapse, Synapse):
            decayed = do.constant("synapse_decay", self.synapse.decay) * do.state("u")
            x = decayed + do.constant("synapse_gain", self.synapse.gain) * x
            do.keep("u", x)
        v = do.constant("decay", membrane.decay) * do.state("v") + do.constant("gain", membrane.gain) * x
        v = v + do.constant("leak", membrane.leak)
        if self.spike is None:
            do.keep("v", v)
            return v
        assert isinstance(self.spike, Spike)
        return do.as_kind(self._spiked(do, self.spike, v), "float")

    def _spiked(self, do: Tracer, spike: Spike, v: Value) -> Value:
        """Where a float neuron spikes, and its reset."""
        threshold = do.constant("threshold", spike.threshold)
        above = do.state("v") > threshold  # of "subtract-early": the threshold comes off before the comparison
        late = spike.reset == "subtract-late"
        if late:
            v = v - do.state("owed")
        if spike.reset == "subtract-early":
            v = do.where(above, v - threshold, v)
        do.observe("before_spike", v)
        spiked = v > threshold
        owed: Value | float = 0.0
        if spike.refractory:
            rest = do.state("rest", "integer")
            resting = rest > 0
            spiked = spiked & ~resting
            above = above & ~resting
            owed = do.where(resting, do.state("owed"), 0.0) if late else owed
            v = do.where(resting, do.state("v"), v)
            do.keep(
                "rest",
                do.where(spiked, do.constant("refractory", spike.refractory, "integer"), do.maximum(rest - 1, 0)),
            )
        do.keep("v", self._reset(do, spike, v, threshold, spiked, above))
        if late:
            do.keep("owed", do.where(spiked, threshold, owed))
        return spiked

    @staticmethod
    def _reset(do: Tracer, spike: Spike, v: Value, threshold: Value, spiked: Value, above: Value) -> Value:
        match spike.reset:
            case "value":
                return do.where(spiked, do.constant("reset_value", spike.reset_value), v)
            case "subtract":
                return do.where(spiked, v - threshold, v)
            case "subtract-early":
                # In snnTorch's order of operations, v - (spiked - above) threshold, to the bit.
                alike = (spiked & above) | (~spiked & ~above)
                return do.where(alike, v, do.where(spiked, v - threshold, v + threshold))
            case "none" | "subtract-late":
                return v
            case other:
                raise no_case(other, "reset", "definition")

    def _integer_body(self, do: Tracer, membrane: IntegerMembrane, arithmetic: Arithmetic) -> Value:
        a = arithmetic
        bias = do.constant("bias", membrane.bias.astype(np.int64) << membrane.bias_exp)
        current = do.x << do.constant("input_shift", a.input_shift)
        if isinstance(self.synapse, IntegerSynapse):
            current = a.decayed(do.state("u"), self.synapse.decay, "synapse") + current
        if a.bias_in_current:
            current = current + bias
        do.observe("current", current)
        current = a.current(current)
        received = current
        if self.synapse is not None:
            do.keep("u", current)
            if a.current_is_late:
                received = do.state("u")
        v = a.decayed(do.state("v"), membrane.decay, "membrane") + received
        if not a.bias_in_current:
            v = v + bias
        do.observe("membrane", v)
        v = a.membrane(v)
        if self.spike is None:
            do.keep("v", v)
            if a.reads_through_threshold:
                # The chip's neuron would spike and lose its value here; compiling proves that it does not.
                do.check(
                    v <= do.constant("readout_limit", a.readout_limit), "a membrane that is read passed its threshold"
                )
            return v
        assert isinstance(self.spike, IntegerSpike)
        spikes, v = a.fire(v, self.spike.threshold)
        do.keep("v", v)
        return spikes

    # ------------------------------------------------------------------------------------------------ time and NIR

    def discrete(self, dt: float, convention: str) -> Op:
        continuous = self.membrane
        if not isinstance(continuous, ContinuousMembrane):
            return self
        if continuous.tau is None:
            membrane = Membrane(np.ones_like(continuous.r), continuous.r * dt, np.zeros_like(continuous.r))
        else:
            decay, share = leaking(continuous.tau, dt, convention)
            leak = np.zeros_like(continuous.r) if continuous.leak is None else continuous.leak
            membrane = Membrane(decay, continuous.r * share, leak * share)
        synapse = None
        if isinstance(self.synapse, ContinuousSynapse):
            decay, share = leaking(self.synapse.tau, dt, convention)
            synapse = Synapse(decay, self.synapse.w_in * share)
        return Neuron(membrane, synapse, self.spike, origin=self.origin)

    @classmethod
    def from_nir(cls, nir_fields: Fields, fed: Shape | None) -> Op:
        kind, cuba = nir_fields.type.removeprefix("Cuba"), nir_fields.type.startswith("Cuba")
        names = {"r": "r"}
        if kind.startswith("L"):
            names |= {"tau": "tau_mem" if cuba else "tau", "leak": "v_leak"}
        if cuba:
            names |= {"tau_syn": "tau_syn", "w_in": "w_in"}
        if kind.endswith("F"):
            names |= {"threshold": "v_threshold", "reset_value": "v_reset"}
        # What files of nir 0.1 and 0.2 leave out, with the value their makers meant.
        values = nir_fields.elementwise(names, fed, {"v_reset": 0.0, "w_in": 1.0})
        synapse = ContinuousSynapse(values["tau_syn"], values["w_in"]) if cuba else None
        spike = Spike(values["threshold"], values["reset_value"]) if kind.endswith("F") else None
        membrane = ContinuousMembrane(values["r"], values.get("tau"), values.get("leak"))
        return cls(membrane, synapse, spike, origin=nir_fields.origin)

    def to_nir(self, dt: float, name: str) -> NirForm:
        """See `compiler.nir.form` for the equations."""
        membrane = self.membrane
        assert isinstance(membrane, Membrane)
        values: dict[str, Array] = {}
        integrates = bool((membrane.decay == 1).all()) and self.synapse is None
        with np.errstate(all="ignore"):  # what overflows is refused below, by name
            if integrates:
                if membrane.leak.any():
                    raise GraphError(
                        "decay is 1 and leak is not 0: NIR's I and IF have no leak",
                        where=name,
                        hint="add the leak as a bias to what feeds it",
                    )
                values["r"] = membrane.gain / dt
            else:
                tau = _time_constant(membrane.decay, dt, "decay", name)
                key = "tau" if self.synapse is None else "tau_mem"
                values |= {key: tau, "r": membrane.gain * tau / dt, "v_leak": membrane.leak * tau / dt}
            if isinstance(self.synapse, Synapse):
                tau_syn = _time_constant(self.synapse.decay, dt, "the synapse's decay", name)
                values |= {"tau_syn": tau_syn, "w_in": self.synapse.gain * tau_syn / dt}
        if isinstance(self.spike, Spike):
            values |= {"v_threshold": self.spike.threshold, "v_reset": self.spike.reset_value}
        for field, value in values.items():
            if not np.isfinite(value).all():
                raise GraphError(f"{field} is beyond float64 in NIR's units", where=name, hint="rescale it")
        kind = ("I" if integrates else "LI") + ("F" if self.spike is not None else "")
        return ("Cuba" if self.synapse is not None else "") + kind, values


def leaking(tau: Array, dt: float, convention: str) -> tuple[Array, Array]:
    """(decay, 1 - decay) of a time constant in steps of dt, each with its own rounding.

    A decay of 0 is tau = dt, which in float32 may be less than dt.
    """
    share = dt / tau
    if convention == "euler":
        share = np.where((share > 1) & (share <= 1 + 2 * ROUNDING), 1.0, share)
    return (1 - share, share) if convention == "euler" else (np.exp(-share), -np.expm1(-share))


def _time_constant(decay: Array, dt: float, field: str, name: str) -> Array:
    ones = int(np.count_nonzero(decay == 1))
    if ones:
        raise GraphError(
            f"{field} is 1 for {ones} of {decay.size} neurons, and NIR has no such neuron beside leaky ones",
            where=name,
            hint="split the population, or make it less than 1",
        )
    return dt / (1 - decay)
