"""The steps of `compiler.ops.sigma_delta` in the emulator's compiled loop."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from nervecord.runtime.engines.emulator.tables import Sdn


@njit(nogil=True, error_model="numpy")
def sigma_delta(
    mem: Any, entering: int, st: Any, state: int, n: int, reals: Any, bias: int, table: Any, own: int, listed: int,
    values: int,
) -> int:  # fmt: skip
    """One step of a population; returns how many messages it sends.

    Args:
        entering, state, bias, own: places. State is sigma where it sums up, then act and residue where it sends.
        listed, values: where the places of messages and the messages go; -1: it sends nothing.
    """
    count, sums, lift, relu = 0, table[own + Sdn.SUMS], table[own + Sdn.LIFT], table[own + Sdn.RELU]
    level, shift = table[own + Sdn.LEVEL], table[own + Sdn.SHIFT]
    act, residue = state + sums * n, state + (sums + 1) * n
    for i in range(n):
        a: Any = np.int64(mem[entering + i]) << lift
        if sums:
            a += np.int64(st[state + i])
            st[state + i] = a
        if listed < 0:
            continue
        a += np.int64(reals[bias + i])
        if relu and a < 0:
            a = 0
        delta: Any = a - np.int64(st[act + i]) + np.int64(st[residue + i])
        st[act + i] = a
        if abs(delta) < level:
            st[residue + i] = delta
            continue
        st[residue + i] = 0
        sent: Any = delta >> shift
        if sent != 0:
            mem[listed + count] = i
            mem[values + count] = sent
            count += 1
    return count
