"""What stands beside the host's part in C: a serial line for Linux, a self-test with recorded steps, a Makefile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nervecord.compiler.ops import Array, Normalise
from nervecord.compiler.plan.plan import Plan
from nervecord.runtime.engines.c.constants import rows
from nervecord.runtime.session import MachineSession


@dataclass(frozen=True, slots=True)
class Vectors:
    """Recorded steps: float32 observations and the actions of the definition. reset: the step before which it is."""

    observations: Array
    actions: Array
    reset: int


def posix_text(prefix: str) -> str:
    """The serial line on Linux."""
    return f"""\
/* Written by nervecord. The serial line on Linux. */
#define _DEFAULT_SOURCE
#include "{prefix}_host.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <termios.h>
#include <unistd.h>

/* Milliseconds of silence after which the board is dead. */
#define PATIENCE 1000

static size_t line_write(void *context, const uint8_t *data, size_t n)
{{
    size_t sent = 0;
    while (sent < n) {{
        const ssize_t more = write((int)(intptr_t)context, data + sent, n - sent);
        if (more < 0 && errno == EINTR) {{
            continue;
        }}
        if (more <= 0) {{
            break;
        }}
        sent += (size_t)more;
    }}
    return sent;
}}

static size_t line_read(void *context, uint8_t *data, size_t n)
{{
    size_t got = 0;
    while (got < n) {{
        struct pollfd wait = {{.fd = (int)(intptr_t)context, .events = POLLIN}};
        const int ready = poll(&wait, 1, PATIENCE);
        if (ready < 0 && errno == EINTR) {{
            continue;
        }}
        if (ready <= 0) {{
            break;
        }}
        const ssize_t more = read(wait.fd, data + got, n - got);
        if (more <= 0) {{
            break;
        }}
        got += (size_t)more;
    }}
    return got;
}}

int {prefix}_posix_open({prefix}_line_t *line, const char *path)
{{
    struct termios raw;
    const int file = open(path, O_RDWR | O_NOCTTY);
    if (file < 0) {{
        return -1;
    }}
    if (tcgetattr(file, &raw) != 0) {{
        const int code = errno;
        close(file);
        errno = code;
        return -1;
    }}
    cfmakeraw(&raw);
    raw.c_cflag |= CREAD | CLOCAL;
    cfsetispeed(&raw, B1000000);
    cfsetospeed(&raw, B1000000);
    if (tcsetattr(file, TCSANOW, &raw) != 0) {{
        const int code = errno;
        close(file);
        errno = code;
        return -1;
    }}
    tcflush(file, TCIOFLUSH);
    line->write = line_write;
    line->read = line_read;
    line->context = (void *)(intptr_t)file;
    return 0;
}}

void {prefix}_posix_close({prefix}_line_t *line)
{{
    close((int)(intptr_t)line->context);
}}
"""


def recorded_steps(plan: Plan, count: int) -> Vectors:
    """Steps of the definition, whose observations are drawn around what the policy was trained on."""
    rows = observations(plan, count).astype(np.float32)
    session, reset = MachineSession(plan), count // 2
    actions = []
    for k, row in enumerate(rows):
        if k == reset:
            session.reset()
        actions.append(session.step(row.astype(np.float64)).astype(np.float32))
    return Vectors(rows, np.stack(actions), reset)


def observations(plan: Plan, count: int) -> Array:
    """Drawn around the means of the normalisers, by their deviations; where there is none around 0."""
    rng, parts, graph = np.random.default_rng(0), [], plan.graph
    for name in graph.inputs:
        values = rng.normal(size=(count, graph.nodes[name].size))
        if graph.nodes[name].spikes:
            values = (values > 0).astype(np.float64)
        for destination in graph.destinations(name):
            op = graph.nodes[destination]
            if isinstance(op, Normalise):
                values = op.mean + values * op.divisor
        parts.append(values)
    return np.concatenate(parts, axis=1)


def test_text(prefix: str, vectors: Vectors) -> str:
    """A program that plays recorded steps on a board."""
    macro, count = prefix.upper(), len(vectors.observations)
    observed, actions = (
        rows([f"0x{bits:08x}u" for bits in values.view(np.uint32).ravel().tolist()])
        for values in (vectors.observations, vectors.actions)
    )
    return f"""\
/* Written by nervecord: {count} recorded steps on a board; {prefix}_hosttest /dev/ttyUSB1 */
#include "{prefix}_host.h"

#include <stdio.h>
#include <string.h>

/* Bits of floats. */
static const uint32_t given[{count}][{macro}_OBS_DIM] = {{
{observed}
}};
static const uint32_t wanted[{count}][{macro}_ACT_DIM] = {{
{actions}
}};

int main(int argc, char **argv)
{{
    static {prefix}_state_t state;
    {prefix}_line_t line;
    int wrong = 0;
    if (argc != 2) {{
        fputs("needs the serial port of the board, such as /dev/ttyUSB1\\n", stderr);
        return 2;
    }}
    if ({prefix}_posix_open(&line, argv[1]) != 0) {{
        perror(argv[1]);
        return 2;
    }}
    if ({prefix}_open(&state, &line) != {macro}_OK) {{
        fputs("the board does not answer, or holds another program\\n", stderr);
        return 2;
    }}
    for (int k = 0; k < {count}; k++) {{
        float obs[{macro}_OBS_DIM], act[{macro}_ACT_DIM];
        memcpy(obs, given[k], sizeof obs);
        if (k == {vectors.reset} && {prefix}_reset(&state) != {macro}_OK) {{
            wrong++;
        }}
        if ({prefix}_step(&state, obs, act) != {macro}_OK || memcmp(act, wanted[k], sizeof act) != 0) {{
            wrong++;
        }}
    }}
    {prefix}_posix_close(&line);
    printf("%d of {count} recorded steps differ\\n", wrong);
    return wrong != 0;
}}
"""


def makefile_text(prefix: str) -> str:
    """Builds a library, and plays recorded steps on a board."""
    p = prefix
    return f"""\
# Written by nervecord. make | make selftest PORT=/dev/ttyUSB1
CFLAGS ?= -O2
STRICT = -std=c99 -ffp-contract=off -Wall -Wextra -Wconversion -Werror -pedantic
OBJECTS = {p}_host.o {p}_weights.o {p}_posix.o

lib{p}_host.a: $(OBJECTS)
\t$(AR) rcs $@ $(OBJECTS)

%.o: %.c {p}_host.h {p}_weights.h
\t$(CC) $(STRICT) $(CFLAGS) -c -o $@ $<

{p}_hosttest: lib{p}_host.a {p}_hosttest.c
\t$(CC) $(STRICT) $(CFLAGS) -Wno-missing-braces -o $@ {p}_hosttest.c lib{p}_host.a

selftest: {p}_hosttest
\t./{p}_hosttest $(PORT)

clean:
\trm -f *.o lib{p}_host.a {p}_hosttest

.PHONY: selftest clean
"""
