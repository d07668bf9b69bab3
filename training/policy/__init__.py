"""What acts: networks with and without spikes, the spiking operator and its reference in snnTorch, codes at both ends,
noise, normalisers, and the symmetry of a body. Plain torch: no simulator, no learner, no files.
"""
