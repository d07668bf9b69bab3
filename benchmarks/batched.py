"""Actions a second of engine torch at several batch sizes, beside the emulator and the definition.

    python benchmarks/batched.py [POLICY ...] [--device cuda] [--batches 1,16,256,4096] [--seconds 1]

By default the ant of zoo/ant in fixed point and in floats, driven by random observations. Trust ratios within one run.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import nervecord

ANT = Path(__file__).parent.parent / "zoo" / "ant"


def rate(step: Callable[[Any], Any], rows: Any, seconds: float, settle: Callable[[], object]) -> float:
    """Actions a second, after one that warms up."""
    step(rows)
    settle()
    began, actions = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step(rows)
        actions += len(rows)
    settle()
    return actions / (time.perf_counter() - began)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("policies", nargs="*", default=[str(ANT / "ant.nervecord"), str(ANT / "policy.nir")])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", default="1,16,256,4096")
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    import torch

    from nervecord.targets.given import acting
    from nervecord.targets.opening import engines_of, runner

    device = torch.device(arguments.device)
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    batches = [int(word) for word in arguments.batches.split(",")]
    rng = np.random.default_rng(0)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, device {device}; thousands of actions a second"
    )
    print(f"{'policy':24} {'engine':18}" + "".join(f"{batch:>10,}" for batch in batches))
    for path in arguments.policies:
        program = acting(path)
        names = [name for name in engines_of(runner(program)) if name != "lava"]
        for name in [name for name in names if name != "torch"] + ["torch", "torch float32"]:
            precision = "float32" if name.endswith("32") else "float64"
            if precision == "float32" and program.graph.arithmetic is not None:
                continue
            row = []
            for batch in batches:
                own = name.startswith("torch")
                options = (
                    {"engine": "torch", "device": str(device), "precision": precision} if own else {"engine": name}
                )
                with nervecord.open(program, trace=False, **options) as session:  # type: ignore[arg-type]
                    session.reset(batch)
                    rows = rng.normal(size=(batch, session.contract.observation.size))
                    if own:
                        given = torch.from_numpy(rows).to(device)
                        row.append(rate(session.act, given, arguments.seconds, wait))  # type: ignore[attr-defined]
                    else:
                        row.append(rate(session.step, rows, arguments.seconds, lambda: None))
            label = str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path
            print(f"{label:24} {name:18}" + "".join(f"{value / 1e3:>10,.1f}" for value in row), flush=True)


if __name__ == "__main__":
    sys.exit(main())
