"""What MuJoCo and Gymnasium say beside their answers: kept where it belongs, and not printed where it is no news."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from nervecord.errors import NervecordError

LOG = "MUJOCO_LOG.TXT"
_WATCHED: set[Path] = set()
"""Logs of MuJoCo that somebody waits for."""


@contextlib.contextmanager
def mujoco_log(keep: Callable[[bytes], None] | None = None) -> Iterator[None]:
    """MuJoCo writes its warnings into a file in the working directory, some when it loads a model. One that appears
    meanwhile is removed; `keep` is given its text. Within another one it does nothing."""
    log = Path(LOG)
    is_ours = log.absolute() not in _WATCHED and not log.exists()
    if not is_ours:
        yield
        return
    _WATCHED.add(watched := log.absolute())
    try:
        yield
    finally:
        _WATCHED.discard(watched)
        if log.exists():
            with contextlib.suppress(OSError):
                text = log.read_bytes()
                log.unlink()
                if keep is not None:
                    keep(text)


@contextlib.contextmanager
def without_deprecations(name: str, *, is_in_process: bool = True) -> Iterator[None]:
    """While environments of a task are being built, Gymnasium's deprecations are not printed: the contract names the
    version that a policy was trained in, so it is no news that a later one exists, or that the model of one of
    Gymnasium's own tasks was written for an earlier MuJoCo. Other messages, and those about a user's own model, are
    printed.

    Args:
        name: the task's id; its module, if any, is imported already.
        is_in_process: whether the environments are this process's; another one has its own MuJoCo.
    """
    import gymnasium

    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=".*is out of date.*")
        # A name without a version is no contract's; `check_environment` says so.
        warnings.filterwarnings("ignore", message=".*Using the latest versioned environment.*")
        spec = gymnasium.registry.get(name.rpartition(":")[2])
        if is_in_process and spec is not None and str(spec.entry_point).startswith("gymnasium.envs.mujoco"):
            with contextlib.suppress(ImportError):  # whoever makes the environment says what is not installed
                import mujoco

                if mujoco.get_mju_user_warning() is None:  # a program's own handler hears everything
                    mujoco.set_mju_user_warning(_pass_on)
                    stack.callback(mujoco.set_mju_user_warning, None)
        yield


@contextlib.contextmanager
def opengl_refused(name: str) -> Iterator[None]:
    """Around what may import MuJoCo first: MuJoCo then reads MUJOCO_GL, and raises where it knows no such OpenGL.

    Raises:
        NervecordError: MUJOCO_GL names no OpenGL of MuJoCo's.
    """
    try:
        yield
    except RuntimeError as error:
        if "MUJOCO_GL" not in str(error):
            raise
        raise NervecordError(str(error), where=name, hint="set MUJOCO_GL to egl or osmesa, or unset it") from None


def _pass_on(text: str) -> None:
    """What MuJoCo does with a warning where nobody handles it, but for deprecations."""
    if "deprecated" in text:
        return
    print(f"WARNING: {text}\n", file=sys.stderr)
    with contextlib.suppress(OSError), open(LOG, "a", encoding="utf-8") as log:
        log.write(f"WARNING: {text}\n\n")
