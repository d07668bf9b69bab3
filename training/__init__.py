"""Training: from a configuration to a policy in a run folder.

`config` says everything that decides a training, `run` is its loop (collect, update, absorb), `run_folder` and
`checkpoint` keep what it leaves, `evaluate` and `export` say what came of it. What acts stands in `policy/`, what is
acted in in `simulators/`, what learns in `learners/`, many trainings at once in `sweeps/`.
"""
