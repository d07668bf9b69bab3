"""A network of another maker becomes a policy: host ops around it, as a contract file asks."""

from __future__ import annotations

import itertools

import numpy as np

from nervecord.compiler.files.contractfile import ContractFile
from nervecord.compiler.graph.graph import Edge, Graph
from nervecord.compiler.graph.names import Names
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.verify import require
from nervecord.compiler.ops import ArgmaxDecode, Array, Decode, Decoder, Input, Level, Normalise, Op, Output, is_host
from nervecord.errors import ContractError, GraphError


def attach(graph: Graph, file: ContractFile, recorded: Array | None = None) -> Policy:
    """The policy of a network and a contract file.

    Before:  input -> fc1 -> lif1 -> output
    After:   input -> normalise -> encode -> fc1 -> lif1 -> decode -> output

    The network itself stays as it is, also where it normalises what enters, limits what leaves or chooses, as networks
    of ONNX files do: then those ops do, and the file says nothing of it. Several Inputs share the observation in the
    graph's order, several Outputs join to the action; each gets host ops of its own.

    Args:
        graph: DISCRETE, without host ops but such at its ends. file: the contract file.
        recorded: (k, observations) raw observations.

    Raises:
        GraphError: the graph is not DISCRETE, or is a policy already.
        ContractError: sizes of graph and contract do not match; the message names both.
    """
    if graph.level is not Level.DISCRETE:
        raise GraphError(
            f"is {graph.level.value}, a contract needs a discrete graph",
            where="graph",
            hint="give its time step: --dt 1e-4" if graph.level is Level.IMPORTED else None,
        )
    hosts = [name for name, op in graph.nodes.items() if is_host(op) and not _at_an_end(graph, name)]
    if hosts:
        raise GraphError(
            f"is a policy already: it has {', '.join(hosts[:5])}", where="graph", hint="leave --contract out"
        )
    require(graph)
    names = Names(graph.nodes)
    nodes: dict[str, Op] = {}
    entrances, exits = _inputs(graph, file, names), _outputs(graph, file, names)
    for name, op in graph.nodes.items():
        if name in entrances:
            nodes |= entrances[name]
        elif name in exits:
            nodes |= exits[name]
        else:
            nodes[name] = op
    edges: list[Edge] = []
    for chained in (*entrances.values(), *exits.values()):
        edges += _pairs(chained)
    last = {name: next(reversed(chained)) for name, chained in entrances.items()}
    first = {name: next(iter(chained)) for name, chained in exits.items()}
    edges += [(last.get(a, a), first.get(b, b)) for a, b in graph.edges]
    if recorded is not None and (recorded.ndim != 2 or recorded.shape[1] != file.contract.observation.size):
        raise ContractError(
            f"recorded observations have shape {recorded.shape}, (k, {file.contract.observation.size}) is needed",
            where=file.where,
        )
    return require(Policy(graph.replace(nodes=nodes, edges=tuple(edges)), file.contract, recorded))


def _at_an_end(graph: Graph, name: str) -> bool:
    """Whether it is a normaliser that an Input feeds, or what limits or chooses before an Output."""
    match graph.nodes[name]:
        case Normalise():
            return all(isinstance(graph.nodes[a], Input) for a in graph.sources(name))
        case Decode() | ArgmaxDecode():
            return all(isinstance(graph.nodes[b], Output) for b in graph.destinations(name))
    return False


def _pairs(chained: dict[str, Op]) -> list[Edge]:
    names = list(chained)
    return list(itertools.pairwise(names))


def _row(op: Op, name: str, file: ContractFile) -> int:
    if len(op.in_shape) != 1:
        raise file.wrong(
            f"the network's {name} has shape {op.in_shape}, and a policy's values are one row",
            "observation" if isinstance(op, Input) else "action",
        )
    return op.size


def _inputs(graph: Graph, file: ContractFile, names: Names) -> dict[str, dict[str, Op]]:
    """Input -> itself and what comes behind it."""
    per, total = file.neurons_per_channel, 0
    ends: dict[str, dict[str, Op]] = {}
    for name, op in graph.of_type(Input):
        size = _row(op, name, file)
        if size % per:
            raise file.wrong(f"makes {per} values of a channel, and the network's {name} takes {size}", "encoder")
        part = slice(total, total + size // per)
        total = part.stop
        ends[name] = {name: op.replace(shape=(size // per,), **file.input_fields)}
        if total <= file.contract.observation.size:
            before = file.before(part)
            normalises = any(isinstance(graph.nodes[b], Normalise) for b in graph.destinations(name))
            if normalises and (before or file.input_fields.get("limit") is not None):
                table = "normaliser" if before else "encoder"
                raise file.wrong(f"the network normalises its {name} itself", table, "leave the table out, or its clip")
            ends[name] |= {names.fresh(label): step_op for label, step_op in before}
    if total != file.contract.observation.size:
        raise file.wrong(
            f"names {file.contract.observation.size} channels, and the network takes {total}"
            + (f" ({total * per} values, {per} of a channel)" if per > 1 else ""),
            "observation",
        )
    return ends


def _outputs(graph: Graph, file: ContractFile, names: Names) -> dict[str, dict[str, Op]]:
    """Output -> what comes before it and itself."""
    if file.contract.choices and len(graph.outputs) > 1:
        raise file.wrong(f"is a choice, and the network has {len(graph.outputs)} Outputs", "action")
    ends: dict[str, dict[str, Op]] = {}
    total = 0
    for name, op in graph.of_type(Output):
        size = _row(op, name, file)
        (source, *more) = graph.sources(name)
        limiting = [a for a in (source, *more) if isinstance(graph.nodes[a], (Decode, ArgmaxDecode))]
        if limiting and (more or len(graph.destinations(limiting[0])) > 1):
            raise file.wrong(
                f"the network limits values in {limiting[0]}, and that and the Output {name} do not belong to each "
                "other alone",
                "decoder",
            )
        spiking = {graph.nodes[a].spikes for a in (source, *more)}
        if len(spiking) > 1:
            raise file.wrong(f"the Output {name} takes spikes and values at once", "decoder")
        (spikes,) = spiking
        limits = graph.nodes[source]
        if isinstance(limits, (Decode, ArgmaxDecode)):
            size = limits.width if isinstance(limits, ArgmaxDecode) else size
        part = slice(total, total + file.actions_of(size, spikes=spikes, name=name))
        total = part.stop
        if total > file.contract.action.size:
            continue  # said below, with the sum of all Outputs
        decode = file.after(part, size, spikes=spikes)
        end = graph.nodes[name].replace(shape=(part.stop - part.start,))
        if isinstance(limits, (Decode, ArgmaxDecode)):
            # The network's own takes its place.
            ends[name] = {name: end}
            ends[source] = {source: _narrowed(limits, decode, file)}
        else:
            ends[name] = {names.fresh("decode"): decode, name: end}
    if total != file.contract.action.size:
        raise file.wrong(f"names {file.contract.action.size} values, and the network gives {total}", "action")
    return ends


def _narrowed(own: Decode | ArgmaxDecode, decoder: Decoder, file: ContractFile) -> Op:
    """What a network does at its end, within the limits that the contract asks for."""
    if isinstance(own, ArgmaxDecode):
        if not isinstance(decoder, ArgmaxDecode):
            raise file.wrong("is values, and the network chooses", "action")
        return own
    if not isinstance(decoder, Decode):
        raise file.wrong("is a choice, and the network limits values", "action")
    if (decoder.scale != 1).any() or (decoder.offset != 0).any():
        raise file.wrong("scales what the network limits already", "decoder", "leave scale and offset out")
    return own.replace(
        low=np.clip(own.low, decoder.low, decoder.high), high=np.clip(own.high, decoder.low, decoder.high)
    )
