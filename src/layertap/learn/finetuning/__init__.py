"""Fine-tuning of an encoder together with its family's classification head, on packed batches.

`run.py` puts the modules together: `encoding.py` tokenizes labelled texts, `options.py` holds the hyperparameters,
`model.py` the module that is trained, `schedule.py` its learning rates, `batches.py` the order of the records,
`trainer.py` the loop, `state.py` the checkpoint that an interrupted run resumes from, `scoring.py` the metrics;
`folder.py` and `curve.py` write the result.
"""
