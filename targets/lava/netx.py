"""Writes an INTEGER graph as the HDF5 file that lava-dl's netx loads (`lava.lib.dl.netx.hdf5.Network`).

The format says less than the graph: weights without an exponent, biases in steps of 64, one reset window for all
layers, staggered by one step. A convolution is written as the dense layer that it unrolls to. What does not fit is
refused, never rounded; netx itself rescales the weights it reads, and what it would make of them is computed here and
compared. Checked against lava-dl 0.6.0.

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

from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array, Mantissas, Neuron
from nervecord.compiler.ops.sparse import MOST_DENSE
from nervecord.compiler.plan.plan import Plan, Step, Unit, plan
from nervecord.errors import InfeasibleError
from nervecord.targets.lava.network import runnable
from nervecord.targets.lava.processes import LavaLIF

BIAS_EXP = 6
"""netx's own, for every layer."""
BIAS_LIMIT = 4095
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


def export_netx(subject: Plan | Policy, path: str | os.PathLike[str]) -> Exported:
    """Write the core of a plan for netx, whole or not at all.

    Args:
        subject: INTEGER, in Lava's arithmetic. Host ops are left out: they stay with whoever drives the network.

    Raises:
        GraphError: the graph breaks the rules of its level.
        InfeasibleError: the format, or netx, cannot say the same; names what.
    """
    block_plan = subject if isinstance(subject, Plan) else plan(subject)
    layers = layers_of(block_plan)
    graded = block_plan.graded[layers[0].connection.name]
    arguments = {"input_message_bits": MESSAGE_BITS if graded else 0, **_reset_arguments(block_plan, layers)}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=True) as file:
        file.attrs["nervecord"] = json.dumps(arguments, sort_keys=True)
        groups = file.create_group("layer", track_order=True)
        _put(groups.create_group("0"), type=b"input", shape=np.array(layers[0].dense.in_shape))
        for k, layer in enumerate(layers, start=1):
            group = groups.create_group(str(k))
            _put(group, type=b"dense", shape=np.array(layer.dense.out_shape), weight=_weight(layer))
            if layer.neurons.bias_mant.any():
                _put(group, bias=_bias(layer))
            _put(group.create_group("neuron"), **_neuron(layer.neurons))
    write_atomically(path, buffer.getvalue())
    return Exported(arguments=arguments, layers=len(layers))


@dataclass(frozen=True, slots=True)
class Layer:
    """A connection and the population it feeds, which netx has as one."""

    connection: Step
    dense: Mantissas
    population: Step
    neurons: LavaLIF


def layers_of(plan: Plan) -> tuple[Layer, ...]:
    """The layers of a plan that is a chain of them.

    Raises:
        InfeasibleError: it is none; names the place.
    """
    runnable(plan)
    if len(plan.entries) != 1:
        names = ", ".join(entry.name for entry in plan.entries)
        raise InfeasibleError(f"netx has one input layer, and {len(plan.entries)} are there: {names}", where="graph")
    units = {unit.step.name: unit for unit in plan.units}
    source = plan.entries[0].name
    layers: list[Layer] = []
    while len(layers) < len(units):
        fed = [step.name for step in plan.connections if any(tap.source == source for tap in step.taps)]
        if len(fed) != 1:
            raise _no_chain(source, f"feeds {len(fed)} connections")
        layers.append(_layer(plan, plan.step(fed[0]), units))
        source = layers[-1].population.name
    readers = [step.name for step in plan.connections if any(tap.source == source for tap in step.taps)]
    if readers:
        raise _no_chain(readers[0], "leads back into the network")
    for read in plan.reads:
        if read.source != source:
            raise _no_chain(read.source, "is read before the end of the chain")
    return tuple(layers)


def _layer(plan: Plan, connection: Step, units: dict[str, Unit]) -> Layer:
    dense = connection.op
    assert isinstance(dense, Mantissas)  # the only connections there are in integers
    if len(connection.taps) != 1:
        raise _no_chain(connection.name, f"is fed by {len(connection.taps)} sources")
    if dense.in_shape[0] * dense.size > MOST_DENSE:
        raise InfeasibleError(
            f"has {dense.in_shape[0] * dense.size} weights with its zeros, at most {MOST_DENSE} are written",
            where=connection.name,
            hint="use engine 'lava', which needs no netx",
        )
    if dense.delay != 1:
        raise InfeasibleError(f"has a delay of {dense.delay} steps, and netx's layers have one", where=connection.name)
    following = plan.graph.destinations(connection.name)
    if len(following) != 1:
        raise _no_chain(connection.name, f"feeds {len(following)} populations")
    unit = units[following[0]]
    if len(unit.incoming) != 1:
        raise _no_chain(following[0], f"is fed by {len(unit.incoming)} connections")
    neuron = unit.step.op
    if not isinstance(neuron, Neuron):
        raise InfeasibleError(f"is a {neuron.kind}, and netx's layers are neurons that leak", where=following[0])
    return Layer(connection, dense, unit.step, LavaLIF.of(neuron))


def _no_chain(where: str, what: str) -> InfeasibleError:
    return InfeasibleError(
        f"{what}, and netx's format says chains of layers only", where=where, hint="engine 'lava' runs it without netx"
    )


def _put(group: h5py.Group, **values: Any) -> None:
    for name, value in values.items():
        group.create_dataset(name, data=value)


def _neuron(neurons: LavaLIF) -> dict[str, Any]:
    # netx takes one off iDecay, for the one that the neuron model adds.
    return {
        "type": b"CUBA",
        "iDecay": neurons.du + 1,
        "vDecay": neurons.dv,
        "vThMant": neurons.threshold,
        "refDelay": 1,
        "gradedSpike": False,
    }


def _bias(layer: Layer) -> Array:
    bias = layer.neurons.bias_mant.astype(np.int64) << layer.neurons.bias_exp
    mantissa = bias >> BIAS_EXP
    if (mantissa << BIAS_EXP != bias).any() or np.abs(mantissa).max() > BIAS_LIMIT:
        raise InfeasibleError(
            f"its bias is not expressible in netx's steps of {1 << BIAS_EXP}",
            where=layer.population.name,
            hint="use engine 'lava', which needs no netx",
        )
    return mantissa


def _weight(layer: Layer) -> Array:
    """The weights with their exponent applied, if netx hands just these to Lava."""
    dense = layer.dense
    weight = dense.weight.astype(np.int64)
    effective = weight << dense.weight_exp if dense.weight_exp > 0 else weight >> -dense.weight_exp
    if dense.weight_exp < 0 and (effective << -dense.weight_exp != weight).any():
        raise InfeasibleError(
            f"weight exponent {dense.weight_exp} cuts bits off the sum, which netx's format cannot say",
            where=layer.connection.name,
            hint="use engine 'lava', which needs no netx",
        )
    loaded = as_netx_loads(effective)
    if loaded is None or not np.array_equal(loaded.weight, effective << -loaded.weight_exp):
        raise InfeasibleError(
            f"netx would not keep these weights ({effective.min()}..{effective.max()}, its range is -256..254)",
            where=layer.connection.name,
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
    shift = 8 - bits + (1 if mixed else 0)
    stored = np.clip(sign * (weight << scale_bits), -256 if mixed else 0, 255)
    return Loaded(sign * ((stored >> shift) << shift), bits, -scale_bits)


def _reset_arguments(plan: Plan, layers: tuple[Layer, ...]) -> dict[str, int]:
    """netx clears layer l at offset + l, counting steps from 1 as Lava does."""
    if not plan.schedule.resets:
        return {}
    first = layers[0].population.phase
    for k, layer in enumerate(layers):
        if layer.population.phase != first + k:
            raise InfeasibleError(
                "netx clears all layers at one interval, each a step after the one before", where=layer.population.name
            )
    return {"reset_interval": plan.window, "reset_offset": first}
