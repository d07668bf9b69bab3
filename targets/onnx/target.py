"""The onnx target: a policy as policy.onnx, in floats or exactly in integers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from nervecord.compiler.calibrate import Calibration, StreamCalibration
from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph import Graph
from nervecord.compiler.lower.lower import lower
from nervecord.compiler.ops import Level
from nervecord.compiler.options import option
from nervecord.compiler.plan import plan
from nervecord.compiler.policy import Policy
from nervecord.compiler.schedule import Schedule
from nervecord.compiler.specfile import read_spec
from nervecord.compiler.target import Emitted, Lowered, TargetSpec
from nervecord.errors import ContractError, NervecordError, unknown_name
from nervecord.runtime.session import MachineSession, Session
from nervecord.runtime.stream import StreamSession
from nervecord.targets.integers import integers, open_integers
from nervecord.targets.onnx.builder import onnx_library
from nervecord.targets.onnx.model import NEWEST_OPSET, OLDEST_OPSET, OPSET, Model, check_ops, make_model

FILE = "policy.onnx"
_FORMS = {"float": "spec.toml", "integer": "integer.toml"}


def _spec(form: str) -> TargetSpec:
    return read_spec(Path(__file__).with_name(_FORMS[form]))


@dataclass(frozen=True)
class OnnxTarget:
    """ONNX Runtime, and the robot stacks that use it."""

    spec: TargetSpec = field(default_factory=lambda: _spec("float"))
    form: str = option("float", "float32, or Loihi 2's integers exactly", choices=tuple(_FORMS))
    weight_bits: int = option(8, "with the form integer: bits of a weight's mantissa", low=2, high=8)
    opset: int = option(OPSET, "version of ONNX's operators", low=OLDEST_OPSET, high=NEWEST_OPSET)

    def __post_init__(self) -> None:
        if self.form == "integer" and self.spec.integers is None:
            object.__setattr__(self, "spec", _spec("integer"))
        if self.form != "integer" and self.weight_bits != OnnxTarget.weight_bits:
            raise NervecordError("is of integers, and the form is float", where="weight_bits", hint="--form integer")

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """The policy itself, or in integers; see `compiler.lower`.

        Raises:
            ContractError: it is no policy.
            InfeasibleError: an op has no form in ONNX here, or it is too large to unroll.
        """
        if not isinstance(subject, Policy):
            raise ContractError(
                "carries no contract, and a policy.onnx maps an observation to an action", where="target 'onnx'",
                hint="give it one: --contract contract.toml; `nervecord contract` writes one to start from",
            )  # fmt: skip
        report: dict[str, object] = {}
        lowered: Graph | Policy = subject
        if self.form == "integer":
            lowered, report = lower(
                subject, integers(self.spec), calibration, schedule=schedule, weight_bits=self.weight_bits
            )
        check_ops(plan(lowered))
        return Lowered(subject=lowered, report={**report, "onnx": {"form": self.form, "opset": self.opset}})

    def open(self, program: Program, *, engine: str | None = None, trace: bool = True) -> Session:
        """A session on the default engine or the one named; it always traces.

        "onnxruntime": ONNX Runtime on the CPU; "definition": the same policy by the ops' own steps; "emulator": the
        compiled loop, for the form integer.
        """
        name = engine or self.spec.engines[0]
        if name not in self.spec.engines:
            raise unknown_name("engine", name, self.spec.engines, where=self.spec.name)
        if name == "onnxruntime":
            # onnx and onnxruntime are imported when a session opens, not with the catalogue.
            from nervecord.targets.onnx.engine import OnnxSession

            return cast(Session, OnnxSession(program.policy))
        if program.graph.level is Level.INTEGER:
            return open_integers(program, name)
        if name == "emulator":
            raise NervecordError(
                "runs integers, and this program is in floats", where="engine 'emulator'",
                hint="compile it with --form integer, or use the engine definition",
            )  # fmt: skip
        return cast(Session, MachineSession(program.policy, engine=name))

    def stream(self, program: Program, *, engine: str | None = None) -> StreamSession:
        """Refused: its programs are policies."""
        raise ContractError("has no programs without a contract", where="target 'onnx'")

    def emit(self, program: Program, folder: Path) -> tuple[Emitted, ...]:
        """policy.onnx.

        Raises:
            InfeasibleError: an op has no form in ONNX here.
            MissingDependencyError: onnx is not installed.
        """
        model = export(program)
        path = folder / FILE
        write_atomically(path, model.proto.SerializeToString(deterministic=True))
        inputs = "obs, h_in" if model.state_size else "obs"
        use = f"onnxruntime.InferenceSession({str(path)!r}).run(['actions'], {{...}})  # float32 of {inputs}"
        shapes = {name: [1, size] for name, size in _sizes(program, model).items()}
        return (Emitted(path, use, {"shapes": shapes}),)


def _sizes(program: Program, model: Model) -> dict[str, int]:
    contract = program.policy.contract
    found = {"obs": contract.observation.size, "actions": contract.action.size}
    return found | ({"h_in": model.state_size, "h_out": model.state_size} if model.state_size else {})


def export(program: Program) -> Model:
    """The model of a program, its contract and how it was made in its metadata; onnx has checked it.

    Args:
        program: of any target, floats or integers.

    Raises:
        ContractError: it is no policy.
        InfeasibleError: an op has no form in ONNX here, or a range is not proved.
        MissingDependencyError: onnx is not installed.
    """
    made = plan(program.policy)
    model = make_model(made, opset=_opset(program), metadata=metadata(program))
    onnx_library().checker.check_model(model.proto, full_check=True)
    return model


def _opset(program: Program) -> int:
    """What it was compiled with; a program of another target says nothing of it, and a report is not trusted."""
    said: Any = program.report.get("lowering")
    for key in ("onnx", "opset"):
        said = said.get(key) if isinstance(said, dict) else None
    return said if type(said) is int and OLDEST_OPSET <= said <= NEWEST_OPSET else OPSET


def metadata(program: Program) -> dict[str, str]:
    """What the file says of itself: the keys that mjlab and unitree's controllers know, then ours.

    Lists are joined by commas, as those do; a list with a comma in one of its names is left out, and stands in
    `nervecord_contract`, which holds everything exactly.
    """
    contract = program.policy.contract
    lists = {
        "joint_names": contract.action.names,
        "observation_names": contract.observation.names,
        # Actions leave in the environment's own units.
        "action_scale": tuple("1.000" for _ in contract.action.names),
    }
    found = {"run_path": contract.provenance.get("run", contract.environment)}
    found |= {key: ",".join(names) for key, names in lists.items() if not any("," in name for name in names)}
    integer = program.graph.level is Level.INTEGER
    return found | {
        "nervecord_contract": contract.to_json(),
        "nervecord_form": "integer" if integer else "float",
        "nervecord_target": program.target,
        "nervecord_arithmetic": json.dumps(
            program.graph.arithmetic.to_dict() if program.graph.arithmetic else {}, sort_keys=True
        ),
        "nervecord_versions": json.dumps(dict(program.versions), sort_keys=True),
    }


TARGET = OnnxTarget
