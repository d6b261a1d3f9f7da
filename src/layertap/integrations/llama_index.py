"""Adapter for LlamaIndex: any layer of a model as its `BaseEmbedding`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from os import PathLike, fspath
from typing import Any

from layertap.checkpoints.source import DEFAULT_MODEL
from layertap.errors import BackendError
from layertap.features.expr import Expr
from layertap.integrations.encoders import check_is_name
from layertap.sentence_encoder import SentenceEncoder

try:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from pydantic import Field, PrivateAttr
except ImportError:
    raise BackendError(
        "layertap.integrations.llama_index needs llama-index-core: pip install 'layertap[llama-index]'"
    ) from None


class LayertapEmbedding(BaseEmbedding):  # type: ignore[misc]  # the library is not there where types are checked
    """Embedding model of LlamaIndex by any feature with one vector per text.

    Queries have the prompt named "query" of the model's folder, and texts that named "document", where the folder has
    them. The asynchronous methods run in threads. LlamaIndex writes the name of the model, the feature and the options
    to files and into the keys of its caches, so that the model is a name and not an open object.

    Args:
        model_name: folder, hub id, or None for all-MiniLM-L6-v2.
        feature: feature with one vector per text, as in `SentenceEncoder`.
        options: options of `SentenceEncoder` as a mapping, as LlamaIndex writes them.
        **keywords: fields of `BaseEmbedding` (`embed_batch_size`, `num_workers`, ...), and further options of
            `SentenceEncoder`, such as `prompts`, `truncate_dim`, `precision` and `threads`.

    Attributes:
        model_name: name of the model.
        feature: text of the feature, or None.
        options: options of the encoder.
        encoder: the open encoder.

    Raises:
        UsageError, ModelNotFoundError, CheckpointError, BackendError: as in `SentenceEncoder`.
    """

    feature: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    _encoder: SentenceEncoder = PrivateAttr()

    def __init__(
        self,
        model_name: str | PathLike[str] | None = None,
        feature: str | Expr | None = None,
        *,
        options: Mapping[str, Any] | None = None,
        **keywords: Any,
    ) -> None:
        check_is_name(model_name)
        name = DEFAULT_MODEL if model_name is None else fspath(model_name)
        fields = {key: keywords.pop(key) for key in list(keywords) if key in BaseEmbedding.model_fields}
        own = {**(options or {}), **keywords}
        super().__init__(model_name=name, feature=None if feature is None else str(feature), options=own, **fields)
        self._encoder = SentenceEncoder(name, feature, **own)

    @classmethod
    def class_name(cls) -> str:
        """Return the name by which LlamaIndex writes the class to files."""
        return "LayertapEmbedding"

    @property
    def encoder(self) -> SentenceEncoder:
        """Encoder that computes the vectors, open."""
        return self._encoder

    def _get_query_embedding(self, query: str) -> list[float]:
        (vector,) = self._encoder.encode_query([query]).tolist()
        result: list[float] = vector
        return result

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    def _get_text_embedding(self, text: str) -> list[float]:
        (vector,) = self._get_text_embeddings([text])
        return vector

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self._encoder.encode_document(texts).tolist()
        return vectors

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)
