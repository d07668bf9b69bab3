"""Study files of small trainings: seconds, not minutes."""

from __future__ import annotations

from pathlib import Path

from nervecord.training.sweeps.study import Study, read_study

BASE = """
env = "InvertedPendulum-v4"
critic = [8]
steps = 512
num_envs = 4
rollout = 16
minibatch = 32
epochs = 2
steps_per_action = 3
checkpoint_every = 128
validate_from = 0.4
validation_episodes = 2
test_episodes = 2
record = 64
tensorboard = false
"""


def write_study(folder: Path, series: str, *, base: str = "") -> Path:
    """A file in `folder` of a study "small" beside it; `base` replaces fields of `BASE`, `series` is TOML."""
    fields = {line.split(" = ")[0]: line for text in (BASE, base) for line in text.split("\n") if line}
    path = folder / "study.toml"
    path.write_text(
        f'[study]\nname = "small"\nout = "{folder}"\n[base]\n' + "\n".join(fields.values()) + f"\n{series}\n",
        encoding="utf-8",
    )
    return path


def small_study(folder: Path, series: str, *, base: str = "") -> Study:
    """What `write_study` wrote, read."""
    return read_study(write_study(folder, series, base=base))
