"""Simulators behind one small protocol.

All step a batch of environments of one Gymnasium task and reset an environment in the step AFTER its episode ended
(Gymnasium's AutoresetMode.NEXT_STEP): that step ignores the action, gives reward 0 and the first observation of the
next episode. A learner leaves those steps out. All are seeded with one seed for each environment.
"""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from nervecord.errors import MissingDependencyError, NervecordError, install_command, unknown_name
from nervecord.runtime.environment import choices_of, stated_period

if TYPE_CHECKING:
    from torch import Tensor

Array = NDArray[Any]

KINDS = ("auto", "envpool", "gymnasium", "warp", "isaacgym", "isaaclab")
"""Simulators by name; "auto" is EnvPool or Gymnasium."""

TRAINING, VALIDATION, TEST = 0, 1, 2
"""Purposes of a simulator: each draws its environments' seeds from a stream of its own."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step of all environments: observations (N, observations) float64, rewards (N,) float64, ends (N,) bool."""

    observations: Array
    rewards: Array
    terminated: Array
    truncated: Array


class Simulator(Protocol):
    """A batch of environments with NEXT_STEP autoreset."""

    num_envs: int
    observation_size: int
    low: Array
    """Least action, (actions,) float64."""
    high: Array
    """Greatest action, (actions,) float64."""
    choices: int
    """Number of actions to choose from, where an action is one value, the number of the one chosen; else 0."""

    def reset(self) -> Array:
        """First observations, (N, observations) float64. To be called once."""
        ...

    def step(self, actions: Array) -> StepResult:
        """Apply actions (N, actions) within the limits; choices are (N, 1), whole numbers."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


@dataclass(frozen=True, slots=True)
class TensorStep:
    """`StepResult` as torch tensors on the simulator's device: observations and rewards float32, ends bool."""

    observations: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor


@runtime_checkable
class DeviceSimulator(Simulator, Protocol):
    """A simulator on the learner's device, which also takes and gives tensors there: no step need pass the host."""

    def reset_tensors(self) -> Tensor:
        """As `reset`: first observations, (N, observations) float32."""
        ...

    def step_tensors(self, actions: Tensor) -> TensorStep:
        """As `step`, for actions (N, actions); a later step does not change what this one gave."""
        ...


def environment_seeds(seed: int, purpose: int, generation: int, count: int) -> list[int]:
    """One seed for each environment; other purposes and generations share none but by chance."""
    words = np.random.SeedSequence((seed, purpose, generation)).generate_state(count, np.uint32)
    return [int(word >> 1) for word in words]  # EnvPool takes signed 32-bit seeds


def make_simulator(
    env: str, seeds: list[int], *, kind: str = "auto", threads: int = 1, device: str = "cpu"
) -> Simulator:
    """A simulator with one environment for each seed.

    Args:
        env: Gymnasium id; for Isaac Gym the name of its task.
        seeds: one for each environment.
        kind: "envpool", "gymnasium", "warp" (MuJoCo Warp, Ant-v4 alone), "isaacgym", "isaaclab", or "auto": EnvPool
            where it is installed and knows the task, else Gymnasium.
        threads: threads EnvPool steps its environments with.
        device: torch device MuJoCo Warp, Isaac Gym and Isaac Lab run on; the others run on the CPU.

    Raises:
        MissingDependencyError: the simulator asked for is not installed.
        NervecordError: the task is unknown to it, its spaces cannot be trained, or the device cannot be used.
    """
    if kind not in KINDS:
        raise unknown_name("simulator", kind, KINDS, where="--sim")
    if kind == "auto":
        kind = resolve_kind(env)
    if kind == "envpool":
        return EnvPoolSimulator(env, seeds, threads)
    if kind == "warp":
        check_warp(env)
        from nervecord.training.warp_ant import WarpAnt

        return WarpAnt(seeds, device)
    if kind == "isaacgym":
        from nervecord.training.isaac_gym import IsaacGymSimulator

        return IsaacGymSimulator(env, seeds, device)
    if kind == "isaaclab":
        from nervecord.training.isaac_lab import IsaacLabSimulator

        return IsaacLabSimulator(env, seeds, device)
    return GymnasiumSimulator(env, seeds)


def resolve_kind(env: str) -> str:
    """The simulator "auto" stands for: "envpool" where it is installed and knows the task, else "gymnasium"."""
    if importlib.util.find_spec("envpool") is None:
        return "gymnasium"
    import envpool

    return "envpool" if env in envpool.list_all_envs() else "gymnasium"


def check_warp(env: str) -> None:
    """Refuse what MuJoCo Warp cannot do here.

    Raises:
        NervecordError: it has no such task, or another version than MuJoCo.
        MissingDependencyError: it is not installed.
    """
    if env != "Ant-v4":
        raise NervecordError(
            f"{env} is no task of the simulator warp, which has Ant-v4 alone", where="--env", hint="use --sim auto"
        )
    found: dict[str, str] = {}
    for name in ("mujoco", "mujoco-warp", "warp-lang"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError as error:
            raise MissingDependencyError(
                f"{name} is not installed", where="--sim warp", hint=install_command("train,warp")
            ) from error
    if found["mujoco"] != found["mujoco-warp"]:
        raise NervecordError(
            f"MuJoCo Warp {found['mujoco-warp']} is not of the version of MuJoCo, {found['mujoco']}",
            where="--sim warp",
            hint=f"pip install mujoco-warp=={found['mujoco']}",
        )


def _limits(env: str, observation_space: Any, action_space: Any) -> tuple[int, Array, Array, int]:
    """Size of an observation, limits of an action, and the number of choices, 0 where an action is values."""
    if not _is_flat(observation_space):
        raise NervecordError(f"its observation space is {observation_space}, a flat Box is needed", where=env)
    size, count = int(observation_space.shape[0]), choices_of(action_space)
    if count and action_space.start != 0:
        raise NervecordError(f"numbers its actions from {action_space.start}, 0 is needed", where=env)
    if count:
        return size, np.zeros(1), np.array([count - 1.0]), count
    if not _is_flat(action_space):
        raise NervecordError(f"its action space is {action_space}, a flat Box or Discrete is needed", where=env)
    low, high = (np.asarray(side, np.float64) for side in (action_space.low, action_space.high))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise NervecordError("its actions have no limits, finite ones are needed", where=env)
    return size, low, high, 0


def _is_flat(space: Any) -> bool:
    return type(space).__name__ == "Box" and len(space.shape) == 1


ENVPOOL_OPTIONS: dict[str, dict[str, Any]] = {
    # Gymnasium's observation holds the contact forces, which EnvPool leaves at zero in its v4 unless asked.
    "Humanoid-v4": {"post_constraint": True},
    "HumanoidStandup-v4": {"post_constraint": True},
}
"""What EnvPool must be told to give Gymnasium's task."""


class EnvPoolSimulator:
    """EnvPool's environments, stepped by its own threads."""

    def __init__(self, env: str, seeds: list[int], threads: int) -> None:
        try:
            import envpool
        except ImportError as error:
            raise MissingDependencyError(
                "EnvPool is not installed", where="--sim envpool", hint="pip install envpool, or use --sim gymnasium"
            ) from error
        known = envpool.list_all_envs()
        if env not in known:
            raise unknown_name("EnvPool task", env, known, where="--env")
        # A list of seeds: with one seed EnvPool gives environment i the seed + i, so that runs with neighbouring
        # seeds share environments; and its reset(seed=...) does nothing.
        self._pool: Any = envpool.make(
            env,
            env_type="gymnasium",
            num_envs=len(seeds),
            num_threads=min(threads, len(seeds)),
            seed=seeds[0],
            env_seed=seeds,
            **ENVPOOL_OPTIONS.get(env, {}),
        )
        self.num_envs = len(seeds)
        with warnings.catch_warnings():
            # Gymnasium's Box warns of limits that float32 rounds.
            warnings.simplefilter("ignore", UserWarning)
            spaces = (self._pool.observation_space, self._pool.action_space)
        self.observation_size, self.low, self.high, self.choices = _limits(env, *spaces)

    def reset(self) -> Array:
        observations, _ = self._pool.reset()
        return np.asarray(observations, np.float64)

    def step(self, actions: Array) -> StepResult:
        given = actions[:, 0].astype(np.int32) if self.choices else np.asarray(actions, np.float64)
        observations, rewards, terminated, truncated, _ = self._pool.step(given)
        return StepResult(np.asarray(observations, np.float64), np.asarray(rewards, np.float64), terminated, truncated)

    def close(self) -> None:
        # EnvPool's close does nothing: its threads end with the object.
        self._pool = None


class GymnasiumSimulator:
    """Gymnasium's vector environment in this process; slower than EnvPool, and everywhere."""

    def __init__(self, env: str, seeds: list[int]) -> None:
        try:
            import gymnasium
        except ImportError as error:
            raise MissingDependencyError(
                "Gymnasium is not installed", where="--sim gymnasium", hint=install_command("mujoco")
            ) from error
        if env not in gymnasium.registry:
            raise unknown_name("Gymnasium task", env, gymnasium.registry, where="--env")
        with warnings.catch_warnings():
            # Ant-v4 says that there is an Ant-v5, which is another task.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._vector = gymnasium.make_vec(
                env,
                num_envs=len(seeds),
                vectorization_mode="sync",
                vector_kwargs={"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP},
            )
        self._seeds = seeds
        self.num_envs = len(seeds)
        self.observation_size, self.low, self.high, self.choices = _limits(
            env, self._vector.single_observation_space, self._vector.single_action_space
        )

    def reset(self) -> Array:
        observations, _ = self._vector.reset(seed=self._seeds)  # type: ignore[arg-type]  # a vector takes a list
        return np.asarray(observations, np.float64)

    def step(self, actions: Array) -> StepResult:
        given = actions[:, 0].astype(np.int64) if self.choices else np.asarray(actions)
        observations, rewards, terminated, truncated, _ = self._vector.step(given)
        return StepResult(np.asarray(observations, np.float64), np.asarray(rewards, np.float64), terminated, truncated)

    def close(self) -> None:
        self._vector.close()


def control_period(env: str) -> float:
    """Seconds between two actions of a Gymnasium task.

    Raises:
        MissingDependencyError: Gymnasium is not installed.
        NervecordError: the task is unknown, or says nothing about time.
    """
    try:
        import gymnasium
    except ImportError as error:
        raise MissingDependencyError("Gymnasium is not installed", where=env, hint=install_command("train")) from error
    if env not in gymnasium.registry:
        raise unknown_name("Gymnasium task", env, gymnasium.registry, where="--env")
    with warnings.catch_warnings():
        # Ant-v4 says that there is an Ant-v5, which is another task.
        warnings.simplefilter("ignore", DeprecationWarning)
        instance = gymnasium.make(env)
    try:
        period = stated_period(instance)
        if period is None and instance.metadata.get("render_fps"):
            period = 1 / instance.metadata["render_fps"]
    finally:
        instance.close()
    if period is None or not period > 0:
        raise NervecordError("says neither dt, tau nor render_fps, so the time between actions is unknown", where=env)
    return float(period)
