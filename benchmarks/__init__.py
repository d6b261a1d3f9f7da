"""Measure the speed and memory of layertap and of other libraries on the same texts, in one run.

Run ``python -m benchmarks --help`` from the repository's root; README.md beside this file says how.
"""
