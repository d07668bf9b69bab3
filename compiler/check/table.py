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

import dataclasses
from collections.abc import Sequence
from typing import Literal, TypeAlias

from nervecord.compiler.check import capacity, convolving, neurons, wiring
from nervecord.compiler.check.rules import EVERY_LEVEL, FLOAT_LEVELS, INTEGER_LEVEL, Case, Rule
from nervecord.compiler.findings import Finding
from nervecord.compiler.graph.graph import Graph
from nervecord.compiler.graph.policy import Policy
from nervecord.compiler.graph.schedule import Schedule
from nervecord.compiler.ops import Level
from nervecord.compiler.passes.resets import NOTES
from nervecord.compiler.plan.measured import CODES
from nervecord.compiler.target.protocol import TargetSpec

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
        "refractory", "error", FLOAT_LEVELS,
        "The neuron is silent for some steps after a spike, and the chip's neurons are not.",
        "Train without a refractory period.",
        neurons.refractory,
    ),
    Rule(
        "leak", "error", FLOAT_LEVELS,
        "The membrane leaks towards a value other than zero. An info where the neuron's bias can do it.",
        "Set v_leak to 0 and retrain.",
        neurons.leak_term,
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
        "The bias enters a synaptic current (the chip's, the membrane): it takes an input or neuron that is always on. "
        "An error where nothing that feeds the neurons can have one.",
        "Nothing to do. Train with bias=False to save it.",
        neurons.bias_channel,
    ),
    Rule(
        "graded-input", "error", EVERY_LEVEL,
        "Real values enter the core, and the chip takes binary spikes only. An info where nothing says what enters.",
        "Train with --encoder population, which sends spikes, or choose a target with graded spikes.",
        neurons.graded_input,
    ),
    Rule(
        "undeclared-input", "unknown", EVERY_LEVEL,
        "Nothing says whether spikes or values enter. Compiling needs an answer, and refuses without one.",
        "Say what the inputs carry: --inputs spikes, --inputs 4.0 (the limit of values), or a contract.",
        neurons.undeclared_input,
    ),
    Rule(
        "unlimited-input", "error", EVERY_LEVEL,
        "Values enter that may be as large as they like, and the chip takes integers of so many bits.",
        "Give the input a limit at which values are clipped, or normalise them with a clip.",
        neurons.unlimited_input,
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
        "A layer spikes, and the decoder that reads it reads membranes.",
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
        "recurrent-readout", "error", EVERY_LEVEL,
        "Neurons that are read lie on a loop, and the chip's outputs cannot.",
        "Put a layer behind it that is read.",
        wiring.recurrent_readout,
    ),
    Rule(
        "delay-range", "error", FLOAT_LEVELS,
        "A connection's delay, its own or one that balances paths, is longer than the target's longest. An info where "
        "it carries spikes, which further populations pass on.",
        "Train with shorter delays, or with paths that differ by less.",
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
        "loop-delay", "error", FLOAT_LEVELS,
        "A loop has fewer steps of delay than its connections cost on the chip.",
        "Train with a delay on every connection of the loop.",
        wiring.loop_delay,
    ),
    Rule(
        "unbalanced-paths", "info", FLOAT_LEVELS,
        "A connection leads past a longer way. What it carries is delayed, so that things meet as in training.",
        "Nothing to do. Where delays are short of a chip's longest they cost nothing but memory.",
        wiring.unbalanced_paths,
    ),
    Rule(
        "ends-apart", "error", FLOAT_LEVELS,
        "What leaves a stream is the sum of populations of which one leads to the other, so that it is later.",
        "Give each an output of its own.",
        wiring.ends_apart,
    ),
    Rule(
        "latency", "info", EVERY_LEVEL,
        "Chip steps per action: the steps T the observation is held, and those its effect takes through the layers. Of "
        "a graph that is no policy: how many steps later it answers.",
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
        "The graph says nothing about observations and actions: it is no policy. It compiles as a stream.",
        "Nothing to do for a stream. To make it act, give it a contract file.",
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
        "layers-min", "error", EVERY_LEVEL, "Fewer layers of neurons than the chip needs.",
        "Train one more layer.", capacity.layers_min,
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
        "foreign-integers", "error", INTEGER_LEVEL, "The integers are those of another arithmetic than the target's.",
        "Compile for the target whose integers they are, or start from the floats.", capacity.foreign_integers,
    ),
    Rule(
        "weight-range", "error", INTEGER_LEVEL, "Integer weights leave the chip's range.",
        "Compile again from the float policy for this target.", capacity.weight_range,
    ),
    Rule(
        "graded-range", "error", EVERY_LEVEL,
        "Values that enter, or the encoder's integers for them, exceed what the chip's messages carry.",
        "Give a smaller limit or clip.", capacity.graded_range,
    ),
    # What can be proved of integers
    Rule(
        "no-scale", "error", (Level.DISCRETE,),
        "No scale of the integers fits: sums would overflow, or weights, thresholds and biases lie too far apart.",
        "Train with a smaller range of weights, or with weight decay.", capacity.no_scale, last=True,
    ),
    Rule(
        "product-overflow", "error", INTEGER_LEVEL, "A sum of products may exceed the chip's width.",
        "Scale the weights down.", capacity.product_overflow,
    ),
    Rule(
        "accumulator-overflow", "error", INTEGER_LEVEL, "What enters a neuron may exceed the chip's width.",
        "Scale the weights down.", capacity.accumulator_overflow,
    ),
    Rule(
        "current-overflow", "error", INTEGER_LEVEL,
        "A synaptic current may exceed the chip's width. A warning where it saturates, which is exact.",
        "Scale the weights down.", capacity.current_overflow,
    ),
    Rule(
        "membrane-saturates", "error", INTEGER_LEVEL,
        "A membrane may exceed the chip's width. A warning where it saturates, which is exact.",
        "Nothing to do where it saturates; else scale the weights down.", capacity.membrane_saturates,
    ),
    Rule(
        "readout-saturates", "error", INTEGER_LEVEL, "A membrane that is read may reach the chip's largest threshold.",
        "Scale the weights down.", capacity.readout_saturates,
    ),
    # Chips that convolve
    Rule(
        "convolution", "error", EVERY_LEVEL, "A convolution or pooling has a size or setting the chip does not.",
        "Use one of the chip's sizes: square kernels, its strides, windows side by side.", convolving.convolution,
    ),
    Rule(
        "convolution-memory", "error", EVERY_LEVEL,
        "No layer of the chip that is left has the memory this one needs.",
        "Train fewer features, smaller kernels, or pool earlier.", convolving.convolution_memory,
    ),
    Rule(
        "second-hand-limits", "info", EVERY_LEVEL, "Limits that were kept, but that are not official.",
        "If you have better numbers, give them with `--set LIMIT=N`.", capacity.second_hand_limits,
    ),
)  # fmt: skip
"""Every rule, in the order findings are reported."""


UNANSWERED = ("undeclared-input",)
"""Codes of what `inspect` leaves open and compiling must know."""


def findings_of(subject: Graph | Policy, spec: TargetSpec, schedule: Schedule | None = None) -> list[Finding]:
    """Everything that speaks against, or is worth knowing about, this graph or policy on this target.

    Args:
        subject: at any level; arrays must have their ops' shapes (see `compiler.graph.verify`).
        spec: the target.
        schedule: of a graph that is no policy; by default a stream.

    Returns:
        Findings in the order of `RULES`, then of the graph; an empty list where there is nothing to say.
    """
    return case_findings(Case.of(subject, spec, schedule))


def case_findings(case: Case) -> list[Finding]:
    """The same of what is analysed already."""
    findings: list[Finding] = []
    for rule in sorted(RULES, key=lambda rule: rule.last):
        if not (rule.last and any(finding.severity == "error" or finding.code in UNANSWERED for finding in findings)):
            findings += rule(case)
    return findings + _grown(case, findings)


def _grown(case: Case, findings: Sequence[Finding]) -> list[Finding]:
    """What speaks against the integers of a float graph that is allowed, where they take more than the floats: relays
    of waits beyond the longest delay, and second slices of weights."""
    if case.graph.level is not Level.DISCRETE or any(f.severity == "error" or f.code in UNANSWERED for f in findings):
        return []
    lowered = case.lowered
    if not isinstance(lowered, (Graph, Policy)):
        return []
    inner = Case.of(lowered, case.spec, case.schedule)
    if len(inner.topology.wires) <= len(case.topology.wires):
        return []
    codes = {finding.code for finding in findings if finding.severity == "unknown"}
    more = [f for f in case_findings(inner) if f.severity in ("error", "unknown") and f.code not in codes]
    if case.slices and case.calibration is None:
        # Recorded input, which compiling may be given, says how many weights are to have a second slice.
        words = "with a second slice of all weights that have room for one it "
        fix = "give compile recorded input (--calibration): with it fewer weights have a second slice"
        more = [
            dataclasses.replace(finding, severity="unknown", message=words + finding.message, fix=fix)
            for finding in more
        ]  # fmt: skip
    return more


def errors(subject: Graph | Policy, spec: TargetSpec, schedule: Schedule | None = None) -> list[Finding]:
    """What of `findings_of` forbids lowering, which then finds out by itself whether there are scales."""
    case = Case.of(subject, spec, schedule)
    findings = [finding for rule in RULES if not rule.last for finding in rule(case)]
    return [
        dataclasses.replace(finding, severity="error")
        for finding in findings
        if finding.severity == "error" or finding.code in UNANSWERED
    ]


def verdict(findings: Sequence[Finding]) -> Verdict:
    """What findings come to; see the module."""
    severities = {finding.severity for finding in findings}
    if "error" in severities:
        return "infeasible"
    return "unknown" if "unknown" in severities else "feasible"


def not_checked(spec: TargetSpec) -> tuple[str, ...]:
    """What no verdict on this target covers: what the spec says so, and the limits without a value."""
    unknown = [name.replace("_", " ") for name, _, fact in spec.facts() if fact.value is None]
    why = f"not stated in {spec.file}" if spec.file else "not published"
    return (*spec.not_checked, *([f"{why}: {', '.join(unknown)}"] if unknown else []))


def findings_doc() -> str:
    """docs/findings.md: every code, what it means and what to do."""
    lines = [
        "# Findings",
        "",
        "Written from the rule table (`compiler/check/table.py`); a test keeps it current. `nervecord inspect` and",
        "`nervecord compile` use the same rules. Codes are stable: tools may match on them.",
        "",
        "The verdict on a target is *infeasible* with at least one error, *unknown* with no error but at least one",
        "unknown, else *feasible*. A limit that is exceeded is an error where it is exact, and unknown where it is",
        "only second-hand or sources disagree. A limit nobody published is listed as not checked, never as kept.",
        "",
        "Compiling adds warnings of what the integers did on the recorded observations: the last ones of this table.",
        "",
        "| code | severity | levels | what it means | what to do |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{rule.code}` | {rule.severity} | {', '.join(level.value for level in rule.levels)} "
        f"| {rule.means} | {rule.remedy} |"
        for rule in RULES
    ]
    lines += [
        f"| `{code}` | warning | imported, discrete | {means} | {remedy} |" for code, (means, remedy) in NOTES.items()
    ]
    lines += [f"| `{code}` | warning | integer | {means} | {remedy} |" for code, (means, remedy) in CODES.items()]
    return "\n".join(lines) + "\n"
