"""Streams of engine torch beside the definition."""

from __future__ import annotations

import numpy as np
from emulated import assert_same_state
from graphs import Case

from nervecord.runtime.engines.torch.session import BatchedStream
from nervecord.runtime.stream import MachineStream


def assert_same_stream(case: Case, batch: int, device: str) -> None:
    """What leaves, every value of every step, state and counts, with some rows counted and one cleared on the way."""
    plain, engine = MachineStream(case.plan, batch=batch), BatchedStream(case.plan, batch, device=device)
    steps = case.plan.schedule.steps
    inputs = {n: np.stack([np.roll(x, 3 * b, axis=0) for b in range(batch)], axis=1) for n, x in case.inputs.items()}
    rng = np.random.default_rng(case.seed)
    for start in range(0, len(next(iter(inputs.values()))), steps):
        block, active = {n: x[start : start + steps] for n, x in inputs.items()}, rng.random(batch) < 0.7
        outputs, actual_outputs = plain.step(block, active), engine.step(block, active)
        for name, rows in outputs.items():
            assert rows.dtype == actual_outputs[name].dtype
            np.testing.assert_array_equal(actual_outputs[name], rows, err_msg=f"seed {case.seed}, {start}: {name}")
        expected, actual = plain.trace(), engine.trace()
        assert list(actual) == list(expected)
        for name, rows in expected.items():
            np.testing.assert_array_equal(actual[name], rows, err_msg=f"seed {case.seed}, {start}: {name}")
        assert_same_state(plain.state(), engine.state())
        assert engine.counts == plain.counts
        if batch > 1 and start == 5 * steps:
            for session in (plain, engine):
                session.reset(rows=np.array([1]))
