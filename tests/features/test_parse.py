from __future__ import annotations

import re
import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from layertap.errors import FeatureError, FeatureSyntaxError
from layertap.features.concat import concat
from layertap.features.expr import Expr
from layertap.features.parse import parse, parse_named
from layertap.features.sources import hidden_states, last_hidden_state, pooler_output, sentence_embedding
from layertap.features.spelling import MISTAKEN_SOURCES, MISTAKEN_STEPS


@pytest.mark.parametrize(
    ("text", "feature"),
    [
        ("  last_hidden_state ", last_hidden_state),
        ("hidden_states[ -4 : ] . layer_max ( ) . max( )", hidden_states[-4:].layer_max.max),
        ("hidden_states[[1,6]].layer_mix(+0.5,-1e-3).first", hidden_states[[1, 6]].layer_mix(0.5, -1e-3).first),
        ("hidden_states[-1][:, 0, :]", hidden_states[-1].first),
        ("hidden_states[[0, 1]].layer_mix(1e-05, 2.E+07)", hidden_states[[0, 1]].layer_mix(1e-05, 2e07)),
        ("pooler_output.astype('int8')", pooler_output.astype("int8")),
        ('pooler_output.astype("int8")', pooler_output.astype("int8")),
        ("(pooler_output).normalize()", pooler_output.normalize),
        ("concat(\n  pooler_output,\n\tlast_hidden_state[:, 0],\n)", concat(pooler_output, last_hidden_state.first)),
        ("last_hidden_state.mean(special=True)", last_hidden_state.mean),
        ("hidden_states[::]", hidden_states[:]),
        ("hidden_states[-1].unnormed()[:, 0]", hidden_states[-1].unnormed.first),
        ("last_hidden_state . unnormed.mean", last_hidden_state.unnormed.mean),
        ("hidden_states[-4:].unnormed.layer_mean", hidden_states[-4:].unnormed.layer_mean),
    ],
)  # fmt: skip
def test_spellings_of_one_thing(text, feature):
    assert parse(text) == feature


def test_names():
    assert parse_named("v = last_hidden_state.mean") == ("v", last_hidden_state.mean)
    assert parse_named("last_hidden_state [:,0]") == ("last_hidden_state.first", last_hidden_state.first)
    assert parse_named("\u5411\u91cf = pooler_output") == ("\u5411\u91cf", pooler_output)


REFUSED = [
    # text, character under the caret, part of the answer
    ("", 0, "a feature is expected"),
    ("   ", 0, "a feature is expected"),
    ("last_hidden_states.mean", 0, "write last_hidden_state "),
    ("pooled_output", 0, "write pooler_output"),
    ("output_hidden_states", 0, "hidden_states[:] for all"),
    ("hidden_states", 13, "hidden_states[-1] (the last)"),
    ("hidden_states.mean", 13, "hidden_states[:] (all)"),
    ("hidden_states(3)", 13, "takes no parentheses"),
    ("outputs[2]", 0, "name the output itself"),
    ("outputs.last_hidden_state", 0, "name the output itself"),
    ("last_hiden_state", 0, "did you mean 'last_hidden_state'"),
    ("LAST_HIDDEN_STATE", 0, "did you mean 'last_hidden_state'"),
    ("x", 0, "a feature starts with one of"),
    ("mean", 0, "as in last_hidden_state.mean"),
    ("layer_mean", 0, "as in hidden_states[-4:].layer_mean"),
    ("mean(last_hidden_state)", 0, "as in last_hidden_state.mean"),
    ("last_hidden_state.meen", 18, "did you mean 'mean'"),
    ("last_hidden_state.Mean", 18, "did you mean 'mean'"),
    ("last_hidden_state.normalise", 18, "write normalize"),
    ("last_hidden_state.frobnicate", 18, "can follow tokens, words, spans, cls, first"),
    ("last_hidden_state.words", 18, "words needs its argument, as in words(mean)"),
    ("last_hidden_state.words()", 23, "words takes exactly one argument"),
    ("last_hidden_state.words(average)", 18, "words takes one of first, last, mean, max, min, sum, not 'average'"),
    ("last_hidden_state.words(mean).cls", 30, "it has one vector a word, and the CLS token is none"),
    ("last_hidden_state.spans(mean).mean(special=False)", 30, "they hold none; write .mean"),
    ("last_hidden_state.tokens(special=False).mean(special=False)", 40, "left out already; write .mean"),
    ("last_hidden_state.tokens(special=0)", 33, "special is True or False, as in tokens(special=False)"),
    ("concat(last_hidden_state.words(mean), last_hidden_state)", 0, "has one a word: pool it"),
    ("last_hidden_state.windows", 18, "--long window"),
    ("last_hidden_state\uff3b\uff1a, 0\uff3d", 17, "type '['"),
    ("hidden_states\uff081\uff09", 13, "type '('"),
    ("hidden_states[0\uff1a3]", 15, "type ':'"),
    ("hidden_states\u30101\u3011", 13, "type '['"),
    ("concat(pooler_output\uff0clast_hidden_state.cls)", 20, "type ','"),
    ("hidden_states[\u22121]", 14, "type '-'"),
    ("last_hidden_state\u3002mean", 17, "type '.'"),
    ("pooler_output.astype(\u2018int8\u2019)", 21, 'type "\'"'),
    ("last_hidden_state.\ufb01rst", 18, "unexpected"),
    ("\u5411\u91cf = last_hidden_stat", 5, "did you mean 'last_hidden_state'"),
    ("last_hidden_state.raw", 18, "write unnormed"),
    ("unnormed", 0, "as in last_hidden_state.unnormed"),
    ("last_hidden_state.mean.unnormed", 23, "write last_hidden_state.unnormed.mean"),
    ("pooler_output.unnormed", 14, "only hidden states can be had as they are before the final norm"),
    ("last_hidden_state.unnormed(True)", 27, "takes nothing"),
    ("last_hidden_state[0,0]", 18, "write last_hidden_state.first"),
    ("last_hidden_state[:,-1]", 18, "write last_hidden_state.last"),
    ("last_hidden_state[:,1:-1]", 18, "write last_hidden_state.mean(special=False)"),
    ("hidden_states[-4:][:,0]", 19, "write hidden_states[-4:].first"),
    ("hidden_states[:,0]", 14, "write hidden_states[:].first"),
    ("hidden_states[1,6]", 14, "write hidden_states[[1, 6]]"),
    ("hidden_states[1.5]", 14, "expected a whole number"),
    ("hidden_states[True]", 14, "expected a whole number"),
    ("hidden_states[a]", 14, "expected a whole number"),
    ("hidden_states[[[1]]]", 15, "expected a whole number"),
    ("hidden_states[[]]", 14, "selects nothing"),
    ("hidden_states[9999999999999]", 14, "bits"),
    ("hidden_states[0x10]", 14, "neither a number nor a name"),
    ("hidden_states[1if 2 else 3]", 14, "neither a number nor a name"),
    ("hidden_states[1j]", 14, "neither a number nor a name"),
    ("hidden_states[007]", 14, "neither a number nor a name"),
    ("last_hidden_state.normalize.mean", 28, "write last_hidden_state.mean.normalize"),
    ("pooler_output.truncate", 14, "as in truncate(128)"),
    ("pooler_output.truncate()", 22, "exactly one argument"),
    ("pooler_output.truncate(1, 2)", 26, "exactly one argument"),
    ("pooler_output.truncate(1.5)", 14, "whole number"),
    ("pooler_output.truncate('8')", 23, "expected a number"),
    ("pooler_output.astype", 14, "as in astype(float16)"),
    ("pooler_output.astype(float32)", 14, "results are float32 without astype"),
    ("pooler_output.astype(8)", 21, "expected a word"),
    ("hidden_states[:].layer_mix", 17, "as in layer_mix(0.5, 0.5)"),
    ("hidden_states[:].layer_mix(1e999)", 17, "finite"),
    ("last_hidden_state.mean(False)", 23, "write mean(special=False)"),
    ("last_hidden_state.mean(special=0)", 31, "True or False"),
    ("last_hidden_state.mean(axis=1)", 23, "the one option here is special"),
    ("last_hidden_state.normalize(p=2)", 28, "takes no option 'p'"),
    ("last_hidden_state.normalize(2)", 28, "takes nothing"),
    ("last_hidden_state()", 17, "takes no parentheses"),
    ("sentence_embedding()", 18, "sentence_embedding(prompt=query)"),
    ("sentence_embedding(query)", 19, "sentence_embedding(prompt=query)"),
    ("sentence_embedding(name=query)", 19, "sentence_embedding(prompt=query)"),
    ("sentence_embedding(prompt=3)", 26, "the name of a prompt"),
    ("sentence_embedding(prompt='a b')", 26, "letters, digits, _ . -"),
    ("sentence_embedding(prompt=q, limit=3)", 29, "sentence_embedding(prompt=query)"),
    ("sentence_embedding(normalized=3)", 30, "True or False"),
    ("hidden_states[-1]()", 17, "cannot be called"),
    ("concat(pooler_output, axis=1)", 22, "takes features only"),
    ("concat(pooler_output)", 0, "two or more"),
    ("concat", 0, "did you mean 'concat'"),
    ("concat(pooler_output, 'x')", 22, "expected a feature"),
    ("last_hidden_state.mean; pooler_output", 22, "unexpected ';'"),
    ("last_hidden_state.mean # the mean", 23, "unexpected '#'"),
    ("0.5 * last_hidden_state", 4, "unexpected '*'"),
    ("a = b = pooler_output", 0, "name = expression"),
    ("a: int = pooler_output", 0, "name = expression"),
    ("a, b = pooler_output", 0, "name = expression"),
    ("import os", 0, "name = expression"),
    ("lambda: pooler_output", 0, "expected a feature"),
    ("last_hidden_state.mean if 1 else 2", 0, "expected a feature"),
    ("last_hidden_state mean", 18, "name = expression"),
    ("class = pooler_output", 6, "cannot be a feature's name"),
    ("v =", 3, "ends too early"),
    ("last_hidden_state.", 18, "ends too early"),
    ("last_hidden_state.mean(", 22, "never closed"),
    ("last_hidden_state.mean)", 22, "never opened"),
    ("last_hidden_state\x00", 17, "unexpected"),
    ("last_hidden_state\\", 17, "unexpected"),
    ("\ud800", 0, "unexpected"),
]


@pytest.mark.parametrize(("text", "position", "answer"), REFUSED, ids=[ascii(t)[:40] for t, _, _ in REFUSED])
def test_refusals_point_and_say_what_works(text, position, answer):
    with pytest.raises(FeatureSyntaxError, match=re.escape(answer)) as caught:
        parse_named(text)
    assert caught.value.position == position
    assert str(caught.value).splitlines()[-1].strip() == "^"


def test_the_caret_stands_under_the_character():
    with pytest.raises(FeatureSyntaxError) as caught:
        parse_named("\u5411\u91cf = last_hidden_state.meen")
    _reason, text, caret = str(caught.value).splitlines()
    wide = sum(2 if c in "\u5411\u91cf" else 1 for c in text[: text.index("meen")])
    assert caret == " " * wide + "^"


def test_a_name_where_none_is_expected():
    with pytest.raises(FeatureSyntaxError, match="leave out `v =`"):
        parse("v = pooler_output")


def test_near_misses_are_no_spellings():
    for name in MISTAKEN_SOURCES:
        with pytest.raises(FeatureSyntaxError):
            parse(name)
    for name in MISTAKEN_STEPS:
        with pytest.raises(FeatureSyntaxError, match=re.escape(MISTAKEN_STEPS[name])):
            parse(f"last_hidden_state.{name}")


@pytest.mark.parametrize(
    "text",
    [
        "(" * 3000,
        "[" * 4000,
        "last_hidden_state" + ".normalize" * 400,
        "concat(" * 500 + "pooler_output" + ")" * 500,
        "concat(pooler_output," * 190 + "mean" + ")" * 190,
        "hidden_states[" + "-" * 3000 + "1]",
        "hidden_states" + "[0]" * 1200,
        "hidden_states[" + "9" * 4050 + "]",
        "pooler_output.truncate(" + "9" * 4050 + ")",
        "a" * 4097,
        "x" * 10_000_000,
        "a" + ".a" * 2047,
        "not " * 1000 + "a",
    ],
    ids=lambda text: f"{text[:12]}-{len(text)}",
)
def test_monsters(text):
    with pytest.raises(FeatureSyntaxError) as caught:
        parse_named(text)
    assert len(str(caught.value)) < 1000


def test_no_text():
    for value in (None, 3, b"pooler_output", pooler_output):
        with pytest.raises(FeatureError):
            parse(value)


WORDS = [
    "last_hidden_state", "hidden_states", "pooler_output", "sentence_embedding", "concat", "mean", "cls", "layer_mix",
    "layer_mean", "normalize", "truncate", "astype", "special", "True", "int8", "words", "lambda", "if", "v", "1", "-1",
    "0.5", "1e9", "(", ")", "[", "]", ".", ",", ":", "=", " ", "'", '"', "\uff08", "\x00", "*", "#", "\n", "\\",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.text(string.printable, max_size=60),
        st.lists(st.sampled_from(WORDS), max_size=14).map("".join),
    )
)
@example("1_0")
@example("last_hidden_state.1")
@example("hidden_states[1_0]")
@example('""" ')
def test_any_text_parses_or_is_refused(text):
    try:
        name, feature = parse_named(text)
    except (FeatureSyntaxError, FeatureError):
        return
    assert isinstance(feature, Expr)
    assert name
    assert parse(str(feature)) == feature


@pytest.mark.parametrize(
    ("text", "prompt", "canonical"),
    [
        ("sentence_embedding(prompt=query)", "query", None),
        ("sentence_embedding( prompt = 'query' ).normalize", "query", "sentence_embedding(prompt=query).normalize"),
        (
            "sentence_embedding(prompt='Retrieval-query')",
            "Retrieval-query",
            'sentence_embedding(prompt="Retrieval-query")',
        ),
        ("sentence_embedding(prompt='class')", "class", 'sentence_embedding(prompt="class")'),
    ],
)
def test_prompts_by_name(text, prompt, canonical):
    feature = parse(text)
    source = getattr(feature, "of", feature)
    assert source == sentence_embedding(prompt=prompt)
    assert str(feature) == (canonical or text)
    assert parse(str(feature)) == feature


def test_a_sentence_embedding_without_its_last_normalization():
    feature = parse("sentence_embedding( prompt=query , normalized = False )")
    assert feature == sentence_embedding(prompt="query", normalized=False) != sentence_embedding(prompt="query")
    assert str(feature) == "sentence_embedding(prompt=query, normalized=False)"
    assert parse("sentence_embedding(normalized=True)") == sentence_embedding


def test_names_that_no_text_can_hold():
    for name in ("", "a b", 'a"b', "\u00e9", "1st", 3):
        with pytest.raises(FeatureError, match="takes the name of one of the folder's prompts"):
            sentence_embedding(prompt=name)
