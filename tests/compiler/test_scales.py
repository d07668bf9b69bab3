"""Thresholds and biases as mantissas: what an arithmetic of any widths makes of them still does what it is for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from graphs import LAVA
from nets import affine, current_lif, lif, net

from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import Affine
from nervecord.compiler.plan.interpret import Machine, simulate
from nervecord.compiler.plan.plan import plan
from nervecord.errors import InfeasibleError


@pytest.mark.parametrize("bits", range(7, 14))
def test_the_neuron_that_carries_a_bias_spikes_in_every_step_whatever_its_threshold(bits: int) -> None:
    """Its own bias is a mantissa too, and must not be rounded to a value below the threshold."""
    graph = net(affine(), lif(threshold=np.full(2, 1.37)), affine(bias=True), current_lif(), spiking=True)
    fine = dataclasses.replace(
        LAVA, threshold_bits=23, threshold_shift=0, bias_bits=bits, bias_exponent_high=16, readout="membrane"
    )
    integers, _ = lower(graph, fine, None, schedule=Schedule(6, "reset"))
    machine = Machine(plan(integers, Schedule(6, "reset")))  # type: ignore[arg-type]
    steps = machine.block({"input": np.zeros((6, 1, 2))})[1]
    first = next(unit.step.name for unit in machine.plan.units)
    spiked = np.stack([values[first][0] for values in steps])
    assert spiked.shape[1] == 3
    assert spiked[machine.plan.useful(first), -1].tolist() == [1] * 6


def test_what_may_spike_several_times_in_a_step_carries_no_bias() -> None:
    graph = net(affine(), lif(reset="subtract"), affine(bias=True), current_lif(), spiking=True)
    several = dataclasses.replace(LAVA, reset="subtract", spikes_per_step=3)
    with pytest.raises(InfeasibleError, match="bias"):
        lower(graph, several, None)


@pytest.mark.parametrize("compare_by", [">", ">="])
def test_no_threshold_is_beyond_what_a_membrane_comes_to(compare_by: str) -> None:
    """Integrators whose state is carried may saturate at any scale, so that nothing else bounds their threshold."""
    wide = dataclasses.replace(LAVA, threshold_bits=30, threshold_shift=4, reset="subtract", compare=compare_by)
    summing = lif(1, decay=np.ones(1), reset="subtract")
    graph = net(Affine(np.full((1, 1), 0.00105)), summing, inputs=1, outputs=1, spiking=True)
    integer_graph, _ = lower(graph, wide, None)
    floats, integers = (simulate(g, np.ones((2100, 1))).left["output"].sum() for g in (graph, integer_graph))
    assert (floats, integers) == (2, 2)
