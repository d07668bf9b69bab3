"""Reports and pictures of run folders that others may have written: a sentence or a report, in bounded memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from studies import small_study

from nervecord.errors import FileFormatError
from nervecord.training.folder import records
from nervecord.training.folder.figure import draw_learning_curve
from nervecord.training.folder.records import last_row, read_columns, read_record
from nervecord.training.sweeps.cells import MOST_POINTS, read_cells
from nervecord.training.sweeps.report import markdown
from nervecord.training.sweeps.standing import error_file, standing_of
from nervecord.training.sweeps.study import Study

TEST = {"mean_return": 3.0, "episodes": 2, "interval95": [2.0, 4.0]}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study of one finished run."""
    study = small_study(tmp_path, "[grid]\nlayers = [[4]]\nseeds = [1]\n")
    folder = study.runs[0].folder
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(study.runs[0].config.to_json())
    (folder / "result.json").write_text(json.dumps({"step": 64, "test": TEST}))
    (folder / "metrics.jsonl").write_text('{"step": 64, "train_return": 1.0, "validation_return": 2}\n')
    return study


@pytest.mark.parametrize(
    "versions",
    [{}, {"packages": 3, "git_commit": 5}, {"packages": {"torch": [1]}, "python": None, "cores": {}}],
    ids=str,
)
def test_versions_of_any_content_are_texts(versions: dict[str, Any], study: Study) -> None:
    (study.runs[0].folder / "versions.json").write_text(json.dumps(versions))
    text = markdown(study, read_cells(study), standing_of(study), ())
    assert "All runs" in text
    assert "Trained with" in text


def test_rows_without_returns_make_no_curve(study: Study) -> None:
    path = study.runs[0].folder / "metrics.jsonl"
    path.write_text('{"step": 64}\n{"step": 128, "train_return": null}\n')
    (cell,) = read_cells(study).values()
    assert cell.finished[0].curve == ()
    path.write_text('{"step": 64, "train_return": "much"}\n')
    with pytest.raises(FileFormatError, match=r"line 1: .*train_return"):
        read_cells(study)


def test_curves_of_millions_of_rows_are_thinned(study: Study) -> None:
    count = 3 * MOST_POINTS
    rows = (f'{{"step": {k}, "train_return": {k}}}\n' for k in range(count))
    (study.runs[0].folder / "metrics.jsonl").write_text("".join(rows))
    (outcome,) = next(iter(read_cells(study).values())).finished
    assert [step for step, _ in outcome.curve] == list(range(0, count, 3))
    assert outcome.training == count - 1, "the last row stands beside it"


def test_a_reason_that_is_no_file_is_refused(study: Study) -> None:
    (study.runs[0].folder / "result.json").unlink()
    path = error_file(study.runs[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\xff")
    with pytest.raises(FileFormatError, match=path.name):
        standing_of(study)


@pytest.mark.parametrize(
    ("test", "words"),
    [
        ({**TEST, "mean_return": "much"}, r"test\.mean_return"),
        ([1], r"test\.mean_return"),
        ({**TEST, "interval95": [None, 1]}, "interval95"),
    ],
)
def test_a_picture_of_a_result_that_is_none(test: Any, words: str, study: Study, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = study.runs[0].folder
    draw_learning_curve(folder, tmp_path / "sound.svg")
    (folder / "result.json").write_text(json.dumps({"step": 64, "test": test}))
    with pytest.raises(FileFormatError, match=words):
        draw_learning_curve(folder, tmp_path / "curve.svg")


def test_rows_and_their_number_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    assert last_row(path) is None
    path.write_text("".join(f'{{"step": {k}}}\n' for k in range(5)))
    monkeypatch.setattr(records, "MOST_ROWS", 4)
    for reader in (read_columns, last_row):
        with pytest.raises(FileFormatError, match="4 rows"):
            reader(path)
    monkeypatch.setattr(records, "LONGEST_ROW", 8)
    with pytest.raises(FileFormatError, match=r"line 1: .*8 bytes"):
        last_row(path)


def test_a_record_of_millions_of_objects_is_not_read(tmp_path: Path) -> None:
    """64 MB of them would take 2 GB."""
    path = tmp_path / "config.json"
    path.write_text('{"a": [' + '{"":0},' * 1_300_000 + "0]}")
    with pytest.raises(FileFormatError, match=r"\b8388608 are"):
        read_record(path)
