"""Learning from features with scikit-learn, fitted heads, and fine-tuned classifiers.

`TextFeatures` is a transformer for scikit-learn. `fit_head` fits a `Head`, a linear classifier on a feature of a frozen
encoder. `finetune` trains an encoder together with a classification head, on a file or on `LabelledTexts`, with the
hyperparameters of `TrainingOptions`; `Classifier` predicts with the result, and with checkpoints of the Hugging Face
hub. `evaluate` measures either on labelled data. `explore` makes a page that
shows what each layer sees.

Needs the extra `learn`: `pip install 'layertap[learn]'`. `Head` and `Classifier` predict without it.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from layertap.backends.here import require_torch

if TYPE_CHECKING:
    from layertap.learn.evaluating import HeadEvaluation, evaluate
    from layertap.learn.exploring.notebook import explore
    from layertap.learn.finetuning.options import TrainingOptions
    from layertap.learn.finetuning.run import finetune
    from layertap.learn.fitting.fit import fit_head
    from layertap.learn.heads.classifier import Classifier
    from layertap.learn.heads.head import Head
    from layertap.learn.labelled import LabelledTexts
    from layertap.learn.vectors.text_features import TextFeatures

__all__ = [
    "Classifier",
    "Head",
    "HeadEvaluation",
    "LabelledTexts",
    "TextFeatures",
    "TrainingOptions",
    "evaluate",
    "explore",
    "finetune",
    "fit_head",
]

_MODULES = {
    "Classifier": "heads.classifier",
    "Head": "heads.head",
    "HeadEvaluation": "evaluating",
    "LabelledTexts": "labelled",
    "TextFeatures": "vectors.text_features",
    "TrainingOptions": "finetuning.options",
    "evaluate": "evaluating",
    "explore": "exploring.notebook",
    "finetune": "finetuning.run",
    "fit_head": "fitting.fit",
}
_WITHOUT_LIBRARIES = ("Classifier", "Head")


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _WITHOUT_LIBRARIES and find_spec("sklearn") is None:
        raise ModuleNotFoundError(
            f"layertap.learn.{name} needs scikit-learn: pip install 'layertap[learn]'", name="sklearn"
        )
    if name == "finetune":
        require_torch("layertap.learn.finetune needs torch")
    value = globals()[name] = getattr(import_module(f"layertap.learn.{_MODULES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
