"""Small policies with random weights, for tests that need a graph and no training."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import Edge, Graph, chain
from nervecord.compiler.graph.policy import Policy
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
from nervecord.compiler.plan.calibrate import calibrate

RECORDED = 24
"""Rows that a policy carries: lowering runs each of its choices on all of them."""


def lif(size: int, decay: float = 0.84, *, threshold: float = 1.0, current: float | None = None) -> Neuron:
    """Spiking neurons of one decay; `current` is the decay of their synapse, None for none."""
    one, zero = np.ones(size), np.zeros(size)
    synapse = None if current is None else Synapse(current * one, one)
    return Neuron(Membrane(decay * one, one, zero), synapse, Spike(threshold * one, zero))


def li(size: int, decay: float = 0.9, *, current: float | None = None) -> Neuron:
    """Neurons whose membrane is read."""
    return lif(size, decay, current=current).replace(spike=None)


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
    recorded: int = RECORDED,
    first: int = 1,
    population: int = 0,
    output_population: int = 0,
    choices: bool = False,
) -> Policy:
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
        names = tuple(f"choice {k}" for k in range(actions))
        contract = dataclasses.replace(contract, action=one_channel, fail_safe=(actions - 1.0,), choices=names)
    nodes: list[tuple[str, Op]] = [
        ("observation", Input((observations,))),
        ("normalise", Normalise(rng.normal(size=observations), rng.uniform(0.1, 2, size=observations), 1e-8, 10.0)),
    ]
    if population:
        nodes.append(("encode", population_code(observations, population)))
    widths = [observations * max(population, 1), *sizes[1:-1], actions * max(output_population, 1)]
    for k, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=first):
        readout = k == len(sizes) - 2 + first and not output_population
        gain = 0.05 if readout else (1.0 if k == first else 4.0) / np.sqrt(inputs)
        weight = rng.normal(size=(outputs, inputs)) * gain
        nodes.append((f"fc{k}", Affine(weight, bias * rng.normal(size=outputs), 1 if state == "carried" else 0)))
        synapse = 0.5 if current else None
        nodes.append(
            ("readout", li(outputs, current=synapse)) if readout else (f"lif{k}", lif(outputs, current=synapse))
        )
    one, zero = np.ones(actions), np.zeros(actions)
    decode: Op = Decode(one, zero, -one, one)
    if output_population:
        weight = rng.normal(size=(actions, output_population)) / steps
        decode = CountDecode(weight, 0.1 * rng.normal(size=actions), -one, one)
        if choices:
            decode = CountArgmaxDecode(weight, decode.offset)
    elif choices:
        decode = ArgmaxDecode(actions)
    nodes += [("decode", decode), ("action", Output((contract.action.size,)))]
    graph = chain(Level.DISCRETE, nodes, dt=1e-3)
    policy = Policy(graph, contract, rng.normal(size=(recorded, observations)) if recorded else None)
    return balanced(policy) if choices else policy


def balanced(policy: Policy) -> Policy:
    """A policy that chooses, its biases moved so that no action leads on average of the recorded observations."""
    mean = preferences(policy)
    decode = policy.graph.nodes["decode"]
    if isinstance(decode, CountArgmaxDecode):
        return with_node(policy, "decode", decode.replace(offset=decode.offset - mean))
    (readout,) = policy.graph.sources("decode")
    (name,) = policy.graph.sources(readout)

    def moved(by: np.ndarray) -> Policy:
        last = policy.graph.nodes[name]
        assert isinstance(last, Affine)
        assert last.bias is not None
        return with_node(policy, name, last.replace(bias=last.bias + by))

    return moved(-mean / (preferences(moved(np.ones_like(mean))) - mean))


def with_node(policy: Policy, name: str, op: Op) -> Policy:
    """The policy with another op of this name."""
    return policy.replace(graph=policy.graph.replace(nodes={**policy.graph.nodes, name: op}))


def preferences(policy: Policy) -> np.ndarray:
    """Mean preference of each action on the recorded observations."""
    values = calibrate(policy).preferences
    assert values is not None
    return values.mean(axis=0)


def population_code(channels: int, neurons: int, sigma: float = 0.4) -> PopulationEncode:
    """Receptive fields over -3..3 of each channel."""
    return PopulationEncode(np.tile(np.linspace(-3, 3, neurons), (channels, 1)), sigma)


def random_dag(seed: int, *, carried: bool = False, recurrent: bool = False) -> Policy:
    """A DISCRETE policy that branches: skips, several populations into one, two readouts, sometimes two Inputs.

    With `carried` every connection has a delay, with `recurrent` some of them lead back.
    """
    rng = np.random.default_rng(seed)
    observations = [int(k) for k in rng.integers(1, 7, size=int(rng.integers(1, 3)))]
    actions = [int(k) for k in rng.integers(1, 4, size=int(rng.integers(1, 3)))]
    delay = 1 if carried else 0
    nodes: dict[str, Op] = {}
    edges: list[Edge] = []
    sources: dict[str, int] = {}
    for k, size in enumerate(observations):
        nodes[f"observation{k}"] = Input((size,))
        nodes[f"normalise{k}"] = Normalise(rng.normal(size=size), rng.uniform(0.1, 2, size=size), 1e-8, 8.0)
        edges.append((f"observation{k}", f"normalise{k}"))
        sources[f"normalise{k}"] = size

    def connect(name: str, source: str, target: str, size: int, gain: float, extra: int = 0) -> None:
        width = sources[source]
        bias = 0.1 * rng.normal(size=size) if rng.random() < 0.7 else None
        steps = delay + extra
        nodes[name] = Affine(rng.normal(size=(size, width)) * gain / np.sqrt(width), bias, steps)
        edges.extend([(source, name), (name, target)])

    hidden = int(rng.integers(2, 6))
    for k in range(hidden):
        size = int(rng.integers(2, 12))
        # The first ones take all inputs, so that none is left over.
        origins = [f"normalise{k}"] if k < len(observations) else []
        origins += [s for s in rng.permutation(sorted(sources)) if s not in origins][
            : int(rng.integers(0 if origins else 1, 3))
        ]
        for j, source in enumerate(origins):
            gain = 1.0 if source.startswith("normalise") else 3.0
            connect(f"fc{k}.{j}", str(source), f"lif{k}", size, gain, int(rng.integers(0, 3)) if carried else 0)
        nodes[f"lif{k}"] = lif(size, float(rng.uniform(0.5, 0.95)), current=0.5 if rng.random() < 0.2 else None)
        sources[f"lif{k}"] = size
    if recurrent:
        name = f"lif{int(rng.integers(hidden))}"
        connect("back", name, name, sources[name], 1.0, int(rng.integers(0, 2)))
    fed = {a for a, _ in edges}
    loose = [name for name in sources if name not in fed]
    for k, size in enumerate(actions):
        origins = loose if k == 0 else []
        origins = origins or [str(rng.choice([s for s in sources if s.startswith("lif")]))]
        for j, source in enumerate(origins):
            connect(f"out{k}.{j}", source, f"readout{k}", size, 0.1)
        nodes[f"readout{k}"] = li(size)
        one = np.ones(size)
        nodes[f"decode{k}"] = Decode(one, 0 * one, -one, one)
        nodes[f"action{k}"] = Output((size,))
        edges += [(f"readout{k}", f"decode{k}"), (f"decode{k}", f"action{k}")]
    names = [str(name) for name in rng.permutation(list(nodes))]
    # The observation's parts have the order of the Inputs in the graph, the action's that of the Outputs.
    total, width = sum(observations), sum(actions)
    contract = Contract(
        environment="Ant-v4",
        observation=Channels(tuple(f"o{i}" for i in range(total)), ("",) * total),
        action=Channels(tuple(f"a{i}" for i in range(width)), ("",) * width, (-1.0,) * width, (1.0,) * width),
        steps=int(rng.integers(1, 7)),
        state="carried" if carried else "reset",
        control_period=0.05,
        fail_safe=(0.0,) * width,
    )
    shuffled = tuple(edges[int(i)] for i in rng.permutation(len(edges)))
    graph = Graph(Level.DISCRETE, {name: nodes[name] for name in names}, shuffled, 1e-3)
    return Policy(graph, contract, rng.normal(size=(RECORDED, total)))
