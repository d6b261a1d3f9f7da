from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

from layertap import Extractor  # noqa: E402

Run = Callable[..., Any]
ONE_THREAD = ("--threads", "1")


@pytest.fixture(autouse=True)
def _threads_as_they_were() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def column(table: Any, name: str, *shape: int) -> Any:
    values = table.column(name).combine_chunks()
    while hasattr(values, "flatten") and pa.types.is_nested(values.type):
        values = values.flatten()
    return values.to_numpy(zero_copy_only=False).reshape(len(table), *shape)


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def test_a_parquet_file_has_exactly_the_vectors_of_the_extractor(
    layertap: Run, model: Path, texts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.parquet"
    asked = ["v = hidden_states[-2:].layer_mean.mean", "last_hidden_state.cls.normalize", "hidden_states[:].max"]
    features = [word for text in asked for word in ("--feature", text)]
    ended = layertap("extract", texts, "-o", output, "-m", model, *features, *ONE_THREAD)
    assert (ended.code, ended.out) == (0, "")

    table = pq.read_table(output)
    expected = Extractor.from_pretrained(model).extract(lines_of(texts), asked)
    assert table.column_names == ["row", *expected]
    assert table.column("row").to_pylist() == [0, 1, 2, 3, 4]
    for name, values in expected.items():
        np.testing.assert_array_equal(column(table, name, *values.shape[1:]), values)
    provenance = json.loads(table.schema.metadata[b"layertap"])
    assert provenance["features"]["v"] == "hidden_states[-2:].layer_mean.mean"
    assert provenance["model"] == "tiny-bert"


def test_the_summary(layertap: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    ended = layertap(
        "extract", texts, "-o", tmp_path / "o.npz", "-m", model, "-f", "v = hidden_states[2].mean", *ONE_THREAD
    )
    lines = {line[:10].strip(): line[10:] for line in ended.err.splitlines()}
    assert lines["features"] == "v  float32 [32] a text  = hidden_states[2].mean"
    assert lines["texts"].startswith("5 in ")
    assert lines["texts"].endswith("layers run 2 of 3")
    assert lines["note"].startswith("1 text cut at 64 tokens, ")
    assert lines[""] == "1 text empty: special tokens only, zero vectors where these are left out"
    assert lines["output"].startswith(f"{tmp_path / 'o.npz'}, ")
    assert "texts/s" in lines["time"]
    assert "tokens/s" in lines["time"]


def test_the_summary_names_the_default_feature(layertap: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    ended = layertap("extract", texts, "-o", tmp_path / "o.npy", "-m", model, *ONE_THREAD)
    assert "last_hidden_state.mean  float32 [32] a text  the default feature" in ended.err
    expected = Extractor.from_pretrained(model).extract(lines_of(texts))
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), expected)


def test_quiet_says_nothing(layertap: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    ended = layertap("extract", texts, "-o", tmp_path / "o.parquet", "-m", model, "-q", *ONE_THREAD)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert (tmp_path / "o.parquet").exists()


def test_columns_and_ids_travel(layertap: Run, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("key,review,stars,year\nx1,a good film,5,1999\nx2,dull,1,2001\n", encoding="utf-8")
    named = ("--text-column", "review", "--id-column", "key")
    ended = layertap(
        "extract", source, "-o", tmp_path / "o.jsonl", *named, "--columns", "stars", "-m", model, *ONE_THREAD
    )
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [list(row) for row in rows] == [["row", "id", "stars", "last_hidden_state.mean"]] * 2
    assert [(row["id"], row["stars"]) for row in rows] == [("x1", "5"), ("x2", "1")]
    assert (tmp_path / "o.jsonl.provenance.json").exists()

    ended = layertap("extract", source, "-o", tmp_path / "all.parquet", *named, "-m", model, *ONE_THREAD)
    assert pq.read_table(tmp_path / "all.parquet").column_names == [
        "row", "id", "stars", "year", "last_hidden_state.mean"
    ]  # fmt: skip
    ended = layertap("extract", source, "-o", tmp_path / "none.parquet", *named, "--columns", "", "-m", model)
    assert pq.read_table(tmp_path / "none.parquet").column_names == ["row", "id", "last_hidden_state.mean"]
    # a format without room for other columns takes none of them along, and says so
    note = "npz has no place for other columns (parquet and jsonl have): columns 'stars', 'year' left out"
    ended = layertap("extract", source, "-o", tmp_path / "o.npz", *named, "-m", model, *ONE_THREAD)
    assert ended.code == 0
    assert note in " ".join(ended.err.split())
    unasked = layertap("extract", source, "-o", tmp_path / "n.npz", *named, "--columns", "", "-m", model, *ONE_THREAD)
    assert (unasked.code, "left out" in unasked.err) == (0, False)
    with np.load(tmp_path / "o.npz") as arrays:
        assert arrays["id"].tolist() == ["x1", "x2"]


@pytest.mark.parametrize("suffix", ["parquet", "safetensors", "npz", "jsonl"])
def test_ragged_features_in_every_format(layertap: Run, model: Path, texts: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"o.{suffix}"
    ended = layertap("extract", texts, "-o", output, "-m", model, "-f", "t = last_hidden_state", *ONE_THREAD)
    assert ended.code == 0, ended.err
    expected = Extractor.from_pretrained(model).extract(lines_of(texts), "last_hidden_state")
    if suffix == "parquet":
        found = np.concatenate([np.array(row) for row in pq.read_table(output).column("t").to_pylist()])
    elif suffix == "safetensors":
        from safetensors.numpy import load_file

        found = load_file(output)["t"]
    elif suffix == "npz":
        with np.load(output) as arrays:
            found = arrays["t"]
    else:
        found = np.concatenate([np.array(json.loads(line)["t"]) for line in output.read_text().splitlines()])
    np.testing.assert_array_equal(found.astype(np.float32), expected.values)


def test_bad_rows_are_left_out_and_listed(layertap: Run, model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "o.parquet"
    source.write_bytes(b'{"text": "one"}\n{"text": null}\n{"text": "\xff"}\n{"text": "four"\n{"text": "five"}\n')
    arguments = ("extract", source, "-o", output, "-m", model, "--on-error", "skip", *ONE_THREAD)
    ended = layertap(*arguments)
    assert ended.code == 0, ended.err
    assert f"skipped   3 rows, listed in {output}.errors.jsonl" in ended.err
    assert pq.read_table(output).column("row").to_pylist() == [0, 4]
    listed = [json.loads(line) for line in Path(f"{output}.errors.jsonl").read_text().splitlines()]
    assert [(error["row"], error["where"]) for error in listed] == [(1, "line 2"), (2, "line 3"), (3, "line 4")]
    assert "null" in listed[0]["reason"]
    assert "not UTF-8" in listed[1]["reason"]
    assert "broken JSON" in listed[2]["reason"]
    # the list is part of the output: it is not overwritten unasked, and goes where there is nothing to list
    output.unlink()
    assert "errors.jsonl exists" in layertap(*arguments).err
    source.write_text('{"text": "one"}\n')
    assert layertap(*arguments, "--overwrite").code == 0
    assert not Path(f"{output}.errors.jsonl").exists()


def test_too_many_bad_rows(refused: Run, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a"}\n{}\n{"text": "b"}\n{}\n{}\n')
    output = tmp_path / "o.parquet"
    message = refused(
        1, "extract", source, "-o", output, "-m", model, "--on-error", "skip", "--max-errors", "2", *ONE_THREAD
    )
    assert "more rows than the 2 allowed" in message
    assert "line 5" in message
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_an_input_without_texts(layertap: Run, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_bytes(b"")
    ended = layertap("extract", source, "-o", tmp_path / "o.parquet", "-m", model, *ONE_THREAD)
    assert ended.code == 0, ended.err
    assert pq.read_table(tmp_path / "o.parquet").num_rows == 0


def test_lone_surrogates_are_replaced_and_told(layertap: Run, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a \\ud800 film"}\n{"text": "a \\ufffd film"}\n')
    ended = layertap("extract", source, "-o", tmp_path / "o.npy", "-m", model, *ONE_THREAD)
    assert ended.code == 0, ended.err
    assert "1 text with lone surrogates, replaced by U+FFFD" in ended.err
    vectors = np.load(tmp_path / "o.npy")
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


@pytest.mark.slow
def test_a_text_of_ten_megabytes(layertap: Run, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("good film " * (1 << 20) + "\nshort\n")
    ended = layertap("extract", source, "-o", tmp_path / "o.npy", "-m", model, *ONE_THREAD)
    assert ended.code == 0, ended.err
    assert "1 text cut at 64 tokens, 2,097,090 tokens lost" in ended.err
    expected = Extractor.from_pretrained(model).extract("good film " * 31)
    np.testing.assert_allclose(np.load(tmp_path / "o.npy")[0], expected, atol=1e-5)


def test_rules_switched_off_change_the_work_and_not_the_result(
    layertap: Run, model: Path, texts: Path, tmp_path: Path
) -> None:
    found = {}
    for name, off in {"on": [], "off": ["--disable-rule", "stop", "--disable-rule", "rows"]}.items():
        output = tmp_path / f"{name}.npy"
        ended = layertap("extract", texts, "-o", output, "-m", model, "-f", "hidden_states[1].cls", *off, *ONE_THREAD)
        assert f"layers run {1 if name == 'on' else 3} of 3" in ended.err
        found[name] = np.load(output)
    np.testing.assert_allclose(found["on"], found["off"], atol=1e-5)


def test_options_that_change_results(layertap: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.npy"
    ended = layertap(
        "extract", texts, "-o", output, "-m", model, "--precision", "bfloat16", "--max-length", "8",
        "--batch-tokens", "9", *ONE_THREAD,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    extractor = Extractor.from_pretrained(model, precision="bfloat16", max_length=8, batch_tokens=9)
    np.testing.assert_array_equal(np.load(output), extractor.extract(lines_of(texts)))
    assert "1 text cut at 8 tokens" in ended.err


def test_an_untrained_pooler_on_demand(
    layertap: Run, refused: Run, make_checkpoint: Run, texts: Path, tmp_path: Path
) -> None:
    model = make_checkpoint(tmp_path / "untrained", pooler="untrained")
    arguments = ("extract", texts, "-o", tmp_path / "o.npy", "-m", model, "-f", "pooler_output", *ONE_THREAD)
    assert "--untrained-pooler use" in refused(1, *arguments)
    assert layertap(*arguments, "--untrained-pooler", "use").code == 0
    expected = Extractor.from_pretrained(model, untrained_pooler="use").extract(lines_of(texts), "pooler_output")
    np.testing.assert_array_equal(np.load(tmp_path / "o.npy"), expected)


def test_an_output_is_replaced_only_on_demand(layertap: Run, refused: Run, model: Path, texts: Path) -> None:
    output = texts.with_name("o.parquet")
    output.write_text("mine")
    assert "--overwrite" in refused(2, "extract", texts, "-o", output, "-m", model)
    assert output.read_text() == "mine"
    assert layertap("extract", texts, "-o", output, "-m", model, "--overwrite", *ONE_THREAD).code == 0
    assert pq.read_table(output).num_rows == 5


def test_threads_are_set(layertap: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    torch.set_num_threads(2)
    asked = ("extract", texts, "-o", tmp_path / "o.npy", "-m", model, "--backend", "torch", "--threads", "1")
    ended = layertap(*asked)
    assert ended.code == 0
    assert "\nbackend   float32 on torch\n" in ended.err
    assert torch.get_num_threads() == 1


def test_the_native_backend(layertap: Run, refused: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    pytest.importorskip("layertap.backends.native._native", reason="the native module is not built")
    torch.set_num_threads(2)
    asked = ("extract", texts, "-m", model, "--backend", "native", "--instruction-set", "avx2")
    ended = layertap(*asked, "-o", tmp_path / "o.npy", "--threads", "1")
    assert ended.code == 0
    assert "\nbackend   float32 on native, avx2, 1 thread\n" in ended.err
    assert torch.get_num_threads() == 2
    assert layertap("extract", texts, "-m", model, "--backend", "torch", "-o", tmp_path / "t.npy").code == 0
    np.testing.assert_allclose(np.load(tmp_path / "o.npy"), np.load(tmp_path / "t.npy"), atol=1e-5)
    assert "native has no int8 with avx2" in refused(2, *asked, "-o", tmp_path / "i.npy", "--precision", "int8")
