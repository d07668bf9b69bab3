"""More decays than a chip's populations can be split by, brought together: only where the user allows it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.policy import parts, with_graph
from nervecord.compiler.graph.verify import Subject
from nervecord.compiler.ops import Array, Level, Membrane, Neuron, Synapse
from nervecord.compiler.passes.split import MOST_GROUPS, decay_groups

ROUNDS = 64
"""Of moving centres; they settle in fewer."""


@dataclass(frozen=True, slots=True)
class Clustered:
    """What was done to one population.

    Args:
        population: its maker's name. codes: different decays that it had on the chip. groups: that are left.
        moved: largest change of a decay or current's decay.
    """

    population: str
    codes: int
    groups: int
    moved: float

    def __str__(self) -> str:
        return (
            f"{self.population}: {self.codes} decays of the chip clustered into {self.groups}, each moved by at most "
            f"{self.moved:.3g}"
        )


def cluster_decays(
    subject: Subject, arithmetic: Arithmetic, most: int = MOST_GROUPS
) -> tuple[Subject, list[Clustered]]:
    """Give populations with more than `most` different decays, in the chip's codes, `most` of them.

    Before                                        After
        lif: decays 0.61, 0.612, 0.615, ..., 0.95     lif: decays 0.613, 0.613, 0.613, ..., 0.95, at most 16 of them

    The decays of neurons (with those of their currents, where they have any) are points; centres start far apart, the
    first at the smallest, and move to the mean of what is nearest to them. Gains, leaks and thresholds stay. This
    changes what the network does: by how much a decay moves is returned, and compiling reports what
    that changed.

    Pure, deterministic, idempotent: the same object where nothing changes.

    Args:
        subject: DISCRETE; anything else comes back as it is.
    """
    graph, _ = parts(subject)
    if graph.level is not Level.DISCRETE:
        return subject, []
    nodes, changes = dict(graph.nodes), []
    for name, op in graph.nodes.items():
        codes = len(decay_groups(op, arithmetic))
        if codes <= most:
            continue
        assert isinstance(op, Neuron)
        neuron, change = _clustered(op, most)
        nodes[name] = neuron
        changes.append(
            Clustered(op.origin[0] if op.origin else name, codes, len(decay_groups(neuron, arithmetic)), change)
        )
    if not changes:
        return subject, []
    return with_graph(subject, graph.replace(nodes=nodes)), changes  # type: ignore[return-value]


def _clustered(op: Neuron, most: int) -> tuple[Neuron, float]:
    """(the population with at most `most` decays, the largest change)."""
    membrane, synapse = op.membrane, op.synapse
    assert isinstance(membrane, Membrane)
    points = [membrane.decay]
    if isinstance(synapse, Synapse):
        points.append(synapse.decay)
    decays = np.stack(points, axis=1)
    centres = _centres(decays, most)
    membrane = dataclasses.replace(membrane, decay=centres[:, 0])
    if isinstance(synapse, Synapse):
        synapse = dataclasses.replace(synapse, decay=centres[:, 1])
    return op.replace(membrane=membrane, synapse=synapse), float(np.abs(centres - decays).max())


def _centres(points: Array, most: int) -> Array:
    """For each point the centre that it goes to, (n, axes)."""
    centres = points[np.lexsort(points.T[::-1])[:1]]
    while len(centres) < most:
        apart = np.square(points[:, None] - centres[None]).sum(axis=2).min(axis=1)
        centres = np.concatenate([centres, points[[int(apart.argmax())]]])
    nearest = np.zeros(len(points), dtype=np.int64)
    for _ in range(ROUNDS):
        before = nearest
        nearest = np.square(points[:, None] - centres[None]).sum(axis=2).argmin(axis=1)
        if np.array_equal(before, nearest):
            break
        # A centre that nothing is nearest to stays where it is.
        centres = np.stack(
            [points[nearest == k].mean(axis=0) if (nearest == k).any() else centre for k, centre in enumerate(centres)]
        )
    return np.asarray(centres[nearest])
