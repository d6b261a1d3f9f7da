"""`SentenceEncoder`: a feature behind the calls of sentence-transformers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
import numpy.typing as npt

from layertap.backends.here import require_torch
from layertap.engine.extractor import Extractor
from layertap.engine.options import ExtractorOptions, names_of
from layertap.engine.texts import check_iterable
from layertap.errors import InputError, OptionError
from layertap.features.expr import Expr
from layertap.features.naming import default_feature, parsed
from layertap.features.plan import Input
from layertap.files import make_folder
from layertap.keywords import check_absent, refuse_all
from layertap.learn.vectors.sweep import extracted, width_of
from layertap.sentence_encoder.absent import ATTRIBUTES
from layertap.sentence_encoder.card import ModelCardData
from layertap.sentence_encoder.keywords import CALL, ENCODE_NAMES, LOADING, LOADING_NAMES, TOKENIZE
from layertap.sentence_encoder.similarity import SIMILARITIES, Similarity, pairwise_similarity, similarity

if TYPE_CHECKING:
    import torch

PRECISIONS = ("float32", "binary", "ubinary")
MODEL_CONFIG = "config_sentence_transformers.json"
MOST_PROMPTS = 16
"""Number of prompts whose plans are kept."""

_PROMPT = "layertap-prompt"


class SentenceEncoder:
    """Encode texts by any feature, with the calls of `SentenceTransformer` of sentence-transformers 6.

    Libraries that take such an object take this one. Keywords are honoured or refused with a reason, never ignored.
    torch is needed for results that are tensors only, and without it everything else works.

    Args:
        model: folder, hub id, None for all-MiniLM-L6-v2, or an open `Extractor`.
        feature: feature with one vector per text; None: `sentence_embedding` if the folder of the model declares it,
            else `last_hidden_state.mean`.
        device: "cpu", "cuda" or "cuda:N"; None: "cpu", or the device of the extractor.
        prompts: prompts by name, which are added to those of the folder and replace those of the same name.
        default_prompt_name: name of the prompt of `encode`; None: that of the folder.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan"; None: that of the folder, else "cosine".
        truncate_dim: number of components to keep of each vector; None: all.
        cache_folder: cache folder of the hub; None: its usual place.
        **options: options of `Extractor.from_pretrained`.

    Attributes:
        extractor: the open model.
        feature: the feature, as an expression or as text.
        prompts: prompts by name; "query" and "document" are always there.
        default_prompt_name: name of the prompt of `encode`, or None.
        similarity_fn_name: name of the similarity.
        truncate_dim: number of components to keep, or None.

    Raises:
        UsageError: the feature does not give one vector of floats per text; a keyword that is not supported.
        ModelNotFoundError, CheckpointError, BackendError: as in `Extractor.from_pretrained`.
    """

    def __init__(
        self,
        model: str | PathLike[str] | Extractor | None = None,
        feature: str | Expr | None = None,
        *,
        device: Any = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: Similarity | None = None,
        truncate_dim: int | None = None,
        cache_folder: str | PathLike[str] | None = None,
        **options: Any,
    ) -> None:
        own = names_of(ExtractorOptions)
        refused = {name: options.pop(name) for name in list(options) if name not in own}
        refuse_all(refused, LOADING, (*LOADING_NAMES, *own))
        if not isinstance(model, str | PathLike | Extractor | None):
            raise OptionError(f"model {model!r}: expected a folder, a hub id or an Extractor")
        if isinstance(model, Extractor):
            given = [*options, *(["cache_folder"] if cache_folder is not None else [])]
            if given:
                raise OptionError(f"{given[0]}: the extractor is open already; give it the option when you open it")
            self.extractor = model
            self._check_device(device)
        else:
            if cache_folder is not None:
                options["cache_dir"] = cache_folder
            self.extractor = Extractor.from_pretrained(
                model, device="cpu" if device is None else str(device), **options
            )
        self.feature: str | Expr = default_feature(self.extractor.facts) if feature is None else feature
        declared = self.extractor.files.sentence_embedding
        stated = {} if declared is None else declared.prompts
        self.prompts: dict[str, str] = {"query": "", "document": ""} | dict(stated) | _checked_prompts(prompts)
        self.default_prompt_name = default_prompt_name or (None if declared is None else declared.default_prompt)
        self._check_prompt_name(self.default_prompt_name)
        self.truncate_dim = _checked_size("truncate_dim", truncate_dim)
        self.similarity_fn_name: str = similarity_fn_name or self._declared_similarity() or "cosine"
        self._check_similarity()
        self._variants: dict[str, Extractor] = {}
        self._width = width_of(self.extractor, self._expression())

    def encode(
        self,
        inputs: str | Sequence[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        **keywords: Any,
    ) -> Any:
        """Compute the vectors of texts.

        Args:
            inputs: a text or N texts; `sentences` is an older name.
            prompt_name: name of the prompt to put before every text; None: the default prompt, if there is one.
            prompt: the prompt itself, instead of a name.
            batch_size: batches hold as many tokens as that many texts of `max_seq_length`; None: as many as suit the
                backend. Results do not depend on it.
            show_progress_bar: draw a progress bar on standard error.
            output_value: "sentence_embedding".
            precision: "float32" or None, or "binary" and "ubinary": the signs of eight components in an int8 or uint8.
            convert_to_numpy: return an array; False: a list of tensors.
            convert_to_tensor: return one tensor.
            device: None, or the device that the model is on.
            normalize_embeddings: scale each vector to length 1, after truncation.
            truncate_dim: number of components to keep; None: the encoder's `truncate_dim`.
            **keywords: keywords of sentence-transformers that are refused unless they have no effect.

        Returns:
            float32 [N, D], and [D] for one text.

        Raises:
            OptionError: a keyword, or a value, that is not supported.
            InputError: an input that is not a text.
        """
        if "sentences" in keywords:
            if inputs is not None:
                raise OptionError("inputs and sentences are both given; give one of them")
            inputs = keywords.pop("sentences")
        refuse_all(keywords, CALL, ENCODE_NAMES)
        self._check_device(device)
        if output_value != "sentence_embedding":
            raise OptionError(
                f"output_value={output_value!r} is not supported: vectors of tokens are a feature, as in "
                "layertap.Extractor.extract(texts, 'last_hidden_state')"
            )
        precision = precision or "float32"
        if precision not in PRECISIONS:
            raise OptionError(
                f"precision={precision!r} is not supported: expected one of {', '.join(PRECISIONS)}; ranges of int8 "
                "and uint8 would depend on the texts of the call"
            )
        if convert_to_tensor or not convert_to_numpy:
            require_torch("tensors need torch")
        is_single = isinstance(inputs, str)
        texts = [inputs] if isinstance(inputs, str) else _checked_texts(inputs)
        vectors = self._vectors(texts, self._prompt(prompt, prompt_name), batch_size, bool(show_progress_bar))
        size = self.truncate_dim if truncate_dim is None else _checked_size("truncate_dim", truncate_dim)
        result: npt.NDArray[Any] = vectors[:, :size]
        if normalize_embeddings:
            result = result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)
        if precision != "float32":
            result = np.packbits(result > 0, axis=1)
            result = (result.astype(np.int16) - 128).astype(np.int8) if precision == "binary" else result
        return self._converted(result, is_single, convert_to_numpy and not convert_to_tensor, convert_to_tensor)

    def encode_query(
        self,
        inputs: str | Sequence[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **keywords: Any,
    ) -> Any:
        """Compute the vectors of queries: `encode` with the prompt named "query" unless another is given."""
        return self.encode(inputs, self._name_for("query", prompt_name, prompt), prompt, *args, **keywords)

    def encode_document(
        self,
        inputs: str | Sequence[str] | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *args: Any,
        **keywords: Any,
    ) -> Any:
        """Compute the vectors of documents: `encode` with the prompt named "document" unless another is given."""
        return self.encode(inputs, self._name_for("document", prompt_name, prompt), prompt, *args, **keywords)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Compare each of N vectors with each of M others by `similarity_fn_name`.

        Args:
            embeddings1, embeddings2: arrays or tensors [N, D] and [M, D], or lists of vectors; one vector [D] counts as
                [1, D].

        Returns:
            A float32 tensor [N, M]; distances are negative, so that the nearest is the largest.

        Raises:
            OptionError: what is no vectors, or vectors of unlike widths.
            BackendError: torch is not installed.
        """
        self._check_similarity()
        return similarity(self.similarity_fn_name, embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> torch.Tensor:
        """Compare each of N vectors with the one in the same place: a float32 tensor [N], as in `similarity`."""
        self._check_similarity()
        return pairwise_similarity(self.similarity_fn_name, embeddings1, embeddings2)

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **keywords: Any) -> dict[str, torch.Tensor]:
        """Tokenize texts as `encode` does: int64 tensors [N, T], cut to `max_seq_length` and padded on the right.

        Args:
            inputs: N texts.
            prompt: text to put before each of them.
            **keywords: keywords of sentence-transformers that are refused unless they have no effect.

        Returns:
            `input_ids` and `attention_mask`, and `token_type_ids` where the model has token types.
        """
        refuse_all(keywords, TOKENIZE, ("inputs", "prompt"))
        require_torch("tensors need torch")
        import torch

        seen, extractor = self._input(), self.extractor
        tokenizer = extractor.lowercased if seen.lowercase and extractor.lowercased else extractor.tokenizer
        encoded = [
            text.limited(seen.max_length, extractor.semantics.truncate_side)
            for text in tokenizer.encode([(prompt or "") + text for text in _checked_texts(inputs)])
        ]
        spec = extractor.files.spec
        shape = (len(encoded), max(map(len, encoded), default=0))
        ids = np.full(shape, spec.pad_token_id or 0, dtype=np.int64)
        mask, types = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, text in enumerate(encoded):
            ids[row, : len(text)] = text.input_ids
            mask[row, : len(text)] = 1
            if text.token_type_ids is not None:
                types[row, : len(text)] = text.token_type_ids
        arrays = {"input_ids": ids, "attention_mask": mask} | (
            {"token_type_ids": types} if spec.type_vocab_size else {}
        )
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def tokenize(self, texts: Sequence[str], **keywords: Any) -> dict[str, torch.Tensor]:
        """Tokenize texts; an older name of `preprocess`."""
        return self.preprocess(texts, **keywords)

    def get_embedding_dimension(self) -> int:
        """Return the number D of components of a vector, after truncation."""
        return self._width if self.truncate_dim is None else min(self._width, self.truncate_dim)

    def get_sentence_embedding_dimension(self) -> int:
        """Return the number D of components of a vector, after truncation; an older name."""
        return self.get_embedding_dimension()

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Keep another number of components of each vector within a `with` block; None: all."""
        before, self.truncate_dim = self.truncate_dim, _checked_size("truncate_dim", truncate_dim)
        try:
            yield
        finally:
            self.truncate_dim = before

    truncate_sentence_embeddings = truncate_embeddings

    def evaluate(self, evaluator: Callable[..., Any], output_path: str | PathLike[str] | None = None) -> Any:
        """Call an evaluator of sentence-transformers.

        Args:
            evaluator: the evaluator.
            output_path: folder for its files, which is created; None: no files.

        Returns:
            The metrics of the evaluator, which `model_card_data.eval_results_dict` keeps too.
        """
        if output_path is not None:
            make_folder(Path(output_path))
        return evaluator(self, None if output_path is None else str(output_path))

    def eval(self) -> Self:
        """Return the encoder, which never has dropout."""
        return self

    @cached_property
    def model_card_data(self) -> ModelCardData:
        """Results of evaluators, and a name of the vectors for caches; a copy of the encoder has a card of its own."""
        return ModelCardData(lambda: f"{self.extractor.files.checkpoint.name} {self.feature} {self.digest}")

    @property
    def digest(self) -> str:
        """Digest of everything that the vectors and their comparison depend on: 12 hex digits."""
        depends_on = [
            self.extractor.provenance(self.feature).digest,
            self.prompts,
            self.default_prompt_name,
            self.truncate_dim,
            self.similarity_fn_name,
        ]
        return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def modalities(self) -> list[str]:
        """Kinds of inputs: texts."""
        return ["text"]

    def supports(self, modality: str | tuple[str, ...]) -> bool:
        """Whether inputs may be of a kind, which "text" is and no other."""
        return modality == "text"

    @property
    def max_seq_length(self) -> int:
        """Largest number of tokens of a text, special tokens included; longer texts are cut. May be set."""
        return self._input().max_length

    @max_seq_length.setter
    def max_seq_length(self, tokens: int) -> None:
        changed = self.extractor.with_semantics(replace(self.extractor.semantics, max_length=tokens))
        changed.plan({"v": self._expression()})  # refused before anything changes
        self.extractor, self._variants = changed, {}

    def get_max_seq_length(self) -> int:
        """Return the largest number of tokens of a text; an older name of `max_seq_length`."""
        return self.max_seq_length

    @property
    def device(self) -> str:
        """Device that the model is on."""
        return self.extractor.runtime.device

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__ | {"_variants": {}}
        state.pop("model_card_data", None)
        return state

    if not TYPE_CHECKING:  # or every attribute would be taken for one

        def __getattr__(self, name: str) -> NoReturn:
            check_absent(self, name, ATTRIBUTES)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __repr__(self) -> str:
        return f"SentenceEncoder({self.extractor!r}, {str(self.feature)!r})"

    def _vectors(
        self, texts: list[str], prompt: str, batch_size: int | None, progress: bool
    ) -> npt.NDArray[np.float32]:
        """Compute the vectors of texts behind a prompt, float32 [N, D]."""
        extractor = self._after(prompt)
        if extractor is None:
            extractor, texts = self.extractor, [prompt + text for text in texts]
        if batch_size is not None:
            tokens = (_checked_size("batch_size", batch_size) or 1) * self.max_seq_length
            extractor = extractor.with_batch_tokens(tokens)
        return extracted(extractor, texts, self._expression(), progress=progress)

    def _after(self, prompt: str) -> Extractor | None:
        """Return the extractor whose `sentence_embedding` sees this prompt, or None if texts are to begin with it.

        Raises:
            OptionError: a prompt for a feature that names one itself, or that reads texts with and without.
        """
        declared = self.extractor.files.sentence_embedding
        if declared is None or declared.refusal is not None:
            return None
        variant = self._variants.get(prompt)
        if variant is None:
            opened = self.extractor.opened
            told = {**declared.prompts, _PROMPT: prompt}
            spec = replace(declared, prompts=told, default_prompt=_PROMPT if prompt else None)
            variant = Extractor(
                opened=replace(opened, files=replace(opened.files, sentence_embedding=spec)),
                backend=self.extractor.backend,
                selection=self.extractor.selection,
                semantics=self.extractor.semantics,
                runtime=self.extractor.runtime,
            )
            if len(self._variants) >= MOST_PROMPTS:
                self._variants.clear()
            self._variants[prompt] = variant
        seen = {one.prompt for one in variant.plan({"v": self._expression()}).inputs}
        if seen == {prompt} or not prompt:
            return variant
        if seen == {""}:
            return None
        raise OptionError(
            f"the prompt {prompt!r:.80} does not fit the feature {self.feature}, which names a prompt of its own or "
            "reads texts both with and without one"
        )

    def _expression(self) -> Expr:
        (expression,) = parsed(self.feature).values()
        return expression

    def _input(self) -> Input:
        inputs = self.extractor.plan({"v": self._expression()}).inputs
        return max(inputs, key=lambda one: one.max_length)

    def _prompt(self, prompt: str | None, name: str | None) -> str:
        if prompt is not None:
            if name is not None:
                raise OptionError("prompt and prompt_name are both given; give one of them")
            if not isinstance(prompt, str):
                raise OptionError(f"prompt={prompt!r:.80}: expected a text (str)")
            return prompt
        name = self.default_prompt_name if name is None else name
        self._check_prompt_name(name)
        return "" if name is None else self.prompts[name]

    def _check_prompt_name(self, name: str | None) -> None:
        if name is not None and name not in self.prompts:
            raise OptionError(f"there is no prompt {name!r:.80}; there are {', '.join(self.prompts)}")

    def _check_device(self, device: Any) -> None:
        if device is not None and str(device) != self.device:
            raise OptionError(f"device={device!r}: the model is on {self.device}; open another encoder on that device")

    def _check_similarity(self) -> None:
        if self.similarity_fn_name not in SIMILARITIES:
            raise OptionError(
                f"similarity_fn_name={self.similarity_fn_name!r}: expected one of {', '.join(SIMILARITIES)}"
            )

    def _declared_similarity(self) -> str | None:
        path = self.extractor.files.checkpoint.file(MODEL_CONFIG)
        if path is None:
            return None
        name: str | None = json.loads(path.read_text(encoding="utf-8")).get("similarity_fn_name")
        return name

    def _name_for(self, kind: str, name: str | None, prompt: str | None) -> str | None:
        return kind if name is None and prompt is None and kind in self.prompts else name

    def _converted(self, result: npt.NDArray[Any], is_single: bool, to_numpy: bool, to_tensor: bool) -> Any:
        if to_numpy:
            return result[0] if is_single else result
        import torch

        tensor = torch.from_numpy(np.ascontiguousarray(result)).to(self.device)
        if is_single:
            return tensor[0]
        return tensor if to_tensor else list(tensor)


def _checked_prompts(prompts: Any) -> dict[str, str]:
    if prompts is None:
        return {}
    if not isinstance(prompts, Mapping) or not all(isinstance(part, str) for pair in prompts.items() for part in pair):
        raise OptionError(f"prompts {prompts!r}: expected a dict from names to texts")
    return dict(prompts)


def _checked_texts(inputs: Any) -> list[str]:
    check_iterable(inputs)
    texts = list(inputs)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"input {number} is of type {type(text).__name__}; a SentenceEncoder takes texts (str)")
    return texts


def _checked_size(name: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1):
        raise OptionError(f"{name}={value!r}: expected a whole number of at least 1")
    return None if value is None else int(value)
