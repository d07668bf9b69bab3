"""The steps of the emulator's compiled loop: what enters, connections, populations, one block of one robot.

`kernel` compiles it into what a session calls; nothing here is cached by itself. What makes it fast: a value that is
held over the steps of an action is multiplied once; spikes are kept as lists of places, so that a product is a
sum of a few rows of the weights; nothing is allocated in a step; and membranes are computed in wide registers, in
float64, where whole numbers below 2^53 are exact and nothing rounds but what the arithmetic rounds. Any other
arithmetic is computed in int64.

Places are unsigned where a loop runs over a row: of signed ones numba looks at every index whether it counts from the
end, and the loop stays out of wide registers. Slices are avoided for what they cost.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from nervecord.runtime.engines.emulator.kernel_bodies import calculate
from nervecord.runtime.engines.emulator.tables import Con, Fan, Header, Hold, Kind, Pop, Real, Ring

_U = np.uint64


# --------------------------------------------------------------------------------------------------------------------
# Connections


@njit(nogil=True, error_model="numpy")
def clear(mem: Any, place: int, count: int) -> None:
    at = _U(place)
    for o in range(_U(count)):
        mem[at + o] = 0


@njit(nogil=True, error_model="numpy")
def _shift(mem: Any, place: int, count: int, exponent: int) -> None:
    """Sums times 2^exponent, rounded down, in place."""
    at, n = _U(place), _U(count)
    if exponent > 0:
        for o in range(n):
            mem[at + o] <<= exponent
    elif exponent < 0:
        by = -exponent
        for o in range(n):
            mem[at + o] >>= by


@njit(nogil=True, error_model="numpy", inline="always")
def _sum_rows(table: Any, weights: Any, columns: Any, c: int, mem: Any, listed: int, count: int, sums: int) -> None:
    """What connection c gives of binary spikes; `count` places of theirs stand at `listed`, the sums go to `sums`."""
    outputs, exponent, span = table[c + Con.OUTPUTS], table[c + Con.EXPONENT], table[c + Con.SPAN]
    n, base, at, place = _U(outputs), _U(table[c + Con.WEIGHT]), _U(sums), _U(listed)
    clear(mem, sums, outputs)
    if span >= 0:
        shift = -exponent if table[c + Con.EACH] else 0
        # Counted from a weight's place modulo 2^64, so that it may lie before it.
        rows, column = _U(span), _U(table[c + Con.COLUMN])
        for k in range(_U(count)):
            j = rows + _U(mem[place + k])
            for q in range(_U(table[j]), _U(table[j + _U(1)])):
                mem[at + _U(columns[q + column])] += weights[q] >> shift
    elif table[c + Con.EACH]:
        for k in range(_U(count)):
            row = base + _U(mem[place + k]) * n
            for o in range(n):
                mem[at + o] += weights[row + o] >> -exponent
    else:
        # Four rows at once: the sums are read and written a quarter as often.
        fours = _U(count - count % 4)
        for k in range(_U(0), fours, _U(4)):
            row_a, row_b = base + _U(mem[place + k]) * n, base + _U(mem[place + k + _U(1)]) * n
            row_c, row_d = base + _U(mem[place + k + _U(2)]) * n, base + _U(mem[place + k + _U(3)]) * n
            for o in range(n):
                mem[at + o] += weights[row_a + o] + weights[row_b + o] + weights[row_c + o] + weights[row_d + o]
        for k in range(fours, _U(count)):
            row = base + _U(mem[place + k]) * n
            for o in range(n):
                mem[at + o] += weights[row + o]
    if not table[c + Con.EACH]:
        _shift(mem, sums, outputs, exponent)


@njit(nogil=True, error_model="numpy")
def _product(table: Any, weights: Any, columns: Any, c: int, mem: Any, start: int, sums: int, scratch: Any) -> None:
    """What connection c gives of the values that stand in memory from `start` on."""
    outputs, exponent = table[c + Con.OUTPUTS], table[c + Con.EXPONENT]
    inputs, n, base, at = table[c + Con.INPUTS], _U(outputs), _U(table[c + Con.WEIGHT]), _U(sums)
    if table[c + Con.EACH] or table[c + Con.SPAN] >= 0:
        _product_each(table, weights, columns, c, mem, start, sums)
    elif table[c + Con.REAL]:
        real = _U(table[Header.TOTAL])
        for o in range(n):
            scratch[real + o] = 0.0
        for j in range(inputs):
            factor = np.float64(mem[start + j])
            if factor != 0.0:
                row = base + _U(j) * n
                for o in range(n):
                    scratch[real + o] += factor * weights[row + o]
        scale = 2.0**exponent
        for o in range(n):
            mem[at + o] = np.int64(np.floor(scratch[real + o] * scale))
    else:
        clear(mem, sums, outputs)
        for j in range(inputs):
            value = mem[start + j]
            if value != 0:
                row = base + _U(j) * n
                for o in range(n):
                    mem[at + o] += value * weights[row + o]
        _shift(mem, sums, outputs, exponent)


@njit(nogil=True, error_model="numpy", inline="always")
def _product_each(table: Any, weights: Any, columns: Any, c: int, mem: Any, start: int, sums: int) -> None:
    """`_product` of a sparse matrix, or where products are shifted before they are added; without wide registers."""
    outputs, place, exponent = table[c + Con.OUTPUTS], table[c + Con.WEIGHT], table[c + Con.EXPONENT]
    span, each = table[c + Con.SPAN], table[c + Con.EACH]
    total = np.zeros(outputs, np.int64)
    for j in range(table[c + Con.INPUTS]):
        value = np.int64(mem[start + j])
        if value == 0:
            continue
        first, last = place + j * outputs, place + (j + 1) * outputs
        if span >= 0:
            first, last = table[span + j], table[span + j + 1]
        for q in range(first, last):
            o = columns[q + table[c + Con.COLUMN]] if span >= 0 else q - first
            total[o] += (value * weights[q]) >> (-exponent if each else 0)
    for o in range(outputs):
        scaled = total[o]
        if not each:
            scaled = scaled << exponent if exponent > 0 else scaled >> -exponent
        mem[sums + o] = scaled


@njit(nogil=True, error_model="numpy")
def _count_events(table: Any, counters: Any, fan: int, fans: int, mem: Any, listed: int, count: int) -> None:
    """Spikes (or non-zero values), whose places stand at `listed`, times the synapses that each reaches."""
    for f in range(fan, fan + fans * Fan.SIZE, Fan.SIZE):
        total, place = count * table[f + Fan.REACH], table[f + Fan.PLACE]
        if place >= 0:
            total = 0
            for k in range(count):
                total += table[place + mem[listed + k]]
        counters[table[f + Fan.COUNTER]] += total


# --------------------------------------------------------------------------------------------------------------------
# What enters


@njit(nogil=True, error_model="numpy")
def send(table: Any, counters: Any, mem: Any, ring: int, k: int, x: Any, start: int, counted: bool) -> None:
    """The values that stand in x from `start` on into a ring, as those of the block's step k; their events."""
    r, t = table[Header.RING] + ring * Ring.SIZE, table[Header.CLOCK] + k
    slot, width, value = t % table[r + Ring.STEPS], table[r + Ring.WIDTH], table[r + Ring.VALUE]
    listed, count = table[r + Ring.PLACE] + slot * width, 0
    for j in range(width):
        if x[start + j] != 0:
            mem[listed + count] = j
            if value >= 0:
                mem[value + slot * width + count] = x[start + j]
            count += 1
    mem[table[r + Ring.COUNT] + slot] = count
    if counted:
        _count_events(table, counters, table[r + Ring.FAN], table[r + Ring.FANS], mem, listed, count)


@njit(nogil=True, error_model="numpy")
def silence(table: Any, mem: Any, ring: int) -> None:
    """Nothing in the steps of the block after the T steps."""
    r = table[Header.RING] + ring * Ring.SIZE
    for k in range(table[Header.STEPS], table[Header.WINDOW]):
        mem[table[r + Ring.COUNT] + (table[Header.CLOCK] + k) % table[r + Ring.STEPS]] = 0


@njit(nogil=True, error_model="numpy")
def hold(table: Any, weights: Any, columns: Any, mem: Any, counters: Any, h: int, counted: bool, scratch: Any) -> None:
    """A held entry whose values stand in its memory of this block: its products, ring and events."""
    steps, window, clock = table[Header.STEPS], table[Header.WINDOW], table[Header.CLOCK]
    width, block = table[h + Hold.WIDTH], clock // window
    start = table[h + Hold.SENT] + block % table[h + Hold.BLOCKS] * width
    if counted:
        for f in range(table[h + Hold.FAN], table[h + Hold.FAN] + table[h + Hold.FANS] * Fan.SIZE, Fan.SIZE):
            total, place = 0, table[f + Fan.PLACE]
            for j in range(width):
                if mem[start + j] != 0:
                    total += table[f + Fan.REACH] if place < 0 else table[place + j]
            counters[table[f + Fan.COUNTER]] += total * steps
    for p in range(table[h + Hold.PRODUCT], table[h + Hold.PRODUCT] + table[h + Hold.PRODUCTS]):
        c = table[Header.CONNECTION] + table[p] * Con.SIZE
        sums = table[c + Con.SUM] + block % table[c + Con.BLOCKS] * table[c + Con.OUTPUTS]
        _product(table, weights, columns, c, mem, start, sums, scratch)
    ring = table[h + Hold.RING]
    if ring >= 0:
        for k in range(steps):
            send(table, counters, mem, ring, k, mem, start, False)
        silence(table, mem, ring)


# --------------------------------------------------------------------------------------------------------------------
# Populations


@njit(nogil=True, error_model="numpy", inline="always")
def _leak(
    mem: Any, entering: int, st: Any, state: int, count: int, reals: Any, bias: int, real: int, current: bool
) -> None:
    """u and v after receiving what enters, before any spike; the fast form. Arguments beside arrays are places."""
    a, n, r = _U(entering), _U(count), _U(real)
    u, v, b = _U(state), _U(state + count if current else state), _U(bias)
    keep_v, lift = reals[r + _U(Real.KEEP_V)], reals[r + _U(Real.LIFT)]
    low, high = reals[r + _U(Real.V_LOW)], reals[r + _U(Real.V_HIGH)]
    if not current:
        for i in range(n):
            st[v + i] = min(max(np.trunc(st[v + i] * keep_v) + mem[a + i] * lift + reals[b + i], low), high)
        return
    keep_u, span = reals[r + _U(Real.KEEP_U)], reals[r + _U(Real.SPAN)]
    u_low, u_high = reals[r + _U(Real.U_LOW)], reals[r + _U(Real.U_HIGH)]
    for i in range(n):
        x = np.trunc(st[u + i] * keep_u) + mem[a + i] * lift
        if span != 0.0:
            x = x - span if x > u_high else (x + span if x < u_low else x)
        else:
            x = min(max(x, u_low), u_high)
        st[u + i] = x
        st[v + i] = min(max(np.trunc(st[v + i] * keep_v) + x + reals[b + i], low), high)


@njit(nogil=True, error_model="numpy", inline="always")
def _fire(st: Any, membranes: int, count: int, level: float, mem: Any, listed: int) -> int:
    """The places of the spikes, and the reset to zero; returns how many they are."""
    v, place, n = _U(membranes), _U(listed), _U(count)
    last = place
    # Without a branch: most neurons are silent, and a branch that cannot be foreseen costs more than a place that is
    # written over.
    for i in range(n):
        mem[last] = i
        last += _U(st[v + i] > level)
    for c in range(place, last):
        st[v + _U(mem[c])] = 0
    spiked: Any = np.int64(last - place)
    return spiked


@njit(nogil=True, error_model="numpy", inline="always")
def _gather(table: Any, mem: Any, p: int) -> int:
    """Where in memory what enters a population stands: the sum of what its connections give."""
    n, tap, taps = table[p + Pop.NEURONS], table[p + Pop.TAP], table[p + Pop.TAPS]
    if taps == 1:
        return mem[table[Header.AT] + table[tap]]
    total = _U(table[p + Pop.SUM])
    clear(mem, table[p + Pop.SUM], n)
    for q in range(tap, tap + taps):
        other = _U(mem[table[Header.AT] + table[q]])
        for i in range(_U(n)):
            mem[total + i] += mem[other + i]
    return table[p + Pop.SUM]


@njit(nogil=True, error_model="numpy", inline="always")
def _populate(
    table: Any, reals: Any, registers: Any, mem: Any, st: Any, counters: Any, index: int, k: int, counted: bool
) -> None:
    """One step of a population: what enters it, its state, what it sends."""
    p = table[Header.POPULATION] + index * Pop.SIZE
    n, state, states, ring = table[p + Pop.NEURONS], table[p + Pop.STATE], table[p + Pop.STATES], table[p + Pop.RING]
    entering = _gather(table, mem, p)
    if table[Header.RESETS] and k == table[p + Pop.PHASE]:
        clear(st, state, states * n)
    r, slot, listed, values = 0, 0, -1, -1
    if ring >= 0:
        r = table[Header.RING] + ring * Ring.SIZE
        slot = (table[Header.CLOCK] + k) % table[r + Ring.STEPS]
        listed = table[r + Ring.PLACE] + slot * n
        if table[r + Ring.VALUE] >= 0:
            values = table[r + Ring.VALUE] + slot * n
    count, read = 0, table[p + Pop.VALUE] + k * n
    if table[p + Pop.LEAKY]:
        own, last = table[p + Pop.REAL], state + (states - 1) * n
        _leak(mem, entering, st, state, n, reals, table[p + Pop.BIAS], own, states > 1)
        if ring >= 0:
            count = _fire(st, last, n, reals[own + Real.LEVEL], mem, listed)
        else:
            shown, at = _U(last), _U(read)
            for i in range(_U(n)):
                st[at + i] = st[shown + i]
    else:
        count = calculate(
            mem, entering, st, state, states, n, table, table[p + Pop.EQUATIONS], registers, listed, values, read
        )
    if ring < 0:
        return
    mem[table[r + Ring.COUNT] + slot] = count
    if counted:
        total = count
        if values >= 0:
            total = 0
            for c in range(count):
                total += mem[values + c]
        counters[index] += total
        _count_events(table, counters, table[r + Ring.FAN], table[r + Ring.FANS], mem, listed, count)


@njit(nogil=True, error_model="numpy", inline="always")
def _connect(table: Any, weights: Any, columns: Any, mem: Any, kind: int, index: int, k: int, scratch: Any) -> int:
    """One step of a connection; returns where in memory what it gives stands."""
    c = table[Header.CONNECTION] + index * Con.SIZE
    sums, delay, tap = table[c + Con.SUM], table[c + Con.DELAY], table[c + Con.TAP]
    if kind == Kind.HELD:
        window = table[Header.WINDOW]
        s, back = k - delay, 0
        if s < 0:
            back = (-s + window - 1) // window
            s += back * window
        if s >= table[Header.STEPS]:
            return table[Header.ZERO]
        return sums + (table[Header.CLOCK] // window - back) % table[c + Con.BLOCKS] * table[c + Con.OUTPUTS]
    t = table[Header.CLOCK] + k - delay
    if kind == Kind.ROWS:
        r = table[Header.RING] + table[tap] * Ring.SIZE
        slot = t % table[r + Ring.STEPS]
        listed, count = table[r + Ring.PLACE] + slot * table[r + Ring.WIDTH], mem[table[r + Ring.COUNT] + slot]
        _sum_rows(table, weights, columns, c, mem, listed, count, sums)
        return sums
    gathered = table[Header.GATHERED]
    clear(mem, gathered, table[c + Con.INPUTS])
    for q in range(tap, tap + table[c + Con.TAPS]):
        r = table[Header.RING] + table[q] * Ring.SIZE
        slot, width, value = t % table[r + Ring.STEPS], table[r + Ring.WIDTH], table[r + Ring.VALUE]
        for j in range(mem[table[r + Ring.COUNT] + slot]):
            sent = mem[value + slot * width + j] if value >= 0 else 1
            mem[gathered + mem[table[r + Ring.PLACE] + slot * width + j]] += sent
    _product(table, weights, columns, c, mem, gathered, sums, scratch)
    return sums


@njit(nogil=True, error_model="numpy")
def one_block(
    table: Any,
    reals: Any,
    weights: Any,
    columns: Any,
    registers: Any,
    mem: Any,
    st: Any,
    counters: Any,
    counted: bool,
    scratch: Any,
) -> None:
    """The steps of one block of one robot."""
    order, at = table[Header.ORDER], table[Header.AT]
    for k in range(table[Header.WINDOW]):
        for s in range(order, order + 2 * table[Header.ORDERS], 2):
            kind, index = table[s], table[s + 1]
            if kind == Kind.NEURONS:
                _populate(table, reals, registers, mem, st, counters, index, k, counted)
            else:
                mem[at + index] = _connect(table, weights, columns, mem, kind, index, k, scratch)
