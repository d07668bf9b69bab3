"""The command itself: verbs found, flags refused, errors turned into sentences and exit codes, streams kept apart."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import pytest

from nervecord.cli import command, targets
from nervecord.cli.show import Outcome
from nervecord.cli.verb import Verb
from nervecord.errors import EngineError, NervecordError

PYTHON = (sys.executable, "-m", "nervecord")


def started(words: Sequence[str], cwd: Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """The command in its own process."""
    return subprocess.run([*PYTHON, *words], cwd=cwd, capture_output=True, text=True, timeout=300, **how)


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], Outcome]], None]:
    """replace(run): the verb `targets` does something else."""

    def replace(run: Callable[[Any], Outcome]) -> None:
        monkeypatch.setitem(targets.VERBS, "targets", Verb("", (), lambda parser: None, run))

    return replace


def raising(error: BaseException) -> Callable[[Any], Outcome]:
    """A verb of nervecord's own that raises: where an error arose says whose it is."""
    names: dict[str, Any] = {"__name__": "nervecord.cli.broken", "error": error}
    exec("def run(args):\n    raise error", names)
    run: Callable[[Any], Outcome] = names["run"]
    return run


# --------------------------------------------------------------------------------------------------------------------
# Help


def test_the_verbs_listed_are_the_verbs_there_are() -> None:
    modules = {module for module, _ in command.VERBS.values()}
    assert {name for module in modules for name in import_module(f"nervecord.cli.{module}").VERBS} == set(command.VERBS)
    for name in command.VERBS:
        assert isinstance(command.find_verb(name), Verb)


def test_no_verb_shows_the_usage_and_is_the_callers_fault(nervecord_cli: Any) -> None:
    answer = nervecord_cli()
    assert answer.code == 2
    assert answer.out.startswith("usage: nervecord VERB")
    assert nervecord_cli("--help").out == answer.out
    assert nervecord_cli("--help").code == nervecord_cli("-h").code == nervecord_cli("help").code == 0
    for name in command.VERBS:
        assert f"\n  {name} " in answer.out


@pytest.mark.parametrize("name", command.VERBS)
def test_help_of_a_verb_ends_with_examples_that_parse(name: str, nervecord_cli: Any) -> None:
    answer = nervecord_cli(name, "--help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"usage: nervecord {name}")
    assert nervecord_cli("help", name).out == answer.out
    examples = answer.out.split("examples:\n")[1].strip().split("\n")
    assert len(examples) >= 2
    for example in examples:
        words = shlex.split(example)
        assert words[:2] == ["nervecord", name]
        command.find_verb(name).parser(name).read(words[2:])
    for flag in ("--json", "--quiet", "--debug"):
        assert flag in answer.out


def test_version(nervecord_cli: Any) -> None:
    answer = nervecord_cli("--version")
    assert (answer.code, answer.out, answer.err) == (0, f"nervecord {metadata.version('nervecord')}\n", "")


# --------------------------------------------------------------------------------------------------------------------
# Words that are not understood

REFUSED = {
    "a verb": (
        "compil",
        "unknown verb 'compil' (did you mean 'compile'? choose from: compare, compile, contract, demo",
    ),
    "a verb like none": ("fly", "unknown verb 'fly' (choose from: "),
    "a flag before the verb": ("--json run", "--json stands before the verb"),
    "a flag": ("run ant.nervecord --episods 3", "unknown flag '--episods' (did you mean '--episodes'?"),
    "a flag with a value": ("run ant.nervecord --egnine=lava", "unknown flag '--egnine' (did you mean '--engine'?"),
    "half a flag": ("run ant.nervecord --epi 3", "unknown flag '--epi'"),
    "a flag of train": ("train --num-env 3", "unknown flag '--num-env' (did you mean '--num-envs'?"),
    "a word too many": ("run ant.nervecord again", "'again' is one word too many"),
    "a value gone": ("run ant.nervecord --episodes", "--episodes: expected one argument"),
    "a value of another type": ("run ant.nervecord --episodes many", "--episodes: invalid integer value: 'many'"),
    "half an episode": ("run ant.nervecord --episodes 1.5", "--episodes: invalid integer value: '1.5'"),
    "a file gone": ("compile", "the following arguments are required: FILE (nervecord compile --help"),
    "a target": (
        "compile {ant} --target lavaa",
        "unknown target 'lavaa' (did you mean 'lava'? choose from: c, fpga, lava",
    ),
    "a target to inspect": ("inspect {ant} --target loihi", "unknown target 'loihi' (did you mean 'loihi1'?"),
    "the second of two": ("inspect {ant} --target lava xilo", "unknown target 'xilo' (did you mean 'xylo'?"),
    "a target to show": ("targets loihi", "unknown target 'loihi' (did you mean 'loihi1'?"),
    "two targets to show": ("targets lava loihi1", "'loihi1' is one word too many"),
    "a target that runs nothing": ("compile {ant} --target xylo", "target 'xylo' is inspected only"),
    "an engine": ("run {program} --engine emulater", "unknown engine 'emulater' (did you mean 'emulator'?"),
    "the other engine": (
        "compare {program} {program} --observations {rows} --engine-b numpi",
        "unknown engine 'numpi' (choose from: c, definition, emulator, lava, torch)",
    ),
    "a device of an engine that has none": (
        "run {program} --device cuda",
        "device: 'cuda' is given, and engine 'emulator'",
    ),
    "an engine of another target": ("run {ant} --engine emulator", "reference: unknown engine 'emulator'"),
    "a mode": ("compare {ant} {program} --mode layer", "--mode: unknown mode 'layer' (did you mean 'layers'?"),
    "a convention": ("inspect {ant} --convention eulr", "unknown convention 'eulr' (did you mean 'euler'?"),
    "what to install": ("targets install lavax", "unknown installable target 'lavax' (did you mean 'lava'?"),
    "nothing to install": ("targets install", "install what? (nervecord targets install lava)"),
    "too much to install": ("targets install lava lava", "'lava' is one word too many"),
    "an environment": ("run {ant} --env Ant-v44", "Ant-v44: no such environment"),
    "no episodes": ("run {ant} --episodes 0", "episodes: is 0, at least 1 is needed"),
    "no environments": ("run {ant} --num-envs -1", "environments: is -1, at least 1 is needed"),
    "bits": ("compile {ant} --weight-bits 9", "weight_bits: is 9, target 'lava' takes an integer from 2 to 8"),
    "half a bit": ("compile {ant} --weight-bits 2.5", "--weight-bits: invalid integer value: '2.5'"),
    "a limit": ("inspect {ant} --target lava --set corse=3", "lava: unknown limit 'corse' (did you mean 'cores'?"),
    "a limit without a number": ("inspect {ant} --target lava --set cores", "--set: 'cores' is not LIMIT=N"),
    "a limit that is none": ("inspect {ant} --target lava --set cores=many", "--set cores: 'many' is no integer"),
    "half a core": ("inspect {ant} --target lava --set cores=1.5", "--set cores: '1.5' is no integer"),
    "an input twice": ("compile {ant} --inputs a=spikes,b=2,a=4", "--inputs: a is given twice"),
    "a limit twice": ("compile {ant} --set cores=3 --set cores=4", "--set: cores is given twice"),
    "less than nothing": ("compile {ant} --set cores=-1", "cores: -1 is no limit"),
    "an exact limit": ("compile {ant} --set state_bits=32", "state_bits: 24 is exact for lava ("),
    "a limit of many": ("inspect {ant} --set cores=3", "--set: sets a limit of one target (name it"),
    "a limit of two": ("inspect {ant} --target lava xylo --set cores=3", "--set: sets a limit of one target"),
    "a target beside its file": (
        "compile {ant} --target lava --target-file x",
        "--target-file: a target is named beside",
    ),
    "a target's file gone": ("inspect {ant} --target-file none.toml", "none.toml: does not exist"),
    "a tolerance": ("compare {ant} {program} --tolerance -1", "--tolerance: is -1.0, zero or more is needed"),
    "no tolerance": ("compare {ant} {program} --tolerance nan", "--tolerance: is nan, zero or more is needed"),
    "bits of floats": ("compile {ant} --target reference --weight-bits 4", "unknown flag '--weight-bits'"),
    "a time step": ("inspect {ant} --dt -1", "dt is -1.0 s, it must be positive"),
    "a time step of a program": ("inspect {program} --dt 1e-3", "--dt: a program has its time step already"),
    "training a neuron": ("train --neuron leeky", "unknown neuron 'leeky' (did you mean 'leaky'?"),
    "training nothing": ("train --steps 0", "steps"),
    "resuming nothing": ("train --resume nowhere", "--resume: nowhere is no run folder"),
    "a demo of one episode": ("demo --episodes 1", "--episodes: is 1, at least 2 are needed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_by_name(
    name: str, nervecord_cli: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line, words = REFUSED[name]
    if line.startswith("demo"):
        pytest.importorskip("torch")
    paths = {"ant": files / "ant.nir", "program": files / "ant.nervecord", "rows": files / "rows.npz"}
    nervecord_cli(*line.format(**paths).split()).refused(words)
    assert os.listdir(tmp_path) == []


def test_errors_are_objects_for_machines(nervecord_cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "none.nervecord"
    answer = nervecord_cli("inspect", path, "--json")
    assert answer.code == 2
    assert answer.json == {
        "error": {
            "type": "FileFormatError",
            "message": "does not exist",
            "where": str(path),
            "hint": None,
            "notes": [],
        },
        "exit_code": 2,
    }
    assert answer.err == f"nervecord inspect: {path}: {answer.json['error']['message']}\n"
    for line in ("compil --json", "run --json", "targets loihi --json", "run x --episods 3 --json"):
        answer = nervecord_cli(*line.split())
        assert answer.code == answer.json["exit_code"] == 2
        assert answer.json["error"]["hint"]


# --------------------------------------------------------------------------------------------------------------------
# Exit codes

ENDS: dict[str, tuple[BaseException, int, str]] = {
    "theirs": (NervecordError("is odd", where="a.nir", hint="make it even"), 2, "a.nir: is odd (make it even)"),
    "a dead engine": (EngineError("died", where="lava"), 1, "lava: died"),
    "a file of the system": (PermissionError(13, "Permission denied", "/x"), 2, "/x: Permission denied"),
    "a defect": (ValueError("oh"), 1, "ValueError: oh (this is a defect of nervecord; --debug shows where)"),
    "no memory": (MemoryError(), 1, "MemoryError: "),
    "interrupted": (KeyboardInterrupt(), 130, "interrupted"),
    "interrupted and told": (KeyboardInterrupt("at step 7"), 130, "at step 7"),
}


@pytest.mark.parametrize("name", ENDS)
def test_exit_codes(name: str, nervecord_cli: Any, verb: Any) -> None:
    error, code, words = ENDS[name]
    verb(raising(error))
    answer = nervecord_cli("targets")
    assert (answer.code, answer.out) == (code, "")
    assert answer.err.startswith(f"nervecord targets: {words}")
    assert answer.err.count("\n") == 1
    answer = nervecord_cli("targets", "--json")
    assert answer.code == answer.json["exit_code"] == code
    assert answer.json["error"]["type"] == type(error).__name__


def test_debug_shows_the_traceback(nervecord_cli: Any, verb: Any) -> None:
    verb(raising(NervecordError("is odd")))
    answer = nervecord_cli("targets", "--debug")
    assert (answer.code, answer.out) == (2, "")
    assert "Traceback (most recent call last)" in answer.err
    assert answer.err.endswith("nervecord targets: is odd\n")


def test_notes_are_lines_of_their_own_and_a_files_words_are_not(nervecord_cli: Any, verb: Any) -> None:
    error = NervecordError("holds 'a\nTraceback\x1b[2J'")
    error.add_note("seen in step 3")
    verb(raising(error))
    assert nervecord_cli("targets").err == ("nervecord targets: holds 'a\\nTraceback\\x1b[2J'\nseen in step 3\n")


def test_a_verb_chooses_its_exit_code(nervecord_cli: Any, files: Path) -> None:
    assert nervecord_cli("inspect", files / "ant.nir", "--target", "xylo").code == 2
    assert nervecord_cli("inspect", files / "ant.nir").code == 0  # nobody asked for xylo
    assert nervecord_cli("inspect", files / "ant.nir", "--target", "lava").code == 0


# --------------------------------------------------------------------------------------------------------------------
# Streams


def test_what_libraries_print_is_no_result(nervecord_cli: Any, verb: Any) -> None:
    def run(args: Any) -> Outcome:
        print("a library says hello")
        return Outcome({"x": float("nan"), "y": [1, float("inf")]}, "the result", 2)

    verb(run)
    answer = nervecord_cli("targets")
    assert (answer.code, answer.out, answer.err) == (2, "the result\n", "a library says hello\n")
    assert nervecord_cli("targets", "--json").json == {"x": None, "y": [1, None]}


def test_progress_goes_to_stderr_and_quiet_stops_it(nervecord_cli: Any, files: Path) -> None:
    words = ("run", files / "pendulum.nervecord", "--episodes", 2, "--json")
    answer = nervecord_cli(*words)
    assert answer.json["episodes"] == 2
    assert "run: 2 of 2 episodes, mean return" in answer.err
    assert nervecord_cli(*words, "--quiet").err == ""


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
@pytest.mark.parametrize("line", ["targets loihi1", "targets --json", "--help", "run --help", "nonsense --json"])
def test_a_reader_that_went_away_is_no_error(line: str, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        process = subprocess.run(
            [*PYTHON, *line.split()], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=300
        )
    finally:
        os.close(writer)
    # argparse swallows the error where its help is longer than the buffer of stdout.
    assert process.returncode in ((0, 141) if "run --help" in line else (141,))
    assert "Traceback" not in process.stderr
    assert "Exception ignored" not in process.stderr


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_interrupting_a_run(files: Path, tmp_path: Path) -> None:
    words = [*PYTHON, "run", str(files / "pendulum.nir"), "--episodes", "1000000"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline().startswith("run: 1 of 1,000,000 episodes")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=300)
        finally:
            process.kill()
    assert (process.returncode, out) == (130, "")
    assert err.endswith("nervecord run: interrupted\n")
    assert "Traceback" not in err


# --------------------------------------------------------------------------------------------------------------------
# Processes


def test_as_a_module_from_anywhere(tmp_path: Path) -> None:
    run = started(["targets", "--json"], tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert [target["name"] for target in json.loads(run.stdout)["targets"]][:4] == ["reference", "c", "fpga", "lava"]
    run = started(["inspect", "none.nir"], tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (2, "", "nervecord inspect: none.nir: no such file\n")
    assert os.listdir(tmp_path) == []


def test_the_installed_script_is_the_command() -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="nervecord")
    assert script.load() is command.main


HEAVY = ("torch", "mujoco", "numba", "gymnasium", "matplotlib", "snntorch", "skrl", "envpool", "nir", "h5py")
CHEAP = {
    "import": "import nervecord",
    "dir": "import nervecord; dir(nervecord); nervecord.__version__",
    "help": "from nervecord.cli.command import main; main(['--help'])",
    **{
        f"{name} --help": f"from nervecord.cli.command import main; main(['{name}', '--help'])"
        for name in ("train", "run", "demo")
    },
}


@pytest.mark.parametrize("name", CHEAP)
def test_help_and_import_load_nothing_heavy(name: str, tmp_path: Path) -> None:
    code = f"{CHEAP[name]}\nimport sys\nprint([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (process.returncode, process.stderr.strip()) == (0, "[]")


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("train --learning-rate 1e-3", "--lr"),
        ("train --total-timesteps 10", "--steps"),
        ("train --batch-size 10", "--minibatch or --num-envs"),
        ("run x.nir --n-episodes 3", "--episodes"),
        ("compile x.nir --out y", "--output"),
    ],
)
def test_flags_of_other_tools_are_known_by_what_they_mean(words: str, flag: str, nervecord_cli: Any) -> None:
    nervecord_cli(*words.split()).refused(f"unknown flag {words.split()[-2]!r} (here it is {flag})")
