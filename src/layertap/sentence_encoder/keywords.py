"""Keywords of sentence-transformers 6 that `SentenceEncoder` takes, and those that it refuses with a reason."""

from __future__ import annotations

from types import MappingProxyType

from layertap.keywords import Table

LOADING: Table = MappingProxyType(
    {
        "model_name_or_path": ((None,), "name the model as the first argument, or as model"),
        "modules": ((None,), "name a model, and the layers and the pooling by feature=..."),
        "trust_remote_code": ((None, False), "layertap never runs code that comes with a model"),
        "token": ((None, True), "log in with `hf auth login`, or set HF_TOKEN in the environment"),
        "use_auth_token": ((None, True), "log in with `hf auth login`, or set HF_TOKEN in the environment"),
        "model_kwargs": ((None,), "pass options of layertap.Extractor.from_pretrained, such as precision"),
        "processor_kwargs": ((None,), "pass max_length or truncate_side"),
        "tokenizer_kwargs": ((None,), "pass max_length or truncate_side"),
        "config_kwargs": ((None,), "a model is opened as its config.json says"),
        "model_card_data": ((None,), "nothing is trained or saved"),
    }
)
"""Keywords of the constructor that are not supported."""

LOADING_NAMES = (
    "feature",
    "device",
    "prompts",
    "default_prompt_name",
    "similarity_fn_name",
    "truncate_dim",
    "cache_folder",
)
"""Keywords of the constructor that are supported, beside the options of an extractor."""

CALL: Table = MappingProxyType(
    {
        "pool": ((None,), "one process uses all cores; `layertap extract` divides a large input among machines"),
        "chunk_size": ((None,), "it divides inputs among the processes of a pool, and there is no pool"),
        # without effect in sentence-transformers too, except in models that are refused
        "task": ((None, "query", "document"), "a task selects a route of a Router module, which is not supported"),
        "processing_kwargs": ((None,), "set max_seq_length on the encoder"),
    }
)
"""Keywords of `encode` that are not supported."""

TOKENIZE: Table = MappingProxyType({name: CALL[name] for name in ("task", "processing_kwargs")})
"""Keywords of `preprocess` that are not supported."""

ENCODE_NAMES = (
    "inputs",
    "sentences",
    "prompt_name",
    "prompt",
    "batch_size",
    "show_progress_bar",
    "output_value",
    "precision",
    "convert_to_numpy",
    "convert_to_tensor",
    "device",
    "normalize_embeddings",
    "truncate_dim",
)
"""Keywords of `encode` that are supported."""
