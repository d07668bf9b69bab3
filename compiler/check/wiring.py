"""Rules about wiring and time: paths, loops, delays, the block of steps of an action."""

from __future__ import annotations

from collections.abc import Iterator

from nervecord.compiler.budget import MOST_RELAYS
from nervecord.compiler.check.rules import GRAPH, Case, Hit, breaking, cited
from nervecord.compiler.keys import UNLIMITED
from nervecord.compiler.lower.refusals import CARRIED_WITHOUT_DELAYS, DELAYED_IN_A_WINDOW, RECURRENT_IN_A_WINDOW
from nervecord.compiler.lower.relay import TOO_LONG
from nervecord.compiler.ops import Decoder, Level, Rescale, is_core
from nervecord.compiler.plan.timing import Wait


def free_wiring(case: Case) -> Iterator[Hit]:
    if not case.separates:
        return
    fact = case.spec.behaviour.free_wiring
    for wire in case.topology.wires:
        for name in wire.destinations:
            op = case.graph.nodes[name]
            weighted = type(op).ROLE == "connection"
            if weighted or not is_core(op):
                fix = "end with a readout, LI, which with decay 0 passes values on"
                if weighted:
                    fix = "multiply the two matrices into one, or put spiking neurons between them"
                yield Hit(
                    case.named(wire.name),
                    f"feeds {case.named(name)} with no neurons between",
                    None,
                    None,
                    fix,
                    cited(fact),
                    breaking(fact),
                )
    senders = {*case.topology.entries, *case.topology.populations}
    for name in case.topology.populations:
        for source in case.graph.sources(name):
            if source in senders:
                yield Hit(
                    case.named(name),
                    f"is fed by {case.named(source)} with no weights between",
                    None,
                    None,
                    "put an Affine with an identity matrix between them",
                    cited(fact),
                    breaking(fact),
                )


def analogue_layer(case: Case) -> Iterator[Hit]:
    if not case.separates:
        return
    for name, op in case.topology.populations.items():
        following = case.topology.out_of(name)
        if following and not op.sending:
            yield Hit(
                case.named(name),
                f"sends its membrane, not spikes, to {case.named(following[0].name)}",
                None,
                None,
                "use a spiking neuron inside the network; non-spiking ones are for the readout",
                cited(case.spec.behaviour.free_wiring),
            )


def spiking_readout(case: Case) -> Iterator[Hit]:
    if not case.integers or not case.separates:
        return
    fact = case.spec.behaviour.free_wiring
    populations = case.topology.populations
    for end, op in case.graph.nodes.items():
        spiking = [name for name in case.graph.sources(end) if name in populations and populations[name].spikes]
        reads = isinstance(op, Decoder) and type(op).READS == "last" and not isinstance(op, Rescale)
        if spiking and reads:
            yield Hit(
                case.named(spiking[0]),
                f"spikes, and {case.named(end)} ({op.kind}) reads a membrane",
                None,
                None,
                "end the network with neurons that do not spike (LI), or train with --decoder count",
                cited(fact),
            )


def membrane_readout(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.readout
    if fact.value:
        return
    for name in case.topology.readouts:
        op = case.topology.populations[name]
        if not op.spikes and op.kind in case.spec.kinds(case.graph.level):
            reason = "the chip gives out spikes only" if fact.known else "nothing public says whether that can be read"
            yield Hit(
                case.named(name),
                f"its membrane is an output, and {reason}",
                None,
                None,
                "end with spiking neurons and decode their counts on the host: train with --decoder count",
                cited(fact),
                "unknown" if fact.value is None else breaking(fact),
            )


# --------------------------------------------------------------------------------------------------------------------
# Loops


def recurrence(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.recurrence
    loops = [case.named(wire.name) for wire in case.topology.wires if wire.recurrent]
    if not loops:
        return
    node = loops[0]
    message = "is recurrent" if len(loops) == 1 else "closes a loop: " + ", ".join(loops)
    if fact.value:
        yield Hit(node, message, source=cited(fact), severity="info")
    else:
        yield Hit(
            node,
            message + (", and the chip takes no loops" if fact.known else ", and nothing says that it can be"),
            None,
            None,
            "train a feed-forward network, or choose a target that takes recurrence",
            cited(fact),
            "unknown" if fact.value is None else breaking(fact),
        )


def recurrent_readout(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.recurrent_readout
    if fact.value is not False:
        return
    for name in case.topology.readouts:
        if case.topology.component[name] in case.topology.cyclic:
            yield Hit(
                case.named(name),
                "is read and lies on a loop, and the chip's outputs hear no neurons of theirs",
                None,
                None,
                "put a layer behind it that is read",
                cited(fact),
                breaking(fact),
            )


def loop_delay(case: Case) -> Iterator[Hit]:
    fact = case.spec.limits.connection_delay
    for loop in case.lateness.loops:
        names = [case.named(name) for name in loop.wires]
        yield Hit(names[0], loop.message(names), loop.delay, loop.least, loop.fix, cited(fact), breaking(fact))


def reset_with_delays(case: Case) -> Iterator[Hit]:
    fact = case.spec.behaviour.clears_buffers
    if not case.schedule.resets or fact.value or case.graph.level is Level.INTEGER:
        return
    for wire in case.topology.wires:
        if wire.recurrent or wire.delay:
            refusal = RECURRENT_IN_A_WINDOW if wire.recurrent else DELAYED_IN_A_WINDOW
            yield Hit(
                case.named(wire.name),
                refusal.message,
                max(wire.delay, 1),
                0,
                refusal.fix,
                cited(fact),
                "unknown" if fact.value is None else breaking(fact),
            )


# --------------------------------------------------------------------------------------------------------------------
# Delays


def carried_without_delays(case: Case) -> Iterator[Hit]:
    fact = case.spec.limits.connection_delay
    late = case.lateness
    if not case.carried or late.loops or not any(late.late[name] for name in case.topology.populations):
        return
    for wire in case.topology.wires:
        own = late.own[wire.name]
        if own < case.connection_delay:
            yield Hit(
                case.named(wire.name),
                CARRIED_WITHOUT_DELAYS.message,
                own,
                case.connection_delay,
                CARRIED_WITHOUT_DELAYS.fix,
                cited(fact),
                breaking(fact),
            )


def _waiting(case: Case) -> Iterator[Wait]:
    """What must wait for what; nothing can where a loop is too short."""
    return case.lateness.waiting(case.topology.wires) if not case.lateness.loops else iter(())


def unbalanced_paths(case: Case) -> Iterator[Hit]:
    fact = case.spec.limits.connection_delay
    for wait in _waiting(case):
        if wait.waits > 0:
            yield Hit(
                case.named(wait.wire.name),
                "leads past a longer way, and what it carries is delayed until that has arrived",
                wait.waits,
                None,
                "nothing to do: the same things meet as in training; equally long paths cost no delays",
                cited(fact),
            )


def ends_apart(case: Case) -> Iterator[Hit]:
    fact = case.spec.limits.connection_delay
    for end in case.lateness.apart:
        yield Hit(
            case.named(end.name),
            end.message(case.named(end.early), case.named(end.latest)),
            end.steps[1],
            end.steps[0],
            end.fix,
            cited(fact),
            breaking(fact),
        )


def _relays(case: Case) -> bool:
    """Whether the target is lowered to, and its neurons can pass spikes on."""
    return case.compiles and "value" in (case.spec.behaviour.resets.value or ())


def delay_range(case: Case) -> Iterator[Hit]:
    fact = case.spec.limits.delay_max
    longest = fact.value
    if longest is None or longest == UNLIMITED:
        return
    total = 0
    for wait in _waiting(case):
        if wait.delay <= longest:
            continue
        wire, most = wait.wire, int(longest)
        values = [name for name in wire.sources if not case.graph.nodes[name].spikes]
        hops = -(-wait.delay // max(most, 1))
        relays = hops - 1
        total += relays
        # A relay is a neuron that forgets: it takes a reset to zero, and each of its connections costs steps.
        relayed = not values and most and _relays(case) and wait.delay // hops >= case.connection_delay
        if relayed and total <= MOST_RELAYS:
            yield Hit(
                case.named(wire.name),
                f"{TOO_LONG}: its spikes pass "
                + ("a further population" if relays == 1 else f"{relays} further populations"),
                wait.delay,
                most,
                "nothing to do; shorter delays cost no neurons",
                cited(fact),
                "info",
            )
        else:
            why = f", and {case.named(values[0])} sends values, which no neuron passes on" if values else ""
            if relayed:
                why = f", and at most {MOST_RELAYS} populations pass spikes on"
            yield Hit(
                case.named(wire.name),
                f"{TOO_LONG}{why}",
                wait.delay,
                most,
                f"train with delays of at most {most}, or paths that differ by less",
                cited(fact),
                breaking(fact),
            )


def latency(case: Case) -> Iterator[Hit]:
    fact = case.spec.limits.connection_delay
    if not case.connection_delay:
        return
    late = case.lateness.latency(case.topology)
    steps = case.schedule.steps
    if case.schedule.resets:
        unit = "action" if case.contract is not None else "block"
        yield Hit(
            GRAPH,
            f"takes {steps + late} chip steps per {unit}: T = {steps}, and {late} until the last layer has seen all of "
            "them",
            steps + late,
            source=cited(fact),
        )
    elif case.contract is not None:
        yield Hit(GRAPH, f"takes {steps} chip steps per action", steps, source=cited(fact))
    elif late:
        unit = "step" if late == 1 else "steps"
        yield Hit(GRAPH, f"answers {late} {unit} later than the graph says", late, source=cited(fact))


def time_step(case: Case) -> Iterator[Hit]:
    if case.graph.dt is None and case.graph.level is Level.IMPORTED and case.spec.limits.decay_bits.value != UNLIMITED:
        yield Hit(
            GRAPH,
            "the file does not say its time step, so decays per step cannot be checked",
            None,
            None,
            "give --dt with the step its maker simulated with (1e-4 and 1e-3 s are common)",
        )


def no_contract(case: Case) -> Iterator[Hit]:
    if case.contract is None and case.compiles:
        yield Hit(
            GRAPH,
            "is no policy: it compiles as a stream, which takes and gives values or spikes step by step",
            None,
            None,
            "to make it act in an environment, give it a contract: --contract contract.toml "
            "(`nervecord contract --env ENV` writes one to start from)",
        )
