"""Recipes: a chain of trainings as one command, continued wherever it stopped, given up at a gate."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzz.kinds import damage_toml

import nervecord
from nervecord.cli.command import find_verb, main
from nervecord.cli.training import _with_sources, chosen_fields
from nervecord.errors import NervecordError
from nervecord.training.recipes import chain
from nervecord.training.recipes.chain import block_file, commands, gate_values, run_chain
from nervecord.training.recipes.recipe import FOLDER, Plan, PlannedStage, built_in, plan, read_recipe
from nervecord.training.recipes.watcher import SIDES, Watcher
from nervecord.training.settings.config import TrainConfig
from nervecord.training.sweeps.study import differences

ENV = "InvertedPendulum-v4"
ZOO = Path(__file__).parents[2] / "zoo"
TINY = """
[recipe]
about = "seconds of each stage"

[[stage]]
name = "teacher"
gates = [{ step = 256, least = 0.5, over = 1 }, { step = 512, least = 0.6, over = 2 }]
[stage.set]
algorithm = "td7"
steps = 512
num_envs = 4
random_steps = 128
minibatch = 16
steps_per_update = 16.0
hidden = 16
embedding = 16
capacity = 2048
keep_replay = true
checkpoint_every = 128
validate_from = 0.0
validation_episodes = 2
test_episodes = 0
record = 0
tensorboard = false

[[stage]]
name = "student"
gates = [{ step = 512, least = 0.5 }]
[stage.set]
algorithm = "distill"
teacher = "stage:teacher"
layers = [8]
steps_per_action = 3
critic = [8]
steps = 512
num_envs = 4
rollout = 32
minibatch = 32
epochs = 1
checkpoint_every = 128
validate_from = 0.0
validation_episodes = 2
test_episodes = 2
record = 2048
tensorboard = false

[[stage]]
name = "finer"
[stage.set]
algorithm = "finetune"
start = "stage:student"
critic_run = "stage:teacher"
steps = 640
num_envs = 4
fill_steps = 128
freeze_updates = 2
steps_per_update = 16.0
minibatch = 16
capacity = 2048
keep_replay = true
checkpoint_every = 128
validate_from = 0.0
validation_episodes = 2
test_episodes = 2
record = 2048
tensorboard = false

[compile]
options = { weight_bits = 8 }

[evaluation]
seed = 7
episodes = 6
most = 12
spread = 0.0
num_envs = 3

[tasks.InvertedPendulum-v4]
aim = 1.0

[tasks.InvertedPendulum-v4.set.student]
lr = 1e-3
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return str(path)


def plan_of(source: str, out: Path, **changes: Any) -> Plan:
    # Gymnasium's simulator saves its state, so what is resumed is what would have been.
    return plan(read_recipe(source), ENV, **{"out": str(out), "name": "chain", "sim": "gymnasium", **changes})


@pytest.fixture(scope="session")
def whole(tiny: str, tmp_path_factory: pytest.TempPathFactory) -> chain.ChainResult:
    """A chain that nobody interrupted."""
    return run_chain(plan_of(tiny, tmp_path_factory.mktemp("whole")))


def rows(stage: PlannedStage) -> list[dict[str, Any]]:
    """What a stage measured, without the clock."""
    text = (stage.folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [
        {name: value for name, value in json.loads(line).items() if name not in ("seconds", "steps_per_second")}
        for line in text.splitlines()
    ]


@pytest.mark.long
def test_a_chain_ends_with_both_policies_evaluated(whole: chain.ChainResult) -> None:
    folder = whole.plan.folder
    result = json.loads((folder / "result.json").read_text())
    assert (result["env"], result["recipe"], result["reached"]) == (ENV, "tiny", True)
    # Nothing is a spread of 0, so the second block was played too.
    for side in SIDES:
        blocks = [json.loads(block_file(whole.plan, side, seed).read_text()) for seed in (7, 8)]
        returns = [value for block in blocks for value in block["return_each"]]
        assert result["episodes"] == len(returns) == 12
        assert result[side]["mean"] == pytest.approx(sum(returns) / 12)
    loss = (result["float"]["mean"] - result["fixed"]["mean"]) / result["float"]["mean"]
    assert result["loss"] == pytest.approx(loss)
    assert result["cores"] == nervecord.load(whole.plan.program).report["placement"]["cores"]
    assert [(gate["stage"], gate["step"]) for gate in result["gates"]] == [
        ("teacher", 256),
        ("teacher", 512),
        ("student", 512),
    ]
    assert whole.plan.stages[1].config.algorithm.lr == 1e-3  # what the task says
    with nervecord.open(whole.plan.program) as session:
        again = nervecord.run(session, ENV, 6, 7, environments=1)
    assert list(again.returns) == json.loads(block_file(whole.plan, "fixed", 7).read_text())["return_each"]


@pytest.mark.long
def test_a_finished_chain_does_nothing_again(tiny: str, whole: chain.ChainResult) -> None:
    def files() -> dict[Path, int]:
        names = ("metrics.jsonl", "policy.nir", "policy.nervecord", "evaluation-*.json")
        return {path: path.stat().st_mtime_ns for name in names for path in whole.plan.folder.rglob(name)}

    before = files()
    again = run_chain(plan_of(tiny, whole.plan.folder.parent))
    assert files() == before
    assert len(before) == 3 + 2 + 1 + 4
    assert again.to_dict() == whole.to_dict()


class Interrupting(Watcher):
    """Stops the process, as Ctrl-C does, once in every stage and in the second block of each evaluation."""

    def __init__(self) -> None:
        self.waiting = {"teacher": 300, "student": 300, "finer": 400, "float": 1, "fixed": 1}
        """Step of a stage, or episode of a side, at which it stops."""

    def _stop(self, name: str, at: int) -> None:
        if at >= self.waiting.get(name, 1 << 60):
            del self.waiting[name]
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def training(self, stage: PlannedStage) -> Iterator[Any]:
        yield lambda progress: self._stop(stage.stage.name, progress.step)

    @contextlib.contextmanager
    def episodes(self, side: str) -> Iterator[Any]:
        yield lambda count, total, mean: self._stop(side, count)


@pytest.mark.long
def test_it_continues_wherever_it_was_stopped(tiny: str, whole: chain.ChainResult, tmp_path: Path) -> None:
    chain_plan, watcher = plan_of(tiny, tmp_path), Interrupting()
    for name in list(watcher.waiting):
        with pytest.raises(KeyboardInterrupt):
            run_chain(chain_plan, watcher=watcher)
        assert name not in watcher.waiting
    result = run_chain(chain_plan, watcher=watcher)
    for stage, reference in zip(chain_plan.stages, whole.plan.stages, strict=True):
        assert [row["step"] for row in rows(stage)] == [row["step"] for row in rows(reference)]
    # With its replay the teacher is what it would have been.
    assert rows(chain_plan.stages[0]) == rows(whole.plan.stages[0])
    assert len(result.returns["fixed"]) == 12


@pytest.mark.slow
def test_sigterm_ends_it_well_and_the_same_command_continues(tiny: str, tmp_path: Path) -> None:
    text = Path(tiny).read_text().replace("steps = 512", "steps = 65_536", 1)
    recipe = tmp_path / "long.toml"
    recipe.write_text(text)
    words = ["train", "--recipe", str(recipe), "--env", ENV, "--out", str(tmp_path), "--name", "chain", "--quiet"]
    command = [sys.executable, "-m", "nervecord", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    checkpoints = tmp_path / "chain" / "teacher" / "checkpoints"
    # On a busy machine it takes minutes until it trains; before that a signal ends it at once.
    while not list(checkpoints.glob("*.pt")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "stage teacher" in error
    before = int(json.loads((tmp_path / "chain" / "teacher" / "metrics.jsonl").read_text().splitlines()[-1])["step"])
    assert 0 < before < 65_536

    # The same training, shorter: that much of a stage may change.
    recipe.write_text(Path(tiny).read_text().replace("steps = 512", f"steps = {before + 256}", 1))
    config = tmp_path / "chain" / "teacher" / "config.json"
    config.write_text(config.read_text().replace("65536", str(before + 256)))
    result = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert result.returncode == 0, result.stderr
    assert "aim" in result.stdout
    steps = [json.loads(line)["step"] for line in (config.parent / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


@pytest.mark.long
def test_a_gate_gives_a_seed_up_before_its_stage_is_over(
    tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "hopeless.toml"
    recipe.write_text(
        Path(tiny).read_text().replace("aim = 1.0", "aim = 100_000.0").replace("spread = 0.0", "spread = 9.0")
    )
    words = ["train", "--recipe", str(recipe), "--env", ENV, "--out", str(tmp_path), "--name", "chain", "--quiet"]
    for _ in range(2):  # the second time without a training
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "50,000.0" in error
        assert "--seed" in error
        assert "--ignore-gates" in error
    stage = plan_of(str(recipe), tmp_path).stages[0]
    assert rows(stage)[-1]["step"] == 256
    assert not (stage.folder / "result.json").exists()
    assert main([*words, "--ignore-gates", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["reached"], result["episodes"]) == (False, 6)  # one block, as nothing spreads so much


@pytest.mark.long
def test_gates_look_at_the_validations_before_them(whole: chain.ChainResult) -> None:
    stage = whole.plan.stages[0]
    validations = [(row["step"], row["validation_return"]) for row in rows(stage) if row["validation_return"]]
    first, second = gate_values(whole.plan, stage)
    assert first.value == pytest.approx(dict(validations)[256])
    assert second.value == pytest.approx((validations[-1][1] + validations[-2][1]) / 2)
    assert second.limit == pytest.approx(0.6)
    assert gate_values(dataclasses.replace(whole.plan, aim=None), stage) == []


@pytest.mark.parametrize(("name", "first", "last"), [("ant-teacher", 7121, 8714), ("ant-teacher-3", 5541, 10048)])
def test_the_ants_teachers_pass_the_gates_of_the_zoos_recipe(name: str, first: int, last: int) -> None:
    chain_plan = plan(read_recipe("zoo"), "Ant-v4")
    stage = chain_plan.stages[0]
    # They were trained for another number of steps.
    gates = (*stage.stage.gates[:-1], dataclasses.replace(stage.stage.gates[-1], step=1_800_000))
    gates = gates if name == "ant-teacher-3" else (*gates[:-1], dataclasses.replace(gates[-1], step=2_300_000))
    config = stage.config.replace(out=str(ZOO), name=name)
    variant = dataclasses.replace(stage, stage=dataclasses.replace(stage.stage, gates=gates), config=config)
    values = gate_values(chain_plan, variant)
    assert all(value.is_passed for value in values)
    assert (round(values[0].value), round(values[-1].value)) == (first, last)


OF_THE_PACKAGE = [(name, env) for name in built_in() for env in (*read_recipe(name).aims, "Pendulum-v1")]


@pytest.mark.parametrize(("name", "env"), OF_THE_PACKAGE)
def test_its_commands_do_the_same(name: str, env: str, tmp_path: Path) -> None:
    chain_plan = plan(read_recipe(name), env, out=str(tmp_path), seed=3, name="chain")
    lines = dict(commands(chain_plan))
    for stage in chain_plan.stages:
        verb, *words = lines[stage.stage.name][1:]
        args = find_verb(verb).parser(verb).read(words)
        fields = chosen_fields(args)
        if verb == "distill":
            fields |= {"teacher": args.teacher, "algorithm": "distill"}
        assert TrainConfig.for_task(**_with_sources(args, fields)) == stage.config
        # What the next stages read of it.
        stage.folder.mkdir(parents=True)
        (stage.folder / "config.json").write_text(stage.config.to_json())
    another = plan(read_recipe(name), "Ant-v4", out=str(tmp_path), seed=3, name="chain")
    for stage, of_ant in zip(chain_plan.stages, another.stages, strict=True):
        sizes = {"capacity", "kept_states"} if (name, env) == ("zoo", "Humanoid-v4") else set()
        assert set(differences(stage.config, of_ant.config)) <= {"env", *sizes}
    for verb in ("compile", *SIDES):
        find_verb(lines[verb][1]).parser(lines[verb][1]).read(lines[verb][2:])


def test_a_dry_run_shows_the_stages_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--recipe", "zoo", "--env", "Walker2d-v4", "--out", str(tmp_path), "--name", "w", "--dry-run"]
    assert main([*words, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [stage["now"] for stage in data["stages"]] == ["-", "-", "-"]
    assert data["commands"]["distilled"].startswith(f"nervecord distill {tmp_path}/w/teacher ")
    assert not list(tmp_path.iterdir())
    assert main(words) == 0
    assert "1,250" in capsys.readouterr().out


@pytest.mark.long
def test_another_seed_needs_another_name(tiny: str, whole: chain.ChainResult) -> None:
    with pytest.raises(NervecordError, match="teacher has seed 0, not 1"):
        run_chain(plan_of(tiny, whole.plan.folder.parent, seed=1))


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ("steps_per_update", "step_per_update", "'step_per_update'"),
        ("stage:teacher", "stage:pupil", "unknown earlier stage"),
        ("least = 0.5", "least = true", "least"),
        ("[evaluation]", "[evaluated]", "evaluat"),
        ('name = "student"', 'name = "teacher"', "no other stage"),
        ('algorithm = "td7"', 'algorithm = "td7"\nseed = 3', "seed cannot be set here"),
        ("set.student]", "set.pupil]", "unknown stage"),
        ("validation_episodes = 2", "validation_episodes = 0", "validates nothing"),
        ("steps_per_action = 3", "steps_per_action = 0", "steps"),
        ("step = 512, least = 0.6", "step = 513, least = 0.6", "step 513"),
        ("validate_from = 0.0", "validate_from = 0.6", "step 256"),
    ],
)
def test_a_wrong_recipe_is_refused(tiny: str, tmp_path: Path, before: str, after: str, text: str) -> None:
    path = tmp_path / "wrong.toml"
    assert before in Path(tiny).read_text()
    path.write_text(Path(tiny).read_text().replace(before, after, 1))
    with pytest.raises(NervecordError) as error:
        plan_of(str(path), tmp_path)
    assert text in str(error.value)


def test_a_damaged_recipe_is_read_or_refused(tmp_path: Path) -> None:
    path, sound, outcomes = tmp_path / "damaged.toml", FOLDER / "zoo.toml", Counter[str]()
    for number in range(40):
        rng = random.Random(number)
        content = damage_toml(sound, rng)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        try:
            assert commands(plan(read_recipe(str(path)), "Ant-v4"))
            outcomes["read"] += 1
        except NervecordError:
            outcomes["refused"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > 0


@pytest.mark.parametrize(
    "words",
    [
        ["--recipe", "zo"],
        ["--recipe", "zoo", "--lr", "1e-3"],
        ["--recipe", "zoo", "--resume", "runs/x"],
        ["--recipe", "nowhere.toml"],
        ["--dry-run"],
        ["--ignore-gates"],
    ],
)
def test_flags_that_have_no_meaning_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", *words]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(("name", "env"), [("hopper", "Hopper-v4"), ("humanoid", "Humanoid-v4")])
def test_a_recipe_says_how_its_policy_of_the_zoo_was_made(name: str, env: str) -> None:
    stages = plan(read_recipe(name), env, seed=1).stages
    kept = TrainConfig.from_json((ZOO / name / "config.json").read_text(), where=name)
    assert set(differences(stages[-1].config, kept)) <= {"teacher", "sim", "out", "name"}
    text = (ZOO / name / "README.md").read_text().replace("\\\n", "")
    lines = re.findall(r"^    nervecord ((?:train|distill) .*)$", text, re.MULTILINE)
    assert lines[0] == f"train --recipe {name} --env {env} --seed 1 --name {name}"
    for stage in stages:
        assert any(_says(stage, *shlex.split(line)) for line in lines[1:]), stage.stage.name


def _says(stage: PlannedStage, verb: str, *words: str) -> bool:
    """Whether a command asks for a stage's settings, runs' names apart."""
    fields = chosen_fields(find_verb(verb).parser(verb).read(list(words)))
    fields |= {"algorithm": "distill" if verb == "distill" else "ppo"}
    fields = {name: value for name, value in fields.items() if name not in ("name", "start", "teacher")}
    own = stage.config.fields
    return all((tuple(value) if isinstance(value, list) else value) == own.get(name) for name, value in fields.items())


def test_the_package_has_the_recipes_of_the_zoo() -> None:
    assert built_in() == ["hopper", "humanoid", "zoo"]
