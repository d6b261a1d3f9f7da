"""Options of an extractor, each stated once: its name, type, default, allowed values, meaning and group.

The groups are three dataclasses: `ModelReference` (which model), `Semantics` (options that change results) and
`Runtime` (options that do not). `OPTIONS` lists their fields for whatever reads options by name: the command line, the
signatures of other classes, the tests.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from os import PathLike, fspath
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, TypedDict, TypeVar, get_args, get_origin, get_type_hints

from layertap.backends.facts import BackendName as BackendName
from layertap.backends.facts import BackendRequest, row_of
from layertap.backends.facts import Precision as Precision
from layertap.errors import OptionError
from layertap.features.rules import Rules
from layertap.models.config import short

LongTexts = Literal["truncate", "window", "error"]
Side = Literal["right", "left"]
UntrainedPooler = Literal["refuse", "use"]
NonFinite = Literal["raise", "keep"]
Function = TypeVar("Function", bound=Callable[..., Any])
Group = Literal["reference", "semantics", "runtime"]


def _described(description: str, default: str = "") -> dict[str, str]:
    """Metadata of a field: what the option means, and what its default stands for where the value does not say it."""
    return {"description": description, "default": default}


_BATCH_TOKENS = "{:,}; with torch {:,}, on CUDA {:,}".format(
    *(row_of(*place).batch_tokens for place in (("native", "cpu"), ("torch", "cpu"), ("torch", "cuda")))
)


MOST_THREADS = 1024
"""Limit of `threads`: more than any machine has cores; each thread takes memory and is started at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReference:
    """Reference to a model by which it can be opened again.

    Attributes:
        name: folder, hub id, or None for the default model.
        revision: branch, tag or commit on the hub.
        cache_dir: cache folder of the hub, or None for its default.
        local_files_only: use the cache and never ask the hub.
        allow_pickle: read a `pytorch_model.bin` where there is no safetensors file.
    """

    name: str | None = None
    revision: str | None = field(default=None, metadata=_described("branch, tag or commit of a hub id"))
    cache_dir: str | None = field(default=None, metadata=_described("cache folder of the hub", "the hub's usual place"))
    local_files_only: bool = field(default=False, metadata=_described("use the hub's cache, never ask the hub"))
    allow_pickle: bool = field(
        default=False, metadata=_described("read pytorch_model.bin where there is no safetensors file")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Semantics:
    """Options that change results.

    Attributes:
        precision: precision of matrix products; see `Extractor.from_pretrained`.
        max_length: the user's limit in tokens, or None: each feature's own.
        untrained_pooler: whether a pooler that is stored and was never trained may be used.
        non_finite: what to do about NaN and infinity in results.
        long: what to do about texts over the limit: truncate them, run them in windows, or refuse them.
        truncate_side: which end of a long text is cut off.
        window: tokens of a window, special tokens included, or None: the limit.
        overlap: tokens that neighbouring windows share, or None: an eighth of the window.
        word_pattern: regular expression of a word, or None: characters between white space.
    """

    precision: Precision = field(
        default="float32",
        metadata=_described(
            "precision of matrix products: float32, bfloat16, float16 (CUDA only), float32-high (errors about 1e-4 on "
            "the native backend, TF32 on CUDA) and int8 (native only)"
        ),
    )
    max_length: int | None = field(
        default=None, metadata=_described("tokens a sequence at most", "each feature's own limit")
    )
    untrained_pooler: UntrainedPooler = field(
        default="refuse",
        metadata=_described("pooler_output of a pooler that was stored and never trained: refuse or use"),
    )
    non_finite: NonFinite = field(
        default="raise", metadata=_described("NaN and infinity in results: raise (an error) or keep")
    )
    long: LongTexts = field(
        default="truncate",
        metadata=_described(
            "texts over the limit: truncate (cut and count them), window (run them in windows, of which each token is "
            "taken once) or error"
        ),
    )
    truncate_side: Side = field(default="right", metadata=_described("which end is cut off: right or left"))
    window: int | None = field(default=None, metadata=_described("tokens a window", "the limit"))
    overlap: int | None = field(
        default=None, metadata=_described("tokens that windows share", "an eighth of the window")
    )
    word_pattern: str | None = field(
        default=None,
        metadata=_described("regular expression of a word of words(...)", "what stands between white space"),
    )

    def __post_init__(self) -> None:
        _check_choices(self)
        if self.max_length is not None:
            _check_whole_number("max_length", self.max_length)
        if self.long != "truncate" and self.truncate_side != "right":
            raise OptionError(f"truncate_side {self.truncate_side!r} goes with long 'truncate', not {self.long!r}")
        for name, value, least in (("window", self.window, 1), ("overlap", self.overlap, 0)):
            if value is None:
                continue
            if self.long != "window":
                raise OptionError(f"{name} {value!r} goes with long 'window' (--long window), not {self.long!r}")
            _check_whole_number(name, value, least)
        self.compiled_word_pattern()

    def compiled_word_pattern(self) -> re.Pattern[str] | None:
        """Compile `word_pattern`, or return None where it is None.

        Raises:
            OptionError: the pattern is not a regular expression.
        """
        pattern = self.word_pattern
        if pattern is None:
            return None
        if not isinstance(pattern, str):
            raise OptionError(f"word_pattern {pattern!r}: expected a str, found {type(pattern).__name__}")
        if not pattern:
            raise OptionError(r"word_pattern '' matches no character; expected a regular expression, such as '\w+'")
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
        threads: processor threads of a native run, or None: one for each core that the process may use.
        instruction_set: instruction set of the native kernels, or None: the best one that the processor has, and for
            float32 the best one whose results are equal on all x86-64 processors, which "x86" names.
        batch_tokens: token budget of a batch, or None: the backend's default; a longer text is a batch of its own.
        rules: savings that plans make.
    """

    backend: BackendName = field(
        default="auto",
        metadata=_described(
            "what runs the model: native (this processor), torch, or auto: native where it can, else torch",
            "auto; `layertap explain` says which",
        ),
    )
    device: str = field(default="cpu", metadata=_described("cpu, cuda or cuda:N"))
    threads: int | None = field(
        default=None, metadata=_described("processor threads", "one a core; torch's as it finds best")
    )
    instruction_set: str | None = field(
        default=None,
        metadata=_described(
            "instruction set of the native kernels, as avx2; x86: float32 with the bits of all x86-64 processors",
            "the best there is, for float32 x86; `layertap inspect` lists them",
        ),
    )
    batch_tokens: int | None = field(default=None, metadata=_described("tokens a batch", _BATCH_TOKENS))
    rules: Rules = field(default_factory=Rules, metadata=_described("savings that plans make", "all"))

    def __post_init__(self) -> None:
        _check_choices(self)
        if not isinstance(self.device, str):
            raise OptionError(f"device {self.device!r}: expected a text: 'cpu', 'cuda' or 'cuda:N'")
        if self.threads is not None:
            _check_whole_number("threads", self.threads, most=MOST_THREADS)
        if self.instruction_set is not None and not isinstance(self.instruction_set, str):
            raise OptionError(f"instruction_set {self.instruction_set!r}: expected a name, such as 'avx2'")
        if self.batch_tokens is not None:
            _check_whole_number("batch_tokens", self.batch_tokens)

    def request(self, precision: Precision) -> BackendRequest:
        """Return what these options ask of the backends."""
        return BackendRequest(
            backend=self.backend,
            device=self.device,
            precision=precision,
            threads=self.threads,
            instruction_set=self.instruction_set,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of an extractor.

    Attributes:
        name: its keyword in Python.
        group: which dataclass has it.
        type: type of its values, None aside.
        choices: allowed values, where they can be listed.
        default: value of the option where it is not given.
        description: what it means, in a few words.
        default_description: what the default stands for; "" where its value says so.
    """

    name: str
    group: Group
    type: type
    choices: tuple[str, ...]
    default: Any
    description: str
    default_description: str


_GROUPS: dict[Group, type[ModelReference] | type[Semantics] | type[Runtime]] = {
    "reference": ModelReference,
    "semantics": Semantics,
    "runtime": Runtime,
}


def _options() -> dict[str, Option]:
    options: dict[str, Option] = {}
    for group, owner in _GROUPS.items():
        hints = get_type_hints(owner)
        for own in fields(owner):
            if not own.metadata:
                continue  # the model's name, which is an argument everywhere
            hint = hints[own.name]
            if get_origin(hint) is UnionType:
                hint = next(kind for kind in get_args(hint) if kind is not NoneType)
            choices = get_args(hint) if get_origin(hint) is Literal else ()
            default = own.default if own.default_factory is MISSING else own.default_factory()
            options[own.name] = Option(
                name=own.name,
                group=group,
                type=str if choices else hint,
                choices=choices,
                default=default,
                description=own.metadata["description"],
                default_description=own.metadata["default"],
            )
    return options


OPTIONS: Mapping[str, Option] = _options()
"""All options of an extractor by name, in the order of its signature."""


class HeadOptions(TypedDict):
    """Keywords of what opens a model for a head that is already fitted: where the model is, and how it runs."""

    cache_dir: NotRequired[str | PathLike[str] | None]
    local_files_only: NotRequired[bool]
    allow_pickle: NotRequired[bool]
    backend: NotRequired[BackendName]
    device: NotRequired[str]
    threads: NotRequired[int | None]
    instruction_set: NotRequired[str | None]
    batch_tokens: NotRequired[int | None]
    rules: NotRequired[Rules | None]


class ClassifierOptions(HeadOptions):
    """Keywords of what opens a model with a classification head: the pooler is used as it is, and NaN is refused."""

    revision: NotRequired[str | None]
    precision: NotRequired[Precision]
    max_length: NotRequired[int | None]
    long: NotRequired[LongTexts]
    truncate_side: NotRequired[Side]
    window: NotRequired[int | None]
    overlap: NotRequired[int | None]
    word_pattern: NotRequired[str | None]


class SavingOptions(HeadOptions):
    """Keywords of what opens a model to save a feature of it: its limit, and where the model is and how it runs."""

    revision: NotRequired[str | None]
    max_length: NotRequired[int | None]
    untrained_pooler: NotRequired[UntrainedPooler]


class ExtractorOptions(ClassifierOptions):
    """Keywords of what opens a model for any feature: all options in `OPTIONS`."""

    untrained_pooler: NotRequired[UntrainedPooler]
    non_finite: NotRequired[NonFinite]


def shown_in_help(keywords: type[HeadOptions]) -> Callable[[Function], Function]:
    """Decorate a function that takes `**options: Unpack[keywords]`, so that `help` lists all keywords."""

    def decorated(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        listed = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=OPTIONS[name].default)
            for name in names_of(keywords)
        ]
        function.__signature__ = signature.replace(parameters=[*own, *listed])  # type: ignore[attr-defined]
        return function

    return decorated


def names_of(keywords: type[HeadOptions]) -> tuple[str, ...]:
    """Return the names of a group of keywords, in the order of `OPTIONS`."""
    return tuple(name for name in OPTIONS if name in keywords.__annotations__)


def split_options(
    model: str | PathLike[str] | None,
    keywords: Mapping[str, Any],
    allowed: type[HeadOptions] = ExtractorOptions,
) -> tuple[ModelReference, Semantics, Runtime]:
    """Split keywords into the three groups of options.

    Args:
        model: folder, hub id, or None for the default model.
        keywords: options by name; those left out have their defaults, and so have `rules` given as None.
        allowed: the keywords that the caller takes.

    Raises:
        OptionError: a name that the caller does not take, with the nearest one that it does; a value out of range.
    """
    names = names_of(allowed)
    groups: dict[Group, dict[str, Any]] = {group: {} for group in _GROUPS}
    for name, value in keywords.items():
        if name not in names:
            raise OptionError(f"there is no option {name!r} here; {_nearest(name, names)}")
        if not (name == "rules" and value is None):
            groups[OPTIONS[name].group][name] = value
    if groups["reference"].get("cache_dir") is not None:
        groups["reference"]["cache_dir"] = fspath(groups["reference"]["cache_dir"])
    return (
        ModelReference(name=None if model is None else fspath(model), **groups["reference"]),
        Semantics(**groups["semantics"]),
        Runtime(**groups["runtime"]),
    )


def _nearest(name: str, names: tuple[str, ...]) -> str:
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"options are {', '.join(names)}"


def _check_choices(options: Semantics | Runtime) -> None:
    for own in fields(options):
        option = OPTIONS[own.name]
        value = getattr(options, own.name)
        if option.choices and value not in option.choices:
            raise OptionError(f"{own.name} {value!r}: expected one of {', '.join(option.choices)}")


def _check_whole_number(name: str, value: object, least: int = 1, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name} {value!r}: expected a whole number of at least {least}")
    if most is not None and value > most:
        raise OptionError(f"{name} {value!r}: expected a whole number of at most {most:,}")
