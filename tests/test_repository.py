"""The repository keeps its own rules, and its documents name what exists."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from scripts import script

from nervecord.cli import command
from nervecord.errors import NervecordError

ROOT = Path(__file__).parent.parent
LIMIT = 500
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md")), *sorted((ROOT / "zoo").glob("**/*.md"))]


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository, tracked or about to be."""
    process = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        pytest.skip("no git checkout")
    return [ROOT / line for line in process.stdout.splitlines() if (ROOT / line).is_file()]


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


# --------------------------------------------------------------------------------------------------------------------
# Sources


def test_files_are_short() -> None:
    sources = tracked("*.py")
    assert ROOT / "compiler" / "graph" / "graph.py" in sources
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}
    assert {path: lines for path, lines in lengths.items() if lines >= LIMIT} == {}


def test_no_utils() -> None:
    assert [path for path in tracked("*.py") if path.stem in ("utils", "util", "helpers", "common", "misc")] == []


def test_a_checkout_is_small() -> None:
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in tracked()}
    assert sum(sizes.values()) < 25_000_000
    large = {path: size for path, size in sizes.items() if size > 600_000}
    # The trained networks that others begin with, the policies, and their programs.
    allowed = r"zoo/.*/(policy\.nir|[^/]+\.nervecord|step-\d{12}\.pt)"
    assert {path for path in large if not re.fullmatch(allowed, path)} == set()


# --------------------------------------------------------------------------------------------------------------------
# Packaging


def test_the_packages_listed_are_the_folders_with_modules() -> None:
    skipped = ("tests", "benchmarks", "docs", "zoo")
    folders = {
        path.parent.relative_to(ROOT)
        for path in tracked("*.py")
        # What runs in another interpreter is shipped as data, if at all, and has no __init__.py.
        if (path.parent / "__init__.py").is_file() and path.relative_to(ROOT).parts[0] not in skipped
    }
    packages = {".".join(("nervecord", *folder.parts)) for folder in folders}
    assert packages == set(pyproject()["tool"]["setuptools"]["packages"])


def test_every_source_that_runs_is_shipped() -> None:
    """Modules outside packages (a worker's, for another interpreter) are package data."""
    setuptools = pyproject()["tool"]["setuptools"]
    packages, data = set(setuptools["packages"]), setuptools["package-data"]
    shipped = set()
    for package, patterns in data.items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        shipped |= {path for pattern in patterns for path in folder.glob(pattern)}
    missing = []
    for path in tracked("*.py"):
        parts = path.relative_to(ROOT).parts
        if parts[0] in ("tests", "benchmarks", "docs", "zoo", ".ci"):
            continue
        if ".".join(("nervecord", *parts[:-1])) not in packages and path not in shipped:
            missing.append("/".join(parts))
    assert missing == []


def test_every_package_can_be_imported() -> None:
    for package in pyproject()["tool"]["setuptools"]["packages"]:
        importlib.import_module(package)


def test_versions_agree() -> None:
    import nervecord

    assert pyproject()["project"]["version"] == metadata.version("nervecord") == nervecord.__version__


def test_the_changelog_knows_this_version() -> None:
    path = ROOT / "CHANGELOG.md"
    if path.exists():
        assert pyproject()["project"]["version"] in path.read_text(encoding="utf-8")


# --------------------------------------------------------------------------------------------------------------------
# Makefile


def test_make_help_lists_every_phony_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    (line,) = re.findall(r"^\.PHONY:(.*)$", text, re.MULTILINE)
    targets = line.split()
    assert {"help", "install", "demo", "test", "check"} <= set(targets)
    documented = dict(re.findall(r"^([a-z-]+):.*## +(\S.*)$", text, re.MULTILINE))
    assert sorted(documented) == sorted(targets)
    try:
        process = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("no make")
    for target in targets:
        assert re.search(rf"^ +make {target} +\S", process.stdout, re.MULTILINE), target


@pytest.mark.parametrize(
    ("installed", "arguments", "extras"),
    [
        (None, [], "all"),
        (None, ["EXTRAS=mujoco,plot"], "mujoco,plot"),
        ("all", [], None),
        ("mujoco,plot", [], None),
        ("all", ["EXTRAS=all,fpga"], "all,fpga"),
        ("all,fpga", ["EXTRAS=fpga"], None),
    ],
)
def test_make_installs_the_extras_that_are_lacking(
    tmp_path: Path, installed: str | None, arguments: list[str], extras: str | None
) -> None:
    if installed is not None:
        (tmp_path / ".installed").write_text(installed + "\n", encoding="utf-8")
    environment = {name: text for name, text in os.environ.items() if name not in ("EXTRAS", "MAKEFLAGS")}
    call = ["make", "--dry-run", "install", f"VENV={tmp_path}", *arguments]
    try:
        process = subprocess.run(call, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip("no make")
    assert re.findall(r"--editable '\.\[(.*)\]'", process.stdout) == ([extras] if extras else [])


# --------------------------------------------------------------------------------------------------------------------
# Continuous integration and releases


def test_every_marker_and_optional_install_has_a_nightly_job() -> None:
    process = subprocess.run([str(ROOT / ".ci" / "nightly"), "--list"], capture_output=True, text=True, check=True)
    jobs = process.stdout.split()
    assert len(jobs) == len(set(jobs))
    table = (ROOT / ".ci" / "nightly").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^(test-[a-z-]+|fuzz|faults|agreement|bench):", makefile, re.MULTILINE):
        # test-all is test and test-long, which .ci/run runs, and test-slow.
        assert target in ("test-all", "test-long") or re.search(rf"\b{target}\b", table), target
    for version in re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8")):
        assert f"quick-{version}" in jobs


def test_every_change_is_tried_on_all_tests_but_the_slow_ones() -> None:
    commands = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert {"test", "test-long"} <= set(re.findall(r"^limit \d+ make ([a-z-]+)$", commands, re.MULTILINE))


def test_an_unknown_nightly_job_is_refused_with_the_known_ones() -> None:
    process = subprocess.run([str(ROOT / ".ci" / "nightly"), "nothing"], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "slow" in process.stderr


def test_a_wheel_is_not_tried_without_a_python_that_was_named() -> None:
    """At once, before anything is built; --all, which nightly runs and releases take, names all that are promised."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    words = [str(ROOT / ".ci" / "wheels"), here, "3.99"]
    process = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert process.returncode == 1
    assert "3.99" in process.stderr
    promised = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    script_text = (ROOT / ".ci" / "wheels").read_text(encoding="utf-8")
    assert re.findall(r"--all \]; then versions=\((.*)\)", script_text) == [" ".join(promised)]
    for caller in (".ci/nightly", ".github/workflows/release.yml"):
        assert re.search(r"\.ci/wheels --all$", (ROOT / caller).read_text(encoding="utf-8"), re.MULTILINE), caller


def test_nothing_is_published_before_its_tests_passed() -> None:
    yaml = pytest.importorskip("yaml")
    folder = ROOT / ".github" / "workflows"
    jobs = yaml.safe_load((folder / "release.yml").read_text(encoding="utf-8"))["jobs"]
    needed = {jobs[name].get("uses") for name in jobs["publish"]["needs"]}
    assert "./.github/workflows/test.yml" in needed
    assert "build" in jobs["publish"]["needs"]
    # YAML reads the key `on` as true.
    assert "workflow_call" in yaml.safe_load((folder / "test.yml").read_text(encoding="utf-8"))[True]


def test_constraints_allow_what_the_package_asks_for() -> None:
    """Each pinned version lies within the bounds of pyproject.toml."""
    requirements = pytest.importorskip("packaging.requirements")
    names = pytest.importorskip("packaging.utils").canonicalize_name
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {names(name): version for name, version in pinned.items()}
    project = pyproject()["project"]
    extras = project["optional-dependencies"]
    dependencies = [
        *project["dependencies"],
        *(line for extra in ("train", "sweep", "report", "bench") for line in extras[extra]),
    ]
    needs = [requirements.Requirement(line) for line in dependencies]
    missing = {need.name for need in needs if names(need.name) not in pinned} - {"nervecord"}
    assert missing == set()
    for need in needs:
        if need.name != "nervecord":
            assert need.specifier.contains(pinned[names(need.name)]), need


def test_an_environment_is_compared_with_the_constraints() -> None:
    """`.ci/pins.py`: every installed package is pinned, in the same version, and the core's have upper bounds."""
    pins = script(".ci/pins.py")
    pinned = pins.pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    assert {"numpy", "jaraco-classes", "farama-notifications"} <= set(pinned)
    assert all(re.fullmatch(r"[\w.!]+", version) for version in pinned.values())
    same = {"Farama_Notifications": pinned["farama-notifications"], "numpy": pinned["numpy"] + "+local", "pip": "1"}
    assert pins.differences(same, pinned) == []
    differences = pins.differences({**same, "h5py": "0.1", "unheard-of": "2"}, pinned)
    assert [line.split()[:2] for line in differences] == [["h5py", "0.1"], ["unheard-of", "2"]]
    assert pins.unbounded(pyproject()["project"]["dependencies"]) == []
    assert pins.unbounded(["a>=1", "b==2", "c~=1.2; python_version < '3'", "e"]) == [
        "a>=1: has no upper bound",
        "e: has no upper bound",
    ]


def test_what_is_promised_to_stay_is_what_there_is() -> None:
    import nervecord

    text = (ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
    sections = {part.split("\n", 1)[0]: part for part in text.split("\n## ")[1:]}
    python = sections["Python"].split("\n\n")[1]
    assert re.findall(r"`(\w+)`", python) == nervecord.__all__
    verbs = sections["Command line"].split(", their flags")[0]
    assert set(re.findall(r"`(\w+)`", verbs)) == set(command.VERBS)
    header = ROOT / "runtime" / "engines" / "c"
    sources = "".join(path.read_text(encoding="utf-8") for path in header.glob("*.py"))
    for function in re.findall(r"`policy_(init|reset|step|step_q|selftest)`", sections["Emitted C"]):
        assert f"_{function}(" in sources, function


def test_the_citation_is_of_this_version() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {pyproject()['project']['version']}\n" in text


@pytest.mark.long
def test_all_installed_asks_for_what_was_named(tmp_path: Path) -> None:
    """`make test-lava` takes a folder, some modules of which want what another job installs."""
    tests = ROOT / "tests"
    (tmp_path / "conftest.py").write_text(f"exec(compile(open({str(tests / 'conftest.py')!r}).read(), 'x', 'exec'))")
    (tmp_path / "test_wanting.py").write_text("import pytest\npytest.importorskip('no_such_package')\n")
    (tmp_path / "test_one.py").write_text("def test_one(): pass\n")
    codes = {}
    for argument in (".", "test_wanting.py"):
        words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--all-installed", f"--rootdir={tmp_path}", argument]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), *sys.path])}
        codes[argument] = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, check=False
        ).returncode
    assert codes == {".": 0, "test_wanting.py": 2}


# --------------------------------------------------------------------------------------------------------------------
# Documents


def commands(path: Path) -> list[str]:
    """Lines of the shell blocks of a document that call nervecord; continuation lines joined."""
    text = path.read_text(encoding="utf-8")
    word_lists = []
    for block in re.findall(r"^ *```(?:console|sh|bash|shell)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
            if words.startswith("nervecord "):
                word_lists.append(words)
    return word_lists


def refusal(line: str) -> str | None:
    """Why the command line would not take these words; None where it does."""
    words = shlex.split(line, comments=True)[1:]
    for k, word in enumerate(words):
        if word in ("|", ">", "2>", "&&", ";", "&"):
            words = words[:k]
            break
    if not words or words[0] in ("--help", "--version", "help") or "--help" in words:
        return None
    if words[0] not in command.VERBS:
        return f"no verb {words[0]!r}"
    try:
        command.find_verb(words[0]).parser(words[0]).read(words[1:])
    except NervecordError as error:
        return str(error)
    return None


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_parse(path: Path) -> None:
    wrong = {line: refusal(line) for line in commands(path)}
    assert {line: why for line, why in wrong.items() if why is not None} == {}


def test_the_check_of_documents_can_fail(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(
        "```console\n$ nervecord run a.nervecord \\\n    --episods 3\n$ nervecord fly\nnervecord output\n```\n"
        "```sh\nnervecord targets | head  # a comment\n```\n```python\nnervecord targets nonsense\n```\n"
    )
    lines = commands(path)
    assert lines == [
        "nervecord run a.nervecord      --episods 3",
        "nervecord fly",
        "nervecord output",
        "nervecord targets | head  # a comment",
    ]
    assert refusal(lines[0]) is not None
    assert refusal(lines[1]) == "no verb 'fly'"
    assert refusal(lines[3]) is None


def test_every_verb_stands_in_the_documents() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    missing = [verb for verb in command.VERBS if f"nervecord {verb}" not in text and f"make {verb}" not in text]
    assert missing == []


def test_links_within_the_repository_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in DOCUMENTS
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists()
    ]
    assert broken == []


def test_documents_install_from_the_clone_until_something_is_published() -> None:
    """A name that is not registered could be taken by anyone."""
    assert [path for path in DOCUMENTS if re.search(r"install '?nervecord\b(?!/)", path.read_text())] == []


def test_the_site_refuses_a_link_to_a_file_that_it_lacks(tmp_path: Path) -> None:
    """MkDocs passes over links to files that are no pages."""
    site = script("docs/site.py")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a page.html").write_text('<img src="../ant.png"><a href="../CITATION.cff">of it</a>')
    (tmp_path / "ant.png").touch()
    (tmp_path / "index.html").write_text(
        '<a href="docs/a%20page.html#anchor">a</a><a href="#here">b</a><a href="https://x.org/y">c</a>'
        '<a href="mailto:a@b.org">d</a><a href="/docs/">e</a><a href="docs/gone.html?x=1#y">f</a>'
    )
    assert site.broken_links(tmp_path) == ["docs/a page.html: ../CITATION.cff", "index.html: docs/gone.html?x=1#y"]


def test_the_site_has_every_file_that_the_readme_names() -> None:
    site = script("docs/site.py")
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert "LICENSE" in targets
    assert {target for target in targets if "/" not in target} - set(site.TOP) == set()
