"""One way of writing files: an output appears whole or not at all, and belongs together when it is several files.

`output.py` is what the other rooms use; `staging.py` has the hidden folders in which outputs are written, `commit.py`
the order in which finished files get their names, `places.py` and `overlap.py` the checks before a run, and
`system.py` the system calls that all of it is made of.
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
from layertap.files.places import check_new_folder, check_place, reason
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
    "refuse_overlap",
    "remove_empty_folder",
    "remove_file",
    "remove_leftovers",
    "scratch_folder",
    "settle",
    "staged_folder",
    "write_file",
]
