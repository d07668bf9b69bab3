"""In place of IsaacGymEnvs's tasks: scripted ones, with the order of events of its `VecTask`."""

import os

import torch

from isaacgymenvs.scripted import AnymalTerrain, Dying, Hanging, Restless, ScriptedAnt

isaacgym_task_map = {
    "Ant": ScriptedAnt,
    "AnymalTerrain": AnymalTerrain,
    "Restless": Restless,
    "Dying": Dying,
    "Hanging": Hanging,
}

assert torch.__version__
assert os.environ["NERVECORD_WORKER"]
