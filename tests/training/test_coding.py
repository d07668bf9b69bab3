"""The population code in torch is the compiler's, to the spike; and something is learnt through both ends."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import nervecord
from nervecord.compiler import ops as n
from nervecord.compiler.nir.file import read_nir
from nervecord.compiler.ops.population import ONE
from nervecord.errors import NervecordError
from nervecord.training.policy.coding import CountReadout, PopulationEncoder
from nervecord.training.policy.network import SpikingPolicy
from nervecord.training.run import train
from nervecord.training.settings.config import TrainConfig


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_encoder_equals_the_definition(dtype: torch.dtype) -> None:
    encoder = PopulationEncoder(5, 8).to(dtype)
    node = n.PopulationEncode(np.tile(encoder.mean.double().numpy(), (5, 1)), encoder.sigma.item(), always=False)
    x = 2 * torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=dtype)
    phase, host, state = None, n.HostStep(node), node.state(40)
    for _ in range(3):  # the accumulators go on
        spikes, phase = encoder(x, 20, phase)
        units = host.values(x.double().numpy())
        expected = host.train(state, x.double().numpy(), 20)
        if dtype is torch.float64:
            assert np.array_equal(spikes.numpy(), expected)
            assert np.array_equal(phase.numpy(), state["v"])
        else:
            # An activation may round to the unit beside; a spike then moves by a step.
            assert np.abs(encoder.units(x).numpy() - units).max() <= 2
            assert (spikes.numpy() != expected).mean() < 1e-3
    assert 0.01 < float(spikes.mean()) < 0.9
    assert not spikes.requires_grad
    assert float(phase.max()) < ONE


def test_first_actions_are_near_zero() -> None:
    torch.manual_seed(0)
    readout = CountReadout(4, 10, 0.1)
    assert readout(torch.ones(1, 40)).abs().max() < 0.1 * np.sqrt(10)
    torch.testing.assert_close(readout.weight.norm(dim=1), torch.full((4,), 0.1))


def test_state_holds_what_the_ends_need() -> None:
    base = TrainConfig.of(
        layers=(7,), state="carried", encoder="population", population=6, decoder="count", output_population=5
    )
    sizes = {
        (encoder, decoder): SpikingPolicy(3, 2, base.replace(encoder=encoder, decoder=decoder)).state_size
        for encoder in ("current", "population")
        for decoder in ("membrane", "count")
    }
    assert sizes == {
        ("current", "membrane"): 7 + 2,
        ("current", "count"): 7 + 10,
        ("population", "membrane"): 7 + 18 + 2,
        ("population", "count"): 7 + 10 + 18,
    }


@pytest.mark.parametrize("change", [{"encoder": "population"}, {"decoder": "count"}])
def test_the_twin_without_spikes_has_neither(change: dict[str, str]) -> None:
    with pytest.raises(NervecordError, match="--policy ann"):
        TrainConfig.of(policy="ann", **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"encoder": "rate"}, "population"), ({"decoder": "counts"}, "count"), ({"population": 1}, "population.* >= 2")],
)
def test_wrong_values_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(NervecordError, match=words):
        TrainConfig.of(**change)  # type: ignore[arg-type]


@pytest.mark.slow
def test_learns_to_balance_with_spikes_in_and_out(tmp_path: Path) -> None:
    """Population code and spike counts, from training through NIR and Loihi's arithmetic to the environment."""
    config = TrainConfig.of(
        env="InvertedPendulum-v4",
        layers=(32,),
        critic=(32, 32),
        encoder="population",
        decoder="count",
        steps=20_000,
        num_envs=8,
        rollout=64,
        minibatch=128,
        lr=2e-3,
        checkpoint_every=5_000,
        validation_episodes=4,
        test_episodes=8,
        tensorboard=False,
        out=str(tmp_path),
        name="run",
    )
    result = train(config)
    assert result.test is not None
    assert result.policy is not None
    assert result.test.mean > 100  # an untrained policy stays upright for 5 to 20 steps
    graph = read_nir(result.policy)
    report = nervecord.inspect(result.policy, "loihi1")
    assert [target.verdict for target in report.targets] == ["feasible"]
    program = nervecord.compile(graph, "lava")
    with nervecord.open(program) as session:
        evaluation = nervecord.run(session, "InvertedPendulum-v4", episodes=4, seed=0)
    assert evaluation.mean > 50
