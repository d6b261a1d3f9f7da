"""Types: what a feature's array looks like, known before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from layertap.errors import FeatureError, OptionError
from layertap.features.concat import Concat
from layertap.features.expr import (
    Apply,
    AsType,
    Expr,
    Heads,
    HeadsMean,
    LayerFold,
    Normalize,
    Pool,
    Tokens,
    Truncate,
    Units,
    Unnormed,
)
from layertap.features.grammar import Unit
from layertap.features.sources import AttentionLayers, HiddenLayers, PoolerOutput
from layertap.models.sentence import SentenceEmbeddingSpec
from layertap.models.spec import EncoderSpec
from layertap.records import FeatureSchema

AXES: Mapping[Unit, str] = {"tokens": "token", "content": "token", "words": "word", "spans": "span"}
"""Names of the first axis of ragged features, by their unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSize:
    """How texts over the limit are run in windows.

    Attributes:
        size: tokens a window, special tokens included, or None: the limit.
        overlap: tokens that neighbouring windows share, or None: an eighth of the window.
    """

    size: int | None = None
    overlap: int | None = None

    def under(self, max_length: int) -> tuple[int, int]:
        """Return (size, overlap) under a limit."""
        size = max_length if self.size is None else min(self.size, max_length)
        return size, size // 8 if self.overlap is None else self.overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Facts about a model and its options that the feature language needs.

    Attributes:
        spec: the encoder.
        has_cls: the tokenizer's template has a CLS token.
        pooler: whether the checkpoint stores a pooler, and whether it was ever trained.
        use_untrained_pooler: the user asked for a pooler that was never trained.
        sentence_embedding: what a sentence-transformers folder declares, or None.
        max_length: the model's own limit in tokens, special tokens included.
        max_length_override: the user's limit for every feature, or None.
        windows: how texts over the limit are run, or None: they are cut.
    """

    spec: EncoderSpec
    has_cls: bool
    pooler: Literal["trained", "untrained", "absent"]
    use_untrained_pooler: bool
    sentence_embedding: SentenceEmbeddingSpec | None
    max_length: int
    max_length_override: int | None
    windows: WindowSize | None = None

    @property
    def usable_pooler(self) -> bool:
        """`pooler_output` can be computed."""
        return self.spec.pooler and (
            self.pooler == "trained" or (self.pooler == "untrained" and self.use_untrained_pooler)
        )

    def limit(self, own: int | None) -> int:
        """Return tokens that a feature sees of a text.

        Args:
            own: the limit that the feature carries itself, or None: the model's.

        Raises:
            OptionError: an override that the model has no positions for.
        """
        override = self.max_length_override
        if override is None:
            return self.max_length if own is None else min(own, self.max_length)
        if override < 1 or (override > self.max_length and not self.spec.any_length):
            raise OptionError(
                f"max_length {override} is out of range; this model takes 1 to {self.max_length} tokens, "
                "special tokens included"
            )
        return override


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureType:
    """The type of one text's value: [layers, size] or [size], of each `unit`; of maps [layers, size, T, T].

    Attributes:
        dtype: as in the language; `binary` is stored as uint8, eight signs a byte.
        layers: size of the layers axis, or None where there is none.
        size: numbers a vector, before bits are packed; of attentions their heads, 0 for the mean over heads.
        unit: what there is a value of; "text": one in all.
    """

    dtype: Literal["float32", "float16", "int8", "binary"]
    layers: int | None
    size: int
    unit: Unit

    @property
    def ragged(self) -> bool:
        """One value a token, word or span."""
        return self.unit not in ("text", "maps")

    def schemas(self, name: str) -> tuple[FeatureSchema, ...]:
        """Return the schema of a feature of this type, and of its companion `<name>.scale` where it has one."""
        leading = () if self.layers is None else (self.layers,)
        axes = (("layer",) if leading else ()) + (("head",) if self.unit == "maps" and self.size else ())
        if self.unit == "maps":
            heads = (self.size,) if self.size else ()
            assert self.dtype in ("float32", "float16")
            return (
                FeatureSchema(
                    name=name,
                    dtype=self.dtype,
                    shape=(*leading, *heads),
                    ragged=False,
                    maps=True,
                    axes=(*axes, "query", "key"),
                ),
            )
        if self.ragged:
            axes = (AXES[self.unit], *axes)
        shape = (*leading, self.size // 8 if self.dtype == "binary" else self.size)
        stored: Literal["float32", "float16", "int8", "uint8"] = "uint8" if self.dtype == "binary" else self.dtype
        value = FeatureSchema(name=name, dtype=stored, shape=shape, ragged=self.ragged, axes=(*axes, "dim"))
        if self.dtype != "int8":
            return (value,)
        scale = FeatureSchema(name=f"{name}.scale", dtype="float32", shape=leading, ragged=self.ragged, axes=axes)
        return (value, scale)


def type_of(expr: Expr, spec: EncoderSpec) -> FeatureType:
    """Return the type of a feature.

    Args:
        expr: a feature as `rewrite.rewrite` leaves it: every layer numbered, `sentence_embedding` expanded.
        spec: the encoder.

    Raises:
        FeatureError: a size that does not fit, with the valid range.
    """
    match expr:
        case HiddenLayers(selection=selection):
            layers = len(selection) if isinstance(selection, tuple) else None
            return FeatureType(dtype="float32", layers=layers, size=spec.hidden_size, unit="tokens")
        case AttentionLayers(selection=selection):
            layers = len(selection) if isinstance(selection, tuple) else None
            return FeatureType(dtype="float32", layers=layers, size=spec.num_attention_heads, unit="maps")
        case PoolerOutput():
            return FeatureType(dtype="float32", layers=None, size=spec.hidden_size, unit="text")
        case Heads() | HeadsMean():
            heads = len(expr.selection) if isinstance(expr, Heads) else 0
            return replace(type_of(expr.of, spec), size=heads)
        case LayerFold():
            return _folded(expr, type_of(expr.of, spec))
        case Unnormed():
            return type_of(expr.of, spec)
        case Tokens() | Units():
            return replace(type_of(expr.of, spec), unit=expr.form.unit)
        case Pool():
            return replace(type_of(expr.of, spec), unit="text")
        case Normalize():
            return type_of(expr.of, spec)
        case Apply(step=step):
            return replace(type_of(expr.of, spec), size=step.size)
        case Truncate():
            return _truncated(expr, type_of(expr.of, spec))
        case AsType():
            return _stored(expr, type_of(expr.of, spec))
        case Concat():
            parts = [type_of(part, spec) for part in expr.parts]
            return replace(parts[0], size=sum(part.size for part in parts))
    raise AssertionError(f"{expr!r} was not rewritten for a model")


def _folded(expr: LayerFold, of: FeatureType) -> FeatureType:
    assert of.layers is not None
    if expr.op == "mix" and len(expr.weights) != of.layers:
        raise FeatureError(
            f"layer_mix has {len(expr.weights)} weights for {of.layers} layers ({expr.of}); give one weight a layer"
        )
    size = of.size * of.layers if expr.op == "concat" else of.size
    return replace(of, layers=None, size=size)


def _truncated(expr: Truncate, of: FeatureType) -> FeatureType:
    if expr.size > of.size:
        raise FeatureError(
            f"truncate({expr.size}): the vectors of {expr.of} have {of.size} numbers; use 1 to {of.size}"
        )
    return replace(of, size=expr.size)


def _stored(expr: AsType, of: FeatureType) -> FeatureType:
    if expr.dtype == "binary" and of.size % 8:
        below = of.size - of.size % 8
        advice = f"; .truncate({below}) before it makes it so" if below else ""
        raise FeatureError(f"astype(binary) needs a size divisible by 8; {expr.of} has {of.size}{advice}")
    return replace(of, dtype=expr.dtype)
