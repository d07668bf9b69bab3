"""The emitted header and self-test: what a contract says, and a compiler that contracts products and sums."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from emitted_c import COMPILERS, STRICT, _flags_of_the_processor, call, emitted, selftest
from policies import random_policy

import nervecord
from nervecord.compiler.graph.contract import Channels

pytestmark = pytest.mark.skipif(not COMPILERS, reason="no C compiler: apt-get install gcc clang")

CONTRACT = """
#include "policy.h"
#include <stdio.h>

static const char *const names[POLICY_OBS_DIM] = POLICY_OBS_NAMES;
static const char *const units[POLICY_ACT_DIM] = POLICY_ACT_UNITS;
static const float low[POLICY_ACT_DIM] = POLICY_ACT_LOW, high[POLICY_ACT_DIM] = POLICY_ACT_HIGH;

int main(void)
{
    static policy_state_t state;
    float obs[POLICY_OBS_DIM] = {0}, act[POLICY_ACT_DIM], safe[POLICY_ACT_DIM];
    obs[0] = obs[0] / obs[0];
    policy_init(&state);
    policy_fail_safe(safe);
    const int code = policy_step(&state, obs, act);
    for (int i = 0; i < POLICY_ACT_DIM; i++) {
        printf("%d %.9g %.9g %.9g %.9g %s\\n", code, (double)act[i], (double)safe[i], (double)low[i], (double)high[i],
               units[i]);
    }
    printf("%d.%d %s\\n", POLICY_VERSION_MAJOR, POLICY_VERSION_MINOR, names[0]);
    return 0;
}
"""


@pytest.mark.parametrize("compiler", COMPILERS)
def test_the_header_says_what_the_contract_says(compiler: str, tmp_path: Path) -> None:
    policy = random_policy(5, sizes=(9, 20, 3))
    units = ("N m", "rad/s", "\N{DEGREE SIGN}\N{DEGREE SIGN}/")
    action = Channels(("a", "b", "c"), units, (-1.0, -1.5, -1.0), (1.0, 1e9, 2.0))
    contract = dataclasses.replace(policy.contract, action=action, fail_safe=(0.1, -0.1, 0.25))
    program = nervecord.compile(policy.replace(contract=contract), "c")
    folder = emitted(program, tmp_path)
    (folder / "main.c").write_text(CONTRACT)
    flags = [flag for flag in STRICT if flag != "-Werror"]
    call(compiler, *flags, "-o", "main", "main.c", "policy.c", "policy_weights.c", cwd=folder)
    *rows, last = call("./main", cwd=folder).splitlines()
    for k, row in enumerate(rows):
        code, act, safe, low, high, unit = row.split(maxsplit=5)
        # NOT_FINITE gives the same action; "??/" is a backslash in C99 where nothing stands before its question marks.
        assert (code, act, unit) == ("1", safe, ("N m", "rad/s", "??/")[k])
        for value, expected in ((safe, contract.fail_safe[k]), (low, action.low[k]), (high, action.high[k])):
            assert np.float32(value) == np.float32(expected)
    major, minor = nervecord.__version__.split(".")[:2]
    assert last == f"{major}.{minor} {contract.observation.names[0]}"
    if shutil.which("g++"):
        (folder / "use.cpp").write_text(
            '#include "policy.h"\nvoid f(float *a);\nvoid f(float *a) { policy_fail_safe(a); }'
        )
        call("g++", "-Wall", "-Wextra", "-Werror", "-c", "use.cpp", cwd=folder)
    text = (folder / "README.md").read_text()
    assert "| act[1] | b | rad/s | -1.5..1e+09 | -0.100000001f |" in text
    assert "`POLICY_NOT_FINITE`: " in text


@pytest.mark.skipif("fma" not in _flags_of_the_processor(), reason="the processor does not fuse products and sums")
def test_the_selftest_finds_a_compiler_that_contracts(tmp_path: Path) -> None:
    folder = emitted(nervecord.compile(random_policy(5, sizes=(9, 20, 3)), "c"), tmp_path)
    selftest(folder, "gcc", "-O2", "-mfma")
    fused = tuple(flag for flag in STRICT if flag != "-ffp-contract=off")
    sources = ["policy.c", "policy_weights.c", "policy_selftest.c"]
    call(
        "gcc",
        "-std=gnu99",
        *fused[1:],
        "-O2",
        "-mfma",
        "-ffp-contract=fast",
        "-DPOLICY_SELFTEST_MAIN",
        "-o",
        "fused",
        *sources,
        cwd=folder,
    )
    call("./fused", cwd=folder, code=1)
