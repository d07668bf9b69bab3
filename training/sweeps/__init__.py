"""Many trainings at once: a study read from a file, the engine that trains its runs, and the report with its plots."""
