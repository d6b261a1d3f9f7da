"""`Extractor`: an open model with its options, from which users compute features."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from layertap.backends.base import Backend
from layertap.backends.choice import BackendSelection, choose, open_backend
from layertap.backends.facts import BackendName, Precision
from layertap.engine.details import WITH_WORDS, Details, checked_names
from layertap.engine.forecast import MAX_OUTPUT_BYTES, checked_limit
from layertap.engine.identity import ModelIdentity, Provenance
from layertap.engine.length_policy import LengthPolicy
from layertap.engine.opening import OpenedModel, open_reference
from layertap.engine.options import (
    ExtractorOptions,
    LongTexts,
    ModelReference,
    NonFinite,
    Runtime,
    Semantics,
    Side,
    UntrainedPooler,
    split_options,
)
from layertap.engine.pipeline import Pipeline
from layertap.engine.preparing import Preparation
from layertap.engine.progress import progress_on
from layertap.engine.repeats import repeated_share
from layertap.engine.results import Collected, collect
from layertap.engine.streaming import ProgressCallback, Stream
from layertap.engine.texts import Text, as_records, check_iterable
from layertap.engine.variants import InputVariants, lengths_of
from layertap.errors import OptionError
from layertap.features.explain import explain
from layertap.features.expr import Expr
from layertap.features.naming import Features
from layertap.features.plan import Plan
from layertap.features.rules import Rules
from layertap.records import Feature, FeatureSchema
from layertap.text.units import UnitFinder

if TYPE_CHECKING:
    import pyarrow as pa

MOST_PLANS = 100
"""Number of plans that an extractor keeps; planning takes a fifth of the time of a short text."""


class Extractor:
    """A model that is open, with the options to run it. Make one with `from_pretrained`.

    One extractor may be used by any number of threads at once: a thread pool, the executors of asyncio, joblib's
    threading backend. A run sees only those parts of the model that are completely loaded, and its results are those
    of the same call made alone: the same bits on the native backend, equal up to float32 rounding with torch. An error
    in one thread does not affect the others. A `Stream` is an iterator and belongs to one thread at a time.

    An extractor may be used in a forked child process; there torch runs on one thread, and a model on a CUDA device is
    refused. It pickles by reference: the process that unpickles it opens the same folder, or the same commit from the
    hub, with the same options.

    Attributes:
        opened: the model that is open, without its backend.
        reference: which model, in a form that can be opened again.
        files: the checkpoint: config, architecture, weights and other files that belong to it.
        tokenizer: tokenizer of the model.
        lowercased: the tokenizer with lower-casing before every other step, where the model's `sentence_embedding`
            asks for it.
        facts: properties of the model that the feature language needs.
        backend: backend that runs the model.
        selection: which backend was selected, and why.
        semantics: options that change results.
        runtime: options that do not change results.
    """

    def __init__(
        self,
        *,
        opened: OpenedModel,
        backend: Backend,
        selection: BackendSelection,
        semantics: Semantics,
        runtime: Runtime,
    ) -> None:
        self.opened = opened
        self.reference = opened.reference
        self.files = opened.files
        self.tokenizer = opened.tokenizer
        self.lowercased = opened.lowercased
        self.backend = backend
        self.selection = selection
        self.semantics = semantics
        self.runtime = runtime
        self.facts = opened.facts(semantics)
        # Shared by threads without a lock: plans are immutable, and two threads that make the same one at the same
        # time keep either.
        self._plans: dict[str | None, Plan] = {}
        self._pipelines: dict[tuple[int, tuple[str, ...]], Pipeline] = {}

    @classmethod
    def of(cls, opened: OpenedModel, semantics: Semantics, runtime: Runtime) -> Extractor:
        """Make an extractor from a model that is already open.

        Raises:
            BackendError: no installed backend can run the model, or the backend asked for cannot.
            OptionError: the backend does not have the precision, device, instruction set or threads.
        """
        files = opened.files
        selection = choose(files.spec, runtime.request(semantics.precision))
        backend = open_backend(
            selection, files.spec, files.weights, device=runtime.device, precision=semantics.precision
        )
        return cls(opened=opened, backend=backend, selection=selection, semantics=semantics, runtime=runtime)

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        allow_pickle: bool = False,
        precision: Precision = "float32",
        max_length: int | None = None,
        untrained_pooler: UntrainedPooler = "refuse",
        non_finite: NonFinite = "raise",
        long: LongTexts = "truncate",
        truncate_side: Side = "right",
        window: int | None = None,
        overlap: int | None = None,
        word_pattern: str | None = None,
        backend: BackendName = "auto",
        device: str = "cpu",
        threads: int | None = None,
        instruction_set: str | None = None,
        batch_tokens: int | None = None,
        rules: Rules | None = None,
    ) -> Extractor:
        """Open a model. Weights are read when a feature first needs them.

        Args:
            model: a folder, a Hugging Face hub id, or None: all-MiniLM-L6-v2 from the package of the extra `minilm`
                if it is installed, else from the hub.
            revision: branch, tag or commit on the hub; the commit is recorded.
            cache_dir: cache folder of the hub; None: its usual place.
            local_files_only: use the cache and never ask the hub.
            allow_pickle: read a `pytorch_model.bin` where there is no safetensors file (weights only, no code).
            precision: precision of matrix products: "float32", "bfloat16", "float16" (CUDA only), "float32-high"
                (errors about 1e-4 of the values on the native backend; TF32 on CUDA, as in torch's float32 matmul
                precision `high`) and "int8" (native only). Sums over tokens and layers are float32 always.
            max_length: largest number of tokens of a text, special tokens included, for every feature; None: each
                feature's own limit (the model's; for `sentence_embedding` the one in its folder).
            untrained_pooler: "use" returns `pooler_output` of a pooler that was stored and never trained; "refuse"
                raises `UntrainedPoolerError`.
            non_finite: "keep" returns NaN and infinity instead of raising `NonFiniteError`.
            long: treatment of texts over the limit: "truncate" cuts and counts them, "window" runs them in overlapping
                windows, of which each token is taken once, "error" refuses them.
            truncate_side: which end of a text is cut off.
            window: number of tokens of a window, special tokens included; None: the limit.
            overlap: smallest number of tokens that neighbouring windows share; None: an eighth of the window.
            word_pattern: regular expression of a word for `words(...)`; None: a word is a run of characters that are
                not white space.
            backend: "native" (this processor, no torch needed), "torch", or "auto": native where it runs the model,
                else torch; `explain` says which, and why.
            device: "cpu", "cuda" or "cuda:N".
            threads: number of threads of a native run; None: one for each core that the process may use. Threads of
                torch are set by `torch.set_num_threads`.
            instruction_set: instruction set of the native kernels, for example "avx2"; None: the best one that the
                processor has, but no AMX tiles for float32, whose bits are those of every x86-64 processor. `layertap
                inspect` lists them.
            batch_tokens: largest number of packed tokens of a batch; None: 16,384 on the native backend, 4,096 where
                torch runs on a processor, 65,536 on CUDA.
            rules: savings that plans make; None: all.

        Raises:
            ModelNotFoundError: there is no such folder, package or hub id.
            CheckpointError: a file of the checkpoint cannot be used.
            BackendError: no installed backend can run the model, or the backend asked for cannot.
            OptionError: an option is out of range, or the backend does not have it.
        """
        options = ExtractorOptions(
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_pickle=allow_pickle,
            precision=precision,
            max_length=max_length,
            untrained_pooler=untrained_pooler,
            non_finite=non_finite,
            long=long,
            truncate_side=truncate_side,
            window=window,
            overlap=overlap,
            word_pattern=word_pattern,
            backend=backend,
            device=device,
            threads=threads,
            instruction_set=instruction_set,
            batch_tokens=batch_tokens,
            rules=rules,
        )
        return _open(*split_options(model, options))

    def extract(
        self,
        texts: str | Sequence[Text],
        features: Features | None = None,
        *,
        details: bool | Sequence[str] = False,
        progress: bool = False,
        max_output_bytes: int = MAX_OUTPUT_BYTES,
    ) -> Feature | dict[str, Feature]:
        """Compute features of texts.

        Texts that were cut and tokens that the tokenizer does not know are not reported here; the summary of `stream`
        counts them.

        Args:
            texts: one text or N of them: a `str`; a tuple of two, which is a pair; a list of them, which are words
                given one by one; or a `Record`, which may carry spans.
            features: a feature (text or expression), several in a list, or a mapping of names to features; None:
                `sentence_embedding` where the model's folder declares it, else `last_hidden_state.mean`.
            details: details of tokens and words to return beside the features: names from
                `layertap.engine.details.NAMES`, or True for all of them.
            progress: draw a progress bar on standard error.
            max_output_bytes: limit in bytes; larger results are refused before anything runs.

        Returns:
            For one feature its array; for a list or mapping, and with details, a dict of name -> array. An int8
            feature always comes as a dict, with `<name>.scale` beside it. Arrays are float32 [N, ...] unless `astype`
            says otherwise ([N, L, H] with several layers); per token, word or span they are `Ragged` of N, attentions
            `AttentionMaps` of N. For one text (a `str`) they have no N axis: [H], [L, H], [T, H], [T, L, H] (tokens
            first, then layers, as in files), and of attentions [A, T, T] or [L, A, T, T].

        Raises:
            UsageError: a feature does not parse or the model does not have it, or `texts` is not a list of texts.
            OptionError: results would exceed `max_output_bytes`.
            InputError: an item is not a text.
            NonFiniteError: a result holds NaN or infinity.
        """
        plan = self.plan(features)
        several = bool(details) or not (features is None or isinstance(features, str | Expr))
        several_texts = [texts] if isinstance(texts, str) else texts
        check_iterable(several_texts)
        listed = list(as_records(several_texts))
        pipeline = self.pipeline(plan, details)
        pipeline.refuse_past(checked_limit(max_output_bytes), listed)
        with progress_on(sys.stderr, shown=progress, total=len(listed)) as on_progress:
            batches = pipeline.run(listed, pipeline.new_summary(), on_progress)
            results: Collected = collect(batches, pipeline.schemas, num_records=len(listed))
        if isinstance(texts, str):
            results = {name: value[0] for name, value in results.items()}
        return results if several or len(results) > 1 else next(iter(results.values()))

    def stream(
        self,
        records: Iterable[Text],
        features: Features | None = None,
        *,
        details: bool | Sequence[str] = False,
        on_progress: ProgressCallback | None = None,
    ) -> Stream:
        """Compute features of a stream of any length in bounded memory.

        Args:
            records: texts as in `extract`, taken as they are needed.
            features, details: as in `extract`.
            on_progress: function called after every packed batch with the records finished by it and the tokens of
                its texts.

        Returns:
            An iterator of `FeatureBatch`: consecutive records in input order with their features. Its `summary` counts
            what has been done so far.
        """
        check_iterable(records)
        pipeline = self.pipeline(self.plan(features), details)
        summary = pipeline.new_summary()
        return Stream(pipeline.run(as_records(records), summary, on_progress), summary)

    def plan(self, features: Features | None = None) -> Plan:
        """Return the plan that computes these features, or refuse features that the model does not have."""
        if not (features is None or isinstance(features, str)):
            return self._planned(features)
        plan = self._plans.get(features)
        if plan is None:
            plan = self._planned(features)
            if len(self._plans) < MOST_PLANS:
                self._plans[features] = plan
        return plan

    def _planned(self, features: Features | None) -> Plan:
        return self.opened.plan(features, self.semantics, self.runtime.rules)

    def explain(
        self,
        features: Features | None = None,
        *,
        texts: Sequence[Text] | None = None,
        num_records: int | None = None,
    ) -> str:
        """Describe the plan for these features as text, with estimates of operations and bytes.

        Args:
            features: as in `extract`.
            texts: texts whose lengths are taken; None: texts of 64 tokens are assumed.
            num_records: number of all texts, for totals; None: the number of `texts`.
        """
        records = list(as_records(texts)) if texts else []
        lengths = lengths_of(self.tokenizer, records)
        return explain(
            self.plan(features),
            self.facts,
            lengths=lengths or 64,
            num_records=num_records if num_records is not None or texts is None else len(texts),
            precision=self.semantics.precision,
            backend=str(self.selection),
            repeated=repeated_share(records, lengths),
        )

    def schema(
        self, features: Features | None = None, *, details: bool | Sequence[str] = False
    ) -> tuple[FeatureSchema, ...]:
        """Return the name, dtype and shape of every result, in output order."""
        return self.pipeline(self.plan(features), details).schemas

    @property
    def column_types(self) -> Mapping[str, pa.DataType | None]:
        """Arrow types of the columns that results add to the records: none."""
        return {}

    @property
    def batch_tokens(self) -> int:
        """Largest number of packed tokens of a batch."""
        return self.runtime.batch_tokens or self.backend.batch_tokens

    def with_batch_tokens(self, batch_tokens: int) -> Extractor:
        """Return an extractor with another token budget, which shares the open model with this one."""
        return Extractor(
            opened=self.opened,
            backend=self.backend,
            selection=self.selection,
            semantics=self.semantics,
            runtime=replace(self.runtime, batch_tokens=batch_tokens),
        )

    def provenance(self, features: Features | None = None) -> Provenance:
        """Return everything that results depend on, for the files that hold them: no time, host or path."""
        return Provenance.of(
            self.plan(features),
            ModelIdentity.of(self.files),
            self.semantics,
            backend=self.backend.name,
            instruction_set=self.backend.instruction_set,
        )

    def with_semantics(self, semantics: Semantics) -> Extractor:
        """Return an extractor with other options that shares the open model and its weights.

        Raises:
            OptionError: another precision, for which the weights would have to be read again.
        """
        if semantics.precision != self.semantics.precision:
            raise OptionError(
                f"precision {semantics.precision!r}: the model is open in {self.semantics.precision}; open it again"
            )
        return Extractor(
            opened=self.opened,
            backend=self.backend,
            selection=self.selection,
            semantics=semantics,
            runtime=self.runtime,
        )

    def pipeline(self, plan: Plan, details: bool | Sequence[str] = False) -> Pipeline:
        """Return the two steps of a run, `prepare` and `run_chunk`, for programs that schedule texts themselves.

        Args:
            plan: plan of this extractor.
            details: as in `extract`.
        """
        names = checked_names(details)
        known = self._pipelines.get((id(plan), names))
        if known is not None and known.plan is plan:
            return known
        made = self._make_pipeline(plan, names)
        if len(self._pipelines) < MOST_PLANS and any(plan is own for own in self._plans.values()):
            self._pipelines[id(plan), names] = made
        return made

    def _make_pipeline(self, plan: Plan, names: tuple[str, ...]) -> Pipeline:
        clash = [name for name in names if name in plan.features]
        if clash:
            raise OptionError(f"details: {clash[0]!r} is the name of a feature; give the feature another")
        finder = UnitFinder(
            words="words" in plan.units or not WITH_WORDS.isdisjoint(names),
            spans="spans" in plan.units,
            pattern=self.semantics.compiled_word_pattern(),
        )
        offsets = finder.words or finder.spans or "token_offsets" in names or self.semantics.long == "window"
        variants = InputVariants(
            inputs=plan.inputs, tokenizer=self.tokenizer, lowercased=self.lowercased, offsets=offsets
        )
        cut = self.semantics.long == "truncate" and self.semantics.truncate_side == "right"
        return Pipeline(
            plan=plan,
            spec=self.files.spec,
            preparation=Preparation(variants=variants, length_policy=LengthPolicy.of(self.semantics), finder=finder),
            prompt_rows=tuple(variants.prompt_rows(number, cut=cut) for number in range(len(plan.inputs))),
            details=Details(names=names, tokenizer=self.tokenizer, detail_input=variants.detail_input),
            backend=self.backend,
            batch_tokens=self.batch_tokens,
            keep_non_finite=self.semantics.non_finite == "keep",
        )

    def __reduce__(self) -> tuple[Callable[..., Extractor], tuple[ModelReference, Semantics, Runtime]]:
        return _open, (self.reference, self.semantics, self.runtime)

    def __repr__(self) -> str:
        return (
            f"Extractor({self.files.checkpoint.name!r}, {self.files.architecture.name}, "
            f"{self.files.spec.num_hidden_layers} layers, {self.semantics.precision}, {self.backend.name} on "
            f"{self.runtime.device})"
        )


def _open(reference: ModelReference, semantics: Semantics, runtime: Runtime) -> Extractor:
    return Extractor.of(open_reference(reference), semantics, runtime)
