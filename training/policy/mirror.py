"""Left and right: networks that act in a mirror as their mirror image does.

A body that is symmetric about its vertical plane through the x axis turns a mirrored state and a mirrored action into
the mirrored next state, with the same reward. A network whose weights are tied so that it answers the mirrored
observation with the mirrored action learns from each step what the mirrored step would teach too, at no cost in
simulation, and has no favourite side (Abdolhosseini et al. 2019, "On learning symmetric locomotion"). It is a plain
network all the same: the hidden neurons are pairs, the second of a pair having the first's weights, mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nervecord.training.settings.parts import TaskConfig
from nervecord.training.settings.tasks import ANT_V4


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

    @classmethod
    def permutation(cls, order: Tensor) -> Reflection:
        """Channels that change places and keep their signs."""
        return cls(order, torch.ones(len(order)))

    @classmethod
    def pairs(cls, width: int) -> Reflection:
        """Hidden neurons: the second half is the image of the first. An odd one in the middle is its own image."""
        half = width // 2
        order = [*range(width - half, width), *range(half, width - half), *range(half)]
        return cls.permutation(torch.tensor(order))

    def blocks(self, size: int, *, flip_odd: bool) -> Reflection:
        """The reflection of populations, `size` neurons for each of these channels.

        Args:
            size: neurons of a population.
            flip_odd: a changed sign turns a population's order round, as in a code whose means lie evenly about 0;
                else it is left to the weights.
        """
        within = torch.arange(size).expand(len(self.order), size)
        if flip_odd:
            within = torch.where(self.signs[:, None] < 0, within.flip(1), within)
        return Reflection.permutation((self.order[:, None] * size + within).flatten())


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
    TaskConfig(env=env).check_mirror(where="--mirror")
    return Mirror(_reflection(ANT_V4.observation_names), _reflection(ANT_V4.action_names))


class Tied(nn.Module):
    """A parametrization: free numbers to those that a reflection of inputs and outputs leaves as they are.

    W becomes (W + Out W In) * scale, a vector b (b + Out b) * scale.
    """

    def __init__(self, out: Reflection, inputs: Reflection | None, scale: float) -> None:
        super().__init__()
        self.out, self.inputs, self.scale = out, inputs, scale

    def forward(self, free: Tensor) -> Tensor:
        """Numbers of the same shape."""
        image = free if self.inputs is None else self.inputs(free)
        image = self.out(image) if image.dim() == 1 else self.out(image.T).T
        return (free + image) * self.scale


def tie(module: nn.Module, out: Reflection, inputs: Reflection | None) -> None:
    """Tie `weight` and any `bias` of a module, so that it answers reflected inputs with reflected outputs.

    The weights keep the size they were drawn with: each is the sum of two, divided by the square root of 2.
    """
    parametrize.register_parametrization(module, "weight", Tied(out, inputs, 0.5**0.5))
    if module.bias is not None:
        parametrize.register_parametrization(module, "bias", Tied(out, None, 0.5))
