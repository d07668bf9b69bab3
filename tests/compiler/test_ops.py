"""What every op keeps to, whichever it is: declared fields, kinds, shapes, and a document that says them all."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import pytest
from policies import lif, random_dag, random_policy
from scripts import script

from nervecord.compiler.ops import NIR_READERS, OPS, PART_TYPES, HostOp, Level, Neuron, Op
from nervecord.compiler.ops.fields import declarations, violations
from nervecord.compiler.ops.op import Part

DOCUMENT = script("docs/ops.py")
KINDS: list[type[Op] | type[Part]] = [*OPS.values(), *PART_TYPES.values()]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_is_declared_and_documented(kind: type[Op] | type[Part]) -> None:
    declared = dict(declarations(kind))
    assert set(declared) == {f.name for f in dataclasses.fields(kind)} - {"origin"}
    section = re.split(r"^###? ", DOCUMENT.document(), flags=re.MULTILINE)
    (own,) = [text for text in section if text.splitlines()[0] == kind.__name__]
    for name, field in declared.items():
        assert f"| `{name}` |" in own
        assert field.about
        assert field.about.replace("*", "\\*") in own
        assert all(option in own for option in field.options)


def test_every_body_is_printed() -> None:
    assert {op for op in OPS.values() if op.body not in (Op.body, HostOp.body)} == set(DOCUMENT.EXAMPLES)


def test_the_document_of_ops_is_current(document: Callable[[str], str]) -> None:
    document("ops")


def test_every_level_has_kinds_and_no_two_ops_share_one() -> None:
    for level in Level:
        kinds = [kind for op in OPS.values() for kind in op.kinds(level)]
        assert len(set(kinds)) == len(kinds)
    assert set(NIR_READERS) == {nir for op in OPS.values() for nir in op.NIR}
    assert len(NIR_READERS) == sum(len(op.NIR) for op in OPS.values())


@pytest.mark.parametrize("seed", range(3))
def test_what_an_op_gives_has_the_shape_it_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_dag(seed).graph
    for op in graph.nodes.values():
        if type(op).ROLE in ("input", "output"):
            continue
        x = rng.normal(size=(3, *op.in_shape))
        assert op.step(op.state(3), x).shape == (3, *op.out_shape)
        bound = op.bound
        assert bound is None or np.abs(op.step(op.state(3), 1e3 * x)).max() <= bound
        synapses = op.synapses()
        assert (synapses is not None) == (type(op).ROLE == "connection")
        assert op.neurons == (op.size if type(op).ROLE == "population" else 0)
        if synapses is not None:
            assert synapses.fan_out.shape == (int(np.prod(op.in_shape)),)
            assert synapses.fan_out.sum() <= synapses.stored


def test_ops_are_compared_by_value_and_hold_their_own_arrays() -> None:
    weight = np.ones((4, 5))
    policy = random_policy(sizes=(5, 4, 2))
    op = policy.graph.nodes["fc1"]
    assert op == op.replace()
    assert op != op.replace(origin=("else",))
    assert op != lif(4)
    changed = op.replace(weight=weight)
    weight[0, 0] = 9
    assert changed.weight[0, 0] == 1  # type: ignore[attr-defined]
    neuron = policy.graph.nodes["lif1"]
    assert isinstance(neuron, Neuron)
    assert neuron == neuron.replace(membrane=dataclasses.replace(neuron.membrane))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_field_takes_what_is_not_finite(value: float) -> None:
    neuron = lif(3)
    assert neuron.spike is not None
    worse = dataclasses.replace(neuron.spike, threshold=np.array([1.0, value, 1.0]))
    assert [code for code, *_ in violations(worse)] == ["not-finite"]
