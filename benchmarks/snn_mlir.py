"""Our C beside what snn-mlir 1.0 makes of the same NIR file: microseconds of a step, bytes, and how near to the floats.

    python benchmarks/snn_mlir.py [--hidden 256 256] [--steps 2000] [--install build/bench/snn-mlir] [--json FILE]

The graph is one that both take: spikes into Linear, LIF, Linear, LIF, ..., state carried, random weights. snn-mlir
reads it in an environment of its own, which --install makes with pip in that folder; it gives MLIR and C, with int8
weights and states in 12 bits behind the point. From there it needs mlir-opt, mlir-translate and llc of LLVM 22 or later
(Debian: mlir-22-tools, llvm-22), and its own snn-opt, which no registry has: the variable SNN_OPT names one that was
built from its source. Without it the step from its ops to loops is made here, for the three ops of this graph, by what
its documents say they compute; the passes after that are those that it lists. What is missing ends the comparison with
a line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ctypes
import itertools
import json
import re
import shutil
import subprocess
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import engines
import numpy as np
from measure import keep, machine_line, parser, print_rows, quantiles, value_text

import nervecord
from nervecord.compiler.graph.graph import Graph, chain
from nervecord.compiler.nir.file import write_nir
from nervecord.compiler.ops import Affine, Input, Level, Membrane, Neuron, Output, Spike
from nervecord.compiler.plan.plan import plan
from nervecord.runtime.engines.c.library import FAST, STRICT, build, compiler
from nervecord.runtime.engines.c.source import c_source

VERSION = "1.0.0"
INPUTS, OUTPUTS, DT = 27, 8, 1e-3
NEWEST_LLVM, OLDEST_LLVM = 40, 22
CODEGEN = """
import json, sys
import snn_mlir
from snn_mlir._run import _MLIR_OPT_PASSES
snn_mlir.codegen_folder(sys.argv[1], quantize=True)
print(json.dumps(_MLIR_OPT_PASSES))
"""
THEIR_LOOP = """
#include <stdint.h>
#include <stddef.h>
typedef struct {{ int8_t *a, *b; int64_t o, n[1], s[1]; }} bytes;
typedef struct {{ int32_t *a, *b; int64_t o, n[1], s[1]; }} words;
void _mlir_ciface_snn_forward_step(bytes *input, {words}, bytes *output);
void loop(int8_t *in, int8_t *out, size_t steps);
void loop(int8_t *in, int8_t *out, size_t steps)
{{
    {states}
    for (size_t k = 0; k < steps; k++) {{
        bytes x = {{in + k * {inputs}, in + k * {inputs}, 0, {{{inputs}}}, {{1}}}};
        bytes y = {{out + k * {outputs}, out + k * {outputs}, 0, {{{outputs}}}, {{1}}}};
        _mlir_ciface_snn_forward_step(&x, {given}, &y);
    }}
}}
"""
OUR_LOOP = """
#include "policy.h"
#include <stddef.h>
void loop(policy_state_t *s, const int32_t *in, int32_t *out, size_t steps);
void loop(policy_state_t *s, const int32_t *in, int32_t *out, size_t steps)
{
    policy_init(s);
    for (size_t k = 0; k < steps; k++) {
        policy_step_q(s, in + k * POLICY_IN_DIM, out + k * POLICY_OUT_DIM);
    }
}
"""
OURS = (("nervecord, -O3 -march=native", FAST), ("nervecord, -O2", ("-O2",)))
THEIRS = (("snn-mlir, llc -O3 -mcpu=native", ("-O3", "-mcpu=native")), ("snn-mlir, llc as documented", ()))


class Missing(Exception):
    """What is not here, in a sentence."""


def network(hidden: list[int]) -> Graph:
    """Spikes -> Linear -> LIF -> ... -> spikes, lively; every decay is 0.8."""
    rng = np.random.default_rng(0)
    sizes = [INPUTS, *hidden, OUTPUTS]
    nodes: list[tuple[str, Any]] = [("input", Input((INPUTS,), "spikes"))]
    for k, (a, b) in enumerate(itertools.pairwise(sizes), start=1):
        one, zero = np.ones(b), np.zeros(b)
        weight = rng.normal(size=(b, a)) * (1.5 if k == 1 else 2.5) / np.sqrt(a)
        nodes += [
            (f"fc{k}", Affine(weight)),
            (f"lif{k}", Neuron(Membrane(0.8 * one, one, zero), None, Spike(one, zero))),
        ]
    return chain(Level.DISCRETE, [*nodes, ("output", Output((OUTPUTS,)))], dt=DT)


def llvm(name: str) -> str:
    """A tool of LLVM, new enough.

    Raises:
        Missing: there is none.
    """
    for version in range(NEWEST_LLVM, OLDEST_LLVM - 1, -1):
        path = shutil.which(f"{name}-{version}")
        if path is not None:
            return path
    raise Missing(f"{name} of LLVM {OLDEST_LLVM} or later is not here (apt-get install mlir-22-tools llvm-22)")


def their_python(folder: Path | None) -> str:
    """The interpreter of snn-mlir's environment, made where a folder is named for it.

    Raises:
        Missing: none is named, or it cannot be installed.
    """
    if folder is None:
        raise Missing(f"snn-mlir {VERSION} is not installed (--install FOLDER makes an environment for it)")
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    words = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"snn-mlir=={VERSION}"]
    if subprocess.run(words, check=False).returncode:
        raise Missing(f"snn-mlir {VERSION} could not be installed")
    return str(python)


def lowered(text: str) -> str:
    """Its ops `linear`, `rescale` and `lif` on integers as loops of linalg."""
    lines = []
    for line in text.splitlines():
        op = re.match(r"\s*snn\.(\w+) ", line)
        lines.append(LOWERED[op[1]](line) if op else line)
    return "\n".join(lines)


def _generic(maps: list[str], kinds: list[str], ins: str, outs: str, body: str) -> str:
    shapes = ", ".join(f"affine_map<{it}>" for it in maps)
    loops = ", ".join(f'"{kind}"' for kind in kinds)
    return (
        f"linalg.generic {{indexing_maps = [{shapes}], iterator_types = [{loops}]}} ins({ins}) outs({outs}) {{\n"
        f"{body}\n}}"
    )


def _linear(line: str) -> str:
    match = re.search(
        r"ins\((%\w+), (%\w+)\)(?: bias\((%\w+) : (memref<\w+>)\))? out\((%\w+)\).* : (\S+), (\S+) -> (\S+)$", line
    )
    assert match is not None, line
    x, weight, bias, bias_type, out, x_type, weight_type, out_type = match.groups()
    zero = f"%zero_{out[1:]}"
    parts = [
        f"{zero} = arith.constant 0 : i32",
        f"linalg.fill ins({zero} : i32) outs({out} : {out_type})",
        _generic(
            ["(i, j) -> (i, j)", "(i, j) -> (j)", "(i, j) -> (i)"],
            ["parallel", "reduction"],
            f"{weight}, {x} : {weight_type}, {x_type}",
            f"{out} : {out_type}",
            "^bb0(%w: i8, %x: i8, %sum: i32):\n%a = arith.extsi %w : i8 to i32\n%b = arith.extsi %x : i8 to i32\n"
            "%c = arith.muli %a, %b : i32\n%d = arith.addi %sum, %c : i32\nlinalg.yield %d : i32",
        ),
    ]
    if bias is not None:
        parts.append(
            _generic(
                ["(i) -> (i)"] * 2,
                ["parallel"],
                f"{bias} : {bias_type}",
                f"{out} : {out_type}",
                "^bb0(%x: i32, %sum: i32):\n%d = arith.addi %sum, %x : i32\nlinalg.yield %d : i32",
            )
        )
    return "\n".join(parts)


def _rescale(line: str) -> str:
    match = re.search(
        r"ins\((%\w+)\) out\((%\w+)\) \{w_scale = (-?\d+) : i64, d_scale = (-?\d+) : i64\} : (\S+) -> (\S+)$", line
    )
    assert match is not None, line
    x, out, w_scale, d_scale, x_type, out_type = match.groups()
    by = int(d_scale) - int(w_scale)
    shift = f"%y = arith.{'shli' if by >= 0 else 'shrsi'} %x, %by : i32"
    return _generic(
        ["(i) -> (i)"] * 2,
        ["parallel"],
        f"{x} : {x_type}",
        f"{out} : {out_type}",
        f"^bb0(%x: i32, %old: i32):\n%by = arith.constant {abs(by)} : i32\n{shift}\nlinalg.yield %y : i32",
    )


def _lif(line: str) -> str:
    match = re.search(r"ins\((%\w+)\) state\((%\w+)\) out\((%\w+)\) \{(.*)\} : (\S+), (\S+) -> (\S+)$", line)
    assert match is not None, line
    x, v, out, attributes, x_type, v_type, out_type = match.groups()
    values = {key: int(value) for key, value in re.findall(r"(\w+) = (-?\d+) : i64", attributes)}
    constants = "\n".join(
        f"%{name} = arith.constant {values[key]} : i32"
        for name, key in (("by", "d_scale"), ("decay", "decay_int"), ("th", "threshold_int"), ("reset", "v_reset_int"))
    )
    return _generic(
        ["(i) -> (i)"] * 3,
        ["parallel"],
        f"{x} : {x_type}",
        f"{v}, {out} : {v_type}, {out_type}",
        f"^bb0(%x: i32, %v: i32, %old: i8):\n{constants}\n%a = arith.muli %decay, %v : i32\n"
        "%b = arith.shrsi %a, %by : i32\n%c = arith.addi %b, %x : i32\n%fires = arith.cmpi sgt, %c, %th : i32\n"
        "%one = arith.constant 1 : i8\n%none = arith.constant 0 : i8\n"
        "%spike = arith.select %fires, %one, %none : i8\n%next = arith.select %fires, %reset, %c : i32\n"
        "linalg.yield %next, %spike : i32, i8",
    )


LOWERED = {"linear": _linear, "rescale": _rescale, "lif": _lif}


def their_object(folder: Path, passes: list[str], flags: tuple[str, ...]) -> Path:
    """network.mlir as an object file."""
    build_folder, object_file = folder / "build", folder / "network.o"
    text = (build_folder / "network.mlir").read_text(encoding="utf-8")
    own = os.environ.get("SNN_OPT")

    def piped(words: list[str], stdin: str) -> str:
        return subprocess.run(words, input=stdin, stdout=subprocess.PIPE, text=True, check=True).stdout

    loops = piped([own, "--convert-snn-to-linalg"], text) if own else lowered(text)
    code = piped([llvm("mlir-translate"), "--mlir-to-llvmir"], piped([llvm("mlir-opt"), *passes], loops))
    words = [llvm("llc"), "--relocation-model=pic", "-filetype=obj", *flags, "-o", str(object_file)]
    subprocess.run(words, input=code, text=True, check=True)
    return object_file


def section_bytes(path: Path) -> int:
    """Code and constants of an object file or library."""
    output = subprocess.run(["size", "-A", str(path)], stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = [line.split() for line in output.splitlines()]
    return sum(int(row[1]) for row in rows if len(row) == 3 and row[0].startswith((".text", ".rodata", ".data")))


def times_of(call: Any, steps: int, rounds: int) -> list[float]:
    """Microseconds of a step, of each round."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        call()
        times.append(1e6 * (time.perf_counter() - began) / steps)
    return times


def apart(actual: Any, expected: Any) -> float:
    """Share of output spikes that differ; ours come some steps later, by a step for each connection."""
    shifts = [(actual[k:] != expected[: len(expected) - k]).mean() for k in range(8)]
    return float(min(shifts))


def measured(graph: Graph, options: Any, folder: Path) -> list[dict[str, Any]]:
    """A row for each way of building."""
    rng = np.random.default_rng(1)
    x = (rng.random((options.steps, INPUTS)) < 0.3).astype(np.int8)
    expected = nervecord.stream(graph).run(x.astype(float))["output"][:, 0]
    write_nir(graph, folder / "network.nir")
    np.savetxt(folder / "input.csv", x, fmt="%d", delimiter=",")
    program = nervecord.compile(graph, "c", calibration=x.astype(float))
    source = c_source(plan(program.graph, program.schedule))
    calls: dict[str, Any] = {}
    rows: dict[str, dict[str, Any]] = {}
    for name, flags in OURS:
        place = Path(tempfile.mkdtemp(dir=folder))
        library = ctypes.CDLL(str(build({**source.files(), "loop.c": OUR_LOOP}, "policy", place, compiler(), flags)))
        library.loop.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_size_t]
        state, inputs = np.zeros(1, source.dtype), np.ascontiguousarray(x, np.int32)
        out = np.zeros((options.steps, OUTPUTS), np.int32)
        calls[name] = (library, library.loop, (state, inputs, out), out)
        subprocess.run([*compiler(), *STRICT, *flags, "-c", "policy.c", "policy_weights.c"], cwd=place, check=True)
        rows[name] = {
            "name": name,
            "code_bytes": sum(section_bytes(place / f"policy{it}.o") for it in ("", "_weights")),
        }
    python = their_python(options.install)
    output = subprocess.run(
        [python, "-I", "-c", CODEGEN, str(folder)], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    passes = json.loads(output.splitlines()[-1])
    neurons = [op.size for op in graph.nodes.values() if op.neurons]
    names = [f"v{k}" for k in range(len(neurons))]
    loop = THEIR_LOOP.format(
        words=", ".join(f"words *{name}" for name in names),
        given=", ".join(f"&{name}" for name in names),
        states="\n    ".join(
            f"int32_t s{name}[{n}] = {{0}}; words {name} = {{s{name}, s{name}, 0, {{{n}}}, {{1}}}};"
            for name, n in zip(names, neurons, strict=True)
        ),
        inputs=INPUTS,
        outputs=OUTPUTS,
    )
    for name, flags in THEIRS:
        place = Path(tempfile.mkdtemp(dir=folder))
        object_file = shutil.move(their_object(folder, passes, flags), place / "network.o")
        (place / "loop.c").write_text(loop, encoding="ascii")
        words = [*compiler(), "-O2", "-shared", "-fPIC", "-o", "their.so", "loop.c", "network.o"]
        subprocess.run(words, cwd=place, check=True)
        library = ctypes.CDLL(str(place / "their.so"))
        library.loop.argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_size_t]
        out = np.zeros((options.steps, OUTPUTS), np.int8)
        calls[name] = (library, library.loop, (x, out), out)
        rows[name] = {"name": name, "code_bytes": section_bytes(Path(object_file))}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.rounds):  # in turns
        for name, (_library, function, arrays, _out) in calls.items():
            places = [array.ctypes.data for array in arrays]
            times[name] += times_of(lambda f=function, p=places: f(*p, options.steps), options.steps, 1)  # type: ignore[misc]
    for name, (_library, _function, _arrays, out) in calls.items():
        rows[name] |= quantiles(times[name]) | {
            "note": f"{apart(out, expected):.2%} of output spikes differ from the floats'",
            "p99": None,
            "apart": apart(out, expected),
        }
    return list(rows.values())


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure and print; returns a row for each way of building, none where something is missing."""
    flags = parser(__doc__)
    flags.add_argument("--hidden", type=int, nargs="+", default=[256, 256], help="neurons of the hidden layers")
    flags.add_argument("--steps", type=int, default=2000)
    flags.add_argument("--rounds", type=int, default=15)
    flags.add_argument("--install", type=Path, metavar="FOLDER", help="environment of snn-mlir; made if it is missing")
    options = flags.parse_args(arguments)
    print(machine_line())
    graph = network(options.hidden)
    shape = "-".join(map(str, (INPUTS, *options.hidden, OUTPUTS)))
    own = "its snn-opt" if os.environ.get("SNN_OPT") else "our reading of its ops in place of snn-opt"
    rows: list[dict[str, Any]] = []
    about = (
        f"A chain of Linear and LIF, {shape}, spikes in and out, state carried, from one NIR file that both read; a "
        f"step of the network called in a loop in C, median of {options.rounds} runs of {options.steps} steps, by "
        f"`benchmarks/snn_mlir.py`. snn-mlir {VERSION} has int8 weights with one scale for a layer, multiplies "
        f"densely, and is lowered by {own} and LLVM's tools with the passes that it lists; ours adds the rows of the "
        "neurons that fired. Neither network is the floats': a spike that differs goes on."
    )
    with tempfile.TemporaryDirectory() as name:
        try:
            if not engines.has_compiler():
                raise Missing("there is no C compiler")
            rows = measured(graph, options, Path(name))
        except Missing as missing:
            about = f"Not compared: {missing}."
            print(f"snn-mlir: not compared: {missing}")
    if rows:
        print(f"snn-mlir {VERSION} and nervecord, {shape}, {own}")
        print_rows(
            ["us a step", "median", "code and constants", "output spikes that differ from the floats'"],
            [[row["name"], value_text(row["median"]), f"{row['code_bytes']:,}", f"{row['apart']:.2%}"] for row in rows],
        )
    keep(options.json, {"about": about, "rows": rows})
    return rows


if __name__ == "__main__":
    main()
