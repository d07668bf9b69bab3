"""Engines that run any program of integers, each with its printer or tables beside it."""
