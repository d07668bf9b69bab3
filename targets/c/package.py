"""The folder that the target c emits: sources, self-test, what builds them, and a README that counts what they need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata

from nervecord.compiler.files.program import Program, describe, described_hashes
from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.ops import PopulationEncode, Quantise, Rescale
from nervecord.compiler.plan.plan import plan
from nervecord.runtime.engines.c.layout import LinkLayout, limits
from nervecord.runtime.engines.c.names import quoted
from nervecord.runtime.engines.c.source import Source, c_source
from nervecord.targets.c.interface import STATUS, number, with_contract
from nervecord.targets.c.vectors import record, selftest_text, vectors_text

STACK = 512
"""Bytes; no step needs more, on any policy that was measured."""


@dataclass(frozen=True, slots=True)
class Package:
    """Files by name, in ASCII, and what each is for."""

    files: Mapping[str, str]
    uses: Mapping[str, str]


def package(program: Program, *, prefix: str, vectors: int) -> Package:
    """The files of a program of integers.

    Args:
        prefix: of names and files. vectors: recorded steps of the self-test.

    Raises:
        InfeasibleError: an op has no form in C; it is named.
    """
    block_plan = plan(program.subject, program.schedule)
    version = metadata.version("nervecord")
    source = c_source(block_plan, prefix=prefix, version=version, model=model_hash(program))
    recorded = record(block_plan, source, vectors)
    p = prefix
    sources = source.files()
    files = {
        **sources,
        f"{p}.h": with_contract(sources[f"{p}.h"], program.contract, p, version),
        f"{p}_selftest.c": selftest_text(source),
        f"{p}_vectors.h": vectors_text(recorded, source),
        "Makefile": makefile(p),
        "CMakeLists.txt": cmake(p),
        "README.md": readme(program, source, vectors),
    }
    uses = {
        f"{p}.h": f'the interface: #include "{p}.h"',
        f"{p}.c": "compile it with -std=c99 -ffp-contract=off",
        f"{p}_weights.h": f"included by {p}.c",
        f"{p}_weights.c": "constants, compile it too",
        f"{p}_selftest.c": f"{p}_selftest() returns 0, the number of the first step that is not as recorded, or -1",
        f"{p}_vectors.h": f"{vectors} recorded steps, of the self-test",
        "Makefile": "make selftest, make sanitize, make arm",
        "CMakeLists.txt": f"add_subdirectory, and link {p}",
        "README.md": "flash, RAM, stack, operations, and what enters and leaves",
    }
    return Package(files, uses)


def model_hash(program: Program) -> str:
    """Of what the program computes: the first 32 digits of its two hashes, which its file shows."""
    hashes = described_hashes(*describe(program.graph, program.contract, program.schedule))
    return hashes["structure"][:16] + hashes["arrays"][:16]


def makefile(prefix: str) -> str:
    """Builds a library, runs the self-test, here and with sanitizers; sizes for a Cortex-M4."""
    p, macro = prefix, prefix.upper()
    return f"""\
# Written by nervecord. make selftest | sanitize | arm
CFLAGS ?= -O2
STRICT = -std=c99 -ffp-contract=off -Wall -Wextra -Wconversion -Werror -pedantic
ARM ?= arm-none-eabi-
CORE = -mcpu=cortex-m4 -mthumb -mfloat-abi=soft
OBJECTS = {p}.o {p}_weights.o
SOURCES = {p}.c {p}_weights.c

lib{p}.a: $(OBJECTS)
\t$(AR) rcs $@ $(OBJECTS)

%.o: %.c {p}.h {p}_weights.h
\t$(CC) $(STRICT) $(CFLAGS) -c -o $@ $<

selftest: $(SOURCES) {p}_selftest.c {p}_vectors.h
\t$(CC) $(STRICT) $(CFLAGS) -D{macro}_SELFTEST_MAIN -o $@ $(SOURCES) {p}_selftest.c
\t./$@

sanitize: $(SOURCES) {p}_selftest.c {p}_vectors.h
\t$(CC) $(STRICT) -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -D{macro}_SELFTEST_MAIN \\
\t\t-o $@ $(SOURCES) {p}_selftest.c
\t./$@

arm: $(SOURCES)
\t$(ARM)gcc $(STRICT) $(CORE) -Os -fstack-usage -c {p}.c -o {p}_arm.o
\t$(ARM)gcc $(STRICT) $(CORE) -Os -c {p}_weights.c -o {p}_weights_arm.o
\t$(ARM)size {p}_arm.o {p}_weights_arm.o

clean:
\trm -f *.o *.su lib{p}.a selftest sanitize

.PHONY: selftest sanitize arm clean
"""


def cmake(prefix: str) -> str:
    """A static library, and the self-test as a test."""
    p, macro = prefix, prefix.upper()
    return f"""\
# Written by nervecord.
cmake_minimum_required(VERSION 3.13)
project({p} C)

add_library({p} STATIC {p}.c {p}_weights.c)
target_include_directories({p} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
set_target_properties({p} PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF)
target_compile_options({p} PRIVATE -ffp-contract=off)

if(CMAKE_SOURCE_DIR STREQUAL CMAKE_CURRENT_SOURCE_DIR AND NOT CMAKE_CROSSCOMPILING)
  enable_testing()
  add_executable({p}_selftest {p}_selftest.c)
  target_compile_definitions({p}_selftest PRIVATE {macro}_SELFTEST_MAIN)
  target_link_libraries({p}_selftest {p})
  set_target_properties({p}_selftest PROPERTIES C_STANDARD 99 C_EXTENSIONS OFF)
  add_test(NAME {p}_selftest COMMAND {p}_selftest)
endif()
"""


# --------------------------------------------------------------------------------------------------------------------
# README


@dataclass(frozen=True, slots=True)
class Work:
    """Operations of a link per call, at most: every source spikes in every step."""

    link: LinkLayout
    times: int

    @property
    def operations(self) -> int:
        """Additions of a weight; where values enter, after a product."""
        return self.times * self.link.stored


def works(source: Source) -> list[Work]:
    """Of every connection of every population."""
    return [
        Work(link, 1 if link.held is not None else len(cell.useful))
        for cell in source.layout.cells
        for link in cell.links
    ]


def updates(source: Source) -> int:
    """Neuron updates per call."""
    return sum(cell.op.size * len(cell.useful) for cell in source.layout.cells)


def readme(program: Program, source: Source, vectors: int) -> str:
    """What firmware needs to know, and what it costs."""
    p, macro = source.prefix, source.prefix.upper()
    plan, contract = source.layout.plan, program.contract
    lines = [
        f"# {p}: a spiking policy in C99" if contract is not None else f"# {p}: a spiking network in C99",
        "",
        f"Written by nervecord {metadata.version('nervecord')}; model {model_hash(program)}.",
    ]
    if contract is not None:
        lines.append(
            f"Trained in {quoted(contract.environment)}; an action every {contract.control_period * 1e6:.0f} us."
        )
    lines += ["", *_cost(source)]
    lines += ["", "## Use", "", *_use(source), *_statuses(macro)]
    if contract is not None:
        lines += ["", "## Channels", "", *_channels(contract)]
    lines += ["", "## What the core takes and gives", "", *_ends(source)]
    lines += [
        "",
        "## Test",
        "",
        f"`{p}_selftest()` runs {vectors} recorded steps, compares every output to the bit, and returns 0 or the",
        "number of the first step that differs; -1 where the compiler contracts a product and a sum into one",
        "operation, which `-ffp-contract=off` forbids. Run it on your controller once. `make selftest` runs it here,",
        "`make sanitize` with the sanitizers of addresses and undefined behaviour.",
        "",
        "## Rules",
        "",
        "- Compile with `-ffp-contract=off` and without `-ffast-math`. The core has no floats; the normaliser and the",
        "  decoder compute in double, in software where the controller has no unit for it.",
        f"- Any number of `{p}_state_t` at once; a function touches its own state and constants, nothing else.",
        "- No heap, no stdio, no recursion, no arrays of variable length. Of the C library `memset` and `memcpy`.",
        "- An `int` of 32 bits or more.",
        f"- A call is {plan.window} steps of the core, of which {plan.schedule.steps} take new input.",
        f"- `{macro}_STATE_BYTES` is checked when it is compiled.",
    ]
    return "\n".join([*lines, ""])


def sizes(program: Program, prefix: str) -> dict[str, int]:
    """What a program needs on a controller, in bytes, and operations per call at most.

    Raises:
        InfeasibleError: an op has no form in C.
    """
    source = c_source(plan(program.subject, program.schedule), prefix=prefix, version="", model="")
    return {
        "flash_constants": source.flash_bytes,
        "ram": source.state_bytes,
        "stack": STACK,
        "synaptic_operations": sum(work.operations for work in works(source)),
        "neuron_updates": updates(source),
    }


def _cost(source: Source) -> list[str]:
    """Memory, and operations at most."""
    total = sum(work.operations for work in works(source))
    lines = [
        "| what | bytes |",
        "|---|---|",
        f"| flash, constants | {source.flash_bytes} |",
        "| flash, code | see `make arm`; the self-test's vectors are not part of it |",
        f"| RAM, one `{source.prefix}_state_t` | {source.state_bytes} |",
        f"| stack of a step | less than {STACK}, calls of the compiler's own library included |",
        "",
        f"Per call, at most (every source spikes in every step): {total} synaptic operations, {updates(source)} neuron",
        "updates. Connections are driven by spikes: what is silent costs nothing.",
        "",
        "| connection | weights | stored as | runs per call | operations, at most |",
        "|---|---|---|---|---|",
    ]
    for work in works(source):
        link = work.link
        layout = "rows, sparse" if link.start is not None else "matrix"
        lines.append(
            f"| {quoted(link.step.name)} | {link.stored} x {link.weight.kind} | {layout} | {work.times} "
            f"| {work.operations} |"
        )
    return lines


def _channels(contract: Contract) -> list[str]:
    """What stands where in an observation and an action, and what is taken where none can be trusted."""
    lines = ["| place | channel | unit | limits | fail-safe |", "|---|---|---|---|---|"]
    for array, channels in (("obs", contract.observation), ("act", contract.action)):
        for k, (name, unit) in enumerate(zip(channels.names, channels.units, strict=True)):
            limited = channels.low is not None and channels.high is not None
            limits = f"{channels.low[k]:g}..{channels.high[k]:g}" if limited else ""  # type: ignore[index]
            safe = number(contract.fail_safe[k]) if array == "act" else ""
            lines.append(f"| {array}[{k}] | {quoted(name)} | {quoted(unit, '/^')} | {limits} | {safe} |")
    if contract.choices:
        lines += ["", "The action is the number of a choice:", ""]
        lines += [f"{k}. {quoted(name)}" for k, name in enumerate(contract.choices)]
    return lines


def _statuses(macro: str) -> list[str]:
    """What a step returns."""
    return ["", "A step returns", "", *(f"- `{macro}_{name}`: {meaning}" for name, meaning in STATUS.items())]


def _use(source: Source) -> list[str]:
    p, macro = source.prefix, source.prefix.upper()
    if source.layout.plan.contract is None:
        return [
            "```c",
            f'#include "{p}.h"',
            "",
            f"static {p}_state_t state;",
            f"static int32_t in[{macro}_IN_DIM], out[{macro}_OUT_DIM];",
            "",
            f"{p}_init(&state);",
            f"/* every {macro}_DT_US microseconds */",
            f"{p}_step_q(&state, in, out);",
            "```",
        ]
    return [
        "```c",
        f'#include "{p}.h"',
        "",
        f"static {p}_state_t state;",
        f"static float obs[{macro}_OBS_DIM], act[{macro}_ACT_DIM];",
        "",
        f"{p}_init(&state);",
        f"/* every {macro}_DT_US microseconds */",
        f"if ({p}_step(&state, obs, act) != {macro}_OK) {{",
        "    /* act is the fail-safe action */",
        "}",
        "```",
    ]


def _ends(source: Source) -> list[str]:
    layout, plan = source.layout, source.layout.plan
    per = "one call" if layout.in_rows == 1 else f"one of {layout.in_rows} steps of a call, which follow one another"
    lines = [
        f"`{source.prefix}_step_q` takes and gives integers, for {per}; one after the other:",
        "",
        "| end | integers | range | what they are |",
        "|---|---|---|---|",
    ]
    for entry, size in zip(layout.entries, layout.in_sizes, strict=True):
        low, high = limits(entry)
        op = entry.op
        what = "spikes" if op.spikes else "values"
        if isinstance(op, PopulationEncode):
            what = "activations of the receptive fields in units of 2^-20"
        elif isinstance(op, Quantise):
            what = f"round(x * {op.scale:.17g})"
        lines.append(f"| in: {quoted(entry.name)} | {size} | {low}..{high} | {what} |")
    for read, size in zip(plan.reads, layout.out_sizes, strict=True):
        op = plan.step(read.source).op
        what = (
            "membranes" if not op.spikes else ("spikes" if layout.in_rows > 1 or read.first == read.last else "counts")
        )
        scaled = [s.op for s in plan.after if isinstance(s.op, Rescale) and s.taps[0].source == read.source]
        if scaled and plan.contract is None:
            what += f", each times {', '.join(f'{x:.17g}' for x in scaled[0].scale.ravel()[:8].tolist())}"
            what += ", ..." if scaled[0].scale.size > 8 else ""
        lines.append(f"| out: {quoted(read.source)} | {size} | | {what} |")
    return lines
