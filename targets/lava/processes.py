"""Connections and populations as processes of lava-nc: which, and with what parameters.

A matrix in compressed rows is a Sparse, or a DelaySparse where it takes more than the one step that each connection
costs. One that unrolls a convolution is a Conv where that says the same: Conv ignores weight_exp and num_weight_bits
and lets sums wrap at 24 bits, so that it serves with the exponent 0 alone; the mantissas are the chip's and the sums
are proved below 2^17 in any case. Its settings are held in 8 bits.

A new kind of population is a function here, its name in `PROCESSES`, and a function in `lava_worker/handler.py`, which
makes the process inside Lava's interpreter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from nervecord.compiler.ops import (
    Array,
    Convolution,
    Delta,
    Dense,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Neuron,
    Op,
    Sigma,
    SigmaDelta,
    Sparse,
)
from nervecord.compiler.plan.plan import Step
from nervecord.errors import GraphError, InfeasibleError
from nervecord.targets.lava.arithmetic import lava_arithmetic


@dataclasses.dataclass(frozen=True, slots=True)
class LavaLIF:
    """A population in the parameters of Lava's LIF.

    Args:
        du: of the current: what is kept is (4095 - du) / 4096. dv: of the membrane: (4096 - dv) / 4096.
        threshold: mantissa; the largest there is where the membrane is read.
    """

    du: int
    dv: int
    bias_mant: Array
    bias_exp: int
    threshold: int

    @classmethod
    def of(cls, neuron: Neuron) -> LavaLIF:
        """From a population of an INTEGER graph."""
        membrane, synapse, spike = neuron.membrane, neuron.synapse, neuron.spike
        assert isinstance(membrane, IntegerMembrane)
        # The model adds one to du, so that 4095 forgets the current at once: there is no synapse.
        du = (synapse.decay if isinstance(synapse, IntegerSynapse) else lava_arithmetic().decay_codes) - 1
        threshold = spike.threshold if isinstance(spike, IntegerSpike) else lava_arithmetic().threshold_largest
        return cls(du, membrane.decay, membrane.bias, membrane.bias_exp, threshold)


CONV_LARGEST = 127
"""Of a kernel's size, stride, padding, dilation and groups in Lava's Conv, which holds them in signed bytes."""


@dataclasses.dataclass(frozen=True, slots=True)
class LavaConnection:
    """A connection for the handler inside Lava's interpreter.

    Args:
        process: "dense", "sparse" or "conv". values: its parameters, as JSON types. arrays: name -> array.
    """

    process: str
    values: dict[str, Any]
    arrays: dict[str, Array]


def connection_of(connection: Step) -> LavaConnection:
    """The process of a connection of an INTEGER plan.

    Raises:
        GraphError: it is no connection that Lava has.
    """
    op = connection.op
    if isinstance(op, Dense):
        return LavaConnection("dense", {}, {"weight": op.weight})
    if not isinstance(op, Sparse):
        raise GraphError(f"is a {op.kind}, and Lava takes a Dense", where=connection.name)
    kernel = _kernel(op)
    if kernel is None:
        arrays = {"values": op.values, "columns": op.columns, "starts": op.starts}
        return LavaConnection("sparse", {"inputs": op.inputs}, arrays)
    form = op.convolution
    assert form is not None
    # One axis becomes two, of which the other has length 1.
    long = len(form.kernel) == 1
    values = {
        "input_shape": [form.input_shape[0], *([1] if long else []), *form.input_shape[1:]],
        **{
            name: [*([other] if long else []), *getattr(form, name)]
            for name, other in (("stride", 1), ("padding", 0), ("dilation", 1))
        },
        "groups": form.groups,
    }
    return LavaConnection("conv", values, {"kernel": kernel[:, :, None] if long else kernel})


def _kernel(op: Sparse) -> Array | None:
    """The kernel (features, channels, *size) where Lava's Conv says what a Sparse does; see the module."""
    form: Convolution | None = op.convolution
    if form is None or op.weight_exp != 0 or op.delay != 1:
        return None
    if max(*form.kernel, *form.stride, *form.padding, *form.dilation, form.groups) > CONV_LARGEST:
        return None
    return form.kernel_of(op.csr)


@dataclasses.dataclass(frozen=True, slots=True)
class LavaProcess:
    """A population for the handler inside Lava's interpreter.

    Args:
        process: a name of the handler's. values: its parameters, as JSON types. bias: (n,).
        resets: whether Lava can clear its state.
    """

    process: str
    values: dict[str, Any]
    bias: Array
    resets: bool


def process_of(population: Step) -> LavaProcess:
    """The process of a population of an INTEGER plan.

    Raises:
        InfeasibleError: Lava has none for its kind.
    """
    op = population.op
    if type(op) not in PROCESSES:
        raise InfeasibleError(
            f"is a {op.kind}, and Lava has no process for it here",
            where=population.name,
            hint="the emulator runs it: --engine emulator",
        )
    return PROCESSES[type(op)](op)


def _lif(op: Any) -> LavaProcess:
    lif = LavaLIF.of(op)
    values = {"du": lif.du, "dv": lif.dv, "bias_exp": lif.bias_exp, "threshold": lif.threshold}
    return LavaProcess("lif", values, lif.bias_mant, resets=True)


def _sigma_delta(op: Any) -> LavaProcess:
    fields = ("threshold", "spike_exp", "state_exp", "activation")
    values = {name: getattr(op, name) for name in fields if hasattr(op, name)}
    bias = op.bias if isinstance(op, SigmaDelta) else np.zeros(op.size, dtype=np.int32)
    return LavaProcess(type(op).__name__, values, bias, resets=False)


PROCESSES: dict[type[Op], Callable[[Any], LavaProcess]] = {
    Neuron: _lif,
    Delta: _sigma_delta,
    SigmaDelta: _sigma_delta,
    Sigma: _sigma_delta,
}
"""Kind of population -> its process."""
