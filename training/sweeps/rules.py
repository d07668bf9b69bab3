"""Rules of a study: fields that follow from others, as a learning rate that was chosen for each depth.

    [[where]]
    policy = "snn"
    depth = 3
    set = { lr = 3e-4 }

A rule holds for a configuration that has all its values; `depth` is the number of layers. What a series varies itself
no rule changes, and of two rules that set a field the later one holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nervecord.errors import NervecordError, unknown_name
from nervecord.training.config import TrainConfig, all_fields

DEPTH = "depth"
_UNSET = ("seed", "name", "out", "layers")
"""What no rule sets: it names runs, or says what they are."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Fields that are set where others have these values."""

    given: Mapping[str, Any]
    changes: Mapping[str, Any]
    place: str

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether a configuration's fields have the values, `layers` among them."""
        return all((len(values["layers"]) if k == DEPTH else values.get(k)) == each for k, each in self.given.items())


def read_rules(tables: Any, where: str) -> list[Rule]:
    """The rules of a study's [[where]] tables.

    Raises:
        NervecordError: a table or a field of one is none.
    """
    if not isinstance(tables, list):
        raise NervecordError("where is one table, rules are a list of tables", where=where, hint="write [[where]]")
    fields = list(all_fields())
    free = [name for name in fields if name not in _UNSET]
    rules = []
    for number, table in enumerate(tables, 1):
        place = f"{where}, [[where]] number {number}"
        changes = table.get("set") if isinstance(table, dict) else None
        if not isinstance(changes, dict) or not changes:
            raise NervecordError("sets nothing", where=place, hint="for example set = { lr = 3e-4 }")
        given = {key: value for key, value in table.items() if key != "set"}
        if not given:
            raise NervecordError("names no value, so it holds everywhere", where=place, hint="[base] is for that")
        for names, known in ((given, [DEPTH, *fields]), (changes, free)):
            for key in names:
                if key not in known:
                    raise unknown_name("field", key, known, where=place)
        wanted, found = ({key: plain(key, value) for key, value in part.items()} for part in (given, changes))
        rules.append(Rule(wanted, found, place))
    return rules


def followed(base: TrainConfig, changes: Mapping[str, Any], rules: Sequence[Rule]) -> dict[str, Any]:
    """What a combination changes of the base, and what follows from it by the rules."""
    values = {**base.fields, **changes}
    found: dict[str, Any] = {}
    for rule in rules:
        if rule.holds(values):
            found |= rule.changes
    return {**found, **changes}


def check_used(rules: Sequence[Rule], configs: Sequence[TrainConfig]) -> None:
    """Refuse a rule that holds for no run: it is misspelt.

    Raises:
        NervecordError: one does.
    """
    fields = [config.fields for config in configs]
    for rule in rules:
        if not any(rule.holds(values) for values in fields):
            raise NervecordError("holds for no run of the study", where=rule.place, hint="nervecord sweep FILE --plan")


def plain(key: str, value: Any) -> Any:
    """A value as its field wants it: 1e6 may be a whole number, a list of widths is a tuple."""
    field = all_fields().get(key)
    if (field is None or type(field.default) is int) and isinstance(value, float) and value.is_integer():
        return int(value)
    return tuple(value) if isinstance(value, list) else value
