"""Streams: order, chunks, laziness, counts, and what is not finite."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from layertap.backends.base import Backend
from layertap.engine import pipeline as pipeline_module
from layertap.engine import preparing as preparing_module
from layertap.engine.extractor import Extractor
from layertap.engine.pipeline import Pipeline
from layertap.engine.preparing import TEXTS_AT_ONCE
from layertap.engine.summary import RunSummary
from layertap.errors import InputError, NonFiniteError
from layertap.records import Ragged, Record


class EchoBackend(Backend):
    """Row r of state i is its token's id plus i / 1000, wherever the row lies in a batch."""

    name = "echo"
    instruction_set = "none"

    def __init__(self, hidden_size: int) -> None:
        self.hidden_size = hidden_size
        self.batches: list[list[list[int]]] = []
        self.change = lambda _, hidden: hidden

    def run(self, program, batch, segments):
        rows = zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True)
        self.batches.append([batch.input_ids[begin:end].tolist() for begin, end in rows])
        found = {}
        for capture in program.captures:
            (layer,) = capture.layers
            hidden = np.repeat((batch.input_ids + np.float32(layer / 1000))[:, None], self.hidden_size, axis=1)
            hidden = self.change(batch, hidden.astype(np.float32))
            if capture.segments is not None:
                groups = segments[capture.segments]
                ranges = zip(groups.begin, groups.end, strict=True)
                take = {"sum": lambda part: part.sum(axis=0), "first": lambda part: part[0]}[capture.reduce]
                hidden = np.stack([take(hidden[begin:end]) if begin < end else hidden[0] * 0 for begin, end in ranges])
            found[capture] = hidden
        return found


@pytest.fixture
def echo(extractor) -> EchoBackend:
    return EchoBackend(extractor.files.spec.hidden_size)


@pytest.fixture
def make_pipeline(extractor, echo):
    def make(features, *, batch_tokens: int = 40, keep_non_finite: bool = False) -> Pipeline:
        made = extractor.pipeline(extractor.plan(features))
        return replace(made, backend=echo, batch_tokens=batch_tokens, keep_non_finite=keep_non_finite)

    return make


def run(pipeline: Pipeline, records) -> tuple[list, RunSummary]:
    summary = pipeline.new_summary()
    return list(pipeline.run(records, summary)), summary


def records_of(texts) -> list[Record]:
    return [Record(row=i, text=text) for i, text in enumerate(texts)]


@pytest.mark.parametrize("batch_tokens", [1, 17, 64, 10**6])
def test_records_leave_in_order_and_with_their_own_numbers(make_pipeline, extractor, random_texts, batch_tokens):
    texts = random_texts(300)
    pipeline = make_pipeline(
        {"tokens": "hidden_states[1]", "first": "last_hidden_state.first"}, batch_tokens=batch_tokens
    )
    batches, _ = run(pipeline, records_of(texts))
    assert [record.row for batch in batches for record in batch.records] == list(range(300))
    expected = [text.input_ids for text in extractor.tokenizer.encode(texts)]
    done = 0
    for batch in batches:
        tokens = batch.features["tokens"]
        assert isinstance(tokens, Ragged)
        assert len(tokens) == len(batch.features["first"]) == len(batch)
        for i in range(len(batch)):
            np.testing.assert_allclose(tokens[i][:, 0], expected[done + i] + np.float32(0.001))
            np.testing.assert_allclose(batch.features["first"][i], expected[done + i][0] + np.float32(0.003))
        done += len(batch)


def test_batches_hold_texts_of_one_length_together(make_pipeline, random_texts, echo):
    run(make_pipeline("last_hidden_state.mean", batch_tokens=100), records_of(random_texts(200)))
    assert all(sum(map(len, batch)) <= 100 for batch in echo.batches)
    spread = [max(map(len, batch)) - min(map(len, batch)) for batch in echo.batches]
    assert np.mean(spread) < 3


def test_batches_are_a_pure_function_of_the_stream(make_pipeline, random_texts, echo):
    records = records_of(random_texts(400))
    run(make_pipeline("last_hidden_state.mean"), records)
    first, echo.batches = echo.batches, []
    run(make_pipeline("last_hidden_state.mean"), iter(records))
    assert echo.batches == first


def test_a_stream_takes_no_more_than_a_chunk_ahead(make_pipeline):
    taken = 0

    def records():
        nonlocal taken
        for row in range(20_000):
            yield Record(row=row, text="the film was good")
            taken += 1

    pipeline = make_pipeline("last_hidden_state.mean", batch_tokens=60)
    stream = pipeline.run(records(), pipeline.new_summary())
    assert taken == 0
    chunk = 60 * pipeline_module.CHUNK_BATCHES // 6
    handed_over = 0
    for _ in range(4):
        handed_over += len(next(stream))
        assert handed_over <= taken <= handed_over + chunk + TEXTS_AT_ONCE
    stream.close()


def test_where_texts_are_prepared_meanwhile_chunks_grow_and_reading_keeps_its_bound(
    make_pipeline, echo, monkeypatch, random_texts, assert_same
):
    monkeypatch.setattr(preparing_module, "TEXTS_AT_ONCE", 8)
    records, taken = records_of(random_texts(2000)), []

    def taking():
        for record in records:
            taken.append(record)
            yield record

    pipeline = make_pipeline({"tokens": "hidden_states[1]", "mean": "hidden_states[2].mean"}, batch_tokens=100)
    plain, expected_summary = run(pipeline, records)
    tokens = {text.record.row: text.num_tokens for chunk in pipeline.prepare(records) for text in chunk}
    echo.leaves_python = True
    summary = pipeline.new_summary()
    batches, bound = [], 100
    for batch in pipeline.run(taking(), summary):
        batches.append(batch)
        assert sum(tokens[record.row] for record in batch.records) <= bound
        bound = min(4 * bound, 1600)
        ahead = sum(tokens[record.row] for record in taken) - sum(tokens[r.row] for b in batches for r in b.records)
        assert ahead <= 1.5 * bound + 8 * 64 * 2  # characters tell tokens only roughly; and a group on each side
    assert [record for batch in batches for record in batch.records] == records
    assert len(batches[0]) < len(batches[1]) < len(batches[2])
    joined = [np.concatenate([part.features["mean"] for part in parts]) for parts in (batches, plain)]
    assert_same(joined[0], joined[1], 1e-6)
    assert (summary.records, summary.tokens) == (expected_summary.records, expected_summary.tokens)


def test_a_chunk_is_bounded_in_bytes_of_results(make_pipeline, monkeypatch):
    records = records_of(["the film was good"] * 50)
    bytes_a_text = 4 * 6 * 4 * 32 + 8  # and where its values end
    monkeypatch.setattr(pipeline_module, "CHUNK_RESULT_BYTES", 10 * bytes_a_text)
    pipeline = make_pipeline("hidden_states[:]", batch_tokens=10**6)
    assert [len(batch) for batch in run(pipeline, records)[0]] == [10] * 5
    monkeypatch.setattr(pipeline_module, "CHUNK_RESULT_BYTES", 1)
    assert [len(batch) for batch in run(pipeline, records)[0]] == [1] * 50


def test_texts_are_handed_to_the_tokenizer_together_up_to_a_bound(make_pipeline, monkeypatch):
    asked = []
    pipeline = make_pipeline("last_hidden_state.mean")
    kind = type(pipeline.preparation.variants.tokenizer)
    encode = kind.encode
    monkeypatch.setattr(
        kind,
        "encode",
        lambda self, texts, *more, **options: asked.append(len(texts)) or encode(self, texts, *more, **options),
    )
    run(pipeline, records_of(["a"] * (2 * TEXTS_AT_ONCE + 3)))
    assert asked == [TEXTS_AT_ONCE, TEXTS_AT_ONCE, 3]
    asked.clear()
    monkeypatch.setattr(preparing_module, "CHARACTERS_AT_ONCE", 10)
    run(pipeline, records_of(["abcdef"] * 5))
    assert asked == [2, 2, 1]


def test_an_empty_stream_is_no_batch(make_pipeline):
    batches, summary = run(make_pipeline("last_hidden_state.mean"), [])
    assert batches == []
    assert (summary.records, summary.tokens, summary.notes()) == (0, 0, [])


def test_progress_adds_up(make_pipeline, random_texts, extractor):
    texts = random_texts(100)
    calls = []
    pipeline = make_pipeline("last_hidden_state.mean")
    summary = pipeline.new_summary()
    list(pipeline.run(records_of(texts), summary, lambda *numbers: calls.append(numbers)))
    tokens = sum(len(text) for text in extractor.tokenizer.encode(texts))
    assert [sum(column) for column in zip(*calls, strict=True)] == [100, tokens]
    assert (summary.records, summary.tokens) == (100, tokens)


def test_the_summary_counts(extractor):
    texts = ["", "the film", "the [MASK] was [SEP]", "bad \ud800 \udfff", "good " * 70, "good " * 100, "good " * 62]
    stream = extractor.stream(texts, "hidden_states[2].mean")
    assert (stream.summary.records, stream.summary.layers_run, stream.summary.layers) == (0, 2, 3)
    list(stream)
    summary = stream.summary
    lengths = [2, 4, 6, 3, 64, 64, 64]  # BERT's normaliser drops U+FFFD
    assert (summary.records, summary.tokens) == (7, sum(lengths))
    assert (summary.cut_texts, summary.cut_tokens) == ({64: 2}, {64: 72 - 64 + 102 - 64})
    assert (summary.empty_texts, summary.texts_with_specials, summary.texts_with_surrogates) == (1, 1, 1)
    assert summary.notes() == [
        "2 texts cut at 64 tokens, 46 tokens lost",
        "1 text empty: special tokens only, zero vectors where these are left out",
        "1 text with special tokens typed in them, taken as such",
        "1 text with lone surrogates, replaced by U+FFFD",
        "2 texts equal to another, 128 tokens not run again",
    ]


def test_the_summary_counts_cuts_at_every_limit(sentence_extractor):
    stream = sentence_extractor.stream(["good " * 20, "good " * 80, "good"], ["sentence_embedding", "pooler_output"])
    list(stream)
    assert stream.summary.cut_texts == {12: 2, 64: 1}
    assert stream.summary.cut_tokens == {12: 22 - 12 + 82 - 12, 64: 82 - 64}
    assert stream.summary.records == 3
    assert stream.summary.tokens == (12 + 22) + (12 + 64) + 3
    assert stream.summary.notes() == [
        "2 texts cut at 12 tokens, 80 tokens lost",
        "1 text cut at 64 tokens, 18 tokens lost",
        "1 text equal to another, 12 tokens not run again",
    ]


def poisoned(bad_id: int, value: float):
    """A change of `EchoBackend` that puts `value` at every token with this id."""

    def change(batch, hidden):
        hidden[batch.input_ids == bad_id, 3] = value
        return hidden

    return change


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "feature",
    [
        "last_hidden_state",
        "last_hidden_state.mean",
        "last_hidden_state.mean.normalize",
        "last_hidden_state.mean.astype(int8)",
        "last_hidden_state.mean.astype(binary)",
        "last_hidden_state.astype(binary)",
        "hidden_states[:].mean.astype(float16)",
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered")  # numpy's, on the way to the refusal
def test_what_is_not_finite_is_refused_by_name(make_pipeline, extractor, echo, feature, value):
    echo.change = poisoned(extractor.tokenizer.backend.token_to_id("river"), value)
    texts = ["the film", "a river", "bank", "river river", "good"]
    records = [Record(row=10 + i, text=text, id="abcde"[i]) for i, text in enumerate(texts)]
    with pytest.raises(NonFiniteError, match=r"record 'b' \(row 11\), 'd' \(row 13\);"):
        run(make_pipeline(feature, batch_tokens=10**6), records)
    batches, _ = run(make_pipeline(feature, keep_non_finite=True), records)
    assert sum(map(len, batches)) == 5


def test_many_records_that_are_not_finite(make_pipeline, extractor, echo):
    echo.change = poisoned(extractor.tokenizer.backend.token_to_id("river"), np.nan)
    with pytest.raises(NonFiniteError, match=r"record row 0, row 1, row 2, row 3, row 4 and 4 more;"):
        run(make_pipeline("last_hidden_state.mean", batch_tokens=10**6), records_of(["river"] * 9))


def test_float16_that_overflows_is_refused(make_pipeline, extractor, echo):
    echo.change = poisoned(extractor.tokenizer.backend.token_to_id("river"), 1e6)
    records = records_of(["the film", "river"])
    run(make_pipeline("last_hidden_state.first.astype(float16)"), records)
    with pytest.raises(NonFiniteError, match=r"record row 1;"):
        run(make_pipeline("last_hidden_state.astype(float16)"), records)


def test_a_text_without_a_single_token_is_refused(make_pipeline, extractor):
    bare = replace(extractor.tokenizer, backend=without_template(extractor), prefix=(), suffix=(), cls_index=None)
    pipeline = make_pipeline("last_hidden_state.mean")
    variants = replace(pipeline.preparation.variants, tokenizer=bare)
    pipeline = replace(pipeline, preparation=replace(pipeline.preparation, variants=variants))
    assert len(run(pipeline, records_of(["the film"]))[0]) == 1
    with pytest.raises(InputError, match="record row 1: its text has no token"):
        run(pipeline, records_of(["the film", ""]))


def without_template(extractor):
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    bare = Tokenizer.from_str(extractor.tokenizer.backend.to_str())
    bare.post_processor = TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    return bare


def test_an_error_in_the_middle_leaves_what_was_handed_over(make_pipeline):
    def broken():
        yield from records_of(["the film"] * 1000)
        raise InputError("line 1001 is broken")

    pipeline = make_pipeline("last_hidden_state.mean", batch_tokens=40)
    summary = pipeline.new_summary()
    done = []
    with pytest.raises(InputError, match="line 1001"):
        done.extend(len(batch) for batch in pipeline.run(broken(), summary))
    assert 0 < sum(done) == summary.records < 1000


def test_an_overflowing_checkpoint_is_refused_end_to_end(tmp_path, make_checkpoint, write_tensors):
    from safetensors.numpy import load_file

    folder = make_checkpoint(tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.weight"] = np.full(32, 3e38, dtype=np.float32)
    (folder / "model.safetensors").unlink()
    write_tensors(folder, weights)
    extractor = Extractor.from_pretrained(folder)
    assert np.isfinite(extractor.extract("the film", "hidden_states[1].mean")).all()
    with pytest.raises(NonFiniteError, match=r"record row 0; .*non_finite='keep'"):
        extractor.extract("the film", "hidden_states[2].max")
    kept = Extractor.from_pretrained(folder, non_finite="keep").extract("the film", "hidden_states[2].max")
    assert not np.isfinite(kept).all()


def test_preparing_and_running_are_two_steps(make_pipeline, echo, random_texts, assert_same):
    """Prepared texts run in any parts, in any order, and give what the stream gives."""
    pipeline = make_pipeline({"tokens": "hidden_states[1]", "mean": "hidden_states[2].mean"}, batch_tokens=30)
    records = records_of(random_texts(400))
    streamed, summary = run(pipeline, records)
    echo.batches.clear()
    chunks = list(pipeline.prepare(records))
    assert echo.batches == []
    assert [len(chunk) for chunk in chunks] == [len(batch) for batch in streamed]
    assert len(chunks) > 1
    counted = []
    for chunk, expected in reversed(list(zip(chunks, streamed, strict=True))):
        whole = pipeline.run_chunk(chunk, lambda *counts: counted.append(counts))
        assert list(whole.records) == list(expected.records)
        assert_same(dict(whole.features), dict(expected.features), 0)
        middle = len(chunk) // 2
        for part, begin in ((chunk[:middle], 0), (chunk[middle:], middle)):
            half = pipeline.run_chunk(part)
            assert list(half.records) == list(expected.records)[begin : begin + len(part)]
            for row in range(len(part)):
                assert_same(half.features["tokens"][row], expected.features["tokens"][begin + row], 0)
    assert sum(records for records, _ in counted) == summary.records == 400
    assert sum(tokens for _, tokens in counted) == summary.tokens


def test_chunks_run_in_several_threads(extractor, random_texts, assert_same):
    """As a server's workers do: one pipeline, chunks from all sides, each with its own results."""
    pipeline = replace(
        extractor.pipeline(extractor.plan(["hidden_states[2]", "last_hidden_state.mean"])), batch_tokens=40
    )
    records = records_of(random_texts(300))
    chunks = list(pipeline.prepare(records))
    assert len(chunks) >= 4
    alone = [pipeline.run_chunk(chunk) for chunk in chunks]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(pipeline.run_chunk, chunks * 4))
    for one, other in zip(found, alone * 4, strict=True):
        assert list(one.records) == list(other.records)
        assert_same(dict(one.features), dict(other.features), 1e-6)


def test_no_texts_are_a_batch_of_none(extractor):
    """A half of a chunk of one text, or a server's empty request."""
    features = ["hidden_states[1]", "last_hidden_state.mean", "attentions[0].heads_mean"]
    pipeline = extractor.pipeline(extractor.plan(features), details=True)
    batch = pipeline.run_chunk([])
    assert len(batch) == 0
    assert list(batch.features) == [schema.name for schema in pipeline.schemas]
    assert [len(feature) for feature in batch.features.values()] == [0] * len(batch.features)


@pytest.mark.parametrize(
    ("texts", "unknown", "own", "said"),
    [
        (["the film", "good"], 0, 3, []),
        (["the film " * 5 + "\u6587"], 1, 11, ["1 of 11 tokens (9.1%) is unknown to the tokenizer"]),
        (
            ["\u6587\u4ef6 film", "\u0e01"],
            3,
            4,
            ["3 of 4 tokens (75.0%) are unknown to the tokenizer, and the model cannot tell them apart"],
        ),
        (["the film " * 40 + "\u6587"], 1, 81, ["1 text cut at", "1 of 81 tokens (1.2%) is unknown to the tokenizer"]),
    ],
)
def test_unknown_tokens_are_counted_and_past_a_share_warned_of(make_pipeline, texts, unknown, own, said):
    _, summary = run(
        make_pipeline("last_hidden_state.mean"), [Record(row=i, text=text) for i, text in enumerate(texts)]
    )
    assert (summary.unknown_tokens, summary.own_tokens) == (unknown, own)
    assert summary.unknown_share == unknown / own
    notes = summary.notes()
    assert len(notes) == len(said)
    assert all(note.startswith(start) for note, start in zip(notes, said, strict=True))
    assert summary.warnings() == [note for note in notes if "cannot tell them apart" in note]
    assert bool(summary.warnings()) == (unknown / own > 0.1)
    again = RunSummary(layers_run=1, layers=1)
    again.add_counts(summary.counts())
    assert again.unknown_share == summary.unknown_share, "shards of a folder add up"
