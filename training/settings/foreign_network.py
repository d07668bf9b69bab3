"""A network of another maker in a task: what the task says of itself becomes its contract. Needs no torch."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.passes.act import act
from nervecord.errors import ContractError, NervecordError
from nervecord.runtime.worker.environment import spaces_of
from nervecord.targets.source import read_graph
from nervecord.training.settings.tasks import channels, choice_names


def task_contract(env: str, wrappers: Sequence[str] = ()) -> Contract:
    """The contract of a policy that acts once per observation in a task.

    Args:
        env: Gymnasium id, or "module:id", which imports the module. wrappers: around it.

    Raises:
        NervecordError: no environment has that name.
        ContractError: it is none that a policy can act in, or does not say how often.
    """
    spaces = spaces_of(env, wrappers)
    if spaces.period is None:
        raise ContractError(
            "does not say how many seconds lie between two actions",
            where=env,
            hint="give its task an attribute dt, as Gymnasium's MuJoCo tasks have",
        )
    low, high = spaces.low or (0.0,), spaces.high or (0.0,)
    observation, action = channels(env, spaces.observations, low, high)
    choices = choice_names(env, spaces.choices) if spaces.choices else ()
    if choices:
        action = Channels(("action",), ("1",), (0.0,), (len(choices) - 1.0,))
    elif not all(map(math.isfinite, (*low, *high))):
        action = Channels(action.names, action.units)
    rest = (
        tuple(min(max(0.0, a), b) for a, b in zip(action.low or (), action.high or (), strict=True))
        or (0.0,) * action.size
    )
    return Contract(
        environment=env,
        observation=observation,
        action=action,
        steps=1,
        state="reset",
        control_period=spaces.period,
        fail_safe=rest,
        choices=choices,
        wrappers=tuple(wrappers),
    )


def network_policy(network: Graph | str | os.PathLike[str], env: str, *, wrappers: Sequence[str] = ()) -> Policy:
    """The policy that a network without time is in a task.

    Args:
        network: an ONNX file, or what `nervecord.read` gave of one.
        env, wrappers: see `task_contract`.

    Raises:
        NervecordError: it is no such network, or does not fit the task.
    """
    graph = network if isinstance(network, Graph) else read_graph(Path(network))
    if not isinstance(graph, Graph):
        raise NervecordError("is a policy already, and says where it acts", where=str(network))
    return act(graph, task_contract(env, wrappers), where="graph" if isinstance(network, Graph) else os.fspath(network))
