"""Lowering: from a float graph to integers of any arithmetic that is stated as data."""
