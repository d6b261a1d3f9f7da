"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from layertap.errors import NonFiniteError
from layertap.learn.finetuning.batches import order, parts, steps_of
from layertap.learn.finetuning.curve import Evaluation, Step
from layertap.learn.finetuning.encoding import Examples
from layertap.learn.finetuning.model import HeadedEncoder, packed
from layertap.learn.finetuning.options import TrainingOptions
from layertap.learn.finetuning.schedule import set_learning_rate
from layertap.learn.finetuning.scoring import Scoring
from layertap.learn.finetuning.state import RunFolder

OnStep = Callable[[int, int], None]
"""Called after every step with its records and tokens."""

OnEvaluation = Callable[[Evaluation], None]


@dataclass(slots=True, kw_only=True, eq=False)
class Trainer:
    """A run: where it is, and what it has seen.

    Attributes:
        model: what is trained.
        optimizer: of its parameters.
        train: what it learns from.
        dev: what it is judged by, or None: nothing.
        scoring: what predictions are measured by.
        options: how; the metric is stated.
        folder: where the run is kept.
        step: steps done.
        steps: what each of them said.
        evaluations: the looks at the dev part.
        stopped: the run ended early, for want of a better score.
    """

    model: HeadedEncoder
    optimizer: torch.optim.Optimizer
    train: Examples
    dev: Examples | None
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
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def epoch_steps(self) -> int:
        """Steps an epoch."""
        return steps_of(len(self.train), self.options.batch_size)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.epoch_steps * self.options.epochs

    @property
    def best(self) -> Evaluation | None:
        """The first of the best looks."""
        metric = self.options.metric
        assert metric is not None
        return max(self.evaluations, key=lambda seen: seen.scores[metric], default=None)

    def run(self, *, on_step: OnStep | None = None, on_evaluation: OnEvaluation | None = None) -> None:
        """Trains to the end, from wherever the run is.

        Raises:
            NonFiniteError: a loss that is no number.
            OutputError: a state that cannot be kept.
        """
        rows = order(len(self.train), seed=self.options.seed, epoch=self.step // self.epoch_steps)
        while self.step < self.total_steps and not self.stopped:
            epoch, place = divmod(self.step, self.epoch_steps)
            if place == 0:
                rows = order(len(self.train), seed=self.options.seed, epoch=epoch)
            size = self.options.batch_size
            taken: list[int] = rows[place * size : (place + 1) * size].tolist()
            self._take_step(taken)
            if on_step is not None:
                on_step(len(taken), sum(self._lengths[row] for row in taken))
            ends_epoch = self.step % self.epoch_steps == 0
            looked = self.dev is not None and self._is_due(ends_epoch)
            if looked:
                self._look()
                if on_evaluation is not None:
                    on_evaluation(self.evaluations[-1])
            if looked or ends_epoch:
                self.folder.save(self.state())

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
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

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Takes a run up where `state` was taken."""
        self.step, self.stopped = state["step"], state["stopped"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"], self.device)
        self.steps = [Step.of(values) for values in state["steps"]]
        self.evaluations = [Evaluation.of(values) for values in state["evaluations"]]

    def _take_step(self, rows: list[int]) -> None:
        """One step of the optimiser on these records.

        The loss is the mean over the records, or over their words, whatever parts they go through the model in.
        """
        self.model.train()
        rate = set_learning_rate(self.optimizer, self.options, self.step, self.total_steps)
        units, loss = self.train.learned(rows), 0.0
        for part in parts(rows, self._lengths, batch_tokens=self.options.batch_tokens):
            if self.train.learned(part) == 0:
                continue  # texts without a word
            logits_UC, classes_U = self._logits(self.train, part, all_units=False)
            part_loss = F.cross_entropy(logits_UC, classes_U, reduction="sum") / units
            torch.autograd.backward(part_loss)
            loss += part_loss.item()
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"step {self.step + 1}: the loss is {loss}; a lower learning rate or more warm-up may help"
            )
        if self.options.max_grad_norm is not None:
            learning = [weight for group in self.optimizer.param_groups for weight in group["params"]]
            torch.nn.utils.clip_grad_norm_(learning, self.options.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.steps.append(Step(step=self.step, loss=loss, learning_rate=rate))

    def _logits(self, examples: Examples, records: list[int], *, all_units: bool) -> tuple[Tensor, Tensor]:
        """float32 [U, C] and int64 [U]; where not of all units, of those that have a token."""
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

    def _look(self) -> None:
        """Looks at the dev part, keeps the weights if they are the best so far, and stops if there is no point."""
        assert self.dev is not None
        found = self.evaluate(self.dev)
        self.evaluations.append(found)
        if self.best is found:
            self.folder.save_best(self.step, self.model.state_dict())
        patience = self.options.patience
        if patience is not None and self.best is not None:
            since = len(self.evaluations) - 1 - self.evaluations.index(self.best)
            self.stopped = since >= patience

    def keep_best(self) -> None:
        """Goes back to the best weights; without a dev part the last are the best."""
        if self.best is not None:
            self.model.load_state_dict(self.folder.best(self.best.step))

    @torch.no_grad()
    def evaluate(self, examples: Examples) -> Evaluation:
        """Labelled texts under the weights as they are; a word without a token is judged by zeros, as in `predict`."""
        self.model.eval()
        lengths = [len(text) for text in examples.texts]
        predicted: list[Tensor] = [torch.empty(0, dtype=torch.int64)] * len(examples)
        loss = 0.0
        for part in parts(range(len(examples)), lengths, batch_tokens=self.options.batch_tokens):
            logits_UC, classes_U = self._logits(examples, part, all_units=True)
            loss += F.cross_entropy(logits_UC, classes_U, reduction="sum").item()
            each = torch.split(logits_UC.argmax(-1).cpu(), [len(examples.rows[record]) for record in part])
            for record, own in zip(part, each, strict=True):
                predicted[record] = own
        units = sum(map(len, examples.labels))
        return Evaluation(
            step=self.step,
            epoch=self.step / self.epoch_steps,
            loss=loss / max(1, units),
            scores=self.scoring.scores(examples.labels, torch.cat(predicted).tolist()),
        )
