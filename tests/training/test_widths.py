"""Networks that a configuration of a few bytes may declare: refused before anything is laid out."""

from __future__ import annotations

from typing import Any

import pytest

from nervecord.errors import NervecordError
from nervecord.training.settings.config import MOST_WEIGHTS, TrainConfig

BROAD = 1 << 12


@pytest.mark.parametrize(
    ("where", "fields"),
    [
        ("--layers", {"layers": (BROAD, 2 * BROAD + 1)}),
        ("--layers", {"layers": (BROAD, 1, BROAD + 1), "recurrent": True, "state": "carried", "delays": True}),
        ("--layers", {"layers": (BROAD, BROAD // 2) * 400}),
        ("--critic", {"critic": (100_000, 100_000)}),
        ("--hidden", {"algorithm": "td7", "env": "Pendulum-v1", "hidden": 2 * BROAD}),
        ("--hidden", {"algorithm": "td7", "env": "Pendulum-v1", "embedding": 1 << 20}),
    ],
)
def test_more_weights_than_memory_are_refused(where: str, fields: dict[str, Any]) -> None:
    with pytest.raises(NervecordError) as refusal:
        TrainConfig.of(**fields)
    assert refusal.value.where == where
    assert str(MOST_WEIGHTS) in refusal.value.message


def test_as_many_as_memory_takes_are_a_configuration() -> None:
    assert TrainConfig.of(layers=(BROAD, 2 * BROAD)).network.layers == (BROAD, 2 * BROAD)


@pytest.mark.parametrize(
    "fields", [{"layers": (1 << 20,)}, {"layers": (1024,), "encoder": "population", "population": 1 << 16}]
)
def test_a_matrix_of_a_tasks_observations_is_counted_when_they_are_known(fields: dict[str, Any]) -> None:
    pytest.importorskip("torch")
    from nervecord.training.policy.network import SpikingPolicy

    with pytest.raises(NervecordError, match="at most"):
        SpikingPolicy(376, 17, TrainConfig.of(**fields))
