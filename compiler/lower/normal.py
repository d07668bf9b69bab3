"""The normal form that lowering starts from: populations, and the links that feed them.

A link is what one source sends one population through one matrix. An Affine with several sources or several
destinations becomes several links, since a chip's connection joins one of each and carries binary spikes; gains are
folded into the weights, which changes nothing: gain * (W x + b) + leak = (gain W) x + (gain b + leak) to the last bit
of float64 rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervecord.compiler.blas import matmul
from nervecord.compiler.graph.names import fresh
from nervecord.compiler.ops import (
    Affine,
    Array,
    Convolution,
    Csr,
    Membrane,
    Neuron,
    Scale,
    SparseAffine,
    Spike,
    Synapse,
)
from nervecord.compiler.passes.linear import Matrix, matrix_of, through
from nervecord.compiler.plan.plan import Plan, Step, Unit
from nervecord.errors import InfeasibleError


@dataclass(frozen=True, slots=True)
class Link:
    """W x of one source, for one population.

    Args:
        name: of the connection it becomes. source: a population or an entry. origin: its maker's names.
        weight: (out, in), gains folded in.
        delay: steps, as trained.
        convolution: that the weights were before gains.
        rest_of: name of another link with the same weights: this one carries those that fit
            its mantissas, and what rounding leaves of the others.
    """

    name: str
    source: str
    origin: tuple[str, ...]
    weight: Matrix
    delay: int
    convolution: Convolution | None = None
    rest_of: str | None = None

    @property
    def stored(self) -> Array:
        """The weights that are stored: all that are not zero are among them."""
        return self.weight.values if isinstance(self.weight, Csr) else self.weight

    def times(self, x: Array, *, positive: bool = False) -> Array:
        """The weights, or what is positive of them, times a vector: (out,) of (in,)."""
        if isinstance(self.weight, Csr):
            matrix = self.weight
            return (matrix.with_values(np.maximum(matrix.values, 0)) if positive else matrix).products(x[None])[0]
        return matmul(np.maximum(self.weight, 0) if positive else self.weight, x)


@dataclass(frozen=True, slots=True)
class Population:
    """Neurons in normal form.

        i = current_decay * i + sum of W x + current_bias      (i = sum of W x + current_bias without a synapse)
        v = decay * v + i + bias; spike where v > threshold, v = 0

    Args:
        name, origin: of the population.
        links: what feeds it.
        current_bias, bias, decay: (n,). threshold: (n,), None where it does not spike.
        current_decay: (n,) or None: no synapse, and current_bias is then folded into bias.
    """

    name: str
    origin: tuple[str, ...]
    links: tuple[Link, ...]
    current_bias: Array
    bias: Array
    decay: Array
    threshold: Array | None
    current_decay: Array | None

    @property
    def size(self) -> int:
        """Number of neurons."""
        return int(self.decay.size)

    @property
    def needs_channel(self) -> bool:
        """Whether its bias enters a synaptic current, which a chip's own bias may not."""
        return bool((self.current_bias != 0).any())

    @property
    def label(self) -> str:
        """Its maker's name for it."""
        return self.origin[0] if self.origin else self.name


def populations(plan: Plan) -> list[Population]:
    """Of a DISCRETE plan, in execution order.

    The graph holds nothing but Affine connections and Neurons in its core, connections and neurons alternating: the
    rules have seen to it.

    Raises:
        InfeasibleError: a weight or bias is beyond float64 once gains are folded in.
    """
    names = set(plan.graph.nodes)
    with np.errstate(over="ignore", invalid="ignore"):
        result = [_population(plan, unit, names) for unit in plan.units]
    for p in result:
        if not all(
            np.isfinite(values).all() for values in (p.bias, p.current_bias, *(link.stored for link in p.links))
        ):
            raise InfeasibleError(
                "its gains times weights and biases go beyond float64", where=p.label, hint="smaller gains or weights"
            )
    return result


def _population(plan: Plan, unit: Unit, names: set[str]) -> Population:
    node = unit.step.op
    assert isinstance(node, Neuron)
    membrane, synapse, spike = node.membrane, node.synapse, node.spike
    assert isinstance(membrane, Membrane)
    assert synapse is None or isinstance(synapse, Synapse)
    assert spike is None or isinstance(spike, Spike)
    gain = membrane.gain if synapse is None else membrane.gain * synapse.gain
    bias = np.zeros(node.size)
    links: list[Link] = []
    for step in unit.incoming:
        affine = step.op
        assert isinstance(affine, (Affine, SparseAffine))
        if affine.bias is not None:
            bias = bias + affine.bias if bias.any() else affine.bias
        weight = through(Scale(gain), matrix_of(affine), direct=False) if (gain != 1).any() else matrix_of(affine)
        form = affine.convolution if isinstance(affine, SparseAffine) else None
        several = len(plan.graph.destinations(step.name)) > 1
        for tap in step.taps:
            name = _link_name(step, tap.source, unit.step.name if several else None, names)
            links.append(Link(name, tap.source, affine.origin or (step.name,), weight, affine.delay, form))
    current = synapse is not None
    return Population(
        name=unit.step.name,
        origin=node.origin or (unit.step.name,),
        links=tuple(links),
        current_bias=gain * bias if current else np.zeros_like(bias),
        bias=membrane.leak + (0 if current else gain * bias),
        decay=membrane.decay,
        threshold=None if spike is None else spike.threshold,
        current_decay=None if synapse is None else synapse.decay,
    )


def _link_name(step: Step, source: str, destination: str | None, names: set[str]) -> str:
    """The connection's own name where it becomes one link; else with the ends that tell the links apart."""
    parts = [step.name, *([source] if len(step.taps) > 1 else []), *([destination] if destination else [])]
    if len(parts) == 1:
        return step.name
    return fresh(".".join(parts), names)
