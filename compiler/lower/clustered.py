"""What clustering of decays did to a network, on its recorded input."""

from __future__ import annotations

from typing import Any

import numpy as np

from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration


def clustering_error(
    before: Calibration | StreamCalibration | None, after: Calibration | StreamCalibration | None, graph: Graph
) -> dict[str, Any]:
    """How what leaves differs, as plain JSON types; nothing where there is no recorded input.

    Args:
        before, after: the float network's behaviour without and with clustered decays. graph: the one after.

    Returns:
        Of a policy "action_error_rms" and "action_error_max"; of a stream "output_error_rms", "output_error_max" and
        "spikes_different" of its "spikes".
    """
    if isinstance(before, Calibration) and isinstance(after, Calibration):
        error = after.actions - before.actions
        return {"action_error_rms": _rms(error), "action_error_max": float(np.abs(error).max())}
    if not isinstance(before, StreamCalibration) or not isinstance(after, StreamCalibration):
        return {}
    # Composing made what leaves flat.
    pairs = {
        name: (before.left[name].reshape(len(rows), -1), rows.reshape(len(rows), -1))
        for name, rows in after.left.items()
    }
    spiking = [name for name in pairs if all(graph.nodes[a].spikes for a in graph.sources(name))]
    error = np.concatenate([(b - a).ravel() for a, b in pairs.values()])
    return {
        "output_error_rms": _rms(error),
        "output_error_max": float(np.abs(error).max()),
        "spikes_different": sum(int(np.count_nonzero(pairs[name][0] != pairs[name][1])) for name in spiking),
        "spikes": sum(int(pairs[name][0].sum()) for name in spiking),
    }


def _rms(error: Any) -> float:
    return float(np.sqrt(np.mean(np.square(error))))
