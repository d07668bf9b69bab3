"""The fused operator against snnTorch's modules stepped in a loop, in float64."""

from __future__ import annotations

import itertools
import shutil
import warnings
from typing import Any

import pytest
import torch

from nervecord.training.policy import spiking
from nervecord.training.policy.network import SpikingPolicy
from nervecord.training.policy.spiking import LayerSettings, LayerState, spike_layer
from nervecord.training.settings.config import TrainConfig

# Values of the two differ in the order of a few float64 sums.
VALUES, GRADIENTS = 1e-9, 1e-8


def pair(**changes: Any) -> tuple[SpikingPolicy, SpikingPolicy]:
    """The same policy with the fused operator and with snnTorch."""
    torch.manual_seed(0)
    idle = {"population": "encoder", "output_population": "decoder"}
    words = {
        name: value for name, value in changes.items() if changes.get(idle.get(name, "")) not in ("current", "membrane")
    }
    config = TrainConfig.of(**{"layers": (19,), "steps_per_action": 5, **words})
    fused = SpikingPolicy(7, 3, config).double()
    with torch.no_grad():  # biases begin at zero, which would hide them
        for layer in (*fused.hidden, fused.readout):
            layer.bias.uniform_(-0.3, 0.5)
            layer.weight.mul_(1.5)
        if fused.encoder is not None:  # few of its neurons spike at a time
            fused.hidden[0].weight.mul_(2)
        fused.beta_logits.add_(torch.linspace(-0.5, 0.5, len(fused.beta_logits)))
    literal = SpikingPolicy(7, 3, config).double()
    literal.load_state_dict(fused.state_dict())
    literal.literal = True
    return fused, literal


CASES = (
    [
        {"neuron": neuron, "layers": layers, "detach_reset": detached, **kind}
        for neuron, layers, detached, kind in itertools.product(
            ("leaky", "synaptic"),
            ((19,), (19, 11, 6)),
            (True, False),
            ({}, {"state": "carried"}, {"state": "carried", "delays": True}),
        )
    ]
    + [
        {"encoder": encoder, "decoder": decoder, "population": 6, "output_population": 4, **kind}
        for (encoder, decoder), kind in itertools.product(
            (("population", "membrane"), ("current", "count"), ("population", "count")),
            (
                {},
                {"neuron": "synaptic", "layers": (19, 11), "detach_reset": False},
                {"state": "carried"},
                {"state": "carried", "delays": True, "layers": (19, 11)},
            ),
        )
    ]
    + [{"steps_per_action": 1, "state": "carried", "delays": True}, {"steps_per_action": 1}]
    + [
        {"recurrent": True, "state": "carried", "delays": True, **kind}
        for kind in (
            {},
            {"detach_reset": False},
            {"neuron": "synaptic", "layers": (19, 11)},
            {"neuron": "synaptic", "detach_reset": False},
            {"encoder": "population", "population": 6},
        )
    ]
)


@pytest.mark.parametrize("changes", CASES, ids=lambda c: "-".join(str(v) for v in c.values()))
def test_policy_equals_snntorch(changes: dict[str, Any]) -> None:
    policies = pair(**changes)
    x = torch.randn(23, 7, dtype=torch.float64)
    states, means = [None, None], []
    for _ in range(3):  # three actions, so that a carried state is worth carrying
        results = [policy(x, state) for policy, state in zip(policies, states, strict=True)]
        means = [mean for mean, _ in results]
        states = [state for _, state in results]
        torch.testing.assert_close(means[0], means[1], rtol=0, atol=VALUES)
        if states[0] is not None and states[1] is not None:
            torch.testing.assert_close(states[0], states[1], rtol=0, atol=VALUES)
            assert not states[0].requires_grad
        x = x + 0.3 * torch.randn_like(x)
    target = torch.randn_like(means[0])
    for mean in means:
        (mean * target).sum().backward()
    for (name, a), (_, b) in zip(policies[0].named_parameters(), policies[1].named_parameters(), strict=True):
        assert a.grad is not None, name
        # In one step nothing decays, and behind delays an action's own input does not reach its readout.
        silent = policies[0].steps == 1
        assert silent or name.startswith("readout") or a.grad.abs().max() > 0, name
        expected = torch.zeros_like(b) if b.grad is None else b.grad
        torch.testing.assert_close(a.grad, expected, rtol=0, atol=GRADIENTS, msg=name)


@pytest.mark.parametrize("detached", [True, False])
def test_spikes_are_identical_and_not_trivial(detached: bool) -> None:
    fused, literal = pair(state="carried", delays=True, layers=(19, 11), detach_reset=detached)
    x = torch.randn(50, 7, dtype=torch.float64)
    states: list[Any] = [None, None]
    rate = 0.0
    for _ in range(20):
        states = [policy(x, state)[1] for policy, state in zip((fused, literal), states, strict=True)]
        spikes = [policy.unpack(x, state).layers for policy, state in zip((fused, literal), states, strict=True)]
        for a, b in zip(*spikes, strict=True):
            assert a.last.equal(b.last)
            rate += float(a.last.mean()) / 40
    assert 0.05 < rate < 0.95


def test_the_two_resets_have_different_gradients() -> None:
    x = torch.randn(23, 7, dtype=torch.float64)
    grads = []
    for detached in (True, False):
        policy, _ = pair(detach_reset=detached)
        policy(x)[0].sum().backward()
        grads.append(policy.hidden[0].weight.grad)
    assert (grads[0] - grads[1]).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("synaptic", [False, True])
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("stateful", [False, True])
def test_kernel_equals_torch_operators(
    dtype: torch.dtype, synaptic: bool, summed: bool, constant: bool, detached: bool, stateful: bool
) -> None:
    """The operator for other devices, run on the CPU: the same spikes to the bit, the same gradients."""
    torch.manual_seed(1)
    settings = LayerSettings(6, synaptic, 4.0, detached)
    current = torch.randn(1 if constant else 6, 70, 33, dtype=dtype)
    alpha, beta = torch.tensor(0.6, dtype=dtype), torch.tensor(0.8, dtype=dtype)
    weights = torch.rand(6, dtype=dtype) if summed else None
    v0, i0 = 0.3 * torch.randn(70, 33, dtype=dtype), torch.randn(70, 33, dtype=dtype)
    inputs = (current, alpha, beta, weights, *((v0, i0) if stateful else (None, None)))
    kernel = spiking._forward_numba(*inputs, settings)
    reference = spiking._forward_torch(*inputs, settings)
    for a, b in zip(kernel, reference, strict=True):
        if a is None or b is None:
            assert a is b is None
            assert not stateful
        elif summed and a is kernel[0]:
            torch.testing.assert_close(a, b)
        else:
            assert a.equal(b)
    grad = torch.randn_like(kernel[0])
    for a, b in zip(
        spiking._backward_numba(grad, *inputs, settings), spiking._backward_torch(grad, *inputs, settings), strict=True
    ):
        assert (a is None) == (b is None)
        if a is not None:
            # Float32 sums over 70 x 33 x 6 terms of both signs.
            tolerance = 1e-10 if dtype == torch.float64 else 2e-4
            torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on the CPU needs a C++ compiler")
def test_compiled_operators_equal_those_one_by_one() -> None:
    """What a card runs, compiled for the CPU here: the same spikes to the bit, the same gradients."""
    from torch._dynamo.utils import counters

    torch.manual_seed(3)
    settings = LayerSettings(3)
    alpha, beta = torch.tensor(0.0, dtype=torch.float64), torch.tensor(0.8, dtype=torch.float64)
    inputs = (1.5 * torch.randn(3, 24, 33).double(), alpha, beta, torch.rand(3).double(), None, None)
    counters.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, of what it imports
        warnings.filterwarnings("error", message="torch.compile fails here")
        forward, backward = spiking.compiled(spiking._forward_torch), spiking.compiled(spiking._backward_torch)
        (fused, *_), (reference, *_) = forward(*inputs, settings), spiking._forward_torch(*inputs, settings)
        # Sums of the weights of the steps with a spike: a spike more or less would be seen.
        assert len(reference.unique()) == 8
        torch.testing.assert_close(fused, reference)
        grad = torch.randn_like(reference)
        for a, b in zip(
            backward(grad, *inputs, settings), spiking._backward_torch(grad, *inputs, settings), strict=True
        ):
            torch.testing.assert_close(a, b)
    assert counters["stats"]["unique_graphs"] == 2, "each of the two is one graph"
    assert not counters["graph_break"]


@pytest.mark.parametrize("when", ["asked", "called"])
def test_without_a_compiler_the_operators_run_one_by_one(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(function: Any, dynamic: bool) -> Any:
        if when == "asked":
            raise RuntimeError("torch.compile is not supported on this Python")

        def run(*args: Any) -> Any:
            raise torch._dynamo.exc.BackendCompilerFailed(function, RuntimeError("no compiler"), None)

        return run

    monkeypatch.setattr(torch, "compile", fail)
    double = spiking.compiled.__wrapped__(lambda x: 2 * x)
    with pytest.warns(UserWarning, match=r"torch.compile fails here .*runs slower"):
        assert double(torch.tensor(3.0)) == 6.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert double(torch.tensor(4.0)) == 8.0


def test_reset_and_threshold_by_hand() -> None:
    """v: 0.6, 1.08 > 1 spikes, 0.6, 1.08 spikes; a membrane of exactly 1 does not spike."""
    beta = torch.tensor(0.8, dtype=torch.float64)
    current = torch.tensor([[[0.6, 1.0]]], dtype=torch.float64)
    spikes, none = spike_layer(current, beta, LayerSettings(4))
    assert none is None
    start = LayerState(*(torch.zeros(1, 2, dtype=torch.float64) for _ in range(3)))
    again, state = spike_layer(current, beta, LayerSettings(4), state=start)
    assert again.equal(spikes)
    assert state is not None
    assert spikes[:, 0, 0].tolist() == [0, 1, 0, 1]
    assert spikes[:, 0, 1].tolist() == [0, 1, 0, 1]
    assert state.v[0].tolist() == [0, 0]
    _, state = spike_layer(current, beta, LayerSettings(3), state=state)
    assert state is not None
    assert state.v[0, 0].item() == pytest.approx(0.6)
