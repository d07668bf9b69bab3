"""A policy as hardware: the integer core of a plan, described in Amaranth, simulated in the loop, placed by open tools.

`layout` collects what of a plan becomes hardware, `microcode` turns it into memories and instructions, `datapath` reads
the bodies of populations as signals, `core` executes the instructions, `serial` is the board's interface to a host.
"""
