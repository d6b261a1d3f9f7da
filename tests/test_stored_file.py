"""`StoredFile`: reads at places, and what it says of a file that changes."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from layertap.errors import ConfigError
from layertap.stored_file import StoredBytes, StoredFile, StoredFileStream, read_whole


def opened(path: Path) -> StoredFile:
    return StoredFile(path, error=ConfigError)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    place = tmp_path / "file"
    place.write_bytes(bytes(range(256)) * 4)
    # Of long ago: a write within the clock's step of the file system would not show.
    os.utime(place, (1e9, 1e9))
    return place


def test_reads_at_places(path: Path) -> None:
    file = opened(path)
    assert bytes(file.read(3, 9)) == path.read_bytes()[3:9]
    assert bytes(file.read(5, 5)) == b""
    part = StoredBytes(file, 10, 20).part(2, 4)
    assert bytes(part.read()) == path.read_bytes()[12:14]
    assert file.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()
    file.close()
    file.close()
    with pytest.raises(ConfigError, match="this file was closed"):
        file.read(0, 1)


def test_a_stream_of_it(path: Path) -> None:
    stream = io.BufferedReader(StoredFileStream(opened(path)))
    data = path.read_bytes()
    assert stream.read(7) == data[:7]
    stream.seek(-5, io.SEEK_END)
    assert stream.read() == data[-5:]
    stream.seek(2000)
    assert stream.read() == b""


def cut(path: Path) -> None:
    os.truncate(path, 100)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def write_over(path: Path) -> None:
    path.write_bytes(bytes(1024))


def write_over_and_set_the_time_back(path: Path) -> None:
    before = path.stat()
    path.write_bytes(bytes(1024))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (cut, "it had 1024 bytes and now has 100"),
        (grow, "it had 1024 bytes and now has 1025"),
        (write_over, "it was written to"),
        (write_over_and_set_the_time_back, "its modification time was set back"),
    ],
)
def test_a_file_that_changed_is_refused(path: Path, change: Callable[[Path], None], reason: str) -> None:
    file = opened(path)
    file.read(0, 10)
    time.sleep(0.02)
    change(path)
    with pytest.raises(ConfigError, match=f"file: it changed after it was opened: .*{reason}; open it again"):
        file.read(0, 10)
    with pytest.raises(ConfigError, match=reason):
        file.sha256()


def rename_over(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(1024))
    other.replace(path)


def remove(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("moved"))


def link(path: Path) -> None:
    path.with_name("linked").hardlink_to(path)


def change_mode(path: Path) -> None:
    path.chmod(0o400)


@pytest.mark.parametrize("change", [rename_over, remove, move, link, change_mode])
def test_what_leaves_the_content_alone_is_harmless(path: Path, change: Callable[[Path], None]) -> None:
    file, data = opened(path), path.read_bytes()
    time.sleep(0.02)
    change(path)
    assert bytes(file.read(0, 1024)) == data
    assert file.sha256() == hashlib.sha256(data).hexdigest()


def test_truncated_while_it_is_read_by_many(path: Path) -> None:
    """A mapping would end the process with SIGBUS here."""
    path.write_bytes(bytes(1 << 22))
    file = opened(path)
    ended: list[str] = []

    def read() -> None:
        try:
            while True:
                assert len(file.read(0, 1 << 22)) == 1 << 22
        except ConfigError as error:
            ended.append(str(error))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    time.sleep(0.05)
    os.truncate(path, 4096)
    for reader in readers:
        reader.join(120)
    assert len(ended) == 4
    assert all("it changed after it was opened" in message for message in ended)


@pytest.mark.parametrize("kind", ["fifo", "device", "directory", "missing", "long", "nul"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "device":
        place = Path("/dev/zero")
    elif kind == "directory":
        place.mkdir()
    elif kind == "long":
        place = tmp_path / ("x" * 300)
    elif kind == "nul":
        place = tmp_path / "a\0b"
    reason = {
        "fifo": "this is a named pipe; name a regular file",
        "device": "this is a device",
        "directory": "this is a directory",
        "missing": "no such file",
        "long": "its name is too long",
        "nul": "its name holds a NUL character",
    }[kind]
    with pytest.raises(ConfigError, match=reason):
        read_whole(place, error=ConfigError)


def test_a_limit(path: Path) -> None:
    assert read_whole(path, error=ConfigError, limit=1024) == path.read_bytes()
    with pytest.raises(ConfigError, match="expected at most 1,023 bytes, found 1,024"):
        read_whole(path, error=ConfigError, limit=1023)


def test_descriptors_are_given_back(path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for _ in range(50):
        opened(path).read(0, 1)
        shutil.copy(path, path.with_name("copy"))
    if before:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1


@pytest.mark.parametrize("begin", [0, 8, 24, 64, 104, 3, 12])
@pytest.mark.parametrize("size", [1, 64, 100_000])
def test_bytes_lie_in_memory_as_they_lie_in_the_file(tmp_path, begin, size):
    """Matrix products of torch round otherwise by the alignment of their weights: it may not be the allocator's."""
    path = tmp_path / "weights"
    path.write_bytes(bytes(range(256)) * 400)
    os.utime(path, (1e9, 1e9))
    file = opened(path)
    buffers = [file.read(begin, begin + size) for _ in range(5)]
    for buffer in buffers:
        assert bytes(buffer) == path.read_bytes()[begin : begin + size]
        assert not buffer.readonly
        address = np.frombuffer(buffer, np.uint8).ctypes.data
        assert address % 64 == (begin % 64 if begin % 8 == 0 else 0)
