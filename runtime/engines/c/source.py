"""A plan as C99: `c_source` gives the texts of its files, and what they need of a machine's memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervecord.compiler.plan.plan import Plan
from nervecord.errors import InfeasibleError
from nervecord.runtime.engines.c.block import block_text
from nervecord.runtime.engines.c.constants import Member, Table, ordered, state_dtype
from nervecord.runtime.engines.c.core import Core
from nervecord.runtime.engines.c.host_part import Host
from nervecord.runtime.engines.c.layout import CLayout, c_layout
from nervecord.runtime.engines.c.names import checked_prefix, quoted

PREFIX = "policy"
MOST_STATE = 1 << 29
"""Bytes of one robot's state: a few bytes of a file can ask for many more, by a long delay of a held input."""
CODES = ("OK", "NOT_FINITE", "OUT_OF_RANGE")
"""What a step returns: 0, 1, 2."""


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """The texts of a plan in C.

    Args:
        layout: of the plan. prefix: of names and files.
        header, source, weights_header, weights: texts.
        members: of the state, in order. tables: constants.
    """

    layout: CLayout
    prefix: str
    header: str
    source: str
    weights_header: str
    weights: str
    members: tuple[Member, ...]
    tables: tuple[Table, ...]

    @property
    def state_bytes(self) -> int:
        """RAM of one robot."""
        return sum(member.bytes for member in self.members)

    @property
    def flash_bytes(self) -> int:
        """Constants; the code comes on top, and its size is the compiler's."""
        return sum(table.bytes for table in self.tables)

    @property
    def dtype(self) -> np.dtype[np.void]:
        """The state as numpy reads it."""
        return state_dtype(list(self.members))

    def files(self) -> dict[str, str]:
        """File name -> text."""
        p = self.prefix
        return {
            f"{p}.h": self.header,
            f"{p}.c": self.source,
            f"{p}_weights.h": self.weights_header,
            f"{p}_weights.c": self.weights,
        }


def c_source(plan: Plan, *, prefix: str = PREFIX, version: str = "", model: str = "", observed: bool = False) -> Source:
    """C99 of a plan of integers.

    Args:
        plan: of a policy, or of a graph that is none, which has the integer step alone.
        prefix: of names and files. version: of nervecord. model: hash of the program.
        observed: for engines and tests: populations work in every step, and what every source sent is kept.

    Raises:
        NervecordError: the prefix is no identifier.
        GraphError: the plan is not of integers.
        InfeasibleError: a range cannot be proved, an op has no form in C, or its state is too large; it is named.
    """
    checked_prefix(prefix)
    layout = c_layout(plan, whole=observed)
    core = Core(layout, prefix, observed=observed)
    members = core.members()
    host = None
    if plan.contract is not None:
        host = Host(layout, prefix)
        members += [
            Member("in", "int32_t", layout.in_dim, "scratch: what enters the core"),
            Member("out", "int32_t", layout.out_dim, "scratch: what leaves it"),
        ]
    members = ordered(members)
    size = sum(member.bytes for member in members)
    if size > MOST_STATE:
        raise InfeasibleError(
            f"its state takes {size:,} bytes, {MOST_STATE:,} are possible",
            where="c",
            hint="shorten the delays of what is held, or the populations behind them",
        )
    tables = [*layout.tables, *(host.tables if host is not None else [])]
    text = block_text(core)
    parts = [opening_text(prefix, host is not None), text, _reset(prefix)]
    if host is not None:
        parts.append(host.text())
    return Source(
        layout=layout,
        prefix=prefix,
        header=_header(layout, prefix, members, tables, version, model),
        source="\n".join(parts),
        weights_header=weights_header_text(prefix, tables),
        weights=weights_text(prefix, tables),
        members=tuple(members),
        tables=tuple(tables),
    )


def _defines(layout: CLayout, prefix: str, state: int, flash: int, version: str, model: str) -> list[str]:
    """The macros of the header."""
    macro, plan = prefix.upper(), layout.plan
    assert plan.graph.dt is not None
    period = plan.graph.dt * plan.schedule.steps if plan.contract is None else plan.contract.control_period
    macros = [
        ("VERSION", f'"{quoted(version)}"', "of nervecord, which wrote this"),
        ("MODEL_HASH", f'"{quoted(model)}"', "of the program"),
        *(
            [
                ("OBS_DIM", plan.contract.observation.size, "values of an observation"),
                ("ACT_DIM", plan.contract.action.size, "values of an action"),
            ]
            if plan.contract is not None
            else []
        ),
        ("IN_DIM", layout.in_dim, "integers that the core takes"),
        ("OUT_DIM", layout.out_dim, "integers that it gives"),
        ("STEPS", plan.schedule.steps, "steps of the core whose input is new, T"),
        ("WINDOW", plan.window, "steps of the core per call"),
        ("DT_US", max(1, round(period * 1e6)), "microseconds between two calls"),
        ("STATE_BYTES", state, f"RAM: sizeof({prefix}_state_t)"),
        ("FLASH_BYTES", flash, "constants; the code comes on top"),
        *((name, code, "returned by a step") for code, name in enumerate(CODES)),
    ]
    return [f"#define {macro}_{name} {value} /* {about} */" for name, value, about in macros]


def _header(layout: CLayout, prefix: str, members: list[Member], tables: list[Table], version: str, model: str) -> str:
    macro, plan = prefix.upper(), layout.plan
    state = sum(member.bytes for member in members)
    flash = sum(table.bytes for table in tables)
    defines = _defines(layout, prefix, state, flash, version, model)
    step = f"""
/* One action. An observation that is not finite gives the fail-safe action and {macro}_NOT_FINITE; the state is not
   spoilt by it. Returns {macro}_OK or another of the codes above, and always writes an action that can be taken. */
int {prefix}_step({prefix}_state_t *state, const float obs[{macro}_OBS_DIM], float act[{macro}_ACT_DIM]);
"""
    return f"""\
/* Written by nervecord; see README.md beside it. */
#ifndef {macro}_H
#define {macro}_H

#include <stdint.h>

{chr(10).join(defines)}

#ifdef __cplusplus
extern "C" {{
#endif

/* All that one robot needs. Several may be used at once; their members are nobody else's business. */
typedef struct {{
{chr(10).join(member.declaration() for member in members)}
}} {prefix}_state_t;

/* Before the first step of anything. */
void {prefix}_init({prefix}_state_t *state);

/* Before the first step of an episode. */
void {prefix}_reset({prefix}_state_t *state);
{step if plan.contract is not None else ""}
/* The core alone, in integers: README.md says what enters and leaves. {macro}_OUT_OF_RANGE changes nothing. */
int {prefix}_step_q({prefix}_state_t *state, const int32_t in[{macro}_IN_DIM], int32_t out[{macro}_OUT_DIM]);

/* {prefix}_selftest.c: 0, or the number of the first recorded step that comes out otherwise here. */
int {prefix}_selftest(void);

#ifdef __cplusplus
}}
#endif

#endif
"""


def opening_text(prefix: str, floats: bool) -> str:
    """What a file begins with. floats: it has doubles too."""
    macro = prefix.upper()
    guard = """
/* Floats must be rounded to double after each operation, as they were when this was tested. */
#if defined(__FAST_MATH__) || (defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD == 2)
#error "compile without -ffast-math, and on x86 with -msse2 -mfpmath=sse"
#endif
#if DBL_MANT_DIG != 53
#error "a double of 64 bits is needed"
#endif
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif
"""
    includes = ["float.h", "limits.h", "math.h", "stddef.h", "string.h"]
    if not floats:
        includes = ["limits.h", "stddef.h", "string.h"]
    return f"""\
/* Written by nervecord; see README.md beside it. */
#include "{prefix}.h"
#include "{prefix}_weights.h"

{chr(10).join(f"#include <{name}>" for name in includes)}

#if INT_MAX < 2147483647
#error "an int of 32 bits is needed"
#endif
{guard if floats else ""}
/* Fails to compile where the struct has another size than {macro}_STATE_BYTES. */
typedef char {prefix}_state_size_t[sizeof({prefix}_state_t) == {macro}_STATE_BYTES ? 1 : -1];
"""


def _reset(prefix: str) -> str:
    return f"""\
void {prefix}_init({prefix}_state_t *s)
{{
    memset(s, 0, sizeof *s);
}}

void {prefix}_reset({prefix}_state_t *s)
{{
    {prefix}_init(s);
}}
"""


def weights_header_text(prefix: str, tables: list[Table]) -> str:
    """The declarations of constants."""
    macro = prefix.upper()
    return f"""\
/* Written by nervecord. The constants of {prefix}.c. */
#ifndef {macro}_WEIGHTS_H
#define {macro}_WEIGHTS_H

#include <stdint.h>

{chr(10).join(table.declaration(prefix) for table in tables)}

#endif
"""


def weights_text(prefix: str, tables: list[Table]) -> str:
    """Their definitions."""
    definitions = "\n".join(f"/* {table.about} */\n{table.definition(prefix)}" for table in tables)
    return f'/* Written by nervecord. */\n#include "{prefix}_weights.h"\n\n{definitions}'
