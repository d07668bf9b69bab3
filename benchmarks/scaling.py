"""How the time of an action grows: with the batch, the neurons, the layers, T, and the share of weights that are zero.

    python benchmarks/scaling.py [--rounds 3 --seconds 0.1] [--sweeps batch neurons ...] [--device cpu] [--json FILE]

Random policies of 27 observations and 8 actions, integers as the target lava compiles them, on one thread, driven by
observations drawn once. One line of each sweep changes one thing: 256 neurons in one layer, T = 5, dense, one robot are
where the others stand; the zeros are in 512-512, whose inner matrix is most of the work. "ANN" is a network without
spikes of the same layers in ONNX Runtime. What is not installed is left out; so is the definition where it takes too
long.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import engines
import numpy as np
from measure import Call, in_turns, keep, machine_line, parser, print_rows, value_text

import nervecord
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Affine

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from policies import random_policy, with_node

SWEEPS: dict[str, tuple[float, ...]] = {
    "batch": (1, 4, 16, 64, 256, 1024, 4096),
    "neurons": (64, 128, 256, 512, 1024, 2048, 4096),
    "layers": (1, 2, 3, 4),
    "steps": (1, 2, 5, 10, 20),
    "zeros": (0.0, 0.5, 0.75, 0.9, 0.95, 0.99),
}
UNITS = {"batch": "robots", "neurons": "neurons", "layers": "layers of 256", "steps": "T", "zeros": "share of zeros"}
SLOWEST = 4096 * 300
"""Neurons times robots up to which the definition is measured."""


def policy_of(sweep: str, value: float) -> Policy:
    """The policy of a line."""
    layers, steps = (256,), 5
    if sweep == "neurons":
        layers = (int(value),)
    elif sweep == "layers":
        layers = (256,) * int(value)
    elif sweep == "steps":
        steps = int(value)
    elif sweep == "zeros":
        layers = (512, 512)
    policy = random_policy(sizes=(27, *layers, 8), steps=steps, recorded=256)
    return thinned(policy, value) if sweep == "zeros" else policy


def thinned(policy: Policy, share: float) -> Policy:
    """The policy without this share of each matrix's weights, those that are left scaled up so that it stays lively."""
    rng = np.random.default_rng(1)
    for name, op in policy.graph.nodes.items():
        if isinstance(op, Affine):
            mask = rng.random(op.weight.shape) >= share
            policy = with_node(policy, name, op.replace(weight=op.weight * mask / np.sqrt(max(1 - share, 0.05))))
    return policy


@contextlib.contextmanager
def calls_of(policy: Policy, batch: int, device: str) -> Iterator[dict[str, Call]]:
    """Name -> one step of so many robots."""
    program: Program = nervecord.compile(policy, "lava")
    with contextlib.ExitStack() as stack:

        def session(subject: Program | Policy, **how: Any) -> Any:
            engine = stack.enter_context(nervecord.open(subject, trace=False, **how))
            engine.reset(batch)
            return engine

        calls: dict[str, Call] = {"emulator": session(program, engine="emulator").step}
        if engines.has_compiler():
            calls["c"] = engines.emitted_c(program)[0] if batch == 1 else session(program, engine="c").step
        if engines.has("onnx", "onnxruntime"):
            exact = nervecord.compile(policy, "onnx", form="integer")
            calls["onnxruntime"] = engines.onnx_file(exact) if batch == 1 else session(exact, engine="onnxruntime").step
        if engines.has("torch"):
            for name, source, how in (
                ("torch", program, {}),
                ("float: torch", policy, {}),
                ("float: torch, float32", policy, {"precision": "float32"}),
            ):
                calls[name] = on_device(session(source, engine="torch", device=device, **how), device)
        if batch * sum(op.neurons for op in policy.graph.nodes.values()) < SLOWEST:
            calls["definition"] = session(program, engine="definition").step
            calls["float: definition"] = session(policy).step
        if batch == 1 and engines.has("onnx", "onnxruntime"):
            widths = [op.size for op in policy.graph.nodes.values() if op.spikes and op.neurons]
            calls["ANN"] = engines.ann_twin((27, *widths, 8))
        yield calls


def on_device(session: Any, device: str) -> Call:
    """Tensors that are there already, as a simulator on the device gives them."""
    import torch

    tensors: dict[int, Any] = {}
    wait: Callable[[], object] = torch.cuda.synchronize if device.startswith("cuda") else lambda: None

    def call(row: Any) -> Any:
        tensor = tensors.get(id(row))
        if tensor is None:
            tensor = tensors[id(row)] = torch.from_numpy(np.atleast_2d(row)).to(device)
        action = session.act(tensor)
        wait()
        return action

    return call


def measured(sweep: str, values: tuple[float, ...], options: Any) -> dict[str, Any]:
    """Engine -> microseconds of an action at each value, or None where it was not measured; and spikes per action."""
    series: dict[str, list[float | None]] = {}
    spikes = []
    for k, value in enumerate(values):
        policy = policy_of(sweep, value)
        batch = int(value) if sweep == "batch" else 1
        observations = engines.observations(policy)
        rows = (
            [np.resize(np.roll(observations, shift, axis=0), (batch, 27)) for shift in range(4)]
            if batch > 1
            else list(observations)
        )
        with calls_of(policy, batch, options.device) as calls:
            times = in_turns(calls, rows, rounds=options.rounds, seconds=options.seconds)
        with nervecord.open(nervecord.compile(policy, "lava")) as session:
            for row in observations[:64]:
                session.step(row)
            spikes.append(session.counts.per_action()["spikes"])
        for name in times:
            series.setdefault(name, [None] * len(values))[k] = float(np.median(times[name])) / batch
    return {"values": list(values), "us": series, "spikes": spikes}


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure, print a table for each sweep, and return what was measured by sweep."""
    flags = parser(__doc__)
    flags.add_argument("--rounds", type=int, default=3, help="turns of each engine")
    flags.add_argument("--seconds", type=float, default=0.1, help="of a turn")
    flags.add_argument("--sweeps", nargs="+", choices=tuple(SWEEPS), default=list(SWEEPS))
    flags.add_argument("--first", type=int, default=None, metavar="N", help="only the first N values of each")
    flags.add_argument("--device", default="cpu", help="of the engine torch")
    options = flags.parse_args(arguments)
    print(machine_line())
    results = {}
    for sweep in options.sweeps:
        results[sweep] = measured(sweep, SWEEPS[sweep][: options.first], options)
        print(f"\nus per action by {UNITS[sweep]}")
        head = [UNITS[sweep], *(f"{value:,g}" for value in results[sweep]["values"])]
        rows = [[name, *map(value_text, row)] for name, row in results[sweep]["us"].items()]
        print_rows(head, [*rows, ["(spikes per action)", *map(value_text, results[sweep]["spikes"])]])
        sys.stdout.flush()
    keep(options.json, {"device": options.device, "sweeps": results})
    return results


if __name__ == "__main__":
    main()
