"""Tags of words: tagging schemes, and the entities that tags mark."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from layertap.errors import InputError, OptionError

Scheme = Literal["bio", "io", "tags"]

SCHEMES: tuple[Scheme, ...] = ("bio", "io", "tags")
OUTSIDE = "O"
CLOSING = ("E-", "S-", "L-", "U-")
"""Prefixes of tags of last words, which BIOES and BILOU have beside B- and I-."""
BEGINNING = ("B-", "S-", "U-")
"""Prefixes of tags of first words."""


def scheme_of(tags: Collection[str], asked: str = "auto") -> Scheme:
    """Return the tagging scheme of training tags.

    Args:
        tags: all tags that occur.
        asked: a scheme, or "auto": "bio" if all tags are `O`, `B-...` or `I-...` and some start with B-, "io" if they
            are `O` and `I-...`, else "tags", which marks no entities. "io" learns the B- of BIO tags as I-.

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
            f"scheme {asked}: {', '.join(map(repr, strange[:5]))}: expected O, B-type and I-type; the scheme tags "
            "takes any tags, and marks no entities"
        )
    if asked == "auto" and strange:
        closing = all(tag[:2] in ("B-", "I-", *CLOSING) and len(tag) > 2 for tag in entity)
        if OUTSIDE in tags and closing:
            raise InputError(
                f"tags such as {strange[0]!r} are BIOES or BILOU; convert them to BIO (E-, L- to I-; S-, U- to B-), "
                "or choose the scheme tags, which marks no entities"
            )
        return "tags"
    if asked == "auto":
        return "bio" if any(tag.startswith("B-") for tag in entity) else "io" if entity else "tags"
    return next(scheme for scheme in SCHEMES if scheme == asked)


def mark_entities(tags: Collection[str]) -> bool:
    """Return whether tags are BIO or IO: all of them `O`, `B-...` or `I-...`, and not all `O`."""
    return {*tags} != {OUTSIDE} and all(tag == OUTSIDE or _is_entity_tag(tag) for tag in tags)


def _is_entity_tag(tag: str) -> bool:
    return tag[:2] in ("B-", "I-") and len(tag) > 2


def in_scheme(tag: str, scheme: Scheme) -> str:
    """Return the tag that a head with this scheme learns: under IO, I- in place of B-."""
    return f"I-{tag[2:]}" if scheme == "io" and tag.startswith("B-") else tag


def entities(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """Return entities as (first word, one past the last word, type), as conlleval counts them.

    An `I-` after `O`, or after another type, starts an entity. Under IO, neighbouring words of one type are one entity.
    `E-`, `S-`, `L-` and `U-` of BIOES and BILOU, which models of the hub use, end an entity with their own word.
    """
    spans: list[tuple[int, int, str]] = []
    begin, kind, closed = 0, "", False
    for place, tag in enumerate((*tags, OUTSIDE)):
        prefix, here = tag[:2], "" if tag == OUTSIDE else tag[2:]
        if kind and (here != kind or prefix in BEGINNING or closed):
            spans.append((begin, place, kind))
            kind = ""
        if here and not kind:
            begin, kind = place, here
        closed = prefix in CLOSING
    return spans
