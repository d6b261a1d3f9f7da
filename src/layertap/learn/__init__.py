"""What features are for: `TextFeatures`, a transformer for scikit-learn.

Needs the extra `learn`: `pip install 'layertap[learn]'`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layertap.learn.text_features import TextFeatures

__all__ = ["TextFeatures"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if find_spec("sklearn") is None:
        raise ModuleNotFoundError(
            f"layertap.learn.{name} needs scikit-learn: pip install 'layertap[learn]'", name="sklearn"
        )
    from layertap.learn.text_features import TextFeatures

    globals()[name] = TextFeatures
    return TextFeatures


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
