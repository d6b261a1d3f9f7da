"""Train with transformers' ``Trainer`` and its collators, which pad each batch to its longest sequence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from benchmarks.learning.tasks import Part
from benchmarks.models import minilm_folder

EVAL_BATCH = 64
IGNORED = -100
"""Label id that the loss ignores, given to tokens that continue a word."""


def examples_of(part: Part, names: Sequence[str], unit: Literal["text", "word"]) -> list[dict[str, Any]]:
    """Tokenise texts; the first token of each word has the word's class."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm_folder())
    place = {name: i for i, name in enumerate(names)}
    # the tokenizer of the folder truncates at about 128 tokens, but the model takes 512
    encoded = tokenizer(part.items, is_split_into_words=unit == "word", truncation=True, max_length=512)
    examples: list[dict[str, Any]] = []
    for row, given in enumerate(part.labels):
        example = {name: encoded[name][row] for name in ("input_ids", "token_type_ids", "attention_mask")}
        if isinstance(given, str):
            example["labels"] = place.get(given, IGNORED)
        else:
            words = encoded.word_ids(row)
            first = [word is not None and word != before for before, word in zip([None, *words], words, strict=False)]
            example["labels"] = [
                place.get(given[word], IGNORED) if begins else IGNORED
                for begins, word in zip(first, words, strict=True)
            ]
            example["begins"] = [word if begins else None for begins, word in zip(first, words, strict=True)]
            example["words"] = len(given)
        examples.append(example)
    return examples


def make(
    examples: list[dict[str, Any]],
    names: Sequence[str],
    *,
    unit: Literal["text", "word"],
    folder: Path,
    settings: dict[str, Any],
    threads: int,
) -> Any:
    """Construct a ``Trainer`` with default settings, except for the given ones and for its files and messages."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    transformers.set_seed(settings["seed"])  # of the new head
    words = unit == "word"
    kind = transformers.AutoModelForTokenClassification if words else transformers.AutoModelForSequenceClassification
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder())
    collator = transformers.DataCollatorForTokenClassification if words else transformers.DataCollatorWithPadding
    model = kind.from_pretrained(
        minilm_folder(), num_labels=len(names), id2label=dict(enumerate(names)), dtype=torch.float32
    )
    return transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(folder),
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=examples,
        processing_class=tokenizer,
        data_collator=collator(tokenizer),
    )


def predicted(model: Any, examples: list[dict[str, Any]], names: Sequence[str]) -> list[str]:
    """Predict the most probable labels in float32, laid end to end; a word that was cut off is O."""
    import torch

    model = model.eval()
    labels_of: dict[int, list[str]] = {}
    order = sorted(range(len(examples)), key=lambda row: len(examples[row]["input_ids"]))
    for begin in range(0, len(order), EVAL_BATCH):
        rows = order[begin : begin + EVAL_BATCH]
        longest = max(len(examples[row]["input_ids"]) for row in rows)

        def padded(name: str, rows: list[int] = rows, longest: int = longest) -> Any:
            listed = [examples[row][name] for row in rows]
            return torch.tensor([values + [0] * (longest - len(values)) for values in listed])

        with torch.inference_mode():
            inputs = {name: padded(name) for name in ("input_ids", "token_type_ids", "attention_mask")}
            classes = model(**inputs).logits.argmax(-1).tolist()
        for row, given in zip(rows, classes, strict=True):
            example = examples[row]
            if "begins" not in example:
                labels_of[row] = [names[given]]
                continue
            labels = ["O" if "O" in names else names[0]] * example["words"]
            for token, word in enumerate(example["begins"]):
                if word is not None:
                    labels[word] = names[given[token]]
            labels_of[row] = labels
    return [label for row in range(len(examples)) for label in labels_of[row]]
