"""Learners: what moves a policy. Each is a few plain functions and classes on tensors that know no simulator, no run
folder and no command line, so that one training loop (collect, update, absorb) can hold any of them: TD7 with its
prioritised replay, and imitation."""
