"""`AutoConfig`, `AutoModel` and `AutoTokenizer`, which choose the class from the files."""

from __future__ import annotations

import os
from typing import Any, NoReturn

from layertap.errors import OptionError, UnsupportedModelError
from layertap.hf.config import CONFIG_CLASSES, PretrainedConfig, as_dtype, read_config
from layertap.hf.keywords import MODEL_LOADING, refuse_all
from layertap.hf.loading import DtypeLike
from layertap.hf.modeling import PreTrainedModel
from layertap.hf.relatives import MODEL_CLASSES
from layertap.hf.tokenization import TOKENIZER_CLASSES, PreTrainedTokenizer
from layertap.hf.tokenizer_files import open_tokenizer
from layertap.models.config import ConfigReader
from layertap.models.registry import architecture_of

Location = str | os.PathLike[str]


class _Auto:
    """Base of classes that are never instantiated: their class methods choose another class."""

    def __init__(self) -> NoReturn:
        raise OptionError(f"{type(self).__name__} is not instantiated: call {type(self).__name__}.from_pretrained(...)")


class AutoConfig(_Auto):
    """Config of the class that the files call for."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Location,
        *,
        cache_dir: Location | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **keywords: Any,
    ) -> Any:
        """Load a config from a folder, hub id or JSON file; takes the keywords of `BertConfig.from_pretrained`."""
        where: dict[str, Any] = {
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "revision": revision,
        }
        family = _family(pretrained_model_name_or_path, **where)
        return CONFIG_CLASSES[family].from_pretrained(pretrained_model_name_or_path, **where, **keywords)

    @classmethod
    def for_model(cls, model_type: str, **fields: Any) -> PretrainedConfig:
        """Create a config of a family with the defaults of that family."""
        if model_type not in CONFIG_CLASSES:
            raise OptionError(f"model_type: expected one of {', '.join(CONFIG_CLASSES)}, found {model_type!r}")
        return CONFIG_CLASSES[model_type](**fields)


class AutoModel(_Auto):
    """Model of the class that the files call for."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Location,
        *,
        cache_dir: Location | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **keywords: Any,
    ) -> PreTrainedModel:
        """Load a model from a folder or hub id; takes the keywords of `BertModel.from_pretrained`."""
        where: dict[str, Any] = {
            "cache_dir": cache_dir,
            "local_files_only": local_files_only,
            "revision": revision,
        }
        family = _family(pretrained_model_name_or_path, **where)
        return MODEL_CLASSES[family].from_pretrained(pretrained_model_name_or_path, **where, **keywords)

    @classmethod
    def from_config(
        cls,
        config: PretrainedConfig,
        *,
        add_pooling_layer: bool = True,
        dtype: DtypeLike | None = None,
        torch_dtype: DtypeLike | None = None,
        attn_implementation: str | None = None,
        **keywords: Any,
    ) -> PreTrainedModel:
        """Create a model with random weights.

        Args:
            config: config of the model; it determines the class.
            add_pooling_layer: whether the model has a pooler.
            dtype, torch_dtype: dtype of the weights; None takes that of the config.
            attn_implementation: "sdpa" (the default) or "eager", which lets hooks see attention probabilities.
            keywords: other keywords of transformers, which are refused by name.
        """
        if not isinstance(config, PretrainedConfig):
            raise OptionError(
                f"AutoModel.from_config: expected a config of layertap.hf, found a {type(config).__module__}."
                f"{type(config).__qualname__}"
            )
        refuse_all(keywords, MODEL_LOADING, ("add_pooling_layer", "dtype", "torch_dtype", "attn_implementation"))
        if attn_implementation is not None:
            config.set_attention(attn_implementation)
        model = MODEL_CLASSES[config.model_type](config, add_pooling_layer=add_pooling_layer)
        asked = torch_dtype if dtype is None else dtype
        stated = config.dtype if asked in (None, "auto") else as_dtype(asked)
        return model if stated is None else model.to(stated)


class AutoTokenizer(_Auto):
    """Tokenizer of the class that the files call for."""

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Location,
        *,
        cache_dir: Location | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **keywords: Any,
    ) -> PreTrainedTokenizer:
        """Load a tokenizer from a folder or hub id; takes the keywords of `BertTokenizer.from_pretrained`."""
        class_name, loaded = open_tokenizer(
            pretrained_model_name_or_path,
            fallback=None,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            revision=revision,
        )
        return TOKENIZER_CLASSES[class_name].of(loaded, str(pretrained_model_name_or_path), keywords)


def _family(model: Location, **where: Any) -> str:
    """Return the `model_type` of a `config.json`, or infer it where the file does not state it.

    Raises:
        UnsupportedModelError: the family has no class in this package.
    """
    name = architecture_of(ConfigReader(read_config(model, **where))).name
    if name not in CONFIG_CLASSES:
        raise UnsupportedModelError(
            f"{model}: layertap.hf has classes for {', '.join(CONFIG_CLASSES)}, found {name}; "
            "layertap.Extractor.from_pretrained runs it"
        )
    return name
