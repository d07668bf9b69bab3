"""A trained policy that another one learns from: a run, an ONNX file or a function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nervecord.compiler.onnx.file import is_onnx
from nervecord.errors import NervecordError
from nervecord.training.folder import run_folder
from nervecord.training.folder.start import is_function, read_best, require_equal
from nervecord.training.learners import function_teacher, network_teacher
from nervecord.training.learners.function_teacher import FunctionTeacher, read_function_teacher
from nervecord.training.learners.network_teacher import NetworkTeacher, read_network_teacher
from nervecord.training.learners.off_policy import td7_settings
from nervecord.training.learners.td7 import TD7 as TD7Agent
from nervecord.training.learners.td7_networks import TD7Critic, TD7Policy, pack, unpack
from nervecord.training.policy.actor import Actor, GaussianActor
from nervecord.training.policy.network import make_policy
from nervecord.training.policy.normaliser import ObservationNormaliser
from nervecord.training.settings.config import PPO, TD7, Distill, OnPolicy, SkrlAlgorithm, TrainConfig


def read_teacher(config: TrainConfig) -> dict[str, Any]:
    """The checkpoint of the teacher: its best one where it is finished, else its newest.

    Args:
        config: of what learns; its `algorithm.teacher` names the run folder, an ONNX file or a function.

    Raises:
        NervecordError: the folder holds no run or no checkpoint, or this training cannot learn from it.
    """
    assert isinstance(config.algorithm, PPO | Distill)
    name = config.algorithm.teacher
    imitates = isinstance(config.algorithm, Distill)
    judged = getattr(config.algorithm, "critic_weight", 0.0) > 0
    if is_function(name) or is_onnx(name):
        if imitates and config.network.mirror:
            raise NervecordError("knows no mirror image", where=name, hint="drop --mirror")
        if judged:
            raise _no_critic("a file or a function", name)
        return read_function_teacher(name, config) if is_function(name) else read_network_teacher(Path(name), config)
    folder = Path(name)
    teacher = run_folder.open_existing(folder)
    require_equal(teacher, config, where=name, network=False, critic=imitates)
    if isinstance(teacher.algorithm, SkrlAlgorithm):
        raise NervecordError(
            f"was trained with {teacher.algorithm.name}, whose policies teach nothing yet",
            where=name,
            hint="take a teacher of ppo, td7, distill or finetune",
        )
    if teacher.network.state != "reset":
        raise NervecordError(
            "carries state from action to action, so what it would do does not follow from an observation alone",
            where=name,
            hint="take a teacher with --state reset",
        )
    if imitates and config.network.mirror and not teacher.network.mirror:
        raise NervecordError(
            "was trained without --mirror, so its statistics are not those of a mirror image too",
            where=name,
            hint="drop --mirror",
        )
    if judged and not isinstance(teacher.algorithm, TD7):
        raise _no_critic(f"trained with {teacher.algorithm.name}", name)
    return read_best(folder)


def _no_critic(what: str, name: str) -> NervecordError:
    return NervecordError(
        f"is {what}, of which no value of an action is read",
        where=name,
        hint="drop --critic-weight, or take a teacher of td7",
    )


class Teacher(nn.Module):
    """A trained policy that is asked and does not learn.

    Args:
        content: checkpoint of its training, what `read_teacher` makes of a file or a function, or what `state` gave.
        observations: size of an observation.
        low, high: limits of an action, (actions,).
        choices: number of actions to choose from, 0 where an action is values.
        device: where it is to answer.

    Raises:
        NervecordError: it is a file of a task with other sizes, or a function that is not found.
    """

    def __init__(
        self, content: dict[str, Any], observations: int, low: Tensor, high: Tensor, choices: int, device: torch.device
    ) -> None:
        super().__init__()
        parts, config = content["learner"], TrainConfig.from_dict(content["config"])
        self.obs_rms: ObservationNormaliser | None = None
        self.critic: TD7Critic | None = None
        self.low, self.high = low.to(device, torch.float32), high.to(device, torch.float32)
        self.asked: nn.Module
        if function_teacher.PART in parts:
            name = parts[function_teacher.PART]
            self._kept = {function_teacher.PART: name}
            self.asked = FunctionTeacher(name, choices or len(low))
        elif network_teacher.PART in parts:
            self._kept = {network_teacher.PART: parts[network_teacher.PART]}
            network = NetworkTeacher(parts[network_teacher.PART]).to(device)
            network.require_sizes(observations, choices or len(low))
            self.asked = network
        elif isinstance(config.algorithm, TD7):
            self._kept = td7_parts(config.algorithm, parts)
            self.asked = unpack(TD7Policy, self._kept["policy"]).to(device)
            if "critic" in self._kept:
                self.critic = unpack(TD7Critic, self._kept["critic"]).to(device)
        else:
            self._kept = {name: parts[name] for name in ("actor", "obs_rms")}
            weights = {k.removeprefix("net."): v for k, v in parts["actor"].items() if k.startswith("net.")}
            self.asked = make_policy(observations, choices or len(low), config).to(device)
            self.asked.load_state_dict(weights)
            self.obs_rms = ObservationNormaliser(observations, config.task.obs_clip, device)
            self.obs_rms.load_state_dict(parts["obs_rms"])
        self._config = content["config"]
        self.gives_statistics = self.obs_rms is not None and isinstance(config.algorithm, OnPolicy)
        """Whether its training has a critic and statistics that a student can take over."""

    @property
    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"config": self._config, "learner": self._kept}

    @torch.no_grad()
    def forward(self, observations: Tensor) -> Tensor:
        """Action means, or preferences of choices, (B, outputs), for raw observations (B, observations)."""
        if self.obs_rms is not None:
            return self.asked(self.obs_rms(observations))[0]  # type: ignore[no-any-return]
        answer: Tensor = self.asked(observations)
        return self.low + (answer + 1) / 2 * (self.high - self.low) if isinstance(self.asked, TD7Policy) else answer

    def value(self, observations: Tensor, actions: Tensor) -> Tensor:
        """What TD7's critic gives, (B,), for raw observations (B, observations) and actions (B, actions) within their
        limits; with the actions' gradient."""
        assert self.critic is not None
        value: Tensor = self.critic(observations, 2 * (actions - self.low) / (self.high - self.low) - 1)
        return value


def td7_parts(settings: TD7, parts: dict[str, Any]) -> dict[str, Any]:
    """Policy and critic, packed, of a checkpoint of TD7, or of what a teacher's `state` holds."""
    if "policy" in parts:
        return {name: parts[name] for name in ("policy", "critic") if name in parts}
    actor = (parts["td7"].get("compact") or parts["td7"]["modules"])["actor"]
    agent = TD7Agent(actor["first.weight"].shape[1], len(actor["rest.4.bias"]), td7_settings(settings))
    agent.load_state_dict(parts["td7"])
    return {"policy": pack(agent.policy()), "critic": pack(agent.judge())}


def divergence(actor: Actor, outputs: Tensor, wanted: Tensor, limits: tuple[Tensor, Tensor] | None) -> Tensor:
    """KL divergence of the actor's action from the teacher's, a mean over the batch.

    Args:
        actor: whose noise both have.
        outputs: action means, or preferences of choices, (B, outputs).
        wanted: the same of the teacher.
        limits: of an action's values, each (actions,), None for choices; as of `action_error`.
    """
    if limits is None:
        target = wanted.log_softmax(-1)
        return functional.kl_div(outputs.log_softmax(-1), target, reduction="batchmean", log_target=True)
    assert isinstance(actor, GaussianActor)
    return 0.5 * (action_error(outputs, wanted, limits) / actor.spread().detach().exp()).square().sum(-1).mean()


def action_error(outputs: Tensor, wanted: Tensor, limits: tuple[Tensor, Tensor], margin: float = 0.0) -> Tensor:
    """Action means minus those that are wanted, (B, actions); 0 where both lie beyond the same limit.

    Args:
        outputs, wanted: means of the learner and of the teacher.
        limits: each (actions,): beyond one of them every mean is the same action.
        margin: a wanted action nearer to a limit than this, in halves of the range, counts as the limit.
    """
    low, high = limits
    near = margin * (high - low) / 2
    error = outputs - wanted.clamp(low, high)
    error = torch.where(wanted >= high - near, error.clamp(max=0), error)
    return torch.where(wanted <= low + near, error.clamp(min=0), error)
