"""How well layertap's classifiers learn, and how fast they are trained: ``python -m benchmarks learn``."""
