"""Members of `SentenceTransformer` that `SentenceEncoder` does not have, as a table: name -> reason."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_MODULE = (
    "an encoder is not a torch.nn.Module; layertap.hf.AutoModel.from_pretrained opens a model that is one, and the "
    "folder of `layertap save` opens in SentenceTransformer"
)
_MODULES = "an encoder is a model and a feature, not a list of modules"
_TRAINING = "an encoder is not trained; `layertap finetune` and layertap.learn.finetune train a model"
_SAVING = "`layertap save FEATURE -m MODEL -o FOLDER` writes the feature as a folder of sentence-transformers"
_POOL = "one process uses all cores; `layertap extract` divides a large input among machines"
_DEVICE = "open another encoder on that device, with device=..."
_PRECISION = "open another encoder with precision=..."
_ADAPTERS = "a LoRA adapter is merged when its folder is opened; none is added to or removed from an encoder"
_TOKENIZER = (
    "encoder.preprocess tokenizes; layertap.hf.AutoTokenizer.from_pretrained opens the tokenizer with the calls of "
    "transformers"
)
_LOADING = "the constructor opens a model"

ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        # tokenizer and model
        "tokenizer": _TOKENIZER,
        "processor": _TOKENIZER,
        "get_sentence_features": "encoder.preprocess returns padded tensors",
        "smart_batching_collate": _TRAINING,
        "transformers_model": "layertap.hf.AutoModel.from_pretrained opens the model with the calls of transformers",
        "config": "encoder.extractor.provenance() describes the model",
        "model_type": "encoder.extractor.provenance() describes the model",
        "dtype": "encoder.extractor.semantics.precision is the precision of matrix products, and vectors are float32",
        "backend": "encoder.extractor.selection is what runs the model",
        "get_backend": "encoder.extractor.selection is what runs the model",
        "get_model_kwargs": "the keywords of encode are those of its signature",
        "is_singular_input": "encode takes a text (str) or a list of texts",
        "SUPPORTED_SIMILARITY_FN_NAMES": "the names are cosine, dot, euclidean and manhattan",
        "set_pooling_include_prompt": "the folder of the model says whether tokens of the prompt are pooled",
        # several processes
        "encode_multi_process": _POOL,
        "start_multi_process_pool": _POOL,
        "stop_multi_process_pool": _POOL,
        # training
        "fit": _TRAINING,
        "old_fit": _TRAINING,
        "gradient_checkpointing_enable": _TRAINING,
        "model_card_data_class": "encoder.model_card_data has what evaluators need",
        # files
        "save": _SAVING,
        "save_pretrained": _SAVING,
        "save_to_hub": f"{_SAVING}, which `hf upload` uploads",
        "push_to_hub": f"{_SAVING}, which `hf upload` uploads",
        "load": _LOADING,
        "module_kwargs": _MODULES,
        "trust_remote_code": "layertap never runs code that comes with a model",
        "default_huggingface_organization": "name the model with its organization",
        "merge": "an encoder has one model; weights are not averaged",
        # adapters
        "active_adapter": _ADAPTERS,
        "active_adapters": _ADAPTERS,
        "add_adapter": _ADAPTERS,
        "check_peft_compatible_model": _ADAPTERS,
        "delete_adapter": _ADAPTERS,
        "disable_adapters": _ADAPTERS,
        "enable_adapters": _ADAPTERS,
        "get_adapter_state_dict": _ADAPTERS,
        "has_peft_compatible_model": _ADAPTERS,
        "load_adapter": _ADAPTERS,
        "set_adapter": _ADAPTERS,
        # devices and precisions
        "to": _DEVICE,
        "cpu": _DEVICE,
        "cuda": _DEVICE,
        "ipu": _DEVICE,
        "mtia": _DEVICE,
        "xpu": _DEVICE,
        "to_empty": _DEVICE,
        "clear_placement_cache": _DEVICE,
        "is_hpu_graph_enabled": "layertap runs on processors and CUDA devices",
        "bfloat16": _PRECISION,
        "double": _PRECISION,
        "float": _PRECISION,
        "half": _PRECISION,
        "type": _PRECISION,
        # a list of modules
        "append": _MODULES,
        "extend": _MODULES,
        "insert": _MODULES,
        "pop": _MODULES,
        # a module
        "T_destination": _MODULE,
        "add_module": _MODULE,
        "apply": _MODULE,
        "buffers": _MODULE,
        "call_super_init": _MODULE,
        "children": _MODULE,
        "compile": _MODULE,
        "dump_patches": _MODULE,
        "extra_repr": _MODULE,
        "forward": _MODULE,
        "get_buffer": _MODULE,
        "get_extra_state": _MODULE,
        "get_parameter": _MODULE,
        "get_submodule": _MODULE,
        "load_state_dict": _MODULE,
        "modules": _MODULE,
        "named_buffers": _MODULE,
        "named_children": _MODULE,
        "named_modules": _MODULE,
        "named_parameters": _MODULE,
        "parameters": _MODULE,
        "register_backward_hook": _MODULE,
        "register_buffer": _MODULE,
        "register_forward_hook": _MODULE,
        "register_forward_pre_hook": _MODULE,
        "register_full_backward_hook": _MODULE,
        "register_full_backward_pre_hook": _MODULE,
        "register_load_state_dict_post_hook": _MODULE,
        "register_load_state_dict_pre_hook": _MODULE,
        "register_module": _MODULE,
        "register_parameter": _MODULE,
        "register_state_dict_post_hook": _MODULE,
        "register_state_dict_pre_hook": _MODULE,
        "requires_grad_": _TRAINING,
        "set_extra_state": _MODULE,
        "set_submodule": _MODULE,
        "share_memory": _MODULE,
        "state_dict": _MODULE,
        "train": _TRAINING,
        "training": _TRAINING,
        "zero_grad": _TRAINING,
    }
)
"""Members of `SentenceTransformer` that do not exist: name -> reason."""
