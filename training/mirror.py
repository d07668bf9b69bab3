"""Left and right: the mirror image of a step.

A body that is symmetric about its vertical plane through the x axis turns a mirrored state and a mirrored action into
the mirrored next state, with the same reward. So each step also says what its mirror image would have done, and a
learner that takes in both learns twice as much from one simulation, and a gait without a favourite side
(Abdolhosseini et al. 2019, "On learning symmetric locomotion").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nervecord.errors import NervecordError
from nervecord.training.tasks import ANT_V4


@dataclass(frozen=True, slots=True)
class Reflection:
    """A permutation of channels with signs: image[k] = signs[k] * original[order[k]]. Done twice it changes nothing."""

    order: Tensor
    """(channels,) int64."""
    signs: Tensor
    """(channels,) float32, 1 or -1."""

    def __call__(self, x: Tensor) -> Tensor:
        """The mirror image of channels (..., channels)."""
        return x[..., self.order.to(x.device)] * self.signs.to(x)


@dataclass(frozen=True, slots=True)
class Mirror:
    """The reflections of a task's observations and actions."""

    observations: Reflection
    actions: Reflection


# Legs of ant.xml: 1 front left, 2 back left, 3 back right, 4 front right.
_ANT_LEGS = {"1": "4", "2": "3", "3": "2", "4": "1"}
# A rotation is a pseudovector: its x and z components change sign where the y component of a vector does. The ankles'
# axes lie in the plane and are mirror images of each other, the hips' are vertical.
_ANT_ODD = {"torso.qx", "torso.qz", "torso.vy", "torso.wx", "torso.wz"}


def _ant_image(name: str) -> tuple[str, int]:
    """The channel whose value the mirrored channel has, and the sign it has it with."""
    if name.startswith("torso"):
        return name, -1 if name in _ANT_ODD else 1
    joint, rest = name.split("_", 1)
    return f"{joint}_{_ANT_LEGS[rest[0]]}{rest[1:]}", -1 if joint == "hip" else 1


def _reflection(names: tuple[str, ...]) -> Reflection:
    images = [_ant_image(name) for name in names]
    order = [names.index(image) for image, _ in images]
    return Reflection(torch.tensor(order), torch.tensor([float(sign) for _, sign in images]))


def mirror_of(env: str) -> Mirror:
    """The mirror of a task.

    Raises:
        NervecordError: none is known of it.
    """
    if env != "Ant-v4":
        raise NervecordError(
            f"no symmetry of {env} is known, only that of Ant-v4", where="--mirror", hint="train without --mirror"
        )
    return Mirror(_reflection(ANT_V4.observation_names), _reflection(ANT_V4.action_names))
