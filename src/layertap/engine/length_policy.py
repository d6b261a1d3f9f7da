"""Texts over the limit: cut, run in windows, or refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from layertap.engine.options import Semantics
from layertap.errors import OptionError
from layertap.features.schema import WindowSize
from layertap.text.encoded import EncodedText
from layertap.text.windows import Window, plan_windows


class TooLongError(Exception):
    """Raised for a text over the limit where that is an error; the pipeline names the record."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CutText:
    """A text as sequences that the encoder takes.

    Attributes:
        sequences: one, or one a window.
        windows: which of the text's tokens each sequence holds, and which of them are its own; (): the only sequence
            holds all of them.
    """

    sequences: tuple[EncodedText, ...]
    windows: tuple[Window, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Of all sequences, special tokens included."""
        return sum(len(sequence) for sequence in self.sequences)


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthPolicy:
    """What becomes of texts over the limit; see `Semantics` for the options."""

    long: Literal["truncate", "window", "error"] = "truncate"
    truncate_side: Literal["right", "left"] = "right"
    window: WindowSize = field(default_factory=WindowSize)

    @classmethod
    def of(cls, semantics: Semantics) -> LengthPolicy:
        """As the options say."""
        return cls(
            long=semantics.long,
            truncate_side=semantics.truncate_side,
            window=WindowSize(size=semantics.window, overlap=semantics.overlap),
        )

    def size(self, max_length: int) -> int:
        """Tokens a sequence at most, under a limit."""
        return self.window.under(max_length)[0]

    def check(self, max_length: int, num_special_tokens: int) -> None:
        """Refuses options that do not fit a limit, whatever the texts are.

        Raises:
            OptionError: a window above the limit or without room for a token, an overlap that is no less than the
                window's own tokens.
        """
        wanted, overlap = self.window.size, self.window.overlap
        if wanted is not None and wanted > max_length:
            raise OptionError(
                f"window {wanted} is out of range: a sequence has at most {max_length} tokens here, special "
                "tokens included"
            )
        room = self.size(max_length) - num_special_tokens
        if room < 1:
            raise OptionError(
                f"{'window' if wanted else 'max_length'} {self.size(max_length)} is too small: this tokenizer "
                f"adds {num_special_tokens} special tokens to every text, so at least {num_special_tokens + 1} are "
                "needed"
            )
        if overlap is not None and overlap >= room:
            raise OptionError(
                f"overlap {overlap} is out of range: a window has room for {room} tokens of a text, so that 0 to "
                f"{room - 1} can overlap"
            )

    def cut(self, text: EncodedText, max_length: int, edges: npt.NDArray[np.bool_] | None) -> CutText:
        """The text under a limit.

        Args:
            text: without a limit.
            max_length: tokens a sequence at most, special tokens included.
            edges: bool [n + 1], where a window may begin or end without cutting a word; None where texts are not run in
                windows.

        Raises:
            TooLongError: the text is over the limit and that is an error.
        """
        size = self.size(max_length)
        if len(text) <= size:
            return CutText(sequences=(text,))
        if self.long == "error":
            raise TooLongError(
                f"it has {len(text)} tokens, and the limit is {size}; long='truncate' or 'window' (--long) takes it"
            )
        if self.long == "truncate":
            return self._truncated(text, size)
        if text.pair_content is not None:
            raise TooLongError(
                f"the pair has {len(text)} tokens, the limit is {size}, and pairs are not run in windows; cut them "
                "(long='truncate')"
            )
        assert edges is not None
        begin, end = text.content
        room = size - (len(text) - (end - begin))
        overlap = min(self.window.under(max_length)[1], room - 1)
        windows = plan_windows(end - begin, capacity=room, overlap=overlap, edges=edges)
        return CutText(sequences=tuple(text.windowed(window) for window in windows), windows=windows)

    def _truncated(self, text: EncodedText, size: int) -> CutText:
        short = text.limited(size, side=self.truncate_side)
        if text.pair_content is not None:
            return CutText(sequences=(short,))
        total, kept = (seen.content[1] - seen.content[0] for seen in (text, short))
        first = 0 if self.truncate_side == "right" else total - kept
        window = Window(begin=first, end=first + kept, own_begin=first, own_end=first + kept)
        return CutText(sequences=(short,), windows=(window,))
