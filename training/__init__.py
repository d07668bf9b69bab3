"""Training: from a configuration to a policy in a run folder.

`run` is its loop (collect, update, absorb), `evaluate` tests what it trained, `front` is its Python interface. The
configuration is in `settings/`, policies in `policy/`, tasks in `simulators/`, learners in `learners/`, run folders in
`folder/`, distributed training in `processes/`, and studies of many trainings in `sweeps/`.
"""
