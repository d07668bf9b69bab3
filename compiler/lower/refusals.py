"""What lowering and the rules of `compiler.check` both refuse, worded once.

The rules see it before anything is lowered, name every place, and cite the source. Lowering refuses what is lowered
without them.
"""

from __future__ import annotations

from typing import NamedTuple

from nervecord.errors import InfeasibleError


class Refusal(NamedTuple):
    """A reason and what to do about it."""

    message: str
    fix: str

    def error(self, where: str, value: int | None = None, limit: int | None = None) -> InfeasibleError:
        """The error that says so of a node, with the value against its limit where there is one."""
        against = "" if value is None else f" ({value} against {limit})"
        return InfeasibleError(f"{self.message}{against}", where=where, hint=self.fix)


_HELD_OVER = "state is cleared before each block of steps, and this connection {}: what it still holds would leak in"
RECURRENT_IN_A_WINDOW = Refusal(_HELD_OVER.format("is recurrent"), "train with --state carried --delays")
DELAYED_IN_A_WINDOW = Refusal(
    _HELD_OVER.format("has a delay"), "train without --delays: shifted windows absorb the chip's delay exactly"
)
CARRIED_WITHOUT_DELAYS = Refusal(
    "state is carried between actions, and the chip delivers later than the network was trained",
    "train with --state carried --delays, or with --state reset, where shifted windows absorb the delay",
)
LEAK_IN_CURRENT = Refusal(
    "has a leak beside a synaptic current, and the chip's bias enters the current", "train without a leak term"
)
NO_BIAS_CARRIER = Refusal(
    "its bias enters a synaptic current, and nothing that feeds that can carry a bias: only Inputs, encoders of the "
    "host, and spiking neurons that are not read can",
    "train it with bias=False, or without a synaptic current; or read other neurons",
)
