"""`verify`: passes on what is the same, and notices what is not."""

from __future__ import annotations

import json
import math
import shutil

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from layertap.checkpoints.tensors import read_safetensors
from layertap.engine.opening import open_reference
from layertap.engine.options import ModelReference
from layertap.errors import BackendError, CheckpointError, OptionError
from layertap.verify.certificate import Figures, Output, Setup, SetupResult
from layertap.verify.comparison import Texts, available_setups, groups, verify
from layertap.verify.reference import require_transformers
from layertap.verify.texts import built_in_texts

FLOAT32 = Setup(backend="torch", device="cpu", precision="float32")
BFLOAT16 = Setup(backend="torch", device="cpu", precision="bfloat16")
FEW = Texts(source="mine.txt", texts=("A good film.", "", "some film about the river and the bank " * 4))


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


def opened(folder):
    return open_reference(
        ModelReference(name=str(folder), revision=None, cache_dir=None, local_files_only=True, allow_pickle=False)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_checkpoint):
    return make_checkpoint(tmp_path_factory.mktemp("verify") / "tiny-bert")


@pytest.fixture(scope="module")
def certificate(folder):
    return verify(opened(folder), [FLOAT32, BFLOAT16])


def tampered(folder, tmp_path, write_tensors, change):
    """A copy of the folder whose weights went through `change(name -> float32 array)`."""
    copy = tmp_path / "tampered"
    shutil.copytree(folder, copy)
    arrays = {
        name: view.to_float32().copy().reshape(view.shape)
        for name, view in read_safetensors(copy / "model.safetensors").items()
    }
    change(arrays)
    (copy / "model.safetensors").unlink()
    write_tensors(copy, arrays)
    return copy


def test_the_same_passes(certificate):
    assert certificate.passed
    assert [result.setup for result in certificate.results] == [FLOAT32, BFLOAT16]
    for result in certificate.results:
        names = [output.name for output in result.outputs]
        assert names == [*(f"hidden_states[{i}]" for i in range(4)), "pooler_output"]
        # bfloat16 is not float32: that the figures are measured, not assumed
        errors = [output.layertap.error_over_rms for output in result.outputs]
        assert all(error > 1e-3 if result.setup is BFLOAT16 else 0 < error < 1e-5 for error in errors)
    assert certificate.texts.different_ids == ()
    assert min(certificate.texts.lengths) == 2, "the empty text"
    assert max(certificate.texts.lengths) == 64, "the longest"


def test_a_certificate_depends_on_the_files_alone(certificate, folder, tmp_path):
    copy = tmp_path / "elsewhere" / folder.name
    shutil.copytree(folder, copy)
    again = verify(opened(copy), [FLOAT32, BFLOAT16])
    assert again.to_json() == certificate.to_json()
    found = json.loads(certificate.to_json())
    assert found["passed"] is True
    assert set(found["sha256"]) == {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert str(folder) not in certificate.to_json()
    assert [result["bound"] for result in found["results"]] == [
        {"on": "largest error over RMS", "value": 2e-5},
        {"on": "smallest cosine", "value": 0.999},
    ]


@pytest.mark.parametrize("pooler", ["absent", "untrained"])
def test_poolers(pooler, make_checkpoint, tmp_path):
    model = opened(make_checkpoint(tmp_path / "m", "roberta", pooler=pooler))
    found = verify(model, [FLOAT32], texts=Texts(texts=("a good film", "")))
    assert found.passed
    assert found.pooler == pooler
    assert ("pooler_output" in [output.name for output in found.results[0].outputs]) == (pooler == "untrained")


def swap_query_and_key(arrays):
    prefix = "encoder.layer.1.attention.self."
    arrays[f"{prefix}query.weight"], arrays[f"{prefix}key.weight"] = (
        arrays[f"{prefix}key.weight"],
        arrays[f"{prefix}query.weight"],
    )


def nudge_one_weight(arrays):
    arrays["encoder.layer.1.output.dense.weight"][3, 5] += 0.01


def another_norm(arrays):
    arrays["encoder.layer.1.output.LayerNorm.bias"] *= 1.001


@pytest.mark.parametrize("change", [swap_query_and_key, nudge_one_weight, another_norm])
def test_another_weight_is_noticed_where_it_is(change, folder, tmp_path, write_tensors):
    other = tampered(folder, tmp_path, write_tensors, change)
    found = verify(opened(folder), [FLOAT32], texts=FEW, reference_folder=other)
    assert not found.passed
    (result,) = found.results
    fine = [output.name for output in result.outputs if result.allows(output.layertap)]
    assert fine == ["hidden_states[0]", "hidden_states[1]"], "the second block is another"


def test_another_pooler_is_noticed(folder, tmp_path, write_tensors):
    def change(arrays):
        arrays["pooler.dense.weight"] = arrays["pooler.dense.weight"].T.copy()

    other = tampered(folder, tmp_path, write_tensors, change)
    (result,) = verify(opened(folder), [FLOAT32], texts=FEW, reference_folder=other).results
    assert [output.name for output in result.outputs if not result.allows(output.layertap)] == ["pooler_output"]


def test_another_activation_is_noticed(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu_new"}))
    assert not verify(opened(folder), [FLOAT32], texts=FEW, reference_folder=other).passed


def test_other_token_ids_are_noticed(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    assert '"lowercase": true' in text
    (other / "tokenizer.json").write_text(text.replace('"lowercase": true', '"lowercase": false'), encoding="utf-8")
    config = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps(config | {"do_lower_case": False}))
    texts = Texts(source="mine.txt", texts=("a good film", "A Good Film"))
    found = verify(opened(folder), [FLOAT32], texts=texts, reference_folder=other)
    assert found.texts.different_ids == (1,)
    assert not found.passed
    assert all(result.passed for result in found.results), "states are compared on the same ids"


def test_ids_of_the_file_are_told_from_those_of_a_class(folder, tmp_path):
    """The file keeps capitals; the class that transformers chooses for the other folder takes no notice of that."""
    from layertap.cli.certificate_card import in_lines

    own, other = tmp_path / "own", tmp_path / "other"
    for copy, name in ((own, "PreTrainedTokenizerFast"), (other, "BertTokenizer")):
        shutil.copytree(folder, copy)
        text = (copy / "tokenizer.json").read_text(encoding="utf-8")
        (copy / "tokenizer.json").write_text(text.replace('"lowercase": true', '"lowercase": false'), encoding="utf-8")
        config = json.loads((copy / "tokenizer_config.json").read_text())
        (copy / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": name}))
    texts = Texts(source="mine.txt", texts=("a good film", "A Good Film"))
    compared = verify(opened(own), [FLOAT32], texts=texts, reference_folder=other)
    assert (compared.texts.different_ids, compared.texts.own_ids) == ((1,), True)
    assert compared.texts.reference_class == "BertTokenizer"
    assert compared.passed
    said = " ".join(" ".join(in_lines(compared)).split())
    assert "those of tokenizer.json; transformers' tokenizer gives other ids for 1 text (number 2)" in said
    assert "FAILED" not in said


def test_a_tokenizer_that_transformers_cannot_load_is_said_to_be_so(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "tokenizer.json").write_text("{}")
    found = verify(opened(folder), [FLOAT32], texts=Texts(texts=("a",)), reference_folder=other)
    assert found.texts.different_ids is None
    assert found.as_json()["texts"]["ids_compared"] is False


def test_a_weight_that_transformers_makes_up_is_no_oracle(folder, tmp_path, write_tensors):
    other = tampered(folder, tmp_path, write_tensors, lambda arrays: arrays.pop("encoder.layer.2.output.dense.bias"))
    with pytest.raises(CheckpointError, match=r"does not find encoder\.layer\.2\.output\.dense\.bias there"):
        verify(opened(folder), [FLOAT32], reference_folder=other)


def test_a_folder_that_transformers_cannot_load(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "config.json").write_text('{"model_type": "no such"}')
    with pytest.raises(CheckpointError, match="transformers cannot load it, so there is nothing to compare with"):
        verify(opened(folder), [FLOAT32], reference_folder=other)


def test_a_model_of_another_depth(folder, tmp_path, make_checkpoint):
    other = make_checkpoint(tmp_path / "other", num_hidden_layers=2)
    with pytest.raises(CheckpointError, match="they do not load the same model"):
        verify(opened(folder), [FLOAT32], reference_folder=other)


def test_texts_of_the_user_and_limits(folder):
    model = opened(folder)
    texts = Texts(source="mine.txt", texts=("word " * 100, "a", "\ud800 lone"))
    found = verify(model, [FLOAT32], texts=texts, max_length=20)
    assert found.passed
    assert found.texts.source == "mine.txt"
    assert found.texts.lengths[:2] == (20, 3)
    assert (found.texts.max_length, found.max_length) == (20, 64)
    with pytest.raises(OptionError, match="max_length 65 is out of range"):
        verify(model, [FLOAT32], texts=texts, max_length=65)
    with pytest.raises(OptionError, match="contains no text"):
        verify(model, [FLOAT32], texts=Texts(source="mine.txt", texts=()))


def test_groups_hold_every_text_once(folder):
    encoded = opened(folder).tokenizer.encode(["a " * n for n in (3, 50, 1, 1, 9, 80, 0)])
    for limit in (1, 12, 60, 1000):
        found = list(groups(encoded, limit))
        assert [text for group in found for text in group] == encoded
        assert all(len(group) == 1 or sum(map(len, group)) <= limit for group in found)


def test_several_groups_find_what_one_finds(folder, certificate, monkeypatch):
    monkeypatch.setattr("layertap.verify.comparison.TOKENS_AT_ONCE", 100)
    found = verify(opened(folder), [FLOAT32])
    assert found.passed
    own = [output.transformers for output in found.results[0].outputs]
    assert own == [output.transformers for output in certificate.results[0].outputs], (
        "transformers runs each text alone"
    )


def test_built_in_texts(folder):
    tokenizer = opened(folder).tokenizer
    for limit in (5, 64, 700):
        texts = built_in_texts(lambda text: len(tokenizer.encode([text])[0]), limit)
        assert texts[0] == ""
        assert len(tokenizer.encode([texts[-1]])[0]) > limit
        assert len(set(texts)) == len(texts) > 30


def test_setups():
    assert {FLOAT32, BFLOAT16} <= set(available_setups())
    assert available_setups(["cpu"], ["bfloat16"], ["torch"]) == [BFLOAT16]
    assert available_setups(["cpu", "cpu"], ["float32"], ["torch"]) == [FLOAT32]
    with pytest.raises(OptionError, match="--precision int8: no backend and device that is compared here has it"):
        available_setups(precisions=["float32", "int8"], backends=["torch"])
    with pytest.raises(OptionError, match=r"--device tpu: this machine has cpu"):
        available_setups(["tpu"])


def result_of(precision, found, own, **others):
    setup = Setup(backend="torch", device="cpu", precision=precision)
    same = Figures(error_over_rms=0.0, cosine=1.0)
    output = Output(name="hidden_states[0]", layertap=found, transformers=own)
    values = {"alone": same, "shuffled": same, "base_bound": 2e-5} | others
    return SetupResult(setup=setup, instruction_set="", outputs=(output,), **values)


def test_bounds():
    def passes(precision, error, cosine=1.0, own=1e-6, **others):
        found = Figures(error_over_rms=error, cosine=cosine)
        return result_of(precision, found, Figures(error_over_rms=own, cosine=1.0), **others).passed

    assert passes("float32", 2e-5)
    assert not passes("float32", 2.1e-5)
    assert passes("float32", 2.9e-5, own=2e-5), "1.5 times transformers' own"
    assert not passes("float32", 3.1e-5, own=2e-5)
    assert not passes("float32", 1.0, own=math.inf)
    assert passes("bfloat16", 0.5, cosine=0.999)
    assert not passes("bfloat16", 1e-6, cosine=0.9989)
    assert not passes("bfloat16", math.inf, cosine=1.0)
    apart = Figures(error_over_rms=1e-3, cosine=0.99)
    for precision in ("float32", "float16"):
        assert not passes(precision, 1e-6, alone=apart)
        assert not passes(precision, 1e-6, shuffled=apart)


def test_what_is_not_finite_is_null_in_json():
    found = Figures(error_over_rms=math.inf, cosine=-1.0)
    result = result_of("float32", found, found)
    assert not result.passed
    assert json.loads(json.dumps(result.as_json(), allow_nan=False))["outputs"][0]["error_over_rms"] is None


@pytest.mark.parametrize("version", ["4.57.1", "5.2.0", "unknown"])
def test_an_old_transformers_is_refused(version, monkeypatch):
    monkeypatch.setattr("layertap.verify.reference.metadata.version", lambda _: version)
    with pytest.raises(BackendError, match=r"too old .* 5\.23 or later is needed: pip install 'layertap\[verify\]'"):
        require_transformers()


def test_minilm(minilm_folder):
    texts = Texts(texts=("A good film.", "", "\U0001f600 emoji, \u4f60\u597d", "word " * 300))
    found = verify(opened(minilm_folder), [FLOAT32, BFLOAT16], texts=texts, max_length=128)
    assert found.texts.different_ids == ()
    assert [result.failures for result in found.results] == [(), ()]
    assert found.passed
