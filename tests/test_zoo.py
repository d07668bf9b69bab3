"""The policies that come with the repository: each is what its README says it is."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scripts import script

import nervecord
from nervecord.errors import NervecordError
from nervecord.runtime.result import interval95
from nervecord.runtime.worker.environment import episode_seeds, make_environment
from nervecord.training.algorithms.base import Asset
from nervecord.training.evaluate import evaluate
from nervecord.training.folder import checkpoint
from nervecord.training.folder.export import describe_checkpoint, policy_graph
from nervecord.training.folder.start import digest
from nervecord.training.learners.make import make_learner
from nervecord.training.learners.sources import read_sources
from nervecord.training.learners.teacher import make_teacher
from nervecord.training.processes.distributed import SOLO
from nervecord.training.settings.config import TrainConfig
from nervecord.training.simulators.base import VALIDATION

ZOO = Path(__file__).parent.parent / "zoo"
NAMES = sorted(path.parent.name for path in ZOO.glob("*/policy.nir"))
LEAST = {
    "ant": 6000,
    "ant-small": 5000,
    "ant-population": 5000,
    "cartpole": 490,
    "cartpole-recurrent": 490,
    "halfcheetah": 12000,
    "hopper": 3000,
    "humanoid": 4500,
    "walker2d": 5500,
}
"""Mean return that four episodes must reach: below what they are, far above what a broken policy does."""
MOST = {
    "ant": 4_000_000,
    "ant-small": 1_500_000,
    "ant-population": 2_000_000,
    "halfcheetah": 2_000_000,
    "humanoid": 2_500_000,
    "walker2d": 2_000_000,
}
"""Bytes of a folder, where it may be more than one million."""
THINNED = {"ant-small"}
"""Whose stages are kept as its README's figures, but for the one that another policy learnt from."""
SEEDS = {"ant": 20261202, "halfcheetah": 20261305, "hopper": 20261303, "humanoid": 20261306, "walker2d": 20261313}
"""Seed of the evaluation, where it is not 20261125."""
OPTIONS = {name: {"weight_slices": 2} for name in ("ant", "halfcheetah", "hopper", "humanoid", "walker2d")}
"""What its program was compiled with."""
FILES = {
    "README.md",
    "policy.nir",
    "config.json",
    "versions.json",
    "metrics.jsonl",
    "result.json",
    "learning.png",
    "evaluation-float.json",
    "evaluation-fixed.json",
}


TYPED = {
    "ppo": {"--teacher": "--reference", "--teacher-weight": "--reference-weight"},
    "distill": {
        "--capacity": "--kept-states",
        "--start-steps": "--initial-steps",
        "--start-weight": "--initial-weight",
    },
    "finetune": {"--settle": "--freeze-updates", "--teacher": "--critic-run"},
    "td7": {"--settle": "--freeze-updates"},
}
"""Flags of the commands that trained the zoo, as they were typed then, and what they are called now."""


def paired_loss(plain: Any, fixed: Any) -> tuple[float, float]:
    """What compiling loses, and its 95 % interval, over pairs of episodes from the same initial states (`certify`)."""
    size, losses = float(np.mean(plain)), np.subtract(plain, fixed)
    return float(losses.mean()) / size, interval95(losses) / size


def in_todays_words(argv: list[str]) -> str:
    """The command of a run, its flags by the names that they have now: a record says what was typed then."""
    algorithm = argv[argv.index("--algorithm") + 1] if "--algorithm" in argv else argv[1].replace("train", "ppo")
    return " ".join(TYPED[algorithm].get(word, word) for word in argv)


def evaluations(name: str) -> list[dict[str, Any]]:
    """Of float, then of fixed point."""
    return [json.loads((ZOO / name / f"evaluation-{side}.json").read_text()) for side in ("float", "fixed")]


def stages(name: str) -> list[Path]:
    """Folders of the trainings that went before, in order."""
    return sorted((ZOO / name / "stages").glob("*"))


def chain(name: str) -> list[Path]:
    """Trainings that continue each other, the first one first, where the repository keeps all of them."""
    return [*stages(name), ZOO / name] if name not in THINNED else [ZOO / name]


def test_every_folder_is_tested() -> None:
    assert set(NAMES) == set(LEAST)


TWO_LAYERS = ("ant", "halfcheetah", "humanoid", "walker2d")
"""Of 256 neurons each, which take seconds to compile."""
COMPILED = [pytest.param(name, marks=[pytest.mark.long] if name in TWO_LAYERS else []) for name in NAMES]


@pytest.mark.parametrize("name", COMPILED)
def test_the_program_is_the_policy_compiled(name: str) -> None:
    """Versions and the last bit of a report may differ between machines; what runs must not."""
    program = nervecord.compile(ZOO / name / "policy.nir", "lava", **OPTIONS.get(name, {}))
    zoo_program = nervecord.load(ZOO / name / f"{name}.nervecord")
    assert program.target == zoo_program.target == "lava"
    assert program.graph == zoo_program.graph
    assert program.report["lowering"]["populations"] == zoo_program.report["lowering"]["populations"]


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_and_says_where_it_is_from(name: str) -> None:
    policy = nervecord.read(ZOO / name / "policy.nir")
    assert [target.verdict for target in nervecord.inspect(policy, ["lava"]).targets] == ["feasible"]
    config = json.loads((ZOO / name / "config.json").read_text())
    result = json.loads((ZOO / name / "result.json").read_text())
    assert policy.contract.environment == config.get("task", config)["env"]
    assert policy.contract.provenance["training_steps"] == str(result["step"])
    assert policy.contract.provenance["test_return"] == f"{result['test']['mean_return']:.1f}"


FLOATS = [pytest.param(name, "policy.nir", marks=[] if name == "cartpole" else [pytest.mark.slow]) for name in NAMES]


@pytest.mark.parametrize(("name", "suffix"), [*FLOATS, *((name, "program") for name in NAMES)])
def test_it_does_its_task(name: str, suffix: str) -> None:
    path = ZOO / name / (f"{name}.nervecord" if suffix == "program" else suffix)
    with nervecord.open(path) as session:
        result = nervecord.run(session, episodes=4, seed=5, environments=4)
    assert result.mean > LEAST[name]
    assert result.fail_safe == {}


@pytest.mark.parametrize("name", NAMES)
def test_its_evaluations_are_of_the_same_episodes(name: str) -> None:
    sides, text = evaluations(name), (ZOO / name / "README.md").read_text()
    assert [side["target"] for side in sides] == ["reference", "lava"]
    assert sides[0]["seed"] == sides[1]["seed"] == SEEDS.get(name, 20261125)
    assert f"--episodes {sides[0]['episodes']} " in text
    for side in sides:
        returns = np.array(side["return_each"])
        assert side["episodes"] == len(returns) >= 200
        assert side["return_mean"] == pytest.approx(returns.mean())
        assert side["return_ci95"] == pytest.approx(interval95(returns))


def measured(side: dict[str, Any]) -> dict[str, str]:
    """Beginning of a row in its README -> its number."""
    returns = np.array(side["return_each"])
    return {
        "return": f"{side['return_mean']:,.0f} ± {side['return_ci95']:,.0f}",
        "median": f"{np.median(returns):,.0f}",
        "episodes below 6,000": f"{100 * np.mean(returns < 6000):.1f} %",
        "standard deviation of an episode's return": f"{side['return_std']:,.0f}",
        "episode length": f"{side['length_mean']:,.0f}",
        "hidden spikes per action": f"{side['spikes_per_action']:,.0f}",
        "synaptic operations per action": f"{side['synaptic_events_per_action']:,.0f}",
    }


def regenerated(path: Path, name: str) -> str:
    """A document with the numbers of a policy's evaluations in its tables, and, in its README, in its loss."""
    sides = evaluations(name)
    columns = [measured(side) for side in sides]
    lines, own, rows = [], path == ZOO / name / "README.md", 0
    for line in path.read_text(encoding="utf-8").splitlines():
        head, *cells = line.split(" | ")
        label = next((label for label in columns[0] if re.fullmatch(rf"\| {label}(, of [\d,]+)?", head)), None)
        if own and label is not None and len(cells) == 2:
            line, rows = f"{head} | {' | '.join(column[label] for column in columns)} |", rows + (label == "return")
        if not own and line.startswith("|") and f"zoo/{name}/README.md)" in line:
            both = " | ".join(column["return"] for column in columns)
            line, count = re.subn(r"[\d,]+ ± [\d,]+ \| [\d,]+ ± [\d,]+", both, line)
            rows += count
        lines.append(line)
    assert rows == 1, f"{path} has {rows} rows of {name}"
    loss, half = paired_loss(*(side["return_each"] for side in sides))
    sentence = f"The loss is {100 * loss:.1f} % ± {100 * half:.1f} %"
    text = "\n".join(lines) + "\n"
    return re.sub(r"The loss is -?[\d.]+ % ± [\d.]+ %", sentence, text, count=1) if own else text


@pytest.mark.parametrize("document", ["zoo/{name}/README.md", "README.md"])
@pytest.mark.parametrize("name", NAMES)
def test_its_tables_are_of_its_evaluations(name: str, document: str, stored: Callable[[Path, str], None]) -> None:
    path = ZOO.parent / document.format(name=name)
    text = regenerated(path, name)
    stored(path, text)
    assert document == "README.md" or "The loss is " in text


@pytest.mark.parametrize("name", NAMES)
def test_its_files_are_complete_and_tell_nothing_of_the_machine(name: str) -> None:
    names = {path.name for path in (ZOO / name).iterdir()}
    more = {"stages", "stages.png", "checkpoints"} if stages(name) else set()
    more |= {path.name for path in (ZOO / name).iterdir() if re.fullmatch(r"seed-\d+|evaluations", path.name)}
    assert names == FILES | {f"{name}.nervecord"} | more
    text = (ZOO / name / "README.md").read_text()
    assert all(f"`{file}`" in text for file in names - {"README.md"})
    files = [path for path in (ZOO / name).rglob("*") if path.is_file()]
    for file in files:
        if file.suffix not in (".png", ".nir", ".md"):
            assert not re.search(rb"/(home|root|tmp|work|Users)/", file.read_bytes()), file
    assert sum(file.stat().st_size for file in files) < MOST.get(name, 1_000_000)
    for folder in chain(name):
        assert TrainConfig.from_json((folder / "config.json").read_text()).run.out == "runs"
        command = in_todays_words(json.loads((folder / "versions.json").read_text())["argv"])
        assert command in re.sub(r"\s*\\\s+", " ", text), "its README gives another command"
        steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert steps == sorted(set(steps))


@pytest.mark.parametrize("name", [name for name in NAMES if len(chain(name)) > 1])
def test_each_stage_begins_where_the_one_before_it_ended(name: str) -> None:
    for before, after in itertools.pairwise(chain(name)):
        settings = TrainConfig.from_json((before / "config.json").read_text())
        steps = [json.loads(line)["step"] for line in (before / "metrics.jsonl").read_text().splitlines()]
        origins = json.loads((after / "versions.json").read_text())
        learns = TrainConfig.from_json((after / "config.json").read_text()).algorithm.name
        keys = [key for key in ("start", "teacher", "critic_run") if key in origins]
        # Fine-tuning has both: the network is what goes on.
        assert len(keys) == (2 if learns == "finetune" else 1)
        origin = origins[keys[0]]
        assert Path(origin["folder"]).name == settings.run.name
        assert origin["step"] in steps
        if (before / "checkpoints").exists():
            assert digest(checkpoint.load(before / "checkpoints")["learner"]) == origin["networks"]
        # A stranger need not train the teacher to have its student.
        assert "teacher" not in origins or (before / "checkpoints").exists()


def test_the_spread_over_seeds_is_that_of_the_table() -> None:
    text = (ZOO / "ant-small" / "README.md").read_text()
    rows = re.findall(r"^\| \d \| [\d,]+ \| [\d,]+ \| ([\d,]+) ± [\d,]+ \| [\d,]+ \|$", text, re.MULTILINE)
    means = np.array([float(mean.replace(",", "")) for mean in rows])
    match = re.search(r"Over the seeds the mean is ([\d,]+) ± ([\d,]+) .* and the standard deviation (\d+)", text)
    assert match is not None
    mean, half, deviation = (float(value.replace(",", "")) for value in match.groups())
    assert len(means) == 3
    # The table's means are rounded.
    assert mean == pytest.approx(means.mean(), abs=1)
    assert half == pytest.approx(interval95(means), abs=3)
    assert deviation == pytest.approx(means.std(ddof=1), abs=1)


def test_the_teacher_of_the_population_policy_is_kept() -> None:
    folder = ZOO / "ant-small" / "stages" / "4-teacher"
    teacher = json.loads((ZOO / "ant-population" / "versions.json").read_text())["teacher"]
    content = checkpoint.load(folder / "checkpoints")
    assert (teacher["step"], teacher["networks"]) == (content["step"], digest(content["learner"]))
    student = TrainConfig.of(algorithm="distill", teacher=str(folder), env="Ant-v4", critic=(128, 128))
    network = make_teacher(read_sources(student)[0].content, 27, -torch.ones(8), torch.ones(8), 0, torch.device("cpu"))
    assert network(torch.randn(5, 27)).shape == (5, 8)


@pytest.mark.parametrize("name", [name for name in NAMES if stages(name)])
def test_its_checkpoint_is_the_policy(name: str) -> None:
    config = TrainConfig.from_json((ZOO / name / "config.json").read_text())
    graph = nervecord.read(ZOO / name / "policy.nir").graph
    trained = policy_graph(describe_checkpoint(config, checkpoint.load(ZOO / name / "checkpoints")), config).graph
    assert graph.nodes.keys() == trained.nodes.keys()
    assert {key for key, node in graph.nodes.items() if node != trained.nodes[key]} == set()


@pytest.mark.lava
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ant", "ant-small", "cartpole"])
def test_three_episodes_in_lava_action_by_action(name: str) -> None:
    program = nervecord.load(ZOO / name / f"{name}.nervecord")
    compared = 0
    with nervecord.open(program) as emulator, nervecord.open(program, engine="lava", trace=False) as lava:
        world = make_environment(program.contract.environment)
        for seed in episode_seeds(11, 3):
            emulator.reset(1)
            lava.reset(1)
            observation, _ = world.reset(seed=seed)
            ended = False
            while not ended:
                observation = np.asarray(observation, np.float64)
                action = emulator.step(observation)
                np.testing.assert_array_equal(lava.step(observation), action)
                choice = int(action[0]) if program.contract.choices else action
                observation, _, terminated, truncated, _ = world.step(choice)
                ended = terminated or truncated
                compared += 1
        world.close()
        assert emulator.counts.spikes == lava.counts.spikes
    assert compared > 1000


@pytest.mark.long
def test_the_teacher_that_is_kept_teaches_and_goes_on() -> None:
    folder = ZOO / "ant-teacher-3"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(file.stat().st_size for file in files) < 4_500_000
    for file in files:
        assert not re.search(rb"/(home|root|tmp|work|Users)/", file.read_bytes()), file
    config = TrainConfig.from_json((folder / "config.json").read_text())
    content = checkpoint.load(folder / "checkpoints")
    student = TrainConfig.of(algorithm="distill", teacher=str(folder), env="Ant-v4")
    assert digest(read_sources(student)[0].content["learner"]) == digest(content["learner"])
    low, high = -torch.ones(8), torch.ones(8)
    learner = make_learner(FakeSizes(27, low.numpy(), high.numpy()), config, SOLO, sources={}, content=None)
    learner.load_state_dict(content["learner"])
    teacher = make_teacher(content, 27, low, high, 0, torch.device("cpu"))
    observations = torch.randn(50, 27)
    actions, _ = learner.mode(observations, None)
    # The learner's copies are in bfloat16 as it learns; what teaches is in float32.
    assert (teacher(observations) - actions).abs().median() < 0.05
    played = evaluate(learner, config.replace(sim="auto"), 4, purpose=VALIDATION)
    assert played.mean > 1000


def test_fine_tuning_begins_with_the_teacher_that_is_kept() -> None:
    teacher = ZOO / "ant-teacher-3"
    config = TrainConfig.from_json((ZOO / "ant" / "config.json").read_text())
    paths = {"start": str(ZOO / "ant" / "stages" / "1-distilled"), "critic_run": str(teacher)}
    config = config.replace(**paths, capacity=1000, torch_compile=False)
    sizes = FakeSizes(27, -np.ones(8, np.float32), np.ones(8, np.float32))
    learner = make_learner(
        sizes, config, SOLO, sources={origin.field: origin.content for origin in read_sources(config)}, content=None
    )
    policies = learner.teacher_record["policies"]
    assert [policy["sizes"] for policy in policies] == [policies[0]["sizes"]] * 3
    critic = checkpoint.load(teacher / "checkpoints")["learner"]["td7"]["compact"]["critic"]
    torch.testing.assert_close(learner.agent.critic.state_dict(), {k: v.float() for k, v in critic.items()})


@pytest.mark.parametrize("name", ["ant-teacher-3", "ant-small", "ant"])
def test_a_training_of_which_networks_alone_are_kept_is_not_resumed(name: str) -> None:
    assets = TrainConfig.from_json((ZOO / name / "config.json").read_text()).algorithm.assets
    with pytest.raises(NervecordError) as refusal:
        checkpoint.load_whole(ZOO / name / "checkpoints", assets)
    hint = str(refusal.value.hint)
    for flag, needed in (("--start", Asset.NETWORK), ("--critic-run", Asset.ACTION_VALUES), ("distill", Asset.ACTIONS)):
        assert (f"{flag} RUN" in hint) == (needed in assets)


def whole_digest(name: str) -> str:
    """Hash of all in a teacher's checkpoint before it was thinned, from its README, which has that of the rest too."""
    text = " ".join((ZOO / name / "README.md").read_text().split())
    match = re.search(r"thinned: .* `(\w{16})` before, `(\w{16})` now", text)
    assert match is not None
    assert match[2] == digest(checkpoint.load(ZOO / name / "checkpoints")["learner"])
    return match[1]


def test_every_drawn_attempt_is_in_the_tables() -> None:
    folder = ZOO / "ant-teacher"
    text = (folder / "README.md").read_text()
    for one in json.loads((folder / "attempts" / "students.json").read_text()):
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {one['name']} |")]
        figures = [float(value.replace(",", "")) for value in re.findall(r"\d,\d{3}", row.split("|")[-2])]
        # Where a row gives several validations the picture has their mean.
        assert f"{one['return']:,}" in row or one["return"] == round(float(np.mean(figures))), row


def test_the_ant_is_from_the_teacher_that_is_kept() -> None:
    networks = whole_digest("ant-teacher-3")
    for folder, field in zip(chain("ant"), ("teacher", "critic_run"), strict=True):
        teacher = json.loads((folder / "versions.json").read_text())[field]
        assert (teacher["folder"], teacher["networks"]) == ("zoo/ant-teacher-3", networks)


PLACES = [place.relative_to(ZOO) for kept in sorted(ZOO.glob("*/seed-*")) for place in (kept.parent, kept)]


@pytest.mark.parametrize("place", sorted(set(PLACES)), ids=str)
def test_the_row_of_each_seed_is_of_its_episodes(place: Path) -> None:
    name, kept = place.parts[0], place.parts[1:]
    own = json.loads((ZOO / name / "config.json").read_text())["run"]["seed"]
    label = kept[0].removeprefix("seed-") if kept else f"{own} (this one)"
    files = {side: [ZOO / place / f"evaluation-{side}.json"] for side in ("float", "fixed")}
    if kept:  # The folder's own policy has a table of its further episodes.
        files = {side: of + sorted((ZOO / place).glob(f"evaluations/{side}-*.json")) for side, of in files.items()}
    sides = [[json.loads(path.read_text()) for path in of] for of in files.values()]
    assert [{block["target"] for block in side} for side in sides] == [{"reference"}, {"lava"}]
    seeds = [[block["seed"] for block in side] for side in sides]
    assert seeds[0] == seeds[1]
    text = (ZOO / name / "README.md").read_text()
    assert all(str(seed) in text for seed in seeds[0])
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {label} |")]
    (limit,) = re.findall(r"^\| seed \|.* below ([\d,]+) \|", text, re.MULTILINE)
    plain, fixed = (np.concatenate([block["return_each"] for block in side]) for side in sides)
    assert [sum(block["episodes"] for block in side) for side in sides] == [len(plain), len(fixed)]
    figures = [f"{returns.mean():,.0f} ± {interval95(returns):,.0f}" for returns in (plain, fixed)]
    figures += [f"{np.median(fixed):,.0f}", f"{100 * np.mean(fixed < float(limit.replace(',', ''))):.1f} %"]
    loss, half = paired_loss(plain, fixed)
    figures.append(f"{100 * loss:z.1f} % ± {100 * half:.1f} %")
    assert row.endswith(f"| {' | '.join(figures)} |")


@pytest.mark.parametrize("name", [name for name in NAMES if (ZOO / name / "evaluations").exists()])
def test_the_loss_over_all_episodes_is_that_of_every_evaluation(name: str) -> None:
    text, folder = (ZOO / name / "README.md").read_text(), ZOO / name / "evaluations"
    files = {side: sorted(folder.glob(f"{side}-*.json")) for side in ("float", "fixed")}
    asked_further = {folder / "falls.json", folder / "falls.png"}
    assert {path for of in files.values() for path in of} == set(folder.iterdir()) - asked_further
    more = {side: [json.loads(path.read_text()) for path in of] for side, of in files.items()}
    both = [[side] for side in evaluations(name)]
    for side, blocks in zip(both, more.values(), strict=True):
        side += blocks
        assert {one["target"] for one in side} == {side[0]["target"]}
    assert [one["seed"] for one in both[0]] == [one["seed"] for one in both[1]]
    assert len({one["seed"] for one in both[0]}) == len(both[0]) > 1
    pairs = zip(*both, strict=True)
    rows = [(str(pair[0]["seed"]), [np.array(one["return_each"]) for one in pair]) for pair in pairs]
    rows.append(("all", [np.concatenate([one["return_each"] for one in side]) for side in both]))
    for label, sides in rows:
        means, halves = [side.mean() for side in sides], [interval95(side) for side in sides]
        row = [f"{len(sides[0]):,}", *(f"{mean:,.0f} ± {half:,.0f}" for mean, half in zip(means, halves, strict=True))]
        loss, half = paired_loss(*sides)
        assert len(sides[0]) == len(sides[1])
        assert f"| {label} | {' | '.join(row)} | {100 * loss:z.1f} % ± {100 * half:.1f} % |" in text


def test_the_table_of_validations_is_of_both_seeds() -> None:
    text = (ZOO / "ant" / "README.md").read_text()
    rows = [json.loads(line) for line in (ZOO / "ant" / "metrics.jsonl").read_text().splitlines()]
    this_seed = [(row["step"], row["validation_return"]) for row in rows if row["validation_return"] is not None]
    path = ZOO / "ant-teacher" / "attempts" / "students-seed2.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    other_seed = [(row["step"], row["return"]) for row in rows if row["stage"] == "fine-tuned"]
    assert len(this_seed) == len(other_seed) > 5
    for (step, this), (other_step, other) in zip(this_seed, other_seed, strict=True):
        assert step == other_step
        assert f"| {step:,} | {this:,.0f} | {other:,.0f} |" in text
    distilled = [row["return"] for row in rows if row["stage"] == "distilled"]
    assert f"returned {distilled[-1]:,.0f} at its last validation and {max(distilled):,.0f} at its best" in text


def test_both_seeds_learnt_with_the_same_settings() -> None:
    text = re.sub(r"\s*\\\s+", " ", (ZOO / "ant" / "README.md").read_text())
    lines = [line.strip() for line in text.splitlines() if re.match(r" +nervecord (train|distill) ", line)]
    lines = [line for line in lines if "ant-teacher-4" not in line]  # seed 4's chain is shorter in every stage
    assert len(lines) == 4
    for this, other in zip(lines[:2], lines[2:], strict=True):
        assert this.replace("zoo/ant-teacher-3", "runs/ant-teacher") != this
        flags = [dict(re.findall(r"--([a-z-]+) ([^-].*?)(?= --|$)", line)) for line in (this, other)]
        assert [flag.pop("seed") for flag in flags] == ["3", "2"]
        for flag in flags:
            for name in ("name", "start", "critic-run"):
                flag.pop(name, None)
        # Rates fell from 3e-4, the default, from the first step on when seed 2 learnt: to 1.3e-4 at its first update.
        rates = [(flag.pop("lr", None), flag.pop("critic-lr", None)) for flag in flags]
        assert rates in ([("1.3e-4", "1.3e-4"), (None, None)], [("4e-3", None), ("4e-3", None)])
        assert flags[0] == flags[1] != {}


@pytest.mark.parametrize(("rows", "every", "count"), [(1000, 9, 200), (1000, 2000, 200), (50, 7, 50), (400, 1, 400)])
def test_a_kept_learning_curve_has_every_validation_and_evenly_spaced_rows(rows: int, every: int, count: int) -> None:
    validated = set(range(every, rows, every))
    lines = [json.dumps({"step": k, "validation_return": 1.0 if k in validated else None}) for k in range(rows)]
    steps = [json.loads(line)["step"] for line in script("zoo/keep.py")._thin(lines, 200)]
    assert len(steps) == count
    assert steps == sorted(steps)
    assert {0, rows - 1} | validated <= set(steps)
    assert max(np.diff(steps)) <= 2 * rows / count + 2


def test_learning_curves_are_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in ZOO.rglob("metrics.jsonl")}
    assert len(lengths) > 8
    assert {path: length for path, length in lengths.items() if length > 200} == {}


@dataclasses.dataclass(frozen=True)
class FakeSizes:
    """What a learner asks of a simulator: sizes."""

    observation_size: int
    low: Any
    high: Any
    choices: int = 0
