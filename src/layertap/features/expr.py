"""Feature expressions: `hidden_states[-4:].layer_mean.mean` as a frozen, hashable object.

    Expr
    |-- LastHiddenState, HiddenLayers, PoolerOutput, SentenceEmbedding     sources
    |-- AttentionLayers                                                    a source of maps
    |-- Step                                                               `of` an expression
    |   |-- Unnormed                                                       a source still, before the final norm
    |   |-- LayerFold, Heads, HeadsMean, Tokens, Units, Pool
    |   `-- Normalize, Apply, Truncate, AsType                             on vectors
    `-- Concat                                                             several, joined

Steps are here, since every expression has them as attributes; `sources` and `concat` hold the others.

An expression knows its form (layers axis, token axis) without a model and refuses a step that does not fit at
once; sizes and layer numbers are checked against a model in `schema` and `rewrite`. `str()` gives the canonical
text: selections as written with normalised spaces, steps without arguments without parentheses, `[:, 0]` as
`.first`, options only where they differ from the default.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn, get_args

from layertap.errors import FeatureError
from layertap.features.grammar import Form, Kind, LayerOp, PoolOp, StoredType, UnitOp, refusal, steps_after
from layertap.features.indexing import MAX_NUMBER, key_text, refuse_unless_first
from layertap.features.spelling import advice_on_step
from layertap.features.unselected import described
from layertap.models.sentence import Dense, LayerNorm


class Expr(ABC):
    """A feature: what is wanted for every text. Equal and hashable by structure.

    Steps are attributes: `unnormed` takes the state before a model's final norm, `layer_mean layer_sum layer_max
    layer_concat layer_mix(w0, ...)` fold layers, `tokens` keeps every token, `words(op)` and `spans(op)` make a vector
    a word or span, `cls first last mean max min sum mean_sqrt_len weighted_mean` pool tokens (or words, or spans),
    `normalize truncate(n) astype(type)` work on vectors. Attentions have `layer_mean heads(0, ...) heads_mean` and
    `astype(float16)`. Each refuses, with `FeatureError`, what does not fit.
    """

    __slots__ = ()

    form: Form
    """Facts that are known without a model, worked out once when the expression is made."""

    # An object with only __getitem__ would iterate for ever.
    __iter__: None = None
    __contains__: None = None

    def __array__(self, dtype: object = None, copy: object = None) -> NoReturn:
        raise FeatureError(f"{self} is a feature to ask for, not an array; Extractor.extract(texts, {self}) gives one")

    def __bool__(self) -> NoReturn:
        raise FeatureError(f"{self} is a feature to ask for and has no truth value")

    if not TYPE_CHECKING:  # or every attribute would be taken for one

        def __getattr__(self, name: str) -> NoReturn:
            # Only what is no attribute comes here; protocols of copy, pickle and numpy ask for names of their own.
            if name.startswith("_") or name in getattr(type(self), "__dataclass_fields__", ()):
                raise AttributeError(name)
            raise AttributeError(f"{self} has no step {name!r}{advice_on_step(name)}")

    def __repr__(self) -> str:
        return str(self)

    @abstractmethod
    def __str__(self) -> str: ...

    def __getitem__(self, key: object) -> Pool:
        """Select the first token with `[:, 0]` or `[:, 0, :]`, as `.first`; everything else is refused with advice."""
        if self.form.unit == "maps":
            raise FeatureError(
                f"{self}[{key_text(key)}]: there is no batch axis, and heads are selected as in {self}.heads(0, 3); "
                "rows and columns are cut from the result, as in maps[0][..., 0]"
            )
        refuse_unless_first(key, str(self), layers=self.form.layers, tokens=self.form.ragged)
        return self.first

    @property
    def unnormed(self) -> Unnormed:
        """Hidden state L before the norm after the last block, in models that have one."""
        return Unnormed(of=self)

    @property
    def layer_mean(self) -> LayerFold:
        """The mean over layers."""
        return LayerFold(of=self, op="mean")

    @property
    def layer_sum(self) -> LayerFold:
        """The sum over layers."""
        return LayerFold(of=self, op="sum")

    @property
    def layer_max(self) -> LayerFold:
        """The largest value over layers."""
        return LayerFold(of=self, op="max")

    @property
    def layer_concat(self) -> LayerFold:
        """The layers' vectors joined to one of size L * H, in the order selected."""
        return LayerFold(of=self, op="concat")

    def layer_mix(self, *weights: float) -> LayerFold:
        """Return the sum over layers, each times its weight; one weight a layer, used as given (no softmax)."""
        return LayerFold(of=self, op="mix", weights=tuple(_weight(w) for w in weights))

    def heads(self, *heads: int) -> Heads:
        """Select these heads of attentions, 0 the first, in this order."""
        return Heads(of=self, selection=heads)

    @property
    def heads_mean(self) -> HeadsMean:
        """The mean over the heads of attentions, or over those that `heads` selects."""
        return HeadsMean(of=self)

    @property
    def tokens(self) -> Tokens:
        """Every token, special tokens included: what a source without a pooling means anyway."""
        return Tokens(of=self)

    def words(self, op: UnitOp) -> Units:
        """Return one vector a word: `first`, `last`, `mean`, `max`, `min` or `sum` of its tokens; zeros where it has
        none.
        """
        return Units(of=self, unit="words", op=op)

    def spans(self, op: UnitOp) -> Units:
        """Return one vector a span that the record carries: `op` of the tokens under its characters."""
        return Units(of=self, unit="spans", op=op)

    @property
    def cls(self) -> Pool:
        """The template's CLS token, wherever the family puts it."""
        return Pool(of=self, op="cls")

    @property
    def first(self) -> Pool:
        """Vector of the first token."""
        return Pool(of=self, op="first")

    @property
    def last(self) -> Pool:
        """Vector of the last token."""
        return Pool(of=self, op="last")

    @property
    def mean(self) -> Pool:
        """The mean over tokens."""
        return Pool(of=self, op="mean")

    @property
    def max(self) -> Pool:
        """The largest value over tokens."""
        return Pool(of=self, op="max")

    @property
    def min(self) -> Pool:
        """The smallest value over tokens."""
        return Pool(of=self, op="min")

    @property
    def sum(self) -> Pool:
        """The sum over tokens."""
        return Pool(of=self, op="sum")

    @property
    def mean_sqrt_len(self) -> Pool:
        """The sum over tokens divided by the square root of their number (sentence-transformers)."""
        return Pool(of=self, op="mean_sqrt_len")

    @property
    def weighted_mean(self) -> Pool:
        """The mean over tokens with weights 1, 2, 3, ... (SGPT, Muennighoff 2022; sentence-transformers)."""
        return Pool(of=self, op="weighted_mean")

    @property
    def normalize(self) -> Normalize:
        """Each vector divided by its length; a zero vector stays zero."""
        return Normalize(of=self)

    def truncate(self, size: int) -> Truncate:
        """Return the first `size` numbers of each vector."""
        return Truncate(of=self, size=size)

    def astype(self, dtype: StoredType) -> AsType:
        """Stores vectors as `float16`, `int8` (with a companion `<name>.scale`) or `binary` (packed sign bits)."""
        return AsType(of=self, dtype=dtype)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Step(Expr):
    """Abstract step that an expression is followed by.

    Attributes:
        of: the expression.
        kind: steps stand in the order of their kinds.
    """

    of: Expr
    form: Form = field(init=False, compare=False)

    kind: ClassVar[Kind]

    @property
    @abstractmethod
    def name(self) -> str:
        """Name of the step in the language, without arguments."""

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "form", self._after(_admit(self)))

    def _check(self) -> None:
        """Refuses arguments that fit nowhere."""

    def _after(self, admitted: Form) -> Form:
        """Return the form after the step, from what every step changes in it; refuses what fits elsewhere only."""
        return admitted

    def __str__(self) -> str:
        return f"{self.of}.{self.name}"


def _admit(node: Step) -> Form:
    """Return the form after a step; one that cannot follow is refused with what can, and the order that works."""
    of, step = node.of, node.name
    if not isinstance(of, Expr):
        raise FeatureError(f".{step} applies to a feature, not to {described(of)}")
    why = refusal(of.form, step)
    if why is not None:
        allowed = ", ".join(steps_after(of.form)) or "nothing"
        reordered = _in_order(node)
        instead = f"; write {reordered}" if reordered is not None else ""
        text = str(of) if len(str(of)) <= 200 else f"...{str(of)[-197:]}"
        raise FeatureError(f".{step} cannot follow {text}: {why}; what can follow: {allowed}{instead}")
    return of.form.after(node.kind)


def _in_order(node: Step) -> Expr | None:
    """Return the steps sorted by kind if that makes a feature, else None."""
    steps: list[Step] = []
    source: Expr = node
    while isinstance(source, Step):
        steps.append(source)
        source = source.of
    steps.reverse()
    ordered = sorted(steps, key=lambda step: step.kind)
    if ordered == steps:
        return None
    try:
        for step in ordered:
            source = replace(step, of=source)
    except FeatureError:
        return None
    return source


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Unnormed(Step):
    """Hidden states of a pre-norm model, L as it is before the final norm; the lower ones are as they always are."""

    kind = Kind.SOURCE
    name = "unnormed"

    def _after(self, admitted: Form) -> Form:
        return replace(admitted, unnormed=True)

    def __call__(self) -> Unnormed:
        """Return the step itself: parentheses are optional."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LayerFold(Step):
    """Folds the layers axis. `weights` for `mix` only."""

    op: LayerOp
    weights: tuple[float, ...] = ()

    kind = Kind.LAYERS

    @property
    def name(self) -> str:
        """Name of the step, such as `layer_mean`."""
        return f"layer_{self.op}"

    def _check(self) -> None:
        if self.op == "mix" and not self.weights:
            raise FeatureError("layer_mix needs one weight a layer, as in layer_mix(0.5, 0.5)")

    def _after(self, admitted: Form) -> Form:
        return replace(admitted, layers=False)

    def __call__(self) -> LayerFold:
        """Return the step itself: parentheses are optional."""
        if self.op == "mix":
            raise FeatureError("layer_mix(...) has its weights and takes no second parentheses")
        return self

    def __str__(self) -> str:
        weights = f"({', '.join(repr(w) for w in self.weights)})" if self.op == "mix" else ""
        return f"{self.of}.{self.name}{weights}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Heads(Step):
    """Only some heads of attentions."""

    selection: tuple[int, ...]

    kind = Kind.HEADS
    name = "heads"

    def _check(self) -> None:
        for head in self.selection:
            if isinstance(head, bool) or not isinstance(head, int) or not 0 <= head <= MAX_NUMBER:
                raise FeatureError("heads takes whole numbers, 0 the first head, as in heads(0, 3)")
        if not self.selection:
            raise FeatureError("heads() selects nothing; name heads as in heads(0, 3), or leave the step out for all")
        repeated = next((head for head in self.selection if self.selection.count(head) > 1), None)
        if repeated is not None:
            raise FeatureError(f"heads selects head {repeated} more than once; name each head once")

    def __str__(self) -> str:
        return f"{self.of}.heads({', '.join(map(str, self.selection))})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HeadsMean(Step):
    """The mean over the heads of attentions."""

    kind = Kind.HEADS_MEAN
    name = "heads_mean"

    def __call__(self) -> HeadsMean:
        """Return the step itself: parentheses are optional."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Tokens(Step):
    """Every token; with `special=False` without the special tokens that the template adds."""

    special: bool = True

    kind = Kind.UNITS
    name = "tokens"

    def _check(self) -> None:
        if not isinstance(self.special, bool):
            raise FeatureError(f"tokens(special=...) takes True or False, not {self.special!r}")

    def _after(self, admitted: Form) -> Form:
        return replace(admitted, unit="tokens" if self.special else "content")

    def __call__(self, *, special: bool = True) -> Tokens:
        """Return the same; `special=False` leaves out the special tokens that the template adds."""
        return Tokens(of=self.of, special=special)

    def __str__(self) -> str:
        return f"{self.of}.tokens" + ("" if self.special else "(special=False)")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Units(Step):
    """Reduces tokens to words or spans.

    Attributes:
        unit: words of the text, or character ranges that the record carries.
        op: what becomes of a unit's tokens.
    """

    unit: Literal["words", "spans"]
    op: UnitOp

    kind = Kind.UNITS

    @property
    def name(self) -> str:
        """Name of the step: `tokens`, `words` or `spans`."""
        return self.unit

    def _check(self) -> None:
        if self.op not in get_args(UnitOp):
            raise FeatureError(f"{self.unit} takes one of {', '.join(get_args(UnitOp))}, not {self.op!r:.80}")

    def _after(self, admitted: Form) -> Form:
        return replace(admitted, unit=self.unit)

    def __str__(self) -> str:
        return f"{self.of}.{self.unit}({self.op})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Pool(Step):
    """Reduces the token axis.

    Attributes:
        special: False leaves out the special tokens that the template adds.
        prompt: False leaves out the input's prompt and what the template puts before it; only in what
            `sentence_embedding` stands for.
    """

    op: PoolOp
    special: bool = True
    prompt: bool = True

    kind = Kind.POOLING

    @property
    def name(self) -> str:
        """Name of the step, such as `mean`."""
        return self.op

    def _check(self) -> None:
        if not isinstance(self.special, bool):
            raise FeatureError(f"{self.op}(special=...) takes True or False, not {self.special!r}")
        if self.op == "cls" and not self.special:
            raise FeatureError("cls(special=False): the CLS token is a special token; write .first(special=False)")

    def _after(self, admitted: Form) -> Form:
        if not self.special and self.of.form.unit != "tokens":
            kept = "the special tokens are left out already" if self.of.form.unit == "content" else "they hold none"
            raise FeatureError(f"{self.op}(special=False) after {self.of}: {kept}; write .{self.op}")
        return replace(admitted, unit="text")

    def __call__(self, *, special: bool = True) -> Pool:
        """Return the pooling with an option set.

        Args:
            special: False leaves out the special tokens that the template adds; a text without any other
                token then gives a zero vector.
        """
        return Pool(of=self.of, op=self.op, special=special)

    def __str__(self) -> str:
        options = [f"{name}=False" for name in ("special", "prompt") if not getattr(self, name)]
        return f"{self.of}.{self.op}" + (f"({', '.join(options)})" if options else "")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Normalize(Step):
    """Each vector divided by its length."""

    kind = Kind.VECTORS
    name = "normalize"

    def __call__(self) -> Normalize:
        """Return the step itself: parentheses are optional."""
        return self


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Apply(Step):
    """A trained step on each vector; only in what `sentence_embedding` stands for, never written by hand."""

    step: Dense | LayerNorm

    kind = Kind.VECTORS
    name = "normalize"  # it may stand where that may

    def __str__(self) -> str:
        return f"{self.of}.{self.step}"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Truncate(Step):
    """The first `size` numbers of each vector."""

    size: int

    kind = Kind.VECTORS
    name = "truncate"

    def _check(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or not 1 <= self.size <= MAX_NUMBER:
            raise FeatureError("truncate(n) takes a whole number from 1 to the size of the vector, as in truncate(128)")

    def __str__(self) -> str:
        return f"{self.of}.truncate({self.size})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class AsType(Step):
    """How vectors are stored; the last step."""

    dtype: StoredType

    kind = Kind.VECTORS
    name = "astype"

    def _check(self) -> None:
        if self.dtype not in get_args(StoredType):
            allowed = ", ".join(get_args(StoredType))
            advice = "; results are float32 without astype" if str(self.dtype) == "float32" else ""
            raise FeatureError(f"astype takes one of {allowed}, not {self.dtype!r}{advice}")

    def _after(self, admitted: Form) -> Form:
        if admitted.unit == "maps" and self.dtype != "float16":
            raise FeatureError(f"astype({self.dtype}) stores vectors; attentions are stored with astype(float16)")
        return replace(admitted, stored=True)

    def __str__(self) -> str:
        return f"{self.of}.astype({self.dtype})"


def _weight(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            weight = float(value)
        except OverflowError:
            weight = math.inf
        if math.isfinite(weight):
            return weight
    raise FeatureError("layer_mix takes finite numbers, one a layer, as in layer_mix(0.5, 0.5)")
