"""A file that describes a chip of one's own, to start from: `nervecord targets template`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

from nervecord.compiler.arithmetic import KEYS, Arithmetic, with_defaults
from nervecord.compiler.keys import Key, keys_of, toml
from nervecord.compiler.target import implied
from nervecord.compiler.target.protocol import Behaviour, Energy, Limits, Packing
from nervecord.compiler.target.specfile import TEXTS, WORDS

NAME = "my-chip"
STATED: Mapping[str, object] = {
    "name": NAME,
    "title": "My chip",
    "summary": "A chip that a file describes.",
    "not_checked": (),
    "weight_bits": 8,
    "weight_exponent_low": -8,
    "input_shift": 6,
    "membrane_bits": 24,
    "decay_bits": 12,
    "threshold_bits": 17,
    "threshold_shift": 6,
    "bias_bits": 13,
    "bias_exponent_high": 7,
    "graded_bits": 16,
    "connection_delay": 1,
    "delay_max": 63,
    "neurons": 100_000,
}
"""What the template states where it is not the default."""
EXAMPLES: Mapping[str, object] = {
    "inputs": 64,
    "outputs": 16,
    "hidden": 99_984,
    "synapses": 10_000_000,
    "layers": 16,
    "layers_min": 1,
    "fan_in": 4096,
    "fan_out": 4096,
    "input_fan_out": 4096,
    "cores": 128,
    "neurons_per_core": 1024,
    "axons_in_per_core": 4096,
    "axons_out_per_core": 4096,
    "synapse_bits_per_core": 1_048_576,
    "decays_per_core": 32,
    "thresholds_per_core": 8,
    "recurrence": True,
    "recurrent_readout": True,
    "shared_kernels": False,
    "bias": True,
    "graded_input": True,
    "readout": True,
    "message_bits": 16,
    "weight_bits": 8,
    "process_nm": 28,
    "source": "measured by its makers",
    "synaptic_event_pj": 20.0,
    "update_active_pj": 80.0,
    "update_inactive_pj": 50.0,
}
"""Values of keys that stand in the template as comments."""

HEAD = """\
# A chip of your own, which compiles as it stands:
#     nervecord compile policy.nir --target-file chip.toml -o policy.nervecord
#
# docs/own-chip.md explains every key. Lines that begin with # and a key are left out: take the # away to state them.
# A value alone is your own. What somebody published says where it is from:
#     neurons = { value = 1008, source = "data sheet, page 3", confidence = "exact" }
"""
LATER = {
    "limits": "What the chip and its cores hold. What is left out is not known, and restricts nothing.",
    "behaviour": "What the chip has less of than its arithmetic could.",
    "packing": "How synapses fill a core's memory. Without this section every weight of a matrix takes its bits.",
    "energy": "For estimates of energy.",
}


def template() -> str:
    """The file's text."""
    lines = [HEAD, *_keys(TEXTS)]
    lines += ["", "# How the chip computes.", "[arithmetic]", *_keys(KEYS), *_keys(WORDS, stated=False)]
    for section, keys in later_sections().items():
        stated = [name for name in keys if name in STATED and section == "limits"]
        lines += ["", *_comment(LATER[section]), f"{'' if stated else '#'}[{section}]"]
        for name, key in keys.items():
            lines += _keys({name: key}, stated=name in stated)
    return "\n".join(lines) + "\n"


def template_arithmetic() -> Arithmetic:
    """What the template states under [arithmetic]."""
    return Arithmetic(**with_defaults({name: value for name, value in STATED.items() if name in KEYS}))


def later_sections() -> dict[str, dict[str, Key]]:
    """Section -> what a file with an arithmetic may say in it beside what follows from that."""
    arithmetic = template_arithmetic()
    follows = {*implied.behaviour(arithmetic), *implied.limits(arithmetic)} - {*implied.ABILITIES, *implied.FREE}
    facts = {
        section: {name: key for name, key in keys_of(kind).items() if name not in follows}
        for section, kind in (("limits", Limits), ("behaviour", Behaviour))
    }
    return {**facts, "packing": dict(keys_of(Packing)), "energy": dict(keys_of(Energy))}


def _keys(keys: Mapping[str, Key], *, stated: bool = True) -> Iterator[str]:
    for name, key in keys.items():
        yield from _comment(f"{key.about} ({key.allowed})")
        yield f"{'' if stated else '#'}{name} = {toml(_example(key, keys, stated=stated))}"


def _example(key: Key, keys: Mapping[str, Key], *, stated: bool) -> object:
    """The value that the template gives a key: one of its own, else the default."""
    own = STATED if stated else EXAMPLES
    if key.name in own:
        return own[key.name]
    if not key.like:
        return key.default
    return STATED.get(key.like) or _example(keys[key.like], keys, stated=stated)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text[:1].upper() + text[1:],
        110,
        initial_indent="# ",
        subsequent_indent="#   ",
        break_long_words=False,
        break_on_hyphens=False,
    )
