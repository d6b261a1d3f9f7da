"""`PreTrainedModel` and `BertModel`: the interface of transformers around parts that run packed rows.

A call packs its batch, unless someone looks at the parts of the model (`observed`): then it runs padded, so that hooks
and replaced modules see what they see in transformers. The outputs are the same.

Shape letters: B sequences, S columns of the padded batch, T attended cells, L layers, H hidden size.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from types import MethodType
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from layertap.backends.torch.positions import AttentionPositions
from layertap.errors import OptionError
from layertap.files import staged_folder
from layertap.hf.attending import Mask, mask_of
from layertap.hf.config import BertConfig, PretrainedConfig, encoder_spec
from layertap.hf.keywords import MODEL_CALL, MODEL_SAVING, refuse_all
from layertap.hf.layers import Embeddings, ModelOutput, Pooler, Stack
from layertap.hf.loading import (
    ABSENT,
    DtypeLike,
    config_for,
    device_of,
    open_files,
    pooler_to_build,
    read_weights,
    resolve_dtype,
)
from layertap.hf.methods import ModelMethods
from layertap.hf.observed import is_plain, is_traced, refuse_tracing
from layertap.hf.outputs import AbsentPooler, OutputTuple
from layertap.hf.padded import (
    Cells,
    batch_shape,
    broadcast,
    check_shapes,
    default_positions,
    with_first_attended,
    without_masked,
)
from layertap.hf.saving import CONFIG_FILE, write_weights
from layertap.models.positions import PositionTable
from layertap.models.spec import EncoderSpec

LOADING_KEYWORDS = (
    "config",
    "cache_dir",
    "local_files_only",
    "revision",
    "dtype",
    "torch_dtype",
    "device_map",
    "use_safetensors",
    "allow_pickle",
    "add_pooling_layer",
    "untrained_pooler",
    "attn_implementation",
)
"""Keywords of `from_pretrained`, among which the nearest spelling of an unknown one is suggested."""


CALL_KEYWORDS = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "position_ids",
    "inputs_embeds",
    "output_hidden_states",
    "output_attentions",
    "return_dict",
)
"""Keywords of `forward`, among which the nearest spelling of an unknown one is suggested."""


class PreTrainedModel(ModelMethods):
    """Abstract base class of the models: parameters, calls and outputs of transformers, computed on packed rows.

    Args:
        config: config of the model. The weights are random, as transformers initialises them, in torch's default
            dtype.
        add_pooling_layer: whether the model has a pooler, and the outputs a slot for it.
    """

    config_class: ClassVar[type[PretrainedConfig]]
    base_model_prefix: ClassVar[str]
    can_be_decoder: ClassVar[bool] = True
    """Whether transformers' class has cross-attention, so that its outputs have a slot for it."""

    def __init__(self, config: PretrainedConfig, add_pooling_layer: bool = True) -> None:
        super().__init__()
        if not isinstance(config, self.config_class):
            raise OptionError(
                f"{type(self).__name__}: expected a layertap.hf.{self.config_class.__name__}, found a "
                f"{type(config).__module__}.{type(config).__qualname__}; from_pretrained loads a checkpoint"
            )
        self.config = config
        self._spec = encoder_spec(config)
        self._build(self._spec, pooler=add_pooling_layer and self._spec.pooler)
        self._part_names = tuple(self._modules)
        self._absent_pooler: AbsentPooler | None = None
        self.apply(self._init_weights)
        if getattr(config, "gradient_checkpointing", False):  # a field of old configs; transformers removes it, too
            self.activation_checkpointing_enable()
            del config.gradient_checkpointing

    def _build(self, spec: EncoderSpec, *, pooler: bool) -> None:
        """Make the parts, under the names of transformers."""
        self.embeddings = Embeddings(spec)
        self.encoder: nn.Module = Stack(spec, self.config)
        self.pooler: nn.Module | None = Pooler(spec) if pooler else None

    @classmethod
    def _own_name(cls, name: str) -> str:
        """Return the name that a canonical parameter has in this model."""
        return name

    def _embed(self, **inputs: Any) -> Tensor:
        """Compute the input [B, S, H] of the encoder."""
        hidden: Tensor = self.embeddings(**inputs)
        return hidden

    def _encode(self, hidden: Tensor, mask: Mask, keywords: dict[str, Any]) -> ModelOutput:
        """Run the layers on the output of the embeddings."""
        output: ModelOutput = self.encoder(hidden, attention_mask=mask, **keywords)
        return output

    def _head(self, hidden: Tensor) -> Tensor:
        """Apply the pooler to the first column of last hidden states [B, S, H]."""
        assert self.pooler is not None
        pooled: Tensor = self.pooler(hidden)
        return pooled

    def _is_plain(self) -> bool:
        """Whether the parts are as they were built, and nobody looks at them."""
        known = self.pooler is None or type(self.pooler) in (Pooler, nn.Linear)
        return known and is_plain(self._modules.get(name) for name in self._part_names)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        config: PretrainedConfig | str | os.PathLike[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        dtype: DtypeLike | None = None,
        torch_dtype: DtypeLike | None = None,
        device_map: Any = None,
        use_safetensors: bool | None = None,
        allow_pickle: bool = False,
        add_pooling_layer: bool = True,
        untrained_pooler: Literal["init"] | None = None,
        attn_implementation: str | None = None,
        **keywords: Any,
    ) -> Self:
        """Load a checkpoint; the model is in eval mode.

        Args:
            pretrained_model_name_or_path: a folder, a hub id, or the default model's name.
            config: a config, or the place to read it from, instead of the checkpoint's.
            cache_dir, local_files_only, revision: as in `huggingface_hub`.
            dtype, torch_dtype: dtype of the weights; None or "auto" takes the config's, else the stored one.
            device_map: the single device to load the model to.
            use_safetensors: False allows `pytorch_model.bin` (weights only) if there is no safetensors file.
            allow_pickle: the name that layertap uses elsewhere for `use_safetensors=False`.
            add_pooling_layer: whether the model has a pooler, and the outputs a slot for it.
            untrained_pooler: "init" creates a pooler to be trained if the checkpoint stores none.
            attn_implementation: "sdpa" (the default) or "eager", which lets hooks see attention probabilities.
            keywords: fields of the config to change; other keywords of transformers are refused by name.

        Raises:
            ModelNotFoundError, ConfigError, WeightsError: the checkpoint is missing, damaged, or belongs to another
                family.
            OptionError: a keyword is not supported or unknown.
        """
        files = open_files(
            pretrained_model_name_or_path,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            revision=revision,
            allow_pickle=allow_pickle or use_safetensors is False,
            model_type=cls.config_class.model_type,
        )
        device = device_of(device_map)
        config = config_for(
            files,
            model_class=cls.__name__,
            config_class=cls.config_class,
            config=config,
            keywords=keywords,
            accepted=LOADING_KEYWORDS,
        )
        if attn_implementation is not None:
            config.set_attention(attn_implementation)
        config.dtype = resolve_dtype(torch_dtype if dtype is None else dtype, config, files)
        pooler = pooler_to_build(files, add_pooling_layer=add_pooling_layer, untrained_pooler=untrained_pooler)
        with torch.device("meta"):  # no memory and no random numbers for weights that are about to be read
            model = cls(config, add_pooling_layer=pooler in ("stored", "random"))
        weights = read_weights(files, config, dtype=config.dtype, pooler=pooler == "stored")
        weights = {cls._own_name(name): weight for name, weight in weights.items()}
        model.load_state_dict(weights, strict=pooler != "random", assign=True)
        if pooler == "random":
            assert model.pooler is not None
            model.pooler.to_empty(device="cpu").to(config.dtype).apply(model._init_weights)
        elif pooler == "absent":
            model._absent_pooler = AbsentPooler(ABSENT.format(name=files.checkpoint.name))
        model.embeddings.make_buffers()
        return model.eval() if device is None else model.to(device).eval()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise a module as transformers does: normal weights, zeros for biases and padding rows, norms that
        change nothing, and the buffers of columns.

        Weights on the meta device have no numbers, and torch would import its compiler for them, some seconds.
        """
        if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
            return
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(0.0, self.config.initializer_range or 0.02)
        if isinstance(module, nn.Linear):
            module.bias.zero_()
        elif isinstance(module, nn.LayerNorm):
            module.reset_parameters()
        elif isinstance(make_buffers := getattr(module, "make_buffers", None), MethodType):
            make_buffers()
        elif isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight[module.padding_idx].zero_()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        output_hidden_states: bool | int | Sequence[int] | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **keywords: Any,
    ) -> ModelOutput | OutputTuple:
        """Run the encoder on a padded batch.

        Args:
            input_ids: integers [B, S].
            attention_mask: [B, S], 0 for padding; if None, all cells are attended, including padding.
            token_type_ids: integers [B, S]; None means zeros. Families without token types (DistilBERT) ignore them,
                as in transformers.
            position_ids: integers [B, S], [1, S] or [S]. None counts as transformers does: by column (BERT, so that
                left padding shifts the positions), or from the ids (RoBERTa).
            inputs_embeds: [B, S, E], word embeddings to use instead of `input_ids`.
            output_hidden_states: True for all L + 1 states; an index, or several, for those states alone (the others
                are None); None takes the value of the config.
            output_attentions: whether to return the attention probabilities [B, A, S, S] of each layer; None takes
                the value of the config.
            return_dict: whether to return a dictionary instead of a tuple; None takes the value of the config.
            keywords: other keywords of transformers, which are refused by name unless they have no effect.

        Returns:
            `last_hidden_state` [B, S, H] and `hidden_states`, with zeros in all cells that are masked, and
            `pooler_output` [B, H] if the family has a pooler. The pooler reads the first attended token of each row
            (transformers reads column 0, which is padding in left-padded rows); rows without attended tokens are
            zeros.

        Raises:
            OptionError: the inputs do not fit together, or ask for something that layertap does not compute.
            TokenizerError: an id is beyond the end of its embedding table.
        """
        refuse_all(keywords, MODEL_CALL, CALL_KEYWORDS)
        refuse_tracing(type(self).__name__)
        if (input_ids is None) == (inputs_embeds is None):
            raise OptionError("You must specify exactly one of input_ids or inputs_embeds")
        shape = batch_shape(input_ids, inputs_embeds, self._spec.table_size)
        check_shapes(shape, attention_mask)
        inputs = {
            "input_ids": input_ids,
            "position_ids": broadcast("position_ids", position_ids, shape),
            "inputs_embeds": inputs_embeds,
        }
        if self._spec.type_vocab_size:
            inputs["token_type_ids"] = broadcast("token_type_ids", token_type_ids, shape)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        wanted = selected_states(output_hidden_states, self._num_layers() + 1)
        is_padded = output_attentions or is_traced(input_ids, inputs_embeds, attention_mask) or not self._is_plain()
        run = self._run_padded if is_padded else self._run_packed
        outputs = run(inputs, attention_mask, wanted, bool(output_attentions))
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return outputs.to_tuple() if as_dict is False else outputs

    def _run_packed(
        self, inputs: dict[str, Tensor | None], attended: Tensor | None, wanted: frozenset[int], _: bool
    ) -> ModelOutput:
        """Run the attended cells of a batch, laid end to end."""
        given = inputs["inputs_embeds"] if inputs["input_ids"] is None else inputs["input_ids"]
        assert given is not None
        cells = Cells.of((given.shape[0], given.shape[1]), attended)
        if inputs["position_ids"] is None:
            table = self._spec.positions
            assert isinstance(table, PositionTable), "every family of this room has one"
            positions = default_positions(table, cells.shape, inputs["input_ids"], given.device)
            inputs["position_ids"] = positions.expand(cells.shape)
        packed = {name: None if value is None else cells.pack(value) for name, value in inputs.items()}
        sequences = AttentionPositions(layout=cells.layout)
        encoded = self._encode(self._embed(**packed), sequences, {"output_hidden_states": wanted} if wanted else {})
        last = encoded[0]
        padded = cells.unpack(last)
        pooled: Any = self._absent_pooler
        if self.pooler is not None:
            pooled = cells.spread(self._head(cells.first_rows(last)))
        states = [
            None if state is None else padded if state is last else cells.unpack(state)
            for state in encoded.hidden_states or ()
        ]
        return ModelOutput(
            (
                ("last_hidden_state", padded),
                ("pooler_output", pooled),
                ("hidden_states", tuple(states) if wanted else None),
            )
        )

    def _run_padded(
        self, inputs: dict[str, Tensor | None], attended: Tensor | None, wanted: frozenset[int], attentions: bool
    ) -> ModelOutput:
        """Run a batch with its padding, as transformers does; afterwards the cells that are masked become zeros."""
        hidden = self._embed(**inputs)
        keywords: dict[str, Any] = {"output_hidden_states": wanted} if wanted else {}
        if attentions:
            keywords["output_attentions"] = True
        mask = None
        if attended is not None and (is_traced(hidden, attended) or not bool((attended != 0).all())):
            mask = mask_of(attended, hidden.dtype, eager=attentions or self.config.is_eager)
        encoded = self._encode(hidden, mask, keywords)
        last = encoded[0]
        padded = without_masked(last, attended)
        pooled: Any = self._absent_pooler
        if self.pooler is not None:
            pooled = self._head(with_first_attended(last, attended))
            if attended is not None:
                is_empty = (attended == 0).all(1)
                pooled = pooled.masked_fill(is_empty.view(-1, *[1] * (pooled.ndim - 1)), 0.0)
        states = [
            None if state is None else padded if state is last else without_masked(state, attended)
            for state in (encoded.hidden_states if wanted else None) or ()
        ]
        return ModelOutput(
            (
                ("last_hidden_state", padded),
                ("pooler_output", pooled),
                ("hidden_states", tuple(states) if wanted else None),
                ("attentions", encoded.attentions if attentions else None),
                ("cross_attentions", () if attentions and self.can_be_decoder else None),
            )
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str], **keywords: Any) -> None:
        """Write `model.safetensors` and `config.json`, which transformers and layertap can load.

        The two files appear together: if one of them cannot be written, the folder is left unchanged. Other files in it
        are never touched.

        Raises:
            OptionError: a keyword of transformers that layertap does not support.
            OutputError: the folder cannot be written.
        """
        refuse_all(keywords, MODEL_SAVING, ())
        config = copy.copy(self.config)
        config.architectures = [type(self).__name__]
        config.dtype = self.dtype
        with staged_folder(Path(save_directory), first=CONFIG_FILE, overwrite=True) as folder:
            write_weights(folder, self.state_dict())
            folder.write(CONFIG_FILE, config.to_json_string().encode())
        self.config.architectures, self.config.dtype = config.architectures, config.dtype


class BertModel(PreTrainedModel):
    """BERT without a head for a task: https://arxiv.org/abs/1810.04805."""

    config_class = BertConfig
    base_model_prefix = "bert"


def selected_states(asked: bool | int | Sequence[int] | None, num_states: int) -> frozenset[int]:
    """Return the indices (0..L) of the requested hidden states."""
    if asked is None or isinstance(asked, bool):
        return frozenset(range(num_states)) if asked else frozenset()
    indices = [asked] if isinstance(asked, int) else list(asked)
    for i in indices:
        if not -num_states <= i < num_states:
            raise OptionError(
                f"output_hidden_states: this model has states 0..{num_states - 1} (or -{num_states}..-1), found {i}"
            )
    return frozenset(i % num_states for i in indices)
