"""`verify` on a random model of every row of the conformance suite: what it compares, and that it passes."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from layertap.backends.here import native_absence  # noqa: E402 - needs torch
from layertap.cli.certificate_card import in_lines  # noqa: E402 - needs torch
from layertap.engine.opening import open_reference  # noqa: E402
from layertap.engine.options import ModelReference  # noqa: E402
from layertap.verify import comparison  # noqa: E402
from layertap.verify.comparison import Texts, available_setups, runnable, verify  # noqa: E402
from tests.conformance.test_families import ROWS  # noqa: E402
from tests.selection import stress_except  # noqa: E402
from tests.tiny_models import save_model, wordpiece_tokenizer  # noqa: E402

LONG = "some film about the river and the bank, " * 9
TEXTS = Texts(texts=("A good film.", "", "hello", LONG, "the dull story of a great actor"))


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def saved(row, folder, values, *, scale=1.0):
    """A checkpoint with a tokenizer that is taken as it stands, whatever the family's own is."""
    tokenizer = wordpiece_tokenizer()
    module = row.random_model(dict(values) | {"vocab_size": tokenizer.get_vocab_size()})
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale if parameter.ndim > 1 else 1.0)
    save_model(folder, module, tokenizer)
    return open_reference(
        ModelReference(name=str(folder), revision=None, cache_dir=None, local_files_only=True, allow_pickle=False)
    )


USUAL = ("BERT", "ModernBERT", "DeBERTa-v2")
SLOW = ("ALBERT", "MPNet", "MegatronBERT", "NomicBERT", "DeBERTa-v3")


@pytest.mark.parametrize("row", stress_except(ROWS, usual=USUAL, slow=SLOW))
def test_every_state_and_the_pooler_in_every_precision(row, tmp_path):
    opened = saved(row, tmp_path, row.small)
    setups, refused = runnable(opened, available_setups(["cpu"]))
    found = verify(opened, setups, texts=TEXTS, threads=2)
    spec = opened.files.spec
    states = [f"hidden_states[{i}]" for i in range(spec.num_hidden_layers + 1)]
    assert native_absence() or list(refused) == (["native"] if spec.convolution else [])
    of_torch = [result for result in found.results if result.setup.backend == "torch"]
    assert {result.setup.precision for result in of_torch} == {"float32", "bfloat16"}
    for result in found.results:
        unnormed = [f"{states[-1]}.unnormed"] * spec.final_norm
        assert [output.name for output in result.outputs] == states + unnormed + ["pooler_output"] * row.pooler
        assert result.passed, result.failures
    assert found.texts.different_ids == ()
    assert found.passed
    assert (found.pooler == "none") == (not row.pooler)
    assert found.reference_class == row.model_class
    lines = in_lines(found, refused)
    normed = [line.split() for line in lines if line.startswith("  norm ")]
    last = spec.num_hidden_layers
    assert normed[0][1] == f"hidden_states[{last}]" if spec.final_norm else not normed
    assert max(map(len, lines[1:])) <= 100


def test_what_goes_into_the_final_norm_is_compared(tmp_path, monkeypatch):
    (row,) = [row for row in ROWS if row.name == "MegatronBERT"]
    opened = saved(row, tmp_path, row.small)
    # as if the norm were another one: that of the last block, before its feed-forward
    monkeypatch.setattr(comparison, "_final_norm", lambda _: "encoder.layer.2.ln")
    (result,) = verify(opened, available_setups(["cpu"], ["float32"], ["torch"]), texts=TEXTS).results
    assert result.failures == ("hidden_states[3].unnormed",)


def test_a_model_whose_float32_is_coarse_is_measured_by_transformers_own_error(tmp_path):
    (row,) = [row for row in ROWS if row.name == "BERT"]
    opened = saved(row, tmp_path, dict(row.small) | {"num_hidden_layers": 6}, scale=4.0)
    found = verify(opened, available_setups(["cpu"], ["float32"], ["torch"]), texts=TEXTS)
    (result,) = found.results
    assert max(output.transformers.error_over_rms for output in result.outputs) > result.base_bound
    assert result.bound > result.base_bound
    assert found.passed, result.failures
    assert any("1.5 times transformers' largest" in line for line in in_lines(found))
