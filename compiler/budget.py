"""One budget for what a graph asks for: values and operations, counted from its shapes before anything is laid out.

A file of a few bytes can say shapes of terabytes, and each op says what it would take of them (`Op.laid_out`,
`Op.operations`). `graph.sizes` belongs to verification, so that every verb keeps to it; `plan.work` to the plan, which
everything that runs is made of.
"""

MOST_VALUES = 1 << 24
"""No op takes or gives more values."""
MOST_HELD = 1 << 26
"""Values of all ops together, of all delays, of the steps of an action, and of what one op lays out: half a gigabyte
each."""
MOST_OPERATIONS = 1 << 36
"""Operations of one block, a policy's action or a block of a stream: half a minute of a processor's matrix products."""
LAYING = 8
"""Operations that laying a value out takes as long as: it is written and read where nothing is near."""
MOST_KEPT = 1 << 27
"""Values that all ops give in all steps of what is run and kept: a gigabyte."""
MOST_RELAYS = 1 << 10
"""Populations that pass spikes on, where a chip's delays are too short; compiling so many takes some ten seconds."""
LARGEST = 1 << 62
"""A larger number is said as this one."""
