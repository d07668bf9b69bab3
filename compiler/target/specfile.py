"""Reads a target's spec.toml, strictly, and writes it as documentation.

Every hardware statement in the file is a table {value, source, confidence}; a key that is not known, a number without a
source, or a value without a confidence is refused with its name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from nervecord.compiler import schema
from nervecord.compiler.arithmetic import Arithmetic, arithmetic_from
from nervecord.compiler.files.regular import read_text
from nervecord.compiler.ops import OPS, Level
from nervecord.compiler.target.implied import with_implied
from nervecord.compiler.target.protocol import (
    UNLIMITED,
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

R = TypeVar("R")

MAXIMUM_BYTES = 1 << 20
"""A larger file is refused."""
LARGEST = 2**53
"""No number of a spec lies beyond: all are exact as floats."""

_SOURCED = ("source", "confidence")
_NEEDED = ("name", "title", "summary", "engines", "arithmetic", "nodes", "behaviour", "limits")
_ALLOWED = ("convolution", "packing", "energy", "not_checked")


def read_spec(path: Path) -> TargetSpec:
    """Read a spec.toml.

    Raises:
        FileFormatError: it cannot be read, a key is unknown or missing, a value of the wrong type or beyond all bounds,
            or a number stands without a source.
    """
    where = schema.printable(str(path))
    content = read_text(path, where, MAXIMUM_BYTES, "target's file")
    return spec_from_dict(schema.from_toml(content, where), where=where)


def spec_from_dict(data: Mapping[str, Any], *, where: str = "spec") -> TargetSpec:
    """A spec from the dictionary of its TOML; see `read_spec`."""
    reader = _Reader(where)
    reader.keys("", data, needed=_NEEDED, allowed=_ALLOWED)
    arithmetic = reader.arithmetic(data["arithmetic"])
    spec = TargetSpec(
        name=reader.name("name", data["name"]),
        title=reader.text("title", data["title"]),
        summary=reader.text("summary", data["summary"]),
        engines=reader.texts("engines", data["engines"]),
        arithmetic=reader.text("arithmetic", arithmetic["summary"]),
        integers=reader.integers("arithmetic", arithmetic),
        nodes=reader.nodes(data["nodes"]),
        nodes_source=reader.text("nodes.source", data["nodes"].get("source")),
        nodes_confidence=reader.confidence("nodes.confidence", data["nodes"].get("confidence")),
        behaviour=reader.section("behaviour", Behaviour, data["behaviour"]),
        limits=reader.section("limits", Limits, data["limits"]),
        convolution=reader.section("convolution", Convolution, data["convolution"]) if "convolution" in data else None,
        packing=reader.record("packing", Packing, data["packing"]) if "packing" in data else None,
        energy=reader.record("energy", Energy, data["energy"]) if "energy" in data else None,
        not_checked=reader.texts("not_checked", data.get("not_checked", [])),
    )
    return with_implied(spec, arithmetic.get("source", ""), arithmetic.get("confidence", "exact"), where=where)


class _Reader:
    """Checks every value of a spec.toml and names the key that is wrong."""

    def __init__(self, where: str) -> None:
        self.where = where

    def wrong(self, key: str, message: str, hint: str | None = None) -> FileFormatError:
        return FileFormatError(f"{key}: {message}", where=self.where, hint=hint)

    def keys(self, section: str, data: Any, *, needed: Sequence[str], allowed: Sequence[str]) -> None:
        if not isinstance(data, Mapping):
            raise self.wrong(section, "a table is needed")
        prefix = f"{section}." if section else ""
        for key in data:
            if key not in needed and key not in allowed:
                choices = ", ".join(sorted((*needed, *allowed)))
                raise self.wrong(f"{prefix}{key}", "unknown key", f"choose from: {choices}")
        for key in needed:
            if key not in data:
                raise self.wrong(f"{prefix}{key}", "is missing")

    def name(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not schema.TARGET_NAME.fullmatch(value):
            raise self.wrong(key, f"{value!r} is no name", schema.TARGET_NAME_RULE)
        return value

    def text(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise self.wrong(key, "a text is needed")
        if not value.isprintable():
            raise self.wrong(key, "the text has characters that cannot be printed, such as line breaks")
        return value

    def number(self, key: str, value: Any, kind: str) -> float:
        """A finite number; kind: "int" or "float"."""
        if isinstance(value, bool) or not isinstance(value, int if kind == "int" else (int, float)):
            raise self.wrong(key, f"a number ({kind}) is needed")
        if not -LARGEST <= value <= LARGEST:  # also where it is NaN
            raise self.wrong(key, f"a number between -{LARGEST} and {LARGEST} is needed")
        return value

    def texts(self, key: str, value: Any) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise self.wrong(key, "a list of texts is needed")
        return tuple(self.text(key, item) for item in value)

    def nodes(self, data: Any) -> dict[Level, tuple[str, ...]]:
        self.keys("nodes", data, needed=("source", "confidence"), allowed=tuple(level.value for level in Level))
        found = {}
        for level in Level:
            kinds = self.texts(f"nodes.{level.value}", data.get(level.value, []))
            legal = [kind for op in OPS.values() for kind in op.kinds(level)]
            for kind in kinds:
                if kind not in legal:
                    raise self.wrong(
                        f"nodes.{level.value}", f"{kind!r} is no kind of node", f"choose from: {', '.join(legal)}"
                    )
            found[level] = kinds
        return found

    def confidence(self, key: str, value: Any) -> Confidence:
        if value not in get_args(Confidence):
            raise self.wrong(key, f"confidence {value!r} is none of {', '.join(get_args(Confidence))}")
        return cast(Confidence, value)

    def arithmetic(self, data: Any) -> Mapping[str, Any]:
        """Its table; of a target that computes elsewhere a text that stands for the summary."""
        if isinstance(data, str):
            return {"summary": data}
        if not isinstance(data, Mapping):
            raise self.wrong("arithmetic", "a table is needed")
        for key in ("summary", *_SOURCED):
            if key not in data:
                raise self.wrong(f"arithmetic.{key}", "is missing")
        self.text("arithmetic.source", data["source"])
        self.confidence("arithmetic.confidence", data["confidence"])
        return cast(Mapping[str, Any], data)

    def integers(self, section: str, data: Mapping[str, Any]) -> Arithmetic | None:
        """The arithmetic of its table; None where there is a text alone."""
        if "source" not in data:
            return None
        numbers = {key: value for key, value in data.items() if key not in ("summary", *_SOURCED)}
        return arithmetic_from(numbers, f"{self.where}: {section}")

    def section(self, section: str, kind: type[R], data: Any) -> R:
        """A dataclass of facts; those the file leaves out stay unknown."""
        fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
        self.keys(section, data, needed=(), allowed=tuple(fields))
        return kind(**{name: self.fact(f"{section}.{name}", str(fields[name].type), data[name]) for name in data})

    def fact(self, key: str, kind: str, data: Any) -> Fact[Any]:
        self.keys(key, data, needed=("source", "confidence"), allowed=("value",))
        confidence = self.confidence(f"{key}.confidence", data["confidence"])
        source = self.text(f"{key}.source", data["source"])
        if (confidence == "unknown") == ("value" in data):
            raise self.wrong(key, 'a value is needed, or confidence = "unknown" without one')
        return Fact(self.value(key, kind, data["value"]) if "value" in data else None, source, confidence)

    def value(self, key: str, kind: str, value: Any) -> object:
        """A value of the field type written as `kind`."""
        if kind in ("Number", "Amount"):
            if value == "unlimited" and kind == "Amount":
                raise self.wrong(key, "cannot be unlimited, a number is needed")
            if value == "unlimited":
                return UNLIMITED
            if isinstance(value, str):
                raise self.wrong(key, 'a number or "unlimited" is needed')
            return self.number(key, value, "float")
        if kind == "Fact[bool]":
            if not isinstance(value, bool):
                raise self.wrong(key, "true or false is needed")
            return value
        if kind == "Fact[str]":
            return self.text(key, value)
        item = int if "int" in kind else str
        if not isinstance(value, list) or not all(type(element) is item for element in value):
            raise self.wrong(key, f"a list of {item.__name__} is needed")
        return tuple(self.number(key, element, "int") if item is int else self.text(key, element) for element in value)

    def record(self, section: str, kind: type[R], data: Any) -> R:
        """A dataclass of plain values."""
        fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
        needed = tuple(f.name for f in fields.values() if f.default is dataclasses.MISSING)
        self.keys(section, data, needed=needed, allowed=tuple(name for name in fields if name not in needed))
        return kind(**{name: self.plain(f"{section}.{name}", str(fields[name].type), data[name]) for name in data})

    def plain(self, key: str, kind: str, value: Any) -> object:
        if kind == "str":
            return self.text(key, value)
        if kind == "Confidence":
            return self.confidence(key, value)
        if kind.startswith("tuple"):
            return self.value(key, kind, value)
        return self.number(key, value, kind)


def targets_doc(specs: Sequence[TargetSpec]) -> str:
    """docs/targets.md: how to describe a target, and every one that is described here."""
    lines = [
        "# Targets",
        "",
        "Written from `targets/*/spec.toml` and `compiler/target/protocol.py`; a test keeps it current.",
        "",
        "`nervecord targets` lists the targets, `nervecord targets NAME` shows one with its options and limits. A",
        "limit whose confidence is not *exact* gives way to your own number: `--set neurons_per_core=4096` with",
        "`inspect` and `compile`, `limits={...}` in Python. Programs and reports keep what was given.",
        "",
        "## A target of your own",
        "",
        "`nervecord inspect any.nir --target-file my_chip.toml` inspects for a target that a file describes, in the",
        "form of `targets/*/spec.toml`. The keys `name` (a to z, 0 to 9, `.`, `-`, `_`), `title`, `summary` and",
        "`arithmetic` (in words) are texts, `engines` is `[]`. `[nodes]` lists the kinds of nodes that it realises,",
        "for each level that a graph can have (`imported`, `discrete`, `integer`), with a `source` and a",
        "`confidence`. In `[behaviour]`, `[limits]` and `[convolution]` every statement has the form",
        "",
        '    neurons = { value = 1008, source = "where you read it", confidence = "exact" }',
        "",
        f"with a confidence of {', '.join(get_args(Confidence))}. What is left out is unknown. A number may be",
        '`"unlimited"`. `targets/xylo/spec.toml` is an example to start from.',
        "",
        "A chip whose way of computing can be said as data compiles and runs from its file alone: `arithmetic` is",
        "then a table, `[arithmetic]`, with a `summary`, a `source` and a `confidence` beside its widths and rules,",
        "which `compiler/arithmetic.py` explains; `targets/lava/spec.toml` is an example. Behaviour and limits that",
        "follow from it need not be said again, and what contradicts it is refused. The program carries the",
        "arithmetic, and the emulator runs it: exact to the description, which may be less than exact to the chip.",
        "",
        'A target that needs code to compile or run is a class in a package of yours; see CONTRIBUTING.md, "A target".',
        "",
        "## Keys",
        "",
        "| section | key | meaning |",
        "|---|---|---|",
    ]
    for section, kind in (("behaviour", Behaviour), ("limits", Limits), ("convolution", Convolution)):
        lines += [f"| `{section}` | `{f.name}` | {f.metadata['about']} |" for f in dataclasses.fields(kind)]
    return "\n".join([*lines, "", *map(spec_table, specs)])


def spec_table(spec: TargetSpec) -> str:
    """The spec as a markdown section, for docs/targets.md: every fact with value, confidence and source, each source
    once."""
    engines = ", ".join(spec.engines) or "none, inspect only"
    lines = [f"## {spec.name}: {spec.title}", "", spec.summary, "", f"Engines: {engines}.", ""]
    lines += [f"Arithmetic: {spec.arithmetic}.", ""]
    lines += [f"- nodes, {level.value}: {', '.join(spec.kinds(level)) or 'none'}" for level in Level]
    sources: dict[str, int] = {}
    rows = []
    for name, _, fact in spec.facts():
        if fact.value != UNLIMITED:
            number = sources.setdefault(fact.source, len(sources) + 1)
            rows.append(f"| `{name}` | {fact} | {fact.confidence} | {number} |")
    lines += [
        f"- source of the nodes: {spec.nodes_source} ({spec.nodes_confidence})",
        "",
        "| key | value | confidence | source |",
        "|---|---|---|---|",
        *rows,
        "",
        "Sources:",
        "",
        *(f"{number}. {source}" for source, number in sources.items()),
    ]
    unlimited = [name for name, _, fact in spec.facts() if fact.value == UNLIMITED]
    if unlimited:
        lines += ["", "No limit: " + ", ".join(f"`{name}`" for name in unlimited) + "."]
    if spec.packing is not None:
        lines += ["", f"How synapse memory is counted: {spec.packing.source} ({spec.packing.confidence})."]
    if spec.energy is not None:
        parts = ", ".join(f"{value:g} pJ per {what}" for what, value in spec.energy.constants())
        lines += ["", f"Energy, for estimates only: {parts}; {spec.energy.citation}."]
    if spec.not_checked:
        lines += ["", "Not checked, whatever the verdict:", ""] + [f"- {item}" for item in spec.not_checked]
    return "\n".join(lines) + "\n"
