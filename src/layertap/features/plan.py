"""Plans what to run for a set of features: `make_plan`, with every saving a named rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from layertap.errors import FeatureError
from layertap.features.expr import Expr
from layertap.features.program import Capture, Program, SegmentKind
from layertap.features.rewrite import declared, prompt_of, rewrite, sources
from layertap.features.rules import Rules
from layertap.features.schema import ModelFacts, type_of
from layertap.features.sources import SentenceEmbedding
from layertap.features.taps import Reading, pooler_capture, read, taps
from layertap.records import FeatureSchema


@dataclass(frozen=True, slots=True, kw_only=True)
class InputVariant:
    """How a text is worded for the tokenizer: after a prompt, in lower case. See `Input`."""

    prompt: str = ""
    lowercase: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Form in which a feature sees a text: limit, prompt and lower case.

    Attributes:
        max_length: tokens at most, special tokens and prompt included.
        prompt: what is put before the text.
        lowercase: prompt and text are lower-cased before they are tokenised.
    """

    max_length: int
    prompt: str = ""
    lowercase: bool = False

    @property
    def variant(self) -> InputVariant:
        """Text that is tokenised, whatever the limit: its prompt and case."""
        return InputVariant(prompt=self.prompt, lowercase=self.lowercase)

    def __str__(self) -> str:
        after = f" after the prompt {self.prompt!r}" if self.prompt else ""
        return f"at most {self.max_length} tokens{after}{', lower-cased' if self.lowercase else ''}"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Plan of what to run for a set of features over one model.

    Attributes:
        features: name -> feature as asked.
        resolved: name -> the same, rewritten for the model.
        inputs: what features see; each once, in the order of first use.
        input_of: name -> index into `inputs`.
        readings: name -> what it reads from the encoder, left to right.
        schemas: of the results in output order; an int8 feature's scale right after it.
        rules: the rules in force.
        num_hidden_layers: L.
        extra_captures: what runs though no feature asked for it (rule `heads` off).
    """

    features: Mapping[str, Expr]
    resolved: Mapping[str, Expr]
    inputs: tuple[Input, ...]
    input_of: Mapping[str, int]
    readings: Mapping[str, tuple[Reading, ...]]
    schemas: tuple[FeatureSchema, ...]
    rules: Rules
    num_hidden_layers: int
    extra_captures: tuple[Capture, ...]

    def unit_of(self, name: str) -> str:
        """Return the unit of a result: "text", "token", "word" or "span"; a companion has its feature's."""
        feature = self.features[name if name in self.features else name.removesuffix(".scale")]
        return {"content": "token", "maps": "text"}.get(feature.form.unit, feature.form.unit.removesuffix("s"))

    @property
    def units(self) -> frozenset[SegmentKind]:
        """Kinds of segments that features are made of, words and spans among them."""
        kinds = [reading.segment_kinds for readings in self.readings.values() for reading in readings]
        return frozenset().union(*kinds)

    def features_of(self, inputs: frozenset[int]) -> tuple[str, ...]:
        """Return names of the features computed from sequences that stand for these inputs, in output order."""
        return tuple(name for name in self.features if self.input_of[name] in inputs)

    def programs(self, inputs: frozenset[int]) -> tuple[Program, ...]:
        """Return the programs for sequences that stand for these inputs: one, or without `share` one a feature."""
        programs = self._programs.get(inputs)
        if programs is None:
            names = self.features_of(inputs)
            groups = [names] if self.rules.share else [(name,) for name in names]
            programs = self._programs[inputs] = tuple(self._program(group) for group in groups if group)
        return programs

    @cached_property
    def _programs(self) -> dict[frozenset[int], tuple[Program, ...]]:
        """Programs made so far, by their inputs."""
        return {}

    def segment_kinds(self, program: Program) -> frozenset[SegmentKind]:
        """Return the segments that a program's captures, and the numpy steps on them, need."""
        captured = frozenset(program.captures)
        kinds = {capture.segments for capture in program.captures if capture.segments is not None}
        for readings in self.readings.values():
            for reading in readings:
                if captured.issuperset(reading.captures):
                    kinds |= reading.segment_kinds
        return frozenset(kinds)

    def _program(self, names: tuple[str, ...]) -> Program:
        wanted = [c for name in names for reading in self.readings[name] for c in reading.captures]
        captures = tuple(dict.fromkeys((*wanted, *self.extra_captures)))
        highest = max(capture.layers[-1] for capture in captures)
        stop = highest if self.rules.stop else self.num_hidden_layers
        at_top = [capture for capture in captures if capture.layers[-1] == stop]
        few_rows = stop > 0 and bool(at_top) and all(_few_rows(capture) for capture in at_top)
        return Program(captures=captures, stop=stop, top_rows_only=self.rules.rows and few_rows)


def _few_rows(capture: Capture) -> bool:
    return capture.reduce in ("first", "last") or capture.segments == "spans"


def make_plan(features: Mapping[str, Expr], facts: ModelFacts, *, rules: Rules | None = None) -> Plan:
    """Plans features over one model.

    Args:
        features: name -> feature, as `naming.named` gives them; at least one.
        facts: the model and the options it is used with.
        rules: the savings to make; None: all.

    Raises:
        FeatureError: a feature that this model cannot give.
        UntrainedPoolerError: a pooler that is absent, or untrained without consent.
        OptionError: a `max_length_override` out of range.
    """
    if not features:
        raise FeatureError("a plan needs at least one feature")
    rules = rules or Rules()
    resolved = {name: rewrite(expr, facts) for name, expr in features.items()}
    inputs = {name: input_of(expr, facts) for name, expr in features.items()}
    distinct = tuple(dict.fromkeys(inputs.values()))
    layers = facts.spec.num_hidden_layers
    schemas: list[FeatureSchema] = []
    for name, expr in resolved.items():
        schemas.extend(type_of(expr, facts.spec).schemas(name))
    _refuse_same_names(schemas)
    return Plan(
        features=dict(features),
        resolved=resolved,
        inputs=distinct,
        input_of={name: distinct.index(seen) for name, seen in inputs.items()},
        readings={
            name: tuple(read(tap, capture=rules.capture, fold=rules.fold) for tap in taps(expr, layers))
            for name, expr in resolved.items()
        },
        schemas=tuple(schemas),
        rules=rules,
        num_hidden_layers=layers,
        extra_captures=(pooler_capture(layers),) if not rules.heads and facts.usable_pooler else (),
    )


def input_of(expr: Expr, facts: ModelFacts) -> Input:
    """Return how a feature sees texts: `sentence_embedding` as its folder says, others up to the model's limit.

    Raises:
        FeatureError: a concat whose parts see different things.
    """
    seen: dict[Input, Expr] = {}
    for source in sources(expr):
        given = Input(max_length=facts.limit(None))
        if isinstance(source, SentenceEmbedding):
            spec = declared(facts)
            limit = facts.limit(spec.max_length)
            given = Input(max_length=limit, prompt=prompt_of(source, spec), lowercase=spec.lowercase)
        seen.setdefault(given, source)
    if len({given.variant for given in seen}) > 1:
        variants = " and ".join(f"{source} {given}" for given, source in seen.items())
        raise FeatureError(f"{expr}: its parts see different texts ({variants}); ask for them as features of their own")
    if len(seen) > 1:
        limits = " and ".join(f"{source} {given.max_length}" for given, source in seen.items())
        raise FeatureError(
            f"{expr}: its parts see different numbers of tokens of a text ({limits}); set --max-length "
            f"(max_length={min(given.max_length for given in seen)}) so that all see the same"
        )
    return next(iter(seen))


def _refuse_same_names(schemas: list[FeatureSchema]) -> None:
    names = [schema.name for schema in schemas]
    for name in names:
        if names.count(name) > 1:
            raise FeatureError(f"two results would be called {name!r}; rename one of the features")
