"""A sweep whose study lies on a disk that takes no more: `python tests/faults/full_sweep.py [KILOBYTES ...]`, as root.

The disk is a file system in memory, mounted for each size: what Ray writes must not count, so that no limit on the size
of files can stand for it. The sweep must say in a sentence what cannot be written, with exit code 2, call no run failed
and leave each file whole; with room again, the same command must come to the same results.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent)]

from faults.scenes import contents, whole  # noqa: E402 - found by the line above
from faults.sweeping import SEEDS, write_study  # noqa: E402
from faults.training import result  # noqa: E402

SIZES = (4, 8, 24, 64, 128)
"""Kilobytes: from a disk that takes no run folder to one on which the second run ends."""
ROOM = "64m"


def sweep(study: Path) -> tuple[int, str]:
    """(exit code, what it said)."""
    words = [sys.executable, "-m", "nervecord", "sweep", str(study), "--quiet"]
    process = subprocess.run(words, capture_output=True, text=True, cwd=study.parent, check=False)
    return process.returncode, process.stdout + process.stderr


def results(disk: Path) -> dict[str, bytes | None]:
    """The result of each run."""
    return {path.parent.name: result(path.parent) for path in sorted(disk.glob("study/*/result.json"))}


def try_size(size: str, study: Path, disk: Path, expected: dict[str, bytes | None]) -> list[str]:
    """What was wrong on a disk of this size."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
    try:
        code, message = sweep(study)
        wrong = [] if code == 2 and "cannot be written" in message else [f"exit code {code}: {message[-300:]!r}"]
        wrong += [f"{bad!r} in {message[-300:]!r}" for bad in ("Traceback", "defect of nervecord") if bad in message]
        for name, data in contents(disk).items():
            if name.startswith("study/errors/"):
                wrong.append(f"called failed: {name}")
            elif not name.endswith(("/", "/.lock")) and "/logs/" not in name and (text := whole(name, data)):
                wrong.append(text)
        subprocess.run(["mount", "-o", f"remount,size={ROOM}", str(disk)], check=True)
        code, message = sweep(study)
        if code or results(disk) != expected:
            wrong.append(f"with room again: exit code {code}, {sorted(results(disk))}: {message[-300:]!r}")
        return wrong
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def main(sizes: list[str]) -> int:
    """Try disks of these sizes; the exit code is 1 where anything was wrong."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="nvd") as name:
        disk = Path(name) / "disk"
        disk.mkdir()
        study = Path(name) / "study.toml"
        write_study(study, disk)
        code, message = sweep(study)
        expected = results(disk)
        if code or len(expected) != len(SEEDS):
            raise SystemExit(f"with room: exit code {code}: {message}")
        for size in sizes or SIZES:
            wrong = try_size(f"{size}k", study, disk, expected)
            print(f"{size} kB: {len(wrong)} wrong", *wrong, sep="\n    ", flush=True)
            failed += len(wrong)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
