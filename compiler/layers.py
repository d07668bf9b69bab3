"""A policy's core as a stack of layers: the one shape that lowering to a dense target takes.

Gains are folded into the weights, which changes nothing: gain * (W x + b) + leak = (gain W) x + (gain b + leak) to the
last bit of float64 rounding, and is the reason why a lowered graph's floats are compared with a tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.graph import Graph, Level
from nervecord.compiler.node import Array, Node
from nervecord.compiler.verify import require
from nervecord.errors import InfeasibleError


@dataclass(frozen=True, slots=True)
class Layer:
    """One weighted connection and the neurons behind it, in normal form.

        i = current_decay * i + W x + current_bias      (i = W x + current_bias without a synaptic current)
        v = decay * v + i + bias; spike where v > threshold, v = 0

    Args:
        affine, neuron: node names. origin: their makers' names.
        weight: (out, in). current_bias, bias, decay, threshold: (out,). threshold None: a readout.
        current_decay: (out,) or None: no synaptic current, and current_bias is then folded into bias.
        delay: steps of the connection.
    """

    affine: str
    neuron: str
    affine_origin: tuple[str, ...]
    neuron_origin: tuple[str, ...]
    weight: Array
    current_bias: Array
    bias: Array
    decay: Array
    threshold: Array | None
    current_decay: Array | None
    delay: int

    @property
    def size(self) -> int:
        """Number of neurons."""
        return int(self.weight.shape[0])


@dataclass(frozen=True, slots=True)
class Stack:
    """A policy graph taken apart: Input, Normalise, an encoder or none, layers, decoder, Output."""

    normalise: tuple[str, n.Normalise]
    encode: tuple[str, n.PopulationEncode] | None
    layers: tuple[Layer, ...]
    decode: tuple[str, n.Decode | n.CountDecode | n.ArgmaxDecode | n.CountArgmaxDecode]


def stack(graph: Graph) -> Stack:
    """Take a DISCRETE policy apart.

    Raises:
        InfeasibleError: it is no chain of Normalise, PopulationEncode or nothing, (Affine, neurons) and a decoder that
            resets to zero; the message names the node that breaks it.
    """
    require(graph, Level.DISCRETE)
    names = _chain(graph)
    nodes = [(name, graph.nodes[name]) for name in names[1:-1]]
    encode = nodes[1] if len(nodes) > 1 and isinstance(nodes[1][1], n.PopulationEncode) else None
    core = nodes[2:-1] if encode else nodes[1:-1]
    decode = nodes[-1][1] if nodes else None
    if len(core) < 2 or not isinstance(nodes[0][1], n.Normalise) or not isinstance(decode, n.AFTER_CORE):
        raise InfeasibleError(
            "is no policy: Input, Normalise, layers, a decoder and Output are needed",
            where="graph",
            hint="inspect and simulate take any graph; compile takes a policy that `nervecord train` wrote",
        )
    layers = []
    for k in range(0, len(core), 2):
        if k + 1 >= len(core) or not isinstance(core[k][1], n.Affine):
            raise InfeasibleError(f"{core[k][1].kind} stands where a weighted connection must", where=core[k][0])
        layers.append(_layer(*core[k], *core[k + 1]))
    for layer in layers[:-1]:
        if layer.threshold is None:
            raise InfeasibleError("a layer that does not spike stands inside the core", where=layer.neuron)
    if layers[-1].threshold is not None and not isinstance(decode, n.COUNTING):
        raise InfeasibleError(
            "the last layer spikes, and its membrane cannot be read",
            where=layers[-1].neuron,
            hint="end with LI, or decode its spike counts: train with --decoder count",
        )
    return Stack(
        normalise=(nodes[0][0], nodes[0][1]),
        encode=encode,  # type: ignore[arg-type]  # its type was asked for above
        layers=tuple(layers),
        decode=(nodes[-1][0], decode),  # type: ignore[arg-type]
    )


def _chain(graph: Graph) -> list[str]:
    for name in graph.nodes:
        if len(graph.sources(name)) > 1 or len(graph.destinations(name)) > 1:
            raise InfeasibleError(
                "has several inputs or outputs, and only chains are compiled",
                where=name,
                hint="inspect shows the graph",
            )
    name = graph.inputs[0]
    names = [name]
    while following := graph.destinations(name):
        (name,) = following
        if name in names:
            raise InfeasibleError("is part of a recurrent connection, and only chains are compiled", where=name)
        names.append(name)
    return names


def _layer(affine_name: str, affine: Node, neuron_name: str, node: Node) -> Layer:
    assert isinstance(affine, n.Affine)
    if not isinstance(node, (n.DiscreteLI, n.DiscreteLIF, n.DiscreteCubaLI, n.DiscreteCubaLIF)):
        raise InfeasibleError(f"{node.kind} stands where neurons must", where=neuron_name)
    if isinstance(node, (n.DiscreteLIF, n.DiscreteCubaLIF)):
        if node.reset != "value" or (node.reset_value != 0).any():
            raise InfeasibleError(
                f"resets by {node.reset!r}, and the chip resets to zero",
                where=neuron_name,
                hint="train with reset to zero",
            )
        if (node.threshold <= 0).any():
            raise InfeasibleError("a threshold is not positive", where=neuron_name)
    bias = np.zeros(affine.out_shape) if affine.bias is None else affine.bias
    current = isinstance(node, (n.DiscreteCubaLI, n.DiscreteCubaLIF))
    gain = node.gain * node.current_gain if isinstance(node, (n.DiscreteCubaLI, n.DiscreteCubaLIF)) else node.gain
    return Layer(
        affine=affine_name,
        neuron=neuron_name,
        affine_origin=affine.origin or (affine_name,),
        neuron_origin=node.origin or (neuron_name,),
        weight=gain[:, None] * affine.weight,
        current_bias=gain * bias if current else np.zeros_like(bias),
        bias=node.leak + (0 if current else gain * bias),
        decay=node.decay,
        threshold=node.threshold if isinstance(node, (n.DiscreteLIF, n.DiscreteCubaLIF)) else None,
        current_decay=node.current_decay if isinstance(node, (n.DiscreteCubaLI, n.DiscreteCubaLIF)) else None,
        delay=affine.delay,
    )
