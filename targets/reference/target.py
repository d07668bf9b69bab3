"""The reference target: the trained policy itself, in float64, by the definition of its nodes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration
from nervecord.compiler.target.implied import with_arithmetic
from nervecord.compiler.target.protocol import Lowered, TargetSpec
from nervecord.targets.base import EngineTarget, spec_beside


@dataclass(frozen=True)
class ReferenceTarget(EngineTarget):
    """Float64 on the host: what every other target is compared with. It has no limits and no options."""

    spec: TargetSpec = spec_beside(__file__)

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """The subject itself."""
        return Lowered(subject=subject, report={})

    def adopting(self, arithmetic: Arithmetic) -> ReferenceTarget:
        """The same for a graph of integers, which it computes by their definition."""
        return dataclasses.replace(self, spec=with_arithmetic(self.spec, arithmetic))


TARGET = ReferenceTarget
