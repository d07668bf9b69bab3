"""Everything that runs a policy here, each as one call per action: our engines, and what they are measured against."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measure import ZOO, Call

import nervecord
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.plan.plan import plan
from nervecord.runtime.engines.c.library import COMPILERS, FAST, build, compiler
from nervecord.runtime.engines.c.source import c_source

SECONDS = 300.0
"""An action of Lava's may take."""
LOOP = """
#include "policy.h"
#include <stddef.h>

void loop(policy_state_t *s, const float *obs, float *act, size_t rows, size_t count);
void loop(policy_state_t *s, const float *obs, float *act, size_t rows, size_t count)
{
    for (size_t k = 0; k < count; k++) {
        policy_step(s, obs + k % rows * POLICY_OBS_DIM, act + k % rows * POLICY_ACT_DIM);
    }
}
"""
"""What calls the emitted C as firmware does."""


def ant(steps: int | None = None) -> Policy:
    """zoo/ant-small (27-256-8, T = 5) with the observations that it carries; with another T where `steps` says one."""
    trained = nervecord.read(ZOO / "ant-small" / "policy.nir")
    assert isinstance(trained, Policy)
    if steps is None:
        return trained
    return trained.replace(contract=dataclasses.replace(trained.contract, steps=steps))


def observations(policy: Policy, count: int = 256) -> Any:
    """(count, observations) that the policy carries, rounded to float32, as every engine takes them exactly."""
    assert policy.recorded is not None
    rows = np.random.default_rng(1).permutation(policy.recorded)[:count]
    return rows.astype(np.float32).astype(np.float64)


def has_compiler() -> bool:
    """Whether the engine c can be built."""
    return bool(os.environ.get("CC")) or any(shutil.which(name) for name in COMPILERS)


def has_lava() -> bool:
    """Whether Lava's environment is there."""
    from nervecord.targets.lava import environment

    return environment.status().installed


def lava_session(program: Program) -> Any:
    """Lava itself, with time enough for a machine that others use too."""
    from nervecord.targets.lava.engine_lava import LavaSession

    return LavaSession(program.policy, full_trace=False, timeout=SECONDS)


def has(*packages: str) -> bool:
    """Whether these can be imported."""
    try:
        for package in packages:
            __import__(package)
    except ImportError:
        return False
    return True


@contextlib.contextmanager
def opened(policy: Policy, *, lava: bool = True) -> Iterator[dict[str, Call]]:
    """Name -> one action, of every engine that is here, for a policy in floats.

    First the integers, as `lava` and `onnx --form integer` compile them, then the floats. "policy.onnx" and "policy.c"
    are the emitted files, called without our sessions around them.
    """
    integers = nervecord.compile(policy, "lava")
    with contextlib.ExitStack() as stack:

        def session(program: Program | Policy, **how: Any) -> Call:
            engine = stack.enter_context(nervecord.open(program, trace=False, **how))
            engine.reset(1)
            return engine.step

        calls: dict[str, Call] = {
            "emulator": session(integers, engine="emulator"),
            "definition": session(integers, engine="definition"),
        }
        if has_compiler():
            calls["c"] = session(integers, engine="c")
            calls["policy.c, from Python"] = emitted_c(integers)[0]
        if has("onnx", "onnxruntime"):
            exact = nervecord.compile(policy, "onnx", form="integer")
            calls["onnxruntime"] = session(exact, engine="onnxruntime")
            calls["policy.onnx"] = onnx_file(exact)
        if has("torch"):
            calls["torch"] = session(integers, engine="torch")
        if lava and has_lava():
            calls["lava"] = stack.enter_context(lava_session(integers)).step
        calls["float: definition"] = session(policy)
        if has("onnx", "onnxruntime"):
            floats = nervecord.compile(policy, "onnx")
            calls["float: onnxruntime"] = session(floats, engine="onnxruntime")
            calls["float: policy.onnx"] = onnx_file(floats)
        if has("torch"):
            calls["float: torch"] = session(policy, engine="torch")
            calls["float: torch, float32"] = session(policy, engine="torch", precision="float32")
        yield calls


def onnx_file(program: Program) -> Call:
    """One action of the emitted policy.onnx; carried state goes round as a controller would hand it."""
    from nervecord.targets.onnx.engine import inference_session
    from nervecord.targets.onnx.target import export

    session = inference_session(export(program).proto.SerializeToString())
    state = {value.name: np.zeros(value.shape, dtype=np.float32) for value in session.get_inputs()[1:]}

    def call(row: Any) -> object:
        action, *after = session.run(None, {"obs": row.astype(np.float32)[None], **state})
        if after:
            state["h_in"] = after[0]
        return action[0]

    return call


def emitted_c(program: Program) -> tuple[Call, Callable[[Any, int], Any]]:
    """(one action of the emitted C by ctypes, so many actions in a loop in C: (rows, observations) -> (rows, actions)).

    Compiled with -O3 -march=native.
    """
    assert program.contract is not None
    source = c_source(plan(program.policy))
    with tempfile.TemporaryDirectory() as folder:
        library = ctypes.CDLL(str(build({**source.files(), "loop.c": LOOP}, "policy", Path(folder), compiler(), FAST)))
    library.loop.argtypes, library.loop.restype = [ctypes.c_void_p] * 3 + [ctypes.c_size_t] * 2, None
    library.policy_step.argtypes = [ctypes.c_void_p] * 3
    state, looped = np.zeros((2, 1), dtype=source.dtype)
    obs = np.zeros(program.contract.observation.size, np.float32)
    act = np.zeros(program.contract.action.size, np.float32)
    step, places = library.policy_step, (state.ctypes.data, obs.ctypes.data, act.ctypes.data)

    def call(row: Any, buffer: Any = state) -> Any:  # the library knows the state by its address alone
        obs[:] = row
        step(*places)
        return act

    def loop(rows: Any, count: int) -> Any:
        inputs = np.ascontiguousarray(rows, dtype=np.float32)
        acts = np.zeros((len(inputs), len(act)), np.float32)
        library.loop(looped.ctypes.data, inputs.ctypes.data, acts.ctypes.data, len(inputs), count)
        return acts

    return call, loop


def ann_twin(sizes: tuple[int, ...]) -> Call:
    """A network without spikes of these sizes in ONNX Runtime: normalise, layers with tanh between them, clip."""
    from onnx import TensorProto, checker, helper, numpy_helper

    from nervecord.targets.onnx.engine import inference_session

    rng = np.random.default_rng(0)
    weights = {"mean": np.zeros(sizes[0]), "scale": np.ones(sizes[0]), "high": np.array(10.0), "low": np.array(-10.0)}
    weights |= {"one": np.array(1.0), "minus": np.array(-1.0)}
    steps = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["normal"]),
        helper.make_node("Clip", ["normal", "low", "high"], ["h0"]),
    ]
    for k, (a, b) in enumerate(itertools.pairwise(sizes)):
        weights[f"w{k}"], weights[f"b{k}"] = rng.normal(size=(a, b)) / np.sqrt(a), np.zeros(b)
        last = k == len(sizes) - 2
        steps.append(helper.make_node("Gemm", [f"h{k}", f"w{k}", f"b{k}"], ["y" if last else f"g{k}"]))
        if not last:
            steps.append(helper.make_node("Tanh", [f"g{k}"], [f"h{k + 1}"]))
    steps.append(helper.make_node("Clip", ["y", "minus", "one"], ["action"]))
    graph = helper.make_graph(
        steps,
        "twin",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, sizes[0]])],
        [helper.make_tensor_value_info("action", TensorProto.FLOAT, [None, sizes[-1]])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    session = inference_session(model.SerializeToString())
    return lambda row: session.run(None, {"x": row.astype(np.float32)[None]})


def snntorch_loop(folder: Path = ZOO / "ant-small") -> Call:
    """One action of a run's policy by snnTorch's own modules in eager torch, T steps in a Python loop, normaliser
    included: what a policy is before anything is compiled."""
    import torch

    from nervecord.training.folder import checkpoint
    from nervecord.training.folder.export import policy_from_checkpoint
    from nervecord.training.folder.run_folder import open_existing
    from nervecord.training.policy.normaliser import ObservationNormaliser

    content = checkpoint.load(folder / "checkpoints")
    config = open_existing(folder).replace(operator="snntorch")
    policy = policy_from_checkpoint(config, content)
    moments = content["learner"]["obs_rms"]
    normalise = ObservationNormaliser(len(moments["mean"]), config.task.obs_clip, torch.device("cpu"))
    normalise.load_state_dict(moments)
    low, high = content["low"], content["high"]
    torch.set_num_threads(1)

    @torch.no_grad()
    def call(row: Any) -> Any:
        mean, _ = policy(normalise(torch.from_numpy(row)[None]).to(torch.float32))
        return mean[0].clamp(low, high).numpy()

    return call
