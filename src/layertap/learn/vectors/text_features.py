"""`TextFeatures`: any feature of a text encoder as a transformer of scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin, _clone_parametrized

from layertap.backends.facts import BackendName, Precision
from layertap.engine.extractor import Extractor
from layertap.errors import OptionError
from layertap.features.expr import Expr
from layertap.features.naming import default_feature
from layertap.features.parse import parse_named
from layertap.learn.vectors.cache import FloatArray
from layertap.learn.vectors.sweep import cached, extracted, width_of
from layertap.learn.vectors.text_column import texts_of


class OpenModel:
    """The extractor that an estimator and its clones share; opened when first needed, left out of pickles."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._options: dict[str, Any] = {}
        self._extractor: Extractor | None = None

    def of(self, model: str | os.PathLike[str] | None, options: dict[str, Any]) -> Extractor:
        """The extractor of these options; another one than before takes its place."""
        asked = {"model": model} | options
        with self._lock:
            if self._extractor is None or asked != self._options:
                self._extractor, self._options = Extractor.from_pretrained(model, **options), asked
            return self._extractor


class TextFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Texts in, one vector a text out: float32 [N, H].

    For pipelines, `ColumnTransformer` and searches over `feature`. It learns nothing from data: `fit` checks its
    parameters, and `transform` may be called without it. Takes lists, arrays and Series of str, and frames of one
    column. Clones share the opened model; pickles hold its name, not its weights.

    With `cache`, vectors are kept on disk by text, so that folds, clones, processes and later runs read them; with
    `sweep` beside it, the first transform extracts all features of the sweep in one pass:

        layers = [f"hidden_states[{i}].mean" for i in range(7)]
        pipeline = make_pipeline(TextFeatures(cache="cache", sweep=layers), LogisticRegression())
        GridSearchCV(pipeline, {"textfeatures__feature": layers}).fit(texts, labels)

    Args:
        feature: text or expression, with one vector a text; None: `sentence_embedding` where the model's folder
            declares it, else `last_hidden_state.mean`.
        model: a folder, a hub id, or None: all-MiniLM-L6-v2, as `Extractor.from_pretrained` has it.
        cache: a folder for vectors, made if absent; None: every transform extracts. Several processes may use it at
            once. It is keyed by what results depend on (hashes of weights, config and tokenizer, feature, options), so
            it may serve several models, and nothing in it gets stale; delete the folder to free its room.
        sweep: features to extract together; goes with `cache`. `feature` need not be among them.
        revision, cache_dir, local_files_only, allow_pickle: where the model comes from; `cache_dir` is the hub's cache.
        precision, max_length, untrained_pooler, long, truncate_side, window, overlap, word_pattern, backend, device,
            threads, instruction_set, batch_tokens: as `Extractor.from_pretrained` has them.
        progress: draw a progress bar on standard error while extracting.

    Attributes:
        n_features_out_: H.
        feature_: the feature's canonical text.
    """

    def __init__(
        self,
        feature: str | Expr | None = None,
        *,
        model: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | None = None,
        sweep: Sequence[str | Expr] | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        allow_pickle: bool = False,
        precision: Precision = "float32",
        max_length: int | None = None,
        untrained_pooler: Literal["refuse", "use"] = "refuse",
        long: Literal["truncate", "window", "error"] = "truncate",
        truncate_side: Literal["right", "left"] = "right",
        window: int | None = None,
        overlap: int | None = None,
        word_pattern: str | None = None,
        backend: BackendName = "auto",
        device: str = "cpu",
        threads: int | None = None,
        instruction_set: str | None = None,
        batch_tokens: int | None = None,
        progress: bool = False,
    ) -> None:
        self.feature = feature
        self.model = model
        self.cache = cache
        self.sweep = sweep
        self.revision = revision
        self.cache_dir = cache_dir
        self.local_files_only = local_files_only
        self.allow_pickle = allow_pickle
        self.precision = precision
        self.max_length = max_length
        self.untrained_pooler = untrained_pooler
        self.long = long
        self.truncate_side = truncate_side
        self.window = window
        self.overlap = overlap
        self.word_pattern = word_pattern
        self.backend = backend
        self.device = device
        self.threads = threads
        self.instruction_set = instruction_set
        self.batch_tokens = batch_tokens
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn passes it
        """Checks the parameters and the texts; nothing is extracted.

        Args:
            X: N texts: a list, array or Series of str, or a frame of one column.
            y: ignored.

        Raises:
            UsageError: a feature without one vector a text, parameters that do not go together, an `X` that is no
                column of texts.
            InputError: a text that is missing or none.
        """
        sweep = self._features()
        texts_of(X)
        extractor = self._extractor()
        for other in sweep:
            width_of(extractor, other)
        _, feature = self._named_feature(extractor)
        self.n_features_out_ = width_of(extractor, feature)
        self.feature_ = str(feature)
        return self

    def transform(self, X: Any) -> FloatArray:
        """The vectors of N texts.

        Args:
            X: as in `fit`.

        Returns:
            float32 [N, H], or what `set_output` asks for.

        Raises:
            UsageError, InputError: as in `fit`.
            NonFiniteError: NaN or infinity in a result.
            OutputError: a cache that cannot be written.
        """
        sweep = self._features()
        texts = texts_of(X)
        extractor = self._extractor()
        feature = self._named_feature(extractor)[1]
        features = list(dict.fromkeys([feature, *sweep]))
        if self.cache is None:
            return extracted(extractor, texts, features, progress=self.progress)
        return cached(extractor, texts, features, Path(self.cache), progress=self.progress)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:  # noqa: ARG002 - as above
        """Names of the H columns: the feature's name (its canonical text where it has none) and their number.

        Args:
            input_features: ignored; texts have no columns to carry.
        """
        extractor = self._extractor()
        name, feature = self._named_feature(extractor)
        return np.array([f"{name}_{i}" for i in range(width_of(extractor, feature))], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags

    def __sklearn_clone__(self) -> Self:
        clone: Self = _clone_parametrized(self)
        # Opening a model takes time; a search makes dozens of clones.
        clone._opened = self._shared()
        return clone

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_opened"}

    def _shared(self) -> OpenModel:
        # Made late: scikit-learn wants constructors to store parameters and nothing else.
        shared: OpenModel = self.__dict__.setdefault("_opened", OpenModel())
        return shared

    def _extractor(self) -> Extractor:
        return self._shared().of(
            self.model,
            {
                "revision": self.revision,
                "cache_dir": self.cache_dir,
                "local_files_only": self.local_files_only,
                "allow_pickle": self.allow_pickle,
                "precision": self.precision,
                "max_length": self.max_length,
                "untrained_pooler": self.untrained_pooler,
                "long": self.long,
                "truncate_side": self.truncate_side,
                "window": self.window,
                "overlap": self.overlap,
                "word_pattern": self.word_pattern,
                "backend": self.backend,
                "device": self.device,
                "threads": self.threads,
                "instruction_set": self.instruction_set,
                "batch_tokens": self.batch_tokens,
            },
        )

    def _features(self) -> list[Expr]:
        """The sweep's features; what can be refused without a model is."""
        if self.sweep is None:
            return []
        if not isinstance(self.sweep, list | tuple):
            raise OptionError(f"sweep is a {type(self.sweep).__name__}; it takes a list of features")
        if self.cache is None:
            raise OptionError(
                "sweep goes with cache: a folder that keeps what one pass extracts, as in TextFeatures(cache='cache', "
                "sweep=[...])"
            )
        return [one_feature(feature, "sweep")[1] for feature in self.sweep]

    def _named_feature(self, extractor: Extractor) -> tuple[str, Expr]:
        if self.feature is None:
            feature = default_feature(extractor.facts)
            return str(feature), feature
        return one_feature(self.feature, "feature")


def one_feature(feature: object, what: str) -> tuple[str, Expr]:
    """Name and expression of a feature given as text or expression.

    Raises:
        UsageError: it is neither, or does not parse.
    """
    if not isinstance(feature, str | Expr):
        raise OptionError(
            f"{what} is of type {type(feature).__name__}; expected a feature: a text such as 'last_hidden_state.mean', "
            "or an expression"
        )
    return parse_named(feature) if isinstance(feature, str) else (str(feature), feature)
