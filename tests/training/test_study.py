"""Study files: what they stand for, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from studies import small_study, write_study

from nervecord.errors import NervecordError
from nervecord.training.settings.config import TrainConfig
from nervecord.training.sweeps.cells import read_cells
from nervecord.training.sweeps.report import table
from nervecord.training.sweeps.study import read_study

DOCS = Path(__file__).parents[2] / "docs"


def test_every_combination_once_first_seeds_first(tmp_path: Path) -> None:
    study = small_study(
        tmp_path,
        '[grid]\npolicy = ["snn", "ann"]\ndepth = [1, 2]\nneurons = [8, 16]\nseeds = [3, 5]\n'
        '[[also]]\nname = "time steps"\npolicy = "snn"\nlayers = [[8]]\nsteps_per_action = [1, 3]\n'
        '[[also]]\nlayers = [[8]]\nstate = ["reset", "carried"]\nslope = 5\nseeds = [9]\n',
    )
    assert study.folder == tmp_path / "small"
    names = [run.name for run in study.runs]
    assert len(names) == len(set(names)) == 8 * 2 + 2 + 2
    assert names[:4] == ["snn-8-seed3", "snn-8x8-seed3", "snn-16-seed3", "snn-16x16-seed3"]
    assert [run.config.run.seed for run in study.runs] == [3] * 9 + [5] * 9 + [9] * 2
    # Series that meet share their runs: three steps per action and the cleared state are the base.
    assert study.series[1].cells == ("snn-8-steps_per_action-1", "snn-8")
    assert study.series[2].cells == ("snn-8", "snn-8-state-carried")
    assert [series.title for series in study.series] == ["grid", "time steps", "series 2"]
    assert study.series[0].varied == ("policy", "layers")
    assert study.series[2].varied == ("state",)
    assert [run.name for run in study.cells["snn-8"]] == ["snn-8-seed3", "snn-8-seed5", "snn-8-seed9"]
    deep = study.cells["ann-16x16"][1]
    assert deep.config == study.base.replace(
        policy="ann", layers=[16, 16], seed=5, name=deep.name, out=str(study.folder)
    )
    assert deep.folder == tmp_path / "small" / "ann-16x16-seed5"
    assert study.total_steps == 20 * 512


def test_numbers_may_be_written_with_an_exponent_and_seeds_have_a_default(tmp_path: Path) -> None:
    study = small_study(tmp_path, "[grid]\nlr = [1e-3, 1]\nnum_envs = [2e1]", base="steps = 1e4")
    assert [run.name for run in study.runs[:2]] == [
        "snn-256-num_envs-20-lr-0.001-seed0",
        "snn-256-num_envs-20-lr-1-seed0",
    ]
    assert (len(study.runs), study.base.algorithm.steps, study.runs[0].config.algorithm.num_envs) == (6, 10_000, 20)


def test_the_example_is_the_study_it_says(tmp_path: Path) -> None:
    study = read_study(DOCS / "study.toml")
    grid = [run.config for run in study.runs if run.cell in study.series[0].cells]
    assert {config.network.layers for config in grid} == {(256,) * depth for depth in (1, 2, 3)}
    assert {config.network.policy for config in grid} == {"snn", "ann"}
    assert {config.task.env for config in grid} == {"Ant-v4"}
    assert len({config.total_steps for config in grid}) == 1
    assert all(len(runs) == 5 for runs in study.cells.values())
    text = (DOCS / "study.toml").read_text()
    assert f"{len(study.cells)} configurations" in text
    assert f"{len(study.runs)} runs" in text


def test_a_search_draws_the_same_whenever_it_is_read_and_more_keep_the_first(tmp_path: Path) -> None:
    series = (
        '[[search]]\nname = "rates"\nsamples = 6\nseeds = [4]\nlr = { log = [1e-4, 1e-2] }\n'
        "gamma = { uniform = [0.9, 1.0] }\nepochs = { uniform = [1, 9] }\nlayers = [[8], [8, 8]]\n"
    )
    study = small_study(tmp_path, series)
    assert [run.name for run in study.runs] == [run.name for run in small_study(tmp_path, series).runs]
    more = small_study(tmp_path, series.replace("samples = 6", "samples = 8"))
    assert [run.name for run in more.runs[:6]] == [run.name for run in study.runs]
    assert (len(study.runs), len(more.runs)) == (6, 8)
    configs = [run.config for run in more.runs]
    assert all(1e-4 <= config.algorithm.lr <= 1e-2 and 0.9 <= config.algorithm.gamma <= 1 for config in configs)
    assert {type(config.fields["epochs"]) for config in configs} == {int}
    assert {config.network.layers for config in configs} == {(8,), (8, 8)}
    assert study.series[0].is_search
    assert study.series[0].varied == ("lr", "gamma", "epochs", "layers")


@pytest.mark.parametrize(
    ("series", "message"),
    [
        ("", "neither .grid."),
        ("[grids]\nlr = [1]", "'grids'.*'grid'"),
        ("[grid]\nslop = [1]", "'slop'.*'slope'"),
        ("[grid]\nneuron = [64]\ndepth = [1]", "depth .*neurons"),
        ("[grid]\nneurons = [64]\ndepth = [0]", "depth .* 0,.* 1"),
        ("[grid]\nneurons = [64]\ndepth = [1]\nlayers = [[1]]", "layers .*depth"),
        ("[grid]\nlayers = [64, 128]", "list of lists is needed"),
        ("[grid]\nseed = [1]", r"\bseed .*\bseeds\b"),
        ("[grid]\nname = ['x']", r"\bname\b"),
        ("[grid]\nseeds = [0, 0]", "seeds .*0 twice"),
        ("[grid]\nseeds = [-1]", "seeds .*-1"),
        ("[grid]\nlr = []", "lr .*empty"),
        ("[grid]\ntest_episodes = [0]", "test_episodes is 0"),
        ("[also]\nlr = [1]", r"\[also\]: .*object"),
        ("also = [1]", r"\[base\].*'also'"),
        ("[grid]\nlr = [1\n", "TOML"),
        ("[[search]]\nlr = [1]", "samples .*0,.*from 1"),
        ("[[search]]\nsamples = 2", "no field"),
        ("[[search]]\nsamples = 2\nlr = 3", "lr .*3,.*log = "),
        ("[[search]]\nsamples = 2\nlr = { log = [0, 1] }", "lr .*0, 1"),
        ("[[search]]\nsamples = 2\nlearning = [1]", "'learning'"),
        ("[grid]\npolicy = ['snn', 'rnn']", "'rnn'.*ann, snn"),
        ("[grid]\nminibatch = [65]", "4 environments"),
        ("[grid]\nalgorithm = ['skrl-ppo']\nstate = ['reset', 'carried']", "skrl-ppo: .*--state reset"),
    ],
)
def test_refusals(tmp_path: Path, series: str, message: str) -> None:
    with pytest.raises(NervecordError, match=message):
        small_study(tmp_path, series)
    assert not (tmp_path / "small").exists()


def test_an_impossible_combination_is_named(tmp_path: Path) -> None:
    with pytest.raises(NervecordError, match=r"--state: .*--policy ann") as refusal:
        small_study(tmp_path, '[grid]\npolicy = ["snn", "ann"]\nstate = ["reset", "carried"]\ndepth=[1]\nneurons=[8]')
    assert refusal.value.__notes__ == [f"in {tmp_path}/study.toml, [grid]: policy = ann, state = carried, layers = 8"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[base]\nlr = 1", "'name'"),
        ("[study]\nname = 'a/b'", "name .*'a/b'"),
        ("[study]\nname = 'x'\nouts = 'y'", "'outs'"),
        ("[study]\nname = 'x'\nout = 3", r"\bout: .*int"),
        ("[study]\nname = 'x'\nnotes = 3", r"\bnotes: .*int"),
        ("[study]\nname = 'x'\n[base]\nstep = 3", "'step'.*'steps'"),
        ("[study]\nname = 'x'\n[base]\nseed = 3", r"\bseed\b"),
        ("[study]\nname = 'x'\n[base]\ntest_episodes = 0", "test_episodes is 0"),
        ("[study]\nname = 'x'\n[base]\nlayers = [[32]]", r"layers .*\[\[32\]\].* \[32\]"),
        ("study = 1", r"\bstudy\b.*object.*int"),
    ],
)
def test_refusals_of_study_and_base(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(NervecordError, match=message):
        read_study(path)


def test_another_folder_than_the_files(tmp_path: Path) -> None:
    path = write_study(tmp_path, "[grid]\nslope = [1, 2]")
    other = read_study(path, out=str(tmp_path / "other"))
    assert other.folder == tmp_path / "other" / "small"
    assert {run.folder.parent for run in other.runs} == {other.folder}
    assert [run.name for run in other.runs] == [run.name for run in read_study(path).runs]
    with pytest.raises(NervecordError, match="--out:"):
        read_study(path, out="")


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(NervecordError, match=r"none\.toml"):
        read_study(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(NervecordError, match=r"binary\.toml"):
        read_study(tmp_path / "binary.toml")


def test_folders_of_another_study_are_refused(tmp_path: Path) -> None:
    study = small_study(tmp_path, "[grid]\nslope = [2]\nseeds = [0]")
    study.check_folders()
    (run,) = study.runs
    run.folder.mkdir(parents=True)
    with pytest.raises(NervecordError, match=r"snn-256-slope-2-seed0 .*folder"):
        study.check_folders()
    (run.folder / "config.json").write_text(run.config.to_json().replace('"sim": "auto"', '"sim": "envpool"'))
    study.check_folders()
    write_study(tmp_path, "[grid]\nslope = [2]\nseeds = [0]", base="steps = 1024\nthreads = 2")
    with pytest.raises(NervecordError, match=r"snn-256-slope-2-seed0 .*steps 512,.*1024"):
        read_study(tmp_path / "study.toml").check_folders()


RULES = """
[study]
name = "s"
[base]
lr = 1e-3
[grid]
policy = ["snn", "ann"]
neurons = [8]
depth = [1, 2]
seeds = [1]
"""


def configs_of(path: Path, text: str) -> list[TrainConfig]:
    path.write_text(text)
    return [run.config for run in read_study(path).runs]


def test_fields_follow_from_others(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    rules = "[[where]]\ndepth = 2\nset = { lr = 5e-4, steps = 1e5 }\n"
    rules += '[[where]]\npolicy = "ann"\nlayers = [8, 8]\nset = { lr = 2e-4 }\n'
    path.write_text(RULES + '[[also]]\nname = "rates"\nlayers = [[8, 8]]\nlr = [3e-4, 4e-4]\n' + rules)
    study = read_study(path)
    runs = {(run.config.network.policy, run.config.network.layers, run.config.algorithm.lr): run for run in study.runs}
    assert set(runs) == {
        ("snn", (8,), 1e-3),
        ("ann", (8,), 1e-3),
        ("snn", (8, 8), 5e-4),
        ("ann", (8, 8), 2e-4),
        # What a series names itself no rule changes.
        ("snn", (8, 8), 3e-4),
        ("snn", (8, 8), 4e-4),
    }
    steps = {key: run.config.algorithm.steps for key, run in runs.items()}
    assert all(count == (100_000 if layers == (8, 8) else 1_000_000) for (_, layers, _), count in steps.items())
    assert runs["snn", (8, 8), 5e-4].cell == "snn-8x8-steps-100000-lr-0.0005"


@pytest.mark.parametrize("algorithm", ["finetune", "distill"])
def test_an_algorithm_that_begins_with_other_runs_can_be_varied(tmp_path: Path, algorithm: str) -> None:
    path = tmp_path / "study.toml"
    begins = 'start = ["runs/student"]\n' if algorithm == "finetune" else ""
    source = "critic_run" if algorithm == "finetune" else "teacher"
    path.write_text(
        '[study]\nname = "s"\n[base]\nenv = "Pendulum-v1"\n'
        f'[grid]\nalgorithm = ["{algorithm}"]\n{source} = ["runs/a", "runs/b"]\n{begins}layers = [[32]]\nseeds = [1]\n'
    )
    runs = read_study(path).runs
    assert [run.config.algorithm.name for run in runs] == [algorithm] * 2
    assert [run.name.partition(source)[2] for run in runs] == ["-runs_a-seed1", "-runs_b-seed1"]


def test_a_cell_of_an_algorithm_with_networks_of_its_own_is_called_by_it(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    head = '[study]\nname = "s"\n[base]\nenv = "Pendulum-v1"\n'
    for grid in ('algorithm = "td7"\n[grid]\n', '[grid]\nalgorithm = ["td7"]\n'):
        path.write_text(f"{head}{grid}lr = [3e-4, 1e-3]\nseeds = [0]\n")
        study = read_study(path)
        cells = read_cells(study)
        assert list(cells) == ["td7", "td7-lr-0.001"]
        assert [row[:2] for row in table(study, study.series[0], cells)[1:]] == [["TD7", "-"]] * 2
        assert all(cell.to_dict(study.base)["policy"] == "td7" for cell in cells.values())


def test_a_rule_sees_what_those_before_it_have_set_and_the_fields_of_the_algorithm(tmp_path: Path) -> None:
    rules = "[[where]]\ndepth = 2\nset = { epochs = 4 }\n[[where]]\nepochs = 4\nset = { lr = 1e-4 }\n"
    pairs = {(c.network.layers, c.algorithm.lr) for c in configs_of(tmp_path / "s.toml", RULES + rules)}
    assert pairs == {((8,), 1e-3), ((8, 8), 1e-4)}
    # A rule may set the field that it looks at.
    rules = "[[where]]\nlr = 1e-3\nset = { lr = 1e-4 }\n"
    assert {c.algorithm.lr for c in configs_of(tmp_path / "s.toml", RULES + rules)} == {1e-4}
    grid = '[study]\nname = "s"\n[grid]\nalgorithm = ["ppo", "td7"]\nseeds = [1]\n'
    rules = '[[where]]\nnum_envs = 32\nset = { lr = 1e-4 }\n[[where]]\nalgorithm = "td7"\nset = { lr = 2e-4 }\n'
    configs = configs_of(tmp_path / "s.toml", grid + rules)
    assert {(c.algorithm.name, c.algorithm.lr) for c in configs} == {("ppo", 1e-4), ("td7", 2e-4)}
    assert [c.run.name for c in configs] == ["snn-256-lr-0.0001-seed1", "td7-lr-0.0002-seed1"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("[where]\ndepth = 2", r"\[where\]: .*array"),
        ("[[where]]\ndepth = 2", "sets nothing"),
        ("[[where]]\nset = { lr = 1e-4 }", "holds everywhere"),
        ("[[where]]\ndeth = 2\nset = { lr = 1e-4 }", "'deth'.*depth"),
        ("[[where]]\ndepth = 2\nset = { rl = 1e-4 }", "'rl'.*lr"),
        ("[[where]]\ndepth = 2\nset = { seed = 1 }", r"\bseed\b"),
        ("[[where]]\nseed = 1\nset = { lr = 1e-4 }", r"\bseed\b"),
        ("[[where]]\ndepth = 3\nset = { lr = 1e-4 }", "changes no run"),
        ("[[where]]\ndepth = true\nset = { lr = 1e-4 }", r"\[\[where\]\] number 1: "),
        ('[[where]]\ndepth = 2\nset = { policy = "ann" }', r"\[\[where\]\] number 1: "),
        ("[[where]]\ndepth = 2\nset = { lr = -1 }", "--lr: .*> 0.0,.*-1"),
        ("[[where]]\ndepth = 2\nset = { smoothness = 0.5 }", r"(?s)--smoothness.*\[\[where\]\] number 1"),
        ('[[also]]\nname = "odd"\nlayers = 8\n[[where]]\ndepth = 1\nset = { lr = 1e-4 }', "layers"),
    ],
)
def test_rules_that_are_none(tmp_path: Path, rule: str, message: str) -> None:
    with pytest.raises(NervecordError, match=message):
        configs_of(tmp_path / "study.toml", f"{RULES}{rule}\n")


HEAD = '[study]\nname = "s"\n[base]\nenv = "CartPole-v1"\n'
MANY = ", ".join(f"{k}e-9" for k in range(1, 10_002))
HUNDRED = [k / 1000 for k in range(1, 101)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "[grid]\ndepth = [1000000000]\nneurons = [8]", "depth .*1e[+]09,.* 1000 "),
        (HEAD + f"[grid]\ndepth = [{'9' * 400}]\nneurons = [8]", "depth .*9999"),
        (HEAD + f"[grid]\ndepth = {list(range(1, 1001))}\nneurons = {list(range(1, 9001))}", "9,000,000 .*10,000"),
        (HEAD + f"[grid]\nlr = [{MANY}]", "lr .*10,001.*10,000"),
        (
            HEAD + "[grid]\n" + "".join(f"{name} = {HUNDRED}\n" for name in ("gamma", "lr", "clip", "entropy")),
            "300,000,000 .*10,000",
        ),
        (HEAD + "[grid]\nlr = [1e-3]\n" + "[[where]]\nlr = 1e-3\nset = { clip = 0.1 }\n" * 501, "length <= 500"),
        (HEAD + '[[search]]\nname = "x"\nsamples = 1000000000\nlr = { log = [1e-4, 1e-2] }', "3,000,000,000 runs"),
        (HEAD + f'[[search]]\nname = "x"\nsamples = 2\nlr = {{ uniform = [0, {"9" * 400}] }}', "lr .*9999"),
        (HEAD + '[[search]]\nname = "x"\nsamples = 2\nepochs = { uniform = [1, 1e99] }', "--epochs: .*<= 1"),
        (HEAD + f"[grid]\nlr = [{'9' * 400}]", "--lr:"),
        (HEAD + f"steps = {'9' * 400}\n[grid]\nlr = [1e-3]", "--steps: .*<= 1000000000000000000"),
        (HEAD + f"[grid]\nlr = [1e-3]\nseeds = [{'9' * 400}]", "seeds .*9999"),
        (HEAD + "[grid]\nnum_envs = [99999999999]", "--num-envs: .*<= 1048576"),
        (HEAD + "[grid]\nlayers = [[99999999999]]", r"--layers: \[0\]: .*<= 1048576"),
        (HEAD.replace('"s"', '"s"\nout = "\\u001b[2Jruns"') + "[grid]\nlr = [1e-3]", r"\\x1b"),
        (HEAD.replace('"s"', '"s"\nnotes = "a\\nb\\u0085"') + "[grid]\nlr = [1e-3]", None),
    ],
)
def test_studies_are_bounded(tmp_path: Path, text: str, message: str | None) -> None:
    path = tmp_path / "s.toml"
    path.write_text(text)
    if message is None:
        assert read_study(path).notes.startswith("a\nb")
        return
    with pytest.raises(NervecordError, match=message) as refusal:
        read_study(path)
    assert len(str(refusal.value)) < 400


def test_series_are_counted_together_and_rules_with_combinations(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "s.toml"
    rules = "[[where]]\nlr = 1e-3\nset = { gamma = 0.9 }\n[[where]]\nlr = 2e-3\nset = { gamma = 0.8 }\n"
    path.write_text(HEAD + "[grid]\nlr = [1e-3, 2e-3]\nseeds = [1, 2]\n[[also]]\nepochs = [3, 4]\n" + rules)
    assert len(read_study(path).runs) == 8
    for name, most, message in (
        ("MOST_RUNS", 7, r"\[\[also\]\] 'series 1': asks for 8 runs, at most 7"),
        ("MOST_RULED", 7, "has 2 rules for 4 combinations, their product is at most 7"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"nervecord.training.sweeps.study.{name}", most)
            with pytest.raises(NervecordError, match=message):
                read_study(path)
