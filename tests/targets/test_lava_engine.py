"""Engine lava against the definition, to the bit, and against its own death."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lava_graphs import draw, expected, usable
from policies import random_policy

from nervecord.compiler import nodes as n
from nervecord.compiler.calibrate import calibrate
from nervecord.compiler.contract import Channels, Contract, State
from nervecord.compiler.graph import Graph, Level, chain
from nervecord.compiler.node import Array
from nervecord.errors import ContractError, EngineError, InfeasibleError, MissingDependencyError
from nervecord.runtime.session import MachineSession, Session
from nervecord.runtime.worker import Worker
from nervecord.targets.lava import environment
from nervecord.targets.lava.emulator import EmulatorSession
from nervecord.targets.lava.engine_lava import LavaNetwork, LavaSession, connections, start_worker
from nervecord.targets.lava.lower import lower

needs_lava = pytest.mark.lava


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    if not environment.status().installed:
        pytest.skip(f"no Lava environment; run {environment.INSTALL_COMMAND}")
    with start_worker() as running:
        yield running
    assert not list(Path("/dev/shm").glob(f"{running.shared_memory_prefix}*"))


def policy(state: State = "reset", seed: int = 0) -> Graph:
    """A small policy with two layers, bias channel, and reset windows staggered by layer."""
    rng = np.random.default_rng(seed)
    observations, hidden, actions, steps = 5, 12, 3, 6
    window = steps + 2 if state == "reset" else 0

    def ones(size: int, value: float) -> Array:
        return np.full(size, value)

    def weights(out: int, size: int) -> Array:
        return 2 * rng.integers(-100, 100, size=(out, size))

    def neurons(offset: int, size: int) -> dict[str, object]:
        return {
            "du": 4095 if state == "reset" else 2000,
            "dv": 300,
            "bias_mant": rng.integers(-50, 50, size=size),
            "bias_exp": 2,
            "reset_interval": window,
            "reset_offset": offset if window else 0,
        }

    contract = Contract(
        environment="test",
        observation=Channels(tuple(f"o{k}" for k in range(observations)), ("1",) * observations),
        action=Channels(tuple(f"a{k}" for k in range(actions)), ("N",) * actions),
        steps=steps,
        latency=2 if state == "reset" else 0,
        state=state,
        control_period=0.05,
        fail_safe=(0.25,) * actions,
    )
    return chain(
        Level.INTEGER,
        [
            ("input", n.Input((observations,))),
            ("normalise", n.Normalise(ones(observations, 0.1), ones(observations, 2.0), 1e-8, 5.0)),
            ("quantise", n.Quantise(observations, 16.0, 80, constant=64)),
            ("fc1", n.FixedDense(weights(hidden, observations + 1), 0, 8, graded=True)),
            ("lif1", n.FixedLIF(threshold=8000, **neurons(1, hidden))),  # type: ignore[arg-type]
            ("fc2", n.FixedDense(weights(actions, hidden), 0, 8, graded=False)),
            ("readout", n.FixedReadout(**neurons(2, actions))),  # type: ignore[arg-type]
            ("decode", n.Decode(ones(actions, 1e-5), ones(actions, 0.0), ones(actions, -1.0), ones(actions, 1.0))),
            ("output", n.Output((actions,))),
        ],
        dt=0.005,
        contract=contract,
    )


# --------------------------------------------------------------------------------------------------------------------
# The same bits


def assert_equal_to_the_bit(worker: Worker, first: int, count: int) -> None:
    """Spikes and membranes of every layer at every step, in Lava's full runtime."""
    fired = 0
    for seed, graph, x, spikes, membranes in usable(first, count):
        network = LavaNetwork(connections(graph), len(x), membranes="all", worker=worker)
        got_spikes, got_membranes = network.play(x)
        for name, wanted in membranes.items():
            np.testing.assert_array_equal(got_membranes[name], wanted, err_msg=f"v of {name} in graph {seed}")
        for name, values in got_spikes.items():
            np.testing.assert_array_equal(values, spikes[name], err_msg=f"spikes of {name} in graph {seed}")
            fired += int(values.sum())
        network.rewind()
    assert fired


@needs_lava
def test_random_graphs_equal_the_definition(worker: Worker) -> None:
    assert_equal_to_the_bit(worker, 0, 3)


@needs_lava
@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_many_random_graphs_equal_the_definition(worker: Worker, part: int) -> None:
    assert_equal_to_the_bit(worker, 1000 * (part + 1), 25)


@needs_lava
@pytest.mark.parametrize("state", ["reset", "carried"])
def test_a_policy_acts_as_the_emulator_does(worker: Worker, state: State) -> None:
    rng = np.random.default_rng(1)
    graph = policy(state)
    with LavaSession(graph) as lava, MachineSession(graph) as emulator:
        assert isinstance(lava, Session)
        for _ in range(2):
            for _ in range(3):
                observation = rng.normal(size=5) * 2
                np.testing.assert_array_equal(lava.step(observation), emulator.step(observation))
                trace, wanted = lava.trace(), emulator.trace()
                assert set(trace) == {"lif1", "readout"}
                for name in trace:
                    np.testing.assert_array_equal(trace[name], wanted[name])
            lava.reset(1)
            emulator.reset(1)
        assert lava.counts == emulator.counts
        assert lava.counts.spikes["lif1"] > 0
        shim = environment.status().shim
        assert lava.provenance == {"python": lava.worker.versions.python, "lava": "0.10.0", "shim": str(shim)}


@needs_lava
@pytest.mark.parametrize("state", ["reset", "carried"])
@pytest.mark.parametrize(("population", "output_population"), [(4, 0), (0, 3), (4, 3)])
def test_population_code_and_spike_counts(
    worker: Worker, state: State, population: int, output_population: int
) -> None:
    """Compiled policies; with counts Lava reads no membrane at all. The constant bias channel is a spike here."""
    float_policy = random_policy(
        4, sizes=(5, 12, 3), state=state, current=True, population=population, output_population=output_population
    )
    graph, _ = lower(float_policy, calibrate(float_policy))
    assert float_policy.recorded is not None
    with (
        LavaSession(graph, full_trace=not output_population) as lava,
        MachineSession(graph) as plain,
        EmulatorSession(graph) as fast,
    ):
        for _ in range(2):
            for row in float_policy.recorded[:4]:
                action = lava.step(row)
                np.testing.assert_array_equal(action, plain.step(row))
                np.testing.assert_array_equal(action, fast.step(row))
                if not output_population:
                    for name, values in lava.trace().items():
                        np.testing.assert_array_equal(values, plain.trace()[name])
            for session in (lava, plain, fast):
                session.reset(1)
        assert lava.counts == plain.counts
        assert lava.counts.spikes["lif1"] > 0


@needs_lava
def test_an_observation_that_cannot_be_trusted(worker: Worker) -> None:
    graph = policy("carried")
    rows = np.random.default_rng(2).normal(size=(3, 5))
    rows[1, 2] = np.nan
    with LavaSession(graph, full_trace=False) as lava, MachineSession(graph) as emulator:
        for row in rows:
            np.testing.assert_array_equal(lava.step(row[None]), emulator.step(row[None]))
        assert lava.counts.fail_safe == {"observation not finite": 1}
        with pytest.raises(ContractError, match="full_trace"):
            lava.trace()
        with pytest.raises(ContractError, match="one robot"):
            lava.reset(2)
        lava.reset(rows=np.array([False]))
        np.testing.assert_array_equal(lava.step(rows[0]), emulator.step(rows[0]))
        lava.reset(rows=np.array([0]))
        emulator.reset()
        np.testing.assert_array_equal(lava.step(rows[0]), emulator.step(rows[0]))
        with pytest.raises(ContractError, match="shape"):
            lava.step(rows[0, :3])
    with pytest.raises(ContractError, match="closed"):
        lava.step(rows[0])


# --------------------------------------------------------------------------------------------------------------------
# Its death


def left(prefix: str, pids: list[int]) -> list[str]:
    """What of a session is left: processes, segments."""
    found = [path.name for path in Path("/dev/shm").glob(f"{prefix}*")]
    for pid in pids:
        status = Path(f"/proc/{pid}/stat")
        if status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
            found.append(str(pid))
    return found


@needs_lava
@pytest.mark.parametrize("fault", ["a process dies", "a process hangs", "the worker dies", "killed between steps"])
def test_a_dead_or_hung_lava_is_an_error_in_time_and_leaves_nothing(worker: Worker, fault: str) -> None:
    with LavaSession(policy(), timeout=1.0) as session:
        session.step(np.zeros(5))
        prefix = session.worker.shared_memory_prefix
        pids = [*session.worker.process_ids, *session.worker.call("processes").values["pids"]]
        assert len(left(prefix, pids)) > len(pids)
        victim = {"the worker dies": pids[1], "killed between steps": pids[0]}.get(fault, pids[4])
        os.kill(victim, signal.SIGSTOP if fault == "a process hangs" else signal.SIGKILL)
        time.sleep(0.05)
        begun = time.monotonic()
        with pytest.raises(EngineError) as caught:
            session.step(np.zeros(5))
        assert time.monotonic() - begun < 4.0
        assert caught.value.hint
        assert left(prefix, pids) == []
        with pytest.raises(EngineError, match="no longer running"):
            session.step(np.zeros(5))


# --------------------------------------------------------------------------------------------------------------------
# Refusals, which need no Lava


def test_without_an_environment_it_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERVECORD_HOME", str(tmp_path))
    with pytest.raises(MissingDependencyError, match="nervecord targets install lava"):
        LavaSession(policy())


def test_what_is_no_chain_is_refused() -> None:
    dense = n.FixedDense(np.ones((2, 2)), 0, 8, graded=False)
    lif = n.FixedLIF(du=0, dv=0, bias_mant=np.zeros(2), bias_exp=0, threshold=10)
    ends = [("input", n.Input((2,))), ("output", n.Output((2,)))]

    def refused(nodes: list[tuple[str, object]], edges: list[tuple[str, str]], said: str) -> None:
        graph = Graph(Level.INTEGER, dict([*ends, *nodes]), tuple(edges), dt=1e-3)  # type: ignore[list-item]
        with pytest.raises(InfeasibleError, match=said):
            connections(graph)

    refused(
        [("a", dense), ("lif", lif), ("back", dense)],
        [("input", "a"), ("a", "lif"), ("lif", "back"), ("back", "lif"), ("lif", "output")],
        "chains",
    )
    refused([("a", dense)], [("input", "a"), ("a", "output")], "chains")
    readout = n.FixedReadout(du=0, dv=0, bias_mant=np.zeros(2), bias_exp=0)
    refused(
        [("a", dense), ("read", readout), ("b", dense), ("lif", lif)],
        [("input", "a"), ("a", "read"), ("read", "b"), ("b", "lif"), ("lif", "output")],
        "spikes of one layer",
    )
    refused([], [("input", "output")], "no layer")


def test_the_graphs_drawn_cover_what_they_should() -> None:
    drawn = usable(0, 40)
    layers = [node for _, graph, *_ in drawn for _, node in graph.of_type(n.FixedLIF)]
    assert {0, 4095} <= {node.du for node in layers}  # type: ignore[attr-defined]
    assert {0, 4095} <= {node.dv for node in layers}  # type: ignore[attr-defined]
    dense = [node for _, graph, *_ in drawn for _, node in graph.of_type(n.FixedDense)]
    assert {node.weight_bits for node in dense} == set(range(1, 9))  # type: ignore[attr-defined]
    assert {node.graded for node in dense} == {True, False}  # type: ignore[attr-defined]
    assert any((np.abs(v) == (1 << 23) - 1).any() for *_, membranes in drawn for v in membranes.values())
    assert expected(*draw(drawn[0][0])) is not None
