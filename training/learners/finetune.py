"""Fine-tuning through a critic: TD7 continues, with a student's network in the place of its own actor.

A student that was distilled does what its teacher does but for an error, and the teacher's critic knows what each error
costs. But it knows it of the teacher's play. So it continues learning, from what the student comes to
(`nervecord.training.learners.td7`), while the student moves to where its values are higher and is held near to the
teacher's actions: TD3+BC (Fujimoto and Gu 2021, arXiv 2106.06860) with a teacher in the place of a dataset.

The student's network is that of the part `network`, with the observation statistics of the run that it comes from,
which are frozen: it is exported as after PPO. The replay is filled first, half by the student, half by the teacher and
its past policies, as a critic that sees the newest policy alone overrates what it does not do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nervecord.training.algorithms.finetune import Finetune
from nervecord.training.algorithms.td7 import TD7Settings
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.learners.off_policy import TD7Learner, td7_agent
from nervecord.training.learners.on_policy import firing
from nervecord.training.learners.replay import Batch
from nervecord.training.learners.td7 import TD7Agent
from nervecord.training.learners.td7_networks import TD7Policy, pack, unpack
from nervecord.training.learners.teacher import action_error
from nervecord.training.policy.limits import ActionLimits
from nervecord.training.policy.network import AnnPolicy, SpikingPolicy, make_policy
from nervecord.training.policy.normaliser import ObservationNormaliser
from nervecord.training.settings.config import TrainConfig


class StudentActor(nn.Module):
    """A policy's network in TD7's terms: raw observations in, actions between -1 and 1 out.

    Args:
        net: of normalised observations, without carried state.
        obs_rms: normalises; it is frozen.
        limits: of an action.
    """

    def __init__(self, net: SpikingPolicy | AnnPolicy, obs_rms: ObservationNormaliser, limits: ActionLimits) -> None:
        super().__init__()
        self.net = net
        self.obs_rms, self.limits = obs_rms, limits

    def means(self, observations: Tensor) -> Tensor:
        """What the network gives, (B, actions), -1 and 1 standing for the limits, beyond which it may be."""
        with torch.autocast(observations.device.type, enabled=False):
            outputs: Tensor = self.net(self.obs_rms(observations))[0]
        return self.limits.unit(outputs)

    def forward(self, observations: Tensor, zs: Tensor) -> Tensor:
        """Actions (B, actions); the embedding is TD7's actor's alone."""
        return self.means(observations).clamp(-1, 1)


class StudentTD7(TD7Agent):
    """TD7 whose actor is a student's network.

    Args:
        observations, actions, settings, grad_norm: as of `TD7Agent`; `lr` is the critic's and the encoder's.
        actor: the student.
        teacher: what it is held near to.
        critic_weight: of its values beside the distance.
    """

    # Spiking layers are an operator of their own, which is as fast as it gets.
    compiled: ClassVar[frozenset[str]] = frozenset({"encoder", "critic"})
    actor: StudentActor

    def __init__(
        self,
        observations: int,
        actions: int,
        settings: TD7Settings,
        actor: StudentActor,
        teacher: TD7Policy,
        critic_weight: float,
        grad_norm: float = 0.0,
    ) -> None:
        self.teacher, self.critic_weight = teacher, critic_weight
        self.distances: list[Tensor] = []
        """Squared distance from the teacher's action at each update of the actor, since they were last read."""
        super().__init__(observations, actions, settings, actor, grad_norm=grad_norm)
        # The copy that gives the targets sees what the student sees: its statistics too, which are loaded later.
        self.actor_target.obs_rms = actor.obs_rms

    def _actor_loss(self, batch: Batch, zs: Tensor) -> Tensor:
        means = self.actor.means(batch.observations)
        actions = means.clamp(-1, 1)
        with self._products():
            values = self.critic(batch.observations, actions, self.fixed.state_action(zs, actions), zs)
        with torch.no_grad():
            teacher_actions = self.teacher(batch.observations)
        ends = torch.tensor(-1.0), torch.tensor(1.0)
        distance = action_error(means, teacher_actions, ends).square().sum(1).mean()
        self.distances.append(distance.detach())
        # A mean beyond a limit has no gradient of its value: this brings it back to where it has.
        beyond = (means - actions).square().sum(1).mean()
        loss: Tensor = distance + beyond - self.critic_weight * values.mean() / values.detach().abs().mean()
        return loss

    def policy(self) -> TD7Policy:
        """None: a student is no network of TD7."""
        raise NotImplementedError

    def take_critic_of(self, before: TD7Agent) -> None:
        """Take encoder and critic of a training, with their targets, optimisers and the range of values."""
        for name in ("encoder", "critic", "fixed", "fixed_target", "critic_target"):
            getattr(self, name).load_state_dict(getattr(before, name).state_dict())
        for name in ("encoder", "critic"):
            self.optimizers[name].load_state_dict(before.optimizers[name].state_dict())
        self.seen, self.clip = before.seen, before.clip


class FinetuneLearner(TD7Learner):
    """The fine-tuning of a student's network, from its sources "start" and "critic_run"."""

    settings: Finetune
    agent: StudentTD7

    def __init__(self, setup: Setup) -> None:
        config = setup.config
        assert isinstance(config.algorithm, Finetune)
        if setup.content is None:
            self._critic_agent = td7_agent(setup.sources["critic_run"], setup.observations, len(setup.low))
            self.teacher_record: dict[str, Any] = _teacher_record(setup.sources["critic_run"], self._critic_agent)
        else:
            self.teacher_record = setup.content["learner"]["teacher"]
        super().__init__(setup)
        self.restart_steps = config.algorithm.restart_steps
        self.agent.distances.clear()  # of the trial with which torch compiles
        self.past_policies = self.teacher_record["policies"]
        # The teacher first: it acts also where there are few environments.
        self.actors = [unpack(TD7Policy, policy) for policy in reversed(self.past_policies)]
        if setup.content is None:
            learnt = setup.sources["start"]["learner"]
            self.agent.actor.load_state_dict({k: v for k, v in learnt["actor"].items() if k.startswith("net.")})
            self.agent.actor.obs_rms.load_state_dict(learnt["obs_rms"])
            self.agent.take_critic_of(self._critic_agent)
            self.agent.actor_target.load_state_dict(self.agent.actor.state_dict())
            self.hold_until = config.algorithm.freeze_updates
            del self._critic_agent

    def _make_agent(self, observations: int, config: TrainConfig) -> StudentTD7:
        settings = self.settings
        normaliser = ObservationNormaliser(observations, config.task.obs_clip, self.device)
        actor = StudentActor(make_policy(observations, self.actions, config), normaliser, self.limits)
        of_td7 = settings.of_td7(self.teacher_record["hidden"], self.teacher_record["embedding"])
        teacher = unpack(TD7Policy, self.teacher_record["policies"][-1])
        weight = settings.critic_weight
        return StudentTD7(observations, self.actions, of_td7, actor, teacher, weight, settings.grad_norm)

    @property
    def first_steps(self) -> int:
        return self.settings.fill_steps

    def schedule(self, step: int, total: int) -> None:
        """Set the learning rates, which fall in the last part of what comes after the replay is filled."""
        first = self.settings.fill_steps
        super().schedule(max(0, step - first), total - first)
        critic_rate = self.settings.critic_lr * self.rate / self.settings.lr
        self.agent.set_rate(critic_rate, "encoder", "critic")

    def _first(self, observations: Tensor) -> Tensor:
        return self._refilling(observations)

    def _refilling(self, observations: Tensor) -> Tensor:
        """What the student does in every second environment, the teacher and its past policies in the others."""
        actions = self._noisy(observations)
        number = torch.arange(len(observations))
        turn = torch.where(number % 2 == 1, number // 2 % len(self.actors), -1)
        self._act_as(self.actors, turn, observations, actions)
        return actions

    def _keep_policy(self) -> None:
        """Nothing: the past policies are the teacher's."""

    def update(self, rollout: Rollout) -> dict[str, float]:
        """As of `TD7Learner`; the squared distance from the teacher's action; firing rates."""
        metrics = super().update(rollout)
        rates = firing(self.agent.actor.net, self.agent.actor.obs_rms, rollout)
        metrics |= {name: float(value) for name, value in rates.items()}
        if self.agent.distances:
            metrics["teacher_distance"] = float(torch.stack(self.agent.distances).mean())
            self.agent.distances.clear()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """As of `TD7Learner`; the student's network and statistics as other learners have them; and the teacher."""
        net = {name: value for name, value in self.agent.actor.state_dict().items() if name.startswith("net.")}
        statistics = self.agent.actor.obs_rms.moments.state_dict()
        state = {name: value for name, value in super().state_dict().items() if name != "past"}
        return {"actor": net, "obs_rms": statistics, **state, "teacher": self.teacher_record}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        super().load_state_dict({**state, "past": self.past_policies})
        self.agent.actor.obs_rms.load_state_dict(state["obs_rms"])
        if "compact" in state["td7"]:  # which rounds; the student is beside it as it was
            self.agent.actor.load_state_dict(state["actor"])
            self.agent.actor_target.load_state_dict(state["actor"])


def _teacher_record(content: dict[str, Any], agent: TD7Agent) -> dict[str, Any]:
    """What is kept of the teacher: its policies, the newest last, and its networks' widths."""

    def policies() -> Iterator[dict[str, Any]]:
        for policy in content["learner"]["past"]:
            yield {name: policy[name] for name in ("sizes", "weights")}
        yield pack(agent.policy())

    settings = agent.settings
    return {"policies": list(policies()), "hidden": settings.hidden, "embedding": settings.embedding}
