"""Encoders on processors with kernels of our own; no torch needed."""
