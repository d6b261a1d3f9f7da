"""Families of the line beside BERT, on every instruction set: against transformers, whole and by rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("layertap.backends.native._native", reason="the native kernels are not built")
transformers = pytest.importorskip("transformers")

from layertap.backends.native import _native  # noqa: E402 - after what may skip
from layertap.checkpoints.load import open_model  # noqa: E402
from layertap.checkpoints.source import locate  # noqa: E402
from layertap.engine.segments import segments_of  # noqa: E402
from layertap.features.program import Capture, Program  # noqa: E402

LENGTHS = (1, 5, 17, 130, 290)
SIZES = {
    "vocab_size": 60,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 300,
    "pad_token_id": 1,
}


@pytest.fixture(scope="module")
def mpnet(wrap_model, tmp_path_factory):
    import torch

    folder = tmp_path_factory.mktemp("mpnet")

    reference = transformers.MPNetModel(transformers.MPNetConfig(**SIZES))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(0, 0.3, generator=generator)
    reference.save_pretrained(folder)
    model = wrap_model(reference)
    files = open_model(locate(folder))  # which knows the names that this family gives its weights
    model.views = dict(files.weights(files.spec.parameters()))
    return model


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("instruction_set", _native.instruction_sets())
def test_biases_by_distance(instruction_set, threads, mpnet, error_over_rms, run_everything, report):
    sequences = [ids + 2 for ids in mpnet.random_sequences(LENGTHS)]
    sequences = [np.minimum(ids, 59).astype(np.int32) for ids in sequences]
    expected, pooled = mpnet.expected(sequences)
    backend = mpnet.native(instruction_set=instruction_set, threads=threads)
    found, found_pooled = run_everything(backend, mpnet, sequences)
    errors = [error_over_rms(*pair) for pair in zip([*found, found_pooled], [*expected, pooled], strict=True)]
    report(f"{instruction_set}: largest |error| / RMS", max(errors))
    assert max(errors) <= 2e-5

    first = Capture(layers=(3,), segments="tokens", reduce="first")
    batch = mpnet.pack(sequences)
    few = Program(captures=(first,), stop=3, top_rows_only=True)
    rows = backend.run(few, batch, {"tokens": segments_of(batch, "tokens")})[first]
    assert rows.tobytes() == found[-1][batch.cu_seqlens[:-1]].tobytes()


def test_a_sequence_longer_than_the_biases_is_refused(mpnet):
    backend = mpnet.native()
    few = mpnet.pack([np.full(4, 5, np.int32)])
    embeddings = Program(captures=(Capture(layers=(0,)),), stop=0)
    backend.run(embeddings, few, {})
    many = mpnet.pack([np.full(4, 5, np.int32)] * 100)
    one = replace(many, cu_seqlens=np.array([0, many.num_tokens], np.int32))
    with pytest.raises(ValueError, match="longer than the bias"):
        backend.run(embeddings, one, {})
