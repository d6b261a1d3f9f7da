"""Files of DistilBERT, ELECTRA and ALBERT: their keys as the hub has them, written out here, and broken ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layertap.checkpoints.load import ModelFiles, open_model
from layertap.checkpoints.source import locate
from layertap.errors import ConfigError, WeightsError
from layertap.models.registry import architecture
from tests.tiny_models import write_weights
from tests.writing import write

Shapes = dict[str, tuple[int, ...]]
V, P, E, H, F = 60, 40, 12, 32, 48
"""Words, positions, and the widths of tables, layers and feed-forwards."""

CONFIGS: dict[str, dict[str, Any]] = {
    "distilbert": {
        "vocab_size": V,
        "max_position_embeddings": P,
        "dim": H,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": F,
    },
    "electra": {
        "vocab_size": V,
        "max_position_embeddings": P,
        "embedding_size": E,
        "hidden_size": H,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": F,
    },
    "albert": {
        "vocab_size": V,
        "max_position_embeddings": P,
        "embedding_size": E,
        "hidden_size": H,
        "num_hidden_layers": 5,
        "num_hidden_groups": 2,
        "num_attention_heads": 4,
        "intermediate_size": F,
    },
}


def dense(name: str, rows: int, columns: int) -> Shapes:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def distilbert_keys() -> Shapes:
    keys: Shapes = {"embeddings.word_embeddings.weight": (V, H), "embeddings.position_embeddings.weight": (P, H)}
    keys |= norm("embeddings.LayerNorm", H)
    for i in range(2):
        layer = f"transformer.layer.{i}."
        for part in ("q_lin", "k_lin", "v_lin", "out_lin"):
            keys |= dense(f"{layer}attention.{part}", H, H)
        keys |= norm(f"{layer}sa_layer_norm", H) | norm(f"{layer}output_layer_norm", H)
        keys |= dense(f"{layer}ffn.lin1", F, H) | dense(f"{layer}ffn.lin2", H, F)
    return keys


def electra_keys() -> Shapes:
    keys: Shapes = {
        "embeddings.word_embeddings.weight": (V, E),
        "embeddings.position_embeddings.weight": (P, E),
        "embeddings.token_type_embeddings.weight": (2, E),
    }
    keys |= norm("embeddings.LayerNorm", E) | dense("embeddings_project", H, E)
    for i in range(2):
        layer = f"encoder.layer.{i}."
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            keys |= dense(f"{layer}attention.{part}", H, H)
        keys |= norm(f"{layer}attention.output.LayerNorm", H) | norm(f"{layer}output.LayerNorm", H)
        keys |= dense(f"{layer}intermediate.dense", F, H) | dense(f"{layer}output.dense", H, F)
    return keys


def albert_keys() -> Shapes:
    keys: Shapes = {
        "embeddings.word_embeddings.weight": (V, E),
        "embeddings.position_embeddings.weight": (P, E),
        "embeddings.token_type_embeddings.weight": (2, E),
    }
    keys |= norm("embeddings.LayerNorm", E) | dense("encoder.embedding_hidden_mapping_in", H, E)
    for i in range(2):
        layer = f"encoder.albert_layer_groups.{i}.albert_layers.0."
        for part in ("query", "key", "value", "dense"):
            keys |= dense(f"{layer}attention.{part}", H, H)
        keys |= norm(f"{layer}attention.LayerNorm", H) | norm(f"{layer}full_layer_layer_norm", H)
        keys |= dense(f"{layer}ffn", F, H) | dense(f"{layer}ffn_output", H, F)
    return keys | dense("pooler", H, H)


KEYS = {"distilbert": distilbert_keys, "electra": electra_keys, "albert": albert_keys}


def checkpoint(folder: Path, family: str, keys: Shapes, **config: object) -> Path:
    """A checkpoint with these keys; the numbers of each are its own."""
    write(folder / "config.json", CONFIGS[family] | {"model_type": family} | config)
    arrays = {
        key: np.full(shape, 1 + i, dtype=np.float32) + np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) / 64
        for i, (key, shape) in enumerate(keys.items())
    }
    write_weights(folder, {key: array.astype(np.float32) for key, array in arrays.items()})
    return folder


def opened(folder: Path) -> ModelFiles:
    return open_model(locate(folder))


def key_of(files: ModelFiles, name: str) -> str:
    return files.tensors[name].key


@pytest.mark.parametrize("prefixed", [False, True])
@pytest.mark.parametrize("family", KEYS)
def test_every_key_has_its_place(tmp_path, family, prefixed):
    keys = KEYS[family]()
    if prefixed:
        keys = {f"{family}.{key}": shape for key, shape in keys.items()}
        keys[f"{family}.embeddings.position_ids"] = (1, P)  # a buffer that old versions stored
    files = opened(checkpoint(tmp_path, family, keys))
    assert (files.missing, files.unused_keys) == ((), ())
    assert files.ignored_keys == ((f"{family}.embeddings.position_ids",) if prefixed else ())
    assert set(files.tensors) == set(files.spec.parameters())
    assert {stored.key for stored in files.tensors.values()} == set(keys) - set(files.ignored_keys)
    files.weights(files.tensors)  # shapes fit
    assert files.pooler == ("trained" if family == "albert" else "absent")


PLACES = [
    ("distilbert", "encoder.layer.1.attention.self.query.weight", "transformer.layer.1.attention.q_lin.weight"),
    ("distilbert", "encoder.layer.1.attention.self.key.weight", "transformer.layer.1.attention.k_lin.weight"),
    ("distilbert", "encoder.layer.1.attention.self.value.weight", "transformer.layer.1.attention.v_lin.weight"),
    ("distilbert", "encoder.layer.1.attention.output.dense.bias", "transformer.layer.1.attention.out_lin.bias"),
    ("distilbert", "encoder.layer.0.attention.output.LayerNorm.bias", "transformer.layer.0.sa_layer_norm.bias"),
    ("distilbert", "encoder.layer.0.output.LayerNorm.bias", "transformer.layer.0.output_layer_norm.bias"),
    ("distilbert", "encoder.layer.0.intermediate.dense.weight", "transformer.layer.0.ffn.lin1.weight"),
    ("distilbert", "encoder.layer.0.output.dense.weight", "transformer.layer.0.ffn.lin2.weight"),
    ("electra", "embeddings.projection.weight", "embeddings_project.weight"),
    ("electra", "embeddings.projection.bias", "embeddings_project.bias"),
    ("albert", "embeddings.projection.weight", "encoder.embedding_hidden_mapping_in.weight"),
    ("albert", "pooler.dense.weight", "pooler.weight"),
    ("albert", "pooler.dense.bias", "pooler.bias"),
    *(
        ("albert", f"encoder.layer.1.{name}", f"encoder.albert_layer_groups.1.albert_layers.0.{key}")
        for name, key in (
            ("attention.self.query.weight", "attention.query.weight"),
            ("attention.self.key.weight", "attention.key.weight"),
            ("attention.self.value.weight", "attention.value.weight"),
            ("attention.output.dense.weight", "attention.dense.weight"),
            ("attention.output.LayerNorm.weight", "attention.LayerNorm.weight"),
            ("output.LayerNorm.weight", "full_layer_layer_norm.weight"),
            ("intermediate.dense.weight", "ffn.weight"),
            ("output.dense.weight", "ffn_output.weight"),
        )
    ),
]


@pytest.mark.parametrize(("family", "name", "key"), PLACES)
def test_which_place(tmp_path, family, name, key):
    assert key_of(opened(checkpoint(tmp_path, family, KEYS[family]())), name) == key


def test_norms_of_old_conversions(tmp_path):
    keys = albert_keys()
    old = {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): shape
        for key, shape in keys.items()
    }
    files = opened(checkpoint(tmp_path, "albert", old))
    assert files.missing == files.unused_keys == ()
    assert key_of(files, "embeddings.LayerNorm.bias") == "embeddings.LayerNorm.beta"


def head_classes() -> Iterator[tuple[str, str]]:
    for family, prefix in (("distilbert", "DistilBert"), ("electra", "Electra"), ("albert", "Albert")):
        for task in (
            "MaskedLM",
            "MultipleChoice",
            "PreTraining",
            "QuestionAnswering",
            "SequenceClassification",
            "TokenClassification",
        ):
            if (family, task) != ("distilbert", "PreTraining"):
                yield family, f"{prefix}For{task}"


@pytest.mark.parametrize(("family", "name"), [*head_classes()])
def test_heads_of_every_task_are_set_aside(family, name):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    row = architecture(family)
    config = getattr(transformers, row.transformers_class.replace("Model", "Config"))(**CONFIGS[family])
    with torch.device("meta"):
        model = getattr(transformers, name)(config)
    heads = [key for key in model.state_dict() if not key.startswith(f"{family}.")]
    assert heads
    assert [key for key in heads if not row.ignored_keys.fullmatch(key)] == []


def without(keys: Shapes, *lost: str) -> Shapes:
    return {key: shape for key, shape in keys.items() if key not in lost}


@pytest.mark.parametrize(
    ("family", "lost", "name"),
    [
        ("distilbert", "transformer.layer.1.ffn.lin2.weight", "encoder.layer.1.output.dense.weight"),
        ("distilbert", "embeddings.position_embeddings.weight", "embeddings.position_embeddings.weight"),
        ("electra", "embeddings_project.bias", "embeddings.projection.bias"),
        ("albert", "encoder.embedding_hidden_mapping_in.weight", "embeddings.projection.weight"),
    ],
)
def test_a_lost_weight_is_named(tmp_path, family, lost, name):
    files = opened(checkpoint(tmp_path, family, without(KEYS[family](), lost), sinusoidal_pos_embds=True))
    assert files.missing == (name,)
    with pytest.raises(WeightsError, match=f"{name}: expected a weight of shape"):
        files.weights([name])


@pytest.mark.parametrize(
    ("family", "more", "says"),
    [
        ("distilbert", {"embeddings.token_type_embeddings.weight": (2, H)}, "token_type.*one that it does not have"),
        ("electra", dense("encoder.layer.0.attention.self.distance", H, H), "distance.*one that it does not have"),
        ("albert", norm("encoder.albert_layer_groups.0.albert_layers.1.attention.LayerNorm", H), "albert_layers.1"),
        ("albert", norm("encoder.albert_layer_groups.2.albert_layers.0.full_layer_layer_norm", H), "in 2 groups"),
        ("distilbert", norm("transformer.layer.2.sa_layer_norm", H), "num_hidden_layers 2 .*encoder.layer.2"),
    ],
)
def test_weights_without_a_place_are_refused(tmp_path, family, more, says):
    with pytest.raises(WeightsError, match=says):
        opened(checkpoint(tmp_path, family, KEYS[family]() | more))


def test_a_projection_that_the_config_has_no_room_for(tmp_path):
    keys = electra_keys()
    for key in list(keys):
        if key.startswith("embeddings."):
            keys[key] = tuple(H if size == E else size for size in keys[key])
    with pytest.raises(WeightsError, match=r"embeddings_project.bias: expected only weights of electra"):
        opened(checkpoint(tmp_path, "electra", keys, embedding_size=H))


def test_tables_of_another_width_than_the_config_says(tmp_path):
    files = opened(checkpoint(tmp_path, "electra", electra_keys(), embedding_size=16))
    with pytest.raises(WeightsError, match=r"word_embeddings.weight: expected shape \[60, 16\].*found \[60, 12\]"):
        files.weights(["embeddings.word_embeddings.weight"])


def test_half_a_pooler_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"pooler.dense.bias: expected beside pooler.weight, found none"):
        opened(checkpoint(tmp_path, "albert", without(albert_keys(), "pooler.bias")))


def test_an_albert_without_a_pooler(tmp_path):
    files = opened(checkpoint(tmp_path, "albert", without(albert_keys(), "pooler.bias", "pooler.weight")))
    assert (files.pooler, files.missing) == ("absent", ())


def test_weights_of_another_family(tmp_path):
    with pytest.raises(WeightsError, match="expected"):
        opened(checkpoint(tmp_path, "electra", distilbert_keys()))
    with pytest.raises(ConfigError, match="n_heads: expected a divisor of dim"):
        opened(checkpoint(tmp_path, "distilbert", distilbert_keys(), n_heads=5))
