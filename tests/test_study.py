"""The reports of studies are what the tables in zoo/study say, and their runs are those that the studies ask for."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scripts import script

from nervecord.cli.command import main
from nervecord.runtime.result import interval95
from nervecord.training.sweeps.cells import read_cells
from nervecord.training.sweeps.study import read_study

ROOT = Path(__file__).parent.parent
DOCS, TABLES = ROOT / "docs", ROOT / "zoo" / "study"
REPORT = DOCS / "study.md"
STUDIES = {"study": "layers", "study-settings": "settings"}
SEEDS = {"study": 5, "study-settings": 3}


@pytest.fixture(scope="module")
def run_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folders that the tables hold."""
    folder = tmp_path_factory.mktemp("studies") / "runs"
    script("zoo/tables.py").unpack(folder)
    return folder


def test_the_tables_are_those_of_their_run_folders(run_folders: Path, tmp_path: Path) -> None:
    script("zoo/tables.py").pack(run_folders, tmp_path)
    for name in ("runs.csv", "metrics.csv"):
        assert (tmp_path / name).read_bytes() == (TABLES / name).read_bytes()


@pytest.mark.parametrize("name", STUDIES)
def test_every_run_was_finished_with_the_same_budget(name: str, run_folders: Path) -> None:
    study = read_study(DOCS / f"{name}.toml", out=str(run_folders))
    assert study.folder == run_folders / STUDIES[name]
    assert {path.name for path in study.folder.iterdir()} == {run.name for run in study.runs}
    for run in study.runs:
        result = json.loads((run.folder / "result.json").read_text())
        assert (result["step"], result["test"]["episodes"]) == (run.config.total_steps, run.config.run.test_episodes)
    for cell in read_cells(study).values():
        assert [run.seed for run in cell.finished] == list(cell.seeds)
        assert len(cell.seeds) == SEEDS[name]


def test_each_learning_rate_is_the_best_of_its_search(run_folders: Path) -> None:
    search = read_study(DOCS / "study-rates.toml", out=str(run_folders))
    assert search.folder == run_folders / "rates"
    assert {path.name for path in search.folder.iterdir()} == {run.name for run in search.runs}
    read_cells(search)  # which refuses a run that is another training than the study asks for
    readme = (TABLES / "README.md").read_text(encoding="utf-8")
    rates: dict[tuple[str, ...], dict[float, float]] = {}
    for run in search.runs:
        assert json.loads((run.folder / "result.json").read_text())["step"] == run.config.total_steps
        rows = (run.folder / "metrics.jsonl").read_text().splitlines()
        network = run.config.network
        key = (network.policy.upper(), "-".join(map(str, network.layers)))
        rates.setdefault(key, {})[run.config.algorithm.lr] = json.loads(rows[-1])["train_return"]
    assert len(rates) == 6
    for (policy, layers), of in rates.items():
        best = max(of, key=of.__getitem__)
        cells = [f"**{of[lr]:,.0f}**" if lr == best else f"{of[lr]:,.0f}" for lr in sorted(of)]
        assert f"| {policy}, {layers} | {' | '.join(cells)} |" in readme
        study_rates = {
            run.config.algorithm.lr
            for run in read_study(DOCS / "study.toml").runs
            if (run.config.network.policy.upper(), "-".join(map(str, run.config.network.layers))) == (policy, layers)
        }
        assert study_rates == {best}


@pytest.mark.parametrize("name", STUDIES)
def test_the_report_is_theirs(name: str, run_folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(run_folders.rglob("*"))
    report, study = tmp_path / f"{name}.md", DOCS / f"{name}.toml"
    assert main(["sweep", str(study), "--out", str(run_folders), "--report", str(report)]) == 0, capsys.readouterr()
    assert report.read_text(encoding="utf-8") == (DOCS / report.name).read_text(encoding="utf-8")
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {f"{name}-returns.png", f"{name}-curves.png"}
    assert all((ROOT / "docs" / name).is_file() for name in pictures)
    assert sorted(run_folders.rglob("*")) == before


def mean_text(values: np.ndarray) -> str:
    wide = interval95(values)
    return f"{values.mean():,.0f} ± {f'{wide:,.0f}' if wide >= 99.95 else f'{wide:.1f}'}"


@pytest.mark.parametrize("depth", [2, 3])
def test_depths_are_compared_seed_by_seed(depth: int, run_folders: Path) -> None:
    report, more = REPORT.read_text(encoding="utf-8"), {}
    for policy in ("snn", "ann"):
        tests = {}
        for layers in (1, depth):
            rate = "-lr-0.0024" if (policy, layers) == ("ann", 1) else ""
            folders = [
                run_folders / "layers" / f"{policy}-{'x'.join(['256'] * layers)}{rate}-seed{n}" for n in range(1, 6)
            ]
            results = [json.loads((folder / "result.json").read_text()) for folder in folders]
            tests[layers] = np.array([result["test"]["mean_return"] for result in results])
        more[policy] = tests[depth] - tests[1]
        suffixes = {"snn": ("", ""), "ann": (", lr 0.0006", ", lr 0.0024")}[policy]
        this = f"{policy.upper()} {'x'.join(['256'] * depth)}{suffixes[0]}"
        assert f"| {this} | {policy.upper()} 256{suffixes[1]} | 5 | {mean_text(more[policy])} |" in report
    contrast = [
        line for line in report.splitlines() if f" less ANN 256, lr 0.0024 | SNN {'x'.join(['256'] * depth)} " in line
    ]
    assert len(contrast) == 1
    assert f"| 5 | {mean_text(more['ann'] - more['snn'])} |" in contrast[0]


@pytest.mark.parametrize("name", STUDIES)
def test_the_notes_give_figures_of_the_tables(name: str) -> None:
    notes = read_study(DOCS / f"{name}.toml").notes
    tables = (DOCS / f"{name}.md").read_text(encoding="utf-8").replace(notes, "")
    figures = re.findall(r"-?[\d,.]+ ± [\d,.]*\d", notes)
    assert len(figures) >= 4
    assert [figure for figure in figures if f"| {figure} |" not in tables] == []


def test_the_tables_tell_nothing_of_the_machine() -> None:
    files = [path for path in TABLES.iterdir() if path.is_file()]
    assert {path.name for path in files} == {"README.md", "metrics.csv", "runs.csv"}
    assert not [path for path in files if re.search(rb"/(home|root|tmp|work|Users)/", path.read_bytes())]


def test_the_notes_give_the_noise_that_was_learnt_and_how_many_still_rise(run_folders: Path) -> None:
    study, noise, rising = read_study(DOCS / "study.toml", out=str(run_folders)), {}, 0
    for run in study.runs:
        rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        last = rows[-1]
        rising += last["train_return"] > [row for row in rows if row["step"] <= 1.75e6][-1]["train_return"]
        key = (run.config.network.policy, len(run.config.network.layers))
        noise.setdefault(key, []).append(math.exp(last["log_std"]))
    for policy in ("snn", "ann"):
        one, two, three = (f"{np.mean(noise[policy, depth]):.2f}" for depth in (1, 2, 3))
        assert f"{one}, {two} and {three}" in " ".join(study.notes.split())
    assert f"{rising} of {len(study.runs)} runs return more at the end" in study.notes
