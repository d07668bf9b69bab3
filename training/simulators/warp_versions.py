"""Whether MuJoCo Warp can work here, asked before anything of it is imported."""

from __future__ import annotations

from importlib import metadata

from nervecord.errors import MissingDependencyError, NervecordError, install_command


def check() -> None:
    """Refuse an installation in which MuJoCo Warp cannot work.

    Raises:
        NervecordError: it is of another version than MuJoCo.
        MissingDependencyError: it is not installed.
    """
    versions: dict[str, str] = {}
    for name in ("mujoco", "mujoco-warp", "warp-lang"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError as error:
            raise MissingDependencyError(
                f"{name} is not installed", where="--sim warp", hint=install_command("train,warp")
            ) from error
    if versions["mujoco"] != versions["mujoco-warp"]:
        raise NervecordError(
            f"MuJoCo Warp {versions['mujoco-warp']} is not of the version of MuJoCo, {versions['mujoco']}",
            where="--sim warp",
            hint=f"pip install mujoco-warp=={versions['mujoco']}",
        )
