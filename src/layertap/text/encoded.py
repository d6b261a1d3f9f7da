"""`EncodedText`: the token ids of one text."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from layertap.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedText:
    """One text as ids.

    Attributes:
        input_ids: int32 [T], the template's special tokens included.
        content: (begin, end): rows of the text's own tokens; `input_ids[:begin]` and `input_ids[end:]` are the
            template's. Special tokens typed in the text are content.
        cut_tokens: tokens of the text that a limit took away.
        typed_specials: special tokens typed in the text, those beyond a limit included.
        replaced_surrogates: lone surrogates of the text that became U+FFFD.
        pair_content: as `content` for the second text of a pair, or None: there is none.
        token_type_ids: int32 [T] as the template gives them, or None: type 0 everywhere.
        offsets: int32 [T, 2], the characters [begin, end) under each token, of its own text (of its own word where
            words were given); (0, 0) for the template's tokens. None: not asked for.
        word_ids: int32 [T], which of the given words a token belongs to, -1 for the template's tokens. None: no
            words were given.
    """

    input_ids: npt.NDArray[np.int32]
    content: tuple[int, int]
    cut_tokens: int = 0
    typed_specials: int = 0
    replaced_surrogates: int = 0
    pair_content: tuple[int, int] | None = None
    token_type_ids: npt.NDArray[np.int32] | None = None
    offsets: npt.NDArray[np.int32] | None = None
    word_ids: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    def limited(self, max_length: int) -> EncodedText:
        """The text cut on the right to at most `max_length` tokens, the template's special tokens kept.

        Raises:
            OptionError: a limit below the template's special tokens and one more. This depends on the
                tokenizer alone, so that a short text does not hide a wrong option.
        """
        begin, end = self.content
        num_specials = len(self) - (end - begin)
        if max_length < num_specials + 1:
            raise OptionError(
                f"max_length {max_length} is too small: this tokenizer adds {num_specials} special tokens to every "
                f"text, so at least {num_specials + 1} are needed"
            )
        cut = len(self) - max_length
        if cut <= 0:
            return self
        kept = np.concatenate([self.input_ids[: end - cut], self.input_ids[end:]])
        return replace(self, input_ids=kept, content=(begin, end - cut), cut_tokens=self.cut_tokens + cut)
