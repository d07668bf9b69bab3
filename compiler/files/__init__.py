"""Files: programs, how graphs stand in them, and writing that a crash cannot halve."""
