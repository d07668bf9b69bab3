"""What a target is: its limits as cited data, and a small protocol.

A `TargetSpec` is read from a `spec.toml` (`compiler.target.specfile`). Each statement about hardware is a `Fact`: a
value, where it comes from, and how far it can be trusted. A value that nobody published is None, confidence "unknown";
it is reported as such and never passes for a limit that was kept. Feasibility (`compiler.check`), placement, energy,
documentation and the conformance tests all read the same data.
"""

# ruff: noqa: RUF009 -- `_fact` and `key` are dataclasses.field with a declaration
from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.keys import LARGEST, UNLIMITED, declared, key, keys_of
from nervecord.compiler.ops import Level
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration
from nervecord.errors import NervecordError, unknown_name

Confidence: TypeAlias = Literal["exact", "second-hand", "conflicting", "given", "unknown"]
"""exact: read in the source named; second-hand: repeated by others, the source itself not read or not public;
conflicting: sources disagree; given: the user's own, of a file or of `TargetSpec.override`; unknown: no value."""

DECIDING: tuple[Confidence, ...] = ("exact", "given")
"""Confidences with which a limit that is exceeded is an error; with the others it is unknown."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """One statement about a target. value None: not known. `math.inf`: there is no such limit."""

    value: T | None = None
    source: str = "not published"
    confidence: Confidence = "unknown"

    @property
    def known(self) -> bool:
        """Whether there is a value."""
        return self.value is not None

    @property
    def decides(self) -> bool:
        """Whether breaking it is an error (it is unknown otherwise)."""
        return self.confidence in DECIDING

    def __str__(self) -> str:
        return _show(self.value)


_UNKNOWN: Any = Fact()


def _fact(about: str, **how: Any) -> Any:
    return field(default=_UNKNOWN, metadata=declared(about, **how))


def _number(about: str, low: float = 0, *, unlimited: bool = True) -> Any:
    """An integer. Of what is computed with and bounds nothing, nothing is unlimited."""
    return _fact(about, kind=int, low=low, unlimited=unlimited)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the target's neurons and connections can do."""

    resets: Fact[tuple[str, ...]] = _fact(
        'what a spike does: "value", "subtract", "subtract-late", "subtract-early" (reset), "none", "refractory" '
        "(silent steps)",
        choices=("value", "subtract", "subtract-late", "subtract-early", "none", "refractory"),
        least=1,
    )
    nonzero_reset: Fact[bool] = _fact("reset to a value other than zero")
    leak: Fact[str] = _fact(
        'a constant leak term: "native", "bias" (through the neuron\'s bias) or "no"', choices=("native", "bias", "no")
    )
    bias: Fact[bool] = _fact("a bias of connections into neurons without synaptic current")
    current_bias: Fact[str] = _fact(
        'a bias that enters the synaptic current: "native", "channel" (one more input that is always on), "settled" '
        '(the membrane gets at once what the current would settle at) or "no"',
        choices=("native", "channel", "settled", "no"),
    )
    per_neuron: Fact[tuple[str, ...]] = _fact(
        "parameters that may differ within a population", choices=("decay", "current decay", "threshold")
    )
    graded_input: Fact[bool] = _fact("real-valued input, as graded spikes or floats")
    readout: Fact[bool] = _fact("membranes of neurons that do not spike can be read")
    recurrence: Fact[bool] = _fact("recurrent connections")
    recurrent_readout: Fact[bool] = _fact("loops through neurons that are read")
    free_wiring: Fact[bool] = _fact("values may pass without neurons, and spikes without weights")
    shared_kernels: Fact[bool] = _fact("a core stores the kernel of a convolution once, whatever part of it it holds")
    clears_buffers: Fact[bool] = _fact("what travels on a connection is cleared between two actions")
    decays: Fact[str] = _fact(
        'decays: "any", "shift" (1 - 2^-k only) or "none" (1 only)', choices=("any", "shift", "none")
    )


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers. Of a whole chip unless they say otherwise."""

    inputs: Fact[float] = _number("input channels")
    outputs: Fact[float] = _number("outputs that can be read")
    neurons: Fact[float] = _number("neurons, outputs and bias sources included")
    hidden: Fact[float] = _number("neurons that are no outputs")
    synapses: Fact[float] = _number("synapses")
    layers: Fact[float] = _number("layers of neurons")
    layers_min: Fact[float] = _number("layers of neurons that there must be")
    fan_in: Fact[float] = _number("synapses into one neuron")
    fan_out: Fact[float] = _number("neurons one neuron or input reaches")
    input_fan_out: Fact[float] = _number("neurons one input reaches, where that is another limit than fan_out")
    cores: Fact[float] = _number("cores")
    neurons_per_core: Fact[float] = _number("neurons of a core")
    axons_in_per_core: Fact[float] = _number("input axons of a core: neurons and inputs that reach it")
    axons_out_per_core: Fact[float] = _number("output axons of a core: (neuron, core it reaches) pairs")
    synapse_bits_per_core: Fact[float] = _number("synapse memory of a core, bits")
    decays_per_core: Fact[float] = _number("different pairs of decays on a core")
    thresholds_per_core: Fact[float] = _number("different thresholds on a core")
    weight_bits: Fact[float] = _number("bits of a weight", unlimited=False)
    weight_min: Fact[float] = _number("smallest weight mantissa", -LARGEST)
    weight_max: Fact[float] = _number("largest weight mantissa")
    state_bits: Fact[float] = _number("bits of membrane and current")
    decay_bits: Fact[float] = _number("bits of a decay factor")
    threshold_max: Fact[float] = _number("largest threshold mantissa")
    bias_bits: Fact[float] = _number("bits of a bias mantissa")
    message_bits: Fact[float] = _number("bits of a graded spike, sign included")
    connection_delay: Fact[float] = _number("steps every weighted connection costs", unlimited=False)
    delay_max: Fact[float] = _number("longest delay of a connection, steps")


@dataclass(frozen=True, slots=True)
class Convolution:
    """Limits of a chip that convolves. Memories are per layer, in values, sizes rounded up to powers of two."""

    kernel_max: Fact[float] = _number("largest kernel edge")
    strides: Fact[tuple[int, ...]] = _fact("strides", low=1)
    pools: Fact[tuple[int, ...]] = _fact("pooling kernels", low=1)
    square: Fact[bool] = _fact("kernels and pooling windows must be square, the windows side by side")
    plain: Fact[bool] = _fact("convolutions may have dilation and groups")
    features_max: Fact[float] = _number("largest number of output features")
    kernel_memory: Fact[tuple[int, ...]] = _fact("kernel values of each layer", low=0)
    neuron_memory: Fact[tuple[int, ...]] = _fact("neurons of each layer", low=0)


@dataclass(frozen=True, slots=True)
class Packing:
    """How synapses fill a core's memory: per axon, blocks of at most `block` synapses.

    A block is `header_bits` + count * (`weight_bits` + delay bits where delays are used + index bits unless every
    neuron is a target), rounded up to `word_bits`.
    """

    weight_bits: int = key("bits of a weight", low=1, high=64)
    delay_bits: int = key("more bits of a synapse, in a connection with delays", low=0, high=64, default=0)
    header_bits: int = key("bits of a block beside its synapses", low=0, high=1 << 16, default=0)
    block: int = key("most synapses of a block", low=1, high=1 << 20, default=64)
    word_bits: int = key("what a block is rounded up to", low=1, high=1 << 16, default=1)
    index_bits: tuple[int, ...] = key(
        "widths that there are of the index of a synapse's neuron, rising", low=1, high=32, least=1, default=(16,)
    )
    source: str = key("where the numbers are from", default="")
    confidence: Confidence = key("how far they are to be trusted", default="given")


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy per operation, pJ, for estimates only.

    `measured_on` names the chip the constants were published for, which may be another than the target.
    """

    measured_on: str = key("the chip that they were measured on", like="title")
    process_nm: int = key("its process node, nm", low=1, high=100_000)
    source: str = key("where the numbers are from", default="")
    confidence: Confidence = key("how far they are to be trusted", default="given")
    synaptic_event_pj: float = key("pJ of a spike or value at one synapse", low=0, high=1e15)
    update_active_pj: float = key("pJ of a neuron that spikes, per step", low=0, high=1e15)
    update_inactive_pj: float = key("pJ of a neuron that does not, per step", low=0, high=1e15)

    def constants(self) -> list[tuple[str, float]]:
        """(operation, pJ)."""
        return [
            ("synaptic event", self.synaptic_event_pj),
            ("active neuron update", self.update_active_pj),
            ("inactive neuron update", self.update_inactive_pj),
        ]

    @property
    def citation(self) -> str:
        """Where the constants are from, as every estimate prints it."""
        return f"{self.measured_on}, {self.process_nm} nm, {self.source} ({self.confidence})"


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """A target as data.

    Args:
        name: as typed on the command line. title, summary: for people.
        engines: what runs its programs; empty for a target that is only inspected.
        arithmetic: of the core, in words. integers: the same as data, where the target computes in integers here.
        arithmetic_source, arithmetic_confidence: of the arithmetic.
        file: of the user's that describes it; "" for a target that is installed.
        overridden: limits that are the user's own, in place of the target's (`override`).
        nodes: level -> kinds of core nodes the target can realise starting from that level; with a `nodes_confidence`
            that is not exact, other kinds are unknown, not refused.
        behaviour, limits, convolution, packing, energy: see their classes; None where the section has no meaning here.
        not_checked: what nothing public allows to check; listed in every report.
    """

    name: str
    title: str
    summary: str
    engines: tuple[str, ...]
    arithmetic: str
    nodes: Mapping[Level, tuple[str, ...]]
    nodes_source: str
    nodes_confidence: Confidence
    behaviour: Behaviour
    limits: Limits
    convolution: Convolution | None = None
    packing: Packing | None = None
    energy: Energy | None = None
    integers: Arithmetic | None = None
    not_checked: tuple[str, ...] = ()
    arithmetic_source: str = ""
    arithmetic_confidence: Confidence = "given"
    file: str = ""
    overridden: tuple[str, ...] = ()

    SECTIONS: ClassVar[tuple[str, ...]] = ("behaviour", "limits", "convolution")

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))

    def __hash__(self) -> int:
        # A mapping has no hash; specs that differ in their nodes alone are still told apart by `==`.
        return hash((self.name, self.behaviour, self.limits))

    def kinds(self, level: Level) -> tuple[str, ...]:
        """Kinds of core nodes that can be realised from `level`; empty where none can."""
        return self.nodes.get(level, ())

    def facts(self) -> list[tuple[str, str, Fact[Any]]]:
        """(name, meaning, fact) of everything the spec states or leaves open, in a fixed order."""
        facts = []
        for section in self.SECTIONS:
            holder = getattr(self, section)
            if holder is not None:
                facts += [(f.name, f.metadata["about"], getattr(holder, f.name)) for f in dataclasses.fields(holder)]
        return facts

    def override(self, **values: float) -> TargetSpec:
        """A copy with limits replaced by the user's own, for chips whose limits are not public.

        Args:
            values: limit name -> integer, or `UNLIMITED`, e.g. `neurons_per_core=4096`. Their confidence becomes
                "given".

        Raises:
            NervecordError: no such limit, its value is exact and so not open to opinion, or the number is none.
        """
        changes: dict[str, Any] = {}
        nobody = "stated" if self.file else "published"
        for name, value in values.items():
            if name not in {f.name for f in dataclasses.fields(Limits)}:
                raise unknown_name("limit", name, (f.name for f in dataclasses.fields(Limits)), where=self.name)
            old: Fact[float] = getattr(self.limits, name)
            if old.confidence == "exact":
                raise NervecordError(
                    f"{old} is exact for {self.name} ({old.source}) and cannot be overridden", where=name
                )
            if value < 0 or not (value == UNLIMITED or float(value).is_integer()):
                raise NervecordError(f"{value} is no limit, an integer of zero or more is needed", where=name)
            if value == UNLIMITED and not keys_of(Limits)[name].unlimited:
                raise NervecordError("cannot be unlimited, an integer is needed", where=name)
            whole = UNLIMITED if value == UNLIMITED else int(value)
            before = f"in place of {old} ({old.confidence})" if old.known else f"where nothing is {nobody}"
            changes[name] = Fact(whole, f"given by the user, {before}", "given")
        names = tuple(dict.fromkeys((*self.overridden, *changes)))
        return dataclasses.replace(self, limits=dataclasses.replace(self.limits, **changes), overridden=names)

    @property
    def own_limits(self) -> tuple[str, ...]:
        """A sentence for each limit that is the user's own in place of the target's; programs and reports keep them."""
        return tuple(f"{name} = {fact}: {fact.source}" for name, _, fact in self.facts() if name in self.overridden)


def _show(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and math.isinf(value):
        return "unlimited"
    if isinstance(value, (tuple, list)):
        return ", ".join(str(item) for item in value) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)


@dataclass(frozen=True, slots=True)
class Lowered:
    """A graph or policy in a target's arithmetic.

    Args:
        subject: INTEGER (or DISCRETE where the target computes in floats).
        report: ranges, steps and errors per layer; plain JSON types.
        allowances: explicit permissions it was made with (`--allow-...`), kept in the program's manifest.
    """

    subject: Graph | Policy
    report: Mapping[str, object]
    allowances: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Emitted:
    """A file that a target wrote for another tool.

    Args:
        path: the file.
        use: how that tool takes it, in one line.
        arguments: what it must be told beside the file's name; plain JSON types.
    """

    path: Path
    use: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


SessionT = TypeVar("SessionT", covariant=True)
"""A session of the runtime; the compiler does not look at it."""


@runtime_checkable
class Target(Protocol[SessionT]):
    """A target: a frozen dataclass with its `spec` as one field and its options (`compiler.target.options`) beside it.

    A copy with another spec, which holds limits of the user's own, must do. One that is only inspected refuses the
    three methods.
    """

    @property
    def spec(self) -> TargetSpec:
        """Its limits."""
        ...

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """A DISCRETE graph or policy in the target's arithmetic.

        Args:
            calibration: what it does on recorded input; None where there is no input: of a graph that is no policy, and
                of a policy where the spec has no `integers`.
            schedule: of a graph that is no policy.

        Raises:
            InfeasibleError: it cannot be held or expressed.
        """
        ...

    def open(self, program: Program, *, engine: str | None = None, trace: bool = True) -> SessionT:
        """A session that steps the program, on the first engine of the spec or the one named.

        trace: its `trace` will be asked for. An engine in another process takes time to hand it over.

        Raises:
            NervecordError: there is no engine of that name.
        """
        ...

    def stream(self, program: Program, *, engine: str | None = None) -> object:
        """A session that steps a program which is no policy, on the first engine of the spec or the one named.

        Raises:
            NervecordError: there is no engine of that name.
        """
        ...

    def emit(self, program: Program, folder: Path) -> tuple[Emitted, ...]:
        """Write the program in the forms that other tools take, into a folder that exists.

        Raises:
            NervecordError: there is no such form, or it cannot say what the program says.
        """
        ...
