"""Writes docs/targets.md from the spec.toml of every target; `pytest --update-golden` calls it, and a test holds the
document to the files."""

from __future__ import annotations

from nervecord.compiler.keys import UNLIMITED
from nervecord.compiler.ops import Level
from nervecord.compiler.target.protocol import TargetSpec
from nervecord.targets.catalogue import load_specs

HEAD = """# Targets

Written by `docs/targets.py` from `targets/*/spec.toml` and `compiler/target/protocol.py`; a test keeps it current.

`nervecord targets` lists the targets, `nervecord targets NAME` shows one with its options and limits. A
limit whose confidence is not *exact* gives way to your own number: `--set neurons_per_core=4096` with
`inspect` and `compile`, `limits={...}` in Python. Programs and reports keep what was given.

A file describes a chip of your own: `--target-file`. Its keys are those of `targets/*/spec.toml`;
[own-chip.md](own-chip.md) explains all of them. A target that needs code is a class in a package of yours:
see there, and CONTRIBUTING.md, "A target".

"""


def document() -> str:
    """docs/targets.md."""
    return "\n".join([HEAD, *map(spec_table, load_specs())])


def spec_table(spec: TargetSpec) -> str:
    """The spec as a markdown section, for docs/targets.md: every fact with value, confidence and source, each source
    once."""
    engines = ", ".join(spec.engines) or "none, inspect only"
    lines = [f"## {spec.name}: {spec.title}", "", spec.summary, "", f"Engines: {engines}.", ""]
    lines += [f"Arithmetic: {spec.arithmetic}.", ""]
    lines += [f"- nodes, {level.value}: {', '.join(spec.kinds(level)) or 'none'}" for level in Level]
    sources: dict[str, int] = {}
    rows = []
    for name, _, fact in spec.facts():
        if fact.value != UNLIMITED:
            number = sources.setdefault(fact.source, len(sources) + 1)
            rows.append(f"| `{name}` | {fact} | {fact.confidence} | {number} |")
    lines += [
        f"- source of the nodes: {spec.nodes_source} ({spec.nodes_confidence})",
        "",
        "| key | value | confidence | source |",
        "|---|---|---|---|",
        *rows,
        "",
        "Sources:",
        "",
        *(f"{number}. {source}" for source, number in sources.items()),
    ]
    unlimited = [name for name, _, fact in spec.facts() if fact.value == UNLIMITED]
    if unlimited:
        lines += ["", "No limit: " + ", ".join(f"`{name}`" for name in unlimited) + "."]
    if spec.packing is not None:
        lines += ["", f"How synapse memory is counted: {spec.packing.source} ({spec.packing.confidence})."]
    if spec.energy is not None:
        parts = ", ".join(f"{value:g} pJ per {what}" for what, value in spec.energy.constants())
        lines += ["", f"Energy, for estimates only: {parts}; {spec.energy.citation}."]
    if spec.not_checked:
        lines += ["", "Not checked, whatever the verdict:", ""] + [f"- {item}" for item in spec.not_checked]
    return "\n".join(lines) + "\n"
