"""A trained policy that another one learns from: a run, an ONNX file or a function."""

from __future__ import annotations

import pkgutil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nervecord.training.algorithms.base import Asset
from nervecord.training.learners import function_teacher, network_teacher
from nervecord.training.learners.function_teacher import FunctionTeacher
from nervecord.training.learners.network_teacher import NetworkTeacher
from nervecord.training.learners.off_policy import td7_agent
from nervecord.training.learners.td7_networks import TD7Critic, TD7Policy, pack, unpack
from nervecord.training.policy.actor import Actor, GaussianActor
from nervecord.training.policy.limits import ActionLimits
from nervecord.training.policy.network import make_policy
from nervecord.training.policy.normaliser import ObservationNormaliser
from nervecord.training.settings.config import TrainConfig


class Teacher(nn.Module):
    """A trained policy that answers and does not learn.

    Args:
        content: checkpoint of its training, what `read_source` makes of a file or a function, or what `state` gave.
        observations: size of an observation.
        low, high: limits of an action, (actions,), on the device where it is to answer.
        outputs: numbers of an answer: actions, or preferences of choices.
    """

    parts: dict[str, Any]
    """What a checkpoint keeps of its learner."""
    gives_statistics = False
    """Whether its training has a critic and statistics that a student can take over."""

    def __init__(self, content: dict[str, Any], observations: int, low: Tensor, high: Tensor, outputs: int) -> None:
        super().__init__()
        self._config, self.limits = content["config"], ActionLimits(low, high)

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"config": self._config, "learner": self.parts}

    def forward(self, observations: Tensor) -> Tensor:
        """Action means, or preferences of choices, (B, outputs), for raw observations (B, observations)."""
        raise NotImplementedError

    def value(self, observations: Tensor, actions: Tensor) -> Tensor:
        """What its critic of actions gives, (B,), for raw observations (B, observations) and actions (B, actions)
        within their limits; with the actions' gradient."""
        raise NotImplementedError


class PolicyTeacher(Teacher):
    """The network of a run, with its observation statistics."""

    def __init__(self, content: dict[str, Any], observations: int, low: Tensor, high: Tensor, outputs: int) -> None:
        super().__init__(content, observations, low, high, outputs)
        parts, config = content["learner"], TrainConfig.from_dict(content["config"])
        self.parts = {name: parts[name] for name in ("actor", "obs_rms")}
        weights = {k.removeprefix("net."): v for k, v in parts["actor"].items() if k.startswith("net.")}
        self.net = make_policy(observations, outputs, config).to(low.device)
        self.net.load_state_dict(weights)
        self.obs_rms = ObservationNormaliser(observations, config.task.obs_clip, low.device)
        self.obs_rms.load_state_dict(parts["obs_rms"])
        self.gives_statistics = Asset.STATE_VALUES in config.algorithm.assets

    @torch.no_grad()
    def forward(self, observations: Tensor) -> Tensor:
        """As of `Teacher`."""
        return self.net(self.obs_rms(observations))[0]  # type: ignore[no-any-return]


class TD7Teacher(Teacher):
    """Policy and critic of a run of TD7."""

    def __init__(self, content: dict[str, Any], observations: int, low: Tensor, high: Tensor, outputs: int) -> None:
        super().__init__(content, observations, low, high, outputs)
        parts = content["learner"]
        if "policy" in parts:
            self.parts = {name: parts[name] for name in ("policy", "critic")}
        else:
            agent = td7_agent(content, observations, outputs)
            self.parts = {"policy": pack(agent.policy()), "critic": pack(agent.judge())}
        self.policy = unpack(TD7Policy, self.parts["policy"]).to(low.device)
        self.critic = unpack(TD7Critic, self.parts["critic"]).to(low.device)

    @torch.no_grad()
    def forward(self, observations: Tensor) -> Tensor:
        """As of `Teacher`."""
        return self.limits.scaled(self.policy(observations))

    def value(self, observations: Tensor, actions: Tensor) -> Tensor:
        """As of `Teacher`."""
        value: Tensor = self.critic(observations, self.limits.unit(actions))
        return value


class ForeignTeacher(Teacher):
    """A network of another maker, or a function."""

    def __init__(self, content: dict[str, Any], observations: int, low: Tensor, high: Tensor, outputs: int) -> None:
        super().__init__(content, observations, low, high, outputs)
        self.parts = content["learner"]
        self.policy: NetworkTeacher | FunctionTeacher
        if function_teacher.PART in self.parts:
            self.policy = FunctionTeacher(self.parts[function_teacher.PART], outputs)
        else:
            self.policy = NetworkTeacher(self.parts[network_teacher.PART]).to(low.device)
            self.policy.require_sizes(observations, outputs)

    def forward(self, observations: Tensor) -> Tensor:
        """As of `Teacher`."""
        answer: Tensor = self.policy(observations)
        return answer


def make_teacher(
    content: dict[str, Any], observations: int, low: Tensor, high: Tensor, choices: int, device: torch.device
) -> Teacher:
    """The teacher of a checkpoint.

    Args:
        content, observations, low, high: as of `Teacher`.
        choices: number of actions to choose from, 0 where an action is values.
        device: where it is to answer.

    Raises:
        NervecordError: it is a file of a task with other sizes, or a function that is not found.
    """
    is_foreign = content["learner"].keys() & {function_teacher.PART, network_teacher.PART}
    named = TrainConfig.from_dict(content["config"]).algorithm.teacher_class
    kind: type[Teacher] = ForeignTeacher if is_foreign else pkgutil.resolve_name(named)
    low, high = low.to(device, torch.float32), high.to(device, torch.float32)
    return kind(content, observations, low, high, choices or len(low))


def divergence(actor: Actor, outputs: Tensor, teacher_outputs: Tensor, limits: tuple[Tensor, Tensor] | None) -> Tensor:
    """KL divergence of the actor's action from the teacher's, a mean over the batch.

    Args:
        actor: whose noise both have.
        outputs: action means, or preferences of choices, (B, outputs).
        teacher_outputs: the same of the teacher.
        limits: of an action's values, each (actions,), None for choices; as of `action_error`.
    """
    if limits is None:
        target = teacher_outputs.log_softmax(-1)
        return functional.kl_div(outputs.log_softmax(-1), target, reduction="batchmean", log_target=True)
    assert isinstance(actor, GaussianActor)
    error = action_error(outputs, teacher_outputs, limits)
    return 0.5 * (error / actor.spread().detach().exp()).square().sum(-1).mean()


def action_error(
    outputs: Tensor, teacher_outputs: Tensor, limits: tuple[Tensor, Tensor], margin: float = 0.0
) -> Tensor:
    """Action means minus the teacher's, (B, actions); 0 where both lie beyond the same limit.

    Args:
        outputs, teacher_outputs: means of the learner and of the teacher.
        limits: each (actions,): beyond one of them every mean is the same action.
        margin: a teacher's action nearer to a limit than this, in halves of the range, counts as the limit.
    """
    low, high = limits
    near = margin * ActionLimits(low, high).half_range
    error = outputs - teacher_outputs.clamp(low, high)
    error = torch.where(teacher_outputs >= high - near, error.clamp(max=0), error)
    return torch.where(teacher_outputs <= low + near, error.clamp(min=0), error)
