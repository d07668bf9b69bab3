"""Bad files and bad worlds: exit code 2 and one clear sentence that names the file, whatever the verb."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from nervecord.compiler import hdf5child, hdf5guard, nirfile
from nervecord.compiler.hdf5guard import LIMITS, Limits
from nervecord.compiler.nirfile import read_nir
from nervecord.errors import FileFormatError, NervecordError

FOLDER = Path(__file__).parent.parent / "data" / "malformed"
VERBS = ("inspect", "compile", "run")

# What the sentence about each program must say, beside the file's name.
CAUSES = {
    "empty": "is no program, or a damaged one",
    "not_a_zip": "is no program, or a damaged one",
    "another_zip": "has no manifest.json, so it is no program",
    "truncated": "is no program, or a damaged one",
    "cut_directory": "is no program, or a damaged one",
    "damaged_member": "Bad CRC-32 for file 'manifest.json'",
    "compressed": "has compressed parts, which no program has",
    "compressed_bomb": "has compressed parts, which no program has",
    "declares_gigabytes": "bytes, at most 1073741824 are read",
    "overlapping_entries": "holds 'arrays/bomb.npy' twice",
    "traversal": "holds '../../escaped', which no program has",
    "absolute_name": "holds '/tmp/escaped', which no program has",
    "surplus_member": "holds 'arrays/readme.txt', which no program has",
    "duplicate_manifest": "holds 'manifest.json' twice",
    "duplicate_array": "holds 'arrays/0.npy' twice",
    "no_manifest": "has no manifest.json, so it is no program",
    "manifest_no_json": "its manifest.json is no JSON",
    "manifest_no_text": "its manifest.json is no JSON",
    "manifest_a_list": "its manifest.json is no JSON object",
    "manifest_nested": "its manifest.json is no JSON: nested more than 64 deep",
    "manifest_huge_number": "its manifest.json is no JSON",
    "manifest_nan": "its manifest.json is no JSON: NaN is no number of JSON",
    "newer_format": "has format 2, this version reads up to 1 (upgrade nervecord)",
    "no_format": "says format None, which is no version",
    "format_is_text": "says format '1', which is no version",
    "no_target": "'target' is missing from its manifest",
    "target_is_a_list": "target is ['lava'], no name",
    "unknown_target": "is for target 'lavva', and nothing here runs that",
    "inspected_target": "is for target 'xylo', and nothing here runs that",
    "no_graph": "'graph' is missing from its manifest",
    "no_hashes": "'hashes' is missing from its manifest",
    "hashes_are_text": "its manifest is malformed",
    "arrays_are_a_number": "its manifest is malformed",
    "versions_are_a_list": "its manifest is malformed",
    "allowances_are_a_number": "its manifest is malformed",
    "no_report": "has no report.json",
    "report_a_list": "its report.json is no JSON object",
    "structure_hash": "the hash of its structure is not the one its manifest gives",
    "weights_hash": "the hash of its weights is not the one its manifest gives",
    "array_member_gone": "has no arrays/1.npy",
    "array_gone": "array fc1/weight is missing",
    "array_no_array": "its arrays/0.npy is no array",
    "array_a_zip": "its arrays/0.npy is no array",
    "array_terabytes": "its arrays/0.npy is no array",
    "array_pickled": "its arrays/0.npy is no array: Object arrays cannot be loaded",
    "array_text": "array fc1/weight holds <U11, int32 is needed",
    "array_complex": "array fc1/weight holds complex128, int32 is needed",
    "array_records": "array fc1/weight holds [('a', '<i4')], int32 is needed",
    "array_shape": "fc1: takes shape (2,), and quantise gives (3,)",
    "array_scalar": "fc1: weight has 0 axes, not 2",
    "weights_nan": "fc1: weight has 6 values that are NaN or infinite",
    "weights_infinite": "fc1: weight has 6 values that are NaN or infinite",
    "weights_scalar": "fc1: weight has 0 axes, not 2",
    "weights_float": "array fc1/weight holds float64, int32 is needed",
    "weights_too_wide": "fc1: weight lies outside -255..255",
    "mean_nan": "normalise: mean has 3 values that are NaN or infinite",
    "graph_a_list": "the description of the graph is malformed",
    "nodes_a_number": "the description of the graph is malformed",
    "no_nodes": "has no Input node",
    "node_without_kind": "'kind' is missing from the description of the graph",
    "kind_is_a_list": "the description of the graph is malformed",
    "unknown_kind": "unknown node type 'Izhikevich'",
    "unknown_field": "node 'lif1' has an unknown field 'refractory'",
    "field_of_another_type": "7.5 stands where a value of type int belongs",
    "duplicate_node": "two of its nodes have the same name",
    "name_with_newline": "the node name 'a\\nb' cannot be printed",
    "edge_of_three": "the description of the graph is malformed",
    "edge_gone": "action: nothing feeds it",
    "dangling_edge": "edge fc1 -> nobody names a node that does not exist",
    "unknown_level": "'quantum' is not a valid Level",
    "imported_level": "fc1: FixedDense has no meaning at level imported",
    "dt_is_text": "could not convert string to float: 'soon'",
    "dt_is_negative": "dt is -1.0, a positive number of seconds is needed",
    "contract_a_list": "contract: ",
    "contract_field_gone": "contract: field 'steps' is missing",
    "contract_unknown_field": "contract: unknown field 'mood'",
    "contract_of_another_size": "the contract's observation has 1 values",
}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("malformed_programs", FOLDER / "programs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --------------------------------------------------------------------------------------------------------------------
# Programs


def test_every_program_has_a_cause_and_comes_from_the_generator(generator: ModuleType, tmp_path: Path) -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.nervecord")) == sorted(CAUSES) == sorted(generator.FILES)
    generator.generate(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [f"{name}.nervecord" for name in sorted(CAUSES)]


def test_the_program_they_all_start_from_is_sound(generator: ModuleType, nervecord_cli: Any, tmp_path: Path) -> None:
    for name, target in (("lava", None), ("reference", generator.ReferenceTarget())):
        path = tmp_path / f"{name}.nervecord"
        path.write_bytes(generator.packed(list(generator.opened(target).items())))
        assert nervecord_cli("inspect", path).code == 0
        path.write_bytes(generator.rehashed(lambda manifest, arrays: None, target)())
        assert nervecord_cli("inspect", path).code == 0


@pytest.mark.parametrize("name", CAUSES)
def test_malformed_programs(name: str, nervecord_cli: Any) -> None:
    path = FOLDER / f"{name}.nervecord"
    for verb in VERBS:
        text = nervecord_cli(verb, path).refused(CAUSES[name])
        assert text.startswith(f"nervecord {verb}: {path}: ")
        assert text.count(str(path)) == 1


def test_a_program_is_not_compiled_again(files: Path, nervecord_cli: Any) -> None:
    path = files / "ant.nervecord"
    nervecord_cli("compile", path).refused(f"{path}: is a program, compiled already")


# --------------------------------------------------------------------------------------------------------------------
# NIR

NIR = sorted(path.stem for path in FOLDER.glob("*.nir"))


@pytest.fixture
def parse_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 is parsed in this process, by the code of the child: 300 processes would take a minute."""

    def read(path: Any, limits: Limits = LIMITS) -> Any:
        size = hdf5guard._checked_size(str(path), limits)
        try:
            return hdf5child.load(str(path), limits.values_of(size))
        except hdf5child.RefusedError as error:
            raise FileFormatError(str(error), where=str(path)) from None
        except Exception as error:
            raise FileFormatError(f"damaged: {hdf5guard.one_line(str(error))}", where=str(path)) from None

    monkeypatch.setattr(nirfile, "read_hdf5", read)


@pytest.mark.usefixtures("parse_here")
@pytest.mark.parametrize("name", NIR)
def test_malformed_nir(name: str, nervecord_cli: Any) -> None:
    path = FOLDER / f"{name}.nir"
    with pytest.raises(NervecordError) as caught:  # tests/compiler/test_nir_malformed.py looks at its words
        read_nir(path)
    assert str(path) in str(caught.value)
    for verb in VERBS:
        assert nervecord_cli(verb, path).refused() == f"nervecord {verb}: {caught.value}\n"


@pytest.mark.parametrize("name", ["truncated", "external_link", "metadata_nan"])
def test_malformed_nir_to_the_end(name: str, nervecord_cli: Any) -> None:
    path = FOLDER / f"{name}.nir"
    nervecord_cli("inspect", path).refused(f"nervecord inspect: {path}: ")


# --------------------------------------------------------------------------------------------------------------------
# Other files


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_file(verb: str, nervecord_cli: Any, tmp_path: Path) -> None:
    (tmp_path / "folder.nervecord").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    for name, words in (
        ("none.nir", "no such file"),
        ("none.nervecord", "does not exist"),
        ("none", "no such file"),
        ("folder.nervecord", "is a folder, not a program"),
        (".", "is a directory, an HDF5 file is needed"),
        ("text.txt", "is not an HDF5 file"),
        ("no\nfile", "no such file"),
    ):
        text = nervecord_cli(verb, tmp_path / name).refused(words)
        assert str(tmp_path) in text


def test_a_policy_of_another_tool_has_no_contract(nervecord_cli: Any) -> None:
    path = FOLDER.parent / "nir" / "lif_norse.nir"
    for line in (("compile", path), ("compile", path, "--dt", 1e-4), ("run", path)):
        nervecord_cli(*line).refused(f"{path}: carries no contract, so it is no policy")


def bomb(path: Path) -> None:
    """Kilobytes that unpack to more than a gigabyte, as their directory says."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("observations.npy", b"\0" * 1000)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2") + 24
    data[at : at + 4] = (1 << 31).to_bytes(4, "little")
    path.write_bytes(data)


def header(path: Path) -> None:
    """An .npy whose header declares terabytes."""
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "<f8", "fortran_order": False, "shape": (100_000_000_000, 27)})
    path.write_bytes(out.getvalue())


ROWS: dict[str, tuple[Any, str]] = {
    "no file": (lambda path: None, "does not exist"),
    "a folder": (lambda path: path.mkdir(), "is a folder"),
    "text": (lambda path: path.write_text("hello"), "is no .npz or .npy file of numbers"),
    "nothing": (lambda path: path.write_bytes(b""), "is no .npz or .npy file of numbers"),
    "another zip": (lambda path: zipfile.ZipFile(path, "w").close(), "holds nothing"),
    "a zip bomb": (bomb, "unpacks to 2147483648 bytes, at most 1073741824 are read"),
    "terabytes": (header, "is no .npz or .npy file of numbers (Unable to allocate"),
    "26 columns": (np.zeros((20, 26)), "have shape (20, 26), "),
    "one row": (np.zeros(27), "have shape (27,), "),
    "no rows": (np.zeros((0, 27)), "have shape (0, 27), "),
    "NaN": (np.full((20, 27), np.nan), ""),
    "words": (np.array(["a", "b"]), "holds something else than numbers under 'observations'"),
    "complex": (np.zeros((20, 27), dtype=complex), "holds something else than numbers under 'observations'"),
    "objects": (np.array([{}], dtype=object), "Object arrays cannot be loaded"),
}


@pytest.mark.parametrize("name", ROWS)
def test_files_of_observations(name: str, nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    content, words = ROWS[name]
    path = tmp_path / "rows.npz"
    if callable(content):
        content(path)
    else:
        np.savez(path, observations=content)
    policy, output = files / "ant.nir", tmp_path / "out"
    for line in (
        ("compile", policy, "--calibration", path, "-o", output),
        ("compare", policy, files / "ant.nervecord", "--observations", path),
        ("simulate", policy, "--input", path, "-o", output),
    ):
        answer = nervecord_cli(*line)
        if answer.err.startswith("nervecord simulate: observation: "):  # its shape is for the graph to judge
            text = answer.refused(words, f"\nits values are those of {path}\n", notes=1)
        else:
            text = answer.refused(f"nervecord {line[0]}: {path}: ", words)
        assert "allow_pickle=" not in text.replace("allow_pickle=False", "")  # nobody is told to trust the file
    assert not output.exists()


def test_which_array_is_meant_must_be_clear(nervecord_cli: Any, files: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.zeros((20, 27)), b=np.zeros((20, 27)))
    for verb, flag in (("compile", "--calibration"), ("simulate", "--input")):
        nervecord_cli(verb, files / "ant.nir", flag, tmp_path / "two.npz").refused("two.npz: holds a, b, and which")


def test_too_few_observations_to_calibrate(nervecord_cli: Any, files: Path) -> None:
    nervecord_cli("compile", files / "ant.nir", "--calibration", files / "rows.npz").refused(
        "10 observations are too few, 16 are needed"
    )


# --------------------------------------------------------------------------------------------------------------------
# Other worlds


@pytest.mark.parametrize("kind", ["nir", "nervecord"])
def test_an_ant_elsewhere(kind: str, nervecord_cli: Any, files: Path) -> None:
    path = files / f"ant.{kind}"
    nervecord_cli("run", path, "--env", "HalfCheetah-v4").refused(
        "HalfCheetah-v4: the policy was trained in Ant-v4, of which it takes 27 observations (run it there: "
        "--env Ant-v4;"
    )
    nervecord_cli("run", path, "--env", "Nowhere-v4").refused("Nowhere-v4: no such environment")
    nervecord_cli("run", path, "--env", "Ant").refused("Ant: the policy was trained in Ant-v4")
    nervecord_cli("run", path, "--env", "no_module:Ant-v0").refused("no_module:Ant-v0: no such environment")
    nervecord_cli("run", path, "--env", "Pendulum-v1", "--allow-other-env", "--episodes", 1).refused(
        "Pendulum-v1: observations have shape (3,), the policy takes 27 values"
    )


# --------------------------------------------------------------------------------------------------------------------
# In a process of its own


@pytest.mark.parametrize(
    "words",
    [
        ("inspect", FOLDER / "traversal.nervecord"),
        ("run", FOLDER / "weights_hash.nervecord"),
        ("compile", FOLDER / "nan_weights.nir"),
    ],
)
def test_the_whole_command(words: tuple[Any, ...], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nervecord", *map(str, words)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"nervecord {words[0]}: {words[1]}: ")
    assert done.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == []
