"""MegatronBERT, XLM-RoBERTa-XL, RoBERTa-PreLayerNorm: what is said of them, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from layertap.checkpoints.keys import to_canonical
from layertap.checkpoints.load import open_model
from layertap.checkpoints.source import locate
from layertap.errors import WeightsError
from layertap.models.config import ConfigReader
from layertap.models.registry import architecture
from tests.tiny_models import random_model, save_model

FAMILIES = ("megatron-bert", "xlm-roberta-xl", "roberta-prelayernorm")
CLASSES = {
    "megatron-bert": "MegatronBert",
    "xlm-roberta-xl": "XLMRobertaXL",
    "roberta-prelayernorm": "RobertaPreLayerNorm",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_last_state_is_normed_and_the_embeddings_where_they_are(name):
    spec = architecture(name).spec(ConfigReader({}))
    assert spec.final_norm
    assert spec.first_attention_norm
    assert spec.embedding_norm == (name == "roberta-prelayernorm")
    norms = [key for key in spec.parameters() if key.endswith(("norm.weight", "LayerNorm.weight"))]
    assert len(norms) == 2 * spec.num_hidden_layers + 1 + spec.embedding_norm


def test_usual_sizes_are_the_defaults():
    sizes = {
        name: (spec.hidden_size, spec.num_hidden_layers, spec.num_attention_heads, spec.intermediate_size)
        for name in FAMILIES
        for spec in [architecture(name).spec(ConfigReader({}))]
    }
    assert sizes == {
        "megatron-bert": (1024, 24, 16, 4096),
        "xlm-roberta-xl": (2560, 36, 32, 10240),
        "roberta-prelayernorm": (768, 12, 12, 3072),
    }


@pytest.mark.parametrize(
    ("name", "stored", "canonical"),
    [
        ("megatron-bert", "bert.encoder.layer.7.attention.ln.weight", "encoder.layer.7.attention.LayerNorm.weight"),
        ("megatron-bert", "bert.encoder.layer.7.ln.bias", "encoder.layer.7.LayerNorm.bias"),
        ("megatron-bert", "encoder.ln.bias", "encoder.final_norm.bias"),
        (
            "xlm-roberta-xl",
            "roberta.encoder.layer.7.attention.self_attn_layer_norm.weight",
            "encoder.layer.7.attention.LayerNorm.weight",
        ),
        ("xlm-roberta-xl", "encoder.layer.7.LayerNorm.weight", "encoder.layer.7.LayerNorm.weight"),
        ("xlm-roberta-xl", "roberta.encoder.LayerNorm.weight", "encoder.final_norm.weight"),
        (
            "roberta-prelayernorm",
            "roberta_prelayernorm.encoder.layer.7.intermediate.LayerNorm.bias",
            "encoder.layer.7.LayerNorm.bias",
        ),
        ("roberta-prelayernorm", "roberta_prelayernorm.LayerNorm.weight", "encoder.final_norm.weight"),
        ("roberta-prelayernorm", "LayerNorm.gamma", "encoder.final_norm.weight"),
        ("roberta-prelayernorm", "embeddings.LayerNorm.weight", "embeddings.LayerNorm.weight"),
    ],
)
def test_keys(name, stored, canonical):
    assert to_canonical(stored, architecture(name).key_rules) == canonical


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request, tmp_path_factory):
    """A checkpoint as transformers writes it."""
    pytest.importorskip("transformers")
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 24, "max_position_embeddings": 20}
    return save_model(tmp_path_factory.mktemp(request.param), random_model(CLASSES[request.param], sizes))


FINAL_NORM = {"megatron-bert": "encoder.ln", "xlm-roberta-xl": "encoder.LayerNorm", "roberta-prelayernorm": "LayerNorm"}


def test_a_missing_final_norm_is_named_when_it_is_asked_for(saved, tmp_path):
    files = open_model(locate(saved))
    key = f"{FINAL_NORM[files.architecture.name]}.weight"
    arrays = load_file(saved / "model.safetensors")
    (tmp_path / "config.json").write_bytes((saved / "config.json").read_bytes())
    save_file({name: array for name, array in arrays.items() if name != key}, tmp_path / "model.safetensors")
    broken = open_model(locate(tmp_path))
    assert broken.missing == ("encoder.final_norm.weight",)
    with pytest.raises(
        WeightsError, match=r"encoder\.final_norm\.weight: expected a weight of shape \[16\], found none"
    ):
        broken.weights(["encoder.final_norm.weight"])


def test_a_norm_after_the_embeddings_belongs_to_one_of_them(saved, tmp_path):
    files = open_model(locate(saved))
    arrays = load_file(saved / "model.safetensors") | {"embeddings.LayerNorm.weight": np.ones(16, np.float32)}
    (tmp_path / "config.json").write_bytes((saved / "config.json").read_bytes())
    save_file(arrays, tmp_path / "model.safetensors")
    if files.architecture.name == "roberta-prelayernorm":
        assert open_model(locate(tmp_path)).missing == ()
        return
    with pytest.raises(WeightsError, match=r"embeddings\.LayerNorm\.weight: expected only weights of"):
        open_model(locate(tmp_path))
