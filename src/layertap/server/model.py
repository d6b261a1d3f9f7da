"""The model as it is served: its names, its features by request, its heads, and the plans of both."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from layertap.engine.extractor import Extractor
from layertap.engine.options import LongTexts, Semantics, Side
from layertap.features.expr import Expr, Normalize
from layertap.features.naming import default_feature
from layertap.features.parse import parse
from layertap.features.plan import Plan
from layertap.features.rewrite import expand_sentence_embedding
from layertap.features.sources import SentenceEmbedding
from layertap.learn.heads.base import PredictionHead
from layertap.learn.heads.checkpoint import CheckpointHead
from layertap.learn.heads.predictor import Predictor
from layertap.records import Feature, FeatureSchema
from layertap.server.batcher import PlannedRun
from layertap.server.limits import MOST_EXPRESSION_CHARACTERS, MOST_EXPRESSION_STEPS, MOST_FEATURES
from layertap.server.refusals import Refusal

MOST_RUNS = 256
"""Number of plans that are kept; the one that was used longest ago goes first."""

MOST_EXTRACTORS = 64
"""Number of combinations of text options that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """Options of a request for texts over the limit; None stands for the option of the server.

    Attributes:
        long: truncate a long text, run it in windows, or refuse it.
        truncate_side: which end is cut off.
        window: tokens of a window.
        overlap: tokens that neighbouring windows share.
        max_length: limit in tokens, where it is lower than that of the feature.
    """

    long: LongTexts | None = None
    truncate_side: Side | None = None
    window: int | None = None
    overlap: int | None = None
    max_length: int | None = None

    def semantics(self, base: Semantics) -> Semantics:
        """Return the options of the server with those of the request.

        Raises:
            OptionError: options that do not go together.
        """
        given = {own.name: value for own in fields(self) if (value := getattr(self, own.name)) is not None}
        if "long" in given and given["long"] != base.long:
            # What belongs to another way of treating long texts does not apply.
            given = {"truncate_side": "right", "window": None, "overlap": None, **given}
        return replace(base, **given)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureRun:
    """A run with the names that a request has for its features.

    Plans have names of their own (`f0`, `f1`, ...), so that requests with other names for equal features share runs.

    Attributes:
        run: the run.
        names: name of a feature in the plan -> name in the request.
    """

    run: PlannedRun
    names: Mapping[str, str]

    def renamed(self, features: Mapping[str, Feature]) -> dict[str, Feature]:
        """Return results under the names of the request."""
        return {self._renamed(name): feature for name, feature in features.items()}

    @property
    def schemas(self) -> list[FeatureSchema]:
        """Schemas of the results under the names of the request."""
        return [replace(schema, name=self._renamed(schema.name)) for schema in self.run.pipeline.schemas]

    def unit_of(self, schema: FeatureSchema) -> str:
        """Return what a renamed schema has one value for: text, token, word, span, or a detail's unit."""
        plan = self.run.pipeline.plan
        own = {name: internal for internal, name in self.names.items()}.get(schema.name.removesuffix(".scale"))
        if own is not None:
            return plan.unit_of(own)
        return "word" if schema.name.startswith("word_") else "token" if schema.ragged else "text"

    def _renamed(self, name: str) -> str:
        if name in self.names:
            return self.names[name]
        stem = name.removesuffix(".scale")
        return f"{self.names[stem]}.scale" if stem in self.names else name


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServedHead:
    """A head with the options that it runs with.

    Attributes:
        head: the head.
        extractor: extractor with the options of the head.
        feature: feature that the head takes as input.
    """

    head: PredictionHead
    extractor: Extractor
    feature: Expr

    @classmethod
    def of(cls, head: PredictionHead, extractor: Extractor, semantics: Semantics) -> ServedHead:
        """Check a head against the model, and return it.

        Raises:
            OptionError: a head of another model, or with another precision.
            FeatureError: the model does not have the feature of the head.
        """
        own = extractor.with_semantics(semantics)
        Predictor(own, [head])
        return cls(head=head, extractor=own, feature=parse(head.feature))

    @property
    def is_reranker(self) -> bool:
        """Whether the head scores pairs with one number, as cross-encoders do."""
        return isinstance(self.head, CheckpointHead) and self.head.task == "text" and self.head.answer == "number"


@dataclass(kw_only=True, eq=False)
class ServedModel:
    """One model, its names and plans. Used from the thread of the event loop.

    Attributes:
        id: name of the model: the last part of its folder or hub id.
        extractor: the open model.
        features: names that the server was started with -> features.
        heads: heads by name.
        auto_truncate: whether routes of text-embeddings-inference cut long texts where a request does not say.
    """

    id: str
    extractor: Extractor
    features: Mapping[str, Expr] = field(default_factory=dict)
    heads: Mapping[str, ServedHead] = field(default_factory=dict)
    auto_truncate: bool = False
    _runs: OrderedDict[tuple[Any, ...], PlannedRun] = field(default_factory=OrderedDict, repr=False)
    _extractors: OrderedDict[Semantics, Extractor] = field(default_factory=OrderedDict, repr=False)

    @property
    def default(self) -> Expr:
        """Feature of a request that names none, as in `layertap extract`."""
        return default_feature(self.extractor.facts)

    @property
    def max_length(self) -> int:
        """Tokens of a text that the default feature sees."""
        return self.limit_of(self.default)

    @property
    def blocks(self) -> int:
        """Number of blocks of the model."""
        return self.extractor.files.spec.num_hidden_layers

    @property
    def reranker(self) -> ServedHead | None:
        """Head of a cross-encoder, or None."""
        return next((head for head in self.heads.values() if head.is_reranker), None)

    def limit_of(self, feature: Expr, extractor: Extractor | None = None) -> int:
        """Return the tokens of a text that a feature sees, with the options of another extractor where one is given."""
        plan = (extractor or self.extractor).plan({"f0": feature})
        return max(seen.max_length for seen in plan.inputs)

    def names(self) -> list[str]:
        """Return the names that requests may give as their model."""
        return [self.id, *self.features]

    def feature_of(self, model: str | None) -> Expr:
        """Return the feature that the model's name in a request stands for.

        Args:
            model: the id of the model, a name given with `-f`, either followed by `@` and an expression, or None.

        Raises:
            Refusal: no such model.
            FeatureSyntaxError, FeatureError: an expression that does not parse, or that the model cannot give.
        """
        if model is None or model in self.aliases:
            return self.default
        if model in self.features:
            return self.features[model]
        known = [*self.aliases, *self.features]
        owner = max((name for name in known if model.startswith(f"{name}@")), key=len, default=None)
        if owner is not None:
            return checked_expression(model[len(owner) + 1 :])
        stem, at, expression = model.partition("@")
        near = get_close_matches(stem, known, n=1)
        did = f"did you mean {near[0] + at + expression!r:.200}? " if near else ""
        raise Refusal(
            "unknown_model",
            f"there is no model {model!r:.200} here; {did}there are {', '.join(self.names())}, and any layer as "
            f"{self.id}@hidden_states[4].mean",
            param="model",
        )

    def vector_of(self, feature: Expr, *, options: TextOptions | None = None) -> FeatureRun:
        """Return the run of a feature that gives one vector of floats per text.

        Raises:
            Refusal: the feature gives something else.
        """
        run = self.run_of({"embedding": feature}, options=options or TextOptions())
        (schema,) = run.schemas[:1]
        if schema.ragged or schema.maps:
            raise Refusal(
                "invalid",
                f"{feature} gives {'attention maps' if schema.maps else f'one vector per {run.unit_of(schema)}'}, and "
                "an embedding is one vector per text; add a pooling such as .mean, or use /v1/features",
                param="model",
            )
        if len(schema.shape) != 1:
            raise Refusal(
                "invalid",
                f"{feature} gives {list(schema.shape)} numbers per text, and an embedding is one vector; fold the "
                "layers (layer_mean, layer_concat), or use /v1/features",
                param="model",
            )
        if schema.dtype not in ("float32", "float16"):
            raise Refusal(
                "invalid",
                f"{feature} gives {schema.dtype} codes, and an embedding holds floats; leave out astype, or use "
                "/v1/features",
                param="model",
            )
        return run

    def run_of(
        self,
        features: Mapping[str, Expr],
        *,
        options: TextOptions | None = None,
        details: Sequence[str] = (),
        extractor: Extractor | None = None,
    ) -> FeatureRun:
        """Return the run of features, from the cache where an equal one was made.

        Args:
            features: features by the names of the request.
            options: options of the request for long texts.
            details: details beside the features.
            extractor: extractor to use instead of that of the model, or None.

        Raises:
            UsageError: features or options that do not fit the model or each other.
        """
        base = extractor or self.extractor
        semantics = (options or TextOptions()).semantics(base.semantics)
        key = (semantics, tuple(features.values()), tuple(details))
        run = self._runs.get(key)
        if run is None:
            owner = base if semantics == base.semantics else self._with(base, semantics)
            plan = owner.plan({f"f{i}": feature for i, feature in enumerate(features.values())})
            # Other words for the same (hidden_states[-1], last_hidden_state) share a run.
            resolved = (semantics, tuple(plan.resolved.values()), plan.inputs, tuple(details))
            run = self._runs.get(resolved) or _planned(owner, plan, details)
            self._runs[key] = self._runs[resolved] = run
            while len(self._runs) > MOST_RUNS:
                self._runs.popitem(last=False)
        else:
            self._runs.move_to_end(key)
        return FeatureRun(run=run, names={f"f{i}": name for i, name in enumerate(features)})

    def normalized(self, feature: Expr) -> Expr:
        """Return a feature with vectors of length 1; one that is normalized already stays as it is."""
        return feature if self._ends_normalized(feature) else feature.normalize

    def raw(self, feature: Expr) -> Expr:
        """Return a feature without the normalization with which it ends, where it does."""
        while isinstance(feature, Normalize):
            feature = feature.of
        if isinstance(feature, SentenceEmbedding) and self._ends_normalized(feature):
            return replace(feature, normalized=False)
        return feature

    def _ends_normalized(self, feature: Expr) -> bool:
        return isinstance(expand_sentence_embedding(feature, self.extractor.facts), Normalize)

    @property
    def aliases(self) -> tuple[str, ...]:
        """Names of the model itself: its id, and its hub id."""
        checkpoint = self.extractor.files.checkpoint
        return (self.id,) if checkpoint.origin == "folder" else (self.id, checkpoint.name)

    def _with(self, base: Extractor, semantics: Semantics) -> Extractor:
        made = self._extractors.get(semantics)
        if made is None:
            made = self._extractors[semantics] = base.with_semantics(semantics)
            if len(self._extractors) > MOST_EXTRACTORS:
                self._extractors.popitem(last=False)
        return made


def checked_expression(text: str) -> Expr:
    """Parse an expression of a request, within the limits of the server.

    Raises:
        Refusal: it is too long, or has too many steps.
        FeatureSyntaxError: it does not parse.
    """
    return checked_depth(parse(checked_size(text)))


def checked_size(text: str) -> str:
    """Return the text of a feature, or refuse one that is too long.

    Raises:
        Refusal: it is too long.
    """
    if len(text) > MOST_EXPRESSION_CHARACTERS:
        raise Refusal("invalid", f"a feature has at most {MOST_EXPRESSION_CHARACTERS:,} characters here")
    return text


def checked_depth(feature: Expr) -> Expr:
    """Return a feature, or refuse one with too many steps inside each other.

    Raises:
        Refusal: it has too many steps.
    """
    if feature.form.depth > MOST_EXPRESSION_STEPS:
        raise Refusal("invalid", f"a feature has at most {MOST_EXPRESSION_STEPS} steps, one inside the other, here")
    return feature


def checked_count(features: Sequence[object]) -> None:
    """Refuse too many features in one request.

    Raises:
        Refusal: there are too many.
    """
    if len(features) > MOST_FEATURES:
        raise Refusal("too_many", f"{len(features)} features; a request has at most {MOST_FEATURES}", param="features")


def _planned(extractor: Extractor, plan: Plan, details: Sequence[str]) -> PlannedRun:
    everything = frozenset(range(len(plan.inputs)))
    blocks = sum(max(1, program.stop) for program in plan.programs(everything))
    return PlannedRun(pipeline=extractor.pipeline(plan, details), blocks=blocks)
