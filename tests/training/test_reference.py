"""Declarations of algorithms and simulators: what they name is there, and the reference is made of them."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import pkgutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nervecord.training.algorithms import ALGORITHMS
from nervecord.training.algorithms.base import Asset
from nervecord.training.fields import flag_name
from nervecord.training.learners.teacher import Teacher
from nervecord.training.settings.config import all_fields
from nervecord.training.settings.parts import NetworkConfig, TaskConfig
from nervecord.training.simulators.base import Unsaved
from nervecord.training.simulators.kinds import KINDS


def test_the_document_is_that_of_the_declarations(document: Callable[[str], str]) -> None:
    text = document("training-reference")
    for name in (*ALGORITHMS, *KINDS):
        assert f"| `{name}` |" in text
    arguments = {kind.positional for kind in ALGORITHMS.values()}
    for name in all_fields():
        assert (f"`{flag_name(name)}`" in text) == (name not in arguments)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_what_an_algorithm_declares_is_there(name: str) -> None:
    kind = ALGORITHMS[name]
    assert isinstance(pkgutil.resolve_name(kind.learner_class), type)
    assert (Asset.ACTIONS in kind.assets) == bool(kind.teacher_class)
    if kind.teacher_class:
        assert issubclass(pkgutil.resolve_name(kind.teacher_class), Teacher)
    fields = {f.name for f in dataclasses.fields(kind)}
    assert {source.field for source in kind.sources} <= fields
    names = fields | {f.name for part in (TaskConfig, NetworkConfig) for f in dataclasses.fields(part)}
    assert {name for source in kind.sources for name in source.shared} - {"task", "network"} <= names | {"critic"}
    for source in kind.sources:
        assert any(source.assets <= other.assets for other in ALGORITHMS.values()), "no run holds what it needs"


@pytest.mark.parametrize("name", sorted(KINDS))
def test_what_a_simulator_declares_is_there(name: str) -> None:
    """Its library need not be."""
    module, _, class_name = KINDS[name].simulator.partition(":")
    path = Path(__file__).parents[2].joinpath(*module.split(".")[1:]).with_suffix(".py")
    (simulator,) = [node for node in ast.parse(path.read_text()).body if getattr(node, "name", None) == class_name]
    assert isinstance(simulator, ast.ClassDef)
    if KINDS[name].check:
        assert callable(pkgutil.resolve_name(KINDS[name].check))
    if KINDS[name].auto:
        assert callable(pkgutil.resolve_name(KINDS[name].auto))
    assert set(KINDS[name].takes) <= {"wrappers", "threads", "device"}
    assert KINDS[name].saves in ("always", "some", "never")
    with contextlib.suppress(ModuleNotFoundError):  # a simulator that is not installed
        saves = not issubclass(pkgutil.resolve_name(KINDS[name].simulator), Unsaved)
        assert saves == (KINDS[name].saves != "never")
