"""The child's side of `runtime.worker.parent`: runs a handler file inside another interpreter.

One plain file that needs nothing but the standard library of Python 3.8 (numpy only once arrays are exchanged), because
the vendors' interpreters are older than ours. The parent imports it too, for the framing: one definition of it.

Two processes:

    guardian  the session's leader, which loads nothing. It waits for the parent to leave or the worker to end, kills
              the worker's process group and whatever else descended from it, removes their shared memory, and leaves
              with the worker's exit code.
    worker    leads a process group of its own, loads the handler and answers calls.

The guardian is a process and not a thread of the worker, because a vendor's call can hold the interpreter's lock for
ever, and because somebody has to be left to remove the shared memory. Linux's parent-death signal is not used: it fires
when the *thread* that started the child ends, and it would take the worker away before its own children.

A frame is MAGIC, the length of the header (uint32, little endian), the header (JSON), then the raw bytes of the arrays
in the header's order: little endian, C order.

A handler file defines a class `Handler`:

    Handler(options)                       from the parent's JSON values; has `info() -> dict` and `close()` if it likes
    handler.NAME(values, arrays)           a call; returns (values, arrays) or None. An exception is handed to the
                                           caller with its `hint` attribute, if any, and the worker stays usable.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import select
import shutil
import signal
import struct
import sys
import threading
import time
import traceback
from typing import Any

PROTOCOL = 1
MAGIC = b"NVC1"
PREFIX = struct.Struct("<4sI")
HEADER_LIMIT = 1 << 24
"""Bytes of a header."""
ARRAYS_LIMIT = 1 << 31
"""Bytes of a frame's arrays."""
DTYPES = ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f4", "<f8")
"""What crosses the pipe; nothing that could hold an object."""
WATCH_PERIOD = 0.5
"""Seconds between two looks at whether the parent process is still the same."""
SWEEP_LIMIT = 5.0
"""Seconds the guardian waits for killed processes to be gone."""
PR_SET_CHILD_SUBREAPER = 36
MARK = "NERVECORD_WORKER"
"""Environment variable that holds the worker's prefix; every process that descends from it inherits it."""


class ProtocolError(Exception):
    """What came through the pipe is no frame."""


# --------------------------------------------------------------------------------------------------------------------
# Framing, shared with the parent


def encode(header: dict[str, Any], arrays: dict[str, Any]) -> list[Any]:
    """The pieces of a frame, to be written one after the other.

    Raises:
        ValueError, TypeError: a value is no JSON (NaN is none), or an array is not of `DTYPES` or too large.
    """
    pieces = []
    specs = []
    total = 0
    for name, array in arrays.items():
        # Through the byte-swapped type and not `ascontiguousarray`, which turns 0-d into 1-d.
        dtype = array.dtype.newbyteorder("<").str
        if dtype not in DTYPES:
            raise TypeError(f"array {name!r} has dtype {array.dtype}, which cannot be sent")
        raw = array.astype(dtype, order="C", copy=False).tobytes()
        total += len(raw)
        pieces.append(raw)
        specs.append([name, dtype, list(array.shape)])
    if total > ARRAYS_LIMIT:
        raise ValueError(f"the arrays have {total} bytes, at most {ARRAYS_LIMIT} can be sent")
    text = json.dumps(dict(header, arrays=specs), allow_nan=False).encode()
    if len(text) > HEADER_LIMIT:
        raise ValueError(f"the values take {len(text)} bytes, at most {HEADER_LIMIT} can be sent")
    return [PREFIX.pack(MAGIC, len(text)), text] + pieces


def header_length(prefix: bytes) -> int:
    """Bytes of the header that follows this prefix.

    Raises:
        ProtocolError: it does not begin a frame.
    """
    magic, length = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise ProtocolError(f"bytes that begin no frame: {prefix!r}")
    if length > HEADER_LIMIT:
        raise ProtocolError(f"a header of {length} bytes, at most {HEADER_LIMIT} are read")
    return int(length)


def decode_header(text: bytes) -> tuple[dict[str, Any], list[tuple[str, str, tuple[int, ...], int]]]:
    """The header, and (name, dtype, shape, bytes) of each array that follows it.

    Raises:
        ProtocolError: it is damaged.
    """
    try:
        header = json.loads(text.decode())
        specs = []
        for name, dtype, shape in header.pop("arrays"):
            if dtype not in DTYPES or any(not isinstance(k, int) or k < 0 for k in shape):
                raise ValueError(f"array {name!r}")
            size = int(dtype[2:])
            for k in shape:
                size *= k
            specs.append((str(name), str(dtype), tuple(shape), size))
        if sum(spec[3] for spec in specs) > ARRAYS_LIMIT:
            raise ValueError("too large")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProtocolError(f"a damaged header ({error}): {text[:80]!r}") from None
    return header, specs


def as_array(raw: Any, dtype: str, shape: tuple[int, ...]) -> Any:
    """An array of these bytes."""
    import numpy

    if not raw:  # which `frombuffer` refuses
        return numpy.empty(shape, dtype=dtype)
    return numpy.frombuffer(raw, dtype=dtype).reshape(shape)


# --------------------------------------------------------------------------------------------------------------------
# The worker


def _read_exactly(fd: int, count: int) -> bytearray | None:
    """None where the pipe ended before."""
    data = bytearray(count)
    view = memoryview(data)
    done = 0
    while done < count:
        got = os.readv(fd, [view[done:]])
        if not got:
            return None
        done += got
    return data


def _read_frame(fd: int) -> tuple[dict[str, Any], dict[str, Any]] | None:
    prefix = _read_exactly(fd, PREFIX.size)
    if prefix is None:
        return None
    text = _read_exactly(fd, header_length(bytes(prefix)))
    if text is None:
        return None
    header, specs = decode_header(bytes(text))
    arrays = {}
    for name, dtype, shape, size in specs:
        raw = _read_exactly(fd, size)
        if raw is None:
            return None
        arrays[name] = as_array(raw, dtype, shape)
    return header, arrays


def _write_frame(fd: int, header: dict[str, Any], arrays: dict[str, Any]) -> None:
    data = memoryview(b"".join(encode(header, arrays)))
    while data:
        data = data[os.write(fd, data) :]


def _failure(error: BaseException) -> dict[str, Any]:
    hint = getattr(error, "hint", None)
    return {
        "kind": "error",
        "type": type(error).__name__,
        "message": str(error),
        "hint": hint if isinstance(hint, str) else None,
        "traceback": traceback.format_exc(),
    }


def _versions() -> dict[str, Any]:
    try:
        import numpy

        version = numpy.__version__
    except ImportError:
        version = None
    return {
        "protocol": PROTOCOL,
        "pid": os.getpid(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "numpy": version,
    }


def _load(path: str, options: dict[str, Any]) -> Any:
    spec = importlib.util.spec_from_file_location("nervecord_handler", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module.Handler(options)


def _answer(handler: Any, header: dict[str, Any], arrays: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    name = header["method"]
    method = None if name.startswith("_") else getattr(handler, name, None)
    if not callable(method):
        return {"kind": "error", "type": "AttributeError", "message": f"the handler has no call {name!r}"}, {}
    try:
        values, out = method(header["values"], arrays) or ({}, {})
        encode({"values": values}, out)  # refused here, where it can still be reported
    except Exception as error:
        return _failure(error), {}
    return {"kind": "reply", "values": values}, out


def _serve(request: int, reply: int, path: str) -> None:
    """Hello, load, ready, then calls until the parent says close or goes away."""
    _write_frame(reply, dict(_versions(), kind="hello"), {})
    frame = _read_frame(request)
    if frame is None:
        return
    try:
        handler = _load(path, frame[0]["values"])
        info = handler.info() if hasattr(handler, "info") else {}
    except Exception as error:
        _write_frame(reply, _failure(error), {})
        return
    _write_frame(reply, {"kind": "ready", "values": info}, {})
    while True:
        frame = _read_frame(request)
        if frame is None:
            return
        header, arrays = frame
        if header["kind"] == "close":
            if hasattr(handler, "close"):
                handler.close()
            _write_frame(reply, {"kind": "closed"}, {})
            return
        answer, out = _answer(handler, header, arrays)
        answer["id"] = header["id"]
        _write_frame(reply, answer, out)


def _watch(guardian: int, prefix: str) -> None:
    """Second line of defence: the guardian was killed, so perhaps nobody else will end this group."""
    while os.getppid() == guardian:
        time.sleep(WATCH_PERIOD)
    _end_others(prefix)
    os.killpg(0, signal.SIGKILL)


def _end_others(prefix: str) -> None:
    for pid in marked(prefix):
        if pid not in (os.getpid(), os.getppid()):
            end(os.kill, pid)
    remove_shared_memory(prefix)


def _name_shared_memory(prefix: str) -> None:
    """Make this process, and those it forks, name their anonymous segments so that they can be found and removed."""
    try:
        from multiprocessing import shared_memory
    except ImportError:  # a build without it can create none
        return
    module: Any = shared_memory
    module._SHM_NAME_PREFIX = "/" + prefix
    module._SHM_SAFE_NAME_LENGTH = 30


def _work(request: int, reply: int, path: str, prefix: str, guardian: int) -> None:
    code = 1
    try:
        _name_shared_memory(prefix)
        threading.Thread(target=_watch, args=(guardian, prefix), daemon=True).start()
        _serve(request, reply, path)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # The guardian does the same and more, unless it has been killed together with the parent.
        _end_others(prefix)
        # Not `sys.exit`: a vendor's exit handlers may wait for ever, and the guardian ends what is left.
        os._exit(code)


# --------------------------------------------------------------------------------------------------------------------
# Ending processes


def marked(prefix: str, mark: str = MARK) -> list[int]:
    """Linux: living processes that descend from the worker of this prefix, even in sessions of their own."""
    token = f"{mark}={prefix}".encode()
    pids = []
    for name in os.listdir("/proc") if sys.platform.startswith("linux") else []:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:  # empty for a zombie
                    if token in file.read().split(b"\0"):
                        pids.append(int(name))
            except OSError:  # gone meanwhile, or another user's
                continue
    return pids


def runs(pid: int) -> bool:
    """Linux: whether a process is there and no zombie; one that is ending has lost its environment already."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):
        return False


def end(kill: Any, pid: int) -> None:
    """`os.kill` or `os.killpg` with SIGKILL what may be gone already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # gone, or (macOS) only its zombies are left
        kill(pid, signal.SIGKILL)


def remove_shared_memory(prefix: str, folder: str = "/dev/shm") -> int:
    """Remove the segments whose names begin so; returns how many there were."""
    try:
        names = [name for name in os.listdir(folder) if name.startswith(prefix)]
    except FileNotFoundError:  # systems without the folder do not list their segments
        return 0
    for name in names:
        try:
            os.unlink(os.path.join(folder, name))
        except FileNotFoundError:  # somebody was faster
            continue
    return len(names)


def remove_litter(prefix: str, folder: str) -> None:
    """Remove what the worker of this prefix may have left: shared memory, and its folder for temporary files."""
    remove_shared_memory(prefix)
    if os.path.basename(folder) == prefix:
        shutil.rmtree(folder, ignore_errors=True)


# --------------------------------------------------------------------------------------------------------------------
# The guardian


def _adopt_orphans() -> None:
    """Linux: processes that lose their parent below us become our children, so that none escapes."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _sweep(worker: int) -> int:
    """Kill the worker's group and every other descendant, reap them; returns the worker's wait status."""
    status = 0
    deadline = time.monotonic() + SWEEP_LIMIT
    while time.monotonic() < deadline:
        end(os.killpg, worker)
        for pid in _children():
            end(os.kill, pid)
        try:
            while True:
                pid, ended = os.waitpid(-1, os.WNOHANG)
                if pid == worker:
                    status = ended
                if pid == 0:
                    break
        except ChildProcessError:
            break
        time.sleep(0.002)
    return status


def _ended(worker: int) -> bool:
    """Whether the worker has ended, without reaping it: its number must stay taken until its group is killed."""
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, worker, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    # macOS before Python 3.13: its exit code is lost to the sweep.
    return os.waitpid(worker, os.WNOHANG)[0] == worker


def _guard(worker: int, life: int, prefix: str, parent: int) -> None:
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    leaving = []
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: leaving.append(True))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    killed = False
    while not leaving and not _ended(worker):
        # The parent's own forks may hold the other end of `life` open, so its process number is looked at as well.
        if os.getppid() != parent:
            killed = True
            break
        ready, _, _ = select.select([life, wake_read], [], [], WATCH_PERIOD)
        if life in ready:
            killed = True
            break
        if wake_read in ready:
            os.read(wake_read, 4096)
    status = _sweep(worker)
    remove_litter(prefix, os.environ.get("TMPDIR", ""))
    if killed or leaving:
        os._exit(0)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def main(arguments: list[str]) -> None:
    """Arguments: descriptors of the request, reply and life pipes and of the locked folder for temporary files,
    shared-memory prefix, parent, handler file."""
    request, reply, life, folder = (int(text) for text in arguments[:4])
    prefix, parent, path = arguments[4], int(arguments[5]), arguments[6]
    _adopt_orphans()
    guardian = os.getpid()
    worker = os.fork()
    if worker == 0:
        os.setpgid(0, 0)
        os.close(life)
        # The lock on the folder is the guardian's: what the worker starts may outlive both.
        os.close(folder)
        for fd in (request, reply):
            os.set_inheritable(fd, False)
        _work(request, reply, path, prefix, guardian)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has done so itself
        os.setpgid(worker, worker)
    os.close(request)
    os.close(reply)
    _guard(worker, life, prefix, parent)


if __name__ == "__main__":
    main(sys.argv[1:])
