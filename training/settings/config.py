"""The configuration of a training run, in four parts that each mean one thing.

`TrainConfig` is frozen and complete. `task` says what is learnt, `network` what acts, `algorithm` how it learns
(`nervecord.training.algorithms`), `run` how and where it is computed and what is kept of it
(`nervecord.training.settings.parts`). What two runs must share is the comparison of a part.

Fields have names of their own over all parts, so that flags, study files and `TrainConfig.of` name them alone.
`config.json` in the run folder is the exact copy, one object for each part. Importing this module loads neither torch
nor a simulator.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nervecord.compiler.schema import by_name, from_json
from nervecord.errors import FileFormatError, NervecordError, unknown_name
from nervecord.training.algorithms import ALGORITHMS, DEFAULT
from nervecord.training.algorithms.base import Algorithm
from nervecord.training.algorithms.ppo import PPO
from nervecord.training.fields import Part, flag_name, lapsed
from nervecord.training.settings.parts import NetworkConfig, RunConfig, TaskConfig
from nervecord.training.settings.presets import PRESETS

MOST_WEIGHTS = 1 << 25
"""Between the hidden layers of a network, and in each matrix: half a gigabyte with gradients and what Adam keeps."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run.

    Raises:
        NervecordError: a field has a value it cannot have, or two fields contradict each other.

    Example:
        >>> TrainConfig(network=NetworkConfig(layers=(128, 128)), algorithm=PPO(steps=3_000_000)).network.layers
        (128, 128)
        >>> TrainConfig.of(layers=(128, 128), steps=3_000_000).algorithm.steps
        3000000
    """

    task: TaskConfig = field(default_factory=TaskConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    algorithm: Algorithm = field(default_factory=PPO)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if self.algorithm.own_networks:
            self._check_own_networks()
        self.algorithm.check_config(self)
        if self.network.mirror:
            self.task.check_mirror(where="--mirror")
        for where, count in self._hidden_weights().items():
            if count > MOST_WEIGHTS:
                raise NervecordError(
                    f"asks for {count} weights between hidden layers, at most {MOST_WEIGHTS} are trained",
                    where=where,
                    hint="fewer neurons in a layer",
                )

    def _check_own_networks(self) -> None:
        """Refuse what shapes and computes a policy's network, where the algorithm has none."""
        asked = [(self.network, name) for name in _names(NetworkConfig)]
        for part, name in (*asked, (self.task, "obs_clip"), (self.run, "operator")):
            if getattr(part, name) != getattr(type(part), name):
                raise NervecordError(
                    f"has no meaning with --algorithm {self.algorithm.name}, whose networks are its own",
                    where=flag_name(name),
                    hint="drop it; --hidden sets their width",
                )

    def _hidden_weights(self) -> dict[str, int]:
        """Flag -> weights between the hidden layers that it asks for: a configuration of a few bytes may say any."""
        layers = self.network.layers
        loops = sum(width**2 for width in layers) if self.network.recurrent else 0
        own = {"--layers": sum(a * b for a, b in itertools.pairwise(layers)) + loops}
        return own | self.algorithm.hidden_weights()

    @classmethod
    def of(cls, **values: Any) -> TrainConfig:
        """A configuration from fields by their names alone; `algorithm` is the name of one.

        Raises:
            NervecordError: a field is unknown, belongs to another algorithm, or has an impossible value.
        """
        return cls().replace(**values)

    @classmethod
    def for_task(cls, env: str = "Ant-v4", **changes: Any) -> TrainConfig:
        """What `nervecord train --env ENV` begins with: the task's preset, and `changes` for fields to set otherwise.

        Raises:
            NervecordError: a field is unknown or has an impossible value.
        """
        kind = algorithm_named(changes.get("algorithm", DEFAULT))
        own = {f.name for f in _all_fields(kind)}
        if not kind.takes_presets:
            own -= set(_names(NetworkConfig)) | set(_names(kind))
        preset = {name: value for name, value in PRESETS.get(env, {}).items() if name in own}
        values = {**preset, "env": env, **changes}
        if kind.takes_presets and "minibatch" not in changes:
            # What nobody chose is never what is wrong: a rollout that is smaller is one minibatch.
            size = {f.name: values.get(f.name, f.default) for f in dataclasses.fields(kind)}
            with contextlib.suppress(TypeError):  # what is no number is refused below, by its name
                values["minibatch"] = max(2, min(size["minibatch"], size["num_envs"] * size["rollout"]))
        return cls.of(**values)

    def replace(self, *, where: str = "config", **values: Any) -> TrainConfig:
        """The same with some fields set otherwise, by their names alone; another `algorithm` begins with its defaults,
        and what has no meaning any more has its own again.

        Raises:
            NervecordError: a field is unknown, belongs to another algorithm, or has an impossible value.
        """
        kind = type(self.algorithm)
        if "algorithm" in values:
            kind = algorithm_named(str(values.pop("algorithm")), where=where)
        before = self.algorithm.to_dict() if kind is type(self.algorithm) else {}
        kinds: dict[str, type[Part]] = {
            "task": TaskConfig,
            "network": NetworkConfig,
            "algorithm": kind,
            "run": RunConfig,
        }
        chosen: dict[str, dict[str, Any]] = {part: {} for part in kinds}
        for name, value in values.items():
            for part, each in kinds.items():
                if name in _names(each):
                    chosen[part][name] = value
                    break
            else:
                raise _no_field(name, kind, where)
        parts: dict[str, Any] = {
            part: dataclasses.replace(old, **lapsed(type(old), vars(old), changes), **changes)
            for part, changes in chosen.items()
            if part != "algorithm" and changes and (old := getattr(self, part))
        }
        if chosen["algorithm"] or kind is not type(self.algorithm):
            changes = chosen["algorithm"]
            parts["algorithm"] = kind(**{**before, **lapsed(kind, before, changes), **changes})
        return dataclasses.replace(self, **parts)

    @property
    def fields(self) -> dict[str, Any]:
        """All fields by their names alone, and "algorithm": the name of one. `of(**fields)` is equal to this."""
        values: dict[str, Any] = {"algorithm": self.algorithm.name}
        for part in (self.task, self.network, self.algorithm, self.run):
            values |= {f.name: getattr(part, f.name) for f in dataclasses.fields(part)}
        return values

    @property
    def run_name(self) -> str:
        """Name of the run folder."""
        if self.run.name:
            return self.run.name
        acts = "-".join(filter(None, self.actor))
        if not self.algorithm.own_networks and self.algorithm.name != DEFAULT:
            acts = f"{self.algorithm.name}-{acts}"  # a student beside the policy that PPO trains
        task = self.task.env.rpartition(":")[2].replace("/", "-")
        return f"{task}-{acts}-seed{self.run.seed}"

    @property
    def actor(self) -> tuple[str, str]:
        """What acts, and the widths of its hidden layers: ("snn", "64x64"). An algorithm that has networks of its own
        gives its name, and no widths."""
        if self.algorithm.own_networks:
            return self.algorithm.name, ""
        return self.network.policy, "x".join(map(str, self.network.layers))

    @property
    def batch(self) -> int:
        """Transitions of one rollout over all environments."""
        return self.algorithm.batch

    @property
    def updates(self) -> int:
        """Rollouts of the whole training: enough whole ones to reach `steps`."""
        return math.ceil(self.algorithm.steps / self.batch)

    @property
    def total_steps(self) -> int:
        """Environment steps really taken: `steps` rounded up to whole rollouts."""
        return self.updates * self.batch

    def to_json(self) -> str:
        """The configuration as JSON text; `from_json` gives back an equal object."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """The parts with their field names and values, as JSON types."""
        algorithm = {"name": self.algorithm.name, **self.algorithm.to_dict()}
        return {
            "task": self.task.to_dict(),
            "network": self.network.to_dict(),
            "algorithm": algorithm,
            "run": self.run.to_dict(),
        }

    @classmethod
    def from_json(cls, text: str, *, where: str = "config.json") -> TrainConfig:
        """Read what `to_json` wrote.

        Raises:
            FileFormatError: the text is no JSON object, or a part is missing.
            NervecordError: a field is unknown or has an impossible value.
        """
        return cls.from_dict(from_json(text, by_name(Any), where), where=where)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "config") -> TrainConfig:
        """A configuration from what `to_dict` gave; JSON's lists become tuples.

        Raises:
            FileFormatError: a part or the algorithm's name is missing.
            NervecordError: a part or field is unknown or has an impossible value.
        """
        kinds: dict[str, type[Part]] = {
            "task": TaskConfig,
            "network": NetworkConfig,
            "algorithm": PPO,
            "run": RunConfig,
        }
        parts: dict[str, Any] = {}
        for part, stored in values.items():
            if part not in kinds:
                raise unknown_name("part", str(part), kinds, where=where)
            if not isinstance(stored, Mapping):
                raise FileFormatError(f"{part} is {stored!r}, not an object", where=where)
            fields, kind = dict(stored), kinds[part]
            if part == "algorithm":
                if "name" not in fields:
                    raise FileFormatError("algorithm has no name", where=where)
                kind = algorithm_named(str(fields.pop("name")), where=where)
            parts[part] = _part(kind, fields, where)
        if missing := [part for part in kinds if part not in parts]:
            # Never the defaults in their place: a run would continue as another.
            raise FileFormatError(f"lacks {', '.join(missing)}, and a run has all of {', '.join(kinds)}", where=where)
        with _noted(where):
            return cls(**parts)


def _part(kind: type[Part], stored: Mapping[str, Any], where: str) -> Part:
    """A part of a configuration from a run folder."""
    names = _names(kind)
    for name in stored:
        if name not in names:
            raise unknown_name("field", str(name), names, where=where)
    with _noted(where):
        return kind(**stored)


@contextlib.contextmanager
def _noted(where: str) -> Iterator[None]:
    """Checks name flags, which nobody has typed here: a note says where the values stand."""
    try:
        yield
    except NervecordError as error:
        error.add_note(f"in {where}")
        raise


def algorithm_named(name: str, *, where: str = "--algorithm") -> type[Algorithm]:
    """The algorithm of that name.

    Raises:
        NervecordError: there is none.
    """
    if name not in ALGORITHMS:
        raise unknown_name("algorithm", name, ALGORITHMS, where=where)
    return ALGORITHMS[name]


def _names(part: type[Part]) -> list[str]:
    return [f.name for f in dataclasses.fields(part)]  # type: ignore[arg-type]  # a Part is always a dataclass


def _all_fields(algorithm: type[Algorithm]) -> Iterator[dataclasses.Field[Any]]:
    for part in (TaskConfig, NetworkConfig, algorithm, RunConfig):
        yield from dataclasses.fields(part)


def all_fields(*algorithms: type[Algorithm]) -> dict[str, dataclasses.Field[Any]]:
    """Fields by name, in the order of the parts; of several algorithms the first that has a field says it."""
    fields: dict[str, dataclasses.Field[Any]] = {}
    for algorithm in algorithms or tuple(ALGORITHMS.values()):
        for f in _all_fields(algorithm):
            fields.setdefault(f.name, f)
    return fields


def marked(mark: str) -> frozenset[str]:
    """Names of the fields with a mark: "free", "resumable" or "naming"."""
    return frozenset(name for name, f in all_fields().items() if f.metadata.get(mark))


def _no_field(name: str, kind: type[Algorithm], where: str) -> NervecordError:
    others = [other for other in ALGORITHMS.values() if name in _names(other)]
    if others:
        names = " and ".join(other.name for other in others)
        return NervecordError(
            f"has no meaning with --algorithm {kind.name}, only with {names}", where=others[0].spelled(name)
        )
    return unknown_name("field", name, [f.name for f in _all_fields(kind)], where=where)


def demo_config(**changes: Any) -> TrainConfig:
    """A walking spiking ant in a few minutes on two cores; `changes` are fields to set otherwise."""
    base: dict[str, Any] = {
        "steps": 1_250_000,
        "num_envs": 32,
        "rollout": 64,
        "minibatch": 512,
        # Higher than for a long training: what counts is where it stands after minutes.
        "lr": 5e-4,
        "checkpoint_every": 125_000,
        "validate_from": 0.7,
        "validation_episodes": 10,
        "test_episodes": 20,
    }
    return TrainConfig.of(**{**base, **changes})
