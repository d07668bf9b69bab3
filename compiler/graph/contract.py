"""The contract: everything a policy needs beside its network to act in the world as it did in training.

It travels with the graph (in the NIR file's metadata, in the program) and is checked wherever policy and environment
meet. The host nodes of the graph (`Normalise`, `Decode`) are the truth about values; the contract names what they mean.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from nervecord.compiler import schema
from nervecord.compiler.graph.schedule import LONGEST_BLOCK, StateRule
from nervecord.errors import ContractError

MOST_CHANNELS = 1 << 20
"""Values of the largest observation or action."""
MOST_WRAPPERS = 64
LONGEST_PERIOD = 1e6
"""Seconds between two actions, at most."""


@dataclass(frozen=True, slots=True)
class Channels:
    """A vector that crosses the boundary: names and units in order, limits where they are known (else None).

    Args:
        where: what errors name.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    where: dataclasses.InitVar[str] = "contract"

    def __post_init__(self, where: str) -> None:
        for label, values in (("units", self.units), ("low", self.low), ("high", self.high)):
            if values is not None and len(values) != len(self.names):
                raise ContractError(f"{len(values)} {label} for {len(self.names)} names", where=where)
        for label in ("low", "high"):
            limits = getattr(self, label)
            if limits is not None:
                object.__setattr__(self, label, tuple(float(x) for x in limits))
                if not all(math.isfinite(x) for x in getattr(self, label)):
                    raise ContractError(
                        f"{label} has values that are not finite", where=where, hint="None stands for no limits"
                    )
        if self.low is not None and self.high is not None:
            for name, low, high in zip(self.names, self.low, self.high, strict=True):
                if low > high:
                    raise ContractError(f"the limits of {name} are {low:g}..{high:g}", where=where)

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.names)


@dataclass(frozen=True, slots=True)
class Contract:
    """How the graph is driven, from observation to action.

    Args:
        environment: id the policy was trained in, "Ant-v4".
        observation: the observation's channels, in order.
        action: the action's channels, with limits in the environment's units. Where the action is a choice it has one
            channel, the number of the action chosen, from 0 to the number of choices - 1.
        wrappers: around the environment in training, the innermost first, as text: Gymnasium's by name, or
            "module:Class". Nothing imports what they name.
        choices: names of the actions to choose from, in the environment's order; empty where an action is values.
        steps: core time steps T the encoded observation is held, or sent as spikes, per action.
        state: "reset": the core's state is cleared before each action; "carried": only at the start of an episode.
        control_period: seconds between two actions (0.05 for Ant-v4), the deadline of a step.
        fail_safe: the action taken when no trustworthy one can be computed; for a choice the number of one.
        seed: of the training run.
        provenance: tool versions, commit, configuration hash; strings.
        where: what errors name.
    """

    environment: str
    observation: Channels
    action: Channels
    steps: int
    state: StateRule
    control_period: float
    fail_safe: tuple[float, ...]
    seed: int | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    wrappers: tuple[str, ...] = ()
    where: dataclasses.InitVar[str] = "contract"

    def __post_init__(self, where: str) -> None:
        object.__setattr__(self, "fail_safe", tuple(float(x) for x in self.fail_safe))
        object.__setattr__(self, "control_period", float(self.control_period))
        if not 1 <= self.steps <= LONGEST_BLOCK:
            raise ContractError(f"steps per action is {self.steps}, 1 to {LONGEST_BLOCK} are possible", where=where)
        if self.state not in get_args(StateRule):
            raise ContractError(f"state is {self.state!r}, neither 'reset' nor 'carried'", where=where)
        if not 0 < self.control_period <= LONGEST_PERIOD:
            raise ContractError(
                f"control period is {self.control_period} s, it must be positive, and at most {LONGEST_PERIOD:g} s",
                where=where,
            )
        self._check_fail_safe(where)
        if self.choices:
            self._check_choices(where)

    def _check_fail_safe(self, where: str) -> None:
        """It is taken when all else has failed: one that cannot be taken is refused here."""
        size = self.action.size
        if len(self.fail_safe) != size:
            raise ContractError(f"fail-safe action has {len(self.fail_safe)} values, the action {size}", where=where)
        low = self.action.low or (-math.inf,) * size
        high = self.action.high or (math.inf,) * size
        for name, value, least, most in zip(self.action.names, self.fail_safe, low, high, strict=True):
            if not math.isfinite(value):
                raise ContractError(f"the fail-safe value of {name} is {value}, a finite one is needed", where=where)
            if not least <= value <= most:
                raise ContractError(
                    f"the fail-safe value of {name} is {value:g}, and its limits are {least:g}..{most:g}", where=where
                )

    def _check_choices(self, where: str) -> None:
        last = len(self.choices) - 1
        if len(set(self.choices)) <= last:
            raise ContractError("two of the actions to choose from have the same name", where=where)
        if self.action.size != 1:
            raise ContractError(f"the action is a choice, one number, and has {self.action.size} channels", where=where)
        if (self.action.low, self.action.high) != ((0.0,), (float(last),)):
            raise ContractError(
                f"the action is a choice of {last + 1}, and its limits are {self.action.low}..{self.action.high}",
                where=where,
            )
        if self.fail_safe[0] not in range(last + 1):
            raise ContractError(f"fail-safe action {self.fail_safe[0]:g} is none of 0..{last}", where=where)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        data = dataclasses.asdict(self)
        data["provenance"] = dict(self.provenance)
        for name in ("choices", "wrappers"):
            if not data[name]:
                # As it was before there were such: the same policy gives the same bytes.
                del data[name]
        return data

    def to_json(self) -> str:
        """Canonical text: sorted keys, no spaces, so the same contract gives the same bytes."""
        return schema.canonical(self.to_dict()).decode()

    @classmethod
    def from_dict(cls, data: Any, *, where: str = "contract") -> Contract:
        """From `to_dict`, of a file.

        Raises:
            ContractError: a field is missing, unknown, of the wrong type, or out of bounds.
        """
        record = schema.checked(data, _form(), where, ContractError)
        text = schema.unprintable(data)
        if text is not None:
            raise ContractError(f"the text {text!r} cannot be printed", where=where)
        values = {f.name: getattr(record, f.name) for f in dataclasses.fields(cls)}
        for name in ("observation", "action"):
            channels = values[name]
            values[name] = Channels(channels.names, channels.units, channels.low, channels.high, where=where)
        return cls(**values, where=where)


@functools.cache
def _form() -> Any:
    """The contract as a file holds it."""
    name = schema.text(4096)
    limits = schema.row(schema.real(), MOST_CHANNELS) | None
    channels = schema.record(
        "channels",
        [
            ("names", schema.row(name, MOST_CHANNELS)),
            ("units", schema.row(name, MOST_CHANNELS)),
            ("low", limits, None),
            ("high", limits, None),
        ],
    )
    return schema.record(
        "contract",
        [
            ("environment", name),
            ("observation", channels),
            ("action", channels),
            ("steps", schema.whole(1, LONGEST_BLOCK)),
            ("state", Literal[get_args(StateRule)]),
            ("control_period", schema.real(above=0)),
            ("fail_safe", schema.row(schema.real(), MOST_CHANNELS)),
            ("seed", schema.whole(-(1 << 63), (1 << 63) - 1) | None, None),
            ("provenance", dict[str, str], {}),
            ("choices", schema.row(name, MOST_CHANNELS), ()),
            ("wrappers", schema.row(name, MOST_WRAPPERS), ()),
        ],
    )
