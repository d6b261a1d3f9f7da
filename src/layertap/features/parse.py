"""Feature text -> `Expr`. The text is read with `ast` as one statement and never evaluated."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from keyword import iskeyword
from typing import NoReturn, get_args

from layertap.errors import FeatureError, FeatureSyntaxError
from layertap.features.concat import concat
from layertap.features.expr import Expr
from layertap.features.grammar import MAX_TEXT, STEPS, Kind, UnitOp, steps_after
from layertap.features.sources import (
    Attentions,
    HiddenStates,
    attentions,
    hidden_states,
    last_hidden_state,
    pooler_output,
    sentence_embedding,
)
from layertap.features.spelling import (
    MISTAKEN_SOURCES,
    MISTAKEN_STEPS,
    NUMBER,
    PLAIN,
    WIDE,
)
from layertap.features.unselected import described

SOURCES: dict[str, Expr] = {
    "last_hidden_state": last_hidden_state,
    "pooler_output": pooler_output,
    "sentence_embedding": sentence_embedding,
}
# sources that need their layers in brackets
LAYERED: dict[str, HiddenStates | Attentions] = {"hidden_states": hidden_states, "attentions": attentions}
# steps that need an argument -> what that looks like
EXAMPLES: dict[str, str] = {
    "layer_mix": "layer_mix(0.5, 0.5)",
    "heads": "heads(0, 3)",
    "words": "words(mean)",
    "spans": "spans(mean)",
    "truncate": "truncate(128)",
    "astype": "astype(float16)",
}


def parse(text: str) -> Expr:
    """Return the feature that a text means.

    Args:
        text: an expression such as `hidden_states[-4:].layer_mean.mean`, at most 4,096 characters.

    Raises:
        FeatureSyntaxError: with a caret under the character, what was expected, and the nearest spelling.
    """
    statement = _Statement.read(text)
    if statement.name is not None:
        raise statement.error(f"a feature without name is expected here; leave out `{statement.name} =`", 0)
    return statement.feature()


def parse_named(text: str) -> tuple[str, Expr]:
    """Return name and feature of `name = expression`, or of an expression, whose name is its canonical text.

    Raises:
        FeatureSyntaxError: as `parse`.
    """
    statement = _Statement.read(text)
    feature = statement.feature()
    return statement.name or str(feature), feature


@dataclass(frozen=True, slots=True)
class _Statement:
    """One parsed statement, with its text for carets."""

    text: str
    name: str | None
    value: ast.expr

    @classmethod
    def read(cls, text: str) -> _Statement:
        if not isinstance(text, str):
            raise FeatureError(f"a feature text is a str, not {described(text)}")
        stripped = text.strip()
        plain = re.sub(r"\s", " ", stripped)
        _check_characters(stripped, plain)
        try:
            body = ast.parse(plain, mode="exec").body
        except SyntaxError as error:
            position = min(max((error.offset or 1) - 1, 0), len(stripped))
            raise FeatureSyntaxError(_syntax_reason(plain, position), text=stripped, position=position) from None
        except (RecursionError, MemoryError):
            raise FeatureSyntaxError("too deeply nested to be read", text=stripped, position=0) from None
        except ValueError as error:
            raise FeatureSyntaxError(f"cannot be read: {error}", text=stripped, position=0) from None
        if len(body) != 1:
            second = _position(plain, body[1]) if body else 0
            raise FeatureSyntaxError("one feature is expected", text=stripped, position=second)
        return cls._of(stripped, body[0])

    @classmethod
    def _of(cls, text: str, statement: ast.stmt) -> _Statement:
        if isinstance(statement, ast.Expr):
            parsed = cls(text, None, statement.value)
        elif (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            parsed = cls(text, statement.targets[0].id, statement.value)
        else:
            reason = "expected an expression or `name = expression`, as in `v = last_hidden_state.mean`"
            raise FeatureSyntaxError(reason, text=text, position=_position(text, statement))
        begin = _position(text, parsed.value)
        for i, character in enumerate(text[begin:], begin):
            if not character.isascii():
                raise parsed.error(f"unexpected {character!r}; only a feature's name has other letters than a-z", i)
        return parsed

    def feature(self) -> Expr:
        try:
            return self.build(self.value)
        except RecursionError:
            raise self.error("too deeply nested to be read", 0) from None

    def error(self, reason: str, at: ast.expr | ast.keyword | int) -> FeatureSyntaxError:
        position = at if isinstance(at, int) else _position(self.text, at)
        return FeatureSyntaxError(reason, text=self.text, position=position)

    def build(self, node: ast.expr) -> Expr:
        """Return the feature of a node: a source, and the steps on it in turn."""
        steps: list[ast.Attribute | ast.Call | ast.Subscript] = []
        while True:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                steps.append(node)
                node = node.func.value
            elif isinstance(node, ast.Attribute) or (isinstance(node, ast.Subscript) and not _is_layers(node)):
                steps.append(node)
                node = node.value
            else:
                break
        feature = self.source(node)
        for step in reversed(steps):
            feature = self.step(feature, step)
        return feature

    def source(self, node: ast.expr) -> Expr:
        if isinstance(node, ast.Subscript):
            assert isinstance(node.value, ast.Name)
            key, layered = self.key(node.slice), LAYERED[node.value.id]
            return self.made(node.slice, lambda: layered[key])
        if isinstance(node, ast.Name):
            if node.id in SOURCES:
                return SOURCES[node.id]
            self.refuse_source(node)
        if isinstance(node, ast.Call):
            return self.call(node)
        expected = ", ".join((*(f"{name}[...]" for name in LAYERED), *SOURCES, "concat(...)"))
        raise self.error(f"expected a feature: {expected}", node)

    def refuse_source(self, node: ast.Name) -> NoReturn:
        name = node.id
        if name in LAYERED:
            raise self.error(LAYERED[name].advice, _end(self.text, node))
        if name in MISTAKEN_SOURCES:
            raise self.error(f"{name!r} is not a feature; {MISTAKEN_SOURCES[name]}", node)
        if name in STEPS:
            before = {"layer": "hidden_states[-4:].", "heads": "attentions[0]."}
            instead = before.get(name.split("_")[0], "last_hidden_state.")
            raise self.error(f"{name!r} is a step; it follows what it works on, as in {instead}{name}", node)
        known = (*SOURCES, *LAYERED, "concat")
        raise self.error(
            f"unknown {name!r}{_nearest(name, known)}; a feature starts with one of {', '.join(known)}", node
        )

    def call(self, node: ast.Call) -> Expr:
        if isinstance(node.func, ast.Name) and node.func.id == "concat":
            if node.keywords:
                raise self.error("concat takes features only", node.keywords[0])
            parts = [self.build(argument) for argument in node.args]
            return self.made(node, lambda: concat(*parts))
        if isinstance(node.func, ast.Name):
            if node.func.id == "sentence_embedding":
                return self.sentence_embedding(node)
            if node.func.id in SOURCES or node.func.id in LAYERED:
                raise self.error(f"{node.func.id} takes no parentheses", _end(self.text, node.func))
            self.refuse_source(node.func)
        raise self.error("this cannot be called; only steps and concat take parentheses", _end(self.text, node.func))

    def sentence_embedding(self, node: ast.Call) -> Expr:
        """Parse the call `sentence_embedding(prompt=NAME, normalized=False)`."""
        by_name = {keyword.arg: keyword.value for keyword in node.keywords}
        wrong = next((keyword for keyword in node.keywords if keyword.arg not in ("prompt", "normalized")), None)
        if node.args or wrong is not None or not node.keywords or len(by_name) < len(node.keywords):
            last = node.keywords[-1] if node.keywords else _end(self.text, node.func)
            at = node.args[0] if node.args else wrong or last
            raise self.error(
                "the options are a prompt by its name, as in sentence_embedding(prompt=query), and normalized=False", at
            )
        prompt = None
        if "prompt" in by_name:
            prompt = self.word(by_name["prompt"], "the name of a prompt, as in sentence_embedding(prompt=query)")
        normalized = by_name.get("normalized", ast.Constant(value=True))
        if not (isinstance(normalized, ast.Constant) and isinstance(normalized.value, bool)):
            raise self.error("normalized is True or False, as in sentence_embedding(normalized=False)", normalized)
        whether = normalized.value
        at_value = node.keywords[0].value
        return self.made(at_value, lambda: sentence_embedding(prompt=prompt, normalized=whether))

    def step(self, feature: Expr, node: ast.Attribute | ast.Call | ast.Subscript) -> Expr:
        if isinstance(node, ast.Subscript):
            key = self.key(node.slice)
            return self.made(node.slice, lambda: feature[key])
        attribute = node.func if isinstance(node, ast.Call) else node
        assert isinstance(attribute, ast.Attribute)
        name, begin = attribute.attr, _end(self.text, attribute) - len(attribute.attr)
        if name not in STEPS:
            self.refuse_step(feature, name, begin)
        if isinstance(node, ast.Call):
            make = self.arguments(feature, name, node)
        elif name in EXAMPLES:
            raise self.error(f"{name} needs its argument, as in {EXAMPLES[name]}", begin)
        else:

            def make() -> Expr:
                made = getattr(feature, name)
                assert isinstance(made, Expr)
                return made

        return self.made(begin, make)

    def refuse_step(self, feature: Expr, name: str, begin: int) -> NoReturn:
        if name in MISTAKEN_STEPS:
            raise self.error(f"unknown step {name!r}; {MISTAKEN_STEPS[name]}", begin)
        can = steps_after(feature.form)
        follow = f"; after {feature} can follow {', '.join(can)}" if can else f"; nothing can follow {feature}"
        raise self.error(f"unknown step {name!r}{_nearest(name, tuple(STEPS))}{follow}", begin)

    def arguments(self, feature: Expr, name: str, node: ast.Call) -> Callable[[], Expr]:
        """Return the call of a step with its arguments read."""
        with_option = STEPS[name] == Kind.POOLING or name == "tokens"
        options = {"special": self.special(name, node)} if with_option and node.keywords else {}
        if not options and node.keywords:
            raise self.error(f"{name} takes no option {node.keywords[0].arg or '**'!r}", node.keywords[0])
        if name == "layer_mix":
            weights = [self.number(argument) for argument in node.args]
            return lambda: feature.layer_mix(*weights)
        if name == "heads":
            heads = [self.number(argument) for argument in node.args]
            return lambda: feature.heads(*heads)  # type: ignore[arg-type]
        if name == "truncate":
            sizes = [self.number(argument) for argument in self.one(name, node)]
            return lambda: feature.truncate(sizes[0])  # type: ignore[arg-type]
        if name == "astype":
            types = [self.word(argument) for argument in self.one(name, node)]
            return lambda: feature.astype(types[0])  # type: ignore[arg-type]
        if name in ("words", "spans"):
            ops = [self.word(argument, f"a word: {', '.join(get_args(UnitOp))}") for argument in self.one(name, node)]
            return lambda: feature.words(ops[0]) if name == "words" else feature.spans(ops[0])  # type: ignore[arg-type]
        if node.args:
            advice = f"; write {name}(special=False)" if with_option and name != "cls" else ""
            raise self.error(f"{name} takes nothing between its parentheses{advice}", node.args[0])

        def make() -> Expr:
            made = getattr(feature, name)(**options)
            assert isinstance(made, Expr)
            return made

        return make

    def one(self, name: str, node: ast.Call) -> list[ast.expr]:
        if len(node.args) != 1:
            at = node.args[1] if node.args else _end(self.text, node.func)
            raise self.error(f"{name} takes exactly one argument, as in {EXAMPLES[name]}", at)
        return node.args

    def special(self, name: str, node: ast.Call) -> bool:
        keyword = node.keywords[0]
        if keyword.arg != "special" or len(node.keywords) > 1:
            raise self.error(f"the one option here is special, as in {name}(special=False)", node.keywords[-1])
        if not (isinstance(keyword.value, ast.Constant) and isinstance(keyword.value.value, bool)):
            raise self.error(f"special is True or False, as in {name}(special=False)", keyword.value)
        return keyword.value.value

    def number(self, node: ast.expr) -> int | float:
        number = _number(node)
        if number is None:
            raise self.error("expected a number, such as 2, -1 or 0.5", node)
        return number

    def word(self, node: ast.expr, expected: str = "a word: float16, int8 or binary") -> str:
        if isinstance(node, ast.Name):
            return node.id
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        raise self.error(f"expected {expected}", node)

    def key(self, node: ast.expr) -> object:
        """Convert the content of square brackets to the object that Python would pass."""
        if isinstance(node, ast.Slice):
            bounds = [None if b is None else self.index(b) for b in (node.lower, node.upper, node.step)]
            return slice(*bounds)
        if isinstance(node, ast.Tuple):
            return tuple(self.key(part) for part in node.elts)
        if isinstance(node, ast.List):
            return [self.index(part) for part in node.elts]
        if isinstance(node, ast.Constant) and node.value is Ellipsis:
            return Ellipsis
        return self.index(node)

    def index(self, node: ast.expr) -> int:
        number = _number(node)
        if not isinstance(number, int):
            raise self.error("expected a whole number, as in hidden_states[-1] or hidden_states[[1, 6]]", node)
        return number

    def made(self, at: ast.expr | int, make: Callable[[], Expr]) -> Expr:
        """Call `make` and add a caret to its refusals."""
        try:
            return make()
        except FeatureError as error:
            raise self.error(str(error), at) from None


def _number(node: ast.expr) -> int | float | None:
    """Return the number with its sign, or None where the node is something else."""
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        sign = -1 if isinstance(node.op, ast.USub) else 1
        node = node.operand
    value = node.value if isinstance(node, ast.Constant) else None
    return sign * value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _is_layers(node: ast.Subscript) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in LAYERED


def _check_characters(text: str, plain: str) -> None:
    """Refuses what `ast` would misread, drop or warn about; the caret stands where it is."""

    def error(reason: str, position: int) -> FeatureSyntaxError:
        return FeatureSyntaxError(reason, text=text, position=position)

    if not text:
        raise error("a feature is expected, as in last_hidden_state.mean", 0)
    if len(text) > MAX_TEXT:
        raise error(f"a feature text has at most {MAX_TEXT} characters; this one has {len(text)}", MAX_TEXT)
    for i, character in enumerate(plain):
        if character in WIDE:
            raise error(f"{character!r} is not understood here; type {WIDE[character]!r}", i)
        if character not in PLAIN and not character.isidentifier() and not character.isdecimal():
            raise error(f"unexpected {character!r}", i)
    # not the digits of an exponent: 1e-05 is how Python writes it
    for match in re.finditer(r"(?<![\w.])(?<![\d.][eE][+-])\d[\w.]*", plain):
        if not NUMBER.match(plain[match.start() :]):
            raise error(f"{match[0][:40]!r} is neither a number nor a name", match.start())


def _syntax_reason(plain: str, position: int) -> str:
    opened, closed = sum(map(plain.count, "([")), sum(map(plain.count, ")]"))
    if opened > closed:
        return "a bracket is opened here or before and never closed"
    if closed > opened:
        return "a bracket is closed that was never opened"
    if position >= len(plain) or plain.endswith(("=", ".", ",")):
        return "the feature ends too early; expected a step or a source, as in last_hidden_state.mean"
    name = re.match(r"(\w+) *=(?!=)", plain)
    if name and position < name.end() and not _is_name(name[1]):
        return f"{name[1]!r} cannot be a feature's name; a name is a word such as v or sentence_vector"
    return "expected an expression or `name = expression`, as in `v = hidden_states[-4:].layer_mean.mean`"


def _is_name(word: str) -> bool:
    return word.isidentifier() and not iskeyword(word)


def _nearest(name: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _position(text: str, node: ast.AST) -> int:
    """Return the character where a node starts (`ast` counts UTF-8 bytes)."""
    return len(text.encode()[: getattr(node, "col_offset", 0)].decode(errors="ignore"))


def _end(text: str, node: ast.expr) -> int:
    return len(text.encode()[: node.end_col_offset].decode(errors="ignore"))
