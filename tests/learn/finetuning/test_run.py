"""Fine-tuning: what is refused before work starts, what learns, which checkpoint is kept, and the command."""

from __future__ import annotations

import json
from dataclasses import fields

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed (extra: torch)")

import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from layertap.cli import finetune as command
from layertap.cli.main import main
from layertap.errors import (
    BackendError,
    InputError,
    LayertapError,
    NonFiniteError,
    OptionError,
    OutputError,
    UsageError,
)
from layertap.files.staging import Staging
from layertap.learn import Classifier, LabelledTexts, TrainingOptions, finetune
from layertap.learn.finetuning import run as run_module
from layertap.learn.finetuning import scoring as scoring_module
from layertap.learn.finetuning import trainer as trainer_module
from layertap.learn.finetuning.batches import order, parts, steps_of
from layertap.learn.finetuning.options import METRICS
from layertap.learn.tags import SCHEMES
from tests.writing import write

DATA = LabelledTexts(
    texts=["good film", "great movie", "funny story", "bad film", "dull movie", "bad story"] * 3,
    labels=["pos", "pos", "pos", "neg", "neg", "neg"] * 3,
)
ONE = TrainingOptions(epochs=1, batch_size=6)


def with_labels(*labels, texts=None):
    return LabelledTexts(texts=texts or ["a"] * len(labels), labels=labels, source="x.csv")


@pytest.mark.parametrize(
    ("data", "dev", "message"),
    [
        (with_labels("a", None), None, "x.csv, text 1: column 'label' is empty"),
        (with_labels("a", ""), None, "text 1: column 'label' is empty"),
        (with_labels("a", float("nan")), None, "text 1: column 'label' is empty"),
        (with_labels(0.25, 0.5), None, "only one example of '0.25', '0.5'.*Measurements are not classes"),
        (with_labels(["a"], ["b"], texts=["", ""]), None, "column 'label' has 1 label, and the text has 0 words"),
        (
            with_labels([], [], texts=["", ""]),
            None,
            "x.csv: no text has a word",
        ),
        (with_labels("a", "a"), None, "every row has the label 'a'; at least two classes are needed"),
        (with_labels("a", "b", "a"), None, "only one example of 'b'"),
        (with_labels(), None, "x.csv: there are no rows"),
        (DATA, with_labels("neg", "other"), "x.csv: one label does not occur in data: 'other'"),
        (DATA, with_labels(), "x.csv: there are no rows"),
        (with_labels("a", "b", texts=["x"]), None, "1 texts and 2 labels"),
        (with_labels("a", "b", texts=["x", None]), None, r"x.csv: text 1 is missing \(None\); expected a str"),
    ],
)
def test_data_that_cannot_be_learned_from_is_refused_before_a_model_is_opened(tmp_path, data, dev, message):
    with pytest.raises(InputError, match=message):
        finetune(data, tmp_path / "out", dev=dev, model=tmp_path / "no-such-model")
    assert not list(tmp_path.iterdir())


def test_outputs_that_cannot_be_made_are_refused_first(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="there exists; name another folder"):
        finetune(with_labels(), tmp_path / "there")
    with pytest.raises(OutputError, match=r"there is no folder .*nowhere; make it first"):
        finetune(with_labels(), tmp_path / "nowhere/out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs 0: expected a whole number of at least 1"),
        ({"batch_size": 2.5}, "batch_size 2.5"),
        ({"learning_rate": 0}, "learning_rate 0: expected a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate nan"),
        ({"warmup": 1.5}, "warmup 1.5: expected a number of at least 0 up to 1"),
        ({"layer_decay": 0}, "layer_decay 0"),
        ({"max_grad_norm": -1}, "max_grad_norm -1"),
        ({"metric": "f1"}, "metric 'f1': expected one of accuracy, macro_f1, mcc, entity_f1"),
        ({"precision": "float16"}, "precision 'float16': expected float32 or bfloat16"),
        ({"seed": True}, "seed True"),
        ({"patience": 0}, "patience 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        TrainingOptions(**options)


def test_options_that_do_not_fit_the_run_are_refused(tmp_path, model, make_checkpoint):
    def run(options=ONE, **more):
        return finetune(DATA, tmp_path / "out", **{"model": model} | more, options=options)

    with pytest.raises(OptionError, match="patience needs dev data"):
        run(TrainingOptions(patience=1))
    with pytest.raises(OptionError, match="freeze_below 5: this model has blocks 1 to 3; 4 trains the head"):
        run(TrainingOptions(freeze_below=5))
    with pytest.raises(OptionError, match="max_length 65: this model takes 64 tokens"):
        run(TrainingOptions(max_length=65))
    with pytest.raises(OptionError, match="device 'tpu'"):
        run(device="tpu")
    assert not list(tmp_path.iterdir())


def weights_of(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("below", [0, 1, 3, 4])
def test_layers_below_the_frozen_one_stay_as_they_are(tmp_path, model, below):
    options = TrainingOptions(epochs=1, batch_size=6, learning_rate=1e-2, freeze_below=below, warmup=0.0)
    found = finetune(DATA, tmp_path / "out", model=model, options=options)
    before, after = weights_of(tmp_path / model), weights_of(found.folder)
    for name, weight in before.items():
        layer = int(name.split(".")[2]) + 1 if name.startswith("encoder.") else 4 * name.startswith("pooler")
        same = np.array_equal(weight, after[f"bert.{name}"])
        assert same == (layer < below) or name.endswith(("key.bias", "token_type_embeddings.weight")), name


def test_the_rate_of_a_layer_is_that_of_the_one_above_times_the_decay(tmp_path, monkeypatch, model):
    rates: dict[str, float] = {}
    inner = trainer_module.Trainer._take_step

    def step(self, rows):
        inner(self, rows)
        names = {id(weight): name for name, weight in self.model.named_parameters()}
        for group in self.optimizer.param_groups:
            for weight in group["params"]:
                assert group["weight_decay"] == (0.5 if weight.ndim > 1 else 0.0)
                rates[names[id(weight)]] = group["lr"]

    monkeypatch.setattr(trainer_module.Trainer, "_take_step", step)
    options = TrainingOptions(epochs=1, batch_size=18, learning_rate=0.1, layer_decay=0.5, warmup=0.0, weight_decay=0.5)
    finetune(DATA, tmp_path / "out", model=model, options=options)
    assert rates["head.classifier.weight"] == rates["encoder.pooler.dense.bias"] == 0.1
    assert rates["encoder.encoder.layer.2.output.dense.weight"] == 0.05
    assert rates["encoder.encoder.layer.0.output.dense.weight"] == 0.0125
    assert rates["encoder.embeddings.word_embeddings.weight"] == 0.00625


@pytest.fixture
def scripted(monkeypatch):
    """Scores that looks at the dev part give, one after the other, whatever the model says."""
    coming: list[float] = []

    def scores_of(*_):
        value = coming.pop(0)
        return {"accuracy": value, "macro_f1": 1 - value, "mcc": 0.0}

    monkeypatch.setattr(scoring_module, "head_scores", scores_of)
    return coming


def test_the_best_checkpoint_is_kept_and_patience_ends_the_run(tmp_path, monkeypatch, model, scripted):
    at_best: dict = {}
    inner = trainer_module.Trainer._evaluate_dev

    def look(self):
        inner(self)
        if len(self.evaluations) == 2:
            at_best.update({name: weight.clone().numpy() for name, weight in self.model.stored().items()})

    monkeypatch.setattr(trainer_module.Trainer, "_evaluate_dev", look)
    scripted += [0.5, 0.7, 0.7, 0.6]
    options = TrainingOptions(epochs=9, batch_size=6, learning_rate=1e-3, patience=2)
    found = finetune(DATA, tmp_path / "out", dev=DATA, model=model, options=options)
    assert [seen.scores["accuracy"] for seen in found.evaluations] == [0.5, 0.7, 0.7, 0.6]
    assert found.kept is not None
    assert (found.kept.step, found.kept.epoch, found.steps) == (6, 2.0, 12)
    assert any("stopped after 12 of 27 steps: no better accuracy in 2 evaluations" in note for note in found.notes)
    written = weights_of(found.folder)
    assert written.keys() == at_best.keys()
    assert all(np.array_equal(written[name], weight) for name, weight in at_best.items())
    assert not list(tmp_path.glob("*.training"))


def test_the_metric_decides_and_steps_say_when_to_look(tmp_path, model, scripted):
    scripted += [0.5, 0.3, 0.9]
    options = TrainingOptions(epochs=1, batch_size=4, eval_steps=2, metric="macro_f1")
    found = finetune(DATA, tmp_path / "out", dev=DATA, model=model, options=options)
    assert [seen.step for seen in found.evaluations] == [2, 4, 5]  # and at the end
    assert found.kept is found.evaluations[1]


def test_a_model_learns_what_there_is_to_learn(tmp_path, model):
    options = TrainingOptions(epochs=12, batch_size=6, learning_rate=2e-3)
    found = finetune(DATA, tmp_path / "out", dev=DATA, model=model, options=options)
    assert found.kept is not None
    assert found.kept.scores["accuracy"] == 1.0
    assert found.labels == ("neg", "pos")
    predictions = Classifier.from_pretrained(found.folder).predict(["good story", "dull film"])
    assert predictions.labels == ["pos", "neg"]
    lines = (found.folder / "curve.csv").read_text().splitlines()
    assert lines[0] == "step,epoch,learning_rate,train_loss,dev_loss,accuracy,macro_f1,mcc"
    assert len(lines) == 1 + 36
    assert lines[1].endswith(",,,,")
    assert lines[-1].split(",")[5] == "1.0"
    made = json.loads((found.folder / "training.json").read_text())
    assert made["labels"] == ["neg", "pos"]
    assert made["epochs"] == 12
    assert made["kept"]["step"] == found.kept.step
    assert str(tmp_path) not in json.dumps(made)


def test_the_picture_needs_matplotlib_and_the_table_does_not(tmp_path, monkeypatch, model):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed (extra: learn)")
    found = finetune(DATA, tmp_path / "with", dev=DATA, model=model, options=ONE)
    assert (found.folder / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert found.notes == ("18 texts of data also occur in data, so that its scores are a little too good",)
    monkeypatch.setattr(run_module, "can_draw", lambda: False)
    found = finetune(DATA, tmp_path / "without", model=model, options=ONE)
    assert not (found.folder / "curve.png").exists()
    assert (found.folder / "curve.csv").exists()
    assert any("matplotlib" in note for note in found.notes)
    assert found.kept is None


def test_what_a_person_should_know_is_noted(tmp_path, make_checkpoint):
    data = LabelledTexts(texts=["good " * 90, "bad", "dull"] * 2, labels=[np.int64(2), 0, 10] * 2)
    start = make_checkpoint(tmp_path / "start", pooler="untrained")
    found = finetune(data, tmp_path / "out", model=start, options=TrainingOptions(epochs=1, max_length=16))
    assert found.labels == ("0", "2", "10")
    assert [note for note in found.notes if "2 texts of the training data were longer than the limit" in note]
    assert [note for note in found.notes if "stores a pooler that was never trained; it was trained" in note]
    # the limit of training is that of the result, here and in transformers
    assert json.loads((found.folder / "tokenizer_config.json").read_text())["model_max_length"] == 16
    assert Classifier.from_pretrained(found.folder).extractor.facts.max_length == 16
    absent = make_checkpoint(tmp_path / "absent", pooler="absent")
    found = finetune(DATA, tmp_path / "out2", model=absent, options=ONE)
    assert [note for note in found.notes if "stores no pooler; a new one was trained" in note]


def test_a_loss_that_is_no_number_ends_the_run(tmp_path, model, monkeypatch):
    monkeypatch.setattr(
        trainer_module.F, "cross_entropy", lambda *_, **__: torch.tensor(float("nan"), requires_grad=True)
    )
    with pytest.raises(NonFiniteError, match="step 1: the loss is nan"):
        finetune(DATA, tmp_path / "out", model=model, options=ONE)
    assert not (tmp_path / "out").exists()


def test_memory_that_runs_out_is_told_with_what_helps(tmp_path, model, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(trainer_module.F, "cross_entropy", full)
    with pytest.raises(BackendError, match=r"step 1: device 'cpu' ran out of memory; .*it is 8,192"):
        finetune(DATA, tmp_path / "out", model=model, options=ONE)


def interrupted(tmp_path, monkeypatch, model, options):
    with monkeypatch.context() as patched:
        inner = trainer_module.Trainer._take_step

        def step(self, rows):
            if self.step == 4:
                raise KeyboardInterrupt
            inner(self, rows)

        patched.setattr(trainer_module.Trainer, "_take_step", step)
        with pytest.raises(KeyboardInterrupt) as stop:
            finetune(DATA, tmp_path / "out", model=model, options=options)
        (note,) = stop.value.__notes__
        assert "out.training; --resume" in note


def test_an_interrupted_run_is_neither_lost_nor_mistaken_for_another(tmp_path, monkeypatch, model):
    options = TrainingOptions(epochs=2, batch_size=6)
    interrupted(tmp_path, monkeypatch, model, options)
    with pytest.raises(UsageError, match=r"out\.training: it holds an interrupted run; continue it \(--resume"):
        finetune(DATA, tmp_path / "out", model=model, options=options)
    other = TrainingOptions(epochs=2, batch_size=6, learning_rate=1e-3)
    with pytest.raises(UsageError, match=r"learning_rate was 5e-05 and is now 0\.001"):
        finetune(DATA, tmp_path / "out", model=model, options=other, resume=True)
    changed = LabelledTexts(texts=[*DATA.texts[:-1], "other"], labels=DATA.labels)
    with pytest.raises(UsageError, match="train was"):
        finetune(changed, tmp_path / "out", model=model, options=options, resume=True)
    state = tmp_path / "out.training/state.pt"
    whole = state.read_bytes()
    state.write_bytes(whole[:-100])
    with pytest.raises(OutputError, match="cannot be read"):
        finetune(DATA, tmp_path / "out", model=model, options=options, resume=True)
    state.write_bytes(whole)
    left = Staging(tmp_path / "out.training", "state.pt")
    left.create("new-0").write(b"half")
    left.leave()  # as a kill does
    with pytest.warns(UserWarning, match="4 bytes that a killed run left there"):
        assert finetune(DATA, tmp_path / "out", model=model, options=options, resume=True).steps == 6


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40), budget=st.integers(1, 60))
def test_parts_hold_every_record_once_within_the_budget(lengths, budget):
    found = parts(range(len(lengths)), lengths, batch_tokens=budget)
    assert sorted(row for part in found for row in part) == list(range(len(lengths)))
    assert all(len(part) == 1 or sum(lengths[row] for row in part) <= budget for part in found)
    flat = [lengths[row] for part in found for row in part]
    assert flat == sorted(flat)


def test_epochs_have_orders_of_their_own():
    orders = [order(50, seed=seed, epoch=epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(found) == list(range(50)) for found in orders)
    assert len({tuple(found) for found in orders}) == 4
    assert [steps_of(n, 8) for n in (1, 8, 9)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_type": "regression"}, r"its head gives 2 numbers per text \(problem_type regression\)"),
        ({"problem_type": "ranking"}, "problem_type: expected one of single_label_classification"),
        ({"id2label": {"0": "a", "1": "a"}}, "id2label: expected labels that differ"),
        ({"id2label": {"0": "a"}}, "id2label: expected a label for each of 0 to 1"),
    ],
)
def test_other_heads_are_refused(tmp_path, model, change, message):
    folder = finetune(DATA, tmp_path / "out", model=model, options=ONE).folder
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(LayertapError, match=message):
        Classifier.from_pretrained(folder)
    del config["id2label"]
    (folder / "config.json").write_text(json.dumps(config))
    assert Classifier.from_pretrained(folder).labels == ("LABEL_0", "LABEL_1")


def test_damaged_and_absent_heads_are_refused(tmp_path, model):
    with pytest.raises(LayertapError, match=r"no classification head: architectures in its config\.json is"):
        Classifier.from_pretrained(model)
    folder = finetune(DATA, tmp_path / "out", model=model, options=ONE).folder
    weights = weights_of(folder)
    for key, value, message in (
        ("classifier.bias", None, r"classifier\.bias: expected beside classifier\.weight"),
        ("classifier.bias", np.zeros(3, np.float32), r"classifier\.bias: expected shape \[2\], found \[3\]"),
        ("classifier.weight", weights["classifier.weight"] * np.nan, "expected finite"),
        ("classifier.weight", np.zeros((1, 32), np.float32), "expected shape"),
    ):
        changed = {name: weight for name, weight in (weights | {key: value}).items() if weight is not None}
        save_file(changed, folder / "model.safetensors")
        with pytest.raises(LayertapError, match=message):
            Classifier.from_pretrained(folder)


def test_the_command(tmp_path, model, capsys):
    rows = list(zip(DATA.texts, DATA.labels, strict=True))
    train, dev = (
        write(tmp_path / f"{part}.csv", [("text", "label"), *some])
        for part, some in (("train", rows), ("dev", rows[:6]))
    )
    line = ["finetune", str(train), "-o", str(tmp_path / "out"), "--dev", str(dev), "--model", model]
    line += ["--epochs", "2", "--batch-size", "6", "--learning-rate", "1e-3", "--max-grad-norm", "0", "--threads", "1"]
    assert main(line) == 0
    said = capsys.readouterr().err
    assert "epoch 1, step 3: dev loss " in said
    assert f"{tmp_path / 'out'}: 2 labels, 6 steps; kept: epoch " in said
    made = json.loads((tmp_path / "out/training.json").read_text())
    assert (made["epochs"], made["learning_rate"], made["max_grad_norm"], made["warmup"]) == (2, 1e-3, None, 0.1)
    assert Classifier.from_pretrained(tmp_path / "out").labels == ("neg", "pos")
    assert main(line) == 2
    assert "out exists; name another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--label", "klass"], 2, "there is no column 'klass'; its first line names the columns 'text', 'label'"),
        (["--text-column", "sentence"], 2, "there is no column 'sentence'"),
        (["--epochs", "0"], 2, "epochs 0: expected a whole number"),
        (["--dev", "no-such.csv"], 1, "no-such.csv"),
    ],
)
def test_the_command_refuses_in_words(tmp_path, capsys, arguments, code, message):
    train = write(tmp_path / "train.csv", [("text", "label"), *[("good", "pos"), ("bad", "neg")] * 2])
    line = ["finetune", str(train), "-o", str(tmp_path / "out"), "--model", str(tmp_path / "no-model")]
    assert main([*line, *arguments]) == code
    assert message in capsys.readouterr().err


def test_the_help_says_what_the_options_are(capsys):
    assert command.METRICS == METRICS
    known = {field.name: field.default for field in fields(TrainingOptions)}
    assert {*command.TRAINING, "metric", "precision"} == known.keys()
    assert ("auto", *SCHEMES) == command.SCHEMES
    for name, (kind, _, words) in command.TRAINING.items():
        stated = words.rpartition("(default: ")[2].rstrip(")").replace(",", "").partition(":")[0]
        if known[name] is not None:
            assert kind(stated) == known[name], name
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    assert "--layer-decay" in capsys.readouterr().out
