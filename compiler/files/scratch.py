"""Folders for files that are of no use to anybody afterwards: gone with the block, or with the next one after a kill.

Such a folder is locked while its maker lives, as what `atomic` writes is; whoever makes one at the same place removes
those that nobody holds. Its name is short, as sockets lie in some, so a name alone says nothing: what is removed has
our mark in it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from nervecord.compiler.files.atomic import lock

_NAME = re.compile(r"\.?nvc-[0-9a-f]{8}")
_MARK = ".nervecord-scratch"
"""An empty file in each such folder, without which nobody removes it."""


@contextlib.contextmanager
def scratch_folder(parent: str | os.PathLike[str] | None = None, *, hidden: bool = False) -> Iterator[Path]:
    """A new folder that only this user can enter; it is removed at the end, whatever stands in it.

    Args:
        parent: where it is made, by default where the system keeps temporary files.
        hidden: its name begins with a dot.

    Raises:
        OSError: it cannot be made.
    """
    place = Path(parent or tempfile.gettempdir())
    remove_abandoned(place)
    folder, handle = _made(place, "." if hidden else "")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _made(place: Path, dot: str) -> tuple[Path, int]:
    """A new folder, open, locked and marked."""
    while True:
        folder = place / f"{dot}nvc-{secrets.token_hex(4)}"
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        handle = os.open(folder, os.O_RDONLY)
        lock(handle, wait=True)
        try:
            (folder / _MARK).touch(exist_ok=False)
        except OSError:
            os.close(handle)
            folder.rmdir()
            raise
        return folder, handle


def remove_abandoned(place: Path) -> None:
    """Remove the folders there whose makers were killed."""
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if not _NAME.fullmatch(entry.name):
                continue
            with contextlib.suppress(OSError):
                handle = os.open(entry.path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | os.O_DIRECTORY)
                try:
                    if lock(handle, wait=False) and os.path.isfile(os.path.join(entry.path, _MARK)):
                        shutil.rmtree(entry.path, ignore_errors=True)
                finally:
                    os.close(handle)
