"""The peers on frozen features: transformers in padded batches, scikit-learn, and a mix written in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.learning.tasks import Part
from benchmarks.models import minilm_folder

Vectors = npt.NDArray[np.float32]
Classes = npt.NDArray[np.int64]

BATCH = 32
PATIENCE = 10


class TransformersSide:
    """See `frozen.Side`."""

    def __init__(self) -> None:
        import torch
        import transformers

        transformers.utils.logging.set_verbosity_error()
        transformers.utils.logging.disable_progress_bar()
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder())
        self._model = transformers.AutoModel.from_pretrained(minilm_folder(), dtype=torch.float32).eval()

    def vectors(self, part: Part) -> Vectors:
        """Batches of like lengths; the mean over all tokens, or over a word's."""
        import torch

        words = isinstance(part.items[0], list)
        sizes = [len(item) if words else 1 for item in part.items]
        begins = np.cumsum([0, *sizes[:-1]])
        found: Vectors | None = None
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
            if found is None:
                found = np.zeros((len(states), sum(sizes), states.shape[-1]), dtype=np.float32)
            for place, row in enumerate(rows):
                if words:
                    owner = [-1 if word is None else word for word in batch.word_ids(place)]
                else:
                    owner = [0 if kept else -1 for kept in batch["attention_mask"][place].tolist()]
                means = _means(states[:, place], torch.tensor(owner), sizes[row])
                found[:, begins[row] : begins[row] + sizes[row]] = means.numpy()
        assert found is not None
        return found

    def fit_layer(self, vectors: Vectors, classes: Classes, num_classes: int) -> Callable[[Vectors], Classes]:
        """scikit-learn's, C = 1."""
        from sklearn.linear_model import LogisticRegression

        assert num_classes == len(np.unique(classes))
        model = LogisticRegression(C=1.0, max_iter=1000).fit(vectors, classes)
        return lambda rows: np.asarray(model.predict(rows), dtype=np.int64)

    def fit_mix(
        self, vectors: Vectors, classes: Classes, num_classes: int, held: tuple[Vectors, Classes]
    ) -> tuple[Callable[[Vectors], Classes], dict[str, Any]]:
        """A softmax-weighted sum times a scale, then linear: autograd and scipy on the loss that `fit` documents."""
        import torch
        from scipy.optimize import minimize

        layers, _, width = vectors.shape
        rows = 1 if num_classes == 2 else num_classes
        sizes = [rows * width, rows, layers, 1]

        def parts(flat: Any) -> tuple[Any, Any, Any, Any]:
            weight, bias, mix, scale = flat.split(sizes)
            return weight.view(rows, width), bias, mix, scale

        def logits(flat: Any, given: Any) -> Any:
            weight, bias, mix, scale = parts(flat)
            mixed = torch.einsum("l,lnh->nh", mix.softmax(0), given) * scale
            return mixed @ weight.T + bias

        def mean_loss(flat: Any, given: Any, truth: Any) -> Any:
            found = logits(flat, given)
            if rows == 1:
                return torch.nn.functional.binary_cross_entropy_with_logits(found[:, 0], truth.float())
            return torch.nn.functional.cross_entropy(found, truth)

        learned = torch.from_numpy(vectors), torch.from_numpy(classes)
        watched = torch.from_numpy(held[0]), torch.from_numpy(held[1])

        def objective(values: Any) -> tuple[float, Any]:
            flat = torch.tensor(values, dtype=torch.float32, requires_grad=True)
            weight, _, mix, scale = parts(flat)
            penalty = 0.5 * ((weight * scale).square().sum() + mix.square().sum()) / len(classes)
            loss = mean_loss(flat, *learned) + penalty
            loss.backward()
            assert flat.grad is not None
            return loss.item(), flat.grad.double().numpy()

        iteration = best_iteration = 0
        lowest, best = np.inf, None

        def watch(intermediate_result: Any) -> None:
            nonlocal iteration, best_iteration, lowest, best
            iteration += 1
            with torch.inference_mode():
                loss = mean_loss(torch.tensor(intermediate_result.x, dtype=torch.float32), *watched).item()
            if loss < lowest:
                lowest, best, best_iteration = loss, intermediate_result.x.copy(), iteration
            elif iteration - best_iteration >= PATIENCE:
                raise StopIteration

        start = np.concatenate([np.zeros(sum(sizes) - 1), [1.0]])
        options = {"maxiter": 1000, "gtol": 1e-4, "ftol": 64 * 2.2e-16, "maxls": 50}
        minimize(objective, start, jac=True, method="L-BFGS-B", callback=watch, options=options)
        final = torch.tensor(best, dtype=torch.float32)

        def predict(given: Vectors) -> Classes:
            with torch.inference_mode():
                found = logits(final, torch.from_numpy(given)).numpy()
            classes: Classes = (found[:, 0] > 0).astype(np.int64) if rows == 1 else found.argmax(axis=1)
            return classes

        shares = [round(share, 4) for share in parts(final)[2].softmax(0).tolist()]
        return predict, {"shares": shares, "iterations": best_iteration}


def _means(states: Any, owner: Any, count: int) -> Any:
    """Means [L, count, H] of the tokens [L, S, H] that each owner has; zeros where it has none, -1 is nobody's."""
    import torch

    own = owner >= 0
    sums = torch.zeros(states.shape[0], count, states.shape[2])
    sums.index_add_(1, owner[own], states[:, own])
    sizes = torch.bincount(owner[own], minlength=count).clamp(min=1)
    return sums / sizes[:, None]
