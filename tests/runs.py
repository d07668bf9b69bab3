"""Small trainings, of seconds and less; tests state what is different about theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nervecord.training.settings.config import TrainConfig

ON_POLICY: dict[str, Any] = {
    "env": "InvertedPendulum-v4",
    "layers": (16,),
    "critic": (8,),
    "steps": 256,
    "num_envs": 4,
    "rollout": 16,
    "minibatch": 32,
    "epochs": 2,
    "steps_per_action": 3,
    "checkpoint_every": 64,
    "validate_from": 0.5,
    "validation_episodes": 2,
    "test_episodes": 3,
    "record": 48,
    "tensorboard": False,
}
TD7: dict[str, Any] = {
    "env": "Pendulum-v1",
    "steps": 1024,
    "num_envs": 4,
    "random_steps": 256,
    "minibatch": 16,
    "steps_per_update": 16.0,
    "hidden": 16,
    "embedding": 16,
    "capacity": 2048,
    "validation_episodes": 2,
    "test_episodes": 2,
    "checkpoint_every": 512,
    "tensorboard": False,
}


def small(out: Path, name: str = "run", **changes: Any) -> TrainConfig:
    """A training of a few updates: TD7 on Pendulum-v1, every other algorithm on InvertedPendulum-v4."""
    base = TD7 if changes.get("algorithm") == "td7" else ON_POLICY
    fields = {**base, "out": str(out), "name": name, **changes}
    if fields.get("policy") == "ann":
        fields.pop("steps_per_action", None)
    return TrainConfig.of(**fields)
