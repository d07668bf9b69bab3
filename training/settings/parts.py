"""The parts of a configuration that every algorithm shares: the task, the network, the run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from nervecord.errors import NervecordError
from nervecord.training.fields import MOST_WIDTH, Part, flag
from nervecord.training.simulators.kinds import AUTO, KINDS, on_devices, with_own_tasks


@dataclass(frozen=True)
class TaskConfig(Part):
    """What is learnt."""

    env: str = flag(
        "Ant-v4",
        "Gymnasium id of the task, also module:Id of your own (the module is imported); with --sim "
        f"{', '.join(with_own_tasks())} the name of the task there",
    )
    wrappers: tuple[str, ...] = flag(
        (), "wrappers around each environment, innermost first: names of gymnasium.wrappers, or module:Class"
    )
    obs_clip: float = flag(10.0, "limit of a normalised observation", above=0)

    def _check_together(self) -> None:
        if not self.env:
            raise NervecordError("is empty, a Gymnasium id is needed", where="--env", hint="for example Ant-v4")

    def check_mirror(self, *, where: str) -> None:
        """Refuse a task whose mirror image is not known; `where` is the flag that asks for it.

        Raises:
            NervecordError: it is not.
        """
        if self.env != "Ant-v4":
            raise NervecordError(
                f"no symmetry of {self.env} is known, only that of Ant-v4", where=where, hint=f"train without {where}"
            )


@dataclass(frozen=True)
class NetworkConfig(Part):
    """What acts."""

    policy: str = flag("snn", "spiking policy (snn) or its twin without spikes (ann)", choices=("snn", "ann"))
    neuron: str = flag(
        "leaky",
        "snnTorch neuron: leaky (Leaky) or synaptic (Synaptic, with a current memory)",
        choices=("leaky", "synaptic"),
        needs=("policy", "snn"),
    )
    layers: tuple[int, ...] = flag((256,), "neurons of each hidden layer, input side first", least=1, items=1)
    steps_per_action: int = flag(
        5, "time steps T of the spiking core for each action", least=1, most=1 << 16, needs=("policy", "snn")
    )
    state: str = flag(
        "reset",
        "whether each action starts from a cleared state (reset) or continues (carried)",
        choices=("reset", "carried"),
        needs=("policy", "snn"),
    )
    delays: bool = flag(False, "every connection delivers one step later, as on the chip (needs state carried)")
    recurrent: bool = flag(
        False, "each hidden layer also receives its own spikes of the step before (needs state carried and delays)"
    )
    slope: float = flag(
        5.0, "steepness k of the surrogate gradient 1 / (1 + k |v - threshold|)^2", above=0, needs=("policy", "snn")
    )
    detach_reset: bool = flag(True, "do not differentiate through the reset to zero", needs=("policy", "snn"))
    decay: float = flag(
        0.8, "first value of the learnt membrane decay of each hidden layer", above=0, below=1, needs=("policy", "snn")
    )
    current_decay: float = flag(
        0.5,
        "first value of the learnt current decay of each synaptic layer",
        above=0,
        below=1,
        needs=("neuron", "synaptic"),
    )
    readout_decay: float = flag(
        0.9, "first value of the learnt decay of the readout", above=0, below=1, needs=("policy", "snn")
    )
    encoder: str = flag(
        "current",
        "what enters: the observation as constant current, or as spikes (population)",
        choices=("current", "population"),
        needs=("policy", "snn"),
    )
    population: int = flag(
        10,
        "neurons per observation channel of the population code",
        least=2,
        most=MOST_WIDTH,
        needs=("encoder", "population"),
    )
    decoder: str = flag(
        "membrane",
        "what an action is read from: a leaky readout (membrane) or spikes (count)",
        choices=("membrane", "count"),
        needs=("policy", "snn"),
    )
    output_population: int = flag(
        10,
        "spiking neurons per action, whose spikes the decoder counts",
        least=1,
        most=MOST_WIDTH,
        needs=("decoder", "count"),
    )
    mirror: bool = flag(False, "weights tied so that the policy acts in a mirror as its image does (Ant-v4)")

    def _check_together(self) -> None:
        if self.delays and self.state == "reset":
            raise NervecordError(
                "has no meaning with --state reset: the target resets each layer one step after the layer before it, "
                "which takes up the delays exactly, so the network without delays is what runs",
                where="--delays",
                hint="drop --delays, or use --state carried",
            )
        if self.recurrent and not (self.state == "carried" and self.delays and self.decoder == "membrane"):
            raise NervecordError(
                "needs --state carried, --delays and --decoder membrane: a layer that receives its own spikes has a "
                "delay of one step, and so must every connection",
                where="--recurrent",
                hint="add --state carried --delays",
            )


@dataclass(frozen=True)
class RunConfig(Part):
    """How and where a training is computed, and what is kept of it."""

    seed: int = flag(0, "seed of weights, noise, minibatches and simulators", least=0, naming=True)
    sim: str = flag(
        AUTO.name,
        "simulator: " + "; ".join(f"{kind.name} ({kind.about})" for kind in (AUTO, *KINDS.values())),
        choices=(AUTO.name, *KINDS),
        free=True,
    )
    threads: int = flag(
        0, "threads of the simulator, in each process; 0 for one on each core", least=0, free=True, resumable=True
    )
    torch_threads: int = flag(1, "threads of torch on the CPU", least=1, free=True, resumable=True)
    device: str = flag(
        "cpu",
        f"torch device of the learner and of --sim {', '.join(on_devices())}: cpu, cuda:0, ...",
        free=True,
        resumable=True,
    )
    operator: str = flag(
        "fused",
        "spiking operator: fused, or snntorch (its own modules step by step, slow)",
        choices=("fused", "snntorch"),
    )
    checkpoint_every: int = flag(250_000, "environment steps between two checkpoints", least=1)
    keep_checkpoints: int = flag(3, "newest checkpoints kept, besides the best", least=1, free=True, resumable=True)
    exact_resume: bool = flag(
        False,
        "begin all episodes anew at each checkpoint where the simulator cannot save its state, so that a resumed "
        "run is the same bit for bit",
    )
    validate_from: float = flag(0.5, "part of the training after which checkpoints are validated", least=0, most=1)
    validation_episodes: int = flag(
        20, "deterministic episodes that rank a checkpoint; 0 exports the last one", least=0, resumable=True
    )
    export: str = flag(
        "best",
        "checkpoint that is tested, exported and learnt from: best, the highest validation; or last",
        choices=("best", "last"),
        resumable=True,
    )
    test_episodes: int = flag(
        100,
        "deterministic episodes on held-out test seeds that the result reports; 0 for none",
        least=0,
        resumable=True,
    )
    record: int = flag(2048, "raw observations kept with the policy for calibration", least=0)
    tensorboard: bool = flag(True, "write TensorBoard events beside metrics.jsonl", free=True, resumable=True)
    out: str = flag("runs", "folder that holds the run folders", free=True, naming=True)
    name: str = flag("", "name of the run folder; empty for one made of env, policy and seed", free=True, naming=True)

    def _check_together(self) -> None:
        if self.name and (not re.fullmatch(r"[\w.+-]+", self.name) or self.name in (".", "..")):
            raise NervecordError(
                f"is {self.name!r}, only letters, digits and . _ + - make a folder's name",
                where="--name",
                hint="use --out for the folder it lies in",
            )
