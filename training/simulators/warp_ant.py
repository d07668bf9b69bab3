"""Ant-v4 in MuJoCo Warp: thousands of worlds on a GPU, or a few on the CPU. One of the doors of warp and mujoco_warp.

The model is the file Gymnasium ships, the rest of the task is `nervecord.training.simulators.warp_kernels`. On a GPU one step of
all worlds is one CUDA graph, and nothing is copied to the host; on the CPU the kernels are launched one by one.
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
from nervecord.training.simulators.base import StepResult, TensorStep  # noqa: E402
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
        seeds: one for each world.
        device: torch device the worlds live on, "cpu" or a CUDA device.

    Raises:
        NervecordError: Warp cannot use the device.
    """

    observation_size = OBSERVATIONS
    choices = 0

    def __init__(self, seeds: list[int], device: str = "cpu") -> None:
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

    def reset(self) -> Array:
        """First observations, (N, 27) float64."""
        return self.reset_tensors().cpu().numpy().astype(np.float64)

    def step(self, actions: Array) -> StepResult:
        """Apply actions (N, 8); everything passes through the host."""
        result = self.step_tensors(torch.from_numpy(np.asarray(actions, np.float32)).to(self._action_view.device))
        return StepResult(
            result.observations.cpu().numpy().astype(np.float64),
            result.rewards.cpu().numpy().astype(np.float64),
            result.terminated.cpu().numpy(),
            result.truncated.cpu().numpy(),
        )

    def reset_tensors(self) -> Tensor:
        """First observations, (N, 27) float32 on the device."""
        with self._stream():
            self._finish()
        return self._views[0].clone()

    def step_tensors(self, actions: Tensor) -> TensorStep:
        """Apply actions (N, 8) that lie on the device; so do the results, which no later step touches."""
        self._action_view.copy_(actions)
        with self._stream():
            if self._graph is None:
                self._advance()
            else:
                wp.capture_launch(self._graph)
        return TensorStep(*(view.clone() for view in self._views))

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
            (self._data.qpos, place), (self._data.qvel, qvel), (self._data.qacc_warmstart, start), (self._lead, lead),
        ):  # fmt: skip
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
                self._actions, self._done, self._seeds, self._episodes, self._qpos0,
                data.qpos, data.qvel, data.qacc_warmstart, data.ctrl,
            ],
        )  # fmt: skip
        for _ in range(FRAME_SKIP):
            mujoco_warp.step(self._model, data)
        self._finish()

    def _finish(self) -> None:
        data = self._data
        wp.launch(
            after_physics,
            dim=self.num_envs,
            inputs=[
                self._actions, data.xpos, self._seeds, self._qpos0, self._done, self._episodes, self._elapsed,
                self._diverged, self._lead, data.qpos, data.qvel, data.qacc_warmstart,
                self._observations, self._rewards, self._terminated, self._truncated,
            ],
        )  # fmt: skip


def model_file() -> Path:
    """The ant.xml of the installed Gymnasium."""
    found = importlib.util.find_spec("gymnasium")
    assert found is not None, "a dependency of the extra that brings MuJoCo"
    assert found.origin is not None
    return Path(found.origin).parent / "envs" / "mujoco" / "assets" / "ant.xml"


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
