"""Functions of C that multiply and add rows of weights, each printed only where it is used."""

from __future__ import annotations

from nervecord.runtime.engines.c.layout import LinkLayout, Ring
from nervecord.runtime.engines.c.routines import Helpers


class Products(Helpers):
    """The functions that were asked for, in the order of asking; those on one element among them."""

    def _apart(self) -> None:
        """What keeps a loop of its own: in its caller's, of constant length, GCC makes worse code of it for x86."""
        self._add(
            "KEPT_APART",
            """\
#if defined(__GNUC__)
#define KEPT_APART __attribute__((noinline))
#else
#define KEPT_APART
#endif
""",
        )

    def rows(self, link: LinkLayout, ring: Ring) -> str:
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

    def product(self, link: LinkLayout) -> str:
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
