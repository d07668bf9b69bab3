"""Networks in which one declared field stands at an end of its bounds, of each field of the ops that run.

The ends come from the declarations: of a number without bounds they are the largest that float64 holds, or, in the
core, numbers that are far from all others; of one that must be above a bound the next float64. A field that no case of
these, and no rule of `REFUSED`, has at an end fails `test_ends.py`.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from conformance.pairs import Row
from conformance.templates import (
    BASE,
    CLIP,
    FLOAT_NODES,
    HOST_NODES,
    LEAVES,
    SCALE,
    WIDEST,
    declared_of,
    host_policy,
    integer_nodes,
    integer_problems,
    linked,
    mantissas,
    normal,
    with_values,
)
from graphs import LAVA

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.contract import Channels
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.verify import verify
from nervecord.compiler.ops import (
    OPS,
    PART_TYPES,
    ArgmaxDecode,
    BiasChannel,
    Conv,
    DelayLine,
    Delta,
    Dense,
    Flatten,
    HostOp,
    Input,
    IntegerMembrane,
    IntegerSpike,
    Level,
    Neuron,
    Normalise,
    Op,
    Output,
    Pool,
    Quantise,
    Scale,
    Sigma,
    SigmaDelta,
    Sparse,
    SparseAffine,
    fields,
)
from nervecord.compiler.ops.level import EXECUTABLE
from nervecord.compiler.ops.sparse import Convolution
from nervecord.errors import NervecordError

LARGEST = float(np.finfo(np.float64).max)
FAR = 2.0**100
"""Of what engines compute in float32: sums of it stay finite there."""
NUMERIC = ("integer", "number", "array", "shape")
Place: TypeAlias = tuple[str, str, float]
"""An end of a field: its type's name, its name, the value."""


def ends_of(kind: type, declared: fields.Declared) -> tuple[float, float]:
    """The smallest and the largest value of a type's field."""
    most = LARGEST if issubclass(kind, HostOp) else FAR
    if declared.kind in ("integer", "shape"):
        return int(declared.low), int(declared.high)
    if declared.kind == "array" and np.issubdtype(declared.dtype, np.integer):
        info = np.iinfo(declared.dtype)
        return max(int(info.min), declared.low), min(int(info.max), declared.high)
    low = math.nextafter(declared.above, math.inf) if math.isfinite(declared.above) else max(declared.low, -most)
    return low, min(declared.high, most)


def places() -> list[Place]:
    """Both ends of every numeric field of every op that runs."""
    return [
        (kind.__name__, name, end)
        for kind in (*OPS.values(), *PART_TYPES.values())
        for name, declared in fields.declarations(kind)
        if declared.kind in NUMERIC and EXECUTABLE & (kind.LEVELS if hasattr(kind, "LEVELS") else {kind.LEVEL})
        for end in ends_of(kind, declared)
    ]


def reached(graph: Graph) -> Iterator[Place]:
    """The ends that a graph's fields have, an element of an array or a size of a shape among them."""
    for name, op in graph.nodes.items():
        for path, declared, owner in declared_of(op, name):
            field = path.rpartition(".")[2]
            value = getattr(owner, field)
            if declared.kind in NUMERIC and value is not None:
                yield from (
                    (type(owner).__name__, field, end) for end in ends_of(type(owner), declared) if np.any(value == end)
                )


def changed(value: Any, end: float) -> Any:
    """A field's value with one number at an end: the first one, or the last one of what can ascend to it."""
    if isinstance(value, np.ndarray):
        array = value.copy()
        array.flat[-1 if end > 0 else 0] = end
        return array
    return (int(end), *value[1:]) if isinstance(value, tuple) else end


def ended(nodes: Mapping[str, Op], place: Place) -> Iterator[tuple[str, Row]]:
    """(node, the row that brings the field to its end there) of every node with the field."""
    kind, field, end = place
    for name, op in nodes.items():
        for path, _, owner in declared_of(op, name):
            if type(owner).__name__ == kind and path.endswith(f".{field}") and getattr(owner, field) is not None:
                yield name, {path: changed(getattr(owner, field), end)}


def problems(subject: Graph | Policy) -> set[str]:
    """Codes of verification, with the nodes."""
    return {f"{finding.code} at {finding.node}" for finding in verify(subject)}


# --------------------------------------------------------------------------------------------------------------------
# One op, between an Input and an Output

FLAT = (1,) * fields.MOST_AXES
SMALL = {
    "pool": Pool("average", (1, 1), (1, 1), (0, 0), (1, 1, 1)),
    "conv": Conv(normal(1, 1, 1, 1), normal(1), (1, 1), (0, 0), (1, 1), 1, (1, 1)),
    "flat": Flatten(FLAT, 0, -1),
    "flat, last": Flatten(FLAT, fields.MOST_AXES - 1, -1),
    "flat, first": Flatten(FLAT, -fields.MOST_AXES, -fields.MOST_AXES),
    "rows": SparseAffine.of(
        Convolution(1, (1, 1), (1,), (1,), (0,), (1,), 1).unrolled(normal(1, 1, 1)),
        normal(1),
        convolution=Convolution(1, (1, 1), (1,), (1,), (0,), (1,), 1),
    ),
    "line": DelayLine(np.array([1, 2])),
    "in": Input((1,), "values", 2.0),
    "out": Output((1,)),
}
"""Ops of which a size or an axis can be the smallest or the last, and what no network of the templates has."""
CORE: dict[str, Op] = {**FLOAT_NODES, **{f"small {name}": op for name, op in SMALL.items()}}


def alone(op: Op, level: Level = Level.DISCRETE) -> Graph:
    """A network with one op; of an end, with a scale."""
    match op:
        case Input():
            nodes = {"in": op, "op": Scale(np.ones(1)), "out": Output(op.shape)}
        case Output():
            nodes = {"in": Input(op.shape), "op": Scale(np.ones(1)), "out": op}
        case _:
            nodes = {"in": Input(op.in_shape, "values", 2.0), "op": op, "out": Output(op.out_shape)}
    return Graph(level, nodes, linked("in op out"), 1e-3, LAVA if level is Level.INTEGER else None)


def float_ends() -> dict[Place, Graph | set[str]]:
    """Of each field of the core's ops the first network that is legal, or what speaks against each."""
    by_place: dict[Place, Graph | set[str]] = {}
    for place in places():
        against: set[str] = set()
        for name, row in ended(CORE, place):
            try:
                graph = alone(with_values(CORE[name], name, row))
            except (ZeroDivisionError, ValueError, IndexError) as error:
                against.add(f"raises {error}")
                continue
            wrong = problems(graph)
            against |= wrong
            if not wrong:
                by_place[place] = graph
                break
        else:
            if against:
                by_place[place] = against
    return by_place


# --------------------------------------------------------------------------------------------------------------------
# The host

SIZES = ("shape", "width")
OTHER = {"low": "high", "high": "low"}
"""A field that must not pass another one -> that, which then has the same end."""


def host_ends() -> dict[Place, Policy | set[str]]:
    """The same of the host's ops, in the policies of the templates."""
    hosts = {name: op for name, op in HOST_NODES.items() if type(op).ROLE in ("input", "before", "after", "output")}
    by_place: dict[Place, Policy | set[str]] = {}
    for place in places():
        against: set[str] = set()
        for name, row in ended(hosts, place):
            if place[1] in SIZES and place[2] > 1:  # a contract would name each value
                against |= problems(alone(with_values(hosts[name], name, row), Level.INTEGER))
                continue
            enters = "coded" if name in ("coded", "normalise coded", "encode") else "values"
            base = {"enters": enters, "leaves": name if name in LEAVES else "decode", "schedule": "carried"}
            (path,) = row
            node, _, field = path.rpartition(".")
            more: list[Row] = [{}]
            if field in OTHER:
                more.append({f"{node}.{OTHER[field]}": changed(getattr(hosts[name], OTHER[field]), place[2])})
            for other in more:
                try:
                    policy = host_policy({**base, **row, **other})
                except NervecordError as error:
                    against.add(str(error))
                    continue
                wrong = problems(policy)
                against |= wrong
                if not wrong:
                    by_place[place] = policy
                    break
            if place in by_place:
                break
        else:
            if against:
                by_place[place] = against
    return by_place


def smallest_policy() -> Policy:
    """A policy of single values."""
    policy = host_policy({"enters": "values", "leaves": "choose", "schedule": "carried", "quantise.constant": 0})
    one: dict[str, Op] = {
        "values": Input((1,), "values", 5.5),
        "normalise": Normalise([0.0], [1.0], 1.0, CLIP),
        "quantise": Quantise(1, SCALE, 13),
        "fc": Dense(mantissas(1, 1), 0, 8, 0),
        "neurons": Neuron(IntegerMembrane(60, np.zeros(1)), None, IntegerSpike(20)),
        "fc2": Dense(mantissas(1, 1), 0, 8, 0),
        "read": Neuron(IntegerMembrane(100, np.ones(1))),
        "choose": ArgmaxDecode(1),
    }
    contract = dataclasses.replace(
        policy.contract,
        observation=Channels(("o",), ("",)),
        action=Channels(("a",), ("",), (0.0,), (0.0,)),
        fail_safe=(0.0,),
        choices=("only",),
    )
    return Policy(policy.graph.replace(nodes={**policy.graph.nodes, **one}), contract)


# --------------------------------------------------------------------------------------------------------------------
# Integers

SUBTRACTS: Row = {"arithmetic.reset": "subtract"}


def integer_ends() -> dict[Place, tuple[Row, Arithmetic] | set[str]]:
    """The same of the ops of integers, in the network of the templates and the first arithmetic that takes it; sizes
    apart."""
    by_place: dict[Place, tuple[Row, Arithmetic] | set[str]] = {}
    for place in places():
        against: set[str] = set()
        for base, more in itertools.product((BASE, WIDEST), ({}, SUBTRACTS)):
            for _, own in ended(integer_nodes(base), place):
                row = {"schedule": "carried", **own, **more}
                wrong = integer_problems(row, base)
                against |= wrong
                if not wrong:
                    by_place.setdefault(place, (row, base))
        if against:
            by_place.setdefault(place, against)
    return by_place


def smallest_integers() -> list[Graph]:
    """Networks of single values, a layer of changes with the smallest and with the largest bias."""
    one = Dense(np.array([[2]]), -1, 8, 0)
    neuron = Neuron(IntegerMembrane(60, np.ones(1)), None, IntegerSpike(20))
    shape = Convolution(1, (1, 1), (1,), (1,), (0,), (1,), 1)
    rows = shape.unrolled(np.array([[[64]]]))
    return [
        Graph(
            Level.INTEGER,
            {
                "values": Input((1,), "values", 30.0),
                "copy": dataclasses.replace(one, delay=1),
                "delta": Delta(1, 2, 1, 1),
                "fc": one,
                "layer": SigmaDelta(np.array([bias]), 3, "relu", 1, 2),
                "fc2": one,
                "sum": Sigma(1),
                "sums": Output((1,)),
                "spikes": Input((1,), "spikes", 1.0),
                "always": BiasChannel(1),
                "fc3": Dense(np.array([[64, 32]]), 0, 8, 0),
                "neuron": neuron,
                "rows": Sparse(rows.values, rows.columns, rows.starts, 1, 0, 8, 0, shape),
                "last": neuron,
                "out": Output((1,)),
            },
            linked("values copy delta fc layer fc2 sum sums\nspikes always fc3 neuron rows last out"),
            1e-3,
            dataclasses.replace(BASE, graded_bits=24, membrane_bits=24, current_bits=24),
        )
        for bias in (-32768, 32767)
    ]
