"""Sweeps that are killed, and called again: no finished run is lost, none is trained twice, and Ray leaves nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from faults.forks import Fork
from faults.scenes import Chosen, Scene, contents, is_draft, strangers, whole
from faults.training import SETTINGS, TORCHS, result, rows

from nervecord.cli.command import main

SEEDS = (0, 1)


def trials(process: Fork) -> list[int]:
    """Processes of a sweep that train: what holds a run's metrics open."""
    pids = []
    for pid in process.started():
        try:
            names = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:  # gone meanwhile
            continue
        if any(name.endswith("metrics.jsonl") for name in names):
            pids.append(pid)
    return pids


class Sweeping(Scene):
    """`nervecord sweep` of two small runs, one after the other, until it is done."""

    name = "sweep"

    def prepare(self) -> None:
        self.begin()
        assert self.work(None) == 0
        names = [path.name for path in sorted(self.study.iterdir()) if (path / "result.json").exists()]
        assert len(names) == len(SEEDS)
        self.rows = {name: rows(self.study / name) for name in names}
        self.results = {name: result(self.study / name) for name in names}
        self.files = {name for name in contents(self.study) if not name.startswith("logs/")}
        self.files |= {f"{name}/git.diff" for name in names}

    @property
    def study(self) -> Path:
        """The study's folder."""
        return self.folder / "study"

    def begin(self) -> None:
        super().begin()
        self.done: dict[str, int] = {}
        write_study(self.folder / "study.toml", self.folder)

    def work(self, moment: Chosen | None) -> int:
        words = ["sweep", str(self.folder / "study.toml"), "--quiet"]
        code = main(words)
        # A fork works in `cwd`, and what it says is beside that.
        if code == 1 and "Ray did not start" in (Path.cwd().parent / "log").read_text():
            # A busy machine, and what anybody would do then.
            code = main(words)
        return code

    def strike(self, process: Fork, rng: random.Random) -> str:
        """The sweep, or one of its runs: then the sweep itself a little later."""
        training = trials(process)
        if training and rng.random() < 0.5 and not process.ended():
            os.kill(training[0], signal.SIGKILL)
            time.sleep(rng.uniform(0, 1.0))
        return super().strike(process, rng)

    def look(self) -> list[str]:
        wrong = []
        files = contents(self.study) if self.study.exists() else {}
        for name, data in files.items():
            if name.startswith((".ray/", "logs/")) or is_draft(name) or name.endswith(("/.lock", "/")):
                continue
            if name not in self.files and "/checkpoints/" not in name:
                wrong.append(f"strange: {name}")
            wrong += [text for text in [whole(name, data)] if text]
        for name, time_of in self.done.items():
            if (self.study / name / "result.json").stat().st_mtime_ns != time_of:
                wrong.append(f"trained twice: {name}")
        for name, expected in self.results.items():
            path = self.study / name / "result.json"
            if path.exists():
                self.done[name] = path.stat().st_mtime_ns
                if path.read_bytes() != expected:
                    wrong.append(f"lost: the result of {name} is not that of an undisturbed sweep")
        return wrong

    def over(self) -> list[str]:
        wrong = self.look()
        wrong += [line for line in strangers(self.study, self.files) if "/logs/" not in line]
        for name, expected in self.rows.items():
            if rows(self.study / name) != expected:
                wrong.append(f"lost: the metrics of {name} are not those of an undisturbed sweep")
            if name not in self.done:
                wrong.append(f"lost: {name} was not trained")
        for folder in ("cwd", "tmp"):
            wrong += strangers(self.folder / folder, TORCHS)
        return wrong


def write_study(path: Path, out: Path) -> None:
    """A study of two small runs, which trains in `out`."""
    lines = [f"{name} = {value(each)}" for name, each in SETTINGS.items() if name not in ("layers", "threads")]
    grid = f"[grid]\nlayers = {value([list(SETTINGS['layers'])])}\nseeds = {value(list(SEEDS))}"
    path.write_text("\n".join([f'[study]\nname = "study"\nout = "{out}"\n[base]', *lines, grid, ""]))


def value(item: Any) -> str:
    """A value in TOML."""
    return json.dumps(list(item) if isinstance(item, tuple) else item)
