"""Where a graph's neurons would sit on a target's cores, and what that uses.

Layer by layer, in graph order: each population gets cores of its own, as few as let an equal share of it keep to the
neurons, axons and synapse memory of a core. No core holds two populations, which is simple, never too optimistic about
a core, and what nengo_loihi's allocators do. Limits that nobody published do not constrain; `Placement.open_limits`
names them, and every number that rests on a second-hand limit carries that confidence.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.lower.entries import bias_carrier
from nervecord.compiler.ops import Array, Conv, Matrix, Neuron, Op, Rows, is_host
from nervecord.compiler.plan.topology import Topology, Wire, label
from nervecord.compiler.target.protocol import Packing, TargetSpec

CORE_LIMITS = ("neurons_per_core", "axons_in_per_core", "axons_out_per_core", "synapse_bits_per_core")
"""Limits of a core that decide how a population is split."""
BATCH = 1 << 17
"""Synapses looked at at once, to bound the memory it takes."""


@dataclass(frozen=True, slots=True)
class PopulationUse:
    """What one population uses.

    Args:
        name, label: of the population, and as its maker wrote it. kind: of its op.
        neurons: their number, bias sources for the next layer included.
        fan_in: most non-zero synapses into one neuron.
        synapses: non-zero; stored: with the zeros of dense matrices.
        cores: cores it is split over; None for a target without cores.
        per_core: limit name -> the most that one of them uses; None where it cannot be counted.
        memory_bits: synapse memory over all cores; None where it cannot be counted.
        exceeded: core limits that even one neuron per core exceeds.
    """

    name: str
    label: str
    kind: str
    neurons: int
    fan_in: int
    synapses: int
    stored: int
    cores: int | None
    per_core: dict[str, int | None]
    memory_bits: int | None
    exceeded: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """What a graph uses of a target.

    Args:
        layers: per population.
        inputs, outputs: values that enter and leave the core. hidden: neurons that are no outputs.
        bias_inputs, bias_neurons: of `inputs` and `neurons`, those that only carry a bias.
        cores: used; None for a target without cores.
        utilisation: limit name -> used share, of limits that have a value.
        confidence: of the least trusted limit behind `cores`: "exact", "second-hand" or "conflicting".
        open_limits: limits of a core that nobody published, so that they were not kept to.
        host_values: values that host ops handle per action.
    """

    layers: tuple[PopulationUse, ...]
    inputs: int
    outputs: int
    hidden: int
    neurons: int
    synapses: int
    stored: int
    bias_inputs: int
    bias_neurons: int
    cores: int | None
    memory_bits: int | None
    utilisation: dict[str, float]
    confidence: str
    open_limits: tuple[str, ...]
    host_values: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        data = dataclasses.asdict(self)
        data["layers"] = [{**layer, "exceeded": list(layer["exceeded"])} for layer in data["layers"]]
        data["open_limits"] = list(self.open_limits)
        return data


def place(graph: Graph, spec: TargetSpec, topology: Topology | None = None) -> Placement:
    """Split every population over cores and count what is used; deterministic.

    Args:
        graph: any level; arrays must have their ops' shapes.
        topology: of the graph, if it is known already.
    """
    topology = topology or Topology.of(graph)
    carriers = bias_carriers(graph, topology, spec)
    drafts = _drafts(graph, spec, topology, carriers)
    has_cores = any(not math.isinf(_cap(spec, name)) for name in CORE_LIMITS)
    if has_cores:
        _split(drafts)
    layers = tuple(draft.use(has_cores) for draft in drafts)
    entry_bias = len(set(topology.entries) & set(carriers.values()))
    bias_neurons = sum(draft.bias_sources for draft in drafts)
    inputs = sum(graph.nodes[name].size for name in topology.entries) + entry_bias
    outputs = sum(topology.populations[name].size for name in topology.readouts)
    neurons = sum(layer.neurons for layer in layers)
    cores = sum(layer.cores or 0 for layer in layers) if has_cores else None
    bits = [layer.memory_bits for layer in layers]
    total_bits = None if any(value is None for value in bits) else sum(value or 0 for value in bits)
    synapses, stored = sum(layer.synapses for layer in layers), sum(layer.stored for layer in layers)
    used: dict[str, float | None] = {
        "inputs": inputs,
        "outputs": outputs,
        "neurons": neurons,
        "hidden": neurons - outputs,
        "synapses": synapses,
        "cores": cores,
        **{name: _most(layer.per_core.get(name) for layer in layers) for name in CORE_LIMITS},
    }
    return Placement(
        layers=layers,
        inputs=inputs,
        outputs=outputs,
        hidden=neurons - outputs,
        neurons=neurons,
        synapses=synapses,
        stored=stored,
        bias_inputs=entry_bias,
        bias_neurons=bias_neurons,
        cores=cores,
        memory_bits=total_bits if has_cores else None,
        utilisation={
            name: round(value / _cap(spec, name), 6)
            for name, value in used.items()
            if value is not None and 0 < _cap(spec, name) < math.inf
        },
        confidence=_confidence(spec) if has_cores else "exact",
        open_limits=tuple(name for name in CORE_LIMITS if not getattr(spec.limits, name).known) if has_cores else (),
        host_values=sum(op.size for op in graph.nodes.values() if is_host(op)),
    )


def has_current(op: Op) -> bool:
    """Whether neurons have a synaptic current, which a bias of what feeds them enters."""
    return isinstance(op, Neuron) and op.synapse is not None


def bias_carriers(graph: Graph, topology: Topology, spec: TargetSpec) -> dict[str, str | None]:
    """Population -> what carries its bias, where that enters a synaptic current and takes a channel on this target.

    See `compiler.lower.entries.bias_carrier`.
    """
    if spec.behaviour.current_bias.value != "channel":
        return {}
    readouts = set(topology.readouts)
    encoders = {
        name for name in topology.entries if not (type(graph.nodes[name]).ROLE == "input" and graph.nodes[name].spikes)
    }
    inputs = set(topology.entries) - encoders
    once = spec.integers is None or spec.integers.spikes_per_step == 1
    spiking = {name for name, op in topology.populations.items() if once and op.spikes and name not in readouts}
    carriers: dict[str, str | None] = {}
    for name, op in topology.populations.items():
        incoming = topology.into(name)
        if has_current(op) and any(wire.biased for wire in incoming):
            sources = [source for wire in incoming for source in wire.sources]
            carriers[name] = bias_carrier(sources, encoders, spiking, inputs)
    return carriers


def synapse_bits(weight: Array, packing: Packing, *, delayed: bool) -> int:
    """Memory of the synapses of `weight` (neurons of one core, axons), bits; see `core_bits`."""
    counts = np.count_nonzero(weight, axis=0)
    return int(core_bits(np.zeros_like(counts), counts, np.array([weight.shape[0]]), packing, delayed=delayed)[0])


def core_bits(core: Array, counts: Array, neurons: Array, packing: Packing, *, delayed: bool) -> Array:
    """Synapse memory of each core, bits.

    Dense (every synapse of an axon stored, no indices) or sparse (non-zero ones with indices), whichever is smaller; an
    axon with no synapse on a core takes nothing there.

    Args:
        core: (axons,) the core that each axon enters. counts: (axons,) its non-zero synapses there.
        neurons: (cores,).
        delayed: synapses store a delay.
    """
    each = packing.weight_bits + (packing.delay_bits if delayed else 0)
    most = int(neurons.max(initial=1))
    index = next((bits for bits in packing.index_bits if most <= 1 << bits), packing.index_bits[-1])
    full = _axon_bits(np.where(counts > 0, neurons[core], 0), each, packing)
    listed = _axon_bits(counts, each + index, packing)
    return np.minimum(*(summed(core, bits, len(neurons)) for bits in (full, listed)))


def summed(places: Array, values: Array, size: int) -> Array:
    """(size,) the sum of the values of each place; whole numbers whose sums are below 2^53 stay whole."""
    return np.bincount(places, weights=values, minlength=size).astype(np.int64)


def _axon_bits(counts: Array, each: int, packing: Packing) -> Array:
    """Bits of axons with so many synapses of `each` bits: blocks with a header, rounded up to words."""

    def words(count: Array) -> Array:
        return -(-(count * each + packing.header_bits) // packing.word_bits) * packing.word_bits

    full, rest = counts // packing.block, counts % packing.block
    return full * words(np.array(packing.block)) + np.where(rest > 0, words(rest), 0)


Entering: TypeAlias = tuple[Array, Array]
"""(column, row) of each non-zero weight of a matrix, by columns, the rows of each ascending."""


def _by_column(node: Rows) -> Entering:
    matrix = node.csr.nonzero().transposed()
    stored = matrix.values != 0
    return matrix.row_of[stored], matrix.columns[stored]


def _axons(node: Matrix, share: int, by_column: Callable[[], Entering]) -> Iterator[Entering]:
    """(core, non-zero synapses) of each axon with so many neurons on a core, in parts of neighbouring cores."""
    (rows,), (width,) = node.out_shape, node.in_shape
    if isinstance(node, Rows):
        # No row is laid out: they may be as wide as a file of a few bytes says.
        columns, row = by_column()
        core = row // share
        begins = np.flatnonzero(np.append(True, (np.diff(columns) != 0) | (np.diff(core) != 0))[: len(core)])
        yield core[begins], np.diff(np.append(begins, len(core)))
        return
    at_once = max(1, BATCH // max(width, 1))
    for first in range(0, -(-rows // share), at_once):
        part = node.rows(first * share, (first + at_once) * share) != 0
        starts = range(0, len(part), share)
        counts = part if share == 1 else np.stack([part[k : k + share].sum(axis=0, dtype=np.int32) for k in starts])
        core, axon = np.nonzero(counts)
        yield core + first, counts[core, axon].astype(np.int64)


def _per_core(
    wire: Wire, share: int, cores: int, spec: TargetSpec, by_column: Callable[[], Entering]
) -> tuple[Array, Array | None]:
    """(input axons, synapse bits) a connection takes of each core; bits None where the packing is not modelled."""
    node = wire.op
    if not isinstance(node, Matrix):
        # Chips share a kernel's weights between axons in ways that are not modelled here, but for whole kernels.
        reached, whole = np.full(cores, np.count_nonzero(wire.fan_out)), spec.behaviour.shared_kernels.value
        if not whole or not isinstance(node, Conv) or not spec.limits.weight_bits.known:
            return reached, None
        return reached, np.full(cores, node.weight.size * int(spec.limits.weight_bits.value or 0))
    axons, bits = np.zeros(cores, dtype=np.int64), np.zeros(cores, dtype=np.int64)
    (rows,), (width,) = node.out_shape, node.in_shape
    neurons = np.minimum(share, rows - np.arange(0, rows, share))
    for core, counts in _axons(node, share, by_column):
        axons += np.bincount(core, minlength=cores)
        if spec.packing is not None:
            bits[: len(neurons)] += core_bits(core, counts, neurons, spec.packing, delayed=node.delay > 1)
    if spec.packing is None:
        bits[: len(neurons)] = neurons * width * int(spec.limits.weight_bits.value or 0)
    known = spec.packing is not None or spec.limits.weight_bits.known
    return axons, bits if known else None


class _Draft:
    """A population while it is being split: `share` is its neurons per core, and shrinks until it fits."""

    def __init__(self, graph: Graph, spec: TargetSpec, topology: Topology, name: str) -> None:
        self.graph, self.spec, self.name = graph, spec, name
        self.node = topology.populations[name]
        self.incoming = topology.into(name)
        self.outgoing = topology.out_of(name)
        self.bias_sources = self.bias_inputs = 0
        """Channels that only carry a bias, and start or end here: 0 or 1."""
        self.neurons = self.share = self.node.size
        self.reached = 0
        """Cores its spikes go to."""
        self.hopeless: tuple[str, ...] = ()
        """Limits that one neuron alone exceeds; splitting cannot help them."""
        self._counted: dict[int, tuple[Array, Array | None]] = {}
        self._columns: dict[str, Entering] = {}

    @property
    def cores(self) -> int:
        return -(-self.neurons // self.share)

    def per_core(self, share: int) -> dict[str, int | None]:
        """What the fullest core uses with so many neurons."""
        axons, bits = self._incoming(share)
        return {
            "neurons_per_core": share,
            "axons_in_per_core": int(axons.max(initial=0)),
            "axons_out_per_core": share * self.reached,
            "synapse_bits_per_core": None if bits is None else int(bits.max(initial=0)),
        }

    def _incoming(self, share: int) -> tuple[Array, Array | None]:
        """(input axons, synapse bits) of each core."""
        if share in self._counted:
            return self._counted[share]
        cores = -(-self.neurons // share)
        axons = np.full(cores, self.bias_inputs)
        bits: Array | None = np.full(cores, self.bias_inputs * _channel_bits(share, self.spec))
        for wire in self.incoming:
            more_axons, more_bits = _per_core(wire, share, cores, self.spec, partial(self._by_column, wire))
            axons = axons + more_axons
            bits = None if bits is None or more_bits is None else bits + more_bits
        self._counted[share] = axons, bits
        return axons, bits

    def _by_column(self, wire: Wire) -> Entering:
        if wire.name not in self._columns:
            assert isinstance(wire.op, Rows)
            self._columns[wire.name] = _by_column(wire.op)
        return self._columns[wire.name]

    def exceeded(self, share: int) -> tuple[str, ...]:
        use = self.per_core(share)
        return tuple(name for name in CORE_LIMITS if (use[name] or 0) > _cap(self.spec, name))

    def shrink(self) -> bool:
        """Take the largest share that fits, by bisection; whether it changed.

        Use grows with the share but for rounding, so the share found fits, and is the largest one within rounding.
        """
        over = self.exceeded(self.share)
        if not over:
            return False
        self.hopeless = self.exceeded(1)
        if all(name in self.hopeless for name in over):
            return False
        fits, too_many = 1, self.share
        while too_many - fits > 1:
            middle = (fits + too_many) // 2
            if all(name in self.hopeless for name in self.exceeded(middle)):
                fits = middle
            else:
                too_many = middle
        even = -(-self.neurons // -(-self.neurons // fits))
        self.share = even if all(name in self.hopeless for name in self.exceeded(even)) else fits
        return True

    def use(self, has_cores: bool) -> PopulationUse:
        extra = self.bias_inputs * self.node.size
        bits = self._incoming(self.share)[1] if has_cores else None
        return PopulationUse(
            name=self.name,
            label=label(self.graph, self.name),
            kind=self.node.kind,
            neurons=self.neurons,
            fan_in=sum(c.fan_in for c in self.incoming) + self.bias_inputs,
            synapses=sum(c.synapses for c in self.incoming) + extra,
            stored=sum(c.stored for c in self.incoming) + extra,
            cores=self.cores if has_cores else None,
            per_core=self.per_core(self.share) if has_cores else {},
            memory_bits=None if bits is None or not has_cores else int(bits.sum()),
            exceeded=self.hopeless if has_cores else (),
        )


def _drafts(graph: Graph, spec: TargetSpec, topology: Topology, carriers: Mapping[str, str | None]) -> list[_Draft]:
    drafts = {name: _Draft(graph, spec, topology, name) for name in topology.populations}
    for name, source in carriers.items():
        drafts[name].bias_inputs = 0 if source is None else 1
        if source in drafts:
            drafts[source].bias_sources = 1
    for draft in drafts.values():
        draft.neurons = draft.share = draft.node.size + draft.bias_sources
    return list(drafts.values())


def _split(drafts: list[_Draft]) -> None:
    """Shrink every population's share until all fit or cannot; shares only ever shrink, so it ends."""
    by_name = {draft.name: draft for draft in drafts}
    ends = {
        draft.name: [by_name[d] for wire in draft.outgoing for d in wire.destinations if d in by_name]
        for draft in drafts
    }
    changed = True
    while changed:
        changed = False
        for draft in drafts:
            draft.reached = sum(end.cores for end in ends[draft.name])
            changed = draft.shrink() or changed


def _channel_bits(share: int, spec: TargetSpec) -> int:
    """Memory of one bias channel into `share` neurons."""
    if spec.packing is not None:
        return synapse_bits(np.ones((share, 1)), spec.packing, delayed=False)
    return share * int(spec.limits.weight_bits.value or 0)


def _cap(spec: TargetSpec, name: str) -> float:
    value: float | None = getattr(spec.limits, name).value
    return math.inf if value is None else value


def _most(values: Any) -> int | None:
    numbers = [value for value in values if value is not None]
    return max(numbers) if numbers else None


def _confidence(spec: TargetSpec) -> str:
    order = ("exact", "given", "second-hand", "conflicting")
    confidences = [getattr(spec.limits, name).confidence for name in (*CORE_LIMITS, "cores")]
    return max((c for c in confidences if c in order), key=order.index, default="exact")
