"""Reads the JSON files beside a vocabulary: `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`.

They are read in transformers' order of precedence (`PreTrainedTokenizerBase._from_pretrained`, 5.x): a config with
`added_tokens_decoder` is complete in itself; without it the two older files are read too, and
`special_tokens_map.json` wins over the config.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from layertap.errors import TokenizerError
from layertap.git_lfs import pointer_in_place
from layertap.models.config import short
from layertap.stored_file import read_whole

CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
ADDED_TOKENS_FILE = "added_tokens.json"

# The order in which transformers adds those that the vocabulary lacks.
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
ADDED_TOKEN_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenizerSettings:
    """The settings of a folder's tokenizer.

    Attributes:
        tokenizer_class: name of transformers' class without its `Fast`, or None where no file says.
        named: special tokens by their name in transformers (`cls_token`), as far as a file says.
        extra: further special tokens.
        declared: id -> token of `added_tokens_decoder` or `added_tokens.json`, in the order of their ids.
        values: the parsed `tokenizer_config.json`; empty where there is none.
        files: the files read.
    """

    tokenizer_class: str | None
    named: Mapping[str, AddedToken]
    extra: tuple[AddedToken, ...]
    declared: Mapping[int, AddedToken]
    values: Mapping[str, Any]
    files: tuple[Path, ...]

    def flag(self, name: str, default: bool) -> bool:
        """Return a field of `tokenizer_config.json` that is true or false."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise TokenizerError(f"{self.files[0]}: {name}: expected true or false, found {short(value)}")
        return value

    def optional_flag(self, name: str) -> bool | None:
        """Return a field that is true, false or null (also where it is absent)."""
        return None if self.values.get(name) is None else self.flag(name, False)


def read_settings(folder: Path) -> TokenizerSettings:
    """Reads the JSON settings beside a vocabulary; every file may be absent.

    Raises:
        TokenizerError: a file that is not a JSON object, or a field of the wrong type, naming both.
    """
    config_file = folder / CONFIG_FILE
    # `files` names the config first, `flag` relies on that
    files = [config_file] if config_file.is_file() else []
    values = read_json_object(config_file) if files else {}
    merged: dict[str, tuple[Any, Path]] = {key: (value, config_file) for key, value in values.items()}
    declared: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in values:
        declared = _declared(values["added_tokens_decoder"], config_file)
    else:
        map_file, added_file = folder / SPECIAL_TOKENS_FILE, folder / ADDED_TOKENS_FILE
        if map_file.is_file():
            files.append(map_file)
            merged |= {key: (value, map_file) for key, value in read_json_object(map_file).items()}
        if added_file.is_file():
            files.append(added_file)
            declared = _added(read_json_object(added_file), added_file, _special_contents(merged))
    tokenizer_class = values.get("tokenizer_class")
    if tokenizer_class is not None and not isinstance(tokenizer_class, str):
        raise TokenizerError(f"{config_file}: tokenizer_class: expected a name, found {short(tokenizer_class)}")
    return TokenizerSettings(
        tokenizer_class=tokenizer_class.removesuffix("Fast") if tokenizer_class else None,
        named=_named(merged),
        extra=_extra(merged),
        declared=dict(sorted(declared.items())),
        values=values,
        files=tuple(files),
    )


def read_json_object(path: Path) -> dict[str, Any]:
    """Return a JSON file that holds one object; the error names file, line and column."""
    data = read_whole(path, error=TokenizerError)
    if pointer := pointer_in_place(path, data):
        raise TokenizerError(pointer)
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        raise TokenizerError(
            f"{path}: not valid JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, or deeply nested
        raise TokenizerError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise TokenizerError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _token(value: Any, field: str, path: Path, *, special: bool | None = None) -> AddedToken:
    if _is_content(value):
        return AddedToken(value, special=True)
    if isinstance(value, dict) and _is_content(value.get("content")):
        flags = {flag: value[flag] for flag in ADDED_TOKEN_FLAGS if flag in value}
        if all(isinstance(flag, bool) for flag in flags.values()):
            if special is not None:
                flags["special"] = special
            return AddedToken(value["content"], **flags)
    shown = field if field.isprintable() else short(field)
    raise TokenizerError(f"{path}: {shown}: expected a token, found {short(value)}")


def _is_content(value: Any) -> bool:
    """Return a text that is not empty and, without lone surrogates, one that the library takes."""
    return isinstance(value, str) and value != "" and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _named(merged: Mapping[str, tuple[Any, Path]]) -> dict[str, AddedToken]:
    others = [key for key in merged if key.endswith("_token") and key not in NAMED_TOKENS]
    named: dict[str, AddedToken] = {}
    for name in (*NAMED_TOKENS, *others):
        value, path = merged.get(name, (None, Path()))
        # other names that end alike hold flags (`add_bos_token`)
        if isinstance(value, str | dict) or (name in NAMED_TOKENS and value is not None):
            named[name] = _token(value, name, path, special=True)
    return named


def _extra(merged: Mapping[str, tuple[Any, Path]]) -> tuple[AddedToken, ...]:
    for name in ("extra_special_tokens", "additional_special_tokens"):
        if not merged.get(name, (None,))[0]:
            continue
        value, path = merged[name]
        if isinstance(value, dict):
            value = list(value.values())
        if not isinstance(value, list):
            raise TokenizerError(f"{path}: {name}: expected a list of tokens, found {short(value)}")
        return tuple(_token(token, name, path, special=True) for token in value)
    return ()


def _special_contents(merged: Mapping[str, tuple[Any, Path]]) -> set[str]:
    return {token.content for token in (*_named(merged).values(), *_extra(merged))}


def _declared(value: Any, path: Path) -> dict[int, AddedToken]:
    field = "added_tokens_decoder"
    if not isinstance(value, dict) or not all(key.isdecimal() and len(key) < 20 for key in value):
        raise TokenizerError(f"{path}: {field}: expected an object of ids and tokens, found {short(value)}")
    return {int(key): _token(token, f"{field}[{key}]", path) for key, token in value.items()}


def _added(values: Mapping[str, Any], path: Path, special: set[str]) -> dict[int, AddedToken]:
    added: dict[int, AddedToken] = {}
    for content, token_id in values.items():
        if isinstance(token_id, bool) or not isinstance(token_id, int) or token_id < 0 or not _is_content(content):
            raise TokenizerError(f"{path}: {short(content)}: expected a token and its id, found {short(token_id)}")
        added[token_id] = AddedToken(content, normalized=content not in special, special=content in special)
    return added
