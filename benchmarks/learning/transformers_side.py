"""The side of transformers in padded batches, with scikit-learn, on frozen features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.learning.tasks import Part
from benchmarks.models import minilm_folder

Vectors = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

BATCH = 32
SHARPNESSES = (0, 5, 10, 20, 40, 80, 160)
MOST = 20_000


class TransformersSide:
    """Side of transformers and scikit-learn; implements `frozen.Side`."""

    def __init__(self) -> None:
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder())
        self._model = transformers.AutoModel.from_pretrained(minilm_folder(), dtype=torch.float32).eval()

    def vectors(self, part: Part) -> Vectors:
        """Compute vectors in batches of similar lengths: the mean over all tokens, or over those of each word."""
        import torch

        words = isinstance(part.items[0], list)
        sizes = [len(item) if words else 1 for item in part.items]
        begins = np.cumsum([0, *sizes[:-1]])
        result: Vectors | None = None
        order = sorted(range(len(part)), key=lambda row: len("".join(part.items[row])))
        for begin in range(0, len(order), BATCH):
            rows = order[begin : begin + BATCH]
            items = [part.items[row] for row in rows]
            batch = self._tokenizer(
                items, is_split_into_words=words, truncation=True, max_length=512, padding=True, return_tensors="pt"
            )
            with torch.inference_mode():
                outputs = self._model(**batch, output_hidden_states=True)
                states = torch.stack(outputs.hidden_states)  # [L, B, S, H]
            if result is None:
                result = np.zeros((len(states), sum(sizes), states.shape[-1]), dtype=np.float32)
            for place, row in enumerate(rows):
                if words:
                    owner = [-1 if word is None else word for word in batch.word_ids(place)]
                else:
                    owner = [0 if kept else -1 for kept in batch["attention_mask"][place].tolist()]
                means = _means(states[:, place], torch.tensor(owner), sizes[row])
                result[:, begins[row] : begins[row] + sizes[row]] = means.numpy()
        assert result is not None
        return result

    def fit_layer(self, vectors: Vectors, classes: Classes, num_classes: int) -> Callable[[Vectors], Classes]:
        """Fit scikit-learn's ``LogisticRegression`` with C = 1 on one layer."""
        model = _regression().fit(vectors, classes)
        assert len(model.classes_) == num_classes
        return lambda rows: np.asarray(model.predict(rows), dtype=np.int64)

    def fit_mix(
        self, vectors: Vectors, classes: Classes, num_classes: int, held: tuple[Vectors, Classes]
    ) -> tuple[Callable[[Vectors], Classes], dict[str, Any]]:
        """Fit a mix of layers as in `docs/heads.md`, with scikit-learn."""
        random = np.random.default_rng(0)
        (learnt, learnt_classes), (judged, judged_classes) = (
            (part[:, rows], labels[rows])
            for part, labels in ((vectors, classes), held)
            for rows in (_drawn(len(labels), random),)
        )
        layers = len(vectors)

        def loss_of(factors: Doubles) -> float:
            from sklearn.metrics import log_loss

            model = _regression().fit(_mixed(factors, learnt), learnt_classes)
            return float(log_loss(judged_classes, model.predict_proba(_mixed(factors, judged)), labels=model.classes_))

        losses = np.array([loss_of(factors) for factors in np.eye(layers)])
        sizes = np.array([np.sqrt(layer.astype(np.float64).var(axis=0).sum()) for layer in vectors])
        best = int(losses.argmin())
        lowest, shares, factors = losses[best], np.eye(layers)[best], np.eye(layers)[best]
        for sharpness in SHARPNESSES:
            tried = np.exp(-sharpness * (losses - losses[best]))
            tried /= tried.sum()
            loss = loss_of(tried * sizes[best] / sizes)
            if loss < lowest:
                lowest, shares, factors = loss, tried, tried * sizes[best] / sizes
        predict = self.fit_layer(_mixed(factors, vectors), classes, num_classes)
        return lambda rows: predict(_mixed(factors, rows)), {"shares": [round(float(share), 4) for share in shares]}


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=1.0, max_iter=1000)


def _drawn(count: int, random: np.random.Generator) -> Classes:
    return np.arange(count) if count <= MOST else np.sort(random.choice(count, MOST, replace=False))


def _mixed(factors: Doubles, vectors: Vectors) -> Vectors:
    mixed: Vectors = np.tensordot(factors.astype(np.float32), vectors, axes=1)
    return mixed


def _means(states: Any, owner: Any, count: int) -> Any:
    """Average the tokens [L, S, H] of each owner to [L, count, H]; zeros for owners without tokens, -1 is no owner."""
    import torch

    own = owner >= 0
    sums = torch.zeros(states.shape[0], count, states.shape[2])
    sums.index_add_(1, owner[own], states[:, own])
    sizes = torch.bincount(owner[own], minlength=count).clamp(min=1)
    return sums / sizes[:, None]
