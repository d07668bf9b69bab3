"""The public functions' arguments, checked by their own annotations before anything is done with them.

What a caller gives is compared with what the signature says, so that a wrong type is one sentence with a hint and not
an AttributeError from far within. Nothing is imported for it: a value is no instance of a class whose module nobody has
loaded.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from nervecord.errors import ArgumentError

F = TypeVar("F", bound=Callable[..., Any])
Test = Callable[[Any], bool]

HINTS = {
    "Session": "nervecord.open(program) gives a session",
    "Source": "nervecord.read(path) or nervecord.load(path) gives one; the path itself will do as well",
    "Graph": "nervecord.read(path) gives one; the path itself will do as well",
    "Policy": "nervecord.read(path) gives one; the path itself will do as well",
    "Program": "nervecord.compile(policy) gives one; the path itself will do as well",
    "Target": "name one of nervecord.list_targets(), or take what nervecord.target(...) gives",
    "Array": "an array of numpy, such as np.load gives",
    "Result": "nervecord.run(session, record=True) gives one",
}
"""Name of a type -> where one comes from."""
WORDS = {"Source": "a graph, policy or program or the path of one", "StrPath": "a path", "Array": "an array"}
"""Names of this package's own that a message says in words."""
_BY_ATTRIBUTE = {
    "Session": "step",
    "StreamSession": "step",
    "Target": "spec",
    "Array": "__array__",
    "NDArray": "__array__",
    "ndarray": "__array__",
    "Callable": "__call__",
    "PathLike": "__fspath__",
}
"""Protocols, and what is known by one attribute."""


def front(function: F) -> F:
    """The function, which refuses arguments of other types than its annotations say.

    Raises:
        ArgumentError: of the returned function: an argument is missing, unknown, or of another type.
    """

    @functools.wraps(function)
    def call(*positional: Any, **named: Any) -> Any:
        _check(function, positional, named)
        return function(*positional, **named)

    return cast(F, call)


def _check(function: Callable[..., Any], positional: tuple[Any, ...], named: Mapping[str, Any]) -> None:
    signature, tests = _form(function)
    try:
        bound = signature.bind(*positional, **named)
    except TypeError as error:
        raise ArgumentError(
            str(error), where=function.__name__, hint=f"{function.__name__}({', '.join(signature.parameters)})"
        ) from None
    for name, value in bound.arguments.items():
        test, kind, hint = tests.get(name, (None, "", ""))
        if test is not None and not test(value):
            raise ArgumentError(f"is {_said(value)}, and {kind} is needed", where=name, hint=hint or None)


def _said(value: Any) -> str:
    """A value by its type, and itself where it is short."""
    if value is None:
        return "None"
    text = repr(value) if isinstance(value, (str, int, float, bool)) else ""
    kind = type(value).__name__
    return f"the {kind} {text}" if text and len(text) <= 60 else f"a {kind}"


@functools.cache
def _form(function: Callable[..., Any]) -> tuple[Any, dict[str, tuple[Test, str, str]]]:
    """The signature, and for each annotated argument its test, what is needed, and a hint."""
    import ast
    import inspect
    import re

    signature = inspect.signature(function)
    tests = {}
    for name, parameter in signature.parameters.items():
        annotation = parameter.annotation
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or not isinstance(annotation, str):
            continue
        tree = ast.parse(annotation, mode="eval").body
        names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
        hint = next((HINTS[name] for name in names if name in HINTS), "")
        words = re.sub(r"\w+", lambda word: WORDS.get(word[0], word[0]), annotation)
        tests[name] = (_test(tree, function.__globals__), words, hint)
    return signature, tests


def _test(tree: Any, scope: Mapping[str, Any]) -> Test:
    """The test that an annotation says; what it does not know lets everything through."""
    import ast

    match tree:
        case ast.BinOp(left=left, right=right):
            tests = (_test(left, scope), _test(right, scope))
            return lambda value: any(test(value) for test in tests)
        case ast.Constant(value=None):
            return lambda value: value is None
        case ast.Subscript(value=base):
            return _test(base, scope)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return _named(name, scope)
    return lambda value: True


def _named(name: str, scope: Mapping[str, Any]) -> Test:
    match name:
        case "Any":
            return lambda value: True
        case "int":
            return lambda value: _is_number(value, "__index__")
        case "float":
            return lambda value: _is_number(value, "__float__")
        case "bool":
            return lambda value: isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
        case "str" | "dict" | "list" | "tuple":
            kind: type = {"str": str, "dict": dict, "list": list, "tuple": tuple}[name]
            return lambda value: isinstance(value, kind)
        case "Mapping":
            return lambda value: isinstance(value, Mapping)
        case "Sequence":
            return lambda value: isinstance(value, (list, tuple))
        case "Mode":  # a choice of words, which the function knows
            return lambda value: isinstance(value, str)
        case "StrPath":
            return lambda value: isinstance(value, str) or hasattr(value, "__fspath__")
        case "Source":
            tests = [_named(each, scope) for each in ("Graph", "Policy", "Program", "StrPath")]
            return lambda value: any(test(value) for test in tests)
        case "Array" | "NDArray" | "ndarray":
            return lambda value: hasattr(value, "__array__") or isinstance(value, (list, tuple))
    if name in _BY_ATTRIBUTE:
        return lambda value: hasattr(value, _BY_ATTRIBUTE[name]) and (name == "Callable" or not isinstance(value, type))
    return lambda value: _is_instance(value, name, scope)


def _is_number(value: Any, attribute: str) -> bool:
    return not isinstance(value, bool) and hasattr(type(value), attribute) and not getattr(value, "shape", ())


def _is_instance(value: Any, name: str, scope: Mapping[str, Any]) -> bool:
    """Whether a value is of the class of that name; of a name that is no class everything is."""
    kind = scope.get(name) or _loaded(name)
    if isinstance(kind, type):
        return isinstance(value, kind)
    # A class that nobody has imported has no instances; a name of anything else says nothing here.
    return name not in OURS or kind is not None


OURS = {
    "Graph": "compiler.graph.graph",
    "Policy": "compiler.graph.policy",
    "Program": "compiler.files.program",
    "Result": "runtime.result",
    "RealTime": "runtime.realtime",
    "TrainConfig": "training.settings.config",
    "Contract": "compiler.graph.contract",
    "TargetSpec": "compiler.target.protocol",
    "Study": "training.sweeps.study",
    "Path": "",
    "Schedule": "compiler.graph.schedule",
}
"""Classes that annotations name and the front does not import -> their modules."""


def _loaded(name: str) -> Any:
    module = OURS.get(name)
    if module is None:
        return None
    if not module:
        import pathlib

        return getattr(pathlib, name, None)
    return getattr(sys.modules.get(f"nervecord.{module}"), name, None)
