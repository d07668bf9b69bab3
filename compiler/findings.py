"""A finding: one thing that is wrong, or worth knowing, about a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias, get_args

from nervecord.errors import FileFormatError, NervecordError

Severity: TypeAlias = Literal["error", "unknown", "warning", "info"]
"""error: it cannot work; unknown: nothing public says whether it can; warning: it can, and costs; info: a fact."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    Args:
        code: stable, kebab-case, documented: tools may match on it.
        severity: see `Severity`.
        node: the node's name as its maker wrote it, or "graph".
        message: what is the case, in one clause.
        value, limit: the measured number (or word) and what it is held against, None where there is no such pair.
        fix: what the user can change.
        target: the target it concerns, None where it concerns the graph itself.
        source: where the limit comes from.
    """

    code: str
    severity: Severity
    node: str
    message: str
    value: float | int | str | None = None
    limit: float | int | str | None = None
    fix: str = ""
    target: str | None = None
    source: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: object) -> Finding:
        """From `to_dict`, as a file holds it.

        Raises:
            FileFormatError: it is none.
        """
        try:
            finding = cls(**data)  # type: ignore[arg-type]
        except TypeError:
            raise FileFormatError("holds a finding that is none", where="report.json") from None
        words = (finding.code, finding.node, finding.message, finding.fix, finding.target or "", finding.source or "")
        measures = (finding.value, finding.limit)
        if (
            finding.severity not in get_args(Severity)
            or not all(isinstance(word, str) for word in words)
            or not all(measure is None or isinstance(measure, (int, float, str)) for measure in measures)
        ):
            raise FileFormatError("holds a finding that is none", where="report.json")
        return finding

    def __str__(self) -> str:
        measure = (
            "" if self.value is None else f" ({self.value} against {self.limit})" if self.limit is not None else ""
        )
        text = f"{self.node}: {self.message}{measure}" + (f"; {self.fix}" if self.fix else "")
        return text.replace("\n", "\\n")  # of a name that a file says


def raise_on_errors(
    findings: Sequence[Finding], error: type[NervecordError], *, where: str | None = None, hint: str | None = None
) -> None:
    """Raise one `error` that lists every finding of severity "error"; nothing where there is none."""
    wrong = [finding for finding in findings if finding.severity == "error"]
    if not wrong:
        return
    refusal = error("; ".join(str(finding) for finding in wrong), where=where, hint=hint)
    refusal.findings = tuple(wrong)
    raise refusal
