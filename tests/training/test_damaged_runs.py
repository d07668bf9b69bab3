"""A damaged run folder: resuming it gives a sentence that names the file and the way out, and never a wait."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from training.test_resume import small

from nervecord.errors import FileFormatError, NervecordError
from nervecord.training.folder import checkpoint
from nervecord.training.folder.run_folder import Metrics
from nervecord.training.run import resume, train

torch = pytest.importorskip("torch")
pytest.importorskip("gymnasium")


@contextlib.contextmanager
def within(seconds: int) -> Iterator[None]:
    """What waits for a pipe would wait for ever."""

    def time_out(*arguments: Any) -> None:
        raise TimeoutError(f"waited for {seconds} s")

    before = signal.signal(signal.SIGALRM, time_out)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run that was stopped: two checkpoints, and its last steps are still to come."""
    out = tmp_path_factory.mktemp("sound")
    config = small(out, "run", steps=3 * 64, checkpoint_every=64, validation_episodes=0, test_episodes=0, record=0)
    folder = train(config).folder
    for name in ("policy.nir", "result.json", "learning.png"):
        (folder / name).unlink(missing_ok=True)
    newest = checkpoint.steps_in(folder / "checkpoints")[-1]
    checkpoint.checkpoint_path(folder / "checkpoints", newest).unlink()
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "run"))


def newest(folder: Path) -> Path:
    return checkpoint.checkpoint_path(folder / "checkpoints", checkpoint.steps_in(folder / "checkpoints")[-1])


def deep() -> bytes:
    return b"\x80\x02" + b"]" * 20_000 + b"a" * 19_999 + b"."


BYTES: dict[str, bytes] = {
    "empty": b"",
    "one byte": b"\x80",
    "a list": pickle.dumps([1], protocol=2),
    "a number": pickle.dumps(1, protocol=2),
    "a class": pickle.dumps(Path, protocol=2),
    "opcodes that take what is not there": b"\x80\x02a.",
    "a stack that ends": b"\x80\x020.",
    "a memo that is not there": b"\x80\x02h\x07.",
    "nested deeply": deep(),
    "text": b"no checkpoint at all\n" * 10,
    "a zip of nothing": b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("content", BYTES.values(), ids=BYTES)
def test_bytes_that_are_no_checkpoint(content: bytes, folder: Path) -> None:
    path = newest(folder)
    path.write_bytes(content)
    with pytest.raises(FileFormatError) as refusal:
        resume(folder)
    assert refusal.value.where == str(path)
    assert refusal.value.hint == "delete it to resume from the one before"
    assert str(refusal.value).isprintable()


def replacement(**parts: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {**content, **parts}


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {key: value for key, value in content.items() if key != name}


def learner(change: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    return lambda content: {**content, "learner": change(content["learner"])}


CONTENTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list of one": lambda content: [1],
    "a tensor": lambda content: torch.zeros(3),
    "numbers as names": lambda content: {1: 2, **content},
    "another step": replacement(step=7),
    "a step that is none": replacement(step=None),
    "no generation": without("generation"),
    "returns that are texts": replacement(returns=["a"]),
    "a best that is none": replacement(best={"step": "x"}),
    "no learner": without("learner"),
    "a learner that is a list": replacement(learner=[1]),
    "a learner of nothing": replacement(learner={}),
    "a learner without an actor": learner(without("actor")),
    "an actor of nothing": learner(replacement(actor={})),
    "an actor of numbers": learner(replacement(actor=3)),
    "an optimiser of nothing": learner(replacement(optimizer={})),
    "moments of texts": learner(replacement(obs_rms={"mean": "a", "variance": "b", "count": "c"})),
    "no random state": without("torch_random"),
    "a random state that is short": replacement(torch_random=torch.zeros(3, dtype=torch.uint8)),
    "a random state that is none": replacement(torch_random=None),
    "a collector of nothing": replacement(collector={}),
    "the first format of nothing": lambda content: {"format": 1},
    "a format that is a list": replacement(format=[[1]]),
}


@pytest.mark.parametrize("change", CONTENTS.values(), ids=CONTENTS)
def test_content_that_no_training_goes_on_from(change: Callable[[dict[str, Any]], Any], folder: Path) -> None:
    path = newest(folder)
    content = torch.load(path, weights_only=True)
    torch.save(change(content), path)
    metrics = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(FileFormatError) as refusal:
        resume(folder)
    assert refusal.value.where == str(path)
    assert refusal.value.hint
    assert str(refusal.value).isprintable()
    assert (folder / "metrics.jsonl").read_bytes() == metrics, "what cannot go on leaves the folder as it was"
    path.unlink()
    assert resume(folder).step == 3 * 64, "the one before is gone on from"


@pytest.mark.parametrize(("form", "advice"), [(1, "train anew"), (checkpoint.FORMAT + 1, "update")])
def test_a_checkpoint_of_another_format_says_which_way_out_there_is(form: int, advice: str, folder: Path) -> None:
    path = newest(folder)
    torch.save({**torch.load(path, weights_only=True), "format": form}, path)
    with pytest.raises(FileFormatError) as refusal:
        resume(folder)
    assert refusal.value.where == str(path)
    assert advice in (refusal.value.hint or "")


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoint"])
def test_a_pipe_is_not_waited_for(name: str, folder: Path) -> None:
    path = newest(folder) if name == "checkpoint" else folder / name
    path.unlink()
    os.mkfifo(path)
    with within(60), pytest.raises(FileFormatError) as refusal:
        resume(folder)
    assert refusal.value.where == str(path)


def test_a_folder_whose_configuration_is_a_pipe_is_no_run(folder: Path) -> None:
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with within(60), pytest.raises(NervecordError, match=r"no config\.json"):
        resume(folder)


ROWS: dict[str, bytes] = {
    "null": b'{"step": null}\n',
    "a text": b'{"step": "64"}\n',
    "a list": b"[1]\n",
    "nothing": b"\n",
    "NULs": bytes(40) + b"\n",
    "no text": b"\xff\xfe\n",
    "deep brackets": b"[" * 100_000 + b"\n",
    "a number of many digits": b'{"step": ' + b"9" * 6000 + b"}\n",
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_rows_that_are_none(row: bytes, folder: Path) -> None:
    path = folder / "metrics.jsonl"
    before = path.read_bytes()
    path.write_bytes(row + before)
    with pytest.raises(FileFormatError) as refusal:
        resume(folder)
    assert refusal.value.where == f"{path}: line 1"
    assert refusal.value.hint == "delete the line to resume"
    assert path.read_bytes() == row + before


def test_a_torn_row_is_dropped(folder: Path) -> None:
    path = folder / "metrics.jsonl"
    first, *_ = path.read_bytes().splitlines(keepends=True)
    step = json.loads(first)["step"]
    for fragment in (b"", b'{"step"', bytes(30)):
        path.write_bytes(first + fragment)
        with Metrics(folder, step=step, tensorboard=False):
            assert path.read_bytes() == first


def test_a_full_disk_under_the_metrics_is_one_sentence(folder: Path) -> None:
    """Also when the file is closed afterwards."""
    with Metrics(folder, step=0, tensorboard=False) as rows:
        with open("/dev/full", "ab", buffering=0) as full:
            os.dup2(full.fileno(), rows._file.fileno())
        with pytest.raises(NervecordError, match="space left"):
            rows.write({"step": 1})
