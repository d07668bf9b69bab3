"""Networks with every op that runs, and the factors that the ops' and the arithmetic's declarations make of them.

A factor is a declared choice of one node: "read.spike" is None or given, "neurons.spike.reset" one of its words. It is
drawn from the declarations, so that a new choice, and a new value of one, is tried without a line here; a new op, or a
new field that may be left out, must be put into a template.
"""

from __future__ import annotations

import dataclasses
import itertools
import typing
from collections.abc import Iterator
from typing import Any

import numpy as np
from conformance.pairs import Factors, Row
from graphs import LAVA

from nervecord.compiler.arithmetic import KEYS, Arithmetic, value_problems
from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import STREAM, Schedule
from nervecord.compiler.graph.verify import verify
from nervecord.compiler.lower.ranges import overflows, prove
from nervecord.compiler.ops import (
    Activation,
    Affine,
    ArgmaxDecode,
    Array,
    BiasChannel,
    Conv,
    CountArgmaxDecode,
    CountDecode,
    Decode,
    Delta,
    Dense,
    Flatten,
    Input,
    IntegerMembrane,
    IntegerSpike,
    IntegerSynapse,
    Level,
    Mantissas,
    Membrane,
    Neuron,
    Normalise,
    Op,
    Output,
    Pool,
    PopulationEncode,
    Quantise,
    Rescale,
    Scale,
    Sigma,
    SigmaDelta,
    Sparse,
    SparseAffine,
    Spike,
    Synapse,
    Threshold,
    fields,
)
from nervecord.compiler.ops.sparse import Convolution
from nervecord.compiler.plan.plan import plan

GIVEN = "given"
"""The value of a field that may be left out, where it is not: as the template has it."""
BASE = dataclasses.replace(
    LAVA,
    weight_signs="twos-complement",
    input_shift=2,
    current_bits=12,
    current_overflow="saturate",
    membrane_bits=13,
    membrane_overflow="saturate",
    decay_bits=8,
    decay_rounding="floor",
    current_decay_low=0,
    threshold_bits=10,
    threshold_shift=2,
    bias_bits=8,
    bias_exponent_high=4,
    readout="membrane",
    graded_bits=9,
    connection_delay=0,
    delay_max=16,
)
"""So narrow that currents and membranes do saturate."""
WIDEST = dataclasses.replace(
    BASE,
    weight_bits=16,
    weight_exponent_low=-24,
    weight_exponent_high=24,
    product_bits=53,
    input_shift=0,
    current_bits=32,
    membrane_bits=32,
    decay_bits=16,
    threshold_bits=31,
    threshold_shift=0,
    bias_bits=24,
    bias_exponent_high=16,
    graded_bits=24,
    delay_max=4096,
)
"""Takes the ends of what ops declare."""
SCHEDULES = {"carried": STREAM, "reset": Schedule(5, "reset")}


def arithmetic_factors() -> dict[str, tuple[Any, ...]]:
    """Every choice that an arithmetic declares; several spikes are one as well, of which a rule speaks."""
    factors = {
        f"arithmetic.{name}": typing.get_args(key.kind)
        for name, key in KEYS.items()
        if typing.get_origin(key.kind) is typing.Literal
    }
    return {**factors, "arithmetic.spikes_per_step": (1, 3)}


def arithmetic_of(row: Row, base: Arithmetic = BASE) -> dict[str, Any]:
    """The fields of the arithmetic of a row; the bits of a decay are what its kind takes."""
    own = {name.partition(".")[2]: value for name, value in row.items() if name.startswith("arithmetic.")}
    values = dataclasses.asdict(base) | own
    if values["decay"] == "shift" and "decay_bits" not in own:
        values["decay_bits"] = 4
    return values


def choices_of(nodes: dict[str, Op]) -> dict[str, tuple[Any, ...]]:
    """The factors of a template's nodes."""
    return {
        path: (None, GIVEN) if declared.optional else declared.options or (False, True)
        for name, op in nodes.items()
        for path, declared, _ in declared_of(op, name)
        if declared.optional or declared.kind in ("choice", "flag")
    }


def declared_of(piece: Any, path: str) -> Iterator[tuple[str, fields.Declared, Any]]:
    """(path, declaration, whose field it is) of every field of an op and of its parts."""
    for name, declared in fields.declarations(type(piece)):
        yield f"{path}.{name}", declared, piece
        if declared.kind == "part" and getattr(piece, name) is not None:
            yield from declared_of(getattr(piece, name), f"{path}.{name}")


def with_values(piece: Any, path: str, row: Row) -> Any:
    """An op with the values that a row has for its fields and for those of its parts."""
    changes: dict[str, Any] = {}
    for name, declared in fields.declarations(type(piece)):
        at, value = f"{path}.{name}", getattr(piece, name)
        if at in row and row[at] is not GIVEN:
            changes[name] = row[at]
        elif declared.kind == "part" and value is not None:
            changes[name] = with_values(value, at, row)
    return dataclasses.replace(piece, **changes) if changes else piece


def applied(nodes: dict[str, Op], row: Row) -> dict[str, Op]:
    """A template's nodes with the values of a row."""
    return {name: with_values(op, name, row) for name, op in nodes.items()}


def relevant_part(row: Row) -> Row:
    """A row without the factors of parts that it leaves out."""
    absent = tuple(f"{name}." for name, value in row.items() if value is None)
    return {name: value for name, value in row.items() if not name.startswith(absent)}


def normal(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape)


def mantissas(*shape: int) -> Array:
    return (np.clip(normal(*shape) * 60, -128, 127) // 2 * 2).astype(np.int32)


def linked(names: str) -> tuple[Edge, ...]:
    """The edges of chains, one a line: "a b c" links a to b and b to c."""
    chains = (line.split() for line in names.splitlines())
    return tuple(edge for chain in chains for edge in itertools.pairwise(chain))


# --------------------------------------------------------------------------------------------------------------------
# Integers


def integer_nodes(a: Arithmetic) -> dict[str, Op]:
    """Every op of integers, each number within what an arithmetic holds."""
    delay = max(a.connection_delay, min(1, a.delay_max))

    def weights(*shape: int, turned: bool = False) -> Array:
        """Most of one sign, or, where turned, every second row of the other."""
        low, high = a.weight_range(mixed=True)
        step = a.weight_step(a.weight_bits, mixed=True)
        values = np.rint((normal(*shape) + 0.8) * 40)
        values[1 : shape[0] if turned else 0 : 2] *= -1
        values = np.clip(values, max(low, -128), min(high, 127))
        return (values // step * step).astype(np.int32)

    def exponent(value: int) -> int:
        return int(np.clip(value, a.weight_exponent_low, a.weight_exponent_high))

    def dense(out: int, inputs: int, exp: int = 0, *, turned: bool = False) -> Dense:
        return Dense(weights(out, inputs, turned=turned), exponent(exp), a.weight_bits, delay)

    def diagonal(size: int) -> Dense:
        """As it came, where the weights have a 2."""
        one = 2 if a.weight_range(mixed=False)[1] >= 2 else -1
        return Dense(one * np.eye(size, dtype=np.int32), exponent(-1), a.weight_bits, delay)

    def neuron(size: int, keeps: float, threshold: int) -> Neuron:
        bias = np.clip(np.rint(normal(size) * 20), *a.bias_range).astype(np.int32)
        return Neuron(
            IntegerMembrane(a.decay_code(keeps), bias, min(1, a.bias_exponent_high)),
            IntegerSynapse(a.decay_code(0.6, current=True)),
            IntegerSpike(min(threshold, a.threshold_largest)),
        )

    shape = Convolution(2, (1, 5), (2,), (2,), (1,), (1,), 1)
    rows = shape.unrolled(weights(2, 1, 2))
    limit = float(min(30, a.graded_limit)) or None
    return {
        "values": Input((4,), "values" if limit else "spikes", limit or 1.0),
        "spikes": Input((3,), "spikes", 1.0),
        "always": BiasChannel(3),
        "fc": dense(5, 4, -2),
        "fc2": dense(5, 4, 2, turned=True),
        "neurons": neuron(5, 0.8, 60),
        "back": dense(5, 5, 1),
        "rows": Sparse(rows.values, rows.columns, rows.starts, 5, exponent(2), a.weight_bits, delay, shape),
        "read": neuron(6, 0.9, 20),
        "rescale": Rescale(normal(6)),
        "out": Output((6,)),
        "copy": diagonal(4),
        "delta": Delta(4, 2, 1, 1),
        "fc3": dense(3, 4, -4),
        "layer": SigmaDelta(np.array([5, -6, 0]), 3, "relu", 1, 2),
        "fc4": dense(2, 3, -4),
        "sum": Sigma(2),
        "sums": Output((2,)),
    }


INTEGER_EDGES = linked("""values fc neurons
spikes always fc2 neurons back neurons
neurons rows read rescale out
values copy delta fc3 layer fc4 sum sums""")


def integer_factors() -> Factors:
    """Choices of the arithmetic, of the ops, and of the schedule."""
    return {**arithmetic_factors(), **choices_of(integer_nodes(BASE)), "schedule": tuple(SCHEDULES)}


def integer_graph(row: Row, base: Arithmetic = BASE) -> Graph:
    """The network of a row."""
    a = Arithmetic(**arithmetic_of(row, base))
    nodes = {name: regridded(op, a) for name, op in applied(integer_nodes(a), row).items()}
    edges = INTEGER_EDGES
    if a.delay_max < 1 or row.get("schedule") == "reset":  # no loop without a delay, none in a block
        del nodes["back"]
        edges = tuple(edge for edge in edges if "back" not in edge)
    return Graph(Level.INTEGER, nodes, edges, 1e-3, a)


def regridded(op: Op, a: Arithmetic) -> Op:
    """A connection whose weights have the bits that it says, which a row may have changed; others as they are."""
    if not isinstance(op, Mantissas) or op.weight_bits >= a.weight_bits:
        return op
    step = a.weight_step(op.weight_bits, mixed=True)
    weights = np.clip(np.sign(op.stored) * step, *a.weight_range(mixed=True)) // step * step
    return op.replace(**{"values" if isinstance(op, Sparse) else "weight": weights.astype(np.int32)})


def integer_problems(row: Row, base: Arithmetic = BASE) -> set[str]:
    """The rules that speak against a row: of the arithmetic, as it words them, and codes of verification."""
    wrong = value_problems(arithmetic_of(row, base))
    return set(wrong) or {f"{finding.code} at {finding.node}" for finding in verify(integer_graph(row, base))}


def fitted(graph: Graph, schedule: Schedule) -> Graph:
    """A network whose ranges can be proved: weights halved into what may overflow, where it must not."""
    assert graph.arithmetic is not None
    for _ in range(40):
        ranges = overflows(prove(plan(graph, schedule)), graph.arithmetic)
        wrong = {node for f in ranges if f.severity == "error" for node in f.node.split(" + ")}
        if not wrong:
            return graph
        wrong |= {source for node in wrong if node in graph.nodes for source in graph.sources(node)}
        nodes = {name: lowered(op, graph.arithmetic) if name in wrong else op for name, op in graph.nodes.items()}
        graph = graph.replace(nodes=nodes)
    raise AssertionError(f"its ranges cannot be proved: {ranges}")


def lowered(op: Op, a: Arithmetic) -> Op:
    """A connection with half of its weights, a population with half of its biases, towards 0; others as they are."""
    if isinstance(op, Sparse):
        values = on_grid(op.values / 2, op, a)
        return op.replace(values=values)  # alike in alike places, so that a convolution stays one
    if isinstance(op, Dense):
        return op.replace(weight=on_grid(op.weight / 2, op, a))
    if isinstance(op, Neuron) and isinstance(op.membrane, IntegerMembrane):
        bias = np.trunc(op.membrane.bias / 2).astype(np.int32)
        return op.replace(membrane=dataclasses.replace(op.membrane, bias=bias))
    return op


def on_grid(weights: Array, op: Mantissas, a: Arithmetic) -> Array:
    """Mantissas of the bits that a connection has, towards 0."""
    step = a.weight_step(min(op.weight_bits, a.weight_bits), mixed=True)
    return (np.trunc(weights / step) * step).astype(np.int32)


# --------------------------------------------------------------------------------------------------------------------
# Floats

FLOAT_NODES: dict[str, Op] = {
    "in": Input((2, 4, 4), "values", 2.0),
    "pool": Pool("sum", (2, 2), (1, 2), (1, 0), (2, 4, 4)),
    "conv": Conv(normal(3, 2, 2, 2), normal(3), (1, 1), (0, 0), (1, 1), 1, (5, 2)),
    "flat": Flatten((3, 4, 1), 0, -1),
    "rows": SparseAffine.of(
        Convolution(2, (3, 4), (2,), (1,), (0,), (1,), 1).unrolled(normal(2, 3, 2) / 2),
        normal(6),
        1,
        convolution=Convolution(2, (3, 4), (2,), (1,), (0,), (1,), 1),
    ),
    "act": Activation("tanh", (6,), 0.5),
    "fc": Affine(normal(5, 6), normal(5), 1),
    "scale": Scale(normal(5)),
    "neurons": Neuron(
        Membrane(np.full(5, 0.9), np.ones(5), np.full(5, 0.1)),
        Synapse(np.full(5, 0.5), np.ones(5)),
        Spike(np.full(5, 0.5), np.full(5, -0.2), "value", 1),
    ),
    "fc2": Affine(normal(4, 5), normal(4)),
    "steps": Threshold(np.full(4, 0.2)),
    "fc3": Affine(normal(3, 4) * 2, normal(3) / 4),
    "last": Neuron(
        Membrane(np.full(3, 0.7), np.ones(3), np.zeros(3)),
        Synapse(np.full(3, 0.3), np.ones(3)),
        Spike(np.full(3, 0.8), np.full(3, 0.1), "subtract", 0),
    ),
    "out": Output((3,)),
}
"""Every op of floats, one behind the other."""
FLOAT_EDGES = linked(" ".join(FLOAT_NODES))


def float_factors() -> Factors:
    """Choices of the ops, and of the schedule."""
    own = choices_of(FLOAT_NODES)
    del own["last.spike.reset"]  # the other population has it
    return {**own, "neurons.spike.refractory": (0, 2), "schedule": tuple(SCHEDULES)}


def float_graph(row: Row) -> Graph:
    """The network of a row."""
    return Graph(Level.DISCRETE, applied(FLOAT_NODES, row), FLOAT_EDGES, 1e-3)


def float_problems(row: Row) -> set[str]:
    """Codes of verification that speak against a row."""
    return {f"{finding.code} at {finding.node}" for finding in verify(float_graph(row))}


# --------------------------------------------------------------------------------------------------------------------
# The host

SCALE = 2.0
"""Integers per unit of an observation that is normalised: a quarter lies between two of them."""
CLIP = 8.0
HOST_NODES: dict[str, Op] = {
    "values": Input((4,), "values", 5.5),
    "normalise": Normalise([0.0, 0.0, 1.5, -0.25], [1.0, 0.0, 4.0, 1e-12], 1.0, CLIP),
    "quantise": Quantise(4, SCALE, 13, 5),
    "coded": Input((2,), "values", 5.5),
    "normalise coded": Normalise([0.0, 0.5], [1.0, 3.0], 0.25, 2.0),
    "encode": PopulationEncode([[-1.0, 0.0, 1.0], [-2.0, 0.0, 0.5]], 0.5),
    "fc": Dense(mantissas(6, 5), -1, 8, 0),
    "fc coded": Dense(mantissas(6, 7), 0, 8, 0),
    "neurons": Neuron(IntegerMembrane(60, np.arange(6) - 3), None, IntegerSpike(20)),
    "fc2": Dense(mantissas(4, 6), 0, 8, 0),
    "read": Neuron(IntegerMembrane(100, np.array([1, -1, 0, 2]))),
    "decode": Decode([0.25, -0.5, 0.0, 1e-3], [0.0, 0.0, 0.0, 0.5], [-9.0, 0.0, -1.0, -9.0], [9.0, 9.0, 1.0, 0.5]),
    "count": CountDecode(normal(3, 2), [0.0, -1.0, 0.5], [-1.0, -0.5, 0.0], [1.0, 9.0, 0.0]),
    "choose": ArgmaxDecode(4, 0.5),
    "choose counts": CountArgmaxDecode(np.abs(normal(3, 2)), [0.0, 0.0, 0.25]),
    "action": Output((4,)),
    "counts": Output((3,)),
}
"""Every op of the host, some of which are alternatives."""
ENTERS = {
    "values": linked("values normalise quantise fc neurons"),
    "coded": linked("coded normalise_coded encode fc_coded neurons"),
}
ENTERS["both"] = ENTERS["values"] + ENTERS["coded"]
LEAVES = {
    "decode": linked("neurons fc2 read decode action"),
    "count": linked("neurons count counts"),
    "choose": linked("neurons fc2 read choose action"),
    "choose counts": linked("neurons choose_counts action"),
}
LEAVES["both"] = LEAVES["decode"] + LEAVES["count"]


def host_factors() -> Factors:
    """Choices of the host's ops, what enters, what leaves, and whether state is carried."""
    nodes = {name: op for name, op in HOST_NODES.items() if type(op).ROLE in ("input", "before", "after", "output")}
    # What enters a policy is values, and what "carries" says of them is the target's affair.
    own = {path: values for path, values in choices_of(nodes).items() if not path.endswith(".carries")}
    return {
        **own,
        "quantise.constant": (0, 5),
        "enters": tuple(ENTERS),
        "leaves": tuple(LEAVES),
        "schedule": tuple(SCHEDULES),
    }


def _host_edges(row: Row) -> tuple[Edge, ...]:
    return tuple((a.replace("_", " "), b.replace("_", " ")) for a, b in ENTERS[row["enters"]] + LEAVES[row["leaves"]])


def host_shown(row: Row) -> Row:
    """A row without the factors of ops that it leaves out."""
    names = {name for edge in _host_edges(row) for name in edge}
    return {path: v for path, v in row.items() if "." not in path or path.partition(".")[0] in names}


def host_policy(row: Row) -> Policy:
    """The policy of a row."""
    edges = _host_edges(row)
    names = {name for edge in edges for name in edge}
    nodes = applied({name: op for name, op in HOST_NODES.items() if name in names}, row)
    # A channel that is appended is one more column.
    for connection, source in (("fc", "quantise"), ("fc coded", "encode")):
        if connection in nodes:
            dense: Any = nodes[connection]
            nodes[connection] = dense.replace(weight=dense.weight[:, : nodes[source].size])
    decoders = [op for op in nodes.values() if type(op).ROLE == "after"]
    outputs = {b: nodes[a] for a, b in edges if type(nodes[b]).ROLE == "output"}
    nodes |= {name: Output(op.out_shape) for name, op in outputs.items()}
    choices = max(getattr(op, "choices", 0) for op in decoders)
    decoded: list[Any] = [outputs[name] for name in nodes if name in outputs]
    low, high = (
        ((0.0,), (choices - 1.0,))
        if choices
        else (tuple(v for op in decoded for v in op.limits[end]) for end in (0, 1))
    )
    actions = len(low)
    observations = sum(op.size for op in nodes.values() if isinstance(op, Input))
    schedule = SCHEDULES[row["schedule"]]
    contract = Contract(
        environment="none",
        steps=5,
        state=schedule.state,
        control_period=0.05,
        observation=Channels(tuple(f"o{k}" for k in range(observations)), ("",) * observations),
        action=Channels(tuple(f"a{k}" for k in range(actions)), ("",) * actions, low, high),
        fail_safe=high,
        choices=tuple(f"choice {k}" for k in range(choices)),
    )
    arithmetic = dataclasses.replace(BASE, membrane_bits=24, current_bits=24)
    return Policy(Graph(Level.INTEGER, nodes, edges, 1e-3, arithmetic), contract)


def host_problems(row: Row) -> set[str]:
    """Codes of verification that speak against a row."""
    return {f"{finding.code} at {finding.node}" for finding in verify(host_policy(row))}
