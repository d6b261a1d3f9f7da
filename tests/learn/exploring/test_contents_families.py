"""Pages of models of several families: many blocks, shared blocks, no pooler, no first token, other attention."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layertap.engine.extractor import Extractor
from layertap.learn.exploring.contents import MOST_BYTES, PageOptions, exploration
from layertap.learn.exploring.corpus import sampled
from layertap.page.assemble import as_html
from layertap.records import Record
from tests.selection import slow_except
from tests.tiny_models import random_model, save_model
from tests.writing import write

pytest.importorskip("sklearn")

TEXTS = [f"a good film {i}" if i % 2 else f"the dull movie {i} bank" for i in range(12)]
SIZES = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "distilbert": ("DistilBert", {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48}),
    "albert": ("Albert", SIZES | {"embedding_size": 16, "num_hidden_groups": 1}),
    "deberta": (
        "DebertaV2",
        SIZES
        | {"relative_attention": True, "pos_att_type": "c2p|p2c", "position_buckets": 16, "share_att_key": True}
        | {"norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0},
    ),
}


def corpus_of(texts: list[str]):
    rows = [Record(row=i, text=text, columns={"mood": "up" if i % 2 else "down"}) for i, text in enumerate(texts)]
    return sampled(rows, "data", "mood", most=len(texts), seed=0)


def checkpoint(family: str, folder: Path, make_checkpoint: Any) -> Path:
    made: Path = make_checkpoint(folder, pooler="absent" if family == "no first token" else "trained")
    if family == "no first token":
        tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        write(folder / "tokenizer.json", tokenizer | {"post_processor": None})
        write(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    else:
        pytest.importorskip("transformers")
        name, config = FAMILIES[family]
        vocabulary = json.loads((made / "config.json").read_text())["vocab_size"]
        write(made / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
        save_model(made, random_model(name, config | {"vocab_size": vocabulary, "max_position_embeddings": 64}))
    return made


@pytest.mark.parametrize("family", slow_except([*FAMILIES, "no first token"], "no first token"))
def test_a_page_of_each_family_has_the_numbers_of_extract(family, make_checkpoint, tmp_path):
    extractor = Extractor.from_pretrained(checkpoint(family, tmp_path / "m", make_checkpoint))
    content = exploration(
        extractor, corpus_of(TEXTS), PageOptions(neighbours=3, sentences=2, rows=(4,)), commands={}
    ).content
    exact = extractor.extract(TEXTS, "hidden_states[:].mean")
    for layer in range(4):
        vectors = exact[:, layer].astype(np.float64)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        indices = content.arrays[f"near{layer}"].astype(int)
        cosines = np.take_along_axis(units @ units.T, indices, axis=1)
        np.testing.assert_allclose(content.arrays[f"cosine{layer}"], cosines, atol=1e-5)
    facts = content.facts
    assert (facts["blocks"], facts["heads"], len(facts["layers"])) == (3, 4, 4)
    number = next(i for i, sentence in enumerate(facts["sentences"]) if sentence["index"] == 4)
    maps = content.arrays[f"s{number}-attention"] / 65535
    np.testing.assert_allclose(maps, extractor.extract(TEXTS[4], "attentions[:]"), atol=1e-5)
    np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=1e-3)
    outputs = {output["name"]: output for output in facts["sentences"][number]["outputs"]}
    assert ("last_hidden_state.cls" in outputs) == (family != "no first token")
    if family in ("distilbert", "deberta", "no first token"):
        assert "absent" in outputs["pooler_output"]["says"]
        assert outputs["pooler_output"]["values"] is None
    assert len(as_html(content)) < 1_000_000


@pytest.mark.slow
def test_a_page_of_24_layers_stays_below_60_megabytes(make_checkpoint, tmp_path):
    extractor = Extractor.from_pretrained(make_checkpoint(tmp_path / "m", num_hidden_layers=24))
    texts = [f"a good film {i} of {i % 7}" for i in range(2500)]
    content = exploration(extractor, corpus_of(texts), PageOptions(neighbours=100), commands={}).content
    page = as_html(content)
    assert MOST_BYTES / 2 < len(page) <= MOST_BYTES
    assert content.facts["count"] < 2500
    assert f"a random sample of {content.facts['count']:,} of the 2,500 texts" in " ".join(content.facts["notes"])
    assert len(content.facts["layers"]) == 25
