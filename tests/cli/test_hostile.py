"""Values, files and paths that were once read wrongly: each is a sentence and exit code 2, and the same from Python.

Damaged programs and NIR files stand in test_bad_input.py, and 2,000 random ones in tests/fuzz.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from malformed import malformed

import nervecord
from nervecord.compiler.graph.graph import chain
from nervecord.compiler.nir import file as nirfile
from nervecord.compiler.nir import hdf5child
from nervecord.compiler.nir.file import write_nir
from nervecord.compiler.ops import Affine, Input, Level, Membrane, Neuron, Output
from nervecord.errors import FileFormatError, NervecordError
from nervecord.runtime.arrayfile import read_arrays
from nervecord.training.folder.records import last_row, read_columns, read_record


def npy(header: str, values: bytes = b"", version: bytes = b"\1\0") -> bytes:
    """An .npy of this header."""
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version == b"\1\0" else 4, "little") + text + values


def described(descr: str = "'<f8'", shape: str = "(20, 27)", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


NO_NUMBERS = "holds something else than numbers"
HEADERS: dict[str, tuple[bytes, str]] = {
    "no end": (npy("{'descr': '<f8', 'shape': (1,"), NO_NUMBERS),
    "a text without an end": (npy("{'descr': '''<f8"), NO_NUMBERS),
    "brackets": (npy("{'descr': " + "(" * 3000 + "}"), NO_NUMBERS),
    "minus signs": (npy("{'descr': " + "-" * 4000 + "1}"), NO_NUMBERS),
    "a long header": (npy(" " * 60_000), "has a header of 60001 bytes"),
    "a header beyond its file": (npy("{}")[:-2], "is no .npz or .npy file of numbers"),
    "two of a key": (npy("{'descr': '<f8', 'descr': '<f8', 'shape': (1,)}"), NO_NUMBERS),
    "400 digits": (npy(described(shape="(" + "9" * 400 + ", 27)")), "which is none"),
    "5000 digits": (npy(described(shape="(" + "9" * 3900 + ", 27)")), "which is none"),
    "1e999": (npy(described(shape="(1e999, 27)")), NO_NUMBERS),
    "a negative size": (npy(described(shape="(-1, 27)")), NO_NUMBERS),
    "true as a size": (npy(described(shape="(True, 27)")), NO_NUMBERS),
    "sizes beyond memory": (npy(described(shape="(4294967296, 4294967296, 27)")), "and 0 are there"),
    "nothing times everything": (npy(described(shape="(0, 4294967296, 4294967296)")), "and 0 are there"),
    "70 axes": (npy(described(shape="(" + "1, " * 70 + ")")), "which is none"),
    "a shape that is none": (npy(described(shape="True")), "which is none"),
    "an order that is none": (npy(described(order="'C'")), NO_NUMBERS),
    "records": (npy(described("[('a', '<f8')]")), NO_NUMBERS),
    "nested types": (npy(described("[('a','<f8',(100000,100000))]")), NO_NUMBERS),
    "void": (npy(described("'|V8'")), "type '|V8'"),
    "extended floats": (npy(described("'<f16'")), "type '<f16'"),
    "dates": (npy(described("'<M8[s]'")), "type '<M8[s]'"),
    "a pickle": (npy(described("'|O'")), "type '|O'"),
    "an escape": (npy(described("'\x1b[2J'")), "type '\\x1b[2J'"),
    "an unknown version": (npy(described(), version=b"\7\0"), "is no .npz or .npy file of numbers"),
    "too few values": (npy(described(), bytes(100)), "declares 4320 bytes of values in shape (20, 27)"),
    "too many values": (npy(described(), bytes(4328)), "and 4328 are there"),
}


@pytest.mark.parametrize("packed", [False, True], ids=["npy", "npz"])
@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_arrays(name: str, packed: bool, nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    content, words = HEADERS[name]
    path = tmp_path / "rows"
    path.write_bytes(content)
    if packed:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("observations.npy", content)
    nervecord_cli("simulate", files / "ant.nir", "--input", path).refused(f"nervecord simulate: {path}: ", words)
    with pytest.raises(FileFormatError) as caught:
        read_arrays(path)
    assert words in str(caught.value)


def at(central: int, local: int, value: int) -> Callable[[bytearray], None]:
    """Sets two bytes in both headers of the only entry."""

    def change(data: bytearray) -> None:
        start = data.index(b"PK\1\2")
        for place in (start + central, local):
            data[place : place + 2] = value.to_bytes(2, "little")

    return change


def _blank(data: bytearray) -> None:
    data[50:70] = b"\xff" * 20


def _no_text(data: bytearray) -> None:
    at(8, 6, 0x800)(data)
    data[30] = data[data.index(b"PK\1\2") + 46] = 0xFF


def _shorter(data: bytearray) -> None:
    start = data.index(b"PK\1\2") + 24
    data[start : start + 4] = (100).to_bytes(4, "little")


ARCHIVES: dict[str, tuple[Callable[[bytearray], None], str]] = {
    "encrypted": (at(8, 6, 1), "encrypted, or packed by other methods"),
    "strongly encrypted": (at(8, 6, 0x40), "encrypted, or packed by other methods"),
    "patched": (at(8, 6, 0x20), "encrypted, or packed by other methods"),
    "an unknown method": (at(10, 8, 99), "encrypted, or packed by other methods"),
    "bzip2": (at(10, 8, 12), "encrypted, or packed by other methods"),
    "a newer zip": (at(6, 4, 200), "zip file version 20.0"),
    "no deflate": (_blank, "Error -3 while decompressing"),
    "a name that is no text": (_no_text, "can't decode byte 0xff"),
    "larger than it says": (_shorter, "or a damaged one"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_of_arrays(name: str, nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    change, words = ARCHIVES[name]
    path = tmp_path / "rows.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("observations.npy", npy(described(), np.random.default_rng(0).bytes(4320)))
    data = bytearray(path.read_bytes())
    change(data)
    path.write_bytes(data)
    nervecord_cli("simulate", files / "ant.nir", "--input", path).refused(f"nervecord simulate: {path}: ", words)


def test_many_entries_and_names_for_terminals(tmp_path: Path) -> None:
    path = tmp_path / "many.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(5000):
            archive.writestr(f"{k}.npy", b"")
    with pytest.raises(FileFormatError, match=r"\b5000 .*\b4096 "):
        read_arrays(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("\x1b[2J.npy", npy(described("'<f8'", "(1,)"), bytes(8)))
    with pytest.raises(FileFormatError, match=r"'\\x1b\[2J'"):
        read_arrays(path)


@pytest.mark.parametrize(
    ("descr", "count", "words"),
    [("|i1", 255 << 20, "2139094872 bytes as float64, "), ("<f8", 34 << 20, "285212792 bytes, ")],
)
def test_arrays_that_unpack_to_far_more_than_their_file(descr: str, count: int, words: str, tmp_path: Path) -> None:
    """Deflated zeros: what they take as float64 is counted, and refused before they are unpacked."""
    path, rows = tmp_path / "rows.npz", count // 27
    header = npy(described(repr(descr), f"({rows}, 27)").ljust(117))
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("rows.npy", "w") as entry,
    ):
        entry.write(header)
        for _ in range(np.dtype(descr).itemsize):
            entry.write(bytes(rows * 27))
    tracemalloc.start()
    with pytest.raises(FileFormatError) as caught:
        read_arrays(path)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert words in str(caught.value)
    assert most < 16 << 20


def test_an_npy_is_held_once(tmp_path: Path) -> None:
    """One of a gigabyte would take two."""
    size = 1 << 25
    np.save(tmp_path / "x.npy", np.zeros(size // 8))
    tracemalloc.start()
    try:
        read_arrays(tmp_path / "x.npy")
        assert tracemalloc.get_traced_memory()[1] < 1.5 * size
    finally:
        tracemalloc.stop()


def test_what_numpy_writes_is_read_as_numpy_reads_it(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    arrays = {
        "f8": draw.normal(size=(4, 3)),
        "f4": draw.normal(size=5).astype("f4"),
        "fortran": np.asfortranarray(draw.normal(size=(4, 3))),
        "big": draw.normal(size=(2, 2)).astype(">f8"),
        "i": np.arange(6).reshape(2, 3),
        "u1": np.arange(4, dtype="u1"),
        "flag": np.array([True, False]),
        "scalar": np.array(1.5),
        "none": np.zeros((0, 3)),
        "half": np.arange(3, dtype="f2"),
    }
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "a.npz", **arrays)
        contents = read_arrays(tmp_path / "a.npz")
        assert list(contents) == list(arrays)
        for name, array in arrays.items():
            assert contents[name].shape == array.shape
            assert contents[name].dtype == array.dtype.newbyteorder("=")
            assert np.array_equal(contents[name], array)
    np.save(tmp_path / "a.npy", arrays["fortran"])
    assert np.array_equal(read_arrays(tmp_path / "a.npy")[""], arrays["fortran"])


# --------------------------------------------------------------------------------------------------------------------
# Numbers at the end of float64. The suite makes warnings errors: numpy's, with places in our source, would be seen.

LARGEST = float(np.finfo(np.float64).max)
TOY = Path(__file__).parent.parent / "fuzz" / "corpus" / "current.contract.toml"


def network(weight: np.ndarray, path: Path) -> Path:
    """A file of a network of 3 inputs and 2 membranes."""
    one, zero = np.ones(2), np.zeros(2)
    nodes = [
        ("in", Input((3,))),
        ("fc", Affine(weight)),
        ("neurons", Neuron(Membrane(0.5 * one, one, zero))),
        ("out", Output((2,))),
    ]
    write_nir(chain(Level.DISCRETE, nodes, dt=1e-3), path)
    return path


@pytest.mark.parametrize("largest", [LARGEST, 2.0**53 + 2, 1e20, 1e200])
def test_weights_of_any_size_are_inspected(largest: float, nervecord_cli: Any, tmp_path: Path) -> None:
    path = network(np.array([[-1.0, -1.0, 0.0], [1.0, 1.0, 0.5]]) * largest, tmp_path / "a.nir")
    answer = nervecord_cli("inspect", path, "--target", "lava", "--json")
    assert answer.code == 0, answer
    spread = next(node["weights"] for node in json.loads(answer.out)["graph"]["nodes"] if node["weights"])
    assert (spread["low"], spread["high"]) == (-largest, largest)
    assert sum(spread["counts"]) == 5
    assert spread["edges"] == sorted(spread["edges"])
    assert np.isfinite([spread["mean"], spread["std"], *spread["edges"]]).all()
    assert spread["mean"] == pytest.approx(largest / 12)


def test_what_goes_beyond_float64_is_refused_with_its_node(nervecord_cli: Any, tmp_path: Path) -> None:
    path = network(np.full((2, 3), LARGEST), tmp_path / "a.nir")
    np.savez(tmp_path / "rows.npz", np.ones((4, 3)))
    nervecord_cli("simulate", path, "--input", tmp_path / "rows.npz").refused(
        "nervecord simulate: fc, step 0: on this input a value goes beyond what float64 holds"
    )


def test_what_a_clip_takes_is_no_matter(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    """Observations and a scale whose products go beyond float64, before the limits that both have."""
    rows = np.random.default_rng(0).normal(size=(20, 3))
    np.savez(tmp_path / "rows.npz", rows)
    np.savez(tmp_path / "huge.npz", np.where(rows > 0, 1.7e308, -1.7e308))
    contract = tmp_path / "contract.toml"
    contract.write_text(TOY.read_text().replace("scale = [1.0, 2.0]", "scale = 1e308"))
    path = network(np.ones((2, 3)), tmp_path / "a.nir")
    for name in ("rows", "huge"):
        flags = ("--contract", contract, "--calibration", tmp_path / f"{name}.npz", "-o", tmp_path / "a.nervecord")
        answer = nervecord_cli("compile", path, *flags)
        assert answer.code == 0, answer
    program = nervecord.load(tmp_path / "a.nervecord")
    for engine in ("definition", "emulator"):
        with nervecord.open(program, engine=engine) as session:
            assert np.abs(session.step(np.full(3, 1.7e308))).tolist() == [1.0, 2.0]


def test_actions_whose_squares_go_beyond_float64(nervecord_cli: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", np.full((20, 3), 3.0))
    contract = tmp_path / "contract.toml"
    content = TOY.read_text().replace("scale = [1.0, 2.0]", "scale = 1e308")
    contract.write_text(content.replace("[-1.0, -2.0]", "[-1e300, -2.0]").replace("[1.0, 2.0]", "[1e300, 2.0]"))
    path = network(np.ones((2, 3)), tmp_path / "a.nir")
    nervecord_cli("compile", path, "--contract", contract, "--calibration", tmp_path / "rows.npz").refused(
        "calibration: ", " 1e+300, ", " 1e+150 "
    )


# --------------------------------------------------------------------------------------------------------------------
# Paths


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Paths of what is no regular file, and of what no file can be."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as bound:
        before = os.getcwd()
        os.chdir(tmp_path)  # the name of a socket is short
        bound.bind("socket")
        os.chdir(before)
        paths = {name: str(tmp_path / name) for name in ("pipe", "link", "loop", "zero", "socket")}
        paths |= {"device": "/dev/zero", "null": "a\0b", "surrogate": "\ud800", "long": "x" * 300, "deep": "x/" * 3000}
        paths |= {"under a file": str(malformed("empty.nir") / "x"), "escape": "\x1b[2J", "nothing": ""}
        yield paths


READERS: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect", "{}"),
    "compile": ("compile", "{}"),
    "run": ("run", "{}"),
    "simulate": ("simulate", "{ant}", "--input", "{}"),
    "calibration": ("compile", "{ant}", "--calibration", "{}"),
    "contract": ("compile", "{ant}", "--contract", "{}"),
    "target": ("inspect", "{ant}", "--target-file", "{}"),
    "observations": ("compare", "{ant}", "{ant}", "--observations", "{}"),
    "study": ("sweep", "{}"),
    "run folder": ("train", "--resume", "{}"),
    "teacher": ("distill", "{}"),
}


@pytest.mark.parametrize("reader", READERS)
def test_paths_of_what_is_no_file(
    reader: str, odd: dict[str, str], nervecord_cli: Any, files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is waited for, and nothing endless is read; what a name would do to a terminal it does not do."""
    monkeypatch.chdir(tmp_path)
    ant = str(files / "ant.nir")
    tree, real = hdf5child.load(ant, 1 << 24), nirfile.read_hdf5
    # Read once: each reading takes a process.
    monkeypatch.setattr(nirfile, "read_hdf5", lambda path, *more: tree if str(path) == ant else real(path, *more))
    for name, path in odd.items():
        words = [word.replace("{}", path).replace("{ant}", ant) for word in READERS[reader]]
        answers: list[Any] = []
        thread = threading.Thread(target=lambda w=words, out=answers: out.append(nervecord_cli(*w)), daemon=True)
        thread.start()
        thread.join(60)
        assert answers, f"{name} is waited for"
        text = answers[0].refused().removesuffix("\n")
        assert text.isprintable(), name


def test_the_same_from_python(odd: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in odd.values():
        for reader in (nervecord.read, nervecord.load, nervecord.open, nervecord.inspect, read_arrays):
            with pytest.raises(NervecordError) as caught:
                reader(path)  # type: ignore[operator]
            assert str(caught.value).isprintable()
        with pytest.raises(NervecordError):
            nervecord.target(file=path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read(nervecord_cli: Any, tmp_path: Path) -> None:
    for name in ("a.nir", "a.nervecord"):
        (tmp_path / name).write_bytes(b"PK")
        (tmp_path / name).chmod(0)
        nervecord_cli("inspect", tmp_path / name).refused(f"{name}: ", "denied")


def test_folders_for_results_that_cannot_be(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    for folder in ("a\0b", "\ud800", "x" * 300, "/dev/null/x"):
        nervecord_cli("compile", files / "ant.nir", "--dump", folder).refused("cannot be made")
        nervecord_cli("compile", files / "ant.nir", "-o", f"{folder}/x").refused()


# --------------------------------------------------------------------------------------------------------------------
# Run folders


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not JSON"),
        (b"[]", "holds list"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"\xff", "no text"),
        (b'{"\x1b": }', "not JSON"),
    ],
)
def test_records_of_runs(content: bytes, words: str, nervecord_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(FileFormatError, match=words):
        read_record(tmp_path / "config.json")
    nervecord_cli("train", "--resume", tmp_path).refused(words)
    nervecord_cli("distill", tmp_path).refused(words)


def test_rows_of_metrics(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_columns(path) == []
    path.write_bytes(b'{"step": 1}\n{"step": 2}\n{"st')  # the last one of a process that was killed
    assert read_columns(path, "return") == [(1, None), (2, None)]
    assert last_row(path) == {"step": 2}
    for row in (b"{}\n", b'{"step": "1"}\n', b"nonsense\n"):
        path.write_bytes(row)
        with pytest.raises(FileFormatError, match="line 1"):
            read_columns(path)


# --------------------------------------------------------------------------------------------------------------------
# HDF5's plug-ins

PLUGIN = """
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
__attribute__((constructor)) static void load(void) { close(open(getenv("TOUCHED"), O_CREAT | O_WRONLY, 0600)); }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_no_plugin_is_loaded_whatever_the_environment_says(tmp_path: Path) -> None:
    """Of a file that it cannot open HDF5 2 asks every plug-in that it finds."""
    (tmp_path / "plugin.c").write_text(PLUGIN)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "libplugin.so", "plugin.c"], cwd=tmp_path, check=True)
    touched = tmp_path / "touched"
    environment = {**os.environ, "HDF5_PLUGIN_PATH": str(tmp_path), "HDF5_PLUGIN_PRELOAD": "", "TOUCHED": str(touched)}
    code = f"import ctypes; ctypes.CDLL({str(tmp_path / 'libplugin.so')!r})"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert touched.exists()  # it would be seen
    touched.unlink()
    for name in ("damaged_superblock", "plugin_filter"):
        process = subprocess.run(
            [sys.executable, "-m", "nervecord", "inspect", str(malformed(f"{name}.nir"))],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert process.returncode == 2, process.stderr
        assert not touched.exists(), name


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("run pendulum.nervecord --episodes 10000000000", ("episodes: ", "10000000000", "10,000,000")),
        (f"run pendulum.nervecord --episodes {'9' * 30}", ("--episodes: ", "1e+18")),
        ("run pendulum.nervecord --episodes 1e300", ("--episodes: ", "1e+18")),
        ("run pendulum.nervecord --video v.mp4 --video-seconds 1e400", ("--video-seconds: ", " inf")),
        (f"inspect ant.nir --set neurons_per_core={'9' * 400}", ("--set neurons_per_core: ", "'9999")),
        (f"train --env CartPole-v1 --steps {'9' * 350}", ("--steps",)),
        (f"train --env CartPole-v1 --layers {'9' * 30}", ("--layers",)),
    ],
)
def test_numbers_that_no_flag_takes(words: str, parts: tuple[str, ...], nervecord_cli: Any, files: Path) -> None:
    pytest.importorskip("torch")
    if "--video " in words:
        pytest.importorskip("imageio_ffmpeg")
    arguments = [str(files / word) if word.endswith((".nervecord", ".nir")) else word for word in words.split()]
    nervecord_cli(*arguments).refused(*parts)


def test_names_of_files_reach_a_terminal_only_escaped(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    odd = tmp_path / "\x1b[31mX.nir"
    odd.write_bytes((files / "ant.nir").read_bytes())
    path = tmp_path / "\x1b[32mY.nervecord"
    rows = files / "rows.npz"
    for words in (("inspect", odd), ("compile", odd, "-o", path), ("compare", odd, path, "--observations", rows)):
        answer = nervecord_cli(*words)
        assert answer.code == 0, answer.err
        assert "\x1b" not in answer.out + answer.err


def test_a_name_that_is_no_text_is_written_out_in_a_page(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    odd = os.fsencode(tmp_path) + b"/\xff.nir"
    shutil.copy(files / "ant.nir", odd)
    answer = nervecord_cli("inspect", os.fsdecode(odd), "--target", "lava", "--html", tmp_path / "page.html")
    assert answer.code == 0, answer.err
    assert "\\udcff" in (tmp_path / "page.html").read_text("utf-8")
