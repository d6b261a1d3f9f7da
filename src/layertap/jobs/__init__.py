"""Runs from one input to one output: a job says what is to be done and is checked, and a run does it.

`job.py` is the value, `run.py` does the work for the command line, and `extract.py` is the function `layertap.extract`.
"""
