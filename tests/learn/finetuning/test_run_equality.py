"""Fine-tuning against transformers and torch: logits, gradients, three steps, the folder; and a run against itself."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra: torch)")
pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")

import torch
import torch.nn.functional as F
import transformers

from layertap.learn import Classifier, LabelledTexts, TrainingOptions, finetune
from layertap.learn.finetuning import trainer as trainer_module
from layertap.learn.finetuning.batches import order
from tests.selection import slow_except

CLASS = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "xlm-roberta": "XLMRobertaForSequenceClassification",
    "camembert": "CamembertForSequenceClassification",
}
WORDS = ("the", "film", "movie", "story", "good", "bad", "great", "funny", "dull", "bank", "river", "money", "hello")
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
LABELS = ("bad", "good", "so so")


def labelled(number: int, seed: int = 0, *, pairs: bool = False) -> LabelledTexts:
    random = np.random.default_rng(seed)

    def texts() -> list[str]:
        return [" ".join(random.choice(WORDS, random.integers(1, 14))) for _ in range(number)]

    labels = [LABELS[i] for i in random.integers(0, 3, number)]
    labels[:6] = LABELS * 2
    return LabelledTexts(texts=texts(), labels=labels, pairs=texts() if pairs else None)


@pytest.fixture(autouse=True)
def _quiet():
    transformers.logging.disable_progress_bar()


@pytest.fixture
def classifier(tmp_path, make_checkpoint):
    """A folder of transformers with a random encoder and head: `classifier("roberta", hidden_dropout_prob=0.0)`."""

    def make(model_type="bert", **config):
        folder = make_checkpoint(tmp_path / f"start-{model_type}", model_type, config=config)
        torch.manual_seed(5)
        names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
        model = getattr(transformers, CLASS[model_type]).from_pretrained(folder, **names)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.startswith("classifier"):
                    weight.normal_(0, 0.5 if weight.ndim > 1 else 0.01)
        model.save_pretrained(folder)
        return folder

    return make


def reference(folder):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    return model, transformers.AutoTokenizer.from_pretrained(folder)


def padded(tokenizer, data, rows=None):
    rows = range(len(data.texts)) if rows is None else rows
    pairs = None if data.pairs is None else [data.pairs[row] for row in rows]
    texts = [data.texts[row] for row in rows]
    batch = tokenizer(texts, pairs, padding=True, truncation=True, return_tensors="pt")
    return batch, torch.tensor([LABELS.index(data.labels[row]) for row in rows])


@pytest.mark.parametrize("model_type", slow_except(CLASS, "bert", "roberta"))
def test_a_classifier_of_transformers_gives_the_same_logits(classifier, model_type):
    folder, data = classifier(model_type), labelled(20)
    model, tokenizer = reference(folder)
    with torch.no_grad():
        expected = model(**padded(tokenizer, data)[0]).logits.numpy()
    found = Classifier.from_pretrained(folder, batch_tokens=50)
    np.testing.assert_allclose(found.logits(data.texts), expected, atol=1e-5)
    predictions = found.predict(data.texts)
    assert found.labels == LABELS
    assert predictions.labels == [LABELS[i] for i in expected.argmax(1)]
    np.testing.assert_allclose(predictions.scores, F.softmax(torch.tensor(expected), -1).numpy(), atol=1e-5)
    assert len(predictions) == 20
    assert expected.std(axis=0).min() > 0.05  # texts differ


def test_pairs_have_the_same_logits(classifier):
    folder, data = classifier("bert"), labelled(12, pairs=True)
    model, tokenizer = reference(folder)
    with torch.no_grad():
        expected = model(**padded(tokenizer, data)[0]).logits.numpy()
    found = Classifier.from_pretrained(folder).logits(list(zip(data.texts, data.pairs, strict=True)))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "pairs"),
    [
        ("bert", True),
        ("roberta", False),
        pytest.param("bert", False, marks=pytest.mark.slow),
        pytest.param("roberta", True, marks=pytest.mark.slow),
    ],
)
def test_gradients_of_one_step_are_those_of_padded_batches(classifier, tmp_path, monkeypatch, model_type, pairs):
    folder, data = classifier(model_type, **NO_DROPOUT), labelled(10, pairs=pairs)
    gradients: dict[str, torch.Tensor] = {}
    inner = torch.nn.utils.clip_grad_norm_

    def clip(parameters, norm):
        gradients.update({name: weight.grad.clone() for name, weight in seen[0].named_parameters()})
        return inner(parameters, norm)

    seen = catch_model(monkeypatch)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", clip)
    options = TrainingOptions(epochs=1, batch_size=10, batch_tokens=40)
    finetune(data, tmp_path / "out", model=folder, options=options)
    model, tokenizer = reference(folder)
    batch, classes = padded(tokenizer, data)
    F.cross_entropy(model(**batch).logits, classes).backward()
    compared = 0
    for name, weight in model.named_parameters():
        own = name if name.startswith("classifier") else "encoder." + name.partition(".")[2]
        found = gradients[f"head.{own}" if name.startswith("classifier") else own]
        # Rows of tokens that do not occur have no gradient, and would make the scale of a table too small.
        scale = weight.grad[weight.grad != 0].square().mean().sqrt()
        if name.endswith("key.bias"):
            scale = torch.tensor(0.01)  # softmax takes no notice of it: what is there is rounding
        assert scale > 0, name
        assert (found - weight.grad).abs().max() <= 2e-5 * scale, name
        compared += 1
    assert compared == len(gradients)


def catch_model(monkeypatch) -> list:
    """The models that trainers get from here on."""
    seen: list = []
    inner = trainer_module.Trainer.__post_init__

    def post_init(self):
        seen.append(self.model)
        inner(self)

    monkeypatch.setattr(trainer_module.Trainer, "__post_init__", post_init)
    return seen


def plain_recipe(folder, data, options: TrainingOptions):
    """The same recipe in plain transformers and torch, on padded batches."""
    model, tokenizer = reference(folder)
    model.train()
    layers = model.config.num_hidden_layers

    def depth(name: str) -> int:
        if ".encoder.layer." in name:
            return int(name.split(".layer.")[1].split(".")[0]) + 1
        return 0 if ".embeddings." in name else layers + 1

    groups = []
    for name, weight in model.named_parameters():
        if depth(name) < options.freeze_below:
            weight.requires_grad_(False)
            continue
        decays = not name.endswith(".bias") and "LayerNorm" not in name
        groups.append(
            {
                "params": [weight],
                "lr": options.learning_rate * options.layer_decay ** (layers + 1 - depth(name)),
                "weight_decay": options.weight_decay if decays else 0.0,
            }
        )
    optimizer = torch.optim.AdamW(groups)
    total = options.epochs * -(-len(data.texts) // options.batch_size)
    rising = int(np.ceil(options.warmup * total))
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, rising, total)
    for epoch in range(options.epochs):
        rows = order(len(data.texts), seed=options.seed, epoch=epoch)
        for begin in range(0, len(rows), options.batch_size):
            batch, classes = padded(tokenizer, data, rows[begin : begin + options.batch_size])
            F.cross_entropy(model(**batch).logits, classes).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), options.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    return model.eval()


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("bert", TrainingOptions(epochs=1, batch_size=8, learning_rate=1e-3, warmup=0.5)),
        ("roberta", TrainingOptions(epochs=1, batch_size=8, learning_rate=1e-3, warmup=0.0)),
        (
            "bert",
            TrainingOptions(
                epochs=3,
                batch_size=20,
                batch_tokens=30,
                learning_rate=1e-3,
                layer_decay=0.7,
                freeze_below=2,
                warmup=0.0,
            ),
        ),
    ],
)
def test_a_run_ends_at_the_weights_of_the_same_recipe_in_transformers(classifier, tmp_path, model_type, options):
    folder, data = classifier(model_type, **NO_DROPOUT), labelled(20)
    found = finetune(data, tmp_path / "out", model=folder, options=options)
    assert found.steps == 3
    expected = plain_recipe(folder, data, options)
    start = reference(folder)[0].state_dict()
    trained = reference(tmp_path / "out")[0]
    moved = 0
    for name, weight in trained.state_dict().items():
        change = (expected.state_dict()[name] - start[name]).abs().max()
        moved += bool(change > 1e-4)
        # Adam's first steps have the size of the learning rate whatever the gradient's: where that is all but
        # zero (keys' biases), its sign is noise.
        if not name.endswith("key.bias"):
            error, distance = weight - expected.state_dict()[name], expected.state_dict()[name] - start[name]
            assert error.norm() <= 1e-3 * distance.norm() + 1e-7, name
    assert moved > 10
    batch, _ = padded(reference(folder)[1], data)
    with torch.no_grad():
        difference = (trained.eval()(**batch).logits - expected(**batch).logits).abs().max()
    assert difference < 5e-5


@pytest.mark.parametrize("model_type", slow_except(CLASS, "bert", "roberta"))
def test_the_folder_loads_in_transformers_with_the_same_logits(tmp_path, make_checkpoint, model_type):
    start = make_checkpoint(tmp_path / "start", model_type, pooler="trained" if model_type == "bert" else "absent")
    data = labelled(16)
    found = finetune(data, tmp_path / "out", dev=labelled(9, 1), model=start, options=TrainingOptions(epochs=1))
    model, tokenizer = reference(found.folder)
    assert type(model).__name__ == CLASS[model_type]
    assert model.config.id2label == dict(enumerate(LABELS))
    assert model.config.label2id == {label: i for i, label in enumerate(LABELS)}
    with torch.no_grad():
        expected = model(**padded(tokenizer, data)[0]).logits.numpy()
    np.testing.assert_allclose(Classifier.from_pretrained(found.folder).logits(data.texts), expected, atol=1e-5)


def test_a_head_of_the_same_labels_is_gone_on_with_and_another_is_not(classifier, tmp_path):
    folder, data = classifier("bert"), labelled(8)
    options = TrainingOptions(epochs=1, warmup=1.0)  # one step at learning rate 0
    same = finetune(data, tmp_path / "same", model=folder, options=options)
    np.testing.assert_array_equal(*(Classifier.from_pretrained(f).logits(data.texts) for f in (folder, same.folder)))
    assert any("continued with the head" in note for note in same.notes)
    renamed = LabelledTexts(texts=data.texts, labels=[label.upper() for label in data.labels])
    other = finetune(renamed, tmp_path / "other", model=folder, options=options)
    assert any("a head with other labels" in note for note in other.notes)
    assert Classifier.from_pretrained(other.folder).labels == ("BAD", "GOOD", "SO SO")


class Killed(BaseException):
    """What stands for a kill."""


@pytest.mark.parametrize(
    ("eval_steps", "kills"),
    [
        pytest.param(None, (1, 5, 11), marks=pytest.mark.slow),
        (2, (3, 9)),
        pytest.param(5, (7, 11), marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch, make_checkpoint, eval_steps, kills):
    start = make_checkpoint(tmp_path / "start")  # with dropout
    data, dev = labelled(23), labelled(11, 1)
    options = TrainingOptions(epochs=3, batch_size=6, learning_rate=3e-3, eval_steps=eval_steps)

    def run(output, **more):
        return finetune(data, output, dev=dev, model=start, options=options, **more)

    run(tmp_path / "whole")
    inner = trainer_module.Trainer._take_step
    waiting = list(kills)
    taken = []

    def step(self, rows):
        if waiting and self.step == waiting[0]:
            waiting.pop(0)
            raise Killed
        taken.append(self.step)
        inner(self, rows)

    monkeypatch.setattr(trainer_module.Trainer, "_take_step", step)
    for _ in kills:
        torch.rand(3)  # what else draws numbers in the process does not matter
        with pytest.raises(Killed):
            run(tmp_path / "killed", resume=True)
        assert not (tmp_path / "killed").exists()
    run(tmp_path / "killed", resume=True)
    assert len(taken) < 12 + sum(kills)  # it did not begin again each time
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "killed").iterdir())
    assert {"model.safetensors", "curve.csv", "training.json", "config.json", "tokenizer.json"} <= set(names)
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name
    assert not list(tmp_path.glob("*.training"))


def test_dropout_is_at_work_and_the_seed_decides(tmp_path, make_checkpoint):
    start = make_checkpoint(tmp_path / "start")

    def weights(name: str, **options):
        finetune(labelled(12), tmp_path / name, model=start, options=TrainingOptions(epochs=1, batch_size=4, **options))
        return (tmp_path / name / "model.safetensors").read_bytes()

    one = weights("one")
    torch.manual_seed(77)
    before = torch.get_rng_state()
    assert weights("two") == one
    assert torch.equal(torch.get_rng_state(), before)  # the caller's random numbers are left alone
    assert weights("three", seed=1) != one
    config = json.loads((start / "config.json").read_text())
    shutil.copytree(start, tmp_path / "dry")
    (tmp_path / "dry/config.json").write_text(json.dumps(config | NO_DROPOUT))
    start = tmp_path / "dry"
    assert weights("four") != one


def test_bfloat16_learns_about_the_same(classifier, tmp_path):
    folder, data = classifier("bert", **NO_DROPOUT), labelled(24)
    losses = {}
    for precision in ("float32", "bfloat16"):
        options = TrainingOptions(epochs=2, batch_size=8, learning_rate=1e-3, precision=precision)
        finetune(data, tmp_path / precision, model=folder, options=options)
        rows = (tmp_path / precision / "curve.csv").read_text().splitlines()[1:]
        losses[precision] = np.array([float(row.split(",")[3]) for row in rows])
    assert not np.array_equal(losses["float32"], losses["bfloat16"])
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], atol=0.02)
    assert Classifier.from_pretrained(tmp_path / "bfloat16").extractor.files.stored_dtypes.keys() == {"F32"}
