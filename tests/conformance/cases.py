"""What every engine is tried on: one case for each op, each choice of its parts and each shape of graph.

A case is a policy, or a graph that is none, in floats. What a target's spec says against it must be what compiling
refuses; where nothing speaks against it, it compiles, and every engine of the target equals the definition.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from graphs import LAVA
from policies import li, lif, random_dag, random_policy, with_node

from nervecord.compiler.graph.graph import Edge, Graph, chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import STREAM, Schedule
from nervecord.compiler.ops import (
    OPS,
    PART_TYPES,
    Activation,
    Affine,
    Conv,
    Csr,
    DelayLine,
    Delta,
    Dense,
    Flatten,
    Input,
    Level,
    Neuron,
    Op,
    Output,
    Pool,
    Scale,
    Sigma,
    SigmaDelta,
    SparseAffine,
    Threshold,
    fields,
)
from nervecord.compiler.ops.level import EXECUTABLE
from nervecord.compiler.ops.neurons import RESETS
from nervecord.compiler.ops.sparse import Convolution

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
    base = policy()
    op = base.graph.nodes["lif1"]
    return with_node(base, "lif1", op.replace(**{which: dataclasses.replace(getattr(op, which), **changes)}))


def wired(policy: Policy, cut: tuple[str, str], *edges: Edge, **nodes: Op) -> Policy:
    graph = policy.graph
    old_edges = tuple(edge for edge in graph.edges if edge != cut)
    return policy.replace(graph=graph.replace(nodes={**graph.nodes, **nodes}, edges=(*old_edges, *edges)))


def full(value: float) -> Any:
    return np.full(HIDDEN, value)


def weights(*shape: int) -> Any:
    rng = np.random.default_rng(sum(shape))
    return (rng.normal(size=shape) * 2 + 1) / np.sqrt(np.prod(shape[1:]))


def population(shape: tuple[int, ...]) -> Neuron:
    """Spiking neurons in the shape of a picture."""
    flat = lif(int(np.prod(shape)), 0.8, threshold=0.7)
    parts = {
        name: dataclasses.replace(
            piece,
            **{
                f.name: getattr(piece, f.name).reshape(shape)
                for f in dataclasses.fields(piece)
                if isinstance(getattr(piece, f.name), np.ndarray)
            },
        )
        for name in ("membrane", "spike")
        if (piece := getattr(flat, name)) is not None
    }
    return flat.replace(**parts)


def stream(
    *nodes: tuple[str, Op],
    shape: tuple[int, ...] = (5,),
    carries: str = "spikes",
    delay: int = 0,
    readout: bool = False,
    limit: float = 4.0,
) -> Graph:
    """An Input, these nodes, one more layer of neurons, which spikes or is read, an Output."""
    values: Any = carries
    items: list[tuple[str, Op]] = [("in", Input(shape, values, limit if carries == "values" else None)), *nodes]
    last = items[-1][1]
    items += [
        ("fc_last", Affine(weights(3, last.size), None, delay)),
        ("last", li(3, 0.7) if readout else lif(3, 0.7)),
        ("out", Output((3,))),
    ]
    return chain(Level.DISCRETE, items, dt=1e-3)


def pictures(op: Op) -> Graph:
    """A picture of two channels through one op into neurons."""
    return stream(
        ("op", op), ("lif", population(op.out_shape)), ("flat", Flatten(op.out_shape, 0, -1)), shape=op.in_shape
    )


# --------------------------------------------------------------------------------------------------------------------
# Choices


@dataclass(frozen=True, order=True)
class Choice:
    """A value of a declared choice: one of several words, a flag, or whether there is what may be left out."""

    of: str
    field: str
    value: str

    @property
    def name(self) -> str:
        return f"{self.of}.{self.field}: {self.value}"


def choices() -> Iterator[tuple[Choice, bool]]:
    """(each value of each choice of what can be executed, whether it is the default), as the ops declare them."""
    for kind in (*OPS.values(), *PART_TYPES.values()):
        defaults = {field.name: field.default for field in dataclasses.fields(kind)}
        if not EXECUTABLE & (kind.LEVELS if hasattr(kind, "LEVELS") else {kind.LEVEL}):
            continue
        for name, declared in fields.declarations(kind):
            values = {"choice": declared.options, "flag": ("False", "True")}.get(declared.kind, ())
            values = ("None", "given") if declared.optional else values
            for value in values:
                yield Choice(kind.__name__, name, value), value == str(defaults[name])


def choices_of(graph: Graph) -> Iterator[Choice]:
    """Those that a graph has."""
    parts = [
        (op, getattr(op, name))
        for op in graph.nodes.values()
        for name, declared in fields.declarations(type(op))
        if declared.kind == "part"
    ]
    for piece in (*graph.nodes.values(), *(part for _, part in parts if part is not None)):
        for name, declared in fields.declarations(type(piece)):
            value = getattr(piece, name)
            if declared.optional:
                yield Choice(type(piece).__name__, name, "None" if value is None else "given")
            elif declared.kind in ("choice", "flag"):
                yield Choice(type(piece).__name__, name, str(value))


def rows(shape: Convolution | None = None, bias: bool = False) -> Graph:
    """A connection in compressed rows, into neurons."""
    if shape is not None:
        kernel = weights(shape.features, shape.input_shape[0] // shape.groups, *shape.kernel)
        op = SparseAffine.of(shape.unrolled(kernel), None, convolution=shape)
    else:
        matrix = weights(7, 5) * (np.random.default_rng(2).random((7, 5)) < 0.6)
        op = SparseAffine.of(Csr.of(matrix), weights(7, 1)[:, 0] / 9 if bias else None)
    return stream(("fc", op), ("lif", lif(op.size)), shape=(op.in_shape[0],))


def sigma_delta(activation: Any) -> Graph:
    """A network of changes, in integers from the start."""
    rng = np.random.default_rng(3)
    nodes: list[tuple[str, Op]] = [
        ("in", Input((3,), "values", 30.0)),
        ("copy", Dense(2 * np.eye(3), -1, 8, 1)),
        ("delta", Delta(3, 2)),
        ("fc", Dense(2 * rng.integers(-9, 9, size=(5, 3)), -3, 8, 1)),
        ("layer", SigmaDelta(rng.integers(-9, 9, size=5), 1, activation)),
        ("last", Dense(2 * rng.integers(-9, 9, size=(2, 5)), -3, 8, 1)),
        ("sum", Sigma(2)),
        ("out", Output((2,))),
    ]
    return chain(Level.INTEGER, nodes, dt=1e-3, arithmetic=LAVA)


def limited(policy: Policy, limit: float = 0.4) -> Policy:
    """What a policy gets is clipped before all else."""
    return with_node(policy, "observation", Input((SIZES[0],), "values", limit))


def bare() -> Policy:
    """Observations that no normaliser passes."""
    base = limited(policy(), 1.5)
    edges = [e for e in base.graph.edges if "normalise" not in e]
    nodes = {name: op for name, op in base.graph.nodes.items() if name != "normalise"}
    return base.replace(graph=base.graph.replace(nodes=nodes, edges=(*edges, ("observation", "fc1"))))


MAKERS: dict[tuple[str, str], Callable[[str], Policy | Graph]] = {
    ("Spike", "reset"): lambda value: part("spike", reset=value),
    ("Pool", "mode"): lambda value: pictures(Pool(value, (2, 2), (2, 1), (1, 0), (2, 4, 4))),  # type: ignore[arg-type]
    ("Activation", "function"): lambda value: stream(
        ("fc", Affine(weights(7, 5))),
        ("act", Activation(value, (7,))),
        ("fc2", Affine(weights(6, 7))),  # type: ignore[arg-type]
        ("lif", lif(6)),
        carries="values",
    ),
    ("Input", "limit"): lambda _: limited(policy()),
    ("SparseAffine", "bias"): lambda _: rows(bias=True),
    ("SparseAffine", "convolution"): lambda _: rows(Convolution(3, (2, 5, 6), (3, 2), (1, 2), (1, 0), (1, 2))),
    ("Normalise", "epsilon_outside"): lambda value: with_node(
        policy(), "normalise", policy().graph.nodes["normalise"].replace(epsilon=0.3, epsilon_outside=value == "True")
    ),
}
"""Op or part, and its choice -> a case of a value of that."""


def choice_cases() -> dict[str, Case]:
    """A case of each value that is not the default, of each choice that `MAKERS` can make; others are below."""
    abouts = {
        (kind.__name__, name): declared.about
        for kind in (*OPS.values(), *PART_TYPES.values())
        for name, declared in fields.declarations(kind)
    }
    return {
        choice.name: Case(
            lambda choice=choice: MAKERS[choice.of, choice.field](choice.value),  # type: ignore[misc]
            abouts[choice.of, choice.field],
            values="values" if choice.of == "Activation" else "spikes",
        )
        for choice, default in choices()
        if not default and (choice.of, choice.field) in MAKERS
    }


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
    **{
        f"branches {k}": Case(lambda k=k: random_dag(k), "skips, fan-in, fan-out, one or two Inputs and Outputs")  # type: ignore[misc]
        for k in (3, 4, 7)
    },
    **{
        f"branches carried {k}": Case(lambda k=k: random_dag(k, carried=True), "the same with delays, state carried")  # type: ignore[misc]
        for k in (2, 5)
    },
    **{
        f"recurrence {k}": Case(
            lambda k=k: random_dag(k, carried=True, recurrent=True), "and a layer that hears itself"
        )  # type: ignore[misc]
        for k in (5, 6)
    },
    # Ends
    "population code": Case(lambda: policy(3, population=5), "the observation enters as spikes of populations"),
    "spike counts": Case(lambda: policy(4, output_population=3), "actions are read from counts of spikes"),
    "code and counts": Case(
        lambda: policy(5, population=5, output_population=3, state="carried"), "both, state carried"
    ),
    "code with a bias source": Case(
        lambda: policy(3, population=5, current=True), "a channel that is always on carries a bias into currents"
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
    "reset to a value": Case(lambda: part("spike", reset_value=full(0.1)), "a spike sets the membrane to 0.1"),
    "refractory": Case(lambda: part("spike", refractory=1), "a silent step after each spike"),
    **{
        f"refractory, {rule}": Case(
            lambda rule=rule: part("spike", refractory=2, reset=rule),
            "and another reset",  # type: ignore[misc]
        )
        for rule in RESETS
        if rule != "value"
    },
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
        "no policy: values step by step",
        values="values",
    ),
    "stream of membranes": Case(
        lambda: stream(("fc", Affine(weights(7, 5), None, 1)), ("lif", lif(7)), delay=1, readout=True),
        "no policy: membranes leave step by step",
    ),
    "stream in blocks": Case(
        lambda: stream(("fc", Affine(weights(7, 5))), ("lif", lif(7))),
        "state cleared before each block of 5 steps",
        Schedule(5, "reset"),
    ),
    "flattened": Case(
        lambda: stream(
            ("flat", Flatten((2, 3, 2), 0, -1)),
            ("fc", Affine(weights(7, 12), None, 1)),
            ("lif", lif(7)),
            shape=(2, 3, 2),
            delay=1,
        ),
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
    # What an Input's limit takes off
    "limit before a code": Case(lambda: limited(policy(3, population=5)), "observations are clipped, then coded"),
    "limit, state carried": Case(lambda: limited(policy(2, state="carried")), "observations are clipped"),
    "limit alone": Case(bare, "observations are clipped, and not normalised"),
    "limit of a stream": Case(
        lambda: stream(("fc", Affine(weights(7, 5), None, 1)), ("lif", lif(7)), carries="values", delay=1, limit=1.5),
        "values are clipped step by step",
        values="values",
    ),
    # Each value of each choice that the ops declare
    **choice_cases(),
}
"""Name -> case; the document has this order."""
