"""Lava, or a part of it, that dies or hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from graphs import LAVA
from policies import random_policy

from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.plan.calibrate import calibrate
from nervecord.errors import EngineError
from nervecord.runtime.worker.child import marked
from nervecord.targets.lava import environment
from nervecord.targets.lava.engine_lava import LavaSession

OBSERVATIONS = 5
needs_lava = pytest.mark.lava


def policy() -> Policy:
    policy = random_policy(4, sizes=(OBSERVATIONS, 12, 3))
    return lower(policy, LAVA, calibrate(policy))[0]


def leftovers(prefix: str, pids: list[int]) -> list[str]:
    """What of a session is left: processes, segments."""
    names = [path.name for path in Path("/dev/shm").glob(f"{prefix}*")]
    for pid in pids:
        status = Path(f"/proc/{pid}/stat")
        if status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
            names.append(str(pid))
    return names


@needs_lava
@pytest.mark.parametrize("fault", ["a process dies", "a process hangs", "the worker dies", "killed between steps"])
def test_a_dead_or_hung_lava_is_an_error_in_time_and_leaves_nothing(fault: str) -> None:
    with LavaSession(policy(), timeout=1.0) as session:
        session.step(np.zeros(OBSERVATIONS))
        prefix = session.worker.shared_memory_prefix
        pids = [*session.worker.process_ids, *session.worker.call("processes").values["pids"]]
        assert len(leftovers(prefix, pids)) > len(pids)
        victim = {"the worker dies": pids[1], "killed between steps": pids[0]}.get(fault, pids[4])
        os.kill(victim, signal.SIGSTOP if fault == "a process hangs" else signal.SIGKILL)
        time.sleep(0.05)
        start = time.monotonic()
        with pytest.raises(EngineError) as caught:
            session.step(np.zeros(OBSERVATIONS))
        assert time.monotonic() - start < 4.0
        assert caught.value.hint
        assert leftovers(prefix, pids) == []
        with pytest.raises(EngineError, match="no longer"):
            session.step(np.zeros(OBSERVATIONS))


def began(pid: int) -> int:
    """When a process began, in ticks."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@needs_lava
def test_a_death_while_lava_starts_is_an_error_in_time() -> None:
    with LavaSession(policy()) as session:
        prefix = session.worker.shared_memory_prefix
        before = set(marked(prefix))

        def strike() -> None:
            # Python's tracker and the server of the shared memory come first, then Lava's own.
            deadline = time.monotonic() + 300
            while len(started := set(marked(prefix)) - before) < 4 and time.monotonic() < deadline:
                time.sleep(0.001)
            os.kill(max(started, key=lambda pid: (began(pid), pid)), signal.SIGKILL)

        thread = threading.Thread(target=strike)
        thread.start()
        begins = time.monotonic()
        with pytest.raises(EngineError, match="processes ended"):
            session.step(np.zeros(OBSERVATIONS))
        assert time.monotonic() - begins < 10.0
        thread.join()
    assert leftovers(prefix, list(before)) == []


SWALLOWED = """
import sys, time
import deaths

class Dead:
    def is_alive(self):
        return False

class Finalised:
    def __del__(self):
        time.sleep(20)  # what is raised here, Python prints

begun = time.monotonic()
try:
    with deaths.deaths_are_told(lambda: [Dead()]):
        Finalised()
        time.sleep(20)
except deaths.LavaDiedError:
    print(time.monotonic() - begun)
"""


def test_a_death_told_within_a_finaliser_is_told_again() -> None:
    folder = Path(environment.__file__).parent / "lava_worker"
    process = subprocess.run(
        [sys.executable, "-c", SWALLOWED],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Exception ignored in" in process.stderr
    assert float(process.stdout) < 10.0
