"""What of a program's report is shown again when its file is read: checked then, like everything else in it.

A target may report more than this, and what it adds is left alone: nothing here reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nervecord.compiler import schema
from nervecord.errors import FileFormatError

_COUNT = schema.whole(0, (1 << 63) - 1)
_NAME = schema.text(1 << 13)

_CONNECTION = schema.record(
    "connection",
    [
        ("weight_bits", schema.whole(0, 64)),
        ("weight_error_max", schema.real(low=0)),
        ("weight_error_rms", schema.real(low=0)),
    ],
    closed=False,
)
_POPULATION = schema.record(
    "population",
    [
        ("population", _NAME),
        ("connections", schema.row(_CONNECTION, schema.MOST_LISTS)),
        ("unit", schema.real(above=0)),
        ("threshold", schema.real() | None),
        ("decay_error", schema.real(low=0)),
        ("accumulator", schema.real()),
        ("accumulator_limit", schema.real(low=0)),
        ("membrane_low", schema.real()),
        ("membrane_high", schema.real()),
        ("membrane_limit", schema.real(low=0)),
    ],
    closed=False,
)
_LOWERING = schema.record(
    "lowering",
    [
        ("populations", schema.row(_POPULATION, schema.MOST_LISTS), ()),
        ("observations", _COUNT, 0),
        ("action_error_rms", schema.real(low=0), 0.0),
        ("action_error_max", schema.real(low=0), 0.0),
        ("output_error_rms", schema.real(low=0), 0.0),
        ("output_error_max", schema.real(low=0), 0.0),
        ("choices_different", _COUNT, 0),
    ],
    closed=False,
)
_MEASURED = (
    ("action_error_rms", ("action_error_max", "observations")),
    ("output_error_rms", ("output_error_max", "observations")),
    ("choices_different", ("observations",)),
)
"""A field of `_LOWERING`, and what must stand beside it."""
_CERTIFICATE = schema.record(
    "certificate",
    [
        ("tolerance", schema.real(above=0)),
        ("verdict", schema.one_of(("holds", "fails", "open"))),
        ("loss", schema.real()),
        ("loss_ci95", schema.real(low=0)),
        ("pairs", _COUNT),
        ("environment", schema.text()),
        ("seed", _COUNT),
        ("return_float", schema.real()),
        ("return_float_ci95", schema.real(low=0)),
        ("return_compiled", schema.real()),
        ("return_compiled_ci95", schema.real(low=0)),
        ("action_error", schema.by_name(schema.real(low=0))),
        ("observations", _COUNT),
    ],
)
REPORT = schema.record("report", [("lowering", _LOWERING, None), ("certificate", _CERTIFICATE, None)], closed=False)
"""`Program.report`, as far as it is shown: `compiler.lower.quantise.PopulationReport`, the error that
`compiler.lower.choose` measures, `runtime.measure.certify.Certificate.to_dict`."""


def check_report(report: Mapping[str, Any], where: str) -> None:
    """Refuse a report that could not be shown.

    Raises:
        FileFormatError: something that would be shown is missing, of another type or out of bounds.
    """
    schema.checked(report, REPORT, where)
    lowering = report.get("lowering", {})
    for field, beside in _MEASURED:
        missing = [other for other in beside if field in lowering and other not in lowering]
        if missing:
            raise FileFormatError(f"lowering: has {field!r}, and field {missing[0]!r} is missing", where=where)
