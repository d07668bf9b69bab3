"""The host's part in C: from the observation to what the core takes, and from what it gives to the action, in double.

Each operation is rounded on its own and none is fused with another, as in `compiler.ops.host`; nothing of the C library
is called, so that every machine gives the same bits.
"""

from __future__ import annotations

import numpy as np

from nervecord.compiler.ops import (
    ArgmaxDecode,
    Array,
    BiasChannel,
    CountArgmaxDecode,
    CountDecode,
    Decode,
    Input,
    Normalise,
    Op,
    PopulationEncode,
    Quantise,
    Rescale,
)
from nervecord.compiler.ops.population import (
    COEFFICIENTS,
    DEGREE,
    HALF_LOG2_E,
    LARGEST_EXPONENT,
    ONE,
    POWERS,
)
from nervecord.compiler.plan.plan import Step
from nervecord.errors import InfeasibleError
from nervecord.runtime.engines.c.constants import INT32, Table
from nervecord.runtime.engines.c.layout import Form, taken

LARGEST_FLOAT = float(np.finfo(np.float32).max)
_LIMITED = """\
static double limited(double x, double low, double high)
{
    return x < low ? low : (x > high ? high : x);
}
"""
_ROUNDED = """\
/* The whole number nearest to x, of two the even one, within -limit..limit. */
static int32_t rounded(double x, int32_t limit)
{
    if (x >= (double)limit) {
        return limit;
    }
    if (x <= -(double)limit) {
        return -limit;
    }
    const int32_t whole = (int32_t)x;
    const double rest = x - (double)whole;
    if (rest > 0.5 || (rest == 0.5 && whole % 2 != 0)) {
        return whole + 1;
    }
    return rest < -0.5 || (rest == -0.5 && whole % 2 != 0) ? whole - 1 : whole;
}
"""
_ACTIVATION = """\
/* exp(-z^2 / 2) in units of 2^-{bits}, by a polynomial that every machine computes alike. */
static int32_t activation(double z)
{{
    double e = z * z * {half};
    if (e > {largest}) {{
        e = {largest};
    }}
    const int32_t k = (int32_t)e;
    const double f = e - (double)k;
    double p = {prefix}_code_coefficients[{degree}];
    for (size_t c = {degree}; c-- > 0;) {{
        p = p * f + {prefix}_code_coefficients[c];
    }}
    return rounded(p * {prefix}_code_powers[k] * {one}, {units});
}}
"""


class Host:
    """Prints the host's part of a policy.

    Args:
        form: of the plan, which has a contract. prefix: of all names.

    Raises:
        InfeasibleError: an op has no form in C; it is named.
    """

    def __init__(self, form: Form, prefix: str) -> None:
        self.form, self.plan, self.prefix, self.macro = form, form.plan, prefix, prefix.upper()
        self.tables: list[Table] = []
        self.helpers: dict[str, str] = {}
        assert self.plan.contract is not None
        self.contract = self.plan.contract
        self.steps = {step.name: step for step in (*self.plan.before, *self.plan.after)}
        self._place("contract", "failsafe", np.array(self.contract.fail_safe), "the action if in doubt")
        self._encode = [line for entry in self.form.entries for line in self._entry(entry.name)]
        self._decoders = [self._decoder(step) for step in self.plan.after if type(step.op).ROLE == "after"]
        self._refuse()

    def _refuse(self) -> None:
        """Actions that a float does not hold: C does not say what becomes of them."""
        reach = {"contract": float(np.abs(self.contract.fail_safe).max())}
        for name in self.plan.graph.outputs:
            reach[name] = sum(_largest(self.steps[tap.source].op) for tap in self.steps[name].taps)
        for name, most in reach.items():
            if not most <= LARGEST_FLOAT:
                raise InfeasibleError(
                    f"may give an action of {most:.3g}, and a float of C holds {LARGEST_FLOAT:.3g}", where=name,
                    hint="give the action narrower limits, or larger units",
                )  # fmt: skip

    def text(self) -> str:
        """The helpers, the decoders and `<prefix>_step`."""
        return "\n".join([*self.helpers.values(), *self._decoders, self._step()])

    def _place(self, name: str, word: str, values: Array, about: str) -> str:
        """A table of doubles; returns its name."""
        found = f"{name}_{word}"
        if all(table.name != found for table in self.tables):
            self.tables.append(Table(found, "double", np.asarray(values, dtype=np.float64), about))
        return f"{self.prefix}_{found}"

    def _real(self, value: float) -> str:
        text = float(value).hex()
        return f"({text})" if text.startswith("-") else text

    # ------------------------------------------------------------------------------------------------ before

    def _entry(self, name: str) -> list[str]:
        """Lines that fill the entry's part of `s->in`."""
        form, entry = self.form, self.plan.entry(name)
        at = sum(size for e, size in zip(form.entries, form.in_sizes, strict=True) if form.entries.index(e)
                 < form.entries.index(entry))  # fmt: skip
        step = self.steps[name]
        chain = self._chain(step)
        lines = [self._value(each) for each in chain]
        x = self._sum(step)
        n = taken(entry)
        where = f"s->in[{at} + i]" if at else "s->in[i]"
        op = entry.op
        if isinstance(op, PopulationEncode):
            channels, neurons = op.mean.shape
            mean = self._place(form.names[name], "mean", op.mean, "centres of the receptive fields")
            self._activation()
            self.helpers.setdefault("limited", _LIMITED)
            lines += [
                f"const double *const mean = {mean} + {neurons} * i;",
                f"const double held = limited({x}, mean[0], mean[{neurons - 1}]);",
                f"for (size_t j = 0; j < {neurons}; j++) {{",
                f"    const double z = (held - mean[j]) / {self._real(op.sigma)};",
                f"    s->in[{f'{at} + ' if at else ''}{neurons} * i + j] = activation(z);",
                "}",
            ]
            n = channels
        elif isinstance(op, Quantise):
            self.helpers.setdefault("rounded", _ROUNDED)
            lines.append(f"{where} = rounded({x} * {self._real(op.scale)}, {op.limit});")
        elif isinstance(op, BiasChannel):
            lines.append(f"{where} = (int32_t){x};")
        else:
            lines += [self._value(step), f"{where} = (int32_t)x_{form.names[name]};"]
        return [f"for (size_t i = 0; i < {n}; i++) {{", *(f"    {line}" for line in lines), "}"]

    def _chain(self, step: Step) -> list[Step]:
        """What is computed before a step, in order."""
        wanted = {tap.source for tap in step.taps}
        found = []
        for each in reversed(self.plan.before):
            if each.name in wanted:
                found.append(each)
                wanted |= {tap.source for tap in each.taps}
        return found[::-1]

    def _sum(self, step: Step) -> str:
        terms = [f"x_{self.form.names[tap.source]}" for tap in step.taps]
        return terms[0] if len(terms) == 1 else f"({' + '.join(terms)})"

    def _value(self, step: Step) -> str:
        """The line that computes channel i of a step."""
        op, name = step.op, self.form.names[step.name]
        if isinstance(op, Input):
            at = self._offset(step.name)
            obs = f"obs[{at} + i]" if at else "obs[i]"
            x = f"trusted ? (double){obs} : {self._neutral(step.name)}"
            if op.limit is not None and not op.spikes:
                self.helpers.setdefault("limited", _LIMITED)
                x = f"limited({x}, {self._real(-op.limit)}, {self._real(op.limit)})"
            return f"const double x_{name} = {x};"
        if isinstance(op, Normalise):
            self.helpers.setdefault("limited", _LIMITED)
            mean = self._place(name, "mean", op.mean, "of the observations, as trained")
            divisor = self._place(name, "divisor", op.divisor, "their standard deviation")
            x = f"({self._sum(step)} - {mean}[i]) / {divisor}[i]"
            return f"const double x_{name} = limited({x}, {self._real(-op.clip)}, {self._real(op.clip)});"
        raise _unsupported(op, step.name)

    def _offset(self, name: str) -> int:
        """Where an Input's part of the observation begins."""
        graph = self.plan.graph
        names = list(graph.inputs)
        return sum(graph.nodes[other].size for other in names[: names.index(name)])

    def _neutral(self, name: str) -> str:
        """What the core sees of a channel that cannot be trusted; as `runtime.session.neutral` says."""
        graph = self.plan.graph
        normalisers = [b for b in graph.destinations(name) if isinstance(graph.nodes[b], Normalise)]
        if not normalisers:
            return "0.0"
        op = graph.nodes[normalisers[-1]]
        assert isinstance(op, Normalise)
        table = self._place(self.form.names[normalisers[-1]], "mean", op.mean, "of the observations, as trained")
        return f"{table}[i]"

    def _activation(self) -> None:
        self._place("code", "coefficients", COEFFICIENTS, "of 2^-f")
        self._place("code", "powers", POWERS, "of two")
        self.helpers.setdefault("rounded", _ROUNDED)
        self.helpers.setdefault("activation", _ACTIVATION.format(
            bits=ONE.bit_length() - 1, half=self._real(HALF_LOG2_E), largest=self._real(LARGEST_EXPONENT),
            degree=DEGREE, prefix=self.prefix, one=self._real(ONE), units=ONE,
        ))  # fmt: skip

    # ------------------------------------------------------------------------------------------------ after

    def _read(self, step: Step, index: str) -> str:
        """What a decoder takes, element `index`, as a double."""
        places = {}
        at = 0
        for read, size in zip(self.plan.reads, self.form.out_sizes, strict=True):
            places[read.source] = at
            at += size
        terms = []
        for tap in step.taps:
            place = places[tap.source]
            terms.append(f"(double)out[{f'{place} + ' if place else ''}{index}]")
        return terms[0] if len(terms) == 1 else f"({' + '.join(terms)})"

    def _decoder(self, step: Step) -> str:
        """The function of a decoder: channel i of what it gives."""
        op, name = step.op, self.form.names[step.name]
        head = f"static double decode_{name}(const int32_t *out, size_t i)"
        chooses = isinstance(op, (ArgmaxDecode, CountArgmaxDecode))
        if chooses:
            head = f"static double decode_{name}(const int32_t *out)"
        if isinstance(op, (Decode, Rescale)):
            scale = self._place(name, "scale", op.scale, "action units per unit that is read")
            lines = [f"const double y = {self._read(step, 'i')} * {scale}[i]{self._offset_term(name, op)};"]
        elif isinstance(op, (CountDecode, CountArgmaxDecode)):
            _finite(op, step.name, self._most(step))
            lines = self._weighed(step, op)
        elif isinstance(op, ArgmaxDecode):
            lines = [f"const double y = {self._read(step, 'i')};"]
        else:
            raise _unsupported(op, step.name)
        if chooses:
            lines = [
                "double largest = 0.0;", "size_t chosen = 0;", f"for (size_t i = 0; i < {op.choices}; i++) {{",
                *(f"    {line}" for line in lines), "    if (i == 0 || y > largest) {", "        largest = y;",
                "        chosen = i;", "    }", "}", "return (double)chosen;",
            ]  # fmt: skip
        elif isinstance(op, (Decode, CountDecode)):
            self.helpers.setdefault("limited", _LIMITED)
            low = self._place(name, "low", op.low, "smallest action")
            high = self._place(name, "high", op.high, "largest action")
            lines.append(f"return limited(y, {low}[i], {high}[i]);")
        else:
            lines.append("return y;")
        return "\n".join([head, "{", *(f"    {line}" for line in lines), "}", ""])

    def _offset_term(self, name: str, op: Op) -> str:
        if isinstance(op, Decode):
            return f" + {self._place(name, 'offset', op.offset, 'of the action')}[i]"
        return ""

    def _weighed(self, step: Step, op: CountDecode | CountArgmaxDecode) -> list[str]:
        name, neurons = self.form.names[step.name], op.weight.shape[1]
        weight = self._place(name, "weights", op.weight, "action units per spike")
        offset = self._place(name, "offset", op.offset, "of the action")
        each = f"{neurons} * i"
        lines = [f"double y = {weight}[{each}] * {self._read(step, each)};"]
        if neurons > 1:
            lines += [
                f"for (size_t j = 1; j < {neurons}; j++) {{",
                f"    y = y + {weight}[{each} + j] * {self._read(step, f'{each} + j')};",
                "}",
            ]
        return [*lines, f"y = y + {offset}[i];"]

    def _most(self, step: Step) -> int:
        """Largest count that a decoder takes."""
        arithmetic = self.form.arithmetic
        return self.plan.schedule.steps * arithmetic.spikes_per_step * len(step.taps)

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
            f"if ({prefix}_step_q(s, s->in, s->out) != {macro}_OK) {{",
            "    fail_safe(act);",
            f"    return {macro}_OUT_OF_RANGE;",
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
        act[i] = (float){prefix}_contract_failsafe[i];
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
            if any(isinstance(source.op, (ArgmaxDecode, CountArgmaxDecode)) for source in sources):
                (source,) = sources
                lines.append(f"act[{at}] = (float)decode_{self.form.names[source.name]}(s->out);")
            else:
                terms = " + ".join(f"decode_{self.form.names[source.name]}(s->out, i)" for source in sources)
                cast = f"(float)({terms})" if len(sources) > 1 else f"(float){terms}"
                lines += [f"for (size_t i = 0; i < {step.op.size}; i++) {{", f"    act[{place}] = {cast};", "}"]
            at += step.op.size
        return lines


def _finite(op: CountDecode | CountArgmaxDecode, name: str, most: int) -> None:
    """Refuse weights whose sums could overflow a double: then a choice would be none."""
    with np.errstate(over="ignore"):
        reach = np.abs(op.weight).sum(axis=1) * most + np.abs(op.offset)
    if not np.isfinite(reach).all():
        raise InfeasibleError(f"{op.kind} may overflow a double", where=name, hint="scale its weights down")


def _largest(op: Op) -> float:
    """Largest magnitude that a decoder gives."""
    if isinstance(op, (Decode, CountDecode)):
        return float(np.abs([op.low, op.high]).max())
    if isinstance(op, Rescale):
        return float(np.abs(op.scale).max()) * INT32
    return 0.0  # a choice: it has as many as there are neurons


def _unsupported(op: Op, name: str) -> InfeasibleError:
    return InfeasibleError(f"{op.kind} has no form in C", where=name)
