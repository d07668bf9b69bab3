"""Being told to stop: Ctrl-C, or the SIGTERM of a scheduler, a container or a service manager."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def told_to_stop() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets, so that the update is finished; a second one stops at once.

    A signal that somebody else answers or ignores is left alone, and all are outside the main thread.
    """
    stop = threading.Event()
    usual: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    answered = [number for number, handler in usual.items() if signal.getsignal(number) is handler]
    if threading.current_thread() is not threading.main_thread():
        answered = []

    def give_back() -> None:
        for number in answered:
            signal.signal(number, usual[number])

    def tell(number: int, frame: Any) -> None:
        stop.set()
        give_back()

    for number in answered:
        signal.signal(number, tell)
    try:
        yield stop
    finally:
        give_back()
