"""The return of a policy on every engine over the same episodes, and whether their actions are the same bits.

    python benchmarks/returns.py [policy.nir] [--episodes 50 --seed 0 --lava-episodes 50] [--json FILE]

The policy (by default zoo/ant-small) plays in its own environment, on seeds that follow from --seed, each engine in
worlds of its own. Observations are rounded to float32 before the policy sees them, and actions before the world does:
what engines whose interface is float32 do is then done by all. Lava itself is hundreds of times slower than the
emulator: 50 episodes take it ten to twenty minutes. Exits with 1 where an integer engine gave one action that another
did not.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engines
import gymnasium
import numpy as np
from measure import ZOO, keep, machine_line, parser, print_rows

import nervecord
from nervecord.compiler.graph.policy import Policy
from nervecord.runtime.worker.environment import make_environment


class Single(gymnasium.Wrapper):  # type: ignore[type-arg]
    """A world that gives and takes float32, and remembers the actions of each episode: seed -> their digest."""

    def __init__(self, env: Any, digests: dict[int, Any]) -> None:
        super().__init__(env)
        self.digests = digests

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        observation, info = self.env.reset(seed=seed, options=options)
        if seed is not None:
            self._digest = self.digests[seed] = hashlib.sha256()
        return self._rounded(observation), info

    def step(self, action: Any) -> Any:
        values = np.asarray(action, dtype=np.float32)
        self._digest.update(values.tobytes())
        observation, *rest = self.env.step(values.astype(np.asarray(action).dtype))
        return (self._rounded(observation), *rest)

    def _rounded(self, observation: Any) -> Any:
        values = np.asarray(observation)
        return values.astype(np.float32).astype(values.dtype)


def sessions(policy: Policy, *, lava: bool) -> dict[str, Callable[[], Any]]:
    """Name -> opens the engine; the integers first."""
    program = nervecord.compile(policy, "lava")
    openers: dict[str, Callable[[], Any]] = {
        "emulator": lambda: nervecord.open(program, engine="emulator", trace=False),
        "definition": lambda: nervecord.open(program, engine="definition", trace=False),
    }
    if engines.has_compiler():
        openers["c"] = lambda: nervecord.open(program, engine="c", trace=False)
    if engines.has("onnx", "onnxruntime"):
        exact = nervecord.compile(policy, "onnx", form="integer")
        openers["onnxruntime"] = lambda: nervecord.open(exact, engine="onnxruntime")
    if engines.has("torch"):
        openers["torch"] = lambda: nervecord.open(program, engine="torch", trace=False)
    if lava:
        openers["lava"] = lambda: engines.lava_session(program)
    openers["float: reference"] = lambda: nervecord.open(policy)
    if engines.has("torch"):
        openers["float: torch"] = lambda: nervecord.open(policy, engine="torch", trace=False)
        openers["float: torch, float32"] = lambda: nervecord.open(
            policy, engine="torch", precision="float32", trace=False
        )
    if engines.has("onnx", "onnxruntime"):
        floats = nervecord.compile(policy, "onnx")
        openers["float: onnxruntime"] = lambda: nervecord.open(floats, engine="onnxruntime")
    return openers


def played(name: str, opens: Callable[[], Any], env: str, episodes: int, seed: int) -> dict[str, Any]:
    """What an engine did in so many episodes."""
    digests: dict[int, Any] = {}
    began = time.perf_counter()
    with opens() as session:
        # One at a time in Lava, whose network is of one robot.
        beside = 1 if name == "lava" else min(10, episodes)
        result = nervecord.run(
            session,
            lambda: Single(make_environment(env), digests),
            episodes,
            seed,
            environments=beside,
            allow_other_env=True,
        )
    if result.engine_error is not None:
        sys.exit(f"{name}: {result.engine_error}")
    return {
        "episodes": episodes,
        "mean": result.mean,
        "half": result.ci95 if episodes > 1 else None,
        "lengths": [int(length) for length in result.lengths],
        "returns": [float(x) for x in result.returns],
        "digests": {str(key): value.hexdigest() for key, value in sorted(digests.items())},
        "seconds": time.perf_counter() - began,
    }


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Play and print; returns engine -> what it did, "same": as the emulator's actions, None of floats."""
    flags = parser(__doc__)
    flags.add_argument(
        "policy", nargs="?", type=Path, default=ZOO / "ant-small" / "policy.nir", help="a policy's NIR file"
    )
    flags.add_argument("--episodes", type=int, default=50)
    flags.add_argument("--seed", type=int, default=0, help="from which those of the episodes follow")
    flags.add_argument("--lava-episodes", type=int, default=50, help="0 leaves Lava out")
    options = flags.parse_args(arguments)
    policy = nervecord.read(options.policy)
    assert isinstance(policy, Policy)
    env = policy.contract.environment
    print(machine_line())
    lava = options.lava_episodes > 0 and engines.has_lava()
    results: dict[str, Any] = {}
    for name, opens in sessions(policy, lava=lava).items():
        episodes = min(options.lava_episodes, options.episodes) if name == "lava" else options.episodes
        row = played(name, opens, env, episodes, options.seed)
        expected = results.get("emulator", row)["digests"]
        row["same"] = (
            None if name.startswith("float") else all(expected[key] == row["digests"][key] for key in row["digests"])
        )
        results[name] = row
        print(f"{name}: {row['seconds']:.0f} s", file=sys.stderr, flush=True)
    head = [f"{env}, seeds from {options.seed}", "episodes", "return", "actions", "as the emulator"]
    rows = [
        [
            name,
            f"{row['episodes']}",
            f"{row['mean']:,.1f}" + (f" ± {row['half']:,.1f}" if row["half"] else ""),
            f"{sum(row['lengths']):,}",
            {True: "to the bit", False: "DIFFER", None: ""}[row["same"]],
        ]
        for name, row in results.items()
    ]
    print_rows(head, rows)
    keep(options.json, {"environment": env, "seed": options.seed, "engines": results})
    if not all(row["same"] in (True, None) for row in results.values()):
        sys.exit(1)
    return results


if __name__ == "__main__":
    main()
