"""Special tokens that a tokenizer's template puts around a text, and around the two texts of a pair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from layertap.errors import TokenizerError
from layertap.text.guard import guarded

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The ids of a template's special tokens.

    Attributes:
        prefix: before the text.
        suffix: after it (after the second text of a pair).
        between: between the two texts of a pair; empty for a single text.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    between: tuple[int, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """All of them, in order."""
        return (*self.prefix, *self.between, *self.suffix)

    def contents(self, length: int, first: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return rows of both texts in a pair of `length` tokens, `first` of them the first text's."""
        begin = len(self.prefix)
        behind = begin + first + len(self.between)
        return (begin, begin + first), (behind, length - len(self.suffix))

    @classmethod
    def of_text(cls, backend: Tokenizer, path: Path) -> Template:
        """Return the template of a single text; `path` names the tokenizer in errors."""
        encoding = guarded(f"{path}: its template is not usable", lambda: backend.post_process(_probe()))
        own = _own(encoding)
        if len(own) != 1:
            raise TokenizerError(f"{path}: its template holds a text {len(own)} times; once is supported")
        return cls(prefix=tuple(encoding.ids[: own[0]]), suffix=tuple(encoding.ids[own[0] + 1 :]))

    @classmethod
    def of_pair(cls, backend: Tokenizer, path: Path) -> Template:
        """Return the template of a pair."""
        encoding = guarded(
            f"{path}: its template for pairs is not usable", lambda: backend.post_process(_probe(), _probe())
        )
        own = _own(encoding)
        texts = [encoding.sequence_ids[i] for i in own]
        if texts != [0, 1]:
            raise TokenizerError(
                f"{path}: its template for pairs holds the texts {texts} in this order (0 the first, 1 the second); "
                "each once and the first one first is supported"
            )
        first, second = own
        return cls(
            prefix=tuple(encoding.ids[:first]),
            between=tuple(encoding.ids[first + 1 : second]),
            suffix=tuple(encoding.ids[second + 1 :]),
        )


def _probe() -> Encoding:
    """Return a made-up token goes through the post-processor alone, so that no vocabulary can drop it."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    return Tokenizer(WordLevel({"x": 0}, unk_token="x")).encode("x")


def _own(encoding: Encoding) -> list[int]:
    return [i for i, is_special in enumerate(encoding.special_tokens_mask) if not is_special]
