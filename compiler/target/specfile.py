"""Reads a target's spec.toml, strictly.

A statement about hardware is a table {value, source, confidence}. A number that stands alone is the user's own, and
says so wherever it is shown. Everything that is wrong with a file is said at once, each with its key; what follows from
[arithmetic] need not be said again (`compiler.target.implied`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nervecord.compiler import schema
from nervecord.compiler.arithmetic import KEYS, Arithmetic, value_problems, with_defaults
from nervecord.compiler.files.regular import read_text
from nervecord.compiler.keys import UNLIMITED, UNLIMITED_WORD, Key, keys_of, plain, table_problems
from nervecord.compiler.ops import OPS, Level
from nervecord.compiler.target import implied
from nervecord.compiler.target.protocol import (
    Behaviour,
    Confidence,
    Convolution,
    Energy,
    Fact,
    Limits,
    Packing,
    TargetSpec,
)
from nervecord.errors import FileFormatError

MAXIMUM_BYTES = 1 << 20
"""A larger file is refused."""
MOST_TOLD = 50
"""Things that are wrong with a file are told one by one, of more the first ones."""
FACTS = ("value", "source", "confidence")
SOURCED: tuple[Confidence, ...] = ("exact", "second-hand", "conflicting")
"""Confidences of what somebody published, which need a source."""
TEXTS = {
    "name": Key("name", str, f"the target's name, as programs and reports show it: {schema.TARGET_NAME_RULE}"),
    "title": Key("title", str, "the name for people", like="name"),
    "summary": Key("summary", str, "what the chip is, in a sentence", default="A chip that a file describes."),
    "not_checked": Key("not_checked", tuple[str, ...], "what no verdict covers, each a sentence", default=()),
}
"""Keys that stand before the sections."""
WORDS = {
    "summary": Key("summary", str, "the arithmetic in words", default="as its file states it"),
    "source": Key("source", str, "where it is from", default=""),
    "confidence": Key("confidence", Confidence, "how far it is to be trusted", default="given"),
}
"""Keys of [arithmetic] beside the numbers and choices of `compiler.arithmetic`."""
SECTIONS = ("engines", "arithmetic", "nodes", "behaviour", "limits", "convolution", "packing", "energy")


def read_spec(path: Path, *, own: bool = False) -> TargetSpec:
    """Read a spec.toml.

    Args:
        own: it is a user's file, and no installed target's.

    Raises:
        FileFormatError: it cannot be read, a key is unknown or missing, a value of another type or out of bounds, a
            published number stands without a source, or something contradicts the arithmetic; all of it at once.
    """
    where = schema.printable(str(path))
    content = read_text(path, where, MAXIMUM_BYTES, "target's file")
    return spec_from_dict(
        schema.from_toml(content, where), where=where, file=schema.printable(path.name) if own else ""
    )


def spec_from_dict(data: Mapping[str, Any], *, where: str = "spec", file: str = "") -> TargetSpec:
    """A spec from the dictionary of its TOML; see `read_spec`. file: the user's that it is of."""
    reading = _Reading(file)
    spec = reading.spec(data)
    if spec is not None:
        spec, wrong = implied.with_implied(spec)
        reading.wrong += wrong
    if len(reading.wrong) == 1:
        raise FileFormatError(reading.wrong[0], where=where)
    if spec is None or reading.wrong:
        error = FileFormatError(f"{len(reading.wrong)} things are wrong", where=where)
        for problem in reading.wrong[:MOST_TOLD]:
            error.add_note(problem)
        if len(reading.wrong) > MOST_TOLD:
            error.add_note(f"and {len(reading.wrong) - MOST_TOLD} more")
        raise error
    return spec


def trust(confidence: str) -> str:
    """A confidence in words, as people read it."""
    return "the user's own" if confidence == "given" else confidence


def spec_to_dict(spec: TargetSpec) -> dict[str, Any]:
    """What `spec_from_dict` makes the spec of, for a program that carries it; plain JSON types."""
    arithmetic: Any = spec.arithmetic
    if spec.integers is not None:
        words = {"source": spec.arithmetic_source, "confidence": spec.arithmetic_confidence}
        arithmetic = {"summary": spec.arithmetic, **words, **spec.integers.to_dict()}
    sections = {
        section: {
            f.name: {name: plain(getattr(fact, name)) for name in FACTS}
            for f in dataclasses.fields(holder)
            if (fact := getattr(holder, f.name)).known
        }
        for section in TargetSpec.SECTIONS
        if (holder := getattr(spec, section)) is not None
    }
    tables = {
        name: {key: plain(value) for key, value in dataclasses.asdict(table).items()}
        for name in ("packing", "energy")
        if (table := getattr(spec, name)) is not None
    }
    nodes = {level.value: list(spec.kinds(level)) for level in Level}
    return {
        **{name: plain(getattr(spec, name)) for name in TEXTS},
        "arithmetic": arithmetic,
        "nodes": {**nodes, "source": spec.nodes_source, "confidence": spec.nodes_confidence},
        **sections,
        **tables,
    }


class _Reading:
    """A spec.toml that is being read, and what is wrong with it. What is wrong is None until all of it is told."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.source = f"the user's file {file}" if file else "the target's file"
        """Of what the file says without a source."""
        self.wrong: list[str] = []

    def spec(self, data: Mapping[str, Any]) -> TargetSpec | None:
        self.wrong += table_problems("", data, (*TEXTS, *SECTIONS), ("name",))
        texts = self.values("", TEXTS, data)
        if isinstance(texts.get("name"), str) and not schema.TARGET_NAME.fullmatch(texts["name"]):
            self.wrong.append(f"name: {schema.printable(repr(texts['name']))} is no name ({schema.TARGET_NAME_RULE})")
        texts["title"] = texts.get("title") or texts.get("name")
        summary, integers, source, confidence = self.arithmetic(data.get("arithmetic", "not stated"))
        values: dict[str, Any] = {
            name: self.section(name, kind, data.get(name, {}))
            for name, kind in (("behaviour", Behaviour), ("limits", Limits))
        }
        for name, kind in (("convolution", Convolution), ("packing", Packing), ("energy", Energy)):
            values[name] = None
            if name in data:
                read = self.section if kind is Convolution else self.record
                values[name] = read(name, kind, data[name], like=texts)
        if values["convolution"] is not None and not self.wrong:
            self.paired(values["convolution"])
        nodes: Any = data.get("nodes")
        if nodes is None and integers is not None:
            nodes = implied.nodes(integers, source, confidence)
        elif nodes is None and not self.computes(data):
            self.wrong.append("nodes: is missing, and follows from an [arithmetic] alone")
        kinds = {} if nodes is None else self.nodes(nodes)
        engines = Key("engines", tuple[str, ...], "", default=())
        named = self.values("", {"engines": engines}, data)["engines"]
        if self.wrong:
            return None
        return TargetSpec(
            **texts,
            engines=named,
            arithmetic=summary,
            integers=integers,
            nodes=kinds,
            nodes_source=nodes["source"],
            nodes_confidence=nodes["confidence"],
            file=self.file,
            arithmetic_source=source,
            arithmetic_confidence=confidence,
            **values,
        )

    def paired(self, convolution: Convolution) -> None:
        """Memories of layers come in pairs."""
        kernels, neurons = convolution.kernel_memory.value, convolution.neuron_memory.value
        if kernels is not None and neurons is not None and len(kernels) != len(neurons):
            self.wrong.append(
                f"convolution.kernel_memory: has {len(kernels)} layers, and neuron_memory has {len(neurons)}"
            )

    @staticmethod
    def computes(data: Mapping[str, Any]) -> bool:
        return isinstance(data.get("arithmetic"), Mapping)

    def values(self, section: str, keys: Mapping[str, Key], data: Mapping[str, Any]) -> dict[str, Any]:
        """Key -> value, or its default; of a wrong one None."""
        values: dict[str, Any] = {}
        for name, key in keys.items():
            if name not in data:
                values[name] = key.default
                continue
            problem = key.problem(data[name])
            if problem is not None:
                self.wrong.append(f"{section}.{name}: {problem}" if section else f"{name}: {problem}")
            values[name] = None if problem is not None else _value(data[name])
        return values

    def arithmetic(self, data: Any) -> tuple[str, Arithmetic | None, str, Confidence]:
        """(summary, as data, source, confidence); of a target that computes elsewhere there is a text alone."""
        if isinstance(data, str):
            self.values("", {"arithmetic": WORDS["summary"]}, {"arithmetic": data})
            return data, None, "", "unknown"
        needed = [name for name, key in KEYS.items() if key.needed]
        wrong = table_problems("arithmetic", data, (*WORDS, *KEYS), needed)
        self.wrong += wrong
        if not isinstance(data, Mapping):
            return "", None, "", "unknown"
        words = self.values("arithmetic", WORDS, data)
        self.published("arithmetic", words)
        full = with_defaults(data)
        problems = [
            f"arithmetic.{problem}" if ": " in problem else f"arithmetic: {problem}" for problem in value_problems(full)
        ]
        self.wrong += problems
        arithmetic = None if wrong or problems else Arithmetic(**full)
        return words["summary"] or "", arithmetic, words["source"] or self.source, words["confidence"] or "given"

    def published(self, section: str, words: Mapping[str, Any]) -> None:
        """Refuse what somebody published where nothing says who."""
        if words["confidence"] in SOURCED and words["source"] == "":
            self.wrong.append(f"{section}.source: is missing, and confidence = {words['confidence']!r} needs one")
        elif words["confidence"] == "unknown":
            self.wrong.append(f"{section}.confidence: 'unknown' is of what has no value")

    def nodes(self, data: Any) -> dict[Level, tuple[str, ...]]:
        levels = {level.value: Key(level.value, tuple[str, ...], "", default=()) for level in Level}
        stated = Key("source", str, ""), Key("confidence", Confidence, "")
        problems = table_problems("nodes", data, (*levels, "source", "confidence"), ("source", "confidence"))
        self.wrong += problems
        if not isinstance(data, Mapping):
            return {}
        self.values("nodes", {key.name: key for key in stated if key.name in data}, data)
        kinds_of = self.values("nodes", levels, data)
        for level in Level:
            legal = [kind for op in OPS.values() for kind in op.kinds(level)]
            self.wrong += [
                f"nodes.{level.value}: {kind!r} is no kind of node (choose from: {', '.join(legal)})"
                for kind in kinds_of[level.value] or ()
                if kind not in legal
            ]
        return {level: kinds_of[level.value] or () for level in Level}

    def section(self, section: str, kind: Any, data: Any, like: Mapping[str, Any] | None = None) -> Any:
        """A dataclass of facts; those that the file leaves out stay unknown."""
        keys = keys_of(kind)
        self.wrong += table_problems(section, data, tuple(keys))
        stated = data if isinstance(data, Mapping) else {}
        unknown: Fact[Any] = Fact(source=f"not stated in {self.file}") if self.file else Fact()
        return kind(
            **{
                name: self.fact(f"{section}.{name}", key, stated[name]) if name in stated else unknown
                for name, key in keys.items()
            }
        )

    def fact(self, name: str, key: Key, data: Any) -> Fact[Any]:
        if not isinstance(data, Mapping):
            data = {"value": data}
        self.wrong += table_problems(name, data, FACTS)
        words = {word: WORDS[word] for word in ("source", "confidence")}
        values = self.values(name, words, data)
        problem = key.problem(data["value"]) if "value" in data else None
        if problem is not None:
            self.wrong.append(f"{name}: {problem}")
        if (values["confidence"] == "unknown") == ("value" in data):
            self.wrong.append(f'{name}: a value is needed, or confidence = "unknown" without one')
            return Fact()
        if "value" not in data:
            return Fact(None, values["source"] or Fact().source, "unknown")
        self.published(name, values)
        value = UNLIMITED if data["value"] == UNLIMITED_WORD and key.unlimited else _value(data["value"])
        return Fact(value, values["source"] or self.source, values["confidence"] or "given")

    def record(self, section: str, kind: Any, data: Any, like: Mapping[str, Any]) -> Any:
        """A dataclass of plain values. like: what values are that another key's is the default of."""
        keys = keys_of(kind)
        self.wrong += table_problems(section, data, tuple(keys), [name for name, key in keys.items() if key.needed])
        if not isinstance(data, Mapping):
            return None
        values = self.values(section, keys, data)
        values |= {name: like[key.like] for name, key in keys.items() if key.like and name not in data}
        self.published(section, values)
        return kind(**{**values, "source": values["source"] or self.source})


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
