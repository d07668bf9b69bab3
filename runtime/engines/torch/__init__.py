"""Engine `torch`: any plan, floats or integers, for thousands of copies side by side, on the processor or a CUDA card.

It is no target. Every target whose programs the ops' own steps define opens it, and targets do not know each other.
`door.py` opens sessions and imports torch only then; `kernels.py` has an op's step in torch, `integers.py` a chip's
arithmetic, `host.py` what stands around the core, `machine.py` the plan with its state, `session.py` what users hold,
`agreement.py` the comparison with the definition, layer by layer.
"""
