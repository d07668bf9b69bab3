"""When and why the episodes of zoo/ant end early: `python zoo/falls.py`, half an hour of one core.

The episodes of `zoo/ant/evaluation-fixed.json` that returned little are played again, as `nervecord run` plays them.
Of the states before each end it asks what the teacher's critic says, and whether the policy, and its teacher, come to
an end again from there. Writes `zoo/ant/evaluations/falls.json` and `falls.png` beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import nervecord
from nervecord.runtime.worker.environment import episode_seeds, make_environments
from nervecord.training.folder import checkpoint
from nervecord.training.learners.teacher import Teacher, make_teacher

Array = NDArray[Any]
Act = Callable[[Array], Array]
ANT, TEACHER = Path(__file__).parent / "ant", Path(__file__).parent / "ant-teacher-3"
TARGET = ANT / "evaluations"
BELOW = 9_650.0
"""Episodes that returned less are played again: all that end before step 975."""
CONTROLS = 40
"""Whole episodes, for comparison."""
BEFORE = (1, 2, 3, 5, 8, 10, 15, 20, 30, 50)
"""Steps before an end that are looked at; a step is 0.05 s."""
BRANCHES = {"policy": (1, 2, 3, 5, 8, 10, 15, 20, 30), "teacher": (3, 5, 8, 10, 15, 20)}
FURTHER = 60
"""Steps after the recorded end up to which a branch is followed."""
LANES = 32
NOISE = np.r_[np.zeros(2), np.full(13, 1e-3), np.full(14, 1e-2)]
"""Standard deviation of what is added to a state: metres, quaternion and rad; their rates."""


@dataclass
class Episode:
    """A played episode: positions and velocities of MuJoCo before each step, the actions, and whether it was ended."""

    number: int
    states: Array
    actions: Array
    last: Array
    ended: bool

    @property
    def observations(self) -> Array:
        """What the policy saw, (steps, 27): all but the torso's place."""
        return np.concatenate([self.states[:, 2:15], self.states[:, 15:]], 1)


def replay(seed: int, count: int, numbers: list[int]) -> Iterator[Episode]:
    """Play some of an evaluation's episodes again."""
    seeds, waiting = episode_seeds(seed, count), list(numbers)
    environments = make_environments("Ant-v4", LANES, ())
    observations, playing = np.zeros((LANES, 27)), [-1] * LANES
    states: list[list[Array]] = [[] for _ in environments]
    actions: list[list[Array]] = [[] for _ in environments]
    with nervecord.open(ANT / "ant.nervecord", trace=False) as session:
        session.reset(LANES)

        def begin(row: int) -> None:
            playing[row] = waiting.pop(0) if waiting else -1
            if playing[row] >= 0:
                observations[row] = environments[row].reset(seed=seeds[playing[row]])[0]
                states[row], actions[row] = [], []

        for row in range(LANES):
            begin(row)
        while any(number >= 0 for number in playing):
            step_actions = session.step(observations)
            for row, number in enumerate(playing):
                if number < 0:
                    continue
                data = environments[row].unwrapped.data
                states[row].append(np.r_[data.qpos, data.qvel])
                actions[row].append(step_actions[row].copy())
                step = environments[row].step(step_actions[row].astype(np.float32))
                observations[row] = step[0]
                if step[2] or step[3]:
                    last = np.r_[data.qpos, data.qvel]
                    yield Episode(number, np.array(states[row]), np.array(actions[row]), last, bool(step[2]))
                    begin(row)


def branch(
    environments: list[Any], act: Act, ends: list[Episode], before: int, draw: np.random.Generator | None
) -> float:
    """Share of the ends that come again at most `FURTHER` steps later, from the state so many steps before; `draw` adds
    noise."""
    observations, running, again = np.zeros((len(ends), 27)), np.ones(len(ends), bool), 0
    for row, (environment, end) in enumerate(zip(environments, ends, strict=True)):
        environment.reset(seed=0)
        state = end.states[-before].copy()
        if draw is not None:
            state += draw.normal(size=29) * NOISE
            state[3:7] /= np.linalg.norm(state[3:7])
        environment.unwrapped.set_state(state[:15], state[15:])
        data = environment.unwrapped.data
        observations[row] = np.r_[data.qpos[2:], data.qvel]
    for _ in range(before + FURTHER):
        actions = act(observations)
        for row in np.flatnonzero(running):
            observations[row], _, ended, _, _ = environments[row].unwrapped.step(actions[row].astype(np.float32))
            running[row], again = not ended, again + bool(ended)
    return again / len(ends)


def critic(teacher: Teacher, episode: Episode, part: slice) -> tuple[Array, Array]:
    """What the teacher's critic gives to the policy's actions, and their squared distance from the teacher's."""
    observations = torch.from_numpy(episode.observations[part].astype(np.float32))
    actions = torch.from_numpy(episode.actions[part].astype(np.float32)).clamp(-1, 1)
    with torch.no_grad():
        distance = (teacher(observations).clamp(-1, 1) - actions).square().sum(1)
        return teacher.value(observations, actions).numpy(), distance.numpy()


def branches(teacher: Teacher, ends: list[Episode]) -> dict[str, Any]:
    """Whether ends come again, by who acts and from how many steps before."""
    ends = [end for end in ends if len(end.states) > max(BRANCHES["policy"])]

    def teacher_actions(observations: Array) -> Array:
        return teacher(torch.from_numpy(observations.astype(np.float32))).clamp(-1, 1).numpy()

    environments = make_environments("Ant-v4", len(ends), ())
    summary: dict[str, Any] = {"ends": len(ends)}
    with nervecord.open(ANT / "ant.nervecord", trace=False) as session:
        session.reset(len(ends))
        for name, act in (("policy", session.step), ("teacher", teacher_actions)):
            draw = np.random.default_rng(1)
            summary[name] = [
                {
                    "before": before,
                    "again": branch(environments, act, ends, before, None),
                    "disturbed": branch(environments, act, ends, before, draw),
                }
                for before in BRANCHES[name]
            ]
    return summary


def played() -> list[Episode]:
    """The episodes that returned little, and some whole ones."""
    returns = np.array(evaluation()["return_each"])
    numbers = (*np.flatnonzero(returns < BELOW), *np.flatnonzero(returns >= BELOW)[:CONTROLS])
    return list(replay(evaluation()["seed"], len(returns), [int(number) for number in numbers]))


def evaluation() -> dict[str, Any]:
    """Of the compiled policy."""
    content: dict[str, Any] = json.loads((ANT / "evaluation-fixed.json").read_text(encoding="utf-8"))
    return content


def study(episodes: list[Episode]) -> dict[str, Any]:
    """All numbers, of the episodes that `played` gives."""
    returns = evaluation()["return_each"]
    ends = sorted((episode for episode in episodes if episode.ended), key=lambda episode: episode.number)
    whole = [episode for episode in episodes if not episode.ended and returns[episode.number] >= BELOW]
    content = checkpoint.load(TEACHER / "checkpoints")
    teacher = make_teacher(content, 27, -torch.ones(8), torch.ones(8), 0, torch.device("cpu"))
    parts = [critic(teacher, episode, slice(30, None)) for episode in whole]
    values, distances = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    states = np.concatenate([episode.states[30:] for episode in whole])
    limit = float(np.quantile(values, 0.01))
    return {
        "seed": evaluation()["seed"],
        "episodes": len(returns),
        "ends": [{"episode": e.number, "step": len(e.states), "height": round(float(e.last[2]), 4)} for e in ends],
        "normal": {
            "height": float(np.median(states[:, 2])),
            "height99": float(np.quantile(states[:, 2], 0.99)),
            "rising": float(np.median(states[:, 17])),
            "speed": float(np.median(states[:, 15])),
            "value": float(np.median(values)),
            "value1": limit,
            "teacher_distance": float(np.median(distances)),
        },
        "before": [before_the_end(teacher, ends, steps, limit) for steps in BEFORE],
        "branches": branches(teacher, ends),
    }


def before_the_end(teacher: Teacher, ends: list[Episode], steps: int, limit: float) -> dict[str, float]:
    """Medians so many steps before the ends, and how many values are below the limit."""
    some = [end for end in ends if len(end.states) >= steps]
    at = np.array([end.states[-steps] for end in some])
    parts = [critic(teacher, end, slice(len(end.states) - steps, len(end.states) - steps + 1)) for end in some]
    values, distances = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    return {
        "before": steps,
        "height": float(np.median(at[:, 2])),
        "rising": float(np.median(at[:, 17])),
        "speed": float(np.median(at[:, 15])),
        "value": float(np.median(values)),
        "low_value": float((values < limit).mean()),
        "teacher_distance": float(np.median(distances)),
    }


def draw(summary: dict[str, Any], path: Path) -> None:
    """When episodes end, what precedes it, and from where it comes again."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    left.hist([end["step"] for end in summary["ends"]], bins=np.arange(0, 1001, 100).tolist(), color="#2c6fbb")
    left.set(xlabel="step", ylabel="episodes", title=f"ends of {summary['episodes']:,} episodes")
    rows = summary["before"]
    steps = [row["before"] for row in rows]
    middle.plot(steps, [row["low_value"] for row in rows], color="#d1495b", label="share of values below normal")
    middle.plot(steps, [row["height"] for row in rows], color="#2c6fbb", label="height of the torso, m")
    middle.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
    middle.set(xlabel="steps before the end", xlim=(50, 0), title="before it")
    middle.legend(frameon=False, fontsize=8)
    for name, colour in (("policy", "#2c6fbb"), ("teacher", "#e9a23b")):
        rows = summary["branches"][name]
        right.plot([row["before"] for row in rows], [row["disturbed"] for row in rows], "o-", color=colour, label=name)
    right.set(xlabel="steps before the end", xlim=(31, 0), ylim=(0, 1.02), title="ends again, slightly disturbed")
    right.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    torch.set_num_threads(1)
    result = study(played())
    (TARGET / "falls.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    draw(result, TARGET / "falls.png")
