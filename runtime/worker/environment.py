"""Gymnasium environments: made, checked against a contract, seeded. The door to gymnasium and MuJoCo for the loop."""

from __future__ import annotations

import functools
import importlib
import math
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.ops import Array
from nervecord.errors import ContractError, MissingDependencyError, NervecordError, install_command, unknown_name
from nervecord.runtime.worker.simulator_messages import mujoco_log, opengl_refused, without_deprecations


def make_environment(name: str, wrappers: Sequence[str] = (), **options: Any) -> Any:
    """A Gymnasium environment.

    Args:
        name: its id, also module:Id, which imports the module.
        wrappers: around it, the innermost first; see `wrapper`.
        options: of `gymnasium.make`.

    Raises:
        MissingDependencyError: gymnasium or the simulator is not installed.
        NervecordError: no environment has that name.
    """
    gymnasium = _gymnasium(name)
    import_task(name)
    with mujoco_log(), opengl_refused(name), without_deprecations(name):
        try:
            environment = gymnasium.make(name, **options)
            for text in wrappers:
                environment = _wrapped(environment, text, name)
            return environment
        except gymnasium.error.DependencyNotInstalled as error:
            raise simulator_missing(name, error) from None
        except ModuleNotFoundError as error:
            if ":" in name:  # "module:id"
                raise NervecordError(f"no such environment ({error})", where=name) from None
            raise MissingDependencyError(
                f"{error.name} is not installed", where=name, hint=install_command("mujoco")
            ) from None
        except gymnasium.error.Error as error:
            # Gymnasium's own guess is left out: the hint knows a module's tasks too.
            reason = str(error).partition(" Did you mean")[0].rstrip(".")
            raise NervecordError(f"no such environment ({reason})", where=name, hint=unknown_task(name).hint) from None


def _wrapped(environment: Any, text: str, name: str) -> Any:
    """An environment within a wrapper. Gymnasium's refuse one in any way; an error in a user's own is the user's to
    see, unless calling it was wrong already."""
    make = wrapper(text)
    try:
        return make(environment)
    except (_gymnasium(name).error.Error, ImportError):
        raise
    except Exception as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if _names_module(text) and frame.f_code.co_filename != __file__:
            raise
        raise NervecordError(
            f"this wrapper cannot be put around {name} ({type(error).__name__}: {error})",
            where=f"--wrappers {text}",
            hint="numbers that it needs stand behind a colon, as in ResizeObservation:16,16; for any others write a "
            "class that takes the environment alone, MODULE:CLASS",
        ) from error


def wrapper(text: str) -> Callable[[Any], Any]:
    """A wrapper by its name, with what stands behind a second colon as its arguments: integers or floats.

    FlattenObservation, TimeAwareObservation, ResizeObservation:16,16 (several make one tuple), my_module:MyWrapper.

    Raises:
        NervecordError: there is no such wrapper or module, or the arguments are no numbers.
    """
    name, _, rest = text.partition(":")
    if _names_module(text):
        kind, _, rest = rest.partition(":")
        import_task(text)
        module = importlib.import_module(name)
        wrapper_type = getattr(module, kind, None)
        if wrapper_type is None:
            base = _gymnasium(name).Wrapper
            own = [each for each, it in vars(module).items() if isinstance(it, type) and issubclass(it, base)]
            raise unknown_name(f"wrapper of module {name}", kind, own, where=f"--wrappers {text}")
    else:
        wrappers = _gymnasium(name).wrappers
        wrapper_names = [each for each in dir(wrappers) if each[0].isupper()]
        if name not in wrapper_names:
            raise unknown_name("wrapper", name, wrapper_names, where="--wrappers")
        wrapper_type = getattr(wrappers, name)
    if not rest:
        return wrapper_type  # type: ignore[no-any-return]
    try:
        numbers = [float(part) if "." in part or "e" in part else int(part) for part in rest.split(",")]
    except ValueError:
        raise NervecordError(f"{rest!r} is no list of numbers", where=f"--wrappers {text}") from None
    value: Any = numbers[0] if len(numbers) == 1 else tuple(numbers)
    return functools.partial(_with_argument, wrapper_type, value)


def _names_module(text: str) -> bool:
    """Whether a wrapper's name is MODULE:CLASS; behind the colon of Gymnasium's own stand numbers."""
    rest = text.partition(":")[2]
    return bool(rest) and not rest[0].isdigit() and rest[0] != "-"


def _with_argument(kind: Any, value: Any, env: Any) -> Any:
    return kind(env, value)


def unknown_task(name: str, *, where: str | None = None) -> NervecordError:
    """The error for a task that Gymnasium does not know: it points at the nearest. Of "module:Id" the tasks that the
    module registers are the choices."""
    registry = _gymnasium(name).registry
    module, colon, _ = name.partition(":")
    own = [f"{module}:{task}" for task, spec in registry.items() if colon and _module_of(spec) == module]
    return unknown_name("Gymnasium task", name, own or registry, where=where)


def _module_of(spec: Any) -> str:
    """The module of the class or function that makes a task."""
    entry = spec.entry_point
    return entry.partition(":")[0] if isinstance(entry, str) else str(getattr(entry, "__module__", ""))


def simulator_missing(name: str, error: Exception) -> MissingDependencyError:
    """The error of a task whose simulator is not installed: Gymnasium says which, and how it is installed."""
    hint = install_command("mujoco") if "mujoco" in str(error).lower() else None
    message = f"its simulator, or something that it needs, is not installed ({error})"
    return MissingDependencyError(message, where=name, hint=hint)


def make_environments(source: Any, count: int, wrappers: Sequence[str] = ()) -> list[Any]:
    """Environments to play in.

    Args:
        source: a Gymnasium id, also module:Id; a function without arguments that makes an environment, such as its
            class; or an environment, for a single one.
        count: how many are wanted.
        wrappers: around each that is named by its id.

    Raises:
        NervecordError: there is no such environment or wrapper, or one is to be several.
    """
    if isinstance(source, str):
        return [make_environment(source, wrappers) for _ in range(count)]
    if wrappers:
        raise NervecordError(
            "are around an environment that is named by its id", where="wrappers", hint="make it with its wrappers"
        )
    if hasattr(source, "step") and not isinstance(source, type):
        if count > 1:
            raise NervecordError(
                f"is one environment, and {count} run side by side", where="env", hint="give a function that makes one"
            )
        return [source]
    if not callable(source):
        raise NervecordError(
            f"is a {type(source).__name__}, an id, an environment or a function is needed", where="env"
        )
    environments = [source() for _ in range(count)]
    for environment in environments:
        if not hasattr(environment, "step"):
            raise NervecordError(
                f"is a function that gives a {type(environment).__name__}, which is no environment",
                where="env",
                hint="give one that makes an environment of Gymnasium, or an id",
            )
    return environments


def environment_title(source: Any) -> str:
    """What to call an environment that was given as `make_environments` takes it."""
    if isinstance(source, str):
        return source
    spec = getattr(source, "spec", None)
    return str(getattr(spec, "id", None) or getattr(source, "__name__", None) or type(source).__name__)


def import_task(name: str) -> None:
    """Import the module of a task named "module:Id", which registers it; any other name passes.

    The user names the module, so it may be imported, also from the working directory as with `python -m`; programs
    name tasks without modules.

    Raises:
        NervecordError: the module is not found.
    """
    module, colon, _ = name.partition(":")
    if not colon:
        return
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise NervecordError(
            f"no module {error.name!r} is found", where=name, hint="it is looked up as in python -m, here and installed"
        ) from None


def _gymnasium(name: str) -> Any:
    try:
        import gymnasium
    except ImportError:
        raise MissingDependencyError("gymnasium is not installed", where=name, hint=install_command("mujoco")) from None
    return gymnasium


def registered_environment(contract: Contract) -> str:
    """The environment a policy names, which must be registered already.

    Gymnasium imports the module of a name "module:id". A name from a file must not decide what is imported, so that
    one is for the user to say.

    Raises:
        MissingDependencyError: gymnasium is not installed.
        NervecordError: it is not registered.
    """
    name = contract.environment
    if name in _gymnasium(name).registry and ":" not in name:
        return name
    if ":" in name:
        around = f" --wrappers {shlex.join(contract.wrappers)}" if contract.wrappers else ""
        hint = f"if you trust that module, name it yourself: --env {name}{around}"
    else:
        hint = "name one that is: --env ID, or --env MODULE:ID for a module that registers it"
    raise NervecordError(
        "no such environment is registered, and what a file names is never imported", where=name, hint=hint
    )


def check_name(contract: Contract, name: str) -> None:
    """Refuse an environment by its name before it is made, which takes seconds; a name that does not exist passes.

    Raises:
        ContractError: it is not the policy's.
        MissingDependencyError: gymnasium is not installed.
    """
    if name in _gymnasium(name).registry:
        _same_name(contract, name)


def _same_name(contract: Contract, name: str) -> None:
    if name == contract.environment:
        return
    alike = "--allow-other-env if the two are really alike"
    if contract.environment in _gymnasium(name).registry:
        hint = f"run it there: --env {contract.environment}; {alike}"
    elif ":" in contract.environment:  # of a module that nobody has named
        hint = f"run it there, if you trust that module: --env {contract.environment}; {alike}"
    else:  # of another simulator
        shape = f"nervecord train --topology-from RUN --env {name}"
        hint = f"which is no task of Gymnasium; its shape can be trained here: {shape}; {alike}"
    raise ContractError(
        f"the policy was trained in {contract.environment}, of which it takes {contract.observation.size} observations",
        where=name,
        hint=hint,
    )


def required_wrappers(
    contract: Contract, environment: Any, name: str, wrappers: Sequence[str] | None, *, allow_other: bool
) -> tuple[str, ...]:
    """The wrappers to put around an environment: those that the user names.

    Gymnasium's own are named by the user too, so that one rule holds for all: a policy's file decides nothing.

    Args:
        environment: as of `make_environments`. wrappers: as named by the user; None or empty: none.
        allow_other: they need not be those of the contract.

    Raises:
        ContractError: the policy was trained with others.
    """
    named = tuple(wrappers or ())
    trained = contract.wrappers
    # One that was made in Python has its wrappers already; a contract of an earlier version says nothing of them.
    if not isinstance(environment, str) or not trained or named == trained or allow_other:
        return named
    present = f"with {', '.join(named)}" if named else "without any"
    raise ContractError(
        f"the policy was trained with wrappers around it ({', '.join(trained)}), and runs {present}",
        where=name,
        hint=f"what a file names is never imported; name them: --wrappers {shlex.join(trained)}",
    )


def chosen_environment(
    contract: Contract, environment: Any, wrappers: Sequence[str] | None, *, allow_other: bool
) -> tuple[Any, str, tuple[str, ...]]:
    """Where a policy is to run: the environment, what to call it, and the wrappers around it. Makes nothing, so it is
    soon done.

    Args:
        environment: as of `make_environments`; None is the contract's. wrappers, allow_other: of `required_wrappers`.

    Raises:
        NervecordError: it is not registered.
        ContractError: it is not the policy's, or the wrappers are not.
    """
    if environment is None:
        environment = registered_environment(contract)
    name = environment_title(environment)
    if not allow_other and isinstance(environment, str):
        check_name(contract, name)
    return environment, name, required_wrappers(contract, environment, name, wrappers, allow_other=allow_other)


def check_environment(contract: Contract, environment: Any, name: str, *, allow_other: bool = False) -> None:
    """Refuse an environment that is not the policy's.

    Raises:
        ContractError: name, observation, action or control period differ; `allow_other` lets the name differ.
    """
    if not allow_other:
        _same_name(contract, name)
    observed = getattr(environment.observation_space, "shape", None)
    if observed != (contract.observation.size,):
        kind = environment.observation_space if observed is None else f"have shape {observed}"
        raise ContractError(
            f"observations {'are ' if observed is None else ''}{kind}, the policy takes {contract.observation.size} "
            "values",
            where=name,
            hint="if it was trained with wrappers, name them: --wrappers FlattenObservation",
        )
    _check_actions(contract, environment.action_space, name)
    period = stated_period(environment)
    if period is not None and not math.isclose(period, contract.control_period, rel_tol=1e-6):
        raise ContractError(
            f"acts every {period} s, the policy was trained for {contract.control_period} s", where=name
        )


def _check_actions(contract: Contract, actions: Any, name: str) -> None:
    count = choices_of(actions)
    if count or contract.choices:
        offered = f"takes one of {count} actions" if count else f"takes {actions}, no choice among actions"
        chosen = len(contract.choices)
        gives = f"chooses one of {chosen}" if chosen else f"gives {contract.action.size} values"
        if count != chosen:
            raise ContractError(f"{offered}, and the policy {gives}", where=name)
        if actions.start != 0:
            raise ContractError(f"numbers its actions from {actions.start}, the policy from 0", where=name)
        return
    if getattr(actions, "shape", None) != (contract.action.size,):
        raise ContractError(
            f"actions have shape {getattr(actions, 'shape', None)}, the policy gives {contract.action.size}", where=name
        )
    for label, limit, offered in (
        ("low", contract.action.low, actions.low),
        ("high", contract.action.high, actions.high),
    ):
        if limit is not None and not np.allclose(limit, offered):
            raise ContractError(
                f"action limits ({label}) are {offered.tolist()}, the policy's {list(limit)}", where=name
            )


def choices_of(space: Any) -> int:
    """Number of actions to choose from in a Gymnasium `Discrete` space; 0 for any other space."""
    return int(space.n) if type(space).__name__ == "Discrete" else 0


def given_action(action: Array, choices: tuple[str, ...]) -> Any:
    """An action of a session (channels,) as the environment takes it."""
    return int(action[0]) if choices else action.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Spaces:
    """What an environment says of itself.

    Args:
        observations: number of values. low, high: limits of the action's values; empty where it is a choice.
        choices: number of actions to choose from; 0 where the action is values.
        period: seconds between two actions; None where it does not say.
    """

    observations: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    choices: int
    period: float | None


def spaces_of(name: str, wrappers: Sequence[str] = ()) -> Spaces:
    """The spaces of an environment that a policy could act in.

    Args:
        name, wrappers: as of `make_environment`.

    Raises:
        NervecordError: no environment has that name.
        ContractError: observations or actions are not flat.
    """
    environment = make_environment(name, wrappers)
    try:
        observed = getattr(environment.observation_space, "shape", None)
        if observed is None or len(observed) != 1:
            kind = f"are {environment.observation_space}" if observed is None else f"have shape {observed}"
            raise ContractError(
                f"observations {kind}, and a policy takes one row of values",
                where=name,
                hint="--wrappers FlattenObservation makes one row of them",
            )
        actions, period = environment.action_space, stated_period(environment)
        if (count := getattr(actions, "n", None)) is not None:
            return Spaces(observed[0], (), (), int(count), period)
        low, high = getattr(actions, "low", None), getattr(actions, "high", None)
        if low is None or high is None or low.ndim != 1:
            raise ContractError(f"its actions are {actions}, one row of values or a choice is needed", where=name)
        return Spaces(observed[0], tuple(map(float, low)), tuple(map(float, high)), 0, period)
    finally:
        environment.close()


def stated_period(environment: Any) -> float | None:
    """Seconds between two actions as the task itself says it: `dt`, or `tau` in CartPole. None where it does not."""
    task = environment.unwrapped
    period = getattr(task, "dt", getattr(task, "tau", None))
    return None if period is None else float(period)


def episode_seeds(seed: int, episodes: int) -> list[int]:
    """Seeds of the episodes, the same for every engine and any number of environments."""
    if seed < 0:
        raise NervecordError(f"is {seed}, zero or more is needed", where="seed")
    return [int(x) for x in np.random.SeedSequence(seed).generate_state(episodes, dtype=np.uint32)]
