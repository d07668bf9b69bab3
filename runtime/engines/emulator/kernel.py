"""The emulator's inner loop, compiled by numba once for every graph: blocks of steps, for a batch of robots.

The graph comes as tables of integers (`packing` writes them): steps in execution order, what feeds each, and where it
keeps its state. Nothing is compiled for a graph. There are two forms by type: weights of 16 bits, sums of
32, state in float32, where proved ranges allow it; else 32, 64, 64. Weights are stored (in, out), so that a spike adds
one contiguous row.

Memory of one robot, all in one row: sums of connections; products of held entries; what held entries sent; of every
ring the number of spikes of each step, their places, and their values where they are not 0 and 1. A ring goes back as
far as the longest delay behind it, and over the block before, so that a block can be looked at afterwards.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from nervecord.compiler.ops import population
from nervecord.runtime.engines.emulator import jit, kernel_bodies, kernel_steps, opcodes, tables
from nervecord.runtime.engines.emulator.kernel_steps import clear, hold, one_block, send, silence
from nervecord.runtime.engines.emulator.tables import Header, Hold, Pop, Ring

_U = np.uint64
_ONE = float(population.ONE)
_HALF_LOG2_E, _LARGEST_EXPONENT = population.HALF_LOG2_E, population.LARGEST_EXPONENT
_POWERS, _COEFFICIENTS, _DEGREE = population.POWERS, population.COEFFICIENTS, population.DEGREE


@njit(nogil=True, error_model="numpy")
def _normalised(x: float, mean: float, divisor: float, clip: float, finite: bool) -> float:
    """A channel of an observation; of one that is not finite the mean."""
    return min(max((x - mean) / divisor if finite else 0.0, -clip), clip)


@njit(nogil=True, error_model="numpy")
def _quantise(table: Any, reals: Any, x: Any, mem: Any, finite: bool) -> None:
    """What a held entry of graded integers sends."""
    h, n = table[Header.HELD], table[Header.OBSERVATIONS]
    block = table[Header.CLOCK] // table[Header.WINDOW]
    start = table[h + Hold.SENT] + block % table[h + Hold.BLOCKS] * table[h + Hold.WIDTH]
    clip, scale, limit, constant = reals[0], reals[1], reals[2], reals[3]
    for j in range(n):
        y = _normalised(x[j], reals[5 + j], reals[5 + n + j], clip, finite)
        mem[start + j] = np.int64(min(max(np.rint(y * scale), -limit), limit))
    if constant != 0.0:
        mem[start + n] = np.int64(constant)


@njit(nogil=True, error_model="numpy")
def _encode(table: Any, reals: Any, x: Any, mem: Any, counters: Any, counted: bool, scratch: Any, finite: bool) -> None:
    """One action of the population code (`compiler.ops.population`): its T steps of spikes; v is carried on."""
    channels, neurons, pulse, units = (
        table[Header.OBSERVATIONS],
        table[Header.CHANNEL],
        table[Header.PULSE],
        table[Header.UNITS],
    )
    sigma, means = reals[4], table[Header.REALS] - channels * neurons
    if not table[Header.CARRIED]:
        scratch[:units] = 0.0
    for j in range(channels):
        mean = means + j * neurons
        y = _normalised(x[j], reals[5 + j], reals[5 + channels + j], reals[0], finite)
        clipped = min(max(y, reals[mean]), reals[mean + neurons - 1])
        for i in range(neurons):
            z = (clipped - reals[mean + i]) / sigma
            e = min((z * z) * _HALF_LOG2_E, _LARGEST_EXPONENT)
            k = np.floor(e)
            f = e - k
            p = _COEFFICIENTS[_DEGREE]
            for c in range(_DEGREE - 1, -1, -1):
                p = p * f + _COEFFICIENTS[c]
            scratch[units + j * neurons + i] = np.rint((p * _POWERS[int(k)]) * _ONE)
    if table[Header.ALWAYS]:
        mem[pulse + channels * neurons] = 1
    for t in range(table[Header.STEPS]):
        at, own, gain = _U(pulse), _U(0), _U(units)
        for i in range(_U(channels * neurons)):
            total = scratch[own + i] + scratch[gain + i]
            fired = 1.0 if total >= _ONE else 0.0
            scratch[own + i] = total - _ONE * fired
            mem[at + i] = np.int64(fired)
        send(table, counters, mem, table[table[Header.STREAMED]], t, mem, pulse, counted)
    silence(table, mem, table[table[Header.STREAMED]])


@njit(nogil=True, error_model="numpy")
def _count_spikes(table: Any, mem: Any, scratch: Any) -> None:
    """The spike counts that the decoder takes."""
    p = table[Header.POPULATION] + table[Header.READ] * Pop.SIZE
    n, counts = table[p + Pop.NEURONS], table[Header.COUNTS]
    clear(scratch, counts, n)
    r = table[Header.RING] + table[p + Pop.RING] * Ring.SIZE
    value = table[r + Ring.VALUE]
    for k in range(table[Header.FIRST], table[Header.LAST] + 1):
        slot = (table[Header.CLOCK] + k) % table[r + Ring.STEPS]
        for j in range(mem[table[r + Ring.COUNT] + slot]):
            spikes = mem[value + slot * n + j] if value >= 0 else 1
            scratch[counts + mem[table[r + Ring.PLACE] + slot * n + j]] += spikes


@njit(nogil=True, error_model="numpy")
def _decode(table: Any, reals: Any, values: Any, start: int, action: Any) -> None:
    """From what was read, in `values` from `start` on, to the action; `packing` says what stands in `reals`."""
    count, neurons = table[Header.DECODED], table[Header.EACH]
    fixed = 5 + 2 * table[Header.OBSERVATIONS]
    chooses = table[Header.CHOOSES] != 0
    largest, chosen = -np.inf, 0.0
    for i in range(count):
        y = values[start + i * neurons] * reals[fixed + 4 * count + i]
        for k in range(1, neurons):
            y = y + reals[fixed + (4 + k) * count + i] * values[start + i * neurons + k]
        y = y + reals[fixed + i]
        if not chooses:
            action[i] = min(max(y, reals[fixed + count + i]), reals[fixed + 2 * count + i])
        elif not np.isfinite(y):
            chosen, largest = np.nan, np.inf
        elif y > largest:
            chosen, largest = np.float64(i), y
    if chooses:
        action[0] = chosen


@njit(nogil=True, error_model="numpy", inline="always")
def _act(
    observation: Any,
    action: Any,
    table: Any,
    reals: Any,
    weights: Any,
    columns: Any,
    registers: Any,
    state: Any,
    memory: Any,
    scratch: Any,
    counters: Any,
    active: Any,
    outcome: Any,
) -> int:
    """One action of every robot of a batch, observation to action.

    Args:
        observation: (batch, observations) float64. action: (batch, actions), written.
        table, reals, weights, columns, registers: of `runtime.engines.emulator.packing`; the table's clock goes on by a
            block.
        state, memory, scratch: (batch, ...), one row per robot; scratch in float64, a population code's accumulators
            first.
        counters: spikes of each population, then synaptic events of each connection, and at the end of active robots
            the actions, those whose observation was not finite, and those whose action was not; added to.
        active: (batch,) whether a robot is counted.
        outcome: (batch,), written: 0 where the policy acted, 1 where the observation was not finite, 2 the action.

    Returns:
        Whether an action was not finite. It, and one on an observation that was not, is the fail-safe action.
    """
    fixed = 5 + 2 * table[Header.OBSERVATIONS] + 3 * table[Header.DECODED]
    p = table[Header.POPULATION] + table[Header.READ] * Pop.SIZE
    read = table[p + Pop.VALUE] + table[Header.FIRST] * table[p + Pop.NEURONS]
    counted = distrusted = broken = 0
    for b in range(observation.shape[0]):
        mem, st, x, own = memory[b], state[b], observation[b], scratch[b]
        finite = sound = True
        for j in range(x.size):
            if not np.isfinite(x[j]):
                finite = False
        if table[Header.PULSED]:
            _encode(table, reals, x, mem, counters, active[b], own, finite)
        else:
            _quantise(table, reals, x, mem, finite)
            hold(table, weights, columns, mem, counters, table[Header.HELD], active[b], own)
        one_block(table, reals, weights, columns, registers, mem, st, counters, active[b], own)
        if table[Header.COUNTED]:
            _count_spikes(table, mem, own)
            _decode(table, reals, own, table[Header.COUNTS], action[b])
        else:
            _decode(table, reals, st, read, action[b])
        for i in range(action.shape[1]):
            if not np.isfinite(action[b, i]):
                sound = False
        outcome[b] = 0
        if active[b]:
            counted += 1
        if not (finite and sound):
            outcome[b] = 2 if finite else 1
            for i in range(action.shape[1]):
                action[b, i] = reals[fixed + i]
            if active[b]:
                distrusted += not finite
                broken += finite
    # Here, and not where Python counts, so that an interrupt finds an action whole or not begun.
    counters[-3] += counted
    counters[-2] += distrusted
    counters[-1] += broken
    table[Header.CLOCK] += table[Header.WINDOW]
    return broken


@njit(nogil=True, error_model="numpy", inline="always")
def _run(
    held: Any,
    streamed: Any,
    table: Any,
    reals: Any,
    weights: Any,
    columns: Any,
    registers: Any,
    state: Any,
    memory: Any,
    scratch: Any,
    counters: Any,
    active: Any,
) -> None:
    """One block of every robot, for what enters the core.

    Args:
        held: (batch, n) of all held entries, side by side. streamed: (T, batch, n) of all others.
        table, reals, weights, columns, registers, state, memory, scratch, counters, active: as for `act`.
    """
    block = table[Header.CLOCK] // table[Header.WINDOW]
    for b in range(memory.shape[0]):
        mem, st, own = memory[b], state[b], scratch[b]
        for e in range(table[Header.HELDS]):
            h = table[Header.HELD] + e * Hold.SIZE
            width = table[h + Hold.WIDTH]
            start = table[h + Hold.SENT] + block % table[h + Hold.BLOCKS] * width
            for j in range(width):
                mem[start + j] = held[b, table[h + Hold.START] + j]
            hold(table, weights, columns, mem, counters, h, active[b], own)
        first = 0
        for e in range(table[Header.STREAMEDS]):
            ring = table[table[Header.STREAMED] + e]
            for k in range(table[Header.STEPS]):
                send(table, counters, mem, ring, k, streamed[k, b], first, active[b])
            silence(table, mem, ring)
            first += table[table[Header.RING] + ring * Ring.SIZE + Ring.WIDTH]
        one_block(table, reals, weights, columns, registers, mem, st, counters, active[b], own)
    table[Header.CLOCK] += table[Header.WINDOW]


@njit(nogil=True, error_model="numpy", inline="always")
def _look_back(table: Any, memory: Any, ring: int, first: int, values: Any) -> None:
    """What a ring held, into values (steps, batch, n): of the steps from `first` on, counted from the last reset."""
    r = table[Header.RING] + ring * Ring.SIZE
    n, value = table[r + Ring.WIDTH], table[r + Ring.VALUE]
    values[:] = 0
    for k in range(values.shape[0]):
        if first + k < 0:
            continue
        slot = (first + k) % table[r + Ring.STEPS]
        for b in range(values.shape[1]):
            mem = memory[b]
            for j in range(mem[table[r + Ring.COUNT] + slot]):
                spikes = mem[value + slot * n + j] if value >= 0 else 1
                values[k, b, mem[table[r + Ring.PLACE] + slot * n + j]] = spikes


class Loop(NamedTuple):
    """What a session calls: `_act`, `_run` and `_look_back`."""

    act: Callable[..., int]
    run: Callable[..., None]
    look_back: Callable[..., None]


def _loop(stamp: int, cache: bool) -> Loop:
    """The entry points.

    numba looks for changes in the file of a function alone, and a layout that is not the one compiled would write
    anywhere. What a function encloses is part of the cache's key, so it encloses the stamp of all files.
    """

    def act(
        observation: Any,
        action: Any,
        table: Any,
        reals: Any,
        weights: Any,
        columns: Any,
        registers: Any,
        state: Any,
        memory: Any,
        scratch: Any,
        counters: Any,
        active: Any,
        outcome: Any,
    ) -> int:
        if stamp < 0:
            return 0
        return _act(  # type: ignore[no-any-return]
            observation,
            action,
            table,
            reals,
            weights,
            columns,
            registers,
            state,
            memory,
            scratch,
            counters,
            active,
            outcome,
        )

    def run(
        held: Any,
        streamed: Any,
        table: Any,
        reals: Any,
        weights: Any,
        columns: Any,
        registers: Any,
        state: Any,
        memory: Any,
        scratch: Any,
        counters: Any,
        active: Any,
    ) -> None:
        if stamp >= 0:
            _run(held, streamed, table, reals, weights, columns, registers, state, memory, scratch, counters, active)

    def look_back(table: Any, memory: Any, ring: int, first: int, values: Any) -> None:
        if stamp >= 0:
            _look_back(table, memory, ring, first, values)

    return Loop(*(jit.compiled(function, cache=cache) for function in (act, run, look_back)))


def _stamp() -> int:
    """Of the files that the compiled loop is made of."""
    checksum = 0
    modules = (kernel_steps, kernel_bodies, opcodes, tables, population)
    for path in (__file__, *(str(module.__file__) for module in modules)):
        checksum = zlib.crc32(Path(path).read_bytes(), checksum)
    return checksum


def loop() -> Loop:
    """The entry points, from numba's cache or compiled at their first call; without it where it does not serve."""
    return _made(jit.serves())


@functools.cache
def _made(cache: bool) -> Loop:
    return _loop(_stamp(), cache)
