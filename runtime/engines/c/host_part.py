"""The host's part in C: from the observation to what the core takes, and from what it gives to the action, in double.

Each operation is rounded on its own and none is fused with another, as in `compiler.ops.host`; nothing of the C library
is called, so that every machine gives the same bits.
"""

from __future__ import annotations

import numpy as np

from nervecord.compiler.body.evaluate import Evaluator
from nervecord.compiler.body.expression import uniform
from nervecord.compiler.ops import Array, Decoder, HostOp, Input
from nervecord.compiler.plan.plan import Step
from nervecord.errors import InfeasibleError
from nervecord.runtime.engines.c.constants import INT32, Table
from nervecord.runtime.engines.c.doubles import Doubles, real
from nervecord.runtime.engines.c.layout import CLayout, taken
from nervecord.runtime.session import neutral

LARGEST_FLOAT = float(np.finfo(np.float32).max)


class Host:
    """Prints the host's part of a policy.

    Args:
        layout: of the plan, which has a contract. prefix: of all names.

    Raises:
        InfeasibleError: an op has no form in C; it is named.
    """

    def __init__(self, layout: CLayout, prefix: str) -> None:
        self.layout, self.plan, self.prefix, self.macro = layout, layout.plan, prefix, prefix.upper()
        self.doubles = Doubles(prefix)
        assert self.plan.contract is not None
        self.contract = self.plan.contract
        self.steps = {step.name: step for step in (*self.plan.before, *self.plan.after)}
        self.fail_safe = self.doubles.table("failsafe", np.array(self.contract.fail_safe), "the action if in doubt")
        self._encode = [line for entry in self.layout.entries for line in self._entry(entry.name)]
        self._decoders = [self._decoder(step) for step in self.plan.after if type(step.op).ROLE == "after"]
        self._refuse()

    def _refuse(self) -> None:
        """Actions that a float does not hold: C does not say what becomes of them."""
        reach = {"contract": float(np.abs(self.contract.fail_safe).max())}
        for name in self.plan.graph.outputs:
            reach[name] = sum(_largest(_host(self.steps[tap.source])) for tap in self.steps[name].taps)
        for name, most in reach.items():
            if not most <= LARGEST_FLOAT:
                raise InfeasibleError(
                    f"may give an action of {most:.3g}, and a float of C holds {LARGEST_FLOAT:.3g}",
                    where=name,
                    hint="give the action narrower limits, or larger units",
                )

    def text(self) -> str:
        """The helpers, the decoders and `<prefix>_step`."""
        return "\n".join([*self.doubles.helpers.values(), *self._decoders, self._step()])

    @property
    def tables(self) -> list[Table]:
        """Its constants."""
        return self.doubles.tables

    # ------------------------------------------------------------------------------------------------ before

    def _entry(self, name: str) -> list[str]:
        """Lines that fill the entry's part of `s->in`."""
        layout, entry = self.layout, self.plan.entry(name)
        at = sum(
            size
            for e, size in zip(layout.entries, layout.in_sizes, strict=True)
            if layout.entries.index(e) < layout.entries.index(entry)
        )
        step = self.steps[name]
        op = _host(step)
        lines = [line for each in self._chain(step) for line in self._named(each)]
        inner, y = self._lines(step, spread=op.spread)
        lead = f"{at} + " if at else ""
        where = f"s->in[{lead}{f'{op.spread} * i + j' if op.spread > 1 else 'i'}]"
        inner.append(f"{where} = {y if y.startswith('(int32_t)') else f'(int32_t)({y})'};")
        if op.spread > 1:
            inner = [f"for (size_t j = 0; j < {op.spread}; j++) {{", *(f"    {line}" for line in inner), "}"]
        lines += inner
        return [f"for (size_t i = 0; i < {taken(entry) // op.spread}; i++) {{", *(f"    {x}" for x in lines), "}"]

    def _chain(self, step: Step) -> list[Step]:
        """What is computed before a step, in order."""
        sources = {tap.source for tap in step.taps}
        steps = []
        for each in reversed(self.plan.before):
            if each.name in sources:
                steps.append(each)
                sources |= {tap.source for tap in each.taps}
        return steps[::-1]

    def _named(self, step: Step) -> list[str]:
        """The lines that compute channel i of a step, under its name."""
        op = _host(step)
        if op.spread > 1 or op.appended or op.PULSES:
            raise InfeasibleError(f"{op.kind} before another op has no form in C", where=step.name)
        lines, y = self._lines(step)
        return [*lines, f"const double {self.layout.names[step.name]}_y = {y};"]

    def _lines(self, step: Step, *, spread: int = 1) -> tuple[list[str], str]:
        """The lines of channel i of a step, and the expression of what it gives."""
        op, name = _host(step), self.layout.names[step.name]
        if op.weights is not None or op.CHOOSES:
            raise InfeasibleError(f"{op.kind} before the core has no form in C", where=step.name)
        if isinstance(op, Input):
            at = self._offset(step.name)
            x = f"trusted ? (double)obs[{f'{at} + ' if at else ''}i] : {self._neutral(at, op.size)}"
            lines, y = self.doubles.lines(op.traced(), name, f"{name}_x", step.name)
            return ([], x) if y == f"{name}_x" else ([f"const double {name}_x = {x};", *lines], y)
        terms = [f"{self.layout.names[tap.source]}_y" for tap in step.taps]
        x = terms[0] if len(terms) == 1 else f"({' + '.join(terms)})"
        return self.doubles.lines(op.traced(), name, x, step.name, spread=spread)

    def _offset(self, name: str) -> int:
        """Where an Input's part of the observation begins."""
        graph = self.plan.graph
        names = list(graph.inputs)
        return sum(graph.nodes[other].size for other in names[: names.index(name)])

    def _neutral(self, at: int, size: int) -> str:
        """What the core sees of channel i, counted from `at`, where an observation cannot be trusted."""
        instead = neutral(self.plan)[at : at + size]
        if uniform(instead):
            return real(instead[0])
        return f"{self.doubles.table(f'neutral{at or str()}', instead, 'instead of what cannot be trusted')}[i]"

    # ------------------------------------------------------------------------------------------------ after

    def _read(self, step: Step, index: str) -> str:
        """What a decoder takes, element `index`, as a double."""
        places = {}
        at = 0
        for read, size in zip(self.plan.reads, self.layout.out_sizes, strict=True):
            places[read.source] = at
            at += size
        terms = []
        for tap in step.taps:
            place = places[tap.source]
            terms.append(f"(double)out[{f'{place} + ' if place else ''}{index}]")
        return terms[0] if len(terms) == 1 else f"({' + '.join(terms)})"

    def _decoder(self, step: Step) -> str:
        """The function of a decoder: channel i of what it gives, or what it chooses."""
        op, name = _host(step), self.layout.names[step.name]
        if op.spread > 1 or op.appended or op.PULSES:
            raise InfeasibleError(f"{op.kind} after the core has no form in C", where=step.name)
        head = f"static double decode_{name}(const int32_t *out{'' if op.CHOOSES else ', size_t i'})"
        lines = [f"const double x = {self._read(step, 'i')};"] if op.weights is None else self._sums(step, op.weights)
        inner, y = self.doubles.lines(op.traced(), name, "x", step.name)
        if op.CHOOSES:
            choices = op.in_shape[0] if op.weights is None else len(op.weights)
            lines = [
                "double largest = 0.0;",
                "size_t chosen = 0;",
                f"for (size_t i = 0; i < {choices}; i++) {{",
                *(f"    {line}" for line in (*lines, *inner, f"const double y = {y};")),
                "    if (i == 0 || y > largest) {",
                "        largest = y;",
                "        chosen = i;",
                "    }",
                "}",
                "return (double)chosen;",
            ]
        else:
            lines += [*inner, f"return {y};"]
        return "\n".join([head, "{", *(f"    {line}" for line in lines), "}", ""])

    def _sums(self, step: Step, weights: Array) -> list[str]:
        """Lines of the weighted sum i over values side by side, added in their order."""
        op, each = _host(step), weights.shape[1]
        _require_finite(op, weights, step.name, self._most(step))
        table = self.doubles.table(f"{self.layout.names[step.name]}_weights", weights, "by value that is read")
        at = f"{each} * i"
        lines = [f"double x = {table}[{at}] * {self._read(step, at)};"]
        if each > 1:
            lines += [
                f"for (size_t j = 1; j < {each}; j++) {{",
                f"    x = x + {table}[{at} + j] * {self._read(step, f'{at} + j')};",
                "}",
            ]
        return lines

    def _most(self, step: Step) -> int:
        """Largest count that a decoder takes."""
        return self.plan.schedule.steps * self.layout.arithmetic.spikes_per_step * len(step.taps)

    # ------------------------------------------------------------------------------------------------ a step

    def _spikes(self) -> list[str]:
        """Lines that refuse an observation of spikes that is none."""
        lines = []
        for name in self.plan.graph.inputs:
            op = self.plan.graph.nodes[name]
            if op.spikes:
                at = self._offset(name)
                x = f"obs[{f'{at} + ' if at else ''}i]"
                lines += [
                    f"for (size_t i = 0; i < {op.size}; i++) {{",
                    f"    if (trusted && {x} != 0.0f && {x} != 1.0f) {{",
                    "        fail_safe(act);",
                    f"        return {self.macro}_OUT_OF_RANGE;",
                    "    }",
                    "}",
                ]
        return lines

    def _step(self) -> str:
        macro, prefix = self.macro, self.prefix
        lines = [
            "int trusted = 1;",
            f"for (size_t i = 0; i < {macro}_OBS_DIM; i++) {{",
            "    if (!isfinite(obs[i])) {",
            "        trusted = 0;",
            "    }",
            "}",
            *self._spikes(),
            *self._encode,
            f"const int code = {prefix}_step_q(s, s->in, s->out);",
            f"if (code != {macro}_OK) {{",
            "    fail_safe(act);",
            "    return code;",
            "}",
            "if (!trusted) {",
            "    fail_safe(act);",
            f"    return {macro}_NOT_FINITE;",
            "}",
            *self._actions(),
            f"return {macro}_OK;",
        ]
        body = "\n".join(f"    {line}" for line in lines)
        return f"""\
static void fail_safe(float *act)
{{
    for (size_t i = 0; i < {macro}_ACT_DIM; i++) {{
        act[i] = (float){self.fail_safe}[i];
    }}
}}

int {prefix}_step({prefix}_state_t *s, const float obs[{macro}_OBS_DIM], float act[{macro}_ACT_DIM])
{{
{body}
}}
"""

    def _actions(self) -> list[str]:
        lines, at = [], 0
        for name in self.plan.graph.outputs:
            step = self.steps[name]
            sources = [self.steps[tap.source] for tap in step.taps]
            place = f"{at} + i" if at else "i"
            if any(_host(source).CHOOSES for source in sources):
                (source,) = sources
                lines.append(f"act[{at}] = (float)decode_{self.layout.names[source.name]}(s->out);")
            else:
                terms = " + ".join(f"decode_{self.layout.names[source.name]}(s->out, i)" for source in sources)
                cast = f"(float)({terms})" if len(sources) > 1 else f"(float){terms}"
                lines += [f"for (size_t i = 0; i < {step.op.size}; i++) {{", f"    act[{place}] = {cast};", "}"]
            at += step.op.size
        return lines


def _host(step: Step) -> HostOp:
    assert isinstance(step.op, HostOp)  # what runs before and after a core is
    return step.op


def _require_finite(op: HostOp, weights: Array, name: str, most: int) -> None:
    """Refuse weights whose sums could overflow a double: then an action would be none."""
    with np.errstate(over="ignore", invalid="ignore"):
        reach = np.abs(weights).sum(axis=1) * most
        values = [value for end in (reach, -reach) for value in Evaluator(op.traced()).values({}, end[None])]
    if not all(np.isfinite(value).all() for value in values):
        raise InfeasibleError(f"{op.kind} may overflow a double", where=name, hint="scale its weights down")


def _largest(op: HostOp) -> float:
    """Largest magnitude that a decoder gives."""
    if op.CHOOSES:
        return 0.0  # it has as many choices as there are neurons
    if isinstance(op, Decoder) and op.limits is not None:
        return float(np.abs(op.limits).max())
    ends = (np.full((1, *op.in_shape), end) for end in (-float(INT32), float(INT32)))
    return max(float(np.abs(op.step({}, end)).max()) for end in ends)
