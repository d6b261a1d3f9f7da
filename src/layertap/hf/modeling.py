"""`BertModel`, `RobertaModel` and related models: the interface of transformers around the packed `Encoder`.

Shape letters: B sequences, S columns of the padded batch, T attended cells, L layers, H hidden size.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, Self

import torch
from torch import Tensor, nn

from layertap.backends.torch.encoder import Encoder, PackedTensors
from layertap.backends.torch.positions import AttentionPositions
from layertap.errors import OptionError
from layertap.files import staged_folder
from layertap.hf.config import (
    BertConfig,
    CamembertConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
    encoder_spec,
)
from layertap.hf.keywords import MODEL_CALL, MODEL_SAVING, refuse_all
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
from layertap.hf.outputs import AbsentPooler, BaseModelOutputWithPoolingAndCrossAttentions, OutputTuple
from layertap.hf.padded import Cells, batch_shape, packed
from layertap.hf.saving import CONFIG_FILE, write_weights
from layertap.models.positions import PositionTable

ModelOutput = BaseModelOutputWithPoolingAndCrossAttentions

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
)
"""Keywords of `from_pretrained`, among which the nearest spelling of an unknown one is suggested."""


CALL_KEYWORDS = (
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "position_ids",
    "inputs_embeds",
    "output_hidden_states",
    "return_dict",
)
"""Keywords of `forward`, among which the nearest spelling of an unknown one is suggested."""


def _refused(name: str, why: str) -> Callable[..., NoReturn]:
    """Create a method that refuses a call, for methods of transformers that layertap does not support."""

    def method(self: nn.Module, *_args: object, **_keywords: object) -> NoReturn:
        raise OptionError(f"{type(self).__name__}.{name} is not supported: {why}")

    method.__doc__ = f"Refused: {why}."
    return method


class PreTrainedModel(nn.Module):
    """Abstract base class of the models: parameters, calls and outputs of transformers, computed on packed rows.

    Args:
        config: config of the model. The weights are random, as transformers initialises them, in torch's default
            dtype.
        add_pooling_layer: whether the model has a pooler, and the outputs a slot for it.
    """

    config_class: ClassVar[type[PretrainedConfig]]
    base_model_prefix: ClassVar[str]

    def __init__(self, config: PretrainedConfig, add_pooling_layer: bool = True) -> None:
        super().__init__()
        if not isinstance(config, self.config_class):
            raise OptionError(
                f"{type(self).__name__}: expected a layertap.hf.{self.config_class.__name__}, found a "
                f"{type(config).__module__}.{type(config).__qualname__}; from_pretrained loads a checkpoint"
            )
        self.config = config
        self._spec = encoder_spec(config)
        self._take(Encoder(self._spec, pooler=add_pooling_layer and self._spec.pooler))
        self._absent_pooler: AbsentPooler | None = None
        self.apply(self._init_weights)

    def _take(self, encoder: Encoder) -> None:
        """Register the modules of a packed encoder under the names of transformers, without a prefix."""
        self.embeddings = encoder.embeddings
        self.encoder: Any = encoder.encoder  # families arrange blocks in their own way
        self.pooler: nn.Module | None = encoder.pooler

    @classmethod
    def _own_name(cls, name: str) -> str:
        """Return the name that a canonical parameter has in this model."""
        return name

    def _blocks(self) -> Sequence[nn.Module] | nn.ModuleList:
        """Modules that run the layers 1..L, in order."""
        layers: nn.ModuleList = self.encoder.layer
        return layers

    def _embed(self, batch: PackedTensors) -> Tensor:
        """Compute hidden state 0, [T, H]: the output of the embeddings."""
        hidden_TH: Tensor = self.embeddings(batch)
        return hidden_TH

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
        return model.eval() if device is None else model.to(device).eval()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise the weights of a module as transformers does: normal, with zeros for biases and padding rows."""
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(0.0, self.config.initializer_range or 0.02)
        if isinstance(module, nn.Linear):
            module.bias.zero_()
        elif isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight[module.padding_idx].zero_()

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

    def num_parameters(self, only_trainable: bool = False, exclude_embeddings: bool = False) -> int:
        """Return the number of parameters."""
        tables = [module.weight for module in self.modules() if isinstance(module, nn.Embedding)]
        skipped = {id(table) for table in tables} if exclude_embeddings else set()
        return sum(
            parameter.numel()
            for parameter in self.parameters()
            if id(parameter) not in skipped and (parameter.requires_grad or not only_trainable)
        )

    def get_input_embeddings(self) -> nn.Module:
        """Return the word embeddings."""
        return self.embeddings.word_embeddings

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the word embeddings."""
        self.embeddings.word_embeddings = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        *,
        output_hidden_states: bool | int | Sequence[int] | None = None,
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
        refuse_all({"output_attentions": self.config.output_attentions}, MODEL_CALL, ())
        if (input_ids is None) == (inputs_embeds is None):
            raise OptionError("You must specify exactly one of input_ids or inputs_embeds")
        cells = Cells.of(batch_shape(input_ids, inputs_embeds, self._spec.table_size), attention_mask)
        assert isinstance(self._spec.positions, PositionTable), "every family of this door has one"
        if not self._spec.type_vocab_size:
            token_type_ids = None
        batch = packed(
            cells, self.embeddings, self._spec.positions, input_ids, token_type_ids, position_ids, inputs_embeds
        )
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        last = len(self._blocks())
        wanted = selected_states(output_hidden_states, last + 1)
        collected: list[Tensor | None] = []
        pooled = None
        for i, hidden_TH in self._states(batch):
            padded = cells.unpack(hidden_TH) if i == last or i in wanted else None
            collected.append(padded if i in wanted else None)
            if i == last:
                pooled = self._pool(cells, hidden_TH)
        outputs = ModelOutput(
            (
                ("last_hidden_state", padded),
                ("pooler_output", pooled),
                ("hidden_states", tuple(collected) if wanted else None),
            )
        )
        as_dict = self.config.return_dict if return_dict is None else return_dict
        return outputs.to_tuple() if as_dict is False else outputs

    def _states(self, batch: PackedTensors) -> Iterator[tuple[int, Tensor]]:
        """Yield (i, `hidden_states[i]` [T, H]) for i in 0..L."""
        hidden_TH = self._embed(batch)
        yield 0, hidden_TH
        positions = AttentionPositions(layout=batch.layout)
        for i, block in enumerate(self._blocks(), start=1):
            # a batch without any attended cell has no sequence to run: all its states are the empty [0, H]
            hidden_TH = block(hidden_TH, positions) if batch.layout.lengths else hidden_TH
            yield i, hidden_TH

    def _pool(self, cells: Cells, last_TH: Tensor) -> Tensor | AbsentPooler | None:
        if self.pooler is None:
            return self._absent_pooler
        pooled_BH: Tensor = cells.spread(self._head(cells.first_rows(last_TH)))
        return pooled_BH

    def _head(self, first_nH: Tensor) -> Tensor:
        """Apply the pooler to the last hidden states of first tokens, [n, H]."""
        assert self.pooler is not None
        pooled_nH: Tensor = self.pooler(first_nH)
        return pooled_nH

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

    def resize_token_embeddings(self, new_num_tokens: int | None = None) -> nn.Module:
        """Return the word embeddings; sizes other than the current one are refused."""
        table = self.embeddings.word_embeddings
        if new_num_tokens not in (None, table.num_embeddings):
            raise OptionError(
                f"resize_token_embeddings: the word table has {table.num_embeddings} rows and cannot become "
                f"{new_num_tokens}; resize with transformers, save_pretrained, and load the result"
            )
        return table

    gradient_checkpointing_enable = _refused("gradient_checkpointing_enable", "train with smaller batches")
    prune_heads = _refused("prune_heads", "heads cannot be taken out of packed attention")
    push_to_hub = _refused("push_to_hub", "save_pretrained, then upload the folder with `hf upload`")


class BertModel(PreTrainedModel):
    """BERT without a head for a task: https://arxiv.org/abs/1810.04805."""

    config_class = BertConfig
    base_model_prefix = "bert"


class RobertaModel(PreTrainedModel):
    """RoBERTa without a head for a task: https://arxiv.org/abs/1907.11692."""

    config_class = RobertaConfig
    base_model_prefix = "roberta"


class XLMRobertaModel(PreTrainedModel):
    """XLM-R without a head for a task: https://arxiv.org/abs/1911.02116."""

    config_class = XLMRobertaConfig
    base_model_prefix = "roberta"


class CamembertModel(PreTrainedModel):
    """CamemBERT without a head for a task: https://arxiv.org/abs/1911.03894."""

    config_class = CamembertConfig
    base_model_prefix = "roberta"


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
