"""What comes into a session, checked: observations, rows, numbers of robots."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.ma  # numpy would import it in the first step, for longer than a control period may last

from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.ops import Array
from nervecord.compiler.plan.interpret import plain_array
from nervecord.compiler.plan.plan import Plan
from nervecord.errors import ContractError, GraphError


def checked_observation(contract: Contract, observation: Array, batch: int) -> tuple[Array, Array]:
    """An observation as (batch, observations) float64, and which rows can be trusted (all values finite).

    Raises:
        ContractError: its shape or type is not the contract's.
    """
    array = plain_array(observation, "observation", ContractError)
    if array.dtype.kind not in "fiu":
        raise ContractError(f"holds {array.dtype}, not numbers", where="observation")
    size = contract.observation.size
    if array.shape not in {(batch, size)} | ({(size,)} if batch == 1 else set()):
        raise ContractError(
            f"has shape {array.shape}, and the policy takes ({batch}, {size})",
            where="observation",
            hint="the contract lists the channels in order: nervecord inspect --verbose",
        )
    array = array.astype(np.float64).reshape(batch, size)
    trusted = np.asarray(np.isfinite(array).all(axis=1))
    return array, trusted


MOST_COPIES = 1 << 24
"""Robots, or copies of a stream, in one session."""


def checked_batch(batch: int | None) -> None:
    """Refuse what is no number of robots.

    Raises:
        ContractError: it is no integer, below 1, or beyond `MOST_COPIES`.
    """
    if batch is None:
        return
    try:
        count = operator.index(batch)
    except TypeError:
        raise ContractError(f"is {batch!r}, an integer is needed", where="batch") from None
    if count < 1:
        raise ContractError(f"is {batch}, at least 1 is needed", where="batch")
    if count > MOST_COPIES:
        raise ContractError(f"is {batch}, and at most {MOST_COPIES} run side by side", where="batch")


@contextlib.contextmanager
def room_for(batch: int) -> Iterator[None]:
    """Where the state of so many robots is made.

    Raises:
        ContractError: there is not the memory.
    """
    try:
        yield
    except MemoryError as error:
        raise ContractError(f"is {batch}, and there is not the memory for it: {error}", where="batch") from None


def checked_rows(rows: Array, batch: int) -> Array:
    """Rows of robots, as indices or a mask.

    Raises:
        ContractError: they are none of this batch's.
    """
    array = plain_array(rows, "rows", ContractError)
    try:
        np.zeros(batch)[array]
    except IndexError as error:
        raise ContractError(f"are not rows of {batch} robots: {error}", where="rows") from None
    return array


def checked_active(active: Array | None, batch: int) -> Array:
    """Which robots are counted, (batch,) bool.

    Raises:
        ContractError: its shape or type is another.
    """
    if active is None:
        return np.ones(batch, dtype=np.bool_)
    array = plain_array(active, "active", ContractError)
    if array.shape != (batch,) or array.dtype != np.bool_:
        raise ContractError(f"has shape {array.shape} of {array.dtype}, ({batch},) of bool is needed", where="active")
    return array


def check_inputs(plan: Plan, inputs: Mapping[str, Array]) -> None:
    """Refuse what no proved range of integers holds for: other than spikes where an Input carries them.

    Values are clipped to their limit, whatever comes.

    Raises:
        GraphError: an Input that carries spikes is given other values than 0 and 1.
    """
    for name in plan.graph.inputs:
        values = inputs[name]
        if plan.graph.nodes[name].spikes and ((values != 0) & (values != 1)).any():
            worst = float(values[(values != 0) & (values != 1)][0])
            raise GraphError(f"is given {worst:g}, and it carries spikes, which are 0 or 1", where=name)
