"""Small models, and a count of what runs through them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import random_model, save_model, wordpiece_tokenizer

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")


@dataclass
class Runs:
    """What the backend was asked for."""

    stops: list[int] = field(default_factory=list)
    sequences: int = 0


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> str:
    """A random BERT of 3 layers, hidden size 32, 64 tokens at most."""
    return str(make_checkpoint(tmp_path_factory.mktemp("learn") / "tiny-bert"))


@pytest.fixture
def runs(watch_runs: Callable[[Callable[[Any, Any], None]], None]) -> Runs:
    """Counts sequences that run through any backend of this process from here on."""
    count = Runs()

    def seen(program: Any, batch: Any) -> None:
        count.stops.append(program.stop)
        count.sequences += len(batch)

    watch_runs(seen)
    return count


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
DISTIL: dict[str, Any] = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 64}
DEBERTA: dict[str, Any] = SIZES | {
    "relative_attention": True,
    "max_relative_positions": -1,
    "pos_att_type": "p2c|c2p",
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "position_buckets": 8,
    "type_vocab_size": 0,
}
ROTARY = SIZES | {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
OF_WORDS = SIZES | {"pad_token_id": 0}
OF_IDS = SIZES | {"pad_token_id": 1}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "BERT": ("Bert", OF_WORDS),
    "RoBERTa": ("Roberta", OF_IDS),
    "XLM-R": ("XLMRoberta", OF_IDS),
    "CamemBERT": ("Camembert", OF_IDS),
    "DistilBERT": ("DistilBert", DISTIL),
    "ELECTRA": ("Electra", OF_WORDS | {"embedding_size": 12}),
    "ELECTRA base": ("Electra", OF_WORDS | {"embedding_size": 32}),
    "ALBERT": ("Albert", OF_WORDS | {"embedding_size": 12}),
    "ALBERT groups": ("Albert", OF_WORDS | {"embedding_size": 12, "num_hidden_layers": 4, "num_hidden_groups": 2}),
    "MPNet": ("MPNet", OF_IDS),
    "DeBERTa v3": ("DebertaV2", DEBERTA),
    "DeBERTa v2": ("DebertaV2", DEBERTA | {"conv_kernel_size": 3, "conv_act": "gelu", "pooler_hidden_act": "tanh"}),
    "ModernBERT": ("ModernBert", ROTARY),
    "ModernBERT mean": ("ModernBert", ROTARY | {"classifier_pooling": "mean", "classifier_bias": True}),
    "MegatronBERT": ("MegatronBert", OF_WORDS),
    "XLM-R-XL": ("XLMRobertaXL", OF_IDS),
    "RoBERTa-PreLayerNorm": ("RobertaPreLayerNorm", OF_IDS),
}
"""Name -> what the names of transformers' classes begin with, and a small config."""


@pytest.fixture(scope="session")
def family_model() -> Callable[..., Path]:
    """`family_model(folder, "ELECTRA", "ForTokenClassification", num_labels=3)`: a random model of transformers."""
    pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")

    def make(folder: Path, family: str, end: str, *, seed: int = 0, **fields: Any) -> Path:
        prefix, values = FAMILIES[family]
        tokenizer = wordpiece_tokenizer()
        size = {"vocab_size": tokenizer.get_vocab_size()}
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        module = random_model(prefix, values | size | fields, end=end, seed=seed)
        return save_model(folder, module, tokenizer, **names, model_max_length=48)

    return make
