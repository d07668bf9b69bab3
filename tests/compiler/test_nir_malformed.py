"""Malformed NIR files: each is one clear sentence, never another exception, never a hang."""

from __future__ import annotations

import copy
import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from malformed import generator, malformed

from nervecord.compiler.files import readerguard
from nervecord.compiler.files.readerguard import Limits
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.verify import require, verify
from nervecord.compiler.nir.file import nir_bytes, read_nir
from nervecord.compiler.nir.hdf5child import load
from nervecord.compiler.nir.hdf5guard import read_hdf5
from nervecord.compiler.nir.metadata import restore
from nervecord.compiler.nir.reading import import_graph
from nervecord.errors import FileFormatError, NervecordError

SOURCE = generator(".nir")

# What the sentence about each file must say, beside the file's name.
CAUSES = {
    "not_hdf5": "is not an HDF5 file",
    "empty": "is empty",
    "truncated": "truncated file",
    "signature_only": "damaged: ",
    "damaged_superblock": "damaged: ",
    "no_node_group": "no group 'node'",
    "root_is_a_neuron": "a single LIF, no graph",
    "no_nodes": "has no nodes",
    "no_type": "node 'lif': has no type",
    "type_is_a_number": "node 'lif': has no type",
    "type_is_no_text": "/node/nodes/fc/type holds bytes that are no text",
    "unknown_type": "node 'lif': type 'Izhikevich' is unknown",
    "conv1d": "node 'fc': Conv1d: weight has shape (2, 3), 3 axes are needed",
    "unknown_field": "node 'lif': LIF: field 'refractory' is unknown",
    "missing_field": "node 'lif': LIF: field 'tau' is missing",
    "nan_weights": "fc: weight has 6 values that are NaN or infinite",
    "infinite_r": "lif: r has 2 values that are NaN or infinite",
    "negative_tau": "lif: tau must be more than 0 (-0.01 against 0)",
    "zero_tau": "lif: tau must be more than 0 (0.0 against 0)",
    "shape_mismatch": "lif: takes shape (2,), and fc gives (4,)",
    "bias_mismatch": "fc: bias has 5 for out, another field 2 (5 against 2)",
    "parameters_differ": "parameters differ in shape: tau (3,), r (2,)",
    "weight_one_axis": "weight has shape (6,), 2 axes are needed",
    "negative_shape": "shape holds -3, the least is 1",
    "fractional_shape": "shape holds [2.5], integers are needed",
    "empty_shape": "shape is empty",
    "dangling_edge": "edge fc -> lif2 names 'lif2', and no node has that name",
    "duplicate_edge": "edge fc -> lif appears twice",
    "edges_of_three": "the edges are no list of pairs of names",
    "edges_are_numbers": "the edges are no list of pairs of names",
    "disconnected": "output: nothing feeds it",
    "no_input": "has no Input node",
    "text_weights": "weight is text where numbers belong",
    "boolean_weights": "weight is booleans where numbers belong",
    "complex_weights": "/node/nodes/fc/weight holds complex numbers",
    "record_weights": "/node/nodes/fc/weight holds records",
    "object_array": "/node/nodes/fc/bias holds objects",
    "group_for_weights": "weight is a group where numbers belong",
    "null_dataset": "/node/nodes/fc/bias is declared and holds no value",
    "cycle_without_delay": "a cycle without delay: a, b feed one another",
    "subgraph_two_inputs": "node 'lif': the subgraph has 2 Input nodes",
    "zero_stride": "stride holds 0, the least is 1",
    "kernel_too_large": "its kernel does not fit its input (1, 4, 4)",
    "external_storage": "/node/nodes/fc/bias has external storage",
    "external_link": "/node/nodes/fc/bias is a link into another file",
    "soft_link": "/node/nodes/fc/bias is a symbolic link",
    "virtual_dataset": "/node/nodes/fc/bias is a virtual dataset",
    "shared_object": "/node/nodes/lif is reached by two links",
    "cyclic_groups": "/node/nodes/fc/self is reached by two links",
    "deep_groups": "groups are nested deeper than 64 levels",
    "huge_dataset": "declares 8796093022672 bytes of values or more, the limit is 268435456",
    "huge_chunk": "declares 536870912 bytes of values or more, the limit is 268435456",
    "plugin_filter": "is compressed with filter 32015",
    "unprintable_name": "contains 'li\\nf', a name that cannot be printed",
    "newer_format": "newer format 3, this version reads up to 2 (upgrade nervecord)",
    "old_format": "has the old format 1, this version reads 2 (export it again from its training",
    "no_format": "names no format",
    "metadata_no_json": "Nervecord's metadata: is no JSON",
    "metadata_no_text": "Nervecord's metadata is no text",
    "metadata_nan": "Nervecord's metadata: is no JSON: invalid character",
    "metadata_nested": "Nervecord's metadata: is nested more than 64 deep",
    "metadata_huge_number": "dt: number out of range",
    "metadata_level": "is at level integer, not discrete",
    "metadata_negative_dt": "dt: expected float > 0.0, got -0.001",
    "metadata_other_dt": "disagree: 0.002 against 0.004 at dt = 0.002 s",
    "metadata_edge_gone": "lif: nothing feeds it",
    "metadata_edge_added": "edge input -> output stands only in the NIR edges",
    "metadata_node_gone": "node 'lif': stands in the metadata and not among the NIR nodes",
    "metadata_node_added": "node 'lif2': stands in the NIR nodes and not in the metadata",
    "metadata_type_edited": "node 'lif': LI: the metadata describes a LIF",
    "metadata_unknown_kind": "node 'lif': kind: 'Izhikevich' is unknown",
    "metadata_integer_kind": "lif: Quantise has no meaning at level discrete",
    "metadata_reset_rule": "node 'lif': spike.reset: 'hard' is unknown",
    "metadata_bad_shape": "node 'input': shape[0]: expected int, got str",
    "metadata_bad_clip": "node 'normalise': clip: expected float > 0.0, got 0.0",
    "metadata_array_gone": "the array 'a3' of Nervecord's metadata is missing",
    "metadata_array_text": "the array 'a3' of Nervecord's metadata is missing or no numbers",
    "metadata_delay": "node 'fc': delay: expected int <= 65536, got 2147483648",
    "metadata_old_kind": "node 'lif': kind: 'DiscreteLIF' is unknown",
    "metadata_part": "node 'lif': synapse.kind: 'Membrane' is unknown",
    "metadata_refractory": "node 'lif': spike.refractory: expected int <= 65536, got 2147483648",
    "decay_edited": "node 'lif': LIF: tau and the metadata disagree: 0.01 against 0.005",
    "tau_edited": "node 'lif': LIF: tau and the metadata disagree: 0.02 against 0.01",
    "delay_edited": "node 'fc%delay': Delay: delay and the metadata disagree: 0.003 against 0.002",
    "recorded_shape": "recorded observations have shape (4,)",
    "contract_no_object": "Nervecord's metadata: contract: expected object | null, got array",
    "contract_field_gone": "contract: field 'steps' is missing",
    "contract_unknown_field": "contract: unknown field 'mood'",
    "contract_wrong_type": "contract: steps: expected int, got str",
    "contract_other_size": "input: has 3 values, and the contract's observation has 1",
    "contract_escape": "contract: the text '\\x1b[2J' cannot be printed",
    "contract_fail_safe": "contract: the fail-safe value of w is 5, and its limits are -1..1",
    "contract_infinite": "contract: control_period: number out of range",
    "contract_limits": "output: can go beyond the contract's limit (high) of w (1.0 against 0.5)",
    "contract_steps": "contract: steps: expected int <= 65536, got 2147483648",
}


def outcome(path: Path, limits: Limits | None = None) -> Graph | Policy | Exception:
    """The graph, or whatever was raised: threads cannot raise for us."""
    try:
        return read_nir(path) if limits is None else read_nir(path, limits=limits)
    except Exception as error:
        return error


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Graph | Policy | Exception]:
    return {name: outcome(malformed(f"{name}.nir")) for name in SOURCE.FILES}


def test_every_file_has_a_cause(outcomes: dict[str, Any]) -> None:
    assert sorted(outcomes) == sorted(CAUSES)


@pytest.mark.parametrize("name", sorted(CAUSES))
def test_malformed(name: str, outcomes: dict[str, Any]) -> None:
    error = outcomes[name]
    assert isinstance(error, NervecordError), repr(error)
    text = str(error)
    assert text.startswith(str(malformed(f"{name}.nir")))
    assert CAUSES[name] in text
    assert "\n" not in text


@pytest.mark.slow
@pytest.mark.reader_process
def test_a_child_refuses_with_the_same_sentences(outcomes: dict[str, Any]) -> None:
    """The outcomes above are of this process."""
    paths = [malformed(f"{name}.nir") for name in SOURCE.FILES]
    with ThreadPoolExecutor(2) as pool:
        messages = dict(zip([path.stem for path in paths], map(str, pool.map(outcome, paths)), strict=True))
    assert messages == {name: str(error) for name, error in outcomes.items()}


# --------------------------------------------------------------------------------------------------------------------
# Paths, time, memory


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="no such file"):
        read_nir(tmp_path / "none.nir")
    with pytest.raises(FileFormatError, match="is a directory"):
        read_nir(tmp_path)
    with pytest.raises(FileFormatError, match=r"embedded null (byte|character)"):
        read_nir("a\0b.nir")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nir")
    with pytest.raises(FileFormatError, match="is no regular file"):
        read_nir(tmp_path / "pipe.nir")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.nir"
    path.write_bytes(b"\x89HDF")
    path.chmod(0)
    with pytest.raises(FileFormatError, match="Permission denied"):
        read_nir(path)


def test_a_large_file_is_not_opened() -> None:
    with pytest.raises(FileFormatError, match=r"\d+ bytes, .* 1000\b"):
        read_hdf5(malformed("nan_weights.nir"), Limits(file_bytes=1000))


@pytest.mark.reader_process
def test_time_limit() -> None:
    start = time.monotonic()
    with pytest.raises(FileFormatError, match=r" 0\.001 s"):
        read_hdf5(malformed("nan_weights.nir"), Limits(seconds=0.001, patience=1))
    assert time.monotonic() - start < 5


def test_time_that_it_waits_for_a_processor_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 readers at once on two processors each wait for minutes."""
    assert readerguard._queued(os.getpid()) >= 0.0
    assert readerguard._queued(1 << 30) == 0.0
    monkeypatch.setattr(readerguard, "_queued", lambda pid: 60.0)
    assert "node" in read_hdf5(malformed("nan_weights.nir"), Limits(seconds=0.001, patience=1))


@pytest.mark.reader_process
def test_what_hangs_is_killed_by_its_processor_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine takes nothing of it, so that sound files are read there as well."""
    hanging = readerguard.START.replace("import importlib, readerchild; ", "import importlib, readerchild\nhang()\n")
    assert hanging != readerguard.START
    limited = hanging.replace("hang()", "readerchild._limit(1 << 30, int(sys.argv[5])); hang()")
    monkeypatch.setattr(readerguard, "START", f"def hang():\n    while True: pass\n{limited}")
    with pytest.raises(FileFormatError, match=" 1 s of processor"):
        read_hdf5(malformed("nan_weights.nir"), Limits(seconds=0.5, patience=600))
    assert Limits().seconds_of(100) == 8
    assert Limits().seconds_of(64 << 20) == 136


@pytest.mark.reader_process
def test_memory_limit(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="no memory limits on this system")
    # 240 MB of zeros in a small file pass the check of sizes, and do not fit into the address space left.
    path = tmp_path / "bomb.nir"
    SOURCE.edited(SOURCE._declared((30_000_000, 1), (1_000_000, 1)))(path)
    with pytest.raises(FileFormatError, match=r"memory limit|ended the reader"):
        read_hdf5(path, Limits(process_bytes=-(256 << 20)))


# --------------------------------------------------------------------------------------------------------------------
# Fuzzing. Seeded: a failure names its seed.


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, blank or copy bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 32))):
        at, length = rng.randrange(len(out)), rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(5):
            case 0:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                out[at : at + length] = rng.randbytes(length)
            case 2:
                out[at : at + length] = bytes(length)
            case 3:
                out[at : at + length] = b"\xff" * length
            case 4:
                source = rng.randrange(len(out))
                out[at : at + length] = out[source : source + length]
    return bytes(out[: rng.randrange(len(out))] if rng.random() < 0.1 else out)


def fuzz(seeds: range, folder: Path) -> None:
    SOURCE.write(folder / "foreign.nir", SOURCE.sound())
    originals = [(folder / "foreign.nir").read_bytes(), nir_bytes(SOURCE.policy())]

    def one(seed: int) -> Graph | Policy | Exception:
        path = folder / f"{seed}.nir"
        path.write_bytes(mutate(originals[seed % 2], random.Random(seed)))
        return outcome(path, Limits(seconds=10))

    with ThreadPoolExecutor(2) as pool:
        for seed, result in zip(seeds, pool.map(one, seeds), strict=True):
            if isinstance(result, (Graph, Policy)):
                assert verify(result) == [], f"seed {seed}"
            else:
                assert isinstance(result, NervecordError), f"seed {seed}: {result!r}"
                assert "\n" not in str(result), f"seed {seed}"


@pytest.mark.reader_process
def test_mutated_bytes(tmp_path: Path) -> None:
    fuzz(range(6), tmp_path)


@pytest.mark.slow
@pytest.mark.reader_process
def test_more_mutated_bytes(tmp_path: Path) -> None:
    fuzz(range(6, 2006), tmp_path)


JUNK: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    10**15,
    1.5,
    1e308,
    "",
    "x",
    "lif",
    "DiscreteLIF",
    "Neuron",
    "subtract",
    [],
    [1],
    ["a", "b"],
    [[]],
    {},
    {"name": "x"},
    np.zeros(0),
    np.zeros(2),
    np.full(2, np.nan),
    np.ones((2, 3)),
    np.array(1.0),
    np.array(-1),
    np.array(True),
)


def mutate_tree(tree: Any, rng: random.Random) -> None:
    """Replace, remove or add one thing somewhere in nested dicts and lists."""
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            walk(value[key])

    walk(tree)
    parent, key = rng.choice(places)
    if rng.random() < 0.2:
        del parent[key]
    elif isinstance(parent, dict) and rng.random() < 0.1:
        parent[rng.choice(("x", "metadata", "type", "bias", "padding"))] = copy.deepcopy(rng.choice(JUNK))
    else:
        parent[key] = copy.deepcopy(rng.choice(JUNK))


@pytest.mark.parametrize("start", ["foreign", "ours", "metadata"])
def test_mutated_content(start: str, tmp_path: Path) -> None:
    """Well-formed HDF5 with anything in it: nodes, edges, Nervecord's description."""
    path = tmp_path / "a.nir"
    if start == "foreign":
        SOURCE.write(path, SOURCE.sound())
    else:
        path.write_bytes(nir_bytes(SOURCE.policy()))
    root = load(str(path), 1 << 20)["node"]
    for seed in range(600):
        rng = random.Random(seed)
        tree = copy.deepcopy(root)
        if start == "metadata":
            data = json.loads(tree["metadata"]["nervecord"])
            # Only what JSON can hold.
            mutate_tree(data, rng)
            tree["metadata"]["nervecord"] = json.dumps(data, default=lambda array: array.tolist())
        else:
            mutate_tree(tree, rng)
        try:
            if start == "foreign":
                graph = require(import_graph(tree, where="a.nir", dt=None))
            elif isinstance(tree.get("metadata"), dict) and "nervecord" in tree["metadata"]:
                graph = restore(tree, where="a.nir")
            else:
                continue
        except NervecordError as error:
            assert "\n" not in str(error), f"seed {seed}"  # noqa: PT017
            continue
        assert verify(graph) == [], f"seed {seed}"
