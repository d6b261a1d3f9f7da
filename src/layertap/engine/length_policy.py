"""Treatment of texts over the limit: truncation, windows, or an error."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from layertap.engine.options import LongTexts, Semantics, Side
from layertap.errors import OptionError
from layertap.features.schema import WindowSize
from layertap.text.encoded import EncodedText
from layertap.text.windows import Window, plan_windows


class TooLongError(Exception):
    """A text is over the limit, and the policy refuses such texts; the pipeline adds the record's name."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CutText:
    """A text as one or several sequences within the limit.

    Attributes:
        sequences: one sequence, or one for each window.
        windows: for each sequence, the tokens of the text that it holds and those that count as its own; empty where
            the only sequence holds the whole text.
    """

    sequences: tuple[EncodedText, ...]
    windows: tuple[Window, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens of all sequences together, special tokens included."""
        return sum(len(sequence) for sequence in self.sequences)


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthPolicy:
    """Policy for texts over the limit.

    Attributes:
        long: truncate the text, run it in windows, or refuse it.
        truncate_side: which end of the text is cut off.
        window: size of windows and the tokens that neighbouring ones share.
    """

    long: LongTexts = "truncate"
    truncate_side: Side = "right"
    window: WindowSize = field(default_factory=WindowSize)

    @classmethod
    def of(cls, semantics: Semantics) -> LengthPolicy:
        """Return the policy that the options state."""
        return cls(
            long=semantics.long,
            truncate_side=semantics.truncate_side,
            window=WindowSize(size=semantics.window, overlap=semantics.overlap),
        )

    def size(self, max_length: int) -> int:
        """Return the largest number of tokens of a sequence under a limit of the text."""
        return self.window.under(max_length)[0]

    def check(self, max_length: int, num_special_tokens: int) -> None:
        """Refuse options that do not fit a limit, whatever the texts are.

        Raises:
            OptionError: a window exceeds the limit or has no room for a token, or an overlap leaves a window without
                tokens of its own.
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
        """Apply the policy to a text.

        Args:
            text: the whole text.
            max_length: largest number of tokens of a sequence, special tokens included.
            edges: bool [n + 1], positions at which a window may begin or end without cutting a word; None where texts
                are not run in windows.

        Raises:
            TooLongError: the text is over the limit and the policy refuses such texts, or it is a pair and would have
                to be run in windows.
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
