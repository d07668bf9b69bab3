"""The contract: everything a policy needs beside its network to act in the world as it did in training.

It travels with the graph (in the NIR file's metadata, in the program) and is checked wherever policy and environment
meet. The host nodes of the graph (`Normalise`, `Decode`) are the truth about values; the contract names what they mean.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from nervecord.errors import ContractError

State: TypeAlias = Literal["reset", "carried"]


@dataclass(frozen=True, slots=True)
class Channels:
    """A vector that crosses the boundary: names and units in order, limits where they are known (else None)."""

    names: tuple[str, ...]
    units: tuple[str, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for label, values in (("units", self.units), ("low", self.low), ("high", self.high)):
            if values is not None and len(values) != len(self.names):
                raise ContractError(f"{len(values)} {label} for {len(self.names)} names", where="contract")
        for label in ("low", "high"):
            limits = getattr(self, label)
            if limits is not None:
                object.__setattr__(self, label, tuple(float(x) for x in limits))

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
        choices: names of the actions to choose from, in the environment's order; empty where an action is values.
        steps: core time steps T the encoded observation is held, or sent as spikes, per action.
        state: "reset": the core's state is cleared before each action; "carried": only at the start of an episode.
        control_period: seconds between two actions (0.05 for Ant-v4), the deadline of a step.
        fail_safe: the action taken when no trustworthy one can be computed; for a choice the number of one.
        seed: of the training run.
        provenance: tool versions, commit, configuration hash; strings.
    """

    environment: str
    observation: Channels
    action: Channels
    steps: int
    state: State
    control_period: float
    fail_safe: tuple[float, ...]
    seed: int | None = None
    provenance: Mapping[str, str] = field(default_factory=dict)
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "fail_safe", tuple(float(x) for x in self.fail_safe))
        object.__setattr__(self, "control_period", float(self.control_period))
        if self.steps < 1:
            raise ContractError(f"steps per action is {self.steps}, at least 1 is needed", where="contract")
        if self.state not in ("reset", "carried"):
            raise ContractError(f"state is {self.state!r}, neither 'reset' nor 'carried'", where="contract")
        if not self.control_period > 0:
            raise ContractError(f"control period is {self.control_period} s, it must be positive", where="contract")
        if len(self.fail_safe) != self.action.size:
            raise ContractError(
                f"fail-safe action has {len(self.fail_safe)} values, the action {self.action.size}", where="contract"
            )
        if self.choices:
            self._check_choices()

    def _check_choices(self) -> None:
        last = len(self.choices) - 1
        if len(set(self.choices)) <= last:
            raise ContractError("two of the actions to choose from have the same name", where="contract")
        if self.action.size != 1:
            raise ContractError(
                f"the action is a choice, one number, and has {self.action.size} channels", where="contract"
            )
        if (self.action.low, self.action.high) != ((0.0,), (float(last),)):
            raise ContractError(
                f"the action is a choice of {last + 1}, and its limits are {self.action.low}..{self.action.high}",
                where="contract",
            )
        if self.fail_safe[0] not in range(last + 1):
            raise ContractError(f"fail-safe action {self.fail_safe[0]:g} is none of 0..{last}", where="contract")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        data = dataclasses.asdict(self)
        data["provenance"] = dict(self.provenance)
        if not self.choices:
            # As it was before there were choices: the same policy gives the same bytes.
            del data["choices"]
        return data

    def to_json(self) -> str:
        """Canonical text: sorted keys, no spaces, so the same contract gives the same bytes."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Contract:
        """From `to_dict`.

        Raises:
            ContractError: a field is missing, unknown, or of the wrong type.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(data) - known)
        if unknown:
            raise ContractError(f"unknown field {unknown[0]!r}", where="contract")
        try:
            values = dict(data)
            values["observation"] = _channels(data["observation"])
            values["action"] = _channels(data["action"])
            values["steps"] = _integer(data["steps"])
            values["control_period"] = float(data["control_period"])
            values["fail_safe"] = tuple(float(x) for x in data["fail_safe"])
            if "choices" in data:
                values["choices"] = _names(data["choices"])
            values["provenance"] = {str(k): str(v) for k, v in dict(data.get("provenance", {})).items()}
            return cls(**values)
        except KeyError as error:
            raise ContractError(f"field {error.args[0]!r} is missing", where="contract") from None
        except (TypeError, ValueError, AttributeError) as error:
            if isinstance(error, ContractError):
                raise
            raise ContractError(f"malformed: {error}", where="contract") from None


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{value!r} is not a whole number")
    return value


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(name, str) for name in value):
        raise TypeError("the actions to choose from are no list of names")
    return tuple(value)


def _channels(data: Mapping[str, Any]) -> Channels:
    def floats(values: Any) -> tuple[float, ...] | None:
        return None if values is None else tuple(float(x) for x in values)

    return Channels(
        names=tuple(str(x) for x in data["names"]),
        units=tuple(str(x) for x in data["units"]),
        low=floats(data.get("low")),
        high=floats(data.get("high")),
    )
