"""Text in other encodings, converted to UTF-8 while it is read."""

from __future__ import annotations

import codecs
import io
from typing import Any

from layertap.errors import OptionError

UTF8 = "utf-8"
UTF8_BOM = codecs.BOM_UTF8

BOMS = {
    codecs.BOM_UTF8: UTF8,
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte order marks and the encodings that they announce."""

UNDECODABLE = b"\xff\xfe\xff"
"""Bytes that stand, in converted text, for bytes that are not in the encoding; UTF-8 never has them."""

READ_BYTES = 1 << 16

_ERROR_HANDLER = "layertap-undecodable"
_NO_TEXTS = ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape")
"""Codecs of Python that are no encodings of files."""

EXAMPLES = "latin-1, cp1252, gb18030, shift_jis, utf-16"


def checked_encoding(name: object) -> str:
    """Return Python's own name of an encoding.

    Raises:
        OptionError: there is no such encoding.
    """
    if isinstance(name, str):
        try:
            info = codecs.lookup(name)
        except (LookupError, ValueError):
            pass
        else:
            known = info.name.replace("_", "-")
            # what bytes.decode checks, too; base64 and the like are no encodings of text
            if getattr(info, "_is_text_encoding", True) and known not in _NO_TEXTS:
                return UTF8 if known == "utf-8-sig" else info.name
    raise OptionError(f"encoding is {name!r}; it can be the name of an encoding, for example {EXAMPLES}")


def same_family(asked: str, announced: str) -> bool:
    """Return whether a byte order mark says no more than the encoding asked for, as of UTF-16 and UTF-16LE."""
    return announced.startswith(asked) or asked == announced


class Transcoded(io.RawIOBase):
    """Stream of UTF-8 converted from text in another encoding.

    Bytes that are not in the encoding become `UNDECODABLE`, which the reader of their line refuses.

    Args:
        source: stream of bytes in the encoding.
        encoding: a name that `checked_encoding` returned.
    """

    def __init__(self, source: Any, encoding: str) -> None:
        codecs.register_error(_ERROR_HANDLER, _mark)  # the same each time
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)(_ERROR_HANDLER)
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        """Return True: the stream can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with converted bytes, and return their number; 0 at the end."""
        while not self._ready and not self._ended:
            data = self._source.read1(READ_BYTES)
            self._ended = not data
            text = self._decoder.decode(data, final=self._ended)
            self._ready = text.encode(UTF8, "surrogatepass").replace(_MARKED, UNDECODABLE)
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count


_MARK = "\udcff"
_MARKED = _MARK.encode(UTF8, "surrogatepass")


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return _MARK, error.end
