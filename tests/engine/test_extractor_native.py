"""`Extractor` from end to end on the native backend, and against torch."""

from __future__ import annotations

import pickle
import subprocess
import sys

import numpy as np
import pytest

import layertap
from layertap import Extractor, OptionError

native = pytest.importorskip("layertap.backends.native._native", reason="the native module is not built")

FEATURES = {
    "tokens": "last_hidden_state",
    "words": "hidden_states[1:].words(max)",
    "maps": "attentions[1].heads_mean",
    "pooled": "pooler_output",
}

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None  # as if it were not installed
import layertap
from layertap.cli.main import main
extractor = layertap.Extractor.from_pretrained(sys.argv[1])
assert (extractor.backend.name, extractor.extract("the film").shape) == ("native", (32,))
code = main(["extract", sys.argv[2], "-o", sys.argv[3], "-m", sys.argv[1], "--details", "all"])
print(code, [m for m in sys.modules if m.split(".")[0] in ("torch", "transformers") and sys.modules[m] is not None])
"""

COMMAND = """
import sys
from layertap.cli.main import main
code = main(["extract", sys.argv[1], "-o", sys.argv[2], "-m", sys.argv[3], "--backend", "native", "--threads", "1"])
print(code, "torch" in sys.modules)
"""


def run(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def extractor(bert_folder):
    return Extractor.from_pretrained(bert_folder, backend="native", threads=2)


def test_the_numbers_of_torch(bert_folder, extractor, random_texts, assert_same):
    texts = [*random_texts(20), "", "the"]
    expected = Extractor.from_pretrained(bert_folder, backend="torch").extract(texts, FEATURES)
    assert_same(extractor.extract(texts, FEATURES), expected, 1e-5)


def test_threads_and_batches_change_no_bit(bert_folder, extractor, random_texts, assert_same):
    texts = random_texts(40)
    one = Extractor.from_pretrained(bert_folder, backend="native", threads=1, batch_tokens=50)
    assert_same(one.extract(texts, FEATURES), extractor.extract(texts, FEATURES), 0)


def test_what_it_is_is_told(bert_folder, extractor):
    assert extractor.backend.instruction_set == "x86"
    best = next(name for name in native.instruction_sets() if name != "amx")
    assert f"\nbackend native, {best}, 2 threads\n" in extractor.explain()
    provenance = extractor.provenance()
    assert (provenance["backend"], provenance["instruction_set"]) == ("native", "x86")
    other = Extractor.from_pretrained(bert_folder, backend="native", instruction_set="avx2")
    assert other.provenance()["instruction_set"] == "x86"
    assert "native" in repr(extractor)


def test_it_is_pickled_with_its_options(extractor, assert_same):
    again = pickle.loads(pickle.dumps(extractor))
    assert (again.semantics, again.runtime, again.selection) == (
        extractor.semantics,
        extractor.runtime,
        extractor.selection,
    )
    assert_same(again.extract(["the film"]), extractor.extract(["the film"]), 0)


@pytest.mark.parametrize("precision", native.precisions(native.instruction_sets()[0]))
def test_precisions(bert_folder, precision, random_texts):
    texts = random_texts(10)
    found = Extractor.from_pretrained(bert_folder, backend="native", precision=precision).extract(texts)
    expected = Extractor.from_pretrained(bert_folder, backend="torch").extract(texts)
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > {"int8": 0.98, "bfloat16": 0.999}.get(precision, 0.99999)
    assert (found != expected).any()


def test_precisions_that_it_has_not(bert_folder):
    with pytest.raises(OptionError, match="native has no int8 with avx2; it has float32, float32-high"):
        Extractor.from_pretrained(bert_folder, backend="native", precision="int8", instruction_set="avx2")
    with pytest.raises(OptionError, match="native has no float16"):
        Extractor.from_pretrained(bert_folder, backend="native", precision="float16")
    with pytest.raises(OptionError, match="native runs on the processor, not on cuda"):
        Extractor.from_pretrained(bert_folder, backend="native", device="cuda")
    with pytest.raises(OptionError, match="no instruction set 'mmx' on this machine; it has "):
        Extractor.from_pretrained(bert_folder, instruction_set="mmx")


def test_no_torch_is_needed(tmp_path, bert_folder):
    (tmp_path / "in.txt").write_text("the film\na good movie\n")
    assert run(WITHOUT_TORCH, bert_folder, tmp_path / "in.txt", tmp_path / "out.parquet") == "0 []"
    with layertap.open(tmp_path / "out.parquet") as file:
        assert len(file) == 2


def test_no_torch_is_imported(tmp_path, bert_folder):
    (tmp_path / "in.txt").write_text("the film\n")
    assert run(COMMAND, tmp_path / "in.txt", tmp_path / "out.npy", bert_folder) == "0 False"


@pytest.mark.parametrize("precision", ["float32", "float32-high", "bfloat16", "int8"])
def test_overflow_in_a_block_is_refused(make_checkpoint, tmp_path, precision):
    """The squares of a norm overflow: zeros in place of NaN would pass for a result."""
    safetensors = pytest.importorskip("safetensors.numpy")
    if precision not in native.precisions(native.instruction_sets()[0]):
        pytest.skip(f"no {precision} here")
    folder = make_checkpoint(tmp_path / "overflows")
    weights = safetensors.load_file(folder / "model.safetensors")
    (name,) = (key for key in weights if key.endswith("layer.0.output.dense.weight"))
    weights[name] = weights[name] * np.float32(1e25)
    safetensors.save_file(weights, folder / "model.safetensors")
    extractor = Extractor.from_pretrained(folder, backend="native", precision=precision)
    for feature in ("hidden_states[1].mean", "last_hidden_state", "pooler_output"):
        with pytest.raises(layertap.NonFiniteError):
            extractor.extract(["the film", "a dull one"], feature)
    assert np.isfinite(extractor.extract("the film", "hidden_states[0].mean")).all()
