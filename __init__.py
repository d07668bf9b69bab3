"""Nervecord: train, compile and run spiking control policies on neuromorphic arithmetic.

    import nervecord

    policy = nervecord.read("policy.nir")
    program = nervecord.compile(policy, target="lava")
    with nervecord.open(program) as session:
        print(nervecord.run(session, "Ant-v4", episodes=10, seed=0).mean)

Importing this package loads nothing else: each function imports what it needs when it is called. torch is needed by
`train` alone, gymnasium and MuJoCo by `run` alone.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nervecord.compiler.arguments import front
from nervecord.errors import NervecordError

if TYPE_CHECKING:
    import os

    from nervecord.cli.html import report
    from nervecord.compiler.files.program import Program
    from nervecord.compiler.findings import Finding
    from nervecord.compiler.graph.contract import Contract
    from nervecord.compiler.graph.graph import Graph
    from nervecord.compiler.graph.policy import Policy
    from nervecord.compiler.inspect import Report
    from nervecord.compiler.ops import Array
    from nervecord.compiler.plan.interpret import Trace
    from nervecord.compiler.target.protocol import Target, TargetSpec
    from nervecord.runtime.loop import Progress
    from nervecord.runtime.measure.compare import Comparison, Mode
    from nervecord.runtime.realtime import RealTime
    from nervecord.runtime.report.picture import picture
    from nervecord.runtime.report.video import video
    from nervecord.runtime.result import Result
    from nervecord.runtime.session import Session
    from nervecord.runtime.stream import StreamSession
    from nervecord.targets.base import spec_beside
    from nervecord.targets.integers import IntegerTarget
    from nervecord.targets.measures import certify, emit, neurobench
    from nervecord.targets.warmup import warmup
    from nervecord.training.front import contract, distill, sweep, train
    from nervecord.training.settings.config import TrainConfig
    from nervecord.training.settings.foreign_network import network_policy

    StrPath = str | os.PathLike[str]
    Source = Graph | Policy | Program | StrPath

__all__ = [
    "Comparison",
    "Contract",
    "Finding",
    "Graph",
    "IntegerTarget",
    "NervecordError",
    "Policy",
    "Program",
    "RealTime",
    "Report",
    "Result",
    "Session",
    "Target",
    "TargetSpec",
    "Trace",
    "TrainConfig",
    "certify",
    "compare",
    "compile",
    "contract",
    "distill",
    "emit",
    "inspect",
    "list_targets",
    "load",
    "network_policy",
    "neurobench",
    "open",
    "picture",
    "read",
    "report",
    "run",
    "simulate",
    "spec_beside",
    "stream",
    "sweep",
    "target",
    "train",
    "video",
    "warmup",
]

_ELSEWHERE = {
    "Comparison": "runtime.measure.compare",
    "Contract": "compiler.graph.contract",
    "Finding": "compiler.findings",
    "Graph": "compiler.graph.graph",
    "IntegerTarget": "targets.integers",
    "Program": "compiler.files.program",
    "Policy": "compiler.graph.policy",
    "RealTime": "runtime.realtime",
    "Report": "compiler.inspect",
    "Result": "runtime.result",
    "Session": "runtime.session",
    "Target": "compiler.target.protocol",
    "TargetSpec": "compiler.target.protocol",
    "Trace": "compiler.plan.interpret",
    "TrainConfig": "training.settings.config",
    "certify": "targets.measures",
    "contract": "training.front",
    "distill": "training.front",
    "emit": "targets.measures",
    "neurobench": "targets.measures",
    "network_policy": "training.settings.foreign_network",
    "picture": "runtime.report.picture",
    "report": "cli.html",
    "spec_beside": "targets.base",
    "sweep": "training.front",
    "train": "training.front",
    "video": "runtime.report.video",
    "warmup": "targets.warmup",
}
"""Names that are part of the interface -> the module that defines them, imported on first use."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("nervecord")
    if name in _ELSEWHERE:
        found = getattr(importlib.import_module(f"nervecord.{_ELSEWHERE[name]}"), name)
        return found if isinstance(found, type) else _front(found)
    raise AttributeError(f"module 'nervecord' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


def read(
    path: StrPath, *, dt: float | None = None, convention: str = "euler", reset: str | None = None
) -> Graph | Policy:
    """The graph of a NIR file, ready to execute where its time step is known; a policy where it carries a contract.

    Args:
        path: a NIR file, of Nervecord or of any other tool; a run folder; an ONNX file of a network without spikes; or
            a `.net` file of lava-dl, which gives a graph of Lava's integers.
        dt: seconds per step; NIR does not say it. Without it a file of another tool stays in continuous time, which is
            enough for `inspect`.
        convention: how continuous time becomes steps: "euler" (as snnTorch and Norse do) or "exact".
        reset: the rule its neurons were trained with, which NIR cannot say: "zero", "subtract" (the threshold, in the
            step of the spike), "subtract-late" (in the next, as snnTorch does by default), "subtract-early" (its
            reset_delay=False) or "zero-late"; see docs/nir.md.

    Raises:
        FileFormatError: the file is missing, damaged, no NIR, or newer than this version.
        GraphError: what it describes is no legal graph; every violation is listed.

    Example:
        >>> nervecord.read("lif.nir", dt=1e-4).level  # doctest: +SKIP
        <Level.DISCRETE: 'discrete'>
    """
    from nervecord.compiler.graph.policy import parts
    from nervecord.compiler.ops import Level
    from nervecord.compiler.passes.discretise import discretise
    from nervecord.targets.source import policy_file, read_graph, with_reset_rule

    found = with_reset_rule(read_graph(policy_file(path), dt=dt, convention=convention), reset)
    if dt is None or parts(found)[0].level is Level.INTEGER:
        return found
    return discretise(found, dt=dt, convention=convention)


def compile(
    network: Source,
    target: str | Target[Session] | None = None,
    *,
    contract: StrPath | None = None,
    inputs: str | float | Mapping[str, str | float] | None = None,
    steps: int | None = None,
    dt: float | None = None,
    convention: str = "euler",
    reset: str | None = None,
    calibration: Array | Mapping[str, Array] | StrPath | None = None,
    limits: Mapping[str, float] | None = None,
    allow_clustered_decays: bool = False,
    dump: StrPath | None = None,
    explain: Callable[[str], None] | None = None,
    **options: Any,
) -> Program:
    """Compile a policy for a target; or a graph that is none, whose program takes and gives spikes or values in steps.

    Args:
        network: a graph or policy, or the file of one; or a program, which goes to another target as it is.
        target: a name of `list_targets()` that compiles, or what `target` gave; by default Loihi 2's fixed point.
        contract: a file that makes a policy of a graph of any tool; `contract` writes one to start from.
        inputs: what a graph's Inputs carry: "spikes", or the limit of values; or Input -> such.
        steps: of a graph that is no policy: its state is cleared before each block of so many steps; None: carried.
        dt: seconds per step, where the file does not say. convention, reset: see `read`.
        calibration: recorded input that chooses the scales, or an .npz or .npy of it. Of a policy (k, observations), by
            default those that it carries; of a graph (steps, n), or Input -> such.
        limits: limit -> your own number, in place of one that is not exact; the program keeps it as an allowance.
        allow_clustered_decays: bring the decays of a population together that has more than it can be split by.
        dump: folder for the graph as text after each step. explain: called with a line for each change.
        options: of the target that is named, such as `weight_bits=4`; `nervecord targets NAME` lists them.

    Raises:
        InfeasibleError: the target cannot hold or express it; every reason is listed.
        ContractError: nothing calibrates a policy, or contract and graph do not match.

    Example:
        >>> program = nervecord.compile("policy.nir", target="lava")  # doctest: +SKIP
        >>> program.save("ant.nervecord")  # doctest: +SKIP
    """
    from nervecord.compiler.compile import compile_graph
    from nervecord.compiler.graph.schedule import STREAM
    from nervecord.targets.catalogue import InspectedTarget, chosen_target
    from nervecord.targets.network import compilable
    from nervecord.targets.recordings import recorded_input
    from nervecord.targets.source import block_schedule

    chosen = chosen_target(target, limits, options)
    if isinstance(chosen, InspectedTarget):
        chosen.refuse()
    subject, schedule = compilable(
        network,
        chosen.spec.name,
        STREAM,
        contract=contract,
        inputs=inputs,
        dt=dt,
        convention=convention,
        reset=reset,
        steps=steps,
        calibration=calibration,
        allow_clustered_decays=allow_clustered_decays,
    )
    return compile_graph(
        subject,
        chosen,
        dt=dt,
        schedule=block_schedule(subject, steps) or schedule,
        calibration=recorded_input(calibration, subject),
        dump=dump,
        explain=explain,
        allow_clustered_decays=allow_clustered_decays,
    )


def load(path: StrPath) -> Program:
    """Read a program that `compile` wrote (`Program.save`).

    Raises:
        FileFormatError: it is missing, damaged, no program, newer than this version, or for a target it does not have.
    """
    from nervecord.targets.source import load_program

    return load_program(path)


def open(
    given: Source,
    *,
    engine: str | None = None,
    trace: bool = True,
    device: str | None = None,
    precision: str | None = None,
    library: StrPath | None = None,
    port: StrPath | None = None,
    realtime: bool | RealTime = False,
) -> Session:
    """A session: observation in, action out, state kept. Use it as a context manager.

    Args:
        given: a program, on its target's engine; a policy, in float64; or the file of either.
        engine: by default the target's first.
        trace: `Session.trace` will be asked for; without it an engine in another process is faster.
        device: of the engine torch: "cpu", "cuda", "cuda:1". precision: of its floats, "float64" or "float32".
        library: of the engine c, built ahead of time (`nervecord compile --shared`); its code is executed.
        port: of the engine fpga: where a board is that holds the program, such as "/dev/ttyUSB1".
        realtime: the session drives a robot: what is late, driven at another rate than the contract's, not finite or
            of a dead engine is the fail-safe action; `RealTime` says how late and how other.

    Raises:
        NervecordError: the target has no engine of that name; the choices are listed.
        ContractError: it carries no contract, so it cannot act; `stream` steps any graph.

    Example:
        >>> with nervecord.open("ant.nervecord") as session:  # doctest: +SKIP
        ...     action = session.step(np.zeros(27))
    """
    from nervecord.targets.opening import open_session
    from nervecord.targets.source import acting_program

    how: Any = {"engine": engine, "device": device, "precision": precision, "library": library, "port": port}
    session = open_session(acting_program(given), trace=trace, **how)
    if realtime is False:
        return session
    from nervecord.runtime.realtime import RealTimeSession

    return RealTimeSession(session, None if realtime is True else realtime)


def stream(
    given: Source,
    *,
    engine: str | None = None,
    steps: int | None = None,
    device: str | None = None,
    precision: str | None = None,
) -> StreamSession:
    """A session of a graph that is no policy: spikes or values in and out, step by step, or block by block.

    Args:
        given: a program or graph, or the file of one.
        engine: by default the target's first.
        steps: of a graph that is no program: its state is cleared before each block of so many steps.
        device, precision: see `open`.

    Raises:
        NervecordError: the target has no engine of that name; it is a policy.
    """
    from nervecord.targets.opening import open_stream
    from nervecord.targets.source import stream_program

    return open_stream(stream_program(given, steps), engine=engine, device=device, precision=precision)


def simulate(given: Source, inputs: Array | Mapping[str, Array], *, steps: int | None = None) -> Trace:
    """Run any executable graph on recorded input, by definition, and return everything it did.

    Args:
        given: with a fixed time step (`read(path, dt=...)`), or a program.
        inputs: (steps, n) or (steps, batch, n), or input name -> such; for a policy observations, one per action.
        steps: of a graph that is no policy: its state is cleared before each block of so many steps.

    Raises:
        GraphError: the graph is not executable, or the input's shape does not match.
    """
    from nervecord.compiler.plan.interpret import simulate as simulate_graph
    from nervecord.targets.source import acting_program, block_schedule, load_source

    held = load_source(given)
    program = acting_program(held)
    return simulate_graph(program.subject, inputs, block_schedule(held, steps) or program.schedule)


def inspect(
    given: Source,
    targets: Sequence[str | Target[Session] | TargetSpec] | str | Target[Session] | TargetSpec | None = None,
    *,
    limits: Mapping[str, float] | None = None,
    inputs: str | float | Mapping[str, str | float] | None = None,
    steps: int | None = None,
) -> Report:
    """Whether targets can hold and express a graph, what it would use of them, and what to change.

    Args:
        given: any graph, policy or program, or the file of one.
        targets: names, specs, or what `target` gave, one or several; by default all, and a program's own.
        limits: limit -> your own number, as of `compile`; for one target. inputs, steps: see `compile`.

    Raises:
        NervecordError: one of the names is unknown; or limits cannot be replaced.
    """
    from nervecord.compiler import inspect as inspection
    from nervecord.compiler.files.program import Program
    from nervecord.compiler.target.protocol import TargetSpec as Spec
    from nervecord.targets.catalogue import inspected_targets, runner, with_limits
    from nervecord.targets.source import block_schedule, load_source, scheduled_subject

    several = targets is None or (isinstance(targets, Sequence) and not isinstance(targets, str))
    chosen: Any = targets if several else [targets]
    if limits:
        if chosen is None or len(chosen) != 1:
            raise NervecordError("are those of one target", where="limits", hint="name it, and no other")
        named = [target(it) if isinstance(it, str) else it for it in chosen]
        chosen = [it.override(**limits) if isinstance(it, Spec) else with_limits(it, limits) for it in named]
    held = load_source(given)
    subject, schedule = scheduled_subject(held, inputs)
    looked_at = inspected_targets(chosen, subject, runner(held) if isinstance(held, Program) else None)
    report = inspection.inspect(subject, looked_at, block_schedule(held, steps) or schedule)
    return inspection.with_measured(report, held) if isinstance(held, Program) else report


def run(
    session: Session,
    env: Any = None,
    episodes: int = 10,
    seed: int = 0,
    *,
    wrappers: Sequence[str] | None = None,
    environments: int = 1,
    record: bool = False,
    allow_other_env: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Run a policy in the control loop for whole episodes. Needs the extra `mujoco`.

    Args:
        session: from `open`.
        env: Gymnasium id, or "module:id" to import a module that registers it; an environment, or a function that
            makes one; by default the environment the policy was trained in, which must be registered: a policy's file
            never says what to import.
        episodes, seed: the same seed gives the same episodes for every policy and any number of environments.
        wrappers: around an environment that is named by its id, the innermost first; the contract says which.
        environments: how many run side by side.
        record: keep the first episode, for pictures and videos.
        allow_other_env: accept an environment of another name and the same shapes.

    Returns:
        Returns with their interval, latency, spikes and synaptic events per action, fail-safe actions.

    Raises:
        ContractError: policy and environment do not match.
    """
    from nervecord.runtime.loop import run_policy

    return run_policy(
        session,
        env,
        episodes,
        seed,
        wrappers=wrappers,
        environments=environments,
        record=record,
        allow_other=allow_other_env,
        progress=progress,
    )


def compare(
    a: Session | StreamSession | Source,
    b: Session | StreamSession | Source,
    observations: Array | StrPath | None = None,
    *,
    inputs: Array | Mapping[str, Array] | StrPath | None = None,
    steps: int | None = None,
    mode: Mode = "free",
    tolerance: float | None = None,
) -> Comparison:
    """Drive two policies over the same observations, or two networks over the same input, and say where they part.

    Args:
        a, b: with the same layer names: sessions, graphs, programs, or the files of such.
        observations: (k, observations), or an .npz or .npy of them; by default those that one of the policies carries.
        inputs: of networks that are no policies: as of `simulate`, or an .npz or .npy of it.
        steps: of such: their state is cleared before each block of so many steps; a program says it itself.
        mode: "free": each on its own; "layers": each layer of b is fed what the layer before it gave in a.
        tolerance: actions, and membranes that are read, which differ by no more agree (`Comparison.agrees`), in the
            action's units; by default 0 where both compute in the same arithmetic, else 0.01. At 0 spikes must be the
            same as well.
    """
    from nervecord.targets.comparing import compare as compare_sides

    return compare_sides(a, b, observations, inputs=inputs, steps=steps, mode=mode, tolerance=tolerance)


def list_targets() -> tuple[TargetSpec, ...]:
    """The specs of all targets: every limit with its source and how far it is to be trusted."""
    from nervecord.targets.catalogue import load_specs

    return load_specs()


def target(
    name: str | None = None, *, file: StrPath | None = None, limits: Mapping[str, float] | None = None, **options: Any
) -> Target[Session]:
    """A target, by name or as a file describes it.

    Args:
        name: of `list_targets()`; by default Loihi 2's fixed point.
        file: instead of a name, a file that describes a chip of your own (docs/own-chip.md).
        limits: limit -> your own number, in place of one that is not exact.
        options: of the target, such as `weight_bits=4`; `nervecord targets NAME` lists them.

    Raises:
        NervecordError: there is no such target, option or limit.
        FileFormatError: the file describes no target; names the key.
    """
    from nervecord.targets import catalogue

    if file is None:
        return catalogue.find_target(catalogue.DEFAULT if name is None else name, limits=limits, options=options)
    if name is not None:
        raise NervecordError("is a target of its own", where=str(file), hint="give no name beside it")
    return catalogue.target_from_file(Path(file), limits=limits, options=options)


_front = functools.cache(front)
for _checked in (read, compile, load, open, stream, simulate, inspect, run, compare, target):
    globals()[_checked.__name__] = _front(_checked)
