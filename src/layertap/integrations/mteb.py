"""Adapter for MTEB: any layer of a model as an encoder that the benchmark evaluates."""

from __future__ import annotations

from os import PathLike
from typing import Any

from layertap.engine.extractor import Extractor
from layertap.errors import BackendError, InputError
from layertap.features.expr import Expr
from layertap.integrations.encoders import encoder_of
from layertap.sentence_encoder import SentenceEncoder

try:
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta
except ImportError:
    raise BackendError("layertap.integrations.mteb needs mteb: pip install 'layertap[mteb]'") from None


class LayertapEncoder(AbsEncoder):  # type: ignore[misc]  # the library is not there where types are checked
    """Encoder of MTEB (`EncoderProtocol`) by any feature with one vector per text.

    For each task MTEB's own order selects a prompt among `prompts` of the encoder: of the task, its type, or "query"
    and "document". Results are stored under the name of the model with the feature and a digest of everything that they
    depend on, so that features do not share them.

    Args:
        model_name: folder, hub id, None for all-MiniLM-L6-v2, an open `Extractor` or an open `SentenceEncoder`.
        revision: revision on the hub.
        device: "cpu", "cuda" or "cuda:N"; None: "cpu", or the device of the open model.
        feature: feature with one vector per text, as in `SentenceEncoder`.
        **options: options of `SentenceEncoder`, such as `prompts`, `truncate_dim`, `precision` and `threads`.

    Attributes:
        model: the open encoder.
        mteb_model_meta: description of the model for MTEB.

    Raises:
        UsageError, ModelNotFoundError, CheckpointError, BackendError: as in `SentenceEncoder`.
    """

    def __init__(
        self,
        model_name: str | PathLike[str] | Extractor | SentenceEncoder | None = None,
        revision: str | None = None,
        *,
        device: str | None = None,
        feature: str | Expr | None = None,
        **options: Any,
    ) -> None:
        given = {"revision": revision, "device": device}
        stated = {name: value for name, value in given.items() if value is not None}
        self.model = encoder_of(model_name, feature, stated | options)
        self.model_prompts = dict(self.model.prompts)
        self.mteb_model_meta = _meta_of(self.model)

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,  # noqa: ARG002 - MTEB passes it
        hf_subset: str,  # noqa: ARG002 - as above
        prompt_type: Any = None,
        **keywords: Any,
    ) -> Any:
        """Compute the vectors of all texts of a `DataLoader` of MTEB: float32 [N, D].

        Args:
            inputs: batches, each a dict with the column `text`.
            task_metadata: description of the task, which selects the prompt.
            hf_split: split of the data; without effect.
            hf_subset: subset of the data; without effect.
            prompt_type: whether the texts are queries or documents, or None.
            **keywords: keywords of `SentenceEncoder.encode`, such as `batch_size` and `show_progress_bar`.

        Raises:
            InputError: a task whose inputs are not texts.
            OptionError: a keyword that is not supported.
        """
        texts: list[str] = []
        for batch in inputs:
            if "text" not in batch:
                raise InputError(
                    f"task {task_metadata.name}: its inputs have no column 'text' but {', '.join(batch)}; layertap "
                    "encodes texts"
                )
            texts += batch["text"]
        name = self.get_prompt_name(task_metadata, prompt_type)
        prompt = None if name is None else self.model.prompts[name]
        return self.model.encode(texts, prompt=prompt, **keywords)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare each of N vectors with each of M others, as in `SentenceEncoder.similarity`."""
        return self.model.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Compare each of N vectors with the one in the same place, as in `SentenceEncoder.similarity_pairwise`."""
        return self.model.similarity_pairwise(embeddings1, embeddings2)


def _meta_of(encoder: SentenceEncoder) -> ModelMeta:
    extractor = encoder.extractor
    provenance = extractor.provenance(encoder.feature)
    name = provenance.model.name if "/" in provenance.model.name else f"local/{provenance.model.name}"
    return ModelMeta.create_empty(
        {
            "loader": LayertapEncoder,
            "name": name,
            "revision": provenance.model.commit or "no_revision_available",
            "max_tokens": encoder.max_seq_length,
            "embed_dim": encoder.get_embedding_dimension(),
            "experiment_kwargs": {"feature": str(encoder.feature), "digest": encoder.digest},
        }
    )
