"""One vector a text or word: extracted in one pass for many features, and cached on disk."""
