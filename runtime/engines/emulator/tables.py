"""Where things stand in the emulator's tables: `packing` writes them, `kernel` reads them.

The table is one row of whole numbers: a header, then tables whose beginnings the header names. Places are counted from
the table's own beginning, or, where a comment says so, from that of a robot's memory, its state, or the reals.
"""

from __future__ import annotations

import enum


class Header(enum.IntEnum):
    """Places of the table's single numbers. Of a table in it: where it begins, and how many rows it has."""

    STEPS = 0
    WINDOW = 1
    CLOCK = 2  # steps since the last reset
    RESETS = 3  # whether populations are cleared in each block
    ORDER = 4
    ORDERS = 5
    CONNECTION = 6
    CONNECTIONS = 7
    POPULATION = 8
    POPULATIONS = 9
    RING = 10
    HELD = 11
    HELDS = 12
    STREAMED = 13  # rings of the entries that send other values at each step
    STREAMEDS = 14
    ZERO = 15  # place in memory of values that are always zero
    WIDEST = 16  # inputs or outputs of a connection
    REALS = 17  # how many reals, from the first on, are the host's
    PULSED = 18  # whether the host's encoder sends spikes
    CARRIED = 19  # whether its accumulators go on from the action before
    ALWAYS = 20
    CHANNEL = 21  # its neurons per channel
    OBSERVATIONS = 22
    COUNTED = 23  # whether the decoder takes spike counts
    CHOOSES = 24
    READ = 25  # the population that is read
    FIRST = 26
    LAST = 27
    DECODED = 28  # actions, or choices
    EACH = 29  # neurons of each
    AT = 30  # place in memory of where each connection's sums stand in this step
    GATHERED = 31  # place in memory of the values that enter a connection
    PULSE = 32  # place in memory of what the encoder sends in a step
    UNITS = 33  # places in scratch: of the encoder, behind its accumulators;
    TOTAL = 34  # of sums that need float64;
    COUNTS = 35  # of the spike counts that the decoder takes
    SIZE = 36


class Kind(enum.IntEnum):
    """What a step of the order is."""

    HELD = 0  # a connection of an entry that is held: its product is there
    ROWS = 1  # a connection that is fed by one ring of binary spikes
    VALUES = 2  # a connection that is fed by several rings, or by values
    NEURONS = 3


class Con(enum.IntEnum):
    """Columns of the connections."""

    INPUTS = 0
    OUTPUTS = 1
    WEIGHT = 2  # place of its weights
    SPAN = 3  # of a sparse matrix: place in the table of where its rows begin; else -1
    EXPONENT = 4
    EACH = 5  # products are shifted before they are added
    REAL = 6  # the sum needs float64 until it is shifted
    SUM = 7  # place in memory; of a held entry, of its products
    DELAY = 8
    BLOCKS = 9  # of a held entry: how many blocks of products are kept
    TAP = 10  # rings that feed it, in the table
    TAPS = 11
    COLUMN = 12  # of a sparse matrix: from the place of a weight to that of its column
    SIZE = 13


class Pop(enum.IntEnum):
    """Columns of the populations."""

    NEURONS = 0
    STATE = 1  # place of its rows of state, one number per neuron each
    STATES = 2  # how many rows these are
    TAP = 3  # connections that feed it, in the table
    TAPS = 4
    SUM = 5  # place in memory where several connections are added
    PHASE = 6
    RING = 7  # -1: it is read
    VALUE = 8  # place in the state of the values that are read, of each step of the block
    LEAKY = 9  # whether it has the fast form of leaky neurons
    EQUATIONS = 10  # else: its equations, in the table (`opcodes.Eq`)
    REAL = 11  # of the fast form: decays and limits, among the reals
    BIAS = 12  # among the reals
    SIZE = 13


class Ring(enum.IntEnum):
    """Columns of the rings."""

    WIDTH = 0
    STEPS = 1
    COUNT = 2  # places in memory
    PLACE = 3
    VALUE = 4  # -1: binary
    FAN = 5  # connections it feeds, in the table: connection, place of its fan-outs, or their one value
    FANS = 6
    SIZE = 7


class Hold(enum.IntEnum):
    """Columns of the held entries."""

    WIDTH = 0
    SENT = 1  # place in memory of what it sent
    BLOCKS = 2
    RING = 3  # -1: nothing but products is needed
    FAN = 4
    FANS = 5
    PRODUCT = 6  # connections whose product is taken, in the table
    PRODUCTS = 7
    START = 8  # among the values that enter
    SIZE = 9


class Fan(enum.IntEnum):
    """Columns of the fan-outs."""

    COUNTER = 0
    PLACE = 1  # -1: every source reaches as many
    REACH = 2
    SIZE = 3


class Real(enum.IntEnum):
    """Numbers of neurons in the fast form."""

    KEEP_U = 0
    KEEP_V = 1
    LIFT = 2
    SPAN = 3  # what a current that wraps is corrected by; 0: it saturates
    U_LOW = 4
    U_HIGH = 5
    V_LOW = 6
    V_HIGH = 7
    LEVEL = 8
    SIZE = 9
