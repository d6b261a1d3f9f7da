"""`TextFeatures`: any feature of a text encoder as a transformer of scikit-learn."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin, _clone_parametrized

from layertap.engine.extractor import Extractor
from layertap.engine.options import (
    BackendName,
    ExtractorOptions,
    LongTexts,
    Precision,
    Side,
    UntrainedPooler,
    names_of,
)
from layertap.errors import OptionError
from layertap.features.expr import Expr
from layertap.features.naming import default_feature
from layertap.features.parse import parse_named
from layertap.features.rules import Rules
from layertap.learn.arrays import Float32Array
from layertap.learn.vectors.sweep import cached, extracted, width_of
from layertap.learn.vectors.text_column import MissingTexts, texts_of
from layertap.locks import ForkSafeLock

# NaN and infinity are always refused: estimators refuse them, and a cache must not hold them.
MODEL_OPTIONS = tuple(name for name in names_of(ExtractorOptions) if name != "non_finite")
"""Options of an extractor that are parameters of `TextFeatures`."""


class SharedExtractor:
    """Extractor that an estimator shares with its clones; opened when it is first needed, and left out of pickles."""

    def __init__(self) -> None:
        self._lock = ForkSafeLock()
        self._options: dict[str, Any] = {}
        self._extractor: Extractor | None = None

    def opened(self, model: str | os.PathLike[str] | None, options: dict[str, Any]) -> Extractor:
        """Return the extractor with these options; it replaces one that was opened with others."""
        requested = {"model": model} | options
        with self._lock:
            if self._extractor is None or requested != self._options:
                self._extractor, self._options = Extractor.from_pretrained(model, **options), requested
            return self._extractor


class TextFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Transform texts into one vector each: float32 [N, H].

    For pipelines, `ColumnTransformer` and searches over `feature`. The transformer learns nothing from data: `fit`
    checks its parameters, and `transform` may be called without it. It takes lists, arrays and Series of str, and
    frames of one column. Clones share the open model; pickles hold its name, not its weights.

    With `cache`, vectors are kept on disk by text, so that folds, clones, processes and later runs read them. With
    `sweep` in addition, the first transform extracts all features of the sweep in one pass:

        layers = [f"hidden_states[{i}].mean" for i in range(7)]
        pipeline = make_pipeline(TextFeatures(cache="cache", sweep=layers), LogisticRegression())
        GridSearchCV(pipeline, {"textfeatures__feature": layers}).fit(texts, labels)

    Args:
        feature: text or expression of a feature with one vector per text; None stands for `sentence_embedding` if the
            folder of the model declares it, else `last_hidden_state.mean`.
        model: folder, hub id, or None for all-MiniLM-L6-v2, as in `Extractor.from_pretrained`.
        cache: folder of the cache, created if absent; None extracts on every transform. Several processes may use one
            folder at once. Vectors are keyed by everything that they depend on (hashes of weights, config and
            tokenizer, feature, options), so that one folder serves any number of models and never becomes stale; to
            free the space, delete the folder.
        sweep: features to extract together; needs `cache`. `feature` need not be one of them.
        missing: "refuse" raises InputError for None, NaN and NA in a column; "empty" reads them as the empty text, as
            skrub's TextEncoder does.
        revision, cache_dir, local_files_only, allow_pickle: as in `Extractor.from_pretrained`; `cache_dir` is the cache
            folder of the hub.
        precision, max_length, untrained_pooler, long, truncate_side, window, overlap, word_pattern: likewise.
        backend, device, threads, instruction_set, batch_tokens, rules: likewise.
        progress: draw a progress bar on standard error while extracting.

    Attributes:
        n_features_out_: H, size of the vectors.
        feature_: canonical text of the feature.
    """

    def __init__(
        self,
        feature: str | Expr | None = None,
        *,
        model: str | os.PathLike[str] | None = None,
        cache: str | os.PathLike[str] | None = None,
        sweep: Sequence[str | Expr] | None = None,
        missing: MissingTexts = "refuse",
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        allow_pickle: bool = False,
        precision: Precision = "float32",
        max_length: int | None = None,
        untrained_pooler: UntrainedPooler = "refuse",
        long: LongTexts = "truncate",
        truncate_side: Side = "right",
        window: int | None = None,
        overlap: int | None = None,
        word_pattern: str | None = None,
        backend: BackendName = "auto",
        device: str = "cpu",
        threads: int | None = None,
        instruction_set: str | None = None,
        batch_tokens: int | None = None,
        rules: Rules | None = None,
        progress: bool = False,
    ) -> None:
        self.feature = feature
        self.model = model
        self.cache = cache
        self.sweep = sweep
        self.missing = missing
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
        self.rules = rules
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn passes it
        """Check the parameters and the texts; nothing is extracted.

        Args:
            X: N texts: a list, array or Series of str, or a frame of one column.
            y: ignored.

        Raises:
            UsageError: a feature without one vector per text, parameters that do not go together, or an `X` that is
                not a column of texts.
            InputError: an item that is missing or not a text.
        """
        sweep = self._sweep()
        self._texts(X)
        extractor = self._extractor()
        for other in sweep:
            width_of(extractor, other)
        _, feature = self._named_feature(extractor)
        self.n_features_out_ = width_of(extractor, feature)
        self.feature_ = str(feature)
        return self

    def transform(self, X: Any) -> Float32Array:
        """Compute the vectors of N texts.

        Args:
            X: N texts, as in `fit`.

        Returns:
            float32 [N, H], or the container that `set_output` asks for.

        Raises:
            UsageError, InputError: as in `fit`.
            NonFiniteError: NaN or infinity in a result.
            OutputError: a cache that cannot be written.
        """
        sweep = self._sweep()
        texts = self._texts(X)
        extractor = self._extractor()
        feature = self._named_feature(extractor)[1]
        if self.cache is None:
            return extracted(extractor, texts, feature, progress=self.progress)
        features = list(dict.fromkeys([feature, *sweep]))
        return cached(extractor, texts, features, Path(self.cache), progress=self.progress)

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[np.object_]:  # noqa: ARG002 - as above
        """Return the names of the H columns: the name of the feature (else its canonical text) and a number.

        Args:
            input_features: ignored; a column of texts has no names to carry over.
        """
        extractor = self._extractor()
        name, feature = self._named_feature(extractor)
        return np.array([f"{name}_{i}" for i in range(width_of(extractor, feature))], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []  # texts in, float32 out
        tags.input_tags.string = True
        tags.input_tags.one_d_array = True
        tags.input_tags.two_d_array = False
        return tags

    def __sklearn_clone__(self) -> Self:
        clone: Self = _clone_parametrized(self)
        # Opening a model takes time, and a search makes dozens of clones.
        clone._opened = self._shared()
        return clone

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_opened"}

    def _shared(self) -> SharedExtractor:
        # Not in the constructor: scikit-learn wants constructors to store parameters and nothing else.
        shared: SharedExtractor = self.__dict__.setdefault("_opened", SharedExtractor())
        return shared

    def _extractor(self) -> Extractor:
        return self._shared().opened(self.model, {name: getattr(self, name) for name in MODEL_OPTIONS})

    def _texts(self, column: Any) -> list[str]:
        if self.missing not in get_args(MissingTexts):
            raise OptionError(f"missing is {self.missing!r}; expected 'refuse' or 'empty'")
        return texts_of(column, self.missing)

    def _sweep(self) -> list[Expr]:
        """Return the features of the sweep, or refuse one that can be refused without a model."""
        if self.sweep is None:
            return []
        if not isinstance(self.sweep, list | tuple):
            raise OptionError(f"sweep is of type {type(self.sweep).__name__}; expected a list of features")
        if self.cache is None:
            raise OptionError(
                "sweep needs a cache, which keeps the vectors of one pass: TextFeatures(cache='cache', sweep=[...])"
            )
        return [one_feature(feature, "sweep")[1] for feature in self.sweep]

    def _named_feature(self, extractor: Extractor) -> tuple[str, Expr]:
        if self.feature is None:
            feature = default_feature(extractor.facts)
            return str(feature), feature
        return one_feature(self.feature, "feature")


def one_feature(feature: object, parameter: str) -> tuple[str, Expr]:
    """Return the name and the expression of a feature given as text or expression.

    Raises:
        UsageError: the value is neither, or the text does not parse.
    """
    if not isinstance(feature, str | Expr):
        raise OptionError(
            f"{parameter} is of type {type(feature).__name__}; expected a feature: a text such as "
            "'last_hidden_state.mean', or an expression"
        )
    return parse_named(feature) if isinstance(feature, str) else (str(feature), feature)
