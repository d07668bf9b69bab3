"""Ways to damage data so that it stays well-formed one level below: trees of JSON, texts of TOML, arrays, raw bytes."""

from __future__ import annotations

import copy
import io
import json
import random
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

JUNK: tuple[Any, ...] = (
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    3,
    7,
    63,
    64,
    65,
    255,
    256,
    4096,
    65535,
    65536,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    1 << 53,
    1 << 60,
    1 << 64,
    10**400,
    0.0,
    -0.0,
    0.5,
    1.5,
    -1.0,
    5e-324,
    1e-300,
    1e300,
    1.7976931348623157e308,
    float("inf"),
    float("-inf"),
    float("nan"),
    "",
    "x",
    "a",
    "\x1b[2J",
    "\ud800",
    "\u202e",
    "a\nb",
    "\0",
    "nan",
    "../x",
    "lif1",
    "fc1",
    "action",
    "observation",
    "Neuron",
    "Dense",
    "Affine",
    "Delay",
    "Membrane",
    "Spike",
    "reset",
    "carried",
    "subtract",
    "zero",
    "spikes",
    "values",
    "integer",
    "discrete",
    "lava",
    "reference",
    "unlimited",
    [],
    [1],
    [0],
    [-1],
    [None],
    ["a"],
    ["a", "b"],
    [[]],
    [1.5, 2],
    [1] * 70,
    {},
    {"kind": "Spike"},
    {"kind": 3},
    {"name": "x", "kind": "Input", "shape": [1]},
    {"name": "x", "kind": "Output", "shape": [3]},
)
"""What is put where something else belongs. Numbers lie at the edges of what fields allow."""


def places(tree: Any) -> list[tuple[Any, Any]]:
    """(parent, key) of everything in nested dicts and lists."""
    pairs: list[tuple[Any, Any]] = []
    stack = [tree]
    while stack:
        value = stack.pop()
        keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        for key in keys:
            pairs.append((value, key))
            stack.append(value[key])
    return pairs


def mutate_tree(tree: Any, rng: random.Random) -> None:
    """Replace, remove, double, move or add one thing, or nudge a number."""
    pairs = places(tree)
    if not pairs:
        return
    parent, key = rng.choice(pairs)
    value = parent[key]
    what = rng.random()
    if what < 0.12:
        del parent[key]
    elif what < 0.2 and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), copy.deepcopy(value))
    elif what < 0.26 and isinstance(parent, list):
        rng.shuffle(parent)
    elif what < 0.34 and isinstance(parent, dict):
        parent[rng.choice([*parent, "x", "kind", "name", "shape", "origin", "delay"])] = copy.deepcopy(value)
    elif what < 0.5:
        other, at = rng.choice(pairs)
        if at in other if isinstance(other, dict) else at < len(other):
            parent[key] = copy.deepcopy(other[at])
    elif what < 0.75 and isinstance(value, (int, float)) and not isinstance(value, bool):
        parent[key] = nudged(value, rng)
    else:
        parent[key] = copy.deepcopy(rng.choice(JUNK))


def nudged(value: float, rng: random.Random) -> float:
    """A number near another one, in size or in value."""
    if value != value or value in (float("inf"), float("-inf")):
        return 0.0
    change = rng.randrange(6)
    if change == 0:
        return -value
    if change in (1, 2):
        return value + (1 if change == 1 else -1)
    if change == 3:
        return value * 2
    if change == 4:
        return value * 1000
    # A whole number may be too large for a float.
    return type(value)(value / 1000) if abs(value) < 1e300 else value // 1000


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flip, blank, copy or cut."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not out:
            break
        at, length = rng.randrange(len(out)), rng.choice((1, 1, 2, 4, 8, 64))
        change = rng.randrange(7)
        if change == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            out[at : at + length] = rng.randbytes(length)
        elif change == 2:
            out[at : at + length] = bytes(length)
        elif change == 3:
            out[at : at + length] = b"\xff" * length
        elif change == 4:
            source = rng.randrange(len(out))
            out[at : at + length] = out[source : source + length]
        elif change == 5:
            del out[at : at + length]
        else:
            out[at:at] = out[max(0, at - length) : at]
    if rng.random() < 0.1:
        del out[rng.randrange(len(out) + 1) :]
    return bytes(out)


def mutate_array(array: Any, rng: random.Random) -> Any:
    """An array of other values, type or shape."""
    out = np.array(array)
    if out.dtype.kind not in "fiub":
        return out
    change = rng.randrange(9)
    if change == 0 and out.size:
        out.flat[rng.randrange(out.size)] = _extreme(out.dtype, rng)
    elif change == 1:
        out = np.full(out.shape, _extreme(out.dtype, rng), dtype=out.dtype)
    elif change == 2:
        out = out.astype(rng.choice(("<f4", "<i4", "<i8", "<f8", "|b1", "<u2")), casting="unsafe")
    elif change == 3:
        out = out.reshape(-1)
    elif change == 4:
        out = out[None]
    elif change == 5:
        out = out.reshape(-1)[:0] if not out.ndim else out[:0]
    elif change == 6:
        out = np.concatenate([out, out]) if out.ndim else out
    elif change == 7:
        out = out.T.copy()
    else:
        out = np.zeros_like(out) if rng.random() < 0.5 else -out if out.dtype.kind in "fi" else out
    return out


def _extreme(dtype: Any, rng: random.Random) -> Any:
    if np.dtype(dtype).kind == "f":
        return rng.choice((np.nan, np.inf, -np.inf, 0.0, -0.0, 1.7e308, -1.7e308, 5e-324, 1e9, -1e9, 1.0))
    if np.dtype(dtype).kind == "b":
        return rng.random() < 0.5
    info = np.iinfo(dtype)
    return rng.choice((info.min, info.max, 0, 1, 255, 256, 254))


def to_json(tree: Any) -> bytes:
    """JSON as a careless writer makes it: NaN, lone surrogates and long numbers included."""
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def to_toml(tree: dict[str, Any]) -> bytes:
    """A tree as TOML, nested tables inline; what TOML cannot say is left out."""
    lines = [f"{_key(key)} = {_value(value)}" for key, value in tree.items() if value is not None]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _key(key: str) -> str:
    return json.dumps(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_value(item) for item in value if item is not None) + "]"
    if isinstance(value, float):
        text = repr(value)
        return text if any(c in text for c in ".ein") else text + ".0"
    return json.dumps(value) if isinstance(value, str) else str(value)


def to_archive(members: Mapping[str, bytes]) -> bytes:
    """A program's archive of these members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)
    return out.getvalue()
