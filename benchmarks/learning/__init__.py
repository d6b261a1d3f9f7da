"""Measure how well layertap's classifiers learn and how fast they train, for ``python -m benchmarks learn``."""
