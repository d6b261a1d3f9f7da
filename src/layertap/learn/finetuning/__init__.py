"""Fine-tuning: an encoder with its family's classification head, trained on packed batches.

`examples.py` reads and checks labelled texts or words, `options.py` says how to train; `model.py` is the model (which
head a family has is data of `learn/family_heads.py`), `schedule.py` the learning rates, `batches.py` the order of the
data, `trainer.py` the loop, `state.py` what a killed run goes on from, `scores.py` how good it is. `run.py` puts them
together, `folder.py` and `curve.py` write the result.
"""
