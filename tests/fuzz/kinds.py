"""What is fuzzed: for each kind of file how a sound one is damaged, and what must hold of the damaged one.

Whatever a file holds, reading it gives something that is legal and keeps its promises, or one sentence in a
`NervecordError`. Anything else that is raised is a failure, and so is an action that is not finite or outside the
contract's limits, and two engines that differ.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib.util
import io
import json
import random
import tomllib
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fuzz import layouts, others
from fuzz.mutation import mutate_array, mutate_bytes, mutate_tree, to_archive, to_json, to_toml

import nervecord
from nervecord.cli.show import certificate_rows
from nervecord.compiler.files.arrays import ENTRY, pack, unpack
from nervecord.compiler.files.attach import attach
from nervecord.compiler.files.contractfile import read_contract
from nervecord.compiler.files.program import Program, described_hashes, load
from nervecord.compiler.files.readerguard import Limits
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.text import to_text
from nervecord.compiler.graph.verify import require, verify
from nervecord.compiler.nir.file import read_nir
from nervecord.compiler.nir.hdf5child import load as load_tree
from nervecord.compiler.nir.metadata import KEY, restore
from nervecord.compiler.nir.reading import import_graph
from nervecord.compiler.ops import Affine, Input, Level, Membrane, Neuron, Op, Output, Spike
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.schema import checked, row
from nervecord.compiler.target.specfile import read_spec
from nervecord.errors import FileFormatError, NervecordError
from nervecord.runtime.answer import NOT_FINITE
from nervecord.runtime.arrayfile import read_arrays
from nervecord.runtime.report.html import page
from nervecord.runtime.session import MachineSession
from nervecord.targets.source import load_program

CORPUS = Path(__file__).parent / "corpus"
DRAWS = all(importlib.util.find_spec(name) for name in ("jinja2", "matplotlib", "networkx", "plotly"))
"""Whether pages can be written: the extra `report`."""
MOST_STEPS = 400
"""A program that takes more steps for an action is loaded and not run: how long it takes is what it asks for."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Args:
        suffix: of its files in the corpus.
        damage: (sound file, random source) -> the damaged file's content, or the tree that reading HDF5 gives.
        check: reads it; raises where a promise is broken. `NervecordError` is a refusal.
    """

    suffix: str
    damage: Callable[[Path, random.Random], Any]
    check: Callable[[Any, random.Random], None]


def seeds(kind: str) -> list[Path]:
    """Sound files of a kind, and those that were once read wrongly."""
    return sorted(CORPUS.glob(f"*{KINDS[kind].suffix}"))


def damaged(kind: str, number: int) -> Any:
    """The damaged file of this number, always the same."""
    rng = random.Random(f"{kind} {number}")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of names that come twice, and numbers that do not fit
        return KINDS[kind].damage(rng.choice(seeds(kind)), rng)


def run_case(kind: str, number: int, folder: Path) -> str:
    """Read the damaged file of this number; "read" or "refused".

    Raises:
        Exception: a promise was broken.
    """
    source = damaged(kind, number)
    path = folder / f"case{KINDS[kind].suffix}"
    if isinstance(source, bytes):
        path.write_bytes(source)
        source = path
    try:
        KINDS[kind].check(source, random.Random(f"check {kind} {number}"))
    except NervecordError as error:
        text = str(error)
        assert text.isprintable(), f"a message that is no line: {text!r}"
        assert len(text) < 20_000, f"a message of {len(text)} characters"
        return "refused"
    finally:
        path.unlink(missing_ok=True)
    return "read"


# --------------------------------------------------------------------------------------------------------------------
# Programs


def damage_program(sound: Path, rng: random.Random) -> bytes:
    """Mostly other content under hashes that are right, so that the reader has to look further than them."""
    data = sound.read_bytes()
    if rng.random() < 0.1:
        return mutate_bytes(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(members["manifest.json"])
    if rng.random() < 0.4:
        arrays = unpack(checked(manifest["arrays"], row(ENTRY, 1000), "index"), members["arrays.bin"], where="sound")
        for _ in range(rng.choice((1, 1, 2))):
            name = rng.choice(sorted(arrays))
            arrays[name] = mutate_array(arrays[name], rng)
        with contextlib.suppress(TypeError, ValueError):
            manifest["arrays"], members["arrays.bin"] = pack(arrays)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        mutate_tree(manifest, rng)
    if rng.random() < 0.05:
        members["arrays.bin"] = mutate_bytes(members["arrays.bin"], rng)
    if rng.random() < 0.1:
        report = json.loads(members["report.json"])
        mutate_tree(report, rng)
        members["report.json"] = to_json(report)
    with contextlib.suppress(KeyError, ValueError, TypeError):
        manifest["hashes"] = described_hashes(manifest, members["arrays.bin"])
    text = to_json(manifest)
    if rng.random() < 0.1:
        worse = rng.choice((b"1e999", b"9" * 400, b"[" * 70, b""))
        text = text.replace(rng.choice((b"0", b"1", b"true", b'"')), worse, 1)
    members["manifest.json"] = text
    return to_archive(members)


def check_program(path: Path, rng: random.Random) -> None:
    """What is loaded is legal, is written and read back the same, and runs within its contract on every engine."""
    program = load_program(path)
    assert verify(program.subject) == []
    again = program.to_bytes()
    path.write_bytes(again)
    assert load(path).to_bytes() == again
    assert to_text(program.subject)
    json.dumps(program.to_dict(), allow_nan=False)
    if rng.random() < 0.05:
        nervecord.inspect(program, rng.choice(("lava", "loihi1", "xylo", "spinnaker2", "speck")))
    run_program(program, rng)


def damage_report(sound: Path, rng: random.Random) -> bytes:
    """Another report, which no hash covers."""
    report = json.loads(sound.read_bytes())
    for _ in range(rng.choice((1, 1, 2, 4))):
        mutate_tree(report, rng)
    return mutate_bytes(to_json(report), rng) if rng.random() < 0.1 else to_json(report)


def check_report(path: Path, rng: random.Random) -> None:
    """What of a report is read can be shown as a page."""
    with zipfile.ZipFile(CORPUS / "policy.nervecord") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["report.json"] = path.read_bytes()
    whole = path.with_suffix(".nervecord")
    try:
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        program = load(whole)
    finally:
        whole.unlink(missing_ok=True)
    report = nervecord.inspect(program, (program.target,)).to_dict()
    certificate = program.report.get("certificate")
    rows = () if certificate is None else tuple((what, value) for what, value in certificate_rows(certificate))
    if DRAWS:
        subject = page.Subject("case", report, program.to_dict())
        assert page.render(page.Contents("case", subjects=(subject,), certificates=rows))


def run_program(program: Program, rng: random.Random) -> None:
    """A few actions, or blocks, on both engines, which agree."""
    network_plan = plan(program.subject, None if program.contract else program.schedule)
    if network_plan.window > MOST_STEPS or sum(op.size for op in program.graph.nodes.values()) > 1 << 16:
        return
    if program.contract is None:
        run_stream(program, network_plan, rng)
        return
    sessions: list[Any] = [MachineSession(network_plan)]
    if program.graph.level is Level.INTEGER:
        from nervecord.runtime.engines.emulator.session import EmulatorSession

        sessions.append(EmulatorSession(network_plan))
    contract = program.contract
    size = contract.observation.size
    draw = np.random.default_rng(rng.getrandbits(32))
    low = np.array(contract.action.low or (-np.inf,) * contract.action.size)
    high = np.array(contract.action.high or (np.inf,) * contract.action.size)
    observations = [draw.normal(size=size), draw.normal(size=size) * 1e6, np.full(size, 1.7e308), np.full(size, np.nan)]
    for k, observation in enumerate(observations):
        with np.errstate(all="ignore"):
            actions = [session.step(observation) for session in sessions]
        for action in actions:
            assert np.isfinite(action).all(), f"an action that is not finite: {action}"
            assert (low <= action).all(), f"an action below its limits: {action}"
            assert (action <= high).all(), f"an action above its limits: {action}"
        assert all(np.array_equal(actions[0], action) for action in actions), f"engines differ: {actions}"
        if k == 3:
            assert np.array_equal(actions[0], contract.fail_safe)
            assert all(session.counts.fail_safe[NOT_FINITE] == 1 for session in sessions)


def run_stream(program: Program, network_plan: Any, rng: random.Random) -> None:
    """The same of a graph that is no policy."""
    from nervecord.compiler.plan.interpret import simulate

    draw = np.random.default_rng(rng.getrandbits(32))
    steps = program.schedule.steps * 2 if program.schedule.steps < 50 else program.schedule.steps
    inputs = {}
    for name in program.graph.inputs:
        op = program.graph.nodes[name]
        values = draw.integers(0, 2, (steps, *op.in_shape)) if op.spikes else draw.normal(size=(steps, *op.in_shape))
        inputs[name] = values.astype(np.float64)
    with np.errstate(all="ignore"):
        simulate(program.subject, inputs, program.schedule)
        if program.graph.level is Level.INTEGER:
            with nervecord.stream(program) as session:
                session.run(inputs)


# --------------------------------------------------------------------------------------------------------------------
# NIR


@functools.cache
def _tree(path: Path) -> dict[str, Any]:
    return load_tree(str(path), 1 << 24)


def damage_tree(sound: Path, rng: random.Random) -> dict[str, Any]:
    """Other content in well-formed HDF5, as the child hands it over: writing each as a file would take ten times as
    long."""
    tree = copy.deepcopy(_tree(sound))
    root = tree["node"]
    metadata = root.get("metadata")
    if isinstance(metadata, dict) and rng.random() < 0.6:
        if rng.random() < 0.7:
            content = json.loads(metadata[KEY])
            for _ in range(rng.choice((1, 1, 2, 3))):
                mutate_tree(content, rng)
            metadata[KEY] = to_json(content).decode("utf-8", "surrogatepass")
        else:
            mutate_tree(metadata, rng)
    else:
        arrays = [(p, k) for p, k in _tree_places(root) if isinstance(p[k], np.ndarray)]
        for _ in range(rng.choice((1, 1, 2, 3))):
            if arrays and rng.random() < 0.5:
                parent, key = rng.choice(arrays)
                if key in parent:
                    parent[key] = mutate_array(parent[key], rng)
            else:
                mutate_tree(root, rng)
    return tree


def _tree_places(tree: Any) -> list[tuple[Any, Any]]:
    places = []
    for key, value in tree.items():
        places.append((tree, key))
        if isinstance(value, dict):
            places += _tree_places(value)
    return places


def check_tree(tree: dict[str, Any], rng: random.Random) -> None:
    """As `read_nir` reads what its child handed over."""
    use_graph(graph_of(tree, "case.nir"), rng)


def graph_of(tree: dict[str, Any], where: str) -> Graph | Policy:
    """The graph of a tree, as `read_nir` makes it."""
    root = tree.get("node")
    kind = root.get("type") if isinstance(root, dict) else None
    if not isinstance(root, dict) or not isinstance(kind, str) or kind != "NIRGraph":
        raise FileFormatError("is no graph", where=where)
    described = root.get("metadata")
    if isinstance(described, dict) and KEY in described:
        return restore(root, where=where)
    return require(import_graph(root, where=where, dt=None), Level.IMPORTED, where=where)


def use_graph(subject: Graph | Policy, rng: random.Random) -> None:
    """Everything that can be done with a graph without a target of its own."""
    assert verify(subject) == []
    assert to_text(subject)
    if rng.random() < 0.2:
        nervecord.inspect(subject, rng.choice(("lava", "loihi1", "xylo", "spinnaker2", "speck")))
    graph = discretise(subject, dt=None if getattr(subject, "dt", None) else 1e-3)
    assert verify(graph) == []
    if isinstance(graph, Policy) and rng.random() < 0.3:
        run_program(nervecord.compile(graph, rng.choice(("lava", "reference"))), rng)


def check_nir(path: Path, rng: random.Random) -> None:
    """The whole way, with a child that reads HDF5."""
    use_graph(read_nir(path, limits=Limits(seconds=9.0)), rng)


# --------------------------------------------------------------------------------------------------------------------
# Arrays, contracts, targets


SHAPES = ((4, 3), (1, 3), (0, 3), (3,), (), (2, 2, 3), (-1, 3), (1 << 40, 3), (1 << 62, 1 << 62), (True, 3), (10**400,))
TYPES = (
    "<f8",
    ">f8",
    "<f4",
    "<i8",
    "|b1",
    "<c16",
    "|O",
    "<U4",
    "<M8[s]",
    "<f16",
    "|V8",
    "<f2",
    "",
    "x",
    [("a", "<f8")],
)


def damage_raw(sound: Path, rng: random.Random) -> bytes:
    """Other bytes."""
    return mutate_bytes(sound.read_bytes(), rng)


def damage_arrays(sound: Path, rng: random.Random) -> bytes:
    """An .npz or .npy with another header, another directory, other bytes, or written anew from odd arrays."""
    if rng.random() < 0.3:
        return damage_raw(sound, rng)
    array = io.BytesIO()
    shape = rng.choice(SHAPES)
    descr = rng.choice(TYPES)
    header = {"descr": descr, "fortran_order": rng.random() < 0.3, "shape": shape}
    text = repr(header)
    if rng.random() < 0.4:
        text = mutate_bytes(text.encode(), rng).decode("latin-1")
    body = text.encode("latin-1") + b" " * rng.randrange(40) + b"\n"
    version = rng.choice((b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\7\0"))
    wide = 2 if version == b"\1\0" else 4
    length = len(body) if rng.random() < 0.9 else rng.choice((0, 1, 60000))
    array.write(b"\x93NUMPY" + version + length.to_bytes(wide, "little") + body)
    array.write(rng.randbytes(rng.choice((0, 24, 96, 48, 12))))
    if rng.random() < 0.3:
        return array.getvalue()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((0, 8, 8, 12, 14))) as archive:
        for _ in range(rng.choice((1, 1, 2))):
            name = rng.choice(("observations.npy", "a.npy", "a", "\x1b[2J.npy", "../../x.npy", "", "/etc/x.npy"))
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), array.getvalue(), rng.choice((0, 8)))
    return mutate_bytes(out.getvalue(), rng) if rng.random() < 0.4 else out.getvalue()


def check_arrays(path: Path, rng: random.Random) -> None:
    """Numbers of a size that the file holds."""
    for name, array in read_arrays(path).items():
        assert name.isprintable()
        assert array.dtype.kind in "fiub"
        assert array.nbytes <= 1 << 30


def damage_toml(sound: Path, rng: random.Random) -> bytes:
    """Other values, or other text."""
    if rng.random() < 0.2:
        return damage_raw(sound, rng)
    tree = tomllib.loads(sound.read_text())
    for _ in range(rng.choice((1, 1, 2, 3))):
        mutate_tree(tree, rng)
    text = to_toml(tree)
    return mutate_bytes(text, rng) if rng.random() < 0.1 else text


def check_contract(path: Path, rng: random.Random) -> None:
    """A contract whose fail-safe action can be taken; a network it fits becomes a policy that runs within it."""
    contract_file = read_contract(path)
    contract = contract_file.contract
    low, high = contract.action.low, contract.action.high
    assert np.isfinite(contract.fail_safe).all()
    assert low is None or all(a <= b for a, b in zip(low, contract.fail_safe, strict=True))
    assert high is None or all(b <= a for a, b in zip(high, contract.fail_safe, strict=True))
    refusals = []
    for spiking in (False, True):
        try:
            policy = attach(_network(spiking=spiking), contract_file)
        except NervecordError as error:
            refusals.append(error)
            continue
        assert verify(policy) == []
        run_program(Program("reference", policy.graph, policy.contract), rng)
    if len(refusals) == 2:
        raise refusals[0]


def _network(*, spiking: bool) -> Graph:
    """3 values in, 2 out: spikes or membranes."""
    one, zero = np.ones(2), np.zeros(2)
    weight = np.random.default_rng(0).normal(size=(2, 3))
    neuron = Neuron(Membrane(0.5 * one, one, zero), None, Spike(one, zero) if spiking else None)
    nodes: list[tuple[str, Op]] = [
        ("in", Input((3,))),
        ("fc", Affine(weight)),
        ("neurons", neuron),
        ("out", Output((2,))),
    ]
    return chain(Level.DISCRETE, nodes, dt=1e-3)


def check_target(path: Path, rng: random.Random) -> None:
    """A target that a graph is inspected for; one that computes compiles a policy, which runs."""
    spec = read_spec(path)
    target = nervecord.target(file=path)
    policy = load(CORPUS / "floats.nervecord").policy
    report = nervecord.inspect(policy, target)
    assert json.dumps(report.to_dict(), allow_nan=True)
    if spec.integers is not None and rng.random() < 0.3:
        draw = np.random.default_rng(0)
        run_program(nervecord.compile(policy, target, calibration=draw.normal(size=(16, 3))), rng)


KINDS = {
    "program": Kind(".nervecord", damage_program, check_program),
    "nir content": Kind(".nir", damage_tree, check_tree),
    "nir bytes": Kind(".nir", damage_raw, check_nir),
    "arrays": Kind(".npz", damage_arrays, check_arrays),
    "report": Kind(".report.json", damage_report, check_report),
    "contract": Kind(".contract.toml", damage_toml, check_contract),
    "target": Kind(".target.toml", damage_toml, check_target),
    "study": Kind(".study.toml", damage_toml, others.check_study),
    "record": Kind(".config.json", others.damage_record, others.check_record),
    "onnx": Kind(".onnx", others.damage_onnx, others.check_onnx),
    "net": Kind(".net", damage_raw, others.check_net),
    "description": Kind(".chip.program", others.damage_description, others.check_description),
    "recording": Kind(".recording.h5", others.damage_recording, others.check_recording),
    "layout": Kind(".nervecord", layouts.draw_layout, layouts.check_layout),
}


def warm_up(kind: str, folder: Path) -> None:
    """Read every sound file: what a first case would pay for, such as the compiled loop."""
    rng = random.Random(0)
    for path in seeds(kind):
        with contextlib.suppress(NervecordError):
            if kind == "nir content":
                KINDS[kind].check(_tree(path), rng)
            else:
                copied = folder / path.name
                copied.write_bytes(path.read_bytes())
                KINDS[kind].check(copied, rng)
                copied.unlink()
    from nervecord.runtime.engines.emulator.session import EmulatorSession, EmulatorStream

    for wide in (False, True):
        EmulatorSession(load(CORPUS / "policy.nervecord").policy, wide=wide)
        program = load(CORPUS / "drawn1.nervecord")
        EmulatorStream(plan(program.graph, program.schedule), wide=wide)
