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
from layertap.learn.finetuning.examples import Examples
from layertap.learn.finetuning.model import SequenceClassifier, packed
from layertap.learn.finetuning.options import METRICS, TrainingOptions
from layertap.learn.finetuning.schedule import set_learning_rate
from layertap.learn.finetuning.state import RunFolder
from layertap.learn.metrics import class_scores

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
        options: how.
        folder: where the run is kept.
        step: steps done.
        steps: what each of them said.
        evaluations: the looks at the dev part.
        stopped: the run ended early, for want of a better score.
    """

    model: SequenceClassifier
    optimizer: torch.optim.Optimizer
    train: Examples
    dev: Examples | None
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
        return max(self.evaluations, key=lambda seen: seen.scores[self.options.metric], default=None)

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

        The loss is the mean over the records, whatever parts they go through the model in.
        """
        self.model.train()
        rate = set_learning_rate(self.optimizer, self.options, self.step, self.total_steps)
        loss = 0.0
        for part in parts(rows, self._lengths, batch_tokens=self.options.batch_tokens):
            logits_BC, classes_B = self._logits(self.train, part)
            part_loss = F.cross_entropy(logits_BC, classes_B, reduction="sum") / len(rows)
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

    def _logits(self, examples: Examples, rows: list[int]) -> tuple[Tensor, Tensor]:
        """float32 [B, C] and int64 [B]."""
        batch = packed([examples.texts[row] for row in rows], self.model.encoder.spec, device=self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"):
            logits_BC: Tensor = self.model(batch)
        return logits_BC.float(), torch.as_tensor(examples.classes[rows]).to(self.device)

    def _is_due(self, ends_epoch: bool) -> bool:
        every = self.options.eval_steps
        if self.step == self.total_steps:
            return True
        return ends_epoch if every is None else self.step % every == 0

    def _look(self) -> None:
        """Looks at the dev part, keeps the weights if they are the best so far, and stops if there is no point."""
        found = self.evaluate()
        self.evaluations.append(found)
        if self.best is found:
            self.folder.save_best(self.step, self.model.stored())
        patience = self.options.patience
        if patience is not None and self.best is not None:
            since = len(self.evaluations) - 1 - self.evaluations.index(self.best)
            self.stopped = since >= patience

    @torch.no_grad()
    def evaluate(self) -> Evaluation:
        """The dev part under the weights as they are."""
        assert self.dev is not None
        self.model.eval()
        lengths = [len(text) for text in self.dev.texts]
        predicted = np.empty(len(self.dev), dtype=np.int64)
        loss = 0.0
        for part in parts(range(len(self.dev)), lengths, batch_tokens=self.options.batch_tokens):
            logits_BC, classes_B = self._logits(self.dev, part)
            loss += F.cross_entropy(logits_BC, classes_B, reduction="sum").item()
            predicted[part] = logits_BC.argmax(-1).cpu().numpy()
        found = class_scores([str(i) for i in self.dev.classes], [str(i) for i in predicted])
        return Evaluation(
            step=self.step,
            epoch=self.step / self.epoch_steps,
            loss=loss / len(self.dev),
            scores={name: found[name] for name in METRICS},
        )
