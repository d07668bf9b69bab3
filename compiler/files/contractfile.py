"""contract.toml: what makes a policy of a network that somebody else has trained.

    environment, steps, state, control_period     how it is driven
    wrappers                                      around the environment; left out: none
    [observation], [action]                       channels: names, units, limits, the fail-safe action, choices
    [normaliser]                                  what was done to observations in training; left out: nothing
    [encoder]                                     how values enter the network: current, population or spikes
    [decoder]                                     how its outputs become an action: membrane, count or choice

`contract_template` writes a commented one to start from. Everything is said once: sizes follow from the names, choices
are read as counts where the network's outputs spike, else as membranes.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from nervecord.compiler import schema
from nervecord.compiler.files.regular import open_regular
from nervecord.compiler.graph.contract import LONGEST_PERIOD, MOST_CHANNELS, MOST_WRAPPERS, Channels, Contract
from nervecord.compiler.graph.schedule import LONGEST_BLOCK, StateRule
from nervecord.compiler.ops import Array, Decoder, Op
from nervecord.compiler.ops.host import (
    LARGEST_VALUE,
    ArgmaxDecode,
    CountArgmaxDecode,
    CountDecode,
    Decode,
    Normalise,
    PopulationEncode,
)
from nervecord.compiler.schema import kind_of
from nervecord.errors import ContractError, FileFormatError

MAXIMUM_BYTES = 4 << 20
"""A larger contract file is refused unread."""
MOST_NEURONS = 1 << 12
"""Neurons of a channel's population."""


@dataclass(frozen=True)
class ContractFile:
    """A contract, and the host ops it asks for around a network.

    Args:
        contract: as programs and sessions know it.
        where: the file's name, for messages.
    """

    contract: Contract
    where: str
    _said: Any

    # ------------------------------------------------------------------------------------------ before the core

    @property
    def input_fields(self) -> dict[str, Any]:
        """What an Input carries: fields of that op."""
        encoder = self._said.encoder
        if kind_of(encoder) == "spikes":
            return {"carries": "spikes"}
        return {"carries": "values", "limit": getattr(encoder, "clip", None)}

    @property
    def neurons_per_channel(self) -> int:
        """Values that a channel of the observation enters the core as."""
        encoder = self._said.encoder
        return encoder.neurons if kind_of(encoder) == "population" else 1

    def before(self, part: slice) -> list[tuple[str, Op]]:
        """Name and op of what runs before the core, for these channels of the observation."""
        steps: list[tuple[str, Op]] = []
        normaliser, encoder = self._said.normaliser, self._said.encoder
        if normaliser is not None:
            mean, variance = np.array(normaliser.mean)[part], np.array(normaliser.variance)[part]
            steps.append(
                (
                    "normalise",
                    Normalise(mean, variance, normaliser.epsilon, normaliser.clip, normaliser.epsilon_outside),
                )
            )
        if kind_of(encoder) == "population":
            means = np.linspace(encoder.low, encoder.high, encoder.neurons)
            steps.append(("encode", PopulationEncode(np.tile(means, (part.stop - part.start, 1)), encoder.sigma)))
        return steps

    # ------------------------------------------------------------------------------------------ after the core

    def actions_of(self, size: int, *, spikes: bool, name: str) -> int:
        """Number of the action's values that an Output of `size` values gives.

        Args:
            spikes: whether spikes enter it. name: of the Output.

        Raises:
            ContractError: what enters it is not what the decoder reads, or its size does not fit.
        """
        decoder = self._said.decoder
        if kind_of(decoder) == "membrane" and spikes:
            raise self.wrong(
                f"reads membranes, and spikes enter the Output {name}",
                "decoder",
                'kind = "count", or a last population that does not spike',
            )
        if kind_of(decoder) == "count" and not spikes:
            raise self.wrong(f"counts spikes, and values enter the Output {name}", "decoder", 'kind = "membrane"')
        if self.contract.choices:
            count = len(self.contract.choices)
            if size % count if spikes else size != count:
                raise self.wrong(f"names {count} choices, and the Output {name} has {size} values", "action")
            return 1
        neurons = decoder.neurons if kind_of(decoder) == "count" else 1
        if size % neurons:
            raise self.wrong(f"decodes each action from {neurons} neurons, and the Output {name} has {size}", "decoder")
        return size // neurons

    def after(self, part: slice, size: int, *, spikes: bool) -> Decoder:
        """What runs after the core, from `size` values to these values of the action."""
        decoder = self._said.decoder
        count = part.stop - part.start
        if self.contract.choices:
            width = len(self.contract.choices)
            if not spikes:
                return ArgmaxDecode(width)
            return CountArgmaxDecode(np.ones((width, size // width)), np.zeros(width))
        low, high = (np.array(side)[part] for side in (self.contract.action.low, self.contract.action.high))
        offset = self._per_action(decoder.offset, "offset")[part]
        if kind_of(decoder) == "membrane":
            return Decode(self._per_action(decoder.scale, "scale")[part], offset, low, high)
        weight = np.tile(self._per_action(decoder.weight, "weight")[part][:, None], (1, size // count))
        return CountDecode(weight, offset, low, high)

    def _per_action(self, value: Any, field: str) -> Array:
        size = self.contract.action.size
        if isinstance(value, tuple) and len(value) != size:
            raise self.wrong(f"{field} has {len(value)} values, the action {size}", "decoder")
        return np.broadcast_to(np.array(value, dtype=np.float64), (size,))

    def wrong(self, message: str, table: str, hint: str | None = None) -> ContractError:
        """The error to raise about a table of this file."""
        return ContractError(message, where=f"{self.where}: [{table}]", hint=hint)


def read_contract(path: str | os.PathLike[str]) -> ContractFile:
    """The contract in a TOML file.

    Raises:
        FileFormatError: it is missing, too large, or no TOML.
        ContractError: a key is missing, unknown, of the wrong type or out of bounds.
    """
    where = schema.printable(os.fspath(path))
    with open_regular(path, where, MAXIMUM_BYTES, "contract") as file:
        content = file.read()
    try:
        return contract_from_toml(content.decode(), where)
    except UnicodeDecodeError as error:
        raise FileFormatError(f"is no TOML: {error.reason} at byte {error.start}", where=where) from None


def contract_from_toml(content: str, where: str) -> ContractFile:
    """The contract in the text of such a file; see `read_contract`."""
    data = schema.from_toml(content, where)
    record = schema.checked(data, _form(), where, ContractError)
    text = schema.unprintable(data)
    if text is not None:
        raise ContractError(f"the text {text!r} cannot be printed", where=where)
    return _made(record, where)


def _made(record: Any, where: str) -> ContractFile:
    observed = record.observation
    observation = Channels(observed.names, observed.units, observed.low, observed.high, where=where)
    choices = record.action.choices
    if bool(choices) != (kind_of(record.decoder) == "choice"):
        raise ContractError(
            "choices name the actions that the decoder chooses among: both, or neither", where=f"{where}: [decoder]"
        )
    if choices:
        extra = [key for key in ("names", "units", "low", "high") if getattr(record.action, key) is not None]
        if extra:
            raise ContractError(f"choices need no {extra[0]}", where=f"{where}: [action]")
        if record.action.fail_safe not in choices:
            raise ContractError(
                f"fail_safe is {record.action.fail_safe!r}, none of the choices", where=f"{where}: [action]"
            )
        action = Channels(("action",), ("1",), (0.0,), (len(choices) - 1.0,), where=where)
        fail_safe: tuple[float, ...] = (float(choices.index(record.action.fail_safe)),)
    else:
        missing = [key for key in ("names", "units", "low", "high") if getattr(record.action, key) is None]
        if missing:
            raise ContractError(f"field {missing[0]!r} is missing", where=f"{where}: [action]")
        if not isinstance(record.action.fail_safe, tuple):
            raise ContractError("fail_safe is a word, numbers are needed", where=f"{where}: [action]")
        action = Channels(record.action.names, record.action.units, record.action.low, record.action.high, where=where)
        fail_safe = record.action.fail_safe
    contract = Contract(
        environment=record.environment,
        observation=observation,
        action=action,
        steps=record.steps,
        state=record.state,
        control_period=record.control_period,
        fail_safe=fail_safe,
        provenance=record.provenance,
        choices=choices,
        wrappers=record.wrappers,
        where=where,
    )
    if record.normaliser is not None:
        _check_normaliser(record, observation.size, where)
    if kind_of(record.encoder) == "population" and record.encoder.low >= record.encoder.high:
        raise ContractError("low is not below high", where=f"{where}: [encoder]")
    return ContractFile(contract, where, record)


def _check_normaliser(record: Any, size: int, where: str) -> None:
    at = f"{where}: [normaliser]"
    for field in ("mean", "variance"):
        if len(getattr(record.normaliser, field)) != size:
            raise ContractError(
                f"{field} has {len(getattr(record.normaliser, field))} values, the observation {size}", where=at
            )
    if kind_of(record.encoder) == "spikes":
        raise ContractError("what is normalised is no spike any more: leave the table out", where=at)
    if getattr(record.encoder, "clip", None) is not None:
        raise ContractError("clip stands in [normaliser] already", where=f"{where}: [encoder]")


@functools.cache
def _form() -> Any:
    """The file's tables."""
    name = schema.text(4096)
    names, numbers = schema.row(name, MOST_CHANNELS, least=1), schema.row(schema.real(), MOST_CHANNELS, least=1)
    number_or_row = schema.any_of((schema.real(), numbers))
    clip = schema.real(above=0, high=float(LARGEST_VALUE))
    observation = schema.record(
        "observation",
        [("names", names), ("units", names), ("low", numbers | None, None), ("high", numbers | None, None)],
    )
    action = schema.record(
        "action",
        [
            *((field, names | None, None) for field in ("names", "units")),
            *((field, numbers | None, None) for field in ("low", "high")),
            ("choices", schema.row(name, MOST_CHANNELS), ()),
            ("fail_safe", schema.any_of((name, numbers))),
        ],
    )
    normaliser = schema.record(
        "normaliser",
        [
            ("mean", numbers),
            ("variance", schema.row(schema.real(low=0), MOST_CHANNELS, least=1)),
            ("epsilon", schema.real(low=0)),
            ("clip", clip),
            ("epsilon_outside", bool, False),
        ],
    )
    encoders = (
        schema.record("current", [("clip", clip | None, None)], kind="current"),
        schema.record(
            "population",
            [
                ("neurons", schema.whole(2, MOST_NEURONS)),
                ("low", schema.real()),
                ("high", schema.real()),
                ("sigma", schema.real(above=0)),
            ],
            kind="population",
        ),
        schema.record("spikes", [], kind="spikes"),
    )
    decoders = (
        schema.record("membrane", [("scale", number_or_row, 1.0), ("offset", number_or_row, 0.0)], kind="membrane"),
        schema.record(
            "count",
            [("neurons", schema.whole(1, MOST_CHANNELS), 1), ("weight", number_or_row), ("offset", number_or_row, 0.0)],
            kind="count",
        ),
        schema.record("choice", [], kind="choice"),
    )
    return schema.record(
        "contract",
        [
            ("environment", name),
            ("steps", schema.whole(1, LONGEST_BLOCK)),
            ("state", schema.one_of(get_args(StateRule))),
            ("control_period", schema.real(above=0, high=LONGEST_PERIOD)),
            ("observation", observation),
            ("action", action),
            ("normaliser", normaliser | None, None),
            ("encoder", schema.any_of(encoders)),
            ("decoder", schema.any_of(decoders)),
            ("provenance", dict[str, str], {}),
            ("wrappers", schema.row(name, MOST_WRAPPERS), ()),
        ],
    )
