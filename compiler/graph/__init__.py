"""The graph and what belongs to it: policy, contract, schedule, verification, text form."""
