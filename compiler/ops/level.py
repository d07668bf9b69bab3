"""The three levels of meaning that a graph can be at."""

from __future__ import annotations

import enum


class Level(enum.Enum):
    """What the nodes of a graph mean.

    IMPORTED: what NIR said, in continuous time. DISCRETE: dt fixed, executable in float64. INTEGER: a target's
    arithmetic.
    """

    IMPORTED = "imported"
    DISCRETE = "discrete"
    INTEGER = "integer"


FLOAT_LEVELS: frozenset[Level] = frozenset({Level.IMPORTED, Level.DISCRETE})
EXECUTABLE: frozenset[Level] = frozenset({Level.DISCRETE, Level.INTEGER})
EVERY_LEVEL: frozenset[Level] = frozenset(Level)
