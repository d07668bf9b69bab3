"""What tells of a death among Lava's processes while Lava starts. Runs in Lava's interpreter, and needs none of it."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

LIVENESS = 0.05
"""Seconds between two looks at whether Lava's processes live."""
AGAIN = 1.0
"""Seconds after which a death is told again."""


class LavaDiedError(Exception):
    """One of Lava's processes ended; what it said is in the worker's output."""

    hint = "what Lava printed is below; open a new session to go on"


@contextlib.contextmanager
def deaths_are_told(actors: Callable[[], Any]) -> Iterator[None]:
    """While Lava starts, in the main thread: a death among its processes raises LavaDiedError there.

    Lava itself would wait for that process for ever. The death is told until the main thread has left: where the signal
    comes while Python runs a finaliser or what follows a fork, Python prints the exception and goes on.

    Args:
        actors: those started so far.
    """
    over = threading.Event()

    def tell(number: Any, frame: Any) -> None:
        if not over.is_set():
            raise LavaDiedError("one of Lava's processes ended while Lava started")

    def watch() -> None:
        while not over.wait(LIVENESS):
            if not all(actor.is_alive() for actor in actors()):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
                over.wait(AGAIN)

    former = signal.signal(signal.SIGUSR1, tell)
    watcher = threading.Thread(target=watch, name="deaths", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        try:
            over.set()
        finally:
            over.set()  # again, as a death may have been told within the first call
            watcher.join()
            signal.signal(signal.SIGUSR1, former)
