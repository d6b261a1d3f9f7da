"""Compute how well the native engine occupies its threads, from the costs of a run: nothing is timed.

The command is ``python -m benchmarks schedule``. It draws texts from the mixture of the other benchmarks, cuts them
into batches as the engine does, and lets the engine's own scheduler share out each batch. Tokenizing is left out.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.models import minilm_folder
from benchmarks.report import markdown_table
from benchmarks.workload import DEFAULT_DATA, SEED, make_workloads
from layertap.backends.facts import row_of
from layertap.engine.batching import PlannedText, batches_of
from layertap.engine.extractor import Extractor
from layertap.engine.length_policy import LengthPolicy
from layertap.text.encoded import EncodedText

THREADS = (2, 4, 8, 16, 32, 64)
COUNTS = (10, 20, 40, 100, 1_000, 10_000)
MAX_LENGTH = 512
SHAPES = {
    "minilm": {"layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1_536},
    "bert-base": {"layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3_072},
}


def main(arguments: Sequence[str]) -> int:
    """Print a table: texts by threads, the smallest share of the threads' time that is spent working."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks schedule", description=__doc__)
    parser.add_argument("--model", choices=tuple(SHAPES), default="minilm")
    parser.add_argument(
        "--draws", type=int, default=5, metavar="N", help="drawings of up to 100 texts; the worst counts"
    )
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, metavar="FOLDER")
    options = parser.parse_args(arguments)
    # both models have BERT's uncased vocabulary
    tokenizer = Extractor.from_pretrained(minilm_folder()).tokenizer
    encoded = tokenizer.encode(list(make_workloads(options.data)["mixture"].texts))
    shape = SHAPES[options.model]
    lines = []
    for count in COUNTS:
        draws = options.draws if count <= 100 else 1
        samples = [random.Random(SEED + draw).choices(encoded, k=count) for draw in range(draws)]
        cells = [f"{min(efficiency(sample, threads, shape) for sample in samples):.3f}" for threads in THREADS]
        lines.append([f"{count:,}", *cells])
    print("\n".join(markdown_table(["texts", *(f"{threads} threads" for threads in THREADS)], lines)))
    return 0


def efficiency(texts: Sequence[EncodedText], threads: int, shape: dict[str, int]) -> float:
    """Return the share of the threads' time that is spent working, over all batches of the texts."""
    from layertap.backends.native import _native_testing

    policy = LengthPolicy()
    planned = [
        PlannedText(index=i, cut=policy.cut(text, MAX_LENGTH, None), units=None, inputs=frozenset([0]))
        for i, text in enumerate(texts)
    ]
    work = time = 0.0
    for batch in batches_of(planned, batch_tokens=row_of("native", "cpu").batch_tokens):
        lengths = [text.cut.num_tokens for text in batch]
        of_batch, span = _native_testing.simulate(lengths, threads=threads, **shape)
        work += of_batch
        time += span * threads
    return work / time
