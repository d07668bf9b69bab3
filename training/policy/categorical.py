"""The policy of a task whose action is a choice: one preference (logit) for each action, and a draw by softmax.

To skrl an action is one number, the index of the action, (B, 1). Without noise the first of the largest preferences is
taken, as `compiler.hostnodes.ArgmaxDecode` defines it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical

from nervecord.training.config import TrainConfig
from nervecord.training.policy.network import make_policy
from nervecord.training.learners.ppo import SharedModel, box


def first_largest(logits: Tensor) -> Tensor:
    """Index of the largest of each row (B, choices), of several equal ones the first: (B, 1)."""
    return logits.argmax(-1, keepdim=True)


class CategoricalActor(SharedModel):
    """A policy of `nervecord.training.policy.network` whose outputs are logits, as skrl wants it."""

    def __init__(self, observations: int, choices: int, config: TrainConfig, device: torch.device) -> None:
        super().__init__(observation_space=box(observations), action_space=box(1), device=device)
        self.net = make_policy(observations, choices, config)
        self._logits = torch.zeros(1, choices)
        self.gradients_with: list[nn.Parameter] = []
        """Parameters whose gradients are reduced, in one go as each reduction costs a round trip."""

    def reduce_parameters(self) -> None:
        """Average all gradients over the processes, before skrl limits their norm."""
        self.group.mean_gradients(self.gradients_with, len(self._logits))

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """Logits (B, choices), and the next state under "state"."""
        del role
        logits, state = self.net(inputs["observations"], inputs.get("states"))
        return logits, {"state": state}

    def act(self, inputs: dict[str, Any], *, role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """Actions (B, 1), drawn unless "taken_actions" gives them, and their log probability (B, 1)."""
        logits, outputs = self.compute(inputs, role)
        self._logits = logits
        logs = torch.log_softmax(logits, dim=-1)
        actions = inputs.get("taken_actions")
        if actions is None:
            actions = torch.multinomial(logs.exp(), 1).float()
        outputs["log_prob"] = logs.gather(-1, actions.long())
        outputs["mean_actions"] = first_largest(logits).float()
        return actions, outputs

    def exploration(self) -> dict[str, float | None]:
        """How much actions vary: "log_std" of values, "entropy" of choices, in the last minibatch."""
        return {"log_std": None, "entropy": float(self.get_entropy().detach().mean())}

    def mode(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Actions without noise for normalised observations, and the next state."""
        logits, after = self.net(x, state)
        return first_largest(logits).float(), after

    def distribution(self, *, role: str = "") -> Categorical:
        """Distribution of the last actions."""
        del role
        return Categorical(logits=self._logits)  # type: ignore[no-untyped-call]

    def get_entropy(self, *, role: str = "") -> Tensor:
        """Entropy of the last actions, (B, 1)."""
        del role
        logs = torch.log_softmax(self._logits, dim=-1)
        return -(logs.exp() * logs).sum(-1, keepdim=True)
