"""Ant-v4 around the physics, one thread for each world: what Gymnasium does before and after MuJoCo's steps.

Numbers of a step are those of Gymnasium's Ant-v4 without contact forces. Two things are different by intent:

- The noise of a first state has Gymnasium's distribution from a generator of Warp, a stream for each seed and episode.
- x and y of the torso are set to zero after every step. Nothing that is observed or rewarded depends on where it is,
  only on how far it came, and in single precision a difference of two places far away is worth little.
"""

from __future__ import annotations

import warp as wp

POSITIONS, VELOCITIES, ACTIONS, TORSO = 15, 14, 8, 1
"""Sizes of Ant's state and action, and its body whose place is rewarded."""
OBSERVATIONS = POSITIONS - 2 + VELOCITIES
MAX_STEPS = 1000
PERIOD = 0.05
"""Seconds of one action."""

_POSITIONS, _VELOCITIES, _ACTIONS, _TORSO = (wp.constant(size) for size in (POSITIONS, VELOCITIES, ACTIONS, TORSO))
_MAX_STEPS, _PERIOD = wp.constant(MAX_STEPS), wp.constant(PERIOD)
_NOISE = wp.constant(0.1)
_LEAST_Z, _GREATEST_Z = wp.constant(0.2), wp.constant(1.0)


@wp.func
def draw_state(
    world: int,
    seeds: wp.array[int],
    episodes: wp.array[int],
    qpos0: wp.array[float],
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    warmstart: wp.array2d[float],
) -> None:
    """The first state of the world's episode; the same for the same seed and episode."""
    random = wp.rand_init(seeds[world], episodes[world])
    for i in range(_POSITIONS):
        qpos[world, i] = qpos0[i] + wp.randf(random, -_NOISE, _NOISE)
    for i in range(_VELOCITIES):
        qvel[world, i] = _NOISE * wp.randn(random)
        warmstart[world, i] = 0.0
    qpos[world, 0] = 0.0
    qpos[world, 1] = 0.0


@wp.kernel(enable_backward=False)
def before_physics(
    actions: wp.array2d[float],
    done: wp.array[bool],
    seeds: wp.array[int],
    episodes: wp.array[int],
    qpos0: wp.array[float],
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    warmstart: wp.array2d[float],
    ctrl: wp.array2d[float],
) -> None:
    """Hand over the actions. A world whose episode is over gets a sound state and none: what it does is thrown away."""
    world = wp.tid()
    if done[world]:
        draw_state(world, seeds, episodes, qpos0, qpos, qvel, warmstart)
    for i in range(_ACTIONS):
        if done[world]:
            ctrl[world, i] = 0.0
        else:
            ctrl[world, i] = actions[world, i]


@wp.kernel(enable_backward=False)
def after_physics(
    actions: wp.array2d[float],
    xpos: wp.array2d[wp.vec3],
    seeds: wp.array[int],
    qpos0: wp.array[float],
    done: wp.array[bool],
    episodes: wp.array[int],
    elapsed: wp.array[int],
    diverged: wp.array[int],
    lead: wp.array[float],
    qpos: wp.array2d[float],
    qvel: wp.array2d[float],
    warmstart: wp.array2d[float],
    observations: wp.array2d[float],
    rewards: wp.array[float],
    terminated: wp.array[bool],
    truncated: wp.array[bool],
) -> None:
    """Observation, reward and ends; or the first state, where the step before this one ended the episode.

    `lead` is the torso's place in `xpos` less that in `qpos`. MuJoCo computes `xpos` at the last of the four stages of
    its last step and moves `qpos` on afterwards, and it is `xpos` that Gymnasium takes the forward velocity from.
    """
    world = wp.tid()
    finite = bool(True)  # noqa: UP018 - what a loop changes must be no constant to Warp
    if done[world]:
        draw_state(world, seeds, episodes, qpos0, qpos, qvel, warmstart)
        episodes[world] += 1
        elapsed[world] = 0
        lead[world] = 0.0
        rewards[world] = 0.0
        terminated[world] = False
        truncated[world] = False
    else:
        for i in range(_POSITIONS):
            finite = finite and wp.isfinite(qpos[world, i])
        for i in range(_VELOCITIES):
            finite = finite and wp.isfinite(qvel[world, i])
        cost = float(0.0)  # noqa: UP018
        for i in range(_ACTIONS):
            cost += actions[world, i] * actions[world, i]
        reward = 1.0 - 0.5 * cost
        z = qpos[world, 2]
        healthy = finite and z >= _LEAST_Z and z <= _GREATEST_Z
        if finite:
            place = xpos[world, _TORSO][0]
            reward += (place - lead[world]) / _PERIOD
            lead[world] = place - qpos[world, 0]
            qpos[world, 0] = 0.0
            qpos[world, 1] = 0.0
        else:
            diverged[world] += 1
        elapsed[world] += 1
        rewards[world] = reward
        terminated[world] = not healthy
        truncated[world] = elapsed[world] >= _MAX_STEPS
    done[world] = terminated[world] or truncated[world]
    if finite:
        for i in range(2, _POSITIONS):
            observations[world, i - 2] = qpos[world, i]
        for i in range(_VELOCITIES):
            observations[world, _POSITIONS - 2 + i] = qvel[world, i]
