"""Nervecord: train, compile and run spiking control policies on neuromorphic arithmetic."""
