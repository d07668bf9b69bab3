"""The simulator of a configuration, by its name."""

from __future__ import annotations

import pkgutil

from nervecord.errors import NervecordError, unknown_name
from nervecord.training.simulators.base import Simulator
from nervecord.training.simulators.kinds import AUTO, KINDS


def make_simulator(
    env: str,
    seeds: list[int],
    *,
    kind: str = AUTO.name,
    wrappers: tuple[str, ...] = (),
    threads: int = 1,
    device: str = "cpu",
) -> Simulator:
    """A simulator with one environment for each seed.

    Args:
        env: the task: Gymnasium id, also module:Id, or what the simulator calls it.
        seeds: one for each environment.
        kind: name of a simulator (`KINDS`), or "auto" (`resolve_kind`).
        wrappers: names of Gymnasium wrappers.
        threads: threads that step the environments.
        device: torch device of the simulation.
        Those of the last three that a simulator does not take are not its concern, but for wrappers.

    Raises:
        MissingDependencyError: the simulator asked for is not installed.
        NervecordError: the task is unknown to it, its spaces cannot be trained, or the device cannot be used.
    """
    if kind == AUTO.name:
        kind = resolve_kind(env, wrappers)
    if kind not in KINDS:
        raise unknown_name("simulator", kind, (AUTO.name, *KINDS), where="--sim")
    declared = KINDS[kind]
    if wrappers and "wrappers" not in declared.takes:
        raise NervecordError(
            f"are around Gymnasium's environments, and --sim {kind} has none",
            where="--wrappers",
            hint="use --sim gymnasium",
        )
    if declared.tasks and env not in declared.tasks:
        raise NervecordError(
            f"{env} is no task of the simulator {kind}, which has {' and '.join(declared.tasks)} alone",
            where="--env",
            hint="use --sim auto",
        )
    if declared.check:
        pkgutil.resolve_name(declared.check)()
    options = {"wrappers": wrappers, "threads": threads, "device": device}
    simulator: Simulator = pkgutil.resolve_name(declared.simulator)(
        env, seeds, **{name: options[name] for name in declared.takes}
    )
    return simulator


def resolve_kind(env: str, wrappers: tuple[str, ...] = ()) -> str:
    """The simulator "auto" stands for: the first that says that it takes the task, and has wrappers where there are
    some."""
    able = [kind for kind in KINDS.values() if kind.auto and (not wrappers or "wrappers" in kind.takes)]
    return next(kind.name for kind in able if pkgutil.resolve_name(kind.auto)(env))
