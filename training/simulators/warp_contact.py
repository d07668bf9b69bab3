"""MuJoCo's contact frame between a plane and a capsule, for MuJoCo Warp, which has another one.

A contact's frame is its normal and two tangents. Where a capsule touches a plane MuJoCo turns the first tangent along
the capsule's axis, unless the axis is the plane's normal to 1e-15, where there is none along it. MuJoCo Warp 3.17 gives
that up for every capsule within 30 degrees of the normal (`b_norm < 0.5` in its `plane_capsule`) and takes a fixed
tangent. As friction is a pyramid, which looks different along its edges and its faces, a steep leg then slides another
way. `use_mujoco_frame` puts the function below in its place; in single precision the limit is 1e-6.
"""

from __future__ import annotations

import inspect

import warp as wp
from mujoco_warp._src import collision_primitive, collision_primitive_core
from mujoco_warp._src.collision_primitive_core import plane_sphere

from nervecord.errors import NervecordError

FALLBACK = "if b_norm < 0.5:"
"""The line of MuJoCo Warp's function that this module is about."""

mat23f = collision_primitive_core.mat23f


@wp.func
def plane_capsule(
    plane_normal: wp.vec3,
    plane_pos: wp.vec3,
    capsule_pos: wp.vec3,
    capsule_axis: wp.vec3,
    capsule_radius: float,
    capsule_half_length: float,
) -> tuple[wp.vec2, mat23f, wp.mat33]:  # type: ignore[valid-type]
    """Distances, positions and frame of a capsule's two contacts with a plane, the first tangent along its axis."""
    along = capsule_axis - plane_normal * wp.dot(plane_normal, capsule_axis)
    length = wp.length(along)
    tangent = wp.vec3(0.0, 0.0, 1.0)
    if length >= 1.0e-6:
        tangent = along / length
    elif wp.abs(plane_normal[1]) < 0.5:
        tangent = wp.vec3(0.0, 1.0, 0.0)
    other = wp.cross(plane_normal, tangent)
    frame = wp.matrix_from_rows(plane_normal, tangent, other)
    segment = capsule_axis * capsule_half_length
    dist1, pos1 = plane_sphere(plane_normal, plane_pos, capsule_pos + segment, capsule_radius)
    dist2, pos2 = plane_sphere(plane_normal, plane_pos, capsule_pos - segment, capsule_radius)
    return wp.vec2(dist1, dist2), mat23f(pos1[0], pos1[1], pos1[2], pos2[0], pos2[1], pos2[2]), frame


def use_mujoco_frame() -> None:
    """Have MuJoCo Warp, in this process and from its next model on, collide planes and capsules as MuJoCo does.

    Raises:
        NervecordError: MuJoCo Warp's own function is not the one this module was written against.
    """
    present = collision_primitive.plane_capsule
    if present is plane_capsule:
        return
    if FALLBACK not in inspect.getsource(present.func):
        raise NervecordError(
            "MuJoCo Warp's contact between plane and capsule is not the one of version 3.17.0, which is corrected here",
            where="mujoco_warp",
            hint="pip install 'mujoco-warp==3.17.0'",
        )
    collision_primitive.plane_capsule = plane_capsule
