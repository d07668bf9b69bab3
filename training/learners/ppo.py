"""skrl's PPO, and the one module that imports skrl.

skrl's rules are kept; what it leaves to its user for a simulator with NEXT_STEP autoreset is added through its own
seams, a Memory, a preprocessor and the models:

- The dummy steps in which an environment is reset are stored, as skrl stores all steps, but never sampled and not
  counted in the normalisation of advantages. They leak into no real step: the one before them ended an episode.
- A truncated episode, and one still running when the rollout ends, is continued by the critic's value.
- The observation statistics stand still from the first step of a rollout to the end of its update (skrl moves them
  during the first epoch, so that the first probability ratios are not 1), then take in the rollout.
- Neuron state that is carried from action to action goes through skrl's `states`: recorded before each action and
  given back, without gradient, in the update.

Several processes learn as one (`nervecord.training.distributed`): the same seams reduce over them.
"""

from __future__ import annotations

import logging
import math
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from nervecord.errors import NervecordError
from nervecord.training.config import TrainConfig
from nervecord.training.distributed import SOLO, Group
from nervecord.training.launch import launch
from nervecord.training.policy.mirror import mirror_of
from nervecord.training.policy.network import critic_network, make_policy

if TYPE_CHECKING:
    from nervecord.training.policy.categorical import CategoricalActor


def _import_skrl() -> None:
    """Import skrl without what it does on the way: a DEBUG log on the console, a process group, unchecked Normals."""
    launch()  # refuses an environment of several processes that is not torchrun's
    checked = torch.distributions.Distribution._validate_args
    # skrl would make a group here and now, with NCCL also where there is no card.
    world = os.environ.pop("WORLD_SIZE", None)
    try:
        from skrl.models import torch as _models  # type: ignore[import-untyped]  # noqa: F401 - it is this import that switches the checks off
    finally:
        if world is not None:
            os.environ["WORLD_SIZE"] = world

    torch.distributions.Distribution.set_default_validate_args(checked)
    logger = logging.getLogger("skrl")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.setLevel(logging.WARNING)


_import_skrl()

from gymnasium.spaces import Box  # noqa: E402
from skrl import config as skrl_config  # type: ignore[import-untyped]  # noqa: E402
from skrl.agents.torch.ppo import PPO, PPO_CFG  # type: ignore[import-untyped]  # noqa: E402
from skrl.memories.torch import RandomMemory  # type: ignore[import-untyped]  # noqa: E402
from skrl.models.torch import DeterministicMixin, Model  # type: ignore[import-untyped]  # noqa: E402
from skrl.resources.preprocessors.torch import RunningStandardScaler  # type: ignore[import-untyped]  # noqa: E402

LOG_TWO_PI = math.log(2 * math.pi)


Agent = PPO
"""skrl's agent: the update, over the memory, of networks and statistics."""


def check_device(name: str) -> torch.device:
    """The torch device of that name.

    Raises:
        NervecordError: torch does not know it or cannot use it here (skrl would take another without a word).
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        usable = ["cpu"] + [f"cuda:{index}" for index in range(torch.cuda.device_count())]
        raise NervecordError(
            f"torch cannot use {name!r} here", where="--device", hint=f"choose from: {', '.join(usable)}"
        ) from error
    return device


class StillScaler(RunningStandardScaler):  # type: ignore[misc]
    """skrl's running standard scaler, whose statistics move only in `absorb`."""

    group: Group = SOLO

    def forward(
        self, x: Tensor | None, *, train: bool = False, inverse: bool = False, no_grad: bool = True
    ) -> Tensor | None:
        """Normalise as skrl does; `train` is not followed."""
        del train
        result: Tensor | None = super().forward(x, train=False, inverse=inverse, no_grad=no_grad)
        return result

    def absorb(self, x: Tensor) -> None:
        """Take observations (n, size) into the statistics, with those that other processes give."""
        if self.group.several:
            count, mean, variance = self.group.moments(x)
            if count > 1:
                self._parallel_variance(mean, variance, int(count))
        elif len(x) > 1:
            self._parallel_variance(x.double().mean(0), x.double().var(0), len(x))


class MaskedMemory(RandomMemory):  # type: ignore[misc]
    """A rollout memory that knows which of its steps are real.

    `real` (envs,) is set before each `add_samples`: False where the step only reset the environment.
    """

    def __init__(self, *, memory_size: int, num_envs: int, device: torch.device, group: Group = SOLO) -> None:
        super().__init__(memory_size=memory_size, num_envs=num_envs, device=device)
        self.group = group
        self.create_tensor("real", size=1, dtype=torch.bool)
        self.real = torch.ones(num_envs, dtype=torch.bool)

    def add_samples(self, **tensors: Tensor) -> None:
        """Store one step of all environments."""
        super().add_samples(**tensors, real=self.real.to(self.device)[:, None])

    def set_tensor_by_name(self, name: str, tensor: Tensor) -> None:
        """Store a tensor; advantages are made again from returns and values, and normalised over real steps alone."""
        if name == "advantages":
            tensor = self.tensors["returns"] - self.tensors["values"]
            real = tensor[self.tensors["real"]]
            if self.group.several:
                _, mean, variance = self.group.moments(real[:, None])
                tensor = (tensor - mean.float()) / (variance.sqrt().float() + 1e-8)
            else:
                tensor = (tensor - real.mean()) / (real.std() + 1e-8)
        super().set_tensor_by_name(name, tensor)

    def sample(
        self, names: list[str], *, batch_size: int, mini_batches: int = 1, sequence_length: int = 1
    ) -> list[list[Tensor | None]]:
        """All real steps in random order, cut into near-equal minibatches."""
        del batch_size, sequence_length
        steps = self.tensors_view["real"][:, 0].nonzero()[:, 0]
        order = steps[torch.randperm(len(steps)).to(steps.device)]
        return [
            [self.tensors_view[name][part] if name in self.tensors else None for name in names]
            for part in order.tensor_split(mini_batches)
        ]


class SharedModel(Model):  # type: ignore[misc]
    """A model whose copies in several processes stay equal; skrl calls these where it was told that there are any."""

    group: Group = SOLO

    def broadcast_parameters(self, *, rank: int = 0) -> None:
        """Take the first process's parameters."""
        del rank
        self.group.broadcast(self)

    def reduce_parameters(self) -> None:
        """Nothing: the policy's reduces the critic's gradients too."""


class Actor(SharedModel):
    """A policy of `nervecord.training.policy.network` with Gaussian noise of state-independent size, as skrl wants it."""

    def __init__(self, observations: int, actions: int, config: TrainConfig, device: torch.device) -> None:
        spaces = {"observation_space": box(observations), "action_space": box(actions)}
        super().__init__(**spaces, device=device)
        self.net = make_policy(observations, actions, config)
        learnt = config.noise == "learnt"
        self.log_std = nn.Parameter(torch.full((actions,), config.log_std), requires_grad=learnt)
        self.mirror = mirror_of(config.env).actions if config.mirror else None
        self._mean = torch.zeros(1, actions)
        self.gradients_with: list[nn.Parameter] = []
        """Parameters whose gradients are reduced, in one go as each reduction costs a round trip."""

    def reduce_parameters(self) -> None:
        """Average all gradients over the processes, before skrl limits their norm."""
        self.group.mean_gradients(self.gradients_with, len(self._mean))

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """Action means (B, actions), and the next state under "state"."""
        del role
        mean, state = self.net(inputs["observations"], inputs.get("states"))
        return mean, {"state": state}

    def spread(self) -> Tensor:
        """Log standard deviation of each action's noise, (actions,); that of a mirrored pair is one."""
        return self.log_std if self.mirror is None else (self.log_std + self.log_std[self.mirror.order]) / 2

    def act(self, inputs: dict[str, Any], *, role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """Actions, drawn unless "taken_actions" gives them, and their log probability (B, 1)."""
        mean, outputs = self.compute(inputs, role)
        self._mean = mean
        log_std = self.spread()
        std = log_std.exp()
        actions = inputs.get("taken_actions")
        if actions is None:
            actions = mean + std * torch.randn_like(mean)
        squares = ((actions - mean) / std).square().sum(-1, keepdim=True)
        outputs["log_prob"] = -0.5 * squares - (log_std.sum() + 0.5 * LOG_TWO_PI * mean.shape[-1])
        outputs["mean_actions"] = mean
        return actions, outputs

    def exploration(self) -> dict[str, float | None]:
        """How much actions vary: "log_std" of values, "entropy" of choices."""
        return {"log_std": float(self.log_std.detach().mean()), "entropy": None}

    def mode(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Actions without noise for normalised observations, and the next state."""
        mean, after = self.net(x, state)
        return mean, after

    def distribution(self, *, role: str = "") -> Normal:
        """Distribution of the last actions."""
        del role
        # Unchecked: a training that diverged is told from its losses, with a sentence.
        return Normal(self._mean, self.spread().exp(), validate_args=False)

    def get_entropy(self, *, role: str = "") -> Tensor:
        """Entropy of the last actions, (B, 1)."""
        return self.distribution(role=role).entropy().sum(-1, keepdim=True)  # type: ignore[no-untyped-call]


def make_actor(
    observations: int, actions: int, choices: int, config: TrainConfig, device: torch.device
) -> Actor | CategoricalActor:
    """The policy as skrl wants it: of values, or of `choices` actions to choose from."""
    if not choices:
        return Actor(observations, actions, config, device)
    if config.noise != "learnt":
        raise NervecordError(
            f"is {config.noise!r}, and {config.env} lets choose among {choices} actions, whose draw has no such size",
            where="--noise",
            hint="use --entropy to keep the choice open",
        )
    from nervecord.training.policy.categorical import CategoricalActor  # it is made of this module's models

    return CategoricalActor(observations, choices, config, device)


class Critic(DeterministicMixin, SharedModel):  # type: ignore[misc]
    """A tanh network from normalised observations to a value."""

    def __init__(self, observations: int, actions: int, config: TrainConfig, device: torch.device) -> None:
        Model.__init__(self, observation_space=box(observations), action_space=box(actions), device=device)
        DeterministicMixin.__init__(self)
        self.net = critic_network(observations, config)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        """Values (B, 1)."""
        del role
        return self.net(inputs["observations"]), {}


def box(size: int) -> Box:
    """A space of `size` numbers without limits, as skrl wants spaces."""
    return Box(-math.inf, math.inf, (size,))


def _tell_skrl(group: Group) -> None:
    """Whether skrl is to call the models' reductions; it reads that from the environment when it is imported."""
    settings = skrl_config.torch
    settings._rank, settings._local_rank, settings._world_size = group.rank, group.local_rank, group.world
    settings._is_distributed = group.several
    assert settings.is_distributed == group.several
    assert settings.world_size == group.world


class Learner:
    """skrl's PPO agent over one rollout memory.

    Drive it with `act` and `record` for each step; the update runs inside the `record` that fills the memory. Of
    several processes each has one, over its share of the environments (N = num_envs / processes).

    Args:
        observations, actions: sizes of an observation and an action.
        config: of the run.
        group: the processes that learn together.
        choices: number of actions to choose from, an action being the number of one; 0 where actions are values.
    """

    algorithm = Agent

    def __init__(
        self, observations: int, actions: int, config: TrainConfig, group: Group = SOLO, *, choices: int = 0
    ) -> None:
        device = check_device(group.device(config.device))
        self.config, self.device = config, device
        num_envs = group.share(config.num_envs)
        self.actor = make_actor(observations, actions, choices, config, device)
        self.critic = Critic(observations, actions, config, device)
        self.actor.group = self.critic.group = group
        self.actor.gradients_with = self.parameters()
        self.memory = MaskedMemory(memory_size=config.rollout, num_envs=num_envs, device=device, group=group)
        _tell_skrl(group)
        state_size = self.actor.net.state_size
        self.agent = self.algorithm(
            models={"policy": self.actor, "value": self.critic},
            memory=self.memory,
            observation_space=box(observations),
            state_space=box(state_size) if state_size else None,
            action_space=box(actions),
            device=device,
            cfg=_ppo_config(config, observations, device),
        )
        self.agent.init()
        self.agent.enable_training_mode(True)
        # One call for all parameters; the loop over them costs more than the arithmetic.
        self.agent.optimizer = torch.optim.Adam(self.parameters(), lr=config.lr, fused=True)
        self.agent.checkpoint_modules["optimizer"] = self.agent.optimizer
        self.scaler: StillScaler = self.agent._observation_preprocessor
        self.scaler.group = group
        self.mirror = mirror_of(config.env) if config.mirror else None
        self.state = torch.zeros(num_envs, state_size, device=device) if state_size else None
        self._next_state = self.state

    def parameters(self) -> list[nn.Parameter]:
        """Parameters of policy and critic."""
        return [p for p in (*self.actor.parameters(), *self.critic.parameters()) if p.requires_grad]

    def set_progress(self, done: float) -> None:
        """Set what follows a schedule, for the next rollout and its update; `done` is the part that is over, 0 to 1."""
        config = self.config
        if config.schedule == "linear":
            for group in self.agent.optimizer.param_groups:
                group["lr"] = config.lr * (1 - done)
        if config.noise == "linear" and isinstance(self.actor, Actor):
            self.actor.log_std.data.fill_(config.log_std + done * (config.log_std_final - config.log_std))

    def clear_state(self, where: Tensor | None = None) -> None:
        """Zero the carried state of the environments where `where` (N,) is true, or of all."""
        if self.state is not None:
            self.state = torch.zeros_like(self.state) if where is None else self.state.masked_fill(where[:, None], 0.0)

    @torch.no_grad()
    def act(self, observations: Tensor) -> Tensor:
        """Noisy actions (N, actions) for observations (N, observations), both raw."""
        actions, outputs = self.agent.act(observations, self.state, timestep=0, timesteps=0)
        self._next_state = outputs["state"]
        return actions

    def record(
        self,
        observations: Tensor,
        actions: Tensor,
        rewards: Tensor,
        next_observations: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        real: Tensor,
        late_rewards: Tensor | None = None,
    ) -> None:
        """Store one step (each (N,) or (N, size)); the last of a rollout runs the update.

        `real` is False where the step only reset an environment. The carried state is cleared there, as the next
        observation is the first of an episode. `late_rewards` (rollout, N), given with a rollout's last step, is added
        to the rewards of all its steps before the update: those that were not known when their step was stored.
        """
        self.memory.real = real
        self.agent.record_transition(
            observations=observations,
            states=self.state,
            actions=actions,
            rewards=rewards[:, None].clone(),
            next_observations=next_observations,
            next_states=self._next_state,
            terminated=terminated[:, None],
            truncated=truncated[:, None],
            infos={},
            timestep=0,
            timesteps=0,
        )
        self.state = self._next_state
        self.clear_state(~real)
        if late_rewards is not None:
            self.memory.tensors["rewards"] += late_rewards[..., None]
        self.agent.post_interaction(timestep=0, timesteps=0)

    def absorb_observations(self) -> None:
        """Take the rollout's observations into the normaliser; to be called after the update."""
        real = self.memory.tensors_view["real"][:, 0]
        observations = self.memory.tensors_view["observations"][real]
        if self.mirror is not None:
            observations = torch.cat([observations, self.mirror.observations(observations)])
        self.scaler.absorb(observations)

    def real_steps(self) -> int:
        """Steps of the last rollout that were not resets."""
        return int(self.memory.tensors["real"].sum())

    def pop_losses(self) -> dict[str, float]:
        """What skrl tracked since the last call."""
        tracked = self.agent.tracking_data
        names = {"Loss / Policy loss": "policy_loss", "Loss / Value loss": "value_loss"}
        losses = {short: float(tracked[tag][-1]) for tag, short in names.items() if tracked.get(tag)}
        tracked.clear()
        return losses

    @torch.no_grad()
    def deterministic(self, observations: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Actions for raw observations, without noise and without limits, and the next state."""
        return self.actor.mode(self.scaler(observations), state)

    def state_dict(self) -> dict[str, Any]:
        """Policy, critic, optimizer, normaliser."""
        return {name: module.state_dict() for name, module in self.agent.checkpoint_modules.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave, or a part of it."""
        for name, values in state.items():
            self.agent.checkpoint_modules[name].load_state_dict(values)


def _ppo_config(config: TrainConfig, observations: int, device: torch.device) -> PPO_CFG:
    return PPO_CFG(
        rollouts=config.rollout,
        learning_epochs=config.epochs,
        mini_batches=max(1, round(config.batch / config.minibatch)),
        discount_factor=config.gamma,
        gae_lambda=config.lam,
        learning_rate=config.lr,
        observation_preprocessor=StillScaler,
        observation_preprocessor_kwargs={
            "size": observations,
            "clip_threshold": config.obs_clip,
            "device": device,
        },
        grad_norm_clip=config.grad_norm,
        ratio_clip=config.clip,
        value_clip=0.0,
        entropy_loss_scale=config.entropy,
        value_loss_scale=config.value_weight,
        time_limit_bootstrap=True,
        # No experiment: skrl writes neither checkpoints nor events, the run folder is ours.
        experiment={"write_interval": 0, "checkpoint_interval": 0},
    )
