"""The engine "fpga": a board at a serial port, by the protocol of `targets.fpga.serial`. Tested against a simulated
board; untested on silicon."""

from __future__ import annotations

import os
import select
import termios
import time
from typing import Any, NoReturn

import numpy as np

from nervecord.compiler.files.program import Program, describe, described_hashes
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.host_steps import After, Before
from nervecord.errors import ContractError, EngineError
from nervecord.runtime.checks import check_inputs, checked_active, checked_observation
from nervecord.runtime.session import Driven
from nervecord.targets.fpga.layout import layout
from nervecord.targets.fpga.microcode import microcode
from nervecord.targets.fpga.parts import Interface
from nervecord.targets.fpga.serial import ERRORS, VERSION, Protocol
from nervecord.targets.fpga.verilog import require

NAME = "fpga"
BAUD = termios.B1000000
SECONDS = 1.0
"""After which a board that says nothing is dead."""


def identity(program: Program, lanes: int) -> bytes:
    """8 bytes by which a board says which program it holds."""
    hashes = described_hashes(*describe(program.graph, program.contract, program.schedule))
    return bytes.fromhex(hashes["structure"][:8] + hashes["arrays"][:6]) + bytes([lanes])


class Port:
    """A serial port: 1 Mbaud, 8 bits, no parity.

    Args:
        path: such as /dev/ttyUSB1. patience: seconds without a byte after which the board is dead.

    Raises:
        EngineError: it cannot be opened.
    """

    def __init__(self, path: str | os.PathLike[str], patience: float = SECONDS) -> None:
        self.path, self.patience = os.fspath(path), patience
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_NOCTTY)
            raw = termios.tcgetattr(self._file)
            raw[0] = raw[1] = raw[3] = 0
            raw[2] = termios.CS8 | termios.CREAD | termios.CLOCAL
            raw[4] = raw[5] = BAUD
            raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._file, termios.TCSANOW, raw)
            termios.tcflush(self._file, termios.TCIOFLUSH)
        except (OSError, termios.error) as error:
            raise EngineError(f"cannot be opened: {error}", where=self.path, hint="is the board plugged in?") from None

    def write(self, data: bytes) -> None:
        """Send all of it."""
        while data:
            data = data[os.write(self._file, data) :]

    def read(self, count: int) -> bytes:
        """So many bytes.

        Raises:
            EngineError: the board says nothing.
        """
        found, until = b"", time.monotonic() + self.patience
        while len(found) < count:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self._file], [], [], left)[0]:
                raise EngineError(
                    f"the board sent {len(found)} of {count} bytes within {self.patience:g} s", where=self.path,
                    hint="is the bitstream of this program loaded?",
                )  # fmt: skip
            more = os.read(self._file, count - len(found))
            if more:
                found, until = found + more, time.monotonic() + self.patience
        return found

    def drop(self) -> None:
        """Forget what was received."""
        termios.tcflush(self._file, termios.TCIFLUSH)

    def close(self) -> None:
        """Give it back."""
        os.close(self._file)


class Host:
    """The host's side of the protocol.

    Args:
        port: the line. protocol: of the program.

    Raises:
        EngineError: the board holds another program, or speaks another version.
    """

    def __init__(self, port: Port, protocol: Protocol) -> None:
        self.port, self.protocol = port, protocol
        wanted = protocol.greeting
        self._order(b"V", b"v")
        found = b"v" + port.read(len(wanted) - 1)
        if found[1] != VERSION:
            raise EngineError(f"speaks version {found[1]} of the protocol, not {VERSION}", where=port.path)
        if found != wanted:
            raise EngineError(
                f"holds the program {found[2:10].hex()}, not {wanted[2:10].hex()}", where=port.path,
                hint="load the bitstream of this program",
            )  # fmt: skip
        self.clear()

    def clear(self) -> None:
        """Back to the state before the first block."""
        self._order(b"Z", b"z")

    def block(self, numbers: Array) -> Array:
        """The numbers that leave, of those that enter."""
        size = self.protocol.in_bytes
        data = b"".join(int(x).to_bytes(size, "little", signed=True) for x in numbers)
        self._order(b"W" + data + bytes([sum(data) % 256]), b"w")
        self._order(b"S", b"s")
        self._order(b"R", b"r")
        size = self.protocol.out_bytes
        data = self.port.read(self.protocol.outputs * size)
        if self.port.read(1)[0] != sum(data) % 256:
            raise EngineError("the sum of what was received is wrong", where=self.port.path)
        parts = [data[k : k + size] for k in range(0, len(data), size)]
        return np.array([int.from_bytes(part, "little", signed=True) for part in parts], dtype=np.int64)

    def _order(self, order: bytes, answer: bytes) -> None:
        self.port.write(order)
        found = self.port.read(1)
        if found == b"e":
            code = self.port.read(1)[0]
            raise EngineError(f"the board answers {ERRORS.get(code, f'error {code}')}", where=self.port.path)
        if found != answer:
            self.port.drop()
            raise EngineError(f"the board answers {found!r}, not {answer!r}", where=self.port.path)


class _Silent:
    """What a session puts back where a step is refused: nothing, as the board's state stays on the board."""

    def standing(self) -> None:
        """Nothing."""

    def stand(self, before: Any) -> None:
        """Nothing."""


class BoardSession(Driven):
    """A policy on a board.

    Args:
        program: what the board was loaded with. port: of the board. lanes: it was compiled with.

    Raises:
        EngineError: there is no board, or it holds another program.
        ContractError: it is no policy.
    """

    _machine: _Silent

    def __init__(self, program: Program, port: str | os.PathLike[str], *, lanes: int = 1, patience: float = SECONDS,
                 ) -> None:  # fmt: skip
        super().__init__(program.policy, NAME, 1)
        require()
        self._machine = _Silent()
        self._code = microcode(layout(self.plan), lanes)
        self._before, self._after = Before(self.plan), After(self.plan)
        self._port = Port(port, patience)
        self._host = Host(self._port, Protocol.of(Interface(self._code), identity(program, lanes)))

    @property
    def batch(self) -> int:
        """One board is one robot."""
        return 1

    def close(self) -> None:
        """Give the port back."""
        if not self._closed:
            self._port.close()
        super().close()

    def trace(self) -> dict[str, Array]:
        """Refused: a board keeps what its populations gave to itself."""
        raise ContractError("a board has no trace", where="engine fpga", hint="the engine fpga-sim has")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise ContractError("holds a serial port, and can be neither copied nor pickled", where="session")

    def _restart(self, batch: int) -> None:
        if batch != 1:
            raise ContractError(f"one board is one robot, {batch} are asked for", where="batch")
        self._before.reset(1)
        self._host.clear()

    def _clear(self, rows: Array) -> None:
        if np.arange(1)[rows].size:
            self._restart(1)

    def _step(self, observation: Array, active: Array | None) -> Array:
        given, trusted = checked_observation(self.contract, observation, 1)
        counted = checked_active(active, 1)
        if not trusted.all():
            given = np.where(trusted[:, None], given, self._neutral)
        inputs = self._before.split(given)
        check_inputs(self.plan, inputs)
        entered = self._before.enter(inputs, np.int64)
        left = self._code.leaving(self._host.block(self._code.entering(entered, 0)))
        with np.errstate(over="ignore", invalid="ignore"):  # an action that is not finite is not given, and counted
            action = self._after.join(self._after.leave(left))
        self._counts.actions += int(np.count_nonzero(counted))
        self._counts.neuron_updates += self._updates * int(np.count_nonzero(counted))
        action = self._safe(action, trusted, counted)
        return action if np.ndim(observation) == 2 else action[0]
