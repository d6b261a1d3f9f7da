"""Provenance: the bytes that files have had, a digest of everything that results depend on, and nothing else."""

from __future__ import annotations

import json
import shutil
from dataclasses import FrozenInstanceError

import pytest

import layertap
from layertap.engine.extractor import Extractor
from layertap.engine.identity import ModelIdentity, Provenance
from layertap.features.rules import Rules

KEYS = ["layertap", "model", "commit", "architecture", "features", "max_length", "prompt", "untrained_pooler", "long"]
ENDS = ["precision", "backend", "instruction_set", "sha256"]


def opened(folder, **options) -> Extractor:
    return Extractor.from_pretrained(folder, backend="torch", **options)


def test_the_identity_of_a_folder(bert_folder, monkeypatch):
    monkeypatch.chdir(bert_folder.parent)
    identity = ModelIdentity.of(opened(bert_folder.name).files)
    assert (identity.name, identity.commit, identity.architecture) == (bert_folder.name, None, "bert")
    assert identity.location == str(bert_folder.resolve())
    assert set(identity.sha256) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


@pytest.mark.parametrize(
    ("options", "features", "stated"),
    [
        ({}, "last_hidden_state.mean", {"truncate_side": "right"}),
        ({"truncate_side": "left"}, "last_hidden_state.mean", {"truncate_side": "left"}),
        ({"word_pattern": r"\w+"}, "last_hidden_state.mean", {"truncate_side": "right"}),
        (
            {"word_pattern": r"\w+"},
            "last_hidden_state.words(mean)",
            {"truncate_side": "right", "word_pattern": r"\w+"},
        ),
        ({"long": "error"}, "last_hidden_state.words(mean)", {"word_pattern": None}),
        (
            {"long": "window", "window": 9},
            "last_hidden_state.mean",
            {"window": 9, "overlap": None, "word_pattern": None},
        ),
    ],
)
def test_the_keys_of_files_in_their_order(bert_folder, options, features, stated):
    values = opened(bert_folder, **options).provenance(features).as_dict()
    assert list(values) == [*KEYS, *stated, *ENDS]
    assert {key: values[key] for key in stated} == stated
    assert (values["layertap"], values["model"], values["commit"]) == (layertap.__version__, "tiny-bert", None)
    assert values["features"] == {features: features}
    assert values["max_length"] == {features: 64}


def test_it_is_a_read_only_mapping_of_json_values(bert_folder):
    provenance = opened(bert_folder).provenance()
    assert dict(provenance) == provenance.as_dict() == json.loads(json.dumps(dict(provenance)))
    assert (provenance["backend"], len(provenance)) == ("torch", len([*provenance]))
    with pytest.raises(KeyError):
        provenance["host"]
    with pytest.raises(FrozenInstanceError):
        provenance.backend = "native"
    provenance.as_dict()["sha256"].clear()
    assert provenance["sha256"]


def test_the_digest_is_that_of_what_results_depend_on(bert_folder, tmp_path):
    features = {"v": "last_hidden_state.mean"}
    provenance = opened(bert_folder).provenance(features)
    assert len(provenance.digest) == 64
    shutil.copytree(bert_folder, tmp_path / "tiny-bert")
    for other in (opened(tmp_path / "tiny-bert"), opened(bert_folder, rules=Rules.without("rows"), batch_tokens=99)):
        assert other.provenance(features) == provenance
        assert other.provenance(features).digest == provenance.digest
    others = [
        opened(bert_folder).provenance("last_hidden_state.mean"),
        opened(bert_folder).provenance({"v": "last_hidden_state.cls"}),
        opened(bert_folder, max_length=9).provenance(features),
        opened(bert_folder, truncate_side="left").provenance(features),
        opened(bert_folder, precision="bfloat16").provenance(features),
    ]
    config = tmp_path / "tiny-bert/config.json"
    config.write_text(config.read_text() + "\n")
    others.append(opened(tmp_path / "tiny-bert").provenance(features))
    assert len({provenance.digest, *(other.digest for other in others)}) == len(others) + 1
    assert all(other != provenance for other in others)


def test_heads_are_added_and_what_only_they_read_is_left_out(sentence_folder):
    provenance = opened(sentence_folder).provenance({"v": "last_hidden_state.mean", "_head0": "sentence_embedding"})
    heads = {"mood": {"feature": "sentence_embedding", "labels": ["bad", "good"]}}
    with_heads = provenance.with_heads(heads, read_features=["_head0"])
    assert isinstance(with_heads, Provenance)
    assert list(with_heads) == [*provenance, "heads"]
    assert (with_heads["features"], with_heads["heads"]) == ({"v": "last_hidden_state.mean"}, heads)
    assert list(with_heads["max_length"]) == ["v"]
    assert with_heads.digest != provenance.digest
