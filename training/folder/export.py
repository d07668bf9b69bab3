"""From a checkpoint to policy.nir: the compiler's DISCRETE graph, its contract, and the recorded observations."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.nir.file import write_nir
from nervecord.compiler.ops import (
    Affine,
    ArgmaxDecode,
    CountArgmaxDecode,
    CountDecode,
    Decode,
    Input,
    Level,
    Membrane,
    Neuron,
    Normalise,
    Op,
    Output,
    PopulationEncode,
    Spike,
    Synapse,
)
from nervecord.errors import NervecordError
from nervecord.training.policy.description import (
    CountReadout,
    MembraneReadout,
    PolicyDescription,
    SpikingLayer,
    describe,
)
from nervecord.training.policy.network import SpikingPolicy
from nervecord.training.policy.normaliser import EPSILON
from nervecord.training.settings.config import TrainConfig, marked
from nervecord.training.settings.tasks import channels, choice_names
from nervecord.training.simulators.base import control_period
from nervecord.training.simulators.kinds import kind_named


def exportable(config: TrainConfig) -> str | None:
    """Why the policy of a configuration is not written as NIR; None where it is."""
    if config.algorithm.own_networks or config.network.policy != "snn":
        return "NIR has no words for a policy without spikes"
    return None


def check_exportable(config: TrainConfig) -> None:
    """Refuse now what could not be written after the training: a policy needs the time between its actions.

    Raises:
        NervecordError: the task does not say it.
    """
    # Simulators with tasks of their own know it themselves.
    if exportable(config) is None and kind_named(config.run.sim).knows_gymnasium:
        control_period(config.task.env)


def policy_from_checkpoint(config: TrainConfig, content: Mapping[str, Any]) -> SpikingPolicy:
    """The trained spiking policy of a checkpoint, on the CPU.

    Raises:
        NervecordError: the run trained a policy without spikes.
    """
    if config.network.policy != "snn":
        raise NervecordError(
            "is a policy without spikes, and only spiking policies are written as NIR", where="--policy ann"
        )
    learnt = content["learner"]
    weights = {name.removeprefix("net."): value for name, value in learnt["actor"].items() if name.startswith("net.")}
    observations, actions = len(learnt["obs_rms"]["mean"]), content["choices"] or len(content["low"])
    policy = SpikingPolicy(observations, actions, config)
    policy.load_state_dict(weights)
    return policy


def describe_checkpoint(config: TrainConfig, content: Mapping[str, Any]) -> PolicyDescription:
    """The numbers of a checkpoint's policy."""
    return describe(
        policy_from_checkpoint(config, content),
        normaliser=content["learner"]["obs_rms"],
        epsilon=EPSILON,
        clip=config.task.obs_clip,
        low=content["low"].numpy(),
        high=content["high"].numpy(),
        choices=content["choices"],
    )


def core_nodes(description: PolicyDescription) -> list[tuple[str, Op]]:
    """The spiking core's chain, in order: connection, neurons, ..., connection, readout."""
    named: list[tuple[str, Op]] = []
    readout, delay = description.readout, description.delay
    for index, layer in enumerate(description.layers, 1):
        last = isinstance(readout, CountReadout) and index == len(description.layers)
        number = "_out" if last else str(index)
        named += [(f"fc{number}", Affine(layer.weight, layer.bias, delay=delay)), (f"lif{number}", _neurons(layer))]
    if isinstance(readout, MembraneReadout):
        size = len(readout.bias)
        neurons = Neuron(Membrane(np.full(size, readout.decay), np.ones(size), np.zeros(size)))
        named += [("fc_out", Affine(readout.weight, readout.bias, delay=delay)), ("readout", neurons)]
    return named


def _loops(description: PolicyDescription) -> list[tuple[str, Op, str]]:
    """Of every layer that hears itself: the connection's name, the connection, the neurons."""
    return [
        (f"back{index}", Affine(layer.recurrent, delay=1), f"lif{index}")
        for index, layer in enumerate(description.layers, 1)
        if layer.recurrent is not None
    ]


def _encoder(description: PolicyDescription) -> list[tuple[str, Op]]:
    code = description.encoder
    if code is None:
        return []
    return [("encode", PopulationEncode(np.tile(code.mean, (description.observations, 1)), code.sigma))]


def _decoder(description: PolicyDescription) -> Op:
    readout, low, high = description.readout, description.low, description.high
    if description.choices and isinstance(readout, CountReadout):
        return CountArgmaxDecode(readout.weight / description.steps, readout.offset)
    if description.choices:
        return ArgmaxDecode(description.choices)
    if isinstance(readout, CountReadout):
        return CountDecode(readout.weight / description.steps, readout.offset, low, high)
    return Decode(np.ones(len(low)), np.zeros(len(low)), low, high)


def _neurons(layer: SpikingLayer) -> Neuron:
    size = len(layer.bias)
    ones, zeros = np.ones(size), np.zeros(size)
    synapse = None if layer.alpha is None else Synapse(layer.alpha * ones, ones)
    return Neuron(Membrane(layer.beta * ones, ones, zeros), synapse, Spike(layer.threshold * ones, zeros))


def policy_graph(
    description: PolicyDescription,
    config: TrainConfig,
    *,
    recorded: np.ndarray | None = None,
    provenance: Mapping[str, str] | None = None,
    period: float | None = None,
) -> Policy:
    """The policy, at the DISCRETE level, with its contract.

    Args:
        description: its numbers.
        config: of its training: task, seed.
        recorded: raw observations (k, observations) for calibration.
        provenance: tool versions, commit, hash of the configuration.
        period: seconds between two actions; None: what Gymnasium's task says.
    """
    size, actions = description.observations, len(description.low)
    low, high = (tuple(float(value) for value in side) for side in (description.low, description.high))
    environment = kind_named(config.run.sim).prefix + config.task.env
    observation, action = channels(environment, size, low, high)
    if period is None:
        period = control_period(config.task.env)
    contract = Contract(
        environment=environment,
        observation=observation,
        action=action,
        steps=description.steps,
        state=description.state,  # type: ignore[arg-type]  # "reset" or "carried", checked there
        control_period=period,
        # No torque, or the allowed value nearest to it; of choices the first, as most have none that is neutral.
        fail_safe=tuple(float(value) for value in np.clip(0.0, description.low, description.high)),
        seed=config.run.seed,
        provenance=dict(provenance or {}),
        choices=choice_names(config.task.env, description.choices),
        wrappers=config.task.wrappers,
    )
    normalise = Normalise(
        description.mean, description.variance, description.epsilon, description.clip, epsilon_outside=True
    )
    named: dict[str, Op] = dict(
        [
            ("observation", Input((size,))),
            ("normalise", normalise),
            *_encoder(description),
            *core_nodes(description),
            ("decode", _decoder(description)),
            ("action", Output((actions,))),
        ]
    )
    edges: list[Edge] = list(itertools.pairwise(named))
    for name, connection, neurons in _loops(description):
        named[name] = connection
        edges += [(neurons, name), (name, neurons)]
    graph = Graph(Level.DISCRETE, named, tuple(edges), period / description.steps)
    return Policy(graph, contract, recorded if recorded is not None and len(recorded) else None)


def provenance(
    config: TrainConfig, versions: Mapping[str, Any], *, step: int, result: Mapping[str, Any]
) -> dict[str, str]:
    """Where a policy comes from, as strings: versions, commit, hash of the configuration, step, tested return."""
    learnt = {name: value for name, value in config.fields.items() if name not in marked("free")}
    text = repr(sorted(learnt.items()))
    entries = {
        "configuration_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "git_commit": versions.get("git_commit") or "unknown",
        "python": versions["python"],
        "simulator": versions["simulator"],
        "training_steps": str(step),
    }
    entries |= {f"{name}_version": version for name, version in versions["packages"].items() if version}
    test = result.get("test")
    if test:
        entries["test_return"] = f"{test['mean_return']:.1f}"
        if test["standard_error"] is not None:
            entries["test_standard_error"] = f"{test['standard_error']:.1f}"
        entries["test_episodes"] = str(test["episodes"])
    return entries


def export(
    config: TrainConfig,
    content: Mapping[str, Any],
    path: Path,
    *,
    versions: Mapping[str, Any],
    result: Mapping[str, Any],
) -> Policy:
    """Write the policy of a checkpoint as NIR and return it.

    Args:
        config: of the training.
        content: the checkpoint.
        path: of the file.
        versions: what versions.json holds.
        result: what result.json holds.

    Raises:
        NervecordError: the run trained a policy without spikes, or the file cannot be written.
    """
    recorded: torch.Tensor = content["recorded"]
    policy = policy_graph(
        describe_checkpoint(config, content),
        config,
        recorded=recorded.double().numpy(),
        provenance=provenance(config, versions, step=int(content["step"]), result=result),
        period=content.get("control_period"),
    )
    write_nir(policy, path)
    return policy
