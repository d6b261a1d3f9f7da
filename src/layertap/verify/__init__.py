"""Compare a model's outputs with those of transformers, for `layertap verify` and its certificate."""
