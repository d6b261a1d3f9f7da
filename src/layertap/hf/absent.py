"""Methods and attributes of transformers that layertap does not have, as tables: name -> reason.

A method of a table raises an error of this package when it is called. An attribute does not exist, so that `hasattr`
is False, and the message of the `AttributeError` gives the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from layertap.errors import OptionError

_CHECKPOINTS = "layertap reads and writes whole checkpoints in one process"
_ADAPTERS = (
    "a LoRA adapter is merged when its folder is loaded (from_pretrained); none is added to or removed from a model"
)
_PARALLEL = "a model lives on one device"
_INSIDE = "it is a part of how transformers loads models, and has no counterpart here"
_DECODER = "layertap runs encoders; there is no decoder"
_HUB_UPLOAD = "save_pretrained, then upload the folder with `hf upload`"
_EXPERTS = "the encoders here have no experts"

MODEL_METHODS: Mapping[str, str] = MappingProxyType(
    {
        "prune_heads": "heads cannot be taken out of packed attention",
        "push_to_hub": _HUB_UPLOAD,
        "resize_position_embeddings": "positions beyond those that were trained mean nothing; run long texts in "
        "windows, as layertap.Extractor does with long='window'",
        "set_output_embeddings": "there is no language-model head",
        "get_decoder": _DECODER,
        "set_decoder": _DECODER,
        "set_encoder": "assign model.encoder itself",
        "add_adapter": _ADAPTERS,
        "load_adapter": _ADAPTERS,
        "set_adapter": _ADAPTERS,
        "delete_adapter": _ADAPTERS,
        "active_adapters": _ADAPTERS,
        "disable_adapters": _ADAPTERS,
        "enable_adapters": _ADAPTERS,
        "enable_peft_hotswap": _ADAPTERS,
        "get_adapter_state_dict": _ADAPTERS,
        "add_model_tags": "tags belong into the model card; edit README.md",
        "register_for_auto_class": "layertap never runs code that comes with a model",
        "is_remote_code": "layertap never runs code that comes with a model",
        "is_custom_code": "layertap never runs code that comes with a model",
        "dequantize": "quantised weights are not supported",
        "set_use_kernels": "kernels from the hub are not used",
        "get_experts_implementation": _EXPERTS,
        "get_correct_experts_implementation": _EXPERTS,
        "set_experts_implementation": _EXPERTS,
        "get_correct_attn_implementation": _INSIDE,
        "get_compiled_call": "call torch.compile(model)",
        "get_expanded_tied_weights_keys": _INSIDE,
        "get_init_context": _INSIDE,
        "is_backend_compatible": _INSIDE,
        "mark_tied_weights_as_initialized": _INSIDE,
        "init_parallel_plans": _PARALLEL,
        "maybe_distribute_model": _PARALLEL,
        "prepare_distribute_model": _PARALLEL,
        "barrier_after_gathered_checkpoint_save": _CHECKPOINTS,
        "gather_sharded_state_dict_for_save": _CHECKPOINTS,
        "save_distributed_checkpoint": _CHECKPOINTS,
        "should_save_on_this_rank": _CHECKPOINTS,
        "loss_function": "put a head on the outputs and compute the loss there",
    }
)
"""Methods of transformers' models that are refused: name -> reason."""

MODEL_ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        "can_record_outputs": _INSIDE,
        "all_tied_weights_keys": _INSIDE,
        "kernel_config": "kernels from the hub are not used",
        "loss_type": "put a head on the outputs and compute the loss there",
        "generation_config_class": "encoders do not generate",
        "input_modalities": "layertap runs encoders of texts",
        "is_distributed_loading_by_transformers": _CHECKPOINTS,
        "model_tags": "tags belong into the model card",
        "use_kernels": "kernels from the hub are not used",
        "ep_plan": _PARALLEL,
        "fsdp_plan": _PARALLEL,
        "fsdp_size": _PARALLEL,
        "pp_plan": _PARALLEL,
        "tp_plan": _PARALLEL,
        "tp_size": _PARALLEL,
        "supports_context_parallel": _PARALLEL,
        "supports_pp_plan": _PARALLEL,
        "supports_tp_plan": _PARALLEL,
    }
)
"""Attributes of transformers' models that do not exist: name -> reason."""

_ROPE = "the families here have no rotary positions; layertap.Extractor runs those that have"
_COMPOSITE = "layertap runs encoders of texts, whose config has no parts"
_NO_CODE = "layertap never runs code that comes with a model"

CONFIG_METHODS: Mapping[str, str] = MappingProxyType(
    {
        "push_to_hub": _HUB_UPLOAD,
        "register_for_auto_class": _NO_CODE,
        "convert_rope_params_to_dict": _ROPE,
        "standardize_rope_params": _ROPE,
        "validate_rope": _ROPE,
        "get_mtp_config": "encoders do not generate",
        "update_from_string": "write config.update({'name': value})",
        "dict_dtype_to_str": _INSIDE,
    }
)
"""Methods of transformers' configs that are refused: name -> reason."""

CONFIG_ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        "allow_global_per_layer_attribute_access": _COMPOSITE,
        "base_config_key": _COMPOSITE,
        "default_config_fields": _INSIDE,
        "extra_config_files": _INSIDE,
        "extra_files": _INSIDE,
        "is_heterogeneous": _COMPOSITE,
        "per_layer_attributes": _COMPOSITE,
        "per_layer_config": _COMPOSITE,
        "serialize_explicit_per_layer_config": _COMPOSITE,
        "sub_configs": _COMPOSITE,
        "sub_configs_defaults": _COMPOSITE,
        "base_model_ep_plan": _PARALLEL,
        "base_model_fsdp_plan": _PARALLEL,
        "base_model_pp_plan": _PARALLEL,
        "base_model_tp_plan": _PARALLEL,
        "default_rope_type": _ROPE,
        "default_theta": _ROPE,
        "ignore_keys_at_rope_validation": _ROPE,
        "nested_rope_parameter_keys": _ROPE,
        "rope_scaling": _ROPE,
        "is_custom_code": _NO_CODE,
        "is_remote_code": _NO_CODE,
    }
)
"""Attributes of transformers' configs that do not exist: name -> reason."""

_CHAT = "encoders have no chat templates"
_SLOW = "there are fast tokenizers only; their ids are the same"

TOKENIZER_METHODS: Mapping[str, str] = MappingProxyType(
    {
        "apply_chat_template": _CHAT,
        "encode_message_with_chat_template": _CHAT,
        "get_chat_template": _CHAT,
        "get_response_parser": _CHAT,
        "parse_response": _CHAT,
        "save_chat_templates": _CHAT,
        "push_to_hub": _HUB_UPLOAD,
        "register_for_auto_class": _NO_CODE,
        "train_new_from_iterator": "a new vocabulary needs a new model; train one with the tokenizers library",
        "convert_to_native_format": _INSIDE,
        "convert_added_tokens": _INSIDE,
        "set_truncation_and_padding": "pass padding, truncation and max_length to the call",
        "update_post_processor": "the template is that of the files, with which the model was trained",
    }
)
"""Methods of transformers' tokenizers that are refused: name -> reason."""

TOKENIZER_ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        "add_bos_token": "the template is that of the files, with which the model was trained",
        "add_eos_token": "the template is that of the files, with which the model was trained",
        "chat_control_tokens": _CHAT,
        "chat_template": _CHAT,
        "response_template": _CHAT,
        "can_save_slow_tokenizer": _SLOW,
        "deprecation_warnings": _INSIDE,
        "files_loaded": _INSIDE,
        "init_inputs": _INSIDE,
        "verbose": "pass verbose to the call",
        "vocab_files_names": "files are found in the folder, or on the hub",
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": "byte-level tokens keep their "
        "spaces",
        "slow_tokenizer_class": _SLOW,
        "model": "tokenizer.backend_tokenizer.model is the one of the tokenizers library",
        "pretrained_vocab_files_map": "files are found in the folder, or on the hub",
    }
)
"""Attributes of transformers' tokenizers that do not exist: name -> reason."""


def refused(name: str, why: str) -> Callable[..., NoReturn]:
    """Create a method that refuses a call."""

    def method(self: object, *_args: object, **_keywords: object) -> NoReturn:
        raise OptionError(f"{type(self).__name__}.{name} is not supported: {why}")

    method.__doc__ = f"Refused: {why}."
    method.__name__ = name
    return method


def refuse_methods(owner: type[Any], methods: Mapping[str, str]) -> None:
    """Give a class the methods of a table, each of which refuses a call."""
    for name, why in methods.items():
        setattr(owner, name, refused(name, why))
