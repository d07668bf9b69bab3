"""The integer core in C: what enters, one function per population, and the loop over a block's steps."""

from __future__ import annotations

from nervecord.runtime.engines.c.constants import Member, literal, unsigned
from nervecord.runtime.engines.c.layout import CLayout, LinkLayout, PopulationLayout, Ring, bias_source, taken
from nervecord.runtime.engines.c.names import quoted
from nervecord.runtime.engines.c.products import Products


class Core:
    """Prints the core of a layout.

    Args:
        layout: of the plan. prefix: of all names.
        observed: with members that keep what every source sent, for engines and tests.
    """

    def __init__(self, layout: CLayout, prefix: str, *, observed: bool) -> None:
        self.layout, self.prefix, self.observed = layout, prefix, observed
        self.plan = layout.plan
        self.helpers = Products()
        self.type = f"{prefix}_state_t"
        self.macro = prefix.upper()

    # ------------------------------------------------------------------------------------------------ the state

    def members(self) -> list[Member]:
        """Of the state, without those of the host's part."""
        result: list[Member] = []
        held = {link.held for link in self.layout.links.values() if link.held is not None}
        for entry in self.layout.entries:
            name, op = self.layout.names[entry.name], entry.op
            if entry.name in self.layout.pulses:
                result += [
                    Member(f"{name}_{state}", "int32_t", taken(entry), "state of an encoder of spikes")
                    for state in self.layout.pulses[entry.name].states
                ]
            elif entry.name in held and bias_source(entry):
                result.append(Member(f"{name}_sent", "int32_t", op.size, "what is held, and the bias source"))
        for link in self.layout.links.values():
            if link.held is not None:
                result.append(
                    Member(f"{link.name}_product", "int32_t", link.slots * link.outputs, "what a held input gives")
                )
                if link.slots > 1:
                    result.append(Member(f"{link.name}_at", unsigned(link.slots), 0, "the newest of them"))
        for cell in self.layout.cells:
            n = cell.op.size
            result += [
                Member(f"{cell.name}_{state}", "int32_t", n, STATES.get(state, "state"))
                for state in cell.equations.states
            ]
        for ring in self.layout.rings.values():
            result.append(Member(f"{ring.name}_list", ring.place, ring.slots * ring.width, "places of spikes"))
            result.append(Member(f"{ring.name}_count", ring.count, ring.slots, "how many"))
            if ring.valued:
                result.append(Member(f"{ring.name}_value", ring.value, ring.slots * ring.width, "their values"))
            if ring.slots > 1:
                result.append(Member(f"{ring.name}_at", unsigned(ring.slots), 0, "the step that is written"))
        result += self._scratch()
        return [*result, *self._observed()] if self.observed else result

    def _scratch(self) -> list[Member]:
        """What a step works with; here, and not on the stack."""
        result = []
        summed = [cell.op.size for cell in self.layout.cells if self._summed(cell)]
        if summed:
            result.append(Member("sum", "int32_t", max(summed), "scratch: what enters a population"))
        parts = [link for cell in self.layout.cells for link in cell.links if self._apart(cell, link)]
        narrow = [link.outputs for link in parts if not link.wide]
        wide = [link.outputs for link in self.layout.links.values() if link.wide]
        if narrow:
            result.append(Member("part", "int32_t", max(narrow), "scratch: what one connection gives"))
        if wide:
            result.append(Member("total", "int64_t", max(wide), "scratch: sums of more than 32 bits"))
        gathered = [link.inputs for link in self.layout.links.values() if not (link.held or link.rows)]
        if gathered:
            result.append(Member("gathered", "int32_t", max(gathered), "scratch: values that enter a connection"))
        return result

    def _observed(self) -> list[Member]:
        """What engines look at."""
        result = [Member("counted", "uint32_t", 0, "whether it is counted")]
        for entry in self.layout.entries:
            name = self.layout.names[entry.name]
            result.append(Member(f"{name}_given", "int32_t", self.plan.window * entry.op.size, "in each step"))
            result.append(Member(f"{name}_times", "int64_t", entry.op.size, "how often each sent"))
        for cell in self.layout.cells:
            result.append(Member(f"{cell.name}_given", "int32_t", self.plan.window * cell.op.size, "in each step"))
            if cell.ring is not None:
                result.append(Member(f"{cell.name}_times", "int64_t", cell.op.size, "how often each sent"))
                result.append(Member(f"{cell.name}_spikes", "int64_t", 0, "spikes"))
        return result

    def _summed(self, cell: PopulationLayout) -> bool:
        """Whether what enters is added up: all but the one product of what is held, where it always arrives."""
        if len(cell.links) != 1 or cell.links[0].held is None:
            return True
        return any(cell.links[0].when[k] is None for k in cell.useful)

    def _apart(self, cell: PopulationLayout, link: LinkLayout) -> bool:
        """Whether what a connection gives cannot be added up in `sum` itself."""
        if link.held is not None:
            return False
        return link.wide or (link.exponent != 0 and not link.each and len(cell.links) > 1)

    # ------------------------------------------------------------------------------------------------ connections

    def add_product(self, link: LinkLayout, total: str, x: str) -> str:
        name, weight = self.helpers.product(link), f"{self.prefix}_{link.name}"
        if link.start is not None:
            return f"{name}({total}, {weight}_weight, {weight}_column, {weight}_start, {x}, {link.inputs});"
        return f"{name}({total}, {link.outputs}, {weight}_weight, {x}, {link.inputs});"

    def _slot(self, ring: Ring, delay: int) -> str:
        if ring.slots == 1 or delay == ring.slots:
            return "0" if ring.slots == 1 else f"s->{ring.name}_at"
        return f"(s->{ring.name}_at + {ring.slots - delay}u) % {ring.slots}u"

    def scaled(self, link: LinkLayout, term: str, *, wide: bool) -> str:
        """A sum times 2^exponent, rounded down."""
        if link.each or link.exponent == 0:
            return term
        if link.exponent > 0:
            return f"{term} * {literal(1 << link.exponent)}"
        return f"{self.helpers.shift(wide=wide)}({term}, {-link.exponent}u)"

    def _run(self, link: LinkLayout, total: str) -> list[str]:
        """Lines that add what a connection's rings give to `total`, which is cleared."""
        if link.rows:
            (ring,) = link.taps
            name, weight = self.helpers.rows(link, ring), f"{self.prefix}_{link.name}"
            slot = self._slot(ring, link.delay)
            lines = [f"const size_t slot = {slot};"]
            spikes = f"s->{ring.name}_list + {ring.width} * slot, s->{ring.name}_count[slot]"
            if link.start is not None:
                return [*lines, f"{name}({total}, {weight}_weight, {weight}_column, {weight}_start, {spikes});"]
            return [*lines, f"{name}({total}, {link.outputs}, {weight}_weight, {spikes});"]
        lines = [f"{self.helpers.clear()}(s->gathered, {link.inputs});"]
        for ring in link.taps:
            value = f"s->{ring.name}_value[from + j]" if ring.valued else "1"
            lines += [
                "{",
                f"    const size_t slot = {self._slot(ring, link.delay)}, from = {ring.width} * slot;",
                f"    for (size_t j = 0; j < s->{ring.name}_count[slot]; j++) {{",
                f"        s->gathered[s->{ring.name}_list[from + j]] += {value};",
                "    }",
                "}",
            ]
        return [*lines, self.add_product(link, total, "s->gathered")]

    def _held(self, cell: PopulationLayout, link: LinkLayout, template: str, nothing: str) -> list[str]:
        """Lines for each stretch of steps: `template` with the product for %s, or `nothing`."""
        stretches: list[tuple[int, int | None]] = []
        for k in cell.useful:
            if not stretches or stretches[-1][1] != link.when[k]:
                stretches.append((k, link.when[k]))
        result = []
        for j, (_, back) in enumerate(stretches):
            place = f"s->{link.name}_product"
            if link.slots > 1 and back is not None:
                slot = f"(s->{link.name}_at + {link.slots - back}u) % {link.slots}u" if back else f"s->{link.name}_at"
                place += f" + {link.outputs} * (size_t)({slot})"
            result.append(
                (
                    stretches[j + 1][0] if j + 1 < len(stretches) else None,
                    nothing if back is None else template.replace("%s", place),
                )
            )
        if len(result) == 1:
            return [line for line in result[0][1].split("\n") if line]
        lines = []
        for j, (end, text) in enumerate(result):
            head = f"if (k < {end}) {{" if j == 0 else ("} else {" if end is None else f"}} else if (k < {end}) {{")
            lines += [head, *(f"    {line}" for line in text.split("\n") if line)]
        return [*lines, "}"]

    def _entering(self, cell: PopulationLayout) -> tuple[list[str], str, str]:
        """Lines that sum what enters, the array it stands in, and an element of it."""
        n = cell.op.size
        if len(cell.links) == 1 and cell.links[0].held is not None:
            (link,) = cell.links
            nothing = f"{self.helpers.clear()}(s->sum, {n});\nentering = s->sum;" if self._summed(cell) else ""
            lines = self._held(cell, link, "entering = %s;", nothing)
            return ["const int32_t *entering;", *lines], "entering", "entering[i]"
        if len(cell.links) == 1 and not self._apart(cell, cell.links[0]):
            (link,) = cell.links
            lines = [f"{self.helpers.clear()}(s->sum, {n});", *self._run(link, "s->sum")]
            return lines, "s->sum", self.scaled(link, "s->sum[i]", wide=False)
        lines = [f"{self.helpers.clear()}(s->sum, {n});"]
        for link in cell.links:
            lines += ["{", *(f"    {line}" for line in self._added(cell, link)), "}"]
        return lines, "s->sum", "s->sum[i]"

    def _added(self, cell: PopulationLayout, link: LinkLayout) -> list[str]:
        """Lines that add what a connection gives to `sum`."""
        n = link.outputs
        if link.held is not None:
            loop = "const int32_t *const product = %s;\n"
            loop += f"for (size_t i = 0; i < {n}; i++) {{\n    s->sum[i] += product[i];\n}}"
            return self._held(cell, link, loop, "")
        if not self._apart(cell, link):
            return self._run(link, "s->sum")
        part = "s->total" if link.wide else "s->part"
        term = self.scaled(link, f"{part}[i]", wide=link.wide)
        return [
            f"{self.helpers.clear(wide=link.wide)}({part}, {n});",
            *self._run(link, part),
            f"for (size_t i = 0; i < {n}; i++) {{",
            f"    s->sum[i] += {f'(int32_t)({term})' if link.wide else term};",
            "}",
        ]

    # ------------------------------------------------------------------------------------------------ populations

    def _update(self, cell: PopulationLayout, x: str) -> list[str]:
        """Lines that update the state, and list what is sent."""
        n, ring, equations = cell.op.size, cell.ring, cell.equations
        fires = equations.fires_to_zero if ring is not None and not ring.valued else None
        sends = ring is not None and fires is None and not equations.silent
        lines, sends_name = equations.lines(x, self.prefix, self.helpers, result=sends, before_spike=fires is not None)
        loop = [f"for (size_t i = 0; i < {n}; i++) {{", *(f"    {line}" for line in lines)]
        if ring is None:
            return [*loop, "}"]
        slot = f"s->{ring.name}_at" if ring.slots > 1 else "0"
        if equations.silent:
            return [*loop, "}", f"s->{ring.name}_count[{slot}] = 0; /* nothing is ever sent */"]
        start = f"{ring.place} *const list = s->{ring.name}_list + {n} * (size_t){slot};"
        if ring.slots == 1:
            start = f"{ring.place} *const list = s->{ring.name}_list;"
        head = [start, "size_t count = 0;"]
        done = f"s->{ring.name}_count[{slot}] = ({ring.count})count;"
        if fires is not None:
            state, sign, level = fires
            # Without a branch: most neurons are silent, and which ones are cannot be foreseen.
            return [
                *loop,
                "}",
                *head,
                f"for (size_t i = 0; i < {n}; i++) {{",
                f"    list[count] = ({ring.place})i;",
                f"    count += (size_t)(s->{cell.name}_{state}[i] {sign} {literal(level)});",
                "}",
                "for (size_t j = 0; j < count; j++) {",
                f"    s->{cell.name}_{state}[list[j]] = 0;",
                "}",
                done,
            ]
        loop += [f"    if ({sends_name} != 0) {{", f"        list[count] = ({ring.place})i;"]
        if ring.valued:
            place = f"{n} * (size_t){slot} + count" if ring.slots > 1 else "count"
            loop.append(f"        s->{ring.name}_value[{place}] = ({ring.value}){sends_name};")
        return [*head, *loop, "        count++;", "    }", "}", done]

    def cell(self, cell: PopulationLayout) -> str:
        """The function of a population."""
        n = cell.op.size
        before, _, element = self._entering(cell)
        lines = list(before)
        resets = self.plan.schedule.resets
        if resets:
            lines.append(f"if (k == {cell.unit.step.phase % self.plan.window}) {{")
            lines += [f"    memset(s->{cell.name}_{x}, 0, sizeof s->{cell.name}_{x});" for x in cell.equations.states]
            lines.append("}")
        lines += self._update(cell, element)
        if self.observed:
            lines += self._look(cell)
        body = "\n".join(f"    {line}" for line in lines)
        needs = resets or "(k <" in body or self.observed
        arguments = f"{self.type} *s, unsigned k" if needs else f"{self.type} *s"
        spikes = "spikes" if cell.ring is not None else "is read"
        return (
            f"/* {quoted(cell.unit.step.name)}: {n} neurons, {spikes}. */\n"
            f"static void cell_{cell.name}({arguments})\n{{\n{body}\n}}\n"
        )

    def _look(self, cell: PopulationLayout) -> list[str]:
        """Lines that keep what it gave."""
        n, buffer = cell.op.size, f"s->{cell.name}_given"
        if cell.ring is None:
            return [f"memcpy({buffer} + {n} * (size_t)k, s->{cell.shown}, {n} * sizeof {buffer}[0]);"]
        ring = cell.ring
        if cell.equations.silent:
            return [f"{self.helpers.clear()}({buffer} + {n} * (size_t)k, {n});"]
        value = "1"
        if ring.valued:
            slot = f"{n} * (size_t)s->{ring.name}_at + " if ring.slots > 1 else ""
            value = f"s->{ring.name}_value[{slot}j]"
        return [
            f"{self.helpers.clear()}({buffer} + {n} * (size_t)k, {n});",
            "for (size_t j = 0; j < count; j++) {",
            f"    {buffer}[{n} * (size_t)k + list[j]] = {value};",
            f"    s->{cell.name}_times[list[j]] += s->counted;",
            f"    s->{cell.name}_spikes += s->counted * (int64_t){value};",
            "}",
        ]

    def call(self, cell: PopulationLayout, text: str) -> list[str]:
        """The lines that call it in its useful steps; `text` is its function."""
        k = ", k" if "unsigned k" in text else ""
        call = f"cell_{cell.name}(s{k});"
        first, last = (cell.useful.start, cell.useful.stop) if len(cell.useful) else (0, 0)
        if not len(cell.useful):
            return []
        if (first, last) == (0, self.plan.window):
            return [call]
        conditions = ([f"k >= {first}"] if first else []) + ([f"k < {last}"] if last < self.plan.window else [])
        return [f"if ({' && '.join(conditions)}) {{", f"    {call}", "}"]


STATES = {"u": "synaptic currents", "v": "membranes", "sigma": "sums", "act": "activations", "residue": "not sent yet"}
"""State -> what it is, for its comment."""
