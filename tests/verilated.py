"""The target fpga's Verilog in Verilator, with the files of its memories: a second simulator beside CXXRTL."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from nervecord.compiler.ops import Array
from nervecord.targets.fpga.core import Core
from nervecord.targets.fpga.instructions import Microcode
from nervecord.targets.fpga.simulator import compiler
from nervecord.targets.fpga.verilog import convert, hexadecimal

SOURCE = Path(__file__).with_name("verilated.cc")
FLAGS = ("-std=c++17", "-O0", "-w")


def missing() -> list[str]:
    """Tools that are not installed."""
    return [name for name in ("verilator", "g++") if shutil.which(name) is None]


class Verilator:
    """Verilator with its library, compiled once.

    Args:
        folder: for the library and for cores.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._cores = folder, 0
        root = Path(_run(["verilator", "--getenv", "VERILATOR_ROOT"], folder).strip())
        self._includes = [f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}"]
        # Of a core's text most is this header.
        (folder / "all.h").write_text("#include <verilated.h>\n")
        _run([compiler(), *FLAGS, *self._includes, "-x", "c++-header", "all.h", "-o", "all.h.gch"], folder)
        parts = ("verilated", "verilated_threads")
        self._library = [self._compiled(root / "include" / f"{name}.cpp") for name in parts]

    def _compiled(self, source: Path) -> str:
        path = self.folder / f"{source.stem}.o"
        _run([compiler(), *FLAGS, *self._includes, "-c", str(source), "-o", str(path)], self.folder)
        return str(path)

    def core(self, code: Microcode) -> Verilated:
        """A core in a folder of its own."""
        folder = self.folder / f"core{self._cores}"
        folder.mkdir()
        self._cores += 1
        core = Core(code)
        (folder / "core.v").write_text(convert(core, list(core.ports.values()), "core", folder))
        for name, (bits, words) in core.contents().items():
            (folder / f"{name}.hex").write_text(hexadecimal(bits, words), encoding="ascii")
        _run(["verilator", "--cc", "-Wno-fatal", "-Wno-lint", "--top-module", "core", "--Mdir", ".", "core.v"], folder)
        parts = [f'#include "{path.name}"\n' for path in sorted(folder.glob("*.cpp"))]
        (folder / "all.cc").write_text("".join([*parts, f'#include "{SOURCE}"\n']))
        ports = {"WRITE": core.write_data, "READ": core.read_data, "SEEN": core.seen_value}
        widths = [f"-D{name}_BITS={len(port)}" for name, port in ports.items()]
        words = [*FLAGS, "-include", str(self.folder / "all.h"), *widths, *self._includes, "-I."]
        _run([compiler(), *words, "all.cc", *self._library, "-lpthread", "-o", "core"], folder)
        return Verilated(core, folder)


class Verilated:
    """A core, as `nervecord.targets.fpga.simulator.Simulation` is one.

    Args:
        core: of the Verilog. folder: of the program, and of the files that fill its memories.
    """

    def __init__(self, core: Core, folder: Path) -> None:
        self.code = code = core.code
        self.cycles: list[int] = []
        self._offsets: dict[str, tuple[int, int]] = {}
        names = {p.name for p in code.layout.populations}
        trace_places, self._places = [], 0
        for cell in code.cells:
            if cell.name in names and not cell.entrance:
                trace_places += [self._places, cell.size]
                self._offsets[cell.name] = self._places, cell.size
                self._places += cell.size * code.window
            else:
                trace_places += [-1, 0]
        words = [str(k) for k in (code.inputs, code.outputs, self._places, *trace_places)]
        self._process = subprocess.Popen(
            [str(folder / "core"), *words], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._trace = np.zeros(self._places, np.int64)

    def block(self, numbers: Array) -> Array:
        """One block: the numbers that enter, and those that leave."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(np.ascontiguousarray(numbers, np.int64).tobytes())
        self._process.stdin.flush()
        size = 1 + self.code.outputs + self._places
        data = self._process.stdout.read(8 * size)
        assert len(data) == 8 * size, f"it ended with {self._process.wait()}"
        answer = np.frombuffer(data, np.int64)
        self.cycles.append(int(answer[0]))
        self._trace = answer[1 + self.code.outputs :]
        return answer[1 : 1 + self.code.outputs]

    def gave(self, name: str) -> Array:
        """What a population gave in the last block, (window, n); 0 in the steps in which it does not work."""
        at, size = self._offsets[name]
        return self._trace[at : at + size * self.code.window].reshape(self.code.window, size)

    def close(self) -> None:
        """End the program."""
        self._process.communicate()

    def __enter__(self) -> Verilated:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _run(words: Sequence[str], folder: Path) -> str:
    process = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert process.returncode == 0, f"{words[0]}: {process.stderr[-2000:]}"
    return process.stdout
