"""Whether a target can hold and express a graph, where it would sit on the chip, and what that would cost.

`table` is the one table of rules, for inspecting and compiling alike; the rules stand in `neurons`, `wiring`,
`capacity` and `convolving`. They look at a graph's structure (`compiler.plan.topology`), at when things arrive on the
target (`compiler.plan.timing`) and at which cores hold what (`placement`). `cost` counts events and estimates energy.
"""
