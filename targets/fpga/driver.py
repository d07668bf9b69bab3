"""The engine "fpga": a board at a serial port, by the protocol of `targets.fpga.serial`. Tested against a simulated
board; untested on silicon."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import termios
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from nervecord.compiler.files.program import Program, describe, described_hashes
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.host_steps import AfterCore, BeforeCore
from nervecord.compiler.plan.plan import Plan
from nervecord.errors import ContractError, EngineError, escaped
from nervecord.runtime.checks import check_inputs
from nervecord.runtime.session import PolicySession
from nervecord.targets.fpga.instructions import Microcode
from nervecord.targets.fpga.layout import layout
from nervecord.targets.fpga.microcode import microcode
from nervecord.targets.fpga.parts import Interface
from nervecord.targets.fpga.serial import ERRORS, VERSION, Protocol
from nervecord.targets.fpga.verilog import require

NAME = "fpga"
BAUD = termios.B1000000
SECONDS = 1.0
"""After which a board that says nothing is dead."""
ENDLESS = 10
"""Times as long: after which a board that says something unasked is."""


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
            # Without waiting for a carrier, as a modem's line would have one do.
            self._file = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise self._unopened(error) from None
        try:
            raw = termios.tcgetattr(self._file)
            raw[0] = raw[1] = raw[3] = 0
            raw[2] = termios.CS8 | termios.CREAD | termios.CLOCAL
            raw[4] = raw[5] = BAUD
            raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
            termios.tcsetattr(self._file, termios.TCSANOW, raw)
            termios.tcflush(self._file, termios.TCIOFLUSH)
        except (OSError, termios.error) as error:
            self.close()
            raise self._unopened(error) from None

    def _unopened(self, error: Exception) -> EngineError:
        return EngineError(
            f"cannot be opened: {error.args[-1]}", where=escaped(self.path), hint="is the board plugged in?"
        )

    def write(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            EngineError: the board takes nothing, or is unplugged.
        """
        rest, until = data, time.monotonic() + self.patience
        while rest:
            if not self._ready(until, write=True):
                raise EngineError(
                    f"the board took {len(data) - len(rest)} of {len(data)} bytes within {self.patience:g} s",
                    where=self.path,
                )
            with self._plugged():
                rest, until = rest[os.write(self._file, rest) :], time.monotonic() + self.patience

    def read(self, count: int) -> bytes:
        """So many bytes.

        Raises:
            EngineError: the board says nothing, or is unplugged.
        """
        received, until = b"", time.monotonic() + self.patience
        while len(received) < count:
            if not self._ready(until):
                raise EngineError(
                    f"the board sent {len(received)} of {count} bytes within {self.patience:g} s",
                    where=self.path,
                    hint="is the bitstream of this program loaded?",
                )
            received, until = received + self._received(count - len(received)), time.monotonic() + self.patience
        return received

    def drop(self) -> None:
        """Forget what is received until the board says nothing for as long as it may think.

        Raises:
            EngineError: it does not stop, or is unplugged.
        """
        end = time.monotonic() + ENDLESS * self.patience
        while self._ready(time.monotonic() + self.patience):
            self._received(4096)
            if time.monotonic() > end:
                raise EngineError(
                    f"the board has been sending for {ENDLESS * self.patience:g} s, unasked", where=self.path
                )

    def _ready(self, until: float, *, write: bool = False) -> bool:
        """Whether a byte can be read, or written, by then."""
        files = [self._file]
        ready = select.select([] if write else files, files if write else [], [], max(until - time.monotonic(), 0))
        return bool(ready[0] or ready[1])

    def _received(self, most: int) -> bytes:
        with self._plugged():
            chunk = os.read(self._file, most)
            if not chunk:
                raise OSError(errno.EIO, "it was hung up")
        return chunk

    @contextlib.contextmanager
    def _plugged(self) -> Iterator[None]:
        """What the system says of a line that is gone, as the end of the engine that it is."""
        try:
            yield
        except OSError as error:
            raise EngineError(
                f"the line is gone: {error.strerror}", where=self.path, hint="is the board plugged in?"
            ) from None

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
        expected = protocol.greeting
        self._order(b"V", b"v")
        greeting = b"v" + port.read(len(expected) - 1)
        if greeting[1] != VERSION:
            raise EngineError(f"speaks version {greeting[1]} of the protocol, not {VERSION}", where=port.path)
        if greeting != expected:
            raise EngineError(
                f"holds the program {greeting[2:10].hex()}, not {expected[2:10].hex()}",
                where=port.path,
                hint="load the bitstream of this program",
            )
        self.clear()

    def clear(self) -> None:
        """Back to the state before the first block."""
        self._order(b"Z", b"z")

    def settle(self) -> None:
        """Bring both sides together after an order that went wrong, of which any part may still be under way.

        Zeros fill up what the board may wait for; beyond that they are orders that it does not know, and says so.
        """
        self.port.write(bytes(self.protocol.inputs * self.protocol.in_bytes + 1))
        self.port.drop()

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
        reply = self.port.read(1)
        if reply == b"e":
            code = self.port.read(1)[0]
            raise EngineError(f"the board answers {ERRORS.get(code, f'error {code}')}", where=self.port.path)
        if reply != answer:
            raise EngineError(f"the board answers {reply!r}, not {answer!r}", where=self.port.path)


class Board:
    """The machine of a board, with the host's part in numpy; see `runtime.machines.BlockMachine`.

    Args:
        plan: of the program. port: of the board. code: of the plan. identity: of the program.

    Raises:
        EngineError: there is no board, or it holds another program.
    """

    batch = 1
    """One board is one robot."""

    def __init__(self, plan: Plan, port: Port, code: Microcode, identity: bytes) -> None:
        self.plan, self.port, self._code = plan, port, code
        self._before, self._after = BeforeCore(plan), AfterCore(plan)
        self._host = Host(port, Protocol.of(Interface(code), identity))
        self._begun = 0
        self._lost = False

    def reset(self, batch: int) -> None:
        """Back to the state before the first block.

        Raises:
            ContractError: more than one copy is asked for.
        """
        if batch != 1:
            raise ContractError(f"one board is one robot, {batch} are asked for", where="batch")
        self._before.reset(1)
        if self._lost:
            self._host.settle()
        self._host.clear()
        self._lost = False

    def clear(self, rows: Array) -> None:
        """The same where the one copy is among the rows."""
        if np.arange(1)[rows].size:
            self.reset(1)

    def block(self, inputs: Mapping[str, Array], active: Array) -> dict[str, Array]:
        """One block; what it counts stays on the board.

        Raises:
            EngineError: the board failed, or did in a block before and was not reset since.
        """
        if self._lost:
            raise EngineError(
                "the board failed in the middle of a step, and its state is not known",
                where=self.port.path,
                hint="reset the session",
            )
        check_inputs(self.plan, inputs)
        entered = self._before.enter(inputs, np.int64)
        self._begun += 1
        return self._after.leave(self._code.leaving(self._host.block(self._code.entering(entered, 0))))

    def tally(self) -> tuple[dict[str, float], dict[str, float]]:
        """Nothing: a board does not tell what it counts."""
        return {}, {}

    def trace(self) -> dict[str, Array]:
        """Refused: a board keeps what its populations gave to itself."""
        raise ContractError("a board has no trace", where="engine fpga", hint="the engine fpga-sim has")

    def standing(self) -> Any:
        """What a block changes on the host, and how many the board has begun, for `stand`."""
        return self._before.standing(), self._begun

    def stand(self, before: Any) -> None:
        """Make it what it was. The board's state cannot be: where a block was begun, it is lost until a reset."""
        self._before.stand(before[0])
        self._lost = self._lost or self._begun != before[1]


class BoardSession(PolicySession):
    """A policy on a board.

    Args:
        program: what the board was loaded with. port: of the board. lanes: it was compiled with.

    Raises:
        EngineError: there is no board, or it holds another program.
        ContractError: it is no policy.
    """

    _machine: Board

    def __init__(
        self, program: Program, port: str | os.PathLike[str], *, lanes: int = 1, patience: float = SECONDS
    ) -> None:
        super().__init__(program.policy, NAME, 1)
        require()
        code = microcode(layout(self.plan), lanes)
        line = Port(port, patience)
        try:
            self._machine = Board(self.plan, line, code, identity(program, lanes))
        except BaseException:
            line.close()
            raise

    def close(self) -> None:
        """Give the port back."""
        if not self._closed:
            self._machine.port.close()
        super().close()

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise ContractError("holds a serial port, and can be neither copied nor pickled", where="session")
