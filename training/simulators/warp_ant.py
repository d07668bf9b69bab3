"""Ant-v4 in MuJoCo Warp: thousands of worlds on a GPU, or a few on the CPU. One of the doors of warp and mujoco_warp.

The model is the file Gymnasium ships, the rest of the task is `warp_kernels`. On a GPU one step of all
worlds is one CUDA graph, and nothing is copied to the host; on the CPU the kernels are launched one by one.
"""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

# Warp prints what it compiles to stdout, which belongs to results.
wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)

import mujoco  # noqa: E402
import mujoco_warp  # noqa: E402

from nervecord.errors import NervecordError  # noqa: E402
from nervecord.training.simulators.base import Step  # noqa: E402
from nervecord.training.simulators.warp_contact import use_mujoco_frame  # noqa: E402
from nervecord.training.simulators.warp_kernels import ACTIONS, OBSERVATIONS, after_physics, before_physics  # noqa: E402

Array = NDArray[Any]

FRAME_SKIP = 5
"""Physics steps for each action."""
CONTACTS = 25
"""Contacts one ant can have: the torso's one and two of each of 12 capsules, with the floor; legs pass through legs."""
CONSTRAINTS = 4 * CONTACTS + 8
"""Rows they make: four edges of each friction pyramid, and 8 joint limits."""


class WarpAnt:
    """Ant-v4 in MuJoCo Warp, a world for each seed.

    Args:
        env: Ant-v4. seeds: one for each world.
        device: torch device the worlds live on, "cpu" or a CUDA device.

    Raises:
        NervecordError: Warp cannot use the device.
    """

    observation_size = OBSERVATIONS
    choices = 0
    time_limit = 1000
    can_cut = True
    control_period: float | None = None

    def __init__(self, env: str, seeds: list[int], device: str = "cpu") -> None:
        self.num_envs = len(seeds)
        self.low, self.high = np.full(ACTIONS, -1.0), np.ones(ACTIONS)
        self._device = _warp_device(device)
        use_mujoco_frame()
        model = mujoco.MjModel.from_xml_path(str(model_file()))
        with wp.ScopedDevice(self._device):
            self._model = mujoco_warp.put_model(model)
            self._data = mujoco_warp.make_data(model, nworld=len(seeds), nconmax=CONTACTS, njmax=CONSTRAINTS)
            self._seeds = wp.array(np.asarray(seeds, np.int64).astype(np.int32), dtype=wp.int32)
            self._qpos0 = wp.array(model.qpos0.astype(np.float32), dtype=wp.float32)
            self._actions = wp.zeros((len(seeds), ACTIONS), dtype=wp.float32)
            self._done = wp.ones(len(seeds), dtype=wp.bool)
            self._episodes, self._elapsed, self._diverged = (wp.zeros(len(seeds), dtype=wp.int32) for _ in range(3))
            self._lead = wp.zeros(len(seeds), dtype=wp.float32)
            self._observations = wp.zeros((len(seeds), OBSERVATIONS), dtype=wp.float32)
            self._rewards = wp.zeros(len(seeds), dtype=wp.float32)
            self._terminated, self._truncated = (wp.zeros(len(seeds), dtype=wp.bool) for _ in range(2))
            self._graph = self._capture() if self._device.is_cuda else None
        views = (self._actions, self._observations, self._rewards, self._terminated, self._truncated)
        self._action_view, *self._views = (wp.to_torch(array) for array in views)
        saved = {
            "seeds": self._seeds,
            "qpos": self._data.qpos,
            "qvel": self._data.qvel,
            "qacc_warmstart": self._data.qacc_warmstart,
            "done": self._done,
            "episodes": self._episodes,
            "elapsed": self._elapsed,
            "diverged": self._diverged,
            "lead": self._lead,
        }
        self._saved = {name: wp.to_torch(array) for name, array in saved.items()}
        self.device = self._action_view.device

    def reset(self) -> Tensor:
        """First observations, (N, 27) float32 on the device."""
        with self._stream():
            self._finish()
        return self._views[0].clone()

    def step(self, actions: Tensor) -> Step:
        """Apply actions (N, 8) that lie on the device; so do the results, which no later step touches."""
        self._action_view.copy_(actions)
        with self._stream():
            if self._graph is None:
                self._advance()
            else:
                wp.capture_launch(self._graph)
        return Step(*(view.clone() for view in self._views))

    def cut(self, where: Tensor) -> None:
        """End episodes, (N,) bool: the next step only resets these worlds."""
        self._saved["done"].logical_or_(where)

    def state_dict(self) -> dict[str, Any]:
        """The state of all worlds."""
        return {name: view.cpu().clone() for name, view in self._saved.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from what `state_dict` gave, in place of `reset`."""
        for name, values in state.items():
            self._saved[name].copy_(values)

    def set_state(self, qpos: Array, qvel: Array, torso_x: Array | None = None, warmstart: Array | None = None) -> None:
        """Put every world into a state, in the middle of an episode.

        Args:
            qpos: MuJoCo's positions, (N, 15).
            qvel: its velocities, (N, 14).
            torso_x: x of the torso as Gymnasium sees it before the next step, (N,); None: that of `qpos`.
            warmstart: MuJoCo's qacc_warmstart, where the solver begins, (N, 14); None: zeros.
        """
        place = np.array(qpos, np.float64)
        lead = np.zeros(self.num_envs) if torso_x is None else np.asarray(torso_x) - place[:, 0]
        place[:, :2] = 0.0
        start = np.zeros_like(qvel) if warmstart is None else warmstart
        for array, values in (
            (self._data.qpos, place),
            (self._data.qvel, qvel),
            (self._data.qacc_warmstart, start),
            (self._lead, lead),
        ):
            array.assign(np.asarray(values, np.float32))
        self._done.zero_()

    def diverged(self) -> int:
        """Steps so far after which a state was not finite.

        Such an episode is terminated, without a forward reward; what is observed is the state before.
        """
        return int(self._diverged.numpy().sum())

    def close(self) -> None:
        """Nothing to do: the memory goes with the object."""

    def _stream(self) -> AbstractContextManager[Any]:
        """Launches go to the device and, on a GPU, into torch's stream: in order with torch's own work."""
        if self._device.is_cuda:
            return wp.ScopedStream(wp.stream_from_torch(wp.device_to_torch(self._device)), sync_enter=False)
        return wp.ScopedDevice(self._device)

    def _capture(self) -> Any:
        self._advance()  # compiles and loads, which a capture must not
        with wp.ScopedCapture(device=self._device) as capture:
            self._advance()
        self._done.fill_(True)
        for counter in (self._episodes, self._elapsed, self._diverged):
            counter.zero_()
        wp.synchronize_device(self._device)
        return capture.graph

    def _advance(self) -> None:
        data = self._data
        wp.launch(
            before_physics,
            dim=self.num_envs,
            inputs=[
                self._actions,
                self._done,
                self._seeds,
                self._episodes,
                self._qpos0,
                data.qpos,
                data.qvel,
                data.qacc_warmstart,
                data.ctrl,
            ],
        )
        for _ in range(FRAME_SKIP):
            mujoco_warp.step(self._model, data)
        self._finish()

    def _finish(self) -> None:
        data = self._data
        wp.launch(
            after_physics,
            dim=self.num_envs,
            inputs=[
                self._actions,
                data.xpos,
                self._seeds,
                self._qpos0,
                self._done,
                self._episodes,
                self._elapsed,
                self._diverged,
                self._lead,
                data.qpos,
                data.qvel,
                data.qacc_warmstart,
                self._observations,
                self._rewards,
                self._terminated,
                self._truncated,
            ],
        )


def model_file() -> Path:
    """The ant.xml of the installed Gymnasium."""
    package = importlib.util.find_spec("gymnasium")
    assert package is not None, "a dependency of the extra that brings MuJoCo"
    assert package.origin is not None
    return Path(package.origin).parent / "envs" / "mujoco" / "assets" / "ant.xml"


def _warp_device(name: str) -> Any:
    wp.init()
    device = torch.device(name)
    if device.type == "cuda" and device.index is None and torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
    try:
        return wp.get_device(str(device))
    except (RuntimeError, ValueError) as error:
        usable = ", ".join(str(each) for each in wp.get_devices())
        raise NervecordError(
            f"Warp cannot use {name!r} here", where="--device", hint=f"with --sim warp choose from: {usable}"
        ) from error
