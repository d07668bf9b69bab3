"""The configuration: flags, checks, round trip."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nervecord.errors import FileFormatError, NervecordError
from nervecord.training.algorithms import ALGORITHMS
from nervecord.training.algorithms.distill import Distill
from nervecord.training.algorithms.finetune import Finetune
from nervecord.training.algorithms.ppo import PPO
from nervecord.training.folder.start import require_equal, shared_fields
from nervecord.training.settings.config import TrainConfig, all_fields, demo_config, marked
from nervecord.training.settings.parts import NetworkConfig, RunConfig, TaskConfig


def test_every_field_has_a_name_of_its_own_help_and_a_plain_default() -> None:
    for algorithm in ALGORITHMS.values():
        parts = (TaskConfig, NetworkConfig, algorithm, RunConfig)
        names = [field.name for part in parts for field in dataclasses.fields(part)]
        assert len(names) == len(set(names))
    for name, field in all_fields().items():
        assert len(field.metadata["help"]) > 7, name
        assert type(field.default) in (str, int, float, bool, tuple), name


def test_json_round_trip() -> None:
    config = demo_config(layers=(64, 32), lr=1e-4, seed=7, state="carried", delays=True, name="a.b-c_1")
    again = TrainConfig.from_json(config.to_json())
    assert again == config
    assert type(again.network.layers) is tuple
    assert TrainConfig.of(**config.fields) == config
    student = TrainConfig.of(algorithm="distill", teacher="runs/a", epochs=3)
    assert TrainConfig.from_json(student.to_json()) == student


def test_a_student_has_another_folder_than_what_ppo_trains() -> None:
    def name(**fields: Any) -> str:
        return TrainConfig.of(env="reach:Reach-v0", **fields).run_name

    assert name() == "Reach-v0-snn-256-seed0"
    assert name(algorithm="distill", teacher="mlp.onnx") == "Reach-v0-distill-snn-256-seed0"
    assert name(algorithm="td7") == "Reach-v0-td7-seed0"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"policy": "sn"}, r"--policy: .*'sn'.*'snn'.*ann, snn"),
        ({"operator": "cuda"}, r"--operator: .*'cuda' .*fused, snntorch"),
        ({"steps_per_action": 0}, r"--steps-per-action: .*>= 1, got 0"),
        ({"lr": 0.0}, r"--lr: .*> 0.0, got 0.0"),
        ({"lr": float("nan")}, r"--lr: .*> 0.0, got nan"),
        ({"lr": float("inf")}, r"--lr: .*, got inf"),
        ({"lr": "fast"}, r"--lr: .*float.*str"),
        ({"steps": 1.5}, r"--steps: .*int.*float"),
        ({"delays": 1}, r"--delays: .*bool.*int"),
        ({"decay": 1.0}, r"--decay: .*< 1.0, got 1.0"),
        ({"gamma": 1.5}, r"--gamma: .*<= 1.0, got 1.5"),
        ({"layers": ()}, r"--layers: .*length >= 1"),
        ({"layers": (8, 0)}, r"--layers: \[1\]: .*>= 1, got 0"),
        ({"minibatch": 4096}, r"--minibatch: is 4096, .*32 .*64 .*2048"),
        ({"delays": True}, r"--delays: .*--state reset.*--state carried"),
        ({"layers": 8}, r"--layers: .*array.*int"),
        ({"layers": None}, r"--layers: .*array.*null"),
        ({"layers": (10**30,)}, r"--layers: \[0\]: .*<= 1048576"),
        ({"layers": (1,) * 1001}, r"--layers: .*1000"),
        ({"lr": 10**400}, r"--lr: .*range"),
        ({"seed": 10**5000}, r"--seed: .*<= 1000000000000000000"),
        ({"env": "x" * 10_000, "lr": "y" * 10_000}, r"--lr: .*float.*str"),
        ({"num_envs": 10**9}, r"--num-envs: .*<= 1048576, got 1000000000"),
        ({"name": "../up"}, r"--name: is '../up'.*--out"),
        ({"name": ".."}, r"--name: is '..'"),
        ({"env": ""}, "--env:"),
        ({"capacity": 9}, r"--capacity: .*--algorithm ppo"),
        ({"algorithm": "distill", "teacher": "a", "clip": 0.9}, r"--clip: .*--algorithm distill"),
        ({"algorithm": "a2c"}, r"'a2c'.*ppo"),
        ({"mirror": True, "env": "Hopper-v4"}, r"--mirror: .*Hopper-v4"),
        ({"algorithm": "finetune", "start": "a", "critic_run": "b", "state": "carried"}, "finetune: .*--state reset"),
        ({"recurrent": True}, r"--recurrent: needs --state carried"),
        ({"wrappers": (3,)}, r"--wrappers: \[0\]: .*str.*int"),
    ],
)
def test_impossible_values_are_refused_by_flag(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(NervecordError, match=message):
        TrainConfig.of(**changes)


@pytest.mark.parametrize("algorithm", ["td7", "sac", "td3"])
def test_a_training_that_ends_before_its_first_update_is_refused(algorithm: str) -> None:
    with pytest.raises(NervecordError, match=r"25,000.*20,000") as refusal:
        TrainConfig.of(algorithm=algorithm, steps=20_000)
    assert refusal.value.where == "--random-steps"
    assert TrainConfig.of(algorithm=algorithm, steps=20_000, random_steps=10_000)


def test_fine_tuning_that_is_shorter_than_tds_random_steps_is_none_of_them() -> None:
    settings = TrainConfig.of(algorithm="finetune", start="a", critic_run="b", steps=2_000, fill_steps=1_000).algorithm
    assert isinstance(settings, Finetune)
    assert settings.of_td7(8, 8).steps == 2_000


def test_whole_numbers_are_welcome_where_floats_are_meant() -> None:
    assert TrainConfig.of(obs_clip=5).task.obs_clip == 5.0  # type: ignore[arg-type]


def test_steps_are_rounded_up_to_whole_rollouts() -> None:
    config = TrainConfig.of(steps=1_000_000, num_envs=32, rollout=64)
    assert config.updates == 489
    assert config.total_steps == 489 * 2048 >= 1_000_000


def test_damaged_and_unknown_json() -> None:
    with pytest.raises(FileFormatError, match="is no JSON"):
        TrainConfig.from_json("{")
    with pytest.raises(FileFormatError, match=r"object.*array"):
        TrainConfig.from_json("[]")
    with pytest.raises(NervecordError, match=r"'layers'.*network"):
        TrainConfig.from_json('{"layers": [3]}')
    with pytest.raises(NervecordError, match=r"'layer' .*'layers'"):
        TrainConfig.from_json('{"task": {}, "network": {"layer": [3]}}')
    with pytest.raises(NervecordError, match=r"'networks'.*network"):
        TrainConfig.from_json('{"task": {}, "networks": {}}')
    with pytest.raises(FileFormatError, match="network is 3"):
        TrainConfig.from_json('{"task": {}, "network": 3}')


@pytest.mark.parametrize("part", ["task", "network", "algorithm", "run"])
def test_a_run_folder_without_one_of_the_parts_is_refused(part: str) -> None:
    values = TrainConfig.of(env="CartPole-v1").to_dict()
    del values[part]
    with pytest.raises(FileFormatError, match=f"lacks {part}") as refusal:
        TrainConfig.from_dict(values, where="runs/a/config.json")
    assert refusal.value.where == "runs/a/config.json"


def test_a_run_folder_whose_algorithm_has_no_name_is_refused() -> None:
    values = TrainConfig().to_dict()
    del values["algorithm"]["name"]
    with pytest.raises(FileFormatError, match="algorithm"):
        TrainConfig.from_dict(values)


def test_parts_are_compared_and_replaced() -> None:
    config = TrainConfig(network=NetworkConfig(layers=(8,)), algorithm=PPO(steps=7))
    assert config.replace(lr=1e-3).network is config.network
    assert config.replace(lr=1e-3) == TrainConfig.of(layers=(8,), steps=7, lr=1e-3)
    assert config.replace(algorithm="distill", teacher="a").algorithm.steps == 1_000_000
    assert {"threads", "out", "name", "device"} <= marked("free")
    assert "seed" not in marked("free") | marked("resumable")


def test_importing_the_configuration_loads_nothing_heavy() -> None:
    code = (
        "import sys, nervecord.training.settings.config\n"
        "heavy = {'torch', 'skrl', 'envpool', 'gymnasium', 'mujoco', 'snntorch', 'numba', 'numpy', 'nir'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (process.returncode, process.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"policy": "ann", "steps_per_action": 8}, "--steps-per-action: .*--policy ann"),
        ({"policy": "ann", "slope": 9.0}, "--slope: .*--policy ann"),
        ({"policy": "ann", "state": "carried"}, "--state: .*--policy ann"),
        ({"current_decay": 0.3}, "--current-decay: .*--neuron leaky"),
        ({"population": 20}, "--population: .*--encoder current"),
        ({"output_population": 5}, "--output-population: .*--decoder membrane"),
        ({"log_std_final": -3.0}, "--log-std-final: .*--noise learnt"),
        ({"algorithm": "distill", "teacher": "a", "fall_steps": 60}, "--fall-steps: .*--fall-weight"),
        ({"algorithm": "distill", "teacher": "a", "initial_steps": 9}, "--initial-steps: .*--initial-weight"),
        ({"algorithm": "td7", "obs_clip": 5.0}, "--obs-clip: .*--algorithm td7"),
        ({"algorithm": "sac", "operator": "snntorch"}, "--operator: .*--algorithm sac"),
        ({"algorithm": "td3", "layers": (8,)}, "--layers: .*--algorithm td3"),
        ({"normalise_reward": False, "reward_clip": 3.0}, "--reward-clip: .*--no-normalise-reward"),
    ],
)
def test_what_has_no_meaning_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(NervecordError, match=message):
        TrainConfig.of(**values)


def test_a_student_chooses_the_limit_of_its_observations_which_a_teacher_of_raw_ones_has_not() -> None:
    source, teacher = Distill.sources[0], TrainConfig.of(algorithm="td7", env="Pendulum-v1")
    assert shared_fields(teacher, source)["env"] == "Pendulum-v1"
    assert "obs_clip" not in shared_fields(teacher, source)
    assert shared_fields(TrainConfig.of(obs_clip=5.0), source)["obs_clip"] == 5.0
    student = TrainConfig.of(algorithm="distill", teacher="a", env="Pendulum-v1", critic=(64, 64), obs_clip=5.0)
    require_equal(teacher, student, source, where="a")


def test_what_lapses_by_a_change_has_its_default_again() -> None:
    snn = TrainConfig.of(neuron="synaptic", current_decay=0.3, steps_per_action=8, noise="linear", log_std_final=-3)
    plain = snn.replace(policy="ann", noise="learnt")
    assert plain == TrainConfig.of(policy="ann")
    with pytest.raises(NervecordError, match="--steps-per-action"):
        snn.replace(policy="ann", steps_per_action=8)


def test_a_default_is_never_what_is_wrong() -> None:
    small = TrainConfig.for_task(num_envs=4)
    assert small.algorithm.minibatch == 4 * small.algorithm.rollout < TrainConfig.for_task().algorithm.minibatch
    assert TrainConfig.for_task("CartPole-v1").algorithm.minibatch == 256
    with pytest.raises(NervecordError, match=r"--minibatch: .*512,.*4 environments"):
        TrainConfig.for_task(num_envs=4, minibatch=512)


@pytest.mark.parametrize(
    "former", [("run", "engine", "fused"), ("algorithm", "teacher", ""), ("network", "critic", [8])]
)
def test_a_run_folder_with_a_name_that_no_field_has_is_refused(former: tuple[str, str, Any]) -> None:
    part, name, value = former
    values = TrainConfig().to_dict()
    values[part][name] = value
    with pytest.raises(NervecordError, match=f"unknown field '{name}'"):
        TrainConfig.from_dict(values)


@pytest.mark.parametrize("wrong", [{"lr": "fast"}, {"minibatch": 4096}])
def test_a_wrong_value_in_a_run_folder_names_its_file(wrong: dict[str, Any]) -> None:
    """Not only a flag, which nobody has typed; fields that contradict each other, and parts, too."""
    values = TrainConfig().to_dict()
    values["algorithm"] |= wrong
    with pytest.raises(NervecordError) as refusal:
        TrainConfig.from_dict(values, where="runs/a/config.json")
    assert "runs/a/config.json" in refusal.value.__notes__[0]


def test_parts_in_a_run_folder_that_contradict_each_other_name_its_file() -> None:
    values = TrainConfig().to_dict()
    values["network"]["mirror"], values["task"]["env"] = True, "Hopper-v4"
    with pytest.raises(NervecordError) as refusal:
        TrainConfig.from_dict(values, where="runs/a/config.json")
    assert "runs/a/config.json" in refusal.value.__notes__[0]


def test_what_a_verb_takes_as_its_argument_is_never_called_a_flag() -> None:
    for kind in ALGORITHMS.values():
        if kind.positional:
            with pytest.raises(NervecordError, match="is empty") as refusal:
                TrainConfig.of(algorithm=kind.name)
            assert refusal.value.where == kind.positional
    with pytest.raises(NervecordError, match="--algorithm ppo, only with distill") as refusal:
        TrainConfig.of(algorithm="ppo", teacher="runs/teacher")
    assert refusal.value.where == "teacher"
    assert {kind.positional for kind in ALGORITHMS.values()} == {"", "teacher"}


def test_every_run_folder_of_the_zoo_is_read() -> None:
    paths = sorted((Path(__file__).resolve().parents[2] / "zoo").rglob("config.json"))
    assert len(paths) > 10
    for path in paths:
        config = TrainConfig.from_json(path.read_text(), where=str(path))
        assert TrainConfig.from_json(config.to_json()) == config


def test_a_flag_means_the_same_for_every_algorithm() -> None:
    """One text and one kind of value under one name, whatever learns."""
    fields: dict[str, dataclasses.Field[Any]] = {}
    for kind in ALGORITHMS.values():
        for f in dataclasses.fields(kind):
            first = fields.setdefault(f.name, f)
            assert (f.metadata["help"], type(f.default)) == (first.metadata["help"], type(first.default)), f.name
