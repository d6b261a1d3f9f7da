"""Rows of the table, one module per library; no library is imported before a row is loaded."""

from __future__ import annotations

from benchmarks.peers import (
    ctranslate2_rows,
    layertap_rows,
    onnxruntime_rows,
    openvino_rows,
    sentence_transformers_rows,
    transformers_rows,
)
from benchmarks.peers.row import Embed, Precision, Row, Settings, Variant

ROWS: tuple[Row, ...] = (
    *layertap_rows.ROWS,
    *transformers_rows.ROWS,
    *sentence_transformers_rows.ROWS,
    *onnxruntime_rows.ROWS,
    *openvino_rows.ROWS,
    *ctranslate2_rows.ROWS,
)
REFERENCE = "transformers-float32-sorted"

__all__ = ["REFERENCE", "ROWS", "Embed", "Precision", "Row", "Settings", "Variant"]
