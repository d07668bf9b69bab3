"""What every session is: one that is closed, whose calls wait for one another, and whose steps happen whole or not.

A step that is refused or interrupted (Ctrl-C too) leaves state and counts as they were. A process may fork while
another thread steps: the fork waits for the step, so that the child's session is not in the middle of one.
"""

from __future__ import annotations

import copy
import os
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from nervecord.errors import ContractError

T = TypeVar("T")
PATIENCE = 5.0
"""Seconds that a fork waits for steps of other threads; a session that steps for longer serves the parent alone."""


class Closing:
    """A context manager that closes itself and refuses to go on afterwards, and the lock of a session's calls."""

    def __init__(self) -> None:
        self._closed = self._torn = False
        self._lock = _sessions.lock_of(self)

    def close(self) -> None:
        """Further calls are errors."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __copy__(self) -> Self:
        # One that shared its arrays with this one would change its actions.
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        # A copy has a lock of its own, and nothing of a step that is half done.
        with self._lock:
            return {key: copy.deepcopy(value) for key, value in self.__dict__.items() if key != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = _sessions.lock_of(self)

    def _alive(self) -> None:
        if self._closed:
            raise ContractError("is closed", where="session")
        if self._torn:
            raise ContractError(
                "was in the middle of a step when the process forked",
                where="session",
                hint="open another one in the child, or fork between steps",
            )

    # ------------------------------------------------------------------------------------------------ whole or not

    def _standing(self) -> Any:
        """What a step changes, as it is now, for `_stand`."""
        raise NotImplementedError

    def _stand(self, before: Any) -> None:
        """Make it what it was; may be called twice."""
        raise NotImplementedError

    def _whole(self, step: Callable[[], T]) -> T:
        """Do a step; where anything is raised within, it has not happened."""
        before = self._standing()
        try:
            return step()
        except BaseException:
            while True:
                try:
                    self._stand(before)
                    break
                except KeyboardInterrupt:  # the first one is raised below
                    continue
            raise


class _Sessions:
    """All sessions of this process, whose locks a fork takes."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._all: weakref.WeakSet[Closing] = weakref.WeakSet()
        self._taken: list[Any] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._take, after_in_parent=self._give_back, after_in_child=self._begin_anew)

    def lock_of(self, session: Closing) -> Any:
        """A new lock, which the same thread may take twice."""
        with self._guard:
            self._all.add(session)
        return threading.RLock()

    def _take(self) -> None:
        """Wait for what steps. Of sessions that hold one another no order is known: all locks are taken, or none."""
        with self._guard:
            locks = [session._lock for session in self._all if hasattr(session, "_lock")]
        until = time.monotonic() + PATIENCE
        acquired: list[Any] = []
        while len(acquired) < len(locks) and time.monotonic() < until:
            for lock in acquired:
                lock.release()
            acquired = []
            for lock in locks:
                if not lock.acquire(timeout=0.01):
                    break
                acquired.append(lock)
        self._taken = acquired

    def _give_back(self) -> None:
        acquired, self._taken = self._taken, []
        for lock in acquired:
            lock.release()

    def _begin_anew(self) -> None:
        """In the child, where no thread but this one is left."""
        own = set(map(id, self._taken))
        self._give_back()
        self._guard = threading.Lock()
        for session in list(self._all):
            if id(getattr(session, "_lock", None)) not in own:
                session._lock, session._torn = threading.RLock(), True


_sessions = _Sessions()
