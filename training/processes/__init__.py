"""The processes of a training: which one this is, what they share, and how they are interrupted."""
