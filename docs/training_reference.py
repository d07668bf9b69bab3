"""Writes docs/training-reference.md from the declarations of algorithms, simulators and fields; `pytest
--update-golden` calls it, and a test holds the document to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from nervecord.training.algorithms import ALGORITHMS
from nervecord.training.algorithms.base import Algorithm, Source
from nervecord.training.fields import Part, flag_name
from nervecord.training.settings.parts import NetworkConfig, RunConfig, TaskConfig
from nervecord.training.simulators.kinds import KINDS, SimulatorKind

HEAD = """# Training: reference

Written by `docs/training_reference.py` from the declarations in `training/algorithms/`,
`training/simulators/kinds.py` and `training/settings/parts.py`; [training.md](training.md) is the guide. Every field
is a flag of `nervecord train` or `nervecord distill` (the teacher is an argument of `distill`), a key of a study file
([sweep.md](sweep.md)), and an argument of `TrainConfig.of`. "resume" marks what `--resume` may change.
"""
SAVES = {"always": "yes", "some": "MuJoCo's tasks, classic control, tasks with `get_state()`", "never": "no"}
TITLES = {TaskConfig: "Task", NetworkConfig: "Network", RunConfig: "Run"}


def document() -> str:
    """docs/training-reference.md."""
    parts = [HEAD, "## Algorithms\n", *_algorithms(), "\n## Simulators\n", *_simulators()]
    for kind, title in TITLES.items():
        parts += [f"\n## {title}\n", *_fields(kind, set())]
    common = {f.name for f in dataclasses.fields(Algorithm)}
    parts += ["\n## Every algorithm\n", *_fields(Algorithm, set())]
    for name, algorithm in ALGORITHMS.items():
        same = {f.name for f in dataclasses.fields(Algorithm) if f.default == _default(algorithm, f.name)}
        parts += [f"\n## `{name}`\n", *_fields(algorithm, common & same)]
    return "\n".join(parts) + "\n"


def _algorithms() -> Iterator[str]:
    head = ("`--algorithm`", "what it is", "starts from", "policy", "several processes", "choices", "carried state")
    yield f"| {' | '.join(head)} | devices |"
    yield "|---" * len(head) + "|---|"
    for name, kind in ALGORITHMS.items():
        starts = "; ".join(_source(kind, source) for source in kind.sources) or "nothing"
        policy = "its own network, without spikes" if kind.own_networks else "spiking, or its twin without spikes"
        devices = ", ".join(kind.devices) or "any"
        carries = kind.takes_carried and not kind.own_networks
        able = [_yes(value) for value in (kind.takes_processes, kind.takes_choices, carries)]
        words = [f"`{name}`", kind.about, starts, policy, *able, devices]
        yield f"| {' | '.join(words)} |"


def _source(kind: type[Algorithm], source: Source) -> str:
    assets = ", ".join(sorted(asset.value for asset in source.assets))
    place = "run, ONNX file or function" if source.takes_files else "run"
    need = "" if source.required else " (optional)"
    return f"`{spelled(kind, source.field)}`{need}: {place} with {assets}; same {', '.join(source.shared)}"


def _simulators() -> Iterator[str]:
    yield "| `--sim` | what it is | extra | takes | tasks | a resumed run continues its episodes |"
    yield "|---|---|---|---|---|---|"
    for kind in KINDS.values():
        takes = ", ".join(flag_name(name) for name in kind.takes)
        words = [f"`{kind.name}`", kind.about, kind.extra or "none", takes, _tasks(kind), SAVES[kind.saves]]
        yield f"| {' | '.join(words)} |"


def _tasks(kind: SimulatorKind) -> str:
    if kind.tasks:
        return ", ".join(kind.tasks)
    return "Gymnasium's" if kind.knows_gymnasium else "its own"


def _fields(kind: type[Part], left_out: set[str]) -> Iterator[str]:
    yield "| flag | default | values | resume | meaning |"
    yield "|---|---|---|---|---|"
    for f in dataclasses.fields(kind):  # type: ignore[arg-type]  # a Part is always a dataclass
        if f.name not in left_out:
            text = f.metadata["help"].replace("|", "\\|")
            words = [f"`{spelled(kind, f.name)}`", cell(f.default), values(f), _yes(f.metadata.get("resumable")), text]
            yield f"| {' | '.join(words)} |"


def spelled(kind: type[Part], name: str) -> str:
    """A field in the document: its flag, or where it stands in a verb's command."""
    if issubclass(kind, Algorithm) and name == kind.positional:
        return f"nervecord {kind.verb} {name.upper()}"
    return flag_name(name)


def values(f: dataclasses.Field[Any]) -> str:
    """The values that a field may have."""
    bounds, default = f.metadata, f.default
    if isinstance(default, bool):
        return "yes, no"
    if "choices" in bounds:
        return ", ".join(f"`{choice}`" for choice in bounds["choices"])
    kinds = {int: "integer", float: "number", str: "text", tuple: "integers" if "least" in bounds else "names"}
    signs = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
    limits = [f"{sign} {bounds[name]:,}" for name, sign in signs.items() if name in bounds]
    needed = [f"{flag_name(bounds['needs'][0])} {cell(bounds['needs'][1])}"] if "needs" in bounds else []
    return ", ".join([kinds[type(default)], *limits]) + "".join(f"; needs {need}" for need in needed)


def cell(value: Any) -> str:
    """A value in the document."""
    if isinstance(value, bool):
        return _yes(value)
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value) or "none"


def _default(kind: type[Algorithm], name: str) -> Any:
    return next(f.default for f in dataclasses.fields(kind) if f.name == name)


def _yes(value: Any) -> str:
    return "yes" if value else "no"
