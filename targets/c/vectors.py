"""Recorded steps for the self-test: what enters, and what the definition gives, to the bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervecord.compiler.ops import Array, Normalise
from nervecord.compiler.plan.interpret import Machine
from nervecord.compiler.plan.plan import Plan
from nervecord.runtime.engines.c.constants import rows
from nervecord.runtime.engines.c.layout import bias_source, limits, taken
from nervecord.runtime.engines.c.names import quoted
from nervecord.runtime.engines.c.source import CODES, Source
from nervecord.runtime.session import MachineSession

SEED = 0
BROKEN = 5
"""The recorded step whose observation has a value that is none."""


@dataclass(frozen=True, slots=True, eq=False)
class Vectors:
    """Recorded steps.

    Args:
        given: (steps, in) as uint32: the bits of float32 observations, or int32 that the core takes.
        wanted: (steps, out) of the same kind. codes: (steps,) what a step returns.
        reset: the step before which the state is reset.
    """

    given: Array
    wanted: Array
    codes: Array
    reset: int


def record(plan: Plan, source: Source, count: int) -> Vectors:
    """Steps of the definition: of a policy, observation to action; of a graph that is none, of its integer core.

    Observations are drawn around what the policy was trained on, from a fixed seed, now and then far out of it.
    """
    rng = np.random.default_rng(SEED)
    return _acts(plan, count, rng) if plan.contract is not None else _blocks(plan, source, count, rng)


def _acts(plan: Plan, count: int, rng: np.random.Generator) -> Vectors:
    assert plan.contract is not None
    observations = np.concatenate([_drawn(plan, name, count, rng) for name in plan.graph.inputs], axis=1).astype(
        np.float32
    )
    codes = np.zeros(count, dtype=np.int64)
    if count > BROKEN:
        observations[BROKEN, 0] = np.nan
        codes[BROKEN] = CODES.index("NOT_FINITE")
    session, reset = MachineSession(plan), count // 2
    actions = np.zeros((count, plan.contract.action.size), dtype=np.float32)
    for k, row in enumerate(observations):
        if k == reset:
            session.reset()
        actions[k] = session.step(row.astype(np.float64))
    return Vectors(observations.view(np.uint32), actions.view(np.uint32), codes, reset)


def _drawn(plan: Plan, name: str, count: int, rng: np.random.Generator) -> Array:
    """Values of an Input, (count, n)."""
    graph = plan.graph
    op, size = graph.nodes[name], graph.nodes[name].size
    if op.spikes:
        return (rng.random((count, size)) < 0.3).astype(np.float64)
    mean, spread = np.zeros(size), np.ones(size)
    for b in graph.destinations(name):
        after = graph.nodes[b]
        if isinstance(after, Normalise):
            mean, spread = after.mean, after.divisor
    far = np.where(rng.random((count, 1)) < 0.1, 100.0, 1.0)
    values: Array = mean + spread * far * rng.normal(size=(count, size))
    return values


def _blocks(plan: Plan, source: Source, count: int, rng: np.random.Generator) -> Vectors:
    layout = source.layout
    machine, reset = Machine(plan), count // 2
    inputs = np.zeros((count, layout.in_rows, sum(layout.in_sizes)), dtype=np.int32)
    at = 0
    for entry, size in zip(layout.entries, layout.in_sizes, strict=True):
        low, high = limits(entry)
        values = rng.integers(low, high, endpoint=True, size=(count, layout.in_rows, size))
        inputs[..., at : at + size] = np.where(rng.random(values.shape) < 0.5, values, 0)
        at += size
    outputs = np.zeros((count, layout.in_rows, sum(layout.out_sizes)), dtype=np.int32)
    for k in range(count):
        if k == reset:
            machine.reset()
        outputs[k] = _block(plan, source, machine, inputs[k])
    return Vectors(
        inputs.reshape(count, -1).view(np.uint32),
        outputs.reshape(count, -1).view(np.uint32),
        np.zeros(count, dtype=np.int64),
        reset,
    )


def _block(plan: Plan, source: Source, machine: Machine, rows: Array) -> Array:
    """One block of the core by definition: (rows, in) -> (rows, out) integers."""
    layout, window = source.layout, plan.window
    entered: dict[str, Array] = {}
    at = 0
    for entry, size in zip(layout.entries, layout.in_sizes, strict=True):
        assert size == taken(entry)
        block = np.zeros((window, 1, entry.op.size), dtype=np.int64)
        steps = plan.schedule.steps
        block[:steps, 0, :size] = rows[:, at : at + size]
        # A bias source is on whenever the input is.
        block[:steps, 0, size:] = bias_source(entry)
        entered[entry.name] = block.reshape(window, 1, *entry.op.out_shape)
        at += size
    steps_of = [machine.step({name: values[k] for name, values in entered.items()}) for k in range(window)]
    parts = []
    for read in plan.reads:
        values = np.stack([each[read.source][0].ravel() for each in steps_of[read.first : read.last + 1]])
        parts.append(values.sum(axis=0, keepdims=True) if plan.schedule.held else values)
    return np.concatenate(parts, axis=1)


def vectors_text(vectors: Vectors, source: Source) -> str:
    """The header of recorded steps."""
    p, macro = source.prefix, source.prefix.upper()
    floats = source.layout.plan.contract is not None
    what = "the bits of floats" if floats else "32 bit integers, negative ones as their complement"
    sizes = ("OBS_DIM", "ACT_DIM") if floats else ("IN_DIM", "OUT_DIM")
    return f"""\
/* Written by nervecord: recorded steps for the self-test, {quoted(what)}. */
#ifndef {macro}_VECTORS_H
#define {macro}_VECTORS_H

#include "{p}.h"

#define {macro}_VECTORS {len(vectors.given)} /* steps */
#define {macro}_VECTORS_RESET {vectors.reset} /* the state is reset before this one */

static const uint32_t {p}_vectors_in[{macro}_VECTORS][{macro}_{sizes[0]}] = {{
{_table(vectors.given)}
}};

static const uint32_t {p}_vectors_out[{macro}_VECTORS][{macro}_{sizes[1]}] = {{
{_table(vectors.wanted)}
}};

static const uint8_t {p}_vectors_code[{macro}_VECTORS] = {{
{rows([str(code) for code in vectors.codes.tolist()])}
}};

#endif
"""


def _table(values: Array) -> str:
    return ",\n".join(f"    {{\n{rows([f'0x{x:08x}u' for x in row])}\n    }}" for row in values.tolist())


def selftest_text(source: Source) -> str:
    """The self-test: 0, the number of the first step that is not as recorded, or -1 where floats are contracted."""
    p, macro = source.prefix, source.prefix.upper()
    floats = source.layout.plan.contract is not None
    kind, step = ("float", "step") if floats else ("int32_t", "step_q")
    sizes = ("OBS_DIM", "ACT_DIM") if floats else ("IN_DIM", "OUT_DIM")
    return f"""\
/* Written by nervecord: the self-test. With {macro}_SELFTEST_MAIN it is a program that exits with 0 or 1. */
#include "{p}_vectors.h"

#include <stddef.h>
#include <string.h>

/* Whether a product and a sum become one operation, which rounds once: (1 + e)(1 - e) - 1 is 0 if they do not. */
static int contracts(void)
{{
    static volatile double e = 1.0 / 1073741824.0, one = 1.0;
    const double a = one + e, b = one - e, c = -one;
    return a * b + c != 0.0;
}}

int {p}_selftest(void)
{{
    /* Static, since a controller's stack may be short. */
    static {p}_state_t state;
    static {kind} in[{macro}_{sizes[0]}], out[{macro}_{sizes[1]}], wanted[{macro}_{sizes[1]}];
    if (contracts()) {{
        return -1;
    }}
    {p}_init(&state);
    for (int k = 0; k < {macro}_VECTORS; k++) {{
        if (k == {macro}_VECTORS_RESET) {{
            {p}_reset(&state);
        }}
        memcpy(in, {p}_vectors_in[k], sizeof in);
        memcpy(wanted, {p}_vectors_out[k], sizeof wanted);
        if ({p}_{step}(&state, in, out) != {p}_vectors_code[k]) {{
            return k + 1;
        }}
        for (size_t i = 0; i < {macro}_{sizes[1]}; i++) {{
            if (!(out[i] == wanted[i])) {{
                return k + 1;
            }}
        }}
    }}
    return 0;
}}

#ifdef {macro}_SELFTEST_MAIN
int main(void)
{{
    return {p}_selftest() != 0;
}}
#endif
"""
