"""What every engine is tried on: one case for each op, each choice of its parts and each shape of graph.

A case is a policy, or a graph that is none, in floats. What a target's spec says against it must be what compiling
refuses; where nothing speaks against it, it compiles, and every engine of the target equals the definition.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from policies import li, lif, random_dag, random_policy, with_node

from nervecord.compiler.graph import Edge, Graph, chain
from nervecord.compiler.ops import (
    Activation,
    Affine,
    Conv,
    DelayLine,
    Flatten,
    Input,
    Level,
    Neuron,
    Op,
    Output,
    Pool,
    Scale,
    Threshold,
)
from nervecord.compiler.policy import Policy
from nervecord.compiler.schedule import STREAM, Schedule

SIZES = (6, 12, 4)
HIDDEN = SIZES[1]


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        make: the policy or graph.
        about: what is in it.
        schedule: of a graph that is no policy.
        values: what enters that: "spikes" or "values".
    """

    make: Callable[[], Policy | Graph]
    about: str
    schedule: Schedule = STREAM
    values: str = "spikes"


def policy(seed: int = 0, sizes: tuple[int, ...] = SIZES, **options: Any) -> Policy:
    return random_policy(seed, sizes=sizes, **options)


def part(which: str, **changes: Any) -> Policy:
    """A policy with fields of a part of its hidden layer changed."""
    made = policy()
    op = made.graph.nodes["lif1"]
    return with_node(made, "lif1", op.replace(**{which: dataclasses.replace(getattr(op, which), **changes)}))


def wired(made: Policy, cut: tuple[str, str], *edges: Edge, **nodes: Op) -> Policy:
    graph = made.graph
    kept = tuple(edge for edge in graph.edges if edge != cut)
    return made.replace(graph=graph.replace(nodes={**graph.nodes, **nodes}, edges=(*kept, *edges)))


def full(value: float) -> Any:
    return np.full(HIDDEN, value)


def weights(*shape: int) -> Any:
    rng = np.random.default_rng(sum(shape))
    return (rng.normal(size=shape) * 2 + 1) / np.sqrt(np.prod(shape[1:]))


def population(shape: tuple[int, ...]) -> Neuron:
    """Spiking neurons in the shape of a picture."""
    flat = lif(int(np.prod(shape)), 0.8, threshold=0.7)
    parts = {
        name: dataclasses.replace(piece, **{
            f.name: getattr(piece, f.name).reshape(shape) for f in dataclasses.fields(piece)
            if isinstance(getattr(piece, f.name), np.ndarray)
        })
        for name in ("membrane", "spike") if (piece := getattr(flat, name)) is not None
    }  # fmt: skip
    return flat.replace(**parts)


def stream(
    *nodes: tuple[str, Op], shape: tuple[int, ...] = (5,), carries: str = "spikes", delay: int = 0, read: bool = False
) -> Graph:
    """An Input, these nodes, one more layer of neurons, which spikes or is read, an Output."""
    limit = 4.0 if carries == "values" else None
    named: list[tuple[str, Op]] = [("in", Input(shape, carries, limit)), *nodes]
    last = named[-1][1]
    named += [
        ("fc_last", Affine(weights(3, last.size), None, delay)),
        ("last", li(3, 0.7) if read else lif(3, 0.7)),
        ("out", Output((3,))),
    ]
    return chain(Level.DISCRETE, named, dt=1e-3)


def pictures(op: Op) -> Graph:
    """A picture of two channels through one op into neurons."""
    return stream(
        ("op", op), ("lif", population(op.out_shape)), ("flat", Flatten(op.out_shape, 0, -1)), shape=op.in_shape
    )


SKIP = Affine(weights(4, 6) / 10)
CASES: dict[str, Case] = {
    # Shapes
    "chain": Case(policy, "one hidden layer, state cleared before each action"),
    "deep": Case(lambda: policy(1, (6, 9, 8, 7, 4)), "three hidden layers"),
    "carried": Case(lambda: policy(2, state="carried"), "state carried from action to action, delays of a step"),
    "skip": Case(
        lambda: wired(policy(), ("", ""), ("normalise", "around"), ("around", "readout"), around=SKIP),
        "the observation reaches the readout by a longer and a shorter path",
    ),
    **{f"branches {k}": Case(lambda k=k: random_dag(k), "skips, fan-in, fan-out, one or two Inputs and Outputs")  # type: ignore[misc]
       for k in (3, 4, 7)},
    **{f"branches carried {k}": Case(lambda k=k: random_dag(k, carried=True), "the same with delays, state carried")  # type: ignore[misc]
       for k in (2, 5)},
    **{f"recurrence {k}": Case(lambda k=k: random_dag(k, carried=True, recurrent=True), "and a layer that hears itself")  # type: ignore[misc]
       for k in (5, 6)},
    # Ends
    "population code": Case(lambda: policy(3, population=5), "the observation enters as spikes of populations"),
    "spike counts": Case(lambda: policy(4, output_population=3), "actions are read from counts of spikes"),
    "code and counts": Case(
        lambda: policy(5, population=5, output_population=3, state="carried"), "both, state carried"
    ),
    "choice": Case(lambda: policy(6, choices=True), "the action is the largest membrane"),
    "choice by counts": Case(lambda: policy(7, choices=True, output_population=3), "the action is the largest count"),
    # Neurons
    "synaptic current": Case(lambda: policy(8, current=True), "neurons with a current of their own"),
    "synaptic current carried": Case(lambda: policy(9, current=True, state="carried"), "and carried state"),
    "no leak": Case(lambda: part("membrane", decay=full(1.0)), "neurons that only integrate"),
    "leak": Case(lambda: part("membrane", leak=full(0.1)), "a term that is added at every step"),
    "gain": Case(lambda: part("membrane", gain=np.linspace(0.5, 1.5, HIDDEN)), "gains that differ by neuron"),
    "decays": Case(lambda: part("membrane", decay=np.linspace(0.5, 0.9, HIDDEN)), "decays that differ by neuron"),
    "thresholds": Case(lambda: part("spike", threshold=np.linspace(0.8, 1.5, HIDDEN)), "thresholds that differ"),
    "reset by subtraction": Case(lambda: part("spike", reset="subtract"), "a spike takes the threshold off"),
    "no reset": Case(lambda: part("spike", reset="none"), "a spike leaves the membrane as it is"),
    "reset to a value": Case(lambda: part("spike", reset_value=full(0.1)), "a spike sets the membrane to 0.1"),
    "refractory": Case(lambda: part("spike", refractory=1), "a silent step after each spike"),
    "analogue layer": Case(lambda: with_node(policy(), "lif1", li(HIDDEN, 0.5)), "a hidden layer that gives membranes"),
    "stateless spike": Case(lambda: with_node(policy(), "lif1", Threshold(full(1.0))), "a threshold without memory"),
    # What passes values on, convolutions, streams
    "scaled": Case(
        lambda: wired(policy(), ("fc1", "lif1"), ("fc1", "scale"), ("scale", "lif1"), scale=Scale(full(1.0))),
        "values scaled between connection and neurons",
    ),
    "neurons behind neurons": Case(
        lambda: wired(policy(), ("lif1", "fc2"), ("lif1", "more"), ("more", "fc2"), more=lif(HIDDEN)),
        "spikes that pass no weights",
    ),
    **{function: Case(
        lambda function=function: stream(  # type: ignore[misc]
            ("fc", Affine(weights(7, 5))), ("act", Activation(function, (7,))), ("fc2", Affine(weights(6, 7))),
            ("lif", lif(6)), carries="values",
        ),
        "a function of each value between two connections", values="values",
    ) for function in ("tanh", "relu", "elu")},
    "delay line": Case(
        lambda: stream(
            ("fc", Affine(weights(7, 5), None, 1)), ("lif", lif(7)), ("line", DelayLine(np.arange(7) % 3 + 1)), delay=1
        ),
        "spikes delayed, each channel by its own steps",
    ),
    "stream of spikes": Case(
        lambda: stream(("fc", Affine(weights(7, 5), None, 1)), ("lif", lif(7)), delay=1),
        "no policy: spikes step by step",
    ),
    "stream of values": Case(
        lambda: stream(("fc", Affine(weights(7, 5), None, 1)), ("lif", lif(7)), carries="values", delay=1),
        "no policy: values step by step", values="values",
    ),
    "stream of membranes": Case(
        lambda: stream(("fc", Affine(weights(7, 5), None, 1)), ("lif", lif(7)), delay=1, read=True),
        "no policy: membranes leave step by step",
    ),
    "stream in blocks": Case(
        lambda: stream(("fc", Affine(weights(7, 5))), ("lif", lif(7))), "state cleared before each block of 5 steps",
        Schedule(5, "reset"),
    ),
    "flattened": Case(
        lambda: stream(("flat", Flatten((2, 3, 2), 0, -1)), ("fc", Affine(weights(7, 12), None, 1)), ("lif", lif(7)),
                       shape=(2, 3, 2), delay=1),
        "a picture as a vector",
    ),
    "convolution in 1-D": Case(
        lambda: pictures(Conv(weights(4, 1, 3), weights(4, 1)[:, 0] / 9, (2,), (1,), (1,), 2, (6,))),
        "stride, padding, groups, bias",
    ),
    "convolution in 2-D": Case(
        lambda: pictures(Conv(weights(3, 2, 3, 2), None, (1, 2), (1, 0), (1, 2), 1, (5, 6))),
        "padding, dilation, stride",
    ),
    "sum pooling": Case(lambda: pictures(Pool("sum", (2, 2), (2, 2), (0, 0), (2, 4, 4))), "windows of 2 x 2"),
    "average pooling": Case(lambda: pictures(Pool("average", (2, 2), (2, 1), (1, 0), (2, 4, 4))), "with padding"),
}  # fmt: skip
"""Name -> case; the document has this order."""
