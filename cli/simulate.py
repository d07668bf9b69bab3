"""The verb `simulate`."""

from __future__ import annotations

import argparse
from typing import Any

import nervecord
from nervecord.cli import show
from nervecord.cli.flags import subject_of, time_step_flags, writable
from nervecord.cli.show import Outcome
from nervecord.cli.verb import Verb
from nervecord.errors import GraphError


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("graph", help="any NIR file, or a program")
    parser.add_argument(
        "--input", required=True, metavar="FILE", help=".npz or .npy: (steps, n), or an array for each input by name"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help=".npz of what every node gave at every step")
    time_step_flags(parser)


def _run(args: argparse.Namespace) -> Outcome:
    from nervecord.compiler.graph import Graph
    from nervecord.runtime.arrayfile import write_arrays

    writable(args.output, where="--output")
    subject = subject_of(args.graph, args.dt, args.convention)
    graph = subject if isinstance(subject, Graph) else subject.graph
    values = _values(args.input, graph)
    try:
        trace = nervecord.simulate(graph, values)
    except GraphError as error:
        if error.where in (*graph.inputs, "inputs"):
            error.add_note(f"its values are those of {args.input}")
        raise
    spikes = {name: float(values.sum()) for name, values in trace.spikes(graph).items()}
    data = {
        "output": args.output,
        "steps": len(next(iter(trace.outputs.values()), ())),
        "nodes": {name: list(values.shape) for name, values in trace.outputs.items()},
        "spikes": spikes,
        "actions": None if trace.actions is None else list(trace.actions.shape),
    }
    if args.output is not None:
        extra = {} if trace.actions is None else {"actions": trace.actions}
        write_arrays(args.output, {**trace.outputs, **extra})
    rows = [["node", "shape", "spikes"]]
    for name, values in trace.outputs.items():
        rows.append([name, " x ".join(map(str, values.shape)), f"{spikes[name]:,.0f}" if name in spikes else "-"])
    text = show.columns(rows, indent=0, right=(2,))
    text += f"\nwritten: {args.output}" if args.output else "\nnothing was written: -o FILE keeps the trace"
    return Outcome(data, text)


def _values(path: str, graph: Any) -> Any:
    """What the file holds for the graph: an array for each input by name, or the one array there is."""
    from nervecord.runtime.arrayfile import only_array, read_arrays

    arrays = read_arrays(path)
    if set(arrays) == set(graph.inputs) and len(arrays) > 1:
        return arrays
    return only_array(arrays, where=path)


VERBS = {
    "simulate": Verb(
        "Run any graph on recorded input, step by step, by the definition of its nodes.",
        (
            "nervecord simulate lif.nir --dt 1e-4 --input spikes.npz -o trace.npz",
            "nervecord simulate ant.nervecord --input observations.npz -o trace.npz",
        ),
        _flags,
        _run,
    )
}
