"""The host's ops to the last bit: engines give the sign of a 0 that the definition gives."""

from __future__ import annotations

import dataclasses
import shutil
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

from compiled_c import QUICK, Emitted, single
from graphs import LAVA
from policies import random_policy, with_node

from nervecord.compiler.body.trace import Tracer
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import Decode, Dense, IntegerMembrane, Neuron
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.compiler.plan.plan import plan
from nervecord.runtime.engines.c.doubles import Doubles
from nervecord.runtime.engines.c.library import load_library
from nervecord.runtime.engines.c.session import CSession
from nervecord.runtime.engines.c.source import c_source
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.engines.torch.session import BatchedSession
from nervecord.runtime.session import MachineSession

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
ENGINES: list[Any] = [EmulatorSession, BatchedSession, pytest.param(CSession, marks=needs_compiler)]


def _silent(decode: Decode) -> Policy:
    """A policy of integers whose readout is 0 in every step."""
    trained = random_policy(3, sizes=(4, 12, decode.size))
    policy, _ = lower(trained, LAVA, calibrate(trained))
    assert isinstance(policy, Policy)
    last, readout = policy.graph.nodes["fc2"], policy.graph.nodes["readout"]
    assert isinstance(last, Dense)
    assert isinstance(readout, Neuron)
    assert isinstance(readout.membrane, IntegerMembrane)
    membrane = dataclasses.replace(readout.membrane, bias=np.zeros(decode.size, dtype=np.int32))
    policy = with_node(policy, "fc2", last.replace(weight=0 * last.weight))
    return with_node(with_node(policy, "decode", decode), "readout", readout.replace(membrane=membrane))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("limits", [(-1.0, 1.0), (0.0, 1.0), (-0.0, 1.0), (-1.0, 0.0), (-1.0, -0.0)])
def test_a_zero_has_the_sign_that_its_channel_s_offset_gives(engine: Any, limits: tuple[float, float]) -> None:
    """Offsets of 0 and -0 are not one number for all channels. (ONNX Runtime leaves out what adds 0, or -0.) A zero
    within the limits stays as it is, whichever zero the limit is."""
    count = 36  # so many that engines take several at a time
    one, offset = np.ones(count), np.tile([-0.0, 0.0, -0.0], count // 3)
    policy = _silent(Decode(-one, offset, limits[0] * one, limits[1] * one))
    with MachineSession(policy) as definition, engine(policy, batch=1) as other:
        expected, actions = (session.step(np.ones(4)) for session in (definition, other))
    np.testing.assert_array_equal(expected, np.zeros(count))
    assert np.signbit(expected).tolist() == [True, False, True] * (count // 3)
    assert np.signbit(actions).tolist() == np.signbit(expected).tolist()


@needs_compiler
@pytest.mark.parametrize("prefix", ["policy", "norm"])
def test_names_in_c_do_not_meet(prefix: str) -> None:
    """Of what one op gives and of what another computes on the way, and of a table: each is a name of its own."""
    trained = random_policy(3, sizes=(4, 12, 2), population=4)
    policy, _ = lower(trained, LAVA, calibrate(trained))
    assert isinstance(policy, Policy)
    for names in (("x_y", "y_1"), ("norm", "norm_mean"), ("norm_mean", "mean"), ("t_1", "t")):
        new = dict(zip(("encode", "normalise"), names, strict=True))
        graph = policy.graph
        nodes = {new.get(name, name): op for name, op in graph.nodes.items()}
        edges = tuple((new.get(a, a), new.get(b, b)) for a, b in graph.edges)
        renamed = policy.replace(graph=graph.replace(nodes=nodes, edges=edges))
        load_library(c_source(plan(renamed), prefix=prefix), flags=(*QUICK, "-Wshadow"))
        if prefix == "policy":
            emitted = Emitted(renamed)
            with MachineSession(policy) as definition:
                for row in single(np.random.default_rng(0).normal(size=(5, 4))):
                    np.testing.assert_array_equal(emitted.step(row)[1], single(definition.step(row)))


def test_integers_of_each_channel_are_a_table_in_c() -> None:
    do = Tracer("float")
    steps = do.constant("steps", np.array([1, 2, 3]), "integer")
    doubles = Doubles("policy")
    lines, y = doubles.lines(do.body(do.as_kind(do.x, "integer") + steps), "op", "x", "op")
    assert not lines
    assert y == "((int32_t)x) + (int32_t)policy_op_steps[i]"
    assert [table.values.tolist() for table in doubles.tables] == [[1, 2, 3]]
