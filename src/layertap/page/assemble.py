"""One self-contained HTML file of a page: styles, scripts and data inline, under a Content-Security-Policy."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from layertap.page.content import DTYPES, PageArray, PageContent

MODULES = (
    *("dom", "data", "state", "colours", "exporting"),
    *("map", "layers", "legend", "texts", "neighbours", "tokens", "attention", "commands", "live"),
    "main",
)
"""Scripts of the page, each after those that it imports."""

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|let|class) )", re.MULTILINE)


def as_html(content: PageContent) -> bytes:
    """Return a page as one HTML file, in UTF-8, that loads nothing else.

    Texts of the content stand in blocks of data that browsers neither run nor read as markup.
    """
    manifest = {name: _kind(array) for name, array in content.arrays.items()}
    blocks = [_block("facts", _json({**content.facts, "arrays": manifest}))]
    blocks += [_block(f"array-{name}", _base64(array)) for name, array in content.arrays.items()]
    style, script = static("page.css"), joined_script()
    parts = {
        "POLICY": policy(live="live" in content.facts),
        "TITLE": escape(content.title),
        "STYLE": style,
        "DATA": "\n".join(blocks),
        "SCRIPT": script,
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], static("page.html"))
    return page.encode()


@cache
def policy(*, live: bool) -> str:
    """Return the Content-Security-Policy: the page's own style and script, and the server of a page that has one."""
    style, script = _digest(static("page.css")), _digest(joined_script())
    connect = "connect-src 'self'; " if live else ""
    return (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; img-src data:; {connect}"
        "base-uri 'none'; form-action 'none'"
    )


def described(array: PageArray) -> list[Any]:
    """Return an array as JSON values: the name of its dtype, its shape, and its values in base64."""
    return [*_kind(array), _base64(array)]


@cache
def joined_script() -> str:
    """Return all modules of the page as one, as a file without a server cannot import others.

    They share one scope, so that their top-level names are distinct.
    """
    return "".join(_EXPORT.sub("", _IMPORT.sub("", static(f"{name}.js"))) for name in MODULES)


@cache
def static(name: str) -> str:
    """Return the text of a file of the page."""
    return (files("layertap.page") / "static" / name).read_text(encoding="utf-8")


def imports_of(name: str) -> list[str]:
    """Return the names of the modules that a module of the page imports."""
    return _IMPORT.findall(static(f"{name}.js"))


def _block(name: str, text: str) -> str:
    return f'<script type="text/plain" id="{escape(name)}">{text}</script>'


def _json(value: Any) -> str:
    # No "<" ends the block, whatever a text holds. Lone surrogates cannot be written in UTF-8, and are escaped.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _kind(array: PageArray) -> list[Any]:
    return [DTYPES[array.dtype], *array.shape]


def _base64(array: PageArray) -> str:
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode()


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
