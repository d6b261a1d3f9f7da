"""Vectors on disk, kept by text: what has been extracted once is read back.

    FOLDER/<hash of the feature's identity>/identity.json
                                           /<hash of its bytes>.safetensors: texts uint8 [N, 16], vectors float32 [N, H]

An identity is what results depend on: the canonical feature, hashes of weights, config and tokenizer, options. Files
appear whole (written beside and renamed), never change, and hold a checksum; one that is damaged is removed, said so,
and computed anew. Writers take turns (`Shelf.lock`), readers wait for nobody.
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

FloatArray = npt.NDArray[np.float32]

KEY_BYTES = 16
SUFFIX = ".safetensors"


def key_of(text: str) -> bytes:
    """What a text is kept under: 16 bytes of a hash."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


class DamagedFileError(Exception):
    """A file of the cache that does not hold what was written; never leaves this module."""


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Makes the cache's folder where it is absent, and holds its lock: one process or thread computes at a time.

    Raises:
        OutputError: a folder that cannot be made or written.
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
class Shelf:
    """The cached vectors of one feature.

    Attributes:
        cache: the folder of the whole cache.
        identity: what the vectors depend on; JSON.
        width: H, numbers a vector.
    """

    cache: Path
    identity: Mapping[str, Any]
    width: int

    @property
    def folder(self) -> Path:
        """Where the feature's files are."""
        text = json.dumps(self.identity, sort_keys=True)
        return self.cache / hashlib.sha256(text.encode()).hexdigest()[:32]

    def read(self, keys: Sequence[bytes], *, repair: bool = False) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        """Looks vectors up.

        Args:
            keys: of the texts, N.
            repair: remove damaged files, with a warning; only while the lock is held.

        Returns:
            float32 [N, H], and bool [N]: which were there; rows that were not are undefined.
        """
        found = np.zeros(len(keys), dtype=bool)
        vectors: FloatArray = np.empty((len(keys), self.width), dtype=np.float32)
        for path in sorted(self.folder.glob(f"*{SUFFIX}")):
            if found.all():
                break
            try:
                stored, rows = _load(path, self.width)
            except DamagedFileError as damage:
                if repair:
                    remove_file(path)
                    warnings.warn(f"{path} is damaged ({damage}); its texts are computed anew", stacklevel=2)
                continue
            place = {
                stored[begin : begin + KEY_BYTES]: begin // KEY_BYTES for begin in range(0, len(stored), KEY_BYTES)
            }
            here = np.array([-1 if done else place.get(key, -1) for key, done in zip(keys, found, strict=True)])
            vectors[here >= 0] = rows[here[here >= 0]]
            found |= here >= 0
        return vectors, found

    def write(self, keys: Sequence[bytes], vectors: FloatArray) -> None:
        """Adds vectors [N, H] as one file, which appears whole or not at all; the lock must be held.

        Raises:
            OutputError: it cannot be written.
        """
        from safetensors.numpy import save

        texts = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES)
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


def _load(path: Path, width: int) -> tuple[bytes, FloatArray]:
    """The keys of a file, end to end, and its vectors."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            checksum = (file.metadata() or {}).get("checksum")
            arrays = {name: file.get_tensor(name) for name in ("texts", "vectors")}
    except (SafetensorError, OSError) as error:
        raise DamagedFileError(str(error)) from None
    if checksum != _checksum(arrays):
        raise DamagedFileError("its checksum is another")
    if arrays["vectors"].shape != (len(arrays["texts"]), width):
        raise DamagedFileError(f"its vectors are {list(arrays['vectors'].shape)}, not [*, {width}]")
    return arrays["texts"].tobytes(), arrays["vectors"]


def _checksum(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    checksum = hashlib.sha256()
    for name in sorted(arrays):
        checksum.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        checksum.update(arrays[name].tobytes())
    return checksum.hexdigest()
