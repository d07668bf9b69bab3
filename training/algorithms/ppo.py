"""Proximal policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nervecord.errors import NervecordError
from nervecord.training.algorithms.base import Asset, Source, start_run
from nervecord.training.algorithms.on_policy import OnPolicy
from nervecord.training.fields import flag


@dataclass(frozen=True)
class PPO(OnPolicy):
    """Proximal policy optimisation."""

    name: ClassVar[str] = "ppo"
    about: ClassVar[str] = "proximal policy optimisation"
    learner_class: ClassVar[str] = "nervecord.training.learners.ppo:PPOLearner"
    teacher_class: ClassVar[str] = "nervecord.training.learners.teacher:PolicyTeacher"
    assets: ClassVar[frozenset[Asset]] = frozenset({Asset.NETWORK, Asset.STATE_VALUES, Asset.ACTIONS})
    sources: ClassVar[tuple[Source, ...]] = (
        Source("reference", frozenset({Asset.ACTIONS}), ("task",), takes_files=True, is_memoryless=True),
        Source("start", frozenset({Asset.NETWORK, Asset.STATE_VALUES}), ("task", "network", "critic")),
    )
    takes_presets: ClassVar[bool] = True

    clip: float = flag(0.2, "PPO's clip of the probability ratio", above=0)
    entropy: float = flag(0.0, "weight of the entropy bonus", least=0)
    value_weight: float = flag(0.5, "weight of the critic's squared error", least=0)
    start: str = start_run()
    reference: str = flag("", "policy to stay near to: run folder, ONNX file, or module:function of raw observations")
    reference_weight: float = flag(1.0, "weight of the KL divergence from the reference in the loss", above=0)

    def _check_together(self) -> None:
        super()._check_together()
        if not self.reference and self.reference_weight != 1.0:
            raise NervecordError(
                "has no meaning without --reference", where="--reference-weight", hint="add --reference RUN"
            )
