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

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nervecord.errors import ContractError, FileFormatError, MissingDependencyError, NervecordError, install_command

if TYPE_CHECKING:
    import os

    from nervecord.compiler.contract import Contract
    from nervecord.compiler.findings import Finding
    from nervecord.compiler.graph import Graph
    from nervecord.compiler.inspection import Report
    from nervecord.compiler.interpret import Trace
    from nervecord.compiler.node import Array
    from nervecord.compiler.program import Program
    from nervecord.compiler.target import Target, TargetSpec
    from nervecord.runtime.compare import Comparison, Mode
    from nervecord.runtime.loop import Progress
    from nervecord.runtime.result import Result
    from nervecord.runtime.session import Session
    from nervecord.training.config import TrainConfig
    from nervecord.training.run import ProgressCallback, TrainResult

    StrPath = str | os.PathLike[str]
    Policy = Graph | Program | StrPath

__all__ = [
    "Comparison",
    "Contract",
    "Finding",
    "Graph",
    "NervecordError",
    "Program",
    "Report",
    "Result",
    "Session",
    "Trace",
    "TrainConfig",
    "compare",
    "compile",
    "inspect",
    "list_targets",
    "load",
    "open",
    "read",
    "run",
    "simulate",
    "target",
    "train",
]

_TYPES = {
    "Comparison": "runtime.compare",
    "Contract": "compiler.contract",
    "Finding": "compiler.findings",
    "Graph": "compiler.graph",
    "Program": "compiler.program",
    "Report": "compiler.inspection",
    "Result": "runtime.result",
    "Session": "runtime.session",
    "Trace": "compiler.interpret",
    "TrainConfig": "training.config",
}
"""Types that are part of the interface -> the module that defines them, imported on first use."""

_COMPILING = {
    "reference": ("targets.reference.target", "ReferenceTarget"),
    "lava": ("targets.lava.target", "LavaTarget"),
}
"""Targets that compile and run -> where they are defined. The others are data: `inspect` takes them."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("nervecord")
    if name in _TYPES:
        return getattr(importlib.import_module(f"nervecord.{_TYPES[name]}"), name)
    raise AttributeError(f"module 'nervecord' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_TYPES, "__version__"])


def train(config: TrainConfig, *, progress: ProgressCallback | None = None) -> TrainResult:
    """Train a policy with PPO and write it to a new run folder. Needs the extra `train`.

    Args:
        config: everything that decides the run; `TrainConfig()` is Ant-v4 with 256 neurons for a million steps.
        progress: called after each update with step, total, rate, eta and mean return.

    Returns:
        The run folder, the policy's path, and its return on seeds that chose nothing.

    Raises:
        NervecordError: the run folder exists, or the configuration cannot run here.
        MissingDependencyError: the extra `train` is not installed.

    Example:
        >>> result = nervecord.train(nervecord.TrainConfig(steps=1_000_000, seed=1))  # doctest: +SKIP
        >>> result.policy  # doctest: +SKIP
        PosixPath('runs/Ant-v4-snn-256-seed1/policy.nir')
    """
    from nervecord.training.config import TrainConfig

    if not isinstance(config, TrainConfig):
        raise TypeError(f"config is of type {type(config).__name__}, a nervecord.TrainConfig is needed")
    result: TrainResult = _training().train(config, progress=progress)
    return result


def read(path: StrPath, *, dt: float | None = None, convention: str = "euler") -> Graph:
    """The graph of a NIR file, ready to execute where its time step is known.

    Args:
        path: a NIR file, of Nervecord or of any other tool.
        dt: seconds per step; NIR does not say it. Without it a file of another tool stays in continuous time, which is
            enough for `inspect`.
        convention: how continuous time becomes steps: "euler" (as snnTorch and Norse do) or "exact".

    Raises:
        FileFormatError: the file is missing, damaged, no NIR, or newer than this version.
        GraphError: what it describes is no legal graph; every violation is listed.

    Example:
        >>> nervecord.read("lif.nir", dt=1e-4).level  # doctest: +SKIP
        <Level.DISCRETE: 'discrete'>
    """
    from nervecord.compiler.nirfile import read_nir
    from nervecord.compiler.passes.discretise import discretise

    graph = read_nir(path, dt=dt, convention=convention)
    return graph if dt is None else discretise(graph, dt=dt, convention=convention)


def compile(
    policy: Graph | StrPath,
    target: str | Target = "lava",
    *,
    dt: float | None = None,
    calibration: Array | StrPath | None = None,
    weight_bits: int | None = None,
    netx: bool | None = None,
    dump: StrPath | None = None,
    explain: Callable[[str], None] | None = None,
) -> Program:
    """Compile a policy for a target.

    Args:
        policy: a graph with a contract, or the file of one.
        target: a name of `list_targets()` that compiles, or a `Target`.
        dt: seconds per step, where the file does not say.
        calibration: (k, observations) that choose the scales, or an .npz or .npy of them; by default those that the
            policy carries.
        weight_bits: of the weights, where the target has a choice (lava: 2..8, by default 8).
        netx: lava: use no more of the arithmetic than lava-dl's netx format can say; `targets.lava.netx` writes it.
        dump: folder for the graph as text after each step. explain: called with a line for each change.

    Raises:
        InfeasibleError: the target cannot hold or express it; every reason is listed.
        ContractError: it is no policy, or nothing calibrates it.

    Example:
        >>> program = nervecord.compile("policy.nir", target="lava")  # doctest: +SKIP
        >>> program.save("ant.nervecord")  # doctest: +SKIP
    """
    from nervecord.compiler.compile import compile_policy

    chosen = _target(target, weight_bits=weight_bits, netx=netx) if isinstance(target, str) else target
    graph = _with_contract(_graph(policy), policy)
    rows = _observations(calibration, graph)
    return compile_policy(graph, chosen, dt=dt, calibration=rows, dump=dump, explain=explain)


def load(path: StrPath) -> Program:
    """Read a program that `compile` wrote (`Program.save`).

    Raises:
        FileFormatError: it is missing, damaged, no program, newer than this version, or for a target it does not have.
    """
    from nervecord.compiler.program import load as load_program

    program = load_program(path)
    if program.target not in _COMPILING:
        raise FileFormatError(
            f"is for target {program.target!r}, and nothing here runs that",
            where=str(path),
            hint=f"programs are for: {', '.join(_COMPILING)}; upgrade nervecord if a newer version compiled it",
        )
    return program


def open(policy: Policy, *, engine: str | None = None, trace: bool = True) -> Session:
    """A session: observation in, action out, state kept. Use it as a context manager.

    Args:
        policy: a program, on its target's engine; a policy graph, in float64; or the file of either.
        engine: by default the target's first.
        trace: `Session.trace` will be asked for; without it an engine in another process is faster.

    Raises:
        NervecordError: the target has no engine of that name; the choices are listed.
        ContractError: it carries no contract, so it cannot act.

    Example:
        >>> with nervecord.open("ant.nervecord") as session:  # doctest: +SKIP
        ...     action = session.step(np.zeros(27))
    """
    program = _acting(policy)
    session: Any = _target(program.target).open(program, engine=engine, trace=trace)
    return session


def simulate(graph: Graph, inputs: Array | Mapping[str, Array]) -> Trace:
    """Run any executable graph on recorded input and return everything it did.

    Args:
        graph: with a fixed time step (`read(path, dt=...)`), or the graph of a program.
        inputs: (steps, n) or (steps, batch, n), or input name -> such; for a policy observations, one per action.

    Raises:
        GraphError: the graph is not executable, or the input's shape does not match.
    """
    from nervecord.compiler.interpret import simulate as simulate_graph

    return simulate_graph(graph, inputs)


def inspect(policy: Policy, targets: Sequence[str] | str | None = None) -> Report:
    """Whether targets can hold and express a graph, what it would use of them, and what to change.

    Args:
        policy: any graph or program, or the file of one.
        targets: names, or one name; by default all of `list_targets()`.

    Raises:
        NervecordError: one of the names is unknown.
    """
    from nervecord.compiler.inspection import inspect as inspect_graph
    from nervecord.compiler.inspection import with_measured
    from nervecord.compiler.program import Program
    from nervecord.targets.catalogue import load_specs

    names = (targets,) if isinstance(targets, str) else targets
    subject = _subject(policy)
    graph = subject.graph if isinstance(subject, Program) else subject
    report = inspect_graph(graph, load_specs(None if names is None else tuple(names)))
    return with_measured(report, subject) if isinstance(subject, Program) else report


def run(
    session: Session,
    env: str | None = None,
    episodes: int = 10,
    seed: int = 0,
    *,
    environments: int = 1,
    record: bool = False,
    allow_other_env: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Run a policy in the control loop for whole episodes. Needs the extra `mujoco`.

    Args:
        session: from `open`.
        env: Gymnasium id; by default the environment the policy was trained in.
        episodes, seed: the same seed gives the same episodes for every policy and any number of environments.
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
        env or session.contract.environment,
        episodes,
        seed,
        environments=environments,
        record=record,
        allow_other=allow_other_env,
        progress=progress,
    )


def compare(a: Session, b: Session, observations: Array, *, mode: Mode = "free") -> Comparison:
    """Drive two sessions over the same observations and say where they part.

    Args:
        a, b: sessions over policies with the same layer names.
        observations: (k, observations).
        mode: "free": each on its own; "layers": each layer of b is fed what the layer before it gave in a.
    """
    from nervecord.runtime.compare import compare as compare_sessions

    return compare_sessions(a, b, observations, mode=mode)


def list_targets() -> tuple[TargetSpec, ...]:
    """The specs of all targets: every limit with its source and how far it is to be trusted."""
    from nervecord.targets.catalogue import load_specs

    return load_specs()


def target(name: str, *, weight_bits: int | None = None, netx: bool | None = None) -> Target:
    """A target that compiles and runs, by name.

    Raises:
        NervecordError: there is no such target, or it can only be inspected.
    """
    return _target(name, weight_bits=weight_bits, netx=netx)


def _training() -> Any:
    """The module that trains; a core installation lacks what it imports."""
    try:
        return importlib.import_module("nervecord.training.run")
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] == "nervecord":
            raise
        raise MissingDependencyError(
            f"{error.name} is not installed", where="train", hint=install_command("train")
        ) from None


def _target(name: str, **options: Any) -> Target:
    from nervecord.targets.catalogue import load_spec

    if name not in _COMPILING:
        load_spec(name)  # refuses a name that is no target at all, and lists those there are
        raise NervecordError(
            f"target {name!r} is inspected only, nothing compiles for it",
            hint=f"these compile: {', '.join(_COMPILING)}; nervecord inspect takes it",
        )
    module, kind = _COMPILING[name]
    make = getattr(importlib.import_module(f"nervecord.{module}"), kind)
    chosen = {option: value for option, value in options.items() if value is not None}
    for option in chosen:
        if option not in make.__dataclass_fields__:
            raise NervecordError(f"target {name!r} has no such option", where=option)
    made: Target = make(**chosen)
    return made


def _subject(policy: Policy) -> Graph | Program:
    """What a file holds; graphs and programs pass."""
    from nervecord.compiler.graph import Graph
    from nervecord.compiler.program import Program

    if isinstance(policy, (Graph, Program)):
        return policy
    return load(policy) if _is_program(Path(policy)) else read(policy)


def _is_program(path: Path) -> bool:
    """By content; a file that is neither is judged by its name, so that the reader of that kind says what is wrong."""
    from nervecord.compiler.program import SUFFIX

    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError:
        start = b""
    if start.startswith(b"PK"):
        return True
    return path.suffix == SUFFIX and not start.startswith(b"\x89HDF")


def _graph(policy: Graph | StrPath) -> Graph:
    from nervecord.compiler.program import Program

    subject = _subject(policy)
    if isinstance(subject, Program):
        raise NervecordError("is a program, compiled already", where=str(policy), hint="a policy.nir is needed")
    return subject


def _acting(policy: Policy) -> Program:
    """What a session runs: a program, or a policy graph as a program of `reference`."""
    from nervecord.compiler.passes.discretise import discretise
    from nervecord.compiler.program import Program

    subject = _subject(policy)
    if isinstance(subject, Program):
        return subject
    return Program("reference", discretise(_with_contract(subject, policy)))


def _with_contract(graph: Graph, policy: Policy) -> Graph:
    if graph.contract is None:
        from nervecord.compiler.graph import Graph as GraphType

        raise ContractError(
            "carries no contract, so it is no policy",
            where="graph" if isinstance(policy, GraphType) else str(policy),
            hint="`nervecord train` writes policies; inspect and simulate take any graph",
        )
    return graph


def _observations(given: Array | StrPath | None, policy: Graph) -> Array | None:
    """Rows for a policy; those of a file are checked here, where its name is known."""
    if given is None or hasattr(given, "shape"):
        return given  # type: ignore[return-value]
    from numpy import isfinite

    from nervecord.runtime.arrayfile import read_rows

    rows, where = read_rows(given), str(given)  # type: ignore[arg-type]
    size = None if policy.contract is None else policy.contract.observation.size
    if size is not None and (rows.ndim != 2 or rows.shape[1] != size or len(rows) == 0):
        raise FileFormatError(f"its observations have shape {rows.shape}, (k, {size}) is needed", where=where)
    if not isfinite(rows).all():
        raise FileFormatError("its observations hold NaN or infinite values", where=where)
    return rows
