"""A commented contract.toml to start from, of an environment's plain numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is known of an environment.

    Args:
        environment: its id.
        observations: names of the observation's channels, or their number. units: of them; empty where unknown.
        actions: names of the action's channels, or their number. action_units: of them; empty where unknown.
        low, high: limits of the action; what is not finite counts as unknown.
        choices: names of the actions to choose from, or their number; an environment with choices has no other actions.
        period: seconds between two actions; None where it is unknown.
        wrappers: around it.
    """

    environment: str
    observations: Sequence[str] | int
    units: Sequence[str] = ()
    actions: Sequence[str] | int = 0
    action_units: Sequence[str] = ()
    low: Sequence[float] = field(default=())
    high: Sequence[float] = field(default=())
    choices: Sequence[str] | int = ()
    period: float | None = None
    wrappers: Sequence[str] = ()


def contract_template(environment: Surroundings) -> str:
    """The text of a contract.toml. What is unknown stands in it as a comment, for the reader to fill in."""
    names = _names(environment.observations, "observation_{}")
    period = (
        "control_period = # seconds: the environment does not say it"
        if environment.period is None
        else (f"control_period = {float(environment.period)!r}")
    )
    if environment.period is None:
        period = f"# {period}"
    return _HEAD.format(
        environment=_text(environment.environment),
        wrappers=_row(list(environment.wrappers) or ["FlattenObservation"]),
        wrapped="" if environment.wrappers else "# ",
        period=period,
        names=_row(names),
        units=_row(environment.units or ["1"] * len(names)),
        action=_action(environment),
        zeros=_row([0.0] * len(names)),
        ones=_row([1.0] * len(names)),
        decoder=_CHOICE if environment.choices else _VALUES,
    )


def _names(names: Sequence[str] | int, pattern: str) -> list[str]:
    return [pattern.format(k) for k in range(names)] if isinstance(names, int) else list(names)


def _action(environment: Surroundings) -> str:
    if environment.choices:
        choices = _names(environment.choices, "action {}")
        return (
            f"# The actions to choose from, in the environment's order, and the one that is taken when none can be "
            f"computed.\nchoices = {_row(choices)}\nfail_safe = {_text(choices[0])}"
        )
    names = _names(environment.actions, "action_{}")
    lines = [f"names = {_row(names)}", f"units = {_row(environment.action_units or ['1'] * len(names))}"]
    for side, limits in (("low", environment.low), ("high", environment.high)):
        if len(limits) == len(names) and all(math.isfinite(x) for x in limits):
            lines.append(f"{side} = {_row([float(x) for x in limits])}")
        else:
            lines.append(f"# {side} = # the environment states no limits: state those of your actuators")
    lines.append("# The action that is taken when none can be computed. Within the limits.")
    rest = (
        [min(max(0.0, float(low)), float(high)) for low, high in zip(environment.low, environment.high, strict=True)]
        if len(environment.low) == len(environment.high) == len(names)
        else [0.0] * len(names)
    )
    lines.append(f"fail_safe = {_row(rest)}")
    return "\n".join(lines)


def _text(value: str) -> str:
    # A basic string of TOML has the escapes of JSON.
    return json.dumps(value)


def _row(values: Sequence[str] | Sequence[float]) -> str:
    """A list of TOML, wrapped."""
    lines, line = [], " "
    for value in values:
        item = f" {_text(value) if isinstance(value, str) else repr(value)},"
        if len(line) + len(item) > 100:
            lines.append(line)
            line = " "
        line += item
    if not lines:
        return f"[{line.strip().rstrip(',')}]"
    return "\n".join(["[", *lines, line, "]"])


_HEAD = """\
# What makes a policy of a network: nervecord compile network.nir --contract contract.toml --dt 1e-4 --target lava
# Lines that begin with "# " and a name are choices that you may take up; delete what does not apply.

# Gymnasium's id of the task, or your own name of the robot.
environment = {environment}
# Wrappers around it in training, the innermost first: names of gymnasium.wrappers, or module:Class.
{wrapped}wrappers = {wrappers}
# Time steps of the network per action, T.
steps = 8
# "reset": the network's state is cleared before each action; "carried": only at the start of an episode.
state = "reset"
# Seconds between two actions: the deadline of a step.
{period}

# The observation's channels, in order. Limits are optional: low = [...], high = [...]
[observation]
names = {names}
units = {units}

# The action's channels, in order, in the environment's units.
[action]
{action}

# What was done to observations in training: clip((x - mean) / sqrt(variance + epsilon), -clip, clip).
# epsilon_outside = true is for sqrt(variance) + epsilon. Delete the table if observations enter as they are.
[normaliser]
mean = {zeros}
variance = {ones}
epsilon = 1e-8
clip = 10.0
# epsilon_outside = true

# How values enter the network.
# "current": the same values at each of the T steps. Without a normaliser, clip = 10.0 says their limit.
# "population": spikes of Gaussian receptive fields, neurons of them over low..high of each channel.
# "spikes": the observation is 0 or 1 in each channel, and enters as spikes.
[encoder]
kind = "current"
# kind = "population"
# neurons = 10
# low = -3.0
# high = 3.0
# sigma = 0.4

{decoder}
"""

_VALUES = """\
# How the network's outputs become the action. Numbers are one for all values of the action, or a list.
# "membrane": clip(v * scale + offset, low, high), v of the last of the T steps.
# "count": each action is clip(weight * spikes + offset, low, high), the spikes of `neurons` neurons in the T steps.
[decoder]
kind = "membrane"
scale = 1.0
offset = 0.0
# kind = "count"
# neurons = 1
# weight = 0.125"""

_CHOICE = """\
# The action is the one with the largest membrane, or with most spikes where the network's outputs spike.
[decoder]
kind = "choice\""""
