"""Policies and the critic as plain torch modules: no PPO, no simulator, no normaliser.

A policy maps normalised observations (B, observations), and the state that is carried from action to action, to action
means (B, actions) and the next state. `SpikingPolicy` gives its observation to the first layer as a constant current
for T steps, or as the spikes of a population code; a non-spiking leaky readout is read after step T:

    v_out <- d v_out + (W s_t + b)        action mean = v_out after the last step

As W is the same at every step, the readout is one product with the decayed spike sum z = sum_t d^(T - t) s_t.

With `delays` each connection delivers one step later: what reaches a neuron at step t is W s_(t-1) + b, the bias being
the neuron's own and not delayed. What is on its way when an action ends arrives in the first step of the next one.

With `recurrent` each hidden layer also hears its own spikes of the step before, V s_(t-1), V being learnt.

Where spikes are counted the readout is one more spiking layer, a population for each action, and the action mean is an
affine function of its spike rates in the T steps of the action.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nervecord.errors import NervecordError
from nervecord.training.algorithms.on_policy import OnPolicy
from nervecord.training.policy.coding import CountReadout, PopulationEncoder
from nervecord.training.policy.mirror import Mirror, Reflection, mirror_of, tie
from nervecord.training.policy.spiking import LayerSettings, LayerState, spike_layer
from nervecord.training.settings.config import MOST_WEIGHTS, TrainConfig
from nervecord.training.settings.parts import NetworkConfig

READOUT_GAIN = 0.1
"""Orthogonal gain of the last layer: first actions near zero, so that the noise explores."""
RECURRENT_GAIN = 0.3
"""Orthogonal gain of the matrices through which layers hear themselves: a whisper at first."""


def logit(p: float) -> float:
    """The number whose sigmoid is `p`."""
    return math.log(p / (1 - p))


def linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """A linear layer with orthogonal weights and no bias at first.

    Raises:
        NervecordError: it has more weights than can be trained.
    """
    if inputs * outputs > MOST_WEIGHTS:
        raise NervecordError(
            f"a matrix has {inputs} x {outputs} weights, at most {MOST_WEIGHTS} are trained",
            where="network",
            hint="fewer neurons in a layer, or in a population",
        )
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def tanh_network(
    inputs: int, widths: tuple[int, ...], outputs: int, gain: float, ends: tuple[Reflection, Reflection] | None = None
) -> nn.Sequential:
    """Linear layers with tanh between them: the critic, and the spiking policy's twin.

    Args:
        inputs: width of the input.
        widths: of the hidden layers.
        outputs: width of the output.
        gain: orthogonal gain of the last layer.
        ends: reflections of input and output that the network is to keep.
    """
    sizes = (inputs, *widths, outputs)
    layers = [linear(a, b, math.sqrt(2)) for a, b in itertools.pairwise(sizes[:-1])]
    layers.append(linear(sizes[-2], outputs, gain))
    if ends is not None:
        tie_chain(layers, [ends[0], *map(Reflection.pairs, widths), ends[1]])
    modules: list[nn.Module] = []
    for layer in layers:
        modules += [layer, nn.Tanh()]
    return nn.Sequential(*modules[:-1])


def tie_chain(layers: Sequence[nn.Module], reflections: Sequence[Reflection]) -> None:
    """Tie layers that follow each other; `reflections` has one more, of the input and of what each layer gives."""
    for layer, (before, after) in zip(layers, itertools.pairwise(reflections), strict=True):
        tie(layer, after, before)


def critic_network(observations: int, config: TrainConfig) -> nn.Sequential:
    """The critic of a configuration: values (B, 1) of normalised observations."""
    assert isinstance(config.algorithm, OnPolicy)
    ends = None
    if config.network.mirror:
        ends = mirror_of(config.task.env).observations, Reflection.permutation(torch.zeros(1, dtype=torch.int64))
    return tanh_network(observations, config.algorithm.critic, 1, 1.0, ends)


class AnnPolicy(nn.Module):
    """The twin without spikes: a tanh network of the same widths. It has no state."""

    state_size = 0

    def __init__(self, observations: int, actions: int, config: TrainConfig) -> None:
        super().__init__()
        mirror = mirror_of(config.task.env) if config.network.mirror else None
        ends = (mirror.observations, mirror.actions) if mirror else None
        self.network = tanh_network(observations, config.network.layers, actions, READOUT_GAIN, ends)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Action means (B, actions) of normalised observations (B, observations); the state is passed through."""
        mean: Tensor = self.network(x)
        return mean, state

    def rates(self, x: Tensor, state: Tensor | None = None) -> list[Tensor]:
        """None: nothing spikes."""
        return []


class SpikingPolicy(nn.Module):
    """1 to n layers of snnTorch neurons and a readout, over T steps for each action.

    Each layer has one learnt membrane decay, and one learnt current decay where the neuron is synaptic; they are
    sigmoids of the parameters, so that they stay between 0 and 1. The threshold is 1.

    A carried state is one tensor (B, state_size), zero at the start of an episode, in this order: for each hidden layer
    its membrane and, where synaptic, its current; with delays what entered last and each hidden layer's last spikes;
    the population code's accumulators; the membrane readout.
    """

    exponents: Tensor

    def __init__(self, observations: int, actions: int, config: TrainConfig) -> None:
        super().__init__()
        network = config.network
        self.observations, self.actions = observations, actions
        self.steps = network.steps_per_action
        self.synaptic = network.neuron == "synaptic"
        self.carried = network.state == "carried"
        self.delays = network.delays
        self.counts = network.decoder == "count"
        self.literal = config.run.operator == "snntorch"
        self.settings = LayerSettings(self.steps, self.synaptic, network.slope, network.detach_reset)
        coded = network.encoder == "population"
        self.encoder = PopulationEncoder(observations, network.population) if coded else None
        self.inputs = self.encoder.size if self.encoder is not None else observations
        self.widths = [*network.layers, *([actions * network.output_population] if self.counts else [])]
        sizes = (self.inputs, *self.widths)
        self.hidden = nn.ModuleList(linear(a, b, math.sqrt(2)) for a, b in itertools.pairwise(sizes))
        self.readout: nn.Linear | CountReadout
        if self.counts:
            self.readout = CountReadout(actions, network.output_population, READOUT_GAIN)
        else:
            self.readout = linear(sizes[-1], actions, READOUT_GAIN)
        self.recurrent = nn.ModuleList(
            nn.Linear(width, width, bias=False) for width in (network.layers if network.recurrent else ())
        )
        for weight in self.recurrent.parameters():
            nn.init.orthogonal_(weight, RECURRENT_GAIN)
        if network.mirror:
            self._tie(mirror_of(config.task.env), network)
        count = len(self.widths)
        self.beta_logits = nn.Parameter(torch.full((count,), logit(network.decay)))
        if self.synaptic:
            self.alpha_logits = nn.Parameter(torch.full((count,), logit(network.current_decay)))
        if not self.counts:
            self.readout_logit = nn.Parameter(torch.tensor(logit(network.readout_decay)))
        # The last spike reaches the readout undecayed; delayed, it does not reach it within the action at all.
        exponents = torch.arange(self.steps - 1, -1, -1.0)
        self.register_buffer("exponents", exponents, persistent=False)

    def _tie(self, mirror: Mirror, network: NetworkConfig) -> None:
        entry = mirror.observations
        if self.encoder is not None:
            entry = entry.blocks(network.population, flip_odd=True)
        chain = [entry, *map(Reflection.pairs, network.layers)]
        for module, pairs in zip(self.recurrent, chain[1:], strict=False):
            tie(module, pairs, pairs)
        if self.counts:
            chain.append(mirror.actions.blocks(network.output_population, flip_odd=False))
            tie(self.readout, mirror.actions, None)
            tie_chain(list(self.hidden), chain)
        else:
            tie_chain([*self.hidden, self.readout], [*chain, mirror.actions])

    @property
    def betas(self) -> Tensor:
        """Membrane decay of each hidden layer, (layers,)."""
        return torch.sigmoid(self.beta_logits)

    @property
    def alphas(self) -> Tensor | None:
        """Current decay of each hidden layer, (layers,); None where the neuron has none."""
        return torch.sigmoid(self.alpha_logits) if self.synaptic else None

    @property
    def readout_decay(self) -> Tensor:
        """Decay of the membrane readout, a scalar."""
        return torch.sigmoid(self.readout_logit)

    def recurrent_weight(self, index: int) -> Tensor | None:
        """Weight (N, N) through which a hidden layer hears itself, None where it does not."""
        if not self.recurrent:
            return None
        module = self.recurrent[index]
        assert isinstance(module, nn.Linear)
        return module.weight

    @property
    def parts(self) -> list[int]:
        """Widths of the parts of the state between two steps."""
        parts = [width for width in self.widths for _ in range(1 + self.synaptic)]
        if self.delays:
            parts += [self.inputs, *self.widths]
        if self.encoder is not None:
            parts.append(self.inputs)
        return parts if self.counts else [*parts, self.actions]

    @property
    def state_size(self) -> int:
        """Numbers carried from one action to the next."""
        return sum(self.parts) if self.carried else 0

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Action means and the state after the last step.

        Args:
            x: normalised observations, (B, observations).
            state: carried state, (B, state_size); None where each action starts anew.

        Returns:
            (B, actions), and (B, state_size) without gradient or None.
        """
        if self.literal:
            from nervecord.training.policy.literal import literal_forward

            return literal_forward(self, x, state)
        before = self.unpack(x, state) if self.carried else None
        entered, phase = self._enter(x, before)
        outs, after = self._layers(entered, before, summed=True)
        mean: Tensor = self.readout(outs[-1]) if self.counts else self._membrane(outs[-1], before)
        return mean, self.pack(after, entered[-1], phase, mean) if before else None

    @torch.no_grad()
    def rates(self, x: Tensor, state: Tensor | None = None) -> list[Tensor]:
        """Spikes per step of each neuron, (neurons,), of each layer; arguments as of `forward`."""
        before = self.unpack(x, state) if self.carried else None
        outs, _ = self._layers(self._enter(x, before)[0], before, summed=False)
        return [out.mean((0, 1)) for out in outs]

    def _enter(self, x: Tensor, before: CarriedState | None) -> tuple[Tensor, Tensor | None]:
        """What enters the first layer, (1 or T, B, inputs), and the population code's accumulators afterwards."""
        if self.encoder is None:
            return x[None], None
        return self.encoder(x, self.steps, before.phase if before else None)  # type: ignore[no-any-return]

    def _layers(
        self, entered: Tensor, before: CarriedState | None, *, summed: bool
    ) -> tuple[list[Tensor], list[LayerState]]:
        """Spikes (T, B, N) of each layer, of the last with `summed` what the readout takes of them, (B, N); and the
        states afterwards, where they are kept."""
        current = self._first_current(entered, before)
        betas, alphas = self.betas, self.alphas
        outs: list[Tensor] = []
        after: list[LayerState] = []
        for index in range(len(self.hidden)):
            is_last = index == len(self.hidden) - 1
            out, new = spike_layer(
                current,
                betas[index],
                self.settings,
                alpha=alphas[index] if alphas is not None else None,
                weights=self._factors() if is_last and summed else None,
                state=before.layers[index] if before else None,
                recurrent=self.recurrent_weight(index),
            )
            outs.append(out)
            if new is not None:
                after.append(new)
            if not is_last:
                out = torch.cat([before.layers[index].last[None], out[:-1]]) if before and self.delays else out
                current = self.hidden[index + 1](out)
        return outs, after

    def _first_current(self, entered: Tensor, before: CarriedState | None) -> Tensor:
        """Input current of the first layer: (1, B, N) where it is constant, else (T, B, N)."""
        current: Tensor = self.hidden[0](entered)
        if before is None or not self.delays:
            return current
        late = self.hidden[0](before.entered)[None]
        later = current.expand(self.steps - 1, -1, -1) if self.encoder is None else current[:-1]
        return torch.cat([late, later])

    def _factors(self) -> Tensor:
        """What a spike of the last layer counts for at each step, (T,)."""
        if self.counts:
            return torch.full_like(self.exponents, 1 / self.steps)
        powers: Tensor = self.readout_decay**self.exponents
        return torch.cat([powers[1:], powers.new_zeros(1)]) if self.delays else powers

    def _membrane(self, z: Tensor, before: CarriedState | None) -> Tensor:
        """The leaky readout after the last step, (B, actions), from the decayed spike sum (B, N)."""
        assert isinstance(self.readout, nn.Linear)
        decay = self.readout_decay
        powers = decay**self.exponents
        if before and self.delays:
            z = z + powers[0] * before.layers[-1].last
        mean = functional.linear(z, self.readout.weight) + self.readout.bias * powers.sum()
        return mean if before is None else mean + decay * powers[0] * before.readout

    def unpack(self, x: Tensor, state: Tensor | None) -> CarriedState:
        """The parts of a carried state; zeros where there is none."""
        if state is None:
            state = x.new_zeros(x.shape[0], sum(self.parts))
        parts = iter(torch.split(state, self.parts, dim=1))
        memories = [(v := next(parts), next(parts) if self.synaptic else v) for _ in self.widths]
        entered = next(parts) if self.delays else x
        lasts = [next(parts) for _ in self.widths] if self.delays else [v for v, _ in memories]
        phase = next(parts) if self.encoder is not None else None
        layers = [LayerState(v, i, last) for (v, i), last in zip(memories, lasts, strict=True)]
        return CarriedState(layers, entered, phase, x if self.counts else next(parts))

    def pack(self, layers: list[LayerState], entered: Tensor, phase: Tensor | None, readout: Tensor) -> Tensor | None:
        """The parts of a carried state as one tensor without gradient; None where nothing is carried."""
        if not self.carried:
            return None
        parts = [part for layer in layers for part in ((layer.v, layer.i) if self.synaptic else (layer.v,))]
        if self.delays:
            parts += [entered, *(layer.last for layer in layers)]
        if phase is not None:
            parts.append(phase)
        return torch.cat(parts if self.counts else [*parts, readout], dim=1).detach()


class CarriedState:
    """A carried state in parts.

    Args:
        layers: the hidden layers.
        entered: what entered the first layer in the last step, (B, inputs); of use with delays only.
        phase: the population code's accumulators, (B, inputs), or None.
        readout: of the membrane readout, (B, actions); of no use where spikes are counted.
    """

    __slots__ = ("entered", "layers", "phase", "readout")

    def __init__(self, layers: list[LayerState], entered: Tensor, phase: Tensor | None, readout: Tensor) -> None:
        self.layers, self.entered, self.phase, self.readout = layers, entered, phase, readout


def make_policy(observations: int, actions: int, config: TrainConfig) -> SpikingPolicy | AnnPolicy:
    """The policy a configuration asks for, its weights drawn from torch's random generator."""
    kind = SpikingPolicy if config.network.policy == "snn" else AnnPolicy
    return kind(observations, actions, config)
