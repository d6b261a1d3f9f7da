"""Inputs of many files: the files that paths, folders and patterns stand for, in a fixed order.

`input_set.py` holds the result (`InputSet`, `InputFile`); `local.py` finds files on disks, `remote.py` finds them where
fsspec reaches, and `expansion.py` is what both return.
"""

from __future__ import annotations

from layertap.data.inputs.input_set import InputFile, InputSet

__all__ = ["InputFile", "InputSet"]
