"""Builds a `tokenizers.Tokenizer` from a folder, as transformers 5 does.

In transformers 5 the tokenizer's *class* decides. The classes in `styles.STYLES` set their own normalizer,
pre-tokenizer and template; so a `do_lower_case` that disagrees with `tokenizer.json` wins over it, and so does its
default, true. Any other class uses `tokenizer.json` as it stands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from layertap.errors import TokenizerError
from layertap.git_lfs import pointer_in_place
from layertap.models.config import short
from layertap.stored_file import read_whole
from layertap.text.guard import guarded
from layertap.text.pipeline import check_pipeline
from layertap.text.settings import CONFIG_FILE, TokenizerSettings, read_settings
from layertap.text.styles import AS_IT_STANDS, CLASS_OF, GENERIC, PYTHON_ONLY, STYLES, Setup, Style

TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_BYTES = 256 << 20
"""Bytes of a `tokenizer.json` at most; those of 250,000 tokens have 17 MB."""

SENTENCEPIECE_ENDINGS = (".model", ".spm")
CONVERT = (
    "convert it once with transformers: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) writes the "
    "tokenizer.json that layertap reads"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BuiltTokenizer:
    """Tokenizer built from a folder, with what its files say.

    Attributes:
        backend: with truncation and padding off.
        special_tokens: named special tokens (`cls_token` -> `[CLS]`).
        settings: what the JSON files said.
        files: every file read, the vocabulary's first.
        notes: what a person should know, such as a setting that replaced one of `tokenizer.json`.
    """

    backend: Tokenizer
    special_tokens: Mapping[str, str]
    settings: TokenizerSettings
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def build(folder: Path, *, model_type: str, tokenizer_class: str | None) -> BuiltTokenizer:
    """Builds the tokenizer of a folder; arguments and errors as `TextTokenizer.load`."""
    settings = read_settings(folder)
    name = settings.tokenizer_class or (tokenizer_class or "").removesuffix("Fast") or None
    if model_type in AS_IT_STANDS:
        name = GENERIC[0]
    if name in PYTHON_ONLY:
        raise TokenizerError(
            f"{folder}: tokenizer_class {name} runs in Python only and is not supported ({PYTHON_ONLY[name]}); "
            f"to use a {TOKENIZER_FILE} as it stands, say PreTrainedTokenizerFast in {CONFIG_FILE}"
        )
    path = folder / TOKENIZER_FILE
    if path.is_file():
        class_name = name or CLASS_OF.get(model_type, "")
        return guarded(f"{path}: not usable as a tokenizer", lambda: _from_tokenizer_json(path, settings, class_name))
    if name is None or name in GENERIC:
        name = CLASS_OF.get(model_type, f"model_type {model_type}")
    class_name = name
    return guarded(f"{folder}: not usable as a tokenizer", lambda: _from_vocabulary(folder, settings, class_name))


def _from_tokenizer_json(path: Path, settings: TokenizerSettings, class_name: str) -> BuiltTokenizer:
    content = read_whole(path, error=TokenizerError, limit=TOKENIZER_BYTES)
    if pointer := pointer_in_place(path, content):
        raise TokenizerError(pointer)
    backend = Tokenizer.from_buffer(content)
    backend.no_truncation()
    backend.no_padding()
    style = STYLES.get(class_name)
    if style is None or not isinstance(backend.model, style.model):
        setup = _setup(settings, None, backend)
        _add_tokens(backend, setup)
        return _finish(backend, setup, (path,))
    setup = _setup(settings, style, backend)
    before = _states(backend)
    _apply(style, backend, setup, path)
    notes = tuple(
        f"{path.name}: its {part} is replaced by that of transformers' {class_name}, set from {CONFIG_FILE}"
        for part, state in _states(backend).items()
        if state != before[part]
    )
    return _finish(backend, setup, (path,), notes)


def _from_vocabulary(folder: Path, settings: TokenizerSettings, class_name: str) -> BuiltTokenizer:
    style = STYLES.get(class_name)
    if style is None or style.from_vocabulary is None:
        raise TokenizerError(_nothing_to_build_from(folder, class_name, ()))
    paths = tuple(folder / name for name in style.vocabulary_files)
    if not all(path.is_file() for path in paths):
        raise TokenizerError(_nothing_to_build_from(folder, class_name, style.vocabulary_files))
    read = style.from_vocabulary
    backend = guarded(f"{' and '.join(map(str, paths))}: not usable as a tokenizer", lambda: read(paths))
    setup = _setup(settings, style, backend)
    _apply(style, backend, setup, paths[0])
    return _finish(backend, setup, paths)


def _nothing_to_build_from(folder: Path, class_name: str, needed: tuple[str, ...]) -> str:
    present = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    pieces = [name for name in present if name.endswith(SENTENCEPIECE_ENDINGS)]
    if pieces:
        return f"{folder}: a SentencePiece model ({pieces[0]}) without a {TOKENIZER_FILE}; {CONVERT}"
    if needed:
        return f"{folder}: no {TOKENIZER_FILE}, and not the {' and '.join(needed)} of {class_name} either"
    return f"{folder}: no {TOKENIZER_FILE}, and {class_name} cannot be built from other files here; {CONVERT}"


def _setup(settings: TokenizerSettings, style: Style | None, backend: Tokenizer) -> Setup:
    named = {name: token.content for name, token in settings.named.items()}
    if style is None:
        return Setup(settings=settings, special=named, extra=settings.extra)
    # transformers would give the style's extra tokens new ids where the vocabulary lacks them
    extra = tuple(AddedToken(token, special=True) for token in style.extra if backend.token_to_id(token) is not None)
    return Setup(
        settings=settings,
        special={**style.defaults, **named},
        extra=settings.extra or extra,
        mask_lstrip=style.mask_lstrip,
    )


def _apply(style: Style, backend: Tokenizer, setup: Setup, path: Path) -> None:
    style.set_pipeline(backend, setup)
    declared = {token.content for token in setup.settings.declared.values()}
    for name in ("unk_token", "cls_token", "sep_token", "bos_token", "eos_token"):
        token = setup.special.get(name) if name in style.defaults else None
        # Without this, the library would give a missing token a new id past the model's table.
        if token is not None and token not in declared and backend.token_to_id(token) is None:
            raise TokenizerError(
                f"{path}: {name} {short(token)} is not in the vocabulary; if the vocabulary spells it differently, "
                f"say so in {CONFIG_FILE}"
            )
    _add_tokens(backend, setup)
    backend.post_processor = style.template(backend, setup)


def _add_tokens(backend: Tokenizer, setup: Setup) -> None:
    """Adds what the settings declare and the vocabulary lacks, in transformers' order: ids, then names."""
    settings, special = setup.settings, setup.special
    contents = set(special.values())
    tokens = [*backend.get_added_tokens_decoder().values(), *settings.declared.values()]
    for token in tokens:
        # a named special token is special even where its entry does not say so
        token.special = token.special or token.content in contents
    known = {token.content for token in tokens}
    # a content that several names share is added once for each: the last one's flags hold
    candidates = (*(_named_token(name, setup) for name in special), *setup.extra)
    tokens += [token for token in candidates if token.content not in known]
    new = {i: token for i, token in settings.declared.items() if backend.token_to_id(token.content) is None}
    backend.add_tokens(tokens)
    for token_id, token in new.items():
        # The library hands out the next free id, whatever was declared. (Of a token that the vocabulary holds, the
        # vocabulary's id is right, as for transformers: settings are often copied from a relative.)
        if (actual_id := backend.token_to_id(token.content)) != token_id:
            raise TokenizerError(
                f"{settings.files[0].parent}: token {short(token.content)} is declared as id {token_id}, and the "
                f"vocabulary leads to {actual_id}; vocabulary and settings are not of one tokenizer"
            )


def _named_token(name: str, setup: Setup) -> AddedToken:
    if name == "mask_token" and setup.mask_lstrip:
        return AddedToken(setup.special[name], lstrip=True, special=True)
    return setup.settings.named.get(name) or AddedToken(setup.special[name], special=True)


def _finish(backend: Tokenizer, setup: Setup, paths: tuple[Path, ...], notes: tuple[str, ...] = ()) -> BuiltTokenizer:
    backend.encode_special_tokens = setup.settings.flag("split_special_tokens", False)
    check_pipeline(backend, paths[0])
    return BuiltTokenizer(
        backend=backend,
        special_tokens=setup.special,
        settings=setup.settings,
        files=(*paths, *setup.settings.files),
        notes=notes,
    )


def _states(backend: Tokenizer) -> dict[str, str]:
    parts = {"normalizer": backend.normalizer, "pre_tokenizer": backend.pre_tokenizer}
    return {name: "" if part is None else str(part.__getstate__()) for name, part in parts.items()}
