"""Training loop over packed batches."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from layertap.backends.torch.devices import is_out_of_memory
from layertap.errors import BackendError, NonFiniteError
from layertap.learn.finetuning.batches import order, parts, steps_of
from layertap.learn.finetuning.curve import Evaluation, Step
from layertap.learn.finetuning.encoding import EncodedDataset
from layertap.learn.finetuning.model import HeadedEncoder, packed
from layertap.learn.finetuning.options import TrainingOptions
from layertap.learn.finetuning.schedule import set_learning_rate
from layertap.learn.finetuning.scoring import Scoring
from layertap.learn.finetuning.state import RunFolder

OnStep = Callable[[int, int], None]
"""Callback after every step, called with its numbers of records and tokens."""

OnEvaluation = Callable[[Evaluation], None]
"""Callback after every evaluation on the dev data."""


@dataclass(slots=True, kw_only=True, eq=False)
class Trainer:
    """State of a training run, and the loop that advances it.

    Attributes:
        model: model to train.
        optimizer: optimiser of its parameters.
        train: training data.
        dev: data by which the best checkpoint is chosen, or None.
        scoring: metrics of predictions.
        options: hyperparameters, with the metric stated.
        folder: folder in which the state is saved.
        step: number of steps done.
        steps: record of each step.
        evaluations: evaluations on the dev data.
        stopped: whether the run ended early, because the score did not improve.
    """

    model: HeadedEncoder
    optimizer: torch.optim.Optimizer
    train: EncodedDataset
    dev: EncodedDataset | None
    scoring: Scoring
    options: TrainingOptions
    folder: RunFolder
    step: int = 0
    steps: list[Step] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    stopped: bool = False
    _lengths: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._lengths = [len(text) for text in self.train.texts]

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @property
    def epoch_steps(self) -> int:
        """Number of steps per epoch."""
        return steps_of(len(self.train), self.options.batch_size)

    @property
    def total_steps(self) -> int:
        """Number of steps of the whole run."""
        return self.epoch_steps * self.options.epochs

    @property
    def best(self) -> Evaluation | None:
        """First of the evaluations with the best score, or None if there are no evaluations."""
        metric = self.options.metric
        assert metric is not None
        return max(self.evaluations, key=lambda seen: seen.scores[metric], default=None)

    def run(self, *, on_step: OnStep | None = None, on_evaluation: OnEvaluation | None = None) -> None:
        """Train from the current step to the end.

        Raises:
            NonFiniteError: a loss that is not finite.
            BackendError: the memory of the device does not suffice.
            OutputError: a state that cannot be saved.
        """
        rows = order(len(self.train), seed=self.options.seed, epoch=self.step // self.epoch_steps)
        while self.step < self.total_steps and not self.stopped:
            epoch, place = divmod(self.step, self.epoch_steps)
            if place == 0:
                rows = order(len(self.train), seed=self.options.seed, epoch=epoch)
            size = self.options.batch_size
            taken: list[int] = rows[place * size : (place + 1) * size].tolist()
            try:
                self._take_step(taken)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                raise BackendError(
                    f"step {self.step + 1}: device '{self.device}' ran out of memory; run fewer tokens at once with a "
                    f"smaller batch_tokens (--batch-tokens; it is {self.options.batch_tokens:,}), or freeze layers"
                ) from None
            if on_step is not None:
                on_step(len(taken), sum(self._lengths[row] for row in taken))
            ends_epoch = self.step % self.epoch_steps == 0
            evaluated = self.dev is not None and self._is_due(ends_epoch)
            if evaluated:
                self._evaluate_dev()
                if on_evaluation is not None:
                    on_evaluation(self.evaluations[-1])
            if evaluated or ends_epoch:
                self.folder.save(self.state())

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        on_cuda = self.device.type == "cuda"
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(self.device) if on_cuda else None,
            "steps": [step.values() for step in self.steps],
            "evaluations": [seen.values() for seen in self.evaluations],
            "best_step": None if self.best is None else self.best.step,
            "stopped": self.stopped,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore the state that `state` returned."""
        self.step, self.stopped = state["step"], state["stopped"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"], self.device)
        self.steps = [Step.of(values) for values in state["steps"]]
        self.evaluations = [Evaluation.of(values) for values in state["evaluations"]]

    def _take_step(self, rows: list[int]) -> None:
        """Take one step of the optimiser on some records.

        The loss is the mean over all their units, however the step is divided into parts.
        """
        self.model.train()
        rate = set_learning_rate(self.optimizer, self.options, self.step, self.total_steps)
        units = self.train.num_learned(rows)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for part in parts(rows, self._lengths, batch_tokens=self.options.batch_tokens):
            if self.train.num_learned(part) == 0:
                continue  # texts without words
            logits_UC, classes_U = self._logits(self.train, part, all_units=False)
            part_loss = F.cross_entropy(logits_UC, classes_U, reduction="sum") / units
            torch.autograd.backward(part_loss)
            total += part_loss.detach()
        if self.options.max_grad_norm is not None:
            learning = [weight for group in self.optimizer.param_groups for weight in group["params"]]
            torch.nn.utils.clip_grad_norm_(learning, self.options.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        # Read once, when all of the step is queued on the device; a run that ends here has saved nothing of it.
        loss = total.item()
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"step {self.step + 1}: the loss is {loss}; try a lower learning rate, or more warm-up"
            )
        self.step += 1
        self.steps.append(Step(step=self.step, loss=loss, learning_rate=rate))

    def _logits(self, examples: EncodedDataset, records: list[int], *, all_units: bool) -> tuple[Tensor, Tensor]:
        """Return logits, float32 [U, C], and classes, int64 [U], of all units or of those that have a token."""
        texts = [examples.texts[record] for record in records]
        batch = packed(texts, self.model.encoder.spec, device=self.device)
        starts = np.repeat(batch.layout.cu_seqlens[:-1], [len(examples.rows[record]) for record in records])
        rows = np.concatenate([examples.rows[record] for record in records])
        classes = np.concatenate([examples.classes[record] for record in records])
        rows = np.where(rows < 0, -1, rows + starts)
        if not all_units:
            rows, classes = rows[rows >= 0], classes[rows >= 0]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"):
            logits_UC: Tensor = self.model(batch, rows)
        return logits_UC.float(), torch.as_tensor(classes).to(self.device)

    def _is_due(self, ends_epoch: bool) -> bool:
        every = self.options.eval_steps
        if self.step == self.total_steps:
            return True
        return ends_epoch if every is None else self.step % every == 0

    def _evaluate_dev(self) -> None:
        """Evaluate on the dev data, save the weights if they are the best so far, and stop if patience has run out."""
        assert self.dev is not None
        evaluation = self.evaluate(self.dev)
        self.evaluations.append(evaluation)
        if self.best is evaluation:
            self.folder.save_best(self.step, self.model.state_dict())
        patience = self.options.patience
        if patience is not None and self.best is not None:
            since = len(self.evaluations) - 1 - self.evaluations.index(self.best)
            self.stopped = since >= patience

    def keep_best(self) -> None:
        """Load the best weights; without dev data the last weights are kept."""
        if self.best is not None:
            self.model.load_state_dict(self.folder.best(self.best.step))

    @torch.no_grad()
    def evaluate(self, examples: EncodedDataset) -> Evaluation:
        """Evaluate the current weights; a word without a token gets no prediction, and no part in the loss."""
        self.model.eval()
        lengths = [len(text) for text in examples.texts]
        predicted: list[Tensor] = [torch.empty(0, dtype=torch.int64)] * len(examples)
        loss = 0.0
        for part in parts(range(len(examples)), lengths, batch_tokens=self.options.batch_tokens):
            logits_UC, classes_U = self._logits(examples, part, all_units=True)
            seen = torch.as_tensor(np.concatenate([examples.rows[record] for record in part]) >= 0)
            on_device = seen.to(logits_UC.device)
            loss += F.cross_entropy(logits_UC[on_device], classes_U[on_device], reduction="sum").item()
            given = torch.where(seen, logits_UC.argmax(-1).cpu(), -1)
            each = torch.split(given, [len(examples.rows[record]) for record in part])
            for record, own in zip(part, each, strict=True):
                predicted[record] = own
        units = examples.num_learned(range(len(examples)))
        return Evaluation(
            step=self.step,
            epoch=self.step / self.epoch_steps,
            loss=loss / max(1, units),
            scores=self.scoring.scores(examples.labels, torch.cat(predicted).tolist()),
        )
