"""Tokenizers with the interface of transformers, around the `tokenizers` library.

The ids come from `text.TextTokenizer` and equal those of transformers; this module adds calls, padding and truncation.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

from layertap.errors import OptionError
from layertap.files import make_folder, scratch_folder, staged_folder, write_file
from layertap.hf.absent import TOKENIZER_METHODS, refuse_methods
from layertap.hf.encoding import BatchEncoding
from layertap.hf.keywords import TOKENIZER_CALL, TOKENIZER_LOADING, TOKENIZER_SAVING, refuse_all
from layertap.hf.padding import (
    Lengths,
    encode_batch,
    pad_rows,
    resolve_lengths,
    tensor_type,
    text_inputs,
    to_lists,
)
from layertap.hf.tokenizer_files import (
    ALBERT_OPTIONS,
    BERT_OPTIONS,
    ROBERTA_OPTIONS,
    check_class,
    open_tokenizer,
    set_options,
)
from layertap.hf.vocabulary import CHANGEABLE, Vocabulary, content
from layertap.locks import ForkSafeLock
from layertap.text.build import TOKENIZER_FILE
from layertap.text.settings import CONFIG_FILE as SETTINGS_FILE
from layertap.text.settings import NAMED_TOKENS
from layertap.text.tokenizer import TextTokenizer

UNLIMITED = int(1e30)
"""Value of `model_max_length` if the files state none, as in transformers."""

SETTINGS = (
    "model_max_length",
    "padding_side",
    "truncation_side",
    "clean_up_tokenization_spaces",
    "model_input_names",
    *BERT_OPTIONS,
    *ROBERTA_OPTIONS,
    *ALBERT_OPTIONS,
    *NAMED_TOKENS,
)
"""Settings that `from_pretrained` accepts instead of those of `tokenizer_config.json`."""


COLUMNS = {
    "input_ids": "ids",
    "token_type_ids": "type_ids",
    "attention_mask": "attention_mask",
    "special_tokens_mask": "special_tokens_mask",
    "offset_mapping": "offsets",
}
"""Entries of a result and the attributes of `tokenizers.Encoding` they come from, in the order of transformers."""


class PreTrainedTokenizer(Vocabulary):
    """Abstract base class of the tokenizers, created by `from_pretrained`; several threads may share one.

    Attributes:
        name_or_path: name or path that the tokenizer was loaded from.
        model_max_length: limit of `tokenizer_config.json`, or 10**30 if there is none.
        padding_side, truncation_side: "left" or "right".
        model_input_names: entries that a call returns by default.
    """

    input_names: ClassVar[tuple[str, ...]] = ("input_ids", "token_type_ids", "attention_mask")
    is_fast: ClassVar[bool] = True

    def __init__(
        self, loaded: TextTokenizer, *, settings: Mapping[str, Any] | None = None, name_or_path: str = ""
    ) -> None:
        if not isinstance(loaded, TextTokenizer):
            raise OptionError(f"{type(self).__name__}: use {type(self).__name__}.from_pretrained(folder)")
        self._settings = dict(loaded.settings if settings is None else settings)
        super().__init__(loaded, self._settings)
        self._lock = ForkSafeLock()
        self.name_or_path = name_or_path
        limit = self._settings.get("model_max_length", self._settings.get("max_len"))
        self.model_max_length: int = UNLIMITED if limit is None else limit
        self.padding_side = _side("padding_side", self._settings.get("padding_side", "right"))
        self.truncation_side = _side("truncation_side", self._settings.get("truncation_side", "right"))
        self.model_input_names = list(self._settings.get("model_input_names", self.input_names))
        self.pad_token_type_id = 0

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **keywords: Any,
    ) -> Self:
        """Load a tokenizer from a folder or hub id.

        Args:
            pretrained_model_name_or_path: a folder, a hub id, or the default model's name.
            cache_dir, local_files_only, revision: as in `huggingface_hub`.
            keywords: settings that replace those of `tokenizer_config.json` (`model_max_length`, `padding_side`,
                `do_lower_case`, `add_prefix_space`, special tokens, ...); other keywords of transformers are refused by
                name.

        Raises:
            ModelNotFoundError, TokenizerError: the files are missing, damaged, or belong to another class.
            OptionError: a keyword is not supported or unknown.
        """
        class_name, loaded = open_tokenizer(
            pretrained_model_name_or_path,
            fallback=cls.__name__,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            revision=revision,
        )
        check_class(cls.__name__, class_name, pretrained_model_name_or_path)
        return cls.of(loaded, str(pretrained_model_name_or_path), keywords)

    @classmethod
    def of(cls, loaded: TextTokenizer, name_or_path: str, keywords: Mapping[str, Any]) -> Self:
        """Create a tokenizer from a loaded `TextTokenizer`, which must not be used elsewhere afterwards."""
        given = {"model_max_length" if name == "max_len" else name: value for name, value in keywords.items()}
        others = {name: value for name, value in given.items() if name not in SETTINGS}
        refuse_all(others, TOKENIZER_LOADING, (*SETTINGS, "cache_dir", "local_files_only", "revision"))
        for name in others:
            del given[name]
        for name in NAMED_TOKENS:
            if name in given:
                given[name] = getattr(given[name], "content", given[name])  # an AddedToken
                if name not in CHANGEABLE and given[name] != loaded.special_tokens.get(name):
                    raise OptionError(
                        f"{name}={given[name]!r} is not supported: this tokenizer, and the model that was trained "
                        f"with it, has {loaded.special_tokens.get(name)!r}"
                    )
        settings = {**loaded.settings, **given}
        set_options(loaded.backend, settings, given, class_name=cls.__name__)
        made = cls(loaded, settings=settings, name_or_path=name_or_path)
        for name in NAMED_TOKENS:
            if name in given:
                setattr(made, name, given[name])
        return made

    def __call__(
        self,
        text: str | Sequence[Any],
        text_pair: str | Sequence[Any] | None = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        **keywords: Any,
    ) -> BatchEncoding:
        """Encode a text, a list of texts, or pairs of texts; the arguments are those of transformers.

        Args:
            text: a text, a list of texts, or a list of (text, text) pairs; with `is_split_into_words`, each text is a
                list of words.
            text_pair: the second texts of pairs.
            add_special_tokens: whether to add the special tokens of the template (`[CLS]`, `[SEP]`), even if the text
                contains them already.
            padding: True or "longest", "max_length", or False.
            truncation: True or "longest_first", "only_first", "only_second", or False; None truncates only if
                `max_length` is given.
            max_length: tokens per row, including special tokens; None takes `model_max_length`.
            stride: number of tokens that overflowing rows repeat.
            is_split_into_words: whether each text is a list of words.
            pad_to_multiple_of: number of which padded lengths are multiples.
            padding_side: side to pad; None takes that of the tokenizer.
            return_tensors: "pt", "np", or None for lists.
            return_token_type_ids, return_attention_mask: whether to return them; None follows `model_input_names`.
            return_overflowing_tokens: whether truncated tokens become further rows, with
                `overflow_to_sample_mapping`.
            return_special_tokens_mask, return_offsets_mapping, return_length: whether to return these entries.
            verbose: whether to warn.
            keywords: other keywords of transformers, which are refused by name.

        Raises:
            OptionError: an argument has an invalid value, or an input is not a text.
        """
        refuse_all(keywords, TOKENIZER_CALL, CALL_KEYWORDS)
        lengths = self._lengths(padding, truncation, max_length, pad_to_multiple_of, verbose)
        inputs, is_batch = text_inputs(text, text_pair, is_split_into_words)
        with self._lock:  # the backend carries truncation and padding as state
            encodings = encode_batch(
                self._tokenizer,
                inputs,
                lengths,
                truncation_side=self.truncation_side,
                stride=stride,
                pad_with={
                    "direction": _side("padding_side", padding_side or self.padding_side),
                    "pad_id": self.pad_token_id,
                    "pad_token": self.pad_token,
                    "pad_type_id": self.pad_token_type_id,
                },
                add_special_tokens=add_special_tokens,
                is_pretokenized=is_split_into_words,
            )
        rows = [
            (i, row)
            for i, encoding in enumerate(encodings)
            for row in ([encoding, *encoding.overflowing] if return_overflowing_tokens else [encoding])
        ]
        wanted = {
            "input_ids": True,
            "token_type_ids": self._wants("token_type_ids", return_token_type_ids),
            "attention_mask": self._wants("attention_mask", return_attention_mask),
            "special_tokens_mask": return_special_tokens_mask,
            "offset_mapping": return_offsets_mapping,
        }
        data: dict[str, Any] = {
            name: [getattr(row, attribute) for _, row in rows] for name, attribute in COLUMNS.items() if wanted[name]
        }
        if return_length:
            data["length"] = [len(row) for _, row in rows]
        if return_overflowing_tokens:
            data["overflow_to_sample_mapping"] = [i for i, _ in rows]
        elif not is_batch and return_tensors is None:
            data = {name: value[0] if isinstance(value[0], list) else value for name, value in data.items()}
        return BatchEncoding(data, [row for _, row in rows], return_tensors)

    encode_plus = __call__
    batch_encode_plus = __call__

    def _wants(self, name: str, asked: bool | None) -> bool:
        return name in self.model_input_names if asked is None else asked

    def _lengths(
        self, padding: Any, truncation: Any, max_length: int | None, multiple: int | None, verbose: bool
    ) -> Lengths:
        lengths = resolve_lengths(
            padding,
            truncation,
            max_length,
            model_max_length=self.model_max_length,
            pad_to_multiple_of=multiple,
            warn=verbose,
        )
        if lengths.pad and self.pad_token is None:
            raise OptionError(
                "padding: this tokenizer has no pad_token; set one, as tokenizer.pad_token = tokenizer.eos_token"
            )
        return lengths

    def encode(self, text: str | Sequence[str], text_pair: str | Sequence[str] | None = None, **keywords: Any) -> Any:
        """Return the `input_ids` of a call with these arguments."""
        return self(text, text_pair, **keywords)["input_ids"]

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **keywords: Any
    ) -> list[str]:
        """Return the tokens of a text, by default without the special tokens of the template."""
        return self(text, pair, add_special_tokens=add_special_tokens, **keywords).tokens()

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Pad rows that are already encoded, as data collators do.

        Args:
            encoded_inputs: one encoding, a batch of them, or a list of encodings.
            padding, max_length, pad_to_multiple_of, padding_side, return_tensors: as in a call.
            return_attention_mask: whether to return the mask; None follows `model_input_names`.
            verbose: whether to warn.
        """
        if isinstance(encoded_inputs, Mapping):
            rows: dict[str, Any] = dict(encoded_inputs)
        else:
            rows = {name: [one[name] for one in encoded_inputs] for name in encoded_inputs[0]}
        if "input_ids" not in rows:
            raise OptionError(f"pad: expected an encoding with input_ids, found {', '.join(rows)}")
        if return_tensors is None:
            return_tensors = tensor_type(rows["input_ids"])
        rows = {name: to_lists(value) for name, value in rows.items()}
        single = bool(rows["input_ids"]) and not isinstance(rows["input_ids"][0], list)
        if single:
            rows = {name: [value] for name, value in rows.items()}
        if "attention_mask" not in rows and self._wants("attention_mask", return_attention_mask):
            rows["attention_mask"] = [[1] * len(ids) for ids in rows["input_ids"]]
        fills = {
            "input_ids": self.pad_token_id,
            "token_type_ids": self.pad_token_type_id,
            "attention_mask": 0,
            "special_tokens_mask": 1,
        }
        lengths = self._lengths(padding, None, max_length, pad_to_multiple_of, verbose)
        padded = pad_rows(rows, lengths, fills, left=_side("padding_side", padding_side or self.padding_side) == "left")
        return BatchEncoding(
            {name: value[0] for name, value in padded.items()} if single else padded, None, return_tensors
        )

    @property
    def max_len_single_sentence(self) -> int:
        """Number of tokens a single text can have, not counting special tokens."""
        return self.model_max_length - self.num_special_tokens_to_add()

    @property
    def max_len_sentences_pair(self) -> int:
        """Number of tokens a pair can have, not counting special tokens."""
        return self.model_max_length - self.num_special_tokens_to_add(pair=True)

    def save_vocabulary(
        self, save_directory: str | os.PathLike[str], filename_prefix: str | None = None
    ) -> tuple[str, ...]:
        """Write the files of the vocabulary alone, as the `tokenizers` library does (`vocab.txt`, `merges.txt`)."""
        folder = Path(save_directory)
        make_folder(folder)
        with scratch_folder(None, "layertap-vocabulary") as scratch:
            with self._lock:
                made = [Path(file) for file in self._tokenizer.model.save(str(scratch), filename_prefix)]
            for file in made:
                write_file(folder / file.name, file.read_bytes(), overwrite=True)
        return tuple(str(folder / file.name) for file in made)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **keywords: Any) -> tuple[str, ...]:
        """Write `tokenizer.json` and `tokenizer_config.json`, which transformers and layertap can load.

        The two files appear together: if one of them cannot be written, the folder is left unchanged. Other files in it
        are never touched.

        Raises:
            OptionError: a keyword of transformers that layertap does not support.
            OutputError: the folder cannot be written.
        """
        refuse_all(keywords, TOKENIZER_SAVING, ())
        folder = Path(save_directory)
        settings = {
            **self._settings,
            "model_max_length": self.model_max_length,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "tokenizer_class": type(self).__name__,
        }
        settings.pop("name_or_path", None)
        for name in NAMED_TOKENS:
            token = self._special.get(name)
            # An entry with flags (lstrip, ...) is kept as long as it names the same token.
            if token is None:
                settings.pop(name, None)
            elif content(settings.get(name)) != token:
                settings[name] = token
        with self._lock:
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            text = self._tokenizer.to_str(pretty=True)
        with staged_folder(folder, first=TOKENIZER_FILE, overwrite=True) as staged:
            staged.write(TOKENIZER_FILE, text.encode())
            staged.write(SETTINGS_FILE, (json.dumps(settings, indent=2, ensure_ascii=False) + "\n").encode())
        return (str(folder / SETTINGS_FILE), str(folder / TOKENIZER_FILE))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=ForkSafeLock())

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(name_or_path={self.name_or_path!r}, vocab_size={self.vocab_size}, "
            f"model_max_length={self.model_max_length}, padding_side={self.padding_side!r}, "
            f"special_tokens={self.special_tokens_map})"
        )


refuse_methods(PreTrainedTokenizer, TOKENIZER_METHODS)

CALL_KEYWORDS = tuple(PreTrainedTokenizer.__call__.__kwdefaults__ or ())


class BertTokenizer(PreTrainedTokenizer):
    """WordPiece tokenizer with `[CLS]` and `[SEP]`."""


class RobertaTokenizer(PreTrainedTokenizer):
    """Byte-level BPE tokenizer with `<s>` and `</s>`."""

    input_names = ("input_ids", "attention_mask")


class XLMRobertaTokenizer(PreTrainedTokenizer):
    """SentencePiece tokenizer with `<s>` and `</s>`."""

    input_names = ("input_ids", "attention_mask")


class CamembertTokenizer(PreTrainedTokenizer):
    """SentencePiece tokenizer with `<s>` and `</s>`."""

    input_names = ("input_ids", "attention_mask")


class MPNetTokenizer(PreTrainedTokenizer):
    """WordPiece tokenizer with `<s>` and `</s>`."""

    input_names = ("input_ids", "attention_mask")


class DistilBertTokenizer(PreTrainedTokenizer):
    """WordPiece tokenizer with `[CLS]` and `[SEP]`, without token types."""

    input_names = ("input_ids", "attention_mask")


class AlbertTokenizer(PreTrainedTokenizer):
    """SentencePiece tokenizer with `[CLS]` and `[SEP]`."""

    input_names = ("input_ids", "attention_mask")


class PreTrainedTokenizerFast(PreTrainedTokenizer):
    """Tokenizer of any `tokenizer.json`, used unchanged."""


TOKENIZER_CLASSES: Mapping[str, type[PreTrainedTokenizer]] = MappingProxyType(
    {
        one.__name__: one
        for one in (
            BertTokenizer,
            RobertaTokenizer,
            XLMRobertaTokenizer,
            CamembertTokenizer,
            MPNetTokenizer,
            DistilBertTokenizer,
            AlbertTokenizer,
            PreTrainedTokenizerFast,
        )
    }
)


def _side(name: str, side: Any) -> Any:
    if side not in ("left", "right"):
        raise OptionError(f"{name}: expected 'left' or 'right', found {side!r}")
    return side
