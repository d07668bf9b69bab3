"""What a task's observation and action mean: channel names and units."""

from __future__ import annotations

from dataclasses import dataclass

from nervecord.compiler.graph.contract import Channels


@dataclass(frozen=True, slots=True)
class TaskChannels:
    """Names and units of a task's channels, in order; where an action is a choice, the names of the choices."""

    observation_names: tuple[str, ...]
    observation_units: tuple[str, ...]
    action_names: tuple[str, ...]
    action_units: tuple[str, ...]
    choices: tuple[str, ...] = ()


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

CARTPOLE_V1 = TaskChannels(
    observation_names=("cart.position", "cart.velocity", "pole.angle", "pole.velocity"),
    observation_units=("m", "m/s", "rad", "rad/s"),
    action_names=("action",),
    action_units=("1",),
    choices=("push left", "push right"),
)

PENDULUM_V1 = TaskChannels(
    observation_names=("pole.cos", "pole.sin", "pole.velocity"),
    observation_units=("1", "1", "rad/s"),
    action_names=("torque",),
    action_units=("N m",),
)


def _planar(joints: tuple[str, ...], actuators: tuple[str, ...]) -> TaskChannels:
    """A robot that moves in the plane of x and z; its place along x is not observed. Joints are hinges."""
    return TaskChannels(
        observation_names=(
            "torso.z",
            "torso.pitch",
            *(f"{joint}.angle" for joint in joints),
            *(f"torso.{velocity}" for velocity in ("vx", "vz", "wy")),
            *(f"{joint}.velocity" for joint in joints),
        ),
        observation_units=("m", *("rad",) * (1 + len(joints)), "m/s", "m/s", *("rad/s",) * (1 + len(joints))),
        action_names=actuators,
        # The control signal of the actuator; its gear in the model's file turns it into N m.
        action_units=("1",) * len(actuators),
    )


_CHEETAH_JOINTS = ("bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")
_HOPPER_JOINTS = ("thigh_joint", "leg_joint", "foot_joint")
_WALKER_JOINTS = (*_HOPPER_JOINTS, "thigh_left_joint", "leg_left_joint", "foot_left_joint")

# Order of the joints in humanoid.xml. Its actuators begin with abdomen_y, and are otherwise in the same order.
_HUMANOID_SIDES = tuple(f"{side}_{part}" for side in ("right", "left") for part in ("hip_x", "hip_z", "hip_y", "knee"))
_HUMANOID_ARMS = tuple(f"{side}_{part}" for side in ("right", "left") for part in ("shoulder1", "shoulder2", "elbow"))
_HUMANOID_JOINTS = ("abdomen_z", "abdomen_y", "abdomen_x", *_HUMANOID_SIDES, *_HUMANOID_ARMS)
_HUMANOID_ACTUATORS = ("abdomen_y", "abdomen_z", *_HUMANOID_JOINTS[2:])
_HUMANOID_BODIES = (
    *("world", "torso", "lwaist", "pelvis"),
    *(f"{side}_{part}" for side in ("right", "left") for part in ("thigh", "shin", "foot")),
    *(f"{side}_{part}" for side in ("right", "left") for part in ("upper_arm", "lower_arm")),
)
# What MuJoCo calls cinert, cvel and cfrc_ext, of each body: components and their units.
_INERTIA = ("Ixx", "Iyy", "Izz", "Ixy", "Ixz", "Iyz", "mx", "my", "mz", "m")
_INERTIA_UNITS = (*("kg m^2",) * 6, *("kg m",) * 3, "kg")
_VELOCITY, _VELOCITY_UNITS = ("wx", "wy", "wz", "vx", "vy", "vz"), (*("rad/s",) * 3, *("m/s",) * 3)
_WRENCH, _WRENCH_UNITS = ("tx", "ty", "tz", "fx", "fy", "fz"), (*("N m",) * 3, *("N",) * 3)
_ROOT_FORCES = ("torso.force.x", "torso.force.y", "torso.force.z", "torso.torque.x", "torso.torque.y", "torso.torque.z")

HUMANOID_V4 = TaskChannels(
    observation_names=(
        "torso.z",
        *(f"torso.q{axis}" for axis in "wxyz"),
        *(f"{joint}.angle" for joint in _HUMANOID_JOINTS),
        *(f"torso.v{axis}" for axis in "xyz"),
        *(f"torso.w{axis}" for axis in "xyz"),
        *(f"{joint}.velocity" for joint in _HUMANOID_JOINTS),
        *(f"{body}.inertia.{part}" for body in _HUMANOID_BODIES for part in _INERTIA),
        *(f"{body}.velocity.{part}" for body in _HUMANOID_BODIES for part in _VELOCITY),
        *_ROOT_FORCES,
        *(f"{joint}.torque" for joint in _HUMANOID_JOINTS),
        *(f"{body}.contact.{part}" for body in _HUMANOID_BODIES for part in _WRENCH),
    ),
    observation_units=(
        *("m", *("1",) * 4, *("rad",) * 17),
        *(*("m/s",) * 3, *("rad/s",) * 3, *("rad/s",) * 17),
        *_INERTIA_UNITS * 14,
        *_VELOCITY_UNITS * 14,
        *(*("N",) * 3, *("N m",) * 3, *("N m",) * 17),
        *_WRENCH_UNITS * 14,
    ),
    action_names=_HUMANOID_ACTUATORS,
    action_units=("1",) * 17,
)
"""Gymnasium's Humanoid-v4. The root's actuator forces are zero, as are the forces on the world."""

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

TASKS = {
    "Ant-v4": ANT_V4,
    "CartPole-v1": CARTPOLE_V1,
    "HalfCheetah-v4": _planar(_CHEETAH_JOINTS, _CHEETAH_JOINTS),
    "Hopper-v4": _planar(_HOPPER_JOINTS, _HOPPER_JOINTS),
    "Humanoid-v4": HUMANOID_V4,
    "IsaacGym/Ant": ISAAC_GYM_ANT,
    "Pendulum-v1": PENDULUM_V1,
    "Walker2d-v4": _planar(_WALKER_JOINTS, _WALKER_JOINTS),
}


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


def choice_names(env: str, count: int) -> tuple[str, ...]:
    """Names of the `count` actions that a task lets choose from; of one that is not in `TASKS` they are numbered."""
    task = TASKS.get(env)
    return task.choices if task is not None else tuple(f"action {k}" for k in range(count))
