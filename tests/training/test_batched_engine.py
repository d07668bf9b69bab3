"""Validation and distillation run the policy that is trained, on the learner's device: it is what engine torch runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nervecord.runtime.engines.torch.session import BatchedSession
from nervecord.training.folder.export import policy_graph
from nervecord.training.policy.description import describe
from nervecord.training.policy.network import SpikingPolicy
from nervecord.training.settings.config import TrainConfig

KINDS = {
    "reset": {},
    "carried": {"state": "carried", "layers": (12, 9)},
    "delays": {"state": "carried", "delays": True, "layers": (12, 9)},
    "synaptic-delays": {"neuron": "synaptic", "state": "carried", "delays": True},
    "population-count": {"encoder": "population", "decoder": "count"},
    "population-count-delays": {"encoder": "population", "decoder": "count", "state": "carried", "delays": True},
    "recurrent": {"recurrent": True, "state": "carried", "delays": True},
}
OBSERVATIONS, ACTIONS, ROBOTS, STEPS = 11, 3, 64, 12
CLIP, EPSILON = 5.0, 1e-8


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS.keys())
def test_the_policy_of_the_training_is_the_one_the_engine_runs(changes: dict[str, Any]) -> None:
    base: dict[str, Any] = {"env": "Hopper-v4", "layers": (24,), "steps_per_action": 4, "tensorboard": False}
    config = TrainConfig.of(**{**base, **changes})
    torch.manual_seed(0)
    network = SpikingPolicy(OBSERVATIONS, ACTIONS, config)
    with torch.no_grad():
        for layer in network.hidden:
            layer.weight.mul_(2.0)  # lively
    rng = np.random.default_rng(0)
    mean, variance = (
        torch.from_numpy(rng.normal(size=OBSERVATIONS)),
        torch.from_numpy(rng.uniform(0.5, 2, OBSERVATIONS)),
    )
    limits = np.full(ACTIONS, -100.0), np.full(ACTIONS, 100.0)
    policy = policy_graph(
        describe(
            network,
            normaliser={"mean": mean, "variance": variance},
            epsilon=EPSILON,
            clip=CLIP,
            low=limits[0],
            high=limits[1],
        ),
        config,
        period=0.008,
    )
    session = BatchedSession(policy, ROBOTS)
    single = BatchedSession(policy, ROBOTS, precision="float32", trace=False)
    # In float64 every action is the same; 2e-5: its decays are float32 sigmoids, those of `double` float64 ones.
    assert apart(network.double(), session, mean, variance).max() < 2e-5
    assert sum(session.counts.spikes.values()) > ROBOTS * STEPS, "a silent policy would agree with anything"
    # In float32, as it is trained: all but the robots whose state a flipped spike has parted.
    distance = apart(network.float(), single, mean, variance)
    assert (distance < 1e-4).float().mean() > 0.97


def apart(network: SpikingPolicy, session: BatchedSession, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    """Largest difference of each robot's actions over a run, on tensors alone."""
    generator, state = torch.Generator().manual_seed(1), None
    dtype = next(network.parameters()).dtype
    differences = torch.zeros(ROBOTS)
    session.reset(ROBOTS)
    for _ in range(STEPS):
        raw = torch.randn(ROBOTS, OBSERVATIONS, generator=generator, dtype=torch.float64) * 2
        inputs = ((raw - mean.float()) / (variance.float().double().sqrt() + EPSILON)).clamp(-CLIP, CLIP)
        with torch.no_grad():
            expected, state = network(inputs.to(dtype), state)
        differences = torch.maximum(differences, (session.act(raw) - expected).abs().amax(1).float())
    return differences
