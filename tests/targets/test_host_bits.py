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


@pytest.mark.parametrize("engine", ENGINES)
def test_a_zero_has_the_sign_that_its_channel_s_offset_gives(engine: Any) -> None:
    """Offsets of 0 and -0 are not one number for all channels. (ONNX Runtime leaves out what adds 0, or -0.)"""
    trained = random_policy(3, sizes=(4, 12, 3))
    policy, _ = lower(trained, LAVA, calibrate(trained))
    assert isinstance(policy, Policy)
    last = policy.graph.nodes["fc2"]
    assert isinstance(last, Dense)
    one = np.ones(3)
    policy = with_node(policy, "fc2", last.replace(weight=0 * last.weight))
    policy = with_node(policy, "decode", Decode(-one, np.array([-0.0, 0.0, -0.0]), -one, one))
    readout = policy.graph.nodes["readout"]
    assert isinstance(readout, Neuron)
    assert isinstance(readout.membrane, IntegerMembrane)
    silent = dataclasses.replace(readout.membrane, bias=np.zeros(3, dtype=np.int32))
    policy = with_node(policy, "readout", readout.replace(membrane=silent))
    with MachineSession(policy) as definition, engine(policy, batch=1) as other:
        wanted, found = (session.step(np.ones(4)) for session in (definition, other))
    np.testing.assert_array_equal(wanted, np.zeros(3))
    assert np.signbit(wanted).tolist() == [True, False, True]
    assert np.signbit(found).tolist() == np.signbit(wanted).tolist()


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
