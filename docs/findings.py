"""Writes docs/findings.md, every code with its meaning and its remedy, from the rule table; `pytest --update-golden`
calls it, and a test holds the document to the table."""

from __future__ import annotations

from nervecord.compiler.check.table import BOARD, RULES
from nervecord.compiler.passes.resets import NOTES
from nervecord.compiler.plan.measured import CODES

HEAD = """# Findings

Written by `docs/findings.py` from the rule table (`compiler/check/table.py`); a test keeps it current.
`nervecord inspect` and `nervecord compile` use the same rules. Codes are stable: tools may match on them.

The verdict on a target is *infeasible* with at least one error, *unknown* with no error but at least one
unknown, else *feasible*. A limit that is exceeded is an error where it is exact, and unknown where it is
only second-hand or sources disagree. A limit nobody published is listed as not checked, never as kept.

Compiling adds warnings of what the integers did on the recorded observations: the last ones of this table.

| code | severity | levels | what it means | what to do |
|---|---|---|---|---|
"""


def document() -> str:
    """docs/findings.md."""
    lines = [
        f"| `{rule.code}` | {rule.severity} | {', '.join(level.value for level in rule.levels)} "
        f"| {rule.means} | {rule.remedy} |"
        for rule in RULES
    ]
    lines += [
        f"| `{code}` | warning | imported, discrete | {means} | {remedy} |" for code, (means, remedy) in NOTES.items()
    ]
    lines.append(f"| `board` | error | integer | {BOARD[0]} | {BOARD[1]} |")
    lines += [f"| `{code}` | warning | integer | {means} | {remedy} |" for code, (means, remedy) in CODES.items()]
    return HEAD + "\n".join(lines) + "\n"
