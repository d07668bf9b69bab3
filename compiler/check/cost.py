"""Events per action, and an estimate of the energy they would take.

Events are counted: a synaptic event is one value arriving at one synapse with a weight that is not zero; a neuron
update is one neuron at one step. Without measured activity every neuron is taken to spike at every step: a bound.
Energy is counts times published constants of a chip: an estimate, never a measurement, always with source and process
node. Hops between cores, host work and static power are not modelled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.blas import matmul
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.timing import steps_per_block
from nervecord.compiler.plan.topology import Topology, Wire
from nervecord.compiler.target.protocol import TargetSpec
from nervecord.compiler.target.specfile import trust
from nervecord.errors import NervecordError

PICO = 1e-12
_UNITS = ((1e-12, "pJ"), (1e-9, "nJ"), (1e-6, "uJ"), (1e-3, "mJ"), (1.0, "J"))


@dataclass(frozen=True, slots=True)
class Events:
    """What happens during one block of steps: an action of a policy, by default one step of a graph that is none.

    Args:
        steps: core steps of a block on the target.
        input_events: synaptic events of values that enter (graded or real).
        spike_events: synaptic events of spikes, those of a population code included.
        updates: neuron updates.
        bound: every neuron was taken to spike at every step (no activity was given).
    """

    steps: int
    input_events: float
    spike_events: float
    updates: float
    bound: bool

    @property
    def synaptic_events(self) -> float:
        """All of them."""
        return self.input_events + self.spike_events

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**dataclasses.asdict(self), "synaptic_events": self.synaptic_events}


@dataclass(frozen=True, slots=True)
class Estimate:
    """An estimate of dynamic energy, joules, low..high.

    Args:
        low, high: all neuron updates inactive; all active.
        measured_on, process_nm, source, confidence: of the constants.
        stands_in: the constants are another chip's, as none are published for this target.
        bound: the events behind it are a bound.
        parts: what -> joules, of `high`.
        constants: operation -> picojoules, what the counts were multiplied by; all of `source`.
    """

    low: float
    high: float
    measured_on: str
    process_nm: int
    source: str
    confidence: str
    stands_in: bool
    bound: bool
    parts: Mapping[str, float]
    constants: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; energies in joules."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**data, "parts": dict(self.parts), "constants": dict(self.constants), "kind": "estimate"}

    def __str__(self) -> str:
        amount = energy_text(self.high)
        if self.bound:
            amount = f"at most {amount}"
        elif self.low != self.high:
            amount = f"{energy_text(self.low)} to {amount}"
        chip = f"as if on {self.measured_on}" if self.stands_in else f"constants of {self.measured_on}"
        source = f"{self.source} [{trust(self.confidence)}]"
        return f"estimate, {amount} ({chip}, {self.process_nm} nm; {source}; not measured)"


def count_events(
    subject: Graph | Policy,
    spec: TargetSpec | None = None,
    spikes: Mapping[str, float | Array] | None = None,
    topology: Topology | None = None,
    schedule: Schedule | None = None,
) -> Events:
    """Count events per action of a policy, or per block of `schedule`: one step by default.

    Args:
        subject: at any level.
        spec: the target, whose delays lengthen an action; None: the graph's own steps.
        spikes: population -> spikes per action, in all or per neuron (n,), as measured, and so of what enters as
            spikes (a population code, an Input); None: a bound.

    Raises:
        NervecordError: `spikes` lacks a spiking population, names none, or exceeds one spike per neuron and step.
    """
    graph, _ = parts(subject)
    topology = topology or Topology.of(graph)
    cost = 0 if spec is None else int(spec.limits.connection_delay.value or 0)
    steps, constant_steps = steps_per_block(subject, topology, cost, schedule)
    events = {name: constant_steps * graph.nodes[name].size for name in topology.entries if graph.nodes[name].spikes}
    senders = [name for name in (*events, *topology.populations) if topology.out_of(name)]
    if spikes is not None:
        _require_activity(graph, spikes, senders, steps)
    entries = set(topology.entries)
    input_events = spike_events = 0.0
    for wire in topology.wires:
        for source in wire.sources:
            if source in events:
                spike_events += _spike_events(events[source] if spikes is None else spikes[source], wire)
            elif source in entries:
                # Held for T steps; while the pipeline drains, zeros are sent, which are no events.
                input_events += constant_steps * float(wire.synapses)
            elif source in topology.populations:
                rate: float | Array = steps * topology.populations[source].size if spikes is None else spikes[source]
                spike_events += _spike_events(rate, wire)
    neurons = sum(op.size for op in topology.populations.values())
    return Events(steps, input_events, spike_events, float(steps * neurons), spikes is None)


def _spike_events(spikes: float | Array, wire: Wire) -> float:
    """Events of spikes, in all (spread evenly) or per neuron."""
    if isinstance(spikes, (int, float)) or np.ndim(spikes) == 0:
        return float(spikes) * wire.synapses / wire.fan_out.size
    return float(matmul(np.asarray(spikes, dtype=np.float64).ravel(), wire.fan_out))


def _require_activity(graph: Graph, spikes: Mapping[str, float | Array], senders: list[str], steps: int) -> None:
    for name in senders:
        if name not in spikes:
            raise NervecordError("no activity is given for this population", where=name, hint="give spikes per action")
    for name, value in spikes.items():
        if name not in graph.nodes:
            raise NervecordError("activity is given for a node that does not exist", where=name)
        count = np.asarray(value, dtype=np.float64)
        neurons = graph.nodes[name].size
        if count.ndim and count.size != neurons:
            raise NervecordError(f"{count.size} counts are given for {neurons} neurons", where=name)
        most = steps if count.ndim else steps * neurons
        if not ((count >= 0) & (count <= most)).all():
            raise NervecordError(f"spikes per action must lie in 0..{most}", where=name)


def estimate(events: Events, spec: TargetSpec) -> Estimate | None:
    """Energy of these events with the target's constants; None where the spec has none."""
    energy = spec.energy
    if energy is None:
        return None
    synaptic = events.synaptic_events * energy.synaptic_event_pj * PICO
    active = events.updates * energy.update_active_pj * PICO
    inactive = events.updates * energy.update_inactive_pj * PICO
    return Estimate(
        low=synaptic + inactive,
        high=synaptic + active,
        measured_on=energy.measured_on,
        process_nm=energy.process_nm,
        source=energy.source,
        confidence=energy.confidence,
        stands_in=energy.measured_on != spec.title,
        bound=events.bound,
        parts={"synaptic events": synaptic, "neuron updates": active},
        constants=dict(energy.constants()),
    )


def energy_text(joules: float) -> str:
    """An energy with three digits and the unit that fits: 1.2e-8 J is "12 nJ"."""
    scale, unit = _UNITS[0]
    for factor, name in _UNITS:
        if joules >= factor * (1 - 1e-9):
            scale, unit = factor, name
    return f"{joules / scale:.3g} {unit}"
