"""What every test may use: a small policy that needs no training."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import examples
import pytest
import readers
from policies import random_policy
from scripts import ROOT, script

from nervecord.cli import compiling
from nervecord.compiler.graph.policy import Policy
from nervecord.errors import NervecordError
from nervecord.runtime.engines.c import library
from nervecord.targets import warmup
from nervecord.targets.lava import environment

# A shell ignores interrupts for what it starts in the background, and processes inherit that: the tests that interrupt
# a process would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
# What stands on stderr must not depend on what numba's cache holds.
compiling.SECONDS = 1e6


def pytest_sessionstart(session: pytest.Session) -> None:
    """Of several workers each compiles a part of the emulator's loop, which takes a minute, so that none does all."""
    worker = getattr(session.config, "workerinput", None)
    if worker is not None and importlib.util.find_spec("numba") is not None:
        number, count = int(worker["workerid"].removeprefix("gw")), int(worker["workercount"])
        with contextlib.suppress(NervecordError):  # where no cache can be kept, each test compiles what it needs
            warmup.warmup(forms=warmup.FORMS[number::count])


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs Lava's own environment where there is none, and choose where files are read, before a fixture."""
    if item.get_closest_marker("lava") is not None and not environment.status().installed:
        pytest.skip(f"no Lava environment; run {environment.INSTALL_COMMAND}")
    readers.use_child(item.get_closest_marker("reader_process") is not None)


BUILT = library._loaded


@pytest.fixture(autouse=True)
def quick_c(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engine c is compiled by -O1, in a third of the time; where a test is marked `optimised`, as it is for users."""
    if examples.ALL or request.node.get_closest_marker("optimised") is not None:
        return

    def quick(files: Any, prefix: str, command: tuple[str, ...], flags: tuple[str, ...]) -> Any:
        return BUILT(files, prefix, command, ("-O1",) if flags == library.FAST else flags)

    monkeypatch.setattr(library, "_loaded", quick)


@pytest.fixture(scope="session")
def make_policy() -> Callable[..., Policy]:
    """A factory of small random policies; `policies.random_policy` with sizes first and layers counted from 0."""

    def make(sizes: tuple[int, ...] = (27, 24, 8), *, synaptic: bool = False, **options: Any) -> Policy:
        return random_policy(sizes=sizes, current=synaptic, first=0, **options)

    return make


BEGUN = pytest.StashKey[float]()
GOLDENS = Path(__file__).parent / "goldens"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` rewrites the stored texts that tests compare with; look at the diff before committing it."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/goldens from what is computed now")
    parser.addoption("--all-installed", action="store_true", help="fail where a test is skipped for want of a package")
    parser.addoption("--all-examples", action="store_true", help="try properties on all examples, not on a part")
    parser.addoption("--processor-time", type=int, metavar="N", help="print that of all tests, and of the N longest")


def pytest_configure(config: pytest.Config) -> None:
    """Before any test is imported, whose decorators ask for it."""
    examples.ALL = config.getoption("--all-examples")


def _processor_time() -> float:
    """Seconds of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note when a test begins; its teardown's report says what it took, also where another process collects reports."""
    item.stash[BEGUN] = _processor_time()
    yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """As above."""
    yield
    item.user_properties.append(("processor time", _processor_time() - item.stash[BEGUN]))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Processor time in all, and of the longest tests: what a busy machine does not change much."""
    count = config.getoption("--processor-time")
    if count is None:
        return
    reports = [r for of in terminalreporter.stats.values() for r in of if getattr(r, "when", "") == "teardown"]
    times = sorted(((dict(r.user_properties).get("processor time", 0.0), r.nodeid) for r in reports), reverse=True)
    terminalreporter.write_line(f"processor time: {sum(time for time, _ in times):.0f} s, {len(times)} tests")
    for time, name in times[:count]:
        terminalreporter.write_line(f"{time:8.1f} s  {name}")


WANTING = re.compile(
    r"could not import|installed|no Lava environment|apt-get install|no (C compiler|gcc|clang|cmake|Python 3)\b"
)
"""Reasons of skips that have no place where everything was installed for the tests that run."""


def _required(report: pytest.TestReport | pytest.CollectReport, config: pytest.Config) -> None:
    if report.skipped and config.getoption("--all-installed") and WANTING.search(str(report.longrepr)):
        report.outcome = "failed"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Fail a test that is skipped for want of a package, where `--all-installed` says that it is there."""
    outcome = yield
    _required(outcome.get_result(), item.config)  # type: ignore[attr-defined]


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """The same of a whole module, where it was named: of a folder a marker may select others alone."""
    outcome = yield
    paths = {Path(argument.partition("::")[0]).resolve() for argument in collector.config.args}
    if collector.path.resolve() in paths:
        _required(outcome.get_result(), collector.config)  # type: ignore[attr-defined]


@pytest.fixture
def stored(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """compare(path, text): text must be what the file holds, or becomes that with --update-golden."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path.name} is not there; make it with --update-golden"
        assert text == path.read_text(encoding="utf-8"), f"{path.name} changed; if it should, run with --update-golden"

    return compare


@pytest.fixture
def golden(stored: Callable[[Path, str], None]) -> Callable[[str, str], None]:
    """compare(name, text): text must equal tests/goldens/<name>."""
    return lambda name, text: stored(GOLDENS / name, text)


@pytest.fixture
def document(stored: Callable[[Path, str], None]) -> Callable[[str], str]:
    """compare(name): docs/<name>.md must be what its generator writes ("own-chip": docs/own_chip.py); its text."""

    def compare(name: str) -> str:
        text: str = script(f"docs/{name.replace('-', '_')}.py").document()
        stored(ROOT / "docs" / f"{name}.md", text)
        return text

    return compare
