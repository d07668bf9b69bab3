"""Populations as processes of lava-nc: which, and with what parameters.

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
    Delta,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Neuron,
    Op,
    Sigma,
    SigmaDelta,
)
from nervecord.compiler.plan import Step
from nervecord.errors import InfeasibleError
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
            f"is a {op.kind}, and Lava has no process for it here", where=population.name,
            hint="the emulator runs it: --engine emulator",
        )  # fmt: skip
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
    Neuron: _lif, Delta: _sigma_delta, SigmaDelta: _sigma_delta, Sigma: _sigma_delta
}  # fmt: skip
"""Kind of population -> its process."""
