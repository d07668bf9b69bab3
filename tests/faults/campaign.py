"""Kills at length: `python tests/faults/campaign.py`, from the repository's root; `make faults`.

Processes that train, compile and sweep are killed by SIGKILL, at random moments of their work or at chosen ones
(`traps.py`), and after each kill it is looked at what they left. Some are then gone on with, killed again or not, until
one comes to its end: what it comes to must be what an undisturbed process comes to, and nothing may lie about.

    --kind NAME         one kind; by default all
    --kills N           at random moments, of each kind
    --chosen N          at chosen moments, of each kind that has such
    --first N           number of the first kill: the same number is the same moment, as far as the clock allows
    --seconds N         of each kind; then it ends, wherever it is

The processes are forks of one that has imported everything, so that kills fall into work and not into imports. Sessions
in Lava are killed by `benchmarks/lava_faults.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import pickle
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

if TYPE_CHECKING:
    from faults.scenes import Chosen, Scene

KINDS = ("train", "compile", "sweep")
GO_ON = 0.25
"""How often a killed process is gone on with to the end; else the next one is killed as well."""
MOST_LINES = 400
"""Of what was wrong, written out."""
LONGEST = 1800.0
"""Seconds a process may take that is not killed."""


def main() -> int:
    """Run a campaign; the exit code is 1 where anything was wrong."""
    parser = argparse.ArgumentParser(description="kill processes and look at what they leave")
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--sweeps", type=int, default=10, help="kills of sweeps, as Ray takes long to start")
    parser.add_argument("--chosen", type=int, default=100)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    args = parser.parse_args()
    heads = ("kind", "moments", "kills", "gone on", "wrong", "seconds")
    print("".join(head.rjust(10) for head in heads), flush=True)
    failed = 0
    for kind in args.kind or KINDS:
        # No TemporaryDirectory: a fork that ends would remove it.
        folder = Path(tempfile.mkdtemp(prefix="nvf"))
        try:
            scene = make(kind, folder / "s")
            prepare(scene)
            kills = min(args.kills, args.sweeps) if kind == "sweep" else args.kills
            for moments, count in (("random", kills), ("chosen", args.chosen if scene.moments else 0)):
                if count:
                    failed += Campaign(scene, moments, args.first, count, args.seconds).run()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return int(failed > 0)


def make(kind: str, folder: Path) -> Scene:
    """A scene; what it needs is imported here, before anything is forked."""
    if kind == "train":
        from faults.training import Training

        return Training(folder)
    if kind == "compile":
        from faults.compiling import Compiling

        return Compiling(folder)
    from faults.sweeping import Sweeping

    return Sweeping(folder)


def prepare(scene: Scene) -> None:
    """`scene.prepare` in a fork: what it patches and starts must not be in the processes that follow.

    What it has imported is imported here, so that those need not.
    """
    from faults.forks import start

    path = scene.folder.parent / "prepared"

    def work() -> int:
        scene.prepare()
        path.write_bytes(pickle.dumps((scene.__dict__, list(sys.modules))))
        return 0

    process = start(work, scene.folder.parent)
    if process.wait(LONGEST):
        raise SystemExit(f"{scene.name}: an undisturbed process failed\n{process.log.read_text()[-2000:]}")
    attributes, modules = pickle.loads(path.read_bytes())  # this program wrote it
    scene.__dict__ |= attributes
    for name in modules:
        with contextlib.suppress(Exception):  # what is a module only where something else has made it
            importlib.import_module(name)


class Campaign:
    """So many kills in a scene, at random or chosen moments."""

    def __init__(self, scene: Scene, moments: str, first: int, count: int, seconds: float) -> None:
        self.scene, self.moments, self.first, self.count = scene, moments, first, count
        self.stop = time.monotonic() + seconds
        self.length = 0.0
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self) -> int:
        """All of it; how often something was wrong. Prints a row, and what was wrong."""
        began = time.monotonic()
        self.scene.begin()
        self._measure()
        number = self.first
        while self.seen["kills"] < self.count and time.monotonic() < self.stop:
            self._case(number)
            number += 1
        killed = ", ".join(f"{n} {what}" for what, n in sorted(self.seen.items()) if what not in ("kills", "gone on"))
        row = (
            self.scene.name,
            self.moments,
            self.seen["kills"],
            self.seen["gone on"],
            len(self.wrong),
            f"{time.monotonic() - began:.0f}",
        )
        print("".join(str(each).rjust(10) for each in row) + f"   {killed}", flush=True)
        return len(self.wrong)

    def _measure(self) -> None:
        """How long an undisturbed process takes."""
        began = time.monotonic()
        self._to_the_end("at first")
        self.length = time.monotonic() - began
        self.scene.begin()

    def _case(self, number: int) -> None:
        from faults.forks import start

        scene = self.scene
        rng = random.Random(f"{scene.name} {self.moments} {number}")
        trap_moment: Chosen | None = rng.choice(scene.moments) if self.moments == "chosen" else None
        process = start(lambda: scene.work(trap_moment), scene.folder)
        at = f"{scene.name} {self.moments} {number}"
        if trap_moment is None:
            moment = rng.uniform(0, 1.05 * self.length)
            while not process.ended() and time.monotonic() < process.start_time + moment:
                time.sleep(0.001)
            struck = scene.strike(process, rng)
            code = process.wait(LONGEST)
            at += f", {struck or 'nothing'} after {moment:.2f} s"
        else:
            code = process.wait(LONGEST)
            # A process that was caught once goes on from there, and may not come to the same call again.
            struck = trap_moment[0] if code == -9 and not process.hung else ""
            at += f", {trap_moment[0]} {trap_moment[1]}"
        self._note(at, [f"still runs: {line}" for line in process.survivors()])
        self._note(at, [f"hung for {LONGEST:g} s"] if process.hung else [])
        if not struck:
            # The first one may have paid for more than the others, and moments after the end are none.
            self.length = min(self.length, process.seconds)
            self._note(at, self._ended(code, process.log) + scene.over())
            scene.begin()
            return
        self.seen["kills"] += 1
        self.seen[struck] += 1
        self._note(at, scene.end_problems(struck, code) + scene.look())
        if rng.random() < GO_ON:
            self.seen["gone on"] += 1
            self._to_the_end(at)
            scene.begin()

    def _to_the_end(self, at: str) -> None:
        from faults.forks import start

        process = start(lambda: self.scene.work(None), self.scene.folder)
        code = process.wait(LONGEST)
        wrong = [f"still runs: {line}" for line in process.survivors()]
        wrong += [f"hung for {LONGEST:g} s"] if process.hung else []
        self._note(f"{at}, gone on", wrong + self._ended(code, process.log) + self.scene.over())

    def _ended(self, code: int, log: Path) -> list[str]:
        return [f"exit code {code}: {log.read_text()[-300:]!r}"] if code else []

    def _note(self, at: str, wrong: list[str]) -> None:
        for text in wrong:
            self.wrong.append(f"{at}: {text}")
            # At once: a campaign may be ended before its end.
            print(f"    {self.wrong[-1]}" if len(self.wrong) <= MOST_LINES else ".", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
