"""Folders of features: the names of their files, and what the files without features hold.

`fields.py` reads JSON strictly, `layout.py` holds the values (plan, records, manifest) with their exact JSON, and
`contents.py` reads them from a folder. `root.py` gives access to a folder on a disk or, by `remote.py`, on an object
store. The room `jobs` writes folders, and `data/store` opens them.
"""

from __future__ import annotations

from layertap.data.folder.contents import FolderContents, FolderFiles, LocalFiles, read_contents
from layertap.data.folder.layout import (
    FolderPlan,
    Manifest,
    PlannedColumn,
    PlannedInput,
    PlannedShard,
    ShardRecord,
)
from layertap.data.folder.root import (
    FolderRoot,
    FolderWriter,
    folder_files,
    folder_root,
    is_feature_folder,
    shared_folder,
)

__all__ = [
    "FolderContents",
    "FolderFiles",
    "FolderPlan",
    "FolderRoot",
    "FolderWriter",
    "LocalFiles",
    "Manifest",
    "PlannedColumn",
    "PlannedInput",
    "PlannedShard",
    "ShardRecord",
    "folder_files",
    "folder_root",
    "is_feature_folder",
    "read_contents",
    "shared_folder",
]
