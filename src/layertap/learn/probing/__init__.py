"""Which layer knows what: a linear probe on every layer.

`examples.py` reads and checks labelled data and splits it, `linear.py` fits probes, `scores.py` measures them,
`probe.py` puts them together, `geometry.py` compares layers without labels; `table.py`, `figures.py` and `page.py` show
what was found.
"""
