"""Functions of C on one element, each printed only where it is used."""

from __future__ import annotations


class Helpers:
    """The functions that were asked for, in the order of asking."""

    def __init__(self) -> None:
        self.text: dict[str, str] = {}

    def _add(self, name: str, text: str) -> str:
        """The name of a function, another one where this one means something else already."""
        free, k = name, 1
        while self.text.get(free, own := text.replace(f" {name}(", f" {free}(", 1)) != own:
            k += 1
            free = f"{name}_{k}"
        self.text[free] = own
        return free

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

    def keep(self, bits: int, towards: str) -> str:
        """x * factor / 2^bits, rounded towards "zero" or "floor"."""
        mask = (1 << bits) - 1
        lines = [
            f"/* x * factor / 2^{bits}, rounded {'towards zero' if towards == 'zero' else 'down'}; in two parts,"
            " so that 32 bits hold the products. */",
            "static inline int32_t keep(int32_t x, uint32_t factor)",
            "{",
            "    const uint32_t size = x < 0 ? 0u - (uint32_t)x : (uint32_t)x;",
            f"    const uint32_t low = (size & {mask}u) * factor;",
            f"    const uint32_t kept = (size >> {bits}) * factor + (low >> {bits});",
        ]
        if towards == "zero":
            lines.append("    return x < 0 ? -(int32_t)kept : (int32_t)kept;")
        else:
            lines.append(f"    return x < 0 ? -(int32_t)(kept + ((low & {mask}u) != 0u)) : (int32_t)kept;")
        return self._add("keep", "\n".join([*lines, "}", ""]))

    def lose(self, *, at_least_one: bool) -> str:
        """What a decay by a shift leaves."""
        shift = self.shift(wide=False)
        least = ["    if (lost == 0 && x > 0) {", "        lost = 1;", "    }"]
        return self._add(
            "keep",
            "\n".join(
                [
                    "/* x - x / 2^code, what is lost rounded down"
                    + (", and at least 1. */" if at_least_one else ". */"),
                    "static inline int32_t keep(int32_t x, unsigned code)",
                    "{",
                    f"    {'' if at_least_one else 'const '}int32_t lost = {shift}(x, code);",
                    *(least if at_least_one else []),
                    "    return x - lost;",
                    "}",
                    "",
                ]
            ),
        )

    def levels(self, *, reached: bool, left: bool) -> str:
        """How often x passes (or reaches) a level above 0, and what is left then."""
        above = "x" if reached else "x - 1"
        count = self._add(
            "levels",
            f"""\
/* How often x {"reaches" if reached else "passes"} the level, at most `most` times. */
static inline int32_t levels(int32_t x, int32_t level, int32_t most)
{{
    const int32_t times = x > 0 ? ({above}) / level : 0;
    return times < most ? times : most;
}}
""",
        )
        if not left:
            return count
        return self._add(
            "left_of_levels",
            f"""\
static inline int32_t left_of_levels(int32_t x, int32_t level, int32_t most)
{{
    return x - level * {count}(x, level, most);
}}
""",
        )

    def scaled(self, towards: str) -> str:
        """x * factor / 2^bits, rounded towards "zero" or "floor", where 32 bits do not hold the products."""
        down = "x < 0 ? ~(~(x * factor) >> bits) : (x * factor) >> bits"
        zero = "x < 0 ? -((-x * factor) >> bits) : (x * factor) >> bits"
        return self._add(
            "scaled",
            f"""\
/* x * factor / 2^bits, rounded {"towards zero" if towards == "zero" else "down"}. */
static inline int32_t scaled(int64_t x, int64_t factor, unsigned bits)
{{
    return (int32_t)({zero if towards == "zero" else down});
}}
""",
        )

    def wrap(self) -> str:
        """x modulo 2^bits, into the signed range."""
        return self._add(
            "wrap",
            """\
/* x modulo 2^bits, from -2^(bits - 1) on. */
static inline int32_t wrap(int64_t x, unsigned bits)
{
    const uint32_t half = 1u << (bits - 1u);
    const uint32_t above = ((uint32_t)x + half) & (half + (half - 1u));
    return (int32_t)((int64_t)above - (int64_t)half);
}
""",
        )

    def wrap_once(self) -> str:
        """x with one correction by the length of a range."""
        return self._add(
            "wrap_once",
            """\
/* x, corrected once by the length of low..high where it lies beyond. */
static inline int32_t wrap_once(int64_t x, int64_t low, int64_t high)
{
    const int64_t length = high - low + 1;
    return (int32_t)(x > high ? x - length : (x < low ? x + length : x));
}
""",
        )

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
