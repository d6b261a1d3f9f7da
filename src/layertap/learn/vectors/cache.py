"""Vectors on disk by text: whatever has been extracted once is read back.

    FOLDER/<hash of the identity of the feature>/identity.json
                                                /<hash of its bytes>.safetensors: texts uint8 [N, 16],
                                                                                  vectors float32 [N, H]

The identity is everything that the vectors depend on: the canonical feature, hashes of weights, config and tokenizer,
and options. Files appear whole, never change, and hold a checksum; a damaged file is removed with a warning, and its
vectors are extracted again. Writers hold the lock of the cache (`cache_lock`), readers wait for nobody.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.errors import OutputError
from layertap.files import make_folder, reason, remove_file, remove_leftovers, write_file
from layertap.learn.arrays import BoolArray, Float32Array

HASH_BYTES = 16
SUFFIX = ".safetensors"


def text_hash(text: str) -> bytes:
    """Return the hash of 16 bytes by which the vector of a text is found."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()


class DamagedFileError(Exception):
    """A file of the cache does not hold what was written; raised and caught in this module only."""


@contextmanager
def cache_lock(folder: Path) -> Iterator[None]:
    """Create the folder of a cache if it is absent, and hold its lock: one process or thread extracts at a time.

    Raises:
        OutputError: the folder cannot be created or written.
    """
    from filelock import FileLock

    try:
        make_folder(folder)
        lock = FileLock(folder / ".lock", thread_local=False)
        lock.acquire()
    except OSError as error:
        raise OutputError(f"{folder}: the cache cannot be written: {reason(error)}; name another folder") from None
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheKey:
    """Key of the vectors of one feature in a cache.

    Attributes:
        cache: folder of the whole cache.
        identity: everything that the vectors depend on, as JSON values.
        width: H, size of a vector.
    """

    cache: Path
    identity: Mapping[str, Any]
    width: int

    @property
    def folder(self) -> Path:
        """Folder of the files of the feature."""
        text = json.dumps(self.identity, sort_keys=True)
        return self.cache / hashlib.sha256(text.encode()).hexdigest()[:32]

    def read(self, hashes: Sequence[bytes], *, repair: bool = False) -> tuple[Float32Array, BoolArray]:
        """Look up the vectors of N texts.

        Args:
            hashes: hashes of the texts.
            repair: remove damaged files, with a warning; only while the lock is held.

        Returns:
            Vectors, float32 [N, H], and bool [N], whether each of them is in the cache; the others are undefined.
        """
        known = np.zeros(len(hashes), dtype=bool)
        vectors: Float32Array = np.empty((len(hashes), self.width), dtype=np.float32)
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if known.all():
                break
            try:
                stored, rows = _load(path, self.width)
            except DamagedFileError as damage:
                if repair:
                    remove_file(path)
                    warnings.warn(f"{path} is damaged ({damage}); its vectors are extracted again", stacklevel=2)
                continue
            row_of = {
                stored[begin : begin + HASH_BYTES]: begin // HASH_BYTES for begin in range(0, len(stored), HASH_BYTES)
            }
            row = np.array([-1 if done else row_of.get(own, -1) for own, done in zip(hashes, known, strict=True)])
            vectors[row >= 0] = rows[row[row >= 0]]
            known |= row >= 0
        return vectors, known

    def write(self, hashes: Sequence[bytes], vectors: Float32Array) -> None:
        """Add vectors, float32 [N, H], as one file, which appears whole or not at all; the lock must be held.

        Raises:
            OutputError: the file cannot be written.
        """
        from safetensors.numpy import save

        texts = np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, HASH_BYTES)
        arrays: dict[str, npt.NDArray[Any]] = {
            "texts": texts,
            "vectors": np.ascontiguousarray(vectors, dtype=np.float32),
        }
        checksum = _checksum(arrays)
        make_folder(self.folder)
        remove_leftovers(self.folder)
        identity = json.dumps(self.identity, indent=2, sort_keys=True).encode()
        write_file(self.folder / "identity.json", identity, overwrite=True)
        write_file(
            self.folder / f"{checksum[:32]}{SUFFIX}", save(arrays, metadata={"checksum": checksum}), overwrite=True
        )


def _load(path: Path, width: int) -> tuple[bytes, Float32Array]:
    """Return the hashes of a file, end to end, and its vectors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            checksum = (file.metadata() or {}).get("checksum")
            arrays = {name: file.get_tensor(name) for name in ("texts", "vectors")}
    except (SafetensorError, OSError) as error:
        raise DamagedFileError(str(error)) from None
    if checksum != _checksum(arrays):
        raise DamagedFileError("its checksum differs")
    if arrays["vectors"].shape != (len(arrays["texts"]), width):
        raise DamagedFileError(f"its vectors have the shape {list(arrays['vectors'].shape)}, not [*, {width}]")
    return arrays["texts"].tobytes(), arrays["vectors"]


def _checksum(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    checksum = hashlib.sha256()
    for name in sorted(arrays):
        checksum.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        checksum.update(arrays[name].tobytes())
    return checksum.hexdigest()
