"""Features for one model: named rewrites, in the order in which they are applied.

    expand_sentence_embedding    sentence_embedding -> the pooling and the steps after it that the folder declares
    resolve_layers               last_hidden_state, negative numbers and slices -> numbers 0..L

What this model cannot give is refused on the way: layers out of range, poolers, CLS tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from layertap.errors import FeatureError, UntrainedPoolerError
from layertap.features.concat import Concat, concat
from layertap.features.expr import Apply, Expr, Heads, Pool, Step, Unnormed
from layertap.features.indexing import ATTENTIONS, resolve
from layertap.features.schema import ModelFacts
from layertap.features.sources import (
    AttentionLayers,
    HiddenLayers,
    LastHiddenState,
    PoolerOutput,
    SentenceEmbedding,
    last_hidden_state,
)
from layertap.models.sentence import SentenceEmbeddingSpec, SentencePooling


def rewrite(expr: Expr, facts: ModelFacts) -> Expr:
    """Return the feature with everything model-dependent resolved; it means the same.

    Raises:
        FeatureError: a layer, CLS token or sentence embedding that this model does not have.
        UntrainedPoolerError: a pooler that is absent, or untrained without the user's consent.
    """
    return resolve_layers(expand_sentence_embedding(expr, facts), facts)


def sources(expr: Expr) -> tuple[Expr, ...]:
    """Return the sources that a feature reads, from left to right."""
    if isinstance(expr, Concat):
        return tuple(source for part in expr.parts for source in sources(part))
    return sources(expr.of) if isinstance(expr, Step) else (expr,)


def expand_sentence_embedding(expr: Expr, facts: ModelFacts) -> Expr:
    """Expand `sentence_embedding` to the poolings and the steps after them that the folder declares."""

    def expand(source: Expr) -> Expr:
        return _recipe(declared(facts), source) if isinstance(source, SentenceEmbedding) else source

    return _map_sources(expr, expand)


def declared(facts: ModelFacts) -> SentenceEmbeddingSpec:
    """Return the sentence embedding that the folder declares.

    Raises:
        FeatureError: it declares nothing, or something that cannot be computed.
    """
    spec = facts.sentence_embedding
    if spec is None:
        raise FeatureError(
            "sentence_embedding: this model's folder declares none (no modules.json of sentence-transformers); "
            "name a pooling instead, as in last_hidden_state.mean"
        )
    if spec.refusal is not None:
        raise FeatureError(
            f"sentence_embedding: {spec.refusal}; other features of this model can be had, as last_hidden_state.mean"
        )
    return spec


def prompt_of(source: SentenceEmbedding, spec: SentenceEmbeddingSpec) -> str:
    """Return the text that is put before every text; mostly it is empty.

    Raises:
        FeatureError: the folder has no prompt of that name.
    """
    name = spec.default_prompt if source.prompt is None else source.prompt
    if name is None:
        return ""
    if name not in spec.prompts:
        known = ", ".join(spec.prompts) or "none"
        raise FeatureError(f"{source}: the model's folder has no prompt of this name; its prompts: {known}")
    return spec.prompts[name]


def _recipe(spec: SentenceEmbeddingSpec, source: SentenceEmbedding) -> Expr:
    states = last_hidden_state if spec.layer_weights is None else _mixed(spec.layer_weights)
    prompt = spec.include_prompt or not prompt_of(source, spec)
    poolings = [_pooled(states, pooling, prompt) for pooling in spec.poolings]
    value: Expr = poolings[0] if len(poolings) == 1 else concat(*poolings)
    steps = list(spec.steps)
    while not source.normalized and steps and steps[-1] == "normalize":
        steps.pop()
    for step in steps:
        value = value.normalize if step == "normalize" else Apply(of=value, step=step)
    return value if spec.truncate is None else value.truncate(spec.truncate)


def _mixed(layer_weights: Mapping[int, float]) -> Expr:
    weights = {layer: weight for layer, weight in layer_weights.items() if weight}
    layers = tuple(weights)
    if len(layers) == 1:
        return HiddenLayers(selection=layers[0])
    states = HiddenLayers(selection=layers)
    return states.layer_mean if len(set(weights.values())) == 1 else states.layer_mix(*weights.values())


def _pooled(states: Expr, pooling: SentencePooling, prompt: bool) -> Pool:
    # sentence-transformers' "cls" is the first token, whatever the template says
    return Pool(of=states, op="first" if pooling == "cls" else pooling, prompt=prompt)


def resolve_layers(expr: Expr, facts: ModelFacts) -> Expr:
    """Resolve every layer to its number 0..L, of attentions 0..L-1: one, or a tuple in the order asked."""

    def numbered(source: Expr) -> Expr:
        if isinstance(source, LastHiddenState):
            return HiddenLayers(selection=facts.spec.num_hidden_layers)
        if isinstance(source, HiddenLayers):
            layers = resolve(source.selection, facts.spec.num_states)
            return HiddenLayers(selection=layers[0] if isinstance(source.selection, int) else layers)
        if isinstance(source, AttentionLayers):
            layers = resolve(source.selection, facts.spec.num_hidden_layers, ATTENTIONS)
            return AttentionLayers(selection=layers[0] if isinstance(source.selection, int) else layers)
        if isinstance(source, PoolerOutput):
            _check_pooler(facts)
        return source

    def check(step: Step) -> None:
        if isinstance(step, Pool):
            _check_cls(step, facts)
        elif isinstance(step, Unnormed):
            _check_unnormed(step, facts)
        elif isinstance(step, Heads):
            _check_heads(step, facts)

    return _map_sources(expr, numbered, check)


def _check_pooler(facts: ModelFacts) -> None:
    if facts.usable_pooler:
        return
    if facts.pooler == "untrained" and facts.spec.pooler:
        raise UntrainedPoolerError(
            "pooler_output: the checkpoint stores a pooler that was never trained (its bias is exactly zero); use "
            "last_hidden_state.cls or last_hidden_state.mean, or ask for it with --untrained-pooler use "
            '(untrained_pooler="use")'
        )
    raise UntrainedPoolerError(
        "pooler_output: the checkpoint has no pooler, and one made up would be random; use last_hidden_state.cls or "
        "last_hidden_state.mean"
    )


def _check_cls(pool: Pool, facts: ModelFacts) -> None:
    if pool.op == "cls" and not facts.has_cls:
        raise FeatureError(f"{pool}: this model's template has no CLS token; use .first or .last")


def _check_heads(heads: Heads, facts: ModelFacts) -> None:
    last = facts.spec.num_attention_heads - 1
    for head in heads.selection:
        if head > last:
            raise FeatureError(f"{heads}: {head} is out of range; this model's heads are 0 to {last}")


def _check_unnormed(unnormed: Unnormed, facts: ModelFacts) -> None:
    spec, source = facts.spec, unnormed.of
    if not spec.final_norm:
        raise FeatureError(
            f"{unnormed}: this model ({spec.architecture}) has no norm after its last block, each block ends with its "
            f"own: write {source}"
        )
    if not isinstance(source, HiddenLayers):
        return
    last = spec.num_hidden_layers
    if last not in resolve(source.selection, spec.num_states):
        raise FeatureError(
            f"{unnormed}: only hidden_states[{last}] goes through the final norm; lower states are as their blocks "
            f"leave them already: write {source}"
        )


def _map_sources(expr: Expr, change: Callable[[Expr], Expr], check: Callable[[Step], None] | None = None) -> Expr:
    if isinstance(expr, Concat):
        return concat(*(_map_sources(part, change, check) for part in expr.parts))
    if not isinstance(expr, Step):
        return change(expr)
    if check is not None:
        check(expr)
    return replace(expr, of=_map_sources(expr.of, change, check))
