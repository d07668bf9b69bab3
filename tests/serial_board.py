"""A board that is simulated: its hardware in CXXRTL, its serial line a pseudo-terminal."""

from __future__ import annotations

import ctypes
import os
import pty
import select
import threading
import tty
from pathlib import Path
from typing import Any

from nervecord.compiler.files.program import Program
from nervecord.targets.fpga.core import Core
from nervecord.targets.fpga.package import design
from nervecord.targets.fpga.serial import Device
from nervecord.targets.fpga.simulator import build, parts_of
from nervecord.targets.fpga.verilog import convert

DIVIDER = 4


class SerialBoard:
    """A context manager; `port` is where the board is. Answers are broken on request: see `noise`."""

    def __init__(self, program: Program, folder: Path, lanes: int = 1) -> None:
        hardware = design(program, "ulx3s-85f", lanes)
        core, protocol = hardware.core, hardware.protocol
        device = Device(Core(core.code), protocol, DIVIDER)
        text = convert(device, [device.rx, device.tx], "policy", folder)
        source = Path(__file__).with_name("serial_board.cc")
        library = build(text, "policy", source, folder, ("-O1", f"-DNERVECORD_DIVIDER={DIVIDER}"))
        self._library: Any = ctypes.CDLL(str(library))
        self._library.board_open.restype = ctypes.c_void_p
        self._library.board_take.restype = ctypes.c_uint64
        self._handle = ctypes.c_void_p(self._library.board_open())
        for name, (bits, words) in core.contents().items():
            values = parts_of(bits, words)
            assert not self._library.board_load(
                self._handle,
                f"rom_{name} words".encode(),
                values.ctypes.data_as(ctypes.c_void_p),
                ctypes.c_uint64(values.size),
            )
        self.noise = 0
        self._done = threading.Event()

    def exchange(self, data: bytes, cycles: int = 0) -> bytes:
        """Send bytes, let it work, take what it answers."""
        self._library.board_send(self._handle, data, ctypes.c_uint64(len(data)))
        self._library.board_run(self._handle, ctypes.c_uint64(cycles))
        buffer = ctypes.create_string_buffer(4096)
        count = int(self._library.board_take(self._handle, buffer, ctypes.c_uint64(4096)))
        return buffer.raw[:count]

    def __enter__(self) -> SerialBoard:
        self._end, other = pty.openpty()
        tty.setraw(other)
        self._other = other
        self.port = os.ttyname(other)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        os.close(self._end)
        os.close(self._other)
        self._library.board_close(self._handle)

    def _work(self) -> None:
        while not self._done.is_set():
            data = b""
            if select.select([self._end], [], [], 0)[0]:
                data = os.read(self._end, 4096)
            if self.noise and data:
                data = bytes([data[0] ^ self.noise]) + data[1:]
                self.noise = 0
            answer = self.exchange(data, 2000)
            if answer:
                os.write(self._end, answer)
            elif not data:
                self._done.wait(0.001)
