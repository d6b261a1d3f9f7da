"""Linear probes on every layer: which layer of a model holds a property of texts, words or pairs.

`splits.py` divides labelled data, `logistic.py` fits a probe, `probe.py` and `pairs.py` run them over all features, and
`geometry.py` compares layers without labels. The result is a `Findings` (`findings.py`), which `table.py`,
`pictures.py` and `page.py` present.
"""
