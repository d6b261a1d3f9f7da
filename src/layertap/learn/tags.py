"""Tags of words: which scheme they follow, and the entities that they mark."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from layertap.errors import InputError, OptionError

Scheme = Literal["bio", "io", "tags"]

SCHEMES: tuple[Scheme, ...] = ("bio", "io", "tags")
OUTSIDE = "O"
CLOSING = ("E-", "S-", "L-", "U-")
"""What BIOES and BILOU have beside B- and I-: tags of last words."""
BEGINNING = ("B-", "S-", "U-")
"""Tags of first words."""


def scheme_of(tags: Collection[str], asked: str = "auto") -> Scheme:
    """The scheme of training tags.

    Args:
        tags: all that there are.
        asked: a scheme, or "auto": "bio" where all are `O`, `B-...` or `I-...` and some begin with B-, "io" where they
            are `O` and `I-...`, else "tags", which mark no entities. "io" asked for of BIO tags takes B- as I-.

    Raises:
        OptionError: there is no such scheme.
        InputError: tags that the scheme does not have.
    """
    if asked not in ("auto", *SCHEMES):
        raise OptionError(f"scheme {asked!r}: expected auto, {', '.join(SCHEMES)}")
    entity = [tag for tag in tags if tag != OUTSIDE]
    strange = sorted(tag for tag in entity if not _is_entity_tag(tag))
    if asked in ("bio", "io") and strange:
        raise InputError(
            f"scheme {asked}: {', '.join(map(repr, strange[:5]))}: expected O, B-type and I-type; scheme tags takes "
            "any, and marks no entities"
        )
    if asked == "auto" and strange:
        closing = all(tag[:2] in ("B-", "I-", *CLOSING) and len(tag) > 2 for tag in entity)
        if OUTSIDE in tags and closing:
            raise InputError(
                f"tags such as {strange[0]!r} are of BIOES or BILOU; write them as BIO (E-, L- as I-; S-, U- as B-), "
                "or ask for the scheme tags, which marks no entities"
            )
        return "tags"
    if asked == "auto":
        return "bio" if any(tag.startswith("B-") for tag in entity) else "io" if entity else "tags"
    return next(scheme for scheme in SCHEMES if scheme == asked)


def mark_entities(tags: Collection[str]) -> bool:
    """Whether tags are BIO or IO: all `O`, `B-...` or `I-...`, and not all `O`."""
    return {*tags} != {OUTSIDE} and all(tag == OUTSIDE or _is_entity_tag(tag) for tag in tags)


def _is_entity_tag(tag: str) -> bool:
    return tag[:2] in ("B-", "I-") and len(tag) > 2


def in_scheme(tag: str, scheme: Scheme) -> str:
    """A tag as a head of this scheme learns it: without B- under IO."""
    return f"I-{tag[2:]}" if scheme == "io" and tag.startswith("B-") else tag


def entities(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """Entities as (first word, one past the last, type), as conlleval counts them.

    An `I-` after `O`, or after another type, begins one. Under IO neighbours of one type are one entity. `E-`, `S-`,
    `L-` and `U-` of BIOES and BILOU, which hub models have, end one with the word that they stand on.
    """
    found: list[tuple[int, int, str]] = []
    begin, kind, closed = 0, "", False
    for place, tag in enumerate((*tags, OUTSIDE)):
        prefix, here = tag[:2], "" if tag == OUTSIDE else tag[2:]
        if kind and (here != kind or prefix in BEGINNING or closed):
            found.append((begin, place, kind))
            kind = ""
        if here and not kind:
            begin, kind = place, here
        closed = prefix in CLOSING
    return found
