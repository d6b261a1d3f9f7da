"""Feature files read back, record by record, without loading them: `layertap.open`."""

from __future__ import annotations

from layertap.data.store.carried import CarriedColumn
from layertap.data.store.column import FeatureColumn
from layertap.data.store.file import FeatureFile, open  # noqa: A004 - `layertap.open`, as gzip.open

__all__ = ["CarriedColumn", "FeatureColumn", "FeatureFile", "open"]
