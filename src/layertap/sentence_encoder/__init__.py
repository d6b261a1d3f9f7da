"""A feature behind the calls of sentence-transformers: `SentenceEncoder`."""

from layertap.sentence_encoder.encoder import SentenceEncoder

__all__ = ["SentenceEncoder"]
