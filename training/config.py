"""The one configuration of a training run.

`TrainConfig` is frozen and complete: every number that decides what is learnt is a field here, its metadata holds the
help text of the flag that sets it, and `config.json` in the run folder is its exact copy. Importing this module loads
neither torch nor a simulator.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nervecord.errors import FileFormatError, NervecordError, unknown_name
from nervecord.training.presets import PRESETS

CHOICES: dict[str, tuple[str, ...]] = {
    "policy": ("snn", "ann"),
    "neuron": ("leaky", "synaptic"),
    "state": ("reset", "carried"),
    "encoder": ("current", "population"),
    "decoder": ("membrane", "count"),
    "engine": ("fused", "snntorch"),
    "schedule": ("linear", "constant"),
    "noise": ("learnt", "linear"),
    "sim": ("auto", "envpool", "gymnasium", "warp", "isaacgym", "isaaclab"),
}
"""The fields with a closed set of values, and those values."""


def flag(default: Any, text: str) -> Any:
    """A field with its default and the help text of its flag."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training run; the fields are the command line's flags.

    Raises:
        NervecordError: a field has a value it cannot have, or two fields contradict each other.
    """

    env: str = flag("Ant-v4", "Gymnasium id of the task; with --sim isaacgym the name of its task, for example Ant")
    policy: str = flag("snn", "spiking policy (snn) or its twin without spikes (ann)")
    neuron: str = flag("leaky", "snnTorch neuron: leaky (Leaky) or synaptic (Synaptic, with a current memory)")
    layers: tuple[int, ...] = flag((256,), "neurons of each hidden layer, input side first")
    steps_per_action: int = flag(5, "time steps T of the spiking core for each action")
    state: str = flag("reset", "whether each action starts from a cleared state (reset) or goes on (carried)")
    delays: bool = flag(False, "every connection delivers one step later, as on the chip (needs state carried)")
    slope: float = flag(5.0, "steepness k of the surrogate gradient 1 / (1 + k |v - threshold|)^2")
    detach_reset: bool = flag(True, "do not differentiate through the reset to zero")
    decay: float = flag(0.8, "first value of the learnt membrane decay of each hidden layer")
    current_decay: float = flag(0.5, "first value of the learnt current decay of each synaptic layer")
    readout_decay: float = flag(0.9, "first value of the learnt decay of the readout")
    encoder: str = flag("current", "what enters: the observation as constant current, or as spikes (population)")
    population: int = flag(10, "neurons per observation channel of the population code")
    decoder: str = flag("membrane", "what an action is read from: a leaky readout (membrane) or spikes (count)")
    output_population: int = flag(10, "spiking neurons per action, whose spikes the decoder counts")
    mirror: bool = flag(False, "weights tied so that the policy acts in a mirror as its image does (Ant-v4)")
    critic: tuple[int, ...] = flag((64, 64), "neurons of each hidden layer of the critic, a tanh network")

    steps: int = flag(1_000_000, "environment steps of the whole training")
    num_envs: int = flag(32, "environments stepped together, over all processes")
    rollout: int = flag(64, "steps of each environment between two updates")
    minibatch: int = flag(512, "transitions of one gradient step, over all processes")
    epochs: int = flag(8, "passes over the rollout at each update")
    lr: float = flag(3e-4, "learning rate of Adam")
    schedule: str = flag("linear", "learning rate: falling to 0 at the last step (linear) or constant")
    gamma: float = flag(0.99, "discount")
    lam: float = flag(0.95, "lambda of the advantage estimator")
    clip: float = flag(0.2, "PPO's clip of the probability ratio")
    entropy: float = flag(0.0, "weight of the entropy bonus")
    value_weight: float = flag(0.5, "weight of the critic's squared error")
    grad_norm: float = flag(0.5, "limit of the gradient's norm; 0 for none")
    noise: str = flag("learnt", "size of the action noise: learnt, or falling (linear) from log_std to log_std_final")
    log_std: float = flag(-0.5, "first value of the action noise's log standard deviation")
    log_std_final: float = flag(-2.0, "its value at the last step where the noise falls")
    obs_clip: float = flag(10.0, "limit of a normalised observation")
    normalise_reward: bool = flag(True, "divide rewards by the standard deviation of the discounted return")
    reward_clip: float = flag(10.0, "limit of a normalised reward")

    start: str = flag("", "run folder whose networks and statistics this training begins with; its shape is taken too")
    teacher: str = flag("", "run folder of the policy that this one learns to act as (nervecord distill)")
    seed: int = flag(0, "seed of weights, noise, minibatches and simulators")
    threads: int = flag(1, "threads of the simulator, in each process")
    torch_threads: int = flag(1, "threads of torch on the CPU; more than one slows networks of this size")
    sim: str = flag(
        "auto",
        "simulator: envpool, gymnasium, warp (Ant-v4 on --device), isaacgym, isaaclab, or auto (envpool where it can "
        "be imported)",
    )
    device: str = flag("cpu", "torch device of the learner and of --sim warp, isaacgym and isaaclab: cpu, cuda:0, ...")
    engine: str = flag("fused", "spiking operator: fused, or snntorch (the literal loop, slow)")

    checkpoint_every: int = flag(250_000, "environment steps between two checkpoints")
    keep_checkpoints: int = flag(3, "newest checkpoints kept, besides the best")
    validate_from: float = flag(0.5, "part of the training after which checkpoints are validated")
    validation_episodes: int = flag(20, "deterministic episodes that rank a checkpoint; 0 exports the last one")
    test_episodes: int = flag(100, "deterministic episodes, on seeds of their own, that the result reports; 0 for none")
    record: int = flag(2048, "raw observations kept with the policy for calibration")
    tensorboard: bool = flag(True, "write TensorBoard events beside metrics.jsonl")
    out: str = flag("runs", "folder that holds the run folders")
    name: str = flag("", "name of the run folder; empty for one made of env, policy and seed")

    def __post_init__(self) -> None:
        for name in ("layers", "critic"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        _check_types(self)
        _check_values(self)
        _check_together(self)

    @classmethod
    def for_task(cls, env: str = "Ant-v4", **changes: Any) -> TrainConfig:
        """What `nervecord train --env ENV` begins with: the task's preset, and `changes` for fields to set otherwise.

        Raises:
            NervecordError: a field is unknown or has an impossible value.
        """
        return cls.from_dict({**PRESETS.get(env, {}), "env": env, **changes})

    @property
    def run_name(self) -> str:
        """Name of the run folder."""
        if self.name:
            return self.name
        widths = "x".join(map(str, self.layers))
        return f"{self.env}-{self.policy}-{widths}-seed{self.seed}"

    @property
    def batch(self) -> int:
        """Transitions of one rollout over all environments."""
        return self.num_envs * self.rollout

    @property
    def updates(self) -> int:
        """PPO updates of the whole training: enough whole rollouts to reach `steps`."""
        return math.ceil(self.steps / self.batch)

    @property
    def total_steps(self) -> int:
        """Environment steps really taken: `steps` rounded up to whole rollouts."""
        return self.updates * self.batch

    def to_json(self) -> str:
        """The configuration as JSON text; `from_json` gives back an equal object."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Field names and values, as JSON types."""
        values = dataclasses.asdict(self)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, text: str, *, where: str = "config.json") -> TrainConfig:
        """Read what `to_json` wrote.

        Raises:
            FileFormatError: the text is no JSON object.
            NervecordError: a field is unknown or has an impossible value.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise FileFormatError(f"not JSON: {error}", where=where) from error
        if not isinstance(values, dict):
            raise FileFormatError(f"holds {type(values).__name__}, not a JSON object", where=where)
        return cls.from_dict(values, where=where)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, where: str = "config") -> TrainConfig:
        """A configuration from field names and values; JSON's lists become tuples.

        Raises:
            NervecordError: a field is unknown or has an impossible value.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        for name in values:
            if name not in names:
                raise unknown_name("field", str(name), names, where=where)
        return cls(**values)


def demo_config(**changes: Any) -> TrainConfig:
    """A walking spiking ant in a few minutes on two cores; `changes` are fields to set otherwise."""
    base: dict[str, Any] = {
        "steps": 1_500_000,
        "num_envs": 32,
        "rollout": 64,
        "minibatch": 512,
        # Higher than for a long training: what counts is where it stands after minutes.
        "lr": 5e-4,
        "threads": 2,
        "checkpoint_every": 150_000,
        "validate_from": 0.7,
        "validation_episodes": 10,
        "test_episodes": 20,
    }
    return TrainConfig(**{**base, **changes})


def _flag_name(name: str) -> str:
    return "--" + name.replace("_", "-")


def _check_types(config: TrainConfig) -> None:
    """Refuse a value of another type than its field's default; an int is welcome where a float is meant."""
    for f in dataclasses.fields(config):
        value, default = getattr(config, f.name), f.default
        if isinstance(default, float) and type(value) is int:
            object.__setattr__(config, f.name, float(value))
            value = float(value)
        if type(value) is not type(default):
            raise NervecordError(
                f"is {value!r}, a {type(value).__name__}, where a {type(default).__name__} is needed",
                where=_flag_name(f.name),
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise NervecordError(f"is {value}, not a finite number", where=_flag_name(f.name))


_LEAST: dict[str, float] = {
    "steps_per_action": 1,
    "population": 2,
    "output_population": 1,
    "steps": 1,
    "num_envs": 1,
    "rollout": 2,
    "minibatch": 2,
    "epochs": 1,
    "entropy": 0,
    "value_weight": 0,
    "grad_norm": 0,
    "seed": 0,
    "threads": 1,
    "torch_threads": 1,
    "checkpoint_every": 1,
    "keep_checkpoints": 1,
    "validation_episodes": 0,
    "test_episodes": 0,
    "record": 0,
}
_POSITIVE = ("slope", "lr", "clip", "obs_clip", "reward_clip")
_OPEN_UNIT = ("decay", "current_decay", "readout_decay")
_CLOSED_UNIT = ("gamma", "lam", "validate_from")


def _check_values(config: TrainConfig) -> None:
    for name, choices in CHOICES.items():
        value = getattr(config, name)
        if value not in choices:
            raise unknown_name(name, value, choices, where=_flag_name(name))
    for name, least in _LEAST.items():
        if getattr(config, name) < least:
            raise NervecordError(f"is {getattr(config, name)}, at least {least:g} is needed", where=_flag_name(name))
    for name in _POSITIVE:
        if getattr(config, name) <= 0:
            raise NervecordError(f"is {getattr(config, name)}, a number above 0 is needed", where=_flag_name(name))
    for name in _OPEN_UNIT:
        if not 0 < getattr(config, name) < 1:
            raise NervecordError(
                f"is {getattr(config, name)}, a decay lies strictly between 0 and 1", where=_flag_name(name)
            )
    for name in _CLOSED_UNIT:
        if not 0 <= getattr(config, name) <= 1:
            raise NervecordError(f"is {getattr(config, name)}, it lies between 0 and 1", where=_flag_name(name))
    for name in ("layers", "critic"):
        widths = getattr(config, name)
        if not widths or any(type(width) is not int or width < 1 for width in widths):
            raise NervecordError(f"is {widths}, one or more widths of at least 1 are needed", where=_flag_name(name))
    if not config.env:
        raise NervecordError("is empty, a Gymnasium id is needed", where="--env", hint="for example Ant-v4")
    if config.name and (not re.fullmatch(r"[\w.+-]+", config.name) or config.name in (".", "..")):
        raise NervecordError(
            f"is {config.name!r}, only letters, digits and . _ + - make a folder's name",
            where="--name",
            hint="use --out for the folder it lies in",
        )


def _check_together(config: TrainConfig) -> None:
    if config.minibatch > config.batch:
        raise NervecordError(
            f"is {config.minibatch}, a rollout holds {config.num_envs} environments x {config.rollout} steps = "
            f"{config.batch} transitions",
            where="--minibatch",
            hint="lower it, or raise --num-envs or --rollout",
        )
    if config.start and config.teacher:
        raise NervecordError(
            "a student takes its teacher's critic and statistics, and cannot begin with another run's",
            where="--start",
            hint="distill first, then nervecord train --start with the distilled run",
        )
    if config.delays and config.state == "reset":
        raise NervecordError(
            "has no meaning with --state reset: the target resets each layer one step after the layer before it, "
            "which takes up the delays exactly, so the network without delays is what runs",
            where="--delays",
            hint="drop --delays, or use --state carried",
        )
    if config.policy == "ann":
        plain_only = {"state": "reset", "neuron": "leaky", "encoder": "current", "decoder": "membrane"}
        for name, plain in plain_only.items():
            if getattr(config, name) != plain:
                raise NervecordError(
                    f"is {getattr(config, name)!r}, a policy without spikes has no such thing",
                    where=_flag_name(name),
                    hint=f"use {plain!r} with --policy ann",
                )
