"""`TextTokenizer`: many texts -> ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from layertap.errors import TokenizerError, UsageError
from layertap.models.config import short
from layertap.text.encoded import EncodedText

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

# Names of the CLS token where no file tells.
CLS_NAMES = ("[CLS]", "<s>", "<cls>")
SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextTokenizer:
    """A checkpoint's tokenizer. Immutable, and may be called from several threads.

    Attributes:
        backend: the Rust tokenizer, its own truncation and padding off. Changing it is undefined.
        prefix, suffix: ids that the template puts around every text.
        special_tokens: named special tokens, as transformers names them (`cls_token` -> `[CLS]`).
        special_ids: ids of all special tokens.
        unknown: the special token that also stands for unknown words, and its id; empty where there is none.
        cls_index: index of the template's CLS token in every sequence (0; -1: the last), or None: it has none.
        max_id: the largest id that it can emit.
        settings: the parsed `tokenizer_config.json`; empty where there is none.
        files: the files that it was read from.
        notes: what a person should know of how the files were read.
    """

    backend: Tokenizer
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    special_tokens: Mapping[str, str]
    special_ids: frozenset[int]
    unknown: Mapping[str, int]
    cls_index: int | None
    max_id: int
    settings: Mapping[str, Any]
    files: tuple[Path, ...]
    notes: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path, *, model_type: str, tokenizer_class: str | None = None) -> TextTokenizer:
        """Reads the tokenizer of a folder, equal to what transformers' `AutoTokenizer` gives.

        `tokenizer.json` if it is there, else `vocab.txt` (BERT) or `vocab.json` and `merges.txt` (RoBERTa), as
        the tokenizer's class says.

        Args:
            folder: the checkpoint's folder.
            model_type: name of the architecture; decides where no file names a tokenizer class.
            tokenizer_class: that of `config.json`, where it has one; `tokenizer_config.json` goes first.

        Raises:
            TokenizerError: files that are missing, damaged, or of a kind that is not supported.
        """
        from layertap.text.build import build  # imports the tokenizers library

        built = build(folder, model_type=model_type, tokenizer_class=tokenizer_class)
        prefix, suffix = _template(built.backend, built.files[0])
        vocab = built.backend.get_vocab()
        vocab.pop("", None)  # an empty line of vocab.txt: never emitted
        if not vocab:
            raise TokenizerError(f"{built.files[0]}: its vocabulary is empty")
        added = built.backend.get_added_tokens_decoder()
        special_ids = frozenset([i for i, token in added.items() if token.special] + [*prefix, *suffix])
        names = (built.special_tokens["cls_token"],) if "cls_token" in built.special_tokens else CLS_NAMES
        return cls(
            backend=built.backend,
            prefix=prefix,
            suffix=suffix,
            special_tokens=built.special_tokens,
            special_ids=special_ids,
            unknown=_unknown(built.backend, special_ids),
            cls_index=_cls_index(prefix, suffix, {vocab[name] for name in names if name in vocab}),
            max_id=max(vocab.values()),
            settings=built.settings.values,
            files=built.files,
            notes=built.notes,
        )

    @property
    def num_special_tokens(self) -> int:
        """Tokens that the template adds to a text."""
        return len(self.prefix) + len(self.suffix)

    def lowercased(self) -> TextTokenizer:
        """The same tokenizer with lower-casing before every other step, as sentence-transformers' `do_lower_case`.

        Special tokens typed in a text are still found as they are written.
        """
        from tokenizers import Tokenizer, normalizers

        backend = Tokenizer.from_str(self.backend.to_str())
        lower, own = normalizers.Lowercase(), backend.normalizer
        backend.normalizer = lower if own is None else normalizers.Sequence([lower, own])
        return replace(self, backend=backend)

    def check_fits(self, vocab_size: int) -> None:
        """Refuses a model whose table of `vocab_size` rows has no row for some id.

        Raises:
            TokenizerError: naming the first such token.
        """
        if self.max_id < vocab_size:
            return
        beyond = sorted((i, token) for token, i in self.backend.get_vocab().items() if i >= vocab_size and token)
        raise TokenizerError(
            f"{self.files[0]}: expected ids that have a row in the model's table of {vocab_size}, found {len(beyond)} "
            f"tokens beyond it: the first is {short(beyond[0][1])} with id {beyond[0][0]}; tokenizer and model are not "
            "of one checkpoint"
        )

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Texts -> ids, one `EncodedText` each, without a limit.

        An empty text is the template alone. A lone surrogate becomes U+FFFD. Many texts at once run on the
        Rust library's threads (its own `TOKENIZERS_PARALLELISM` and `RAYON_NUM_THREADS` steer them).

        Raises:
            UsageError: something that is not a list of texts.
            TokenizerError: a vocabulary that lacks its own unknown token met an unknown word.
        """
        texts = _checked(texts)
        surrogates: list[int] | None = None
        try:
            encodings = self._encode_batch(texts)
        except TypeError:
            # The library takes no text with lone surrogates; looking for them first would cost every text.
            replaced = [SURROGATES.subn("\ufffd", text) for text in texts]
            texts, surrogates = [text for text, _ in replaced], [count for _, count in replaced]
            encodings = self._encode_batch(texts)
        ids, ends = _flat(encodings)
        typed = self._typed_specials(ids, ends, texts)
        before, after = len(self.prefix), len(self.suffix)
        return [
            EncodedText(
                input_ids=ids[begin:end],
                content=(before, end - begin - after),
                typed_specials=0 if typed is None else int(typed[i]),
                replaced_surrogates=0 if surrogates is None else surrogates[i],
            )
            for i, (begin, end) in enumerate(pairwise([0, *ends]))
        ]

    def _encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        try:
            return self.backend.encode_batch_fast(texts)
        except TypeError:
            raise
        except Exception as error:  # the library has no exceptions of its own
            raise TokenizerError(f"{self.files[0]}: {error}") from error

    def _typed_specials(
        self, ids: npt.NDArray[np.int32], ends: list[int], texts: Sequence[str]
    ) -> npt.NDArray[np.int64] | None:
        """int64 [N], special tokens typed in each text, or None: in none of them.

        A special id inside the content was typed, but for the unknown token, which also stands for words: there
        the characters under it decide.
        """
        special = np.zeros(self.max_id + 1, dtype=bool)
        special[[*self.special_ids]] = True
        special[[*self.unknown.values()]] = False
        totals = np.concatenate([[0], np.cumsum(special[ids], dtype=np.int64)])[[0, *ends]]
        template = int(special[[*self.prefix, *self.suffix]].sum())
        counts = np.diff(totals) - template
        for unknown, unknown_id in self.unknown.items():
            for i, text in enumerate(texts):
                if unknown in text:
                    counts[i] += self._typed(unknown, unknown_id, text)
        return counts if counts.any() else None

    def _typed(self, token: str, token_id: int, text: str) -> int:
        encoding = self.backend.encode(text)
        return sum(
            text[begin:end].strip() == token
            for found, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if found == token_id
        )


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise UsageError("one text where a list of texts is expected; put it into a list")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"text {i} is {type(text).__name__}, not str")
    return texts


def _flat(encodings: Sequence[Encoding]) -> tuple[npt.NDArray[np.int32], list[int]]:
    """All ids end to end, and where each text's end: one conversion for the batch, not one a text."""
    lists = [encoding.ids for encoding in encodings]
    ends = np.cumsum([len(ids) for ids in lists], dtype=np.int64).tolist()
    return np.fromiter(chain.from_iterable(lists), dtype=np.int32, count=ends[-1] if ends else 0), ends


def _template(backend: Tokenizer, path: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(prefix, suffix): the ids that the template puts around a text.

    A made-up token goes through the post-processor alone, so that no vocabulary can drop it.
    """
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    probe = Tokenizer(WordLevel({"x": 0}, unk_token="x")).encode("x")
    encoding = backend.post_process(probe)
    own = [i for i, is_special in enumerate(encoding.special_tokens_mask) if not is_special]
    if len(own) != 1:
        raise TokenizerError(f"{path}: its template holds a text {len(own)} times; once is supported")
    return tuple(encoding.ids[: own[0]]), tuple(encoding.ids[own[0] + 1 :])


def _unknown(backend: Tokenizer, special_ids: frozenset[int]) -> dict[str, int]:
    """The special token that the vocabulary's model gives for what it does not know, and its id."""
    model: Any = backend.model
    token = getattr(model, "unk_token", None)
    found: Sequence[int | None]
    if token is not None:
        found = [backend.token_to_id(token)]
    else:
        # a unigram model does not say; no vocabulary knows the last private-use character
        try:
            found = backend.encode("\U0010fffd", add_special_tokens=False).ids
        except Exception:  # the library's own: a model without an unknown token
            found = []
    return {str(backend.id_to_token(i)): i for i in found if i is not None and i in special_ids}


def _cls_index(prefix: tuple[int, ...], suffix: tuple[int, ...], cls_ids: set[int]) -> int | None:
    for i, token_id in enumerate(prefix):
        if token_id in cls_ids:
            return i
    for i, token_id in enumerate(reversed(suffix)):
        if token_id in cls_ids:
            return -1 - i
    return None
