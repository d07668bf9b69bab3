"""TD7's networks: encoder, actor, critic, and the policy that an encoder and an actor make.

Where they run under autocast, products are in bfloat16; normalisation is float32 all the same, and so is the last layer
of actor and critic: at a value of 400 two numbers of bfloat16 lie 2 apart, which is more than most TD errors.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn


def average_l1_norm(x: Tensor) -> Tensor:
    """Rows divided by their mean absolute value, in float32, (B, N) to (B, N)."""
    x = x.float()
    return x / x.abs().mean(-1, keepdim=True).clamp(min=1e-8)


class Linear32(nn.Linear):
    """A linear layer that stays in float32, also under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class StateEncoder(nn.Module):
    """Embedding of a state, (B, observations) to (B, embedding)."""

    def __init__(self, observations: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(observations, hidden), nn.ELU(), nn.Linear(hidden, hidden), nn.ELU(), nn.Linear(hidden, embedding)
        )

    def forward(self, observations: Tensor) -> Tensor:
        return average_l1_norm(self.layers(observations))


class Encoder(nn.Module):
    """Embeddings of a state, and of a state and an action: the second predicts the first one step later."""

    def __init__(self, observations: int, actions: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.state = StateEncoder(observations, hidden, embedding)
        self.pair = nn.Sequential(
            nn.Linear(embedding + actions, hidden),
            nn.ELU(),
            nn.Linear(hidden, hidden),
            nn.ELU(),
            nn.Linear(hidden, embedding),
        )

    def state_action(self, zs: Tensor, actions: Tensor) -> Tensor:
        """(B, embedding) of a state's embedding (B, embedding) and actions (B, actions)."""
        out: Tensor = self.pair(torch.cat([zs, actions], 1))
        return out


class TD7Actor(nn.Module):
    """Actions between -1 and 1, (B, actions), of observations (B, observations) and their embedding."""

    def __init__(self, observations: int, actions: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Linear(observations, hidden)
        self.rest = nn.Sequential(
            nn.Linear(hidden + embedding, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            Linear32(hidden, actions),
        )

    def forward(self, observations: Tensor, zs: Tensor) -> Tensor:
        out: Tensor = self.rest(torch.cat([average_l1_norm(self.first(observations)), zs], 1))
        return torch.tanh(out)


class Value(nn.Module):
    """The value of a state and an action, (B, 1)."""

    def __init__(self, observations: int, actions: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.first = nn.Linear(observations + actions, hidden)
        self.rest = nn.Sequential(
            nn.Linear(hidden + 2 * embedding, hidden),
            nn.ELU(),
            nn.Linear(hidden, hidden),
            nn.ELU(),
            Linear32(hidden, 1),
        )

    def forward(self, raw: Tensor, embeddings: Tensor) -> Tensor:
        """`raw` is observations and actions, `embeddings` those of state and action and of the state."""
        out: Tensor = self.rest(torch.cat([average_l1_norm(self.first(raw)), embeddings], 1))
        return out


class Critic(nn.Module):
    """Two values, (B, 2)."""

    def __init__(self, observations: int, actions: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.values = nn.ModuleList(Value(observations, actions, hidden, embedding) for _ in range(2))

    def forward(self, observations: Tensor, actions: Tensor, zsa: Tensor, zs: Tensor) -> Tensor:
        raw, embeddings = torch.cat([observations, actions], 1), torch.cat([zsa, zs], 1)
        return torch.cat([value(raw, embeddings) for value in self.values], 1)


class TD7Policy(nn.Module):
    """What acts, and all of it: actions (B, actions), between -1 and 1, of raw observations (B, observations).

    Args:
        observations, actions: sizes of an observation and of an action.
        hidden, embedding: widths, as in `nervecord.training.algorithms.td7`.
    """

    def __init__(self, observations: int, actions: int, hidden: int = 256, embedding: int = 256) -> None:
        super().__init__()
        self.sizes = {"observations": observations, "actions": actions, "hidden": hidden, "embedding": embedding}
        self.encoder = StateEncoder(observations, hidden, embedding)
        self.actor = TD7Actor(observations, actions, hidden, embedding)

    def forward(self, observations: Tensor) -> Tensor:
        out: Tensor = self.actor(observations, self.encoder(observations))
        return out


class TD7Critic(nn.Module):
    """What judges: the lesser of two values, (B,), of raw observations (B, observations) and actions (B, actions)
    between -1 and 1.

    Args:
        As of `TD7Policy`.
    """

    def __init__(self, observations: int, actions: int, hidden: int = 256, embedding: int = 256) -> None:
        super().__init__()
        self.sizes = {"observations": observations, "actions": actions, "hidden": hidden, "embedding": embedding}
        self.encoder = Encoder(observations, actions, hidden, embedding)
        self.critic = Critic(observations, actions, hidden, embedding)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        zs = self.encoder.state(observations)
        values: Tensor = self.critic(observations, actions, self.encoder.state_action(zs, actions), zs)
        return values.amin(1)


_Module = TypeVar("_Module", TD7Policy, TD7Critic)


def rounded(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """A module's state in another type."""
    return {name: value.to(dtype) for name, value in state.items()}


def pack(module: TD7Policy | TD7Critic) -> dict[str, Any]:
    """A policy or a critic for a file: weights in float16, and the sizes that `unpack` builds it from."""
    return {"sizes": module.sizes, "weights": rounded(module.state_dict(), torch.float16)}


def unpack(kind: type[_Module], content: dict[str, Any]) -> _Module:
    """The policy or the critic that `pack` packed, in float32 and without gradient."""
    module = kind(**content["sizes"])
    module.load_state_dict(content["weights"])
    return module.requires_grad_(False)
