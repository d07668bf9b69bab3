"""Two processes learn as one does over all their environments.

Tolerance: one process sums a minibatch's gradient in one go, two sum halves, so float32 gradients differ by about 1e-7
of their size. Adam divides by the gradient's own scale, so a difference is worth at most as much of a step, of size lr
= 3e-4, unless the gradient itself is near 0. After 80 steps 6e-8 was measured; 1e-6 leaves room for other processors,
and is far below the 1e-3 (gradients unweighted) or 1e-2 (statistics of each process) that a missing reduction costs.
A spiking policy's spikes flip where a membrane is that close to its threshold; none does here.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from training.test_resume import flat, rows, small

from nervecord.errors import NervecordError
from nervecord.training.folder import checkpoint
from nervecord.training.learners.base import Rollout, Setup
from nervecord.training.learners.ppo import PPOLearner
from nervecord.training.processes import launch
from nervecord.training.processes.distributed import SOLO, Group
from nervecord.training.processes.launch import Launch
from nervecord.training.run import Run, resolved, resume
from nervecord.training.settings.config import TrainConfig

ENVS, STEPS, SIZE, ACTIONS, UPDATES, WORLD = 6, 12, 4, 2, 10, 2
TOLERANCE = 1e-6


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def torchrun(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in two processes; its output names the rank where it can."""
    start = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(WORLD), "--master-port"]
    return subprocess.run(
        [*start, free_port(), *command],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=600,  # against a hang; a busy machine takes minutes
    )


# --------------------------------------------------------------------------------------------------------------------
# The same rollouts, whole or shared


def rollout_tensors(update: int) -> dict[str, torch.Tensor]:
    """A rollout (STEPS, ENVS, ...) with ends, more of them in the first half of the environments."""
    draw = torch.Generator().manual_seed(update)
    often = torch.tensor([0.3] * (ENVS // 2) + [0.05] * (ENVS - ENVS // 2))
    tensors = {
        # Other means for other environments: statistics of one half are not those of all.
        "observations": torch.randn(STEPS + 1, ENVS, SIZE, generator=draw) * 2 + torch.arange(ENVS)[None, :, None],
        "noise": torch.randn(STEPS, ENVS, ACTIONS, generator=draw),
        "rewards": torch.randn(STEPS, ENVS, generator=draw).double() * 3 + torch.arange(ENVS),
        "terminated": torch.rand(STEPS, ENVS, generator=draw) < often,
        "truncated": torch.rand(STEPS, ENVS, generator=draw) < 0.05,
    }
    valid = torch.ones(STEPS, ENVS, dtype=torch.bool)
    for t in range(1, STEPS):
        ends = (tensors["terminated"][t - 1] | tensors["truncated"][t - 1]) & valid[t - 1]
        valid[t] = ~ends
    tensors["terminated"] &= valid
    tensors["truncated"] &= valid
    return {**tensors, "valid": valid}


def in_order(subject: PPOLearner, rollout: Rollout, blocks: int) -> Iterator[torch.Tensor]:
    """Minibatches without chance: each block of environments is cut into parts, and a minibatch takes one of each."""
    settings, valid = subject.settings, rollout.valid
    parts = round(settings.batch / settings.minibatch)
    step = torch.arange(valid.numel()).view(valid.shape)
    pieces = [
        step[:, block][valid[:, block]].tensor_split(parts) for block in torch.arange(valid.shape[1]).chunk(blocks)
    ]
    for _ in range(settings.epochs):
        yield from (torch.cat([block[k] for block in pieces]) for k in range(parts))


def learn(policy: str, group: Group, blocks: int) -> dict[str, Any]:
    """Ten updates over this process's part of the same rollouts; what they leave."""
    config = TrainConfig.of(
        layers=(10,),
        critic=(8,),
        num_envs=ENVS,
        rollout=STEPS,
        minibatch=18,
        epochs=2,
        steps_per_action=3,
        entropy=0.01,
    ).replace(policy=policy)
    torch.manual_seed(3)
    subject = PPOLearner(Setup(SIZE, -torch.ones(ACTIONS), torch.ones(ACTIONS), config, group))
    subject.minibatches = lambda rollout: in_order(subject, rollout, blocks)  # type: ignore[method-assign]
    count = group.share(ENVS)
    own = slice(group.rank * count, (group.rank + 1) * count)
    randn_like = torch.randn_like
    losses = []
    for update in range(UPDATES):
        share = {name: tensor[:, own] for name, tensor in rollout_tensors(update).items()}
        acts = []
        for t in range(STEPS):
            torch.randn_like = lambda mean, t=t, share=share: share["noise"][t]  # type: ignore[assignment]
            acts.append(subject.act(share["observations"][t], None))
        rollout = Rollout(
            share["observations"],
            torch.stack([a.actions for a in acts]),
            torch.stack([a.outputs for a in acts]),
            None,
            share["rewards"],
            share["terminated"],
            share["truncated"],
            share["valid"],
        )
        losses.append(subject.update(rollout)["value_loss"])
        subject.absorb(rollout)
    torch.randn_like = randn_like
    state = subject.state_dict()
    return {
        "parameters": [p.detach() for p in subject.parameters()],
        "obs_rms": state["obs_rms"],
        "reward_rms": {name: value for name, value in state["reward_rms"].items() if name != "returns"},
        "losses": losses,
    }


SHARED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from training.test_distributed import learn, first_observations
from nervecord.training.processes.distributed import join
with join() as group:
    assert group.several and group.world == 2
    found = {policy: learn(policy, group, 1) for policy in ("ann", "snn")}
    found["observations"] = first_observations(group)
    torch.save(found, f"{sys.argv[2]}/{group.rank}.pt")
# Threads that outlive the group abort the process now and then, as the interpreter ends under them.
left = [name.read_text() for name in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in left if "gloo" in name], left
"""


def first_observations(group: Group) -> torch.Tensor:
    config = TrainConfig.of(env="InvertedPendulum-v4", layers=(4,), critic=(4,), num_envs=4, rollout=4, minibatch=8)
    run = Run(resolved(config), None, group)
    run.simulator.close()
    return run.collector.observations[-1]


@pytest.mark.slow
def test_two_processes_learn_as_one(tmp_path: Path) -> None:
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    process = torchrun(str(script), str(Path(__file__).parent.parent), str(tmp_path))
    assert process.returncode == 0, process.stderr
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]
    # Each steps its own part of the environments that one process would step.
    assert torch.cat([part["observations"] for part in parts]).equal(first_observations(SOLO))
    for policy in ("ann", "snn"):
        whole = learn(policy, SOLO, WORLD)
        a, b = (part[policy] for part in parts)
        for name in ("parameters", "obs_rms", "reward_rms"):  # the copies are equal to the bit
            assert flat(a[name]) == flat(b[name]), name
        initial = learn_nothing(policy)
        change = max((p - q).abs().max().item() for p, q in zip(whole["parameters"], initial, strict=True))
        assert change > 2e-3
        for p, q in zip(a["parameters"], whole["parameters"], strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=TOLERANCE)
        # Statistics are float64 sums in another order.
        for part in ("obs_rms", "reward_rms"):
            for name, value in whole[part].items():
                torch.testing.assert_close(a[part][name], value, rtol=1e-12, atol=1e-12)


def learn_nothing(policy: str) -> list[torch.Tensor]:
    config = TrainConfig.of(policy=policy, layers=(10,), critic=(8,), num_envs=2, rollout=4, minibatch=8)
    torch.manual_seed(3)
    return [p.detach() for p in PPOLearner(Setup(SIZE, -torch.ones(ACTIONS), torch.ones(ACTIONS), config)).parameters()]


# --------------------------------------------------------------------------------------------------------------------
# The command


def flags(config: TrainConfig) -> list[str]:
    words = []
    for name, value in config.fields.items():
        if value == TrainConfig().fields[name]:
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            words += [flag, *map(str, value if isinstance(value, tuple) else [value])]
    return words


def start_two(*command: str) -> list[subprocess.Popen[str]]:
    """Two processes as torchrun starts them, without it: nobody ends one when the other dies."""
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **where, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]


@pytest.mark.slow  # it starts Python seven times
def test_killed_and_resumed_with_two_processes_is_bit_identical(tmp_path: Path) -> None:
    """A process is killed with SIGKILL; the other ends with a sentence; what both go on with is the whole run."""
    config = small(tmp_path, "whole")
    result = torchrun("-m", "nervecord", "train", "--json", "--quiet", *flags(config))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["run"] == str(tmp_path / "whole")  # one object: the first process's alone
    versions = json.loads((tmp_path / "whole" / "versions.json").read_text())
    assert versions["processes"] == WORLD

    folder = tmp_path / "killed"
    first, second = start_two("-m", "nervecord", "train", "--quiet", *flags(small(tmp_path, "killed")))
    metrics, deadline = folder / "metrics.jsonl", time.monotonic() + 300
    try:
        while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 12):
            assert time.monotonic() < deadline
            assert first.poll() is None, first.communicate()
            time.sleep(0.002)
        second.send_signal(signal.SIGKILL)
        output, complaint = first.communicate(timeout=60)
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()
    assert (first.returncode, output) == (1, ""), complaint
    assert "another process of this training died" in complaint
    assert "Traceback" not in complaint
    assert config.total_steps not in checkpoint.steps_in(folder / "checkpoints")

    with pytest.raises(NervecordError, match=r"is a run of 2 processes, .*\b1 .*torchrun --nproc-per-node 2"):
        resume(folder)
    result = torchrun("-m", "nervecord", "train", "--resume", str(folder), "--quiet")
    assert result.returncode == 0, result.stderr
    assert rows(folder) == rows(tmp_path / "whole")
    for name in ("result.json", "checkpoints/best.json"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    a, b = (checkpoint.load(tmp_path / name / "checkpoints", config.total_steps) for name in ("killed", "whole"))
    for name in ("learner", "processes", "recorded", "returns"):
        assert flat(a[name]) == flat(b[name]), name
    draws = [process["torch_random"].tolist() for process in a["processes"]]
    assert len(draws) == WORLD
    assert draws[0] != draws[1]  # noise and minibatches of their own


# --------------------------------------------------------------------------------------------------------------------
# Refusals


def test_what_processes_cannot_share_is_refused() -> None:
    group = Group(Launch(1, 3, 1, 3))
    with pytest.raises(NervecordError, match=r"--num-envs: is 32, .*\b3 processes.* 3\b"):
        TrainConfig().algorithm.check_processes(3)
    with pytest.raises(NervecordError, match=r"--minibatch: is 4, 3 processes .* 6"):
        TrainConfig.of(num_envs=33, minibatch=4).algorithm.check_processes(3)
    with pytest.raises(NervecordError, match=r"GPU.*--device cuda"):
        group.device("cuda:0")
    if torch.cuda.device_count() < 3:
        with pytest.raises(NervecordError, match=r"3 processes .*torch"):
            group.device("cuda")
    assert group.device("cpu") == "cpu"
    assert group.own(list(range(6))) == [2, 3]
    assert SOLO.device("cuda:1") == "cuda:1"
    TrainConfig.of(num_envs=33, minibatch=2).algorithm.check_processes(1)


def test_an_environment_that_is_not_torchruns_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launch.launch() == Launch()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(NervecordError, match="WORLD_SIZE is 2, and RANK, LOCAL_RANK"):
        launch.launch()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(NervecordError, match="WORLD_SIZE is 'two'"):
        launch.launch()
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert launch.launch() == Launch(1, 2, 1, 2)
    with pytest.raises(NervecordError, match="nervecord demo runs in one process, WORLD_SIZE is 2"):
        launch.alone("nervecord demo")
