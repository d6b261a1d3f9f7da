"""Texts of the routes of our own: texts, pairs, given words, and spans of characters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layertap.records import Record
from layertap.server.body import Body
from layertap.server.model import TextOptions
from layertap.server.refusals import Refusal


class RecordsBody(Body):
    """Fields by which a request gives its texts, and how long ones are treated."""

    texts: str | list[str] | None = Field(default=None, description="a text, or a list of texts")
    pairs: list[list[str]] | None = Field(default=None, description="a list of pairs, each a list of two texts")
    words: list[list[str]] | None = Field(default=None, description="a list of texts, each a list of its words")
    spans: list[list[list[int]]] | None = Field(
        default=None, description="for each text a list of spans [begin, end) in characters"
    )
    model: str | None = Field(default=None, description="the name of the model")
    long: Literal["truncate", "window", "error"] | None = Field(
        default=None, description="'truncate', 'window' or 'error'"
    )
    truncate_side: Literal["right", "left"] | None = Field(default=None, description="'right' or 'left'")
    window: int | None = Field(default=None, ge=1, description="tokens of a window")
    overlap: int | None = Field(default=None, ge=0, description="tokens that windows share")

    @property
    def options(self) -> TextOptions:
        """Options for texts over the limit."""
        return TextOptions(long=self.long, truncate_side=self.truncate_side, window=self.window, overlap=self.overlap)

    def records(self) -> list[Record]:
        """Return the texts as records.

        Raises:
            Refusal: none or several of texts, pairs and words; spans that do not fit; a pair that is none.
        """
        given = [name for name in ("texts", "pairs", "words") if getattr(self, name) is not None]
        if len(given) != 1:
            raise Refusal("invalid", f"give one of texts, pairs and words; found {' and '.join(given) or 'none'}")
        records = self._listed()
        if not records:
            raise Refusal("empty", f"{given[0]}: the list is empty; send at least one text", param=given[0])
        if self.spans is None:
            return records
        if self.texts is None or len(self.spans) != len(records):
            raise Refusal(
                "invalid",
                f"spans: expected a list for each of the {len(records)} texts, found {len(self.spans)} lists"
                if self.texts is not None
                else "spans are of texts, not of pairs or given words",
                param="spans",
            )
        return [
            Record(row=i, text=record.text, spans=_spans(i, own))
            for i, (record, own) in enumerate(zip(records, self.spans, strict=True))
        ]

    def _listed(self) -> list[Record]:
        if self.pairs is not None:
            wrong = next((i for i, pair in enumerate(self.pairs) if len(pair) != 2), None)
            if wrong is not None:
                raise Refusal("invalid", f"pairs[{wrong}]: expected a list of two texts", param="pairs")
            return [Record(row=i, text=one, pair=other) for i, (one, other) in enumerate(self.pairs)]
        if self.words is not None:
            return [Record.of_words(i, words) for i, words in enumerate(self.words)]
        texts = [self.texts] if isinstance(self.texts, str) else self.texts or []
        return [Record(row=i, text=text) for i, text in enumerate(texts)]


def _spans(row: int, spans: list[list[int]]) -> tuple[tuple[int, int], ...]:
    for number, span in enumerate(spans):
        if len(span) != 2 or not all(abs(place) < 1 << 31 for place in span):
            raise Refusal("invalid", f"spans[{row}][{number}]: expected [begin, end) in characters", param="spans")
    return tuple((begin, end) for begin, end in spans)
