"""Engine: runs plans of features over texts, with a tokenizer and a backend."""
