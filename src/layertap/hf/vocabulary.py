"""Vocabulary of a tokenizer, with the names of transformers: special tokens, conversion and decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tokenizers import AddedToken

from layertap.errors import OptionError
from layertap.hf.absent import TOKENIZER_ATTRIBUTES
from layertap.hf.padding import to_lists
from layertap.keywords import check_absent
from layertap.locks import ForkSafeLock
from layertap.text.settings import NAMED_TOKENS
from layertap.text.tokenizer import TextTokenizer

# What decode cleans up for word-piece vocabularies, in order.
CLEAN_UP = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


CHANGEABLE = ("pad_token", "mask_token")
"""Special tokens that neither the template nor the vocabulary uses."""


OPTIONS: Mapping[str, Any] = {
    "do_lower_case": True,
    "strip_accents": None,
    "tokenize_chinese_chars": True,
    "add_prefix_space": False,
    "split_special_tokens": False,
}
"""Settings that are attributes, with their defaults."""


class Vocabulary:
    """Abstract base class of the tokenizers, with everything that does not depend on a text.

    Attributes:
        bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token: the special tokens, or None; each
            has an id under the name with `_id` (`cls_token_id`). They can be set to other tokens of the vocabulary.
        clean_up_tokenization_spaces: whether decoding removes spaces before punctuation.
    """

    SPECIAL_TOKENS_ATTRIBUTES: ClassVar[tuple[str, ...]] = NAMED_TOKENS
    _lock: ForkSafeLock
    _settings: dict[str, Any]

    def __init__(self, loaded: TextTokenizer, settings: Mapping[str, Any]) -> None:
        self._tokenizer = loaded.backend
        self._special = dict(loaded.special_tokens)
        extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or ()
        self._extra = [content(token) for token in (extra.values() if isinstance(extra, dict) else extra)]
        self.clean_up_tokenization_spaces = bool(settings.get("clean_up_tokenization_spaces", False))

    def __getattr__(self, name: str) -> Any:
        """Return a special token or its id by attribute name."""
        token_name = name.removesuffix("_id")
        if token_name in NAMED_TOKENS:
            token = self._special.get(token_name)
            return token if token is None or name == token_name else self.convert_tokens_to_ids(token)
        if name in OPTIONS and "_settings" in vars(self):
            return self._settings.get(name, OPTIONS[name])
        check_absent(self, name, TOKENIZER_ATTRIBUTES)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        token_name = name.removesuffix("_id")
        if token_name not in NAMED_TOKENS:
            super().__setattr__(name, value)
            return
        token = self.convert_ids_to_tokens(value) if name != token_name and value is not None else value
        if token is None and value is None:
            self._special.pop(token_name, None)
        elif not isinstance(token, str) or self._tokenizer.token_to_id(token) is None:
            raise OptionError(f"{name}: expected a token of the vocabulary, found {value!r}")
        else:
            self._special[token_name] = token

    backend: ClassVar[str] = "tokenizers"

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """Settings of `tokenizer_config.json`, with those given to `from_pretrained`."""
        return dict(self._settings)

    @property
    def backend_tokenizer(self) -> Any:
        """The underlying tokenizer of the `tokenizers` library."""
        return self._tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of tokens in the vocabulary, not counting added ones."""
        return self._tokenizer.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def __bool__(self) -> bool:
        return True

    def get_vocab(self) -> dict[str, int]:
        """Return the id of every token, including added tokens."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    @property
    def vocab(self) -> dict[str, int]:
        """Return the id of every token, including added tokens."""
        return self.get_vocab()

    def get_added_vocab(self) -> dict[str, int]:
        """Return the id of every added token."""
        return {token.content: i for i, token in sorted(self._tokenizer.get_added_tokens_decoder().items())}

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """Added tokens of the `tokenizers` library, by id."""
        return dict(sorted(self._tokenizer.get_added_tokens_decoder().items()))

    @property
    def added_tokens_encoder(self) -> dict[str, int]:
        """Ids of the added tokens."""
        return self.get_added_vocab()

    @property
    def decoder(self) -> Any:
        """Decoder of the `tokenizers` library."""
        return self._tokenizer.decoder

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Add tokens to the vocabulary, and return how many of them are new.

        The model needs rows for them: `model.resize_token_embeddings(len(tokenizer))`.

        Args:
            new_tokens: a token or a list of them, each a `str` or an `AddedToken`.
            special_tokens: whether they are special, so that they are never split or normalised.

        Raises:
            OptionError: a token that is neither, or is empty.
        """
        tokens = [new_tokens] if isinstance(new_tokens, str | AddedToken) else list(new_tokens)
        for token in tokens:
            if not isinstance(token, str | AddedToken) or not content_of(token):
                raise OptionError(f"add_tokens: expected a str or an AddedToken that is not empty, found {token!r:.60}")
        with self._lock:
            add = self._tokenizer.add_special_tokens if special_tokens else self._tokenizer.add_tokens
            return add(tokens)

    def add_special_tokens(
        self, special_tokens_dict: Mapping[str, Any], replace_extra_special_tokens: bool = True
    ) -> int:
        """Add special tokens to the vocabulary, set them by name, and return how many of them are new.

        Args:
            special_tokens_dict: tokens by the name of their attribute (`pad_token`), and lists of others under
                `additional_special_tokens` or `extra_special_tokens`.
            replace_extra_special_tokens: whether the lists replace the other special tokens, or add to them.

        Raises:
            OptionError: a name that is none, or a token that the template uses and that is another one there.
        """
        if not isinstance(special_tokens_dict, Mapping):
            raise OptionError("add_special_tokens: expected a dictionary, as {'additional_special_tokens': ['[E1]']}")
        added = 0
        for name, given in special_tokens_dict.items():
            if name in ("additional_special_tokens", "extra_special_tokens"):
                tokens = list(given.values() if isinstance(given, Mapping) else given)
                added += self.add_tokens(tokens, special_tokens=True)
                before = [] if replace_extra_special_tokens else self._extra
                self._extra = list(dict.fromkeys([*before, *map(content_of, tokens)]))
            elif name not in NAMED_TOKENS:
                raise OptionError(
                    f"add_special_tokens: {name!r} is not one of {', '.join(NAMED_TOKENS)}, additional_special_tokens"
                )
            elif self._special.get(name) not in (None, content_of(given)) and name not in CHANGEABLE:
                raise OptionError(
                    f"{name}={content_of(given)!r} is not supported: this tokenizer, and the model that was trained "
                    f"with it, has {self._special[name]!r}"
                )
            else:
                added += self.add_tokens(given, special_tokens=True)
                setattr(self, name, content_of(given))
        return added

    @staticmethod
    def clean_up_tokenization(out_string: str) -> str:
        """Remove the spaces before punctuation that decoded word pieces have."""
        for spaced, joined in CLEAN_UP:
            out_string = out_string.replace(spaced, joined)
        return out_string

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """Special tokens by name, for example `cls_token`."""
        return {name: self._special[name] for name in NAMED_TOKENS if name in self._special}

    @property
    def all_special_tokens(self) -> list[str]:
        """List of the special tokens, each of them once."""
        return list(dict.fromkeys([*self.special_tokens_map.values(), *self._extra]))

    @property
    def all_special_ids(self) -> list[int]:
        """List of the ids of `all_special_tokens`."""
        return [self.convert_tokens_to_ids(token) for token in self.all_special_tokens]

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """Return the number of tokens that the template adds to a text, or to a pair."""
        return self._tokenizer.num_special_tokens_to_add(pair)

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """Return 1 for each id that is a special token, else 0."""
        if not already_has_special_tokens or token_ids_1 is not None:
            raise OptionError("get_special_tokens_mask: needs already_has_special_tokens=True and one list of ids")
        special = set(self.all_special_ids)
        return [int(int(i) in special) for i in token_ids_0]

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """Return the id of a token, or of each token of a list; unknown tokens have the id of `unk_token`."""
        if isinstance(tokens, str):
            token_id = self._tokenizer.token_to_id(tokens)
            unknown = self._special.get("unk_token")
            return self._tokenizer.token_to_id(unknown) if token_id is None and unknown is not None else token_id
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """Return the token of an id, or of each id of a list."""
        ids = to_lists(ids)
        if isinstance(ids, int):
            return self._tokenizer.id_to_token(ids)
        skipped = set(self.all_special_ids) if skip_special_tokens else set()
        return [self._tokenizer.id_to_token(int(i)) for i in ids if int(i) not in skipped]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join tokens to a text."""
        decoder = self._tokenizer.decoder
        return " ".join(tokens) if decoder is None else decoder.decode(tokens)

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> Any:
        """Decode ids [T] to a text, or ids [B, T] to a list of texts."""
        ids = to_lists(token_ids)
        if isinstance(ids, list) and ids and isinstance(ids[0], list):
            return [self.decode(row, skip_special_tokens, clean_up_tokenization_spaces) for row in ids]
        text = self._tokenizer.decode([ids] if isinstance(ids, int) else ids, skip_special_tokens=skip_special_tokens)
        clean_up = (
            self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        )
        # Meant for word pieces: of byte-level tokens it would take spaces that are in the text.
        if clean_up and type(self._tokenizer.model).__name__ != "BPE":
            text = self.clean_up_tokenization(text)
        return text

    def batch_decode(
        self,
        sequences: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> list[str]:
        """Decode each row of ids to a text."""
        texts = self.decode(sequences, skip_special_tokens, clean_up_tokenization_spaces)
        return [texts] if isinstance(texts, str) else texts


def content_of(token: Any) -> str:
    """Return the text of a token that is a `str` or an `AddedToken`."""
    return token.content if isinstance(token, AddedToken) else token


def content(token: Any) -> Any:
    """Return the text of a token in `tokenizer_config.json`, which may be an object with flags."""
    return token.get("content") if isinstance(token, dict) else token
