"""What a policy's neurons did in a recorded episode: replayed from its observations, for rasters and firing rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.ops import Array
from nervecord.runtime.result import Episode
from nervecord.runtime.session import Session

SECONDS = 1.0
"""Of an episode, from its middle, are replayed."""
WARM_UP = 1.0
"""Seconds before those, so that a state that is carried is its own."""


@dataclass(frozen=True, slots=True)
class Activity:
    """Spikes of a part of an episode.

    Args:
        spikes: spiking layer -> (core steps, neurons).
        actions: (actions, channels) that were taken meanwhile.
        first: number of the first of those actions in the episode. seconds: how long the part is.
    """

    spikes: dict[str, Array]
    actions: Array
    first: int
    seconds: float

    @property
    def raster(self) -> Array | None:
        """(core steps, neurons) of all layers side by side; None for a policy without spikes."""
        return np.concatenate(list(self.spikes.values()), axis=1) if self.spikes else None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; per layer the spikes per step of each neuron, and the (steps, neurons) of all spikes."""
        layers = []
        for name, values in self.spikes.items():
            steps, neurons = np.nonzero(values)
            layers.append(
                {
                    "layer": name,
                    "neurons": values.shape[1],
                    "steps": values.shape[0],
                    "rates": [round(float(rate), 6) for rate in values.mean(axis=0)],
                    "spikes": [steps.tolist(), neurons.tolist()],
                }
            )
        return {
            "first": self.first,
            "seconds": self.seconds,
            "actions": self.actions.round(6).tolist(),
            "layers": layers,
        }


def replay_activity(
    session: Session, episode: Episode, *, seconds: float = SECONDS, first: int | None = None
) -> Activity:
    """Replay a part of an episode; resets the session to one robot.

    Args:
        session: opened with its trace, over the policy that played the episode.
        seconds: of the part. first: number of its first action; by default it lies in the middle.
    """
    period = session.contract.control_period
    total = len(episode.observations)
    count = max(1, round(min(seconds / period, total)))
    if first is None:
        first = max(0, min(total // 2, total - count))
    session.reset(1)
    layers_of: dict[str, list[Array]] = {}
    for k in range(max(0, first - round(WARM_UP / period)), min(first + count, total)):
        session.step(episode.observations[k])
        if k < first:
            continue
        trace = session.trace()
        for name, op in session.graph.nodes.items():
            if op.spikes and name in trace:
                layer = trace[name][:, 0]
                layers_of.setdefault(name, []).append(layer.reshape(len(layer), -1))
    return Activity(
        spikes={name: np.concatenate(parts) for name, parts in layers_of.items()},
        actions=np.asarray(episode.actions[first : first + count], dtype=np.float64),
        first=first,
        seconds=count * period,
    )
