"""docs/conformance.md, from the cases and what the targets' specs say of them."""

from __future__ import annotations

from conformance.cases import CASES
from conformance.engines import LACKS, cell, engines, target, targets


def conformance_doc() -> str:
    """The document."""
    names = targets()
    lines = [
        "# Conformance",
        "",
        "Written from `tests/conformance`; a test keeps it current. Each row is a case that the suite makes, each",
        "column a target. *equal*: the target's spec has nothing against it, it compiles, and every engine of the",
        "target gives what the definition gives (itself an engine: `definition`, and `reference` in floats).",
        "Otherwise the codes of the [findings](findings.md) that speak against it: compiling refuses it by them,",
        "and the suite holds it to that as well.",
        "",
        "Of integers *equal* is bit-exact: the actions, and what every population gave in every step that belongs",
        "to an action; engines whose interface is float32 give the definition's actions rounded to it. Of floats",
        "it is up to rounding: a spike may differ where its membrane is within 1e-4 of the threshold (engine torch",
        "is held to a [finer measure](batched.md)). Every engine also gets a NaN, says that it took the fail-safe",
        "action, and clears robots one by one. Beside the cases, each engine of integers runs random graphs in its",
        "target's arithmetic.",
        "",
        "| target | engines | what it is |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {', '.join(engines(name))} | {_about(name)} |" for name in names]
    lines += ["", "| case | what is in it | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    lines += [
        f"| {case} | {content.about} | " + " | ".join(cell(name, case).text for name in names) + " |"
        for case, content in CASES.items()
    ]
    if LACKS:
        lines += [
            "",
            "What an engine refuses of what its target compiles:",
            "",
            "| engine | case | says |",
            "|---|---|---|",
        ]
        lines += [f"| {engine} | {case} | {words} |" for (engine, case), words in LACKS.items()]
    return "\n".join(lines) + "\n"


def _about(name: str) -> str:
    if name == "own-chip":
        return "a chip that a file describes: two's complement weights, saturation, decays of 8 bits that round down"
    return target(name).spec.title
