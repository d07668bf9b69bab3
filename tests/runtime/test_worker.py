"""Real child processes, killed at bad moments: nothing of theirs may be left."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nervecord.errors import EngineError
from nervecord.runtime.worker import child as worker_child
from nervecord.runtime.worker.parent import STDERR_KEPT, Worker

HANDLER = Path(__file__).with_name("worker_handler.py")
SHM = Path("/dev/shm")
PARENT = f"""
import signal, sys, threading, time
from nervecord.runtime.worker.parent import Worker
worker = Worker(sys.executable, {str(HANDLER)!r})
reply = worker.call("litter")
print(worker.shared_memory_prefix, *worker.process_ids, *reply.values["pids"], flush=True)
"""


def is_dead(pid: int) -> bool:
    """Whether no such process runs (a zombie that its new parent has not collected does not)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"


def assert_nothing_left(prefix: str, pids: list[int], within: float = 3.0) -> None:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if all(map(is_dead, pids)) and not list(SHM.glob(f"{prefix}*")):
            return
        time.sleep(0.01)
    assert [pid for pid in pids if not is_dead(pid)] == []
    assert list(SHM.glob(f"{prefix}*")) == []


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker(sys.executable, HANDLER, name="test worker", call_timeout=10.0) as running:
        yield running
    assert_nothing_left(running.shared_memory_prefix, list(running.process_ids))


def littered(worker: Worker) -> list[int]:
    """Processes of a worker with grandchildren and shared memory."""
    reply = worker.call("litter")
    assert len(list(SHM.glob(f"{worker.shared_memory_prefix}*"))) >= len(reply.values["names"])
    return [*worker.process_ids, *reply.values["pids"]]


# --------------------------------------------------------------------------------------------------------------------
# Calls


def test_arrays_and_values_survive_the_pipe(worker: Worker) -> None:
    arrays = {
        "bool": np.array([True, False]),
        "scalar": np.array(-7, dtype=np.int8),
        "empty": np.zeros((3, 0), dtype=np.float32),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
        "big_endian": np.arange(4, dtype=">i8"),
        "large": np.random.default_rng(0).standard_normal((400, 500)),
        "not_finite": np.array([np.nan, np.inf, -0.0]),
    }
    values = {"text": "ü", "number": 0.1, "nested": {"list": [1, None, True]}}
    reply = worker.call("echo", values, arrays)
    assert reply.values == values
    assert list(reply.arrays) == list(arrays)
    for name, array in arrays.items():
        actual = reply.arrays[name]
        assert actual.dtype == array.dtype.newbyteorder("<")
        assert actual.shape == array.shape
        np.testing.assert_array_equal(actual, array)
        assert actual.flags.writeable
    assert worker.call("double", arrays={"x": np.ones(3)}).values == {"sum": 3.0}


def test_the_child_is_isolated_and_says_what_it_is(worker: Worker) -> None:
    assert worker.versions.python == ".".join(map(str, sys.version_info[:3]))
    assert worker.versions.numpy == np.__version__
    assert str(Path(worker_child.__file__).parent) not in worker.info["path"]


@pytest.mark.parametrize("method", ["nonsense", "_hidden", "segments"])
def test_what_is_no_call_is_refused_and_the_worker_stays(worker: Worker, method: str) -> None:
    with pytest.raises(EngineError, match=f"no call '{method}'"):
        worker.call(method)
    assert worker.call("echo", {"a": 1}).values == {"a": 1}


def test_an_exception_is_handed_over_with_hint_and_traceback(worker: Worker) -> None:
    with pytest.raises(EngineError, match=r"'fail': Refusal: no \(please\)") as caught:
        worker.call("fail")
    assert "worker_handler.py" in "".join(caught.value.__notes__)
    with pytest.raises(EngineError, match="TypeError"):
        worker.call("bad_reply")
    assert worker.alive


def test_what_cannot_be_sent_is_refused_before_it_is(worker: Worker) -> None:
    with pytest.raises(TypeError, match="object"):
        worker.call("echo", arrays={"x": np.array([object()])})
    with pytest.raises(ValueError, match="JSON"):
        worker.call("echo", {"x": float("nan")})
    assert worker.call("echo", {"a": 1}).values == {"a": 1}


def test_calls_from_several_threads_do_not_mix(worker: Worker) -> None:
    wrong: list[int] = []

    def ask(k: int) -> None:
        wrong.extend(k for _ in range(20) if worker.call("echo", {"k": k}).values != {"k": k})

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --------------------------------------------------------------------------------------------------------------------
# Faults of the child


@pytest.mark.parametrize("method", ["hang", "hang_holding_the_lock"])
def test_a_hang_is_an_error_within_its_timeout(worker: Worker, method: str) -> None:
    pids = littered(worker)
    start = time.monotonic()
    with pytest.raises(EngineError, match=r"0.3 s .*'hang") as caught:
        worker.call(method, timeout=0.3)
    assert time.monotonic() - start < 1.5
    assert caught.value.hint
    assert_nothing_left(worker.shared_memory_prefix, pids, within=0.5)
    with pytest.raises(EngineError, match="no longer running"):
        worker.call("echo")


def test_a_child_that_does_not_read_is_a_hang_too(worker: Worker) -> None:
    os.kill(worker.process_ids[1], signal.SIGSTOP)
    with pytest.raises(EngineError, match=r"0\.2 s"):
        worker.call("echo", arrays={"x": np.zeros(1 << 20)}, timeout=0.2)


@pytest.mark.parametrize(("call", "message"), [("suicide", "SIGSEGV"), ("leave", "code 1"), ("half_a_frame", "code 3")])
def test_a_death_is_an_error_that_says_how(worker: Worker, call: str, message: str) -> None:
    pids = littered(worker)
    with pytest.raises(EngineError, match=f"'{call}' .*{message}"):
        worker.call(call, {"code": 7})
    assert_nothing_left(worker.shared_memory_prefix, pids, within=0.5)


@pytest.mark.parametrize("victim", ["guardian", "worker", "both"])
def test_kill_9_of_guardian_or_worker(worker: Worker, victim: str) -> None:
    pids = littered(worker)
    for pid in {"guardian": pids[:1], "worker": pids[1:2], "both": pids[:2]}[victim]:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineError, match=r"died|no longer"):
        worker.call("hang", timeout=5.0)
    assert_nothing_left(worker.shared_memory_prefix, pids)


def test_a_stopped_guardian_is_ended(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nervecord.runtime.worker.parent.GRACE", 0.2)
    monkeypatch.setattr(worker_child, "SWEEP_LIMIT", 0.2)
    pids = list(worker.process_ids)
    os.kill(pids[0], signal.SIGSTOP)
    worker.close()
    assert_nothing_left(worker.shared_memory_prefix, pids)


@pytest.mark.parametrize(
    "garbage",
    [b"Hello, world of pipes!", b"NVC1\xff\xff\xff\xff", b"NVC1\x02\x00\x00\x00[]", b"NVC1\x02\x00\x00\x00\xff\xff"],
)
def test_garbage_on_the_pipe(worker: Worker, garbage: bytes) -> None:
    pids = littered(worker)
    with pytest.raises(EngineError, match=r"begin no frame|header"):
        worker.call("garbage", {"bytes": list(garbage)})
    assert_nothing_left(worker.shared_memory_prefix, pids, within=0.5)


@pytest.mark.parametrize(
    "header",
    [
        b"{}",
        b'{"arrays": [["x", "|O8", [1]]]}',
        b'{"arrays": [["x", "<f8", [-1]]]}',
        b'{"arrays": [["x", "<f8", [4611686018427387904]]]}',
        b'{"arrays": 3}',
        b'{"arrays": [["x"]]}',
        b"[1]",
    ],
)
def test_damaged_headers(header: bytes) -> None:
    with pytest.raises(worker_child.ProtocolError):
        worker_child.decode_header(header)


def test_much_output_neither_blocks_nor_grows(worker: Worker) -> None:
    worker.call("shout", {"lines": 5000})
    deadline = time.monotonic() + 2
    while not worker.stderr.endswith("the end\n") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert worker.stderr.endswith("the end\n")
    assert len(worker.stderr) <= STDERR_KEPT
    with pytest.raises(EngineError) as caught:
        worker.call("suicide")
    assert "the end" in "".join(caught.value.__notes__)


# --------------------------------------------------------------------------------------------------------------------
# Start and close


def test_interpreters_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"python .*started"):
        Worker(tmp_path / "python", HANDLER)
    (tmp_path / "text").write_text("not a program")
    with pytest.raises(EngineError, match=r"text.*denied"):
        Worker(tmp_path / "text", HANDLER)
    with pytest.raises(EngineError, match=r"starting .*code 0"):
        Worker(shutil.which("true") or "/bin/true", HANDLER)
    with pytest.raises(EngineError, match="starting") as caught:
        Worker(shutil.which("cat") or "/bin/cat", HANDLER)
    assert "cat" in "".join(caught.value.__notes__)
    (tmp_path / "sleeper").write_text("#!/bin/sh\nsleep 1000\n")
    (tmp_path / "sleeper").chmod(0o755)
    with pytest.raises(EngineError, match=r"0\.3 s "):
        Worker(tmp_path / "sleeper", HANDLER, start_timeout=0.3)


def test_handlers_that_do_not_load(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"handler: Refusal: .*\(please\)"):
        Worker(sys.executable, HANDLER, options={"refuse": True})
    with pytest.raises(EngineError, match="FileNotFoundError"):
        Worker(sys.executable, tmp_path / "none.py")
    with pytest.raises(EngineError, match=r"0\.5 s "):
        Worker(sys.executable, HANDLER, options={"hang": True}, start_timeout=0.5)


def test_a_close_that_hangs_is_cut_short(worker: Worker) -> None:
    pids = littered(worker)  # its handler now hangs in close()
    start = time.monotonic()
    worker.close(timeout=0.2)
    assert time.monotonic() - start < 1.5
    assert_nothing_left(worker.shared_memory_prefix, pids, within=0.5)
    worker.close()


def test_a_forgotten_worker_is_ended() -> None:
    forgotten = Worker(sys.executable, HANDLER)
    prefix, pids = forgotten.shared_memory_prefix, littered(forgotten)
    del forgotten
    gc.collect()
    assert_nothing_left(prefix, pids)


def test_no_descriptor_leaks() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with Worker(sys.executable, HANDLER):
            pass
        with pytest.raises(EngineError):
            Worker("/nonexistent/python", HANDLER)
    assert len(os.listdir("/proc/self/fd")) == before


# --------------------------------------------------------------------------------------------------------------------
# Faults of the parent


def run_parent(end: str) -> tuple[subprocess.Popen[str], str, list[int]]:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT + end], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    prefix, *pids = parent.stdout.readline().split()
    return parent, prefix, [int(pid) for pid in pids]


@pytest.mark.parametrize(
    ("end", "number"),
    [
        ("worker.call('hang', timeout=100)", signal.SIGKILL),
        ("worker.call('hang_holding_the_lock', timeout=100)", signal.SIGKILL),
        ("time.sleep(100)", signal.SIGTERM),
        ("worker.call('hang', timeout=100)", signal.SIGINT),
        # A fork of the parent keeps its ends of the pipes.
        ("import os\nif os.fork() == 0: time.sleep(2); os._exit(0)\ntime.sleep(100)", signal.SIGKILL),
    ],
)
def test_a_killed_parent_leaves_nothing(end: str, number: signal.Signals) -> None:
    parent, prefix, pids = run_parent(end)
    with parent:
        assert len(list(SHM.glob(f"{prefix}*"))) >= 3
        parent.send_signal(number)
        parent.wait(5)
        assert_nothing_left(prefix, pids)


@pytest.mark.parametrize("end", ["", "raise SystemExit(3)", "1 / 0", "with worker: 1 / 0"])
def test_a_parent_that_leaves_without_closing_leaves_nothing(end: str) -> None:
    parent, prefix, pids = run_parent(end)
    with parent:
        parent.wait(5)
        assert_nothing_left(prefix, pids, within=0.5)


def test_a_fork_of_the_parent_that_leaves_does_not_end_the_worker(worker: Worker) -> None:
    child = multiprocessing.get_context("fork").Process(target=gc.collect)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: forking with threads
        child.start()
    child.join(5)
    assert worker.call("echo", {"a": 1}).values == {"a": 1}


def test_parent_and_guardian_killed_at_once() -> None:
    parent, prefix, pids = run_parent("worker.call('hang', timeout=100)")
    with parent:
        os.kill(pids[0], signal.SIGSTOP)
        parent.kill()
        os.kill(pids[0], signal.SIGKILL)
        assert_nothing_left(prefix, pids)


# --------------------------------------------------------------------------------------------------------------------
# Older interpreters


def python38() -> str | None:
    """An interpreter that really is 3.8: the name alone may be a launcher without one."""
    candidates = [
        shutil.which("python3.8"),
        *map(str, Path(os.environ.get("PYENV_ROOT", "~")).glob("versions/3.8.*/bin/python")),
    ]
    for path in filter(None, candidates):
        answer = subprocess.run([path, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True)
        if answer.stdout.strip() == "(3, 8)":
            return path
    return None


def test_the_child_runs_on_python_3_8() -> None:
    path = python38()
    if path is None:
        pytest.skip("no Python 3.8 on this machine")
    with Worker(path, HANDLER) as worker:
        assert worker.versions.python.startswith("3.8.")
        assert worker.call("echo", {"a": [1, 2]}).values == {"a": [1, 2]}
        if worker.versions.numpy is None:
            with pytest.raises(EngineError, match="numpy"):
                worker.call("double", arrays={"x": np.ones(2)})
        else:
            np.testing.assert_array_equal(worker.call("double", arrays={"x": np.ones(2)}).arrays["x"], [2, 2])
    with Worker(path, HANDLER) as worker:
        pids = littered(worker)
        with pytest.raises(EngineError, match=r"0\.2 s"):
            worker.call("hang_holding_the_lock", timeout=0.2)
        assert_nothing_left(worker.shared_memory_prefix, pids, within=0.5)
