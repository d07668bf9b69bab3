"""What a training leaves on disk: the run folder, checkpoints, records, locks, learning curve and exported policy;
and how another training starts from them.
"""
