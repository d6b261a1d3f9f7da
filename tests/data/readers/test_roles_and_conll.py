"""Words, spans and second texts, from columns and from files of a word a line."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.data import open_reader
from layertap.errors import InputError, OptionError, UsageError
from layertap.records import Record
from tests.data.readers.reading import records
from tests.writing import write

REAL = Path(__file__).parents[3].parent / "shared/data"


def both(folder: Path, rows: list[dict[str, Any]], types: dict[str, pa.DataType]) -> list[Path]:
    """The same rows as JSONL and as Parquet."""
    lines = write(folder / "a.jsonl", rows)
    columns = {name: pa.array([row.get(name) for row in rows], type_) for name, type_ in types.items()}
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return [lines, folder / "a.parquet"]


WORDS = pa.list_(pa.string())


def test_lists_of_words_are_the_text(tmp_path: Path) -> None:
    rows = [{"tokens": ["Al", "-", "Zaman"], "id": 7, "tags": [1, 2, 3]}, {"tokens": [], "id": 8, "tags": []}]
    types = {"tokens": WORDS, "id": pa.int64(), "tags": pa.list_(pa.int64())}
    for path in both(tmp_path, rows, types):
        found = records(path, words_column="tokens")
        assert [(r.text, r.words, r.id, dict(r.columns)) for r in found] == [
            ("Al - Zaman", ("Al", "-", "Zaman"), 7, {"tags": [1, 2, 3]}),
            ("", (), 8, {"tags": []}),
        ]
        with open_reader(path, words_column="tokens", columns=["tokens", "tags"]) as reader:
            assert reader.column_types == {"id": pa.int64(), "tokens": WORDS, "tags": pa.list_(pa.int64())}
            assert next(iter(reader)).columns["tokens"] == ["Al", "-", "Zaman"]


def test_large_and_dictionary_lists_of_words(tmp_path: Path) -> None:
    tokens = [["a", "b"], ["a"]]
    for i, type_ in enumerate(
        (pa.large_list(pa.large_string()), pa.list_(pa.dictionary(pa.int32(), pa.string())), pa.list_(pa.string()))
    ):
        path = tmp_path / f"{i}.parquet"
        pq.write_table(pa.table({"tokens": pa.array(tokens, pa.list_(pa.string())).cast(type_)}), path)
        assert [r.words for r in records(path, words_column="tokens")] == [("a", "b"), ("a",)]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("a b", "line 2: column 'w' is a string, not a list of words"),
        (None, "line 2: column 'w' is null, not a list of words"),
        (["a", 5], "line 2: column 'w': item 2 is a number, not a word"),
        (["a", None], "line 2: column 'w': item 2 is null, not a word"),
    ],
)
def test_words_that_are_none(tmp_path: Path, value: Any, reason: str) -> None:
    rows = [{"w": ["a"]}, {"w": value}, {"w": ["b"]}]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(InputError, match=reason):
        records(path, words_column="w")
    assert [(r.row, r.words) for r in records(path, words_column="w", on_error="skip")] == [(0, ("a",)), (2, ("b",))]


def test_text_and_words_both_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a b", "w": ["a", "b"]}\n')
    with pytest.raises(OptionError, match=r"text column 'text' and words column 'w' are both named.*name one of the"):
        open_reader(path, text_column="text", words_column="w")
    (record,) = records(path, words_column="w")
    assert record.columns == {"text": "a b"}
    with pytest.raises(OptionError, match=r"words column 'w' and pair column 'text' are both named, and pairs are"):
        open_reader(path, words_column="w", pair_column="text")


SPANS = [
    ([[0, 3], [1, 2], [0, 3]], ((0, 3), (1, 2), (0, 3))),
    ([], ()),
    ([{"begin": 1, "end": 2}], ((1, 2),)),
    ([{"start": 0, "end": 1, "label": "PER"}], ((0, 1),)),
]


@pytest.mark.parametrize(("given_", "expected"), SPANS)
def test_spans_of_every_form(tmp_path: Path, given_: Any, expected: Any) -> None:
    (record,) = records(
        write(tmp_path / "a.jsonl", json.dumps({"text": "\u4e2da\U0001f600", "s": given_})), spans_column="s"
    )
    assert record.spans == expected
    assert record.columns == {"s": given_}  # an annotation, not a text: carried


def test_spans_from_parquet(tmp_path: Path) -> None:
    number = pa.int32()
    for type_, given_ in (
        (pa.list_(pa.list_(number)), [[0, 1], [0, 3]]),
        (pa.list_(pa.list_(number, 2)), [[0, 1], [0, 3]]),
        (
            pa.large_list(pa.struct({"start": number, "end": number})),
            [{"start": 0, "end": 1}, {"start": 0, "end": 3}],
        ),
    ):
        table = pa.table({"text": ["abc", "abc"], "s": pa.array([given_, []], type_)})
        pq.write_table(table, tmp_path / "a.parquet")
        assert [r.spans for r in records(tmp_path / "a.parquet", spans_column="s")] == [((0, 1), (0, 3)), ()]


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        ([1, 1], r"span 2, \[1, 1\], is empty"),
        ([-1, 2], r"span 2, \[-1, 2\], has a negative bound"),
        ([2, 1], r"span 2, \[2, 1\], ends before it begins"),
        ([0, 4], r"span 2, \[0, 4\], is past the end of the text, which has 3 characters"),
        ([0, 1, 2], r"span 2 is neither \[begin, end\] nor"),
        ([0.0, 1.0], "span 2 is neither"),
        ([False, True], "span 2 is neither"),
        ({"begin": 0}, "span 2 is neither"),
        (3, "span 2 is neither"),
    ],
)
def test_spans_that_are_none_name_the_record(tmp_path: Path, span: Any, reason: str) -> None:
    rows = [{"text": "abc", "key": "doc-0", "s": []}, {"text": "abc", "key": "doc-1", "s": [[0, 3], span]}]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(InputError, match=rf"a\.jsonl: line 2: record 'doc-1': column 's': {reason}"):
        records(path, spans_column="s", id_column="key")
    with open_reader(path, spans_column="s", columns=[], on_error="skip") as reader:
        assert len(list(reader)) == 1
        assert reader.errors[0].row == 1
        assert reader.errors[0].reason.startswith("column 's': span 2")


def test_spans_that_are_no_list(tmp_path: Path) -> None:
    for value, reason in ((None, "is null, not a list of spans"), ("0-3", "is a string, not a list")):
        path = write(tmp_path / "a.jsonl", json.dumps({"text": "abc", "s": value}))
        with pytest.raises(InputError, match=reason):
            records(path, spans_column="s")


def test_columns_of_the_wrong_type_are_refused_before_any_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = {"text": ["a"], "n": [1], "w": pa.array([["a"]], WORDS), "s": pa.array([[[0, 1]]])}
    pq.write_table(pa.table(table), path)
    for options, message in (
        ({"words_column": "text"}, r"column 'text' holds string, not lists of strings; those with them are 'w'"),
        ({"spans_column": "w"}, r"column 'w' holds list<.*>, not lists of \[begin, end\] pairs or objects.* are 's'"),
        ({"pair_column": "n"}, r"column 'n' holds int64, not strings; those with strings are 'text'"),
        ({"pair_column": "y", "spans_column": "z"}, r"no column 'y', 'z'; its columns are"),
    ):
        with pytest.raises(UsageError, match=message):
            open_reader(path, **options)


def test_pairs_from_every_columnar_format(tmp_path: Path) -> None:
    rows = [{"text": "one", "other": "two", "n": "3"}]
    paths = both(tmp_path, rows, dict.fromkeys(("text", "other", "n"), pa.string()))
    paths.append(write(tmp_path / "a.csv", "text,other,n\none,two,3\n"))
    paths.append(write(tmp_path / "a.tsv", "text\tother\tn\none\ttwo\t3\n"))
    for path in paths:
        (record,) = records(path, pair_column="other")
        assert (record.text, record.pair, dict(record.columns)) == ("one", "two", {"n": "3"})
    null = write(tmp_path / "b.jsonl", '{"text": "a", "other": null}\n')
    with pytest.raises(InputError, match="column 'other' is null"):
        records(null, pair_column="other")


def test_formats_that_hold_no_lists(tmp_path: Path) -> None:
    for name, data in (("a.csv", "text,w\na,b\n"), ("a.tsv", "text\tw\na\tb\n")):
        for role in ("words", "spans"):
            with pytest.raises(OptionError, match=f"the {role} column 'w' asked for holds lists; write the input as"):
                open_reader(write(tmp_path / name, data), **{f"{role}_column": "w"})
    for role in ("words", "pair", "spans"):
        with pytest.raises(
            OptionError, match=f"txt, which has no columns, so that the {role} column 'w' cannot be read"
        ):
            open_reader(write(tmp_path / "a.txt", "a\n"), **{f"{role}_column": "w"})


# CoNLL

CONLL = """\
-DOCSTART- -X- O

EU NNP B-ORG
# NN O

-DOCSTART- -X- O
Peter\tNNP \u00a0
   \t
-DOCSTART-x NN O"""


def test_conll_sentences(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", CONLL.replace("\n", "\r\n"))
    expected = [
        Record(row=0, text="EU #", words=("EU", "#"), columns={"col1": ["NNP", "NN"], "col2": ["B-ORG", "O"]}),
        Record(row=1, text="Peter", words=("Peter",), columns={"col1": ["NNP"], "col2": ["\u00a0"]}),
        Record(row=2, text="-DOCSTART-x", words=("-DOCSTART-x",), columns={"col1": ["NN"], "col2": ["O"]}),
    ]
    assert records(path) == expected
    packed = write(tmp_path / "a.iob.gz", gzip.compress(CONLL.encode()))
    assert records(packed) == expected
    with open_reader(path) as reader:
        assert reader.column_types == {"col1": WORDS, "col2": WORDS}


def test_conll_columns_by_number_or_by_names_of_the_users(tmp_path: Path) -> None:
    path = write(tmp_path / "a.bio", "EU NNP B-ORG\nrejects VBZ O\n")
    for options, expected in (
        ({"columns": ["col2"]}, {"col2": ["B-ORG", "O"]}),
        ({"columns": ["col0", "col1"]}, {"col0": ["EU", "rejects"], "col1": ["NNP", "VBZ"]}),
        ({"columns": ["pos", "ner"]}, {"pos": ["NNP", "VBZ"], "ner": ["B-ORG", "O"]}),
        ({"columns": []}, {}),
        ({"words_column": "col1"}, {"col0": ["EU", "rejects"], "col2": ["B-ORG", "O"]}),
    ):
        with open_reader(path, **options) as reader:
            assert reader.column_types == dict.fromkeys(expected, WORDS)
            (record,) = reader
        assert record.columns == expected
    assert record.words == ("NNP", "VBZ")
    for columns in (["ner"], ["col1", "ner"], ["col3"], ["a", "b", "c"]):
        with pytest.raises(UsageError, match=r"its columns are 'col0', 'col1', 'col2', without a header; name some"):
            open_reader(path, columns=columns)
    for words in ("col3", "word", "col01"):
        with pytest.raises(UsageError, match=f"no words column '{words}'; its columns are 'col0'"):
            open_reader(path, words_column=words)
    for role in ("text", "pair", "spans", "id"):
        with pytest.raises(OptionError, match=f"the {role} column 'col1' asked for has no place there"):
            open_reader(path, **{f"{role}_column": "col1"})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"b", r"line 5: 1 column \(split at tabs\), and the lines of this file have 2"),
        (b"b\tO\tX", r"line 5: 3 columns \(split at tabs\), and the lines of this file have 2"),
        (b"\tO", r"line 5: the word is empty"),
        (b"\xff\tO", r"line 5: not UTF-8: byte 0xff at byte 1 of the line"),
        (b"b\0\tO", r"line 5: a NUL at byte 2 of the line; if this is UTF-16"),
    ],
)
def test_conll_lines_that_are_bad(tmp_path: Path, line: bytes, reason: str) -> None:
    path = write(tmp_path / "a.conll", b"x\tO\n\n\na\tO\n" + line + b"\nc\tO\n\nlast\tB-X\n")
    with pytest.raises(InputError, match=r"a\.conll: " + reason):
        records(path)
    with open_reader(path, on_error="skip") as reader:
        assert [(r.row, r.text) for r in reader] == [(0, "x"), (2, "last")]
        assert [(error.row, error.where) for error in reader.errors] == [(1, "line 5")]


def test_conll_whose_first_sentence_cannot_be_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conll", b"\xff O\n\na b O\n")
    with open_reader(path, on_error="skip") as reader:
        assert [(r.row, r.words) for r in reader] == [(1, ("a",))]
    with pytest.raises(InputError, match="line 1: not UTF-8"):
        records(path)


def test_empty_files_of_sentences(tmp_path: Path) -> None:
    for name in ("a.conll", "a.conllu"):
        for data in ("", "\n\n", "-DOCSTART- O\n\n" if name == "a.conll" else "# newdoc\n\n"):
            assert records(write(tmp_path / name, data)) == []
    assert records(write(tmp_path / "a.conll", ""), columns=["ner"]) == []


FIELD = st.text(alphabet=st.sampled_from("ab#-\u00a0\u2028\x85\u4e2d\u0301\u200d"), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(
    sentences=st.lists(st.lists(st.tuples(FIELD, FIELD), min_size=1, max_size=4), max_size=4),
    separator=st.sampled_from(["\t", " "]),
    blank=st.sampled_from(["\n", "\n\n", " \n"]),
)
def test_conll_that_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    sentences: list[list[tuple[str, str]]],
    separator: str,
    blank: str,
) -> None:
    text = blank.join("".join(separator.join(row) + "\n" for row in rows) for rows in sentences)
    path = write(tmp_path_factory.getbasetemp() / "p.conll", text)
    assert records(path) == [
        Record.of_words(i, [word for word, _ in rows], columns={"col1": [tag for _, tag in rows]})
        for i, rows in enumerate(sentences)
    ]


def test_conll_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a O\nb O\n\nc O\n")))
    with open_reader("-", format="conll") as reader:
        assert [record.words for record in reader] == [("a", "b"), ("c",)]


# CoNLL-U

CONLLU = """\
# newdoc
# sent_id = s-1
# text = Vámonos, ya.
# text_en = Let's go.
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
1\tVamos\tir\tVERB\t_\tMood=Imp\t0\troot\t0:root\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t1:obj\t_
2.1\tx\tx\tX\t_\t_\t_\t_\t1:dep\t_
3\t,\t,\tPUNCT\t_\t_\t1\tpunct\t_\t_
4\tya\tya\tADV\t_\t_\t_\tadvmod\t_\tSpaceAfter=No
5\t.\t.\tPUNCT\t_\t_\t1\tpunct\t_\t_

# sent_id = s-2
# text = no  way
1\tno way\tno\tX\t_\t_\t0\troot\t_\t_
"""


def test_conllu_sentences(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conllu", CONLLU)
    first, second = records(path)
    assert first == Record.of_words(
        0,
        ["Vamos", "nos", ",", "ya", "."],
        id="s-1",
        columns={"text": "V\u00e1monos, ya.", "upos": ["VERB", "PRON", "PUNCT", "ADV", "PUNCT"]},
    )
    assert (second.words, second.id, second.columns["text"]) == (("no way",), "s-2", "no  way")
    packed = write(tmp_path / "b.conllu.gz", gzip.compress(CONLLU.replace("\n", "\r\n").encode()))
    assert records(packed) == [first, second]
    with open_reader(path, columns=["head", "lemma", "text"], words_column="lemma", id_column="sent_id") as reader:
        assert list(reader.column_types.items()) == [
            ("id", pa.string()),
            ("head", pa.list_(pa.int32())),
            ("lemma", WORDS),
            ("text", pa.string()),
        ]
        record = next(iter(reader))
    assert record.columns["head"] == [0, 1, 1, None, 1]
    assert record.words == tuple(record.columns["lemma"]) == ("ir", "nosotros", ",", "ya", ".")


def test_conllu_without_comments(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conllu", "1\ta\t_\tX\t_\t_\t0\troot\t_\t_\n\n")
    with open_reader(path) as reader:
        assert reader.column_types == {"upos": WORDS}
        assert list(reader) == [Record.of_words(0, ["a"], columns={"upos": ["X"]})]


def test_conllu_options_that_do_not_fit(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conllu", CONLLU)
    for options, message in (
        ({"columns": ["pos"]}, r"no column 'pos'; conllu has 'text', 'form', 'lemma', 'upos'"),
        ({"words_column": "token"}, r"the words column is 'token'; it can be 'form' or 'lemma'"),
        ({"id_column": "newdoc"}, r"the id column is 'newdoc'; conllu has 'sent_id'"),
        ({"text_column": "form"}, r"the text column is 'form'; conllu has 'text'"),
        ({"spans_column": "form"}, r"the spans column 'form' asked for has no place there"),
    ):
        with pytest.raises(UsageError, match=message):
            open_reader(path, **options)


def test_conllu_words_as_spans_of_the_raw_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.conllu", CONLLU)
    found = records(path, text_column="text", on_error="skip")
    (record,) = found  # the text of the second has two spaces where its word has one
    assert (record.text, record.words) == ("V\u00e1monos, ya.", None)
    spans = record.spans or ()
    assert [record.text[b:e] for b, e in spans] == ["V\u00e1monos", "V\u00e1monos", ",", "ya", "."]
    assert record.columns == {"upos": ["VERB", "PRON", "PUNCT", "ADV", "PUNCT"]}
    gonna = CONLLU.replace("V\u00e1monos", "Vamosnos")
    (record,) = records(write(tmp_path / "b.conllu", gonna), text_column="text", on_error="skip")
    assert [record.text[b:e] for b, e in record.spans or ()] == ["Vamos", "nos", ",", "ya", "."]
    for old, new, reason in (
        ("# text = V", "# txt = V", "line 1: there is no comment '# text = ...'"),
        ("monos, ya", "monos; ya", r"word 3, ',', is not in '# text' at character 7"),
        ("1-2\t", "1-7\t", "the multiword token 1-7 is of more words than there are"),
        ("3\t,\t", "3\t\t", "line 9: the form is empty"),
    ):
        with pytest.raises(InputError, match=reason):
            records(write(tmp_path / "c.conllu", CONLLU.replace(old, new)), text_column="text")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("2\tnos\tnosotros", "2 nos nosotros", r"line 7: 8 columns separated by tabs, and CoNLL-U has 10"),
        ("3\t,", "4\t,", r"line 9: the id is '4', and the next word is 3"),
        ("2.1\t", "x\t", r"line 8: the id is 'x', and the next word is 3"),
        ("1\tobj", "9\tobj", r"line 1: the head of word 2 is '9', not the number of a word or 0"),
    ],
)
def test_conllu_lines_that_are_bad(tmp_path: Path, old: str, new: str, reason: str) -> None:
    assert old in CONLLU
    path = write(tmp_path / "a.conllu", CONLLU.replace(old, new, 1))
    with pytest.raises(InputError, match=r"a\.conllu: " + reason):
        records(path, columns=["head"])
    with open_reader(path, columns=["head"], on_error="skip") as reader:
        assert [(r.row, r.id) for r in reader] == [(1, "s-2")]


# Real files


def real(name: str) -> Path:
    path = REAL / name
    if not path.exists():
        pytest.skip(f"{name} is not beside the project")
    return path


@pytest.mark.parametrize(
    ("name", "sentences", "words"),
    [
        ("ud_english_ewt/en_ewt-ud-train.conllu", 12_544, 204_577),
        ("ud_english_ewt/en_ewt-ud-dev.conllu", 2_001, 25_147),
        ("ud_english_ewt/en_ewt-ud-test.conllu", 2_077, 25_094),
        ("ud_chinese_gsdsimp/zh_gsdsimp-ud-dev.conllu", 500, 12_663),
        ("ud_chinese_gsdsimp/zh_gsdsimp-ud-test.conllu", 500, 12_012),
    ],
)
def test_treebanks_are_read_whole(name: str, sentences: int, words: int) -> None:
    every = ["form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc", "text"]
    found = records(real(name), columns=every)
    assert len(found) == sentences == len({record.id for record in found})
    assert sum(len(record.words or ()) for record in found) == words
    for record in found:
        assert all(len(record.columns[column]) == len(record.words or ()) for column in every[:-1])
        assert tuple(record.columns["form"]) == record.words
        if "chinese" in name:  # no multiword tokens: the words are the text
            assert record.columns["text"].replace(" ", "") == "".join(record.words or ()).replace(" ", "")


@pytest.mark.parametrize("language", ["ud_english_ewt/en_ewt", "ud_chinese_gsdsimp/zh_gsdsimp"])
def test_every_gold_word_has_its_place_in_the_raw_text(language: str) -> None:
    for part in ("dev", "test"):
        for record in records(real(f"{language}-ud-{part}.conllu"), text_column="text", columns=["form"]):
            assert [record.text[b:e] for b, e in record.spans or ()] == record.columns["form"]


@pytest.mark.parametrize(
    ("name", "sentences", "words", "tags"),
    [
        ("ner_wnut17/wnut17train.conll", 3_394, 62_730, 13),
        ("ner_wnut17/emerging.dev.conll", 1_009, 15_733, 13),
        ("ner_wnut17/emerging.test.annotated", 1_287, 23_394, 13),
        ("ner_wikigold/wikigold.conll.txt", 1_696, 39_007, 5),
    ],
)
def test_named_entity_files_are_read_whole(name: str, sentences: int, words: int, tags: int) -> None:
    found = records(real(name), format="conll", columns=["ner"])
    assert len(found) == sentences
    assert sum(len(record.words or ()) for record in found) == words
    assert len({tag for record in found for tag in record.columns["ner"]}) == tags
