"""The target c: what it emits compiles without a warning, runs its self-test, and costs what its README says."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compiled_c import CORTEX_TOOLS, on_cortex
from emitted_c import COMPILERS, STRICT, call, emitted, selftest
from emulated import policy_of, random_arithmetic
from examples import some
from graphs import LAVA, draw
from policies import lif, random_dag, random_policy

import nervecord
from nervecord.compiler.files.program import Program
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.ops import (
    Affine,
    BiasChannel,
    Decode,
    Dense,
    Input,
    IntegerMembrane,
    IntegerSpike,
    Level,
    Neuron,
    Op,
    Output,
    Quantise,
    Sparse,
    Threshold,
)
from nervecord.compiler.plan.plan import plan
from nervecord.errors import InfeasibleError, NervecordError
from nervecord.runtime.engines.c.names import identifiers
from nervecord.runtime.engines.c.source import c_source
from nervecord.targets.c.package import STACK, package, updates, works
from nervecord.targets.c.target import CTarget
from nervecord.targets.catalogue import load_spec

SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

pytestmark = pytest.mark.skipif(not COMPILERS, reason="no C compiler: apt-get install gcc clang")


def programs() -> dict[str, Callable[[], Program]]:
    """One of every kind of encoder, decoder, wiring and state."""
    chain = {"sizes": (9, 20, 3)}

    def program_of(policy: Policy) -> Program:
        return nervecord.compile(policy, "c")

    return {
        "cleared": lambda: program_of(random_policy(5, **chain)),
        "carried, currents": lambda: program_of(random_policy(5, **chain, state="carried", current=True)),
        "population, counts": lambda: program_of(random_policy(5, **chain, population=5, output_population=4)),
        "choices": lambda: program_of(random_policy(5, **chain, choices=True)),
        "counted choices": lambda: program_of(random_policy(5, **chain, choices=True, output_population=3)),
        "branches": lambda: program_of(random_dag(3)),
        "loops": lambda: program_of(random_dag(3, carried=True, recurrent=True)),
        "other arithmetic": lambda: other_arithmetic(),
        "stream": lambda: stream(4),
        "stream in blocks": lambda: stream(next(s for s in range(99) if draw(s).plan.schedule.steps > 2)),
        "stream, bias source": lambda: biased_stream("values"),
        "stream, bias channel": lambda: biased_stream("spikes"),
    }


def other_arithmetic() -> Program:
    """Reset by subtraction, several spikes in a step, decays by shifts."""
    for seed in range(400):
        arithmetic = random_arithmetic(seed)
        if arithmetic.spikes_per_step > 1 and arithmetic.decay == "shift" and arithmetic.accumulate == "shift-each":
            policy = policy_of(draw(seed, arithmetic))
            if policy is not None:
                return Program("mine", policy.graph, policy.contract)
    raise AssertionError("none was drawn")


def stream(seed: int) -> Program:
    case = draw(seed)
    return Program("c", case.plan.graph, None, case.plan.schedule)


def biased_stream(carries: str) -> Program:
    """Biases into synaptic currents: the Inputs carry them on a channel of their own."""
    rng = np.random.default_rng(2)
    nodes: dict[str, Op] = {"lif": lif(6, current=0.6), "fc2": Affine(rng.normal(size=(3, 6)), rng.normal(size=3), 1)}
    nodes |= {"last": lif(3, current=0.5), "out": Output((3,))}
    edges = [("lif", "fc2"), ("fc2", "last"), ("last", "out")]
    for k in range(2):
        nodes[f"in{k}"] = Input((4,), carries, 4.0 if carries == "values" else None)
        nodes[f"fc{k}"] = Affine(rng.normal(size=(6, 4)), rng.normal(size=6), 1)
        edges += [(f"in{k}", f"fc{k}"), (f"fc{k}", "lif")]
    return nervecord.compile(Graph(Level.DISCRETE, nodes, tuple(edges), 1e-3), "c")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Program, Path]]:
    """Name -> a program and what is emitted of it."""
    by_name = {}
    for k, (name, make) in enumerate(programs().items()):
        program = make()
        by_name[name] = (program, emitted(program, tmp_path_factory.mktemp("c") / str(k)))
    return by_name


@pytest.mark.parametrize("flags", some([("-O3",), SANITIZED, ("-O0",)], 2), ids=["-O3", "sanitized", "-O0"])
@pytest.mark.parametrize("name", programs())
@pytest.mark.parametrize(
    "compiler", [pytest.param(c, marks=[pytest.mark.long] if k else []) for k, c in enumerate(COMPILERS)]
)
def test_it_compiles_without_a_warning_and_passes_its_test(
    name: str, compiler: str, flags: tuple[str, ...], folders: dict[str, tuple[Program, Path]]
) -> None:
    selftest(folders[name][1], compiler, *flags)


def test_the_streams_carry_their_biases(folders: dict[str, tuple[Program, Path]]) -> None:
    """So that their self-tests say something: a step takes what a user gives, and no bias source."""
    ops = {name: list(folders[f"stream, bias {name}"][0].graph.nodes.values()) for name in ("source", "channel")}
    assert any(isinstance(op, Quantise) and op.constant for op in ops["source"])
    assert any(isinstance(op, BiasChannel) for op in ops["channel"])


def test_the_selftest_names_the_first_step_that_differs(
    folders: dict[str, tuple[Program, Path]], tmp_path: Path
) -> None:
    """One bit of one output; and another weight."""
    folder = folders["cleared"][1]
    text = (folder / "policy_vectors.h").read_text()
    at = text.index("policy_vectors_out")
    rows = text[at:].split("    {\n")
    word = re.search(r"0x([0-9a-f]{8})u", rows[11])
    assert word is not None
    rows[11] = rows[11].replace(word.group(), f"0x{int(word.group(1), 16) ^ 1:08x}u", 1)
    changed = shutil.copytree(folder, tmp_path / "changed")
    (changed / "policy_vectors.h").write_text(text[:at] + "    {\n".join(rows))
    main = "#include <stdlib.h>\nint policy_selftest(void);\nint main(void) { return policy_selftest(); }\n"
    (changed / "main.c").write_text(main)
    sources = ["policy.c", "policy_weights.c", "policy_selftest.c", "main.c"]
    call(COMPILERS[0], *STRICT, "-o", "selftest", *sources, cwd=changed)
    call("./selftest", cwd=changed, code=11)
    weights = (folder / "policy_weights.c").read_text()
    head, values = weights.split("_weight[", 1)
    (changed / "policy_weights.c").write_text(f"{head}_weight[" + values.replace("{\n    ", "{\n    100 + ", 1))
    (changed / "policy_vectors.h").write_text(text)
    call(COMPILERS[0], *STRICT[:2], "-o", "selftest", *sources, cwd=changed)
    assert subprocess.run(["./selftest"], cwd=changed, check=False).returncode != 0


@pytest.mark.parametrize("name", ["cleared", "stream", "population, counts", "counted choices"])
def test_it_calls_nothing_but_memset_and_memcpy(name: str, folders: dict[str, tuple[Program, Path]]) -> None:
    folder = folders[name][1]
    call(COMPILERS[0], *STRICT, "-Os", "-c", "policy.c", cwd=folder)
    symbols = {line.split()[-1] for line in call("nm", "--undefined-only", "policy.o", cwd=folder).splitlines()}
    outside = {symbol for symbol in symbols if not symbol.startswith("policy_")}
    assert outside <= {"memset", "memcpy", "__stack_chk_fail", "_GLOBAL_OFFSET_TABLE_"}
    data = [line.split() for line in call("nm", "policy.o", cwd=folder).splitlines()]
    assert not [line for line in data if line[-2].lower() in ("b", "d", "c")], (
        "it has no data of its own: it is reentrant"
    )


def test_the_core_has_no_floats(folders: dict[str, tuple[Program, Path]]) -> None:
    text = (folders["cleared"][1] / "policy.c").read_text()
    core = text[: text.index("void policy_init")]
    assert "step_q" in core
    code = re.sub(r"/\*.*?\*/|#error.*|#include.*|#if.*", "", core, flags=re.DOTALL)
    assert not re.search(r"\b(float|double)\b|[0-9]\.[0-9]", code)
    stream_text = (folders["stream"][1] / "policy.c").read_text()
    assert not re.search(r"\b(float|double)\b", re.sub(r"/\*.*?\*/", "", stream_text, flags=re.DOTALL))


def test_two_policies_in_one_program(tmp_path: Path, folders: dict[str, tuple[Program, Path]]) -> None:
    """Each with a prefix of its own, called from C++, their steps one after the other."""
    for prefix, name in (("leg", "cleared"), ("arm2_left", "population, counts")):
        emitted(folders[name][0], tmp_path, prefix=prefix)
    assert "POLICY_" not in (tmp_path / "leg.h").read_text()
    (tmp_path / "main.cpp").write_text(
        '#include "leg.h"\n#include "arm2_left.h"\nint main() { return leg_selftest() + arm2_left_selftest(); }\n'
    )
    names = [f"{prefix}{part}" for prefix in ("leg", "arm2_left") for part in ("", "_weights", "_selftest")]
    for name in names:
        call(COMPILERS[0], *STRICT, "-c", f"{name}.c", cwd=tmp_path)
    objects = [f"{name}.o" for name in names]
    compiler = {"gcc": "g++", "clang": "clang++"}[COMPILERS[0]]
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    call(compiler, "-Wall", "-Wextra", "-Werror", "-o", "both", "main.cpp", *objects, cwd=tmp_path)
    call("./both", cwd=tmp_path)


@pytest.mark.parametrize("prefix", ["", "Policy", "a-b", "2legs", "int", "policy_", "cell", "a/b", "x" * 25, "class"])
def test_a_prefix_that_is_none_is_refused(prefix: str) -> None:
    with pytest.raises(NervecordError, match="prefix: "):
        CTarget(prefix=prefix)


def test_names_of_nodes_can_say_anything() -> None:
    """A program may come from anywhere: what it calls its nodes does not become code."""
    evil = ['*/ int main(void) { system("rm"); } /*', "a\\", "//", "int", "é", "??/", "lif 1", "lif-1", "LIF 1"]
    safe = identifiers(evil)
    assert len(set(safe.values())) == len(evil)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in safe.values())
    policy = nervecord.compile(random_policy(5, sizes=(4, 5, 2)), "c").policy
    graph = policy.graph
    names = dict(zip(graph.nodes, [*evil, *map(str, range(99))], strict=False))
    renamed = policy.replace(
        graph=graph.replace(
            nodes={names[name]: op for name, op in graph.nodes.items()},
            edges=tuple((names[a], names[b]) for a, b in graph.edges),
        )
    )
    files = package(Program("c", renamed.graph, renamed.contract), prefix="policy", vectors=2).files
    for text in files.values():
        assert text.isascii()
        assert "system(" not in text
        assert "??/" not in text
        assert "\\\n" not in text or text.startswith("# Written")


def test_its_arithmetic_is_lavas() -> None:
    assert load_spec("c").integers == load_spec("lava").integers == LAVA
    policy = random_policy(5, sizes=(9, 20, 3))
    assert nervecord.compile(policy, "c").graph == nervecord.compile(policy, "lava").graph


def test_what_has_no_form_is_refused_by_name() -> None:
    """Every op of today's integers has one; the day that there is another one, it is named."""
    policy = nervecord.compile(random_policy(5, sizes=(4, 5, 2)), "c").policy
    network_plan = plan(policy)
    strange = [
        dataclasses.replace(step, op=Threshold(np.ones(5))) if isinstance(step.op, Neuron) and step.op.spikes else step
        for step in network_plan.core
    ]
    with pytest.raises(InfeasibleError, match=r"Threshold .*\bC\b"):
        c_source(dataclasses.replace(network_plan, core=tuple(strange)))


@pytest.mark.parametrize("limit", [3e38, 4e38])
def test_actions_that_a_float_does_not_hold_are_refused(limit: float) -> None:
    """C does not say what becomes of them; the fail-safe action must be one that can be taken."""
    policy = nervecord.compile(random_policy(5, sizes=(4, 5, 2)), "c").policy
    action = dataclasses.replace(policy.contract.action, low=(-limit,) * 2, high=(limit,) * 2)
    nodes = {
        name: op.replace(low=np.full(2, -limit), high=np.full(2, limit)) if isinstance(op, Decode) else op
        for name, op in policy.graph.nodes.items()
    }
    for fail_safe, decoders in ((limit, {}), (0.0, nodes)):
        graph = policy.graph.replace(nodes={**policy.graph.nodes, **decoders})
        contract = dataclasses.replace(policy.contract, action=action, fail_safe=(fail_safe,) * 2)
        if limit < 3.4e38:
            c_source(plan(Policy(graph, contract)))
            continue
        with pytest.raises(InfeasibleError, match=r"action .*4e\+38"):
            c_source(plan(Policy(graph, contract)))


def test_a_state_that_no_memory_holds_is_refused() -> None:
    """What is held is multiplied once per action, and its products wait with the connection: a few bytes of a file."""
    policy = nervecord.compile(random_policy(5, sizes=(4, 5, 2), state="carried", steps=1), "c").policy
    graph, size = policy.graph, 1 << 18
    (name,) = [n for n, op in graph.nodes.items() if isinstance(op, Dense) and op.weight.shape == (5, 4)]
    (after,) = [n for n, op in graph.nodes.items() if isinstance(op, Dense) and op.weight.shape == (2, 5)]
    (lif_name,) = graph.destinations(name)
    neurons = graph.nodes[lif_name]
    assert isinstance(neurons, Neuron)
    assert isinstance(neurons.membrane, IntegerMembrane)
    one, nothing = np.ones(1, np.int32), np.zeros(size, np.int32)
    first = Sparse(one, 0 * one, np.append([0], nothing + 1).astype(np.int32), 4, 0, 8, 4000)
    second = Sparse(one, 0 * one, np.array([0, 1, 1], np.int32), size, 0, 8, 1)
    nodes = {
        **graph.nodes,
        name: first,
        after: second,
        lif_name: neurons.replace(membrane=dataclasses.replace(neurons.membrane, bias=nothing)),
    }
    arithmetic = dataclasses.replace(LAVA, delay_max=4096)
    with pytest.raises(InfeasibleError, match=r"c: .* 4,\d{3},\d{3},\d{3} bytes, 536,870,912 "):
        c_source(plan(policy.replace(graph=graph.replace(nodes=nodes, arithmetic=arithmetic))))


def test_the_readme_says_what_it_costs(folders: dict[str, tuple[Program, Path]]) -> None:
    program, folder = folders["cleared"]
    source = c_source(plan(program.policy))
    text = (folder / "README.md").read_text()
    assert f"| flash, constants | {source.flash_bytes} |" in text
    assert f"| RAM, one `policy_state_t` | {source.state_bytes} |" in text
    channels = program.policy.contract.observation
    assert all(f"| obs[{k}] | {name} |" in text for k, name in enumerate(channels.names))
    assert "| act[2] | a2 |" in text
    # 9 values into 20 neurons once, 20 neurons into 3 in each of the 5 steps.
    assert sum(work.operations for work in works(source)) == 9 * 20 + 5 * 20 * 3
    assert updates(source) == 5 * 23
    assert f"{9 * 20 + 5 * 20 * 3} synaptic" in text
    assert f"{5 * 23} neuron" in text
    call(COMPILERS[0], *STRICT, "-c", "policy_weights.c", cwd=folder)
    sizes = call("size", "-A", "policy_weights.o", cwd=folder)
    constants = sum(int(line.split()[1]) for line in sizes.splitlines() if line.startswith(".rodata"))
    assert source.flash_bytes <= constants <= source.flash_bytes + 32 * len(source.tables)


@pytest.mark.long
def test_the_makefile_and_cmake_build_it(folders: dict[str, tuple[Program, Path]], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["loops"][1], tmp_path / "folder")
    call("make", "libpolicy.a", "selftest", cwd=folder)
    for name in ("stream, bias source", "stream, bias channel"):
        call("make", "sanitize", cwd=folders[name][1])
    if shutil.which("cmake") is None:
        pytest.skip("no cmake")
    call("cmake", "-S", ".", "-B", "build", cwd=folder)
    call("cmake", "--build", "build", cwd=folder)
    call("ctest", "--test-dir", "build", cwd=folder)


def test_the_same_program_gives_the_same_bytes(folders: dict[str, tuple[Program, Path]], tmp_path: Path) -> None:
    program, folder = folders["branches"]
    again = emitted(program, tmp_path / "again")
    for path in again.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_constant_memory_of_any_arithmetic() -> None:
    """No table is wider than what it holds, and what all mantissas share stands in the exponent."""
    weight = np.array([[4, -8, 0], [124, 64, -128]])
    policy = nervecord.compile(random_policy(5, sizes=(4, 3, 2)), "c").policy
    graph = policy.graph
    name = next(n for n, op in graph.nodes.items() if isinstance(op, Dense) and op.weight.shape == (2, 3))
    op = graph.nodes[name]
    assert isinstance(op, Dense)
    nodes = {**graph.nodes, name: op.replace(weight=weight, weight_exp=-3)}
    link = c_source(plan(policy.replace(graph=graph.replace(nodes=nodes)))).layout.links[name]
    assert link.weight.kind == "int8_t"
    assert link.exponent == -1
    assert np.array_equal(link.weight.values * 4, weight.T)


# --------------------------------------------------------------------------------------------------------------------
# A Cortex-M4 in QEMU

needs_cortex = pytest.mark.skipif(
    not all(map(shutil.which, CORTEX_TOOLS)),
    reason="apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm",
)


@needs_cortex
@pytest.mark.parametrize("level", ["-O2", "-Os"])
def test_a_thousand_steps_on_a_cortex_m4(level: str, tmp_path: Path) -> None:
    policy = random_policy(5, sizes=(9, 20, 3), state="carried", current=True)
    folder = emitted(nervecord.compile(policy, "c"), tmp_path / "c", vectors=1000)
    failed, mean, most, stack = on_cortex(folder, level)
    assert failed == 0
    assert 1_000 < mean <= most < 500_000
    assert stack < STACK


@needs_cortex
@pytest.mark.parametrize("name", ["population, counts", "counted choices", "loops", "branches", "other arithmetic"])
def test_other_policies_on_a_cortex_m4(name: str, folders: dict[str, tuple[Program, Path]]) -> None:
    failed, _, _, stack = on_cortex(folders[name][1], "-O2")
    assert failed == 0
    assert stack < STACK


@needs_cortex
@pytest.mark.parametrize("name", programs())
def test_it_compiles_without_a_warning_for_a_cortex_m4(name: str, folders: dict[str, tuple[Program, Path]]) -> None:
    """There an int32_t is a long."""
    folder = folders[name][1]
    for source in ("policy.c", "policy_weights.c", "policy_selftest.c"):
        call("arm-none-eabi-gcc", *STRICT, "-mcpu=cortex-m4", "-mthumb", "-O2", "-c", source, cwd=folder)


@needs_cortex
def test_the_cortex_can_say_that_it_failed(folders: dict[str, tuple[Program, Path]], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["cleared"][1], tmp_path / "changed")
    text = (folder / "policy_vectors.h").read_text()
    at = text.index("policy_vectors_code")
    (folder / "policy_vectors.h").write_text(text[:at] + text[at:].replace("{\n    0, 0", "{\n    0, 1", 1))
    assert on_cortex(folder, "-O2")[0] == 2


def test_a_state_that_saturates_is_clamped() -> None:
    """Where the proof excludes it, no clamp is printed; where it does not, one is."""
    policy = nervecord.compile(random_policy(5, sizes=(4, 5, 2)), "c").policy
    assert "clamp" not in c_source(plan(policy)).source
    graph = policy.graph
    nodes = dict(graph.nodes)
    for name, op in graph.nodes.items():
        if isinstance(op, Neuron) and op.spike is not None:
            assert isinstance(op.membrane, IntegerMembrane)
            assert isinstance(op.spike, IntegerSpike)
            membrane = dataclasses.replace(op.membrane, decay=0, bias=np.full(op.size, 4095), bias_exp=7)
            nodes[name] = op.replace(membrane=membrane, spike=dataclasses.replace(op.spike, threshold=(1 << 17) - 1))
    schedule = dataclasses.replace(policy.contract, steps=40)
    long = policy.replace(graph=graph.replace(nodes=nodes), contract=schedule)
    assert "clamp(" in c_source(plan(long)).source


def test_the_loop_in_the_document_compiles(folders: dict[str, tuple[Program, Path]]) -> None:
    folder = folders["cleared"][1]
    text = (Path(__file__).parents[2] / "docs" / "robot.md").read_text(encoding="utf-8")
    (loop,) = re.findall(r"^```c\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    (folder / "loop.c").write_text(loop)
    for compiler in COMPILERS:
        call(compiler, *STRICT, "-c", "loop.c", cwd=folder)
