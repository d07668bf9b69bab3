"""A step is all or nothing: interrupted at any line, refused, or while the process forks, a session stays right."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from examples import examples
from policies import random_policy

import nervecord
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.plan.interpret import simulate
from nervecord.errors import ContractError, GraphError, NervecordError
from nervecord.runtime.closing import PATIENCE
from nervecord.runtime.engines.emulator.session import EmulatorSession, EmulatorStream
from nervecord.runtime.session import MachineSession
from nervecord.runtime.stream import MachineStream

ROOM = os.path.dirname(nervecord.__file__)
KINDS: dict[str, dict[str, Any]] = {
    "reset": {"sizes": (3, 6, 2), "steps": 2},
    "carried": {"sizes": (3, 6, 2), "steps": 2, "state": "carried", "current": True},
    "population": {"sizes": (3, 6, 2), "steps": 2, "state": "carried", "population": 4},
}


@functools.cache
def program(kind: str, *, integer: bool) -> Program:
    policy = random_policy(1, **KINDS[kind])
    return nervecord.compile(policy, "lava" if integer else "reference")


CASES = [
    *((engine, kind, False) for engine in ("definition", "torch", "onnxruntime") for kind in KINDS),
    *((engine, kind, True) for engine in ("emulator", "definition", "torch", "c") for kind in KINDS),
    ("fpga-sim", "carried", True),
]


def classes(engine: str) -> tuple[Any, Any, dict[str, Any]]:
    """Session, stream and settings of an engine."""
    if engine == "emulator":  # the host's part in numpy; in the compiled loop nothing is interrupted
        return EmulatorSession, EmulatorStream, {"fuse": False}
    if engine == "torch":
        pytest.importorskip("torch")
        from nervecord.runtime.engines.torch.session import BatchedSession, BatchedStream

        return BatchedSession, BatchedStream, {}
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
        from nervecord.targets.onnx.engine import OnnxSession, OnnxStream

        return OnnxSession, OnnxStream, {}
    if engine == "c":
        if not any(map(shutil.which, ("cc", "gcc", "clang"))):
            pytest.skip("no C compiler")
        from nervecord.runtime.engines.c.session import CSession, CStream

        return CSession, CStream, {"flags": ("-O1",)}
    if engine == "fpga-sim":
        pytest.importorskip("amaranth")
        if not any(map(shutil.which, ("c++", "g++", "clang++"))):
            pytest.skip("no C++ compiler")
        from nervecord.targets.fpga.session import SimulatedSession, SimulatedStream

        return SimulatedSession, SimulatedStream, {}
    return MachineSession, MachineStream, {}


def opened(engine: str, kind: str, *, integer: bool) -> Any:
    session, _, settings = classes(engine)
    return session(program(kind, integer=integer).policy, **settings)


class Stop:
    """Raises KeyboardInterrupt at the k-th line of ours that runs within, once."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.lines = 0

    def __enter__(self) -> Stop:
        self.before = sys.gettrace()
        sys.settrace(self.look)
        return self

    def __exit__(self, *args: object) -> None:
        sys.settrace(self.before)

    def look(self, frame: Any, event: str, argument: Any) -> Any:
        # An environment may lie in the same folder; what it calls when memory is collected is none of ours.
        file = frame.f_code.co_filename
        if not file.startswith(ROOM) or "site-packages" in file:
            return None
        if event == "line":
            self.lines += 1
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self.look


def plain(counts: Any) -> tuple[Any, ...]:
    return counts.actions, counts.spikes, counts.synaptic_events, counts.neuron_updates, counts.fail_safe


@pytest.mark.hypothesis
@pytest.mark.parametrize(("engine", "kind", "integer"), CASES)
def test_an_interrupt_at_any_line(engine: str, kind: str, integer: bool) -> None:
    rows = np.random.default_rng(0).normal(size=(5, 3))
    with opened(engine, kind, integer=integer) as session:
        expected = [session.step(row) for row in rows]
        counts = plain(session.counts)
        session.reset()
        with Stop(-1) as whole:
            session.step(rows[0])
        session.reset()
        counted = session.counts.actions
        happened = set()
        for at in np.unique(np.linspace(1, whole.lines, examples(40)).astype(int)).tolist():
            session.reset()
            first = session.counts.actions
            actual = [session.step(row) for row in rows[:2]]
            with contextlib.suppress(KeyboardInterrupt), Stop(at):  # the third step may be shorter than the first
                session.step(rows[2])
            action_count = session.counts.actions - first
            assert action_count in (2, 3), at
            happened.add(action_count)
            actual += [expected[2]] if action_count == 3 else [session.step(rows[2])]
            actual += [session.step(row) for row in rows[3:]]
            np.testing.assert_array_equal(actual, expected, err_msg=f"interrupted at line {at} of {whole.lines}")
            assert session.counts.actions - first == 5
            if engine == "fpga-sim":
                assert len(session.cycles) == session.counts.actions, at
        assert 2 in happened
        # What was counted is what the undisturbed steps count.
        session.reset()
        before = plain(session.counts)
        for row in rows:
            session.step(row)
        for now, was, once in zip(plain(session.counts)[1:4], before[1:4], counts[1:4], strict=True):
            if isinstance(now, dict):
                assert {k: now[k] - was[k] for k in now} == pytest.approx(once)
            else:
                assert now - was == pytest.approx(once)
        assert counted == 6


def test_counts_of_interrupted_steps_are_those_of_whole_ones() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 3))
    policy = program("reset", integer=True).policy
    with MachineSession(policy) as undisturbed, MachineSession(policy) as session:
        for k, row in enumerate(rows):
            undisturbed.step(row)
            with pytest.raises(KeyboardInterrupt), Stop(40 + 9 * k):
                session.step(row)
            if session.counts.actions == k:
                session.step(row)
        assert plain(session.counts) == plain(undisturbed.counts)


@pytest.mark.parametrize("engine", ["definition", "emulator", "torch", "onnxruntime", "c", "fpga-sim"])
def test_a_stream_stays_right(engine: str) -> None:
    integer = engine in ("emulator", "c", "fpga-sim")
    _, stream, settings = classes(engine)
    graph = program("carried", integer=False).graph
    core = nervecord.compile(stream_graph(graph), "lava" if integer else "reference", inputs="spikes")
    values = np.random.default_rng(0).integers(0, 2, (6, 3)).astype(np.float64)
    with stream(core.graph, **settings) as session:
        expected = [session.step(row) for row in values]
        with Stop(-1) as whole:
            session.step(values[3])
        for at in np.unique(np.linspace(1, whole.lines, 24).astype(int)).tolist():
            session.reset()
            actual = [session.step(row) for row in values[:3]]
            before = session.counts.actions
            with contextlib.suppress(KeyboardInterrupt), Stop(at):
                session.step(values[3])
            if session.counts.actions == before:
                actual.append(session.step(values[3]))
            else:
                actual.append(expected[3])
            actual += [session.step(row) for row in values[4:]]
            np.testing.assert_array_equal(actual, expected, err_msg=f"interrupted at line {at}")


def stream_graph(graph: Any) -> Any:
    """The policy's connections and neurons without its host."""
    from nervecord.compiler.graph.graph import chain
    from nervecord.compiler.ops import Input, Level, Output

    nodes = {name: op for name, op in graph.nodes.items() if name in graph.core}
    size = next(iter(nodes.values())).in_shape[0]
    last = list(nodes.values())[-1].out_shape
    return chain(Level.DISCRETE, [("input", Input((size,))), *nodes.items(), ("output", Output(last))], dt=graph.dt)


# --------------------------------------------------------------------------------------------------------------------
# What is refused


SENTENCES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "half a robot": (lambda s: s.reset(1.5), r"is 1\.5, an integer is needed"),
    "a text": (lambda s: s.reset("2"), "an integer is needed"),
    "no robots": (lambda s: s.reset(0), "at least 1"),
    "a thousand million": (lambda s: s.reset(10**9), "at most 16777216 run side by side"),
    "ragged rows": (lambda s: s.step([[1.0, 2.0], [3.0]]), "is no array of numbers"),
    "a masked array": (lambda s: s.step(np.ma.masked_less(np.zeros(3), 1.0)), "is a masked array"),
    "rows that are ragged": (lambda s: s.reset(rows=[[1], [1, 2]]), "rows: is no array"),
    "nothing": (lambda s: s.step(None), "not numbers"),
    "texts": (lambda s: s.step(["a", "b", "c"]), "not numbers"),
}


@pytest.mark.parametrize("name", SENTENCES)
@pytest.mark.parametrize("engine", ["definition", "emulator", "torch", "onnxruntime", "c"])
def test_what_no_session_takes_is_said_and_changes_nothing(engine: str, name: str) -> None:
    ask, message = SENTENCES[name]
    rows = np.random.default_rng(0).normal(size=(3, 3))
    with opened(engine, "carried", integer=engine in ("emulator", "c")) as session:
        expected = [session.step(row) for row in rows]
        session.reset()
        actual = [session.step(rows[0])]
        with pytest.raises(NervecordError, match=message):
            ask(session)
        actual += [session.step(row) for row in rows[1:]]
        np.testing.assert_array_equal(actual, expected)
        with pytest.raises(ContractError):
            session.step(np.zeros(7))
        assert session.last is None, "a refused step gave no action"


def test_recordings_that_are_none() -> None:
    policy = random_policy(1, **KINDS["reset"])
    for rows in ([[1.0], [1.0, 2.0]], np.ma.masked_less(np.zeros((4, 3)), 1.0)):
        with pytest.raises(GraphError, match="observations: is"):
            simulate(policy, rows)  # type: ignore[arg-type]


def test_what_cannot_be_kept_is_refused_before_it_is_made(make_policy: Callable[..., Policy]) -> None:
    policy = make_policy()
    with nervecord.open(policy) as session:
        rows = np.zeros((1, policy.contract.observation.size))
        before = session.step(rows[0])
        session.reset()
        with pytest.raises(NervecordError, match=r"\d+ values.*\d+ steps.*134217728"):
            session.reset(1 << 23)
        assert session.batch == 1
        np.testing.assert_array_equal(session.step(rows[0]), before)
    huge = Program("reference", program("carried", integer=False).graph, None, Schedule(1, "carried"))
    assert huge.contract is None


# --------------------------------------------------------------------------------------------------------------------
# Forks


@pytest.mark.parametrize("engine", ["definition", "emulator", "c"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_steps(engine: str) -> None:
    rows = np.random.default_rng(0).normal(size=(2, 3))
    with opened(engine, "carried", integer=engine in ("emulator", "c")) as session:
        stop = threading.Event()

        def drive() -> None:
            while not stop.is_set():
                session.step(rows[0])
                time.sleep(1e-4)

        thread = threading.Thread(target=drive)
        thread.start()
        try:
            for _ in range(8):
                child = os.fork()
                if not child:
                    code = 3
                    try:
                        session.reset()
                        code = 0 if np.isfinite(session.step(rows[1])).all() else 4
                    finally:
                        os._exit(code)
                assert ended(child, 30.0) == 0
        finally:
            stop.set()
            thread.join()


def ended(child: int, seconds: float) -> int:
    """The exit code of a child; it is killed where it hangs."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise AssertionError("the child hangs")


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_session_that_does_not_come_to_rest_is_the_parents_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nervecord.runtime.closing.PATIENCE", 0.05)
    assert PATIENCE > 1
    with opened("definition", "reset", integer=False) as session:
        locked, release = threading.Event(), threading.Event()

        def hold() -> None:
            with session._lock:
                locked.set()
                release.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        locked.wait()
        child = os.fork()
        if not child:
            code = 3
            try:
                session.step(np.zeros(3))
            except ContractError as error:
                code = 0 if "when the process forked" in str(error) else 4
            finally:
                os._exit(code)
        release.set()
        thread.join()
        assert ended(child, 30.0) == 0
        session.step(np.zeros(3))
