"""TD7, and what its updates need wherever they are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nervecord.training.algorithms.base import Asset
from nervecord.training.algorithms.off_policy import OffPolicy
from nervecord.training.fields import MOST_WIDTH, flag


@dataclass(frozen=True)
class TD7Updates(OffPolicy):
    """What TD7's updates of critic and actor need, whatever acts."""

    devices: ClassVar[tuple[str, ...]] = ("cpu",)

    exploration: float = flag(
        0.1, "standard deviation of the exploration noise, in halves of the actions' range", least=0, resumable=True
    )
    target_noise: float = flag(0.2, "standard deviation of the noise of the target's actions", least=0, resumable=True)
    target_noise_clip: float = flag(0.5, "limit of the noise of the target's actions", least=0, resumable=True)
    target_every: int = flag(250, "updates between two copies of the networks into the targets", least=1)
    policy_every: int = flag(2, "updates of the critic for each of the actor", least=1)
    n_step: int = flag(
        1, "steps whose rewards a target sums before the critic's value follows", least=1, most=32, resumable=True
    )
    termination_penalty: float = flag(
        0.0,
        "subtracted from the reward of a step in which the task ends, as the updates see it; returns are without it",
        least=0,
    )
    priority_exponent: float = flag(
        0.4, "how much the error of a transition decides how often it is drawn; 0: not at all", least=0, resumable=True
    )
    cooldown: float = flag(
        0.0, "part of the training, at its end, in which the rate falls linearly to 0", least=0, most=1, resumable=True
    )
    keep_replay: bool = flag(
        False,
        "keep the replay in each checkpoint: up to 250 MB for the ant, and a resumed run loses nothing",
        free=True,
        resumable=True,
    )
    freeze_updates: int = flag(
        2_000, "updates for which the actor stays frozen after the replay was filled", least=0, resumable=True
    )
    precision: str = flag("float32", "of the matrix products", choices=("float32", "bfloat16"))
    torch_compile: bool = flag(
        False,
        "have torch compile its updates: a third less time, after half a minute at the start (needs g++)",
        free=True,
        resumable=True,
    )


@dataclass(frozen=True)
class TD7Settings(TD7Updates):
    """TD7 (Fujimoto et al. 2023, arXiv 2306.02451): off-policy, a teacher without spikes."""

    name: ClassVar[str] = "td7"
    about: ClassVar[str] = "off-policy, without spikes, for teachers"
    learner_class: ClassVar[str] = "nervecord.training.learners.off_policy:TD7Learner"
    teacher_class: ClassVar[str] = "nervecord.training.learners.teacher:TD7Teacher"
    assets: ClassVar[frozenset[Asset]] = frozenset({Asset.ACTIONS, Asset.ACTION_VALUES})
    own_networks: ClassVar[bool] = True

    hidden: int = flag(256, "neurons of each hidden layer of its networks", least=1, most=MOST_WIDTH)
    embedding: int = flag(256, "width of its embeddings", least=1, most=MOST_WIDTH)
    random_steps: int = flag(25_000, "steps of uniformly random actions before the first update", least=1)
    smoothness: float = flag(
        0.0, "weight of the squared change of the action from step to step (CAPS)", least=0, needs=("n_step", 1)
    )

    def hidden_weights(self) -> dict[str, int]:
        return {"--hidden": self.hidden * (self.hidden + 2 * self.embedding)}
