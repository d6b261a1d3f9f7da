"""`EncodedText`: the token ids of one text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from layertap.errors import OptionError, UsageError
from layertap.text.windows import Window

Side: TypeAlias = Literal["right", "left"]
Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedText:
    """One text as ids, or a pair of texts as one sequence.

    Attributes:
        input_ids: int32 [T], the template's special tokens included.
        content: (begin, end): rows of the text's own tokens; `input_ids[:begin]` and `input_ids[end:]` are the
            template's (in a pair, and the second text). Special tokens typed in the text are content.
        cut_tokens: tokens of the text that a limit took away.
        typed_specials: special tokens typed in the text, those beyond a limit included.
        replaced_surrogates: lone surrogates of the text that became U+FFFD.
        pair_content: as `content` for the second text of a pair, behind the first, or None: there is none.
        token_type_ids: int32 [T] as the template gives them, or None: type 0 everywhere.
        offsets: int32 [T, 2], the characters [begin, end) under each token, of its own text (of its own word where
            words were given); (0, 0) for the template's tokens. None: not asked for.
        word_ids: int32 [T], which of the given words a token belongs to, -1 for the template's tokens. None: no
            words were given.
    """

    input_ids: npt.NDArray[np.int32]
    content: Range
    cut_tokens: int = 0
    typed_specials: int = 0
    replaced_surrogates: int = 0
    pair_content: Range | None = None
    token_type_ids: npt.NDArray[np.int32] | None = None
    offsets: npt.NDArray[np.int32] | None = None
    word_ids: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    def limited(self, max_length: int, side: Side = "right") -> EncodedText:
        """Return the text cut to at most `max_length` tokens, the template's special tokens kept.

        A pair is cut longest first, as transformers does with `truncation="longest_first"`: the longer text until
        both are equally long, then both.

        Args:
            max_length: tokens, special tokens included.
            side: the side that is cut: "right" keeps the beginning of the text, "left" its end.

        Raises:
            OptionError: a limit below the template's special tokens and one more. This depends on the
                tokenizer alone, so that a short text does not hide a wrong option.
        """
        if side not in ("right", "left"):
            raise OptionError(f"side {side!r}: the text is cut on the 'right' or on the 'left'")
        texts = [self.content] if self.pair_content is None else [self.content, self.pair_content]
        lengths = [end - begin for begin, end in texts]
        num_specials = len(self) - sum(lengths)
        if max_length < num_specials + 1:
            raise OptionError(
                f"max_length {max_length} is too small: this tokenizer adds {num_specials} special tokens to every "
                f"{'text' if self.pair_content is None else 'pair'}, so at least {num_specials + 1} are needed"
            )
        if len(self) <= max_length:
            return self
        return self._cut(texts, _longest_first(lengths, max_length - num_specials), side)

    def _cut(self, texts: Sequence[Range], sizes: Sequence[int], side: Side) -> EncodedText:
        """Keeps so many tokens of each text."""
        keep = np.ones(len(self), dtype=bool)
        contents: list[Range] = []
        cut = 0
        for (begin, end), size in zip(texts, sizes, strict=True):
            dropped = slice(begin + size, end) if side == "right" else slice(begin, end - size)
            keep[dropped] = False
            contents.append((begin - cut, begin - cut + size))
            cut += end - begin - size
        return replace(
            self,
            **self._rows(keep),
            content=contents[0],
            pair_content=contents[1] if len(contents) == 2 else None,
            cut_tokens=self.cut_tokens + cut,
        )

    def windowed(self, window: Window) -> EncodedText:
        """Return the template around the content tokens `window.begin` to `window.end`.

        Counts of what was cut, typed and replaced stay those of the whole text.

        Raises:
            UsageError: a pair, which has no windows.
        """
        if self.pair_content is not None:
            raise UsageError("a pair of texts has no windows; cut it to the limit")
        begin, end = self.content
        assert 0 <= window.begin <= window.end <= end - begin
        keep = np.ones(len(self), dtype=bool)
        keep[begin : begin + window.begin] = keep[begin + window.end : end] = False
        return replace(self, **self._rows(keep), content=(begin, begin + window.end - window.begin))

    def _rows(self, keep: npt.NDArray[np.bool_]) -> dict[str, Any]:
        """Return the arrays that hold one row a token, at the rows to keep."""
        arrays = {
            "input_ids": self.input_ids,
            "token_type_ids": self.token_type_ids,
            "offsets": self.offsets,
            "word_ids": self.word_ids,
        }
        return {name: None if array is None else array[keep] for name, array in arrays.items()}


def _longest_first(lengths: Sequence[int], room: int) -> list[int]:
    """Return how many tokens each text keeps where they have `room` together, as the tokenizers library shares it."""
    if sum(lengths) <= room:
        return list(lengths)
    if len(lengths) == 1:
        return [room]
    shorter = min(lengths)
    longer = max(shorter, room - shorter)
    if shorter + longer > room:
        shorter, longer = room // 2, room - room // 2
    # of two equally long texts the first counts as the shorter one
    return [shorter, longer] if lengths[0] <= lengths[1] else [longer, shorter]
