"""Settings that suit a task: what `nervecord train --env ID` begins with, and any flag replaces.

A preset is data: fields of `TrainConfig` by task. What a run used stands in its `config.json` in full; a task without a
preset begins with the defaults of `TrainConfig`, which are those for Ant-v4. `TrainConfig.for_task` applies them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    # Small tasks: few neurons, short trainings, checkpoints to match.
    "CartPole-v1": {
        "layers": (32,),
        "steps": 300_000,
        "num_envs": 16,
        "minibatch": 256,
        "lr": 1e-3,
        "entropy": 0.005,
        "checkpoint_every": 20_000,
    },
    "Pendulum-v1": {
        "layers": (64,),
        "steps": 500_000,
        "num_envs": 16,
        "rollout": 128,
        "minibatch": 256,
        "epochs": 10,
        "lr": 1e-3,
        "gamma": 0.9,
        "checkpoint_every": 50_000,
    },
    # The others of MuJoCo need longer than Ant's default million to show what they can do.
    "HalfCheetah-v4": {"steps": 2_000_000},
    "Hopper-v4": {"steps": 3_000_000, "checkpoint_every": 150_000},
    "Walker2d-v4": {"steps": 3_000_000, "checkpoint_every": 150_000},
    "Humanoid-v4": {"steps": 10_000_000, "num_envs": 64, "minibatch": 1024, "checkpoint_every": 500_000},
}
"""Task -> fields that differ from `TrainConfig`'s defaults."""
