"""`layertap.learn.explore`: the page of a set of texts in memory, for notebooks and programs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from layertap.engine.extractor import Extractor
from layertap.engine.texts import Text, as_records
from layertap.errors import InputError, OptionError
from layertap.files import check_place, write_file
from layertap.learn.exploring.contents import PageOptions, exploration
from layertap.learn.exploring.corpus import sampled
from layertap.learn.labelled import LABEL
from layertap.page.assemble import as_html

MOST_TEXTS = 10_000

COMMANDS = {
    "extract": 'extractor.extract(texts, "{FEATURE}")',
    "neighbours": 'v = extractor.extract(texts, "{FEATURE}.normalize")\nv @ v[{ROW}]',
    "sentence": 'extractor.extract({SENTENCE}, "hidden_states[:]")  # tokens, layers, dimensions',
    "attention": 'extractor.extract({SENTENCE}, "attentions[{BLOCK}]")[{HEAD}]',
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExplorePage:
    """A page that shows what each layer sees. A notebook shows it in a frame.

    Attributes:
        html: the page, one HTML file that loads nothing else.
        height: height of the frame in pixels.
    """

    html: bytes
    height: int = 780

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the page to a file.

        Raises:
            UsageError: the file exists and `overwrite` is not set.
            OutputError: it cannot be written.
        """
        check_place(Path(path), overwrite=overwrite)
        write_file(Path(path), self.html, overwrite=overwrite)

    def _repr_html_(self) -> str:
        # Without `allow-same-origin`, the page cannot reach the notebook that it stands in.
        return (
            f'<iframe sandbox="allow-scripts allow-downloads" width="100%" height="{self.height}" '
            f'srcdoc="{escape(self.html.decode())}"></iframe>'
        )

    def __repr__(self) -> str:
        return f"ExplorePage({len(self.html):,} bytes; .save(path) writes it)"


def explore(
    texts: Sequence[Text],
    labels: Sequence[Any] | None = None,
    *,
    extractor: Extractor | None = None,
    pooling: str = "mean",
    neighbours: int = 10,
    sentences: int = 30,
    rows: Sequence[int] = (),
    max_texts: int = MOST_TEXTS,
    seed: int = 0,
    progress: bool = False,
) -> ExplorePage:
    """Make the page of `layertap explore` for texts in memory. The page contains the texts.

    Args:
        texts: N texts.
        labels: N labels, for colours and probes, or None.
        extractor: the model; None: the default one.
        pooling: pooling of each hidden state.
        neighbours: number of nearest texts of each text.
        sentences: number of texts whose tokens and attentions the page holds, at most 50.
        rows: indices of texts that are among these.
        max_texts: number of texts to show; of more, a random sample.
        seed: seed of samples, folds and random labels.
        progress: show progress on standard error.

    Raises:
        InputError: no texts, an item that is not a text, or another number of labels.
        FeatureError: a pooling that the model does not have.
        OptionError: a number out of range.
    """
    if max_texts < 1:
        raise OptionError(f"max_texts {max_texts}: expected at least 1")
    if labels is not None and len(labels) != len(texts):
        raise InputError(f"{len(texts):,} texts and {len(labels):,} labels; give one label for each text")
    options = PageOptions(pooling=pooling, neighbours=neighbours, sentences=sentences, rows=tuple(rows), seed=seed)
    records = list(as_records(texts))
    for record in records:
        if record.pair is not None or record.words is not None:
            raise InputError(f"text {record.row} is a pair or a list of words; explore shows texts")
    if labels is not None:
        pairs = zip(records, labels, strict=True)
        records = [replace(record, columns={**record.columns, LABEL: label}) for record, label in pairs]
    label = None if labels is None else LABEL
    corpus = sampled(records, "texts", label, most=max_texts, seed=seed, kept=options.rows)
    extractor = Extractor.from_pretrained() if extractor is None else extractor
    return ExplorePage(
        html=as_html(exploration(extractor, corpus, options, commands=COMMANDS, progress=progress).content)
    )
