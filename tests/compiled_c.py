"""What the tests of the engine c and its long run share: C beside the definition, at every step, to the bit."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from emulated import assert_same_state
from graphs import Case

from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import plan
from nervecord.runtime.engines.c.constants import Member, ordered
from nervecord.runtime.engines.c.library import load_library
from nervecord.runtime.engines.c.session import Compiled, CSession, entering, left
from nervecord.runtime.engines.c.source import Source, c_source
from nervecord.runtime.session import MachineSession
from nervecord.targets.c.vectors import record

QUICK = ("-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic")
"""Every graph is compiled, without a warning; what it computes is not the optimiser's affair."""
BEYOND = -1234567
"""Stands behind what a step takes and gives."""


def assert_same_blocks(case: Case, flags: tuple[str, ...] = QUICK) -> None:
    """Definition and C on a case: what leaves, every value of every step, and the state after every block.

    And once more the text without what observes it, which is what is emitted: what leaves. Neither reads or writes
    behind what it is given, nor, with flags that sanitize, behind a member of its state.
    """
    machine, beyond = Machine(case.plan), 0 if flags is SANITIZED else 8
    with guarded(flags):
        compiled, plain = Compiled(case.plan, 1, flags=flags), c_source(case.plan)
    emitted = load_library(plain, flags=flags).policy_step_q
    emitted.argtypes = [ctypes.c_void_p] * 3
    state = np.zeros(1, dtype=plain.dtype)
    poison(state)
    poison(compiled.states)
    step = compiled.function("step_q")
    layout, steps = compiled.layout, case.plan.schedule.steps
    for start in range(0, len(next(iter(case.inputs.values()))), steps):
        block = {name: x[start : start + steps, None] for name, x in case.inputs.items()}
        expected, values = machine.block(block)
        x = np.append(entering(layout, machine.entered, 1), np.full(beyond, BEYOND, dtype=np.int32))
        outputs, left_over = (np.full(layout.out_dim + beyond, BEYOND, dtype=np.int32) for _ in range(2))
        assert step(compiled.states.ctypes.data, x.ctypes.data, outputs.ctypes.data) == 0
        assert emitted(state.ctypes.data, x.ctypes.data, left_over.ctypes.data) == 0
        assert (outputs[layout.out_dim :] == BEYOND).all()
        out, again = outputs[None, : layout.out_dim], left_over[None, : layout.out_dim]
        compiled.after_block()
        actual = machine.after.leave(left(layout, out))
        for name, rows in expected.items():
            np.testing.assert_array_equal(actual[name], rows, err_msg=f"seed {case.seed}, {start}: {name}")
        np.testing.assert_array_equal(out, again, err_msg=f"seed {case.seed}, {start}: emitted")
        trace = compiled.trace()
        assert list(trace) == list(values[0])
        for name, rows in trace.items():
            traced = np.stack([each[name] for each in values])
            np.testing.assert_array_equal(rows, traced, err_msg=f"seed {case.seed}, {start}: {name}")
        assert_same_state(machine.state, compiled.state())
    assert_recorded(case, plain, emitted)


def assert_recorded(case: Case, source: Source, step: Any) -> None:
    """What the self-test of an emitted stream would say."""
    recorded = record(case.plan, source, 4)
    for k, (x, expected) in enumerate(zip(recorded.given, recorded.wanted, strict=True)):
        if k in (0, recorded.reset):
            state = np.zeros(1, dtype=source.dtype)
            poison(state)
        actual = np.empty_like(expected)
        assert step(state.ctypes.data, x.ctypes.data, actual.ctypes.data) == recorded.codes[k]
        np.testing.assert_array_equal(actual, expected, err_msg=f"seed {case.seed}, recorded step {k}")


def single(values: Array) -> Array:
    """Rounded to float32, as the C takes and gives them."""
    return values.astype(np.float32).astype(np.float64)


class Emitted:
    """The text that is emitted, with one robot's state: observation in, action out."""

    def __init__(self, policy: Policy, flags: tuple[str, ...] = QUICK) -> None:
        with guarded(flags):
            source = c_source(plan(policy))
        self.state = np.zeros(1, dtype=source.dtype)
        poison(self.state)
        self.function = load_library(source, flags=flags).policy_step
        self.function.argtypes = [ctypes.c_void_p] * 3
        self.size = policy.contract.action.size

    def step(self, row: Array) -> tuple[int, Array]:
        obs, act = np.ascontiguousarray(row, dtype=np.float32), np.full(self.size, np.nan, dtype=np.float32)
        code = self.function(self.state.ctypes.data, obs.ctypes.data, act.ctypes.data)
        return code, act.astype(np.float64)


def assert_same_actions(policy: Policy, observations: Array, flags: tuple[str, ...] = QUICK) -> Array:
    """Definition, engine and emitted text over (count, batch, observations); returns the actions."""
    batch = observations.shape[1]
    plain, session = MachineSession(policy, batch=batch), CSession(policy, batch, flags=flags)
    emitted = Emitted(policy, flags)
    rng = np.random.default_rng(len(observations))
    actions = []
    for k, rows in enumerate(single(observations)):
        active = rng.random(batch) < 0.7
        if k == 3:
            rows[0, 0] = np.nan
        action, actual = single(plain.step(rows, active)), session.step(rows, active)
        np.testing.assert_array_equal(actual, action)
        code, first = emitted.step(rows[0])
        assert code == int(k == 3)
        np.testing.assert_array_equal(first, action[0])
        trace, traced = plain.trace(), session.trace()
        assert list(trace) == list(traced)
        for name, values in trace.items():
            np.testing.assert_array_equal(traced[name], values, err_msg=f"{k}: {name}")
        assert_same_state(plain.state(), session.state())
        if k == 5 and batch > 1:
            plain.reset(rows=np.array([1]))
            session.reset(rows=np.array([1]))
        actions.append(action)
    assert session.counts == plain.counts
    return np.array(actions)


# --------------------------------------------------------------------------------------------------------------------
# Sanitizers

SANITIZED = (
    "-O0",
    "-g",
    "-fsanitize=address,undefined,float-cast-overflow,float-divide-by-zero",
    "-fno-sanitize-recover=all",
)
"""For processes that `sanitized` starts: what leaves an array, or does what the language does not define, ends them."""
GUARD = 256
"""Bytes behind each member of a state that nothing may touch."""
_POISONED: list[Array] = []
"""Never freed: numpy would hand their memory out again."""


def sanitizer() -> str | None:
    """GCC's library of the sanitizer of addresses, which a process must load first; None where there is none."""
    if shutil.which("gcc") is None:
        return None
    words = ["gcc", "-print-file-name=libasan.so"]
    path = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    return path if Path(path).is_absolute() and Path(path).exists() else None


def sanitized(words: Sequence[object], library: str) -> subprocess.CompletedProcess[str]:
    """A Python with the sanitizer's library, and with GCC as its C compiler, on these words."""
    variables = {
        **os.environ,
        "LD_PRELOAD": library,
        "CC": "gcc",
        # The interpreter itself leaks, and its memory is not what this is about.
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, env=variables, check=False
    )


def loaded_sanitizer() -> ctypes.CDLL | None:
    """The sanitizer's functions where this process has them. What it starts, a compiler, shall not."""
    functions = ctypes.CDLL(None)
    if not hasattr(functions, "__asan_poison_memory_region"):
        return None
    os.environ.pop("LD_PRELOAD", None)
    return functions


@contextlib.contextmanager
def guarded(flags: tuple[str, ...]) -> Iterator[None]:
    """C that is made meanwhile has a guard behind each member of its state, for flags that sanitize."""

    def with_guards(members: list[Member]) -> list[Member]:
        layout = []
        for k, member in enumerate(ordered(members)):
            # Multiples of 8 bytes: the next member lies as its type needs it.
            layout += [member, Member(f"guard{k}", "uint8_t", GUARD + -member.bytes % 8, "guard")]
        return layout

    if flags is SANITIZED:
        with mock.patch("nervecord.runtime.engines.c.source.ordered", with_guards):
            yield
    else:
        yield


def poison(states: Array) -> None:
    """The guards of states are no memory any more, in a process that has the sanitizer."""
    fields = states.dtype.fields
    assert fields is not None
    guards = [(offset, dtype.itemsize) for name, (dtype, offset, *_) in fields.items() if name.startswith("guard")]
    functions = loaded_sanitizer() if guards else None
    if functions is not None:
        _POISONED.append(states)
        for row in range(len(states)):
            for offset, size in guards:
                place = states.ctypes.data + row * states.itemsize + offset
                functions.__asan_poison_memory_region(ctypes.c_void_p(place), ctypes.c_size_t(size))


# --------------------------------------------------------------------------------------------------------------------
# A Cortex-M4 in QEMU

CORTEX_TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm")
CORTEX = Path(__file__).parent / "data" / "cortex_m4"
CORTEX_FLAGS = (
    "-std=gnu99",
    "-ffp-contract=off",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-mcpu=cortex-m4",
    "-mthumb",
    "-mfloat-abi=soft",
    "-ffunction-sections",
    "-Wl,--gc-sections",
    "-nostartfiles",
    "--specs=nosys.specs",
)
QEMU = (
    "timeout",
    "120",
    "qemu-system-arm",
    "-M",
    "mps2-an386",
    "-nographic",
    "-monitor",
    "none",
    "-serial",
    "none",
    "-semihosting-config",
    "enable=on,target=native",
    "-icount",
    "shift=0",
)


def on_cortex(folder: Path, level: str) -> tuple[int, int, int, int]:
    """(failing step or 0, instructions per action on average, at most, stack) of the recorded steps."""
    flags = [*CORTEX_FLAGS, level, "-T", CORTEX / "mps2.ld", "-I."]
    words = ["arm-none-eabi-gcc", *map(str, flags), "-o", "arm.elf", str(CORTEX / "main.c"), "policy.c"]
    subprocess.run([*words, "policy_weights.c"], cwd=folder, check=True)
    process = subprocess.run([*QEMU, "-kernel", "arm.elf"], cwd=folder, capture_output=True, text=True, check=False)
    # Semihosting writes to stderr.
    log = process.stdout + process.stderr
    failed, mean, most, stack = map(int, log.split())
    return failed, mean, most, stack
