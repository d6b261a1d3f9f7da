"""`PageContent`: everything that a page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

DTYPES = {np.dtype(np.float32): "f4", np.dtype(np.uint32): "u4", np.dtype(np.uint16): "u2"}
"""Dtypes of arrays on a page -> their names in the page's script."""

PageArray = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PageContent:
    """Facts and arrays of a page.

    Attributes:
        title: title of the window.
        facts: JSON values; `static/data.js` describes them.
        arrays: name -> float32, uint32 or uint16 array of any shape.
    """

    title: str
    facts: Mapping[str, Any]
    arrays: Mapping[str, PageArray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, array in self.arrays.items():
            assert array.dtype in DTYPES, f"{name} is {array.dtype}"
