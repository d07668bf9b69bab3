"""The learner of a configuration."""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from typing import Any

import torch

from nervecord.errors import NervecordError
from nervecord.training.learners.base import Learner, Setup
from nervecord.training.processes.distributed import Group
from nervecord.training.settings.config import TrainConfig
from nervecord.training.simulators.base import Simulator


def make_learner(
    simulator: Simulator,
    config: TrainConfig,
    group: Group,
    *,
    sources: Mapping[str, dict[str, Any]],
    content: dict[str, Any] | None,
) -> Learner:
    """The learner.

    Args:
        simulator: says the sizes.
        config, group: of the run.
        sources: checkpoints that a new training starts from, by the field that names each.
        content: the checkpoint that the training resumes from, which holds what it needs of its sources.

    Raises:
        NervecordError: the algorithm does not learn such a task, or not on this device.
    """
    algorithm, low, high = config.algorithm, torch.from_numpy(simulator.low), torch.from_numpy(simulator.high)
    where, device = f"--algorithm {algorithm.name}", torch.device(group.device(config.run.device))
    if simulator.choices:
        algorithm.check_choices(config.task.env, simulator.choices)
    if algorithm.devices and device.type not in algorithm.devices:
        raise NervecordError(f"learns on {' and '.join(algorithm.devices)}, --device is {device}", where=where)
    setup = Setup(simulator.observation_size, low, high, config, group, simulator.choices, sources, content)
    learner: Learner = pkgutil.resolve_name(algorithm.learner_class)(setup)
    return learner
