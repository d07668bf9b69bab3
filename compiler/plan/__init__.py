"""The schedule of a graph as data, and what walks it: timing, topology, the interpreter that is the definition."""
