"""What every test may use: a small policy that needs no training."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nervecord.compiler import nodes as n
from nervecord.compiler.contract import Channels, Contract
from nervecord.compiler.graph import Graph, Level, chain
from nervecord.compiler.node import Node


def random_policy(
    sizes: tuple[int, ...] = (27, 24, 8),
    *,
    steps: int = 5,
    state: str = "reset",
    synaptic: bool = False,
    environment: str = "Ant-v4",
    seed: int = 0,
) -> Graph:
    """A policy with random weights, of Ant-v4's shape unless told otherwise, with 64 recorded observations."""
    draw = np.random.default_rng(seed)
    observations, actions = sizes[0], sizes[-1]
    contract = Contract(
        environment=environment,
        observation=Channels(tuple(f"o{k}" for k in range(observations)), ("1",) * observations),
        action=Channels(tuple(f"a{k}" for k in range(actions)), ("1",) * actions, (-1.0,) * actions, (1.0,) * actions),
        steps=steps,
        state=state,  # type: ignore[arg-type]
        control_period=0.05,
        fail_safe=(0.0,) * actions,
    )
    named: list[tuple[str, Node]] = [
        ("observation", n.Input((observations,))),
        ("normalise", n.Normalise(draw.normal(size=observations), np.full(observations, 0.5), 1e-8, 10.0)),
    ]
    for k, (a, b) in enumerate(itertools.pairwise(sizes)):
        last = k == len(sizes) - 2
        gain = 0.3 if last else 4.0 if k else 1.0
        weight = draw.normal(size=(b, a)) * gain / np.sqrt(a)
        named.append((f"fc{k}", n.Affine(weight, 0.1 * draw.normal(size=b), 1 if state == "carried" else 0)))
        named.append((("readout" if last else f"lif{k}"), _neurons(b, spiking=not last, synaptic=synaptic)))
    ones = np.ones(actions)
    named += [("decode", n.Decode(ones, 0 * ones, -ones, ones)), ("action", n.Output((actions,)))]
    recorded = draw.normal(size=(64, observations))
    return chain(Level.DISCRETE, named, dt=1e-3, contract=contract, recorded=recorded)


def _neurons(count: int, *, spiking: bool, synaptic: bool) -> Node:
    one, zero = np.ones(count), np.zeros(count)
    if not spiking:
        return (
            n.DiscreteCubaLI(0.5 * one, one, 0.9 * one, one, zero) if synaptic else n.DiscreteLI(0.9 * one, one, zero)
        )
    if synaptic:
        return n.DiscreteCubaLIF(0.5 * one, one, 0.84 * one, one, zero, one, zero)
    return n.DiscreteLIF(0.84 * one, one, zero, one, zero)


@pytest.fixture(scope="session")
def make_policy() -> Callable[..., Graph]:
    """`random_policy`: a factory of small random policies."""
    return random_policy


GOLDENS = Path(__file__).parent / "goldens"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` rewrites the stored texts that tests compare with; look at the diff before committing it."""
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/goldens from what is computed now")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """compare(name, text): text must equal tests/goldens/<name>."""

    def compare(name: str, text: str) -> None:
        path = GOLDENS / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{name} has no golden; make it with --update-golden"
        assert text == path.read_text(encoding="utf-8"), f"{name} changed; if it should, run with --update-golden"

    return compare
