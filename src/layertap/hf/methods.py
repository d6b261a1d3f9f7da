"""Methods of transformers' `PreTrainedModel` beside loading, running and saving, and those that are refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn, Self

import torch
from torch import Tensor, nn

from layertap.errors import OptionError
from layertap.hf.absent import MODEL_ATTRIBUTES, MODEL_METHODS, refuse_methods
from layertap.hf.attending import added_to_scores
from layertap.hf.config import PretrainedConfig
from layertap.keywords import check_absent

NOISE = 1e-9
"""Covariance of the rows that `resize_token_embeddings` adds, as a share of that of the others, as in transformers."""

RECOMPUTED: Mapping[str, object] = MappingProxyType({"use_reentrant": False, "every_n_layers": 1, "offload": False})
"""Arguments of `activation_checkpointing_enable` that say what is done: all layers are computed again."""


class ModelMethods(nn.Module):
    """Abstract base class of the models, with everything that does not concern their files or their forward pass."""

    config: PretrainedConfig
    embeddings: Any
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _input_grads: Any = None

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def name_or_path(self) -> str:
        """Name or path that the model was loaded from."""
        return self.config.name_or_path

    @property
    def base_model(self) -> Self:
        """The model itself, since it has no head."""
        return self

    @property
    def dummy_inputs(self) -> dict[str, Tensor]:
        """Small batch of ids."""
        return {"input_ids": torch.tensor([[7, 6, 0, 0, 1], [1, 2, 3, 0, 0], [0, 0, 0, 4, 5]])}

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Return the number of parameters."""
        tables = [module.weight for module in self.modules() if isinstance(module, nn.Embedding)]
        skipped = {id(table) for table in tables} if exclude_embeddings else set()
        return sum(
            parameter.numel()
            for parameter in self.parameters()
            if id(parameter) not in skipped and (parameter.requires_grad or not only_trainable)
        )

    def get_memory_footprint(self, return_buffers: bool = True) -> int:
        """Return the bytes of the parameters, and of the buffers unless they are left out."""
        values: list[Tensor] = [*self.parameters(), *(self.buffers() if return_buffers else ())]
        return sum(value.nelement() * value.element_size() for value in values)

    def get_parameter_or_buffer(self, target: str) -> Tensor:
        """Return the parameter or buffer with a dotted name."""
        try:
            return self.get_parameter(target)
        except AttributeError:
            return self.get_buffer(target)

    def named_non_persistent_buffers(
        self, recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterable[tuple[str, Tensor]]:
        """Yield the buffers that no checkpoint stores, with their names."""
        for name, buffer in self.named_buffers(recurse=recurse, remove_duplicate=remove_duplicate):
            owner, _, last = name.rpartition(".")
            if last in self.get_submodule(owner)._non_persistent_buffers_set:
                yield name, buffer

    def _num_layers(self) -> int:
        """Return the number of layers that run, L."""
        layers = getattr(self.get_encoder(), "layer", None)
        return len(layers) if isinstance(layers, nn.ModuleList) else self.config.num_hidden_layers

    def get_encoder(self, modality: str | None = None) -> nn.Module:
        """Return the stack of layers."""
        if modality is not None:
            raise OptionError(f"get_encoder: modality={modality!r} is not supported: layertap runs encoders of texts")
        modules = self._modules
        encoder = modules["encoder"] if "encoder" in modules else modules.get("transformer")
        assert encoder is not None, "every model of this room has one"
        return encoder

    def get_input_embeddings(self) -> nn.Module:
        """Return the word embeddings."""
        words: nn.Module = self.embeddings.word_embeddings
        return words

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the word embeddings."""
        self.embeddings.word_embeddings = value

    def get_output_embeddings(self) -> None:
        """Return None, since there is no language-model head."""

    def get_position_embeddings(self) -> nn.Embedding:
        """Return the position embeddings."""
        table: nn.Embedding = self.embeddings.position_embeddings
        return table

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> nn.Module:
        """Change the number of rows of the word embeddings, in place.

        Args:
            new_num_tokens: number of rows; None keeps it.
            pad_to_multiple_of: number of which the new number of rows is a multiple.
            mean_resizing: whether new rows are near the mean of the others, as in transformers; otherwise they are
                drawn as for random weights.

        Raises:
            OptionError: the word embeddings are not an `nn.Embedding`, or a number is not positive.
        """
        table = self.embeddings.word_embeddings
        if not isinstance(table, nn.Embedding):
            raise OptionError(f"resize_token_embeddings: the word embeddings are a {type(table).__name__}; resize that")
        old = table.num_embeddings
        wanted = old if new_num_tokens is None else new_num_tokens
        if wanted < 1 or (pad_to_multiple_of is not None and pad_to_multiple_of < 1):
            raise OptionError(f"resize_token_embeddings: expected positive numbers, found {wanted}")
        if pad_to_multiple_of is not None:
            wanted = -(-wanted // pad_to_multiple_of) * pad_to_multiple_of
        if wanted != old:
            with torch.no_grad():
                weight = _resized(table.weight, wanted, mean_resizing, self.config.initializer_range or 0.02)
            table.weight = nn.Parameter(weight, requires_grad=table.weight.requires_grad)
            table.num_embeddings = wanted
            if table.padding_idx is not None and table.padding_idx >= wanted:
                table.padding_idx = None
        self.config.vocab_size = wanted
        return table

    def get_extended_attention_mask(
        self,
        attention_mask: Tensor,
        input_shape: object = None,  # noqa: ARG002 - as in transformers, where callers pass it
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Return a mask [B, S] (or [B, S, S]) as the parts of the model take it: [B, 1, 1 or S, S], added to scores.

        Args:
            attention_mask: 0 where nothing attends.
            input_shape: not needed; it has the place that it has in transformers.
            dtype: dtype of the result; None takes that of the weights.
        """
        if attention_mask.ndim not in (2, 3):
            raise OptionError(f"attention_mask: expected [batch, sequence], found {list(attention_mask.shape)}")
        attended = attention_mask[:, None, None, :] if attention_mask.ndim == 2 else attention_mask[:, None]
        return added_to_scores(attended != 0, dtype or self.dtype)

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Choose "sdpa" or "eager", which lets hooks see attention probabilities."""
        self.config.set_attention(attn_implementation)

    def activation_checkpointing_enable(
        self,
        activation_checkpointing_kwargs: Mapping[str, object] | None = None,
        every_n_layers: int = 1,
        offload: bool = False,
    ) -> None:
        """Compute the layers again in the backward pass, in training, instead of keeping what they computed.

        Args:
            activation_checkpointing_kwargs: `{"use_reentrant": False}`, which is what is done, or None.
            every_n_layers: 1, for every layer.
            offload: False.

        Raises:
            OptionError: an argument has another value.
        """
        asked: dict[str, object] = {"every_n_layers": every_n_layers, "offload": offload}
        for name, value in (asked | dict(activation_checkpointing_kwargs or {})).items():
            if name not in RECOMPUTED or value != RECOMPUTED[name]:
                raise OptionError(
                    f"{name}={value!r} is not supported: all layers are computed again, on their own device, with "
                    "use_reentrant=False"
                )
        self._set_checkpointing(True)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: Mapping[str, object] | None = None, **keywords: Any
    ) -> None:
        """Call `activation_checkpointing_enable`, by its older name."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **keywords)

    def gradient_checkpointing_disable(self) -> None:
        """Keep what layers compute for the backward pass, which is the default."""
        self._set_checkpointing(False)

    def _set_checkpointing(self, on: bool) -> None:
        encoder: Any = self.get_encoder()
        encoder.gradient_checkpointing = on

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether layers are computed again in the backward pass."""
        return self.is_gradient_checkpointing

    @property
    def is_gradient_checkpointing(self) -> bool:
        """Whether layers are computed again in the backward pass."""
        return bool(getattr(self.get_encoder(), "gradient_checkpointing", False))

    activation_checkpointing_disable = gradient_checkpointing_disable
    is_activation_checkpointing = is_gradient_checkpointing

    def enable_input_require_grads(self) -> None:
        """Let gradients reach the output of the word embeddings even if these are frozen."""
        self.disable_input_require_grads()
        words = self.get_input_embeddings()
        self._input_grads = words.register_forward_hook(lambda _module, _inputs, output: output.requires_grad_(True))

    def disable_input_require_grads(self) -> None:
        """Undo the effect of `enable_input_require_grads`."""
        if self._input_grads is not None:
            self._input_grads.remove()
            self._input_grads = None

    def retrieve_modules_from_names(
        self, names: Iterable[str], add_prefix: bool = False, remove_prefix: bool = False
    ) -> list[nn.Module]:
        """Return the modules that own parameters with these names."""
        prefix = f"{self.base_model_prefix}."
        owners = {name.rpartition(".")[0] for name in names}
        modules = []
        for name, module in self.named_modules():
            shown = (prefix + name).rstrip(".") if add_prefix else name
            if (shown.removeprefix(prefix) if remove_prefix else shown) in owners:
                modules.append(module)
        return modules

    @classmethod
    def can_generate(cls) -> bool:
        """Return False: encoders do not generate."""
        return False

    def tie_weights(self, **_keywords: object) -> None:
        """Do nothing: there is no head whose weights could be tied."""

    def init_weights(self) -> None:
        """Draw random weights anew, as transformers initialises them."""
        self.apply(self._init_weights)

    initialize_weights = init_weights

    def post_init(self) -> None:
        """Do nothing: the constructor of a model has finished everything when a subclass calls this."""

    def warn_if_padding_and_no_attention_mask(self, input_ids: Tensor, attention_mask: Tensor | None) -> None:
        """Warn if ids begin or end with padding and there is no mask."""
        pad = self.config.pad_token_id
        if attention_mask is None and pad is not None and bool((input_ids[:, [0, -1]] == pad).any()):
            import warnings

            warnings.warn(
                "the input holds padding and there is no attention_mask, so that padding is attended; pass the "
                "attention_mask of the tokenizer",
                UserWarning,
                stacklevel=2,
            )

    def _init_weights(self, module: nn.Module) -> None:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        check_absent(self, name, MODEL_ATTRIBUTES)
        return super().__getattr__(name)

    def __prepare_scriptable__(self) -> NoReturn:
        """Refuse `torch.jit.script`, which calls this first."""
        raise OptionError(
            f"{type(self).__name__}: torch.jit.script is not supported; use torch.export.export or torch.compile"
        )


refuse_methods(ModelMethods, MODEL_METHODS)


def _resized(weight: Tensor, rows: int, near_mean: bool, spread: float) -> Tensor:
    """Return a table with another number of rows."""
    old = len(weight)
    if rows <= old:
        return weight[:rows].clone()
    added = weight.new_empty(rows - old, weight.shape[1], dtype=torch.float32)
    if near_mean:
        wide = weight.float()
        centred = wide - wide.mean(0)
        noise = torch.randn(rows - old, old, device=weight.device) @ centred * (NOISE / old) ** 0.5
        added.copy_(wide.mean(0) + noise)
    else:
        added.normal_(0.0, spread)
    return torch.cat([weight, added.to(weight.dtype)])
