"""Without the packages of the extra fpga, what needs them says so, and what does not goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from policies import random_policy

import nervecord
from nervecord.compiler.files.program import Program
from nervecord.errors import MissingDependencyError

NEEDS: dict[str, Callable[[Program, Path], Any]] = {
    "a simulated session": lambda program, folder: nervecord.open(program, engine="fpga-sim"),
    "a board": lambda program, folder: nervecord.open(program, engine="fpga", port=folder / "tty"),
    "files": lambda program, folder: nervecord.emit(program, folder / "out"),
}


@pytest.mark.parametrize("what", NEEDS)
def test_what_needs_amaranth_says_so(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = nervecord.compile(random_policy(1), "fpga")
    monkeypatch.setitem(sys.modules, "amaranth", None)
    with pytest.raises(MissingDependencyError, match="amaranth"):
        NEEDS[what](program, tmp_path)


def test_the_emulator_needs_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "amaranth", None)
    with nervecord.open(nervecord.compile(random_policy(1), "fpga"), engine="emulator") as session:
        assert session.engine == "emulator"
