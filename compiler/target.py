"""What a target is: its limits as cited data, and the small protocol of those that compile.

A `TargetSpec` is read from a `spec.toml` (`compiler.specfile`). Each statement about hardware is a `Fact`: a value,
where it comes from, and how far it can be trusted. A value that nobody published is None, confidence "unknown"; it is
reported as such and never passes for a limit that was kept. Feasibility (`compiler.check`), placement, energy,
documentation and the conformance tests all read the same data.
"""

# ruff: noqa: RUF009 -- `_describe` is dataclasses.field with a description
from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph import Graph, Level
from nervecord.errors import NervecordError

Confidence: TypeAlias = Literal["exact", "second-hand", "conflicting", "given", "unknown"]
"""exact: read in the source named; second-hand: repeated by others, the source itself not read or not public;
conflicting: sources disagree; given: the user's own value (`TargetSpec.override`); unknown: no value."""

DECIDING: tuple[Confidence, ...] = ("exact", "given")
"""Confidences with which a limit that is exceeded is an error; with the others it is unknown."""

UNLIMITED = math.inf

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


Number: TypeAlias = Fact[float]
_UNKNOWN: Any = Fact()


def _describe(text: str) -> Any:
    return field(default=_UNKNOWN, metadata={"about": text})


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What the target's neurons and connections can do."""

    resets: Fact[tuple[str, ...]] = _describe('reset rules: "value", "subtract", "none"')
    nonzero_reset: Fact[bool] = _describe("reset to a value other than zero")
    leak: Fact[str] = _describe('a constant leak term: "native", "bias" (through the neuron\'s bias) or "no"')
    bias: Fact[bool] = _describe("a bias of connections into neurons without synaptic current")
    current_bias: Fact[str] = _describe(
        'a bias that enters the synaptic current: "native", "channel" (one more input that is always on) or "no"'
    )
    per_neuron: Fact[tuple[str, ...]] = _describe("parameters that may differ within a population")
    graded_input: Fact[bool] = _describe("real-valued input, as graded spikes or floats")
    readout: Fact[bool] = _describe("membranes of neurons that do not spike can be read")
    recurrence: Fact[bool] = _describe("recurrent connections")
    topology: Fact[str] = _describe('"any" or "chain" (one path from input to output)')
    free_wiring: Fact[bool] = _describe("values may pass without neurons, and spikes without weights")
    clears_buffers: Fact[bool] = _describe("what travels on a connection is cleared between two actions")
    decays: Fact[str] = _describe('"any", "shift" (1 - 2^-k only) or "none" (1 only)')


@dataclass(frozen=True, slots=True)
class Limits:
    """Numbers. Of a whole chip unless they say otherwise."""

    inputs: Number = _describe("input channels")
    outputs: Number = _describe("outputs that can be read")
    neurons: Number = _describe("neurons, outputs and bias sources included")
    hidden: Number = _describe("neurons that are no outputs")
    synapses: Number = _describe("synapses")
    layers: Number = _describe("layers of neurons")
    fan_in: Number = _describe("synapses into one neuron")
    fan_out: Number = _describe("neurons one neuron or input reaches")
    cores: Number = _describe("cores")
    neurons_per_core: Number = _describe("neurons of a core")
    axons_in_per_core: Number = _describe("input axons of a core: neurons and inputs that reach it")
    axons_out_per_core: Number = _describe("output axons of a core: (neuron, core it reaches) pairs")
    synapse_bits_per_core: Number = _describe("synapse memory of a core, bits")
    decays_per_core: Number = _describe("different pairs of decays on a core")
    thresholds_per_core: Number = _describe("different thresholds on a core")
    weight_bits: Number = _describe("bits of a weight")
    weight_min: Number = _describe("smallest weight mantissa")
    weight_max: Number = _describe("largest weight mantissa")
    state_bits: Number = _describe("bits of membrane and current")
    decay_bits: Number = _describe("bits of a decay factor")
    threshold_max: Number = _describe("largest threshold mantissa")
    bias_bits: Number = _describe("bits of a bias mantissa")
    message_bits: Number = _describe("bits of a graded spike, sign included")
    connection_delay: Number = _describe("steps every weighted connection costs")
    delay_max: Number = _describe("longest delay of a connection, steps")


@dataclass(frozen=True, slots=True)
class Convolution:
    """Limits of a chip that convolves. Memories are per layer, in values."""

    kernel_max: Number = _describe("largest kernel edge")
    strides: Fact[tuple[int, ...]] = _describe("strides")
    pools: Fact[tuple[int, ...]] = _describe("pooling kernels")
    features_max: Number = _describe("largest number of output features")
    kernel_memory: Fact[tuple[int, ...]] = _describe("kernel values of each layer")
    neuron_memory: Fact[tuple[int, ...]] = _describe("neurons of each layer")


@dataclass(frozen=True, slots=True)
class Packing:
    """How synapses fill a core's memory: per axon, blocks of at most `block` synapses.

    A block is `header_bits` + count * (`weight_bits` + delay bits where delays are used + index bits unless every
    neuron is a target), rounded up to `word_bits`.
    """

    weight_bits: int
    delay_bits: int
    header_bits: int
    block: int
    word_bits: int
    index_bits: tuple[int, ...]
    source: str
    confidence: Confidence


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy per operation, pJ, for estimates only.

    `measured_on` names the chip the constants were published for, which may be another than the target.
    """

    measured_on: str
    process_nm: int
    source: str
    confidence: Confidence
    synaptic_event_pj: float
    update_active_pj: float
    update_inactive_pj: float

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

    SECTIONS: ClassVar[tuple[str, ...]] = ("behaviour", "limits", "convolution")

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))

    def kinds(self, level: Level) -> tuple[str, ...]:
        """Kinds of core nodes that can be realised from `level`; empty where none can."""
        return self.nodes.get(level, ())

    def facts(self) -> list[tuple[str, str, Fact[Any]]]:
        """(name, meaning, fact) of everything the spec states or leaves open, in a fixed order."""
        found = []
        for section in self.SECTIONS:
            holder = getattr(self, section)
            if holder is not None:
                found += [(f.name, f.metadata["about"], getattr(holder, f.name)) for f in dataclasses.fields(holder)]
        return found

    def override(self, **values: float) -> TargetSpec:
        """A copy with limits replaced by the user's own, for chips whose limits are not public.

        Args:
            values: limit name -> number, e.g. `neurons_per_core=4096`. Their confidence becomes "given".

        Raises:
            NervecordError: no such limit, or its value is exact and so not open to opinion.
        """
        known = {f.name for f in dataclasses.fields(Limits)}
        changes: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise NervecordError(
                    f"{self.name} has no limit {name!r}", where=name, hint=f"choose from: {', '.join(sorted(known))}"
                )
            old: Number = getattr(self.limits, name)
            if old.decides and old.confidence != "given":
                raise NervecordError(
                    f"{old} is exact for {self.name} ({old.source}) and cannot be overridden", where=name
                )
            if math.isnan(value) or value < 0:
                raise NervecordError(f"{value} is no limit; zero or more is needed", where=name)
            changes[name] = Fact(value, f"given by the user, in place of {old} ({old.confidence})", "given")
        return dataclasses.replace(self, limits=dataclasses.replace(self.limits, **changes))


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
    """A graph in a target's arithmetic.

    Args:
        graph: INTEGER (or DISCRETE where the target computes in floats).
        report: ranges, steps and errors per layer; plain JSON types.
        allowances: explicit permissions it was made with (`--allow-...`), kept in the program's manifest.
    """

    graph: Graph
    report: Mapping[str, object]
    allowances: tuple[str, ...] = ()


@runtime_checkable
class Target(Protocol):
    """A target that compiles and runs. Targets that are only inspected have a spec and nothing else."""

    @property
    def spec(self) -> TargetSpec:
        """Its limits."""
        ...

    @property
    def engines(self) -> tuple[str, ...]:
        """Names of what runs its programs, the default first."""
        ...

    def lower(self, graph: Graph, calibration: object) -> Lowered:
        """A DISCRETE policy in the target's arithmetic.

        Raises:
            InfeasibleError: it cannot be held or expressed.
        """
        ...

    def open(self, program: object, *, engine: str | None = None, trace: bool = True) -> object:
        """A session that steps the program, on the default engine or the one named.

        trace: its `trace` will be asked for. An engine in another process takes time to hand it over.
        """
        ...
