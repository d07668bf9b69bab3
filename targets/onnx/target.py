"""The onnx target: a policy as policy.onnx, in floats or exactly in integers."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

from nervecord.compiler.arithmetic import Arithmetic
from nervecord.compiler.files.atomic import write_atomically
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy, parts
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.lower.lower import OPTIONS
from nervecord.compiler.lower.slices import SLICES_ABOUT
from nervecord.compiler.ops import Level
from nervecord.compiler.plan.calibrate import Calibration, StreamCalibration
from nervecord.compiler.plan.plan import plan
from nervecord.compiler.target.implied import with_arithmetic
from nervecord.compiler.target.options import option
from nervecord.compiler.target.protocol import Emitted, Lowered, TargetSpec
from nervecord.compiler.target.specfile import read_spec
from nervecord.errors import NervecordError
from nervecord.runtime.session import Session
from nervecord.runtime.stream import StreamSession
from nervecord.targets.base import ArithmeticTarget, spec_beside
from nervecord.targets.onnx.builder import onnx_library
from nervecord.targets.onnx.model import NEWEST_OPSET, OLDEST_OPSET, OPSET, Model, check_ops, make_model

FILE = "policy.onnx"
NETWORK_FILE = "network.onnx"
"""Of a program that is no policy."""
_FORMS = {"float": "spec.toml", "integer": "integer.toml"}


def _spec(form: str) -> TargetSpec:
    return read_spec(Path(__file__).with_name(_FORMS[form]))


@dataclass(frozen=True)
class OnnxTarget(ArithmeticTarget):
    """ONNX Runtime, and the robot stacks that use it."""

    spec: TargetSpec = spec_beside(__file__)
    emits: ClassVar[str] = "policy.onnx"
    form: str = option("float", "float32, or Loihi 2's integers exactly", choices=tuple(_FORMS))
    weight_bits: int = option(8, "with the form integer: bits of a weight's mantissa", low=2, high=8)
    weight_slices: int = option(1, f"with the form integer: {SLICES_ABOUT}", low=1, high=2)
    opset: int = option(OPSET, "version of ONNX's operators", low=OLDEST_OPSET, high=NEWEST_OPSET)

    def __post_init__(self) -> None:
        if self.form == "integer" and self.spec.integers is None:
            object.__setattr__(self, "spec", _spec("integer"))
        options = [name for name in OPTIONS if getattr(self, name) != getattr(OnnxTarget, name)]
        if self.form != "integer" and options:
            raise NervecordError("is of integers, and the form is float", where=options[0], hint="--form integer")

    def lower(
        self, subject: Graph | Policy, calibration: Calibration | StreamCalibration | None, schedule: Schedule
    ) -> Lowered:
        """The policy itself, or in integers; see `compiler.lower`. What is in integers already stays as it is.

        Raises:
            InfeasibleError: an op has no form in ONNX here, or it is too large to unroll.
        """
        report: dict[str, object] = {}
        lowered: Graph | Policy = subject
        if self.form == "integer" and parts(subject)[0].level is not Level.INTEGER:
            integers = self.lowered(subject, calibration, schedule)
            lowered, report = integers.subject, dict(integers.report)
        check_ops(plan(lowered, schedule))
        return Lowered(subject=lowered, report={**report, "onnx": {"form": self.form, "opset": self.opset}})

    def adopting(self, arithmetic: Arithmetic) -> OnnxTarget:
        """The form integer with another arithmetic than Lava's, for what is in those integers already."""
        return dataclasses.replace(self, form="integer", spec=with_arithmetic(_spec("integer"), arithmetic))

    def session(self, program: Program, engine: str, *, trace: bool) -> Session:
        """On "onnxruntime": ONNX Runtime on the CPU, which always traces."""
        if engine == "onnxruntime":
            # onnx and onnxruntime are imported when a session opens, not with the catalogue.
            from nervecord.targets.onnx.engine import OnnxSession

            return cast(Session, OnnxSession(program.policy))
        return super().session(program, engine, trace=trace)

    def stream_session(self, program: Program, engine: str) -> StreamSession:
        """The same for a program that is no policy."""
        if engine == "onnxruntime":
            from nervecord.targets.onnx.engine import OnnxStream

            return cast(StreamSession, OnnxStream(plan(program.graph, program.schedule)))
        return super().stream_session(program, engine)

    def engine(self, program: Program, name: str | None) -> str:
        """The engine that a name means; the emulator runs the form integer."""
        chosen = super().engine(program, name)
        if chosen == "emulator" and program.graph.level is not Level.INTEGER:
            raise NervecordError(
                "runs integers, and this program is in floats",
                where="engine 'emulator'",
                hint="compile it with --form integer, or use the engine definition",
            )
        return chosen

    def emit(self, program: Program, folder: Path) -> tuple[Emitted, ...]:
        """policy.onnx; of a program that is no policy network.onnx.

        Raises:
            InfeasibleError: an op has no form in ONNX here.
            MissingDependencyError: onnx is not installed.
        """
        model = export(program)
        path = folder / (FILE if program.contract is not None else NETWORK_FILE)
        write_atomically(path, model.proto.SerializeToString(deterministic=True))
        ends = {
            value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
            for value in (*model.proto.graph.input, *model.proto.graph.output)
        }
        inputs = ", ".join(value.name for value in model.proto.graph.input)
        use = f"onnxruntime.InferenceSession({str(path)!r}).run(None, {{...}})  # float32 of {inputs}"
        return (Emitted(path, use, {"shapes": ends}),)


def export(program: Program) -> Model:
    """The model of a program, its contract and how it was made in its metadata; onnx has checked it.

    Args:
        program: of any target, floats or integers.

    Raises:
        InfeasibleError: an op has no form in ONNX here, or a range is not proved.
        MissingDependencyError: onnx is not installed.
    """
    block_plan = plan(program.subject, program.schedule)
    model = make_model(block_plan, opset=_opset(program), metadata=metadata(program))
    onnx_library().checker.check_model(model.proto, full_check=True)
    return model


def _opset(program: Program) -> int:
    """What it was compiled with; a program of another target says nothing of it, and a report is not trusted."""
    lowering: Any = program.report.get("lowering")
    for key in ("onnx", "opset"):
        lowering = lowering.get(key) if isinstance(lowering, dict) else None
    return lowering if type(lowering) is int and OLDEST_OPSET <= lowering <= NEWEST_OPSET else OPSET


def metadata(program: Program) -> dict[str, str]:
    """What the file says of itself: the keys that mjlab and unitree's controllers know, then ours.

    Lists are joined by commas, as those do; a list with a comma in one of its names is left out, and stands in
    `nervecord_contract`, which holds everything exactly.
    """
    result: dict[str, str] = {}
    contract = program.contract
    if contract is not None:
        lists = {
            "joint_names": contract.action.names,
            "observation_names": contract.observation.names,
            # Actions leave in the environment's own units.
            "action_scale": tuple("1.000" for _ in contract.action.names),
        }
        result = {"run_path": contract.provenance.get("run", contract.environment)}
        result |= {key: ",".join(names) for key, names in lists.items() if not any("," in name for name in names)}
        result["nervecord_contract"] = contract.to_json()
    arithmetic = program.graph.arithmetic
    return result | {
        "nervecord_form": "float" if arithmetic is None else "integer",
        "nervecord_target": program.target,
        "nervecord_arithmetic": json.dumps({} if arithmetic is None else arithmetic.to_dict(), sort_keys=True),
        "nervecord_versions": json.dumps(dict(program.versions), sort_keys=True),
    }


TARGET = OnnxTarget
