"""Fine-tuning of a trained network through the critic of TD7."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from nervecord.errors import NervecordError
from nervecord.training.algorithms.base import Asset, Source, critic_weight, start_run
from nervecord.training.algorithms.on_policy import OnPolicy
from nervecord.training.algorithms.td7 import TD7Settings, TD7Updates
from nervecord.training.fields import flag, with_default


@dataclass(frozen=True)
class Finetune(TD7Updates):
    """TD7 that continues from a teacher, with another run's network, mostly a spiking one, in its actor's place."""

    name: ClassVar[str] = "finetune"
    about: ClassVar[str] = "a trained network continues as TD7's actor"
    learner_class: ClassVar[str] = "nervecord.training.learners.finetune:FinetuneLearner"
    teacher_class: ClassVar[str] = "nervecord.training.learners.teacher:PolicyTeacher"
    assets: ClassVar[frozenset[Asset]] = frozenset({Asset.NETWORK, Asset.ACTIONS})
    sources: ClassVar[tuple[Source, ...]] = (
        Source(
            "start",
            frozenset({Asset.NETWORK}),
            ("task", "network"),
            is_memoryless=True,
            required="the run that the network comes from is needed",
        ),
        # Of the task only what TD7 learnt of: its observations are raw.
        Source(
            "critic_run",
            frozenset({Asset.ACTIONS, Asset.ACTION_VALUES}),
            ("env", "wrappers", "gamma"),
            required="the run of TD7 that the critic comes from is needed",
        ),
    )

    takes_carried: ClassVar[bool] = False
    fills_with: ClassVar[str] = "fill_steps"

    start: str = start_run()
    critic_run: str = flag("", "run folder of TD7, whose critic continues to learn, and whose policy is the teacher")
    critic_lr: float = flag(3e-4, "learning rate of critic and encoder", above=0)
    critic_weight: float = critic_weight(100.0)
    grad_norm: float = with_default(OnPolicy, "grad_norm", 10.0)
    fill_steps: int = flag(
        300_000,
        "environment steps before the first update, in which the teacher and its past policies act in half of the "
        "environments",
        least=1,
    )
    restart_steps: int = flag(
        0,
        "steps after which the episodes of half of the environments are cut, to see more initial states; 0: never",
        least=0,
    )
    cooldown: float = with_default(TD7Updates, "cooldown", 1.0)

    def _check_together(self) -> None:
        super()._check_together()
        if self.restart_steps and self.num_envs < 4:
            raise NervecordError(
                f"has no meaning with --num-envs {self.num_envs}: of every four environments two are cut",
                where="--restart-steps",
                hint="drop it, or use --num-envs 4 or more",
            )

    def of_td7(self, hidden: int, embedding: int) -> TD7Settings:
        """The settings of TD7's agent, whose networks have these widths; `lr` is that of critic and encoder."""
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(TD7Updates)}
        own = {"lr": self.critic_lr, "random_steps": self.fill_steps, "hidden": hidden, "embedding": embedding}
        return TD7Settings(**{**shared, **own})
