"""Turns a feature into what a folder or a graph can say, or refuses it and names the step that it cannot."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import fsum

import numpy as np

from layertap.checkpoints.load import POOLER, ModelFiles
from layertap.engine.opening import OpenedModel
from layertap.errors import FeatureError
from layertap.features.concat import Concat
from layertap.features.expr import (
    Apply,
    AsType,
    Expr,
    LayerFold,
    Normalize,
    Pool,
    Step,
    Tokens,
    Truncate,
    Units,
    Unnormed,
)
from layertap.features.plan import Plan
from layertap.features.rewrite import sources
from layertap.features.sources import HiddenLayers, PoolerOutput, SentenceEmbedding
from layertap.models.sentence import Dense, SentenceEmbeddingSpec, SentencePooling, SentenceStep
from layertap.models.spec import EncoderSpec

POOLINGS: dict[str, SentencePooling] = {
    "cls": "cls",
    "first": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len": "mean_sqrt_len",
    "weighted_mean": "weighted_mean",
    "last": "last",
}
"""Poolings of the language that the module Pooling has, by its names; `cls` is the first token there."""

INSTEAD = "; save it as an ONNX graph (--to onnx)"
SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Layers and modules of a folder whose sentence embedding is the feature.

    Attributes:
        top: the highest hidden state that is read; blocks beyond it are not needed.
        sentence: the modules after the encoder.
    """

    top: int
    sentence: SentenceEmbeddingSpec


def recipe_of(plan: Plan, opened: OpenedModel) -> Recipe:
    """Return the recipe of the one feature of a plan.

    Args:
        plan: plan of one feature.
        opened: the model that the feature is read from.

    Raises:
        FeatureError: a step that no module of sentence-transformers computes.
    """
    (name,) = plan.features
    feature, value = plan.features[name], plan.resolved[name]
    files = opened.files
    reader = _Reader(feature=feature, spec=files.spec, cls_index=opened.tokenizer.cls_index)
    steps: list[SentenceStep] = []
    while not isinstance(value, Pool | Concat | PoolerOutput):
        step, value = reader.step(value)
        steps.insert(0, step)
    if isinstance(value, PoolerOutput):
        poolings: list[Pool] = []
        layers = {files.spec.num_hidden_layers: 1.0}
        steps.insert(0, _pooler(files))
        names: tuple[SentencePooling, ...] = ("cls",)
    else:
        poolings = reader.poolings(value)
        layers = reader.layers(poolings[0].of)
        names = tuple(POOLINGS[pooling.op] for pooling in poolings)
    reader.check_norm(layers)
    top = max(layers)
    sentence = SentenceEmbeddingSpec(
        # A model without any block is none: state 0 is read below the first one.
        layer_weights=None if tuple(layers) == (top,) and top > 0 else layers,
        poolings=names,
        include_prompt=all(pooling.prompt for pooling in poolings),
        steps=tuple(steps),
        max_length=plan.inputs[0].max_length,
    )
    return Recipe(top=max(top, 1), sentence=_with_texts(sentence, feature, files))


def _with_texts(sentence: SentenceEmbeddingSpec, feature: Expr, files: ModelFiles) -> SentenceEmbeddingSpec:
    """Add how the feature sees texts, which only `sentence_embedding` has from its folder."""
    source = sources(feature)[0]
    declared = files.sentence_embedding
    if not isinstance(source, SentenceEmbedding) or declared is None:
        return sentence
    return replace(
        sentence,
        lowercase=declared.lowercase,
        prompts=declared.prompts,
        default_prompt=declared.default_prompt if source.prompt is None else source.prompt,
        include_prompt=declared.include_prompt,
    )


def _pooler(files: ModelFiles) -> Dense:
    weight, bias = (view.to_float32() for view in files.weights(POOLER).values())
    return Dense(weight=weight, bias=bias, activation="tanh")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Reads a resolved feature from its last step to its source.

    Attributes:
        feature: the feature as asked, for messages.
        spec: the encoder.
        cls_index: where the CLS token stands in a text, or None.
    """

    feature: Expr
    spec: EncoderSpec
    cls_index: int | None

    def refused(self, step: str, why: str, instead: str = INSTEAD) -> FeatureError:
        return FeatureError(f"{self.feature}: {step} cannot be saved in a model folder: {why}{instead}")

    def step(self, value: Expr) -> tuple[SentenceStep, Expr]:
        """Return the module of the last step, and what it applies to."""
        match value:
            case Normalize():
                return "normalize", value.of
            case Apply(step=step):
                return step, value.of
            case Truncate(size=size):
                return _first(size, self.width(value.of)), value.of
            case AsType(dtype=dtype):
                raise self.refused(
                    f".astype({dtype})", "its vectors are float32", "; leave it out, and store what the model gives so"
                )
            case Units(unit=unit) | Pool(of=Units(unit=unit)):
                raise self.refused(f".{unit}(...)", "its model has one vector for each text", "")
            case Tokens() | HiddenLayers() | LayerFold() | Unnormed():
                raise self.refused(
                    "a feature of tokens", "its model has one vector for each text", "; add a pooling, as .mean"
                )
        raise self.refused(str(value), "its model has one vector for each text", "")

    def width(self, value: Expr) -> int:
        """Return the size of the vectors of a part of the feature."""
        match value:
            case Truncate(size=size):
                return size
            case Apply(step=step):
                return step.size
            case Concat():
                return sum(self.width(part) for part in value.parts)
            case LayerFold(op="concat", of=HiddenLayers(selection=tuple() as layers)):
                return self.spec.hidden_size * len(layers)
            case Step():
                return self.width(value.of)
        return self.spec.hidden_size

    def poolings(self, value: Pool | Concat) -> list[Pool]:
        """Return the poolings whose vectors are joined."""
        parts = value.parts if isinstance(value, Concat) else (value,)
        pools = [self.pooling(part) for part in parts]
        if len({pool.of for pool in pools}) > 1:
            raise self.refused("concat", "it joins poolings of the same hidden states only")
        if len({pool.op for pool in pools}) < len(pools):
            raise self.refused("concat", "each pooling is there once")
        return pools

    def pooling(self, part: Expr) -> Pool:
        if not isinstance(part, Pool):
            raise self.refused("concat", "it joins poolings alone, without a step after one of them")
        if isinstance(part.of, Units):
            raise self.refused(f".{part.of.unit}(...)", "its model has one vector for each text", "")
        if part.op not in POOLINGS:
            raise self.refused(f".{part.op}", f"its poolings are {', '.join(dict.fromkeys(POOLINGS))}")
        if part.op == "cls" and self.cls_index != 0:
            raise self.refused(".cls", "its CLS token is the first of a text, and this model's is not")
        if not part.special or (isinstance(part.of, Tokens) and not part.of.special):
            raise self.refused("special=False", "its poolings take the special tokens, too")
        return replace(part, of=part.of.of) if isinstance(part.of, Tokens) else part

    def layers(self, states: Expr) -> dict[int, float]:
        """Return number of a hidden state -> its share in what is pooled."""
        match states:
            case HiddenLayers(selection=int() as layer):
                return {layer: 1.0}
            case HiddenLayers():
                raise self.refused(
                    "a feature with an axis of layers", "its model has one vector for each text", "; add .layer_mean"
                )
            case Unnormed():
                raise self.refused(".unnormed", "its last hidden state is the normed one")
            case LayerFold(op="mean", of=HiddenLayers(selection=tuple() as layers)):
                return {layer: 1 / len(layers) for layer in layers}
            case LayerFold(op="mix", weights=weights, of=HiddenLayers(selection=tuple() as layers)):
                total = fsum(weights)
                if abs(total - 1) > SUM_TOLERANCE:
                    raise self.refused(
                        ".layer_mix",
                        f"WeightedLayerPooling divides by the sum of the weights, which is {total:.6g}",
                        f"; divide the weights by it{INSTEAD.replace(';', ', or')}",
                    )
                return dict(zip(layers, weights, strict=True))
            case LayerFold(op="sum"):
                raise self.refused(
                    ".layer_sum",
                    "WeightedLayerPooling divides by the sum of the weights",
                    f"; write .layer_mean{INSTEAD.replace(';', ', or')}",
                )
            case LayerFold(of=Unnormed()):
                raise self.refused(".unnormed", "its last hidden state is the normed one")
            case LayerFold(name=name):
                raise self.refused(f".{name}", "WeightedLayerPooling has weighted means only")
        raise self.refused(str(states), "its model pools hidden states")

    def check_norm(self, layers: dict[int, float]) -> None:
        """Refuse inner states of a family whose last block is followed by a norm, which a cut model keeps."""
        top, last = max(layers), self.spec.num_hidden_layers
        if self.spec.final_norm and top < last:
            raise self.refused(
                f"hidden_states[{top}]",
                f"{self.spec.architecture} has a norm after its last block, so that a model of {top} blocks gives "
                f"norm(hidden_states[{top}])",
            )


def _first(size: int, width: int) -> Dense:
    """Return the module that keeps the first numbers of a vector: rows of the identity, which change no bit."""
    return Dense(weight=np.eye(size, width, dtype=np.float32), bias=None, activation="identity")


def check_graph(feature: Expr, value: Expr) -> None:
    """Refuse a resolved feature with steps that no graph of ids and a mask computes.

    Raises:
        FeatureError: it has one; the message names the step.
    """
    parts = [value]
    while parts:
        part = parts.pop()
        if isinstance(part, Concat):
            parts += part.parts
            continue
        reason = None
        if not isinstance(
            part,
            Normalize | Apply | Truncate | Pool | LayerFold | Unnormed | HiddenLayers | PoolerOutput | Tokens,
        ):
            reason = "words, spans, attentions and stored types are not made of ids and a mask alone"
        elif isinstance(part, Pool | Tokens) and not part.special:
            reason = "the mask does not say which tokens are special"
        elif isinstance(part, Pool) and not part.prompt:
            reason = "the mask does not say which tokens are the prompt's"
        if reason is not None:
            step = str(part).removeprefix(f"{part.of}") if isinstance(part, Step) else str(part)
            raise FeatureError(f"{feature}: {step} cannot be saved as a graph: {reason}")
        if isinstance(part, Step):
            parts.append(part.of)
