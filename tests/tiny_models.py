"""Small random checkpoints of every family: the one place where tests make and write models.

`write_checkpoint` writes what the Hugging Face hub holds for a BERT or a RoBERTa - `config.json`, safetensors,
`tokenizer.json` - without torch, and the same bytes for the same arguments. `random_model` and `save_model` do the same
for any class of transformers, `write_keys` for any names of weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from layertap.models.config import ConfigReader
from layertap.models.registry import architecture
from layertap.models.spec import EncoderSpec
from tests.writing import write

PoolerKind = Literal["trained", "untrained", "absent"]

TRANSFORMERS_CLASS = {
    "bert": "BertModel",
    "roberta": "RobertaModel",
    "xlm-roberta": "XLMRobertaModel",
    "camembert": "CamembertModel",
}
WORDS = (
    "the a an of to and in is it that this was for on with as his they be at one have not from by "
    "word but what all were we when your can said there use each which she do how their if will up "
    "other about out many then them these so some film movie actor story good bad great funny dull "
    "bank river money hello world layer token sentence text feature"
)
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
CORPUS = [
    WORDS,
    "Hello, world! The caf\u00e9 isn't far.",
    "\u4f60\u597d\uff0c\u4e16\u754c",
    "\U0001f600 emoji and 1234567890",
]


def wordpiece_tokenizer() -> Any:
    """A BERT tokenizer: lower-cased WordPiece over a few words and all letters; [PAD] is 0."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    punctuation = list(".,!?;:'\"()-[]/&%$#@*+=")
    tokens = [
        *specials,
        *punctuation,
        *"\u4f60\u597d\u4e16\u754c",
        *LETTERS,
        *(f"##{letter}" for letter in LETTERS),
    ]
    tokens += [word for word in dict.fromkeys(WORDS.split()) if word not in tokens]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer.add_special_tokens(specials)
    return tokenizer


def byte_level_tokenizer() -> Any:
    """A RoBERTa tokenizer: byte-level BPE with `<s> ... </s>`; `<pad>` is 1."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return tokenizer


def _random_weights(spec: EncoderSpec, pooler: PoolerKind, seed: int) -> dict[str, np.ndarray]:
    """Canonical name -> float32, of sizes at which attention is far from uniform and every weight matters."""
    random = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    for name, shape in spec.parameters().items():
        values = random.standard_normal(shape, dtype=np.float32)
        values *= np.float32(0.1 if len(shape) == 1 else shape[1] ** -0.5)
        if name.endswith("LayerNorm.weight"):
            values += 1
        weights[name] = values
    if pooler == "untrained":
        weights["pooler.dense.bias"][:] = 0
    elif pooler == "absent":
        del weights["pooler.dense.weight"], weights["pooler.dense.bias"]
    return weights


def _stored_name(name: str, prefix: str, gamma_beta: bool) -> str:
    if gamma_beta:
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return prefix + name


def write_safetensors(path: Path, arrays: dict[str, np.ndarray], dtype: str) -> None:
    """Writes float32 arrays as F32, F16, F64 or BF16 (rounded to nearest even)."""
    from safetensors.numpy import save_file

    if dtype != "BF16":
        numpy_type = {"F32": np.float32, "F16": np.float16, "F64": np.float64}[dtype]
        save_file(
            {name: array.astype(numpy_type) for name, array in arrays.items()},
            path,
            metadata={"format": "pt"},
        )
        return
    # numpy has no bfloat16, so the header is written by hand.
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blobs: list[bytes] = []
    offset = 0
    for name, array in arrays.items():
        bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32)
        blob = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(blob)],
        }
        offset += len(blob)
        blobs.append(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))


def write_weights(folder: Path, arrays: dict[str, np.ndarray], *, dtype: str = "F32", shards: int = 1) -> None:
    """Writes `model.safetensors`, or `shards` files and their index."""
    if shards == 1:
        write_safetensors(folder / "model.safetensors", arrays, dtype)
        return
    names = list(arrays)
    weight_map: dict[str, str] = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = names[i * len(names) // shards : (i + 1) * len(names) // shards]
        write_safetensors(folder / file, {name: arrays[name] for name in part}, dtype)
        weight_map |= dict.fromkeys(part, file)
    total = sum(array.nbytes for array in arrays.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def write_checkpoint(
    folder: Path,
    model_type: str = "bert",
    *,
    hidden_size: int = 32,
    num_hidden_layers: int = 3,
    num_attention_heads: int = 4,
    intermediate_size: int = 64,
    max_position_embeddings: int | None = None,
    vocab_size: int | None = None,
    type_vocab_size: int | None = None,
    hidden_act: str = "gelu",
    layer_norm_eps: float | None = None,
    prefix: str = "",
    gamma_beta: bool = False,
    pooler: PoolerKind = "trained",
    dtype: str = "F32",
    shards: int = 1,
    tokenizer: bool = True,
    seed: int = 0,
    config: dict[str, Any] | None = None,
) -> Path:
    """Writes a small random checkpoint into `folder` and returns it.

    Args:
        folder: made if absent.
        model_type: `bert`, `roberta`, `xlm-roberta` or `camembert`.
        max_position_embeddings: 64 for BERT, 66 for the others (62 tokens and more) if None.
        vocab_size: the tokenizer's size if None; never smaller than that with `tokenizer`.
        prefix: of every stored key (`bert.`, `roberta.`).
        gamma_beta: norms stored under their TensorFlow names.
        pooler: trained; untrained: stored with a bias of zeros; absent: not stored.
        dtype: F32, F16, BF16 or F64.
        shards: number of safetensors files.
        tokenizer: writes tokenizer.json and tokenizer_config.json.
        config: further or other config.json fields; written last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    is_bert = model_type == "bert"
    made = wordpiece_tokenizer() if is_bert else byte_level_tokenizer()
    values: dict[str, Any] = {
        "model_type": model_type,
        "architectures": [TRANSFORMERS_CLASS[model_type]],
        "vocab_size": vocab_size or made.get_vocab_size(),
        "hidden_size": hidden_size,
        "num_hidden_layers": num_hidden_layers,
        "num_attention_heads": num_attention_heads,
        "intermediate_size": intermediate_size,
        "hidden_act": hidden_act,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": max_position_embeddings or (64 if is_bert else 66),
        "type_vocab_size": type_vocab_size or (2 if is_bert else 1),
        "layer_norm_eps": layer_norm_eps or (1e-12 if is_bert else 1e-5),
        "initializer_range": 0.02,
        "pad_token_id": 0 if is_bert else 1,
    }
    if not is_bert:
        values |= {"bos_token_id": 0, "eos_token_id": 2}
    values |= config or {}
    (folder / "config.json").write_text(json.dumps(values, indent=2))
    spec = architecture(model_type).spec(ConfigReader(values))
    arrays = _random_weights(spec, pooler, seed)
    stored = {_stored_name(name, prefix, gamma_beta): array for name, array in arrays.items()}
    write_weights(folder, stored, dtype=dtype, shards=shards)
    if tokenizer:
        assert spec.vocab_size >= made.get_vocab_size(), "the tokenizer does not fit this vocab_size"
        made.save(str(folder / "tokenizer.json"))
        write_tokenizer_config(folder, is_bert=is_bert)
    return folder


def write_tokenizer_config(folder: Path, *, is_bert: bool) -> None:
    """What transformers needs beside tokenizer.json."""
    if is_bert:
        names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
        names |= {"mask_token": "[MASK]", "tokenizer_class": "BertTokenizer"}
    else:
        names = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>"}
        names |= {"unk_token": "<unk>", "pad_token": "<pad>", "mask_token": "<mask>"}
        names |= {"tokenizer_class": "RobertaTokenizer"}
    limit = {"model_max_length": 64 if is_bert else 62, "do_lower_case": is_bert}
    (folder / "tokenizer_config.json").write_text(json.dumps(names | limit, indent=2))


def write_keys(
    folder: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], *, seed: int = 0
) -> Path:
    """Write a checkpoint with weights under exactly these keys, random float32, and no tokenizer."""
    random = np.random.default_rng(seed)
    write(folder / "config.json", dict(config))
    write_weights(folder, {key: random.standard_normal(shape, np.float32) for key, shape in shapes.items()})
    return folder


def random_model(family: str, fields: Mapping[str, Any], *, end: str = "Model", seed: int = 0) -> Any:
    """Build a model of transformers in eval mode, every parameter random.

    Args:
        family: what the names of its classes begin with, for example "DebertaV2".
        fields: keywords of the config class.
        end: what the name of the model class ends with, for example "ForTokenClassification".
        seed: seed of the parameters.
    """
    import transformers

    from layertap.testing.families import random_module

    return random_module(f"{family}{end}", getattr(transformers, f"{family}Config")(**fields), seed=seed)


def save_model(folder: Path, module: Any, tokenizer: Any = None, **settings: Any) -> Path:
    """Write a model of transformers, and a tokenizer that is taken as it stands, whatever the family's own is.

    Args:
        folder: made if absent.
        module: a model of transformers.
        tokenizer: a tokenizer of the library `tokenizers`; None: no file of it is written.
        settings: fields of `tokenizer_config.json`.
    """
    from layertap.verify.reference import quiet_transformers

    with quiet_transformers():
        module.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save(str(folder / "tokenizer.json"))
        write(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"} | settings)
    return folder
