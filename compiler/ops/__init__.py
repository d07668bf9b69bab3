"""Every kind of op, each one definition: fields, shapes, levels, state, step, cost, and its form in NIR.

`OPS` is the table that readers, writers, verification and documents loop over: a new op is one class in a file here and
its name in that table.
"""

from __future__ import annotations

from nervecord.compiler.ops.activations import Activation
from nervecord.compiler.ops.connections import Affine, Conv, Delay, Flatten, Matrix, Pool, Scale, Threshold
from nervecord.compiler.ops.csr import Csr
from nervecord.compiler.ops.delayline import DelayLine
from nervecord.compiler.ops.ends import Input, Output
from nervecord.compiler.ops.fields import Array, Shape
from nervecord.compiler.ops.host import (
    ArgmaxDecode,
    BiasChannel,
    CountArgmaxDecode,
    CountDecode,
    Decode,
    Decoder,
    Normalise,
    PopulationEncode,
    Quantise,
    Rescale,
)
from nervecord.compiler.ops.hostop import HostOp, HostStep
from nervecord.compiler.ops.integer import Dense, Mantissas
from nervecord.compiler.ops.level import EVERY_LEVEL, EXECUTABLE, FLOAT_LEVELS, Level
from nervecord.compiler.ops.neurons import (
    PARTS,
    ContinuousMembrane,
    ContinuousSynapse,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Membrane,
    Neuron,
    Spike,
    Synapse,
)
from nervecord.compiler.ops.op import NirForm, Op, Part, Role, State, Synapses
from nervecord.compiler.ops.sigma_delta import Delta, Sigma, SigmaDelta
from nervecord.compiler.ops.sparse import Convolution, Rows, Sparse, SparseAffine

OPS: dict[str, type[Op]] = {
    kind.__name__: kind
    for kind in (
        Input,
        Output,
        Affine,
        SparseAffine,
        Conv,
        Scale,
        Flatten,
        Pool,
        Delay,
        DelayLine,
        Threshold,
        Activation,
        Neuron,
        Dense,
        Sparse,
        Delta,
        SigmaDelta,
        Sigma,
        Normalise,
        Quantise,
        BiasChannel,
        PopulationEncode,
        Decode,
        Rescale,
        CountDecode,
        ArgmaxDecode,
        CountArgmaxDecode,
    )
}
"""Name -> op."""
PART_TYPES: dict[str, type[Part]] = {kind.__name__: kind for kind in (*PARTS, Convolution)}
"""Name -> part of a composed op."""
NIR_READERS: dict[str, type[Op]] = {nir: kind for kind in OPS.values() for nir in kind.NIR}
"""NIR type -> the op that reads it."""

HOST_ROLES: tuple[Role, ...] = ("before", "after")
CORE_ROLES: tuple[Role, ...] = ("connection", "passing", "population")


def is_core(op: Op) -> bool:
    """Whether it runs on the target."""
    return type(op).ROLE in CORE_ROLES


def is_host(op: Op) -> bool:
    """Whether it runs on the host."""
    return type(op).ROLE in HOST_ROLES


__all__ = [
    "CORE_ROLES",
    "EVERY_LEVEL",
    "EXECUTABLE",
    "FLOAT_LEVELS",
    "HOST_ROLES",
    "NIR_READERS",
    "OPS",
    "PART_TYPES",
    "Activation",
    "Affine",
    "ArgmaxDecode",
    "Array",
    "BiasChannel",
    "ContinuousMembrane",
    "ContinuousSynapse",
    "Conv",
    "Convolution",
    "CountArgmaxDecode",
    "CountDecode",
    "Csr",
    "Decode",
    "Decoder",
    "Delay",
    "DelayLine",
    "Delta",
    "Dense",
    "Flatten",
    "HostOp",
    "HostStep",
    "Input",
    "IntegerMembrane",
    "IntegerSpike",
    "IntegerSynapse",
    "Level",
    "Mantissas",
    "Matrix",
    "Membrane",
    "Neuron",
    "NirForm",
    "Normalise",
    "Op",
    "Output",
    "Part",
    "Pool",
    "PopulationEncode",
    "Quantise",
    "Rescale",
    "Role",
    "Rows",
    "Scale",
    "Shape",
    "Sigma",
    "SigmaDelta",
    "Sparse",
    "SparseAffine",
    "Spike",
    "State",
    "Synapse",
    "Synapses",
    "Threshold",
    "is_core",
    "is_host",
]
