"""The serial line to a board that is unplugged, silent, endless or none: always an engine that ended, never a wait."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import random_policy

import nervecord
from nervecord.errors import EngineError

pytest.importorskip("amaranth")
from nervecord.targets.fpga import driver

PATIENCE = 0.2


@pytest.fixture
def ends() -> Iterator[tuple[int, str]]:
    """The board's end of a line, and the path of the host's."""
    board, host = os.openpty()
    tty.setraw(board)
    path = os.ttyname(host)
    yield board, path
    for end in (board, host):
        with contextlib.suppress(OSError):
            os.close(end)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("name", ["nothing", "a\0b", ".", "/dev/null", "pipe"])
def test_what_is_no_port_is_refused_and_closed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    before = descriptors()
    with pytest.raises(EngineError, match="cannot be opened"):
        driver.Port(name)
    assert descriptors() == before


def test_a_board_that_is_unplugged_ends_the_engine(ends: tuple[int, str]) -> None:
    board, path = ends
    port = driver.Port(path, PATIENCE)
    os.close(board)
    for act in (lambda: port.read(1), lambda: port.write(b"V"), port.drop):
        with pytest.raises(EngineError, match=r"gone|bytes"):
            act()
    port.close()


def test_a_board_that_takes_nothing_is_not_waited_for(ends: tuple[int, str]) -> None:
    port = driver.Port(ends[1], PATIENCE)
    with pytest.raises(EngineError, match="the board took"):
        port.write(bytes(1 << 20))
    port.close()


def test_a_board_that_does_not_stop_is_not_listened_to(ends: tuple[int, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ENDLESS", 3)
    board, path = ends
    port, stop = driver.Port(path, PATIENCE), threading.Event()

    def babble() -> None:
        while not stop.wait(PATIENCE / 20):
            os.write(board, b"e")

    thread = threading.Thread(target=babble)
    thread.start()
    start = time.monotonic()
    with pytest.raises(EngineError, match="unasked"):
        port.drop()
    assert time.monotonic() - start >= 3 * PATIENCE
    stop.set()
    thread.join()
    port.close()


@pytest.mark.parametrize("answer", [b"", b"v" + bytes(40), b"e\xff", b"x"])
def test_a_board_that_is_none_is_named_and_its_line_closed(answer: bytes, ends: tuple[int, str]) -> None:
    board, path = ends
    program = nervecord.compile(random_policy(1, sizes=(3, 4, 2), steps=2), "fpga")

    def reply() -> Any:
        os.read(board, 100)
        os.write(board, answer)

    thread = threading.Thread(target=reply)
    thread.start()
    before = descriptors()
    with pytest.raises(EngineError):
        driver.BoardSession(program, path, patience=1.0).step(np.zeros(3))
    assert descriptors() == before
    thread.join()
