"""The emulator's inner loop, compiled by numba once for every graph: blocks of steps, for a batch of robots.

The graph comes as tables of whole numbers (`runtime.packing` writes them): steps in execution order, what feeds each,
and where it keeps its state. Nothing is compiled for a graph. What makes it fast: a value that is held over the steps
of an action is multiplied once; spikes are kept as lists of places, so that a product is a sum of a few rows of the
weights; nothing is allocated in a step; and membranes are computed in wide registers, in float64, where whole numbers
below 2^53 are exact and nothing rounds but what the arithmetic rounds. Any other arithmetic is computed in int64.

There are two forms by type: weights of 16 bits, sums of 32, state in float32, where proved ranges allow it; else 32,
64, 64. Weights are stored (in, out), so that a spike adds one contiguous row.

Memory of one robot, all in one row: sums of connections; products of held entries; what held entries sent; of every
ring the number of spikes of each step, their places, and their values where they are not 0 and 1. A ring goes back as
far as the longest delay behind it, and over the block before, so that a block can be looked at afterwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from nervecord.compiler.ops import population
from nervecord.runtime.tables import Code, Con, Fan, Header, Hold, Kind, Pop, Real, Ring

_ONE = float(population.ONE)
_HALF_LOG2_E, _LARGEST_EXPONENT = population.HALF_LOG2_E, population.LARGEST_EXPONENT
_POWERS, _COEFFICIENTS, _DEGREE = population.POWERS, population.COEFFICIENTS, population.DEGREE


# --------------------------------------------------------------------------------------------------------------------
# Connections


@njit(cache=True, nogil=True, error_model="numpy")
def _shift(sums: Any, exponent: int) -> None:
    """Sums times 2^exponent, rounded down, in place."""
    if exponent > 0:
        for o in range(sums.size):
            sums[o] <<= exponent
    elif exponent < 0:
        for o in range(sums.size):
            sums[o] >>= -exponent


@njit(cache=True, nogil=True, error_model="numpy")
def _sum_rows(table: Any, weights: Any, columns: Any, c: int, listed: Any, sums: Any) -> None:
    """What connection c gives of binary spikes at the places `listed`."""
    outputs, place, exponent = table[c + Con.OUTPUTS], table[c + Con.WEIGHT], table[c + Con.EXPONENT]
    count = listed.size
    sums[:] = 0
    if table[c + Con.SPAN] >= 0:
        span, column = table[c + Con.SPAN], table[c + Con.COLUMN]
        shift = -exponent if table[c + Con.EACH] else 0
        for k in range(count):
            j = span + listed[k]
            for q in range(table[j], table[j + 1]):
                sums[columns[q + column]] += weights[q] >> shift
    elif table[c + Con.EACH]:
        for k in range(count):
            start = place + listed[k] * outputs
            row = weights[start : start + outputs]
            for o in range(outputs):
                sums[o] += row[o] >> -exponent
    else:
        # Four rows at once: the sums are read and written a quarter as often.
        for k in range(0, count - 3, 4):
            a, b = place + listed[k] * outputs, place + listed[k + 1] * outputs
            c1, d = place + listed[k + 2] * outputs, place + listed[k + 3] * outputs
            row_a, row_b = weights[a : a + outputs], weights[b : b + outputs]
            row_c, row_d = weights[c1 : c1 + outputs], weights[d : d + outputs]
            for o in range(outputs):
                sums[o] += row_a[o] + row_b[o] + row_c[o] + row_d[o]
        for k in range(count - count % 4, count):
            start = place + listed[k] * outputs
            row = weights[start : start + outputs]
            for o in range(outputs):
                sums[o] += row[o]
    if not table[c + Con.EACH]:
        _shift(sums, exponent)


@njit(cache=True, nogil=True, error_model="numpy")
def _product(table: Any, weights: Any, columns: Any, c: int, x: Any, sums: Any, real: Any) -> None:
    """What connection c gives of the values x (inputs); `real` is scratch."""
    outputs, place, exponent = table[c + Con.OUTPUTS], table[c + Con.WEIGHT], table[c + Con.EXPONENT]
    span, each = table[c + Con.SPAN], table[c + Con.EACH]
    sums[:] = 0
    if each or span >= 0:
        # Rare, and without a wide register.
        total = np.zeros(outputs, np.int64)
        for j in range(x.size):
            value = np.int64(x[j])
            if value == 0:
                continue
            first, last = place + j * outputs, place + (j + 1) * outputs
            if span >= 0:
                first, last = table[span + j], table[span + j + 1]
            for q in range(first, last):
                o = columns[q + table[c + Con.COLUMN]] if span >= 0 else q - first
                total[o] += (value * weights[q]) >> (-exponent if each else 0)
        if not each:
            _shift(total, exponent)
        for o in range(outputs):
            sums[o] = total[o]
    elif table[c + Con.REAL]:
        for o in range(outputs):
            real[o] = 0.0
        for j in range(x.size):
            factor = np.float64(x[j])
            if factor != 0.0:
                row = weights[place + j * outputs : place + (j + 1) * outputs]
                for o in range(outputs):
                    real[o] += factor * row[o]
        scale = 2.0**exponent
        for o in range(outputs):
            sums[o] = np.int64(np.floor(real[o] * scale))
    else:
        for j in range(x.size):
            factor = x[j]
            if factor != 0:
                row = weights[place + j * outputs : place + (j + 1) * outputs]
                for o in range(outputs):
                    sums[o] += factor * row[o]
        _shift(sums, exponent)


@njit(cache=True, nogil=True, error_model="numpy")
def _count_events(table: Any, events: Any, fan: int, fans: int, listed: Any) -> None:
    """Spikes (or non-zero values) at the places `listed`, times the synapses that each reaches."""
    for f in range(fan, fan + fans * Fan.SIZE, Fan.SIZE):
        total = 0
        place = table[f + Fan.PLACE]
        if place < 0:
            total = listed.size * table[f + Fan.REACH]
        else:
            for k in range(listed.size):
                total += table[place + listed[k]]
        events[table[f + Fan.CONNECTION]] += total


# --------------------------------------------------------------------------------------------------------------------
# What enters


@njit(cache=True, nogil=True, error_model="numpy")
def _send(table: Any, mem: Any, r: int, t: int, x: Any) -> int:
    """Values x of step t into ring r; returns how many are not zero."""
    slot, width = t % table[r + Ring.STEPS], table[r + Ring.WIDTH]
    listed = mem[table[r + Ring.PLACE] + slot * width : table[r + Ring.PLACE] + (slot + 1) * width]
    count = 0
    valued = table[r + Ring.VALUE] >= 0
    for j in range(x.size):
        if x[j] != 0:
            listed[count] = j
            if valued:
                mem[table[r + Ring.VALUE] + slot * width + count] = x[j]
            count += 1
    mem[table[r + Ring.COUNT] + slot] = count
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _hold(
    table: Any, weights: Any, columns: Any, mem: Any, events: Any, h: int, counted: bool, real: Any
) -> None:
    """A held entry whose values stand in its memory of this block: its products, ring and events."""
    steps, window, clock = table[Header.STEPS], table[Header.WINDOW], table[Header.CLOCK]
    width, block = table[h + Hold.WIDTH], clock // window
    start = table[h + Hold.SENT] + block % table[h + Hold.BLOCKS] * width
    x = mem[start : start + width]
    if counted:
        for f in range(table[h + Hold.FAN], table[h + Hold.FAN] + table[h + Hold.FANS] * Fan.SIZE, Fan.SIZE):
            total, place = 0, table[f + Fan.PLACE]
            for j in range(width):
                if x[j] != 0:
                    total += table[f + Fan.REACH] if place < 0 else table[place + j]
            events[table[f + Fan.CONNECTION]] += total * steps
    for p in range(table[h + Hold.PRODUCT], table[h + Hold.PRODUCT] + table[h + Hold.PRODUCTS]):
        c = table[Header.CONNECTION] + table[p] * Con.SIZE
        outputs = table[c + Con.OUTPUTS]
        at = table[c + Con.SUM] + block % table[c + Con.BLOCKS] * outputs
        _product(table, weights, columns, c, x, mem[at : at + outputs], real)
    ring = table[h + Hold.RING]
    if ring >= 0:
        r = table[Header.RING] + ring * Ring.SIZE
        for k in range(window):
            if k < steps:
                _send(table, mem, r, clock + k, x)
            else:
                mem[table[r + Ring.COUNT] + (clock + k) % table[r + Ring.STEPS]] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def _stream(table: Any, mem: Any, events: Any, ring: int, k: int, x: Any, counted: bool) -> None:
    """Values x of the block's step k into a ring, and their events."""
    r = table[Header.RING] + ring * Ring.SIZE
    t = table[Header.CLOCK] + k
    count = _send(table, mem, r, t, x)
    if counted:
        start = table[r + Ring.PLACE] + t % table[r + Ring.STEPS] * table[r + Ring.WIDTH]
        _count_events(table, events, table[r + Ring.FAN], table[r + Ring.FANS], mem[start : start + count])


@njit(cache=True, nogil=True, error_model="numpy")
def _silence(table: Any, mem: Any, ring: int) -> None:
    """Nothing in the steps of the block after the T steps."""
    r = table[Header.RING] + ring * Ring.SIZE
    for k in range(table[Header.STEPS], table[Header.WINDOW]):
        mem[table[r + Ring.COUNT] + (table[Header.CLOCK] + k) % table[r + Ring.STEPS]] = 0


# --------------------------------------------------------------------------------------------------------------------
# Populations


@njit(cache=True, nogil=True, error_model="numpy")
def _leak(entering: Any, u: Any, v: Any, bias: Any, own: Any, current: bool) -> None:
    """u and v after receiving what enters, before any spike; the fast form."""
    keep_u, keep_v, lift = own[Real.KEEP_U], own[Real.KEEP_V], own[Real.LIFT]
    low, high = own[Real.V_LOW], own[Real.V_HIGH]
    if not current:
        for i in range(v.size):
            v[i] = min(max(np.trunc(v[i] * keep_v) + entering[i] * lift + bias[i], low), high)
        return
    span, u_low, u_high = own[Real.SPAN], own[Real.U_LOW], own[Real.U_HIGH]
    for i in range(v.size):
        a = np.trunc(u[i] * keep_u) + entering[i] * lift
        if span != 0.0:
            a = a - span if a > u_high else (a + span if a < u_low else a)
        else:
            a = min(max(a, u_low), u_high)
        u[i] = a
        v[i] = min(max(np.trunc(v[i] * keep_v) + a + bias[i], low), high)


@njit(cache=True, nogil=True, error_model="numpy")
def _decayed(x: int, code: int, own: Any) -> int:
    if own[Code.SHIFTS]:
        lost = x >> min(code, 63)
        if own[Code.ROUNDING] == 2 and lost == 0:
            lost = 1 if x > 0 else 0
        return x - lost
    keep = (1 << own[Code.DECAY_BITS]) - code
    if own[Code.ROUNDING] == 0:
        return (x * keep) >> own[Code.DECAY_BITS]
    kept = (abs(x) * keep) >> own[Code.DECAY_BITS]
    return -kept if x < 0 else kept


@njit(cache=True, nogil=True, error_model="numpy")
def _overflown(x: int, bits: int, overflow: int) -> int:
    half = 1 << (bits - 1)
    if overflow == 0:
        return min(max(x, -half), half - 1)
    if overflow == 1:
        return min(max(x, 1 - half), half - 1)
    if overflow == 2:
        return ((x + half) & (2 * half - 1)) - half
    if x > half:
        return x - 2 * half
    return x + 2 * half if x < 1 - half else x


@njit(cache=True, nogil=True, error_model="numpy")
def _fires(v: int, own: Any) -> int:
    """Spikes of a membrane."""
    level = own[Code.LEVEL]
    over = v >= level if own[Code.AT_LEVEL] else v > level
    if not over:
        return 0
    if own[Code.MOST] == 1 or not own[Code.SUBTRACTS] or level <= 0:
        return 1
    count = v // level if own[Code.AT_LEVEL] else -(-v // level) - 1
    return min(count, own[Code.MOST])


@njit(cache=True, nogil=True, error_model="numpy")
def _update(
    entering: Any, u: Any, v: Any, bias: Any, own: Any, current: bool, spiking: bool, listed: Any, values: Any
) -> int:
    """One step of a population in any arithmetic; returns how many neurons spiked, their places and spikes listed."""
    count = 0
    for i in range(v.size):
        a = np.int64(entering[i]) << own[Code.LIFT]
        added = np.int64(bias[i])
        received = np.int64(u[i]) if current else 0
        late = received
        if current:
            a += _decayed(received, own[Code.U_DECAY], own)
        if own[Code.BIAS_IN_CURRENT]:
            a += added
            added = 0
        a = _overflown(a, own[Code.U_BITS], own[Code.U_OVERFLOW])
        if current:
            u[i] = a
        if not (current and own[Code.LATE]):
            late = a
        x = _decayed(np.int64(v[i]), own[Code.V_DECAY], own) + late + added
        x = _overflown(x, own[Code.V_BITS], own[Code.V_OVERFLOW])
        if spiking:
            spikes = _fires(x, own)
            if spikes:
                x = x - spikes * own[Code.LEVEL] if own[Code.SUBTRACTS] else 0
                listed[count] = i
                if values.size:
                    values[count] = spikes
                count += 1
        v[i] = x
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _populate(table: Any, reals: Any, mem: Any, st: Any, events: Any, fired: Any, index: int, k: int, at: Any,
              counted: bool) -> None:  # fmt: skip
    """One step of a population: what enters it, its membranes, its spikes."""
    p = table[Header.POPULATION] + index * Pop.SIZE
    n, tap, place, bias = table[p + Pop.NEURONS], table[p + Pop.TAP], table[p + Pop.STATE], table[p + Pop.BIAS]
    taps = table[p + Pop.TAPS]
    entering = mem[at[table[tap]] : at[table[tap]] + n]
    if taps > 1:
        total = mem[table[p + Pop.SUM] : table[p + Pop.SUM] + n]
        total[:] = entering
        for q in range(tap + 1, tap + taps):
            other = mem[at[table[q]] : at[table[q]] + n]
            for i in range(n):
                total[i] += other[i]
        entering = total
    current = table[p + Pop.CURRENT] != 0
    u, v = st[place : place + n], st[place + n : place + 2 * n]
    if table[Header.RESETS] and k == table[p + Pop.PHASE]:
        u[:] = 0
        v[:] = 0
    ring, t = table[p + Pop.RING], table[Header.CLOCK] + k
    r = table[Header.RING] + max(ring, 0) * Ring.SIZE
    slot = t % table[r + Ring.STEPS]
    start = table[r + Ring.PLACE] + slot * n
    listed = mem[start : start + n] if ring >= 0 else mem[:0]
    valued = ring >= 0 and table[r + Ring.VALUE] >= 0
    values = mem[table[r + Ring.VALUE] + slot * n : table[r + Ring.VALUE] + (slot + 1) * n] if valued else mem[:0]
    count = 0
    if table[p + Pop.LEAKY]:
        own = reals[table[p + Pop.REAL] : table[p + Pop.REAL] + Real.SIZE]
        _leak(entering, u, v, reals[bias : bias + n], own, current)
        if ring >= 0:
            # The places of the spikes, without a branch: most neurons are silent, and a branch that cannot be foreseen
            # costs more than a place that is written over.
            level = own[Real.LEVEL]
            for i in range(n):
                listed[count] = i
                count += 1 if v[i] > level else 0
            for c in range(count):
                v[listed[c]] = 0
    else:
        code = table[table[p + Pop.INTEGER] : table[p + Pop.INTEGER] + Code.SIZE]
        count = _update(entering, u, v, reals[bias : bias + n], code, current, ring >= 0, listed, values)
    if ring < 0:
        start = table[p + Pop.VALUE] + k * n
        st[start : start + n] = v
        return
    mem[table[r + Ring.COUNT] + slot] = count
    if counted:
        if valued:
            for c in range(count):
                fired[index] += values[c]
        else:
            fired[index] += count
        _count_events(table, events, table[r + Ring.FAN], table[r + Ring.FANS], listed[:count])


@njit(cache=True, nogil=True, error_model="numpy")
def _connect(table: Any, weights: Any, columns: Any, mem: Any, kind: int, index: int, k: int, real: Any,
             gathered: Any) -> int:  # fmt: skip
    """One step of a connection; returns where in memory what it gives stands."""
    c = table[Header.CONNECTION] + index * Con.SIZE
    outputs, sums, delay, tap = table[c + Con.OUTPUTS], table[c + Con.SUM], table[c + Con.DELAY], table[c + Con.TAP]
    if kind == Kind.HELD:
        window = table[Header.WINDOW]
        s, back = k - delay, 0
        if s < 0:
            back = (-s + window - 1) // window
            s += back * window
        if s >= table[Header.STEPS]:
            return table[Header.ZERO]
        return sums + (table[Header.CLOCK] // window - back) % table[c + Con.BLOCKS] * outputs
    t = table[Header.CLOCK] + k - delay
    if kind == Kind.ROWS:
        r = table[Header.RING] + table[tap] * Ring.SIZE
        slot = t % table[r + Ring.STEPS]
        start = table[r + Ring.PLACE] + slot * table[r + Ring.WIDTH]
        listed = mem[start : start + mem[table[r + Ring.COUNT] + slot]]
        _sum_rows(table, weights, columns, c, listed, mem[sums : sums + outputs])
        return sums
    x = gathered[: table[c + Con.INPUTS]]
    x[:] = 0
    for q in range(tap, tap + table[c + Con.TAPS]):
        r = table[Header.RING] + table[q] * Ring.SIZE
        slot, width, value = t % table[r + Ring.STEPS], table[r + Ring.WIDTH], table[r + Ring.VALUE]
        for j in range(mem[table[r + Ring.COUNT] + slot]):
            x[mem[table[r + Ring.PLACE] + slot * width + j]] += mem[value + slot * width + j] if value >= 0 else 1
    _product(table, weights, columns, c, x, mem[sums : sums + outputs], real)
    return sums


@njit(cache=True, nogil=True, error_model="numpy")
def _block(
    table: Any, reals: Any, weights: Any, columns: Any, mem: Any, st: Any, counters: Any, counted: bool, real: Any,
    gathered: Any, at: Any,
) -> None:  # fmt: skip
    """The steps of one block of one robot."""
    fired, events = counters[: table[Header.POPULATIONS]], counters[table[Header.POPULATIONS] :]
    order = table[Header.ORDER]
    for k in range(table[Header.WINDOW]):
        for s in range(order, order + 2 * table[Header.ORDERS], 2):
            kind, index = table[s], table[s + 1]
            if kind == Kind.NEURONS:
                _populate(table, reals, mem, st, events, fired, index, k, at, counted)
            else:
                at[index] = _connect(table, weights, columns, mem, kind, index, k, real, gathered)


# --------------------------------------------------------------------------------------------------------------------
# Host


@njit(cache=True, nogil=True, error_model="numpy")
def _encode(table: Any, host: Any, x: Any, v: Any, units: Any, pulse: Any, mem: Any, events: Any,
            counted: bool) -> None:  # fmt: skip
    """One action of the population code (`compiler.ops.population`): its T steps of spikes; v is carried on."""
    channels, neurons = table[Header.OBSERVATIONS], table[Header.CHANNEL]
    sigma = host[4]
    mean = host[host.size - channels * neurons :]
    for j in range(channels):
        held = min(max(x[j], mean[j * neurons]), mean[j * neurons + neurons - 1])
        for i in range(neurons):
            z = (held - mean[j * neurons + i]) / sigma
            e = min((z * z) * _HALF_LOG2_E, _LARGEST_EXPONENT)
            k = np.floor(e)
            f = e - k
            p = _COEFFICIENTS[_DEGREE]
            for c in range(_DEGREE - 1, -1, -1):
                p = p * f + _COEFFICIENTS[c]
            units[j * neurons + i] = np.rint((p * _POWERS[int(k)]) * _ONE)
    if table[Header.ALWAYS]:
        pulse[units.size] = 1
    for t in range(table[Header.STEPS]):
        for i in range(units.size):
            total = v[i] + units[i]
            fired = 1.0 if total >= _ONE else 0.0
            v[i] = total - _ONE * fired
            pulse[i] = fired
        _stream(table, mem, events, table[table[Header.STREAMED]], t, pulse, counted)
    _silence(table, mem, table[table[Header.STREAMED]])


@njit(cache=True, nogil=True, error_model="numpy")
def _read(table: Any, mem: Any, st: Any, values: Any) -> None:
    """What the decoder takes: the membranes of its step, or the counts of its steps."""
    p = table[Header.POPULATION] + table[Header.READ] * Pop.SIZE
    n = table[p + Pop.NEURONS]
    if not table[Header.COUNTED]:
        start = table[p + Pop.VALUE] + table[Header.FIRST] * n
        for i in range(n):
            values[i] = st[start + i]
        return
    values[:] = 0.0
    r = table[Header.RING] + table[p + Pop.RING] * Ring.SIZE
    value = table[r + Ring.VALUE]
    for k in range(table[Header.FIRST], table[Header.LAST] + 1):
        slot = (table[Header.CLOCK] + k) % table[r + Ring.STEPS]
        for j in range(mem[table[r + Ring.COUNT] + slot]):
            spikes = mem[value + slot * n + j] if value >= 0 else 1
            values[mem[table[r + Ring.PLACE] + slot * n + j]] += spikes


@njit(cache=True, nogil=True, error_model="numpy")
def _decode(table: Any, host: Any, values: Any, action: Any, finite: bool) -> None:
    """From what was read to the action; `runtime.packing` says what stands in `host`."""
    count, neurons = table[Header.DECODED], table[Header.EACH]
    fixed = host[5 + 2 * table[Header.OBSERVATIONS] :]
    chooses = table[Header.CHOOSES] != 0
    if not finite:
        for i in range(action.size):
            action[i] = fixed[3 * count + i]
        return
    largest, chosen = -np.inf, 0.0
    for i in range(count):
        y = values[i * neurons] * fixed[4 * count + i]
        for k in range(1, neurons):
            y = y + fixed[(4 + k) * count + i] * values[i * neurons + k]
        y = y + fixed[i]
        if not chooses:
            action[i] = min(max(y, fixed[count + i]), fixed[2 * count + i])
        elif not np.isfinite(y):
            chosen, largest = np.nan, np.inf
        elif y > largest:
            chosen, largest = np.float64(i), y
    if chooses:
        action[0] = chosen


@njit(cache=True, nogil=True, error_model="numpy")
def act(
    observation: Any, action: Any, table: Any, reals: Any, weights: Any, columns: Any, state: Any, memory: Any,
    counters: Any, accumulators: Any, active: Any,
) -> int:  # fmt: skip
    """One action of every robot of a batch, observation to action.

    Args:
        observation: (batch, observations) float64. action: (batch, actions), written.
        table, reals, weights, columns: of `runtime.packing`; the table's clock goes on by a block.
        state, memory: (batch, ...), one row per robot.
        counters: spikes of each population, then synaptic events of each connection; added to.
        accumulators: (batch, n) of a population code.
        active: (batch,) whether a robot is counted.

    Returns:
        Number of active robots whose observation was not finite (they got the fail-safe action).
    """
    real, at = np.empty(table[Header.WIDEST]), np.empty(table[Header.CONNECTIONS], np.int64)
    gathered = np.empty(table[Header.WIDEST], memory.dtype)
    observations = observation.shape[1]
    host = reals[: table[Header.REALS]]
    clip, scale, limit, constant = host[0], host[1], host[2], host[3]
    events = counters[table[Header.POPULATIONS] :]
    normal = np.empty(observations)
    values = np.empty(table[Header.DECODED] * table[Header.EACH])
    units = np.empty(accumulators.shape[1])
    pulse = np.empty(accumulators.shape[1] + table[Header.ALWAYS], np.int64)
    distrusted = 0
    for b in range(observation.shape[0]):
        mem, st, x = memory[b], state[b], observation[b]
        finite = True
        for j in range(observations):
            if not np.isfinite(x[j]):
                finite = False
        for j in range(observations):
            value = (x[j] - host[5 + j]) / host[5 + observations + j] if finite else 0.0
            normal[j] = min(max(value, -clip), clip)
        if table[Header.PULSED]:
            if not table[Header.CARRIED]:
                accumulators[b, :] = 0.0
            _encode(table, host, normal, accumulators[b], units, pulse, mem, events, active[b])
        else:
            h = table[Header.HELD]
            block = table[Header.CLOCK] // table[Header.WINDOW]
            start = table[h + Hold.SENT] + block % table[h + Hold.BLOCKS] * table[h + Hold.WIDTH]
            for j in range(observations):
                mem[start + j] = np.int64(min(max(np.rint(normal[j] * scale), -limit), limit))
            if constant != 0.0:
                mem[start + observations] = np.int64(constant)
            _hold(table, weights, columns, mem, events, h, active[b], real)
        _block(table, reals, weights, columns, mem, st, counters, active[b], real, gathered, at)
        _read(table, mem, st, values)
        _decode(table, host, values, action[b], finite)
        if active[b] and not finite:
            distrusted += 1
    table[Header.CLOCK] += table[Header.WINDOW]
    return distrusted


@njit(cache=True, nogil=True, error_model="numpy")
def run(
    held: Any, streamed: Any, table: Any, reals: Any, weights: Any, columns: Any, state: Any, memory: Any,
    counters: Any, active: Any,
) -> None:  # fmt: skip
    """One block of every robot, for what enters the core.

    Args:
        held: (batch, n) of all held entries, side by side. streamed: (T, batch, n) of all others.
        table, reals, weights, columns, state, memory, counters, active: as for `act`.
    """
    real, at = np.empty(table[Header.WIDEST]), np.empty(table[Header.CONNECTIONS], np.int64)
    gathered = np.empty(table[Header.WIDEST], memory.dtype)
    events = counters[table[Header.POPULATIONS] :]
    block = table[Header.CLOCK] // table[Header.WINDOW]
    for b in range(memory.shape[0]):
        mem, st = memory[b], state[b]
        for e in range(table[Header.HELDS]):
            h = table[Header.HELD] + e * Hold.SIZE
            width = table[h + Hold.WIDTH]
            start = table[h + Hold.SENT] + block % table[h + Hold.BLOCKS] * width
            for j in range(width):
                mem[start + j] = held[b, table[h + Hold.START] + j]
            _hold(table, weights, columns, mem, events, h, active[b], real)
        first = 0
        for e in range(table[Header.STREAMEDS]):
            ring = table[table[Header.STREAMED] + e]
            width = table[table[Header.RING] + ring * Ring.SIZE + Ring.WIDTH]
            for k in range(table[Header.STEPS]):
                _stream(table, mem, events, ring, k, streamed[k, b, first : first + width], active[b])
            _silence(table, mem, ring)
            first += width
        _block(table, reals, weights, columns, mem, st, counters, active[b], real, gathered, at)
    table[Header.CLOCK] += table[Header.WINDOW]


@njit(cache=True, nogil=True, error_model="numpy")
def look_back(table: Any, memory: Any, ring: int, first: int, values: Any) -> None:
    """What a ring held: values (steps, batch, n), written, of the steps from `first` on, counted from the last reset."""
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
