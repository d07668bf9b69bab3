"""Functions of C that the integer core is made of, each printed only where it is used."""

from __future__ import annotations

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.c.form import Link, Ring


class Helpers:
    """The functions that were asked for, in the order of asking."""

    def __init__(self, arithmetic: Arithmetic) -> None:
        self.arithmetic = arithmetic
        self.text: dict[str, str] = {}

    def _add(self, name: str, text: str) -> str:
        self.text.setdefault(name, text)
        return name

    def clear(self, *, wide: bool = False) -> str:
        """Zeros; GCC warns of a bare memset of few elements."""
        kind = "int64_t" if wide else "int32_t"
        name = "clear_64" if wide else "clear"
        return self._add(
            name,
            f"""\
static inline void {name}({kind} *x, size_t n)
{{
    memset(x, 0, n * sizeof *x);
}}
""",
        )

    def _apart(self) -> None:
        """What keeps a loop of its own: in its caller's, of constant length, GCC makes worse code of it for x86."""
        self._add("KEPT_APART", """\
#if defined(__GNUC__)
#define KEPT_APART __attribute__((noinline))
#else
#define KEPT_APART
#endif
""")  # fmt: skip

    def shift(self, *, wide: bool) -> str:
        """x / 2^by, rounded down: C does not say what `>>` makes of a negative number."""
        kind = "int64_t" if wide else "int32_t"
        name = "shift_down_64" if wide else "shift_down"
        return self._add(
            name,
            f"""\
/* x / 2^by, rounded down. */
static inline {kind} {name}({kind} x, unsigned by)
{{
    return x < 0 ? ~(~x >> by) : x >> by;
}}
""",
        )

    def keep(self) -> str:
        """What a decay by a factor leaves."""
        a = self.arithmetic
        bits, mask = a.decay_bits, (1 << a.decay_bits) - 1
        towards = "towards zero" if not a.rounds_down else "down"
        lines = [
            f"/* x * factor / 2^{bits}, rounded {towards}; in two parts, so that 32 bits hold the products. */",
            "static inline int32_t keep(int32_t x, uint32_t factor)",
            "{",
            "    const uint32_t size = x < 0 ? 0u - (uint32_t)x : (uint32_t)x;",
            f"    const uint32_t low = (size & {mask}u) * factor;",
            f"    const uint32_t kept = (size >> {bits}) * factor + (low >> {bits});",
        ]
        if not a.rounds_down:
            lines.append("    return x < 0 ? -(int32_t)kept : (int32_t)kept;")
        else:
            lines.append(f"    return x < 0 ? -(int32_t)(kept + ((low & {mask}u) != 0u)) : (int32_t)kept;")
        return self._add("keep", "\n".join([*lines, "}", ""]))

    def lose(self) -> str:
        """What a decay by a shift leaves."""
        shift = self.shift(wide=False)
        least = ["    if (lost == 0 && x > 0) {", "        lost = 1;", "    }"]
        once = self.arithmetic.loses_at_least_one
        return self._add("keep", "\n".join([
            "/* x - x / 2^code, what is lost rounded down" + (", and at least 1. */" if once else ". */"),
            "static inline int32_t keep(int32_t x, unsigned code)", "{",
            f"    {'' if once else 'const '}int32_t lost = {shift}(x, code);", *(least if once else []),
            "    return x - lost;", "}", "",
        ]))  # fmt: skip

    def clamp(self, *, wide: bool) -> str:
        """x within limits."""
        kind = "int64_t" if wide else "int32_t"
        name = "clamp_64" if wide else "clamp"
        return self._add(
            name,
            f"""\
static inline int32_t {name}({kind} x, int32_t low, int32_t high)
{{
    return x < low ? low : (x > high ? high : (int32_t)x);
}}
""",
        )

    def rows(self, link: Link, ring: Ring) -> str:
        """The sum of the rows that binary spikes name."""
        kind, place, total = link.weight.kind, ring.place, "int64_t" if link.wide else "int32_t"
        if link.column is not None and link.start is not None:
            column, start = link.column.kind, link.start.kind
            name = f"rows_{_short(kind)}_{_short(column)}_{_short(start)}_{_short(place)}{'_64' if link.wide else ''}"
            return self._add(
                name,
                f"""\
/* Adds a sparse row of weights for every spike; `list` has their places. */
static void {name}({total} *restrict sum, const {kind} *restrict weight, const {column} *restrict column,
    const {start} *restrict start, const {place} *restrict list, size_t count)
{{
    for (size_t k = 0; k < count; k++) {{
        const size_t row = list[k];
        for (size_t q = start[row]; q < start[row + 1]; q++) {{
            sum[column[q]] += weight[q];
        }}
    }}
}}
""",
            )
        self._apart()
        name = f"rows_{_short(kind)}_{_short(place)}{'_64' if link.wide else ''}"
        cast = "(int64_t)" if link.wide else ""
        return self._add(
            name,
            f"""\
/* Adds a row of weights for every spike; `list` has their places. Four at once: the sums are read less often. */
static KEPT_APART void {name}({total} *restrict sum, size_t n, const {kind} *restrict weight,
    const {place} *restrict list, size_t count)
{{
    size_t k = 0;
    for (; k + 4 <= count; k += 4) {{
        const {kind} *const a = weight + n * list[k], *const b = weight + n * list[k + 1];
        const {kind} *const c = weight + n * list[k + 2], *const d = weight + n * list[k + 3];
        for (size_t o = 0; o < n; o++) {{
            sum[o] += {cast}a[o] + b[o] + c[o] + d[o];
        }}
    }}
    for (; k < count; k++) {{
        const {kind} *const row = weight + n * list[k];
        for (size_t o = 0; o < n; o++) {{
            sum[o] += row[o];
        }}
    }}
}}
""",
        )

    def product(self, link: Link) -> str:
        """The product of values."""
        kind, total = link.weight.kind, "int64_t" if link.wide else "int32_t"
        cast = "(int64_t)" if link.wide else ""
        term = f"{cast}value * weight[%s]"
        by = ""
        if link.each:
            by = f", {-link.exponent}u)"
            term = f"{self.shift(wide=link.wide)}({term}"
        tail = f"{'_64' if link.wide else ''}{f'_by_{-link.exponent}' if link.each else ''}"
        if link.column is not None and link.start is not None:
            column, start = link.column.kind, link.start.kind
            name = f"product_{_short(kind)}_{_short(column)}_{_short(start)}{tail}"
            return self._add(
                name,
                f"""\
/* Adds a sparse row of weights times a value for every value that is not zero. */
static void {name}({total} *restrict sum, const {kind} *restrict weight, const {column} *restrict column,
    const {start} *restrict start, const int32_t *restrict x, size_t inputs)
{{
    for (size_t j = 0; j < inputs; j++) {{
        const int32_t value = x[j];
        if (value == 0) {{
            continue;
        }}
        for (size_t q = start[j]; q < start[j + 1]; q++) {{
            sum[column[q]] += {term % "q"}{by};
        }}
    }}
}}
""",
            )
        self._apart()
        name = f"product_{_short(kind)}{tail}"
        return self._add(
            name,
            f"""\
/* Adds a row of weights times a value for every value that is not zero. */
static KEPT_APART void {name}({total} *restrict sum, size_t n, const {kind} *restrict weight, const int32_t *restrict x,
    size_t inputs)
{{
    for (size_t j = 0; j < inputs; j++, weight += n) {{
        const int32_t value = x[j];
        if (value == 0) {{
            continue;
        }}
        for (size_t o = 0; o < n; o++) {{
            sum[o] += {term % "o"}{by};
        }}
    }}
}}
""",
        )


def _short(kind: str) -> str:
    """int8_t as i8."""
    return kind.removesuffix("_t").replace("uint", "u").replace("int", "i")
