"""Damaged inputs of every format, and what reading them may do: nothing but the project's own errors.

By hand, for as many mutations of each format as wanted, from another seed each time:

    python -m tests.data.readers.mutations 200000 --seed 7
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import lzma
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from layertap.data import open_reader, open_writer
from layertap.errors import LayertapError
from layertap.records import FeatureBatch

MAX_RECORD_BYTES = 1 << 16
MAX_ARROW_BYTES = 256 << 20
"""Most that Arrow may allocate for a file of a few kilobytes."""
MAX_GROWTH_BYTES = 400 << 20
"""Most that the process may grow by over all mutations of a format."""
MAX_SECONDS = 10.0
"""Most processor time that one file of a few kilobytes may take; compressed, it may unpack to a million lines."""

PIECES = (
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"\t",
    b" ",
    b"\0",
    b'"',
    b'""',
    b"'",
    b",",
    b";",
    b"\\",
    b"#",
    b"-",
    b"_",
    b"[" * 700,
    b'{"a":' * 700,
    b"[" * 90 + b"]" * 90,
    b"9" * 5000,
    b"-1",
    b"1e999",
    b"1e-999",
    b"NaN",
    b"Infinity",
    b"null",
    b"true",
    b"0.5",
    b"9223372036854775808",
    b'"\\ud800"',
    b"\\ud800",
    b"\\u0000",
    b"\\x",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\xaf",
    "\u2028\u00a0\u202e\U0001f600".encode(),
    b"[[0,1]]",
    b"[[0.0,1.0]]",
    b'[{"begin":0}]',
    b"{}",
    b"[]",
    b'"text"',
    b'"id"',
    b'"":1',
    b"\x1f\x8b\x08",
    b"1-2",
    b"8.1",
    b"-DOCSTART- O",
    b"PAR1",
    b"x" * (MAX_RECORD_BYTES + 1),
)
"""Pieces that some reader takes for something; put into files at random places."""

Options = dict[str, object]


def _parquet(table: pa.Table, **options: object) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


def _table() -> pa.Table:
    return pa.table(
        {
            "text": pa.array(["one text", "another", "", "caf\u00e9"] * 8),
            "id": pa.array(range(32), pa.int64()),
            "words": pa.array([["a", "b"], ["c"], [], ["d", "e", "f"]] * 8),
            "spans": pa.array([[[0, 1]], [[1, 3], [0, 7]], [], [[0, 4]]] * 8),
            "named": pa.array([[{"begin": 0, "end": 1}], [], [], [{"begin": 1, "end": 3}]] * 8),
            "when": pa.array([10**18] * 32, pa.timestamp("ns")),
            "kind": pa.array(["x", "y"] * 16).dictionary_encode(),
            "bytes": pa.array([b"\xff\x00"] * 32),
            "price": pa.array([1.5] * 32, pa.float64()),
        }
    )


def _word(number: str, form: str, head: str, relation: str) -> str:
    return "\t".join([number, form, form.lower(), "X", "_", "_", head, relation, "_", "_"]) + "\n"


def seeds() -> dict[str, list[tuple[bytes, Options]]]:
    """Sound files of each format, and the options to read them with."""
    rows = [
        {"text": "one text", "id": 1, "words": ["a", "b"], "spans": [[0, 3]], "n": 1, "deep": {"a": [1, [2, None]]}},
        {"text": "caf\u00e9 \ud83d\ude00", "id": 2, "words": ["c"], "spans": [{"begin": 0, "end": 2}], "n": 1.5},
        {"text": "", "id": "x", "words": [], "spans": [], "n": "s", "deep": [True, "s"], "other": 2**60},
    ]
    txt = b"one line\nanother\r\n\n\xc3\xa9\xe2\x80\xa8x\nlast"
    jsonl = "".join(json.dumps(row) + "\n" for row in rows).encode()
    csv = b'text,id,label,"a ""b"""\none text,1,pos,x\n"two,\nlines",2,neg,y\n\xc3\xa9,3,pos,z\n'
    tsv = csv.replace(b",", b"\t")
    conll = b"-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\nGerman JJ B-NP B-MISC\ncall NN I-NP O\n"
    conllu = (
        "# sent_id = s1\n# text = I haven't.\n"
        + _word("1", "I", "2", "nsubj")
        + _word("2-3", "haven't", "_", "_")
        + _word("2", "have", "0", "root")
        + _word("3", "n't", "2", "advmod")
        + _word("3.1", "x", "_", "_")
        + _word("4", ".", "2", "punct")
        + "\n# sent_id = s2\n# text = No.\n"
        + _word("1", "No", "0", "root")
        + _word("2", ".", "1", "punct")
        + "\n"
    ).encode()
    table = _table()
    plain = {"columns": None}
    parquet_options: list[Options] = [
        plain,
        {"words_column": "words"},
        {"spans_column": "spans"},
        {"spans_column": "named", "columns": []},
    ]
    files = [
        _parquet(table, compression="none"),
        _parquet(table, compression="none", use_dictionary=False, row_group_size=8, data_page_size=64),
        _parquet(table, compression="zstd", data_page_version="2.0", row_group_size=8),
        _parquet(table, compression="snappy", write_statistics=False, store_schema=False),
    ]
    return {
        "txt": [
            (txt, {}),
            (txt, {"records": "paragraph"}),
            (txt, {"records": "file"}),
            (txt.decode().encode("utf-16"), {}),
            (txt.decode().encode("utf-16-be"), {"encoding": "utf-16-be"}),
            (txt.decode().encode("gb18030"), {"encoding": "gb18030"}),
        ],
        "txt.bz2": [(bz2.compress(txt * 20), {})],
        "txt.xz": [(lzma.compress(txt * 20), {})],
        "txt.zst": [(pa.Codec("zstd").compress(txt * 20, asbytes=True), {})],
        "txt.gz": [(gzip.compress(b"one line\nanother\n" * 20, mtime=0), {})],
        "jsonl": [
            (jsonl, plain),
            (jsonl, {"words_column": "words", "columns": None}),
            (jsonl, {"spans_column": "spans"}),
            (jsonl, {"pair_column": "text", "id_column": "id"}),
        ],
        "json": [
            (json.dumps(rows, indent=1).encode(), plain),
            (json.dumps(rows).encode(), {"words_column": "words", "columns": None}),
            ("\n".join(json.dumps(row, indent=2) for row in rows).encode(), plain),
        ],
        "jsonl.gz": [(gzip.compress(jsonl, mtime=0), plain)],
        "csv": [
            (csv, plain),
            (csv, {"pair_column": "label", "id_column": "id"}),
            (csv.replace(b",", b";"), plain),
            (csv, {"header": False, "text_column": "col0"}),
        ],
        "tsv": [(tsv, plain), (tsv, {"quoting": "minimal"}), (tsv.replace(b"two\t\n", b"two "), {"quoting": "none"})],
        "conll": [
            (conll, plain),
            (b"# id 1f domain=en\n" + conll.replace(b"-DOCSTART- -X- O O\n\n", b""), plain),
            (conll.replace(b" ", b"\t"), {"words_column": "col0"}),
        ],
        "conllu": [(conllu, plain), (conllu, {"text_column": "text", "columns": ["head", "upos", "feats"]})],
        "parquet": [(content, options) for content in files for options in parquet_options],
    }


def mutated(content: bytes, rng: random.Random, *, in_place: bool) -> bytes:
    """A file with one to four random changes; `in_place` leaves every other byte where it was."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        place = rng.randrange(len(data) + 1)
        if rng.random() < 0.3:  # the end, where Parquet has its table of contents and gzip its checksum
            place = max(0, len(data) - rng.randrange(1, 2 + min(len(data), 2000)))
        end = min(len(data), place + rng.choice((1, 1, 2, 4, 16, 100)))
        match rng.choice((0, 1, 6)) if in_place else rng.randrange(8):
            case 0 if place < len(data):
                data[place] ^= 1 << rng.randrange(8)
            case 1 if place < len(data):
                data[place] = rng.randrange(256)
            case 2:
                del data[place:end]
            case 3:
                data[place:place] = data[place:end]
            case 4:
                data[place:end] = rng.choice(PIECES)
            case 5:
                data[place:place] = rng.choice(PIECES)
            case 6:
                data[place:end] = rng.randbytes(end - place)
            case _:
                del data[place if rng.random() < 0.5 else rng.randrange(len(data) + 1) :]
    return bytes(data)


def cases(format_: str, count: int, seed: int) -> Iterator[tuple[bytes, Options]]:
    """Damaged files of a format, the same for the same seed."""
    rng = random.Random(f"{format_} {seed}")
    sound = seeds()[format_]
    for number in range(count):
        content, options = sound[number % len(sound)]
        # Where bytes have numbers, nearly every shift of them ends at the first look.
        in_place = format_.endswith(("parquet", ".gz", ".bz2", ".xz", ".zst")) and rng.random() < 0.8
        yield mutated(content, rng, in_place=in_place), options | {"on_error": rng.choice(("raise", "skip"))}


def read(path: Path, options: Options, *, rewrite: str | None) -> str:
    """Read a damaged file, and write what it carries to another; return how that ended."""
    try:
        with open_reader(path, max_record_bytes=MAX_RECORD_BYTES, **options) as reader:  # type: ignore[arg-type]
            types = reader.column_types
            records = list(reader)
        if rewrite is not None:
            output = path.with_name(f"out.{rewrite}")
            with open_writer(output, schemas=(), column_types=types, provenance={}, overwrite=True) as writer:
                for begin in range(0, len(records), 7):
                    writer.write(FeatureBatch(records=records[begin : begin + 7], features={}))
    except LayertapError as error:
        refusal = error
    else:
        return "read"
    message = str(refusal)
    assert message.strip()
    assert not any(mark in message for mark in ("Traceback", "\x1b")), message
    return type(refusal).__name__


def attack(
    format_: str, count: int, folder: Path, *, seed: int = 0, on_case: Callable[[int], None] | None = None
) -> Counter[str]:
    """Read `count` damaged files of a format, and return how often each ending came."""
    endings: Counter[str] = Counter()
    path = folder / f"damaged.{format_}"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    for number, (content, options) in enumerate(cases(format_, count, seed)):
        path.write_bytes(content)
        started = time.process_time()
        pool = pa.default_memory_pool()
        try:
            endings[read(path, options, rewrite={3: "parquet", 7: "jsonl"}.get(number % 10))] += 1
        except BaseException as error:
            error.add_note(f"{format_}, seed {seed}, mutation {number}, options {options}: {path}")
            raise
        assert time.process_time() - started < MAX_SECONDS, (format_, seed, number)
        assert pool.bytes_allocated() < MAX_ARROW_BYTES, (format_, seed, number, pool.bytes_allocated())
        if on_case is not None:
            on_case(number)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    assert grown < MAX_GROWTH_BYTES, (format_, seed, grown)
    return endings


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("count", type=int, help="mutations of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", action="append", choices=list(seeds()), help="only this one; again for more")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for format_ in options.format or seeds():
            started = time.perf_counter()
            endings = attack(format_, options.count, Path(folder), seed=options.seed)
            sys.stdout.write(f"{format_}: {dict(endings)} in {time.perf_counter() - started:.0f} s\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
