"""A study: many trainings that differ in a few fields, read from a TOML file and checked before anything runs.

    [study]                       name; out: the folder that holds the study's folder; notes: a text for the report
    [base]                        fields of `TrainConfig` that all runs share
    [grid]                        field = list of values: every combination is a cell; seeds = [0, 1, 2]
    [[also]]                      a further series, for example of one field, over the same base
    [[search]]                    configurations drawn from ranges of fields: samples = 20
    [[where]]                     fields that follow from others: policy = "snn", depth = 3, set = { lr = 3e-4 }

`depth` and `neurons` together stand for `layers`: d layers of n neurons each. Two series that meet in a configuration
share its runs. Importing this module loads neither torch nor a simulator.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nervecord.compiler.files.regular import read_text
from nervecord.compiler.schema import MOST_WHOLE, by_name, checked, from_toml, printable, record, row, text, unprintable
from nervecord.errors import FileFormatError, NervecordError, unknown_name
from nervecord.training.fields import MOST_ITEMS, value_text
from nervecord.training.folder.records import read_record
from nervecord.training.settings.config import TrainConfig, all_fields, marked
from nervecord.training.sweeps.rules import Rules, check_names, plain
from nervecord.training.sweeps.search import draw

MAXIMUM_BYTES = 4 << 20
"""A larger study file is refused unread."""
MOST_RUNS = 10_000
"""Of all series together; a study is to be looked at, and each run has a folder."""
MOST_TABLES = 500
"""Series, and as many rules: each takes some milliseconds to read."""
MOST_RULED = 50_000
"""Combinations times rules: each rule may make a combination anew."""
SEEDS: tuple[int, ...] = (0, 1, 2)
"""Where the grid names none."""

_FIELDS = {name: f.default for name, f in all_fields().items()}
_TABLE = by_name(Any)
_TABLES = {
    "study": record("study", [("name", text(least=1)), ("out", text(least=1), "runs"), ("notes", text(), "")]),
    "base": _TABLE,
    "grid": _TABLE,
    **dict.fromkeys(("also", "search", "where"), row(_TABLE, MOST_TABLES)),
}
_NOT_VARIED = marked("naming")


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """One training of a study: `config.run.name` is the run folder's name, `config.run.out` the study's folder."""

    cell: str
    """Its name without the seed; the runs of a cell differ in nothing else."""
    config: TrainConfig

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.config.run.name

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.run.out) / self.config.run.name


@dataclass(frozen=True, slots=True)
class Series:
    """Cells that are shown together: the grid, or one of the further series."""

    title: str
    varied: tuple[str, ...]
    """Fields with more than one value; seed is none of them."""
    cells: tuple[str, ...]
    is_search: bool = False
    """Whether its values were drawn."""


@dataclass(frozen=True, slots=True)
class Study:
    """Everything a study file asks for."""

    path: Path
    name: str
    folder: Path
    notes: str
    """What its author says of the results, Markdown; empty where nothing."""
    base: TrainConfig
    series: tuple[Series, ...]
    runs: tuple[PlannedRun, ...]
    """Each once, in the order in which they are trained: all cells with the first seed, then with the second."""

    @property
    def cells(self) -> dict[str, tuple[PlannedRun, ...]]:
        """Runs of each cell, in the order of the series."""
        order = dict.fromkeys(cell for series in self.series for cell in series.cells)
        return {cell: tuple(run for run in self.runs if run.cell == cell) for cell in order}

    @property
    def total_steps(self) -> int:
        """Environment steps of the whole study."""
        return sum(run.config.total_steps for run in self.runs)

    def check_folders(self) -> None:
        """Refuse run folders that hold another training than the study asks for.

        Raises:
            NervecordError: one does; all are listed.
        """
        wrong = [text for run in self.runs if (text := mismatch(run.folder, run.config))]
        if wrong:
            listed = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
            raise NervecordError(
                f"holds other runs than {self.path} asks for: {listed}",
                where=str(self.folder),
                hint="give the study another name, or move the folder away",
            )


def read_study(path: str | Path, *, out: str | None = None) -> Study:
    """Read a study file and make every configuration of it.

    Args:
        path: the TOML file.
        out: the folder that holds the study's folder, instead of the file's.

    Raises:
        FileFormatError: it cannot be read or is no TOML.
        NervecordError: a table or field is unknown, or a combination is impossible; the error has a note that says
            which.
    """
    path = Path(path)
    tables = _load(path)
    where = str(path)
    for table, content in tables.items():
        if table not in _TABLES:
            raise unknown_name("table", table, _TABLES, where=where)
        if table != "study":
            checked(content, _TABLES[table], f"{where}, [{table}]", NervecordError)
    head = _head(tables, where)
    name, notes = head.name, head.notes.strip()
    base = _base(tables.get("base", {}), where)
    blocks, rules = _blocks(tables, where), Rules(tables.get("where", []), where)
    if out == "":
        raise NervecordError("is empty, a folder is needed", where="--out")
    folder = Path(head.out if out is None else out) / name
    runs: dict[str, PlannedRun] = {}
    series = []
    shared = SEEDS
    asked = combinations = 0
    for title, block, place in blocks:
        is_search = "[[search]]" in place
        if is_search:
            drawn, own = _drawn(block, f"{name}/{title}", place)
            varied = tuple(key for key in drawn[0] if len({repr(each[key]) for each in drawn}) > 1)
        else:
            options, own = _options(block, place)
            _check_count(math.prod(map(len, options.values())) * len(own or shared), place)
            drawn = [dict(zip(options, chosen, strict=True)) for chosen in itertools.product(*options.values())]
            varied = tuple(key for key in options if len(options[key]) > 1)
        seeds = own or shared
        if title == "grid" and block is tables.get("grid"):
            shared = seeds  # further series have the grid's, unless they name their own
        asked, combinations = asked + len(drawn) * len(seeds), combinations + len(drawn)
        _check_count(asked, place)
        if combinations * len(rules.rules) > MOST_RULED:
            raise NervecordError(
                f"has {len(rules.rules):,} rules for {combinations:,} combinations, their product is at most "
                f"{MOST_RULED:,}",
                where=where,
                hint="fewer [[where]] tables, or several studies",
            )
        planned = _expand(base, drawn, rules, seeds, folder, place)
        series.append(Series(title, varied, tuple(dict.fromkeys(run.cell for run in planned)), is_search))
        for run in planned:
            runs.setdefault(run.name, run)
    rules.check_used()
    rank = {run: k for k, run in enumerate(runs)}
    ordered = sorted(runs.values(), key=lambda run: (run.config.run.seed, rank[run.name]))
    return Study(path, name, folder, notes, base, tuple(series), tuple(ordered))


def _load(path: Path) -> dict[str, Any]:
    where = printable(str(path))
    return from_toml(read_text(path, where, MAXIMUM_BYTES, "study"), where)


def _head(tables: Mapping[str, Any], where: str) -> Any:
    """The table [study], whose notes are Markdown and have lines; every other text of the file is a name."""
    place = f"{where}, [study]"
    head = checked(tables.get("study", {}), _TABLES["study"], place, NervecordError)
    names = {**tables, "study": (head.name, head.out, head.notes.splitlines())}
    if (odd := unprintable(names)) is not None:
        raise FileFormatError(f"holds a text that cannot be printed: {printable(odd)[:80]}", where=where)
    if not re.fullmatch(r"[\w+-][\w.+-]*", head.name):
        raise NervecordError(
            f"name is {head.name!r}, a name of letters, digits and . _ + - is needed",
            where=place,
            hint="it names the study's folder",
        )
    return head


def _base(table: Any, where: str) -> TrainConfig:
    place = f"{where}, [base]"
    check_names(table, place, "algorithm")
    for key, value in table.items():
        nested = isinstance(value, list) and len(value) == 1 and isinstance(value[0], list)
        if isinstance(_FIELDS.get(key), tuple) and nested:
            raise NervecordError(
                f"{key} is {value}: here it is one value, and a list of several stands in [grid]",
                where=place,
                hint=f"write {value[0]}",
            )
    try:
        config = TrainConfig().replace(**{key: plain(key, value) for key, value in table.items()}, where=place)
    except NervecordError as error:
        error.add_note(f"in {place}")
        raise
    if not config.run.test_episodes:
        raise NervecordError("test_episodes is 0, a study compares tested returns", where=place)
    return config


def _blocks(tables: Mapping[str, Any], where: str) -> list[tuple[str, dict[str, Any], str]]:
    """Title, table and place of each series."""
    blocks = [("grid", tables["grid"], f"{where}, [grid]")] if "grid" in tables else []
    for kind, other in (("also", "series"), ("search", "search")):
        for number, table in enumerate(tables.get(kind, ()), 1):
            title = table.get("name", f"{other} {number}")
            if not isinstance(title, str) or not title:
                place = f"{where}, [[{kind}]] number {number}"
                raise NervecordError(f"name is {title!r}, a text is needed", where=place)
            block = {key: value for key, value in table.items() if key != "name"}
            blocks.append((title, block, f"{where}, [[{kind}]] {title!r}"))
    if not blocks:
        raise NervecordError("has neither [grid], [[also]] nor [[search]], so nothing varies", where=where)
    return blocks


def _options(block: Mapping[str, Any], place: str) -> tuple[dict[str, tuple[Any, ...]], tuple[int, ...] | None]:
    """Values of each field of a series, and its seeds where it names them."""
    options: dict[str, tuple[Any, ...]] = {}
    seeds: tuple[int, ...] | None = None
    check_names(block, place, "algorithm", "depth", "neurons", "seeds")
    for key, value in block.items():
        values = _values(key, value, place)
        if key == "seeds":
            seeds = _whole(key, values, 0, place)
        else:
            options[key] = values
    return _with_layers(options, place), seeds


def _drawn(block: Mapping[str, Any], key: str, place: str) -> tuple[list[dict[str, Any]], tuple[int, ...] | None]:
    """What a search draws, and its seeds where it names them."""
    fields = {name: value for name, value in block.items() if name not in ("samples", "seeds")}
    (samples,) = _whole("samples", (block.get("samples", 0),), 1, place)
    seeds = _whole("seeds", _values("seeds", block["seeds"], place), 0, place) if "seeds" in block else None
    _check_count(samples * len(seeds or SEEDS), place)
    check_names(fields, place, "algorithm")
    if not fields:
        raise NervecordError("names no field, so nothing varies", where=place)
    whole = frozenset(name for name, default in _FIELDS.items() if type(default) is int)
    drawn = draw(fields, samples, key, whole=whole, place=place)
    return [{name: plain(name, value) for name, value in each.items()} for each in drawn], seeds


def _check_count(runs: int, place: str) -> None:
    if runs > MOST_RUNS:
        raise NervecordError(f"asks for {runs:,} runs, at most {MOST_RUNS:,} can be", where=place)


def _values(key: str, value: Any, place: str) -> tuple[Any, ...]:
    """The values of a field; a single one may stand without its list."""
    widths = isinstance(_FIELDS.get(key), tuple)
    if widths and isinstance(value, list) and any(not isinstance(item, list) for item in value):
        raise NervecordError(
            f"{key} is {value}, a list of lists is needed here",
            where=place,
            hint=f"for example {key} = [[64], [64, 64]]" + (", or depth and neurons" if key == "layers" else ""),
        )
    values = tuple(plain(key, item) for item in (value if isinstance(value, list) else [value]))
    if not values:
        raise NervecordError(f"{key} is an empty list", where=place)
    if len(values) > MOST_RUNS:
        raise NervecordError(f"{key} has {len(values):,} values, at most {MOST_RUNS:,} can be", where=place)
    earlier = set()
    for item in values:
        # A table is refused where its field is checked.
        each = item if isinstance(item, (bool, int, float, str)) else repr(item)
        if each in earlier:
            raise NervecordError(f"{key} holds {value_text(item)} twice", where=place)
        earlier.add(each)
    return values


def _with_layers(options: dict[str, tuple[Any, ...]], place: str) -> dict[str, tuple[Any, ...]]:
    """`depth` and `neurons` replaced by `layers`, in the place of the first of them."""
    shape = [key for key in ("depth", "neurons") if key in options]
    if not shape:
        return options
    if len(shape) == 1:
        missing = "neurons" if shape == ["depth"] else "depth"
        raise NervecordError(f"{shape[0]} stands without {missing}", where=place, hint="together they make the layers")
    if "layers" in options:
        raise NervecordError("has both layers and depth with neurons", where=place, hint="say it one way")
    depths = _whole("depth", options["depth"], 1, place)
    if max(depths) > MOST_ITEMS:
        raise NervecordError(f"depth holds {max(depths):.3g}, at most {MOST_ITEMS} layers can be", where=place)
    neurons = _whole("neurons", options["neurons"], 1, place)
    _check_count(len(neurons) * len(depths), place)  # before any is laid out
    layers = tuple((n,) * d for n in neurons for d in depths)
    laid_out: dict[str, tuple[Any, ...]] = {}
    for key, values in options.items():
        laid_out |= {"layers": layers} if key in shape else {key: values}
    return laid_out


def _expand(
    base: TrainConfig,
    combinations: list[dict[str, Any]],
    rules: Rules,
    seeds: tuple[int, ...],
    folder: Path,
    place: str,
) -> list[PlannedRun]:
    """Every combination as a configuration."""
    runs: list[PlannedRun] = []
    errors: list[tuple[str, NervecordError]] = []
    for changes in combinations:
        try:
            config = rules.apply(base.replace(**changes, where=place), changes)
        except NervecordError as error:
            errors.append((_words(changes), error))
            continue
        cell = _cell_name(config, base)
        runs += [
            PlannedRun(cell, config.replace(seed=seed, name=f"{cell}-seed{seed}", out=str(folder))) for seed in seeds
        ]
    if errors:
        words, first = errors[0]
        more = f", the first of {len(errors)} combinations that cannot be" if len(errors) > 1 else ""
        first.add_note(f"in {place}: {words or 'the base'}{more}")
        raise first
    if not all(run.config.run.test_episodes for run in runs):
        raise NervecordError("test_episodes is 0, a study compares tested returns", where=place)
    return runs


def _cell_name(config: TrainConfig, base: TrainConfig) -> str:
    """What acts, its widths, every other field that is not the base's: a name that does not depend on the series."""
    fields, named = config.fields, {"policy", "layers", *_NOT_VARIED}
    if config.algorithm.own_networks:
        named.add("algorithm")
    parts = list(filter(None, config.actor))
    others = [name for name in differences(config, base) if name not in named]
    parts += [f"{name}-{word(fields[name])}" for name in others]
    return re.sub(r"[^\w.+-]", "_", "-".join(parts))


def differences(config: TrainConfig, base: TrainConfig) -> list[str]:
    """Fields in which a configuration is not the base, in the order of `TrainConfig`; where its algorithm is another,
    not what that one has by default. What has no meaning in it is none."""
    before, after = base.fields, config.fields
    if config.algorithm.name != base.algorithm.name:
        # The runs that one begins with or learns from have no default.
        fields = {source.field for source in config.algorithm.sources}
        sources = {name: value for name, value in after.items() if name in fields}
        other = {**base.replace(algorithm=config.algorithm.name, **sources).fields, **dict.fromkeys(sources, "")}
        before |= other | {"algorithm": base.algorithm.name}
    needs = {name: f.metadata["needs"] for name, f in all_fields().items() if "needs" in f.metadata}
    idle = {name for name, (other, value) in needs.items() if name in after and after[other] != value}
    return [name for name, value in after.items() if value != before[name] and name not in idle]


def mismatch(folder: Path, config: TrainConfig) -> str | None:
    """What in a run folder is not what is planned; None where it fits or is not there yet."""
    if not folder.exists():
        return None
    path = folder / "config.json"
    if not path.is_file():
        return f"{folder.name} is no run folder"
    there = TrainConfig.from_dict(read_record(path), where=str(path))
    actual, planned = there.fields, config.fields
    other = [name for name in differences(there, config) if name not in marked("free")]
    if actual["sim"] != planned["sim"] and planned["sim"] != "auto":
        other.append("sim")
    if not other:
        return None
    first = other[0]
    return f"{folder.name} has {first} {word(actual[first])}, not {word(planned.get(first, 'that'))}"


def _whole(key: str, values: tuple[Any, ...], least: int, place: str) -> tuple[int, ...]:
    for value in values:
        if type(value) is not int or not least <= value <= MOST_WHOLE:
            raise NervecordError(f"{key} holds {value_text(value)}, integers from {least} are needed", where=place)
    return values


def _words(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {word(value)}" for key, value in changes.items())


def word(value: Any) -> str:
    """A value in a name or a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
