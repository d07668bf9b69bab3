"""Draws random networks and asks Rockpool whether its mapper places them on Xylo Audio 2; writes nets.json.

Run in an environment with Rockpool 3.1.0 and torch; the tests need neither:

    python tests/data/xylo/generate.py tests/data/xylo/nets.json

The package samna, which talks to the hardware and is not on PyPI, is replaced by empty modules: it is imported around
the mapper, and nothing of it is called. A warning of its design rules (too many inputs or outputs) is a refusal.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import re
import sys
import types
import warnings
from typing import Any

import numpy as np
import torch  # noqa: F401  # before the modules below, which look for it


class _Anything(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {})


class _Empty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        is_stub = name.split(".")[0] in ("samna", "samnagui")
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_stub else None

    def create_module(self, spec: Any) -> types.ModuleType:
        def anything(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return _Anything(name, (), {})

        module = types.ModuleType(spec.name)
        module.__path__ = []  # type: ignore[attr-defined]
        module.__getattr__ = anything  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


sys.meta_path.insert(0, _Empty())
import rockpool  # noqa: E402
from rockpool.devices.xylo.syns61201.xylo_mapper import DRCError, DRCWarning, mapper  # noqa: E402
from rockpool.nn.combinators import Sequential  # noqa: E402
from rockpool.nn.modules import LIFTorch, LinearTorch  # noqa: E402


def draw(rng: np.random.Generator) -> list[list[Any]]:
    """[inputs, [neurons, recurrent, linear layers before it], ...]."""
    depth = int(rng.choice([1, 2, 3, 4], p=[0.15, 0.45, 0.3, 0.1]))
    sizes = [int(rng.choice([2, 10, 40, 63, 64, 65, 200, 400, 600])) for _ in range(depth - 1)]
    sizes.append(int(rng.choice([1, 4, 7, 8, 9, 12])))
    layers = [[size, bool(rng.random() < 0.2), 2 if rng.random() < 0.05 else 1] for size in sizes]
    return [[int(rng.choice([1, 8, 15, 16, 17, 20]))], *layers]


def verdict(net: list[list[Any]]) -> str:
    width, populations = net[0][0], []
    for size, recurrent, count in net[1:]:
        for _ in range(count):
            populations.append(LinearTorch((width, size), has_bias=False))
            width = size
        populations.append(LIFTorch((size, size), dt=1e-3, has_rec=recurrent))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", DRCWarning)
        try:
            mapper(Sequential(*populations).as_graph(), weight_dtype="float")
        except (DRCError, DRCWarning) as error:
            return re.sub(r"_\d{6,}", "", str(error).splitlines()[-1])[:100] or type(error).__name__
    return ""


def main(path: str, count: int = 300) -> None:
    rng = np.random.default_rng(0)
    nets = []
    for _ in range(count):
        net = draw(rng)
        nets.append(json.dumps([net, verdict(net)]))
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps({"rockpool": rockpool.__version__})[:-1] + ', "nets": [\n' + ",\n".join(nets) + "\n]}\n")


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
