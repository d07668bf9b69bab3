"""Small policies with random weights, for tests that need a graph and no training."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from nervecord.compiler import nodes as n
from nervecord.compiler.calibrate import calibrate
from nervecord.compiler.contract import Channels, Contract
from nervecord.compiler.graph import Graph, Level, chain
from nervecord.compiler.node import Node


def random_policy(
    seed: int = 0,
    *,
    sizes: tuple[int, ...] = (27, 32, 8),
    steps: int = 5,
    state: str = "reset",
    current: bool = False,
    bias: float = 0.1,
    environment: str = "Ant-v4",
    control_period: float = 0.05,
    recorded: int = 64,
    first: int = 1,
    population: int = 0,
    output_population: int = 0,
    choices: bool = False,
) -> Graph:
    """A DISCRETE policy of `sizes` = (observations, hidden..., actions), lively but far from saturation.

    Its layers are called fc<first>, lif<first>, and so on. With `population` the observation enters as spikes of so
    many neurons per channel, with `output_population` each action is decoded from the spike counts of so many neurons.
    With `choices` the action is one of `actions`.
    """
    rng = np.random.default_rng(seed)
    observations, actions = sizes[0], sizes[-1]
    contract = Contract(
        environment=environment,
        observation=Channels(tuple(f"o{i}" for i in range(observations)), ("",) * observations),
        action=Channels(tuple(f"a{i}" for i in range(actions)), ("",) * actions, (-1.0,) * actions, (1.0,) * actions),
        steps=steps,
        state=state,  # type: ignore[arg-type]
        control_period=control_period,
        fail_safe=(0.0,) * actions,
    )
    if choices:
        one_channel = Channels(("action",), ("1",), (0.0,), (actions - 1.0,))
        named = tuple(f"choice {k}" for k in range(actions))
        contract = dataclasses.replace(contract, action=one_channel, fail_safe=(actions - 1.0,), choices=named)
    nodes: list[tuple[str, Node]] = [
        ("observation", n.Input((observations,))),
        (
            "normalise",
            n.Normalise(rng.normal(size=observations), rng.uniform(0.1, 2, size=observations), 1e-8, 10.0),
        ),
    ]
    if population:
        nodes.append(("encode", population_code(observations, population)))
    widths = [observations * max(population, 1), *sizes[1:-1], actions * max(output_population, 1)]
    for k, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=first):
        readout = k == len(sizes) - 2 + first and not output_population
        gain = 0.05 if readout else (1.0 if k == first else 4.0) / np.sqrt(inputs)
        weight = rng.normal(size=(outputs, inputs)) * gain
        nodes.append((f"fc{k}", n.Affine(weight, bias * rng.normal(size=outputs), 1 if state == "carried" else 0)))
        one, zero = np.ones(outputs), np.zeros(outputs)
        decay = (0.9 if readout else 0.84) * one
        neuron: Node
        if readout:
            neuron = n.DiscreteCubaLI(0.5 * one, one, decay, one, zero) if current else n.DiscreteLI(decay, one, zero)
            nodes.append(("readout", neuron))
        else:
            neuron = (
                n.DiscreteCubaLIF(0.5 * one, one, decay, one, zero, one, zero)
                if current
                else n.DiscreteLIF(decay, one, zero, one, zero)
            )
            nodes.append((f"lif{k}", neuron))
    one, zero = np.ones(actions), np.zeros(actions)
    decode: Node = n.Decode(one, zero, -one, one)
    if output_population:
        weight = rng.normal(size=(actions, output_population)) / steps
        decode = n.CountDecode(weight, 0.1 * rng.normal(size=actions), -one, one)
        if choices:
            decode = n.CountArgmaxDecode(weight, decode.offset)
    elif choices:
        decode = n.ArgmaxDecode(actions)
    nodes += [("decode", decode), ("action", n.Output((contract.action.size,)))]
    policy = chain(
        Level.DISCRETE,
        nodes,
        dt=1e-3,
        contract=contract,
        recorded=rng.normal(size=(recorded, observations)) if recorded else None,
    )
    return balanced(policy) if choices else policy


def balanced(policy: Graph) -> Graph:
    """A policy that chooses, its biases moved so that no action leads on average of the recorded observations."""
    mean = preferences(policy)
    decode = policy.nodes["decode"]
    if isinstance(decode, n.CountArgmaxDecode):
        return policy.replace(
            nodes={**policy.nodes, "decode": n.CountArgmaxDecode(decode.weight, decode.offset - mean)}
        )
    (readout,) = policy.sources("decode")
    (name,) = policy.sources(readout)

    def moved(by: np.ndarray) -> Graph:
        last = policy.nodes[name]
        assert isinstance(last, n.Affine)
        assert last.bias is not None
        return policy.replace(nodes={**policy.nodes, name: n.Affine(last.weight, last.bias + by, last.delay)})

    return moved(-mean / (preferences(moved(np.ones_like(mean))) - mean))


def preferences(policy: Graph) -> np.ndarray:
    """Mean preference of each action on the recorded observations."""
    found = calibrate(policy).preferences
    assert found is not None
    return found.mean(axis=0)


def population_code(channels: int, neurons: int, sigma: float = 0.4) -> n.PopulationEncode:
    """Receptive fields over -3..3 of each channel."""
    return n.PopulationEncode(np.tile(np.linspace(-3, 3, neurons), (channels, 1)), sigma)
