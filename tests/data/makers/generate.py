"""Networks of other tools: their own NIR export, and the spikes of their own forward on recorded input.

Run in an environment that has the tool; the tests read what it writes and need none of them:

    python tests/data/makers/generate.py snntorch tests/data/makers

Each case is CASE.nir, as the tool's own export wrote it, and CASE.npz with `x` (steps, ...) and `spikes` (steps, ...)
of what the network gives, a batch of one taken out.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch import nn

warnings.simplefilter("ignore")
STEPS = 150
Case = tuple[str, Any, Any, np.ndarray, Callable[[Any, Any], np.ndarray]]
"""Name, network, its sample for the export, input, and the forward of all steps."""


def values(*shape: int, mean: float = 0.3, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(4).normal(mean, spread, size=(STEPS, *shape)).astype(np.float32)


def linear(inputs: int, outputs: int) -> nn.Linear:
    torch.manual_seed(outputs)
    return nn.Linear(inputs, outputs)


# --------------------------------------------------------------------------------------------------------------------


def snntorch() -> Iterator[Case]:
    import snntorch as snn

    def stepped(net: Any, x: Any) -> np.ndarray:
        for module in net:
            for reset in ("reset_mem", "reset_hidden"):
                if hasattr(module, reset) and reset == "reset_mem":
                    getattr(module, reset)()
        return np.stack([net(row).detach().numpy() for row in x])

    wide = torch.full((6,), 0.85)
    for mechanism in ("zero", "subtract"):
        lif = snn.Leaky(wide, threshold=torch.full((6,), 0.8), init_hidden=True, reset_mechanism=mechanism)
        yield f"snntorch-leaky-{mechanism}", nn.Sequential(linear(5, 6), lif), torch.zeros(5), values(5), stepped
        lif = snn.Synaptic(
            torch.full((6,), 0.6), wide, threshold=torch.full((6,), 0.8), init_hidden=True, reset_mechanism=mechanism
        )
        yield f"snntorch-synaptic-{mechanism}", nn.Sequential(linear(5, 6), lif), torch.zeros(5), values(5), stepped
    now: dict[str, Any] = {"threshold": torch.full((6,), 0.3), "init_hidden": True, "reset_delay": False}
    for kind, lif in (
        ("leaky", snn.Leaky(wide, **now)),
        ("synaptic", snn.Synaptic(torch.full((6,), 0.6), wide, **now)),
        ("rleaky", snn.RLeaky(wide, linear_features=6, **now)),
    ):
        yield f"snntorch-{kind}-subtract-now", nn.Sequential(linear(5, 6), lif), torch.zeros(5), values(5), stepped
    rest: dict[str, Any] = {"linear_features": 6, "threshold": torch.full((6,), 0.8), "init_hidden": True}
    for name, more in (
        ("zero", {"reset_mechanism": "zero"}),
        ("zero-now", {"reset_mechanism": "zero", "reset_delay": False}),
        ("subtract", {}),
    ):
        lif = snn.RLeaky(wide, **rest, **more)
        yield f"snntorch-rleaky-{name}", nn.Sequential(linear(5, 6), lif), torch.zeros(5), values(5), stepped
        if name != "zero-now":  # its own forward fails with reset_delay=False
            lif = snn.RSynaptic(torch.full((6,), 0.6), wide, **rest, **more)
            yield f"snntorch-rsynaptic-{name}", nn.Sequential(linear(5, 6), lif), torch.zeros(5), values(5), stepped
    lif = snn.Synaptic(
        torch.full((6,), 0.6),
        wide,
        threshold=torch.full((6,), 0.8),
        init_hidden=True,
        reset_mechanism="zero",
        reset_delay=False,
    )
    yield "snntorch-synaptic-zero-now", nn.Sequential(linear(5, 6), lif), torch.zeros(5), values(5), stepped
    torch.manual_seed(0)
    shape = torch.full((3, 6, 6), 0.8)
    conv = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1),
        snn.Leaky(shape, threshold=shape.clone(), init_hidden=True, reset_mechanism="zero"),
    )
    yield "snntorch-conv2d-zero", conv, torch.zeros(2, 6, 6), values(2, 6, 6), stepped


def export_snntorch(net: Any, sample: Any) -> Any:
    from snntorch.export_nir import export_to_nir

    return export_to_nir(net, sample)


# --------------------------------------------------------------------------------------------------------------------


def norse() -> Iterator[Case]:
    import norse.torch as n

    def stepped(net: Any, x: Any) -> np.ndarray:
        state, outputs = None, []
        for row in x:
            y, state = net(row, state)
            outputs.append(y.detach().numpy())
        return np.stack(outputs)

    ones = torch.ones(6)
    box = n.LIFBoxParameters(tau_mem_inv=120 * ones, v_leak=0 * ones, v_th=0.05 * ones, v_reset=0 * ones)
    yield "norse-lifbox", n.SequentialState(linear(5, 6), n.LIFBoxCell(box)), torch.zeros(5), values(5), stepped
    cell = n.LIFParameters(
        tau_syn_inv=200 * ones, tau_mem_inv=120 * ones, v_leak=0 * ones, v_th=0.3 * ones, v_reset=0 * ones
    )
    yield "norse-lifcell", n.SequentialState(linear(5, 6), n.LIFCell(cell)), torch.zeros(5), values(5), stepped
    from norse.torch.functional.iaf import IAFParameters

    iaf = IAFParameters(v_th=0.9 * ones, v_reset=0 * ones)
    yield "norse-iaf", n.SequentialState(linear(5, 6), n.IAFCell(iaf)), torch.zeros(5), values(5), stepped


def export_norse(net: Any, sample: Any) -> Any:
    import norse.torch as n

    return n.to_nir(net, sample)


# --------------------------------------------------------------------------------------------------------------------


def sinabs() -> Iterator[Case]:
    import sinabs.activation as sa
    import sinabs.layers as sl

    def whole(net: Any, x: Any) -> np.ndarray:
        for module in net:
            if hasattr(module, "reset_states"):
                module.reset_states()
        outputs: np.ndarray = net(x).detach().numpy()
        return outputs

    def iaf(**more: Any) -> Any:
        return sl.IAFSqueeze(batch_size=1, spike_threshold=torch.tensor(0.9), **more)

    single = {"spike_fn": sa.SingleSpike}
    for name, more in (("zero", {**single, "reset_fn": sa.MembraneReset()}), ("subtract", single), ("default", {})):
        net = nn.Sequential(linear(5, 6), iaf(**more))
        yield f"sinabs-iaf-{name}", net, torch.zeros(5), values(5), whole
    torch.manual_seed(0)
    conv = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), iaf(**single), sl.SumPool2d(2), nn.Conv2d(3, 4, 3), iaf(**single)
    )
    conv[3].weight.data.abs_()  # so that it fires
    yield "sinabs-conv", conv, torch.zeros(1, 2, 10, 10), values(2, 10, 10), whole


def export_sinabs(net: Any, sample: Any) -> Any:
    from sinabs.nir import to_nir

    graph = to_nir(net, sample)
    graph.infer_types()  # else nir 1.0.4 cannot write convolutions, whose shapes sinabs leaves open
    return graph


# --------------------------------------------------------------------------------------------------------------------


def spikingjelly() -> Iterator[Case]:
    from spikingjelly.activation_based import functional, neuron

    def stepped(net: Any, x: Any) -> np.ndarray:
        functional.reset_net(net)
        return np.stack([net(row[None]).detach().numpy()[0] for row in x])

    for name, reset in (("hard", 0.0), ("soft", None)):
        lif = neuron.LIFNode(tau=4.0, decay_input=True, v_threshold=0.3, v_reset=reset)
        yield f"spikingjelly-lif-{name}", nn.Sequential(linear(5, 6), lif), torch.zeros(1, 5), values(5), stepped
    node = neuron.IFNode(v_threshold=0.9, v_reset=0.0)
    yield "spikingjelly-if-hard", nn.Sequential(linear(5, 6), node), torch.zeros(1, 5), values(5), stepped


def export_spikingjelly(net: Any, sample: Any) -> Any:
    from spikingjelly.activation_based import functional
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    functional.reset_net(net)
    return export_to_nir(net, sample, dt=1e-3)


# --------------------------------------------------------------------------------------------------------------------


def rockpool() -> Iterator[Case]:
    from rockpool.nn.combinators import Sequential
    from rockpool.nn.modules import LIFTorch, LinearTorch

    def whole(net: Any, x: Any) -> np.ndarray:
        outputs: np.ndarray = net(x[None])[0][0].detach().numpy()
        return outputs

    cases: tuple[tuple[str, dict[str, Any]], ...] = (
        ("one-spike", {"max_spikes_per_dt": 1}),
        ("default", {}),
        ("bias", {"bias": 0.05 * torch.ones(6)}),
        ("recurrent", {"max_spikes_per_dt": 1, "has_rec": True, "w_rec": 0.1 * torch.ones(6, 6)}),
    )
    for name, more in cases:
        torch.manual_seed(1)
        lif = LIFTorch(6, tau_mem=0.02, tau_syn=0.005, threshold=1.0, dt=1e-3, **more)
        net = Sequential(LinearTorch((5, 6), has_bias=False), lif)
        yield f"rockpool-lif-{name}", net, torch.zeros(1, 5), values(5), whole


def export_rockpool(net: Any, sample: Any) -> Any:
    from rockpool.nn.modules import to_nir

    graph = to_nir(net, sample)
    # It writes the axes of batch and time into the ends, whatever the sample is.
    graph.nodes["input"], graph.nodes["output"] = nir.Input(np.array([5])), nir.Output(np.array([6]))
    return graph


def main(maker: str, folder: str) -> None:
    for name, net, sample, x, forward in globals()[maker]():
        with torch.no_grad():
            spikes = forward(net, torch.from_numpy(x))
            try:
                graph = globals()[f"export_{maker}"](net, sample)
                nir.write(Path(folder) / f"{name}.nir", graph)
            except Exception as error:
                print(f"{name}: its export fails: {type(error).__name__}: {error}")
                continue
        np.savez_compressed(Path(folder) / f"{name}.npz", x=x, spikes=spikes.astype(np.float32))
        print(f"{name}: {spikes.shape}, {spikes.sum():.0f} spikes, most in a step {spikes.max():.0f}")
    print({it: metadata.version(it) for it in (maker, "nir", "torch")})


if __name__ == "__main__":
    main(*sys.argv[1:])
