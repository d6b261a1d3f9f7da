"""`layertap fit` and `layertap predict`."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.writing import write

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")
pytest.importorskip("torch", reason="torch is not installed (extra: torch)")

import torch
from safetensors.numpy import load_file


def rows_of(count, seed=0):
    random = np.random.default_rng(seed)
    words = {"good": ["great", "funny"], "bad": ["dull", "not"]}
    labels = ["good" if i % 2 else "bad" for i in range(count)]
    return [
        {"id": i, "text": f"the {random.choice(words[label])} film", "mood": label} for i, label in enumerate(labels)
    ]


@pytest.fixture
def data(tmp_path):
    write(tmp_path / "train.jsonl", rows_of(60))
    write(tmp_path / "test.jsonl", rows_of(20, seed=1))
    return tmp_path


@pytest.fixture
def fit(layertap, data, model):
    """`fit("-f", ...)`: makes mood.head."""

    def run(*more):
        ended = layertap("fit", data / "train.jsonl", "--label", "mood", "-o", data / "mood.head", "-m", model, *more)
        assert ended.code == 0, ended.err
        return ended

    return run


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_fit_prints_a_table(fit, data):
    ended = fit("-f", "v = hidden_states[:].mean", "--test", data / "test.jsonl", "--validation-share", "0.5")
    table = [line.split() for line in ended.out.splitlines()]
    assert table[0] == ["accuracy", "macro-F1", "MCC"]
    assert [row[0] for row in table[1:3]] == ["validation", "test"]
    assert table[4] == ["test", "precision", "recall", "F1", "count"]
    assert [(row[0], row[-1]) for row in table[5:]] == [("bad", "10"), ("good", "10")]
    assert "mood: one label per text, 2 labels, on hidden_states[:].mean" in ended.err
    assert f"20 texts of {data / 'test.jsonl'} also occur in {data / 'train.jsonl'}" in ended.err
    assert sorted(path.name for path in data.iterdir()) == ["mood.head", "test.jsonl", "train.jsonl"]


def test_fit_prints_json(fit, data):
    metrics = json.loads(fit("--json", "--test", data / "test.jsonl").out)
    assert metrics["test"]["accuracy"] == 1.0
    assert json.loads((data / "mood.head/head.json").read_text())["metrics"] == metrics


def test_predict_in_jsonl(fit, layertap, data):
    fit()
    ended = layertap(
        "predict", data / "test.jsonl", "--head", data / "mood.head", "-o", data / "out.jsonl", "--columns", ""
    )
    assert ended.code == 0, ended.err
    assert "mood  a label a text" in ended.err
    out = lines(data / "out.jsonl")
    assert [list(row) for row in out] == [["row", "id", "mood", "mood.scores"]] * 20
    assert [row["mood"] for row in out] == [row["mood"] for row in lines(data / "test.jsonl")]
    stated = json.loads((data / "out.jsonl.provenance.json").read_text())
    assert stated["heads"]["mood"]["labels"] == ["bad", "good"]
    assert str(data) not in json.dumps(stated)


def test_two_heads_and_a_feature_in_parquet(fit, layertap, data):
    import pyarrow.parquet as pq

    fit()
    heads = ["--head", f"a={data / 'mood.head'}", "--head", f"b={data / 'mood.head'}"]
    ended = layertap(
        "predict", data / "test.jsonl", *heads, "-o", data / "out.parquet", "-f", "v = last_hidden_state.cls"
    )
    assert ended.code == 0, ended.err
    table = pq.read_table(data / "out.parquet")
    assert table.column_names == ["row", "id", "mood", "text", "a", "b", "v", "a.scores", "b.scores"]
    assert table["a"].to_pylist() == table["b"].to_pylist() == table["mood"].to_pylist()


def test_predict_in_arrays(fit, layertap, data):
    fit()
    ended = layertap("predict", data / "test.jsonl", "--head", data / "mood.head", "-o", data / "out.npz", "-q")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    arrays = np.load(data / "out.npz")
    labels = json.loads(str(arrays["provenance"]))["heads"]["mood"]["labels"]
    assert [labels[i] for i in arrays["mood"]] == [row["mood"] for row in lines(data / "test.jsonl")]
    np.testing.assert_array_equal(arrays["mood.scores"].argmax(axis=1), arrays["mood"])


def test_rows_that_cannot_be_read_are_left_out(fit, layertap, data):
    fit()
    with (data / "test.jsonl").open("a") as file:
        file.write("no json\n")
    arguments = ["predict", data / "test.jsonl", "--head", f"x={data / 'mood.head'}", "-o", data / "out.jsonl"]
    assert layertap(*arguments).code == 1
    assert not (data / "out.jsonl").exists()
    assert layertap(*arguments, "--on-error", "skip").code == 0
    assert len(lines(data / "out.jsonl")) == 20
    assert len(lines(data / "out.jsonl.errors.jsonl")) == 1


def test_a_head_called_as_a_column_is_refused(fit, refused, data):
    fit()
    said = refused(2, "predict", data / "test.jsonl", "--head", data / "mood.head", "-o", data / "out.jsonl")
    assert "'mood' is the name of a head and of a column" in said


def test_another_model_is_refused(fit, refused, data, make_checkpoint):
    fit()
    other = make_checkpoint(data / "other", seed=3)
    head, out = f"x={data / 'mood.head'}", data / "out.jsonl"
    said = refused(2, "predict", data / "test.jsonl", "--head", head, "-o", out, "-m", other)
    assert "head 'x' was fitted on" in said
    assert "name the model that the head was fitted on (--model)" in said


def test_heads_with_different_options_are_refused(fit, refused, data):
    fit()
    fit("--overwrite", "--max-length", "8", "-o", data / "short.head")
    heads = ["--head", f"a={data / 'mood.head'}", "--head", f"b={data / 'short.head'}"]
    said = refused(2, "predict", data / "test.jsonl", *heads, "-o", data / "out.jsonl")
    assert "heads 'a' and 'b' were fitted with different options" in said


@pytest.mark.parametrize(
    ("code", "more", "message"),
    [
        (2, ["--label", "moo"], "there is no column 'moo'"),
        (2, ["--class-weight", "good"], "--class-weight 'good': expected balanced alone, or LABEL=NUMBER"),
        (2, ["--class-weight", "fine=2"], "class_weight names 'fine'; expected some of 'bad', 'good'"),
        (2, ["--validation-share", "0.001"], "is none that can be held out"),
        (2, ["-f", "last_hidden_state"], "for labels of texts pool the tokens"),
        (2, ["-f", "last_hidden_state.mean", "-f", "pooler_output"], "2 are given, and a head takes one"),
        (2, ["--memory", "much"], "--memory 'much': expected a size"),
        (1, ["--test", "{}/nothing.jsonl"], "nothing.jsonl"),
        (1, ["--test", "{}/empty.jsonl"], "empty.jsonl: there are no rows"),
        (1, ["--validation", "{}/unseen.jsonl"], "unseen.jsonl: one label does not occur in"),
    ],
)
def test_what_cannot_be_fitted_is_refused(refused, data, model, code, more, message):
    (data / "empty.jsonl").write_text("")
    write(data / "unseen.jsonl", [{"text": "a", "mood": "odd"}])
    more = [argument.format(data) for argument in more]
    label = [] if "--label" in more else ["--label", "mood"]
    said = refused(code, "fit", data / "train.jsonl", *label, "-o", data / "mood.head", "-m", model, *more)
    assert message in said
    assert not (data / "mood.head").exists()


def test_without_the_extra_fitting_is_refused_and_predicting_is_not(fit, layertap, refused, data, monkeypatch):
    fit()
    monkeypatch.setattr("layertap.learn.libraries.find_spec", lambda _: None)
    said = refused(1, "fit", data / "train.jsonl", "--label", "mood", "-o", data / "new.head")
    assert "layertap fit needs scikit-learn: pip install 'layertap[learn]'" in said
    head = f"x={data / 'mood.head'}"
    assert layertap("predict", data / "test.jsonl", "--head", head, "-o", data / "out.jsonl").code == 0


def test_a_pipe(fit, data, start):
    fit()
    process = start("predict", "-", "--head", data / "mood.head", "-o", "-", "-q")
    out, err = process.communicate("a great film\na dull film\n", timeout=300)
    assert [json.loads(line)["mood"] for line in out.splitlines()] == ["good", "bad"], err


def test_a_head_that_exists_is_refused(fit, refused, data):
    fit()
    assert "exists; name another folder" in refused(2, "fit", data / "train.jsonl", "-o", data / "mood.head")


TAGGED = """\
the/O/DET river/B-place/NOUN bank/I-place/NOUN was/O/VERB good/O/ADJ
hello/O/INTJ money/B-thing/NOUN
the/O/DET river/B-place/NOUN said/O/VERB hello/O/INTJ
good/O/ADJ money/B-thing/NOUN was/O/VERB river/B-place/NOUN bank/I-place/NOUN
"""
SENTENCES = [[word.split("/") for word in line.split()] for line in TAGGED.splitlines()] * 5


@pytest.fixture
def conll(tmp_path):
    path = tmp_path / "ner.conll"
    path.write_text("\n".join("".join(f"{word}\t{tag}\n" for word, tag, _ in words) for words in SENTENCES))
    return path


def test_entities_from_conll(layertap, conll, model, tmp_path):
    head = tmp_path / "ner.head"
    feature = "hidden_states[:].words(mean)"
    arguments = ["fit", conll, "--label", "col1", "-o", head, "-m", model, "-f", feature, "--l2", "0.1"]
    ended = layertap(*arguments, "--test", conll, "--validation", conll, "--memory", "1kB")
    assert ended.code == 0, ended.err
    assert ended.out.split("\n")[0].split() == ["accuracy", "macro-F1", "MCC", "entity", "F1", "precision", "recall"]
    assert [line.split()[0] for line in ended.out.splitlines()[4:]] == ["test", "place", "thing"]
    texts = tmp_path / "texts.txt"
    texts.write_text("the river bank\n\nhello  money\n")
    assert layertap("predict", texts, "--head", head, "-o", tmp_path / "out.jsonl", "-q").code == 0
    out = lines(tmp_path / "out.jsonl")
    assert [row["ner"] for row in out] == [["O", "B-place", "I-place"], [], ["O", "B-thing"]]
    entities = [[{**it, "score": None} for it in row["ner.entities"]] for row in out]
    assert entities == [
        [{"begin": 4, "end": 14, "label": "place", "text": "river bank", "score": None}],
        [],
        [{"begin": 7, "end": 12, "label": "thing", "text": "money", "score": None}],
    ]
    assert [len(row["ner.scores"]) for row in out] == [3, 0, 2]


def test_entities_in_parquet_and_npz(layertap, conll, model, tmp_path):
    import pyarrow.parquet as pq

    head = tmp_path / "ner.head"
    assert layertap("fit", conll, "--label", "col1", "-o", head, "-m", model, "--l2", "0.1", "-q").code == 0
    assert layertap("predict", conll, "--head", head, "-o", tmp_path / "out.parquet", "-q").code == 0
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["row", "col1", "text", "words", "ner", "ner.entities", "ner.scores"]
    assert table["ner"].to_pylist() == table["col1"].to_pylist()
    assert [it["text"] for it in table["ner.entities"][0].as_py()] == ["river bank"]
    assert layertap("predict", conll, "--head", head, "-o", tmp_path / "out.npz", "-q").code == 0
    arrays = np.load(tmp_path / "out.npz")
    labels = json.loads(str(arrays["provenance"]))["heads"]["ner"]["labels"]
    flat = [labels[i] for i in arrays["ner.values" if "ner.values" in arrays else "ner"]]
    assert flat == [tag for tags in table["ner"].to_pylist() for tag in tags]


def test_parts_of_speech_from_conllu(layertap, model, tmp_path):
    path = tmp_path / "pos.conllu"
    rows = [
        "\n".join(f"{i}\t{word}\t_\t{pos}" + "\t_" * 6 for i, (word, _, pos) in enumerate(words, start=1))
        for words in SENTENCES
    ]
    path.write_text("\n\n".join(rows) + "\n\n")
    head = tmp_path / "pos.head"
    ended = layertap("fit", path, "--label", "upos", "-o", head, "-m", model, "--test", path, "--json", "--l2", "0.1")
    assert ended.code == 0, ended.err
    assert list(json.loads(ended.out)["test"]) == ["accuracy", "macro_f1", "mcc", "classes"]
    assert layertap("predict", path, "--head", head, "-o", tmp_path / "out.jsonl", "-q").code == 0
    out = lines(tmp_path / "out.jsonl")
    assert [row["pos"] for row in out] == [row["upos"] for row in out]
    assert "pos.entities" not in out[0]


def test_tags_of_another_number_than_words_are_refused(refused, model, tmp_path):
    write(tmp_path / "x.jsonl", [{"text": "a b c", "tags": ["O", "B-x"]}])
    said = refused(1, "fit", tmp_path / "x.jsonl", "--label", "tags", "-o", tmp_path / "h", "-m", model)
    assert "x.jsonl, line 1: column 'tags' has 2 labels, and the text has 3 words; give one label per word" in said


def test_a_model_that_is_gone(fit, refused, data, make_checkpoint):
    gone = make_checkpoint(data / "gone")
    fit("--overwrite", "-m", gone)
    gone.rename(data / "elsewhere")
    arguments = ["predict", data / "test.jsonl", "--head", f"x={data / 'mood.head'}", "-o", data / "out.jsonl"]
    assert "head 'x' was fitted on it; --model says where it is now" in refused(1, *arguments)


def test_a_head_fitted_on_a_pickle_predicts_without_being_told(layertap, data, make_checkpoint):
    folder = make_checkpoint(data / "pickled")
    weights = {name: torch.from_numpy(array) for name, array in load_file(folder / "model.safetensors").items()}
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    head, out = data / "mood.head", data / "out.jsonl"
    ended = layertap("fit", data / "train.jsonl", "--label", "mood", "-o", head, "-m", folder, "--allow-pickle")
    assert ended.code == 0, ended.err
    ended = layertap("predict", data / "test.jsonl", "--head", f"x={head}", "-o", out)
    assert ended.code == 0, ended.err
    assert {row["x"] for row in lines(out)} <= {"good", "bad"}


def test_labelled_texts_from_standard_input(data, start, model, layertap):
    head = data / "mood.head"
    process = start("fit", "-", "--input-format", "jsonl", "--label", "mood", "-o", head, "-m", model, "-q")
    _, err = process.communicate((data / "train.jsonl").read_text(), timeout=300)
    assert process.returncode == 0, err
    other = data / "other.head"
    ended = layertap("fit", data / "train.jsonl", "--label", "mood", "--name", "mood", "-o", other, "-m", model, "-q")
    assert ended.code == 0, ended.err
    for name in ("head.json", "head.safetensors"):
        assert (head / name).read_bytes() == (other / name).read_bytes()


def test_the_same_pipe_named_twice_is_refused(start, data):
    process = start("fit", "-", "--test", "-", "-o", data / "mood.head")
    _, err = process.communicate("", timeout=300)
    assert process.returncode == 2
    assert "read once only" in err


@pytest.mark.parametrize("command", ["fit", "probe", "finetune"])
def test_the_column_of_labels_is_called_label_unless_it_is_named(refused, data, command):
    output = [] if command == "probe" else ["-o", data / "out"]
    said = refused(2, command, data / "train.jsonl", *output, "-m", "/no/model")
    assert "there is no column 'label'" in said
    assert "labels are in the column `label`, unless --label (label=...) names another" in said


@pytest.mark.parametrize("command", ["fit", "probe", "finetune"])
def test_labels_are_refused_in_the_same_words(refused, data, command):
    write(data / "bad.jsonl", [{"text": "a", "mood": "x"}, {"text": "b", "mood": None}])
    output = [] if command == "probe" else ["-o", data / "out"]
    said = refused(1, command, data / "bad.jsonl", "--label", "mood", *output, "-m", "/no/model")
    assert "bad.jsonl, line 2: column 'mood' is empty; fill it in, or remove the row" in said


def test_predictions_carry_their_texts_and_words(fit, layertap, conll, data, model):
    import pyarrow.parquet as pq

    fit()
    (data / "new.csv").write_text("review,stars\na great film,5\n")
    arguments = ["predict", data / "new.csv", "--text-column", "review", "--head", data / "mood.head", "-q"]
    assert layertap(*arguments, "-o", data / "new.jsonl").code == 0
    (row,) = lines(data / "new.jsonl")
    assert (row["review"], row["stars"], row["mood"]) == ("a great film", "5", "good")
    assert layertap(*arguments, "-o", data / "few.jsonl", "--columns", "stars").code == 0
    assert list(lines(data / "few.jsonl")[0]) == ["row", "stars", "mood", "mood.scores"]
    head = data / "ner.head"
    assert layertap("fit", conll, "--label", "col1", "-o", head, "-m", model, "--l2", "0.1", "-q").code == 0
    assert layertap("predict", conll, "--head", head, "-o", data / "out.parquet", "-q").code == 0
    table = pq.read_table(data / "out.parquet")
    assert table["words"][0].as_py() == ["the", "river", "bank", "was", "good"]
    assert table["text"][0].as_py() == "the river bank was good"
    (data / "plain.txt").write_text("hello  money\n")
    assert layertap("predict", data / "plain.txt", "--head", head, "-o", data / "plain.jsonl", "-q").code == 0
    assert lines(data / "plain.jsonl")[0]["words"] == ["hello", "money"]


def test_words_that_the_model_did_not_see_have_no_tag(layertap, conll, data, model):
    head = data / "ner.head"
    tagged = [[f"{word}\t{tag}" for word, tag, _ in words] for words in SENTENCES]
    # a control character is a word without a token; eight words do not fit into six tokens
    tagged.append(["\u0001\tB-thing", *["river\tB-place"] * 8])
    conll.write_text("\n\n".join("\n".join(words) for words in tagged) + "\n\n")
    arguments = ["--label", "col1", "-o", head, "-m", model, "--l2", "0.1", "--max-length", "6", "--test", conll]
    ended = layertap("fit", conll, *arguments, "--json")
    assert ended.code == 0, ended.err
    ended = layertap("predict", conll, "--head", head, "-o", data / "out.jsonl")
    assert ended.code == 0, ended.err
    *_, row = lines(data / "out.jsonl")
    assert row["ner"] == [None, *["B-place"] * 4, *[None] * 4]
    assert row["ner.scores"][0] == 0
    assert [it["text"] for it in row["ner.entities"]] == ["river"] * 4
    number = sum(tag is None for row in lines(data / "out.jsonl") for tag in row["ner"])
    assert f"{number} words without a token, or cut off: no tag, and in no entity" in ended.err
    assert layertap("predict", conll, "--head", head, "-o", data / "out.npz", "-q").code == 0
    assert np.load(data / "out.npz")["ner"][-9:].tolist().count(-1) == 5
