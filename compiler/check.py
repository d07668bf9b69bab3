"""Whether a target can hold and express a graph: one rule table, for `inspect` and `compile` alike.

All findings come at once, in the maker's names, each with the value, the limit, the limit's source and a fix. The
verdict follows from them:

    infeasible  at least one error: an exact limit is exceeded, or something cannot be expressed
    unknown     no error, but a limit that is only second-hand is exceeded, or a capability that the graph needs (a kind
                of reset, capacity at all) is not known
    feasible    neither; limits that nobody published are then listed as not checked, and second-hand ones that were
                kept are named by the finding `second-hand-limits`
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from nervecord.compiler import rules_capacity as capacity
from nervecord.compiler import rules_neurons as neurons
from nervecord.compiler import rules_wiring as wiring
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph import Graph
from nervecord.compiler.measured import CODES
from nervecord.compiler.rules import EVERY_LEVEL, FLOAT_LEVELS, INTEGER_LEVEL, Case, Rule
from nervecord.compiler.target import TargetSpec

Verdict: TypeAlias = Literal["feasible", "infeasible", "unknown"]

RULES: tuple[Rule, ...] = (
    # Neurons and what enters them
    Rule(
        "unsupported-node", "error", EVERY_LEVEL,
        "The target has nothing that does what this node does.",
        "Replace the node as the finding says, or choose a target whose table lists its kind.",
        neurons.unsupported_node,
    ),
    Rule(
        "reset-rule", "error", FLOAT_LEVELS,
        "The neuron resets in a way the chip's does not: by subtraction, or not at all.",
        "Train with the chip's reset. snnTorch's default is subtraction, and its NIR export drops it without a word.",
        neurons.reset_rule,
    ),
    Rule(
        "reset-value", "error", FLOAT_LEVELS,
        "The neuron resets to a value other than zero.",
        "Train with a reset value of 0, or shift membrane, threshold and leak by it.",
        neurons.reset_value,
    ),
    Rule(
        "leak", "error", FLOAT_LEVELS,
        "The membrane leaks towards a value other than zero. An info where the neuron's bias can do it.",
        "Set v_leak to 0 and retrain.",
        neurons.leak,
    ),
    Rule(
        "no-decay", "error", FLOAT_LEVELS,
        "The neurons leak, and the chip's only integrate.",
        "Train integrate-and-fire neurons (decay 1).",
        neurons.no_decay,
    ),
    Rule(
        "population-parameters", "error", FLOAT_LEVELS,
        "A parameter differs from neuron to neuron, and the target has one per population.",
        "Thresholds fold into the weights; for decays, train one per layer or split the layer.",
        neurons.population_parameters,
    ),
    Rule(
        "bias", "error", FLOAT_LEVELS,
        "The connection adds a bias, and the chip's neurons have none (or it is not known whether they do).",
        "Train with bias=False.",
        neurons.bias,
    ),
    Rule(
        "bias-channel", "info", FLOAT_LEVELS,
        "The bias enters a synaptic current (the chip's, the membrane): it takes an input or neuron that is always on.",
        "Nothing to do. Train with bias=False to save it.",
        neurons.bias_channel,
    ),
    Rule(
        "graded-input", "error", EVERY_LEVEL,
        "Real values enter the core, and the chip takes binary spikes only. An info where nothing says what enters.",
        "Train with --encoder population, which sends spikes, or choose a target with graded spikes.",
        neurons.graded_input,
    ),
    # Wiring and time
    Rule(
        "free-wiring", "error", FLOAT_LEVELS,
        "Values pass without neurons, or spikes without weights; on the chip, connections and neurons alternate.",
        "Multiply matrices into one, end with a readout (LI), or put an identity Affine before neurons.",
        wiring.free_wiring,
    ),
    Rule(
        "analogue-layer", "error", EVERY_LEVEL,
        "A layer inside the network sends its membrane instead of spikes.",
        "Use spiking neurons inside; non-spiking ones are for the readout.",
        wiring.analogue_layer,
    ),
    Rule(
        "spiking-readout", "error", EVERY_LEVEL,
        "The policy's last layer spikes, and its decoder reads membranes.",
        "End the network with non-spiking neurons, or count the spikes: train with --decoder count.",
        wiring.spiking_readout,
    ),
    Rule(
        "membrane-readout", "error", EVERY_LEVEL,
        "A membrane is read at the output, and the chip gives out spikes only (or it is not known whether it does).",
        "Train with --decoder count, which decodes spike counts, or choose a target that reads membranes.",
        wiring.membrane_readout,
    ),
    Rule(
        "recurrence", "error", EVERY_LEVEL,
        "Connections form a loop. An info where the target takes loops.",
        "Train a feed-forward network, or choose a target that takes recurrence.",
        wiring.recurrence,
    ),
    Rule(
        "not-a-chain", "error", EVERY_LEVEL,
        "The graph branches or joins, and this target's lowering takes one path from one input to one output.",
        "Merge parallel layers into one wider layer.",
        wiring.not_a_chain,
    ),
    Rule(
        "delay-range", "error", FLOAT_LEVELS,
        "A connection's delay is longer than the target's longest.",
        "Train with shorter delays.",
        wiring.delay_range,
    ),
    Rule(
        "carried-without-delays", "error", EVERY_LEVEL,
        "State is carried between actions, each connection of the chip costs steps, and training knew nothing of it.",
        "Train with --state carried --delays, or with --state reset.",
        wiring.carried_without_delays,
    ),
    Rule(
        "reset-with-delays", "error", FLOAT_LEVELS,
        "State is cleared before each action, and a connection with a delay or in a loop still holds something then.",
        "Recurrent: train with --state carried --delays. Feed-forward: train without --delays.",
        wiring.reset_with_delays,
    ),
    Rule(
        "loop-delay", "error", EVERY_LEVEL,
        "A loop becomes longer on the chip, as each of its connections costs steps.",
        "Train with a delay on every connection of the loop.",
        wiring.loop_delay,
    ),
    Rule(
        "unbalanced-paths", "error", EVERY_LEVEL,
        "Signals that met at the same step in training arrive at different ones, as paths have different lengths.",
        "Train with a delay on every connection, or make the paths equally long.",
        wiring.unbalanced_paths,
    ),
    Rule(
        "latency", "info", EVERY_LEVEL,
        "Chip steps per action: the steps T the observation is held, and those its effect takes through the layers.",
        "Nothing to do; fewer layers or a smaller T make it shorter.",
        wiring.latency,
    ),
    Rule(
        "time-step", "warning", EVERY_LEVEL,
        "The file does not say its time step, so nothing that depends on it was checked.",
        "Give --dt.",
        wiring.time_step,
    ),
    Rule(
        "no-contract", "info", EVERY_LEVEL,
        "The graph says nothing about observations, actions and steps: it is no policy.",
        "Inspect and simulate it; compile takes policies.",
        wiring.no_contract,
    ),
    # What fits
    Rule(
        "inputs", "error", EVERY_LEVEL, "More input channels than the chip has.",
        "Drop or combine observations.", capacity.inputs,
    ),
    Rule(
        "outputs", "error", EVERY_LEVEL, "More outputs than the chip has.",
        "Read fewer neurons.", capacity.outputs,
    ),
    Rule(
        "neurons", "error", EVERY_LEVEL, "More neurons than the chip has.",
        "Train narrower layers.", capacity.neurons,
    ),
    Rule(
        "hidden-neurons", "error", EVERY_LEVEL, "More neurons inside the network than the chip has for it.",
        "Train narrower layers.", capacity.hidden_neurons,
    ),
    Rule(
        "synapses", "error", EVERY_LEVEL, "More synapses than the chip has.",
        "Prune weights or train narrower layers.", capacity.synapses,
    ),
    Rule(
        "layers", "error", EVERY_LEVEL, "More layers than the chip has.",
        "Train fewer layers.", capacity.layers,
    ),
    Rule(
        "fan-in", "error", EVERY_LEVEL, "More synapses into one neuron than the chip allows.",
        "Prune its inputs, or insert a layer that sums parts of them.", capacity.fan_in,
    ),
    Rule(
        "fan-out", "error", EVERY_LEVEL, "One neuron or input reaches more neurons than the chip allows.",
        "Prune its outputs, or repeat the neuron.", capacity.fan_out,
    ),
    Rule(
        "core-limit", "error", EVERY_LEVEL,
        "Not even one neuron of this layer fits a core: its sources, targets or synapses exceed axons or memory.",
        "Prune, or sum in two layers.", capacity.core_limit,
    ),
    Rule(
        "cores", "error", EVERY_LEVEL, "More cores than the chip has.",
        "Train narrower layers or prune weights.", capacity.cores,
    ),
    Rule(
        "layer-split", "info", EVERY_LEVEL, "The layer takes more than one core.",
        "Nothing to do.", capacity.layer_split,
    ),
    Rule(
        "memory-unknown", "unknown", EVERY_LEVEL, "How this layer's synapses use a core's memory is not modelled.",
        "Unroll the convolution.", capacity.memory_unknown,
    ),
    Rule(
        "configurations", "error", FLOAT_LEVELS, "More different decays or thresholds than a core's tables hold.",
        "Train fewer of them per layer.", capacity.configurations,
    ),
    Rule(
        "capacity-unknown", "unknown", EVERY_LEVEL, "Nothing public says how many neurons the chip holds.",
        "Ask the vendor, and give the limit with `--set neurons=N`.", capacity.capacity_unknown,
    ),
    # What bits can tell apart
    Rule(
        "weight-resolution", "warning", FLOAT_LEVELS, "Many of a connection's weights become zero in the chip's bits.",
        "Train with weight decay, or clip the largest weights.", capacity.weight_resolution,
    ),
    Rule(
        "decay-resolution", "warning", FLOAT_LEVELS,
        "A decay is more than 10 % off (in its time constant) in the chip's bits.",
        "Train with a decay the chip has, or with another time step.", capacity.decay_resolution,
    ),
    Rule(
        "threshold-range", "error", EVERY_LEVEL, "A threshold is not positive, or larger than the chip's largest.",
        "Train with positive thresholds; let scales be lower.", capacity.threshold_range,
    ),
    Rule(
        "weight-range", "error", INTEGER_LEVEL, "Integer weights leave the chip's range.",
        "Compile again from the float policy for this target.", capacity.weight_range,
    ),
    Rule(
        "graded-range", "error", INTEGER_LEVEL, "The encoder's integers exceed what a graded spike carries.",
        "Lower the encoder's scale.", capacity.graded_range,
    ),
    # Chips that convolve
    Rule(
        "convolution", "error", EVERY_LEVEL, "A convolution or pooling has a size the chip does not.",
        "Use one of the chip's sizes.", capacity.convolution,
    ),
    Rule(
        "convolution-memory", "error", EVERY_LEVEL,
        "No layer of the chip that is left has the memory this one needs.",
        "Train fewer features, smaller kernels, or pool earlier.", capacity.convolution_memory,
    ),
    Rule(
        "second-hand-limits", "info", EVERY_LEVEL, "Limits that were kept, but that are not official.",
        "If you have better numbers, give them with `--set LIMIT=N`.", capacity.second_hand_limits,
    ),
)  # fmt: skip
"""Every rule, in the order findings are reported."""


def check(graph: Graph, spec: TargetSpec) -> list[Finding]:
    """Everything that speaks against, or is worth knowing about, this graph on this target.

    Args:
        graph: any level; arrays must have their nodes' shapes (see `compiler.verify`).
        spec: the target.

    Returns:
        Findings in the order of `RULES`, then of the graph; an empty list where there is nothing to say.
    """
    case = Case.of(graph, spec)
    return [finding for rule in RULES for finding in rule(case)]


def verdict(findings: Sequence[Finding]) -> Verdict:
    """What findings come to; see the module."""
    severities = {finding.severity for finding in findings}
    if "error" in severities:
        return "infeasible"
    return "unknown" if "unknown" in severities else "feasible"


def not_checked(spec: TargetSpec) -> tuple[str, ...]:
    """What no verdict on this target covers: what the spec says so, and the limits without a value."""
    unknown = [name.replace("_", " ") for name, _, fact in spec.facts() if fact.value is None]
    return (*spec.not_checked, *(["not published: " + ", ".join(unknown)] if unknown else []))


def findings_doc() -> str:
    """docs/findings.md: every code, what it means and what to do."""
    lines = [
        "# Findings",
        "",
        "Written from the rule table (`compiler/check.py`); a test keeps it current. `nervecord inspect` and",
        "`nervecord compile` use the same rules. Codes are stable: tools may match on them.",
        "",
        "The verdict on a target is *infeasible* with at least one error, *unknown* with no error but at least one",
        "unknown, else *feasible*. A limit that is exceeded is an error where it is exact, and unknown where it is",
        "only second-hand or sources disagree. A limit nobody published is listed as not checked, never as kept.",
        "",
        "| code | severity | levels | what it means | what to do |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{rule.code}` | {rule.severity} | {', '.join(level.value for level in rule.levels)} "
        f"| {rule.means} | {rule.remedy} |"
        for rule in RULES
    ]
    lines += [f"| `{code}` | warning | integer | {means} | {remedy} |" for code, (means, remedy) in CODES.items()]
    return "\n".join(lines) + "\n"
