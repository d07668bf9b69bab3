"""Trainings that are killed, and resumed: what they come to must equal, to the bit, what an undisturbed one does."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Any

from faults.scenes import Chosen, Scene, contents, is_draft, strangers, whole
from faults.traps import TRAINING, TRAPS, set_traps

from nervecord.cli.command import main
from nervecord.training.folder.checkpoint import steps_in
from nervecord.training.folder.run_folder import WALL_CLOCK

SETTINGS: dict[str, Any] = {
    "env": "CartPole-v1",
    "layers": (8,),
    "critic": (8,),
    "steps": 512,
    "num_envs": 4,
    "rollout": 8,
    "minibatch": 16,
    "epochs": 1,
    "steps_per_action": 2,
    "checkpoint_every": 128,
    "validate_from": 0.4,
    "validation_episodes": 1,
    "test_episodes": 1,
    "record": 64,
    "tensorboard": False,
    "exact_resume": True,
    "threads": 1,
}
"""A training of a second or two: 16 updates, of which every fourth brings a checkpoint."""
NAME = "run"
TORCHS = {f"torchinductor_{getpass.getuser()}/"}
"""An empty folder that torch makes among the temporary files when its compiler is imported."""
TRANSIENT = {f"{NAME}/.lock"}
"""What a killed training may leave until it is resumed."""
SOURCE = f"{NAME}/git.diff"
"""There where the source tree has changes when a run begins, which this campaign has no part in."""


def rows(folder: Path) -> list[dict[str, Any]]:
    """The whole rows of a run's metrics, without the clock."""
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [{name: value for name, value in json.loads(line).items() if name not in WALL_CLOCK} for line in lines]


def result(folder: Path) -> bytes | None:
    """The text of a run's result; None where it is not finished."""
    path = folder / "result.json"
    return path.read_bytes() if path.exists() else None


def learnt(folder: Path) -> str:
    """A hash of the newest checkpoint's networks and statistics; empty where there is none."""
    from nervecord.training.folder.checkpoint import load
    from nervecord.training.folder.start import digest

    checkpoints = folder / "checkpoints"
    return digest(load(checkpoints)["learner"]) if steps_in(checkpoints) else ""


class Training(Scene):
    """`nervecord train`, then `nervecord train --resume` until it is done."""

    name = "train"

    def prepare(self) -> None:
        self.begin()
        calls = set_traps(None)
        assert self.work(None) == 0
        self.rows, self.result, self.learnt = rows(self.run), result(self.run), learnt(self.run)
        self.files = {*contents(self.out), SOURCE}
        self.moments = tuple((trap, k + 1) for trap in (*TRAPS, *TRAINING) for k in range(calls[trap]))

    @property
    def out(self) -> Path:
        """The folder of run folders."""
        return self.folder / "runs"

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.out / NAME

    def begin(self) -> None:
        super().begin()
        self.newest = 0

    def work(self, moment: Chosen | None) -> int:
        if moment is not None:
            set_traps(moment)
        if (self.run / "config.json").exists():
            return main(["train", "--resume", str(self.run), "--quiet"])
        return main(["train", *flags(SETTINGS), "--out", str(self.out), "--name", NAME, "--quiet"])

    def look(self) -> list[str]:
        wrong = []
        files = contents(self.out) if self.out.exists() else {}
        # A run folder appears whole: an empty one, or one without its configuration, could not be gone on with.
        if self.run.exists() and not {f"{NAME}/config.json", f"{NAME}/versions.json"} <= set(files):
            wrong.append(f"half: a run folder of {sorted(files)}")
        for name, data in files.items():
            if is_draft(name) or name in TRANSIENT:
                continue
            if name.rstrip("/") not in self.files and not name.startswith(f"{NAME}/checkpoints"):
                wrong.append(f"strange: {name}")
            elif not name.endswith("/"):
                wrong += [text for text in [whole(name, data)] if text]
        newest = max(steps_in(self.run / "checkpoints"), default=0)
        if newest < self.newest:
            wrong.append(f"lost: the checkpoint of step {self.newest}, the newest is {newest} now")
        self.newest = newest
        metrics = [row for row in rows(self.run) if row["step"] <= newest]
        if metrics != [row for row in self.rows if row["step"] <= newest]:
            wrong.append(f"lost: rows up to the checkpoint of step {newest}")
        return wrong

    def over(self) -> list[str]:
        wrong = strangers(self.out, self.files)
        wrong += [f"lost: {name}" for name in self.files - set(contents(self.out)) if name != SOURCE]
        if rows(self.run) != self.rows:
            wrong.append("lost: the metrics are not those of an undisturbed training")
        if learnt(self.run) != self.learnt:
            wrong.append("lost: the networks are not those of an undisturbed training")
        if result(self.run) != self.result:
            wrong.append("lost: the result is not that of an undisturbed training")
        for folder in ("cwd", "tmp"):
            wrong += strangers(self.folder / folder, TORCHS)
        return wrong


def flags(settings: dict[str, Any]) -> list[str]:
    """Settings as flags."""
    words = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{flag}", *map(str, values)]
    return words
