"""What is done to a float graph for a target that computes in integers, before its rules look and it is lowered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.verify import verify
from nervecord.compiler.passes.cluster import Clustered, cluster_decays
from nervecord.compiler.passes.compose import compose
from nervecord.compiler.passes.prune import prune
from nervecord.compiler.passes.split import MOST_GROUPS, split_decays
from nervecord.compiler.passes.thresholds import fold_thresholds
from nervecord.compiler.target.protocol import TargetSpec

__all__ = ["MOST_GROUPS", "prepared", "prepares"]


def prepares(spec: TargetSpec) -> bool:
    """Whether graphs are lowered to integers of this target, whose connections each end in neurons."""
    return spec.integers is not None and spec.behaviour.free_wiring.value is False


def prepared(
    subject: Graph | Policy, spec: TargetSpec, clustered: list[Clustered] | None = None
) -> Iterator[tuple[str, Graph | Policy]]:
    """(what was done, the subject after it) of every pass that changed something; none for other targets.

    Args:
        clustered: given where decays may be clustered; what was done so is put into it.
    """
    if not prepares(spec) or spec.integers is None:
        return
    own = spec.behaviour.per_neuron.value or ()
    passes: list[tuple[str, Callable[[Any], Any]]] = [("composed", compose)]
    if "threshold" not in own:
        passes.append(("thresholds", fold_thresholds))
    if "decay" not in own:
        integers = spec.integers
        if clustered is not None:
            passes.append(("clustered", lambda it: _cluster(it, integers, clustered)))
        # Silent neurons are no reason to split, nor one not to.
        passes.append(("split", lambda it: prune(split_decays(prune(it), integers))))
    for name, run in passes:
        with np.errstate(all="ignore"):
            result = run(subject)
        # Products of extreme values may go beyond float64; the rules then speak of what is there without the pass.
        if result is not subject and not verify(result):
            subject = result
            yield name, subject


def _cluster(subject: Any, arithmetic: Arithmetic, report: list[Clustered]) -> Any:
    clustered, changes = cluster_decays(subject, arithmetic)
    report += changes
    return clustered
