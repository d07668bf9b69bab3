"""Host ops that nearly are those of the emulator's fast chain: they run by their own equations."""

# ruff: noqa: RUF009 - fields of ops are declared by functions that make dataclass fields

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from graphs import LAVA
from policies import random_policy, with_node

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.body.trace import Tracer, Value
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import Array, Decoder, HostOp, Level, Normalise, PopulationEncode, Role, Shape, fields
from nervecord.compiler.ops.level import EXECUTABLE
from nervecord.compiler.ops.population import activation
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.runtime.engines.emulator.session import EmulatorSession
from nervecord.runtime.session import MachineSession


@dataclass(frozen=True, slots=True, eq=False)
class Standardise(HostOp):
    """A normaliser's equations, with one number or one for each channel where it has the other."""

    mean: Array = fields.array("of each channel, or one", "m")
    divisor: Array = fields.array("of each channel, or one", "d")
    clip: Array = fields.array("of each channel, or one", "c", low=0)
    width: int = fields.integer("channels", 1)

    ROLE: ClassVar[Role] = "before"
    LEVELS: ClassVar[frozenset[Level]] = EXECUTABLE

    @property
    def in_shape(self) -> Shape:
        return (self.width,)

    @property
    def bound(self) -> float:
        return float(self.clip.max())

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        mean, divisor, clip = (
            values if values.size > 1 else values[0] for values in (self.mean, self.divisor, self.clip)
        )
        y = (do.x - do.constant("mean", mean)) / do.constant("divisor", divisor)
        return do.clip(y, do.constant("low", -clip), do.constant("high", clip))


@dataclass(frozen=True, slots=True, eq=False)
class Round(HostOp):
    """The equations of Quantise with a scale for each channel."""

    scale: Array = fields.array("of each channel", "n")
    limit: int = fields.integer("largest magnitude", 1)

    ROLE: ClassVar[Role] = "before"
    LEVELS: ClassVar[frozenset[Level]] = frozenset({Level.INTEGER})

    @property
    def in_shape(self) -> Shape:
        return tuple(self.scale.shape)

    @property
    def sends(self) -> tuple[Array, Array]:
        high = np.full(self.size, self.limit)
        return -high, high

    @property
    def bound(self) -> float:
        return float(self.limit)

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        y = do.rint(do.x * do.constant("scale", self.scale))
        limits = do.constant("low", -float(self.limit)), do.constant("high", float(self.limit))
        return do.as_kind(do.clip(y, *limits), "integer")


@dataclass(frozen=True, slots=True, eq=False)
class Scaled(Decoder):
    """The equations of Decode with one scale and one offset for all."""

    scale: float = fields.number("action units per unit of x")
    low: Array = fields.array("smallest action", "n")
    high: Array = fields.array("largest action", "n")

    READS: ClassVar[Literal["last", "sum"]] = "last"

    @property
    def in_shape(self) -> Shape:
        return tuple(self.low.shape)

    @property
    def limits(self) -> tuple[Array, Array]:
        return self.low, self.high

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        y = do.x * do.constant("scale", self.scale) + do.constant("offset", 0.1)
        return do.clip(y, do.constant("low", self.low), do.constant("high", self.high))


@dataclass(frozen=True, slots=True, eq=False)
class Fields(PopulationEncode):
    """A population code whose fields differ in their width."""

    def body(self, do: Tracer, arithmetic: Arithmetic | None) -> Value:
        return activation(do, self.mean, np.linspace(0.5, 2, self.mean.size) * self.sigma)  # type: ignore[arg-type]


def integers(**form: Any) -> Policy:
    trained = random_policy(3, sizes=(4, 24, 2), **form)
    lowered, _ = lower(trained, LAVA, calibrate(trained))
    assert isinstance(lowered, Policy)
    return lowered


ONE = np.ones(1)
LOOKALIKES: dict[str, tuple[str, Any]] = {
    "a clip for each channel": ("normalise", lambda op: Standardise(op.mean, op.divisor, np.arange(1.0, 5.0), 4)),
    "one mean": ("normalise", lambda op: Standardise(0 * ONE, op.divisor, op.clip * ONE, 4)),
    "one divisor": ("normalise", lambda op: Standardise(op.mean, 2 * ONE, op.clip * ONE, 4)),
    "a scale for each channel": ("quantise", lambda op: Round(op.scale * np.linspace(0.2, 1, 4), op.limit)),
    "one scale of actions": ("decode", lambda op: Scaled(float(op.scale[0]), op.low, op.high)),
    "a width for each field": ("encode", lambda op: Fields(op.mean, op.sigma, op.always)),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_numbers_of_another_shape_are_none_of_the_fast_chain(name: str) -> None:
    node, change = LOOKALIKES[name]
    policy = integers(population=4 if node == "encode" else 0)
    policy = with_node(policy, node, change(policy.graph.nodes[node]))
    rows = np.random.default_rng(0).normal(size=(20, 4))
    with MachineSession(policy) as definition, EmulatorSession(policy) as emulator:
        expected = np.array([definition.step(row) for row in rows])
        np.testing.assert_array_equal([emulator.step(row) for row in rows], expected)
        assert len(np.unique(expected)) > 10
        assert not emulator.fused


def test_what_stands_for_an_observation_that_is_not_finite_is_what_the_definition_takes() -> None:
    """The same equations as a normaliser's, of an op that is none: the core sees zeros, and not a mean."""
    policy = integers(state="carried")
    op = policy.graph.nodes["normalise"]
    assert isinstance(op, Normalise)
    policy = with_node(policy, "normalise", Standardise(op.mean + 3, op.divisor, op.clip * ONE, 4))
    rows = np.random.default_rng(0).normal(size=(12, 4))
    rows[3] = np.nan
    with MachineSession(policy) as definition, EmulatorSession(policy) as emulator:
        for row in rows:
            np.testing.assert_array_equal(emulator.step(row), definition.step(row))
        assert emulator.counts == definition.counts
