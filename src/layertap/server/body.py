"""Bodies of requests: the base of their models, and the messages for what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from layertap.server.refusals import Refusal


class Body(BaseModel):
    """Body of a request. The description of each field completes the sentence "expected ..."."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


BodyType = TypeVar("BodyType", bound=Body)


def read(model: type[BodyType], value: Mapping[str, Any]) -> BodyType:
    """Check a JSON object against the model of a body.

    Raises:
        Refusal: a field is missing, unknown or of another type; the message names it.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        # Of a field that may have several forms, the error that lies deepest is about the form that was meant.
        first = max(error.errors(include_url=False, include_context=False), key=lambda each: len(each["loc"]))
    name = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        near = get_close_matches(name, model.model_fields, n=1)
        raise Refusal(
            "invalid",
            f"unknown field {name!r:.80}; "
            + (f"did you mean {near[0]!r}?" if near else f"fields are {', '.join(model.model_fields)}"),
            param=name[:80],
        )
    place = "".join(f"[{part}]" if isinstance(part, int) else "" for part in first["loc"][1:])
    expected = model.model_fields[name].description
    if first["type"] == "missing" and len(first["loc"]) == 1:
        raise Refusal("invalid", f"the field {name!r} is missing; expected {expected}", param=name)
    raise Refusal("invalid", f"{name}{place}: expected {expected}; found {_shown(first['input'])}", param=name)


def _shown(value: object) -> str:
    """Describe a value without quoting more of a text than its beginning."""
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    if isinstance(value, str):
        return f"{value!r:.40}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value!r:.40}"
