"""A network that maps an observation to an action becomes a policy of one step per action."""

from __future__ import annotations

import numpy as np

from nervecord.compiler.graph.contract import Contract
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.verify import require
from nervecord.compiler.ops import ArgmaxDecode, Decode, Op, Output
from nervecord.errors import ContractError

LARGEST = float(np.finfo(np.float32).max)
"""Stands for a limit that an action does not have."""


def act(graph: Graph, contract: Contract, *, where: str = "graph") -> Policy:
    """The policy of a network without time.

    Before:  observation -> normalise -> fc1 -> tanh1 -> fc2 -> action
    After:   observation -> normalise -> fc1 -> tanh1 -> fc2 -> decode -> action

    `decode` clips to the contract's limits, as an environment or its wrapper does, or takes the largest where the
    action is a choice. A decoder that the network has already is kept within the limits too.

    Args:
        graph: DISCRETE, of one Input and one Output, without state.
        contract: with one step per action. Its control period becomes dt.
        where: what errors name.

    Raises:
        ContractError: sizes of network and contract do not match; the message names both.
        GraphError: it is no legal policy.
    """
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise ContractError(
            f"has {len(graph.inputs)} Inputs and {len(graph.outputs)} Outputs, one of each is needed", where=where
        )
    (entrance,), (end,) = graph.inputs, graph.outputs
    (source,) = graph.sources(end)
    last, size = graph.nodes[source], graph.nodes[entrance].size
    if size != contract.observation.size:
        raise ContractError(
            f"takes {size} observations, and {contract.environment} gives {contract.observation.size}", where=where
        )
    outputs_needed = len(contract.choices) or contract.action.size
    outputs = last.choices if isinstance(last, ArgmaxDecode) else last.size
    if outputs != outputs_needed or (isinstance(last, ArgmaxDecode) and not contract.choices):
        kind = "chooses among" if isinstance(last, ArgmaxDecode) else "gives"
        takes = f"lets choose among {outputs_needed}" if contract.choices else f"takes {outputs_needed} values"
        raise ContractError(f"{kind} {outputs}, and {contract.environment} {takes}", where=where)
    nodes, edges = dict(graph.nodes), list(graph.edges)
    if not isinstance(last, ArgmaxDecode):
        decode, has_decoder = _decoder(last, contract, where)
        name = source if has_decoder else "decode"
        nodes = {key: op for key, op in nodes.items() if key != end} | {name: decode, end: Output(decode.out_shape)}
        if not has_decoder:
            edges = [edge for edge in edges if edge != (source, end)] + [(source, name), (name, end)]
    network = graph.replace(nodes=nodes, edges=tuple(edges), dt=contract.control_period)
    return require(Policy(network, contract))


def _decoder(last: Op, contract: Contract, where: str) -> tuple[Op, bool]:
    """The decoder of a network's last node, and whether it takes that node's place."""
    has_decoder = isinstance(last, Decode)
    if contract.choices:
        if has_decoder:
            raise ContractError("limits its outputs, which are to be chosen by", where=where)
        return ArgmaxDecode(last.size), False
    size = contract.action.size
    low = np.array(contract.action.low or (-LARGEST,) * size)
    high = np.array(contract.action.high or (LARGEST,) * size)
    if isinstance(last, Decode):
        return last.replace(low=np.clip(last.low, low, high), high=np.clip(last.high, low, high)), True
    return Decode(np.ones(size), np.zeros(size), low, high), False
