"""Keywords of transformers that layertap does not support, as tables: name -> (values that have no effect, reason).

The keywords that a function supports are in its signature. All others are looked up here: a keyword of a table is
refused by name unless its value has no effect, the name of a config field is set on the config, and any other name is
refused as unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from layertap.keywords import Table, refuse_unknown_name, refuse_value
from layertap.keywords import refuse_all as refuse_all_of

_KINDS = "neither a keyword that is known here nor a config field"

_HUB: Table = {
    "force_download": ((None, False), "delete the model from the hub cache to download it anew"),
    "resume_download": ((None, True, False), "huggingface_hub always resumes"),
    "proxies": ((None,), "set HTTPS_PROXY in the environment"),
    "token": ((None, True), "log in with `hf auth login`, or set HF_TOKEN in the environment"),
    "use_auth_token": ((None, True), "log in with `hf auth login`, or set HF_TOKEN in the environment"),
    "subfolder": ((None, ""), "download the model and name the folder itself"),
    "trust_remote_code": ((None, False), "layertap never runs code that comes with a model"),
    "code_revision": ((None,), "layertap never runs code that comes with a model"),
    "gguf_file": ((None,), "GGUF files are not read"),
}

CONFIG_LOADING: Table = MappingProxyType(_HUB)

# Where transformers itself has stopped listening, or the choice has one outcome here, every value is let through.
_ANY_FLAG = (None, True, False)

MODEL_LOADING: Table = MappingProxyType(
    {
        **_HUB,
        "low_cpu_mem_usage": (_ANY_FLAG, "weights are read one by one as they are needed"),
        "weights_only": ((None, True), "nothing but weights is ever read from a pickled file"),
        "disable_mmap": (_ANY_FLAG, "weights are never mapped into memory"),
        "state_dict": ((None,), "build the model from its config and call load_state_dict"),
        "ignore_mismatched_sizes": ((None, False), "weights of another shape are never replaced by random ones"),
        "output_loading_info": ((None, False), "a weight that is missing or of another shape is an error here"),
        "from_tf": ((None, False), "TensorFlow checkpoints are not read"),
        "from_flax": ((None, False), "Flax checkpoints are not read"),
        "variant": ((None,), "name a folder that holds model.safetensors"),
        "quantization_config": ((None,), "quantised weights are not supported"),
        "load_in_8bit": ((None, False), "quantised weights are not supported"),
        "load_in_4bit": ((None, False), "quantised weights are not supported"),
        "max_memory": ((None,), "a model lives on one device; name it with device_map"),
        "offload_folder": ((None,), "a model lives on one device; name it with device_map"),
        "offload_state_dict": ((None, False), "a model lives on one device; name it with device_map"),
        "offload_buffers": ((None, False), "a model lives on one device; name it with device_map"),
        "tp_plan": ((None,), "tensor parallelism is not supported"),
        "tp_size": ((None,), "tensor parallelism is not supported"),
        "device_mesh": ((None,), "tensor parallelism is not supported"),
        "distributed_config": ((None,), "distributed loading is not supported"),
        "use_kernels": ((None, False), "kernels from the hub are not used"),
        "kernel_config": ((None,), "kernels from the hub are not used"),
        "fusion_config": ((None,), "projections are fused where that helps, without asking"),
        "key_mapping": ((None,), "rename the keys in the file"),
        "adapter_kwargs": ((None,), "adapters are not loaded"),
        "generation_config": ((None,), "encoders do not generate"),
    }
)

MODEL_SAVING: Table = MappingProxyType(
    {
        "is_main_process": ((None, True), "call save_pretrained in one process only"),
        "state_dict": ((None,), "load_state_dict it first"),
        "push_to_hub": ((None, False), "upload the folder with `hf upload`"),
        "max_shard_size": ((None, "5GB", "50GB"), "weights are written to one file"),
        "safe_serialization": ((None, True), "weights are written as safetensors only"),
        "variant": ((None,), "rename the file afterwards"),
        "token": ((None,), "nothing is uploaded"),
        "save_peft_format": (_ANY_FLAG, "there are no adapters"),
    }
)

LAYER_CALL: Table = MappingProxyType(
    {
        "encoder_hidden_states": ((None,), "cross-attention needs a decoder; layertap runs encoders"),
        "encoder_attention_mask": ((None,), "cross-attention needs a decoder; layertap runs encoders"),
        "past_key_values": ((None,), "encoders keep no cache"),
        "past_key_value": ((None,), "encoders keep no cache"),
        "use_cache": (_ANY_FLAG, "encoders keep no cache"),
        "cache_position": ((None,), "encoders keep no cache"),
        "head_mask": ((None,), "heads cannot be masked; zero the rows of attention.output.dense instead"),
        # transformers passes it down, and its attention takes no notice of it
        "position_ids": ((None,), "positions are added in the embeddings"),
        "output_hidden_states": ((None, False), "the encoder, or the model, returns hidden states"),
        "return_dict": (_ANY_FLAG, "parts return tensors, and the encoder an output with names"),
        "is_causal": ((None, False), "layertap runs encoders: every token attends to both sides"),
    }
)

MODEL_CALL: Table = MappingProxyType(
    {
        "encoder_hidden_states": ((None,), "cross-attention needs a decoder; layertap runs encoders"),
        "encoder_attention_mask": ((None,), "cross-attention needs a decoder; layertap runs encoders"),
        "past_key_values": ((None,), "encoders keep no cache"),
        # transformers ignores it in encoders too
        "use_cache": (_ANY_FLAG, "encoders keep no cache"),
        "head_mask": ((None,), "heads cannot be masked; zero the rows of attention.output.dense instead"),
        "is_causal": ((None, False), "layertap runs encoders: every token attends to both sides"),
        "labels": ((None,), "put a head on the outputs and compute the loss there"),
    }
)

TOKENIZER_LOADING: Table = MappingProxyType(
    {
        **_HUB,
        "use_fast": ((None, True), "there are fast tokenizers only; their ids are the same"),
        "tokenizer_type": ((None,), "the class follows from the files"),
        "config": ((None,), "the class follows from the files"),
        "fix_mistral_regex": ((None, False), "it concerns Mistral tokenizers only"),
    }
)

TOKENIZER_CALL: Table = MappingProxyType(
    {
        "text_target": ((None,), "encoders have no target texts; tokenize them in a call of their own"),
        "text_pair_target": ((None,), "encoders have no target texts; tokenize them in a call of their own"),
        "pad_to_max_length": ((None, False), "write padding='max_length'"),
        "truncation_strategy": ((None,), "write truncation='longest_first' (or only_first, only_second)"),
        "split_special_tokens": (
            (None, False),
            "special tokens typed in a text are always read as such; take them out of the text",
        ),
        "tokenizer_kwargs": ((None,), "pass the keywords themselves"),
    }
)

TOKENIZER_SAVING: Table = MappingProxyType(
    {
        "legacy_format": ((None, False), "tokenizer.json is written, which every version reads"),
        "push_to_hub": ((None, False), "upload the folder with `hf upload`"),
        "save_jinja_files": (_ANY_FLAG, "there are no chat templates"),
    }
)


def split_keywords(keywords: Mapping[str, Any], table: Table, config: object) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split keywords into those that are fields of `config` and those that are unknown.

    Raises:
        OptionError: a keyword of the table has a value with an effect.
    """
    fields: dict[str, Any] = {}
    unknown: dict[str, Any] = {}
    for name, value in keywords.items():
        if name in table:
            refuse_value(name, value, *table[name])
        elif hasattr(config, name) and not name.startswith("_"):
            fields[name] = value
        else:
            unknown[name] = value
    return fields, unknown


def refuse_all(keywords: Mapping[str, Any], table: Table, accepted: Iterable[str]) -> None:
    """Refuse every keyword, as `layertap.keywords.refuse_all`; an unknown one might be meant as a config field."""
    refuse_all_of(keywords, table, accepted, _KINDS)


def refuse_unknown(unknown: Mapping[str, Any], table: Table, config: object, accepted: Iterable[str] = ()) -> None:
    """Refuse keywords that are neither supported nor fields of the config."""
    for name in unknown:
        refuse_unknown_name(
            name, [*accepted, *table, *(field for field in vars(config) if not field.startswith("_"))], _KINDS
        )
