"""A recipe: a chain of trainings, their gates, the program and its evaluation, read from a TOML file.

    [recipe]                      about: what it is, one line
    [[stage]]                     name; set: fields of `TrainConfig`; gates: list of {step, least, over}
    [compile]                     target, options: of the program
    [evaluation]                  seed, episodes, most, spread, num_envs
    [tasks.ID]                    aim: the return that gates are fractions of; set.STAGE: a stage's fields for this task

A stage that starts from another one names it, `teacher = "stage:NAME"`. The same settings hold for every task but what
[tasks] says. Recipes of the package lie beside this module. Importing it loads neither torch nor a simulator.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nervecord.compiler.files.regular import read_text
from nervecord.compiler.schema import (
    LARGEST,
    MOST_WHOLE,
    any_of,
    by_name,
    checked,
    from_toml,
    printable,
    real,
    record,
    row,
    text,
    unprintable,
    whole,
)
from nervecord.errors import FileFormatError, NervecordError, unknown_name
from nervecord.training.algorithms import DEFAULT
from nervecord.training.fields import flag_name
from nervecord.training.folder.start import shared_fields
from nervecord.training.settings.config import TrainConfig, algorithm_named, all_fields, marked
from nervecord.training.sweeps.rules import check_names, plain

FOLDER = Path(__file__).parent
MAXIMUM_BYTES = 1 << 20
"""A larger recipe is refused unread."""
MOST_STAGES = 20
STAGE = "stage:"
"""Before the name of a stage, in a field that names a run."""

_GATE = record("gate", [("step", whole(1, MOST_WHOLE)), ("least", real()), ("over", whole(1, 1000), 3)])
_STAGE = record("stage", [("name", text(64, least=1)), ("set", by_name(Any)), ("gates", row(_GATE, 100), ())])
_OPTION = any_of((bool, int, float, str))
_COMPILE = record("compile", [("target", text(64, least=1), "lava"), ("options", by_name(_OPTION), {})])
_EVALUATION = record(
    "evaluation",
    [
        ("seed", whole(0, MOST_WHOLE)),
        ("episodes", whole(2, 1_000_000)),
        ("most", whole(2, 1_000_000)),
        ("spread", real(0), 0.1),
        ("num_envs", whole(1, 10_000), 50),
    ],
)
_TASK = record("task", [("aim", real(above=0, high=LARGEST)), ("set", by_name(by_name(Any)), {})])
_RECIPE = record(
    "recipe",
    [
        ("recipe", record("head", [("about", text(least=1))])),
        ("stage", row(_STAGE, MOST_STAGES, 1)),
        ("compile", _COMPILE),
        ("evaluation", _EVALUATION),
        ("tasks", by_name(_TASK), {}),
    ],
)


@dataclass(frozen=True, slots=True)
class Gate:
    """What a stage must have reached at a step for the chain to continue.

    Args:
        step: environment steps of the stage.
        least: fraction of the aim.
        over: the mean of the last so many validations counts.
    """

    step: int
    least: float
    over: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A training of a recipe: its name, the fields that it sets, its gates."""

    name: str
    values: Mapping[str, Any]
    gates: tuple[Gate, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Which held-out episodes both policies play: blocks of `episodes`, block k with the seed `seed` + k. One block, or
    blocks up to `most` episodes where an episode's standard deviation is more than `spread` of the mean."""

    seed: int
    episodes: int
    most: int
    spread: float
    num_envs: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a file says."""

    name: str
    about: str
    stages: tuple[Stage, ...]
    target: str
    options: Mapping[str, Any]
    evaluation: Evaluation
    aims: Mapping[str, float]
    tasks: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Task -> stage -> fields."""


@dataclass(frozen=True, slots=True)
class PlannedStage:
    """A training of a chain.

    Args:
        stage: of the recipe.
        values: the fields that its command names.
        config: all of them.
    """

    stage: Stage
    values: Mapping[str, Any]
    config: TrainConfig

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.config.run.out) / self.config.run.name


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe for one task and seed.

    Args:
        folder: holds the stages' run folders, the program and the evaluations.
        aim: the return that gates are fractions of; None where the recipe names none for the task.
    """

    recipe: Recipe
    env: str
    wrappers: tuple[str, ...]
    folder: Path
    aim: float | None
    stages: tuple[PlannedStage, ...]

    @property
    def policy(self) -> Path:
        """The exported policy of the last stage."""
        return self.stages[-1].folder / "policy.nir"

    @property
    def program(self) -> Path:
        """The compiled policy."""
        return self.folder / "policy.nervecord"


def built_in() -> list[str]:
    """Names of the package's recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def read_recipe(source: str) -> Recipe:
    """Read a recipe.

    Args:
        source: name of one of the package's, or a TOML file.

    Raises:
        FileFormatError: it cannot be read or is no TOML.
        NervecordError: there is none of that name, or a key is unknown or out of its bounds.
    """
    path = Path(source) if source.endswith(".toml") else FOLDER / f"{source}.toml"
    if not source.endswith(".toml") and source not in built_in():
        raise unknown_name("recipe", source, built_in(), where="--recipe")
    where = printable(source)
    tables = from_toml(read_text(path, where, MAXIMUM_BYTES, "recipe"), where)
    if (odd := unprintable(tables)) is not None:
        raise FileFormatError(f"holds a text that cannot be printed: {printable(odd)[:80]}", where=where)
    data = checked(tables, _RECIPE, where, NervecordError)
    stages = tuple(
        Stage(each.name, each.set, tuple(Gate(gate.step, gate.least, gate.over) for gate in each.gates))
        for each in data.stage
    )
    _check_stages(stages, where)
    tasks = {task: each.set for task, each in data.tasks.items()}
    for task, changes in tasks.items():
        for name, values in changes.items():
            if name not in {stage.name for stage in stages}:
                raise unknown_name("stage", name, [stage.name for stage in stages], where=f"{where}, [tasks.{task}]")
            _check_fields(values, f"{where}, [tasks.{task}.set.{name}]")
    evaluation = data.evaluation
    return Recipe(
        path.stem,
        data.recipe.about,
        stages,
        data.compile.target,
        data.compile.options,
        Evaluation(evaluation.seed, evaluation.episodes, evaluation.most, evaluation.spread, evaluation.num_envs),
        {task: each.aim for task, each in data.tasks.items()},
        tasks,
    )


def _check_stages(stages: tuple[Stage, ...], where: str) -> None:
    names: set[str] = set()
    for stage in stages:
        place = f"{where}, stage {stage.name!r}"
        if not re.fullmatch(r"[A-Za-z][\w-]*", stage.name) or stage.name in names:
            raise NervecordError(
                f"name is {stage.name!r}, a name of letters, digits, _ and - is needed that no other stage has",
                where=place,
                hint="it names the stage's run folder",
            )
        names.add(stage.name)
        _check_fields(stage.values, place)


def _check_fields(values: Mapping[str, Any], place: str) -> None:
    """Refuse what is no field, and what the command line says for the whole chain."""
    for name in values:
        if name in _OF_THE_CHAIN:
            raise NervecordError(
                f"{name} cannot be set here", where=place, hint=f"the chain has one: {flag_name(name)}"
            )
    check_names(values, place, "algorithm")


_OF_THE_CHAIN = ("env", "wrappers", "seed", "name", "out")
"""Fields that the command gives all stages alike."""


def plan(recipe: Recipe, env: str, **changes: Any) -> Plan:
    """The trainings of a recipe for one task; all are checked before anything runs.

    Args:
        recipe: what to plan.
        env: the task.
        changes: `seed`, `name`, `out`, `wrappers`, and fields that do not decide what is learnt, for every stage.

    Raises:
        NervecordError: a stage's fields are impossible, or a change belongs to the recipe.
    """
    for name in changes:
        if name not in (*_OF_THE_CHAIN, *marked("free")):
            raise NervecordError(
                "is a matter of the recipe's stages",
                where=flag_name(name),
                hint=f"copy the file {FOLDER / recipe.name}.toml, change it, and name the copy: --recipe my.toml",
            )
    seed = changes.get("seed", 0)
    task = env.rpartition(":")[2].replace("/", "-")
    # A configuration checks them as those of any run.
    run = TrainConfig.of(
        env=env,
        wrappers=changes.get("wrappers", ()),
        seed=seed,
        out=changes.get("out", "runs"),
        name=changes.get("name") or f"{task}-{recipe.name}-seed{seed}",
    )
    folder = Path(run.run.out) / run.run.name
    shared = {name: value for name, value in changes.items() if name not in ("name", "out")}
    planned: dict[str, PlannedStage] = {}
    for stage in recipe.stages:
        values = {**stage.values, **recipe.tasks.get(env, {}).get(stage.name, {}), "env": env, **shared}
        planned[stage.name] = _planned(stage, values, folder, planned)
    stages = tuple(planned.values())
    return Plan(recipe, env, run.task.wrappers, folder, recipe.aims.get(env), stages)


def _planned(stage: Stage, values: dict[str, Any], folder: Path, before: Mapping[str, PlannedStage]) -> PlannedStage:
    place = f"stage {stage.name!r}"
    algorithm = algorithm_named(str(values.get("algorithm", DEFAULT)), where=place)
    own = {"algorithm", *all_fields(algorithm)}
    # A flag for the whole chain goes to the stages that have it.
    fields = {name: plain(name, value) for name, value in values.items() if name in own or name in stage.values}
    shared: dict[str, Any] = {}
    for source in algorithm.sources:
        name = fields.get(source.field)
        if not isinstance(name, str) or not name.startswith(STAGE):
            continue
        earlier = name.removeprefix(STAGE)
        if earlier not in before:
            raise unknown_name("earlier stage", earlier, before, where=f"{place}, {source.field}")
        fields[source.field] = str(before[earlier].folder)
        shared |= shared_fields(before[earlier].config, source)
    fields |= {"out": str(folder), "name": stage.name}
    # The command of such a training takes the task from the run that it starts from.
    command = {name: value for name, value in fields.items() if name not in shared}
    try:
        config = TrainConfig.for_task(**{**shared, **fields})
    except NervecordError as error:
        error.add_note(f"in {place} of the recipe")
        raise
    _check_gates(stage, config, place)
    return PlannedStage(stage, command, config)


def _check_gates(stage: Stage, config: TrainConfig, place: str) -> None:
    """Refuse gates that no validation comes to."""
    if stage.gates and not config.run.validation_episodes:
        raise NervecordError("has gates and validates nothing", where=place, hint="set validation_episodes")
    first, last = math.ceil(config.run.validate_from * config.total_steps), config.total_steps
    for gate in stage.gates:
        if not first <= gate.step <= last:
            raise NervecordError(
                f"has a gate at step {gate.step:,}, and is validated from {first:,} to {last:,}",
                where=place,
                hint="move the gate, or change validate_from or steps",
            )
