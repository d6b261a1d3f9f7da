"""What features are for: `TextFeatures`, a transformer for scikit-learn; `fit_head` and `Head`, classifiers.

Needs the extra `learn`: `pip install 'layertap[learn]'`; `Head` alone, which uses a head, does without.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layertap.learn.fitting import fit_head
    from layertap.learn.head import Head
    from layertap.learn.text_features import TextFeatures

__all__ = ["Head", "TextFeatures", "fit_head"]

_MODULES = {"Head": "head", "TextFeatures": "text_features", "fit_head": "fitting"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name != "Head" and find_spec("sklearn") is None:
        raise ModuleNotFoundError(
            f"layertap.learn.{name} needs scikit-learn: pip install 'layertap[learn]'", name="sklearn"
        )
    found = globals()[name] = getattr(import_module(f"layertap.learn.{_MODULES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
