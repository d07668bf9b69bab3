"""What the header says beside the printed functions: the contract's names, units, limits and fail-safe action.

All of it is macros and one inline function, which take no flash where nobody uses them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from nervecord.compiler.graph.contract import Contract
from nervecord.runtime.engines.c.names import quoted

STATUS = {
    "OK": "the action is the policy's",
    "NOT_FINITE": "a value of the observation, or of the action, is NaN or infinite: act is the fail-safe action",
    "OUT_OF_RANGE": "an integer given to the core is outside its range: nothing was changed",
}
"""What each code that a step returns means."""
_END = "\n#ifdef __cplusplus\n}\n#endif\n\n#endif\n"


def with_contract(header: str, contract: Contract | None, prefix: str, version: str) -> str:
    """The header of a program with its version in parts, the meaning of each code, and what the contract says."""
    macro = prefix.upper()
    for name, meaning in STATUS.items():
        header = re.sub(rf"(#define {macro}_{name} \d+) /\*.*\*/", rf"\1 /* {meaning} */", header)
    parts = [*re.findall(r"\d+", version), "0", "0"][:2]
    numbers = "".join(
        f"#define {macro}_VERSION_{name} {number}\n" for name, number in zip(("MAJOR", "MINOR"), parts, strict=True)
    )
    header = re.sub(rf"(#define {macro}_VERSION .*\n)", rf"\1{numbers}", header)
    if contract is None:
        return header
    assert header.endswith(_END)
    return header.removesuffix(_END) + f"\n{_contract(contract, prefix)}" + _END


def _contract(contract: Contract, prefix: str) -> str:
    macro, action = prefix.upper(), contract.action
    low, high = (side or () for side in (action.low, action.high))
    rows = [
        ("OBS_NAMES", _texts(contract.observation.names), "channels of an observation, in order"),
        ("OBS_UNITS", _texts(contract.observation.units, "/^"), "their units"),
        ("ACT_NAMES", _texts(action.names), "channels of an action"),
        ("ACT_UNITS", _texts(action.units, "/^"), "their units"),
        ("ACT_LOW", _numbers(low), "least value of each"),
        ("ACT_HIGH", _numbers(high), "greatest value of each"),
        ("CHOICES", _texts(contract.choices), "what an action is the number of"),
        ("FAIL_SAFE", _numbers(contract.fail_safe), "the action that is taken where none can be trusted"),
    ]
    lines = [f"/* The contract, to begin arrays with: static const char *const names[] = {macro}_OBS_NAMES; */"]
    lines += [f"{_define(f'{macro}_{name}', values)} /* {about} */" for name, values, about in rows if values]
    lines += [
        "",
        "/* The fail-safe action: for a missed tick, a sensor that is gone, before the first step. */",
        f"static inline void {prefix}_fail_safe(float act[{macro}_ACT_DIM])",
        "{",
        f"    static const float safe[{macro}_ACT_DIM] = {macro}_FAIL_SAFE;",
        f"    for (int i = 0; i < {macro}_ACT_DIM; i++) {{",
        "        act[i] = safe[i];",
        "    }",
        "}",
        "",
    ]
    return "\n".join(lines)


def _define(name: str, values: Sequence[str]) -> str:
    """A macro of a list in braces, a few values a line."""
    lines, line = [], f"#define {name} {{"
    for value in values:
        if len(line) + len(value) > 110:
            lines.append(f"{line} \\")
            line = "   "
        line += f" {value},"
    return "\n".join([*lines, f"{line.rstrip(',')} }}"])


def _texts(texts: Sequence[str], more: str = "") -> list[str]:
    # "??/" is a backslash in C99, and would take the quotation mark that follows.
    return [f'"{quoted(text, more)}"'.replace("?", r"\?") for text in texts]


def _numbers(values: Sequence[float]) -> list[str]:
    """As float32, in which actions leave."""
    return [number(value) for value in values]


def number(value: float) -> str:
    """A float constant of C."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if any(sign in text for sign in ".en") else f"{text}.0f"
