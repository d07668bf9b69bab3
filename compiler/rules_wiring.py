"""Rules about wiring and time: paths, loops, delays, the window of steps of an action."""

from __future__ import annotations

from collections.abc import Iterator

from nervecord.compiler import nodes as n
from nervecord.compiler.graph import Level
from nervecord.compiler.rules import GRAPH, Case, Hit, broken, cited, spikes
from nervecord.compiler.target import UNLIMITED
from nervecord.compiler.topology import is_chain, is_core, is_weighted, lag


def free_wiring(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.free_wiring
    if fact.value is not False:
        return
    for connection in case.topology.connections:
        for name in connection.destinations:
            node = case.graph.nodes[name]
            if is_weighted(node) or not is_core(node):
                fix = "end with a readout, LI, which with decay 0 passes values on"
                if is_weighted(node):
                    fix = "multiply the two matrices into one, or put spiking neurons between them"
                yield Hit(
                    case.named(connection.name), f"feeds {case.named(name)} with no neurons between",
                    None, None, fix, cited(fact), broken(fact),
                )  # fmt: skip
    entries = case.topology.entries
    for name, _ in case.populations():
        for source in case.graph.sources(name):
            if source in case.topology.populations or source in entries:
                yield Hit(
                    case.named(name), f"is fed by {case.named(source)} with no weights between", None, None,
                    "put an Affine with an identity matrix between them", cited(fact), broken(fact),
                )  # fmt: skip


def analogue_layer(case: Case) -> Iterator[Hit]:
    if case.spec.behaviour.free_wiring.value is not False:
        return
    for name, node in case.populations():
        following = case.topology.out_of(name)
        if following and not spikes(node):
            yield Hit(
                case.named(name), f"sends its membrane, not spikes, to {case.named(following[0].name)}", None, None,
                "use a spiking neuron inside the network; non-spiking ones are for the readout",
                cited(case.spec.behaviour.free_wiring),
            )  # fmt: skip


def spiking_readout(case: Case) -> Iterator[Hit]:
    if case.graph.contract is None or case.spec.behaviour.free_wiring.value is not False or not case.spec.engines:
        return
    if any(case.graph.of_type(*n.COUNTING)):
        return
    for name in case.topology.readouts:
        if spikes(case.topology.populations[name]):
            yield Hit(
                case.named(name), "the last layer spikes, and its decoder reads membranes", None, None,
                "end the network with neurons that do not spike (LI), or train with --decoder count",
                "compiler/layers.py",
            )  # fmt: skip


def membrane_readout(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.readout
    if fact.value:
        return
    for name in case.topology.readouts:
        node = case.topology.populations[name]
        if not spikes(node) and node.kind in case.spec.kinds(case.graph.level):
            known = "the chip gives out spikes only" if fact.known else "nothing public says whether that can be read"
            yield Hit(
                case.named(name), f"its membrane is an output, and {known}", None, None,
                "end with spiking neurons and decode their counts on the host: train with --decoder count", cited(fact),
                "unknown" if fact.value is None else broken(fact),
            )  # fmt: skip


def recurrence(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.recurrence
    loops = [case.named(c.name) for c in case.topology.connections if c.recurrent]
    if not loops:
        return
    node = loops[0]
    message = "is recurrent" if len(loops) == 1 else "closes a loop: " + ", ".join(loops)
    if fact.value:
        delay = case.spec.limits.connection_delay.value
        steps = "" if not delay else f"; spikes come back {delay} step later, as in a discrete graph with delay {delay}"
        yield Hit(node, message + steps, source=cited(fact), severity="info")
    else:
        yield Hit(
            node, message + (", and the chip takes no loops" if fact.known else ", and nothing says that it can be"),
            None, None, "train a feed-forward network, or choose a target that takes recurrence",
            cited(fact), "unknown" if fact.value is None else broken(fact),
        )  # fmt: skip


def not_a_chain(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.topology
    recurrent = any(c.recurrent for c in case.topology.connections)
    if fact.value != "chain" or recurrent or is_chain(case.graph):
        return
    name = next(x for x in case.graph.nodes if max(len(case.graph.sources(x)), len(case.graph.destinations(x))) > 1)
    ways = max(len(case.graph.sources(name)), len(case.graph.destinations(name)))
    yield Hit(
        case.named(name), "branches, and only one path from one input to one output is lowered", ways, 1,
        "merge parallel layers into one wider layer (block-diagonal weights)", cited(fact), broken(fact),
    )  # fmt: skip


def delay_range(case: Case) -> Iterator[Hit]:
    fact = case.spec.limits.delay_max
    for connection in case.topology.connections:
        steps = int(getattr(connection.node, "delay", 0))
        if fact.value is not None and steps > fact.value:
            yield Hit(
                case.named(connection.name), "its delay is longer than the chip's longest", steps, int(fact.value),
                f"train with delays of at most {int(fact.value)}, or relay spikes through further layers",
                cited(fact), broken(fact),
            )  # fmt: skip


def carried_without_delays(case: Case) -> Iterator[Hit]:
    fact = case.spec.limits.connection_delay
    if not case.carried:
        return
    for connection in case.topology.connections:
        late = lag(connection, case.connection_delay, case.graph.level)
        if late:
            own = int(getattr(connection.node, "delay", 0))
            yield Hit(
                case.named(connection.name),
                "state is carried between actions, and the chip delivers later than the network was trained",
                own, int(case.connection_delay),
                "train with --state carried --delays, or with --state reset, where shifted windows absorb the delay",
                cited(fact), broken(fact),
            )  # fmt: skip


def reset_with_delays(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.clears_buffers
    if not case.windowed or fact.value:
        return
    for connection in case.topology.connections:
        delayed = int(getattr(connection.node, "delay", 0))
        if connection.recurrent or delayed:
            what = "is recurrent" if connection.recurrent else "has a delay"
            yield Hit(
                case.named(connection.name),
                f"state is cleared before each action, and this connection {what}: what it still holds would leak in",
                max(delayed, 1), 0,
                "train with --state carried --delays" if connection.recurrent
                else "train without --delays: shifted windows absorb the chip's delay exactly",
                cited(fact), "unknown" if fact.value is None else broken(fact),
            )  # fmt: skip


def loop_delay(case: Case) -> Iterator[Hit]:
    fact = case.spec.limits.connection_delay
    for connection in case.topology.connections:
        if connection.recurrent and lag(connection, case.connection_delay, case.graph.level):
            yield Hit(
                case.named(connection.name), "lies on a loop, which the chip makes longer than the network was trained",
                int(getattr(connection.node, "delay", 0)), int(case.connection_delay),
                "train with a delay on every connection of the loop", cited(fact), broken(fact),
            )  # fmt: skip


def unbalanced_paths(case: Case) -> Iterator[Hit]:
    fact = case.spec.limits.connection_delay
    late: dict[str, set[int]] = {name: {0} for name in case.topology.entries}
    for _ in range(len(case.topology.populations) + 1):
        for connection in case.topology.connections:
            if connection.recurrent:
                continue
            step = lag(connection, case.connection_delay, case.graph.level)
            arriving = {steps + step for source in connection.sources for steps in late.get(source, set())}
            for name in connection.destinations:
                late[name] = late.get(name, set()) | arriving
    for name, _ in case.populations():
        steps = late.get(name, set())
        if len(steps) > 1:
            yield Hit(
                case.named(name),
                "is reached over paths of different length, which the chip's delays set apart in time",
                max(steps) - min(steps), 0,
                "train with a delay on every connection, or put layers into the shorter path",
                cited(fact), broken(fact),
            )  # fmt: skip


def latency(case: Case) -> Iterator[Hit]:
    contract = case.graph.contract
    fact = case.spec.limits.connection_delay
    if contract is None or not case.connection_delay:
        return
    extra = case.topology.depth * int(case.connection_delay)
    if case.carried or case.graph.level is Level.INTEGER:
        yield Hit(
            GRAPH, f"takes {contract.window} chip steps per action", contract.window, source=cited(fact),
        )  # fmt: skip
    else:
        yield Hit(
            GRAPH,
            f"takes {contract.steps + extra} chip steps per action: T = {contract.steps}, and {extra} until the last "
            "layer has seen all of them",
            contract.steps + extra, source=cited(fact),
        )  # fmt: skip


def time_step(case: Case) -> Iterator[Hit]:
    if case.graph.dt is None and case.graph.level is Level.IMPORTED and case.spec.limits.decay_bits.value != UNLIMITED:
        yield Hit(
            GRAPH, "the file does not say its time step, so decays per step cannot be checked", None, None,
            "give --dt with the step its maker simulated with (1e-4 and 1e-3 s are common)",
        )  # fmt: skip


def no_contract(case: Case) -> Iterator[Hit]:
    if case.graph.contract is None and case.spec.engines:
        yield Hit(
            GRAPH, "is no policy: it can be inspected and simulated, not compiled", None, None,
            "compile a policy that `nervecord train` wrote; its file holds normaliser, steps and decoder",
        )  # fmt: skip
