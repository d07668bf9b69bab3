"""Writes docs/own-chip.md from the declarations of a chip file's keys; `pytest --update-golden` calls it, and a test
holds the document to them."""

from __future__ import annotations

from collections.abc import Mapping

from nervecord.compiler.arithmetic import KEYS
from nervecord.compiler.keys import Key, keys_of
from nervecord.compiler.target import implied
from nervecord.compiler.target.protocol import Behaviour, Convolution, Energy, Limits, Packing
from nervecord.compiler.target.specfile import TEXTS, WORDS
from nervecord.compiler.target.template import template_arithmetic
from nervecord.targets.integers import ENGINES

INTRODUCTION = f"""# A chip of your own

Written by `docs/own_chip.py` from the declarations of the keys; a test keeps it current.

A chip whose arithmetic can be stated as data needs no code: one file describes it, and every verb takes it.

    nervecord targets template > chip.toml
    nervecord targets --target-file chip.toml
    nervecord inspect zoo/cartpole/policy.nir --target-file chip.toml
    nervecord compile zoo/cartpole/policy.nir --target-file chip.toml -o mine.nervecord --html mine.html
    nervecord run mine.nervecord --episodes 20 --html run.html
    nervecord compare zoo/cartpole/policy.nir mine.nervecord --html compare.html
    nervecord compile zoo/cartpole/policy.nir --target-file chip.toml --emit mine_c/
    nervecord compile mine.nervecord --target c --prefix mine -o mine_c/
    nervecord compile mine.nervecord --target onnx -o mine_onnx/

- The template compiles as it is written. Each key stands in it with its meaning; edit the values.
- Options of the lowering belong to the arithmetic, so every chip has them: `--weight-bits` (up to those of the
  arithmetic) and `--weight-slices`.
- The engines are {", ".join(ENGINES)}; all are bit-exact to the description, which may be less than exact to the chip.
- A program carries the arithmetic and the description. It runs, and is inspected by the chip's name, without the file.
- `--emit` writes C99 of the program's integers ([c.md](c.md)), which any controller computes as the chip does.
- In Python: `nervecord.compile(policy, nervecord.target(file="chip.toml", weight_slices=2))`.

A file without `[arithmetic]` describes a chip that is inspected only; it then needs `[nodes]`.

## The file

The file is TOML. The smallest one that compiles has a name and four numbers:

    name = "mini"
    [arithmetic]
    weight_bits = 8
    membrane_bits = 24
    decay_bits = 12
    threshold_bits = 17

**A value alone is yours**: reports call it *the user's own*, and a limit that is exceeded is an error. What somebody
else published is a table with its source and a confidence:

    [limits]
    neurons = {{ value = 1008, source = "data sheet, page 3", confidence = "exact" }}

| confidence | meaning | a limit that is exceeded is |
|---|---|---|
| `"exact"` | read in the source named | an error |
| `"given"` | your own; the default | an error |
| `"second-hand"` | repeated by others, the source itself not read | unknown |
| `"conflicting"` | sources disagree | unknown |
| `"unknown"` | no value: `{{ source = "nobody says", confidence = "unknown" }}` | not checked |

**What is left out** of `[limits]` and `[behaviour]` and does not follow from the arithmetic is not known: it restricts
nothing, and reports list it as not stated. `--set LIMIT=N` replaces a limit that is not exact.
**Everything that is wrong** with a file is reported at once, each with its key.
"""

PACKAGE = """
## In a package

A package adds a chip to every installation it is in: a dataclass, a `spec.toml` beside it with the keys of this page,
and an entry point. `my_chip/__init__.py`:

    from dataclasses import dataclass

    import nervecord

    @dataclass(frozen=True)
    class MyChip(nervecord.IntegerTarget):
        spec: nervecord.TargetSpec = nervecord.spec_beside(__file__)

and in its `pyproject.toml`, the spec among its files:

    [project.entry-points."nervecord.targets"]
    my-chip = "my_chip:MyChip"

    [tool.setuptools.package-data]
    my_chip = ["spec.toml"]

The entry point has the name that the spec states. `nervecord targets` then lists the chip with its engines,
`--target my-chip` compiles for it, and a program names it without carrying it. What data cannot say is a method of the
class:

| method | says |
|---|---|
| `lower(subject, calibration, schedule)` | how a float graph becomes integers |
| `session(program, engine, trace=...)`, `stream_session(program, engine)` | how an engine of your own is opened |
| `emit(program, folder)` | files for other tools, in place of the C |

An engine of your own is named in the spec's `engines`, with those of the others that the chip keeps; the methods that
open it call `super()` for these.

An option of your own is a field, `clock_mhz: int = option(100, "clock of the cores, MHz", low=1, high=400)`, of
`nervecord.compiler.target.options`; the command line makes `--clock-mhz` of it.
"""


def document() -> str:
    """docs/own-chip.md."""
    follows = {**implied.behaviour(template_arithmetic()), **implied.limits(template_arithmetic())}
    parts = [
        INTRODUCTION,
        _section("Before the sections", "", TEXTS),
        _section(
            "[arithmetic]", "How the chip computes. Its four numbers without a default are needed.", {**KEYS, **WORDS}
        ),
        _section(
            "[behaviour]",
            "What the chip's neurons and connections can do. With an `[arithmetic]` most of it follows, and stating\n"
            "another value is refused; "
            f"{', '.join(f'`{name}`' for name in implied.ABILITIES)} may be `false` where the chip can do less.",
            keys_of(Behaviour),
            follows,
        ),
        _section(
            "[limits]",
            "What the chip and its cores hold. Placement keeps to the limits of a core, so there is no section for\n"
            "it: each population gets cores of its own, as few as let an equal share of it keep to them.",
            keys_of(Limits),
            follows,
        ),
        _section(
            "[packing]",
            "How synapses fill a core's memory: per axon and core, blocks of `header_bits` + count x (`weight_bits` +\n"
            "`delay_bits` + index bits), rounded up to `word_bits`; with every neuron of the core as a target, which\n"
            "needs no index, where that is smaller. Without this section every entry of a matrix takes a weight's\n"
            "bits.",
            keys_of(Packing),
        ),
        _section(
            "[energy]",
            "For estimates: counted events times these constants. Without this section no energy is shown.",
            keys_of(Energy),
        ),
        _section(
            "[convolution]",
            "Of a chip that convolves, for inspecting. Lowering unrolls convolutions to synapses.",
            keys_of(Convolution),
            fallback="not known",
        ),
        "\n## [nodes]\n\nKinds of nodes that the chip realises, for each level that a graph can have (`imported`,\n"
        "`discrete`, `integer`), with a `source` and a `confidence`. With an `[arithmetic]` it follows.\n",
        PACKAGE,
    ]
    return "".join(parts)


def _section(
    title: str, text: str, keys: Mapping[str, Key], follows: Mapping[str, object] | None = None, fallback: str = ""
) -> str:
    """A table of keys; follows: those that the arithmetic says."""
    lines = [
        f"\n## {title}\n",
        *([f"{text}\n"] if text else []),
        "| key | meaning | values | default |",
        "|---|---|---|---|",
    ]
    for name, key in keys.items():
        default = key.default_text or ("needed" if follows is None and not fallback else "not known")
        if follows is not None and name in follows:
            default = "follows from `[arithmetic]`"
        if key.default == "":
            default = "the file"
        lines.append(f"| `{name}` | {_cell(key.about)} | {_cell(key.allowed)} | {_cell(default)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
