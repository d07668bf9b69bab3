"""What learns: each learner turns a rollout into a better policy, behind one small protocol (`base`). PPO, the
imitation of a teacher, and off-policy agents.
"""
