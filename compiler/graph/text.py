"""A graph or policy as text, for `--dump`, goldens and reading; and what changed between two of them, in words.

    graph discrete dt=0.0001
    policy Ant-v4: observation 105, action 8, steps 4, state reset, period 0.05 s, contract #5d1e90aa
    input   Input            (105,) -> (105,)
    fc1     Affine           (105,) -> (64,)  weight=f8(64,105)[-0.31, 0.29]#5d1e90aa bias=- delay=0
    lif1    LIF              (64,) -> (64,)  membrane.decay=f8(64)[0.84]#... spike.threshold=f8(64)[1.0]#... ...
    ...
    input -> fc1

The same graph gives the same text, one line per node and per edge, so that a difference of texts is a difference of
graphs: an array's hash covers its bytes. Fields come from the ops' declarations, those of a part behind its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.ops import Array, Op
from nervecord.compiler.ops.fields import declarations


def to_text(subject: Graph | Policy) -> str:
    """The canonical text of a graph or policy; ends in a newline."""
    graph, contract = parts(subject)
    lines = [f"graph {graph.level.value} dt={_scalar(graph.dt)}"]
    if graph.arithmetic is not None:
        lines.append("arithmetic " + " ".join(f"{name}={value}" for name, value in graph.arithmetic.to_dict().items()))
    if contract is not None:
        lines.append(_policy(contract))
    if isinstance(subject, Policy) and subject.recorded is not None:
        lines.append(f"recorded {_array(subject.recorded)}")
    widths = [max((len(_name(name)) for name in graph.nodes), default=0)]
    widths.append(max((len(op.kind) for op in graph.nodes.values()), default=0))
    lines.append("")
    for name, op in graph.nodes.items():
        shapes = f"{_shape(op.in_shape)} -> {_shape(op.out_shape)}"
        fields = " ".join(f"{field}={text}" for field, text in _fields(name, op).items())
        lines.append(f"{_name(name):{widths[0]}}  {op.kind:{widths[1]}}  {shapes}  {fields}".rstrip())
    lines.append("")
    lines += [_edge(edge) for edge in graph.edges]
    return "\n".join(lines) + "\n"


def explain(before: Graph | Policy, after: Graph | Policy) -> list[str]:
    """What a pass did, one sentence per change; empty where it did nothing."""
    (old, old_contract), (new, new_contract) = parts(before), parts(after)
    lines = _explain_graphs(old, new)
    if old_contract != new_contract:
        lines.append("the contract changed")
    if _recorded(before) != _recorded(after):
        lines.append("the recorded observations changed")
    return lines


def _explain_graphs(before: Graph, after: Graph) -> list[str]:
    lines: list[str] = []
    if before.level is not after.level:
        lines.append(f"the graph went from {before.level.value} to {after.level.value}")
    if before.dt != after.dt:
        lines.append(f"dt: {_scalar(before.dt)} -> {_scalar(after.dt)} s")
    if before.arithmetic != after.arithmetic and None not in (before.arithmetic, after.arithmetic):
        lines.append("the arithmetic changed")
    heir = {origin: name for name, op in after.nodes.items() for origin in op.origin}
    for name, op in before.nodes.items():
        if name not in after.nodes:
            into = next((heir[origin] for origin in (*op.origin, name) if origin in heir), None)
            lines.append(f"{_name(name)} ({op.kind}) " + (f"went into {_name(into)}" if into else "is gone"))
    for name, op in after.nodes.items():
        if name not in before.nodes:
            lines.append(f"{_name(name)} ({op.kind}) is new")
        elif before.nodes[name] != op:
            lines.append(_change(name, before.nodes[name], op))
    for label, one, other in (("gone", before, after), ("new", after, before)):
        common = set(other.edges)
        lost = [_edge(edge) for edge in one.edges if edge not in common]
        if lost:
            lines.append(f"edges {label}: {', '.join(lost)}")
    if list(before.nodes) != list(after.nodes) and sorted(before.nodes) == sorted(after.nodes):
        lines.append("the order of the nodes changed")
    if before.edges != after.edges and sorted(before.edges) == sorted(after.edges):
        lines.append("the order of the edges changed")
    return lines


def _change(name: str, before: Op, after: Op) -> str:
    old, new = _fields(name, before), _fields(name, after)
    changed = [
        f"{field}: {old.get(field, 'none')} -> {new.get(field, 'none')}"
        for field in dict.fromkeys([*old, *new])
        if old.get(field) != new.get(field)
    ]
    if before.kind == after.kind and before.levels == after.levels:
        return f"{_name(name)} ({after.kind}) has another {', '.join(changed)}"
    values = [
        f"{field} {_range(value)}"
        for field, value in _values(after)
        if isinstance(value, np.ndarray) and old.get(field) != new[field]
    ]
    here = "" if before.kind != after.kind else f" ({', '.join(level.value for level in after.levels)})"
    return f"{_name(name)}: {before.kind} became {after.kind}{here}" + (f" with {', '.join(values)}" if values else "")


def _fields(name: str, op: Op) -> dict[str, str]:
    """Field -> text, in the order of the declarations; the origin where it is not the name."""
    texts = {field: _array(value) if isinstance(value, np.ndarray) else _scalar(value) for field, value in _values(op)}
    if op.origin not in ((), (name,)):
        texts["origin"] = "+".join(_name(text) for text in op.origin)
    return texts


def _values(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(field, value) of every declared field; those of a part as part.field."""
    for field, declared in declarations(type(value)):
        part = getattr(value, field)
        if declared.kind == "part" and part is not None:
            yield from _values(part, f"{prefix}{field}.")
        else:
            yield prefix + field, part


def _policy(contract: Contract) -> str:
    return (
        f"policy {_name(contract.environment)}: observation {contract.observation.size}, action {contract.action.size},"
        f" steps {contract.steps}, state {contract.state}, period {contract.control_period!r} s,"
        f" contract #{_hash(contract.to_json().encode())}"
    )


def _recorded(subject: Graph | Policy) -> tuple[tuple[int, ...], bytes] | None:
    recorded = subject.recorded if isinstance(subject, Policy) else None
    return None if recorded is None else (recorded.shape, recorded.tobytes())


def _edge(edge: Edge) -> str:
    return f"{_name(edge[0])} -> {_name(edge[1])}"


def _array(value: Array) -> str:
    text = f"{value.dtype.kind}{value.dtype.itemsize}{_shape(value.shape)}"
    return f"{text}{_range(value)}#{_hash(np.ascontiguousarray(value).tobytes())}"


def _range(value: Array) -> str:
    if value.size == 0:
        return "[]"
    low, high = value.min().item(), value.max().item()
    return f"[{low!r}]" if low == high else f"[{low!r}, {high!r}]"


def _scalar(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return _shape(value)
    return str(value) if isinstance(value, str) else repr(value)


def _shape(shape: tuple[object, ...]) -> str:
    return "(" + ",".join(str(size) for size in shape) + ")"


def _name(name: str) -> str:
    """The name, quoted where it holds blanks or what cannot be printed, so that a line stays one."""
    return name if name.isprintable() and " " not in name and name else ascii(name)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]
