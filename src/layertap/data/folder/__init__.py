"""Folders of features: the names of their files, and what the files without features hold.

`fields.py` reads JSON strictly, `layout.py` holds the values (plan, records, manifest) with their exact JSON, and
`contents.py` reads them from a folder. The room `jobs` writes folders, and `data/store` opens them.
"""

from __future__ import annotations

from layertap.data.folder.contents import FolderContents, FolderFiles, LocalFiles, is_feature_folder, read_contents
from layertap.data.folder.layout import (
    FolderPlan,
    Manifest,
    PlannedColumn,
    PlannedInput,
    PlannedShard,
    ShardRecord,
)

__all__ = [
    "FolderContents",
    "FolderFiles",
    "FolderPlan",
    "LocalFiles",
    "Manifest",
    "PlannedColumn",
    "PlannedInput",
    "PlannedShard",
    "ShardRecord",
    "is_feature_folder",
    "read_contents",
]
