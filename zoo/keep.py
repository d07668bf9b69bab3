"""Copy what the repository keeps of a training run: `python zoo/keep.py runs/NAME zoo/NAME`.

Kept are config.json with the default `out`, versions.json without what names this machine, result.json, at most
`--rows` rows of metrics.jsonl (the first, the last, all validated ones, and others evenly spaced between), and, unless
`--results` is given, policy.nir and learning.png. Event files stay behind, and checkpoints unless `--checkpoint` is
given: then the best one of a finished run is kept, or the newest, which `nervecord distill` and `nervecord train
--start` begin with. That of TD7 and of fine-tuning is kept in a third of its size (`TD7Agent.compact_state_dict`);
`nervecord train --resume` continues from it. With `--networks`, which is what the repository takes, it holds
nothing but what those need, and `--resume` refuses it. The metrics of an interrupted run are kept up to
its newest checkpoint.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from nervecord.training.algorithms.base import Asset
from nervecord.training.folder import checkpoint
from nervecord.training.learners.base import Setup
from nervecord.training.learners.finetune import FinetuneLearner
from nervecord.training.learners.off_policy import td7_agent
from nervecord.training.settings.config import TrainConfig

_MACHINE = ("platform",)
MOST_TEACHERS = 3
"""Policies of its teacher that are kept of a fine-tuning, the newest."""
MOST_PAST = 6
"""Past policies of a TD7 training that are kept; each takes 0.7 MB for the ant."""
MOST_PAST_TO_LEARN_FROM = 2
"""Of them with `--networks`, the newest."""


def keep(
    run: Path, target: Path, *, rows: int, results_only: bool, checkpoint: bool, networks_only: bool = False
) -> None:
    """Copy one run.

    Args:
        run: folder of a finished run.
        target: folder to write to; made where it is missing.
        rows: rows of the metrics to keep, at most, unless more were validated.
        results_only: leave out the policy and the picture.
        checkpoint: keep the best checkpoint of a finished run, or the newest.
        networks_only: of the checkpoint networks and statistics alone.
    """
    config = json.loads((run / "config.json").read_text())
    versions = json.loads((run / "versions.json").read_text())
    config["run"]["out"] = "runs"
    for name in _MACHINE:
        versions.pop(name, None)
    versions["argv"] = _argv(versions["argv"])
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (target / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
    if (run / "result.json").is_file():
        shutil.copyfile(run / "result.json", target / "result.json")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    if not (run / "result.json").is_file():
        last = int(_checkpoints(run)[-1].stem.removeprefix("step-"))
        lines = [line for line in lines if json.loads(line)["step"] <= last]
    (target / "metrics.jsonl").write_text("".join(_thin(lines, rows)))
    for name in () if results_only else ("policy.nir", "learning.png"):
        if (run / name).is_file():
            shutil.copyfile(run / name, target / name)
    if checkpoint:
        _keep_checkpoint(run, target, networks_only=networks_only)


def _keep_checkpoint(run: Path, target: Path, *, networks_only: bool) -> None:
    """Copy the checkpoint that another training begins with."""
    files = _checkpoints(run)
    if (run / "result.json").is_file():
        step = json.loads((run / "result.json").read_text())["step"]
        files = [run / "checkpoints" / f"step-{step:012d}.pt"]
    folder = target / "checkpoints"
    folder.mkdir(exist_ok=True)
    content = checkpoint.load(run / "checkpoints", int(files[-1].stem.removeprefix("step-")))
    content["config"]["run"]["out"] = "runs"
    config = TrainConfig.from_dict(content["config"])
    has_network = Asset.NETWORK in config.algorithm.assets
    if networks_only and (has_network or "td7" not in content["learner"]):
        step = content.pop("step")
        checkpoint.save(folder, step, checkpoint.networks_only(content), best=None, keep=1)
        return
    if "td7" not in content["learner"]:  # an agent of TD7 can be kept in less
        shutil.copyfile(files[-1], folder / files[-1].name)
        return
    fewer = _of_a_student if has_network else _of_a_teacher
    content["learner"] = {**content["learner"], **fewer(config, content), "replay": None}
    if networks_only:
        policies = content["learner"]["past"][-MOST_PAST_TO_LEARN_FROM:]
        content["learner"] |= {"td7": {**content["learner"]["td7"], "moments": {}}, "past": policies}
        content |= {"collector": None, "networks_only": True}
    step = content.pop("step")
    if content["best"] and content["best"]["step"] != step:
        content["best"] = None  # its checkpoint is not kept, so it cannot be what the training ends with
    checkpoint.save(folder, step, content, best=None, keep=1)


def _of_a_teacher(config: TrainConfig, content: dict[str, Any]) -> dict[str, Any]:
    learner = content["learner"]
    actor = learner["td7"]["modules"]["actor"]
    agent = td7_agent(content, actor["first.weight"].shape[1], len(actor["rest.4.bias"]))
    policies = learner["past"]
    if len(policies) > MOST_PAST:
        # As the learner itself thins them, so that those that come after lie as far apart.
        policies = policies[::-2][::-1]
        policies[-1]["every"] *= 2
    return {"past": policies, "td7": agent.compact_state_dict()}


def _of_a_student(config: TrainConfig, content: dict[str, Any]) -> dict[str, Any]:
    low, high = content["low"], content["high"]
    observations = len(content["learner"]["obs_rms"]["mean"])
    config = config.replace(torch_compile=False)
    student = FinetuneLearner(Setup(observations, low, high, config, content=content))
    student.load_state_dict(content["learner"])
    teacher = content["learner"]["teacher"]
    few = {**teacher, "policies": teacher["policies"][-MOST_TEACHERS:]}
    return {"td7": student.agent.compact_state_dict(), "teacher": few}


def _checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*.pt"))


def _argv(argv: list[str]) -> list[str]:
    """The command without the folder it wrote to."""
    words, skip = [], False
    for index, word in enumerate(argv):
        if skip:
            skip = False
        elif word == "--out":
            skip = True
        elif not word.startswith("--out="):
            words.append("nervecord" if index == 0 else word)
    return words


def _thin(lines: list[str], rows: int) -> list[str]:
    validated = {index for index, line in enumerate(lines) if json.loads(line)["validation_return"] is not None}
    indices = validated | ({0, len(lines) - 1} if lines else set())
    others = [index for index in range(len(lines)) if index not in indices]
    count = min(len(others), max(rows - len(indices), 0))
    indices |= {others[k * len(others) // count] for k in range(count)}
    return [lines[index] for index in sorted(indices)]


def main() -> int:
    """Parse the command line and copy."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("target", type=Path, help="folder to copy to")
    parser.add_argument("--rows", type=int, default=200, metavar="N", help="rows of metrics.jsonl (default 200)")
    parser.add_argument("--results", action="store_true", help="leave out the policy and the picture")
    parser.add_argument("--checkpoint", action="store_true", help="keep the best or newest checkpoint too")
    parser.add_argument("--networks", action="store_true", help="of the checkpoint networks and statistics alone")
    parser.add_argument("--unfinished", action="store_true", help="take a run that was interrupted")
    arguments = parser.parse_args()
    if not (arguments.run / "result.json").is_file() and not arguments.unfinished:
        print(f"{arguments.run}: not a finished run, it has no result.json", file=sys.stderr)
        return 2
    keep(
        arguments.run,
        arguments.target,
        rows=arguments.rows,
        results_only=arguments.results,
        checkpoint=arguments.checkpoint or arguments.networks,
        networks_only=arguments.networks,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
