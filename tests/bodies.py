"""Equations of a body, run on numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nervecord.compiler.body.evaluate import Evaluator
from nervecord.compiler.body.expression import Kind
from nervecord.compiler.body.trace import Tracer


def computed(equations: Callable[[Any], Any], x: Any, kind: Kind = "integer") -> Any:
    """What equations of a traced x (`equations(x)`, one value or several) give for numbers."""
    do = Tracer(kind)
    values = equations(do.x)
    several = isinstance(values, tuple)
    body = do.body(do.x)
    by_place = Evaluator(body).values({}, np.asarray(x))
    results = [by_place[value.place] for value in (values if several else (values,))]
    return tuple(results) if several else results[0]
