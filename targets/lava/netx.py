"""Writes an INTEGER graph as the HDF5 file that lava-dl's netx loads (`lava.lib.dl.netx.hdf5.Network`).

The format says less than the graph: weights without an exponent, biases in steps of 64, one reset window for all
layers, staggered by one step. What does not fit is refused, never rounded; netx itself rescales the weights it reads,
and what it would make of them is computed here and compared. Checked against lava-dl 0.6.0.

How to load the file is told by `Exported.arguments`, and stands in the file's root attribute `nervecord`:

    netx.hdf5.Network(net_config="ant.net", input_message_bits=16, reset_interval=12, reset_offset=1)

netx has no readout: the last layer is a LIF with the largest threshold, whose v is the output.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.files import write_atomically
from nervecord.compiler.graph import Graph
from nervecord.compiler.node import Array
from nervecord.compiler.semantics import READOUT_THRESHOLD
from nervecord.errors import InfeasibleError
from nervecord.targets.lava.engine_lava import Connection, connections

BIAS_EXP = 6
"""netx's own, for every layer."""
MESSAGE_BITS = 16


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written.

    Args:
        arguments: to be given to netx's Network beside the file's name.
        layers: number of dense layers.
    """

    arguments: dict[str, int]
    layers: int


def export_netx(graph: Graph, path: str | os.PathLike[str]) -> Exported:
    """Write `graph` for netx, whole or not at all.

    Args:
        graph: INTEGER, a chain. Host nodes are left out: they stay with whoever drives the network.

    Raises:
        GraphError: the graph breaks the rules of its level.
        InfeasibleError: the format, or netx, cannot say the same; names what.
    """
    chain = connections(graph)
    arguments = {"input_message_bits": MESSAGE_BITS if chain[0].dense.graded else 0, **_reset_arguments(chain)}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=True) as file:
        file.attrs["nervecord"] = json.dumps(arguments, sort_keys=True)
        layers = file.create_group("layer", track_order=True)
        first = layers.create_group("0")
        _put(first, type=b"input", shape=np.array(chain[0].dense.in_shape))
        for k, connection in enumerate(chain, start=1):
            group = layers.create_group(str(k))
            _put(group, type=b"dense", shape=np.array(connection.dense.out_shape), weight=_weight(connection))
            if connection.neuron.bias_mant.any():
                _put(group, bias=_bias(connection))
            _put(group.create_group("neuron"), **_neuron(connection.neuron))
    write_atomically(path, buffer.getvalue())
    return Exported(arguments=arguments, layers=len(chain))


def _put(group: h5py.Group, **values: Any) -> None:
    for name, value in values.items():
        group.create_dataset(name, data=value)


def _neuron(neuron: n.FixedLIF | n.FixedReadout) -> dict[str, Any]:
    threshold = READOUT_THRESHOLD if isinstance(neuron, n.FixedReadout) else neuron.threshold
    # netx takes one off iDecay, for the one that the neuron model adds.
    return {
        "type": b"CUBA",
        "iDecay": neuron.du + 1,
        "vDecay": neuron.dv,
        "vThMant": threshold,
        "refDelay": 1,
        "gradedSpike": False,
    }


def _bias(connection: Connection) -> Array:
    bias = connection.neuron.bias_mant.astype(np.int64) << connection.neuron.bias_exp
    mantissa = bias >> BIAS_EXP
    if (mantissa << BIAS_EXP != bias).any() or np.abs(mantissa).max() > 4095:
        raise InfeasibleError(
            f"its bias is not expressible in netx's steps of {1 << BIAS_EXP}",
            where=connection.neuron_name,
            hint="use engine 'lava', which needs no netx",
        )
    return mantissa


def _weight(connection: Connection) -> Array:
    """The weights with their exponent applied, if netx hands just these to Lava."""
    dense = connection.dense
    weight = dense.weight.astype(np.int64)
    effective = weight << dense.weight_exp if dense.weight_exp > 0 else weight >> -dense.weight_exp
    if dense.weight_exp < 0 and (effective << -dense.weight_exp != weight).any():
        raise InfeasibleError(
            f"weight exponent {dense.weight_exp} cuts bits off the sum, which netx's format cannot say",
            where=connection.dense_name,
            hint="use engine 'lava', which needs no netx",
        )
    loaded = as_netx_loads(effective)
    if loaded is None or not np.array_equal(loaded.weight, effective << -loaded.weight_exp):
        raise InfeasibleError(
            f"netx would not keep these weights ({effective.min()}..{effective.max()}, its range is -256..254)",
            where=connection.dense_name,
            hint="use engine 'lava', which needs no netx",
        )
    return effective


@dataclass(frozen=True, slots=True)
class Loaded:
    """What netx makes of a weight matrix: what Dense then holds, its bits and its exponent."""

    weight: Array
    weight_bits: int
    weight_exp: int


def as_netx_loads(weight: Array) -> Loaded | None:
    """What netx and Lava's Dense make of these weights; None where netx fails on them.

    `lava.lib.dl.netx.utils.optimize_weight_bits`, then the clipping and truncation of Dense.
    """
    high, low = int(weight.max()), int(weight.min())
    if high == low == 0 or high > 255 or low < -256 or (high > 254 and low < 0):
        return None
    if high < 0:
        signed, scale = 0, -256 / low
    elif low >= 0:
        signed, scale = 0, 255 / high
    else:
        signed = 1
        scale = min(127 / high if high else np.inf, -128 / low)
    scale_bits = int(np.floor(np.log2(scale))) + signed
    multiple = 8
    while multiple > 0 and (weight % (1 << multiple)).any():
        multiple -= 1
    bits = 8 - scale_bits - (multiple - signed)
    if scale_bits < 0 or not 1 <= bits <= 8:
        return None
    # Dense looks at the signs again: unlike netx it takes what is nowhere positive for inhibitory.
    sign = 1 if high > 0 else -1
    mixed = low < 0 < high
    cut = 8 - bits + (1 if mixed else 0)
    stored = np.clip(sign * (weight << scale_bits), -256 if mixed else 0, 255)
    return Loaded(sign * ((stored >> cut) << cut), bits, -scale_bits)


def _reset_arguments(chain: tuple[Connection, ...]) -> dict[str, int]:
    """netx clears layer l at offset + l, counting steps from 1 as Lava does."""
    intervals = {connection.neuron.reset_interval for connection in chain}
    if intervals == {0}:
        return {}
    (interval, *others) = intervals
    first = chain[0].neuron.reset_offset
    for k, connection in enumerate(chain):
        if others or connection.neuron.reset_offset != (first + k) % interval:
            raise InfeasibleError(
                "netx clears all layers at one interval, each a step after the one before",
                where=connection.neuron_name,
            )
    return {"reset_interval": interval, "reset_offset": first}
