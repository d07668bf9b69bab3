"""TD7: off-policy learning of continuous actions (Fujimoto et al. 2023, arXiv 2306.02451).

TD3 with four additions: embeddings of state and of state and action, learnt by predicting the next state's embedding,
beside the raw inputs of actor and critic; replay by priority (LAP, `nervecord.training.learners.replay`); targets
clipped to the range of targets seen; and checkpoints, of which the best policy is kept. The first three are here. The
fourth is the training loop's: it assesses the policy over many episodes beside the training and keeps the best.

The matrix products can run in bfloat16 while weights, normalisation, the last layers, targets and losses stay in
float32, which halves the time of an update on a CPU with such instructions. Each loss is one function of tensors, so
that torch can compile it with all that is under it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nervecord.training.algorithms.td7 import TD7Settings
from nervecord.training.learners.replay import Batch, Replay, batch_of, row_sizes
from nervecord.training.learners.td7_networks import Critic, Encoder, Linear32, TD7Actor, TD7Critic, TD7Policy, rounded

LEAST_PRIORITY = 1.0
"""TD error under which every transition has the same priority, and from which on the loss is linear."""


def lap_huber(errors: Tensor, least: float) -> Tensor:
    """LAP's loss of absolute TD errors (B, critics): squared under `least`, linear above; a mean over the batch."""
    return torch.where(errors < least, 0.5 * errors.square(), least * errors).sum(1).mean()


def _frozen(module: nn.Module, dtype: torch.dtype) -> Any:
    """A copy that takes no gradient, held in the types that it is used in."""
    frozen = copy.deepcopy(module).requires_grad_(False).to(dtype)
    for part in frozen.modules():
        if isinstance(part, Linear32):
            part.float()
    return frozen


def _copy_into(target: nn.Module, source: nn.Module) -> None:
    with torch.no_grad():
        for old, new in zip(target.parameters(), source.parameters(), strict=True):
            old.copy_(new)


class TD7Agent:
    """The agent: networks, targets and optimisers. The replay is the caller's.

    Args:
        observations, actions: sizes of an observation and of an action; actions lie between -1 and 1.
        settings: see there.
        actor: what acts, of observations and their embedding; None: TD7's own network. Another one stays in float32.
        grad_norm: limit of the norm of the actor's gradient; 0 for none, as in TD7.

    The networks' first weights and all noise come from torch's global generator.
    """

    compiled: ClassVar[frozenset[str]] = frozenset({"encoder", "targets", "critic", "actor"})
    """The losses that torch can compile."""

    def __init__(
        self,
        observations: int,
        actions: int,
        settings: TD7Settings,
        actor: nn.Module | None = None,
        *,
        grad_norm: float = 0.0,
    ) -> None:
        self.settings, self.grad_norm = settings, grad_norm
        widths = settings.hidden, settings.embedding
        self.encoder = Encoder(observations, actions, *widths)
        self.critic = Critic(observations, actions, *widths)
        self.actor = TD7Actor(observations, actions, *widths) if actor is None else actor
        self.sizes = observations, actions
        self.dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
        # "Fixed": the encoder that actor and critic see, a copy; its target is the fixed one before it.
        self.fixed = _frozen(self.encoder, self.dtype)
        self.fixed_target = _frozen(self.encoder, self.dtype)
        self.critic_target = _frozen(self.critic, self.dtype)
        self.actor_target = _frozen(self.actor, self.dtype if actor is None else torch.float32)
        self.optimizers = {
            name: torch.optim.Adam(module.parameters(), lr=settings.lr, fused=True)
            for name, module in self._learnt().items()
        }
        losses: dict[str, Callable[..., Any]] = {
            "encoder": self._encoder_loss,
            "targets": self._targets,
            "critic": self._critic_loss,
            "actor": self._actor_loss,
        }
        if settings.torch_compile:
            # At these sizes what calls the kernels costs as much as some of them do: it is compiled as well.
            how: dict[str, Any] = {"dynamic": False, "options": {"cpp_wrapper": True}}
            losses |= {name: torch.compile(losses[name], **how) for name in self.compiled}
        self._losses = tuple(losses.values())
        self.updates = 0
        self.seen = (float("inf"), -float("inf"))
        """Least and greatest target so far."""
        self.clip = (0.0, 0.0)
        """Range that the target's values are clipped to: `seen` at the last copy into the targets."""

    def _learnt(self) -> dict[str, nn.Module]:
        return {"encoder": self.encoder, "critic": self.critic, "actor": self.actor}

    def _frozen_modules(self) -> dict[str, nn.Module]:
        names = ("fixed", "fixed_target", "critic_target", "actor_target")
        return {name: getattr(self, name) for name in names}

    def _products(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.dtype is torch.bfloat16)

    @torch.no_grad()
    def act(self, observations: Tensor, noise: float | Tensor) -> Tensor:
        """Actions (B, actions) between -1 and 1 for raw observations (B, observations), with Gaussian noise of a size
        for all or for each row, (B, 1)."""
        with self._products():
            actions: Tensor = self.actor(observations, self.fixed.state(observations))
        return (actions + noise * torch.randn_like(actions)).clamp(-1, 1)

    def policy(self) -> TD7Policy:
        """A copy of what acts, in float32."""
        policy = TD7Policy(*self.sizes, self.settings.hidden, self.settings.embedding)
        _copy_into(policy.encoder, self.fixed.state)
        _copy_into(policy.actor, self.actor)
        return policy

    def judge(self) -> TD7Critic:
        """A copy of the critic with the encoder that it sees, in float32."""
        judge = TD7Critic(*self.sizes, self.settings.hidden, self.settings.embedding)
        _copy_into(judge.encoder, self.fixed)
        _copy_into(judge.critic, self.critic)
        return judge

    def update(self, replay: Replay, *, hold_actor: bool = False) -> dict[str, float]:
        """One update of encoder and critic, and every few of the actor unless it is held; returns the losses and the
        mean value."""
        settings = self.settings
        encoder_loss_of, targets_of, critic_loss_of, actor_loss_of = self._losses
        self.updates += 1
        batch, index = replay.sample(settings.minibatch)
        encoder_loss = encoder_loss_of(batch)
        self._step("encoder", encoder_loss)
        noise = settings.target_noise * torch.randn_like(batch.actions)
        target = targets_of(batch, noise, *map(torch.tensor, self.clip))
        self.seen = min(self.seen[0], target.min().item()), max(self.seen[1], target.max().item())
        critic_loss, errors, values, zs = critic_loss_of(batch, target)
        self._step("critic", critic_loss)
        priorities = errors.clamp(min=LEAST_PRIORITY) ** settings.priority_exponent
        replay.set_priorities(index, priorities.numpy())
        if self.updates % settings.policy_every == 0 and not hold_actor:
            self._step("actor", actor_loss_of(batch, zs))
        if self.updates % settings.target_every == 0:
            self._copy_targets()
            replay.forget_max_priority()
        return {"encoder_loss": encoder_loss.item(), "critic_loss": critic_loss.item(), "value": values.mean().item()}

    def compile(self) -> None:
        """Have the losses and gradients compiled now, for a whole batch; nothing is learnt.

        Raises:
            Exception: whatever torch raises where it cannot compile.
        """
        observations, actions = self.sizes
        rows = self.settings.minibatch
        sizes = row_sizes(observations, actions, later=self.settings.n_step > 1)
        # Views of one array, as the replay gives.
        batch = batch_of(torch.split(torch.zeros(rows, sum(sizes)), sizes, dim=1))
        encoder_loss_of, targets_of, critic_loss_of, actor_loss_of = self._losses
        target = targets_of(batch, torch.zeros(rows, actions), *map(torch.tensor, self.clip))
        critic_loss, _, _, zs = critic_loss_of(batch, target)
        losses = {"encoder": encoder_loss_of(batch), "critic": critic_loss, "actor": actor_loss_of(batch, zs)}
        for name, loss in losses.items():
            torch.autograd.grad(loss, list(self._learnt()[name].parameters()))

    def _step(self, name: str, loss: Tensor) -> None:
        """Move one network down its loss; the gradient is taken of that network alone."""
        parameters = list(self._learnt()[name].parameters())
        self.optimizers[name].zero_grad()
        loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
        if name == "actor" and self.grad_norm:
            nn.utils.clip_grad_norm_(parameters, self.grad_norm)
        self.optimizers[name].step()

    def _encoder_loss(self, batch: Batch) -> Tensor:
        with self._products():
            with torch.no_grad():
                target = self.encoder.state(batch.next_observations)
            predicted = self.encoder.state_action(self.encoder.state(batch.observations), batch.actions)
            return functional.mse_loss(predicted.float(), target)

    @torch.no_grad()
    def _targets(self, batch: Batch, noise: Tensor, least: Tensor, greatest: Tensor) -> Tensor:
        """Targets (B, 1) of the critic, float32. `noise` (B, actions) is that of the actions; values are clipped to
        what lies between `least` and `greatest`, scalars."""
        settings, after = self.settings, batch.later_observations
        with self._products():
            zs = self.fixed_target.state(after)
            noise = noise.clamp(-settings.target_noise_clip, settings.target_noise_clip)
            actions = (self.actor_target(after, zs) + noise).clamp(-1, 1)
            values = self.critic_target(after, actions, self.fixed_target.state_action(zs, actions), zs)
            value = values.amin(1, keepdim=True).clamp(least, greatest)
            target: Tensor = batch.rewards + settings.gamma * batch.continues * value
        return target

    def _critic_loss(self, batch: Batch, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The loss; and without gradient: the greater absolute error (B,) of the two values, the values (B, 2), and the
        fixed encoder's embedding of the states (B, embedding)."""
        with self._products():
            with torch.no_grad():
                zs = self.fixed.state(batch.observations)
                zsa = self.fixed.state_action(zs, batch.actions)
            values = self.critic(batch.observations, batch.actions, zsa, zs)
            errors = (values - target).abs()
            loss = lap_huber(errors, LEAST_PRIORITY)
        return loss, errors.detach().amax(1), values.detach(), zs

    def _actor_loss(self, batch: Batch, zs: Tensor) -> Tensor:
        with self._products():
            actions = self.actor(batch.observations, zs)
            values = self.critic(batch.observations, actions, self.fixed.state_action(zs, actions), zs)
            loss: Tensor = -values.mean()
            if self.settings.smoothness:
                following = self.actor(batch.next_observations, self.fixed.state(batch.next_observations))
                change = (batch.continues * (following - actions).square()).sum(1).mean()
                loss = loss + self.settings.smoothness * values.detach().abs().mean() * change
        return loss

    def _copy_targets(self) -> None:
        _copy_into(self.actor_target, self.actor)
        _copy_into(self.critic_target, self.critic)
        _copy_into(self.fixed_target, self.fixed)
        _copy_into(self.fixed, self.encoder)
        self.clip = self.seen

    def set_rate(self, rate: float, *networks: str) -> None:
        """Set the learning rate of some networks, by default of all."""
        for optimizer in (self.optimizers[name] for name in networks or self.optimizers):
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """Everything that a training continues from, but for the replay and torch's generator."""
        modules = {**self._learnt(), **self._frozen_modules()}
        return {
            "modules": {name: module.state_dict() for name, module in modules.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "updates": self.updates,
            "seen": list(self.seen),
            "clip": list(self.clip),
        }

    def compact_state_dict(self) -> dict[str, Any]:
        """As `state_dict` in a third of the size, for a file that is to be kept or sent.

        Weights are rounded to float16 and Adam's second moments to bfloat16; its first moments, which it has again
        after some ten updates, are left out. Of the copies only the fixed encoder's target is there: the others become
        copies of the networks, as they are after every `target_every` updates.
        """
        learnt = self._learnt()
        return {
            "compact": {name: rounded(module.state_dict(), torch.float16) for name, module in learnt.items()},
            "fixed_target": rounded(self.fixed_target.state_dict(), torch.bfloat16),
            "moments": {
                name: [self.optimizers[name].state[p]["exp_avg_sq"].to(torch.bfloat16) for p in module.parameters()]
                for name, module in learnt.items()
            },
            "steps": {name: optimizer_steps(self.optimizers[name]) for name in learnt},
            "updates": self.updates,
            "seen": list(self.seen),
            "clip": list(self.clip),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` or `compact_state_dict` gave."""
        if "compact" in state:
            self._load_compact(state)
        else:
            modules = {**self._learnt(), **self._frozen_modules()}
            for name, values in state["modules"].items():
                modules[name].load_state_dict(values)
            for name, values in state["optimizers"].items():
                self.optimizers[name].load_state_dict(values)
        self.updates = state["updates"]
        self.seen = (state["seen"][0], state["seen"][1])
        self.clip = (state["clip"][0], state["clip"][1])

    def _load_compact(self, state: dict[str, Any]) -> None:
        for name, module in self._learnt().items():
            module.load_state_dict(state["compact"][name])
            optimizer = self.optimizers[name]
            if name not in state["moments"]:  # of a teacher that is kept to learn from; Adam begins anew
                continue
            for parameter, second in zip(module.parameters(), state["moments"][name], strict=True):
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(state["steps"][name])),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": second.to(parameter.dtype),
                }
        self._copy_targets()
        self.fixed_target.load_state_dict(state["fixed_target"])


def optimizer_steps(optimizer: torch.optim.Optimizer) -> int:
    """Steps that an Adam has made."""
    return max((int(values["step"]) for values in optimizer.state.values()), default=0)
