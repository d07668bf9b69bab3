"""Runs a population's instructions (`runtime.engines.emulator.opcodes`) in the emulator's compiled loop.

A chunk of neurons at a time goes through all instructions, each a loop without branches over its registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from nervecord.runtime.engines.emulator.opcodes import CHUNK, Eq, Ins, Kept, Opcode

_U = np.uint64
_CHUNK = CHUNK


@njit(nogil=True, error_model="numpy")
def _frequent(opcode: int, r: Any, to: Any, a: Any, b: Any, c: Any, n: Any) -> bool:
    """An instruction of the operations that most neurons have, each in wide registers; returns whether it is one."""
    if opcode == Opcode.add:
        for i in range(n):
            r[to + i] = r[a + i] + r[b + i]
    elif opcode == Opcode.where:
        for i in range(n):
            r[to + i] = r[b + i] if r[a + i] != 0 else r[c + i]
    elif opcode == Opcode.greater:
        for i in range(n):
            r[to + i] = np.int64(r[a + i] > r[b + i])
    elif opcode == Opcode.clip:
        for i in range(n):
            r[to + i] = min(max(r[a + i], r[b + i]), r[c + i])
    elif opcode == Opcode.shift_left:
        for i in range(n):
            r[to + i] = r[a + i] << r[b + i]
    elif opcode == Opcode.subtract:
        for i in range(n):
            r[to + i] = r[a + i] - r[b + i]
    elif opcode == Opcode.scaled_floor:
        for i in range(n):
            r[to + i] = (r[a + i] * r[b + i]) >> r[c + i]
    elif opcode == Opcode.scaled_zero:
        for i in range(n):
            x = r[a + i]
            magnitude = (abs(x) * r[b + i]) >> r[c + i]
            r[to + i] = -magnitude if x < 0 else magnitude
    elif opcode == Opcode.lose:
        for i in range(n):
            r[to + i] = r[a + i] - (r[a + i] >> r[b + i])
    else:
        return False
    return True


@njit(nogil=True, error_model="numpy")
def _result(opcode: int, x: Any, y: Any, z: Any) -> Any:
    """Of any other operation, for one neuron: the loop is compiled into several functions, and wide registers for rare
    operations would double that time."""
    if opcode == Opcode.multiply:
        return x * y
    if opcode == Opcode.minimum:
        return min(x, y)
    if opcode == Opcode.maximum:
        return max(x, y)
    if opcode == Opcode.negate:
        return -x
    if opcode == Opcode.absolute:
        return abs(x)
    if opcode == Opcode.shift_right:
        return x >> y
    if opcode == Opcode.lose_at_least_one:
        return x - (x >> y if x >> y != 0 else np.int64(x > 0))
    if opcode == Opcode.levels_passed:
        return min(max(-(-x // y) - 1, 0), z)
    if opcode == Opcode.levels_reached:
        return min(max(x // y, 0), z)
    if opcode == Opcode.left_of_passed:
        return x - y * min(max(-(-x // y) - 1, 0), z)
    if opcode == Opcode.left_of_reached:
        return x - y * min(max(x // y, 0), z)
    if opcode == Opcode.greater_equal:
        return np.int64(x >= y)
    if opcode == Opcode.less:
        return np.int64(x < y)
    if opcode == Opcode.less_equal:
        return np.int64(x <= y)
    if opcode == Opcode.equal:
        return np.int64(x == y)
    if opcode == Opcode.both:
        return x & y
    if opcode == Opcode.either:
        return x | y
    if opcode == Opcode.negated:
        return 1 - x
    if opcode == Opcode.wrap:
        return ((x + (1 << (y - 1))) & ((1 << y) - 1)) - (1 << (y - 1))
    return x - (z - y + 1) * (np.int64(x > z) - np.int64(x < y))  # wrap_once


@njit(nogil=True, error_model="numpy", inline="always")
def _calculate(table: Any, first: int, count: int, registers: Any, start: int, chunk: int) -> None:
    """All instructions for a chunk of neurons that begins at `start`."""
    n = _U(chunk)
    for q in range(first, first + count * Ins.SIZE, Ins.SIZE):
        to, a = _U(table[q + Ins.TO]), _U(table[q + Ins.A] + table[q + Ins.A_EACH] * start)
        b = _U(table[q + Ins.B] + table[q + Ins.B_EACH] * start)
        c = _U(table[q + Ins.C] + table[q + Ins.C_EACH] * start)
        opcode = table[q + Ins.OPCODE]
        if not _frequent(opcode, registers, to, a, b, c, n):
            for i in range(n):
                registers[to + i] = _result(opcode, registers[a + i], registers[b + i], registers[c + i])


@njit(nogil=True, error_model="numpy", inline="always")
def calculate(
    mem: Any,
    entering: int,
    st: Any,
    state: int,
    states: int,
    count: int,
    table: Any,
    own: int,
    registers: Any,
    listed: int,
    values: int,
    read: int,
) -> int:
    """One step of a population by its equations; returns how many neurons sent something.

    Args:
        entering, state, own: places of what enters, of the state, and of the equations in the table.
        listed: where the places of what is sent go; -1: it is read. values: where the numbers go; -1: each is one.
        read: where in the state the result goes that is read.
    """
    sent = 0
    for start in range(0, count, _CHUNK):
        chunk = min(_CHUNK, count - start)
        n = _U(chunk)
        if table[own + Eq.X] >= 0:
            to, at = _U(table[own + Eq.X]), _U(entering + start)
            for i in range(n):
                registers[to + i] = np.int64(mem[at + i])
        for s in range(states):
            row = own + Eq.SIZE + s * Kept.SIZE
            if table[row + Kept.LOADED] >= 0:
                to, at = _U(table[row + Kept.LOADED]), _U(state + s * count + start)
                for i in range(n):
                    registers[to + i] = np.int64(st[at + i])
        _calculate(table, table[own + Eq.FIRST], table[own + Eq.COUNT], registers, start, chunk)
        for s in range(states):
            row = own + Eq.SIZE + s * Kept.SIZE
            at, kept = _U(state + s * count + start), _U(table[row + Kept.AFTER] + table[row + Kept.AFTER_EACH] * start)
            for i in range(n):
                st[at + i] = registers[kept + i]
        result = _U(table[own + Eq.RESULT] + table[own + Eq.RESULT_EACH] * start)
        if listed < 0:
            at = _U(read + start)
            for i in range(n):
                st[at + i] = registers[result + i]
        elif values < 0:
            # Without a branch: a place that nothing was sent from is written over.
            for i in range(n):
                mem[_U(listed + sent)] = start + i
                sent += registers[result + i]
        else:
            for i in range(n):
                number = registers[result + i]
                if number != 0:
                    mem[_U(listed + sent)] = start + i
                    mem[_U(values + sent)] = number
                    sent += 1
    return sent
