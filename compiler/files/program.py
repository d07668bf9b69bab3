"""A program: what was compiled for one target, in one file.

A zip archive of three entries, uncompressed, with fixed dates: `manifest.json` (format, target, graph, arithmetic,
schedule, contract, an index of the arrays, hashes, versions, allowances), `report.json`, and `arrays.bin`, the arrays'
bytes. The same input and versions give the same bytes. Loading executes nothing, refuses other formats, and checks
the hashes; time and memory are linear in the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, get_args

from nervecord.compiler import schema
from nervecord.compiler.arithmetic import arithmetic_from
from nervecord.compiler.files.archive import ending
from nervecord.compiler.files.arrays import ENTRY, MOST_ARRAYS, pack, unpack
from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.files.regular import open_regular
from nervecord.compiler.files.report import check_report
from nervecord.compiler.files.serialise import graph_from_data, graph_to_data
from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.notebook import table
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import LONGEST_BLOCK, STREAM, Schedule, StateRule
from nervecord.compiler.graph.verify import require
from nervecord.compiler.schema import canonical
from nervecord.errors import ContractError, FileFormatError, GraphError, NervecordError

FORMAT = 2
"""Version of the file. Readers take this one; older and newer ones are refused, each with its advice."""
SUFFIX = ".nervecord"
MAXIMUM_BYTES = 1 << 30
"""A larger file is refused unread."""
_HASHED = ("graph", "arithmetic", "contract", "schedule", "arrays")
MEMBERS = ("manifest.json", "report.json", "arrays.bin")
_EPOCH = (1980, 1, 1, 0, 0, 0)
MOST_TEXT = 24 << 20
"""Bytes of the two JSON texts together: what is made of them takes up to thirty times as much."""
_DIRECTORY_BYTES = 1024
"""Of the directory of three entries; checked before anything of it is read."""


@dataclass(frozen=True, slots=True)
class Program:
    """A graph in a target's arithmetic.

    Args:
        target: name of the target it was compiled for.
        graph: at the target's level.
        contract: how the policy is driven; None for a graph that is none.
        schedule: of a graph that is no policy; a policy's follows from its contract, whatever is given.
        report: what compiling found and did; plain JSON types.
        versions: tool -> version that made it.
        allowances: what the user allowed by an explicit flag, each a sentence.
    """

    target: str
    graph: Graph
    contract: Contract | None = None
    schedule: Schedule = STREAM
    report: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    allowances: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.contract is not None:
            object.__setattr__(self, "schedule", Policy(self.graph, self.contract).schedule)

    @property
    def policy(self) -> Policy:
        """The graph with its contract.

        Raises:
            ContractError: it carries none.
        """
        if self.contract is None:
            raise ContractError(
                "the program carries no contract: it takes and gives values step by step", where=self.target
            )
        return Policy(self.graph, self.contract)

    @property
    def subject(self) -> Graph | Policy:
        """The policy, where there is a contract, else the graph."""
        return self.graph if self.contract is None else self.policy

    def __repr__(self) -> str:
        policy = "" if self.contract is None else f", policy for {self.contract.environment}"
        return f"<Program for {self.target}, {len(self.graph.nodes)} nodes{policy}>"

    def _repr_html_(self) -> str:
        rows = [("target", self.target), *((f"made with {name}", version) for name, version in self.versions.items())]
        if self.contract is not None:
            rows.insert(1, ("environment", self.contract.environment))
        rows += [("allowed", sentence) for sentence in self.allowances]
        return table(repr(self).strip("<>"), ("", ""), rows)

    def to_dict(self) -> dict[str, Any]:
        """What it is and how it was made, as plain JSON types, without its arrays.

        Raises:
            GraphError: a number is not finite.
        """
        described, data = describe(self.graph, self.contract, self.schedule)
        return {
            "format": FORMAT,
            "target": self.target,
            "contract": None if self.contract is None else json.loads(self.contract.to_json()),
            "schedule": _schedule_data(self.schedule),
            "report": json.loads(json.dumps(dict(self.report))),
            "hashes": described_hashes(described, data),
            "versions": dict(self.versions),
            "allowances": list(self.allowances),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file; a crash leaves the old one or the new one."""
        write_atomically(path, self.to_bytes())

    def to_bytes(self) -> bytes:
        """The file's content.

        Raises:
            GraphError: a number is not finite, or it is larger than what is read back.
        """
        described, data = describe(self.graph, self.contract, self.schedule)
        try:
            manifest = {
                "format": FORMAT,
                "target": self.target,
                **described,
                "hashes": described_hashes(described, data),
                "versions": dict(self.versions),
                "allowances": list(self.allowances),
            }
            parts = (canonical(manifest), canonical(dict(self.report)), data)
        except ValueError as error:
            raise GraphError(f"holds a number that no file can hold: {error}", where=self.target) from None
        if sum(map(len, parts[:2])) > MOST_TEXT:
            raise GraphError(
                f"its program would hold {sum(map(len, parts[:2]))} bytes of JSON, at most {MOST_TEXT} are read back",
                where=self.target,
                hint="fewer nodes",
            )
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            for name, content in zip(MEMBERS, parts, strict=True):
                info = zipfile.ZipInfo(name, _EPOCH)
                info.external_attr = 0o644 << 16
                info.create_system = 3
                archive.writestr(info, content)
        return out.getvalue()


def _schedule_data(schedule: Schedule) -> dict[str, Any]:
    return {"steps": schedule.steps, "state": schedule.state, "held": schedule.held}


def describe(graph: Graph, contract: Contract | None, schedule: Schedule) -> tuple[dict[str, Any], bytes]:
    """What a manifest says of a graph and how it is driven, and the bytes of its arrays."""
    structure, arrays = graph_to_data(graph)
    index, data = pack(arrays)
    return {
        "graph": structure,
        "arithmetic": None if graph.arithmetic is None else graph.arithmetic.to_dict(),
        "contract": None if contract is None else contract.to_dict(),
        "schedule": None if contract is not None else _schedule_data(schedule),
        "arrays": index,
    }, data


def described_hashes(manifest: Mapping[str, Any], data: bytes) -> dict[str, str]:
    """The hashes that a manifest gives: of what it says of the graph, and of the arrays' bytes."""
    described = {key: manifest[key] for key in _HASHED}
    return {"structure": hashlib.sha256(canonical(described)).hexdigest(), "arrays": hashlib.sha256(data).hexdigest()}


# --------------------------------------------------------------------------------------------------------------------
# Reading

_SCHEDULE = schema.record(
    "schedule",
    [("steps", schema.whole(1, LONGEST_BLOCK)), ("state", schema.one_of(get_args(StateRule))), ("held", bool)],
)
_MANIFEST = schema.record(
    "manifest",
    [
        ("format", int),
        ("target", schema.text(256, least=1)),
        ("graph", dict[str, Any]),
        ("arithmetic", dict[str, Any] | None),
        ("schedule", _SCHEDULE | None),
        ("contract", dict[str, Any] | None),
        ("arrays", schema.row(dict[str, Any], MOST_ARRAYS)),
        ("hashes", schema.record("hashes", [("structure", schema.text(64)), ("arrays", schema.text(64))])),
        ("versions", dict[str, str]),
        ("allowances", schema.row(schema.text(), 1000)),
    ],
)


def load(path: str | os.PathLike[str]) -> Program:
    """Read a program.

    Raises:
        FileFormatError: it is missing, damaged, no program, or of another format.
    """
    where = schema.printable(os.fspath(path))
    with open_regular(path, where, MAXIMUM_BYTES, "program") as file:
        try:
            return _read(file, where)
        except OSError as error:
            raise FileFormatError(f"cannot be read: {error.strerror or error}", where=where) from None


def _read(file: BinaryIO, where: str) -> Program:
    manifest_text, report_text, data = _members(file, where)
    at = f"{where}: manifest.json"
    # As plain data first: the hash is over what the file says.
    plain = schema.from_json(manifest_text, dict[str, Any], at)
    _check_format(plain.get("format"), where)
    manifest = schema.checked(plain, _MANIFEST, at)
    report = schema.from_json(report_text, dict[str, Any], f"{where}: report.json")
    for content, part in ((manifest_text, plain), (report_text, report)):
        text = None if schema.is_plain(content) else schema.unprintable(part)
        if text is not None:
            raise FileFormatError(f"the text {schema.printable(repr(text))} cannot be printed", where=where)
    check_report(report, f"{where}: report.json")
    if not schema.TARGET_NAME.fullmatch(manifest.target):
        raise FileFormatError(
            f"target: {schema.printable(repr(manifest.target))} is no name of a target",
            where=at,
            hint=schema.TARGET_NAME_RULE,
        )
    try:
        actual = described_hashes(plain, data)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"is malformed: {schema.printable(str(error))}", where=at) from None
    for what in ("structure", "arrays"):
        if getattr(manifest.hashes, what) != actual[what]:
            raise FileFormatError(
                f"the hash of its {what} is not the one its manifest gives: it was changed or damaged after compiling",
                where=where,
                hint="compile it again",
            )
    index = schema.checked(plain["arrays"], schema.row(ENTRY, MOST_ARRAYS), f"{where}: the index of arrays")
    graph = graph_from_data(manifest.graph, unpack(index, data, where=where), where=where)
    if manifest.arithmetic is not None:
        graph = graph.replace(arithmetic=arithmetic_from(manifest.arithmetic, f"{where}: the arithmetic"))
    contract = None
    if manifest.contract is not None:
        contract = Contract.from_dict(manifest.contract, where=f"{where}: contract")
    if (manifest.schedule is None) is (contract is None):
        raise FileFormatError("says its schedule twice, or not at all: the contract does, or the schedule", where=at)
    program = Program(
        target=manifest.target,
        graph=graph,
        contract=contract,
        schedule=STREAM if manifest.schedule is None else _schedule(manifest.schedule),
        report=report,
        versions=manifest.versions,
        allowances=tuple(manifest.allowances),
    )
    require(program.subject, where=where)
    return program


def _schedule(record: Any) -> Schedule:
    return Schedule(record.steps, record.state, record.held)


def _check_format(version: Any, where: str) -> None:
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise FileFormatError(f"says format {schema.printable(repr(version))}, which is no version", where=where)
    if version > FORMAT:
        raise FileFormatError(
            f"has format {schema.printable(repr(version))}, this version reads {FORMAT}",
            where=where,
            hint="upgrade nervecord",
        )
    if version < FORMAT:
        raise FileFormatError(
            f"has the old format {version}, this version reads {FORMAT}",
            where=where,
            hint="compile its policy again: nervecord compile policy.nir",
        )


def _members(file: BinaryIO, where: str) -> list[bytes]:
    """The content of the archive's entries, in the order of `MEMBERS`.

    Refuses what no program has: other entries, compression, encryption, a comment, entries that lie over one another.
    """
    hint = "`nervecord compile` writes programs"
    size = os.fstat(file.fileno()).st_size
    end = ending(file)
    if end is None:
        raise FileFormatError("is no program, or a damaged one", where=where, hint=hint)
    entries, directory = end
    if entries != len(MEMBERS) or directory > _DIRECTORY_BYTES:
        if _is_old(file):
            _check_format(1, where)
        raise FileFormatError(
            f"holds {entries} entries, a program has {', '.join(MEMBERS)} and no others", where=where, hint=hint
        )
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            if sorted(info.filename for info in infos) != sorted(MEMBERS):
                named = ", ".join(repr(info.filename) for info in infos)
                raise FileFormatError(
                    f"holds {schema.printable(named)}, a program has {', '.join(MEMBERS)}", where=where, hint=hint
                )
            if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in infos):
                raise FileFormatError("has compressed or encrypted parts, which no program has", where=where)
            if sum(info.file_size for info in infos) > size:
                raise FileFormatError("declares more bytes than it has", where=where)
            text = sum(info.file_size for info in infos if info.filename != "arrays.bin")
            if text > MOST_TEXT:
                raise FileFormatError(f"has {text} bytes of JSON, at most {MOST_TEXT} are read", where=where)
            return [archive.read(name) for name in MEMBERS]
    except NervecordError:
        raise
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, OverflowError, struct.error) as error:
        raise FileFormatError(
            f"is no program, or a damaged one ({schema.printable(str(error))})", where=where, hint=hint
        ) from None


def _is_old(file: BinaryIO) -> bool:
    """Whether the archive begins as programs of format 1 did."""
    file.seek(0)
    start = file.read(1 << 16)
    return start.startswith(b"PK\3\4") and start[30:43] == b"manifest.json" and b'"format":1,' in start
