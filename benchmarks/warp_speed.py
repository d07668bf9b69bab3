"""Ant-v4: environment steps a second in MuJoCo Warp and in EnvPool, on the devices there are.

    python benchmarks/warp_speed.py [--worlds 64 1024 4096] [--steps 50] [--device cuda] [--threads 1]

Both are stepped with the same random actions, without a policy. MuJoCo Warp's are tensors on its device, as in a
training there; compiling its kernels (a minute the first time) is not counted. Needs the extras train and warp.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from measure import machine_line

from nervecord.errors import NervecordError
from nervecord.training.simulators.make import make_simulator


def warp_seconds(worlds: int, steps: int, device: str) -> float:
    """Seconds of one step of all worlds."""
    simulator = make_simulator("Ant-v4", list(range(worlds)), kind="warp", device=device)
    observations = simulator.reset()
    draw = torch.Generator(observations.device).manual_seed(0)
    seconds = 0.0
    for step in range(-10, steps):
        if step == 0:
            _wait(observations.device)
            seconds = -time.perf_counter()
        actions = torch.rand(worlds, 8, generator=draw, device=observations.device) * 2 - 1
        simulator.step(actions)
    _wait(observations.device)
    return (seconds + time.perf_counter()) / steps


def envpool_seconds(worlds: int, steps: int, threads: int) -> float:
    """Seconds of one step of all environments."""
    simulator = make_simulator("Ant-v4", list(range(worlds)), kind="envpool", threads=threads)
    simulator.reset()
    draw = np.random.default_rng(0)
    seconds = 0.0
    for step in range(-10, steps):
        if step == 0:
            seconds = -time.perf_counter()
        simulator.step(torch.from_numpy(draw.uniform(-1, 1, (worlds, 8))))
    seconds += time.perf_counter()
    simulator.close()
    return seconds / steps


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="EnvPool's")
    args = parser.parse_args()
    name = torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else "the CPU"
    print(f"machine: {machine_line()}")
    print(f"Ant-v4, environment steps a second; MuJoCo Warp on {name}, EnvPool with {args.threads} threads")
    print(f"{'worlds':>8} {'MuJoCo Warp':>14} {'EnvPool':>14} {'ratio':>8}")
    for worlds in args.worlds:
        try:
            ours = worlds / warp_seconds(worlds, args.steps, args.device)
        except NervecordError as error:
            print(f"not measured: {error}")
            return
        pool = worlds / envpool_seconds(worlds, args.steps, args.threads)
        print(f"{worlds:8d} {ours:14,.0f} {pool:14,.0f} {ours / pool:8.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
