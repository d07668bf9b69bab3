"""Fuzzing at length: `python tests/fuzz/campaign.py --cases 50000`, from the repository's root; `make fuzz`.

The cases run in a process of their own, which a watcher looks at: one that ends by itself has crashed, one that says
nothing for 10 seconds of processor time, twice, hangs, and both are counted and gone on from. In it every file that is
opened for writing, every folder made, process started and connection opened outside the case's own folder is counted.

    --kind NAME         one kind of file; by default all, in shares
    --first N           number of the first case: the same number is the same file
    --seconds N         stop then, wherever it is
    --log FILE          a line of JSON for each case, as it ends
    --bounds            all with numba's checks of array bounds, which find what the loop writes beyond its memory

Of the programs a part is run with those checks in any case; its cases follow those of the others. Time is processor
time, and memory the most that one process held, those that a case started included; of the slowest case, and of the one
in which memory last grew, the numbers stand below.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

CHECKED = ", bounds checked"
SHARES = {
    "program": 31,
    f"program{CHECKED}": 5,
    "report": 2,
    "nir content": 19,
    "arrays": 11,
    "contract": 8,
    "target": 6,
    "nir bytes": 1,
    "study": 4,
    "record": 4,
    "onnx": 3,
    "net": 1,
    "description": 2,
    "recording": 2,
    "layout": 1,
}
"""Per cent of the cases. Of NIR's bytes and of networks of lava-dl each takes a process."""
HANGS = 10.0
"""Seconds of processor time a case may take."""
LAYOUTS_HANG = 30.0
"""Seconds of one that asks for a large layout."""
PATIENCE = 15
"""How many times as long by the clock, on a machine with other work; for what waits."""
MOST_MEMORY = 2 << 30
"""Bytes of memory a process may come to hold."""
WIDTH = 26
HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run a campaign; the exit code is 1 where anything failed."""
    parser = argparse.ArgumentParser(description="fuzz everything that reads files")
    parser.add_argument("--cases", type=int, default=50_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", choices=SHARES)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--bounds", action="store_true")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.first, args.cases, Path.cwd())
        return 0
    shares = {args.kind: 100} if args.kind else SHARES
    stop = time.monotonic() + args.seconds
    failed = 0
    heads = ("cases", "read", "refused", "raised", "crashed", "hung", "stalled", "outside", "all", "slowest", "memory")
    print("kind".ljust(WIDTH) + "".join(head.rjust(10) for head in heads), flush=True)
    for name, share in shares.items():
        kind = name.removesuffix(CHECKED)
        first = args.first if kind == name else args.first + args.cases
        watched = Watched(kind, first, args.cases * share // 100, bounds=args.bounds or kind != name)
        watched.log = args.log
        watched.run(stop)
        n = watched.counts
        row = [str(n.total()), *(str(n[how]) for how in ("read", "refused", "raised", "crashed", "hung"))]
        row += [str(watched.stalls), str(len(watched.outside))]
        row += [f"{watched.total:.0f} s", f"{watched.slowest[0]:.1f} s", f"{watched.memory[0] >> 20} MB"]
        print(name.ljust(WIDTH) + "".join(text.rjust(10) for text in row), flush=True)
        print(f"    slowest {watched.slowest[1]}, most memory {watched.memory[1]}", flush=True)
        for line in [*watched.failures[:20], *sorted(watched.outside)[:20]]:
            print(f"    {line}", flush=True)
        failed += len(watched.failures) + len(watched.outside) + (watched.memory[0] > MOST_MEMORY)
    return int(failed > 0)


class Watched:
    """The cases of one kind in a child process, which is started anew where it ends or hangs."""

    def __init__(self, kind: str, first: int, count: int, *, bounds: bool) -> None:
        self.kind, self.next, self.end = kind, first, first + count
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.outside: set[str] = set()
        self.slowest, self.memory = (0.0, first), (0, first)
        self.total = 0.0
        self.log: Path | None = None
        self.again, self.stalls = -1, 0
        self.hangs, self.patience = LAYOUTS_HANG if kind == "layout" else HANGS, PATIENCE
        self.environment = {**os.environ, "PYTHONFAULTHANDLER": "1", "OMP_NUM_THREADS": "1"}
        self.bounds = bounds

    def command(self) -> list[str]:
        """The process that runs the cases which are left."""
        options = ["--first", str(self.next), "--cases", str(self.end - self.next)]
        return [sys.executable, str(HERE / "campaign.py"), "--child", self.kind, *options]

    def run(self, stop: float) -> None:
        """All cases, or those until `stop` on the monotonic clock."""
        with tempfile.TemporaryDirectory(prefix="nervecord-fuzz-") as folder:
            self.environment["TMPDIR"] = folder  # what the engine c builds is the case's own
            if self.bounds:
                # In a cache of its own: numba's does not tell code with checks from code without.
                self.environment |= {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(Path(folder) / "numba")}
            while self.next < self.end and time.monotonic() < stop:
                with (
                    open(Path(folder) / "stderr", "w+") as errors,
                    subprocess.Popen(
                        self.command(), cwd=folder, stdout=subprocess.PIPE, stderr=errors, env=self.environment
                    ) as process,
                ):
                    self._watch(process, stop)
                    process.kill()
                    process.wait()
                    errors.seek(0)
                    if self.failures and self.failures[-1].endswith("crashed"):
                        self.failures[-1] += f" ({process.returncode}): {errors.read()[-300:]!r}"

    def _watch(self, process: Any, stop: float) -> None:
        ready = False
        buffer = b""
        spent, since = 0.0, time.monotonic()
        while time.monotonic() < stop:
            if not select.select([process.stdout], [], [], 0.5)[0]:
                # Importing everything, and compiling the loop with other checks, is not a case.
                limit = self.hangs if ready else 300.0
                late = time.monotonic() - since > self.patience * limit
                if late or processor_time(process.pid) - spent > limit:
                    return self._over("hung")
                continue
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                return None if self.next >= self.end else self._over("crashed")
            *lines, buffer = (buffer + piece).split(b"\n")
            for line in lines:
                message = json.loads(line)
                ready = True
                if "case" in message:
                    self._note(message)
            spent, since = processor_time(process.pid), time.monotonic()
        return None

    def _over(self, how: str) -> None:
        if how == "hung" and self.again != self.next:
            # A machine with much other work stands still as long; a file that hangs does so twice.
            self.again, self.stalls = self.next, self.stalls + 1
            return
        self.counts[how] += 1
        self.failures.append(f"{self.kind} {self.next}: {how}")
        self.next += 1

    def _note(self, message: dict[str, Any]) -> None:
        self.counts[message["outcome"]] += 1
        self.outside |= {f"{self.kind} {message['case']}: {what}" for what in message["outside"]}
        # The first of several cases that are equal: memory is the most so far, and never falls.
        self.slowest = max(self.slowest, (message["seconds"], message["case"]), key=lambda pair: pair[0])
        self.memory = max(self.memory, (message["memory"], message["case"]), key=lambda pair: pair[0])
        self.total += message["seconds"]
        if self.log:
            with open(self.log, "a") as out:
                print(json.dumps({"kind": self.kind, **message}), file=out)
        if message["outcome"] == "raised":
            self.failures.append(f"{self.kind} {message['case']}: {message['error']}")
        self.next = message["case"] + 1


# --------------------------------------------------------------------------------------------------------------------
# In the child


def child(kind: str, first: int, count: int, folder: Path) -> None:
    """Run cases, and say what each came to in a line of JSON."""
    import traceback

    sys.path[:0] = [str(HERE.parent)]
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    from fuzz.kinds import run_case, warm_up

    warm_up(kind, folder)
    # Address space, of which libraries take more than memory.
    limit = (4 << 30) + used()[1]
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    outside: list[str] = []
    sys.addaudithook(watcher(str(folder), outside))
    print(json.dumps({"ready": True}), file=out)
    for number in range(first, first + count):
        began = used()[0]
        result: dict[str, Any] = {"case": number}
        try:
            result["outcome"] = run_case(kind, number, folder)
        except (Exception, MemoryError) as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(at.filename).name}:{at.lineno}"
            result |= {"outcome": "raised", "error": f"{type(error).__name__}: {str(error)[:300]!a} at {place}"}
        seconds, result["memory"] = used()
        result["seconds"] = seconds - began
        result["outside"] = list(outside)
        outside.clear()
        print(json.dumps(result), file=out)


def used() -> tuple[float, int]:
    """(seconds of processor time, most bytes of memory so far) of this process and of those that it started."""
    own, started = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = own.ru_utime + own.ru_stime + started.ru_utime + started.ru_stime
    return seconds, max(own.ru_maxrss, started.ru_maxrss) * 1024


def processor_time(pid: int) -> float:
    """Seconds that a process and those that it waited for have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def watcher(folder: str, notes: list[str]) -> Any:
    """An audit hook that notes what is written, made, started or connected to outside of a folder."""
    allowed = (folder, "/dev/null")
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def look(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            if not isinstance(path, (str, bytes)) or not ((mode and set(mode) & set("wax+")) or flags & writing):
                return
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.link", "os.symlink", "os.truncate"):
            path = args[0]
        elif event == "ctypes.dlopen" and str(args[0]).startswith(folder):
            return  # of the engine c, built there
        elif event in ("socket.connect", "os.system", "os.exec", "os.posix_spawn", "ctypes.dlopen"):
            notes.append(f"{event} {str(args)[:100]}")
            return
        elif event == "subprocess.Popen":
            # Only the guarded readers, and the compiler of the engine c.
            if "readerchild" not in str(args[1]) and not (args[1][0] == "cc" and folder in str(args[1])):
                notes.append(f"{event} {str(args)[:100]}")
            return
        else:
            return
        name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else str(path)
        if not os.path.abspath(name).startswith(allowed) and "__pycache__" not in name:
            notes.append(f"{event} {name}")

    return look


if __name__ == "__main__":
    raise SystemExit(main())
