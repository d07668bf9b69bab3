"""Differences seed by seed, against sums made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nervecord.runtime.result import interval95
from nervecord.training.settings.config import TrainConfig
from nervecord.training.sweeps.cells import Cell, Finished
from nervecord.training.sweeps.pairs import depth_table, paired_table
from nervecord.training.sweeps.study import Series, word

HEAD = ["this", "less this", "seeds", "tested return, 95 % interval", "while training, 95 % interval"]


def cell(policy: str, layers: tuple[int, ...], tests: dict[int, float], **fields: Any) -> Cell:
    config = TrainConfig.of(policy=policy, layers=layers, **fields)
    name = "-".join([policy, "x".join(map(str, layers)), *(f"{k}-{v}" for k, v in fields.items())])
    runs = tuple(Finished(seed, test, test / 2, ()) for seed, test in tests.items())
    return Cell(name, config, tuple(tests), runs, ())


def tables(
    *cells: Cell, varied: tuple[str, ...] = ("policy", "layers"), is_search: bool = False
) -> tuple[list[list[str]], list[list[str]]]:
    series = Series("grid", varied, tuple(cell.name for cell in cells), is_search)
    by_name = {cell.name: cell for cell in cells}
    return paired_table(series, by_name, TrainConfig.of()), depth_table(series, by_name)


def test_networks_of_an_algorithms_own_are_called_by_it_and_compared() -> None:
    tests = {1: 100.0, 2: 200.0}
    td7 = Cell(
        "td7", TrainConfig.of(algorithm="td7"), (1, 2), tuple(Finished(s, 9 * v, v, ()) for s, v in tests.items()), ()
    )
    members = [cell("snn", (256,), tests), cell("snn", (256, 256), tests), cell("snn", (64,), tests), td7]
    paired, by_depth = tables(*members, varied=("policy", "layers", "algorithm"))
    assert ["TD7, algorithm td7", "SNN 256, algorithm ppo"] in [row[:2] for row in paired]
    assert {row[0] for row in by_depth[1:]} <= {"SNN"}
    assert "td7" not in {row[2] for row in by_depth[1:]}


def interval_text(values: list[float]) -> str:
    return f"{np.mean(values):,.0f} ± {interval95(np.array(values)):,.0f}"


SNN = {1: {1: 2000.0, 2: 2500.0, 3: 3100.0}, 2: {1: 1500.0, 2: 2100.0, 3: 2400.0}}
ANN = {1: {1: 3000.0, 2: 3600.0, 3: 4300.0}, 2: {1: 3300.0, 2: 3700.0, 3: 4900.0}}


def grid() -> list[Cell]:
    return [
        *(cell("snn", (64,) * depth, tests) for depth, tests in SNN.items()),
        *(cell("ann", (64,) * depth, tests) for depth, tests in ANN.items()),
    ]


def test_differences_are_taken_seed_by_seed() -> None:
    (head, *rows), pooled = tables(*grid())
    assert head == HEAD
    assert pooled == []  # one width has nothing to pool
    differences = {(row[0], row[1]): row[2:] for row in rows}
    depth = {kind: [runs[2][s] - runs[1][s] for s in (1, 2, 3)] for kind, runs in (("SNN", SNN), ("ANN", ANN))}
    kind = {d: [ANN[d][s] - SNN[d][s] for s in (1, 2, 3)] for d in (1, 2)}
    contrast = [a - s for a, s in zip(depth["ANN"], depth["SNN"], strict=True)]
    expected = {
        ("SNN 64x64", "SNN 64"): depth["SNN"],
        ("ANN 64x64", "ANN 64"): depth["ANN"],
        ("ANN 64", "SNN 64"): kind[1],
        ("ANN 64x64", "SNN 64x64"): kind[2],
        ("ANN 64x64 less ANN 64", "SNN 64x64 less SNN 64"): contrast,
    }
    assert set(differences) == set(expected)
    for names, values in expected.items():
        assert differences[names][:2] == ["3", interval_text(values)]
        assert differences[names][2] == interval_text([value / 2 for value in values])


def test_their_interval_is_not_that_of_two_means() -> None:
    """Seeds spread by a thousand and the difference by ten: what is said of it is the ten."""
    near = cell("snn", (8,), {1: 1000.0, 2: 2000.0, 3: 3000.0})
    far = cell("snn", (8, 8), {1: 1100.0, 2: 2110.0, 3: 3090.0})
    (_, row), _ = tables(near, far)
    assert row[3] == "100 ± 24.8"


def test_a_seed_is_one_value_over_all_widths() -> None:
    """Nine runs of three seeds are three values, since runs of one seed meet the same environments."""
    widths = {8: 0.0, 16: 30.0, 32: 90.0}
    cells = [
        cell("snn", (width,) * depth, {seed: test + more for seed, test in SNN[depth].items()})
        for depth in (1, 2)
        for width, more in widths.items()
    ]
    (_, *rows), (_, *pooled) = tables(*cells)
    for depth, row in zip((1, 2), pooled, strict=True):
        values = [SNN[depth][seed] + 40.0 for seed in (1, 2, 3)]
        assert row[:4] == ["SNN", str(depth), "8, 16, 32", "3"]
        assert row[4:] == [interval_text(values), interval_text([value / 2 for value in values])]
    differences = {(row[0], row[1]): row[3] for row in rows}
    assert differences["SNN 2 layers", "SNN 1 layer"] == interval_text([SNN[2][s] - SNN[1][s] for s in (1, 2, 3)])
    assert differences["SNN 16 neurons", "SNN 8 neurons"] == "30.0 ± 0.0"
    assert differences["SNN 32 neurons", "SNN 8 neurons"] == "90.0 ± 0.0"


def test_seeds_that_only_one_has_are_left_out() -> None:
    one = cell("snn", (8,), {1: 1000.0, 2: 2000.0, 3: 3000.0, 4: 9000.0})
    two = cell("snn", (8, 8), {2: 2500.0, 3: 3300.0, 5: 1.0})
    (_, row), _ = tables(one, two)
    assert row[2:4] == ["2", interval_text([500.0, 300.0])]
    alone = cell("snn", (8, 8), {2: 2500.0})
    (_, row), _ = tables(one, alone)
    assert row[2:] == ["1", "500", "250"]  # a value, and no interval
    assert tables(one, cell("snn", (8, 8), {7: 2500.0})) == ([], [])


def test_a_run_without_training_episodes_counts_where_it_was_tested() -> None:
    one = cell("snn", (8,), {1: 1000.0, 2: 2000.0, 3: 3000.0})
    two = cell("snn", (8, 8), {1: 1500.0, 2: 2400.0, 3: 3300.0})
    runs = (Finished(1, 1500.0, None, ()), *two.finished[1:])
    (_, row), _ = tables(one, Cell(two.name, two.config, two.seeds, runs, ()))
    assert row[2:] == ["3", interval_text([500.0, 400.0, 300.0]), interval_text([200.0, 150.0])]


def test_other_fields_are_compared_with_their_first_value() -> None:
    cells = [cell("snn", (8,), {1: 100.0 * k, 2: 200.0 * k}, slope=float(k)) for k in (1, 5, 25)]
    (_, *rows), pooled = tables(*cells, varied=("slope",))
    assert [row[:2] for row in rows] == [["SNN 8, slope 5", "SNN 8, slope 1"], ["SNN 8, slope 25", "SNN 8, slope 1"]]
    assert rows[0][3] == interval_text([400.0, 800.0])
    assert pooled == []


def test_only_widths_that_both_have_are_averaged() -> None:
    """The mean of 8 and 16 neurons less that of 8 alone would be no effect of depth."""
    cells = [
        cell("snn", (8,), {1: 1000.0, 2: 2000.0}),
        cell("snn", (16,), {1: 9000.0, 2: 9000.0}),
        cell("snn", (32,), {1: 3000.0, 2: 5000.0}),
        cell("snn", (8, 8), {1: 1500.0, 2: 2600.0}),
        cell("snn", (32, 32), {1: 3700.0, 2: 5800.0}),
    ]
    (_, *rows), _ = tables(*cells)
    differences = {(row[0], row[1]): row[3] for row in rows}
    assert differences["SNN 2 layers (8, 32)", "SNN 1 layer (8, 32)"] == interval_text([600.0, 700.0])


def test_depths_that_one_kind_lacks_have_no_contrast() -> None:
    tests = {seed: 100.0 * seed for seed in (1, 2, 3)}
    cells = [cell("snn", (64,) * depth, {s: v * depth for s, v in tests.items()}) for depth in (1, 2, 3)]
    cells += [cell("ann", (64,) * depth, {s: v * 2 * depth for s, v in tests.items()}) for depth in (1, 3)]
    (_, *rows), _ = tables(*cells)
    contrasts = [row for row in rows if " less " in row[0]]
    assert [row[:2] for row in contrasts] == [["ANN 64x64x64 less ANN 64", "SNN 64x64x64 less SNN 64"]]
    assert contrasts[0][3] == interval_text([200.0, 400.0, 600.0])


def test_what_a_rule_sets_is_named() -> None:
    """As [[where]] gives each kind its own rate: then the kind is not all that differs."""
    one, two = cell("snn", (8,), {1: 1.0, 2: 2.0}), cell("ann", (8,), {1: 3.0, 2: 5.0}, lr=3e-3)
    (_, row), _ = tables(one, two)
    assert row[:2] == ["ANN 8, lr 0.003", f"SNN 8, lr {word(one.config.fields['lr'])}"]


def test_draws_of_a_search_are_not_compared() -> None:
    cells = [cell("snn", (8,), {1: 1.0, 2: 2.0}, lr=lr) for lr in (1e-4, 3e-4)]
    assert tables(*cells, varied=("lr",), is_search=True) == ([], [])
    assert len(tables(*cells, varied=("lr",))[0]) == 2


def test_layers_of_unequal_widths_are_compared_with_the_first() -> None:
    cells = [cell("snn", layers, {1: 1.0 * k, 2: 3.0 * k}) for k, layers in enumerate([(8,), (16, 8), (32, 16)], 1)]
    (_, *rows), _ = tables(*cells)
    assert [row[:2] for row in rows] == [["SNN 16x8", "SNN 8"], ["SNN 32x16", "SNN 8"]]


@pytest.mark.parametrize("layers", [(8,), (8, 16)])
def test_one_cell_has_nothing_to_compare(layers: tuple[int, ...]) -> None:
    assert tables(cell("snn", layers, {1: 1.0, 2: 2.0})) == ([], [])
