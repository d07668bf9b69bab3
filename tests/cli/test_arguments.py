"""Misuse of the Python API: whatever is given where something else belongs is one sentence, and never a traceback."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from policies import random_policy

import nervecord
from nervecord.compiler.arguments import OURS, front
from nervecord.compiler.graph.policy import Policy
from nervecord.errors import NervecordError

FUNCTIONS = sorted(
    name
    for name in nervecord.__all__
    if inspect.isfunction(getattr(nervecord, name)) and name not in ("train", "distill", "sweep", "warmup")
)
JUNK: tuple[Any, ...] = (object(), 3.5, [], [1, [2, 3]], {}, b"x", 5, True, None, lambda: None, np.zeros(3), int)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return random_policy(0, sizes=(3, 4, 2))


@pytest.mark.parametrize("name", [name for name, module in OURS.items() if module])
def test_a_class_that_annotations_name_is_where_the_front_looks_for_it(name: str) -> None:
    assert isinstance(getattr(importlib.import_module(f"nervecord.{OURS[name]}"), name), type)


def test_training_takes_its_configuration_and_nothing_else() -> None:
    pytest.importorskip("torch")

    def train(config: TrainConfig) -> str:  # type: ignore[name-defined]  # noqa: F821 - as `nervecord.train` names it
        return config.run.name

    assert front(train)(nervecord.TrainConfig.of(name="carts")) == "carts"
    with pytest.raises(NervecordError, match="config: is a dict"):
        front(train)({"name": "carts"})


def required(function: Callable[..., Any]) -> list[str]:
    return [
        n
        for n, p in inspect.signature(function).parameters.items()
        if p.default is p.empty and p.kind < 3 and p.kind != p.VAR_POSITIONAL
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_junk_for_a_first_argument(name: str) -> None:
    function = getattr(nervecord, name)
    names = required(function)
    if not names:
        pytest.skip("asks for nothing")
    for junk in JUNK:
        with pytest.raises(NervecordError) as caught:
            function(*(junk for _ in names))
        assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["read", "compile", "open", "stream", "simulate", "inspect", "compare", "run", "target"]
)
def test_junk_for_any_argument(name: str, policy: Policy, tmp_path: Path) -> None:
    """The others are sound. What is right by its type may be taken, or be wrong for another reason."""
    function, path = getattr(nervecord, name), tmp_path / "policy.nir"
    path.write_bytes(nir(policy))
    with nervecord.open(policy) as session:
        sound: dict[str, Any] = {
            "path": path,
            "network": policy,
            "given": policy,
            "session": session,
            "a": policy,
            "b": policy,
            "inputs": np.zeros((2, 3)),
            "target": "reference" if name == "compile" else None,
            "episodes": 1,
            "env": "no such task",
            "targets": ["lava"],
        }
        parameters = inspect.signature(function).parameters
        for argument, parameter in parameters.items():
            if parameter.kind == parameter.VAR_KEYWORD:
                continue
            for junk in JUNK:
                keywords = {n: v for n, v in sound.items() if n in parameters and n != argument and v is not None}
                with contextlib.suppress(NervecordError):
                    function(**keywords, **{argument: junk})


def nir(policy: Policy) -> bytes:
    from nervecord.compiler.nir.file import nir_bytes

    return nir_bytes(policy)


MISUSES: dict[str, tuple[Callable[[], Any], str, str]] = {
    "nothing to compile": (lambda: nervecord.compile(None), "network", "nervecord.read"),  # type: ignore[arg-type]
    "a path to run": (lambda: nervecord.run("x.nervecord"), "session", "nervecord.open"),  # type: ignore[arg-type]
    "a number for a target": (lambda: nervecord.compile("x.nir", target=5), "target", "list_targets"),  # type: ignore[arg-type]
    "a truth value for steps": (lambda: nervecord.stream("x.nir", steps=True), "steps", ""),
    "an argument that is missing": (lambda: nervecord.load(), "load", "load(path)"),  # type: ignore[call-arg]
    "an argument that is unknown": (lambda: nervecord.load(p=3), "load", "load(path)"),  # type: ignore[call-arg]
    "a number for a configuration": (lambda: nervecord.train(3), "config", ""),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", MISUSES)
def test_a_misuse_names_the_argument_and_what_gives_one(name: str) -> None:
    ask, where, hint = MISUSES[name]
    with pytest.raises(NervecordError) as caught:
        ask()
    assert caught.value.where == where
    assert hint in (caught.value.hint or "")


def test_a_list_of_observations_calibrates(policy: Policy) -> None:
    rows = np.random.default_rng(0).normal(size=(20, 3))
    expected = nervecord.compile(policy, "lava", calibration=rows).to_bytes()
    assert nervecord.compile(policy, "lava", calibration=rows.tolist()).to_bytes() == expected


def test_numbers_of_other_libraries_are_numbers() -> None:
    @front
    def takes(count: int, rate: float, flag: bool = False, more: str | None = None) -> tuple[Any, ...]:
        return count, rate, flag, more

    assert takes(np.int64(3), np.float32(2), np.bool_(True)) == (3, 2, True, None)
    assert takes(3, 2) == (3, 2, False, None)
    for wrong in ((2.5, 1.0), (True, 1.0), (1, True), (1, np.zeros(2)), (1, "2"), (1, 2.0, 1), (1, 2.0, False, b"x")):
        with pytest.raises(NervecordError):
            takes(*wrong)


def test_the_front_keeps_names_texts_and_identity() -> None:
    for name in FUNCTIONS:
        function = getattr(nervecord, name)
        assert function.__name__ == name
        assert function.__doc__
        assert getattr(nervecord, name) is function
