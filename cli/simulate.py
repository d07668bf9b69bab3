"""The verb `simulate`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

import numpy as np

import nervecord
from nervecord.cli import show
from nervecord.cli.flags import integer, subject_of, time_step_flags, writable
from nervecord.cli.show import Outcome
from nervecord.cli.verb import Verb
from nervecord.compiler.plan.interpret import checked, stream_inputs
from nervecord.errors import GraphError, NervecordError

if TYPE_CHECKING:
    from nervecord.compiler.files.program import Program
    from nervecord.compiler.ops import Array

DEFINITION = "definition"
"""The engine that shows everything."""


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("graph", help="any NIR file, a .net of lava-dl, or a program")
    parser.add_argument(
        "--input",
        required=True,
        metavar="FILE",
        help=".npz, .npy: (steps, n), or an array for each input by name; or NIRData",
    )
    parser.add_argument(
        "--engine",
        metavar="NAME",
        help="what runs it; by default the definition, which shows what every node gave; others show what leaves",
    )
    parser.add_argument(
        "--steps",
        type=integer,
        metavar="N",
        help="clear the state of a network that is no policy before each block of N steps; a program says it itself",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="what every node gave at every step: .npz, or .nir, .h5: NIRData with what entered",
    )
    time_step_flags(parser)


def _run(args: argparse.Namespace) -> Outcome:
    from nervecord.targets.recordings import recorded_input
    from nervecord.targets.source import acting_program

    writable(args.output, where="--output")
    program = acting_program(subject_of(args.graph, args.dt, args.convention, args.reset))
    values = recorded_input(args.input, program.subject)
    try:
        results = _simulate(program, values, args.engine, args.steps)
    except GraphError as error:
        if error.where in (*program.graph.inputs, "inputs"):
            error.add_note(f"its values are those of {args.input}")
        raise
    spiking = {name for name, op in program.graph.nodes.items() if op.spikes}
    spikes = {name: float(rows.sum()) for name, rows in results.items() if _spikes(program.graph, name, spiking)}
    data = {
        "output": args.output,
        "engine": args.engine or DEFINITION,
        "steps": len(next(iter(results.values()), ())),
        "nodes": {name: list(rows.shape) for name, rows in results.items()},
        "spikes": spikes,
    }
    if args.output is not None:
        write_trace(args.output, {**entered_rows(program, values), **results}, program)
    table = [["node", "shape", "spikes"]]
    for name, rows in results.items():
        table.append([name, " x ".join(map(str, rows.shape)), f"{spikes[name]:,.0f}" if name in spikes else "-"])
    text = show.columns(table, indent=0, right=(2,))
    text += f"\nwritten: {args.output}" if args.output else "\nnothing was written: -o FILE keeps the trace"
    return Outcome(data, text)


def entered_rows(program: Program, values: Any) -> dict[str, Array]:
    """What entered, by the names of the Inputs, (steps, batch, ...): a recording that `--input` takes again."""
    if program.contract is None:
        return stream_inputs(program.graph, values)
    rows = checked(np.asarray(values, dtype=np.float64), (program.contract.observation.size,), "observations")
    series, start = {}, 0
    for name in program.graph.inputs:
        size = program.graph.nodes[name].size
        series[name], start = rows[..., start : start + size], start + size
    return series


def write_trace(path: str, arrays: dict[str, Array], program: Program) -> None:
    """NIRData where the file's name ends so, with what entered; else an .npz of what nodes gave."""
    from nervecord.runtime.arrayfile import write_arrays
    from nervecord.runtime.nirdata import ENDINGS, write_recording

    if path.endswith(ENDINGS):
        period = None if program.contract is None else program.contract.control_period
        write_recording(path, arrays, program.graph, period)
    else:
        write_arrays(path, {name: rows for name, rows in arrays.items() if name not in program.graph.inputs})


def _spikes(graph: Any, name: str, spiking: set[str]) -> bool:
    """Whether spikes stand under this name: of a spiking node, or of an Output that it feeds."""
    return name in spiking or (name in graph.outputs and all(source in spiking for source in graph.sources(name)))


def _simulate(program: Program, values: Any, engine: str | None, steps: int | None) -> dict[str, Array]:
    """What every node gave, by definition; or what left the graph, on an engine."""
    if engine in (None, DEFINITION):
        trace = nervecord.simulate(program, values, steps=steps)
        actions = {} if trace.actions is None else {"actions": trace.actions}
        return {**trace.outputs, **trace.left, **actions}
    if program.contract is not None:
        with nervecord.open(program, engine=engine) as session:
            rows = checked(np.asarray(values), (program.contract.observation.size,), "observations")
            session.reset(rows.shape[1])
            return {"actions": np.stack([session.step(row) for row in rows])}
    if steps is not None:
        raise NervecordError("a program says it itself", where="--steps", hint="leave --steps out")
    with nervecord.stream(program, engine=engine) as session:
        return dict(session.run(values))


VERBS = {
    "simulate": Verb(
        "Run any graph or program on recorded input, step by step: by the definition of its ops, or on an engine.",
        (
            "nervecord simulate lif.nir --dt 1e-4 --input spikes.npz -o trace.npz",
            "nervecord simulate lif.nir --dt 1e-4 --input spikes.nir -o trace.nir",
            "nervecord simulate ant.nervecord --input observations.npz -o trace.npz",
            "nervecord simulate net.nervecord --input spikes.npz --engine emulator -o out.npz",
        ),
        _flags,
        _run,
    )
}
