"""Run a model with layertap and with transformers on the same texts, and compare all outputs.

Both are measured against transformers in float64: layertap in the precision at hand, and transformers in the same
precision or the nearest that it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from layertap.backends.choice import choose, require_backend
from layertap.backends.facts import BackendRequest, row_of
from layertap.backends.here import installed, require_torch
from layertap.checkpoints.keys import to_stored
from layertap.engine.extractor import Extractor
from layertap.engine.identity import ModelIdentity
from layertap.engine.opening import OpenedModel
from layertap.engine.options import Precision, Runtime, Semantics
from layertap.errors import BackendError, CheckpointError, OptionError
from layertap.records import Array, Ragged
from layertap.text.encoded import EncodedText
from layertap.verify.certificate import Certificate, Figures, Output, Setup, SetupResult, TextFacts
from layertap.verify.measure import Difference, float32_bound
from layertap.verify.reference import IntRows, Outputs, Reference, quiet_transformers, require_transformers
from layertap.verify.texts import built_in_texts, hash_of
from layertap.version import __version__

LONGEST = 1024
"""Default limit in tokens for models that take more: attention in float64 is slow."""

TOKENS_AT_ONCE = 4096
"""Tokens of a group of texts that are compared at a time, which bounds the memory for hidden states."""

SMALL_BATCH = 64
"""Smallest token budget of a batch of shuffled texts, low so that a text shares its batch with other texts."""

SHUFFLING = 0
POOLER = ("pooler.",)

OnStep = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Texts:
    """Texts to run a model on, and their source.

    Attributes:
        source: "built-in", or the name of the user's file.
        texts: the texts; None for the built-in ones.
    """

    source: str = "built-in"
    texts: tuple[str, ...] | None = None


def available_setups(
    devices: Sequence[str] | None = None,
    precisions: Sequence[str] | None = None,
    backends: Sequence[str] | None = None,
) -> list[Setup]:
    """Lists the setups of this machine: every backend with its devices and precisions.

    Args:
        devices: names of the devices to include; None for all.
        precisions: precisions to include; None for all that a backend has on a device.
        backends: names of the backends to include; None for all.

    Raises:
        BackendError: torch or a named backend is not installed.
        OptionError: this machine does not have a device, or no included backend has a precision.
    """
    require_torch()
    here = {backend.name: backend for backend in installed()}
    for name in backends or ():
        require_backend(name)
    names = _names([device for backend in here.values() for device in backend.devices])
    unknown = [device for device in devices or () if device not in names]
    if unknown:
        raise OptionError(f"--device {unknown[0]}: this machine has {', '.join(dict.fromkeys(names.values()))}")
    setups: dict[Setup, None] = {}
    for backend in here.values() if backends is None else [here[name] for name in backends]:
        for device in backend.devices if devices is None else [names[device] for device in devices]:
            if device not in backend.devices:
                continue
            has = row_of("torch", "cuda").precisions if device != "cpu" else backend.precisions
            setups |= {
                Setup(backend=backend.name, device=device, precision=precision): None
                for precision in (has if precisions is None else precisions)
                if precision in has
            }
    missing = [precision for precision in precisions or () if precision not in {setup.precision for setup in setups}]
    if missing:
        raise OptionError(f"--precision {missing[0]}: no backend and device that is compared here has it")
    return list(setups)


def runnable(opened: OpenedModel, setups: Sequence[Setup]) -> tuple[list[Setup], dict[str, str]]:
    """Separates the setups that can run a model from the backends that cannot, and gives the reason of each."""
    able, refused = [], {}
    for setup in setups:
        try:
            choose(
                opened.files.spec, BackendRequest(backend=setup.backend, device=setup.device, precision=setup.precision)
            )
        except BackendError as refusal:
            refused[setup.backend] = str(refusal)
        else:
            able.append(setup)
    return able, refused


def _names(devices: Iterable[str]) -> dict[str, str]:
    """Maps the accepted spellings of devices to their names: `cuda` is the first device of its kind."""
    first = {device.partition(":")[0]: device for device in reversed(list(devices))}
    return first | {device: device for device in devices}


def verify(
    opened: OpenedModel,
    setups: Sequence[Setup],
    *,
    texts: Texts | None = None,
    max_length: int | None = None,
    reference_folder: Path | None = None,
    threads: int | None = None,
    on_step: OnStep = lambda _: None,
) -> Certificate:
    """Compares every hidden state, before and after a final norm, and the pooler's output with transformers.

    Args:
        opened: the opened model.
        setups: ways to run the model; each is compared.
        texts: texts to run the model on; None for the built-in ones.
        max_length: maximum number of tokens of a text; None for the model's limit, but at most `LONGEST`.
        reference_folder: folder that transformers loads the model from; None for the model's own folder.
        threads: number of threads of native runs; None for one per core.
        on_step: called before each step with its description.

    Raises:
        BackendError: transformers or torch is not installed.
        CheckpointError: transformers cannot load the model, or gives outputs of other shapes.
        OptionError: the model does not have this limit, or this machine does not have a setup.
    """
    versions = _versions()
    semantics = Semantics(max_length=max_length)
    limit = opened.facts(semantics).limit(None)
    if max_length is None:
        limit = min(limit, LONGEST)
    chosen = _texts(opened, texts or Texts(), limit)
    checkpoint, spec = opened.files.checkpoint, opened.files.spec
    if opened.files.adapter is not None and reference_folder is None and find_spec("peft") is None:
        raise BackendError(
            f"{checkpoint.folder}: transformers needs PEFT to apply the adapter: pip install peft; without it there is "
            "nothing to compare with"
        )
    folder = reference_folder or checkpoint.folder
    on_step("loading the model with transformers")
    reference = Reference.load(
        folder,
        without=POOLER if opened.files.pooler == "absent" else (),
        final_norm=_final_norm(opened),
    )
    encoded = [text.limited(limit) for text in opened.tokenizer.encode(chosen)]
    comparisons = [_Comparison(opened, setup, limit, threads) for setup in setups]
    references = {(setup.reference_precision, setup.device): _ReferenceError(reference, setup) for setup in setups}
    exact = reference.copy("float64")
    done = 0
    for group in groups(encoded, TOKENS_AT_ONCE):
        on_step(f"texts {done + 1} to {done + len(group)} of {len(chosen)}: transformers in float64")
        ids = [text.input_ids for text in encoded[done : done + len(group)]]
        expected = exact.outputs(ids)
        for (precision, _), reference_error in references.items():
            on_step(f"texts {done + 1} to {done + len(group)} of {len(chosen)}: transformers in {precision}")
            reference_error.add(ids, expected)
        for comparison in comparisons:
            on_step(f"texts {done + 1} to {done + len(group)} of {len(chosen)}: {comparison.setup}")
            comparison.add(chosen[done : done + len(group)], expected)
        done += len(group)
    on_step("comparing token ids")
    identity = ModelIdentity.of(opened.files)
    return Certificate(
        model=identity.name,
        commit=identity.commit,
        architecture=identity.architecture,
        reference_class=type(reference.module).__name__,
        versions=versions,
        sha256=dict(identity.sha256),
        pooler=opened.files.pooler if spec.pooler else "none",
        last_normed=spec.num_hidden_layers if spec.final_norm else None,
        max_length=opened.facts(Semantics()).max_length,
        texts=TextFacts(
            source=(texts or Texts()).source,
            sha256=hash_of(chosen),
            lengths=tuple(map(len, encoded)),
            max_length=limit,
            **compare_ids(folder, chosen, encoded, limit),
        ),
        results=tuple(
            comparison.result(references[comparison.setup.reference_precision, comparison.setup.device].differences)
            for comparison in comparisons
        ),
    )


def _final_norm(opened: OpenedModel) -> str | None:
    """Returns the name of the final norm in the class of transformers, or None if the model has none."""
    if not opened.files.spec.final_norm:
        return None
    return to_stored("encoder.final_norm.weight", opened.files.architecture.class_rules).removesuffix(".weight")


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    require_torch()
    return {"layertap": __version__, "transformers": require_transformers(), "torch": version("torch")}


def _texts(opened: OpenedModel, texts: Texts, limit: int) -> list[str]:
    if texts.texts is None:
        return built_in_texts(lambda text: len(opened.tokenizer.encode([text])[0]), limit)
    if not texts.texts:
        raise OptionError(f"{texts.source}: contains no text; give a file of at least one text")
    return list(texts.texts)


def groups(encoded: Sequence[EncodedText], max_tokens: int) -> Iterator[Sequence[EncodedText]]:
    """Groups consecutive texts with at most `max_tokens` tokens together; a longer text is a group of its own."""
    begin = tokens = 0
    for end, text in enumerate(encoded):
        if end > begin and tokens + len(text) > max_tokens:
            yield encoded[begin:end]
            begin, tokens = end, 0
        tokens += len(text)
    if begin < len(encoded):
        yield encoded[begin:]


def compare_ids(folder: Path, texts: Sequence[str], encoded: Sequence[EncodedText], max_length: int) -> dict[str, Any]:
    """Compares the ids of layertap with those of transformers' tokenizer, and returns fields of `TextFacts`.

    Where they differ, `tokenizer.json` is read by itself, too: transformers chooses a class of tokenizer by the files
    and builds its parts anew, so that the file and the class may say different things.
    """
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    from layertap.text.build import TOKENIZER_FILE  # it imports the library, too

    # Lone surrogates are U+FFFD to layertap, and an error to transformers.
    clean = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            expected = tokenizer(clean, truncation=True, max_length=max_length)["input_ids"]
    except Exception:  # transformers raises errors of any kind for tokenizers that it does not know
        return {"different_ids": None}
    different = _different(encoded, expected)
    own_ids = False
    if different and (folder / TOKENIZER_FILE).is_file():
        alone = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        alone.no_padding()
        alone.enable_truncation(max_length)
        own_ids = not _different(encoded, [encoding.ids for encoding in alone.encode_batch(clean)])
    return {"different_ids": different, "own_ids": own_ids, "reference_class": type(tokenizer).__name__}


def _different(encoded: Sequence[EncodedText], expected: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Returns the numbers of the texts with other ids than expected."""
    pairs = zip(encoded, expected, strict=True)
    return tuple(i for i, (text, ids) in enumerate(pairs) if text.input_ids.tolist() != list(ids))


class _ReferenceError:
    """Error of transformers in one precision against itself in float64, for each output."""

    def __init__(self, reference: Reference, setup: Setup) -> None:
        self._reference = reference.copy(setup.reference_precision, setup.device)
        self.differences: list[Difference] = []

    def add(self, ids: IntRows, exact: Outputs) -> None:
        """Runs one group of texts and adds its errors."""
        actual, expected = _all_arrays(self._reference.outputs(ids)), _all_arrays(exact)
        self.differences = self.differences or [Difference() for _ in expected]
        _add(self.differences, actual, expected)


def _all_arrays(outputs: Outputs) -> list[Array]:
    more = (outputs.unnormed, outputs.pooled)
    return [*outputs.states, *(array for array in more if array is not None)]


class _Comparison:
    """Comparison of one setup with transformers, a group of texts at a time."""

    def __init__(self, opened: OpenedModel, setup: Setup, limit: int, threads: int | None) -> None:
        self.setup = setup
        semantics = Semantics(
            precision=cast(Precision, setup.precision), max_length=limit, untrained_pooler="use", non_finite="keep"
        )
        runtime = Runtime(
            backend=cast(Any, setup.backend),
            device=setup.device,
            threads=threads if setup.backend == "native" else None,
        )
        self._packed = Extractor.of(opened, semantics, runtime)
        self._alone, self._shuffled = (
            Extractor(
                opened=opened,
                backend=self._packed.backend,
                selection=self._packed.selection,
                semantics=semantics,
                runtime=replace(runtime, batch_tokens=batch_tokens),
            )
            for batch_tokens in (1, max(SMALL_BATCH, limit // 2))
        )
        self._layers = opened.files.spec.num_hidden_layers
        self._features = {"states": "hidden_states[:]"}
        self._names = [f"hidden_states[{i}]" for i in range(self._layers + 1)]
        if opened.files.spec.final_norm:
            self._features["unnormed"] = f"hidden_states[{self._layers}].unnormed"
        if self._packed.facts.usable_pooler:
            self._features["pooler"] = "pooler_output"
        self._names += [feature for name, feature in self._features.items() if name != "states"]
        self._differences = [Difference() for _ in self._names]
        self._apart = {"alone": Difference(), "shuffled": Difference()}

    def add(self, texts: Sequence[str], exact: Outputs) -> None:
        """Runs one group of texts and adds its errors; `exact` are the outputs of transformers in float64."""
        order = np.random.default_rng(SHUFFLING).permutation(len(texts))
        packed = self._run(self._packed, texts, order=np.arange(len(texts)))
        arrangements = {
            "alone": self._run(self._alone, texts, order=np.arange(len(texts))),
            "shuffled": self._run(self._shuffled, texts, order=order),
        }
        expected = self._arrays(exact)
        for actual in (packed, *arrangements.values()):
            _add(self._differences, actual, expected)
        for name, actual in arrangements.items():
            for one, other in zip(actual, packed, strict=True):
                self._apart[name].add(one / _rms(other), other / _rms(other))

    def _run(self, extractor: Extractor, texts: Sequence[str], order: npt.NDArray[np.int64]) -> list[Array]:
        """Runs the texts in this order and returns every output in input order: states [T, H], pooler [N, H]."""
        features = extractor.extract([texts[i] for i in order], self._features)
        assert isinstance(features, dict)
        states, place = features["states"], np.argsort(order)
        assert isinstance(states, Ragged)
        by_layer = np.concatenate([states[int(i)] for i in place]).swapaxes(0, 1)  # from [T, L, H]
        outputs: list[Array] = list(by_layer)
        if "unnormed" in self._features:
            unnormed = features["unnormed"]
            assert isinstance(unnormed, Ragged)
            outputs.append(np.concatenate([unnormed[int(i)] for i in place]))
        if "pooler" in self._features:
            pooled = features["pooler"]
            assert isinstance(pooled, np.ndarray)
            outputs.append(pooled[place])
        return outputs

    def _arrays(self, outputs: Outputs) -> list[Array]:
        """Returns the outputs of transformers in the order of `_names`."""
        arrays: list[Array] = list(outputs.states)
        if outputs.unnormed is not None:
            arrays.append(outputs.unnormed)
        if "pooler" in self._features and outputs.pooled is not None:
            arrays.append(outputs.pooled)
        return arrays

    def result(self, own: Sequence[Difference]) -> SetupResult:
        """Returns the figures of all groups.

        Args:
            own: the errors of transformers; it may have one output more, the pooler's.
        """
        return SetupResult(
            setup=self.setup,
            instruction_set=self._packed.backend.instruction_set,
            outputs=tuple(
                Output(name=name, layertap=Figures.of(difference), transformers=Figures.of(reference))
                for name, difference, reference in zip(self._names, self._differences, own, strict=False)
            ),
            alone=Figures.of(self._apart["alone"]),
            shuffled=Figures.of(self._apart["shuffled"]),
            base_bound=float32_bound(self._layers),
        )


def _add(differences: Sequence[Difference], actual: Sequence[Array], expected: Sequence[Array]) -> None:
    if [array.shape for array in actual] != [array.shape for array in expected]:
        raise CheckpointError(
            f"layertap gives {_shapes(actual)} and transformers {_shapes(expected)}: they do not load the same model"
        )
    for difference, one, other in zip(differences, actual, expected, strict=True):
        difference.add(one, other)


def _shapes(arrays: Sequence[Array]) -> str:
    shapes = Counter("x".join(map(str, array.shape)) for array in arrays)
    return " and ".join(f"{count} of {shape}" for shape, count in shapes.items())


def _rms(array: Array) -> float:
    rms = float(np.sqrt(np.square(array, dtype=np.float64).mean()))
    return rms if np.isfinite(rms) and rms > 0 else 1.0
