"""Rules for chips that convolve: the shapes they can, and the memories of their layers.

A layer of such a chip is a convolution, its neurons, and the pooling of what they send. A matrix is a convolution whose
kernel is as large as the map that is flattened before it, or 1 x 1 where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from nervecord.compiler.check.rules import Case, Hit, above, breaking, cited
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.ops import Affine, Conv, Flatten, Pool, Shape, SparseAffine
from nervecord.compiler.plan.topology import Wire, passes_on
from nervecord.compiler.target.protocol import Convolution, Fact


def convolution(case: Case) -> Iterator[Hit]:
    limits = case.spec.convolution
    if limits is None:
        return
    for wire in case.topology.wires:
        where = case.named(wire.name)
        kernel = _kernel(case.graph, wire)
        yield from _square(where, "kernel", kernel[1:], limits.square)
        yield from above(
            limits.kernel_max, max(kernel[1:]), where, "its kernel is larger than the chip's", "stack smaller kernels"
        )
        yield from above(
            limits.features_max, wire.op.out_shape[0], where, "has more features than the chip", "train fewer features"
        )
        if isinstance(wire.op, Conv):
            yield from _settings(where, wire.op, limits)
    yield from _pools(case, limits)


def _settings(where: str, op: Conv, limits: Convolution) -> Iterator[Hit]:
    for stride in dict.fromkeys(op.stride):
        yield from _among(where, "its stride is none of the chip's", stride, limits.strides)
    fact = limits.plain
    for what, value in (("dilation", max(op.dilation)), ("groups", op.groups)):
        if value > 1 and not fact.value:
            yield Hit(
                where,
                f"its {what} is not 1, and the chip's convolutions have none",
                value,
                1,
                f"train with {what} = 1",
                cited(fact),
                "unknown" if fact.value is None else breaking(fact),
            )


def _pools(case: Case, limits: Convolution) -> Iterator[Hit]:
    """Poolings in a row are one, as large as their product."""
    graph = case.graph
    size: dict[str, Shape] = {}
    for name, pool in graph.of_type(Pool):
        where = case.named(name)
        before = next((size[a] for a in graph.sources(name) if a in size), (1,) * len(pool.kernel))
        size[name] = tuple(a * b for a, b in zip(before, pool.kernel, strict=False))
        yield from _square(where, "window", size[name], limits.square)
        yield from _among(where, "its kernel is none of the chip's", max(size[name]), limits.pools)
        fact = limits.square
        if fact.value is not False and (pool.stride != pool.kernel or any(pool.padding)):
            yield Hit(
                where,
                "its windows overlap, leave gaps or are padded, and the chip's lie side by side",
                "x".join(map(str, pool.stride)),
                "x".join(map(str, pool.kernel)),
                "pool with a stride of the window's size and no padding",
                cited(fact),
                "unknown" if fact.value is None else breaking(fact),
            )


def _square(where: str, what: str, sizes: Shape, fact: Fact[bool]) -> Iterator[Hit]:
    if fact.value is not False and len(set(sizes)) > 1:
        yield Hit(
            where,
            f"its {what} is not square ({'x'.join(map(str, sizes))})",
            max(sizes),
            min(sizes),
            f"train with a square {what}; a matrix behind a map has that map for its kernel",
            cited(fact),
            "unknown" if fact.value is None else breaking(fact),
        )


def _among(node: str, message: str, value: int, fact: Fact[tuple[int, ...]]) -> Iterator[Hit]:
    allowed = fact.value
    if allowed is not None and value not in allowed:
        text = ", ".join(str(item) for item in allowed)
        yield Hit(node, message, value, text, f"use one of {text}", cited(fact), breaking(fact))


def convolution_memory(case: Case) -> Iterator[Hit]:
    limits = case.spec.convolution
    if limits is None or limits.kernel_memory.value is None or limits.neuron_memory.value is None:
        return
    slots = list(zip(limits.kernel_memory.value, limits.neuron_memory.value, strict=True))
    layers = [(wire, *layer_memory(case, wire)) for wire in case.topology.wires]
    fitting = [[k for k, (a, b) in enumerate(slots) if kernel <= a and cells <= b] for _, kernel, cells in layers]
    placed = _match(fitting)
    for (wire, kernel, cells), slot in zip(layers, placed, strict=True):
        if slot is None:
            yield Hit(
                case.named(wire.name),
                f"takes memory for {kernel} weights and {cells} neurons, sizes rounded up to powers of two, and no "
                "layer of the chip that has it is left",
                kernel,
                max(slots)[0],
                "train fewer features, smaller kernels, or pool earlier",
                cited(limits.kernel_memory),
                breaking(limits.kernel_memory),
            )


def layer_memory(case: Case, wire: Wire) -> tuple[int, int]:
    """(weights, neurons) that a connection and the neurons behind it take of a layer's memories.

    Both are addressed by fields of bits, so that each size counts as the next power of two: with c channels, a kernel
    of h x w, f features and a map of H x W,

        weights = c * 2^(ceil log2(h w) + ceil log2 f),    neurons = f * 2^(ceil log2 H + ceil log2 W).
    """
    channels, *kernel = _kernel(case.graph, wire)
    features, *field = (*wire.op.out_shape, 1, 1)[:3] if len(wire.op.out_shape) < 3 else wire.op.out_shape
    weights = channels << (_bits(math.prod(kernel)) + _bits(features))
    return weights, features << sum(_bits(size) for size in field)


def _bits(count: int) -> int:
    """ceil(log2(count)): bits that number so many things."""
    return max(count - 1, 0).bit_length()


def _kernel(graph: Graph, wire: Wire) -> Shape:
    """(channels, height, width) of a connection's kernel."""
    if isinstance(wire.op, Conv):
        return (*wire.op.weight.shape[1:], 1)[:3]
    size = int(wire.op.in_shape[0])
    if isinstance(wire.op, (Affine, SparseAffine)):
        waiting, seen = list(graph.sources(wire.name)), set()
        while waiting:
            name = waiting.pop()
            op = graph.nodes[name]
            if name in seen or not passes_on(op):
                continue
            seen.add(name)
            if isinstance(op, Flatten) and len(op.input_shape) == 3 and op.out_shape == (size,):
                return op.input_shape
            waiting += graph.sources(name)
    return (size, 1, 1)


def _match(choices: list[list[int]]) -> list[int | None]:
    """A largest assignment of items to slots, each slot once (augmenting paths)."""
    owner: dict[int, int] = {}

    def assign(item: int, tried: set[int]) -> bool:
        for slot in choices[item]:
            if slot in tried:
                continue
            tried.add(slot)
            if slot not in owner or assign(owner[slot], tried):
                owner[slot] = item
                return True
        return False

    for item in range(len(choices)):
        assign(item, set())
    slot_of = {item: slot for slot, item in owner.items()}
    return [slot_of.get(item) for item in range(len(choices))]
