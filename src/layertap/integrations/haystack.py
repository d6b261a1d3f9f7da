"""Adapters for Haystack: any layer of a model in components that embed texts and documents."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from typing import Any, Self

from layertap.errors import BackendError, InputError
from layertap.features.expr import Expr
from layertap.integrations.encoders import check_is_name
from layertap.locks import ForkSafeLock
from layertap.sentence_encoder import SentenceEncoder

try:
    from haystack import Document, component, default_from_dict, default_to_dict
except ImportError:
    raise BackendError("layertap.integrations.haystack needs haystack-ai: pip install 'layertap[haystack]'") from None


class _Embedder:
    """Model, feature and options of a component, opened by `warm_up`."""

    def __init__(
        self,
        model: str | PathLike[str] | None = None,
        feature: str | Expr | None = None,
        *,
        prefix: str | None = None,
        suffix: str = "",
        progress_bar: bool = False,
        options: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        check_is_name(model)
        self.model = None if model is None else fspath(model)
        self.feature = None if feature is None else str(feature)
        self.prefix = prefix
        self.suffix = suffix
        self.progress_bar = progress_bar
        self.options = {**(options or {}), **keywords}
        self.encoder: SentenceEncoder | None = None
        self._lock = ForkSafeLock()

    def warm_up(self) -> None:
        """Open the model, once.

        Raises:
            UsageError, ModelNotFoundError, CheckpointError, BackendError: as in `SentenceEncoder`.
        """
        self._opened()

    def to_dict(self) -> dict[str, Any]:
        """Return the component as JSON values, as pipelines write it to files."""
        written: dict[str, Any] = default_to_dict(self, **self._parameters())
        return written

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make the component from the values of `to_dict`."""
        made: Self = default_from_dict(cls, data)
        return made

    def _parameters(self) -> dict[str, Any]:
        names = ("model", "feature", "prefix", "suffix", "progress_bar", "options")
        return {name: getattr(self, name) for name in names}

    def _opened(self) -> SentenceEncoder:
        with self._lock:
            if self.encoder is None:
                self.encoder = SentenceEncoder(self.model, self.feature, **self.options)
            return self.encoder

    def _vectors(self, texts: list[str], kind: str) -> list[list[float]]:
        """Compute the vectors of queries or documents, behind their prompt or the prefix."""
        encode = getattr(self._opened(), f"encode_{kind}")
        texts = [text + self.suffix for text in texts]
        vectors: list[list[float]] = encode(texts, prompt=self.prefix, show_progress_bar=self.progress_bar).tolist()
        return vectors

    def _meta(self) -> dict[str, Any]:
        encoder = self._opened()
        return {"model": encoder.extractor.files.checkpoint.name, "feature": str(encoder.feature)}


@component
class LayertapTextEmbedder(_Embedder):
    """Component of Haystack that embeds a text, such as a query, by any feature with one vector per text.

    Args:
        model: folder, hub id, or None for all-MiniLM-L6-v2.
        feature: feature with one vector per text, as in `SentenceEncoder`.
        prefix: text to put before each text; None: the prompt named "query" of the model's folder, if there is one.
        suffix: text to put after each text.
        progress_bar: draw a progress bar on standard error.
        options: options of `SentenceEncoder` as a mapping, as pipelines write them.
        **keywords: further options of `SentenceEncoder`, such as `truncate_dim`, `precision` and `threads`.
    """

    @component.output_types(embedding=list[float], meta=dict[str, Any])  # type: ignore[untyped-decorator]
    def run(self, text: str) -> dict[str, Any]:
        """Compute the vector of a text: `embedding`, D numbers, and `meta`, the names of model and feature.

        Raises:
            InputError: the input is not a text.
        """
        if not isinstance(text, str):
            raise InputError(
                f"the input is of type {type(text).__name__}; LayertapTextEmbedder takes a text, and "
                "LayertapDocumentEmbedder documents"
            )
        (vector,) = self._vectors([text], "query")
        return {"embedding": vector, "meta": self._meta()}

    @component.output_types(embedding=list[float], meta=dict[str, Any])  # type: ignore[untyped-decorator]
    async def run_async(self, text: str) -> dict[str, Any]:
        """Compute the vector of a text in a thread, as `run` does."""
        return await asyncio.to_thread(self.run, text)


@component
class LayertapDocumentEmbedder(_Embedder):
    """Component of Haystack that embeds documents by any feature with one vector per text.

    Args:
        model: folder, hub id, or None for all-MiniLM-L6-v2.
        feature: feature with one vector per text, as in `SentenceEncoder`.
        prefix: text to put before each text; None: the prompt named "document" of the model's folder, if there is one.
        suffix: text to put after each text.
        meta_fields_to_embed: names of fields of `Document.meta` whose values are put before the content.
        embedding_separator: text between these values and the content.
        progress_bar: draw a progress bar on standard error.
        options: options of `SentenceEncoder` as a mapping, as pipelines write them.
        **keywords: further options of `SentenceEncoder`, such as `truncate_dim`, `precision` and `threads`.
    """

    def __init__(
        self,
        model: str | PathLike[str] | None = None,
        feature: str | Expr | None = None,
        *,
        prefix: str | None = None,
        suffix: str = "",
        meta_fields_to_embed: Sequence[str] | None = None,
        embedding_separator: str = "\n",
        progress_bar: bool = False,
        options: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        # not super(): the decorator puts another class of this name in place of this one
        _Embedder.__init__(
            self, model, feature, prefix=prefix, suffix=suffix, progress_bar=progress_bar, options=options, **keywords
        )
        self.meta_fields_to_embed = list(meta_fields_to_embed or [])
        self.embedding_separator = embedding_separator

    def _parameters(self) -> dict[str, Any]:
        return _Embedder._parameters(self) | {
            "meta_fields_to_embed": self.meta_fields_to_embed,
            "embedding_separator": self.embedding_separator,
        }

    @component.output_types(documents=list[Document], meta=dict[str, Any])  # type: ignore[untyped-decorator]
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Compute the vectors of N documents: `documents`, N copies with their `embedding`, and `meta`.

        A document without content is embedded as the empty text.

        Raises:
            InputError: the input is not a list of documents.
        """
        if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
            raise InputError(
                "LayertapDocumentEmbedder takes a list of documents of Haystack; LayertapTextEmbedder takes a text"
            )
        vectors = self._vectors([self._text(document) for document in documents], "document")
        embedded = [replace(one, embedding=vector) for one, vector in zip(documents, vectors, strict=True)]
        return {"documents": embedded, "meta": self._meta()}

    @component.output_types(documents=list[Document], meta=dict[str, Any])  # type: ignore[untyped-decorator]
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """Compute the vectors of documents in a thread, as `run` does."""
        return await asyncio.to_thread(self.run, documents)

    def _text(self, document: Document) -> str:
        values = [document.meta.get(name) for name in self.meta_fields_to_embed]
        stated = [str(value) for value in values if value is not None]
        return self.embedding_separator.join([*stated, document.content or ""])
