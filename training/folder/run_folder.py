"""The folder of a run: what was asked, what ran, and its result.

Its files:

    config.json       the resolved configuration
    versions.json     versions, platform, git commit, number of processes
    git.diff          uncommitted changes of the source tree, where there are any
    metrics.jsonl     one JSON object for each update, plain text
    events.*          the same for TensorBoard
    checkpoints/      `nervecord.training.folder.checkpoint`
    result.json       the tested return, at the end
    policy.nir        the policy, at the end
    mujoco.log        MuJoCo's warnings, where there were any
    .lock             held while a process trains
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from nervecord.compiler.files.atomic import write_atomically
from nervecord.errors import MissingDependencyError, NervecordError, install_command
from nervecord.runtime.worker import simulator_messages
from nervecord.training.folder.damage import whole_rows
from nervecord.training.folder.records import last_row, number_of, read_record
from nervecord.training.settings.config import TrainConfig
from nervecord.training.simulators.kinds import KINDS

PACKAGES = tuple(
    dict.fromkeys(
        (
            *("nervecord", "numpy", "numba", "torch", "snntorch", "skrl", "mujoco"),
            *(package for kind in KINDS.values() for package in kind.packages),
            "nir",
        )
    )
)
"""Distributions whose versions a run folder records."""

LOCK = ".lock"
"""Held by the process that trains; the file stays, as one that is removed while another process opens it could be held
twice."""

MUJOCO_LOG = "mujoco.log"
"""What MuJoCo warned of."""

DRAFT = ".nervecord-draft"
"""How the name of a run folder that is being made ends."""

WALL_CLOCK = ("seconds", "steps_per_second")
"""Columns of metrics.jsonl that differ between two runs of the same configuration."""


def create(config: TrainConfig, *, sim: str, processes: int = 1, origins: Mapping[str, Any] | None = None) -> Path:
    """Make the folder of a new run and write down its configuration, versions, source, and where networks come from.

    A folder in which a training began and did not come to its first update is made anew.

    Raises:
        NervecordError: the folder exists; nothing in it is touched.
    """
    folder = Path(config.run.out) / config.run_name
    refusal = NervecordError(
        "exists already", where=str(folder), hint="continue it with --resume, or choose another --name"
    )
    if folder.exists():
        if not _is_failed_start(folder):
            raise refusal
        shutil.rmtree(folder)
    _remove_drafts(folder.parent)
    # Filled under another name: a process killed here leaves no run that lacks its configuration. The name is held, so
    # that who comes after such a process can tell its draft from one that is being filled.
    draft = folder.with_name(f".{folder.name[:64]}.{secrets.token_hex(8)}{DRAFT}")
    try:
        draft.mkdir(parents=True)
        with lock(draft):
            write_atomically(draft / "config.json", config.to_json().encode())
            commit, diff = git_state(Path(__file__).resolve().parent)
            record = versions(sim, commit) | {"processes": processes}
            record |= origins or {}
            write_atomically(draft / "versions.json", (json.dumps(record, indent=2) + "\n").encode())
            if diff:
                write_atomically(draft / "git.diff", diff)
            draft.rename(folder)
    except OSError as error:
        if folder.exists():
            raise refusal from error
        raise NervecordError(f"cannot be made: {error.strerror}", where=str(folder)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # where it came to be the folder, there is none
    return folder


def _remove_drafts(parent: Path) -> None:
    """Remove what processes that were killed while they made a run folder have left beside it."""
    with contextlib.suppress(OSError, NervecordError):
        for draft in parent.glob(f".*{DRAFT}"):
            if draft.is_dir() and not draft.is_symlink():
                with lock(draft) as is_locked:
                    if is_locked:
                        shutil.rmtree(draft, ignore_errors=True)


@contextlib.contextmanager
def mujoco_log() -> Iterator[list[Path]]:
    """What MuJoCo writes of its warnings goes to the run folders of the list that this gives; nowhere while it is
    empty."""
    folders: list[Path] = []

    def keep(text: bytes) -> None:
        for folder in folders:
            with open(folder / MUJOCO_LOG, "ab") as file:
                file.write(text)

    with simulator_messages.mujoco_log(keep):
        yield folders


def _is_failed_start(folder: Path) -> bool:
    """Whether a folder holds nothing but the beginning of a run that no process is at."""
    leftovers = {"config.json", "versions.json", "git.diff", "metrics.jsonl", MUJOCO_LOG, LOCK}
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    own = {name for name in names if name in leftovers or name.startswith("events.out.")}
    if "versions.json" not in names or names != own or last_step(folder):
        return False
    with lock(folder) as is_locked:
        return is_locked


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[bool]:
    """Hold the lock of a run folder; gives whether no other process holds it. It ends with the process, however that
    ends.

    Raises:
        NervecordError: its file cannot be made, or its file system keeps no locks.
    """
    from filelock import FileLock, Timeout

    file_lock = FileLock(folder / LOCK, timeout=0)
    try:
        file_lock.acquire()
    except Timeout:
        yield False
        return
    except (OSError, NotImplementedError) as error:
        raise NervecordError(
            f"cannot be locked: {getattr(error, 'strerror', None) or error}",
            where=str(folder / LOCK),
            hint="run folders must lie on a file system that keeps locks",
        ) from None
    try:
        yield True
    finally:
        file_lock.release()


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Train in a run folder alone.

    Raises:
        NervecordError: another process does.
    """
    with lock(folder) as is_locked:
        if not is_locked:
            raise NervecordError(
                "is being trained by another process", where=str(folder), hint="wait for it, or stop it first"
            )
        yield


def open_existing(folder: Path) -> TrainConfig:
    """Configuration of a run that is to be continued.

    Raises:
        NervecordError: the folder holds no run.
    """
    path = folder / "config.json"
    if not os.path.isfile(path):
        raise NervecordError("is no run folder, it has no config.json", where=str(folder))
    return TrainConfig.from_dict(read_record(path), where=str(path))


def reconfigure(folder: Path, config: TrainConfig) -> None:
    """Write the configuration that a run continues with, where it is another."""
    if open_existing(folder) != config:
        write_atomically(folder / "config.json", config.to_json().encode())


def processes(folder: Path) -> int:
    """How many processes train a run."""
    path = folder / "versions.json"
    return int(number_of(read_record(path), "processes", where=str(path))) if path.is_file() else 1


def last_step(folder: Path) -> int:
    """Step of the last whole row of metrics.jsonl; 0 where there is none."""
    row = last_row(folder / "metrics.jsonl")
    return 0 if row is None else int(row["step"])


def versions(sim: str, commit: str | None) -> dict[str, Any]:
    """Versions of what takes part in a training; None for what is not installed."""
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "argv": sys.argv,
        "simulator": sim,
        "git_commit": commit,
        "packages": packages,
    }


def git_state(folder: Path) -> tuple[str | None, bytes]:
    """Commit and uncommitted changes of the tree a folder lies in; (None, b"") outside git or without it."""
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, timeout=30)
        diff = subprocess.run(["git", "diff", "HEAD"], cwd=folder, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None, b""
    if commit.returncode:
        return None, b""
    return commit.stdout.decode().strip(), diff.stdout if not diff.returncode else b""


class Metrics:
    """metrics.jsonl and, on request, TensorBoard events.

    Args:
        folder: the run folder.
        step: rows beyond this step are dropped: a killed run may have written past its last checkpoint.
        tensorboard: write events too.

    Raises:
        MissingDependencyError: events are to be written and TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, step: int, tensorboard: bool) -> None:
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise MissingDependencyError(
                    "TensorBoard is not installed",
                    where="--tensorboard",
                    hint=f"{install_command('train')}, or train with --no-tensorboard",
                ) from error
        self.path = folder / "metrics.jsonl"
        self._cut(step)
        # Without a buffer, which a full disk would be told of once more when it is closed.
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by __exit__
        self._events: Any = None
        if tensorboard:
            # What TensorBoard's thread cannot write ends it, which Python would print; the next call raises it again.
            self._hook, threading.excepthook = threading.excepthook, self._thread_failed
            try:
                with self._events_written():
                    self._events = SummaryWriter(str(folder), purge_step=step + 1 if step else None)
            except BaseException:
                threading.excepthook = self._hook
                self._file.close()
                raise

    def _thread_failed(self, failure: threading.ExceptHookArgs) -> None:
        if not (issubclass(failure.exc_type, OSError) and type(failure.thread).__module__.startswith("tensorboard.")):
            self._hook(failure)

    @contextlib.contextmanager
    def _events_written(self) -> Iterator[None]:
        """A part that writes events: TensorBoard tells of what its thread could not write at one of the next calls."""
        try:
            yield
        except OSError as error:
            raise NervecordError(
                f"cannot be written: {error.strerror}",
                where=f"{self.path.parent}: TensorBoard's events",
                hint="make room, or train with --no-tensorboard",
            ) from error

    def _cut(self, step: int) -> None:
        if not self.path.exists():
            return
        write_atomically(self.path, b"".join(whole_rows(self.path, step)))

    def write(self, row: dict[str, float | int | None]) -> None:
        """Append one row; it holds "step".

        Raises:
            NervecordError: it cannot be written.
        """
        try:
            line = (json.dumps(row) + "\n").encode()
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise NervecordError(f"cannot be written: {error.strerror}", where=str(self.path)) from error
        if self._events is not None:
            with self._events_written():
                for name, value in row.items():
                    if name != "step" and value is not None:
                        self._events.add_scalar(name, value, row["step"])

    def sync(self) -> None:
        """Have all rows on disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise NervecordError(f"cannot be written: {error.strerror}", where=str(self.path)) from error
        if self._events is not None:
            with self._events_written():
                self._events.flush()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._events is not None:
            # Closing writes what is left, and fails once more where that failed before.
            again: list[type[NervecordError]] = [] if error is None else [NervecordError]
            with contextlib.suppress(*again), self._events_written():
                try:
                    self._events.close()
                finally:
                    threading.excepthook = self._hook
