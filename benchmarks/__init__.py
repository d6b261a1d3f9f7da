"""What layertap's speed and memory claims rest on: us and every peer on the same texts, in one run.

Run ``python -m benchmarks --help`` from the repository's root; README.md beside this file says how.
"""
