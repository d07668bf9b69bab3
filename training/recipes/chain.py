"""A recipe's chain: its trainings one after the other, their gates, the program, and both policies' held-out episodes.

What is done is decided by what lies in the chain's folder alone, so the same call continues wherever it stopped:

    STAGE/                        the run folder of each stage
    policy.nervecord              the compiled policy
    evaluation-float-SEED.json    a block of episodes each, what `nervecord run --json` gives
    evaluation-fixed-SEED.json
    result.json                   returns, loss and verdict, at the end
"""

from __future__ import annotations

import gc
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nervecord
from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.files.program import Program
from nervecord.errors import EngineError, NervecordError
from nervecord.runtime.result import interval95
from nervecord.targets.source import acting_program
from nervecord.training import front
from nervecord.training.algorithms import of_verb
from nervecord.training.fields import flag_name
from nervecord.training.folder import run_folder
from nervecord.training.folder.records import number_of, read_columns, read_record
from nervecord.training.recipes.recipe import Gate, Plan, PlannedStage
from nervecord.training.recipes.watcher import SIDES, Side, Watcher
from nervecord.training.settings.config import marked
from nervecord.training.sweeps.study import mismatch


@dataclass(frozen=True, slots=True)
class GateValue:
    """What a stage came to at a gate."""

    stage: str
    gate: Gate
    step: int
    """Of the row at which the gate was looked at."""
    value: float
    limit: float

    @property
    def is_passed(self) -> bool:
        """Whether the chain continues."""
        return self.value >= self.limit

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "stage": self.stage,
            "step": self.step,
            "validations": self.gate.over,
            "value": self.value,
            "limit": self.limit,
        }


@dataclass(frozen=True, slots=True)
class ChainResult:
    """What a chain came to.

    Args:
        plan: of the chain.
        gates: those that were looked at.
        returns: of both sides, episode by episode.
        per_action: spikes and synaptic events of the compiled policy for each action.
        cores: that the program takes; None where the target has none.
    """

    plan: Plan
    gates: tuple[GateValue, ...]
    returns: dict[Side, Any]
    per_action: dict[str, float]
    cores: int | None

    @property
    def loss(self) -> tuple[float, float]:
        """What compiling loses, in parts of the float policy's mean return, over pairs of episodes; half the width of
        its 95 % interval."""
        size = max(abs(float(np.mean(self.returns["float"]))), 1e-12)
        losses = self.returns["float"] - self.returns["fixed"]
        return float(losses.mean()) / size, interval95(losses) / size

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        loss, half = self.loss
        sides: dict[str, Any] = {
            side: {"mean": float(values.mean()), "ci95": interval95(values), "std": float(values.std(ddof=1))}
            for side, values in self.returns.items()
        }
        aim = self.plan.aim
        return {
            "recipe": self.plan.recipe.name,
            "env": self.plan.env,
            "seed": self.plan.stages[0].config.run.seed,
            "aim": aim,
            "reached": None if aim is None else sides["fixed"]["mean"] >= aim,
            "episodes": len(self.returns["fixed"]),
            **sides,
            "loss": loss,
            "loss_ci95": half,
            **self.per_action,
            "cores": self.cores,
            "gates": [value.to_dict() for value in self.gates],
        }


def run_chain(plan: Plan, *, watcher: Watcher | None = None, ignore_gates: bool = False, **free: Any) -> ChainResult:
    """Train, compile and evaluate what of a plan is not done yet.

    Args:
        plan: what to do.
        watcher: is told how it proceeds.
        ignore_gates: look at gates, and continue below them.
        free: fields that do not decide what is learnt, for stages that are resumed.

    Raises:
        NervecordError: a gate was not passed; a folder holds another training; or as of `train`.
        KeyboardInterrupt: interrupted; the same call continues.
    """
    watcher = watcher or Watcher()
    wrong = [text for stage in plan.stages if (text := mismatch(stage.folder, stage.config))]
    if wrong:
        raise NervecordError(
            f"holds another training than the recipe asks for: {'; '.join(wrong)}",
            where=str(plan.folder),
            hint="choose another --name, or move the folder away",
        )
    plan.folder.mkdir(parents=True, exist_ok=True)
    with run_folder.hold(plan.folder):
        passed: list[GateValue] = []
        for stage in plan.stages:
            _train(plan, stage, watcher, free, ignore_gates=ignore_gates)
            # A replay may take gigabytes, and the next stage has one of its own.
            gc.collect()
            passed += gate_values(plan, stage)
        program = _compiled(plan)
        sides = {side: _evaluated(plan, side, watcher) for side in SIDES}
        episodes = _episodes(plan, {side: _returns(blocks) for side, blocks in sides.items()})
        if episodes > plan.recipe.evaluation.episodes:
            sides = {side: _evaluated(plan, side, watcher, episodes=episodes) for side in SIDES}
        counts = ("spikes_per_action", "synaptic_events_per_action")
        fixed = sides["fixed"]
        result = ChainResult(
            plan,
            tuple(passed),
            {side: _returns(blocks) for side, blocks in sides.items()},
            {name: float(np.mean([number_of(block, name, where=name) for block in fixed])) for name in counts},
            program.report["placement"]["cores"],
        )
        write_atomically(plan.folder / "result.json", (json.dumps(result.to_dict(), indent=2) + "\n").encode())
    return result


def gate_values(plan: Plan, stage: PlannedStage) -> list[GateValue]:
    """What a stage came to at those of its gates that it has reached; none where there is no aim."""
    if plan.aim is None or not stage.stage.gates:
        return []
    rows = read_columns(stage.folder / "metrics.jsonl", "validation_return")
    values = []
    for gate in stage.stage.gates:
        reached = next((k for k, (step, _) in enumerate(rows) if step >= gate.step), None)
        if reached is None:
            continue
        validations = [value for _, value in rows[: reached + 1] if value is not None][-gate.over :]
        if validations:
            mean = float(np.mean(validations))
            values.append(GateValue(stage.stage.name, gate, int(rows[reached][0]), mean, gate.least * plan.aim))
    return values


def check_gates(plan: Plan, stage: PlannedStage) -> None:
    """Stop at a gate.

    Raises:
        NervecordError: the stage is below one of its gates.
    """
    for value in gate_values(plan, stage):
        if not value.is_passed:
            raise NervecordError(
                f"the mean of the last {value.gate.over} validations at step {value.step:,} is {value.value:,.1f}, "
                f"the gate asks for {value.limit:,.1f}, {value.gate.least:g} of the aim {plan.aim:,.0f}",
                where=str(stage.folder),
                hint="this seed is given up: take another --seed and --name, or continue with --ignore-gates",
            )


def is_finished(stage: PlannedStage) -> bool:
    """Whether a stage has its result, which a training writes last."""
    return (stage.folder / "result.json").is_file()


def _train(plan: Plan, stage: PlannedStage, watcher: Watcher, free: dict[str, Any], *, ignore_gates: bool) -> None:
    """Begin, continue or skip a stage."""
    gates = () if ignore_gates else tuple(gate.step for gate in stage.stage.gates)
    if gates:
        check_gates(plan, stage)
    if is_finished(stage):
        return
    run, exists = front.training(), stage.folder.exists()
    last_step = run_folder.last_step(stage.folder) if exists else 0
    watcher.note(f"{stage.stage.name}: {f'from step {last_step:,}' if last_step else 'begins'}, in {stage.folder}")
    with watcher.training(stage) as report:

        def progress(now: Any) -> None:
            nonlocal last_step
            before, last_step = last_step, now.step
            if report is not None:
                report(now)
            if any(before < gate <= now.step for gate in gates):
                check_gates(plan, stage)

        try:
            if exists:
                own = {name: value for name, value in free.items() if name in marked("resumable")}
                own = {name: value for name, value in own.items() if name in stage.config.fields}
                run.resume(stage.folder, progress=progress, overrides=own)
            else:
                run.train(stage.config, progress=progress)
        except KeyboardInterrupt as interrupt:
            raise KeyboardInterrupt(
                f"stage {stage.stage.name} of {plan.folder}: {str(interrupt) or 'interrupted'}; the same command "
                "continues the chain"
            ) from None
    if gates:
        check_gates(plan, stage)


def _compiled(plan: Plan) -> Program:
    """The program, compiled where there is none yet."""
    if plan.program.is_file():
        return nervecord.load(plan.program)
    program = nervecord.compile(plan.policy, plan.recipe.target, **plan.recipe.options)
    program.save(plan.program)
    return program


def block_file(plan: Plan, side: Side, seed: int) -> Path:
    """Where the block of episodes with this seed is kept."""
    return plan.folder / f"evaluation-{side}-{seed}.json"


def _evaluated(plan: Plan, side: Side, watcher: Watcher, *, episodes: int = 0) -> list[dict[str, Any]]:
    """The blocks of a side, played where they are not there yet."""
    settings = plan.recipe.evaluation
    count = math.ceil(max(episodes, 1) / settings.episodes)
    blocks = []
    for seed in range(settings.seed, settings.seed + count):
        path = block_file(plan, side, seed)
        if not path.is_file():
            program = acting_program(plan.policy if side == "float" else plan.program)
            with nervecord.open(program, trace=False) as session, watcher.episodes(side) as report:
                result = nervecord.run(
                    session,
                    plan.env,
                    settings.episodes,
                    seed,
                    wrappers=plan.wrappers,
                    environments=min(settings.num_envs, settings.episodes),
                    progress=report,
                )
            if result.engine_error is not None:
                raise EngineError(f"died: {result.engine_error}", where=result.engine)
            text = json.dumps({"target": program.target, **result.to_dict()}, indent=2) + "\n"
            write_atomically(path, text.encode())
        blocks.append(_block(plan, path, seed))
    return blocks


def _block(plan: Plan, path: Path, seed: int) -> dict[str, Any]:
    """A block as it was kept.

    Raises:
        NervecordError: it is of other episodes.
    """
    block = read_record(path)
    expected = {"env": plan.env.rpartition(":")[2], "seed": seed, "episodes": plan.recipe.evaluation.episodes}
    content = {**block, "env": str(block.get("env")).rpartition(":")[2]}
    for name, value in expected.items():
        if content.get(name) != value:
            raise NervecordError(
                f"has {name} {content.get(name)!r}, the recipe asks for {value!r}",
                where=str(path),
                hint="move it away, and it is played again",
            )
    values = block.get("return_each")
    if not isinstance(values, list) or len(values) != expected["episodes"]:
        raise NervecordError("has not every episode's return", where=str(path), hint="move it away")
    for k in range(len(values)):
        number_of({"return": values[k]}, "return", where=str(path))
    return block


def _returns(blocks: list[dict[str, Any]]) -> Any:
    return np.concatenate([np.asarray(block["return_each"], np.float64) for block in blocks])


def _episodes(plan: Plan, returns: dict[Side, Any]) -> int:
    """How many episodes are needed: more where an episode's return spreads."""
    settings = plan.recipe.evaluation
    spread = max(float(values.std(ddof=1)) / max(abs(float(values.mean())), 1e-12) for values in returns.values())
    return settings.most if spread > settings.spread else settings.episodes


def commands(plan: Plan) -> list[tuple[str, list[str]]]:
    """What each stage does, as (its name, the words of a command of the command line)."""
    lines = [(stage.stage.name, _training(stage)) for stage in plan.stages]
    options = [word for name, value in plan.recipe.options.items() for word in _flag(name, value)]
    compiling = ["nervecord", "compile", str(plan.policy), "--target", plan.recipe.target, *options, "-o"]
    lines.append(("compile", [*compiling, str(plan.program)]))
    settings = plan.recipe.evaluation
    for side, source in zip(SIDES, (plan.policy, plan.program), strict=True):
        words = ["nervecord", "run", str(source), "--episodes", str(settings.episodes)]
        words += ["--num-envs", str(min(settings.num_envs, settings.episodes)), "--seed", str(settings.seed), "--json"]
        if ":" in plan.env:
            words += ["--env", plan.env]
        lines.append((side, [*words, *(["--wrappers", *plan.wrappers] if plan.wrappers else [])]))
    return lines


def _training(stage: PlannedStage) -> list[str]:
    values = dict(stage.values)
    algorithm = stage.config.algorithm
    words = ["nervecord", algorithm.verb]
    if algorithm.positional:
        words.append(str(values.pop(algorithm.positional)))
    if len(of_verb(algorithm.verb)) == 1:
        values.pop("algorithm")
    order = ["algorithm", *stage.config.fields]
    for name in sorted(values, key=order.index):
        words += _flag(name, values[name])
    return words


def _flag(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag_name(name if value else f"no_{name}")]
    values = value if isinstance(value, tuple) else (value,)
    return [flag_name(name), *map(str, values)] if values else []
