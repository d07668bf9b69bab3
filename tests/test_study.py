"""The reports of studies are what the trainings kept in zoo/study say, and these are those that the studies ask for."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from nervecord.cli.command import main
from nervecord.runtime.result import interval95
from nervecord.training.sweeps.cells import read_cells
from nervecord.training.sweeps.study import read_study

ROOT = Path(__file__).parent.parent
DOCS, KEPT = ROOT / "docs", ROOT / "zoo" / "study"
REPORT = DOCS / "study.md"
STUDIES = {"study": "depth", "study-settings": "settings"}


@pytest.mark.parametrize("name", STUDIES)
def test_every_run_was_finished_with_the_same_budget(name: str) -> None:
    study = read_study(DOCS / f"{name}.toml", out=str(KEPT))
    assert study.folder == KEPT / STUDIES[name]
    assert {path.name for path in study.folder.iterdir()} == {run.name for run in study.runs}
    for run in study.runs:
        result = json.loads((run.folder / "result.json").read_text())
        assert (result["step"], result["test"]["episodes"]) == (run.config.total_steps, run.config.run.test_episodes)
    for cell in read_cells(study).values():
        assert [run.seed for run in cell.finished] == list(cell.seeds)
        assert len(cell.seeds) >= 3


def test_what_else_is_kept_is_of_its_study_and_the_table_of_rates_is_theirs() -> None:
    for name, folder in {"study-rates": "rates", "study-layers": "layers"}.items():
        study = read_study(DOCS / f"{name}.toml", out=str(KEPT))
        assert study.folder == KEPT / folder
        kept = {path.name for path in study.folder.iterdir()}
        assert kept <= {run.name for run in study.runs}
        assert name == "study-layers" or len(kept) == len(study.runs)
        for run in (run for run in study.runs if run.name in kept):
            assert json.loads((run.folder / "result.json").read_text())["step"] == run.config.total_steps
        cells = read_cells(study)  # which refuses a run that is another training than the study asks for
        assert sum(len(cell.finished) for cell in cells.values()) == len(kept)
    readme = (KEPT / "README.md").read_text(encoding="utf-8")
    rates: dict[tuple[str, ...], dict[float, float]] = {}
    for run in read_study(DOCS / "study-rates.toml", out=str(KEPT)).runs:
        rows = (run.folder / "metrics.jsonl").read_text().splitlines()
        network = run.config.network
        key = (network.policy.upper(), "-".join(map(str, network.layers)))
        rates.setdefault(key, {})[run.config.algorithm.lr] = json.loads(rows[-1])["train_return"]
    assert len(rates) == 6
    for (policy, layers), of in rates.items():
        best = max(of, key=of.__getitem__)
        told = [f"**{of[lr]:,.0f}**" if lr == best else f"{of[lr]:,.0f}" for lr in sorted(of)]
        assert f"| {policy}, {layers} | {' | '.join(told)} |" in readme
        chosen = {
            run.config.algorithm.lr
            for run in read_study(DOCS / "study-layers.toml").runs
            if (run.config.network.policy.upper(), "-".join(map(str, run.config.network.layers))) == (policy, layers)
        }
        assert chosen == {best}


@pytest.mark.parametrize("name", STUDIES)
def test_the_report_is_theirs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(KEPT.rglob("*"))
    report, study = tmp_path / f"{name}.md", DOCS / f"{name}.toml"
    assert main(["sweep", str(study), "--out", str(KEPT), "--report", str(report)]) == 0, capsys.readouterr()
    assert report.read_text(encoding="utf-8") == (DOCS / report.name).read_text(encoding="utf-8")
    drawn = {path.name for path in tmp_path.glob("*.png")}
    assert drawn == {f"{name}-returns.png", f"{name}-curves.png"}
    assert all((ROOT / "docs" / name).is_file() for name in drawn)
    assert sorted(KEPT.rglob("*")) == before


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("policy", ["snn", "ann"])
def test_all_widths_are_pooled_by_depth(policy: str, depth: int) -> None:
    names = ["x".join([str(width)] * depth) for width in (64, 128, 256)]
    folders = [[KEPT / "depth" / f"{policy}-{name}-seed{seed}" for name in names] for seed in (1, 2, 3)]
    tests = np.array(
        [[json.loads((f / "result.json").read_text())["test"]["mean_return"] for f in of] for of in folders]
    )
    seeds = tests.mean(axis=1)
    wide = interval95(seeds)
    spread = f"{wide:,.0f}" if wide >= 99.95 else f"{wide:.1f}"
    assert f"| {policy.upper()} | {depth} | 64, 128, 256 | 3 | {seeds.mean():,.0f} ± {spread} |" in REPORT.read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize("name", STUDIES)
def test_the_notes_give_figures_of_the_tables(name: str) -> None:
    notes = read_study(DOCS / f"{name}.toml").notes
    tables = (DOCS / f"{name}.md").read_text(encoding="utf-8").replace(notes, "")
    figures = re.findall(r"-?[\d,.]+ ± [\d,.]*\d", notes)
    assert len(figures) >= 4
    assert [figure for figure in figures if f"| {figure} |" not in tables] == []


def test_the_runs_tell_nothing_of_the_machine() -> None:
    files = [path for path in KEPT.rglob("*") if path.is_file()]
    assert {path.name for path in files if path.parent.parent.parent == KEPT} == {
        "config.json", "metrics.jsonl", "result.json", "versions.json",
    }  # fmt: skip
    assert not [path for path in files if re.search(rb"/(home|root|tmp|work|Users)/", path.read_bytes())]
    assert sum(path.stat().st_size for path in files) < 2_000_000
