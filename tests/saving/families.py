"""Small random models of every family with tokenizers, to save features of."""

from __future__ import annotations

from pathlib import Path

from layertap.testing.families import FamilyRow
from tests.tiny_models import byte_level_tokenizer, save_model, wordpiece_tokenizer

TEXTS = ["a good film about the river bank", "hello", "", "some words " * 40, "Hello, world! caf\u00e9 \U0001f600"]


def write_family(folder: Path, row: FamilyRow, **fields: object) -> Path:
    """Write a model of a family whose padding id is that of its tokenizer.

    Args:
        folder: made if absent.
        row: the family.
        fields: further fields of its config.
    """
    roberta = getattr(row.spec(row.small).positions, "padding_id", None) is not None
    tokenizer = byte_level_tokenizer() if roberta else wordpiece_tokenizer()
    special = {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"}
    if not roberta:
        special = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    values = {**row.small, "vocab_size": tokenizer.get_vocab_size(), "pad_token_id": 1 if roberta else 0, **fields}
    return save_model(folder, row.random_model(values), tokenizer, **special)
