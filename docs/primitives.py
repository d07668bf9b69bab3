"""Writes docs/primitives.md: what each target makes of each primitive of NIR. `pytest --update-golden` calls it, and a
test holds the document to the targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nervecord.compiler.check.rules import Case
from nervecord.compiler.check.table import case_findings, verdict
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.ops import (
    NIR_READERS,
    Affine,
    ContinuousMembrane,
    ContinuousSynapse,
    Conv,
    Delay,
    Flatten,
    Input,
    Level,
    Neuron,
    Op,
    Output,
    Pool,
    Scale,
    Spike,
    Threshold,
)
from nervecord.compiler.passes.discretise import discretise
from nervecord.compiler.target.protocol import TargetSpec
from nervecord.targets.catalogue import load_specs

DT = 1e-3
ENDS = ("Input", "Output")
HEAD = """# NIR primitives

Written by `docs/primitives.py`, which asks the readers, the definition and the rules of every target about
the smallest network with each primitive; a test keeps it current. Every primitive of NIR 1.0.8 is read, verified and
executed by the definition (the target `reference`, `nervecord simulate`); `tests/compiler/test_primitives.py` holds
each against torch or its equation. A NIRGraph in a graph dissolves into its nodes.

*compiles*: the network compiles, for the engines named. *yes*, *no*, *unknown*: the chip has such a node or has not, or
nothing public says; `nervecord inspect` says of a whole network whether it fits.
"""


def document() -> str:
    """docs/primitives.md."""
    graphs, specs = smallest(), load_specs()
    lines = [
        HEAD,
        "| primitive | read as | " + " | ".join(spec.name for spec in specs) + " |",
        "|---|---|" + "---|" * len(specs),
    ]
    for name, reader in NIR_READERS.items():
        if name not in ENDS:
            cells = " | ".join(cell(graphs[name], name, spec) for spec in specs)
            lines.append(f"| {name} | `{reader.__name__}` | {cells} |")
    lines += ["", *(f"- {spec.name}: {_runs_on(spec)}" for spec in specs)]
    return "\n".join(lines) + "\n"


def _runs_on(spec: TargetSpec) -> str:
    return f"{spec.title}; engines {', '.join(spec.engines)}" if spec.engines else f"{spec.title}; inspected only"


def cell(graph: Graph, name: str, spec: TargetSpec) -> str:
    findings = case_findings(Case.of(graph, spec))
    if spec.engines:
        errors = ", ".join(dict.fromkeys(f.code for f in findings if f.severity == "error"))
        return "compiles" if verdict(findings) == "feasible" else f"no: {errors}"
    severity = next((f.severity for f in findings if f.code == "unsupported-node" and f.node == name), None)
    return {None: "yes", "unknown": "unknown"}.get(severity, "no")


def smallest() -> dict[str, Graph]:
    """NIR type -> input of spikes, the primitive between connections where it needs them, neurons, output."""
    flat, image = (6,), (2, 4, 4)
    kernel = np.full((2, 2, 3, 3), 0.25)
    middles: Mapping[str, tuple[tuple[int, ...], Sequence[Op]]] = {
        "Affine": (flat, [_affine(True)]),
        "Linear": (flat, [_affine(False)]),
        "Conv1d": ((2, 8), [Conv(kernel[..., 0], np.full(2, 0.1), (1,), (1,), (1,), 1, (8,))]),
        "Conv2d": (image, [Conv(kernel, np.full(2, 0.1), (1, 1), (1, 1), (1, 1), 1, (4, 4))]),
        "Scale": (flat, [Scale(np.full(6, 0.5))]),
        "Flatten": (image, [Flatten(image, 0, -1)]),
        "SumPool2d": (image, [Pool("sum", (2, 2), (2, 2), (0, 0), image)]),
        "AvgPool2d": (image, [Pool("average", (2, 2), (2, 2), (0, 0), image)]),
        "Delay": (flat, [Delay(np.full(6, 2 * DT)), _affine(False)]),
    }
    graphs = {}
    for name, (shape, ops) in middles.items():
        graphs[name] = _graph(shape, [*ops, _neuron("IF", ops[-1].out_shape)], name)
    for name in ("I", "IF", "LI", "LIF", "CubaLI", "CubaLIF"):
        graphs[name] = _graph(flat, [_affine(False), _neuron(name, flat)], name)
    graphs["Threshold"] = _graph(flat, [_affine(False), Threshold(np.full(6, 0.5))], "Threshold")
    return graphs


def _affine(bias: bool) -> Affine:
    return Affine(np.full((6, 6), 0.25), np.full(6, 0.1) if bias else None)


def _neuron(kind: str, shape: tuple[int, ...]) -> Neuron:
    ones = np.ones(shape)
    integrates = "LI" not in kind
    membrane = ContinuousMembrane(ones / DT if integrates else 10 * ones, None if integrates else 10 * DT * ones)
    synapse = ContinuousSynapse(5 * DT * ones, 5 * ones) if kind.startswith("Cuba") else None
    return Neuron(membrane, synapse, Spike(ones, 0 * ones) if kind.endswith("F") else None)


def _graph(shape: tuple[int, ...], ops: Sequence[Op], primitive: str) -> Graph:
    nodes: list[tuple[str, Op]] = [("input", Input(shape, "spikes"))]
    for k, op in enumerate(ops):
        own = primitive in type(op).NIR and not (primitive == "IF" and k < len(ops) - 1)
        name = primitive if own else f"node{k}"
        nodes.append((name, op.replace(origin=(name,))))
    nodes.append(("output", Output(ops[-1].out_shape)))
    result = discretise(chain(Level.IMPORTED, nodes, dt=DT))
    assert isinstance(result, Graph)
    return result
