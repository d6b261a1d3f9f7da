from __future__ import annotations

import pytest

from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models.config import ConfigReader
from layertap.models.registry import architecture
from layertap.models.spec import EncoderSpec

# config.json of google's checkpoints, as they are on the hub: (embedding_size, hidden_size, heads, intermediate_size)
SMALL = (128, 256, 4, 1024)
SMALL_GENERATOR = (128, 256, 4, 1024)
BASE = (768, 768, 12, 3072)
BASE_GENERATOR = (768, 256, 4, 1024)
LARGE = (1024, 1024, 16, 4096)
LARGE_GENERATOR = (1024, 256, 4, 1024)


def spec_of(**fields: object) -> EncoderSpec:
    return architecture("electra").spec(ConfigReader(fields))


def of_sizes(sizes: tuple[int, int, int, int]) -> EncoderSpec:
    names = ("embedding_size", "hidden_size", "num_attention_heads", "intermediate_size")
    return spec_of(**dict(zip(names, sizes, strict=True)))


@pytest.mark.parametrize("sizes", [SMALL, SMALL_GENERATOR, BASE_GENERATOR, LARGE_GENERATOR])
def test_tables_of_another_width_are_projected(sizes):
    shapes = of_sizes(sizes).parameters()
    assert shapes["embeddings.word_embeddings.weight"] == (30522, sizes[0])
    assert shapes["embeddings.position_embeddings.weight"] == (512, sizes[0])
    assert shapes["embeddings.token_type_embeddings.weight"] == (2, sizes[0])
    assert shapes["embeddings.LayerNorm.weight"] == (sizes[0],)
    assert shapes["embeddings.projection.weight"] == (sizes[1], sizes[0])
    assert shapes["embeddings.projection.bias"] == (sizes[1],)


@pytest.mark.parametrize("sizes", [BASE, LARGE])
def test_tables_of_the_hidden_size_are_not(sizes):
    spec = of_sizes(sizes)
    assert not spec.embedding_projection
    assert not [name for name in spec.parameters() if "projection" in name]


def test_defaults_are_electra_small():
    assert spec_of() == of_sizes(SMALL)
    # the default stands also where the hidden size is stated alone
    assert spec_of(hidden_size=512).table_size == 128


def test_no_pooler():
    assert not of_sizes(BASE).pooler
    assert not [name for name in of_sizes(BASE).parameters() if "pooler" in name]


@pytest.mark.parametrize(
    "fields",
    [{"embedding_size": 0}, {"embedding_size": None}, {"embedding_size": "128"}, {"num_attention_heads": 5}],
)
def test_impossible_values(fields):
    (field,) = fields
    with pytest.raises(ConfigError, match=f"^config.json: {field}: expected .*, found "):
        spec_of(**fields)


@pytest.mark.parametrize("field", ["position_embedding_type", "is_decoder", "add_cross_attention"])
def test_other_forwards_are_refused(field):
    with pytest.raises(UnsupportedModelError, match=f"{field} is 'other'"):
        spec_of(**{field: "other"})
