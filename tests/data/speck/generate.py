"""Draws random networks and asks sinabs whether they fit Speck; writes nets.json, which the tests read.

Run in an environment with torch and sinabs 3.1.1 (with its pbr); the tests need neither:

    python tests/data/speck/generate.py tests/data/speck/nets.json

What sinabs says is: `DynapcnnNetwork` can be made of the network (square kernels, poolings whose stride is their size),
`get_valid_mapping` finds a core for every layer within `get_constraints`, and `ValidateMapping` accepts every
convolution and pooling. Its check of strides passes where one axis is right; here it is asked for each axis by itself.

The package samna, which talks to the hardware and is not on PyPI, is replaced by empty names: it is imported by the
modules around the mapping, and nothing of it is called.
"""

from __future__ import annotations

import json
import sys
import types
from typing import Any

import numpy as np
import torch
from torch import nn


class _Anything(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


def _without_samna() -> None:
    def anything(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})

    for name in (
        "samna",
        "samnagui",
        "samna.speck2e",
        "samna.speck2e.configuration",
        "samna.speck2f",
        "samna.speck2f.configuration",
    ):
        module = types.ModuleType(name)
        module.__getattr__ = anything  # type: ignore[method-assign]
        sys.modules[name] = module


_without_samna()
import sinabs  # noqa: E402
import sinabs.layers as sl  # noqa: E402
from sinabs.backend.dynapcnn import DynapcnnNetwork  # noqa: E402
from sinabs.backend.dynapcnn.chips.dynapcnn import DynapcnnConfigBuilder  # noqa: E402
from sinabs.backend.dynapcnn.mapping import get_valid_mapping  # noqa: E402
from sinabs.validate_memory_speck import ValidateMapping  # noqa: E402

CHANNELS = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 33, 48, 64, 100]


def pick(rng: np.random.Generator, values: list[Any], p: list[float] | None = None) -> Any:
    return values[int(rng.choice(len(values), p=p))]


def draw(rng: np.random.Generator) -> tuple[list[int], list[list[Any]]] | None:
    """Input shape and layers of a network, most of which nearly fit."""
    c, h, w = int(pick(rng, [1, 2, 3])), *(int(pick(rng, [8, 12, 16, 20, 28, 32, 34, 48, 64])) for _ in range(2))
    if rng.random() < 0.8:
        w = h
    shape, layers = [c, h, w], []
    for _ in range(int(rng.integers(1, 8))):
        out = int(pick(rng, CHANNELS))
        kernel = [
            int(pick(rng, [1, 2, 3, 4, 5, 7, 11, 16, 17], [0.1, 0.1, 0.4, 0.1, 0.15, 0.05, 0.04, 0.03, 0.03]))
        ] * 2
        stride = [int(pick(rng, [1, 2, 3, 4, 8], [0.72, 0.2, 0.02, 0.04, 0.02]))] * 2
        padding = [int(rng.integers(0, 3))] * 2
        if rng.random() < 0.1:
            padding[1] = int(rng.integers(0, 3))
        if rng.random() < 0.03:
            kernel[1] = max(1, kernel[1] - 1)
        if rng.random() < 0.04:
            stride[1] = int(pick(rng, [1, 2, 3]))
        size = [(n + 2 * p - k) // s + 1 for n, p, k, s in zip((h, w), padding, kernel, stride, strict=True)]
        if min(size) < 1:
            break
        layers.append(["conv", out, kernel, stride, padding, bool(rng.random() < 0.5)])
        (h, w), c = size, out
        for _ in range(int(pick(rng, [0, 1, 2], [0.55, 0.4, 0.05]))):
            pool = [int(pick(rng, [2, 4, 3, 1], [0.75, 0.17, 0.04, 0.04]))] * 2
            if rng.random() < 0.03:
                pool[1] = max(1, pool[1] - 1)
            stride = [pool[0], max(1, pool[1] - 1)] if rng.random() < 0.02 else list(pool)
            if h < pool[0] or w < pool[1]:
                continue
            layers.append(["pool", pick(rng, ["sum", "average"]), pool, stride])
            h, w = ((n - k) // s + 1 for n, k, s in zip((h, w), pool, stride, strict=True))
    if not layers:
        return None
    layers += [
        ["linear", int(pick(rng, [2, 10, 50, 100, 128, 200, 512, 1024, 1030])), bool(rng.random() < 0.5)]
        for _ in range(int(rng.integers(0, 3)))
    ]
    return shape, layers


def module(shape: list[int], layers: list[list[Any]]) -> nn.Sequential:
    modules: list[nn.Module] = []
    c, h, w = shape
    flat = False
    for layer in layers:
        match layer:
            case ["conv", out, kernel, stride, padding, bias]:
                modules += [nn.Conv2d(c, out, tuple(kernel), tuple(stride), tuple(padding), bias=bias)]
                modules += [sl.IAFSqueeze(batch_size=1)]
                c = out
                h, w = ((n + 2 * p - k) // s + 1 for n, p, k, s in zip((h, w), padding, kernel, stride, strict=True))
            case ["pool", mode, kernel, stride]:
                kind = sl.SumPool2d if mode == "sum" else nn.AvgPool2d
                modules.append(kind(tuple(kernel), tuple(stride)))
                h, w = ((n - k) // s + 1 for n, k, s in zip((h, w), kernel, stride, strict=True))
            case ["linear", out, bias]:
                if not flat:
                    modules.append(nn.Flatten())
                modules += [nn.Linear(c * h * w, out, bias=bias), sl.IAFSqueeze(batch_size=1)]
                c, h, w, flat = out, 1, 1, True
    return nn.Sequential(*modules)


def verdict(shape: list[int], layers: list[list[Any]]) -> str:
    """Empty where it fits, else why not."""
    try:
        net = DynapcnnNetwork(module(shape, layers), input_shape=tuple(shape), discretize=False)
        get_valid_mapping(net.dynapcnn_layers, DynapcnnConfigBuilder.get_constraints())
    except ValueError as error:
        return str(error).splitlines()[0][:120]
    for layer in net.dynapcnn_layers.values():
        conv = layer.conv_layer
        for stride in conv.stride:
            try:
                ValidateMapping(
                    conv.in_channels,
                    conv.out_channels,
                    conv.kernel_size,
                    (stride, stride),
                    conv.padding,
                    layer.in_shape[1:],
                )
            except (Exception, Warning) as error:
                return str(error)
        for pool in layer.pool:
            try:
                ValidateMapping(1, 1, tuple(pool), (1, 1), (0, 0), conv_2d=False)
            except Exception as error:
                return str(error)
    return ""


def main(path: str, count: int = 1000) -> None:
    rng = np.random.default_rng(0)
    nets: list[str] = []
    while len(nets) < count:
        sample = draw(rng)
        if sample is None:
            continue
        shape, layers = sample
        with torch.no_grad():
            why = verdict(shape, layers)
        nets.append(json.dumps([shape, layers, why]))
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps({"sinabs": sinabs.__version__})[:-1] + ', "nets": [\n' + ",\n".join(nets) + "\n]}\n")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
