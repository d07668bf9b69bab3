"""A program: one compiled policy in one file.

A zip archive, uncompressed, with fixed dates: `manifest.json` (format, target, graph with its contract, hashes,
versions, allowances), `report.json`, and `arrays/<number>.npy`. The same input and versions give the same bytes.
Loading executes nothing, refuses a newer format, and checks the hashes.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nervecord.compiler.contract import Contract
from nervecord.compiler.files import write_atomically
from nervecord.compiler.graph import Graph
from nervecord.compiler.node import Array
from nervecord.compiler.notebook import table
from nervecord.compiler.serialise import arrays_hash, canonical, graph_from_data, graph_to_data, structure_hash
from nervecord.compiler.verify import require
from nervecord.errors import ContractError, FileFormatError

FORMAT = 1
"""Version of the file. Readers take this one and refuse what is newer."""
SUFFIX = ".nervecord"
MAXIMUM_BYTES = 1 << 30
"""A larger file is refused unread."""
NESTED = 64
"""JSON that is nested deeper is refused; how deep Python itself can read differs from version to version."""
_BRACKET = re.compile(rb'"(?:[^"\\]|\\.?)*(?:"|\Z)|[\[\]{}]', re.DOTALL)
"""A text, to its end or the file's, or a bracket outside of texts."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Program:
    """A policy in a target's arithmetic.

    Args:
        target: name of the target it was compiled for.
        graph: at the target's level, with its contract.
        report: what compiling found and did; plain JSON types.
        versions: tool -> version that made it.
        allowances: what the user allowed by an explicit flag, each a sentence.
    """

    target: str
    graph: Graph
    report: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    allowances: tuple[str, ...] = ()

    @property
    def contract(self) -> Contract:
        """How the policy is driven.

        Raises:
            ContractError: it carries none.
        """
        if self.graph.contract is None:
            raise ContractError("the program carries no contract", where=self.target)
        return self.graph.contract

    def to_dict(self) -> dict[str, Any]:
        """What it is and how it was made, as plain JSON types, without its arrays."""
        structure, arrays = graph_to_data(self.graph)
        return {
            "format": FORMAT,
            "target": self.target,
            "contract": None if self.graph.contract is None else json.loads(self.graph.contract.to_json()),
            "report": json.loads(json.dumps(dict(self.report))),
            "hashes": {"structure": structure_hash(structure), "weights": arrays_hash(arrays)},
            "versions": dict(self.versions),
            "allowances": list(self.allowances),
        }

    def __repr__(self) -> str:
        policy = "" if self.graph.contract is None else f", policy for {self.graph.contract.environment}"
        return f"<Program for {self.target}, {len(self.graph.nodes)} nodes{policy}>"

    def _repr_html_(self) -> str:
        rows = [("target", self.target), *((f"made with {name}", version) for name, version in self.versions.items())]
        if self.graph.contract is not None:
            rows.insert(1, ("environment", self.graph.contract.environment))
        rows += [("allowed", sentence) for sentence in self.allowances]
        return table(repr(self).strip("<>"), ("", ""), rows)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file; a crash leaves the old one or the new one."""
        write_atomically(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The file's content."""
        structure, arrays = graph_to_data(self.graph)
        names = sorted(arrays)
        manifest = {
            "format": FORMAT,
            "target": self.target,
            "graph": structure,
            "arrays": names,
            "hashes": {"structure": structure_hash(structure), "weights": arrays_hash(arrays)},
            "versions": dict(self.versions),
            "allowances": list(self.allowances),
        }
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            _put(archive, "manifest.json", canonical(manifest))
            _put(archive, "report.json", canonical(dict(self.report)))
            for k, name in enumerate(names):
                buffer = io.BytesIO()
                np.lib.format.write_array(buffer, np.ascontiguousarray(arrays[name]), allow_pickle=False)
                _put(archive, f"arrays/{k}.npy", buffer.getvalue())
        return out.getvalue()


def load(path: str | os.PathLike[str]) -> Program:
    """Read a program.

    Raises:
        FileFormatError: it is missing, damaged, no program, or newer than this version.
    """
    where = str(path)
    file = Path(path)
    if not file.exists():
        raise FileFormatError("does not exist", where=where)
    if file.is_dir():
        raise FileFormatError("is a folder, not a program", where=where)
    size = file.stat().st_size
    if size > MAXIMUM_BYTES:
        raise FileFormatError(f"has {size} bytes, at most {MAXIMUM_BYTES} are read", where=where)
    try:
        with zipfile.ZipFile(file) as archive:
            return _read(archive, where)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise FileFormatError(
            f"is no program, or a damaged one ({error})", where=where, hint="`nervecord compile` writes programs"
        ) from None
    except OSError as error:
        raise FileFormatError(f"cannot be read: {error.strerror or error}", where=where) from None


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = 0o644 << 16
    info.create_system = 3
    archive.writestr(info, data)


def _read(archive: zipfile.ZipFile, where: str) -> Program:
    members = _members(archive, where)
    manifest = _json(archive, "manifest.json", where)
    found = manifest.get("format")
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise FileFormatError(f"says format {found!r}, which is no version", where=where)
    if found > FORMAT:
        raise FileFormatError(
            f"has format {found}, this version reads up to {FORMAT}", where=where, hint="upgrade nervecord"
        )
    try:
        names = [str(name) for name in manifest["arrays"]]
        structure, hashes = manifest["graph"], manifest["hashes"]
        target, versions = manifest["target"], {str(k): str(v) for k, v in manifest["versions"].items()}
        allowances = tuple(str(text) for text in manifest["allowances"])
        wanted = (hashes["structure"], hashes["weights"])
    except KeyError as error:
        raise FileFormatError(f"{error.args[0]!r} is missing from its manifest", where=where) from None
    except (TypeError, AttributeError) as error:
        raise FileFormatError(f"its manifest is malformed: {error}", where=where) from None
    if not isinstance(target, str):
        raise FileFormatError(f"its manifest is malformed: target is {target!r}, no name", where=where)
    members -= {"manifest.json", "report.json", *(f"arrays/{k}.npy" for k in range(len(names)))}
    if members:
        raise FileFormatError(f"holds {min(members)!r}, which no program has", where=where)
    arrays = {name: _array(archive, f"arrays/{k}.npy", where) for k, name in enumerate(names)}
    for what, expected, actual in zip(
        ("structure", "weights"), wanted, (structure_hash(structure), arrays_hash(arrays)), strict=True
    ):
        if expected != actual:
            raise FileFormatError(
                f"the hash of its {what} is not the one its manifest gives: it was changed or damaged after compiling",
                where=where,
                hint="compile it again",
            )
    graph = graph_from_data(structure, arrays, where=where)
    unprintable = next((name for name in graph.nodes if not name.isprintable()), None)
    if unprintable is not None:
        raise FileFormatError(f"the node name {unprintable!r} cannot be printed", where=where)
    require(graph, where=where)
    return Program(target, graph, _json(archive, "report.json", where), versions, allowances)


def _members(archive: zipfile.ZipFile, where: str) -> set[str]:
    """Names of the members; refuses compressed ones, doubled ones, and more bytes than a file may have."""
    found = archive.infolist()
    if any(info.compress_type != zipfile.ZIP_STORED for info in found):
        raise FileFormatError("has compressed parts, which no program has", where=where)
    size = sum(info.file_size for info in found)
    if size > MAXIMUM_BYTES:
        raise FileFormatError(f"declares {size} bytes, at most {MAXIMUM_BYTES} are read", where=where)
    names: set[str] = set()
    for info in found:
        if info.filename in names:
            raise FileFormatError(f"holds {info.filename!r} twice", where=where)
        names.add(info.filename)
    return names


def _member(archive: zipfile.ZipFile, name: str, where: str) -> bytes:
    try:
        return archive.read(name)
    except KeyError:
        raise FileFormatError(
            f"has no {name}, so it is no program", where=where, hint="`nervecord compile` writes programs"
        ) from None


def _json(archive: zipfile.ZipFile, name: str, where: str) -> dict[str, Any]:
    content = _member(archive, name, where)
    try:
        if _depth(content) > NESTED:
            raise ValueError(f"nested more than {NESTED} deep")
        data = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"its {name} is no JSON: {error}", where=where) from None
    if not isinstance(data, dict):
        raise FileFormatError(f"its {name} is no JSON object", where=where)
    return data


def _depth(content: bytes) -> int:
    """How deep brackets are nested; those inside texts do not count."""
    deepest = depth = 0
    for found in _BRACKET.finditer(content):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(found[0], 0)
        deepest = max(deepest, depth)
    return deepest


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number of JSON")


def _array(archive: zipfile.ZipFile, name: str, where: str) -> Array:
    content = _member(archive, name, where)
    try:
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, TypeError, OverflowError, EOFError, OSError, MemoryError, SyntaxError) as error:
        raise FileFormatError(f"its {name} is no array: {error}", where=where) from None
