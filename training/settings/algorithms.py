"""Algorithms: how each learns, and what its fields mean (`nervecord.training.settings.fields`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nervecord.errors import NervecordError
from nervecord.training.settings.fields import MOST_ENVS, MOST_WIDTH, Part, flag, flag_name


@dataclass(frozen=True)
class Algorithm(Part):
    """How it learns: what every algorithm has."""

    name: ClassVar[str]
    fixed_rollout: ClassVar[int] = 0
    """Steps of each environment between two updates, where no field says it."""
    own_networks: ClassVar[bool] = False
    """Whether it has networks of its own, without spikes, in place of those of the part `network`."""

    steps: int = flag(1_000_000, "environment steps of the whole training", least=1, resumable=True)
    num_envs: int = flag(32, "environments stepped together, over all processes", least=1, most=MOST_ENVS)
    gamma: float = flag(0.99, "discount", unit="closed")
    lr: float = flag(3e-4, "learning rate of Adam", above=0)

    @property
    def batch(self) -> int:
        """Transitions of one rollout over all environments."""
        return self.num_envs * getattr(self, "rollout", self.fixed_rollout)


@dataclass(frozen=True)
class OnPolicy(Algorithm):
    """What learns from the newest rollout alone."""

    rollout: int = flag(64, "steps of each environment between two updates", least=2, most=MOST_ENVS)
    minibatch: int = flag(512, "transitions of one gradient step, over all processes", least=2)
    epochs: int = flag(8, "passes over the rollout at each update", least=1)
    schedule: str = flag(
        "linear", "learning rate: falling to 0 at the last step (linear) or constant", choices=("linear", "constant")
    )
    grad_norm: float = flag(0.5, "limit of the gradient's norm; 0 for none", least=0)
    critic: tuple[int, ...] = flag((64, 64), "neurons of each hidden layer of the critic, a tanh network", least=1)
    noise: str = flag(
        "learnt",
        "size of the action noise: learnt, or falling (linear) from log_std to log_std_final",
        choices=("learnt", "linear"),
    )
    log_std: float = flag(-0.5, "first value of the action noise's log standard deviation")
    log_std_final: float = flag(-2.0, "its value at the last step where the noise falls", needs=("noise", "linear"))
    lam: float = flag(0.95, "lambda of the advantage estimator", unit="closed")
    normalise_reward: bool = flag(True, "divide rewards by the standard deviation of the discounted return")
    reward_clip: float = flag(10.0, "limit of a normalised reward", above=0, needs=("normalise_reward", True))

    def _check_together(self) -> None:
        if not self.critic:
            raise NervecordError("is (), one or more widths of at least 1 are needed", where="--critic")
        if self.minibatch > self.batch:
            raise NervecordError(
                f"is {self.minibatch}, a rollout holds {self.num_envs} environments x {self.rollout} steps = "
                f"{self.batch} transitions",
                where="--minibatch",
                hint="lower it, or raise --num-envs or --rollout",
            )


@dataclass(frozen=True)
class PPO(OnPolicy):
    """Proximal policy optimisation."""

    name: ClassVar[str] = "ppo"

    clip: float = flag(0.2, "PPO's clip of the probability ratio", above=0)
    entropy: float = flag(0.0, "weight of the entropy bonus", least=0)
    value_weight: float = flag(0.5, "weight of the critic's squared error", least=0)
    start: str = flag("", "run folder whose networks and statistics this training begins with; its shape is taken too")
    teacher: str = flag(
        "", "stay near to what this policy does: run folder, ONNX file, or module:function of raw observations"
    )
    teacher_weight: float = flag(1.0, "weight of the KL divergence from it in the loss", above=0)

    def _check_together(self) -> None:
        super()._check_together()
        if not self.teacher and self.teacher_weight != 1.0:
            raise NervecordError("has no meaning without --teacher", where="--teacher-weight", hint="add --teacher RUN")


@dataclass(frozen=True)
class Distill(OnPolicy):
    """The imitation of a teacher in all states that it and the student have come to."""

    name: ClassVar[str] = "distill"

    teacher: str = flag(
        "", "policy that this one learns to act as (nervecord distill): run folder, ONNX file, or module:function"
    )
    capacity: int = flag(
        1_000_000, "states kept to learn from, the newest; 0 for those of the newest rollout", least=0, most=1 << 30
    )
    teacher_steps: int = flag(0, "environment steps in which the teacher acts alone", least=0)
    handover_steps: int = flag(0, "environment steps in which its share then falls to 0", least=0)
    margin: float = flag(
        0.0, "a wanted action this near to a limit, in halves of the range, is any from there", least=0
    )
    fall_steps: int = flag(40, "steps before a failure that are drawn more often", least=1)
    fall_weight: float = flag(1.0, "how much more often", least=1)
    start_steps: int = flag(50, "steps after the beginning of an episode that are drawn more often", least=1)
    start_weight: float = flag(1.0, "how much more often", least=1)
    mirror_states: bool = flag(False, "learn what a mirrored teacher would do in each mirrored state too (Ant-v4)")
    critic_weight: float = flag(
        0.0,
        "weight of what a TD7 teacher's critic gives for the student's action, divided by its mean absolute value",
        least=0,
    )
    value_epochs: int = flag(
        2,
        "passes of the critic over each rollout, where the teacher has no critic to take; 0: the critic learns nothing",
        least=0,
    )

    def _check_together(self) -> None:
        super()._check_together()
        if not self.teacher:
            raise NervecordError("is empty, a run folder is needed", where="--teacher", hint="nervecord distill RUN")
        for name in ("fall_weight", "start_weight"):
            if getattr(self, name) > 1 and not self.capacity:
                raise NervecordError(
                    "has no meaning with --capacity 0, where every state of the newest rollout is learnt alike",
                    where=flag_name(name),
                    hint="drop it, or keep states",
                )


@dataclass(frozen=True)
class TD7Updates(Algorithm):
    """What TD7's updates of critic and actor need, whatever acts."""

    fixed_rollout: ClassVar[int] = 32

    num_envs: int = flag(16, "environments stepped together", least=1, most=MOST_ENVS)
    minibatch: int = flag(256, "transitions of one gradient step", least=1)
    steps_per_update: float = flag(2.0, "environment steps for each update", above=0)
    exploration: float = flag(
        0.1, "deviation of the noise of actions, in halves of their range", least=0, resumable=True
    )
    target_noise: float = flag(0.2, "deviation of the noise of the target's actions", least=0, resumable=True)
    target_noise_clip: float = flag(0.5, "greatest noise of the target's actions", least=0, resumable=True)
    target_every: int = flag(250, "updates between two copies of the networks into the targets", least=1)
    policy_every: int = flag(2, "updates of the critic for each of the actor", least=1)
    n_step: int = flag(
        1, "steps whose rewards a target sums before the critic's value follows", least=1, most=fixed_rollout,
        resumable=True,
    )  # fmt: skip
    priority_exponent: float = flag(
        0.4, "how much the error of a transition decides how often it is drawn; 0: not at all", least=0, resumable=True
    )
    capacity: int = flag(1_000_000, "transitions in the replay", least=1, most=1 << 30)
    cooldown: float = flag(
        0.0, "part of the training, at its end, in which the rate falls linearly to 0", unit="closed", resumable=True
    )
    keep_replay: bool = flag(
        False, "keep the replay in each checkpoint: up to 250 MB for the ant, and a resumed run loses nothing",
        free=True, resumable=True,
    )  # fmt: skip
    settle: int = flag(
        2_000, "updates for which the actor stands still after the replay was filled", least=0, resumable=True
    )
    precision: str = flag("float32", "of the matrix products", choices=("float32", "bfloat16"))
    torch_compile: bool = flag(
        False, "have torch compile its updates: a third less time, after half a minute at the start (needs g++)",
        free=True, resumable=True,
    )  # fmt: skip


@dataclass(frozen=True)
class TD7(TD7Updates):
    """TD7 (Fujimoto et al. 2023, arXiv 2306.02451): off-policy, a teacher without spikes."""

    name: ClassVar[str] = "td7"
    own_networks: ClassVar[bool] = True

    hidden: int = flag(256, "neurons of each hidden layer of its networks", least=1, most=MOST_WIDTH)
    embedding: int = flag(256, "width of its embeddings", least=1, most=MOST_WIDTH)
    random_steps: int = flag(25_000, "steps of uniformly random actions before the first update", least=1)
    smoothness: float = flag(
        0.0, "weight of the squared change of the action from step to step (CAPS)", least=0, needs=("n_step", 1)
    )


@dataclass(frozen=True)
class Finetune(TD7Updates):
    """TD7 that goes on from a teacher, with the network of another run, a spiking one mostly, in its actor's place."""

    name: ClassVar[str] = "finetune"

    start: str = flag("", "run folder whose networks and statistics this training begins with; its shape is taken too")
    teacher: str = flag(
        "", "run folder of TD7, whose critic goes on learning, and near to whose policy the network is held"
    )
    critic_lr: float = flag(3e-4, "learning rate of critic and encoder", above=0)
    critic_weight: float = flag(
        100.0,
        "weight of what the critic gives for the network's action, divided by its mean absolute value, beside the "
        "squared distance from the teacher's action",
        least=0,
    )
    grad_norm: float = flag(10.0, "limit of the gradient's norm; 0 for none", least=0)
    fill_steps: int = flag(
        300_000,
        "environment steps before the first update, in which the teacher and its past policies act in half of the "
        "environments",
        least=1,
    )
    restart_steps: int = flag(
        0,
        "steps after which the episodes of half of the environments are cut, to see more beginnings; 0: never",
        least=0,
    )
    cooldown: float = flag(
        1.0, "part of the training, at its end, in which the rate falls linearly to 0", unit="closed", resumable=True
    )

    def _check_together(self) -> None:
        for name, of in (("start", "the network"), ("teacher", "the critic")):
            if not getattr(self, name):
                raise NervecordError(
                    f"is empty, the run that {of} comes from is needed",
                    where=flag_name(name),
                    hint="nervecord train --algorithm finetune --start STUDENT --teacher TD7RUN",
                )
        if self.fill_steps >= self.steps:
            raise NervecordError(
                f"is {self.fill_steps:,}, and the whole training has {self.steps:,} steps: nothing would be learnt",
                where="--fill-steps",
                hint="lower it, or raise --steps, which counts them",
            )
        if self.restart_steps and self.num_envs < 4:
            raise NervecordError(
                f"has no meaning with --num-envs {self.num_envs}: of every four environments two are cut",
                where="--restart-steps",
                hint="drop it, or use --num-envs 4 or more",
            )


@dataclass(frozen=True)
class SkrlAlgorithm(Algorithm):
    """One of skrl's off-policy agents, with plain networks."""

    fixed_rollout: ClassVar[int] = 32
    own_networks: ClassVar[bool] = True

    num_envs: int = flag(16, "environments stepped together", least=1, most=MOST_ENVS)
    minibatch: int = flag(256, "transitions of one gradient step", least=1)
    steps_per_update: float = flag(2.0, "environment steps for each update", above=0)
    hidden: int = flag(256, "neurons of each of its two hidden layers", least=1, most=MOST_WIDTH)
    capacity: int = flag(1_000_000, "transitions in the replay", least=1, most=1 << 30)
    random_steps: int = flag(25_000, "steps of uniformly random actions before the first update", least=1)


@dataclass(frozen=True)
class SAC(SkrlAlgorithm):
    """skrl's soft actor-critic."""

    name: ClassVar[str] = "sac"


@dataclass(frozen=True)
class TD3(SkrlAlgorithm):
    """skrl's TD3."""

    name: ClassVar[str] = "td3"


ALGORITHMS: dict[str, type[Algorithm]] = {kind.name: kind for kind in (PPO, TD7, SAC, TD3, Distill, Finetune)}
"""By name."""
