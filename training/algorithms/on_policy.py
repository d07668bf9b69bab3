"""What algorithms share that learn from the newest rollout."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from nervecord.errors import NervecordError
from nervecord.training.algorithms.base import Algorithm
from nervecord.training.fields import MOST_ENVS, flag


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
    critic: tuple[int, ...] = flag(
        (64, 64), "neurons of each hidden layer of the critic, a tanh network", least=1, items=1
    )
    noise: str = flag(
        "learnt",
        "standard deviation of the exploration noise: learnt, or its logarithm falling (linear) from log_std to "
        "log_std_final",
        choices=("learnt", "linear"),
    )
    log_std: float = flag(-0.5, "first value of the exploration noise's log standard deviation")
    log_std_final: float = flag(-2.0, "its value at the last step where the noise falls", needs=("noise", "linear"))
    lam: float = flag(0.95, "lambda of the advantage estimator", least=0, most=1)
    normalise_reward: bool = flag(True, "divide rewards by the standard deviation of the discounted return")
    reward_clip: float = flag(10.0, "limit of a normalised reward", above=0, needs=("normalise_reward", True))

    def hidden_weights(self) -> dict[str, int]:
        return {"--critic": sum(a * b for a, b in itertools.pairwise(self.critic))}

    @property
    def rollout_steps(self) -> int:
        return self.rollout

    def check_choices(self, env: str, choices: int) -> None:
        super().check_choices(env, choices)
        if self.noise != "learnt":
            raise NervecordError(
                f"is {self.noise!r}, and {env} lets choose among {choices} actions, whose draw has no such size",
                where="--noise",
                hint="use --entropy to keep the choice open",
            )

    def check_processes(self, processes: int) -> None:
        super().check_processes(processes)
        # Every second step may only reset an environment, and each process needs a step in each minibatch.
        if processes > 1 and self.minibatch < 2 * processes:
            raise NervecordError(
                f"is {self.minibatch}, {processes} processes need at least {2 * processes}",
                where="--minibatch",
                hint="it counts the transitions of all processes together",
            )

    def _check_together(self) -> None:
        super()._check_together()
        if self.minibatch > self.batch:
            raise NervecordError(
                f"is {self.minibatch}, a rollout holds {self.num_envs} environments x {self.rollout} steps = "
                f"{self.batch} transitions",
                where="--minibatch",
                hint="lower it, or raise --num-envs or --rollout",
            )
