"""What torch compiles where it can: where it cannot, the operators run one by one, and one warning says so."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from nervecord.training.compiled import compiled


@pytest.mark.parametrize("when", ["asked", "called"])
def test_without_a_compiler_the_operators_run_one_by_one(when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: Any, **how: Any) -> Any:
        if when == "asked":
            raise RuntimeError("torch.compile is not supported on this Python")

        def run(*args: Any) -> Any:
            raise torch._dynamo.exc.BackendCompilerFailed(function, RuntimeError("no compiler"), None)

        return run

    monkeypatch.setattr(torch, "compile", broken)
    double = compiled(lambda x: 2 * x, "doubling", dynamic=True)
    with pytest.warns(UserWarning, match=r"torch.compile fails here .*; doubling runs slower"):
        assert double(torch.tensor(3.0)) == 6.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert double(torch.tensor(4.0)) == 8.0
