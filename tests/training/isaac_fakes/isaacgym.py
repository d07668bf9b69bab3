"""In place of Isaac Gym, for the worker's tests: like it, it cannot be imported after torch."""

import sys

if "torch" in sys.modules:
    raise ImportError("PyTorch was imported before isaacgym modules.  Please import torch after isaacgym modules.")
