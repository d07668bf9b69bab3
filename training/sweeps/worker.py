"""A worker of a sweep: takes one run after another from the queue and trains it.

Started as `python -m nervecord.training.sweeps.worker` by `nervecord.training.sweeps.sweep`, with one line of JSON on its
standard input: {"folder": ..., "study": ..., "storage": ...}. The input stays open: when it ends, because the process
at its other end says so or is gone, the worker leaves its run where it is and stops.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

from nervecord.errors import NervecordError
from nervecord.training.sweeps.queue import Claim, Queue

POLL = 1.0
"""Seconds between two looks at the queue while others train."""
STOPPED = 130
"""Exit code of a worker that was told to stop."""
_RESUMED_WITH = ("threads", "torch_threads", "device", "tensorboard", "keep_checkpoints")
"""Fields that a resumed run takes from the study file, whatever it began with."""


class LostError(Exception):
    """Another process has taken up the run; this one must not write to it any more."""


def work(queue: Queue) -> None:
    """Train runs until none is waiting or running anywhere: one that runs elsewhere may have to be taken up."""
    while True:
        claim = queue.take()
        if claim is not None:
            train_claim(claim)
        elif queue.is_over():
            return
        else:
            time.sleep(POLL)


def train_claim(claim: Claim) -> None:
    """Train, resume or just count the run of a claim, and end the claim; a run that fails is told with its sentence."""
    with claim:
        name = claim.config.name
        print(f"{_now()} {name}: begins", flush=True)
        try:
            value = result_of(claim.folder)
            if value is None:
                value = _train(claim)
            if not math.isfinite(value):
                raise NervecordError(f"its tested return is {value}", where=name)
        except KeyboardInterrupt:
            claim.put_back()
            raise
        except LostError:
            print(f"{_now()} {name}: taken up by another worker, as this one was silent", flush=True)
        except Exception as error:
            traceback.print_exc()
            is_ours = not isinstance(error, (NervecordError, OSError))
            claim.failed(f"{type(error).__name__}: {error}" if is_ours else str(error))
        else:
            claim.done(value)
            print(f"{_now()} {name}: done, return {value:.1f}", flush=True)


def result_of(folder: Path) -> float | None:
    """Tested return of a finished run; None for one that is not finished. A training writes its result last."""
    path = folder / "result.json"
    if not path.is_file():
        return None
    test = json.loads(path.read_text(encoding="utf-8"))["test"]
    return None if test is None else float(test["mean_return"])


def _train(claim: Claim) -> float:
    from nervecord.training.run import Progress, resume, train

    def progress(now: Progress) -> None:
        if claim.is_lost:
            raise LostError
        claim.step = now.step

    config = claim.config
    if (claim.folder / "config.json").is_file():
        overrides = {name: getattr(config, name) for name in _RESUMED_WITH}
        result = resume(claim.folder, progress=progress, overrides=overrides)
    else:
        result = train(config, progress=progress)
    if result.test is None:
        raise NervecordError("was not tested", where=str(claim.folder))
    return result.test.mean


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _stop_at_end_of_input() -> None:
    """Interrupt the main thread when the standard input ends."""
    main = threading.main_thread().ident
    assert main is not None
    # Whoever is started in the background of a shell inherits that interrupts are ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def wait() -> None:
        while os.read(0, 4096):
            pass
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=wait, name="stop", daemon=True).start()


def main() -> int:
    """The process: 0 when everything is over, `STOPPED` when it was told to stop."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)  # unbuffered: what follows is waited for by its end
        if not byte:
            return STOPPED
        line += byte
    order = json.loads(line)
    _stop_at_end_of_input()
    try:
        work(Queue(Path(order["folder"]), order["study"], order["storage"]))
    except KeyboardInterrupt:
        return STOPPED
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Threads of libraries may still be at work; nothing is left for them to do.
    os._exit(code)
