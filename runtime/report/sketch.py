"""Draws a MuJoCo robot as shaded shapes in perspective, with numpy alone: no renderer, no OpenGL.

`Robot` turns joint positions into capsules in the world; `Camera` looks at them; `draw` puts them on matplotlib axes,
far ones first. What cannot be a capsule (meshes, planes, height fields) is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nervecord.compiler.blas import matmul
from nervecord.compiler.ops import Array
from nervecord.errors import MissingDependencyError, NervecordError, install_command

LIGHT = np.array([0.35, -0.25, 1.0])
"""Direction to the light; shadows fall away from it."""
_ARC = np.linspace(0, np.pi, 12)


@dataclass(frozen=True, slots=True)
class Capsule:
    """A rounded rod, or a ball where its ends coincide. colour: RGB."""

    a: Array
    b: Array
    radius: float
    colour: tuple[float, float, float]


class Robot:
    """The bodies of a MuJoCo model.

    Args:
        model: `mujoco.MjModel`.

    Raises:
        MissingDependencyError: mujoco is not installed.
        NervecordError: the model has nothing that can be drawn.
    """

    def __init__(self, model: Any) -> None:
        try:
            import mujoco
        except ImportError:
            raise MissingDependencyError(
                "mujoco is not installed", where="picture", hint=install_command("mujoco")
            ) from None
        self._mujoco, self._model = mujoco, model
        self._data = mujoco.MjData(model)
        kinds = mujoco.mjtGeom
        self._rods = (int(kinds.mjGEOM_CAPSULE), int(kinds.mjGEOM_CYLINDER))
        self._balls = (int(kinds.mjGEOM_SPHERE), int(kinds.mjGEOM_ELLIPSOID), int(kinds.mjGEOM_BOX))
        # Geoms of the world body are the scene, not the robot.
        self._geoms = [
            g for g in range(model.ngeom) if model.geom_bodyid[g] and model.geom_type[g] in self._rods + self._balls
        ]
        if not self._geoms:
            raise NervecordError("has no capsules, balls or boxes to draw", where="robot")
        self._colours = _limb_colours(model, self._geoms)

    @property
    def travels(self) -> bool:
        """Whether it moves over the ground: its first joint is free, or its first two slide, as a planar robot's do."""
        return self.is_free or self._joints[:2] == [int(self._mujoco.mjtJoint.mjJNT_SLIDE)] * 2

    @property
    def _joints(self) -> list[int]:
        return [int(kind) for kind in self._model.jnt_type]

    @property
    def is_free(self) -> bool:
        """Whether its first joint is free: it moves in all directions."""
        return self._joints[:1] == [int(self._mujoco.mjtJoint.mjJNT_FREE)]

    def ground(self, positions: Array) -> Array:
        """(n, 2): where on the ground it is, of joint positions (n, nq). A planar robot slides along x and up z."""
        if self.is_free:
            return positions[:, :2]
        return np.stack([positions[:, 0], np.zeros(len(positions))], axis=1)

    def pose(self, qpos: Array) -> list[Capsule]:
        """The robot at joint positions `qpos` (nq,), in world coordinates (m)."""
        self._data.qpos[:] = qpos
        self._mujoco.mj_kinematics(self._model, self._data)
        capsules = []
        for geom, colour in zip(self._geoms, self._colours, strict=True):
            centre = self._data.geom_xpos[geom].copy()
            size = self._model.geom_size[geom]
            rod = self._model.geom_type[geom] in self._rods
            axis = self._data.geom_xmat[geom].reshape(3, 3)[:, 2] * (size[1] if rod else 0.0)
            capsules.append(Capsule(centre - axis, centre + axis, float(size[0]), colour))
        return capsules


def _limb_colours(model: Any, geoms: Sequence[int]) -> list[tuple[float, float, float]]:
    """One hue for each limb (child of the trunk), the trunk itself dark; a limb's outer parts are lighter."""
    palette = [(0.84, 0.37, 0.20), (0.93, 0.62, 0.18), (0.16, 0.55, 0.55), (0.29, 0.40, 0.68)]
    palette += [(0.55, 0.35, 0.60), (0.45, 0.60, 0.25)]
    limbs: dict[int, int] = {}
    colours = []
    for geom in geoms:
        body, depth = int(model.geom_bodyid[geom]), 0
        while model.body_parentid[body] and model.body_parentid[int(model.body_parentid[body])]:
            body, depth = int(model.body_parentid[body]), depth + 1
        if not model.body_parentid[body]:
            colours.append((0.30, 0.30, 0.33))
            continue
        base = np.array(palette[limbs.setdefault(body, len(limbs)) % len(palette)])
        pale = base + (1 - base) * 0.12 * depth
        colours.append((float(pale[0]), float(pale[1]), float(pale[2])))
    return colours


@dataclass(frozen=True, slots=True)
class Camera:
    """A pinhole camera at `eye` looking at `target`, both (3,) in metres, z up. zoom: focal length, m."""

    eye: Array
    target: Array
    zoom: float = 1.0

    def project(self, points: Array) -> tuple[Array, Array]:
        """(n, 3) -> positions on the picture (n, 2) and depths (n,); what is behind the camera has depth 0.05."""
        forward = self.target - self.eye
        forward = forward / np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        up = np.cross(right, forward)
        offset = np.atleast_2d(points) - self.eye
        depth = np.maximum(matmul(offset, forward), 0.05)
        return np.stack([matmul(offset, right), matmul(offset, up)], axis=1) * (self.zoom / depth)[:, None], depth


def beside(path: Array, *, distance: float, height: float) -> Camera:
    """A camera beside a path (n, 2): level with its middle, the path running from left to right."""
    along = path[-1] - path[0]
    length = float(np.linalg.norm(along))
    along = along / length if length > 1e-6 else np.array([1.0, 0.0])
    side = np.array([along[1], -along[0]])
    middle = (path[0] + path[-1]) / 2
    eye = np.array([*(middle + side * distance), height])
    return Camera(eye, np.array([*middle, 0.35]))


def draw(axes: Any, camera: Camera, capsules: Sequence[Capsule], *, alpha: float = 1.0) -> None:
    """Put a pose on matplotlib axes: shadows, then capsules from far to near, each with a highlight."""
    from matplotlib.patches import Polygon

    for capsule in capsules:
        axes.add_patch(Polygon(_shadow(camera, capsule), closed=True, fc="black", alpha=0.10 * alpha, lw=0, zorder=2))
    eye = camera.eye
    far_first = sorted(capsules, key=lambda c: -float(np.linalg.norm((c.a + c.b) / 2 - eye)))
    for k, capsule in enumerate(far_first):
        base = np.array(capsule.colour)
        mixed = tuple(1 - (1 - base) * alpha)
        edge = tuple(1 - (1 - base * 0.45) * alpha)
        light = tuple(1 - (1 - (base + (1 - base) * 0.45)) * alpha)
        outline = _stadium(camera, capsule, 1.0)
        axes.add_patch(Polygon(outline, closed=True, fc=mixed, ec=edge, lw=0.7, zorder=3 + 0.001 * k))
        shine = _stadium(camera, capsule, 0.42, lift=0.38)
        axes.add_patch(Polygon(shine, closed=True, fc=light, lw=0, alpha=0.75, zorder=3.0005 + 0.001 * k))


def floor(axes: Any, camera: Camera, centre: Array, *, half: float, step: float = 1.0) -> None:
    """A grid of lines on the ground around `centre` (2,), `half` metres each way."""
    from matplotlib.collections import LineCollection

    low = np.floor((centre - half) / step) * step
    ticks = np.arange(0, 2 * half + step, step)
    forward = camera.target - camera.eye
    lines = []
    for t in ticks:
        for a, b in (((t, 0), (t, 2 * half)), ((0, t), (2 * half, t))):
            line = np.array([[*(low + a), 0.0], [*(low + b), 0.0]])
            ends = _in_front(line, camera.eye, forward / np.linalg.norm(forward))
            if ends is not None:
                lines.append(camera.project(ends)[0])
    axes.add_collection(LineCollection(lines, colors="#d9dcdf", linewidths=0.6, zorder=1))


def _in_front(ends: Array, eye: Array, forward: Array, near: float = 0.3) -> Array | None:
    """A line's part that lies in front of the camera."""
    depth = matmul(ends - eye, forward)
    if (depth < near).all():
        return None
    if (depth >= near).all():
        return ends
    behind = int(np.argmin(depth))
    share = (near - depth[behind]) / (depth[1 - behind] - depth[behind])
    clipped = ends.copy()
    clipped[behind] = ends[behind] + share * (ends[1 - behind] - ends[behind])
    return clipped


def _stadium(camera: Camera, capsule: Capsule, size: float, lift: float = 0.0) -> Array:
    """Outline (n, 2) of a capsule as the camera sees it; `lift` moves it up by that share of its radius."""
    ends, depth = camera.project(np.stack([capsule.a, capsule.b]))
    radii = capsule.radius * camera.zoom / depth
    ends = ends + np.stack([np.zeros(2), lift * radii], axis=1)
    return _round(ends, radii * size)


def _shadow(camera: Camera, capsule: Capsule) -> Array:
    """Outline of a capsule's shadow on the ground."""
    ground = np.stack([end - LIGHT * (end[2] / LIGHT[2]) for end in (capsule.a, capsule.b)])
    ring = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    circle = np.stack([np.cos(ring), np.sin(ring), 0 * ring], axis=1) * capsule.radius
    points, _ = camera.project(np.concatenate([ground[0] + circle, ground[1] + circle]))
    return _hull(points)


def _round(ends: Array, radii: Array) -> Array:
    along = ends[1] - ends[0]
    angle = float(np.arctan2(along[1], along[0]))
    first = angle + np.pi / 2 + _ARC
    second = angle - np.pi / 2 + _ARC
    return np.concatenate(
        [
            ends[0] + radii[0] * np.stack([np.cos(first), np.sin(first)], axis=1),
            ends[1] + radii[1] * np.stack([np.cos(second), np.sin(second)], axis=1),
        ]
    )


def _hull(points: Array) -> Array:
    """Convex hull (Andrew's monotone chain), counter-clockwise."""
    order = points[np.lexsort((points[:, 1], points[:, 0]))]

    def half(rows: Array) -> list[Array]:
        chain: list[Array] = []
        for row in rows:
            while len(chain) > 1 and _turn(chain[-2], chain[-1], row) <= 0:
                chain.pop()
            chain.append(row)
        return chain[:-1]

    return np.array(half(order) + half(order[::-1]))


def _turn(a: Array, b: Array, c: Array) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))
