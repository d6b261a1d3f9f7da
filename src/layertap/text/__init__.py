"""Text to token ids, as transformers' tokenizers do it."""
