"""The host's part in C: normalises and quantises, writes integers to the board, reads and decodes; for a policy.

Printed as the target c prints it, but `<prefix>_step_q` asks the board over a serial line instead of computing. How
bytes leave and come is the user's: two functions; one pair of them, for POSIX, is beside it.
"""

from __future__ import annotations

from nervecord.compiler.plan.plan import Entry, Plan
from nervecord.runtime.engines.c.block import range_checks
from nervecord.runtime.engines.c.constants import Member
from nervecord.runtime.engines.c.core import Core
from nervecord.runtime.engines.c.host_part import Host
from nervecord.runtime.engines.c.layout import bias_source, c_layout, taken
from nervecord.runtime.engines.c.source import opening_text, weights_header_text, weights_text
from nervecord.targets.fpga.hostfiles import makefile_text, posix_text, recorded_steps, test_text
from nervecord.targets.fpga.serial import VERSION, Protocol

FOLDER = "host"
NO_BOARD = 3
"""Returned by a step beside the codes of the target c."""


def host_files(plan: Plan, protocol: Protocol, prefix: str, count: int) -> dict[str, str]:
    """The files of the host's part by name; none for what is no policy, which has none.

    Args:
        protocol: of the board. prefix: of names and files. count: recorded steps of the self-test.

    Raises:
        InfeasibleError: an op has no form in C; it is named.
    """
    if plan.contract is None:
        return {}
    core_layout = c_layout(plan)
    core, host = Core(core_layout, prefix, observed=False), Host(core_layout, prefix)
    order = _order(core, protocol)
    body = "\n".join([*core.helpers.text.values(), _exchange(prefix, protocol), order, _reset(prefix), host.text()])
    # Of the constants of the core those alone that encoders of spikes have, which are the host's here.
    tables = [table for table in core_layout.tables if f"{prefix}_{table.name}" in order] + host.tables
    return {
        f"{prefix}_host.h": _header(core, protocol, order),
        f"{prefix}_host.c": _renamed(opening_text(prefix, floats=True), prefix) + "\n" + body,
        f"{prefix}_weights.h": weights_header_text(prefix, tables),
        f"{prefix}_weights.c": weights_text(prefix, tables),
        f"{prefix}_posix.c": posix_text(prefix),
        f"{prefix}_hosttest.c": test_text(prefix, recorded_steps(plan, count)),
        "Makefile": makefile_text(prefix),
    }


def _renamed(opening: str, prefix: str) -> str:
    """With this folder's header, and without the check of the state's size, which has pointers in it."""
    text, _, _ = opening.partition("/* Fails to compile where the struct")
    return text.replace(f'"{prefix}.h"', f'"{prefix}_host.h"')


def _header(core: Core, protocol: Protocol, order: str) -> str:
    p, macro, contract = core.prefix, core.macro, core.plan.contract
    assert contract is not None
    members = [member for member in core.members() if f"s->{member.name}[i]" in order]
    members += [
        Member("in", "int32_t", core.layout.in_dim, "scratch: what the host quantised"),
        Member("out", "int32_t", core.layout.out_dim, "scratch: what the board gave"),
        Member("bytes", "uint8_t", _longest(protocol), "scratch: an order, an answer"),
        Member("lost", "uint8_t", 0, "the board failed within a step, and its state is not known"),
    ]
    return f"""\
/* Written by nervecord; see README.md in the folder above. */
#ifndef {macro}_HOST_H
#define {macro}_HOST_H

#include <stddef.h>
#include <stdint.h>

#define {macro}_OBS_DIM {contract.observation.size} /* values of an observation */
#define {macro}_ACT_DIM {contract.action.size} /* values of an action */
#define {macro}_IN_DIM {core.layout.in_dim} /* integers that the host quantises */
#define {macro}_OUT_DIM {core.layout.out_dim} /* integers that the board gives */
#define {macro}_STEPS {core.plan.schedule.steps} /* steps of the core whose input is new, T */
#define {macro}_DT_US {max(1, round(contract.control_period * 1e6))} /* microseconds between two calls */
#define {macro}_OK 0 /* the action is the policy's */
#define {macro}_NOT_FINITE 1 /* a value of the observation is NaN or infinite: act is the fail-safe action */
#define {macro}_OUT_OF_RANGE 2 /* an integer is outside its range: nothing was sent */
#define {macro}_NO_BOARD {NO_BOARD} /* the board does not answer, or not as it should: act is the fail-safe action */

#ifdef __cplusplus
extern "C" {{
#endif

/* The serial line: 1 Mbaud, 8 bits, no parity. `write` sends all n bytes and returns n. `read` waits for n bytes and
   returns how many came; fewer where the line was silent for long, such as a second. */
typedef struct {{
    size_t (*write)(void *context, const uint8_t *data, size_t n);
    size_t (*read)(void *context, uint8_t *data, size_t n);
    void *context;
}} {p}_line_t;

/* All that one board needs; its members are nobody else's business. */
typedef struct {{
    const {p}_line_t *line;
{chr(10).join(member.declaration() for member in members)}
}} {p}_state_t;

/* Before anything else: whether the board holds this program. Clears it. {macro}_OK or {macro}_NO_BOARD. */
int {p}_open({p}_state_t *state, const {p}_line_t *line);

/* Before the first step of an episode, and after {macro}_NO_BOARD, which keeps every step from acting until then. */
int {p}_reset({p}_state_t *state);

/* One action. Always writes one that can be taken. */
int {p}_step({p}_state_t *state, const float obs[{macro}_OBS_DIM], float act[{macro}_ACT_DIM]);

/* The board alone, in integers. */
int {p}_step_q({p}_state_t *state, const int32_t in[{macro}_IN_DIM], int32_t out[{macro}_OUT_DIM]);

/* {p}_posix.c: opens a serial port, such as "/dev/ttyUSB1". 0, or -1 with errno. */
int {p}_posix_open({p}_line_t *line, const char *path);
void {p}_posix_close({p}_line_t *line);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _sent(protocol: Protocol) -> int:
    return protocol.inputs * protocol.in_bytes


def _received(protocol: Protocol) -> int:
    return protocol.outputs * protocol.out_bytes


def _longest(protocol: Protocol) -> int:
    """Bytes of the longest order or answer."""
    return max(2 + _sent(protocol), 2 + _received(protocol), len(protocol.greeting))


def _exchange(prefix: str, protocol: Protocol) -> str:
    """The functions below a step: orders and answers."""
    greeting = ", ".join(f"0x{byte:02x}" for byte in protocol.greeting)
    return f"""\
/* Sends n bytes of an order and takes m of its answer; the first one must be `answer`. */
static int exchange({prefix}_state_t *s, size_t n, uint8_t answer, size_t m)
{{
    const {prefix}_line_t *const line = s->line;
    if (line->write(line->context, s->bytes, n) != n || line->read(line->context, s->bytes, 1) != 1) {{
        return 0;
    }}
    if (s->bytes[0] != answer) {{
        return 0;
    }}
    return m == 1 || line->read(line->context, s->bytes + 1, m - 1) == m - 1;
}}

static int order({prefix}_state_t *s, uint8_t what, uint8_t answer, size_t m)
{{
    s->bytes[0] = what;
    return exchange(s, 1, answer, m);
}}

/* The answer to V: version {VERSION} of the protocol, the program's hash, numbers that enter and leave. */
static const uint8_t greeting[{len(protocol.greeting)}] = {{
    {greeting}
}};
"""


def _order(core: Core, protocol: Protocol) -> str:
    """`<prefix>_step_q`: the numbers of the order W, then S, then R."""
    p, macro, plan = core.prefix, core.macro, core.plan
    lines = [*range_checks(core), "if (s->lost) {", f"    return {macro}_NO_BOARD;", "}"]
    pulses = core.layout.pulses
    put = "at = put(s, at, {});"
    steps = [line for entry in core.layout.entries for line in _numbers(core, entry, put)]
    for name, equations in pulses.items():
        if plan.schedule.resets:
            identifier = core.layout.names[name]
            lines += [
                f"memset(s->{identifier}_{state}, 0, sizeof s->{identifier}_{state});" for state in equations.states
            ]
    lines += ["size_t at = 1;"]
    if pulses:
        steps = [f"for (unsigned k = 0; k < {macro}_STEPS; k++) {{", *(f"    {line}" for line in steps), "}"]
    lines += [*steps, *_tail(macro, protocol)]
    body = "\n".join(f"    {line}" for line in lines)
    moved = "\n".join(
        f"    s->bytes[at++] = (uint8_t)((uint32_t)x >> {8 * k});" for k in range(min(protocol.in_bytes, 4))
    )
    wide = "    s->bytes[at++] = x < 0 ? 0xffu : 0u;\n" * (protocol.in_bytes - 4)
    return f"""\
static size_t put({p}_state_t *s, size_t at, int32_t x)
{{
{moved}
{wide}    return at;
}}

static uint8_t sum_of(const uint8_t *bytes, size_t n)
{{
    unsigned sum = 0;
    for (size_t k = 0; k < n; k++) {{
        sum += bytes[k];
    }}
    return (uint8_t)sum;
}}

int {p}_step_q({p}_state_t *s, const int32_t in[{macro}_IN_DIM], int32_t out[{macro}_OUT_DIM])
{{
{body}
}}
"""


def _numbers(core: Core, entry: Entry, put: str) -> list[str]:
    """Lines that put an entry's numbers of one row."""
    layout = core.layout
    at = sum(layout.in_sizes[: layout.entries.index(entry)])
    x, n, constant = f"in[{f'{at} + ' if at else ''}i]", taken(entry), bias_source(entry)
    if entry.name in layout.pulses:
        inner, spike = layout.pulses[entry.name].lines(x, core.prefix, core.helpers, result=True, before_spike=False)
        body = [*inner, put.format(f"({spike}) != 0")]
    else:
        # Of several rows the first one holds what is held.
        body = [put.format(f"k == 0 ? {x} : 0" if layout.pulses else x)]
    lines = [f"for (size_t i = 0; i < {n}; i++) {{", *(f"    {line}" for line in body), "}"]
    if constant:
        always = str(constant) if entry.name in layout.pulses or not layout.pulses else f"k == 0 ? {constant} : 0"
        lines.append(put.format(always))
    return lines


def _tail(macro: str, protocol: Protocol) -> list[str]:
    """Lines of a step behind the numbers."""
    size, count = protocol.out_bytes, protocol.outputs
    received = _received(protocol)
    parts = " | ".join(f"(uint64_t)bytes[{k}] << {8 * k}" for k in range(size))
    sign = 1 << (8 * size - 1)
    return [
        "s->bytes[0] = 'W';",
        "s->bytes[at] = sum_of(s->bytes + 1, at - 1);",
        "s->lost = 1;",
        "if (!exchange(s, at + 1, 'w', 1) || !order(s, 'S', 's', 1)) {",
        f"    return {macro}_NO_BOARD;",
        "}",
        f"if (!order(s, 'R', 'r', {received + 2}) || sum_of(s->bytes + 1, {received}) != s->bytes[{received + 1}]) {{",
        f"    return {macro}_NO_BOARD;",
        "}",
        "s->lost = 0;",
        f"for (size_t i = 0; i < {count}; i++) {{",
        f"    const uint8_t *const bytes = s->bytes + 1 + {size} * i;",
        f"    const uint64_t bits = {parts};",
        f"    out[i] = (int32_t)((int64_t)(bits ^ UINT64_C({sign})) - INT64_C({sign}));",
        "}",
        f"return {macro}_OK;",
    ]


def _reset(prefix: str) -> str:
    macro = prefix.upper()
    return f"""\
/* Zeros fill up what the board may wait for, beyond that they are orders that it does not know; then silence, unless
   what is there never stops sending. */
static void quiet({prefix}_state_t *s)
{{
    memset(s->bytes, 0, sizeof s->bytes);
    s->line->write(s->line->context, s->bytes, sizeof s->bytes);
    for (unsigned long k = 0; k < 65536UL + 4UL * sizeof s->bytes; k++) {{
        if (s->line->read(s->line->context, s->bytes, 1) != 1) {{
            return;
        }}
    }}
}}

int {prefix}_reset({prefix}_state_t *s)
{{
    const {prefix}_line_t *const line = s->line;
    memset(s, 0, sizeof *s);
    s->line = line;
    if (order(s, 'Z', 'z', 1)) {{
        return {macro}_OK;
    }}
    quiet(s);
    s->lost = !order(s, 'Z', 'z', 1);
    return s->lost ? {macro}_NO_BOARD : {macro}_OK;
}}

int {prefix}_open({prefix}_state_t *s, const {prefix}_line_t *line)
{{
    memset(s, 0, sizeof *s);
    s->line = line;
    s->lost = 1;
    if (!order(s, 'V', 'v', sizeof greeting)) {{
        quiet(s); /* of an earlier user's order something may be on the way */
        if (!order(s, 'V', 'v', sizeof greeting)) {{
            return {macro}_NO_BOARD;
        }}
    }}
    if (memcmp(s->bytes, greeting, sizeof greeting) != 0) {{
        return {macro}_NO_BOARD;
    }}
    return {prefix}_reset(s);
}}
"""
