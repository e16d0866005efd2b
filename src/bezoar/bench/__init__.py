"""Measurements, and the plain versions that fast code is compared with."""
