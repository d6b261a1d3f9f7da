"""Seeded mutations of everything that is read of a checkpoint: only our own errors come out, each a line of print.

Together at least 100,000 cases (the summary of the run says how many).
"""

from __future__ import annotations

import json
import random
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from layertap.checkpoints.json_file import read_array, read_object
from layertap.checkpoints.load import open_model
from layertap.checkpoints.sentence import read_sentence_embedding
from layertap.checkpoints.source import Checkpoint
from layertap.checkpoints.tensors import read_index, read_safetensors
from layertap.errors import CheckpointError
from layertap.models.config import ConfigReader
from layertap.models.registry import ARCHITECTURES, architecture_of
from tests.mutation import HOSTILE, mutated, mutated_bytes, ours, rewrite

CONFIGS = 60_000
JSON_FILES = 12_000
WEIGHTS_FILES = 12_000
HEADERS = 10_000
INDEXES = 4_000
SENTENCES = 8_000
FOLDERS = 2_000

FIELDS = (
    *("auto_map", "architectures", "embedding_size", "position_embedding_type", "is_decoder", "pruned_heads"),
    *("quantization_config", "alibi_starting_size", "tokenizer_class", "add_cross_attention", "x", "\ud800", "a\nb"),
    *("sep_token", "\ud800_token", "added_tokens_decoder", "extra_special_tokens", "do_lower_case", "model_max_length"),
)


@pytest.fixture
def folder(tmp_path: Path, sound: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "m"))


def spec_of(values: Any) -> object:
    reader = ConfigReader(values)
    return architecture_of(reader).spec(reader)


def test_configs(folder, family, fuzzed, cases):
    config = json.loads((folder / "config.json").read_text())
    source = random.Random(f"configs {family}")
    refused = 0
    for _ in range(number := cases(CONFIGS // 2)):
        case = mutated(config | {"model_type": source.choice([family, *ARCHITECTURES])}, source, FIELDS)
        if isinstance(case, dict):
            refused += ours(lambda case=case: spec_of(case), case)
    fuzzed(number, refused)


def test_every_default(fuzzed, cases):
    """Configs of few fields, so that the rest are the families' defaults."""
    source = random.Random("defaults")
    refused = 0
    for _ in range(number := cases(CONFIGS // 6)):
        case = {source.choice(FIELDS): deepcopy(source.choice(HOSTILE)), "model_type": source.choice([*ARCHITECTURES])}
        refused += ours(lambda case=case: spec_of(case), case)
    fuzzed(number, refused)


def test_json_files(tmp_path, folder, family, fuzzed, cases):
    path = tmp_path / "config.json"
    content = (folder / "config.json").read_bytes()
    source = random.Random(f"json {family}")
    refused = 0
    for _ in range(number := cases(JSON_FILES // 2)):
        case = mutated_bytes(content, source, len(content))
        rewrite(path, case)
        refused += ours(lambda: read_object(path), case)
        assert ours(lambda: read_array(path), case)
    fuzzed(number, refused)


def test_weights_files(tmp_path, folder, family, fuzzed, cases):
    path = tmp_path / "w.safetensors"
    content = (folder / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    source = random.Random(f"weights {family}")
    refused = 0
    for _ in range(number := cases(WEIGHTS_FILES // 2)):
        case = mutated_bytes(content, source, source.choice((8, header, header, len(content))))
        rewrite(path, case)
        refused += ours(lambda: read_safetensors(path), case[:2000])
    fuzzed(number, refused)


def test_headers(tmp_path, folder, family, fuzzed, cases):
    path = tmp_path / "w.safetensors"
    content = (folder / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    source = random.Random(f"headers {family}")
    whole = json.loads(content[8:end])
    few = {key: whole[key] for key in sorted(whole, key=lambda key: whole[key].get("data_offsets", [0]))[:4]}
    data = content[end : end + max(entry["data_offsets"][1] for entry in few.values() if "data_offsets" in entry)]
    refused = 0
    for _ in range(number := cases(HEADERS // 2)):
        case = mutated(few, source)
        text = json.dumps(case).encode()
        rewrite(path, len(text).to_bytes(8, "little") + text + data)
        refused += ours(lambda: read_safetensors(path), case)
    fuzzed(number, refused)


def test_indexes(tmp_path, fuzzed, cases):
    path = tmp_path / "model.safetensors.index.json"
    keys = ("embeddings.LayerNorm.bias", "encoder.layer.0.output.dense.bias", "pooler.dense.bias")
    index = {"metadata": {"total_size": 96}, "weight_map": dict.fromkeys(keys, "model-00001-of-00002.safetensors")}
    source = random.Random("indexes")
    refused = 0
    for _ in range(number := cases(INDEXES)):
        case = mutated(index, source)
        rewrite(path, json.dumps(case))
        refused += ours(lambda: read_index(path), case)
    fuzzed(number, refused)


SENTENCE_FILES: dict[str, Any] = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
        {"idx": 3, "name": "3", "path": "3_Normalize", "type": "sentence_transformers.models.Normalize"},
    ],
    "1_Pooling/config.json": {
        "word_embedding_dimension": 16,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode": ["mean", "cls"],
        "include_prompt": True,
    },
    "2_Dense/config.json": {
        "in_features": 32,
        "out_features": 8,
        "bias": True,
        "activation_function": "torch.nn.modules.activation.Tanh",
        "use_residual": False,
    },
    "sentence_bert_config.json": {"max_seq_length": 32, "do_lower_case": False, "modality_config": None},
    "config_sentence_transformers.json": {
        "__version__": {"sentence_transformers": "5.0.0"},
        "prompts": {"query": "query: ", "document": ""},
        "default_prompt_name": "document",
        "similarity_fn_name": "cosine",
        "truncate_dim": None,
    },
}
SENTENCE_FIELDS = ("pooling_mode", "kwargs", "truncate_dim", "default_prompt_name", "transformer_task", "x", "\ud800")


def test_sentence_transformers_files(folder, family, fuzzed, cases):
    for name, value in SENTENCE_FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    arrays = {"linear.weight": np.ones((8, 32), np.float32), "linear.bias": np.ones(8, np.float32)}
    save_file(arrays, folder / "2_Dense/model.safetensors")
    checkpoint = Checkpoint(name="m", origin="folder", folder=folder)
    spec = open_model(checkpoint).spec
    found = read_sentence_embedding(checkpoint, spec)
    assert found is not None
    assert found.refusal is None
    source = random.Random(f"sentence {family}")
    refused = 0

    def read() -> None:
        found = read_sentence_embedding(checkpoint, spec)
        if found is not None and found.refusal is not None:
            raise CheckpointError(found.refusal)

    for _ in range(number := cases(SENTENCES // 2)):
        name = source.choice([*SENTENCE_FILES])
        case = mutated(SENTENCE_FILES[name], source, SENTENCE_FIELDS)
        rewrite(folder / name, json.dumps(case))
        refused += ours(read, {name: case})
        rewrite(folder / name, json.dumps(SENTENCE_FILES[name]))
    fuzzed(number, refused)


def test_whole_folders(folder, family, fuzzed, cases, load_strictly):
    files = {name: json.loads((folder / name).read_text()) for name in ("config.json", "tokenizer_config.json")}
    source = random.Random(f"folders {family}")
    refused = 0
    for _ in range(number := cases(FOLDERS // 2)):
        name = source.choice([*files])
        case = mutated(files[name], source, FIELDS)
        rewrite(folder / name, json.dumps(case))
        refused += ours(lambda: load_strictly(folder), {name: case})
        rewrite(folder / name, json.dumps(files[name]))
    fuzzed(number, refused)
