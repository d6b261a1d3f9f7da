"""Options of an extractor: those that change results, and those that do not."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, get_args

from layertap.backends.choice import Wish
from layertap.errors import OptionError
from layertap.features.plan import Rules
from layertap.models.config import short

Precision = Literal["float32", "float32-high", "bfloat16", "float16", "int8"]
BackendName = Literal["auto", "native", "torch"]

BATCH_TOKENS = {"native": 16384, "cpu": 4096, "cuda": 65536}
"""Default token budget: the native backend's, and torch's by kind of device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReference:
    """Which model: enough to open it again.

    Attributes:
        name: folder, hub id, or None for the default model.
        revision: branch, tag or commit on the hub.
        cache_dir: the hub's cache, or None for its default.
        local_files_only: never ask the hub.
        allow_pickle: read a `pytorch_model.bin` where there is no safetensors file.
    """

    name: str | None
    revision: str | None
    cache_dir: str | None
    local_files_only: bool
    allow_pickle: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantics:
    """Options that change results.

    Attributes:
        precision: what matrix products compute in; see `Extractor.from_pretrained`.
        max_length: the user's limit in tokens, or None: each feature's own.
        untrained_pooler: what to do about a pooler that is stored and was never trained.
        non_finite: what to do about NaN and infinity in results.
        long: what to do about texts over the limit: cut them, run them in windows, or refuse them.
        truncate_side: which end is cut off.
        window: tokens a window, special tokens included, or None: the limit.
        overlap: tokens that neighbouring windows share, or None: an eighth of the window.
        word_pattern: regular expression of a word, or None: what stands between white space.
    """

    precision: Precision = "float32"
    max_length: int | None = None
    untrained_pooler: Literal["refuse", "use"] = "refuse"
    non_finite: Literal["raise", "keep"] = "raise"
    long: Literal["truncate", "window", "error"] = "truncate"
    truncate_side: Literal["right", "left"] = "right"
    window: int | None = None
    overlap: int | None = None
    word_pattern: str | None = None

    def __post_init__(self) -> None:
        _one_of("precision", self.precision, get_args(Precision))
        _one_of("untrained_pooler", self.untrained_pooler, ("refuse", "use"))
        _one_of("non_finite", self.non_finite, ("raise", "keep"))
        if self.max_length is not None:
            _whole_number("max_length", self.max_length)
        _one_of("long", self.long, ("truncate", "window", "error"))
        _one_of("truncate_side", self.truncate_side, ("right", "left"))
        if self.long != "truncate" and self.truncate_side != "right":
            raise OptionError(f"truncate_side {self.truncate_side!r} goes with long 'truncate', not {self.long!r}")
        for name, value, least in (("window", self.window, 1), ("overlap", self.overlap, 0)):
            if value is None:
                continue
            if self.long != "window":
                raise OptionError(f"{name} {value!r} goes with long 'window' (--long window), not {self.long!r}")
            _whole_number(name, value, least)
        self.compiled_word_pattern()

    def compiled_word_pattern(self) -> re.Pattern[str] | None:
        """`word_pattern`, ready to use.

        Raises:
            OptionError: it is no regular expression.
        """
        pattern = self.word_pattern
        if pattern is None:
            return None
        if not isinstance(pattern, str):
            raise OptionError(f"word_pattern {pattern!r}: expected a str, found {type(pattern).__name__}")
        if not pattern:
            raise OptionError(r"word_pattern '' matches no character; expected a regular expression, as '\w+'")
        try:
            return re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise OptionError(f"word_pattern {short(pattern)}: no regular expression: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """Options that change how results are computed, not what they mean.

    Attributes:
        backend: "native", "torch", or "auto": native where it runs the model, else torch.
        device: "cpu", "cuda" or "cuda:N".
        threads: of a native run, or None: a thread a core that the process may use.
        instruction_set: of the native kernels, or None: the best that the processor has.
        batch_tokens: packed tokens a batch at most; a longer text is a batch of its own. None: by device.
        rules: the plan's savings.
    """

    backend: BackendName = "auto"
    device: str = "cpu"
    threads: int | None = None
    instruction_set: str | None = None
    batch_tokens: int | None = None
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        _one_of("backend", self.backend, get_args(BackendName))
        if not isinstance(self.device, str):
            raise OptionError(f"device {self.device!r}: expected a text: 'cpu', 'cuda' or 'cuda:N'")
        if self.threads is not None:
            _whole_number("threads", self.threads)
        if self.instruction_set is not None and not isinstance(self.instruction_set, str):
            raise OptionError(f"instruction_set {self.instruction_set!r}: expected a name, as 'avx2'")
        if self.batch_tokens is not None:
            _whole_number("batch_tokens", self.batch_tokens)

    def wish(self, precision: Precision) -> Wish:
        """What these options ask of backends."""
        return Wish(
            backend=self.backend,
            device=self.device,
            precision=precision,
            threads=self.threads,
            instruction_set=self.instruction_set,
        )

    def token_budget(self, backend: str) -> int:
        """Packed tokens a batch at most, on the backend of that name."""
        return self.batch_tokens or BATCH_TOKENS["native" if backend == "native" else self.device.partition(":")[0]]


def _one_of(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise OptionError(f"{name} {value!r}: expected one of {', '.join(allowed)}")


def _whole_number(name: str, value: object, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name} {value!r}: expected a whole number of at least {least}")
