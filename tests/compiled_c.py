"""What the tests of the engine c and its long run share: C beside the definition, at every step, to the bit."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
from emulated import assert_same_state
from graphs import Case

from nervecord.compiler.c.source import c_source
from nervecord.compiler.interpret import Machine
from nervecord.compiler.ops import Array
from nervecord.compiler.plan import plan
from nervecord.compiler.policy import Policy
from nervecord.runtime.c_engine import Compiled, CSession, entering, left
from nervecord.runtime.c_library import load_library
from nervecord.runtime.session import MachineSession

QUICK = ("-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic")
"""Every graph is compiled, without a warning; what it computes is not the optimiser's affair."""


BEYOND = -1234567
"""Stands behind what a step takes and gives."""


def assert_same_blocks(case: Case, flags: tuple[str, ...] = QUICK) -> None:
    """Definition and C on a case: what leaves, every value of every step, and the state after every block.

    And once more the text without what observes it, which is what is emitted: what leaves. Neither reads or writes
    behind what it is given.
    """
    machine, compiled = Machine(case.plan), Compiled(case.plan, 1, flags=flags)
    plain = c_source(case.plan)
    emitted = load_library(plain, flags=flags).policy_step_q
    emitted.argtypes = [ctypes.c_void_p] * 3
    state = np.zeros(1, dtype=plain.dtype)
    step = compiled.function("step_q")
    form, steps = compiled.form, case.plan.schedule.steps
    for start in range(0, len(next(iter(case.inputs.values()))), steps):
        block = {name: x[start : start + steps, None] for name, x in case.inputs.items()}
        wanted, values = machine.block(block)
        x = np.append(entering(form, machine.entered, 1), np.full(8, BEYOND, dtype=np.int32))
        given, left_over = np.full((2, form.out_dim + 8), BEYOND, dtype=np.int32)
        assert step(compiled.states.ctypes.data, x.ctypes.data, given.ctypes.data) == 0
        assert emitted(state.ctypes.data, x.ctypes.data, left_over.ctypes.data) == 0
        assert (given[form.out_dim :] == BEYOND).all()
        out, again = given[None, : form.out_dim], left_over[None, : form.out_dim]
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


def single(values: Array) -> Array:
    """Rounded to float32, as the C takes and gives them."""
    return values.astype(np.float32).astype(np.float64)


class Emitted:
    """The text that is emitted, with one robot's state: observation in, action out."""

    def __init__(self, policy: Policy) -> None:
        source = c_source(plan(policy))
        self.state = np.zeros(1, dtype=source.dtype)
        self.function = load_library(source, flags=QUICK).policy_step
        self.function.argtypes = [ctypes.c_void_p] * 3
        self.size = policy.contract.action.size

    def step(self, row: Array) -> tuple[int, Array]:
        obs, act = np.ascontiguousarray(row, dtype=np.float32), np.full(self.size, np.nan, dtype=np.float32)
        code = self.function(self.state.ctypes.data, obs.ctypes.data, act.ctypes.data)
        return code, act.astype(np.float64)


def assert_same_actions(policy: Policy, observations: Array) -> Array:
    """Definition, engine and emitted text over (count, batch, observations); returns the actions."""
    batch = observations.shape[1]
    plain, session, emitted = MachineSession(policy, batch=batch), CSession(policy, batch, flags=QUICK), Emitted(policy)
    rng = np.random.default_rng(len(observations))
    actions = []
    for k, rows in enumerate(single(observations)):
        active = rng.random(batch) < 0.7
        if k == 3:
            rows[0, 0] = np.nan
        action, found = single(plain.step(rows, active)), session.step(rows, active)
        np.testing.assert_array_equal(found, action)
        code, first = emitted.step(rows[0])
        assert code == int(k == 3)
        np.testing.assert_array_equal(first, action[0])
        trace, told = plain.trace(), session.trace()
        assert list(trace) == list(told)
        for name, values in trace.items():
            np.testing.assert_array_equal(told[name], values, err_msg=f"{k}: {name}")
        assert_same_state(plain.state(), session.state())
        if k == 5 and batch > 1:
            plain.reset(rows=np.array([1]))
            session.reset(rows=np.array([1]))
        actions.append(action)
    assert session.counts == plain.counts
    return np.array(actions)


# --------------------------------------------------------------------------------------------------------------------
# A Cortex-M4 in QEMU

CORTEX_TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm")
CORTEX = Path(__file__).parent / "data" / "cortex_m4"
CORTEX_FLAGS = (
    "-std=gnu99", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=soft",
    "-ffunction-sections", "-Wl,--gc-sections", "-nostartfiles", "--specs=nosys.specs",
)  # fmt: skip
QEMU = (
    "timeout", "120", "qemu-system-arm", "-M", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none",
    "-semihosting-config", "enable=on,target=native", "-icount", "shift=0",
)  # fmt: skip


def on_cortex(folder: Path, level: str) -> tuple[int, int, int, int]:
    """(failing step or 0, instructions per action on average, at most, stack) of the recorded steps."""
    flags = [*CORTEX_FLAGS, level, "-T", CORTEX / "mps2.ld", "-I."]
    words = ["arm-none-eabi-gcc", *map(str, flags), "-o", "arm.elf", str(CORTEX / "main.c"), "policy.c"]
    subprocess.run([*words, "policy_weights.c"], cwd=folder, check=True)
    done = subprocess.run([*QEMU, "-kernel", "arm.elf"], cwd=folder, capture_output=True, text=True, check=False)
    # Semihosting writes to stderr.
    said = done.stdout + done.stderr
    failed, mean, most, stack = map(int, said.split())
    return failed, mean, most, stack
