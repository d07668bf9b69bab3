"""NeuroBench's metrics: by hand, and against the package itself on the same network in snnTorch."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from policies import random_policy, with_node

import nervecord
from nervecord.compiler.graph.policy import Policy
from nervecord.errors import ContractError
from nervecord.runtime.measure.neurobench import neurobench

T = 5


def spiking_policy(seed: int) -> Policy:
    """Two spiking layers, decoded from counts; one weight in seven is zero, and nothing is normalised."""
    policy = random_policy(seed, sizes=(4, 12, 3), steps=T, output_population=2)
    normalise = policy.graph.nodes["normalise"]
    policy = with_node(policy, "normalise", normalise.replace(mean=np.zeros(4), variance=np.ones(4), epsilon=0.0))
    for name in ("fc1", "fc2"):
        weight = policy.graph.nodes[name].weight.astype(np.float32).astype(np.float64)
        bias = policy.graph.nodes[name].bias.astype(np.float32).astype(np.float64)
        weight.ravel()[::7] = 0
        policy = with_node(policy, name, policy.graph.nodes[name].replace(weight=weight, bias=bias))
    return policy


def observations(policy: Policy) -> np.ndarray:
    """Some of them binary, so that the first layer's operations are partly ACs."""
    assert policy.recorded is not None
    rows = policy.recorded[:20].astype(np.float32).astype(np.float64)
    rows[::4] = rows[::4] > 0
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_it_counts_as_the_package_does(seed: int) -> None:
    torch, snn = pytest.importorskip("torch"), pytest.importorskip("snntorch")
    models = pytest.importorskip("neurobench.models")
    from neurobench.metrics.static import ConnectionSparsity, Footprint, ParameterCount
    from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations

    policy = spiking_policy(seed)
    nodes: dict[str, Any] = dict(policy.graph.nodes)

    def linear(name: str) -> Any:
        op = nodes[name]
        layer = torch.nn.Linear(*op.weight.T.shape)
        layer.weight.data, layer.bias.data = torch.tensor(op.weight).float(), torch.tensor(op.bias).float()
        return layer

    def leaky(name: str) -> Any:
        beta = float(nodes[name].membrane.decay[0])
        return snn.Leaky(beta=beta, reset_mechanism="zero", reset_delay=False, init_hidden=True)

    class Net(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(linear("fc1"), leaky("lif1"), linear("fc2"), leaky("lif2"))

        def forward(self, x: Any) -> tuple[Any, None]:
            return self.layers(x), None

        def reset(self) -> None:
            """What the package calls before each sample; snnTorch's own reset does not reach these layers."""
            for layer in (self.layers[1], self.layers[3]):
                layer.reset_mem()

    model = models.SNNTorchModel(Net())
    model.register_hooks()
    rows = observations(policy)
    totals = {"Dense": 0.0, "Effective_MACs": 0.0, "Effective_ACs": 0.0}
    updates, sparsities = 0.0, []
    for row in rows:
        x = torch.tensor(row).float().expand(1, T, 4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predicted = model(x)
            operations = SynapticOperations()(model, predicted, (x, None))
        totals = {name: totals[name] + operations[name] for name in totals}
        updates += MembraneUpdates()(model, predicted, (x, None))
        sparsities.append(ActivationSparsity()(model, predicted, (x, None)))
        model.reset_hooks()
    metrics = neurobench(policy, rows)
    assert metrics.dense * len(rows) == totals["Dense"]
    assert metrics.effective_macs * len(rows) == totals["Effective_MACs"]
    assert metrics.effective_acs * len(rows) == totals["Effective_ACs"]
    assert 0 < metrics.effective_acs < metrics.dense
    assert metrics.activation_sparsity == pytest.approx(np.mean(sparsities), abs=1e-12)
    assert 0.3 < metrics.activation_sparsity < 1
    assert metrics.membrane_updates * len(rows) == pytest.approx(updates, abs=1e-9)
    assert round(metrics.connection_sparsity, 4) == ConnectionSparsity()(model)
    assert metrics.parameter_count == ParameterCount()(model)
    # snnTorch keeps scalars beside what a neuron needs, and one decay and threshold for a layer; no weight differs.
    reference = Footprint()(model)
    neurons = 12 + 6
    own = 4 * (metrics.parameter_count + neurons * 6)
    assert metrics.footprint == own
    assert reference >= 4 * (metrics.parameter_count + neurons)


def test_per_episode_is_per_action_times_actions() -> None:
    policy = spiking_policy(0)
    data = neurobench(policy, observations(policy)).to_dict()
    assert data["actions"] == 20
    assert data["ModelExecutionRate"] == 20
    for name, value in data["per_action"]["SynapticOperations"].items():
        assert data["per_episode"]["SynapticOperations"][name] == pytest.approx(20 * value)
    assert data["per_action"]["SynapticOperations"]["Dense"] == T * (4 * 12 + 12 * 6)


def test_a_program_counts_its_window_and_its_bits() -> None:
    policy = spiking_policy(1)
    program = nervecord.compile(policy, "lava")
    metrics = neurobench(program.policy, observations(policy))
    window = T + 2  # a step of latency for each connection
    assert metrics.dense == window * (4 * 12 + 12 * 6)
    assert metrics.parameter_count == 4 * 12 + 12 * 6 + 18
    weights = 4 * 12 + 12 * 6
    assert weights < metrics.footprint < weights + 4 * 18 * 6
    assert nervecord.neurobench(program, observations(policy)) == metrics


def test_state_that_is_carried_counts_only_what_changes() -> None:
    policy = random_policy(3, sizes=(4, 12, 3), steps=T, state="carried", recorded=64)
    assert policy.recorded is not None
    still = np.zeros_like(policy.recorded)
    metrics, moving = neurobench(policy, still), neurobench(policy, policy.recorded)
    assert metrics.membrane_updates <= moving.membrane_updates <= T * 15


def test_observations_that_do_not_fit_are_refused() -> None:
    policy = spiking_policy(0)
    for rows in (np.zeros((0, 4)), np.zeros(4), np.zeros((3, 5))):
        with pytest.raises(ContractError, match="actions, 4"):
            neurobench(policy, rows)
