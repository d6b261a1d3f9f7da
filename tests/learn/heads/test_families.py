"""The heads of every family against transformers' own classes, with random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")
pytest.importorskip("seqeval", reason="seqeval is not installed (extra: learn)")

import torch
import torch.nn.functional as F
import transformers
from safetensors.numpy import load_file

from layertap.checkpoints.load import open_model
from layertap.checkpoints.source import locate
from layertap.errors import ConfigError, OptionError, UnsupportedModelError
from layertap.learn import Classifier, LabelledTexts, TrainingOptions, finetune
from layertap.learn.finetuning import run as run_module
from layertap.learn.finetuning import trainer as trainer_module
from layertap.learn.heads.families import FAMILIES as HEADS
from tests.learn.conftest import FAMILIES
from tests.selection import slow_except, stress_except

USUAL = ("BERT", "DeBERTa v3", "ModernBERT mean")
SLOW = ("RoBERTa", "DistilBERT", "ELECTRA", "ALBERT groups", "MPNet", "XLM-R-XL")
TEXTS = ["a good film", "hello", "the dull story of a great actor, who said hello to the world", "", "bank of money"]
WORDS = [text.split() for text in TEXTS]
SEQUENCE, TOKEN = "ForSequenceClassification", "ForTokenClassification"
NO_DROPOUT = {
    "DistilBert": {"dropout": 0.0, "attention_dropout": 0.0, "seq_classif_dropout": 0.0},
    "Albert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout_prob": 0.0},
    "ModernBert": {},
}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture(autouse=True)
def _quiet():
    transformers.logging.disable_progress_bar()


def reference(folder, kind="SequenceClassification"):
    model = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(folder)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def token_logits(folder, words):
    """The logits of the first token of each word, one text at a time."""
    model, tokenizer = reference(folder, "TokenClassification")
    found = []
    for own in words:
        batch = tokenizer(own, is_split_into_words=True, return_tensors="pt")
        numbers = batch.word_ids(0)
        first = [numbers.index(i) for i in range(len(own))]
        with torch.no_grad():
            inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
            found.append(model(**inputs).logits[0, first].numpy())
    return found


def sequence_logits(folder, texts):
    model, tokenizer = reference(folder)
    with torch.no_grad():
        return np.stack([model(**inputs_of(tokenizer, text)).logits[0].numpy() for text in texts])


def inputs_of(tokenizer, text):
    batch = tokenizer(text, return_tensors="pt")
    return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}


def test_every_family_with_heads_is_here():
    types = {getattr(transformers, f"{prefix}Config").model_type for prefix, _ in FAMILIES.values()}
    assert types == HEADS.keys()


@pytest.mark.parametrize("family", slow_except(FAMILIES, *USUAL, "DistilBERT", "ELECTRA", "MPNet"))
def test_logits_of_texts(family_model, tmp_path, family):
    folder = family_model(tmp_path / "m", family, SEQUENCE, num_labels=3)
    expected = sequence_logits(folder, TEXTS)
    assert expected.std(axis=0).max() > 0.05
    found = Classifier.from_pretrained(folder)
    np.testing.assert_allclose(found.logits(TEXTS), expected, atol=1e-5)
    assert found.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    scores = found.predict(TEXTS).scores
    np.testing.assert_allclose(scores, F.softmax(torch.tensor(expected), -1).numpy(), atol=1e-5)


@pytest.mark.parametrize("family", slow_except(FAMILIES, *USUAL, "DistilBERT", "ELECTRA", "MPNet"))
def test_logits_of_words(family_model, tmp_path, family):
    folder = family_model(tmp_path / "m", family, TOKEN, num_labels=4)
    expected = token_logits(folder, WORDS)
    found = Classifier.from_pretrained(folder)
    for given in (WORDS, TEXTS):  # words of a text by white space are the same here but for the comma
        for own, other in zip(found.logits(given), expected, strict=True):
            assert own.shape == other.shape
            np.testing.assert_allclose(own, other, atol=1e-5)
    tagged = found.predict(WORDS)
    assert [list(it.tags) for it in tagged] == [[f"LABEL_{i}" for i in own.argmax(1)] for own in expected]


def data(number, seed=0, *, words=False):
    random = np.random.default_rng(seed)
    texts = [random.choice(["film", "story", "bank", "river", "actor"], random.integers(1, 12)) for _ in range(number)]
    if words:
        tags = [["B-x" if word in ("bank", "river") else "O" for word in text] for text in texts]
        return LabelledTexts(texts=[text.tolist() for text in texts], labels=tags)
    labels = ["b" if text[0] in ("bank", "river") else "a" for text in texts]
    return LabelledTexts(texts=[" ".join(text) for text in texts], labels=labels)


@pytest.mark.parametrize("family", stress_except(FAMILIES, usual=USUAL, slow=SLOW))
@pytest.mark.parametrize("words", [False, True])
def test_what_is_trained_has_the_same_logits_in_transformers(family_model, tmp_path, family, words):
    start = family_model(tmp_path / "start", family, "Model")
    options = TrainingOptions(epochs=1, batch_size=4, learning_rate=1e-3)
    found = finetune(data(12, words=words), tmp_path / "out", model=start, options=options)
    expected = token_logits(found.folder, WORDS) if words else sequence_logits(found.folder, TEXTS)
    own = Classifier.from_pretrained(found.folder).logits(WORDS if words else TEXTS)
    for one, other in zip(own, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    config = json.loads((found.folder / "config.json").read_text())
    assert config["architectures"] == [FAMILIES[family][0] + (TOKEN if words else SEQUENCE)]
    assert config["id2label"] == ({"0": "B-x", "1": "O"} if words else {"0": "a", "1": "b"})
    model, _ = reference(found.folder, "TokenClassification" if words else "SequenceClassification")
    assert load_file(found.folder / "model.safetensors").keys() == model.state_dict().keys()


@pytest.mark.parametrize("family", stress_except(FAMILIES, usual=USUAL, slow=SLOW))
@pytest.mark.parametrize("words", [False, True])
def test_gradients_of_a_step_are_those_of_transformers(family_model, tmp_path, monkeypatch, family, words):
    prefix = FAMILIES[family][0]
    still = NO_DROPOUT.get(prefix, STILL)
    names = {"id2label": {0: "B-x", 1: "O"} if words else {0: "a", 1: "b"}}
    start = family_model(tmp_path / "start", family, TOKEN if words else SEQUENCE, **still, **names)
    seen: list = []
    monkeypatch.setattr(trainer_module.Trainer, "__post_init__", catching(trainer_module.Trainer.__post_init__, seen))
    gradients: dict = {}

    def clip(parameters, norm):
        model = seen[0].model
        own = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        with torch.no_grad():  # the gradients under the names of the weights
            for weight in model.parameters():
                weight.copy_(torch.zeros_like(weight) if weight.grad is None else weight.grad)
            gradients.update({name: value.clone() for name, value in model.stored().items()})
            for name, weight in model.named_parameters():
                weight.copy_(own[name])

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    labelled = data(6, words=words)
    found = finetune(
        labelled, tmp_path / "out", model=start, options=TrainingOptions(epochs=1, batch_size=6, batch_tokens=20)
    )
    assert any("continued with the head" in note for note in found.notes)
    model, tokenizer = reference(start, "TokenClassification" if words else "SequenceClassification")
    reference_loss(model, tokenizer, labelled, found.labels, words=words).backward()
    compared = 0
    for name, weight in model.named_parameters():
        if weight.grad is None:
            assert not gradients[name].any(), name
            continue
        scale = weight.grad.square().mean().sqrt().clamp(min=1e-3)
        assert (gradients[name] - weight.grad).abs().max() <= 1e-4 * scale, name
        compared += bool(weight.grad.abs().max() > 1e-4)
    assert compared > 10


def catching(inner, seen):
    def post_init(self):
        seen.append(self)
        inner(self)

    return post_init


def reference_loss(model, tokenizer, labelled, names, *, words):
    """The mean over texts, or over words, their first tokens standing for them."""
    logits, classes = [], []
    for text, label in zip(labelled.texts, labelled.labels, strict=True):
        batch = tokenizer(text, is_split_into_words=words, return_tensors="pt")
        out = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0]
        if words:
            numbers = batch.word_ids(0)
            out = out[[numbers.index(i) for i in range(len(text))]]
        logits.append(out.reshape(-1, len(names)))
        classes += [names.index(one) for one in (label if words else [label])]
    return F.cross_entropy(torch.cat(logits), torch.tensor(classes))


def test_layers_below_the_last_that_a_masked_language_model_stores_are_gone_on_with(family_model, tmp_path):
    start = family_model(tmp_path / "start", "ModernBERT", "ForMaskedLM")
    options = TrainingOptions(epochs=1, batch_size=12, warmup=1.0)  # one step, at learning rate 0
    found = finetune(data(12, words=True), tmp_path / "out", model=start, options=options)
    assert any("the head that the checkpoint stores: head.dense.weight, head.norm.weight" in it for it in found.notes)
    before, after = (load_file(folder / "model.safetensors") for folder in (start, found.folder))
    for name in ("head.dense.weight", "head.norm.weight", "model.layers.1.attn.Wqkv.weight"):
        np.testing.assert_array_equal(before[name], after[name])
    assert 0.5 < after["classifier.weight"].std() * 32**0.5 < 1.5
    assert not after["classifier.bias"].any()


@pytest.mark.parametrize(
    ("family", "end", "names"),
    [("BERT", TOKEN, {"classifier.weight"}), ("RoBERTa", TOKEN, {"classifier.dense.weight"})],
)
def test_a_head_of_another_kind_is_not_gone_on_with(family_model, tmp_path, family, end, names):
    start = family_model(tmp_path / "start", family, end, id2label={0: "a", 1: "b"})
    found = finetune(data(8), tmp_path / "out", model=start, options=TrainingOptions(epochs=1, warmup=1.0))
    assert "the checkpoint stores a head of another kind; a new one replaced it" in found.notes
    assert names <= load_file(found.folder / "model.safetensors").keys()


def test_a_head_with_other_rows_than_its_labels_is_not_gone_on_with(family_model, tmp_path):
    start = family_model(tmp_path / "start", "BERT", SEQUENCE, num_labels=3)
    config = json.loads((start / "config.json").read_text())
    (start / "config.json").write_text(json.dumps(config | {"id2label": {"0": "a", "1": "b"}}))
    found = finetune(data(8), tmp_path / "out", model=start, options=TrainingOptions(epochs=1))
    assert "the checkpoint stores a head with other labels; a new one replaced it" in found.notes


def test_layers_that_share_weights(family_model, tmp_path, monkeypatch):
    start = family_model(tmp_path / "start", "ALBERT groups", "Model")  # blocks 0 0 1 1

    def run(name, **options):
        given = TrainingOptions(epochs=1, batch_size=4, learning_rate=1e-2, warmup=0.0, **options)
        return finetune(data(8), tmp_path / name, model=start, options=given)

    for below in (2, 4):
        with pytest.raises(
            OptionError,
            match=f"freeze_below {below}: layers of this model share their weights; expected one of 0, 1, 3, 5",
        ):
            run("no", freeze_below=below)
    found = run("out", freeze_below=3)
    before, after = (load_file(folder / "model.safetensors") for folder in (start, found.folder))
    groups = [f"encoder.albert_layer_groups.{i}.albert_layers.0.ffn.weight" for i in (0, 1)]
    moved = [not np.array_equal(before[name], after[f"albert.{name}"]) for name in groups]
    assert moved == [False, True]


def opened(folder):
    return open_model(locate(folder))


def test_heads_that_cannot_be_are_refused(family_model, tmp_path):
    folder = family_model(tmp_path / "m", "ModernBERT", SEQUENCE)
    config = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({"classifier_pooling": "max"}, "classifier_pooling: expected one of cls, mean"),
        ({"classifier_activation": "gelu_new"}, "classifier_activation: expected one of gelu"),
        ({"classifier_dropout": 2}, "classifier_dropout: expected a number from"),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ConfigError, match=message):
            Classifier.from_pretrained(folder)
    folder = family_model(tmp_path / "d", "DeBERTa v3", SEQUENCE)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pooler_hidden_size": 8}))
    with pytest.raises(UnsupportedModelError, match="pooler_hidden_size is 8"):
        Classifier.from_pretrained(folder)


def test_families_without_heads_are_refused(monkeypatch, family_model, tmp_path):
    folder = family_model(tmp_path / "m", "ELECTRA", TOKEN)
    monkeypatch.delitem(HEADS, "electra")
    with pytest.raises(UnsupportedModelError, match="this model is of the family electra"):
        Classifier.from_pretrained(folder)
    monkeypatch.setattr(run_module, "open_reference", lambda _: type("", (), {"files": opened(folder)}))
    with pytest.raises(UnsupportedModelError, match="classification heads are implemented for albert, bert, "):
        finetune(data(6), tmp_path / "out")


@pytest.mark.parametrize(
    "family", slow_except(["ModernBERT mean", "DeBERTa v2", "ALBERT", "MPNet", "XLM-R-XL"], "ModernBERT mean")
)
@pytest.mark.parametrize("words", [False, True])
def test_bfloat16(family_model, tmp_path, family, words):
    start = family_model(tmp_path / "start", family, "Model")
    options = TrainingOptions(epochs=1, batch_size=6, learning_rate=1e-3, precision="bfloat16")
    found = finetune(data(12, words=words), tmp_path / "out", dev=data(5, 1, words=words), model=start, options=options)
    assert found.kept is not None
    assert 0 < found.kept.loss < 5
    stored = load_file(found.folder / "model.safetensors")
    assert {array.dtype for array in stored.values()} == {np.dtype(np.float32)}
