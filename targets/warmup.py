"""Compiles the emulator's loop into numba's cache before it is needed: when a robot's image is made, not at its start.

The loop is compiled once for all graphs, in the forms that their types ask for: two widths of numbers, each with the
host's part of a policy in it and without. Which of them a program needs depends on its ranges, so all are made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nervecord.compiler.compile import compile_graph
from nervecord.compiler.graph.contract import Channels, Contract
from nervecord.compiler.graph.graph import chain
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import Affine, Decode, Input, Level, Membrane, Neuron, Normalise, Output, Spike
from nervecord.compiler.plan.plan import plan
from nervecord.errors import NervecordError
from nervecord.runtime.engines.emulator.session import Emulator
from nervecord.targets.catalogue import find_target

FORMS = tuple((fuse, wide) for fuse in (True, False) for wide in (False, True))
"""(the host's part in the loop, wide numbers) of each form."""


@dataclass(frozen=True, slots=True)
class Warmth:
    """What warming up came to.

    Args:
        folder: numba's cache, which other processes of this user read from now on.
        compiled: functions that were not in it yet. found: functions that were.
        seconds: it took.
    """

    folder: Path
    compiled: int
    found: int
    seconds: float


def warmup(
    progress: Callable[[int, int], object] = lambda done, total: None, forms: Sequence[tuple[bool, bool]] = FORMS
) -> Warmth:
    """Compile every form of the emulator's loop, or find it in numba's cache.

    Args:
        progress: called with the forms that are done, and how many there are.
        forms: of `FORMS`, those to compile.

    Raises:
        NervecordError: numba is not installed, or its cache cannot be written or read.
    """
    began = time.perf_counter()
    before = _asked()
    policy_plan = plan(compile_graph(_policy(), find_target("lava")).policy)
    for done, (fuse, wide) in enumerate(forms, start=1):
        Emulator(policy_plan, fuse=fuse, wide=wide)
        progress(done, len(forms))
    from nervecord.runtime.engines.emulator import jit, kernel

    if not (jit.serves() and jit.keeps()):
        raise NervecordError(
            "cannot be used: each process compiles anew",
            where="numba's cache",
            hint="name a folder that can be written in the variable NUMBA_CACHE_DIR",
        )
    compiled, found = (now - then for now, then in zip(_asked(), before, strict=True))
    loop: Any = kernel.loop()  # of numba's dispatchers
    return Warmth(Path(loop.act.stats.cache_path), compiled, found, time.perf_counter() - began)


def _asked() -> tuple[int, int]:
    """How often this process has compiled a function of the loop, and found one in the cache."""
    try:
        from nervecord.runtime.engines.emulator import kernel
    except ImportError:
        return 0, 0  # without numba the emulator says what is wrong
    loop: Any = kernel.loop()
    stats = [function.stats for function in loop]
    misses, hits = (sum(sum(getattr(it, name).values()) for it in stats) for name in ("cache_misses", "cache_hits"))
    return misses, hits


def _policy() -> Policy:
    """One observation, one neuron, one action."""
    one, zero = np.ones(1), np.zeros(1)
    leaky = Neuron(Membrane(0.5 * one, one, zero), None, Spike(one, zero))
    nodes = [
        ("observation", Input((1,))),
        ("normalise", Normalise(zero, one, 1e-8, 10.0)),
        ("fc1", Affine(np.ones((1, 1)), zero)),
        ("lif1", leaky),
        ("fc2", Affine(np.ones((1, 1)), zero)),
        ("readout", leaky.replace(spike=None)),
        ("decode", Decode(one, zero, -one, one)),
        ("action", Output((1,))),
    ]
    channels = Channels(("x",), ("1",), (-1.0,), (1.0,))
    contract = Contract("none", channels, channels, steps=2, state="reset", control_period=1.0, fail_safe=(0.0,))
    recorded = np.linspace(-2, 2, 32)[:, None]
    return Policy(chain(Level.DISCRETE, nodes, dt=1e-3), contract, recorded)
