"""What is killed: for each kind of process what it works at, what must hold of what it leaves, and how it goes on."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Chosen = tuple[str, int]
"""A trap and the number of the call that it catches."""


class Scene(ABC):
    """Processes of one kind, all at work in one folder.

    Args:
        folder: where they work; it is emptied for each new subject.
    """

    name: str
    moments: tuple[Chosen, ...] = ()
    """What can be caught of an undisturbed process; known once `prepare` has run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:  # noqa: B027 - not every scene needs anything
        """Make what the processes need, and find out what an undisturbed one comes to."""

    def begin(self) -> None:
        """A new subject, on which nothing has worked yet."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)

    @abstractmethod
    def work(self, moment: Chosen | None) -> int:
        """What a process does, called in it: begin, or go on. It dies at the chosen moment, if there is one."""

    def strike(self, process: Any, rng: random.Random) -> str:
        """Kill something at a random moment, the process by default; what was killed, empty where it had ended."""
        return "process" if process.kill() == -9 else ""

    def end_problems(self, struck: str, code: int) -> list[str]:
        """What is wrong with how a process ended of which a part was killed."""
        return []

    @abstractmethod
    def look(self) -> list[str]:
        """What is half, lost or strange of what lies there now, after a kill."""

    @abstractmethod
    def over(self) -> list[str]:
        """What is not as an undisturbed process leaves it, after one has come to its end."""


# --------------------------------------------------------------------------------------------------------------------
# Files


def contents(folder: Path) -> dict[str, bytes]:
    """Files below a folder by their paths in it; empty folders end in a slash."""
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir():
            if not any(path.iterdir()):
                files[f"{name}/"] = b""
        elif path.is_file():
            files[name] = path.read_bytes()
        else:
            files[name] = b"no file"
    return files


def strangers(folder: Path, names: Mapping[str, Any] | set[str]) -> list[str]:
    """Paths below a folder that are none of these."""
    return [f"left behind: {folder.name}/{name}" for name in contents(folder) if name not in names]


def is_draft(name: str) -> bool:
    """Whether a name is one that a killed process may leave until the next one starts."""
    return any(part.endswith((".nervecord-tmp", ".nervecord-draft")) for part in Path(name).parts)


def whole(name: str, data: bytes) -> str:
    """What is wrong with a file that must be whole, by what its name says it is; empty for nothing."""
    try:
        match Path(name).suffix:
            case ".json":
                json.loads(data)
            case ".nervecord":
                damaged = zipfile.ZipFile(io.BytesIO(data)).testzip()
                assert damaged is None, f"its {damaged} is damaged"
            case ".png":
                assert data.startswith(b"\x89PNG"), "no picture"
                assert data.endswith(b"IEND\xaeB`\x82"), "half a picture"
            case ".nir" | ".net":
                import h5py

                with h5py.File(io.BytesIO(data), "r") as file:
                    file.visit(lambda inner: None)
            case ".pt":
                import torch

                torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            case ".jsonl":
                for line in data.split(b"\n")[:-1]:  # what follows the last line break is a row being written
                    json.loads(line)
            case _:
                assert data, "empty"
    except (
        AssertionError,
        ValueError,
        OSError,
        RuntimeError,
        EOFError,
        pickle.UnpicklingError,
        zipfile.BadZipFile,
    ) as error:
        return f"half: {name}: {error}"
    return ""
