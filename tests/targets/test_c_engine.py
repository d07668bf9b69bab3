"""The engine c against the definition: every graph, every arithmetic, every step, to the bit."""

from __future__ import annotations

import ctypes
import shutil

import numpy as np
import pytest
from emulated import assert_same_state, observations_of, policy_of, random_arithmetic
from graphs import LAVA, Case, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import random_dag, random_policy

from nervecord.compiler.c.source import c_source
from nervecord.compiler.calibrate import calibrate
from nervecord.compiler.interpret import Machine
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import Array
from nervecord.compiler.plan import plan
from nervecord.compiler.policy import Policy
from nervecord.errors import ContractError, InfeasibleError, MissingDependencyError, NervecordError
from nervecord.runtime.c_engine import Compiled, CSession, CStream, entering, left
from nervecord.runtime.c_library import load_library
from nervecord.runtime.emulator import EmulatorSession
from nervecord.runtime.session import MachineSession
from nervecord.runtime.stream import MachineStream

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler: apt-get install gcc"
)

QUICK = ("-O1",)
"""Every graph is compiled; what it computes is not the optimiser's affair."""


def assert_same_blocks(case: Case) -> None:
    """Definition and C on a case: what leaves, every value of every step, and the state after every block.

    And once more the text without what observes it, which is what is emitted: what leaves.
    """
    machine, compiled = Machine(case.plan), Compiled(case.plan, 1, flags=QUICK)
    plain = c_source(case.plan)
    emitted = load_library(plain, flags=QUICK).policy_step_q
    emitted.argtypes = [ctypes.c_void_p] * 3
    state = np.zeros(1, dtype=plain.dtype)
    step = compiled.function("step_q")
    form, steps = compiled.form, case.plan.schedule.steps
    for start in range(0, len(next(iter(case.inputs.values()))), steps):
        block = {name: x[start : start + steps, None] for name, x in case.inputs.items()}
        wanted, values = machine.block(block)
        x = entering(form, machine.entered, 1)
        out, again = np.zeros((2, 1, form.out_dim), dtype=np.int32)
        assert step(compiled.states.ctypes.data, x.ctypes.data, out.ctypes.data) == 0
        assert emitted(state.ctypes.data, x.ctypes.data, again.ctypes.data) == 0
        compiled.after_block()
        found = machine.after.leave(left(form, out))
        for name, rows in wanted.items():
            np.testing.assert_array_equal(found[name], rows, err_msg=f"seed {case.seed}, {start}: {name}")
        np.testing.assert_array_equal(out, again, err_msg=f"seed {case.seed}, {start}: emitted")
        trace = compiled.trace()
        assert list(trace) == list(values[0])
        for name, rows in trace.items():
            told = np.stack([each[name] for each in values])
            np.testing.assert_array_equal(rows, told, err_msg=f"seed {case.seed}, {start}: {name}")
        assert_same_state(machine.state, compiled.state())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_graphs_of_every_shape(seed: int) -> None:
    assert_same_blocks(draw(seed))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_any_arithmetic(seed: int) -> None:
    assert_same_blocks(draw(seed, random_arithmetic(seed)))
