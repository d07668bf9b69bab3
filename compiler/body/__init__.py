"""What an op computes, as data: a body of equations, written once by the op, traced once, and read by every engine.

`expression` has the traced graph and its operations, `trace` makes one of an op's equations, `fold` leaves out what
changes no bit. A reading walks the graph: `evaluate` with numpy (the definition), `intervals` with bounds (the proof),
`text` prints it. Engines keep their readings beside them.
"""
