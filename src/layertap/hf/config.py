"""Config classes with the names of transformers; each field of `config.json` is an attribute."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch

from layertap.checkpoints.json_file import read_object
from layertap.checkpoints.load import with_model_type
from layertap.errors import ConfigError, OptionError
from layertap.files import staged_folder
from layertap.hf.absent import CONFIG_ATTRIBUTES, CONFIG_METHODS, refuse_methods
from layertap.hf.keywords import CONFIG_LOADING, refuse_unknown, split_keywords
from layertap.hf.locating import located
from layertap.hf.saving import CONFIG_FILE
from layertap.keywords import check_absent
from layertap.models.config import ConfigReader
from layertap.models.registry import architecture, architecture_of
from layertap.models.spec import EncoderSpec

ATTENTION = ("sdpa", "eager")
"""Ways to compute attention where a model runs padded; the first is the default."""

COMMON: Mapping[str, Any] = MappingProxyType(
    {
        "output_hidden_states": False,
        "output_attentions": False,
        "return_dict": True,
        "dtype": None,
        "chunk_size_feed_forward": 0,
        "is_encoder_decoder": False,
        "architectures": None,
        "id2label": None,
        "label2id": None,
        "problem_type": None,
        "transformers_version": None,
    }
)
"""Fields that all configs have, with their defaults, as in transformers."""

BERT: Mapping[str, Any] = MappingProxyType(
    {
        "vocab_size": 30522,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": None,
        "use_cache": True,
        "classifier_dropout": None,
        "is_decoder": False,
        "add_cross_attention": False,
        "tie_word_embeddings": True,
    }
)
ROBERTA = MappingProxyType({**BERT, "vocab_size": 50265, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2})
XLM_ROBERTA = MappingProxyType({**ROBERTA, "vocab_size": 30522})
ELECTRA = MappingProxyType(
    {
        **BERT,
        "embedding_size": 128,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "summary_type": "first",
        "summary_use_proj": True,
        "summary_activation": "gelu",
        "summary_last_dropout": 0.1,
    }
)
ALBERT: Mapping[str, Any] = MappingProxyType(
    {
        "vocab_size": 30000,
        "embedding_size": 128,
        "hidden_size": 4096,
        "num_hidden_layers": 12,
        "num_hidden_groups": 1,
        "num_attention_heads": 64,
        "intermediate_size": 16384,
        "inner_group_num": 1,
        "hidden_act": "gelu_new",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "classifier_dropout_prob": 0.1,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "tie_word_embeddings": True,
    }
)
DISTILBERT: Mapping[str, Any] = MappingProxyType(
    {
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "sinusoidal_pos_embds": False,
        "n_layers": 6,
        "n_heads": 12,
        "dim": 768,
        "hidden_dim": 3072,
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "activation": "gelu",
        "initializer_range": 0.02,
        "qa_dropout": 0.1,
        "seq_classif_dropout": 0.2,
        "pad_token_id": 0,
        "eos_token_id": None,
        "bos_token_id": None,
        "tie_word_embeddings": True,
    }
)

# What changes the outputs or the computation and layertap does not do: field -> (values that ask for nothing, why).
NOT_COMPUTED: Mapping[str, tuple[tuple[Any, ...], str]] = MappingProxyType(
    {
        "chunk_size_feed_forward": ((None, 0), "the feed-forward is not cut into chunks; packed batches need less"),
        "torchscript": ((None, False), "a packed batch has no fixed shape to trace"),
        "is_encoder_decoder": ((None, False), "layertap runs encoders alone"),
    }
)


class PretrainedConfig:
    """Abstract base class of the configs; fields are attributes, and unknown fields are kept unchanged.

    The constructors of the subclasses take any field of `config.json` by name; all other fields have the defaults of
    the family.
    """

    model_type: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]]
    attribute_map: ClassVar[Mapping[str, str]] = MappingProxyType({})  # another name of a field -> its own

    # Those that this package reads; mypy knows the others as Any.
    dtype: torch.dtype | None
    id2label: Any
    label2id: Any
    num_hidden_layers: int
    hidden_size: int
    initializer_range: float

    def __init__(self, **fields: Any) -> None:
        stated = fields.pop("model_type", self.model_type)
        if stated != self.model_type:
            raise ConfigError(
                f"{type(self).__name__} is for model_type {self.model_type!r}, found {stated!r}; "
                "AutoConfig picks the class by itself"
            )
        self.name_or_path = str(fields.pop("name_or_path", fields.pop("_name_or_path", "")))
        self._attn_implementation = ATTENTION[0]
        chosen = fields.pop("attn_implementation", fields.pop("_attn_implementation", None))
        if chosen is not None:
            self.set_attention(chosen)
        num_labels = fields.pop("num_labels", None)
        dtype = fields.pop("torch_dtype", None)
        for name, value in {**COMMON, **self.defaults, **fields}.items():
            setattr(self, name, copy.copy(value))
        if self.dtype is None and dtype is not None:
            self.dtype = dtype
        if self.id2label is None:
            self.num_labels = 2 if num_labels is None else num_labels
        else:
            self.id2label = {int(number): label for number, label in self.id2label.items()}

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "torch_dtype":  # the name before transformers 4.56
            name = "dtype"
        name = self.attribute_map.get(name, name)
        if name == "dtype" and isinstance(value, str):
            value = as_dtype(value)
        super().__setattr__(name, value)

    @property
    def is_eager(self) -> bool:
        """Whether padded runs compute attention probabilities, instead of torch's fused attention."""
        return self._attn_implementation == "eager"

    def set_attention(self, name: str) -> None:
        """Choose "sdpa" or "eager", by which padded runs compute attention.

        Raises:
            OptionError: another name.
        """
        if name not in ATTENTION:
            raise OptionError(
                f"attn_implementation={name!r} is not supported: attention runs on packed sequences with the kernel "
                f"that fits the device; leave it out, or write one of {', '.join(ATTENTION)}"
            )
        self._attn_implementation = name

    def __getattr__(self, name: str) -> Any:
        if name == "torch_dtype":
            return self.dtype
        if name == "use_return_dict":
            return self.return_dict
        if name in self.attribute_map:
            return getattr(self, self.attribute_map[name])
        check_absent(self, name, CONFIG_ATTRIBUTES)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}")

    @property
    def num_labels(self) -> int:
        """Number of labels of a classification head, whose names are in `id2label`."""
        return len(self.id2label)

    @num_labels.setter
    def num_labels(self, count: int) -> None:
        if self.id2label is None or len(self.id2label) != count:
            self.id2label = {i: f"LABEL_{i}" for i in range(count)}
            self.label2id = {label: i for i, label in self.id2label.items()}

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        return_unused_kwargs: bool = False,
        **keywords: Any,
    ) -> Any:
        """Load a config from a folder, hub id, installed package or JSON file.

        Args:
            pretrained_model_name_or_path: the folder, hub id, package or JSON file.
            cache_dir, local_files_only, revision: as in `huggingface_hub`.
            return_unused_kwargs: return the tuple (config, keywords that are not fields of it) instead of refusing
                such keywords.
            keywords: fields to change; other loading keywords of transformers are refused by name.
        """
        values = read_config(
            pretrained_model_name_or_path,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            revision=revision,
        )
        config = cls._of(values)
        config.name_or_path = str(pretrained_model_name_or_path)
        fields, unknown = split_keywords(keywords, CONFIG_LOADING, config)
        for name, value in fields.items():
            setattr(config, name, value)
        if return_unused_kwargs:
            return config, unknown
        refuse_unknown(unknown, CONFIG_LOADING, config)
        return config

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> Self:
        family = architecture_of(ConfigReader(with_model_type(dict(values), cls.model_type))).name
        if family != cls.model_type:
            raise ConfigError(
                f"{cls.__name__} does not fit this checkpoint, whose model_type is {family!r}: "
                f"use {CONFIG_CLASSES[family].__name__}, or AutoConfig"
            )
        return cls(**{**values, "model_type": family})

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **fields: Any) -> Self:
        """Create a config from a dictionary as in `config.json`; `fields` override its entries."""
        return cls(**{**config_dict, **fields})

    @classmethod
    def from_json_file(cls, json_file: str | os.PathLike[str]) -> Self:
        """Load a config from a JSON file."""
        return cls._of(read_object(Path(json_file)))

    def to_dict(self) -> dict[str, Any]:
        """Return all fields and `model_type` as JSON values; the dtype is given by its name."""
        fields = {name: copy.deepcopy(getattr(self, name)) for name in self}
        fields["dtype"] = None if self.dtype is None else str(self.dtype).removeprefix("torch.")
        return {**fields, "model_type": self.model_type}

    def to_json_string(self) -> str:
        """Return the content of `config.json`: all fields that differ from the defaults of `COMMON`."""
        fields = self.to_dict()
        if fields["id2label"] == {0: "LABEL_0", 1: "LABEL_1"}:
            del fields["id2label"], fields["label2id"]
        stated = {name: value for name, value in fields.items() if name not in COMMON or value != COMMON[name]}
        return json.dumps(stated, indent=2, sort_keys=True) + "\n"

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults of the family."""
        fields, plain = self.to_dict(), type(self)().to_dict()
        kept = ("model_type", "transformers_version")
        return {name: value for name, value in fields.items() if name in kept or value != plain.get(name)}

    def to_json_file(self, json_file_path: str | os.PathLike[str]) -> None:
        """Write the fields to a JSON file."""
        path = Path(json_file_path)
        with staged_folder(path.parent, first=path.name, overwrite=True) as folder:
            folder.write(path.name, self.to_json_string().encode())

    @classmethod
    def get_config_dict(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **keywords: Any,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the fields of a config file, and the keywords that are not about finding it."""
        values = read_config(
            pretrained_model_name_or_path, cache_dir=cache_dir, local_files_only=local_files_only, revision=revision
        )
        return values, keywords

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> Self:  # noqa: ARG002
        """Return the config itself: it is that of an encoder of texts."""
        return self

    def validate(self) -> None:
        """Refuse a config that describes no encoder.

        Raises:
            OptionError: the config asks for something that layertap does not compute.
            ConfigError: a field has an impossible value.
        """
        encoder_spec(self)

    validate_architecture = validate_layer_type = validate_output_attentions = validate_token_ids = validate

    def save_pretrained(self, save_directory: str | os.PathLike[str]) -> None:
        """Write `config.json` into a folder, which is created if it does not exist."""
        with staged_folder(Path(save_directory), first=CONFIG_FILE, overwrite=True) as folder:
            folder.write(CONFIG_FILE, self.to_json_string().encode())

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Set several fields at once."""
        for name, value in config_dict.items():
            setattr(self, name, value)

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the fields."""
        return (name for name in vars(self) if name not in ("name_or_path", "_attn_implementation"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PretrainedConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # fields can be set

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string()}"


refuse_methods(PretrainedConfig, CONFIG_METHODS)


class BertConfig(PretrainedConfig):
    """Config of BERT, with the defaults of bert-base-uncased."""

    model_type = "bert"
    defaults = BERT


class RobertaConfig(PretrainedConfig):
    """Config of RoBERTa, with the defaults of the class in transformers (those of roberta-base differ)."""

    model_type = "roberta"
    defaults = ROBERTA


class XLMRobertaConfig(PretrainedConfig):
    """Config of XLM-R, with the fields of RoBERTa."""

    model_type = "xlm-roberta"
    defaults = XLM_ROBERTA


class CamembertConfig(PretrainedConfig):
    """Config of CamemBERT, with the fields of RoBERTa."""

    model_type = "camembert"
    defaults = XLM_ROBERTA


class DistilBertConfig(PretrainedConfig):
    """Config of DistilBERT; its sizes can be read under its own names and under those of BERT."""

    model_type = "distilbert"
    defaults = DISTILBERT
    attribute_map = MappingProxyType(
        {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"}
    )


class ElectraConfig(PretrainedConfig):
    """Config of ELECTRA, with the defaults of electra-small-discriminator."""

    model_type = "electra"
    defaults = ELECTRA


class AlbertConfig(PretrainedConfig):
    """Config of ALBERT, with the defaults of albert-xxlarge."""

    model_type = "albert"
    defaults = ALBERT


CONFIG_CLASSES: Mapping[str, type[PretrainedConfig]] = MappingProxyType(
    {
        one.model_type: one
        for one in (
            BertConfig,
            RobertaConfig,
            XLMRobertaConfig,
            CamembertConfig,
            DistilBertConfig,
            ElectraConfig,
            AlbertConfig,
        )
    }
)


def encoder_spec(config: PretrainedConfig) -> EncoderSpec:
    """Return the specification of the encoder that a config describes.

    Raises:
        OptionError: the config asks for something that layertap does not compute.
        ConfigError: a field has an impossible value.
    """
    for name, (harmless, why) in NOT_COMPUTED.items():
        value = getattr(config, name, None)
        if value not in harmless:
            raise OptionError(f"{type(config).__name__}: {name}={value!r} is not supported: {why}")
    return architecture(config.model_type).spec(ConfigReader(config.to_dict(), type(config).__name__))


def as_dtype(name: str | torch.dtype) -> torch.dtype:
    """Return the floating-point dtype with a name such as `bfloat16`."""
    dtype = getattr(torch, name, None) if isinstance(name, str) else name
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise OptionError(f"dtype: expected 'auto' or a floating dtype such as 'bfloat16', found {name!r}")
    return dtype


def read_config(
    model: str | os.PathLike[str],
    *,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
    revision: str | None,
) -> dict[str, Any]:
    """Read the fields of a model's `config.json`, or of a JSON file given by its path."""
    if isinstance(model, str | os.PathLike) and Path(model).is_file():
        return read_object(Path(model))
    checkpoint = located(model, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    file = checkpoint.file("config.json")
    if file is None:
        raise ConfigError(f"{checkpoint.folder}: no config.json")
    return read_object(file)
