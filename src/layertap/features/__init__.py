"""The feature language: what is asked, and what has to run for it.

    text --parse--> Expr --rewrite--> resolved Expr --plan--> Programs --(backend)--> captures --vectors--> arrays

`expr` the nodes, `indexing` what square brackets mean, `parse` text to nodes, `naming` lists and mappings of
features, `schema` types before anything runs, `rewrite` expansion for one model, `taps` what a feature reads
from the encoder, `plan` what to run, `program` how a backend is told, `vectors` what happens to the small
vectors afterwards, `cost` and `explain` the plan for people.
"""
