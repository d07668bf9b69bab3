"""One block of the core in C: what enters it, the loop over its steps, and what leaves it."""

from __future__ import annotations

from nervecord.compiler.plan.plan import Entry, Read
from nervecord.runtime.engines.c.constants import literal, unsigned
from nervecord.runtime.engines.c.core import Core
from nervecord.runtime.engines.c.layout import LinkLayout, PopulationLayout, bias_source, limits, taken
from nervecord.runtime.engines.c.names import quoted


def block_text(core: Core) -> str:
    """The functions of what enters and of all populations, and `<prefix>_step_q`, with the helpers before them."""
    cells = {cell.name: core.cell(cell) for cell in core.layout.cells}
    enters = [text for entry in core.layout.entries for text in [_enter(core, entry)] if text]
    step = _step(core, cells)
    return "\n".join([*core.helpers.text.values(), *enters, *cells.values(), step])


# --------------------------------------------------------------------------------------------------------------------
# What enters


def _enter(core: Core, entry: Entry) -> str:
    """The function that puts one step of an entry into its ring; empty where it has none."""
    if entry.name not in core.layout.rings:
        return ""
    ring, name = core.layout.rings[entry.name], core.layout.names[entry.name]
    slot = f"s->{name}_at" if ring.slots > 1 else "0"
    start = f"    {ring.place} *const list = s->{name}_list + {ring.width} * (size_t){slot};"
    lines = [start, "    size_t count = 0;"]
    n, constant = taken(entry), bias_source(entry)
    value = f"s->{name}_value[{ring.width} * (size_t){slot} + count] = ({ring.value})%s;"
    if entry.name in core.layout.pulses:
        equations = core.layout.pulses[entry.name]
        inner, spike = equations.lines("x[i]", core.prefix, core.helpers, result=True, before_spike=False)
        lines += [
            f"    for (size_t i = 0; i < {n}; i++) {{",
            *(f"        {line}" for line in inner),
            f"        list[count] = ({ring.place})i;",
            f"        count += (size_t)({spike});",
            "    }",
        ]
    else:
        lines += [
            f"    for (size_t i = 0; i < {n}; i++) {{",
            "        if (x[i] != 0) {",
            f"            list[count] = ({ring.place})i;",
            *([f"            {value % 'x[i]'}"] if ring.valued else []),
            "            count++;",
            "        }",
            "    }",
        ]
    if constant:
        lines += [f"    list[count] = {n};", *([f"    {value % constant}"] if ring.valued else []), "    count++;"]
    if core.observed:
        amount = "1" if not ring.valued else (f"s->{name}_value[{ring.width} * (size_t){slot} + j]")
        lines += [
            f"    {core.helpers.clear()}(s->{name}_given + {ring.width} * (size_t)k, {ring.width});",
            "    for (size_t j = 0; j < count; j++) {",
            f"        s->{name}_given[{ring.width} * (size_t)k + list[j]] = {amount};",
            f"        s->{name}_times[list[j]] += s->counted;",
            "    }",
        ]
    lines.append(f"    s->{name}_count[{slot}] = ({ring.count})count;")
    k = ", unsigned k" if core.observed else ""
    return "\n".join(
        [
            f"/* One step of what enters: {quoted(entry.name)}. */",
            f"static void enter_{name}({core.type} *s, const int32_t *x{k})",
            "{",
            *lines,
            "}",
            "",
        ]
    )


def range_checks(core: Core) -> list[str]:
    """Lines that refuse what no range was proved for."""
    layout, lines = core.layout, []
    row, at = sum(layout.in_sizes), 0
    for entry, size in zip(layout.entries, layout.in_sizes, strict=True):
        low, high = limits(entry)
        x = f"in[{f'{at} + i' if at else 'i'}]" if layout.in_rows == 1 else f"in[{row} * r + {at} + i]"
        inner = [
            f"for (size_t i = 0; i < {size}; i++) {{",
            f"    if ({x} < {literal(low)} || {x} > {literal(high)}) {{",
            f"        return {core.macro}_OUT_OF_RANGE;",
            "    }",
            "}",
        ]
        if layout.in_rows > 1:
            inner = [f"for (size_t r = 0; r < {layout.in_rows}; r++) {{", *(f"    {line}" for line in inner), "}"]
        lines += inner
        at += size
    return lines


def _held(core: Core) -> list[str]:
    """Lines before the loop: what is held, and its products."""
    lines: list[str] = []
    at = 0
    for entry, size in zip(core.layout.entries, core.layout.in_sizes, strict=True):
        links = [link for link in core.layout.links.values() if link.held == entry.name]
        name, x = core.layout.names[entry.name], f"in + {at}" if at else "in"
        if bias_source(entry) and links:
            lines += [
                f"memcpy(s->{name}_sent, {x}, {size} * sizeof in[0]);",
                f"s->{name}_sent[{size}] = {bias_source(entry)};",
            ]
            x = f"s->{name}_sent"
        for link in links:
            lines += _product(core, link, x)
        if entry.name in core.layout.pulses and core.plan.schedule.resets:
            states = core.layout.pulses[entry.name].states
            lines += [f"memset(s->{name}_{state}, 0, sizeof s->{name}_{state});" for state in states]
        if core.observed and entry.entering == "held" and entry.name not in core.layout.rings:
            steps = core.plan.schedule.steps
            lines += [
                f"for (size_t i = 0; i < {entry.op.size}; i++) {{",
                f"    const int32_t *const x = {x};",
                f"    for (size_t t = 0; t < {steps}; t++) {{",
                f"        s->{name}_given[{entry.op.size} * t + i] = x[i];",
                "    }",
                f"    s->{name}_times[i] += s->counted * (int64_t)(x[i] != 0) * {steps};",
                "}",
            ]
        at += size
    return lines


def _product(core: Core, link: LinkLayout, x: str) -> list[str]:
    """Lines that take the product of a held entry, once per block."""
    n, name = link.outputs, link.name
    lines = []
    place = f"s->{name}_product"
    if link.slots > 1:
        kind = next(m.kind for m in core.members() if m.name == f"{name}_at")
        lines.append(f"s->{name}_at = ({kind})((s->{name}_at + 1u) % {link.slots}u);")
        place += f" + {n} * (size_t)s->{name}_at"
    if link.wide:
        term = core.scaled(link, "s->total[i]", wide=True)
        return [
            *lines,
            f"{core.helpers.clear(wide=True)}(s->total, {n});",
            core.add_product(link, "s->total", x),
            f"for (size_t i = 0; i < {n}; i++) {{",
            f"    ({place})[i] = (int32_t)({term});",
            "}",
        ]
    lines += [f"{core.helpers.clear()}({place}, {n});", core.add_product(link, place, x)]
    if link.exponent and not link.each:
        element = f"({place})[i]" if link.slots > 1 else f"{place}[i]"
        lines += [
            f"for (size_t i = 0; i < {n}; i++) {{",
            f"    {element} = {core.scaled(link, element, wide=False)};",
            "}",
        ]
    return lines


# --------------------------------------------------------------------------------------------------------------------
# The loop


def _entries(core: Core) -> list[str]:
    """Lines of a step that fill the rings of what enters."""
    layout, steps, window = core.layout, core.plan.schedule.steps, core.plan.window
    row, at, lines = sum(layout.in_sizes), 0, []
    k = ", k" if core.observed else ""
    for entry, size in zip(layout.entries, layout.in_sizes, strict=True):
        if entry.name in layout.rings:
            name, ring = layout.names[entry.name], layout.rings[entry.name]
            x = f"in + {at}" if at else "in"
            if layout.in_rows > 1:
                x = f"in + {row} * (size_t)k{f' + {at}' if at else ''}"
            call = f"enter_{name}(s, {x}{k});"
            slot = f"s->{name}_at" if ring.slots > 1 else "0"
            lines += (
                [call]
                if steps == window
                else [f"if (k < {steps}) {{", f"    {call}", "} else {", f"    s->{name}_count[{slot}] = 0;", "}"]
            )
        at += size
    return lines


def _read(core: Core, read: Read, cell: PopulationLayout, at: int) -> list[str]:
    """Lines of a step that give what leaves."""
    layout, n = core.layout, cell.op.size
    row = sum(layout.out_sizes)
    place = str(at)
    if layout.in_rows > 1:
        place = f"{row} * (size_t)(k - {read.first}) + {at}" if read.first else f"{row} * (size_t)k + {at}"
    if cell.ring is None:
        lines = [f"memcpy(out + {place}, s->{cell.shown}, {n} * sizeof out[0]);"]
    else:
        ring = cell.ring
        slot = f"s->{ring.name}_at" if ring.slots > 1 else "0"
        value = f"s->{ring.name}_value[{n} * (size_t){slot} + j]" if ring.valued else "1"
        lines = [
            f"for (size_t j = 0; j < s->{ring.name}_count[{slot}]; j++) {{",
            f"    out[{place} + s->{ring.name}_list[{n} * (size_t){slot} + j]] += {value};",
            "}",
        ]
    if read.first == read.last and core.plan.window > 1:
        return [f"if (k == {read.first}) {{", *(f"    {line}" for line in lines), "}"]
    conditions = ([f"k >= {read.first}"] if read.first else []) + (
        [f"k <= {read.last}"] if read.last < core.plan.window - 1 else []
    )
    if not conditions:
        return lines
    return [f"if ({' && '.join(conditions)}) {{", *(f"    {line}" for line in lines), "}"]


def _step(core: Core, cells: dict[str, str]) -> str:
    layout, plan, macro = core.layout, core.plan, core.macro
    loop = _entries(core)
    for cell in layout.cells:
        loop += core.call(cell, cells[cell.name])
        at = 0
        for read, size in zip(plan.reads, layout.out_sizes, strict=True):
            if read.source == cell.unit.step.name:
                loop += _read(core, read, cell, at)
            at += size
    for ring in layout.rings.values():
        if ring.slots > 1:
            loop.append(f"s->{ring.name}_at = ({unsigned(ring.slots)})((s->{ring.name}_at + 1u) % {ring.slots}u);")
    lines = [*range_checks(core), f"{core.helpers.clear()}(out, {layout.out_dim});", *_held(core)]
    if plan.window > 1:
        lines += [f"for (unsigned k = 0; k < {macro}_WINDOW; k++) {{", *(f"    {line}" for line in loop), "}"]
    else:
        uses = any("unsigned k" in text for text in cells.values()) or core.observed
        lines += ["{", *(["    const unsigned k = 0;"] if uses else []), *(f"    {line}" for line in loop), "}"]
    body = "\n".join(f"    {line}" for line in [*lines, f"return {macro}_OK;"])
    return (
        f"int {core.prefix}_step_q({core.type} *s, const int32_t in[{macro}_IN_DIM], int32_t out[{macro}_OUT_DIM])\n"
        f"{{\n{body}\n}}\n"
    )
