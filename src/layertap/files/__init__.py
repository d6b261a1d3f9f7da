"""Writing of files: every output appears whole or not at all, whether it is one file, several, or a folder.

The other rooms use `output.py`. Outputs are written in the hidden folders of `staging.py` and put in place by
`commit.py`; `places.py` and `overlap.py` check a place before a run, and `system.py` holds the system calls.
"""

from __future__ import annotations

from layertap.files.commit import read_settled, settle
from layertap.files.output import (
    FOLDER,
    StagedFolder,
    StagedOutput,
    allocate_file,
    make_folder,
    remove_empty_folder,
    remove_file,
    scratch_folder,
    staged_folder,
    write_file,
)
from layertap.files.overlap import identity, refuse_overlap
from layertap.files.places import check_new_folder, check_place, reason, refuse_descriptor, resolved
from layertap.files.staging import remove_leftovers

__all__ = [
    "FOLDER",
    "StagedFolder",
    "StagedOutput",
    "allocate_file",
    "check_new_folder",
    "check_place",
    "identity",
    "make_folder",
    "read_settled",
    "reason",
    "refuse_descriptor",
    "refuse_overlap",
    "remove_empty_folder",
    "remove_file",
    "remove_leftovers",
    "resolved",
    "scratch_folder",
    "settle",
    "staged_folder",
    "write_file",
]
