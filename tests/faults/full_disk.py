"""Verbs that write, on a disk that takes no more: `python tests/faults/full_disk.py [VERB ...]`.

The limit on the size of files stands for the disk: the kernel tells of it as it tells of a full one, half way through a
write, and no rights are needed. A verb is called once without it; then with limits at which first nothing, then all but
the largest of its files can be written. Each time the folder holds what the first call wrote, and each time it must say
in a sentence what could not be written, with exit code 2, and leave each file whole: the old one or a new one.
"""

from __future__ import annotations

import importlib.util
import resource
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent)]

from faults.forks import output  # noqa: E402 - found by the line above
from faults.scenes import contents, whole  # noqa: E402

CARTPOLE = ROOT / "zoo" / "cartpole"
POLICY, PROGRAM = str(CARTPOLE / "policy.nir"), str(CARTPOLE / "cartpole.nervecord")
MOST_LIMITS = 5
"""Of a verb."""
VERBS: dict[str, list[str]] = {
    "compile": ["compile", POLICY, "-o", "OUT/p.nervecord", "--dump", "OUT/passes", "--netx", "--emit", "OUT/netx"],
    "compile for c": ["compile", POLICY, "--target", "c", "-o", "OUT/c/"],
    "compile for onnx": ["compile", POLICY, "--target", "onnx", "-o", "OUT/onnx/"],
    "contract": ["contract", "--env", "CartPole-v1", "-o", "OUT/c.toml"],
    "inspect": ["inspect", POLICY, "--html", "OUT/i.html", "--svg", "OUT/i.svg", "--dot", "OUT/i.dot"],
    "compare": ["compare", POLICY, PROGRAM, "--html", "OUT/c.html"],
    "simulate": ["simulate", PROGRAM, "--input", "OUT/../rows.npz", "-o", "OUT/s.npz"],
    "run": ["run", PROGRAM, "--episodes", "1", "--picture", "OUT/r.png", "--html", "OUT/r.html"],
    "run and film": ["run", PROGRAM, "--episodes", "1", "--video", "OUT/r.mp4"],
    "report": ["sweep", "STUDY", "--out", "OUT/../studies", "--report", "OUT/report.md"],
    "train": ["train", "TRAINING", "--out", "OUT", "--name", "run"],
    "distill": ["distill", "teacher_of_poles:push", "TRAINING", "--out", "OUT", "--name", "run"],
    "demo": ["demo", "--steps", "4096", "--episodes", "2", "--out", "OUT"],
}
BEGUN = {"train", "distill", "demo"}
"""Verbs that begin a folder of their own, and leave of it what can be gone on with."""
SAME = {"compile", "compile for c", "compile for onnx", "contract", "simulate", "report"}
"""Verbs that write the same bytes each time: of these a file is whole only if it is as the first call wrote it."""
NEEDS = {
    "compile for onnx": "onnx",
    "inspect": "plotly",
    "compare": "plotly",
    "run": "plotly",
    "run and film": "imageio_ffmpeg",
    "report": "matplotlib",
    "train": "torch",
    "distill": "torch",
    "demo": "torch",
}


def words_of(verb: str, folder: Path) -> list[str]:
    """The words of a verb, in a folder."""
    from faults.training import SETTINGS, flags

    words: list[str] = []
    for word in VERBS[verb]:
        if word == "TRAINING":
            words += flags(SETTINGS)
        else:
            for name, path in (("OUT", "out"), ("STUDY", "study.toml")):
                word = word.replace(name, str(folder / path))
            words.append(word)
    return [*words, "--quiet"]


def prepare(folder: Path) -> None:
    """What verbs read."""
    import numpy as np

    np.savez(folder / "rows.npz", observations=np.zeros((3, 4)))
    (folder / "study.toml").write_text('[study]\nname = "s"\n[base]\nsteps = 64000\n[grid]\nlayers = [[8]]\n')
    (folder / "teacher_of_poles.py").write_text(
        "def push(observations):\n    return observations[:, 2:3] * [-1.0, 1.0]\n"
    )
    sys.path.insert(0, str(folder))


def try_verb(verb: str, folder: Path) -> tuple[int, list[str]]:
    """(limits tried, what was wrong)."""
    from nervecord.cli.command import main

    out = folder / "out"
    words = words_of(verb, folder)

    def work(limit: int | None) -> int:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        return main(words)

    _fill(out, {})
    code, message = output(lambda: work(None), folder)
    if code:
        return 0, [f"{verb}: exit code {code} without a limit: {message[-300:]!r}"]
    old = contents(out)
    sizes = sorted({len(data) for data in old.values()} - {0})
    subset = sizes[:: max(1, len(sizes) // MOST_LIMITS)]
    # Less than one byte less: what measures time is not as long each time.
    limits = [0, *(size * 9 // 10 for size in sorted({*subset, sizes[-1]}))]
    wrong: list[str] = []
    for limit in limits:
        # A run is not trained over another one.
        _fill(out, {} if verb in BEGUN else old)
        code, message = output(lambda limit=limit: work(limit), folder)  # type: ignore[misc]
        files = contents(out) if out.exists() else {}
        at = f"{verb}, {limit} bytes"
        if code != 2 or not ("cannot be" in message or "File too large" in message):
            wrong.append(f"{at}: exit code {code}: {message[-300:]!r}")
        wrong += [
            f"{at}: {bad!r} in {message[-300:]!r}" for bad in ("Traceback", "defect of nervecord") if bad in message
        ]
        for name, data in files.items():
            if name not in old and not (verb in BEGUN and goes_on(name)):
                wrong.append(f"{at}: left {name}")
            elif data != old.get(name) and not name.endswith("/"):
                text = f"half: {name}: not as it was" if verb in SAME else whole(name, data)
                wrong += [f"{at}: {text}"] if text else []
        wrong += [f"{at}: lost {name}" for name in old if verb not in BEGUN and name not in files]
    return len(limits), wrong


def goes_on(name: str) -> bool:
    """Whether a file is what a begun run may leave: checkpoints, the source's changes, events, whose names have the
    time in them; and the demo's own numbered folder."""
    return "/checkpoints" in name or name.endswith("git.diff") or "/events.out." in name or name == "1/"


def _fill(out: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for name, data in files.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def main(verbs: list[str]) -> int:
    """Try verbs, by default all; the exit code is 1 where anything was wrong."""
    folder = Path(tempfile.mkdtemp(prefix="nvd"))
    failed = 0
    try:
        prepare(folder)
        for verb in verbs or VERBS:
            if verb in NEEDS and importlib.util.find_spec(NEEDS[verb]) is None:
                print(f"{verb}: needs {NEEDS[verb]}", flush=True)
                continue
            count, wrong = try_verb(verb, folder)
            print(f"{verb}: {count} limits, {len(wrong)} wrong", *wrong[:20], sep="\n    ", flush=True)
            failed += len(wrong)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
