"""Runs from inputs to a folder of features: planned once, computed shard by shard, resumed, grown.

`request.py` states what a run asks for and compares it with a plan, `planning.py` reads the inputs once and makes the
plan, `growing.py` adapts a plan to inputs that changed, `shard.py` computes one shard, `runner.py` defines the
interface of runners, `state.py` knows which shards are finished, and `drive.py` puts these together. `status.py` and
`export.py` look at a folder.
"""
