"""What a task's observation and action mean: channel names and units."""

from __future__ import annotations

from dataclasses import dataclass

from nervecord.compiler.contract import Channels


@dataclass(frozen=True, slots=True)
class TaskChannels:
    """Names and units of a task's channels, in order."""

    observation_names: tuple[str, ...]
    observation_units: tuple[str, ...]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]


# Order of the joints in ant.xml. The actuators there begin with the fourth leg.
_ANT_JOINTS = tuple(f"{part}_{leg}" for leg in (1, 2, 3, 4) for part in ("hip", "ankle"))
_ANT_ACTUATORS = tuple(f"{part}_{leg}" for leg in (4, 1, 2, 3) for part in ("hip", "ankle"))

ANT_V4 = TaskChannels(
    observation_names=(
        "torso.z",
        *(f"torso.q{axis}" for axis in "wxyz"),
        *(f"{joint}.angle" for joint in _ANT_JOINTS),
        *(f"torso.v{axis}" for axis in "xyz"),
        *(f"torso.w{axis}" for axis in "xyz"),
        *(f"{joint}.velocity" for joint in _ANT_JOINTS),
    ),
    observation_units=("m", *("1",) * 4, *("rad",) * 8, *("m/s",) * 3, *("rad/s",) * 3, *("rad/s",) * 8),
    action_names=_ANT_ACTUATORS,
    # The control signal of the actuator, between -1 and 1; ant.xml turns 1 into 150 N m.
    action_units=("1",) * 8,
)
"""Gymnasium's Ant-v4 with its default arguments. The torso's velocities are qvel of its free joint."""

_ISAAC_ANT_FEET = ("front_left_foot", "front_right_foot", "left_back_foot", "right_back_foot")

ISAAC_GYM_ANT = TaskChannels(
    observation_names=(
        "torso.z",
        *(f"torso.local_v{axis}" for axis in "xyz"),
        *(f"torso.local_w{axis}" for axis in "xyz"),
        "torso.yaw",
        "torso.roll",
        "torso.angle_to_target",
        "torso.up_projection",
        "torso.heading_projection",
        *(f"{joint}.scaled_angle" for joint in _ANT_JOINTS),
        *(f"{joint}.velocity" for joint in _ANT_JOINTS),
        *(f"{foot}.{part}{axis}" for foot in _ISAAC_ANT_FEET for part in ("force_", "torque_") for axis in "xyz"),
        *(f"{joint}.last_action" for joint in _ANT_JOINTS),
    ),
    observation_units=(
        *("m", *("m/s",) * 3, *("rad/s",) * 3, *("rad",) * 3, *("1",) * 2),
        # -1 and 1 are the joint's limits; velocities are multiplied by 0.2, the feet's sensors by 0.1.
        *(*("1",) * 8, *("5 rad/s",) * 8, *(*("10 N",) * 3, *("10 N m",) * 3) * 4, *("1",) * 8),
    ),
    action_names=_ANT_JOINTS,
    # The part of the actuator's greatest torque.
    action_units=("1",) * 8,
)
"""Ant of IsaacGymEnvs: the order of `compute_ant_observations` in its tasks/ant.py, the scales of cfg/task/Ant.yaml.

The joints are in the order of its nv_ant.xml, where an action goes to a joint and not to an actuator.
"""

TASKS = {"Ant-v4": ANT_V4, "IsaacGym/Ant": ISAAC_GYM_ANT}


def environment_name(env: str, sim: str) -> str:
    """What a contract calls a task: its Gymnasium id, or a name of Isaac Gym's that is none."""
    return f"IsaacGym/{env}" if sim == "isaacgym" else env


def channels(env: str, observations: int, low: tuple[float, ...], high: tuple[float, ...]) -> tuple[Channels, Channels]:
    """Observation and action channels of a task; of one that is not in `TASKS` they are numbered and have no unit."""
    task = TASKS.get(env)
    # A task that was configured to observe otherwise has lost the meaning of its names.
    if task is None or (len(task.observation_names), len(task.action_names)) != (observations, len(low)):
        task = TaskChannels(
            tuple(f"observation_{k}" for k in range(observations)),
            ("1",) * observations,
            tuple(f"action_{k}" for k in range(len(low))),
            ("1",) * len(low),
        )
    return (
        Channels(task.observation_names, task.observation_units),
        Channels(task.action_names, task.action_units, low, high),
    )
