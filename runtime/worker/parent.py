"""An interpreter of another environment as a child: calls with arrays in and out, a time limit on each, nothing left.

The parts of this field pin different Pythons, so a vendor's SDK never shares our process. `Worker` starts its
interpreter on a handler file; `runtime.worker.child` is the other side and describes protocol and handlers.

    with Worker(python, "handler.py", name="lava worker", options={"steps": 10}) as worker:
        reply = worker.call("step", arrays={"x": x}, timeout=5.0)

Whatever ends it (a normal close, an exception, a signal, SIGKILL of this process, of the worker or of its guardian),
all processes that descend from it are killed and the shared memory they created is removed.
"""

from __future__ import annotations

import collections
import contextlib
import math
import os
import re
import select
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from nervecord.compiler.files.atomic import lock
from nervecord.compiler.ops import Array
from nervecord.errors import EngineError, NervecordError
from nervecord.runtime.worker import child as wire

STDERR_KEPT = 64 * 1024
"""Bytes of the child's last words."""
GRACE = 3.0
"""Seconds a guardian has to end everything before it is ended itself."""
STARTING_GRACE = 0.3
"""The same for a child that has not said hello: it may be no Python at all."""
_FOLDER = re.compile(r"nvc[0-9a-f]+_[0-9a-f]{8}_")
POLL = 0.1
"""Seconds between two looks at whether the guardian still lives, while waiting for an answer."""


@dataclass(frozen=True, slots=True)
class Versions:
    """Who is on the other side. `numpy` is None where it has none: then no arrays can be exchanged."""

    python: str
    numpy: str | None
    protocol: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What a call gave."""

    values: dict[str, Any]
    arrays: dict[str, Array] = field(default_factory=dict)


class Worker:
    """A handler that runs in another interpreter.

    Args:
        python: the interpreter.
        handler: file that defines `Handler`; see `runtime.worker.child`.
        name: what errors call it.
        options: JSON values for the handler.
        start_timeout: seconds to start the interpreter and load the handler.
        call_timeout: seconds a call may take that names no limit of its own.
        environment: variables added to ours; PYTHON* ones are ignored by the child.

    Raises:
        EngineError: it cannot be started, does not answer in time, or its handler refuses to load.
    """

    def __init__(
        self,
        python: str | os.PathLike[str],
        handler: str | os.PathLike[str],
        *,
        name: str = "worker",
        options: Mapping[str, Any] | None = None,
        start_timeout: float = 60.0,
        call_timeout: float = 30.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.call_timeout = call_timeout
        self._lock = threading.Lock()
        self._calls = 0
        self._child = _Child(Path(python), Path(handler), name, environment or {})
        # At exit and when nobody holds the worker any more; the child does not refer back to us.
        self._finalizer = weakref.finalize(self, self._child.kill)
        try:
            self.versions, self.info = self._start(dict(options or {}), time.monotonic() + start_timeout, start_timeout)
        except BaseException:
            self._child.kill()
            raise

    def _start(self, options: dict[str, Any], deadline: float, limit: float) -> tuple[Versions, dict[str, Any]]:
        doing = "while starting"
        hello, _ = self._receive(deadline, doing, limit)
        if hello.get("kind") != "hello" or hello.get("protocol") != wire.PROTOCOL:
            self._fail(f"speaks protocol {hello.get('protocol')!r}, {wire.PROTOCOL} is needed", "reinstall nervecord")
        self._child.group = int(hello["pid"])
        self._send({"kind": "start", "values": options}, {}, deadline, doing, limit)
        ready, _ = self._receive(deadline, doing, limit)
        if ready.get("kind") == "error":
            self._child.kill()
            raise self._refusal(ready, "could not load its handler")
        versions = Versions(python=hello["python"], numpy=hello["numpy"], protocol=hello["protocol"])
        return versions, dict(ready["values"])

    @property
    def alive(self) -> bool:
        """Whether calls can still be made."""
        return not self._child.ended and self._child.popen.poll() is None

    @property
    def process_ids(self) -> tuple[int, int]:
        """Of the guardian and of the worker, which leads a process group of its own."""
        return self._child.popen.pid, self._child.group

    @property
    def shared_memory_prefix(self) -> str:
        """What the names of its shared-memory segments begin with."""
        return self._child.prefix

    @property
    def stderr(self) -> str:
        """The last of what it and its children printed, to either stream."""
        return self._child.last_words()

    def call(
        self,
        method: str,
        values: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Array] | None = None,
        *,
        timeout: float | None = None,
    ) -> Reply:
        """Call the handler's method.

        Args:
            values: JSON values.
            arrays: bool, integer or float arrays.
            timeout: seconds; the worker's `call_timeout` where None.

        Raises:
            EngineError: the handler raised (the worker stays usable), the worker died, did not answer in time or
                answered nonsense (then it has been ended).
            TypeError, ValueError: an argument cannot be sent; nothing was.
        """
        limit = self.call_timeout if timeout is None else timeout
        doing = f"during {method!r}"
        with self._lock:
            if not self.alive:
                self._fail(f"is no longer running; asked for {method!r}", "open a new one")
            deadline = time.monotonic() + limit
            self._calls += 1
            header = {"kind": "call", "id": self._calls, "method": method, "values": dict(values or {})}
            frame = wire.encode(header, dict(arrays or {}))
            try:
                self._write(frame, deadline, doing, limit)
                answer, out = self._receive(deadline, doing, limit)
            except BaseException:
                # An interrupted exchange, by Ctrl-C too, leaves half a frame in a pipe: no later call could be trusted.
                self._child.kill()
                raise
            if answer.get("id") != self._calls and answer.get("kind") != "error":
                self._fail(f"answered another call {doing}", "this is a defect of its handler")
        if answer.get("kind") == "error":
            raise self._refusal(answer, f"failed {doing}")
        return Reply(values=dict(answer["values"]), arrays=out)

    def close(self, timeout: float = 5.0) -> None:
        """Let the handler close, then end everything. A handler that does not in time is ended all the same."""
        with self._lock:
            if not self._child.ended:
                deadline = time.monotonic() + timeout
                try:
                    self._send({"kind": "close"}, {}, deadline, "while closing", timeout)
                    self._receive(deadline, "while closing", timeout)
                except EngineError:
                    # It is being thrown away: how it failed to say goodbye changes nothing, `_fail` has killed it.
                    return
                finally:
                    self._child.kill()

    def kill(self) -> None:
        """End everything at once."""
        self._child.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._child.kill()

    # ----------------------------------------------------------------------------------------------------------------

    def _send(
        self, header: dict[str, Any], arrays: dict[str, Array], deadline: float, doing: str, limit: float
    ) -> None:
        self._write(wire.encode(header, arrays), deadline, doing, limit)

    def _write(self, frame: Sequence[bytes], deadline: float, doing: str, limit: float) -> None:
        view = memoryview(b"".join(frame))
        while view:
            try:
                view = view[os.write(self._child.request, view) :]
            except BlockingIOError:
                self._wait(self._child.request, select.POLLOUT, deadline, doing, limit)
            except BrokenPipeError:
                self._died(doing)

    def _receive(self, deadline: float, doing: str, limit: float) -> tuple[dict[str, Any], dict[str, Array]]:
        def read(count: int) -> bytearray:
            return self._read(count, deadline, doing, limit)

        try:
            text = read(wire.header_length(bytes(read(wire.PREFIX.size))))
            header, specs = wire.decode_header(bytes(text))
            return header, {name: wire.as_array(read(size), dtype, shape) for name, dtype, shape, size in specs}
        except wire.ProtocolError as error:
            self._fail(f"sent {error} {doing}", "something in it writes to a pipe that is not its own")

    def _read(self, count: int, deadline: float, doing: str, limit: float) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        done = 0
        while done < count:
            try:
                got = os.readv(self._child.reply, [view[done:]])
            except BlockingIOError:
                self._wait(self._child.reply, select.POLLIN, deadline, doing, limit)
                continue
            if not got:
                self._died(doing)
            done += got
        return data

    def _wait(self, fd: int, event: int, deadline: float, doing: str, limit: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        while True:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                self._fail(
                    f"did not answer within {limit:g} s {doing}",
                    "it has been ended; if the machine is merely slow, allow it more time",
                )
            # In slices: if only the guardian is killed, its worker's pipe stays open and silent.
            if poll.poll(math.ceil(1000 * min(remaining, POLL))):
                return
            if self._child.popen.poll() is not None:
                self._died(doing)

    def _died(self, doing: str) -> NoReturn:
        code = self._child.kill(await_exit=True)
        self._fail(f"died {doing} ({_describe(code)})", "its last words are below; open a new one to go on")

    def _fail(self, message: str, hint: str) -> NoReturn:
        """End everything and say so."""
        self._child.kill()
        raise self._with_last_words(EngineError(message, where=self.name, hint=hint))

    def _refusal(self, answer: Mapping[str, Any], what: str) -> NervecordError:
        error = EngineError(f"{what}: {answer['type']}: {answer['message']}", where=self.name, hint=answer.get("hint"))
        if answer.get("traceback"):
            error.add_note(f"in the {self.name}:\n{answer['traceback'].rstrip()}")
        return self._with_last_words(error)

    def _with_last_words(self, error: EngineError) -> EngineError:
        if words := self.stderr.strip():
            error.add_note(f"the {self.name} printed last:\n" + "\n".join(words.splitlines()[-20:]))
        return error


def _describe(code: int | None) -> str:
    if code is None:
        return "its guardian had to be ended"
    number = code - 128 if code > 128 else -code
    if number > 0:
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            return f"exit code {code}"
    return f"exit code {code}"


class _Child:
    """The processes and pipes of one worker, and how to be rid of them."""

    def __init__(self, python: Path, handler: Path, name: str, environment: Mapping[str, str]) -> None:
        self.owner = os.getpid()
        self.group = 0
        self.ended = False
        self._stderr: collections.deque[bytes] = collections.deque()
        self._kill_lock = threading.Lock()
        request_child, self.request = os.pipe()
        self.reply, reply_child = os.pipe()
        life_child, self.life = os.pipe()
        _remove_litter()
        self.prefix, self.folder, locked = _temporary_folder()
        theirs = (request_child, reply_child, life_child, locked)
        arguments = [*map(str, theirs), self.prefix, str(os.getpid()), str(handler.absolute())]
        try:
            # -I: neither our PYTHONPATH nor this folder's modules leak into the vendor's interpreter.
            self.popen = subprocess.Popen(
                [str(python), "-I", "-u", str(Path(wire.__file__).absolute()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=theirs,
                start_new_session=True,
                # What it calls temporary lies in one folder: nobody else would remove it after a SIGKILL.
                env={**os.environ, **environment, wire.MARK: self.prefix, "TMPDIR": str(self.folder)},
            )
        except OSError as error:
            for fd in (self.request, self.reply, self.life):
                os.close(fd)
            wire.remove_litter(self.prefix, str(self.folder))
            raise EngineError(
                f"interpreter {python} cannot be started: {error.strerror}",
                where=name,
                hint="install its environment again, or name the right interpreter",
            ) from None
        finally:
            for fd in theirs:
                os.close(fd)
        os.set_blocking(self.request, False)
        os.set_blocking(self.reply, False)
        self._stop_read, self._stop_write = os.pipe()
        self._drainer = threading.Thread(target=self._drain, name=f"{name} stderr", daemon=True)
        self._drainer.start()

    def _drain(self) -> None:
        """Keep the last of the child's output; without a reader a full pipe would block it."""
        assert self.popen.stdout is not None
        fd = self.popen.stdout.fileno()
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self._stop_read, select.POLLIN)
        size = 0
        # What was printed before the end is read to its end; something of it that lives on is not waited for.
        while any(ready == fd for ready, _ in poll.poll()) and (chunk := os.read(fd, 16384)):
            self._stderr.append(chunk)
            size += len(chunk)
            while size - len(self._stderr[0]) >= STDERR_KEPT:
                size -= len(self._stderr.popleft())

    def last_words(self) -> str:
        return b"".join(list(self._stderr)).decode(errors="replace")[-STDERR_KEPT:]

    def kill(self, *, await_exit: bool = False) -> int | None:
        """End every process, remove their shared memory, close the pipes; returns the exit code. May be called again.

        Args:
            await_exit: the worker seems to have died by itself: let the guardian say of what.
        """
        if os.getpid() != self.owner:  # a fork of the owner that leaves must not take the worker along
            return None
        with self._kill_lock:
            if self.ended:
                return self.popen.returncode
            self.ended = True
            stopped_by_us = not await_exit or not _exits(self.popen, GRACE)
            if stopped_by_us:
                self._ask_guardian()
            if self.popen.returncode is None or self.popen.returncode < 0:
                self._without_guardian()
            wire.remove_litter(self.prefix, str(self.folder))
            os.close(self._stop_write)
            self._drainer.join()
            for fd in (self.request, self.reply, self.life, self._stop_read):
                os.close(fd)
            if self.popen.stdout is not None:
                self.popen.stdout.close()
            return self.popen.returncode

    def _ask_guardian(self) -> None:
        try:
            # A byte, because forks of ours that hold the same pipe keep it from ending.
            os.write(self.life, b"q")
        except BrokenPipeError:
            return
        _exits(self.popen, GRACE + wire.SWEEP_LIMIT if self.group else STARTING_GRACE)

    def _without_guardian(self) -> None:
        """The guardian was killed, is stuck, or never was one: do what it would have done."""
        marked_pids = set(wire.marked(self.prefix))
        wire.end(os.killpg, self.popen.pid)
        self.popen.wait()
        if self.group:
            wire.end(os.killpg, self.group)
        deadline = time.monotonic() + GRACE
        # Killed is not yet gone: those that are still ending are waited for too.
        while ((pids := wire.marked(self.prefix)) or any(map(wire.runs, marked_pids))) and time.monotonic() < deadline:
            marked_pids.update(pids)
            for pid in pids:
                wire.end(os.kill, pid)
            time.sleep(0.002)


def _temporary_folder() -> tuple[str, Path, int]:
    """(name, path, open and locked) of a new folder for a worker's temporary files; its name is the worker's prefix."""
    while True:
        prefix = f"nvc{os.getpid():x}_{os.urandom(4).hex()}_"
        folder = Path(tempfile.gettempdir()) / prefix
        folder.mkdir(mode=0o700)
        try:
            locked = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        lock(locked, wait=True)
        # Until it was locked, another process may have taken it for one that nobody holds.
        if os.fstat(locked).st_nlink:
            return prefix, folder, locked
        os.close(locked)


def _remove_litter() -> None:
    """Remove what workers have left that were killed together with their parents and guardians.

    A guardian holds the lock on its worker's folder as long as it lives.
    """
    with contextlib.suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob("nvc*_"):
            if not _FOLDER.fullmatch(folder.name):
                continue
            with contextlib.suppress(OSError):
                handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
                try:
                    if lock(handle, wait=False):
                        wire.remove_litter(folder.name, str(folder))
                finally:
                    os.close(handle)


def _exits(popen: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        popen.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
