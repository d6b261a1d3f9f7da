"""Adapter for LangChain: any layer of a model as its `Embeddings`."""

from __future__ import annotations

from os import PathLike
from typing import Any

from layertap.engine.extractor import Extractor
from layertap.errors import BackendError
from layertap.features.expr import Expr
from layertap.integrations.encoders import encoder_of
from layertap.sentence_encoder import SentenceEncoder

try:
    from langchain_core.embeddings import Embeddings
except ImportError:
    raise BackendError(
        "layertap.integrations.langchain needs langchain-core: pip install 'layertap[langchain]'"
    ) from None


class LayertapEmbeddings(Embeddings):  # type: ignore[misc]  # the library is not there where types are checked
    """Embeddings of LangChain by any feature with one vector per text.

    Queries have the prompt named "query" of the model's folder, and documents that named "document", where the folder
    has them. The asynchronous methods of the base class run these in threads, and any number of threads may call them.

    Args:
        model: folder, hub id, None for all-MiniLM-L6-v2, an open `Extractor` or an open `SentenceEncoder`.
        feature: feature with one vector per text, as in `SentenceEncoder`.
        **options: options of `SentenceEncoder`, such as `prompts`, `truncate_dim`, `precision` and `threads`.

    Attributes:
        encoder: the open encoder.

    Raises:
        UsageError, ModelNotFoundError, CheckpointError, BackendError: as in `SentenceEncoder`.
    """

    def __init__(
        self,
        model: str | PathLike[str] | Extractor | SentenceEncoder | None = None,
        feature: str | Expr | None = None,
        **options: Any,
    ) -> None:
        self.encoder = encoder_of(model, feature, options)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Compute the vectors of N documents: N lists of D numbers.

        Raises:
            InputError: a document that is not a text.
        """
        vectors: list[list[float]] = self.encoder.encode_document(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Compute the vector of a query: D numbers.

        Raises:
            InputError: a query that is not a text.
        """
        (vector,) = self.encoder.encode_query([text]).tolist()
        result: list[float] = vector
        return result
