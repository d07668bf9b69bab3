"""What each verb of the command line does: its flags, its call of the Python API, and what it gives back to print."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nervecord
from nervecord.cli import doctor, html, run, show, sweep, training
from nervecord.cli.inspect_text import inspect_text
from nervecord.cli.show import Outcome, writable
from nervecord.errors import GraphError, NervecordError, unknown_name

if TYPE_CHECKING:
    from nervecord.compiler.node import Array
    from nervecord.compiler.program import Program
    from nervecord.targets.lava.environment import LavaStatus

INFEASIBLE = 2


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb of the command line."""

    description: str
    examples: tuple[str, ...]
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Outcome]


def _time_step(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dt", type=float, metavar="SECONDS", help="time step; NIR files of other tools do not say it")
    parser.add_argument(
        "--convention", default="euler", help="how continuous time becomes steps: euler (default) or exact"
    )


# --------------------------------------------------------------------------------------------------------------------
# compile


def _compile_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("policy", help="NIR file of a policy")
    parser.add_argument("--target", default="lava", help="what to compile for (default lava); see nervecord targets")
    parser.add_argument("-o", "--output", metavar="FILE", help="the program; replaced if it exists")
    parser.add_argument("--weight-bits", type=int, metavar="N", help="bits of the weights, 2..8 (default 8)")
    parser.add_argument(
        "--emit",
        choices=("netx",),
        help="netx: beside the program write FILE.net for lava-dl's netx, in the part of the arithmetic it can say",
    )
    parser.add_argument("--calibration", metavar="FILE", help=".npz of observations; by default the policy's own")
    parser.add_argument("--dump", metavar="DIR", help="write the graph as text after each step")
    parser.add_argument("--explain", action="store_true", help="say what each step changed")
    parser.add_argument("--dt", type=float, metavar="SECONDS", help="time step, where the file does not say it")
    html.add_flag(parser)


def _compile(args: argparse.Namespace) -> Outcome:
    writable(args.output, where="--output")
    html.require(args)
    netx = None
    if args.emit:
        if args.output is None:
            raise NervecordError("needs a name for its file", where="--emit", hint="give one with -o FILE")
        netx = str(Path(args.output).with_suffix(".net"))
        if Path(args.output).suffix == ".net":
            raise NervecordError(f"{netx} is to be netx's file", where="--output", hint="give the program another name")
        writable(netx, where="--emit")

    def explain(line: str) -> None:
        print(line, file=sys.stderr)

    program = nervecord.compile(
        args.policy,
        args.target,
        dt=args.dt,
        calibration=args.calibration,
        weight_bits=args.weight_bits,
        netx=None if netx is None else True,
        dump=args.dump,
        explain=explain if args.explain else None,
    )
    exported = None
    if netx is not None:
        from nervecord.targets.lava.netx import export_netx

        # First, since it may refuse.
        exported = export_netx(program.graph, netx)
    if args.output is not None:
        program.save(args.output)
    placement = program.report["placement"]
    data = {
        "program": args.output,
        "target": program.target,
        "verdict": "feasible",
        "cores": placement["cores"],
        "memory_bits": placement["memory_bits"],
        "report": dict(program.report),
        "versions": dict(program.versions),
        "allowances": list(program.allowances),
    }
    text = show.program_text(program, args.output)
    if exported is not None:
        data["netx"] = {"file": netx, "arguments": exported.arguments}
        given = ", ".join(f"{name}={value}" for name, value in exported.arguments.items())
        text += f"\nnetx: lava.lib.dl.netx.hdf5.Network(net_config={netx!r}, {given})"
    if args.output is None:
        text += "\nnothing was written: -o FILE keeps the program"
    report = html.after(args, data, [program], labels=[args.output or args.policy])
    return Outcome(data, text, after=report)


# --------------------------------------------------------------------------------------------------------------------
# inspect


def _inspect_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("graph", help="any NIR file, or a program")
    parser.add_argument("--target", nargs="+", metavar="NAME", help="by default all targets")
    _time_step(parser)
    html.add_flag(parser)
    html.add_drawing_flags(parser)
    parser.add_argument("--verbose", action="store_true", help="nodes, notes, resources, events and sources too")


def _inspect(args: argparse.Namespace) -> Outcome:
    html.require(args)
    subject = subject_of(args.graph, args.dt, args.convention)
    report = nervecord.inspect(subject, args.target)
    infeasible = [target.target for target in report.targets if target.verdict == "infeasible"]
    data = {"file": args.graph, **report.to_dict()}
    code = INFEASIBLE if args.target and infeasible else 0
    drawn = html.drawings(args, data, report)
    after = (*drawn, *html.after(args, data, [subject], targets=args.target, labels=[args.graph]))
    return Outcome(data, inspect_text(report, args.graph, verbose=args.verbose), code, after=after)


def subject_of(path: str, dt: float | None, convention: str) -> Any:
    """The program or graph of a file; dt and convention are for graphs."""
    if nervecord._is_program(Path(path)):
        if dt is not None:
            raise NervecordError("a program has its time step already", where="--dt", hint="leave --dt out")
        return nervecord.load(path)
    return nervecord.read(path, dt=dt, convention=convention)


# --------------------------------------------------------------------------------------------------------------------
# compare


def _compare_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", help="policy or program")
    parser.add_argument("b", help="policy or program")
    parser.add_argument(
        "--observations", metavar="FILE", help=".npz of observations; by default those that a policy.nir carries"
    )
    parser.add_argument("--mode", default="free", help="free: each on its own (default); layers: layer by layer")
    parser.add_argument("--engine-a", metavar="NAME", help="engine of a")
    parser.add_argument("--engine-b", metavar="NAME", help="engine of b")
    html.add_flag(parser)


def _compare(args: argparse.Namespace) -> Outcome:
    if args.mode not in ("free", "layers"):
        raise unknown_name("mode", args.mode, ("free", "layers"), where="--mode")
    html.require(args)
    programs = [nervecord._acting(path) for path in (args.a, args.b)]
    rows = nervecord._observations(args.observations, programs[0].graph)
    if rows is None:
        rows = _recorded(programs)
    with (
        nervecord.open(programs[0], engine=args.engine_a) as a,
        nervecord.open(programs[1], engine=args.engine_b) as b,
    ):
        comparison = nervecord.compare(a, b, rows, mode=args.mode)
    data = comparison.to_dict()
    after = html.after(args, data, programs, comparison=comparison, labels=[args.a, args.b])
    return Outcome(data, show.comparison_text(comparison, args.a, args.b), after=after)


def _recorded(programs: list[Program]) -> Array:
    for program in programs:
        if program.graph.recorded is not None:
            return program.graph.recorded
    raise NervecordError(
        "neither file carries recorded observations", where="--observations", hint="a policy.nir of a training does"
    )


# --------------------------------------------------------------------------------------------------------------------
# simulate


def _simulate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("graph", help="any NIR file, or a program")
    parser.add_argument(
        "--input", required=True, metavar="FILE", help=".npz or .npy: (steps, n), or an array for each input by name"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help=".npz of what every node gave at every step")
    _time_step(parser)


def _simulate(args: argparse.Namespace) -> Outcome:
    from nervecord.compiler.graph import Graph
    from nervecord.runtime.arrayfile import read_arrays, read_rows, write_arrays

    writable(args.output, where="--output")
    subject = subject_of(args.graph, args.dt, args.convention)
    graph = subject if isinstance(subject, Graph) else subject.graph
    arrays = read_arrays(args.input)
    named = set(arrays) == set(graph.inputs) and len(arrays) > 1
    try:
        trace = nervecord.simulate(graph, arrays if named else read_rows(args.input))
    except GraphError as error:
        if error.where in (*arrays, *graph.inputs):
            error.where = f"{args.input}: {error.where}"
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


# --------------------------------------------------------------------------------------------------------------------
# targets


def _targets_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="NAME", help="a target to show, or: install lava")
    parser.add_argument("--python", metavar="PATH", help="install: the Python 3.10 to build on")
    parser.add_argument(
        "--allow-shim", action="store_true", help="install: without a Python 3.10 use a newer one and a shim"
    )


def _targets(args: argparse.Namespace) -> Outcome:
    if args.words[:1] == ["install"]:
        return _install(args)
    specs = nervecord.list_targets()
    compiling = [spec.name for spec in specs if spec.name in nervecord._COMPILING]
    if args.words:
        if len(args.words) > 1:
            raise NervecordError(f"{args.words[1]!r} is one word too many", hint="one target, or: install lava")
        by_name = {spec.name: spec for spec in specs}
        if args.words[0] not in by_name:
            raise unknown_name("target", args.words[0], [*by_name, "install"])
        specs = (by_name[args.words[0]],)
    from nervecord.targets.lava import environment

    status = environment.status()
    data = {"targets": [_spec_data(spec, compiling) for spec in specs], "lava": _status_data(status)}
    if args.words:
        return Outcome(data, show.target_text(specs[0]))
    there = (
        f"lava-nc {status.lava_version} on Python {status.python_version} in {status.path}"
        if status.installed
        else f"{status.problem}; to install it: {environment.INSTALL_COMMAND}"
    )
    return Outcome(data, f"{show.targets_text(specs, compiling)}\n\nengine lava: {there}")


def _status_data(status: LavaStatus) -> dict[str, Any]:
    return {
        "installed": status.installed,
        "path": str(status.path),
        "python": status.python_version,
        "lava": status.lava_version,
        "shim": status.shim,
        "problem": status.problem,
    }


def _spec_data(spec: Any, compiling: list[str]) -> dict[str, Any]:
    facts = {
        name: {"value": fact.value, "confidence": fact.confidence, "source": fact.source, "about": about}
        for name, about, fact in spec.facts()
    }
    return {
        "name": spec.name,
        "title": spec.title,
        "summary": spec.summary,
        "compiles": spec.name in compiling,
        "engines": list(spec.engines),
        "arithmetic": spec.arithmetic,
        "facts": facts,
        "not_checked": list(spec.not_checked),
    }


def _install(args: argparse.Namespace) -> Outcome:
    from nervecord.targets.lava import environment

    names = args.words[1:]
    if names != ["lava"]:
        if not names:
            raise NervecordError("install what?", hint="nervecord targets install lava")
        raise unknown_name("installable target", names[0], ("lava",))

    def progress(line: str) -> None:
        if not args.quiet:
            print(line, file=sys.stderr, flush=True)

    python = None if args.python is None else Path(args.python)
    status = environment.install(progress, python=python, allow_shim=args.allow_shim)
    text = f"lava-nc {status.lava_version} on Python {status.python_version} in {status.path}"
    return Outcome(_status_data(status), text + (" (with the shim)" if status.shim else ""))


VERBS: dict[str, Verb] = {
    "train": Verb(training.TRAIN, training.TRAIN_EXAMPLES, training.train_flags, training.train_verb),
    "distill": Verb(training.DISTILL, training.DISTILL_EXAMPLES, training.distill_flags, training.distill_verb),
    "sweep": Verb(sweep.DESCRIPTION, sweep.EXAMPLES, sweep.sweep_flags, sweep.sweep_verb),
    "compile": Verb(
        "Compile a policy for a target: calibrate on recorded observations, quantise with proved ranges, check, place. "
        "Exit code 2 where the target cannot hold it.",
        (
            "nervecord compile policy.nir --target lava -o ant.nervecord",
            "nervecord compile policy.nir --weight-bits 4 -o ant4.nervecord --dump passes --explain",
            "nervecord compile policy.nir --calibration observations.npz --json",
            "nervecord compile policy.nir --emit netx -o ant.nervecord",
        ),
        _compile_flags,
        _compile,
    ),
    "run": Verb(
        "Run a policy for whole episodes in its Gymnasium environment: return with its interval, latency, spikes, "
        "synaptic events. A NIR file runs in float64, a program on its target's engine. Needs the extra 'mujoco'.",
        (
            "nervecord run ant.nervecord",
            "nervecord run policy.nir --env Ant-v4 --episodes 100 --num-envs 16 --seed 7",
            "nervecord run ant.nervecord --engine lava --episodes 2",
            "nervecord run ant.nervecord --picture ant.png --video ant.mp4 --json",
            "nervecord run ant.nervecord --beside policy.nir --video ant.mp4 --html ant.html",
        ),
        run.run_flags,
        run.run_verb,
    ),
    "inspect": Verb(
        "Whether targets can hold and express a graph, what it would use of them, and what to change. Runs nothing. "
        "Exit code 2 where a target that was named is infeasible.",
        (
            "nervecord inspect policy.nir",
            "nervecord inspect any.nir --target loihi1 lava --json",
            "nervecord inspect lif.nir --dt 1e-4 --convention exact",
        ),
        _inspect_flags,
        _inspect,
    ),
    "compare": Verb(
        "Drive two policies over the same observations and say where they part: layer, action, step, neuron.",
        (
            "nervecord compare policy.nir ant.nervecord",
            "nervecord compare policy.nir ant.nervecord --mode layers --observations trace.npz --json",
            "nervecord compare ant.nervecord ant.nervecord --engine-b lava --observations trace.npz",
        ),
        _compare_flags,
        _compare,
    ),
    "simulate": Verb(
        "Run any graph on recorded input, step by step, by the definition of its nodes.",
        (
            "nervecord simulate lif.nir --dt 1e-4 --input spikes.npz -o trace.npz",
            "nervecord simulate ant.nervecord --input observations.npz -o trace.npz",
        ),
        _simulate_flags,
        _simulate,
    ),
    "targets": Verb(
        "List the targets, show one with all its limits and their sources, or install what an engine needs.",
        ("nervecord targets", "nervecord targets loihi1", "nervecord targets install lava"),
        _targets_flags,
        _targets,
    ),
    "doctor": Verb(doctor.DESCRIPTION, doctor.EXAMPLES, doctor.doctor_flags, doctor.doctor_verb),
    "demo": Verb(
        "Train a spiking ant, compile it for Loihi 2's fixed point, run it beside the float policy, inspect it, draw "
        "it. Takes 5 to 9 minutes on two cores; every time a new folder. Needs the extra 'train'.",
        ("nervecord demo", "nervecord demo --steps 300_000 --out demos", "nervecord demo --video"),
        training.demo_flags,
        training.demo_verb,
    ),
}
"""All verbs by name; `command.VERBS` lists them in the same order."""
