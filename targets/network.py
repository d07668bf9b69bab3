"""What is compiled: a network as its user describes it, a policy, or a program that goes to another target."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from nervecord.compiler.files.attach import attach
from nervecord.compiler.files.contractfile import read_contract
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Level
from nervecord.compiler.passes.declare import declare
from nervecord.errors import NervecordError
from nervecord.targets.source import (
    Source,
    StrPath,
    in_steps,
    is_program,
    load_program,
    network_of,
    policy_file,
    with_reset_rule,
)


def compilable(
    source: Source,
    target: str,
    schedule: Schedule,
    *,
    contract: StrPath | None,
    inputs: str | float | Mapping[str, str | float] | None,
    dt: float | None,
    convention: str,
    reset: str | None,
    **options: object,
) -> tuple[Graph | Policy, Schedule]:
    """What is compiled for a target, and its schedule: a network as its user describes it, or what a program holds.

    Args:
        source: anything that `compile` takes. target: its name. schedule: of a network.
        contract, inputs, dt, convention, reset: of `network_to_compile`. options: what else the caller says.

    Raises:
        NervecordError: a program is given, and with it what it says itself; or as of `network_to_compile`.
    """
    program = foreign_program(
        source,
        target,
        contract=contract,
        inputs=inputs,
        dt=dt,
        reset=reset,
        convention=None if convention == "euler" else convention,
        **options,
    )
    if program is not None:
        return program.subject, program.schedule
    network = network_to_compile(source, contract=contract, inputs=inputs, dt=dt, convention=convention, reset=reset)
    return network, schedule


CHOOSES = ("calibration", "allow_clustered_decays")
"""What a caller may say of a program of floats, which another target may still turn into integers."""


def foreign_program(source: Source, target: str, **options: object) -> Program | None:
    """The program that is to become one of another target; None where something else is given.

    Args:
        target: its name. options: what else the caller says, by name; None or False where nothing.

    Raises:
        NervecordError: it is of that target already; or something is said that a program says itself.
    """
    if isinstance(source, (Graph, Policy)):
        return None
    if isinstance(source, Program):
        program, where = source, "network"
    elif is_program(Path(policy_file(source))):
        program, where = load_program(source), os.fspath(source)
    else:
        return None
    if program.target == target:
        raise NervecordError(
            f"is a program, compiled already for {target!r}",
            where=where,
            hint="name another target, or give the NIR file it was made of",
        )
    is_open = program.graph.level is not Level.INTEGER
    for name, value in options.items():
        if value is not None and value is not False and not (is_open and name in CHOOSES):
            raise NervecordError(
                f"is given, and {where} is compiled already: it stays as it is",
                where=name,
                hint="leave it out, or compile the NIR file anew",
            )
    return program


def network_to_compile(
    source: Source,
    *,
    contract: StrPath | None,
    inputs: str | float | Mapping[str, str | float] | None,
    dt: float | None,
    convention: str,
    reset: str | None = None,
) -> Graph | Policy:
    """What is to be compiled: in steps, its inputs declared, with a contract where a file gives one.

    Raises:
        NervecordError: it is a program; or a policy already, which needs no contract and no declaration.
    """
    network = in_steps(with_reset_rule(network_of(source, dt, convention), reset), source, dt, convention)
    if isinstance(network, Policy):
        for where, value in (("contract", contract), ("inputs", inputs)):
            if value is not None:
                raise NervecordError("the file carries a contract already, which says it", where=where)
        return network
    if inputs is not None:
        network = declare(network, inputs)
    if contract is None:
        return network
    return attach(network, read_contract(contract))
