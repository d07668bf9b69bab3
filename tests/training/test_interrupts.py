"""Being told to stop: once to end well, twice to end at once, and whose signals are left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from nervecord.training.processes.interrupts import told_to_stop

TWICE = """
import signal
from nervecord.training.processes.interrupts import told_to_stop
with told_to_stop() as told:
    signal.raise_signal({number})
    print("told", told.is_set(), flush=True)
    signal.raise_signal({number})
    print("not ended", flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(number: signal.Signals) -> None:
    process = subprocess.run(
        [sys.executable, "-c", TWICE.format(number=int(number))],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert process.stdout == "told True\n"
    assert process.returncode == -number


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_answered_before_answers_again(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with told_to_stop() as stop:
        assert signal.getsignal(number) is not before
        signal.raise_signal(number)
        assert stop.is_set()
    assert signal.getsignal(number) is before


def test_a_signal_that_others_answer_is_left_alone() -> None:
    signals: list[int] = []

    def theirs(number: int, frame: object) -> None:
        signals.append(number)

    before = signal.signal(signal.SIGTERM, theirs)
    try:
        with told_to_stop() as stop:
            signal.raise_signal(signal.SIGTERM)
            assert not stop.is_set()
        assert signals == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is theirs
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_it_answers_none() -> None:
    outcomes: list[bool] = []

    def inside() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with told_to_stop() as stop:
            outcomes.append(signal.getsignal(signal.SIGTERM) is before and not stop.is_set())

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert outcomes == [True]
