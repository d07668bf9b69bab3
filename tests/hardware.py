"""Random graphs for the target fpga, and what its hardware must give: what the definition gives, bit for bit."""

from __future__ import annotations

import dataclasses

import numpy as np
from graphs import LAVA, Case, draw
from microcode import Interpreter
from verilated import Verilated

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.plan.interpret import Machine
from nervecord.targets.catalogue import load_specs
from nervecord.targets.fpga.instructions import Microcode
from nervecord.targets.fpga.layout import layout
from nervecord.targets.fpga.microcode import microcode
from nervecord.targets.fpga.simulator import Simulation


def arithmetics() -> list[Arithmetic]:
    """Those of all targets, and own chips' that choose otherwise."""
    own = [
        dataclasses.replace(LAVA, accumulate="shift-each"),
        dataclasses.replace(LAVA, spikes_per_step=7, reset="subtract"),
        dataclasses.replace(LAVA, current_overflow="wrap"),
        dataclasses.replace(LAVA, connection_delay=0),
    ]
    return [LAVA, *(spec.integers for spec in load_specs() if spec.integers is not None), *own]


def require_equal(case: Case, hardware: Simulation | Interpreter | Verilated) -> None:
    """The hardware gives what the definition gives: what leaves it, and every population in its useful steps."""
    plan, code = case.plan, hardware.code
    machine = Machine(plan)
    steps = plan.schedule.steps
    for start in range(0, len(next(iter(case.inputs.values()))), steps):
        entered = machine.before.enter({n: x[start : start + steps, None] for n, x in case.inputs.items()}, np.int64)
        gave = [machine.step({n: rows[k] for n, rows in entered.items()}) for k in range(plan.window)]
        outputs = code.leaving(hardware.block(code.entering(entered, 0)))
        for read in plan.reads:
            expected = np.stack([values[read.source] for values in gave])[read.first : read.last + 1]
            np.testing.assert_array_equal(outputs[read.source][read.first : read.last + 1], expected, read.source)
        for unit in plan.units:
            name = unit.step.name
            useful = plan.useful(name) if plan.schedule.resets else slice(None)
            expected = np.stack([values[name].ravel() for values in gave])
            np.testing.assert_array_equal(hardware.gave(name)[useful], expected[useful], f"{name}, step {start}")


def simulation(case: Case, lanes: int, *, banked: bool = False) -> Simulation:
    """Of the Verilog."""
    return Simulation(microcode(layout(case.plan), lanes), optimise="-O0", banked=banked)


def random_case(seed: int) -> tuple[Case, int]:
    """A graph in one of the arithmetics, and how many lanes it is tried with."""
    every = arithmetics()
    return draw(seed, every[seed % len(every)]), (1, 1, 2, 4)[seed % 4]


def shapes(case: Case, code: Microcode) -> list[str]:
    """What is in a graph, for a campaign's summary."""
    graph, rings = case.plan.graph, [p.source for p in code.layout.populations if p.source is not None]
    traits = {
        "carried": not case.plan.schedule.resets,
        "recurrence": any(name.startswith("back") for name in graph.nodes),
        "fan-in": any(len(unit.incoming) > 1 for unit in case.plan.units),
        "several inputs": len(graph.inputs) > 1,
        "several outputs": len(graph.outputs) > 1,
        "delays": any(source.slots > 2 for source in rings),
        "sparse rows": bool(code.table),
        "values": code.values.depth > 0,
        f"at {code.lanes} lanes": True,
        "own arithmetic": graph.arithmetic not in [spec.integers for spec in load_specs()],
    }
    return [name for name, there in traits.items() if there]
