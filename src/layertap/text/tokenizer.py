"""`TextTokenizer`: many texts -> ids."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from layertap.errors import TokenizerError, UsageError
from layertap.locks import ForkSafeLock
from layertap.text.dropped import drops_unseen, is_control, with_dropped
from layertap.text.encoded import EncodedText
from layertap.text.flat import FlatEncodings
from layertap.text.guard import guarded
from layertap.text.pieces import LONG, PIECE, PIECES_AT_ONCE, joined, may_be_cut, pieces_of
from layertap.text.template import Template

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

# Names of the CLS token where no file tells.
CLS_NAMES = ("[CLS]", "<s>", "<cls>")
# Ids are indices of the model's word table, of which the largest has a million rows.
LARGEST_ID = 1 << 24
# Characters of a text that is encoded on the calling thread: waking another takes longer.
SHORT = 2_000
SURROGATES = re.compile("[\ud800-\udfff]")


def _tokenize_on_one_thread() -> None:
    """Keep the Rust library to the calling thread, in a forked child process.

    Its worker threads do not exist there. It notices that by itself unless the variable is set, and then waits for them
    for ever.
    """
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_tokenize_on_one_thread)

# What becomes one sequence: a text, a pair of texts, given words.
Item: TypeAlias = str | tuple[str, ...] | list[str]
Run: TypeAlias = "Callable[[Any], list[Encoding]]"


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
        without_row: added tokens beyond the word table of the model, by id.
    """

    backend: Tokenizer = field(repr=False)
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
    without_row: Mapping[int, str] = field(default_factory=dict)
    _for_words: _WordTokenizer = field(default_factory=lambda: _WordTokenizer(), init=False, repr=False)
    _drops_unseen: bool = field(init=False, repr=False)
    _is_typed: npt.NDArray[np.bool_] = field(init=False, repr=False)
    """bool [max_id + 1]: special tokens but the unknown one, which also stands for words."""

    def __post_init__(self) -> None:
        special = np.zeros(self.max_id + 1, dtype=bool)
        special[[*self.special_ids]] = True
        special[[*self.unknown.values()]] = False
        object.__setattr__(self, "_is_typed", special)
        object.__setattr__(self, "_drops_unseen", drops_unseen(self.backend))

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
        template = Template.of_text(built.backend, built.files[0])
        prefix, suffix = template.prefix, template.suffix
        vocab = built.backend.get_vocab()
        vocab.pop("", None)  # an empty line of vocab.txt: never emitted
        if not vocab:
            raise TokenizerError(f"{built.files[0]}: its vocabulary is empty")
        template_ids = (*template.ids, *pair_ids(built.backend, built.files[0]))
        max_id = max((*vocab.values(), *template_ids))
        if max_id > LARGEST_ID:
            raise TokenizerError(f"{built.files[0]}: expected ids up to {LARGEST_ID}, found {max_id}")
        added = built.backend.get_added_tokens_decoder()
        special_ids = frozenset([i for i, token in added.items() if token.special] + [*template.ids])
        names = (built.special_tokens["cls_token"],) if "cls_token" in built.special_tokens else CLS_NAMES
        return cls(
            backend=built.backend,
            prefix=prefix,
            suffix=suffix,
            special_tokens=built.special_tokens,
            special_ids=special_ids,
            unknown=_unknown(built.backend, special_ids),
            cls_index=_cls_index(prefix, suffix, {vocab[name] for name in names if name in vocab}),
            max_id=max_id,
            settings=built.settings.values,
            files=built.files,
            notes=built.notes,
        )

    @property
    def num_special_tokens(self) -> int:
        """Tokens that the template adds to a text."""
        return len(self.prefix) + len(self.suffix)

    def lowercased(self) -> TextTokenizer:
        """Return a tokenizer that lower-cases before every other step, as sentence-transformers' `do_lower_case`.

        Special tokens typed in a text are still found as they are written.
        """
        from tokenizers import Tokenizer, normalizers

        backend = Tokenizer.from_str(self.backend.to_str())
        backend.encode_special_tokens = self.backend.encode_special_tokens  # the text form does not hold it
        lower, own = normalizers.Lowercase(), backend.normalizer
        backend.normalizer = lower if own is None else normalizers.Sequence([lower, own])
        return replace(self, backend=backend)

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str | None] | None = None, *, offsets: bool = False
    ) -> list[EncodedText]:
        """Convert texts to ids, one `EncodedText` each, without a limit.

        An empty text is the template alone. A lone surrogate becomes U+FFFD. A text of more than 262,144
        characters is encoded in pieces where that gives the same ids (`pieces.may_be_cut`), which takes a fraction of
        the memory. Many texts at once run on the Rust library's threads (its own `TOKENIZERS_PARALLELISM` and
        `RAYON_NUM_THREADS` steer them).

        Args:
            texts: the texts.
            pairs: beside each text its second text, or None: it stands alone.
            offsets: whether to say which characters each token stands for; takes a tenth to a half longer.

        Raises:
            UsageError: something that is not a list of texts, or pairs that do not fit them.
            TokenizerError: a vocabulary that lacks its own unknown token met an unknown word, or a template that
                does not hold each text of a pair once.
        """
        texts = _checked(texts)
        items = texts if pairs is None else _paired(texts, pairs)
        run = self._run_of(items, offsets=offsets)
        long = [isinstance(item, str) and len(item) > LONG for item in items]
        if any(long) and may_be_cut(self.backend):
            others = [item for item, is_long in zip(items, long, strict=True) if not is_long]
            short = iter(self._encode(others, run, offsets=offsets))
            return [
                self._encode_in_pieces(text, run, offsets=offsets) if is_long else next(short)
                for text, is_long in zip(texts, long, strict=True)
            ]
        return self._encode(items, run, offsets=offsets)

    def _run_of(self, items: Sequence[Item], *, offsets: bool) -> Run:
        if len(items) == 1 and isinstance(items[0], str) and len(items[0]) <= SHORT:
            return lambda given: [self.backend.encode(given[0])]
        return self.backend.encode_batch if offsets else self.backend.encode_batch_fast

    def _encode_in_pieces(self, text: str, run: Run, *, offsets: bool) -> EncodedText:
        pieces = list(pieces_of(text, PIECE))
        groups = (pieces[begin : begin + PIECES_AT_ONCE] for begin in range(0, len(pieces), PIECES_AT_ONCE))
        parts = chain.from_iterable(self._encode(group, run, offsets=offsets) for group in groups)
        return joined(list(parts), pieces)

    def encode_words(self, words: Sequence[Sequence[str]], *, offsets: bool = True) -> list[EncodedText]:
        """Convert given words to ids, one `EncodedText` a list of words, as transformers with
        `is_split_into_words=True`.

        Each word is tokenized by itself and may hold anything, white space too. Byte-level tokenizers put a space
        before it, as transformers with `add_prefix_space=True`; without it the words would be those of a text
        written without spaces.

        Args:
            words: a list of words for each text.
            offsets: whether to say which characters of its word each token stands for.

        Raises:
            UsageError: something that is not a list of lists of words.
            TokenizerError: as `encode`.
        """
        backend = self._for_words.of(self.backend)

        def run(items: Sequence[Any]) -> list[Encoding]:
            return backend.encode_batch(items, is_pretokenized=True)

        return self._encode(_checked_words(words), run, offsets=offsets, words=True)

    def _encode(self, items: Sequence[Item], run: Run, *, offsets: bool, words: bool = False) -> list[EncodedText]:
        surrogates: list[int] | None = None
        try:
            encodings = self._guarded(run, items)
        except TypeError:
            # The library takes no text with lone surrogates; looking for them first would cost every text.
            items, surrogates = _without_surrogates(items)
            encodings = self._guarded(run, items)
        is_pair = [isinstance(item, tuple) for item in items]
        single = Template(prefix=self.prefix, suffix=self.suffix)
        double = Template.of_pair(self.backend, self.files[0]) if any(is_pair) else single
        try:
            flat = FlatEncodings.of(encodings, offsets=offsets, type_ids=double is not single, word_ids=words)
            largest = int(flat.ids.max(initial=0))
        except OverflowError:  # no int32
            largest = LARGEST_ID + 1
        if largest > self.max_id:
            raise TokenizerError(f"{self.files[0]}: expected ids up to {self.max_id}, the last of its vocabulary")
        if flat.offsets is not None and self._drops_unseen:
            self._correct_offsets(flat.offsets, flat.ids, items, flat.ends, encodings)
        typed = self._typed_specials(flat, items, is_pair, single, double)
        encoded: list[EncodedText] = []
        for i, (begin, end) in enumerate(pairwise([0, *flat.ends])):
            content, pair_content = (len(single.prefix), end - begin - len(single.suffix)), None
            types = None
            if is_pair[i]:
                content, pair_content = double.contents(end - begin, encodings[i].sequence_ids.count(0))
                assert flat.type_ids is not None
                types = flat.type_ids[begin:end] if flat.type_ids[begin:end].any() else None
            encoded.append(
                EncodedText(
                    input_ids=flat.ids[begin:end],
                    content=content,
                    typed_specials=0 if typed is None else int(typed[i]),
                    replaced_surrogates=0 if surrogates is None else surrogates[i],
                    pair_content=pair_content,
                    token_type_ids=types,
                    offsets=None if flat.offsets is None else flat.offsets[begin:end],
                    word_ids=None if flat.word_ids is None else flat.word_ids[begin:end],
                )
            )
        return encoded

    def _correct_offsets(
        self,
        offsets: npt.NDArray[np.int32],
        ids: npt.NDArray[np.int32],
        items: Sequence[Item],
        ends: Sequence[int],
        encodings: Sequence[Encoding],
    ) -> None:
        """Add the characters that the normalizer dropped to the offsets of the tokens after them, in place."""
        for item, encoding, begin in zip(items, encodings, [0, *ends[:-1]], strict=True):
            for number, text in enumerate(item if isinstance(item, tuple) else (item,)):
                if isinstance(text, str) and any(map(is_control, text)):
                    own = begin + np.flatnonzero([sequence == number for sequence in encoding.sequence_ids])
                    offsets[own] = with_dropped(self.backend, text, ids[own], offsets[own])

    def _guarded(self, run: Run, items: Sequence[Item]) -> list[Encoding]:
        # The library raises TypeError for a text with lone surrogates.
        return guarded(str(self.files[0]), lambda: run(items), passing=(TypeError,))

    def _typed_specials(
        self, flat: FlatEncodings, items: Sequence[Item], is_pair: Sequence[bool], single: Template, double: Template
    ) -> npt.NDArray[np.int64] | None:
        """Count the special tokens typed in each item, int64 [N]; None if there are none.

        A special id inside the content was typed, but for the unknown token, which also stands for words: there
        the characters under it decide.
        """
        typed = self._is_typed[flat.ids]
        of_single, of_double = (np.count_nonzero(self._is_typed[[*template.ids]]) for template in (single, double))
        pairs = sum(is_pair)
        counts = np.zeros(len(items), dtype=np.int64)
        if np.count_nonzero(typed) != of_single * (len(items) - pairs) + of_double * pairs:
            totals = np.concatenate([[0], np.cumsum(typed, dtype=np.int64)])[[0, *flat.ends]]
            counts = np.diff(totals) - np.where(is_pair, of_double, of_single)
        for unknown, unknown_id in self.unknown.items():
            for i, item in enumerate(items):
                parts = (item,) if isinstance(item, str) else item
                counts[i] += sum(self._typed(unknown, unknown_id, part) for part in parts if unknown in part)
        return counts if counts.any() else None

    def _typed(self, token: str, token_id: int, text: str) -> int:
        (encoding,) = self._guarded(lambda items: [self.backend.encode(items[0])], [text])
        return sum(
            text[begin:end].strip() == token
            for i, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if i == token_id
        )


class _WordTokenizer:
    """A tokenizer's twin for given words, made when it is first needed: the copy takes some tenths of a second."""

    __slots__ = ("_lock", "_twin")

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._twin: Tokenizer | None = None

    def of(self, backend: Tokenizer) -> Tokenizer:
        with self._lock:
            if self._twin is None:
                self._twin = _with_leading_space(backend)
            return self._twin


def _with_leading_space(backend: Tokenizer) -> Tokenizer:
    """Return the tokenizer with `add_prefix_space` on, where it is byte-level; any other as it is.

    Of several pre-tokenizers only the first can do it: what follows works on pieces of words.
    """
    from tokenizers import Tokenizer

    state = json.loads(backend.to_str())
    steps = [state["pre_tokenizer"]]
    if steps[0] is not None and steps[0]["type"] == "Sequence":
        steps = steps[0]["pretokenizers"]
    if not steps or steps[0] is None or steps[0]["type"] != "ByteLevel" or steps[0]["add_prefix_space"]:
        return backend
    steps[0]["add_prefix_space"] = True
    after = state["post_processor"]
    if after is not None and after["type"] == "RobertaProcessing":
        after["add_prefix_space"] = True  # it takes the added space out of the offsets
    twin = Tokenizer.from_str(json.dumps(state))
    twin.encode_special_tokens = backend.encode_special_tokens
    return twin


def _checked(texts: Sequence[str]) -> list[str]:
    if isinstance(texts, str):
        raise UsageError("one text where a list of texts is expected; put it into a list")
    texts = list(texts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"text {i} is {type(text).__name__}, not str")
    return texts


def _paired(texts: Sequence[str], pairs: Sequence[str | None]) -> list[Item]:
    if isinstance(pairs, str):
        raise UsageError("one text where a list of second texts is expected; put it into a list")
    pairs = list(pairs)
    if len(pairs) != len(texts):
        raise UsageError(f"{len(pairs)} second texts beside {len(texts)} texts; give one for each text, or None")
    for i, pair in enumerate(pairs):
        if pair is not None and not isinstance(pair, str):
            raise UsageError(f"second text {i} is {type(pair).__name__}, not str or None")
    return [text if pair is None else (text, pair) for text, pair in zip(texts, pairs, strict=True)]


def _checked_words(words: Sequence[Sequence[str]]) -> list[Item]:
    lists: list[Item] = []
    for i, given in enumerate(words):
        if isinstance(given, str):
            raise UsageError(f"text {i} is a str where a list of words is expected; split it, or encode it as a text")
        lists.append(list(given))
        for j, word in enumerate(lists[-1]):
            if not isinstance(word, str):
                raise UsageError(f"text {i}: word {j} is {type(word).__name__}, not str")
    return lists


def _without_surrogates(items: Sequence[Item]) -> tuple[list[Item], list[int]]:
    """Return the items with U+FFFD for each lone surrogate (one character for one: offsets stay right), and how
    many.
    """
    clean: list[Item] = []
    counts: list[int] = []
    for item in items:
        parts = [SURROGATES.subn("\ufffd", part) for part in ([item] if isinstance(item, str) else item)]
        texts = [text for text, _ in parts]
        clean.append(texts[0] if isinstance(item, str) else tuple(texts) if isinstance(item, tuple) else texts)
        counts.append(sum(count for _, count in parts))
    return clean, counts


def pair_ids(backend: Tokenizer, path: Path) -> tuple[int, ...]:
    """Return the ids that the template for pairs adds; none where it has no usable one (`encode` says so then)."""
    try:
        return Template.of_pair(backend, path).ids
    except TokenizerError:
        return ()


def _unknown(backend: Tokenizer, special_ids: frozenset[int]) -> dict[str, int]:
    """Return the special token that the vocabulary's model gives for what it does not know, and its id."""
    model: Any = backend.model
    token = getattr(model, "unk_token", None)
    ids: Sequence[int | None]
    if token is not None:
        ids = [backend.token_to_id(token)]
    else:
        # a unigram model does not say; no vocabulary knows the last private-use character
        try:
            ids = guarded("", lambda: backend.encode("\U0010fffd", add_special_tokens=False).ids)
        except TokenizerError:  # a model without an unknown token
            ids = []
    return {str(backend.id_to_token(i)): i for i in ids if i is not None and i in special_ids}


def _cls_index(prefix: tuple[int, ...], suffix: tuple[int, ...], cls_ids: set[int]) -> int | None:
    for i, token_id in enumerate(prefix):
        if token_id in cls_ids:
            return i
    for i, token_id in enumerate(reversed(suffix)):
        if token_id in cls_ids:
            return -1 - i
    return None
