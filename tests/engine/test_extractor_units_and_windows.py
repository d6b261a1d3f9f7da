"""Words, spans, pairs, given words, long texts and details, from end to end."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.engine.details import NAMES
from layertap.engine.extractor import Extractor
from layertap.errors import InputError, OptionError, UsageError
from layertap.records import Ragged, Record
from tests.tiny_models import random_model, save_model

H, LIMIT = 32, 64
WORDS = st.lists(st.sampled_from(["the", "film", "unfunny", "xyz", "river,bank", "!", "goodbad"]), max_size=40)
OPS = {
    "first": lambda rows: rows[0],
    "last": lambda rows: rows[-1],
    "mean": lambda rows: rows.mean(axis=0),
    "max": lambda rows: rows.max(axis=0),
    "min": lambda rows: rows.min(axis=0),
    "sum": lambda rows: rows.sum(axis=0),
}


def error(found, wanted) -> float:
    """Largest |error| over RMS."""
    wanted = np.asarray(wanted, dtype=np.float64)
    largest = np.abs(found - wanted).max() if wanted.size else 0.0
    return float(largest / np.sqrt(np.square(wanted).mean())) if wanted.any() else float(largest)


def reduced(rows, op) -> np.ndarray:
    return OPS[op](rows) if len(rows) else np.zeros(H)


@settings(max_examples=30, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=4))
def test_words_are_their_tokens_reduced(extractor, texts):
    texts = ["  ".join(words) for words in texts]
    features = {op: f"last_hidden_state.words({op})" for op in OPS}
    found = extractor.extract(texts, {"t": "last_hidden_state", **features}, details=["token_words", "word_texts"])
    for i, text in enumerate(texts):
        assert found["word_texts"][i].tolist() == text.split()
        owners, states = found["token_words"][i], found["t"][i]
        for op in OPS:
            wanted = [reduced(states[owners == w], op) for w in range(len(text.split()))]
            assert found[op][i].shape == (len(text.split()), H)
            assert error(found[op][i], np.reshape(wanted, (-1, H))) < 2e-6


def test_words_with_layers_and_poolings(extractor):
    texts = ["the film was unfunny", "", "river"]
    found = extractor.extract(
        texts,
        {
            "t": "hidden_states[:]",
            "w": "hidden_states[:].words(mean)",
            "folded": "hidden_states[[1, 3]].layer_max.words(max)",
            **{op: f"hidden_states[2].words(sum).{op}" for op in ("mean", "max", "min", "sum", "first", "last")},
            "sqrt": "hidden_states[2].words(sum).mean_sqrt_len",
            "weighted": "hidden_states[2].words(sum).weighted_mean",
        },
        details=["token_words"],
    )
    for i, text in enumerate(texts):
        owners, states, n = found["token_words"][i], found["t"][i].swapaxes(0, 1), len(text.split())
        assert found["w"][i].shape == (n, 4, H)
        sums = [states[2][owners == w].sum(axis=0) for w in range(n)]
        for w in range(n):
            rows = states[:, owners == w]
            assert error(found["w"][i][w], rows.mean(axis=1)) < 2e-6
            assert error(found["folded"][i][w], np.maximum(rows[1], rows[3]).max(axis=0)) < 2e-6
        for op in ("mean", "max", "min", "sum", "first", "last"):
            assert error(found[op][i], reduced(np.array(sums), op)) < 2e-6
        if n:
            assert error(found["sqrt"][i], np.sum(sums, axis=0) / np.sqrt(n)) < 2e-6
            assert error(found["weighted"][i], np.average(sums, axis=0, weights=range(1, n + 1))) < 2e-6


def test_tokens_without_special_ones(extractor):
    found = extractor.extract(
        ["the film", ""], {"all": "last_hidden_state", "own": "hidden_states[3].tokens(special=False)"}
    )
    np.testing.assert_array_equal(found["own"][0], found["all"][0][1:-1])
    assert found["own"][1].shape == (0, H)


@pytest.mark.parametrize("folder", ["bert_folder", "roberta_folder"])
def test_given_words(request, folder):
    extractor = Extractor.from_pretrained(request.getfixturevalue(folder))
    words = ["the", "", "unfunny", "film bank", "!"]
    with pytest.warns(UserWarning, match="'film bank' holds white space"):
        found = extractor.extract([words, "the film"], {"w": "last_hidden_state.words(mean)"}, details=True)
    assert [len(part) for part in found["w"]] == [5, 2]
    assert not found["w"][0][1].any()
    assert found["word_texts"][0].tolist() == words
    text = " ".join(words)
    for (begin, end), word in zip(found["word_offsets"][0], words, strict=True):
        assert text[begin:end] == word
    owners = found["token_words"][0]
    for (begin, end), owner in zip(found["token_offsets"][0], owners, strict=True):
        if owner >= 0:
            word_begin, word_end = found["word_offsets"][0][owner]
            assert word_begin <= begin <= end <= word_end
    assert set(owners.tolist()) == {-1, 0, 2, 3, 4}


def test_spans(extractor):
    text = "the film was unfunny"
    record = Record(row=0, text=text, spans=((13, 20), (0, 8), (4, 12), (0, 20)))
    found = extractor.extract(
        [record, Record(row=1, text="river", spans=())],
        {"t": "last_hidden_state", "s": "last_hidden_state.spans(mean)", "p": "last_hidden_state.spans(max).mean"},
        details=["token_offsets", "token_special"],
    )
    offsets, own = found["token_offsets"][0], ~found["token_special"][0]
    wanted = []
    for begin, end in record.spans:
        inside = own & (offsets[:, 0] < end) & (offsets[:, 1] > begin)
        wanted.append(found["t"][0][inside].mean(axis=0))
    assert error(found["s"][0], wanted) < 2e-6
    assert found["s"][1].shape == (0, H)
    assert not found["p"][1].any()


def prompted(sentence_folder, folder, *, include_prompt: bool):
    """A sentence-transformers folder with prompts, 12 tokens at most."""
    shutil.copytree(sentence_folder, folder)
    prompts = {"p": "the bank was ", "long": "the good bank " * 12}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    pooling = json.loads((folder / "1_Pooling/config.json").read_text())
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling | {"include_prompt": include_prompt}))
    return folder, prompts


def unit(vector) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_units_and_details_are_those_of_hidden_states(sentence_folder, tmp_path):
    folder, _ = prompted(sentence_folder, tmp_path / "prompted", include_prompt=True)
    extractor = Extractor.from_pretrained(folder)
    record = Record(row=0, text="the film was unfunny " * 4, spans=((13, 20), (76, 83)))
    own = {"t": "last_hidden_state", "w": "last_hidden_state.words(mean)", "s": "last_hidden_state.spans(max)"}
    wanted = extractor.extract([record], own, details=True)
    for before in ("sentence_embedding(prompt=p)", "sentence_embedding"):
        found = extractor.extract([record], {"e": before, **own}, details=True)
        assert len(found["t"][0]) == len(found["token_ids"][0]) > 12
        for name, value in wanted.items():
            given, value = (found[name][0], value[0])
            assert given.tolist() == value.tolist() if given.dtype.kind != "f" else error(given, value) < 2e-6, name


def test_details_of_prompted_texts_are_of_the_text_without_its_prompt(sentence_folder, tmp_path):
    folder, _ = prompted(sentence_folder, tmp_path / "prompted", include_prompt=True)
    extractor = Extractor.from_pretrained(folder, max_length=64)
    found = extractor.extract(["the film", ["was", "unfunny"]], "sentence_embedding(prompt=p)", details=True)
    for i, text in enumerate(("the film", "was unfunny")):
        tokens = [text[begin:end] for begin, end in found["token_offsets"][i]]
        assert "".join(tokens) == text.replace(" ", "")
        assert tokens[:4] == [""] * 4  # the template's and the prompt's
        words = [text[begin:end] for begin, end in found["word_offsets"][i]]
        assert words == found["word_texts"][i].tolist() == text.split()
        for owner, token in zip(found["token_words"][i], tokens, strict=True):
            assert token in words[owner] if owner >= 0 else token == ""


@pytest.mark.parametrize("name", ["p", "long"])
@pytest.mark.parametrize(
    "options", [{"long": "window", "window": 10, "overlap": 3}, {"truncate_side": "left", "max_length": 16}]
)
def test_prompts_are_left_out_of_long_texts(sentence_folder, tmp_path, name, options):
    folder, prompts = prompted(sentence_folder, tmp_path / "prompted", include_prompt=False)
    extractor = Extractor.from_pretrained(folder, **options)
    text = "film river money hello world " * 3
    found = extractor.extract([text], f"sentence_embedding(prompt={name})")[0]
    whole = extractor.extract([prompts[name] + text], {"t": "last_hidden_state"}, details=["token_ids"])
    states = whole["t"][0][-16:]  # the text's own fifteen tokens and the last special one
    if "max_length" in options:
        states = states[-15:]
        if name == "p":
            assert len(whole["t"][0]) == 16
    assert error(found, unit(states.mean(axis=0))) < 1e-5


def test_given_words_beside_a_second_text_are_refused(extractor):
    record = Record(row=3, text="a b", words=("a", "b"), pair="c")
    with pytest.raises(InputError, match="row 3: it has given words and a second text"):
        extractor.extract([record], "last_hidden_state.mean")


@pytest.mark.parametrize(
    ("record", "answer"),
    [
        (Record(row=4, text="river", id="r4"), r"'r4' \(row 4\): it has no spans"),
        (Record(row=4, text="river", spans=((2, 2),)), r"row 4: span \[2, 2\)"),
        (Record(row=4, text="river", spans=((0, 6),)), r"span \[0, 6\): .* <= 5, the length"),
        (Record(row=4, text="river", spans=((-1, 3),)), r"span \[-1, 3\)"),
        (Record(row=4, text="a", pair="b", spans=((0, 1),)), "it is a pair"),
        (Record.of_words(4, ["a"]), "it has given words"),
    ],
)
def test_spans_that_cannot_be_are_refused_by_record(extractor, record, answer):
    with pytest.raises(InputError, match=answer):
        extractor.extract([record], "last_hidden_state.spans(mean)")


def test_pairs(extractor):
    pair = ("the film", "was unfunny")
    found = extractor.extract(
        [pair, "the film"],
        {"t": "last_hidden_state", "own": "last_hidden_state.mean(special=False)"},
        details=["token_ids", "token_special", "token_offsets"],
    )
    ids, special = found["token_ids"][0], found["token_special"][0]
    assert special.sum() == 3
    assert error(found["own"][0], found["t"][0][~special].mean(axis=0)) < 2e-6
    single = extractor.extract(["the film [SEP] was unfunny"], {"t": "last_hidden_state"}, details=["token_ids"])
    np.testing.assert_array_equal(ids, single["token_ids"][0])
    assert error(found["t"][0], single["t"][0]) > 0.01  # the second text has token type 1
    with pytest.raises(InputError, match="row 0: it is a pair"):
        extractor.extract([pair], "last_hidden_state.words(mean)")
    with pytest.raises(InputError, match="not run in windows"):
        Extractor.from_pretrained(extractor.files.checkpoint.folder, long="window").extract(
            [("the film " * 60, "b")], "last_hidden_state.mean"
        )


FEATURES = {
    "t": "last_hidden_state",
    "layers": "hidden_states[[0, 2]]",
    "own": "last_hidden_state.tokens(special=False)",
    "mean": "last_hidden_state.mean",
    "mean_own": "last_hidden_state.mean(special=False)",
    "max": "last_hidden_state.max",
    "min": "last_hidden_state.min",
    "sum": "last_hidden_state.sum",
    "first": "last_hidden_state.first",
    "last": "last_hidden_state.last",
    "weighted": "last_hidden_state.weighted_mean",
    "sqrt": "last_hidden_state.mean_sqrt_len",
    "words": "last_hidden_state.words(mean)",
    "word_max": "last_hidden_state.words(max)",
}


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_windows_are_as_one_sequence(extractor, data):
    window = data.draw(st.integers(6, 20))
    overlap = data.draw(st.integers(0, window - 3))
    batch_tokens = data.draw(st.sampled_from([1, 30, 4096]))
    texts = [" ".join(data.draw(WORDS)), "the film " * 50, "x" * data.draw(st.integers(1, 200))]
    windowed = Extractor.from_pretrained(
        extractor.files.checkpoint.folder, long="window", window=window, overlap=overlap, batch_tokens=batch_tokens
    )
    found = windowed.extract(texts, FEATURES, details=["token_ids", "token_words", "num_windows"])
    for i, text in enumerate(extractor.tokenizer.encode(texts)):
        np.testing.assert_array_equal(found["token_ids"][i], text.input_ids)
        states = found["t"][i]
        assert states.shape == (len(text), H)
        assert (found["num_windows"][i] > 1) == (len(text) > window)
        assert found["layers"][i].shape == (len(text), 2, H)
        np.testing.assert_array_equal(found["own"][i], states[1:-1])
        places = np.arange(1, len(states) + 1)
        wanted = {
            "mean": states.mean(axis=0),
            "mean_own": states[1:-1].mean(axis=0) if len(states) > 2 else np.zeros(H),
            "max": states.max(axis=0),
            "min": states.min(axis=0),
            "sum": states.sum(axis=0),
            "first": states[0],
            "last": states[-1],
            "weighted": np.average(states, axis=0, weights=places),
            "sqrt": states.sum(axis=0) / np.sqrt(len(states)),
        }
        for name, value in wanted.items():
            assert error(found[name][i], value) < 1e-5, name
        owners = found["token_words"][i]
        for w in range(len(texts[i].split())):
            rows = states[owners == w]
            assert error(found["words"][i][w], reduced(rows, "mean")) < 1e-5
            assert error(found["word_max"][i][w], reduced(rows, "max")) < 1e-5


def test_each_window_is_the_same_as_that_text_alone(extractor):
    text = " ".join(f"{word} {number}" for number in range(9) for word in ("river", "bank", "unfunny", "film"))
    size, overlap = 16, 6
    windowed = Extractor.from_pretrained(extractor.files.checkpoint.folder, long="window", window=size, overlap=overlap)
    found = windowed.extract(
        [text], {"t": "last_hidden_state", "cls": "last_hidden_state.cls", "pooled": "pooler_output"}, details=True
    )
    (prepared,) = windowed.pipeline(windowed.plan(), ()).preparation.prepare([Record(row=0, text=text)])
    cut = prepared.cuts[0]
    assert len(cut.sequences) == found["num_windows"][0] > 3
    offsets = found["token_offsets"][0]
    cls, pooled = [], []
    for sequence, window in zip(cut.sequences, cut.windows, strict=True):
        assert len(sequence) <= size
        begin, end = offsets[1 + window.begin][0], offsets[window.end][1]
        part = extractor.extract(
            [text[begin:end]],
            {"t": "last_hidden_state", "cls": "last_hidden_state.cls", "pooled": "pooler_output"},
        )
        own = part["t"][0][1 + window.own_begin - window.begin : 1 + window.own_end - window.begin]
        assert error(found["t"][0][1 + window.own_begin : 1 + window.own_end], own) < 2e-6
        cls.append(part["cls"][0])
        pooled.append(part["pooled"][0])
    assert error(found["cls"][0], np.mean(cls, axis=0)) < 2e-6
    assert error(found["pooled"][0], np.mean(pooled, axis=0)) < 2e-6


def test_long_texts_are_cut_counted_or_refused(extractor):
    folder = extractor.files.checkpoint.folder
    texts = ["good " * 100, "the film"]
    left = Extractor.from_pretrained(folder, truncate_side="left")
    found = left.extract(["river " * 40 + "good " * 50], {"w": "last_hidden_state.words(first)"}, details=True)
    assert found["cut_tokens"].tolist() == [92 - LIMIT]
    assert found["token_words"][0][1:-1].tolist() == list(range(28, 90))
    assert not found["w"][0][:28].any()
    assert found["w"][0][28:].any(axis=1).all()
    refuses = Extractor.from_pretrained(folder, long="error")
    with pytest.raises(InputError, match="row 0: it has 102 tokens, and the limit is 64"):
        refuses.extract(texts, "last_hidden_state.mean")
    refuses.extract(texts[1:], "last_hidden_state.mean")
    stream = Extractor.from_pretrained(folder, long="window").stream(texts, "last_hidden_state.words(mean)")
    list(stream)
    assert stream.summary.notes() == ["1 text over 64 tokens, run in 2 windows"]
    stream = extractor.stream([Record.of_words(0, ["", "a", " "])], "last_hidden_state.words(mean)")
    list(stream)
    assert stream.summary.notes() == ["2 words without a token: zero vectors"]


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ({"long": "cut"}, "expected one of truncate, window, error"),
        ({"window": 30}, "window 30 goes with long 'window'"),
        ({"overlap": 3}, "overlap 3 goes with long 'window'"),
        ({"long": "window", "truncate_side": "left"}, "goes with long 'truncate'"),
        ({"truncate_side": "both"}, "expected one of right, left"),
        ({"long": "window", "window": 65}, "window 65 is out of range: .* at most 64"),
        ({"long": "window", "window": 2}, "window 2 is too small"),
        ({"long": "window", "window": 10, "overlap": 8}, "overlap 8 is out of range: .* 0 to 7"),
        ({"long": "window", "overlap": -1}, "overlap -1: expected a whole number of at least 0"),
        ({"word_pattern": "("}, "no regular expression"),
        ({"word_pattern": "a{99999999999}"}, "no regular expression: the repetition number is too large"),
        ({"word_pattern": "(" * 4000 + ")" * 4000}, "no regular expression"),
        ({"word_pattern": ""}, "matches no character"),
        ({"word_pattern": b"a"}, "expected a str, found bytes"),
    ],
)
def test_options_that_do_not_fit(extractor, options, answer):
    with pytest.raises(OptionError, match=answer):
        Extractor.from_pretrained(extractor.files.checkpoint.folder, **options).extract(["a"], "last_hidden_state.mean")


def test_a_word_pattern(extractor):
    patterned = Extractor.from_pretrained(extractor.files.checkpoint.folder, word_pattern=r"\w+|[^\w\s]")
    found = patterned.extract(["river,bank !"], {"w": "last_hidden_state.words(mean)"}, details=["word_texts"])
    assert found["word_texts"][0].tolist() == ["river", ",", "bank", "!"]
    assert patterned.provenance("last_hidden_state.words(mean)")["word_pattern"] == r"\w+|[^\w\s]"
    assert "word_pattern" not in patterned.provenance("last_hidden_state.mean")
    folder = extractor.files.checkpoint.folder
    windowed = Extractor.from_pretrained(folder, word_pattern=r"\w", long="window")
    assert windowed.provenance("last_hidden_state.mean")["word_pattern"] == r"\w"


def test_details_have_the_types_that_the_schema_says(extractor):
    texts = ["the film", "", ["river", "x"], ("a", "b")]
    feature = "last_hidden_state.mean"
    schemas = extractor.schema(feature, details=["token_ids", "token_special", "token_strings", "cut_tokens"])
    found = extractor.extract(texts, feature, details=["token_ids", "token_special", "token_strings", "cut_tokens"])
    assert list(found) == [schema.name for schema in schemas]
    for schema in schemas:
        value = found[schema.name]
        assert isinstance(value, Ragged) == schema.ragged
        values = value.values if isinstance(value, Ragged) else value
        assert values.dtype == ("object" if schema.dtype == "str" else schema.dtype)
        assert values.shape[1:] == schema.shape
    assert found["token_strings"][0].tolist() == ["[CLS]", "the", "film", "[SEP]"]
    everything = extractor.extract(["the film"], feature, details=True)
    assert list(everything)[1:] == list(NAMES)
    assert list(extractor.extract([], feature, details=True)) == list(everything)
    with pytest.raises(OptionError, match="no detail is called 'tokens'; there are token_ids"):
        extractor.extract(texts, feature, details=["tokens"])
    with pytest.raises(OptionError, match="is the name of a feature"):
        extractor.extract(texts, {"token_ids": feature}, details=True)


def test_more_tokens_than_a_relative_model_was_trained_for(tmp_path):
    pytest.importorskip("transformers")
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    values = {
        "vocab_size": 60,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 16,
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    }
    model = random_model("DebertaV2", values)
    tokenizer = Tokenizer(
        models.WordLevel({letter: i + 5 for i, letter in enumerate("abcdef")} | {"[UNK]": 3}, "[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=special)
    save_model(tmp_path, model, tokenizer)
    text = "a b c d e f " * 6
    found = Extractor.from_pretrained(tmp_path, max_length=40).extract(text, "last_hidden_state")
    ids = Extractor.from_pretrained(tmp_path).tokenizer.encode([text])[0].input_ids
    wanted = model(torch.as_tensor(ids, dtype=torch.long)[None]).last_hidden_state[0].detach().numpy()
    assert found.shape == (38, 32)
    assert error(found, wanted) < 2e-5


def test_words_without_a_token_do_not_weigh(extractor):
    record, rest = Record.of_words(0, ["the", "", "film", " "]), Record.of_words(0, ["the", "film"])
    for op in ("mean", "max", "min", "last", "weighted_mean"):
        found = extractor.extract([record, rest], f"last_hidden_state.words(mean).{op}")
        np.testing.assert_array_equal(found[0], found[1])


def test_the_summary_names_the_window(extractor):
    windowed = Extractor.from_pretrained(extractor.files.checkpoint.folder, long="window", window=8)
    stream = windowed.stream(["good " * 20, "a"], "last_hidden_state.mean")
    list(stream)
    assert stream.summary.notes() == ["1 text over 8 tokens, run in 4 windows"]


def test_words_and_spans_that_were_cut_off_are_counted(extractor):
    words, text = ["good"] * 70, "river " * 70
    records = [Record.of_words(0, words), Record(row=1, text=text, spans=np.array([[0, 5], [400, 405]]))]
    stream = extractor.stream(records[:1], "last_hidden_state.words(mean)")
    list(stream)
    assert stream.summary.notes() == ["1 text cut at 64 tokens, 8 tokens lost", "8 words cut off: zero vectors"]
    stream = extractor.stream(records[1:], "last_hidden_state.spans(mean)")
    (batch,) = list(stream)
    assert stream.summary.notes()[-1] == "1 span cut off: zero vectors"
    assert batch.features["last_hidden_state.spans(mean)"][0].any(axis=1).tolist() == [True, False]


def test_tables_and_arrays_of_words(extractor):
    class Table:
        columns = ("review", "label")

        def __iter__(self):
            return iter(self.columns)

    with pytest.raises(UsageError, match=r"found a table; name one of its columns, as in df\['text'\]"):
        extractor.extract(Table(), "last_hidden_state.mean")
    feature = "last_hidden_state.words(mean)"
    given, array = (extractor.extract([words], feature)[0] for words in (["a", "film"], np.array(["a", "film"])))
    np.testing.assert_array_equal(given, array)
