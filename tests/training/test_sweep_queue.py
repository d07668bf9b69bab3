"""The queue: one worker for each run, dead workers' runs taken up, failures kept; in a journal or a database."""

from __future__ import annotations

import gc
import os
import sys
import threading
from pathlib import Path

import pytest
from studies import small_study

from nervecord.errors import NervecordError
from nervecord.training import sweep_queue
from nervecord.training.lease import Lease
from nervecord.training.study import Study
from nervecord.training.sweep_queue import JOURNAL, Claim, Queue, State

SERIES = '[grid]\npolicy = ["snn", "ann"]\nlayers = [[8, 4]]\nseeds = [0, 1]\nslope = [1.5]\n'


def filled(tmp_path: Path, storage: str | None = None) -> tuple[Study, Queue]:
    study = small_study(tmp_path, SERIES)
    queue = Queue(study.folder, study.name, storage)
    queue.fill(study)
    return study, queue


def other(study: Study, storage: str | None = None) -> Queue:
    return Queue(study.folder, study.name, storage)


def taken(queue: Queue) -> Claim:
    claim = queue.take()
    assert claim is not None
    return claim


@pytest.mark.parametrize("kind", ["journal", "database"])
def test_each_run_goes_to_one_and_its_end_is_kept(tmp_path: Path, kind: str) -> None:
    storage = f"sqlite:///{tmp_path}/queue.db" if kind == "database" else None
    study, queue = filled(tmp_path, storage)
    queue.fill(study)
    second = other(study, storage)
    claims = [taken(queue), taken(second), taken(queue), taken(second)]
    assert queue.take() is None
    assert second.take() is None
    assert [claim.config.name for claim in claims] == [run.name for run in study.runs]
    assert [claim.config for claim in claims] == [run.config for run in study.runs]
    assert not queue.is_over()
    for claim in claims[:3]:
        with claim:
            claim.done(2.5)
    with claims[3]:
        claims[3].failed("the sentence")
    assert queue.is_over()
    standing = second.standing(study)
    assert [*standing.states.values()] == [State.DONE] * 3 + [State.FAILED]
    assert standing.errors == {study.runs[3].name: "the sentence"}
    assert standing.is_over
    assert (tmp_path / "small" / JOURNAL).exists() == (kind == "journal")


@pytest.mark.skipif(sys.version_info < (3, 13), reason="sqlite3 complains of connections left open from 3.13 on")
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are counted in /proc")
def test_a_database_is_disconnected_with_its_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    plain = sweep_queue._open_database
    monkeypatch.setattr(sweep_queue, "_open_database", lambda url: opened.append(plain(url)) or opened[-1])

    def connections() -> int:
        links = (os.path.realpath(path) for path in Path("/proc/self/fd").iterdir())
        return sum(link == str(tmp_path.resolve() / "queue.db") for link in links)

    _, queue = filled(tmp_path, f"sqlite:///{tmp_path}/queue.db")
    assert connections() > 0
    del queue
    gc.collect()
    assert len(opened) == 1  # and still there: its connections were closed, not collected
    assert connections() == 0


def test_values_are_there_for_other_tools(tmp_path: Path) -> None:
    _, queue = filled(tmp_path)
    with taken(queue) as claim:
        claim.done(7.0)
    trial = queue._study.best_trial
    assert trial.value == 7.0
    assert trial.params == {"policy": "snn", "seed": 0, "depth": 2, "neurons": 8, "slope": 1.5}


def test_a_dead_workers_run_is_taken_up_at_once(tmp_path: Path) -> None:
    study, queue = filled(tmp_path)
    claim = taken(queue)
    claim.step = 192
    claim._beat(0)
    assert [taken(queue).config.name for _ in range(3)] == [run.name for run in study.runs[1:]]
    assert queue.take() is None  # alive, as its lock is held
    claim.release()  # what the system does when a process dies
    again = taken(other(study))
    assert again.config == claim.config
    assert again.step == 192
    assert queue.standing(study).states[claim.config.name] is State.RUNNING
    claim._beat(1)
    assert claim.is_lost
    claim.done(1.0)  # too late
    assert queue.standing(study).states[claim.config.name] is State.RUNNING
    again.done(3.0)
    assert queue.standing(study).states[claim.config.name] is State.DONE


def test_a_run_that_kills_its_workers_fails_unless_it_gets_on(tmp_path: Path) -> None:
    study, queue = filled(tmp_path)
    name = study.runs[0].name
    checkpoints = study.folder / name / "checkpoints"
    rest = [taken(queue) for _ in study.runs]
    for attempt in range(6):
        claim = rest.pop(0) if attempt == 0 else taken(queue)
        assert claim.config.name == name
        if attempt < 3:
            checkpoints.mkdir(parents=True, exist_ok=True)
            (checkpoints / f"step-{attempt:012d}.pt").touch()
        claim.release()
    assert queue.take() is None
    standing = queue.standing(study)
    assert standing.states[name] is State.FAILED
    assert "died 3 times" in standing.errors[name]
    queue.fill(study, retry_failed=True)
    assert queue.standing(study).states[name] is State.WAITING
    assert taken(queue).config.name == name


def test_put_back_waits_again_and_counts_no_death(tmp_path: Path) -> None:
    study, queue = filled(tmp_path)
    name = study.runs[0].name
    others = []
    for _ in range(5):
        claim = taken(queue)
        while claim.config.name != name:
            others.append(claim)
            claim = taken(queue)
        with claim:
            claim.step += 64
            claim.put_back()
        standing = queue.standing(study)
        assert (standing.states[name], standing.steps[name]) == (State.WAITING, claim.step)
    assert claim.step == 5 * 64


def test_silence_of_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock may not be seen here, so a free one says nothing until its count has stood still long enough."""
    study, queue = filled(tmp_path)
    claim = taken(queue)
    rest = [taken(queue) for _ in study.runs[1:]]
    monkeypatch.setattr(sweep_queue, "machine", lambda: "another")
    claim.release()
    here = other(study)
    assert here.take() is None
    assert here.take() is None
    monkeypatch.setattr(sweep_queue, "SILENCE", 0.0)
    claim._beat(1)
    assert here.take() is None  # it counted on
    assert taken(here).config.name == claim.config.name
    assert len(rest) == 3


def test_a_queue_filled_twice_trains_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, queue = filled(tmp_path)
    for run in study.runs:
        queue._put(run, study.base)  # another machine, at the same moment
    for _ in study.runs:
        with taken(queue) as claim:
            claim.done(1.0)
    assert queue.take() is None
    assert queue.standing(study).count(State.DONE) == 4


def test_a_done_run_without_its_result_is_not_passed_over(tmp_path: Path) -> None:
    study, queue = filled(tmp_path)
    with taken(queue) as claim:
        claim.done(1.0)
    with pytest.raises(NervecordError, match=r"holds no result.json"):
        queue.fill(study)


def test_new_seeds_are_added(tmp_path: Path) -> None:
    study, queue = filled(tmp_path)
    more = small_study(tmp_path, SERIES.replace("[0, 1]", "[0, 1, 2]"))
    queue.fill(more)
    assert len(queue.standing(more).states) == 6
    assert len([queue.take() for _ in range(7) if queue.take()]) == 3
    assert len(queue.standing(study).states) == 4


def test_refusals_of_storages(tmp_path: Path) -> None:
    study = small_study(tmp_path, SERIES)
    for url, message in (
        ("nonsense", "cannot be opened"),
        (f"sqlite:///{tmp_path}/none/queue.db", "cannot be opened"),
        ("nodatabase://host/x", "cannot be opened|nodatabase"),
    ):
        with pytest.raises(NervecordError, match=message):
            other(study, url)
    study.folder.mkdir()
    (study.folder / JOURNAL).write_text("no journal\n")
    with pytest.raises(NervecordError, match=r"is damaged.*remove it"):
        other(study)


def test_a_lease_is_one_processs_and_ends_with_it(tmp_path: Path) -> None:
    with Lease(tmp_path / "locks" / "a", wait=False) as first:
        assert first.held
        assert not Lease(tmp_path / "locks" / "a", wait=False).held
        assert Lease(tmp_path / "locks" / "b", wait=False).held
        waiting = threading.Thread(target=lambda: Lease(tmp_path / "locks" / "a", wait=True).release())
        waiting.start()
        waiting.join(0.05)
        assert waiting.is_alive()
        first.release()
        waiting.join(10)
        assert not waiting.is_alive()
    with pytest.raises(NervecordError, match="cannot be made"):
        Lease(tmp_path / "locks", wait=False)
