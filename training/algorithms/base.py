"""What every algorithm declares: its settings, its learner, what its runs hold, what it starts from, what it needs.

An algorithm is a frozen dataclass in a file of its own beside this one, found by `nervecord.training.algorithms`.
Nothing here loads torch: a learner is named, and imported when a training begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from nervecord.errors import NervecordError
from nervecord.training.fields import MOST_ENVS, Part, flag, flag_name

if TYPE_CHECKING:
    from nervecord.training.settings.config import TrainConfig


class Asset(Enum):
    """What a run holds that another training can start from. The value is its name in errors."""

    NETWORK = "network with observation statistics"
    STATE_VALUES = "critic of states with reward statistics"
    ACTIONS = "policy that can be imitated"
    ACTION_VALUES = "critic of actions"


@dataclass(frozen=True, slots=True)
class Source:
    """A run that a training starts from.

    Args:
        field: of the algorithm, which names the run folder; empty: there is none.
        assets: what the run must hold.
        shared: fields in which both runs must be equal; "task" and "network" stand for all fields of these parts. One
            that either run does not have is left out.
        takes_files: whether an ONNX file or a function can stand in the place of the run.
        is_memoryless: whether the run's policy must not carry state from action to action.
        required: what is missing where the field is empty, for the error; "" where it may be empty.
    """

    field: str
    assets: frozenset[Asset]
    shared: tuple[str, ...]
    takes_files: bool = False
    is_memoryless: bool = False
    required: str = ""


@dataclass(frozen=True)
class Algorithm(Part):
    """How it learns: what every algorithm has."""

    name: ClassVar[str]
    about: ClassVar[str]
    """For the help of `--algorithm`."""
    verb: ClassVar[str] = "train"
    """The verb of the command line that trains with it."""
    learner_class: ClassVar[str]
    """Its class, "module:Class" (`nervecord.training.learners.base.Learner`)."""
    teacher_class: ClassVar[str] = ""
    """The class by which a run of it can be imitated (`nervecord.training.learners.teacher.Teacher`)."""
    assets: ClassVar[frozenset[Asset]] = frozenset()
    """What its runs hold."""
    sources: ClassVar[tuple[Source, ...]] = ()
    """What it starts from beside its seed, in the order in which it is read."""
    own_networks: ClassVar[bool] = False
    """Whether it has networks of its own, without spikes, in place of those of the part `network`."""
    takes_presets: ClassVar[bool] = False
    """Whether presets, which are PPO's, suit its fields too."""
    takes_carried: ClassVar[bool] = True
    """Whether it trains policies whose state carries from action to action."""
    takes_choices: ClassVar[bool] = True
    """Whether it learns tasks whose action is a choice."""
    takes_processes: ClassVar[bool] = True
    """Whether several processes can train together."""
    devices: ClassVar[tuple[str, ...]] = ()
    """Types of torch devices that it learns on; () for any."""

    steps: int = flag(1_000_000, "environment steps of the whole training", least=1, resumable=True)
    num_envs: int = flag(32, "environments stepped together, over all processes", least=1, most=MOST_ENVS)
    gamma: float = flag(0.99, "discount", least=0, most=1)
    lr: float = flag(3e-4, "learning rate of Adam", above=0)

    @property
    def rollout_steps(self) -> int:
        """Steps of each environment between two updates."""
        return 32

    @property
    def batch(self) -> int:
        """Transitions of one rollout over all environments."""
        return self.num_envs * self.rollout_steps

    def hidden_weights(self) -> dict[str, int]:
        """Flag -> weights that it asks for between the hidden layers of networks beside the policy's."""
        return {}

    def check_source(self, source: Source, before: TrainConfig | None, config: TrainConfig) -> None:
        """Refuse a run that this training cannot start from, beyond what `Source` says.

        Args:
            source: which one. before: its configuration, None for a file or a function. config: of this training.

        Raises:
            NervecordError: it cannot.
        """

    def check_config(self, config: TrainConfig) -> None:
        """Refuse a task or a network for which these settings have no meaning; `config` is of this training.

        Raises:
            NervecordError: they have none.
        """
        if config.network.state == "carried" and not self.takes_carried:
            raise NervecordError(
                "needs --state reset: it keeps no state of the policy", where=f"--algorithm {self.name}"
            )

    def check_choices(self, env: str, choices: int) -> None:
        """Refuse a task whose action is one of `choices`, where that is not learnt, or not with these settings.

        Raises:
            NervecordError: it is not.
        """
        from nervecord.training.algorithms import ALGORITHMS  # which imports this module

        if not self.takes_choices:
            able = [name for name, kind in ALGORITHMS.items() if kind.takes_choices]
            raise NervecordError(
                f"has values for actions, and {env} lets choose",
                where=f"--algorithm {self.name}",
                hint=f"train it with {' or '.join(able)}",
            )

    def check_processes(self, processes: int) -> None:
        """Refuse settings that several processes cannot share.

        Raises:
            NervecordError: they cannot.
        """
        if processes > 1 and not self.takes_processes:
            raise NervecordError(
                "learns in one process", where=f"--algorithm {self.name}", hint="start it without torchrun"
            )
        if self.num_envs % processes:
            raise NervecordError(
                f"is {self.num_envs}, which {processes} processes cannot share evenly",
                where="--num-envs",
                hint=f"it counts the environments of all processes: use a multiple of {processes}",
            )

    def _check_together(self) -> None:
        for source in self.sources:
            if source.required and not getattr(self, source.field):
                raise NervecordError(
                    f"is empty, {source.required}", where=self.spelled(source.field), hint=self._example()
                )

    def _example(self) -> str:
        """A command that names all that is required."""
        named = [f"{flag_name(source.field)} RUN" for source in self.sources if source.required]
        return f"nervecord {self.verb} --algorithm {self.name} {' '.join(named)}"


def critic_weight(default: float) -> float:
    """The field `critic_weight`, which means the same wherever a critic of actions moves a policy."""
    text = (
        "weight, beside the squared distance from the teacher's action in halves of the actions' range, of the value "
        "that a critic of TD7 gives to the policy's action, divided by its mean absolute value"
    )
    weight: float = flag(default, text, least=0)
    return weight


def start_run() -> str:
    """The field `start`, which means the same wherever a run's network is trained on."""
    run: str = flag("", "run folder whose networks and statistics the training starts from; it sets the shape too")
    return run
