"""What is acted in: environments in batches behind one small protocol (`base`), in tensors. EnvPool and Gymnasium on
the host; MuJoCo Warp, Isaac Gym, and, by one interface, Isaac Lab and mjlab behind adapters.
"""
