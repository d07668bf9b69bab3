"""Rules of a study: fields that follow from others, as a learning rate that was chosen for each depth.

    [[where]]
    policy = "snn"
    depth = 3
    set = { lr = 3e-4 }

A rule holds for a configuration that has all its values; `depth` is the number of layers. Rules are asked in their
order, and each sees what those before it have set. What a series names itself no rule changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nervecord.errors import NervecordError, unknown_name
from nervecord.training.settings.config import TrainConfig, all_fields, marked

DEPTH = "depth"


@dataclass(frozen=True, slots=True)
class Rule:
    """Fields that are set where others have these values."""

    condition: Mapping[str, Any]
    changes: Mapping[str, Any]
    place: str

    def holds(self, config: TrainConfig) -> bool:
        """Whether a configuration has the values."""
        fields = {**config.fields, DEPTH: len(config.network.layers)}
        return all(
            name in fields and fields[name] == value and isinstance(fields[name], bool) == isinstance(value, bool)
            for name, value in self.condition.items()
        )


class Rules:
    """The rules of a study.

    Args:
        tables: its [[where]] tables.
        where: the study file, for errors.

    Raises:
        NervecordError: a table or a field of one is none.
    """

    def __init__(self, tables: Sequence[Mapping[str, Any]], where: str) -> None:
        self.rules = [_read(table, f"{where}, [[where]] number {k}") for k, table in enumerate(tables, 1)]
        self._used: set[str] = set()

    def apply(self, config: TrainConfig, named: Collection[str]) -> TrainConfig:
        """A configuration with what follows from it; `named` are the fields that its series names.

        Raises:
            NervecordError: a rule sets what the configuration cannot have; the error has a note that says which.
        """
        for rule in self.rules:
            if not rule.holds(config):
                continue
            changes = {name: value for name, value in rule.changes.items() if name not in named}
            try:
                config = config.replace(**changes, where=rule.place)
            except NervecordError as error:
                error.add_note(f"by {rule.place}")
                raise
            if changes:
                self._used.add(rule.place)
        return config

    def check_used(self) -> None:
        """Refuse a rule that was applied to no configuration: it is misspelt.

        Raises:
            NervecordError: one was not.
        """
        for rule in self.rules:
            if rule.place not in self._used:
                raise NervecordError(
                    "changes no run of the study: none has its values, or the series name what it sets",
                    where=rule.place,
                    hint="nervecord sweep FILE --plan shows the runs",
                )


def _read(table: Mapping[str, Any], place: str) -> Rule:
    condition, changes = {key: value for key, value in table.items() if key != "set"}, table.get("set")
    if not isinstance(changes, dict) or not changes:
        raise NervecordError("sets nothing", where=place, hint="for example set = { lr = 3e-4 }")
    if not condition:
        raise NervecordError("names no value, so it holds everywhere", where=place, hint="[base] is for that")
    check_names(condition, place, "algorithm", DEPTH)
    check_names(changes, place, without=("layers",))
    condition, changes = ({key: plain(key, value) for key, value in part.items()} for part in (condition, changes))
    return Rule(condition, changes, place)


def check_names(names: Iterable[str], place: str, *more: str, without: Collection[str] = ()) -> None:
    """Refuse what is no field, and fields that a study gives each run itself; `more` are known beside the fields.

    Raises:
        NervecordError: one is none (the nearest is named), or cannot be set here.
    """
    known = [*more, *(name for name in all_fields() if name not in marked("naming") and name not in without)]
    for name in names:
        if name in marked("naming"):
            hint = "a series has seeds = [0, 1, 2]" if name == "seed" else "[study] has name and out"
            raise NervecordError(f"{name} cannot be set here", where=place, hint=hint)
        if name not in known:
            raise unknown_name("field", name, known, where=place)


def plain(key: str, value: Any) -> Any:
    """A value as its field takes it: 1e6 may be an integer, a list of widths is a tuple."""
    field = all_fields().get(key)
    if (field is None or type(field.default) is int) and isinstance(value, float) and value.is_integer():
        return int(value)
    return tuple(value) if isinstance(value, list) else value
