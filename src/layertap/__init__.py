"""Features from any layer of a text encoder; only what the features need is computed.

    from layertap import Extractor, hidden_states

    extractor = Extractor.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    vectors = extractor.extract(["one text", "another"], hidden_states[-4:].layer_mean.mean)

Files are extracted to files by `layertap.extract`, as by the command of this name, and read back by `layertap.open`,
record by record.

Names are imported when they are first used: `import layertap` loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layertap.data.store import FeatureFile
    from layertap.data.store import open as open  # noqa: A004 - as gzip.open; not in __all__, for import *
    from layertap.engine.extractor import Extractor
    from layertap.errors import (
        BackendError,
        CheckpointError,
        ConfigError,
        FeatureError,
        FeatureSyntaxError,
        InputError,
        LayertapError,
        ModelNotFoundError,
        NonFiniteError,
        OptionError,
        OutputError,
        TokenizerError,
        UnsupportedModelError,
        UntrainedPoolerError,
        UsageError,
        WeightsError,
    )
    from layertap.features.concat import concat
    from layertap.features.parse import parse
    from layertap.features.rules import Rules
    from layertap.features.sources import (
        attentions,
        hidden_states,
        last_hidden_state,
        pooler_output,
        sentence_embedding,
    )
    from layertap.jobs.extract import extract
    from layertap.records import AttentionMaps, Ragged, Record
    from layertap.saving.save import save
    from layertap.sentence_encoder.encoder import SentenceEncoder
    from layertap.torch_datasets import FeatureDataset, FeatureIterableDataset
    from layertap.version import __version__

_HOME = {
    "AttentionMaps": "records",
    "BackendError": "errors",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "Extractor": "engine.extractor",
    "FeatureDataset": "torch_datasets",
    "FeatureError": "errors",
    "FeatureFile": "data.store",
    "FeatureIterableDataset": "torch_datasets",
    "FeatureSyntaxError": "errors",
    "InputError": "errors",
    "LayertapError": "errors",
    "ModelNotFoundError": "errors",
    "NonFiniteError": "errors",
    "OptionError": "errors",
    "OutputError": "errors",
    "Ragged": "records",
    "Record": "records",
    "Rules": "features.rules",
    "SentenceEncoder": "sentence_encoder.encoder",
    "TokenizerError": "errors",
    "UnsupportedModelError": "errors",
    "UntrainedPoolerError": "errors",
    "UsageError": "errors",
    "WeightsError": "errors",
    "__version__": "version",
    "attentions": "features.sources",
    "concat": "features.concat",
    "extract": "jobs.extract",
    "hidden_states": "features.sources",
    "last_hidden_state": "features.sources",
    "open": "data.store",
    "parse": "features.parse",
    "pooler_output": "features.sources",
    "save": "saving.save",
    "sentence_embedding": "features.sources",
}

__all__ = [
    "AttentionMaps",
    "BackendError",
    "CheckpointError",
    "ConfigError",
    "Extractor",
    "FeatureDataset",
    "FeatureError",
    "FeatureFile",
    "FeatureIterableDataset",
    "FeatureSyntaxError",
    "InputError",
    "LayertapError",
    "ModelNotFoundError",
    "NonFiniteError",
    "OptionError",
    "OutputError",
    "Ragged",
    "Record",
    "Rules",
    "SentenceEncoder",
    "TokenizerError",
    "UnsupportedModelError",
    "UntrainedPoolerError",
    "UsageError",
    "WeightsError",
    "__version__",
    "attentions",
    "concat",
    "extract",
    "hidden_states",
    "last_hidden_state",
    "parse",
    "pooler_output",
    "save",
    "sentence_embedding",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
