"""Version of the package, for the files that state what wrote them."""

from __future__ import annotations

__version__ = "0.1.0"
