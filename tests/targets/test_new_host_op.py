"""Host ops that nothing here has: their equations alone make them run in every engine."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from graphs import LAVA
from policies import random_policy

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import Array, Decode, Decoder, HostOp, Level, Role, Shape, fields
from nervecord.compiler.ops.level import EXECUTABLE
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.runtime.engines.c.session import CSession
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.engines.torch.session import BatchedSession
from nervecord.runtime.session import MachineSession
from nervecord.targets.onnx.engine import OnnxSession


@dataclass(frozen=True, slots=True, eq=False)
class Deadband(HostOp):
    """y = x where it is as large as a width in magnitude, else 0."""

    width: Array = fields.array("of each channel", "n", low=0)

    ROLE: ClassVar[Role] = "before"
    LEVELS: ClassVar[frozenset[Level]] = EXECUTABLE

    @property
    def in_shape(self) -> Shape:
        return tuple(self.width.shape)

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        return do.where(abs(do.x) >= do.constant("width", self.width), do.x, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Squash(Decoder):
    """y = z / (1 + |z|) of z = x * scale, within limits."""

    scale: Array = fields.array("per unit of x", "n")
    low: Array = fields.array("smallest action", "n")
    high: Array = fields.array("largest action", "n")

    READS: ClassVar[Literal["last", "sum"]] = "last"

    @property
    def in_shape(self) -> Shape:
        return tuple(self.scale.shape)

    @property
    def limits(self) -> tuple[Array, Array] | None:
        return self.low, self.high

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        z = do.x * do.constant("scale", self.scale)
        return do.clip(z / (abs(z) + 1.0), do.constant("low", self.low), do.constant("high", self.high))


def policy() -> Policy:
    """An integer policy with both in the places of what it had, and before it."""
    trained = random_policy(3, sizes=(5, 24, 3))
    integers, _ = lower(trained, LAVA, calibrate(trained))
    assert isinstance(integers, Policy)
    graph = integers.graph
    (normalise,) = [name for name, op in graph.nodes.items() if op.kind == "Normalise"]
    ((decode, decoder),) = [(name, op) for name, op in graph.nodes.items() if isinstance(op, Decode)]
    nodes = {**graph.nodes, "dead": Deadband(np.linspace(0, 1, 5)), decode: Squash(3 * decoder.scale, *decoder.limits)}
    edges = [("dead", b) if a == normalise else (a, b) for a, b in graph.edges]
    return integers.replace(graph=dataclasses.replace(graph, nodes=nodes, edges=(*edges, (normalise, "dead"))))


ENGINES: list[Any] = [
    EmulatorSession,
    BatchedSession,
    OnnxSession,
    pytest.param(CSession, marks=pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")),
]


@pytest.mark.parametrize("engine", ENGINES)
def test_their_equations_run_everywhere(engine: Any) -> None:
    subject = policy()
    rng = np.random.default_rng(0)
    with MachineSession(subject) as definition, engine(subject, batch=1) as other:
        rows = rng.normal(size=(40, 5)).astype(np.float32).astype(np.float64)
        expected = np.array([definition.step(row) for row in rows])
        actual = np.array([other.step(row) for row in rows])
    single = engine in (OnnxSession, CSession)
    np.testing.assert_array_equal(actual, expected.astype(np.float32) if single else expected)
    assert len(np.unique(expected)) > 20
