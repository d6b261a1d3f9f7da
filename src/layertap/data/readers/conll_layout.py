"""Layout of a CoNLL file, decided from its first part: what separates columns, how many there are, comments."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

HEAD_BYTES = 1 << 16
"""First bytes of a file that its layout is decided from."""

SPACES = re.compile(r"[ \t]+")
COMMENT = re.compile(
    r"#\s*(?:(?:id|sent_id|newdoc|newpar|text|domain)\b(?=[\s=:])|(?:begin|end) document\b|[\w.-]+\s*=\s*\S)"
)
"""Beginnings of comments that files of this kind are known to have: `# id 1f6b domain=en`, `# sent_id = 3`,
`#begin document (name)`."""

TAG = re.compile(r"[Oo]|[BIESLUM]-\S+|_")
"""A value that is a tag: a line that ends with one is a word, even if it begins as a comment does."""

COMMON = 0.9
"""Share of lines with equally many columns from which on a separator is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the lines of a CoNLL file are divided.

    Attributes:
        by_tabs: whether tabs separate columns; spaces and tabs do otherwise.
        width: number of columns; 0 if there is no word.
    """

    by_tabs: bool
    width: int

    def fields(self, line: str) -> list[str]:
        """Return the columns of a line; separators at its end are no column.

        A line without the last of its columns, in a file with tabs, has an empty one there.
        """
        if not self.by_tabs:
            # Not str.split(): a no-break space may be a word.
            return SPACES.split(line.strip(" \t"))
        fields = line.split("\t")
        while len(fields) > self.width and not fields[-1].strip(" "):
            fields.pop()
        return fields

    def is_comment(self, line: str) -> bool:
        """Return whether a line is a comment: it begins as comments do, or with `# ` and has other columns."""
        if not line.startswith("#"):
            return False
        fields = self.fields(line.rstrip(" \t"))
        if len(fields) == self.width and TAG.fullmatch(fields[-1]):
            return False
        return COMMENT.match(line) is not None or (line[1:2] in " \t" and len(fields) != self.width)


def layout_of(head: bytes) -> Layout:
    """Decide the layout of a file from the lines of its first part, in UTF-8; the last of them may be cut off."""
    pieces = head.split(b"\n")
    if len(head) >= HEAD_BYTES and len(pieces) > 1:
        pieces.pop()
    lines = [line for line in map(_decoded, pieces) if "\ufffd" not in line]
    words = [line for line in lines if line.strip(" \t") and not line.startswith("-DOCSTART-")]
    words = [line for line in words if not COMMENT.match(line) or TAG.fullmatch(SPACES.split(line.rstrip(" \t"))[-1])]
    if not words:
        return Layout(by_tabs=False, width=0)
    tabs, tabs_share = _usual([line.rstrip("\t ").count("\t") + 1 for line in words])
    spaces, spaces_share = _usual([len(SPACES.split(line.strip(" \t"))) for line in words])
    by_tabs = tabs > 1 and (tabs_share >= COMMON or tabs_share >= spaces_share)
    return Layout(by_tabs=by_tabs, width=tabs if by_tabs else spaces)


def _decoded(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")


def _usual(widths: Sequence[int]) -> tuple[int, float]:
    """Return the most common number of columns, and the share of lines that have it."""
    ((width, count),) = Counter(widths).most_common(1)
    return width, count / len(widths)
