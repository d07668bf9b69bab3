"""The parts of a training's configuration: what each field means, its default and its bounds.

Help, bounds and choices stand in the field, so that flags, checks and documents are loops over fields. Fields have
names of their own over all parts.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nervecord.compiler.schema import MOST_WHOLE
from nervecord.errors import NervecordError, unknown_name

LONGEST_SHOWN = 80
"""Letters of a value in an error."""
MOST_ITEMS = 1000
"""Layers, wrappers."""
MOST_WIDTH = 1 << 20
"""Neurons of a layer."""
MOST_ENVS = 1 << 20
"""Environments side by side, and steps of each in a rollout."""


def flag(default: Any, text: str, **bounds: Any) -> Any:
    """A field with its default, the help text of its flag, and its bounds.

    Bounds: `choices`, `least`, `most`, `above` (it must be greater), `unit` ("open" or "closed": between 0 and 1).
    `needs` is a field and the value without which this one has no meaning. `free` marks what does not decide what is
    learnt, `resumable` what `--resume` may change, `naming` what tells a run from others of the same cell of a study.
    """
    return field(default=default, metadata={"help": text, **bounds})


def flag_name(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


def _check(part: Part, f: dataclasses.Field[Any]) -> None:
    """Refuse a value of another type than the default, or out of its bounds; an int may stand for a float."""
    value: Any = getattr(part, f.name)
    default: Any = f.default
    where, bounds = flag_name(f.name), f.metadata
    if type(value) is int and abs(value) > MOST_WHOLE:
        raise NervecordError(f"is a number of {len(str(MOST_WHOLE))} digits or more", where=where)
    if isinstance(default, float) and type(value) is int:
        value = float(value)
        object.__setattr__(part, f.name, value)
    if type(value) is not type(default):
        raise NervecordError(
            f"is {shown(value)}, a {type(value).__name__}, where a {type(default).__name__} is needed", where=where
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise NervecordError(f"is {value}, not a finite number", where=where)
    if "choices" in bounds and value not in bounds["choices"]:
        raise unknown_name(f.name, value, bounds["choices"], where=where)
    if isinstance(value, tuple):
        element = int if "least" in bounds else str
        if len(value) > MOST_ITEMS:
            raise NervecordError(f"has {len(value)} parts, at most {MOST_ITEMS} can be", where=where)
        if any(type(item) is not element or (element is int and item < bounds["least"]) for item in value):
            need = "widths of at least 1 are" if element is int else "names are"
            raise NervecordError(f"is {shown(value)}, {need} needed", where=where)
        if element is int and any(item > MOST_WIDTH for item in value):
            raise NervecordError(f"has a width above {MOST_WIDTH:,}, the greatest there can be", where=where)
    elif "least" in bounds and value < bounds["least"]:
        raise NervecordError(f"is {value}, at least {bounds['least']:g} is needed", where=where)
    if "most" in bounds and value > bounds["most"]:
        raise NervecordError(f"is {value:,}, at most {bounds['most']:,} can be", where=where)
    if "above" in bounds and not value > bounds["above"]:
        raise NervecordError(f"is {value}, a number above {bounds['above']:g} is needed", where=where)
    if bounds.get("unit") == "open" and not 0 < value < 1:
        raise NervecordError(f"is {value}, a decay lies strictly between 0 and 1", where=where)
    if bounds.get("unit") == "closed" and not 0 <= value <= 1:
        raise NervecordError(f"is {value}, it lies between 0 and 1", where=where)


def _check_needed(part: Part, f: dataclasses.Field[Any]) -> None:
    """Refuse a value other than the default where the field that gives it a meaning has another value."""
    if "needs" not in f.metadata or getattr(part, f.name) == f.default:
        return
    name, value = f.metadata["needs"]
    found = getattr(part, name)
    if found != value:
        there, wanted = _as_flag(name, found), _as_flag(name, value)
        raise NervecordError(f"has no meaning with {there}", where=flag_name(f.name), hint=f"drop it, or use {wanted}")


def lapsed(kind: type[Part], values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of the fields of `values` that have no meaning any more after `changes`, which do not name them."""
    after = {**values, **changes}
    found: dict[str, Any] = {}
    for f in dataclasses.fields(kind):  # type: ignore[arg-type]  # a Part is always a dataclass
        name, value = f.metadata.get("needs", ("", None))
        if name in after and after[name] != value and f.name in values and f.name not in changes:
            # What needs this one comes after it.
            after[f.name] = found[f.name] = f.default
    return found


def shown(value: Any) -> str:
    """A value in an error; of one that a file may have made long, its beginning."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        return "a very large number"
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


def _as_flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return flag_name(name if value else f"no_{name}")
    return f"{flag_name(name)} {value}"


class Part:
    """A part of the configuration: a frozen dataclass whose fields are flags."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):  # type: ignore[arg-type]  # a Part is always a dataclass
            if isinstance(f.default, tuple) and isinstance(getattr(self, f.name), list):
                object.__setattr__(self, f.name, tuple(getattr(self, f.name)))
            _check(self, f)
        for f in dataclasses.fields(self):  # type: ignore[arg-type]
            _check_needed(self, f)
        self._check_together()

    def _check_together(self) -> None:
        """Refuse fields that contradict each other."""

    def to_dict(self) -> dict[str, Any]:
        """Field names and values, as JSON types."""
        values = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


@dataclass(frozen=True)
class TaskConfig(Part):
    """What is learnt."""

    env: str = flag(
        "Ant-v4",
        "Gymnasium id of the task, also module:Id of your own (the module is imported); with --sim isaacgym and mjlab "
        "the name of theirs, for example Ant",
    )
    wrappers: tuple[str, ...] = flag(
        (), "wrappers around each environment, innermost first: names of gymnasium.wrappers, or module:Class"
    )
    obs_clip: float = flag(10.0, "limit of a normalised observation", above=0)

    def _check_together(self) -> None:
        if not self.env:
            raise NervecordError("is empty, a Gymnasium id is needed", where="--env", hint="for example Ant-v4")


@dataclass(frozen=True)
class NetworkConfig(Part):
    """What acts."""

    policy: str = flag("snn", "spiking policy (snn) or its twin without spikes (ann)", choices=("snn", "ann"))
    neuron: str = flag(
        "leaky",
        "snnTorch neuron: leaky (Leaky) or synaptic (Synaptic, with a current memory)",
        choices=("leaky", "synaptic"),
        needs=("policy", "snn"),
    )
    layers: tuple[int, ...] = flag((256,), "neurons of each hidden layer, input side first", least=1)
    steps_per_action: int = flag(
        5, "time steps T of the spiking core for each action", least=1, most=1 << 16, needs=("policy", "snn")
    )
    state: str = flag(
        "reset",
        "whether each action starts from a cleared state (reset) or goes on (carried)",
        choices=("reset", "carried"),
        needs=("policy", "snn"),
    )
    delays: bool = flag(False, "every connection delivers one step later, as on the chip (needs state carried)")
    recurrent: bool = flag(
        False, "each hidden layer also hears its own spikes of the step before (needs state carried and delays)"
    )
    slope: float = flag(
        5.0, "steepness k of the surrogate gradient 1 / (1 + k |v - threshold|)^2", above=0, needs=("policy", "snn")
    )
    detach_reset: bool = flag(True, "do not differentiate through the reset to zero", needs=("policy", "snn"))
    decay: float = flag(
        0.8, "first value of the learnt membrane decay of each hidden layer", unit="open", needs=("policy", "snn")
    )
    current_decay: float = flag(
        0.5, "first value of the learnt current decay of each synaptic layer", unit="open", needs=("neuron", "synaptic")
    )
    readout_decay: float = flag(
        0.9, "first value of the learnt decay of the readout", unit="open", needs=("policy", "snn")
    )
    encoder: str = flag(
        "current",
        "what enters: the observation as constant current, or as spikes (population)",
        choices=("current", "population"),
        needs=("policy", "snn"),
    )
    population: int = flag(
        10,
        "neurons per observation channel of the population code",
        least=2,
        most=MOST_WIDTH,
        needs=("encoder", "population"),
    )
    decoder: str = flag(
        "membrane",
        "what an action is read from: a leaky readout (membrane) or spikes (count)",
        choices=("membrane", "count"),
        needs=("policy", "snn"),
    )
    output_population: int = flag(
        10,
        "spiking neurons per action, whose spikes the decoder counts",
        least=1,
        most=MOST_WIDTH,
        needs=("decoder", "count"),
    )
    mirror: bool = flag(False, "weights tied so that the policy acts in a mirror as its image does (Ant-v4)")

    def _check_together(self) -> None:
        if not self.layers:
            raise NervecordError("is (), one or more widths of at least 1 are needed", where="--layers")
        if self.delays and self.state == "reset":
            raise NervecordError(
                "has no meaning with --state reset: the target resets each layer one step after the layer before it, "
                "which takes up the delays exactly, so the network without delays is what runs",
                where="--delays",
                hint="drop --delays, or use --state carried",
            )
        if self.recurrent and not (self.state == "carried" and self.delays and self.decoder == "membrane"):
            raise NervecordError(
                "needs --state carried, --delays and --decoder membrane: a layer that hears itself has a delay of one "
                "step, and so must every connection",
                where="--recurrent",
                hint="add --state carried --delays",
            )


@dataclass(frozen=True)
class RunConfig(Part):
    """How and where a training is computed, and what is kept of it."""

    seed: int = flag(0, "seed of weights, noise, minibatches and simulators", least=0, naming=True)
    sim: str = flag(
        "auto",
        "simulator: envpool, gymnasium, warp (Ant-v4 on --device), isaacgym, isaaclab, mjlab, or auto (envpool where "
        "it can be imported)",
        choices=("auto", "envpool", "gymnasium", "warp", "isaacgym", "isaaclab", "mjlab"),
        free=True,
    )
    threads: int = flag(
        0, "threads of the simulator, in each process; 0 for one on each core", least=0, free=True, resumable=True
    )
    torch_threads: int = flag(1, "threads of torch on the CPU", least=1, free=True, resumable=True)
    device: str = flag(
        "cpu",
        "torch device of the learner and of --sim warp, isaacgym, isaaclab and mjlab: cpu, cuda:0, ...",
        free=True,
        resumable=True,
    )
    engine: str = flag(
        "fused", "spiking operator: fused, or snntorch (the literal loop, slow)", choices=("fused", "snntorch")
    )
    checkpoint_every: int = flag(250_000, "environment steps between two checkpoints", least=1)
    keep_checkpoints: int = flag(3, "newest checkpoints kept, besides the best", least=1, free=True, resumable=True)
    exact_resume: bool = flag(
        False,
        "begin all episodes anew at each checkpoint where the simulator cannot save its state, so that a resumed "
        "run is the same to the bit",
    )
    validate_from: float = flag(0.5, "part of the training after which checkpoints are validated", unit="closed")
    validation_episodes: int = flag(
        20, "deterministic episodes that rank a checkpoint; 0 exports the last one", least=0, resumable=True
    )
    test_episodes: int = flag(
        100, "deterministic episodes, on seeds of their own, that the result reports; 0 for none", least=0,
        resumable=True,
    )  # fmt: skip
    record: int = flag(2048, "raw observations kept with the policy for calibration", least=0)
    tensorboard: bool = flag(True, "write TensorBoard events beside metrics.jsonl", free=True, resumable=True)
    out: str = flag("runs", "folder that holds the run folders", free=True, naming=True)
    name: str = flag("", "name of the run folder; empty for one made of env, policy and seed", free=True, naming=True)

    def _check_together(self) -> None:
        if self.name and (not re.fullmatch(r"[\w.+-]+", self.name) or self.name in (".", "..")):
            raise NervecordError(
                f"is {self.name!r}, only letters, digits and . _ + - make a folder's name",
                where="--name",
                hint="use --out for the folder it lies in",
            )
