"""A teacher that is a network of another maker: a float graph without state, asked in torch.

The checkpoint of a distillation keeps the graph itself, so that it continues without the file that it came from.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nervecord.compiler.files.serialise import graph_from_data, graph_to_data
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.verify import require
from nervecord.compiler.ops import Activation, Affine, ArgmaxDecode, Decode, Input, Level, Normalise, Op, Output
from nervecord.errors import NervecordError
from nervecord.targets.source import read_graph
from nervecord.training.settings.config import TrainConfig

PART = "network"
"""Of a checkpoint's learner: the graph."""


def read_network_teacher(path: Path, config: TrainConfig) -> dict[str, Any]:
    """A network's file as the checkpoint of a teacher.

    Args:
        path: an ONNX file. config: of the student.

    Raises:
        NervecordError: it is no such network.
    """
    graph = read_graph(path)
    assert isinstance(graph, Graph)
    structure, arrays = graph_to_data(graph)
    tensors = {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}
    return {
        "config": config.to_dict(),
        "step": 0,
        "learner": {PART: {"graph": json.dumps(structure), "arrays": tensors}},
    }


class NetworkTeacher(nn.Module):
    """The graph in float32.

    Args:
        part: of a checkpoint's learner, as `read_network_teacher` makes it.
    """

    def __init__(self, part: dict[str, Any]) -> None:
        super().__init__()
        arrays = {name: values.numpy() for name, values in part["arrays"].items()}
        graph = require(graph_from_data(json.loads(part["graph"]), arrays, where="teacher"), Level.DISCRETE)
        (entrance,), (self._end,) = graph.inputs, graph.outputs
        (last,) = graph.sources(self._end)
        last_op = graph.nodes[last]
        self.sizes = graph.nodes[entrance].size, last_op.choices if isinstance(last_op, ArgmaxDecode) else last_op.size
        self._steps: list[tuple[str, tuple[str, ...], Callable[[Tensor], Tensor]]] = []
        for name in graph.order()[0]:
            self._steps.append((name, graph.sources(name), self._layer(name, graph.nodes[name])))

    def require_sizes(self, observations: int, outputs: int) -> None:
        """Refuse a task of other sizes.

        Raises:
            NervecordError: it is one.
        """
        for does, has, other, needed in zip(
            ("takes", "gives"), self.sizes, ("gives", "takes"), (observations, outputs), strict=True
        ):
            if has != needed:
                raise NervecordError(
                    f"{does} {has} values, and the task {other} {needed}",
                    where="teacher",
                    hint="name the task that it was trained in: --env ID",
                )

    def _layer(self, name: str, op: Op) -> Callable[[Tensor], Tensor]:
        def buffer(label: str, values: Any) -> Callable[[], Tensor]:
            # Asked for at each call: moved to a device, a module has other tensors than it began with.
            key = f"{name}_{label}".replace(".", "_")
            self.register_buffer(key, torch.from_numpy(np.asarray(values, dtype=np.float32)))
            return lambda: getattr(self, key)

        match op:
            case Normalise():
                mean, divisor = buffer("mean", op.mean), buffer("divisor", op.divisor)
                return lambda x: ((x - mean()) / divisor()).clamp(-op.clip, op.clip)
            case Affine():
                weight = buffer("weight", op.weight)
                bias = None if op.bias is None else buffer("bias", op.bias)
                return lambda x: functional.linear(x, weight(), None if bias is None else bias())
            case Activation(function="elu"):
                return lambda x: functional.elu(x, op.alpha)
            case Activation(function="relu"):
                return torch.relu
            case Activation():
                return torch.tanh
            case Decode():
                low, high = buffer("low", op.low), buffer("high", op.high)
                scale, offset = buffer("scale", op.scale), buffer("offset", op.offset)
                return lambda x: (x * scale() + offset()).clamp(low(), high())
            case Input() | ArgmaxDecode() | Output():
                # Of a choice the preferences are learnt, not which one is largest.
                return lambda x: x
        raise NervecordError(f"{op.kind} is no part of a network without time", where=name)

    @torch.no_grad()
    def forward(self, observations: Tensor) -> Tensor:
        """Actions, or preferences of choices, (B, outputs), for raw observations (B, observations)."""
        values: dict[str, Tensor] = {}
        for name, sources, function in self._steps:
            x = observations if not sources else values[sources[0]]
            for source in sources[1:]:
                x = x + values[source]
            values[name] = function(x)
        return values[self._end]
