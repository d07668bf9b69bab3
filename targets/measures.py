"""What a program becomes elsewhere, and what is measured of a policy through engines: NeuroBench's metrics, the
certificate."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nervecord.compiler.files.atomic import made_folder
from nervecord.compiler.ops import Array
from nervecord.compiler.target.protocol import Emitted, Target
from nervecord.runtime.measure.certify import Certificate, Seen
from nervecord.runtime.measure.certify import certify as measure
from nervecord.runtime.measure.neurobench import NeuroBench
from nervecord.runtime.measure.neurobench import neurobench as count
from nervecord.runtime.measure.robustness import Perturbation, Perturbed
from nervecord.runtime.measure.robustness import robustness as measure_robustness
from nervecord.runtime.session import Session
from nervecord.targets.catalogue import find_target, runner
from nervecord.targets.recordings import observations_for
from nervecord.targets.source import acting_program, load_source

if TYPE_CHECKING:
    from nervecord.compiler.files.program import Program
    from nervecord.targets.source import Source, StrPath


def neurobench(source: Source, observations: Array | StrPath | None = None) -> NeuroBench:
    """NeuroBench's metrics of a policy or a program over an episode: footprint, sparsities, synaptic operations.

    Args:
        source: a policy, a program, or the file of one.
        observations: of the episode, (actions, observations), or an .npz or .npy of them; by default those that the
            policy carries, which are no episode but drawn from many.

    Raises:
        ContractError: it is no policy, or there are no observations.
    """
    return count(acting_program(source).policy, observations_for(observations, (load_source(source),)))


def certify(
    program: Program | StrPath,
    policy: Source,
    env: Any = None,
    tolerance: float = 0.01,
    *,
    wrappers: Sequence[str] | None = None,
    observations: Array | StrPath | None = None,
    most: int = 1000,
    seed: int = 0,
    environments: int = 10,
    progress: Seen | None = None,
) -> Certificate:
    """What compiling cost: both play the same episodes until the loss is known to `tolerance`. Needs `mujoco`.

    Args:
        program: from `compile`. policy: what it was compiled from.
        env, wrappers: as of `run`.
        tolerance: of the loss of return, in parts of the float policy's.
        observations: recorded ones, on which the actions are compared; by default those that the policy carries.
        most: pairs of episodes, at most. seed: of the episodes. environments: side by side.
        progress: called with the pairs played, those at most, and the interval's half width.

    Raises:
        NervecordError: a value is out of range, or policy and environment do not match.
        EngineError: an engine died.
    """
    rows = observations_for(observations, (load_source(policy),))
    with _opened(policy) as floating, _opened(program) as compiled:
        return measure(
            floating,
            compiled,
            rows,
            env,
            tolerance,
            wrappers=wrappers,
            most=most,
            seed=seed,
            environments=environments,
            progress=progress,
        )


def robustness(
    program: Program | StrPath,
    policy: Source,
    env: str | None = None,
    perturbations: Sequence[Perturbation] | None = None,
    *,
    observations: Array | StrPath | None = None,
    wrappers: Sequence[str] | None = None,
    episodes: int = 50,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[Perturbed, ...]:
    """Returns of the float policy and the compiled one under perturbations; see `runtime.measure.robustness`."""
    rows = observations_for(observations, (load_source(policy),))
    with _opened(policy) as floating, _opened(program) as compiled:
        return measure_robustness(
            floating,
            compiled,
            rows,
            env,
            perturbations,
            wrappers=wrappers,
            episodes=episodes,
            seed=seed,
            progress=progress,
        )


def emit(
    program: Program | StrPath, folder: StrPath, *, target: str | Target[Session] | None = None
) -> tuple[Emitted, ...]:
    """Write a program in the forms that other tools take, those that its target makes.

    Args:
        program: from `compile`, or the file of one.
        folder: made if it does not exist; files of these names in it are replaced.
        target: of another target's forms: "onnx" writes any program as it is, integers in their own arithmetic.

    Returns:
        Each file with how to use it.

    Raises:
        NervecordError: the target makes no such files, or they cannot say what the program says.
    """
    acting = acting_program(program)
    chosen: Any = find_target(target) if isinstance(target, str) else target
    files: tuple[Emitted, ...] = (chosen or runner(acting)).emit(acting, made_folder(folder))
    return files


@contextlib.contextmanager
def _opened(source: Source) -> Iterator[Session]:
    program = acting_program(source)
    with runner(program).open(program, engine=None, trace=False) as session:
        yield session
