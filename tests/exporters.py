"""Policies of other libraries, exported to ONNX as their documentation says; each with what the library itself answers.

Nothing is trained: their weights are drawn, and so are the statistics of their normalisers.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Answer = Callable[[NDArray[Any]], NDArray[Any]]
"""Observations (k, n) float32 -> actions (k, m) by the library."""


def export(module: Any, size: int, path: Path, **how: Any) -> Answer:
    """torch's exporter; the answer is the module's own."""
    import torch

    pytest.importorskip("onnxscript")
    module.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.zeros(1, size),), str(path), verbose=False, **how)

    def answer(rows: NDArray[Any]) -> NDArray[Any]:
        with torch.no_grad():
            outputs = module(torch.from_numpy(rows))
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        return first.numpy().reshape(len(rows), -1)

    return answer


def stable_baselines3(kind: str, env: str, path: Path, **how: Any) -> Answer:
    """As https://stable-baselines3.readthedocs.io/en/master/guide/export.html does it."""
    pytest.importorskip("stable_baselines3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import stable_baselines3
        import torch

        class OnnxablePolicy(torch.nn.Module):
            def __init__(self, policy: Any) -> None:
                super().__init__()
                self.policy = policy

            def forward(self, observation: Any) -> Any:
                return self.policy(observation, deterministic=True)

        torch.manual_seed(0)
        model = getattr(stable_baselines3, kind)("MlpPolicy", env, device="cpu", **how.pop("model", {}))
    policy = model.policy if kind == "PPO" else model.policy.actor
    for parameter in policy.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    checked = torch.distributions.Distribution._validate_args
    # torch's newer exporter cannot trace the checks of distributions.
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        return export(OnnxablePolicy(policy), model.observation_space.shape[0], path, **how)
    finally:
        torch.distributions.Distribution.set_default_validate_args(checked)


def rsl_rl(path: Path, *, observations: int = 27, actions: int = 8, normalised: bool = True, **how: Any) -> Answer:
    """As its runner's `export_policy_to_onnx` does it."""
    pytest.importorskip("rsl_rl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from rsl_rl.models import MLPModel
        from tensordict import TensorDict

        torch.manual_seed(0)
        batch = TensorDict({"policy": torch.randn(64, observations) * 3 + 1}, batch_size=[64])
        model = MLPModel(
            batch,
            {"actor": ["policy"]},
            "actor",
            actions,
            hidden_dims=(32, 16),
            activation="elu",
            obs_normalization=normalised,
            distribution_cfg={"class_name": "GaussianDistribution", "init_std": 1.0, "std_type": "scalar"},
        )
        model.update_normalization(batch)
        exported = model.as_onnx(verbose=False)
    names = {"input_names": exported.input_names, "output_names": exported.output_names}
    return export(exported, observations, path, opset_version=18, **names, **how)


def skrl(path: Path, *, observations: int = 27, actions: int = 8, **how: Any) -> Answer:
    """skrl has no exporter: its model behind its scaler, in a module of one's own."""
    pytest.importorskip("skrl")
    import gymnasium
    import torch

    from nervecord.training.processes.quiet_skrl import import_skrl

    import_skrl()
    from skrl.models.torch import DeterministicMixin, Model
    from skrl.resources.preprocessors.torch import RunningStandardScaler

    class Policy(DeterministicMixin, Model):  # type: ignore[misc]
        def __init__(self) -> None:
            spaces = {
                "observation_space": gymnasium.spaces.Box(-np.inf, np.inf, (observations,)),
                "action_space": gymnasium.spaces.Box(-1.0, 1.0, (actions,)),
                "state_space": None,
            }
            Model.__init__(self, device="cpu", **spaces)
            DeterministicMixin.__init__(self, clip_actions=True)
            sizes = (observations, 32, 16)
            layers = [m for a, b in itertools.pairwise(sizes) for m in (torch.nn.Linear(a, b), torch.nn.ReLU())]
            self.net = torch.nn.Sequential(*layers, torch.nn.Linear(16, actions))

        def compute(self, inputs: Any, role: str = "") -> Any:
            return self.net(inputs["observations"]), {}

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scaler = RunningStandardScaler(observations, clip_threshold=2.0, device="cpu")
            self.scaler(torch.randn(64, observations) * 3 + 1, train=True)
            self.policy = Policy()

        def forward(self, x: Any) -> Any:
            return self.policy.act({"observations": self.scaler(x)}, role="policy")[0]

    torch.manual_seed(0)
    exported = Exported()
    for parameter in exported.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return export(exported, observations, path, **how)
