"""Reads the HDF5 file that lava-dl's slayer exports and its netx loads, as a graph of Lava's integers.

What comes back is what netx makes of the file (`lava.lib.dl.netx.hdf5.Network`, lava-dl 0.6.0): weights as it hands
them to Lava, du = iDecay - 1, dv = vDecay, biases in steps of 64, one step per layer. What netx would change without a
word is refused by the layer's number: weights that it rounds away, delays of slayer, which it drops. The file is parsed
by `compiler.nir.hdf5guard`, in a process of its own and under limits.

The format does not say what enters (spikes, unless the caller says otherwise), when state is cleared, or how long a
step is. netx has no readout: a last layer with the largest threshold there is stands for one, as `netx.py` writes it.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from nervecord.compiler.files.readerguard import Limits
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.verify import require
from nervecord.compiler.nir.hdf5guard import LIMITS, read_hdf5
from nervecord.compiler.ops import (
    Array,
    Dense,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Level,
    Neuron,
    Op,
    Output,
)
from nervecord.errors import FileFormatError, InfeasibleError, NervecordError
from nervecord.targets.lava.arithmetic import lava_arithmetic
from nervecord.targets.lava.netx import BIAS_EXP, BIAS_LIMIT, as_netx_loads

STEP = 1e-3
"""Seconds per step where nobody says: slayer trains in steps of a millisecond."""
MOST_LAYERS = 10_000
NEURONS = ("CUBA", "LOIHI")
"""netx takes the two for the same."""


def read_netx(path: str | os.PathLike[str], *, dt: float | None = None, limits: Limits = LIMITS) -> Graph:
    """The graph of a netx file: an Input of spikes, dense layers of CUBA neurons, an Output.

    Args:
        path: the file. dt: seconds per step; by default a millisecond. limits: of time, memory and size.

    Raises:
        FileFormatError: the file is missing, damaged or no netx file; it names the layer.
        InfeasibleError: a layer is of a kind that Lava's dense layers cannot say, or netx would change it.
    """
    where = os.fspath(path)
    if dt is not None and not (math.isfinite(dt) and dt > 0):
        raise NervecordError(f"dt is {dt} s, it must be positive", where=where, hint="--dt 1e-3 is a millisecond")
    layers = _layers(read_hdf5(path, limits), where)
    nodes: list[tuple[str, Op]] = []
    width: int | None = None
    for number, layer in enumerate(layers):
        place = f"{where}: layer {number}"
        kind = _text(layer, "type", place)
        if kind == "input" and number == 0:
            if "neuron" in layer:
                raise InfeasibleError("its input layer has neurons of its own, which are not read", where=place)
            width = math.prod(_shape(layer, place))
            continue
        if kind != "dense":
            raise InfeasibleError(f"is a layer of type {kind!r}, and only dense layers are read", where=place)
        dense, neurons = _dense(layer, width, place, last=number == len(layers) - 1)
        if width is None:
            width = dense.in_shape[0]
        count = len(nodes) // 2 + 1
        nodes += [(f"dense{count}", dense), (f"neurons{count}", neurons)]
        width = neurons.size
    if not nodes:
        raise FileFormatError("has no dense layer", where=where)
    inputs = nodes[0][1].in_shape
    named: list[tuple[str, Op]] = [("input", Input(inputs, "spikes")), *nodes, ("output", Output((nodes[-1][1].size,)))]
    graph = chain(Level.INTEGER, named, dt=dt or STEP, arithmetic=lava_arithmetic())
    return require(graph, Level.INTEGER, where=where)


def _layers(tree: dict[str, Any], where: str) -> list[dict[str, Any]]:
    """The layers in their order: children "0", "1", ... of the group "layer"."""
    group = tree.get("layer")
    if not isinstance(group, dict) or not group:
        raise FileFormatError("is HDF5 and no netx file: it has no group 'layer' with layers in it", where=where)
    if len(group) > MOST_LAYERS:
        raise FileFormatError(f"has {len(group)} layers, at most {MOST_LAYERS} are read", where=where)
    names = [str(k) for k in range(len(group))]
    missing = [name for name in names if not isinstance(group.get(name), dict)]
    if missing:
        raise FileFormatError(
            f"its {len(group)} layers are not 0 to {len(group) - 1}: {missing[0]} is none", where=where
        )
    return [group[name] for name in names]


def _dense(layer: dict[str, Any], width: int | None, place: str, *, last: bool) -> tuple[Dense, Neuron]:
    size = math.prod(_shape(layer, place))
    raw = _whole(layer, "weight", place)
    weight = raw.reshape(size, -1) if size and raw.size and raw.size % size == 0 else raw
    if weight.ndim != 2 or weight.shape[0] != size or (width is not None and weight.shape[1] != width):
        expected = f"({size}, {width if width is not None else 'inputs'})"
        raise FileFormatError(f"its weight has shape {raw.shape}, {expected} is needed", where=place)
    loaded = as_netx_loads(weight)
    if loaded is None or not np.array_equal(loaded.weight, weight << -loaded.weight_exp):
        raise InfeasibleError(
            f"netx would not keep its weights ({weight.min()}..{weight.max()}): it rounds them, or fails on them",
            where=place,
            hint="8 bits hold -256..254 where even, -128..127 else; zeros alone hold nothing",
        )
    delay = _whole(layer, "delay", place) if "delay" in layer else np.zeros(1, np.int64)
    if delay.any():
        raise InfeasibleError(
            f"its neurons have delays up to {int(delay.max())} steps, which netx drops",
            where=place,
            hint="train it with delay=False",
        )
    bias = _whole(layer, "bias", place).ravel() if "bias" in layer else np.zeros(size, np.int64)
    if bias.shape != (size,) or np.abs(bias).max(initial=0) > BIAS_LIMIT:
        raise FileFormatError(
            f"its bias has shape {bias.shape} and values up to {np.abs(bias).max(initial=0)}, ({size},) up to "
            f"{BIAS_LIMIT} is needed",
            where=place,
        )
    neurons = _neurons(layer.get("neuron"), bias, f"{place}, neuron", last=last)
    return Dense(loaded.weight, loaded.weight_exp, loaded.weight_bits, 1), neurons


def _neurons(group: Any, bias: Array, place: str, *, last: bool) -> Neuron:
    if not isinstance(group, dict):
        raise FileFormatError("is missing", where=place)
    kind = _text(group, "type", place)
    if kind not in NEURONS:
        raise InfeasibleError(f"is of type {kind!r}, and only {' and '.join(NEURONS)} are read", where=place)
    for name, usual in (("refDelay", 1), ("gradedSpike", 0), ("messageBits", 0)):
        if name in group and (found := _number(group, name, place)) != usual:
            raise InfeasibleError(f"{name} is {found}, and only {usual} is read", where=place)
    arithmetic = lava_arithmetic()
    current = _between(group, "iDecay", 1, arithmetic.decay_codes, place)
    membrane = _between(group, "vDecay", 0, arithmetic.decay_codes - 1, place)
    threshold = _between(group, "vThMant", 0, arithmetic.threshold_largest, place)
    return Neuron(
        IntegerMembrane(membrane, bias, BIAS_EXP),
        None if current == arithmetic.decay_codes else IntegerSynapse(current),
        None if last and threshold == arithmetic.threshold_largest else IntegerSpike(threshold),
    )


# --------------------------------------------------------------------------------------------------------------------
# Values of a file


def _text(group: dict[str, Any], name: str, place: str) -> str:
    value = group.get(name)
    while isinstance(value, list) and len(value) == 1:
        value = value[0]  # slayer writes an array of one
    if not isinstance(value, str):
        raise FileFormatError(f"{name} is missing, or no text", where=place)
    return value


def _whole(group: dict[str, Any], name: str, place: str) -> Array:
    """Whole numbers, of whatever type they were written in."""
    value = group.get(name)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iufb" or value.size == 0:
        raise FileFormatError(f"{name} is missing, or no numbers", where=place)
    numbers = value.astype(np.float64)
    if not np.isfinite(numbers).all() or (numbers != np.rint(numbers)).any() or np.abs(numbers).max() >= 1 << 31:
        raise FileFormatError(f"{name} holds other than integers below 2^31", where=place)
    return numbers.astype(np.int64)


def _number(group: dict[str, Any], name: str, place: str) -> int:
    value = _whole(group, name, place)
    if value.size != 1:
        raise FileFormatError(f"{name} has shape {value.shape}, one number is needed", where=place)
    return int(value.ravel()[0])


def _between(group: dict[str, Any], name: str, low: int, high: int, place: str) -> int:
    value = _number(group, name, place)
    if not low <= value <= high:
        raise FileFormatError(f"{name} is {value}, {low} to {high} is needed", where=place)
    return value


def _shape(layer: dict[str, Any], place: str) -> tuple[int, ...]:
    shape = tuple(int(k) for k in _whole(layer, "shape", place).ravel())
    if len(shape) > 3 or min(shape) < 1:
        raise FileFormatError(f"its shape is {shape}, one to three positive numbers are needed", where=place)
    return shape
