"""Slow, plain versions of the kernels, to compare results and speed with."""
