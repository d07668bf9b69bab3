"""The imitation of a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from nervecord.errors import NervecordError
from nervecord.training.algorithms.base import Asset, Source, critic_weight
from nervecord.training.algorithms.on_policy import OnPolicy
from nervecord.training.fields import flag, flag_name

if TYPE_CHECKING:
    from nervecord.training.settings.config import TrainConfig


@dataclass(frozen=True)
class Distill(OnPolicy):
    """The imitation of a teacher in all states that it and the student have come to."""

    name: ClassVar[str] = "distill"
    about: ClassVar[str] = "imitation of a teacher"
    verb: ClassVar[str] = "distill"
    positional: ClassVar[str] = "teacher"
    learner_class: ClassVar[str] = "nervecord.training.learners.distill:Student"
    teacher_class: ClassVar[str] = "nervecord.training.learners.teacher:PolicyTeacher"
    assets: ClassVar[frozenset[Asset]] = frozenset({Asset.NETWORK, Asset.STATE_VALUES, Asset.ACTIONS})
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            "teacher",
            frozenset({Asset.ACTIONS}),
            ("task", "critic"),
            takes_files=True,
            is_memoryless=True,
            required="the run, file or function to imitate is needed",
        ),
    )
    takes_presets: ClassVar[bool] = True

    teacher: str = flag(
        "",
        "policy to imitate: run folder, whose exported checkpoint counts, or the newest one of an unfinished run; or "
        "beside --env an ONNX file, or module:function, which takes raw observations (B, observations) and gives "
        "actions (B, actions) or preferences",
    )
    kept_states: int = flag(
        1_000_000, "states that are kept and learnt, the newest; 0: those of the newest rollout", least=0, most=1 << 30
    )
    teacher_steps: int = flag(0, "environment steps in which the teacher alone acts", least=0)
    handover_steps: int = flag(0, "environment steps in which its share then falls linearly to 0", least=0)
    margin: float = flag(
        0.0, "a teacher's action this near to a limit, in halves of the range, counts as the limit", least=0
    )
    fall_steps: int = flag(40, "states before a failure that are drawn more often", least=1)
    fall_weight: float = flag(1.0, "their weight; other states have 1", least=1)
    initial_steps: int = flag(50, "states at the start of an episode that are drawn more often", least=1)
    initial_weight: float = flag(1.0, "their weight; other states have 1", least=1)
    mirror_states: bool = flag(False, "learn the mirror image of each state and action too (Ant-v4)")
    critic_weight: float = critic_weight(0.0)
    value_epochs: int = flag(
        2, "passes of the critic of states over each rollout, where the teacher has none to take; 0: none", least=0
    )

    def _check_together(self) -> None:
        super()._check_together()
        for name, weight in (("fall_steps", "fall_weight"), ("initial_steps", "initial_weight")):
            if getattr(self, name) != getattr(Distill, name) and getattr(self, weight) == 1:
                raise NervecordError(
                    f"has no meaning with {flag_name(weight)} 1, as which every state is drawn",
                    where=flag_name(name),
                    hint=f"drop it, or raise {flag_name(weight)}",
                )
        for name in ("fall_weight", "initial_weight"):
            if getattr(self, name) > 1 and not self.kept_states:
                raise NervecordError(
                    "has no meaning with --kept-states 0, where every state of the newest rollout is learnt alike",
                    where=flag_name(name),
                    hint="drop it, or keep states",
                )

    def _example(self) -> str:
        return "nervecord distill RUN"

    def check_config(self, config: TrainConfig) -> None:
        super().check_config(config)
        if not self.mirror_states:
            return
        config.task.check_mirror(where="--mirror-states")
        if config.network.mirror:
            raise NervecordError(
                "is of no use to a policy that acts in a mirror as its image does",
                where="--mirror-states",
                hint="drop it, or --mirror",
            )
        if config.network.state == "carried":
            raise NervecordError(
                "needs --state reset: of the state that a mirrored student would carry nothing is known",
                where="--mirror-states",
                hint="drop it, or --state carried",
            )

    def check_source(self, source: Source, before: TrainConfig | None, config: TrainConfig) -> None:
        named = getattr(self, source.field)
        if config.network.mirror and (before is None or not before.network.mirror):
            raise NervecordError(
                "knows no mirror image"
                if before is None
                else "was trained without --mirror, so its statistics are not those of a mirror image too",
                where=named,
                hint="drop --mirror",
            )
        from nervecord.training.algorithms import holders  # which imports this module

        needed = frozenset({Asset.ACTION_VALUES})
        if self.critic_weight and (before is None or not needed <= before.algorithm.assets):
            what = "is a file or a function" if before is None else f"was trained with {before.algorithm.name}"
            raise NervecordError(
                f"{what}, and has no {Asset.ACTION_VALUES.value}",
                where=named,
                hint=f"drop --critic-weight, or take a teacher of {' or '.join(holders(needed))}",
            )
