"""Nothing but `layertap.files` writes, renames or removes files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "layertap"

ALLOWED = {
    ("cli/streams.py", "os.open"): "the null device stands in for a standard stream",
    ("data/writers/parquet.py", "pq.write_table"): "into memory",
    ("data/writers/npz.py", "open"): "a member of an archive whose file is staged",
    ("hf/saving.py", "save_file"): "the library writes weights into a folder that is staged",
    ("learn/finetuning/state.py", "torch.save"): "into a file that is staged",
    ("jobs/folder/pool.py", "tempfile.TemporaryFile"): "a file without a name, for the errors of a worker",
    ("plots/curve.py", "savefig"): "into memory",
    ("plots/style.py", "savefig"): "into memory",
    ("server/wire.py", "open"): "a member of an archive that is sent",
    ("learn/fitting/buffers.py", "np.memmap"): "a scratch file that `allocate_file` made",
}
"""What may stay outside, and why."""

ROOMS = ("files/", "testing/")  # `testing` writes checkpoints for tests into temporary folders

METHODS = {
    "write_text", "write_bytes", "touch", "unlink", "rename", "rmdir", "mkdir", "symlink_to", "hardlink_to", "chmod",
    "savefig", "save_file", "tofile",
}  # fmt: skip
MODULES = {
    "os": {"open", "replace", "rename", "renames", "remove", "unlink", "rmdir", "removedirs", "mkdir", "makedirs",
           "link", "symlink", "mkfifo", "truncate", "fsync", "posix_fallocate", "chmod", "write"},
    "shutil": {"copy", "copy2", "copyfile", "copytree", "copymode", "move", "rmtree", "make_archive"},
    "tempfile": {"mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryFile", "TemporaryDirectory",
                 "SpooledTemporaryFile"},
    "np": {"save", "savez", "savez_compressed", "savetxt", "memmap"},
    "torch": {"save"},
    "pq": {"write_table"},
}  # fmt: skip


def writes(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and name of every call that writes, renames or removes."""
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            name, owner = node.func.id, ""
        elif isinstance(node.func, ast.Attribute):
            name = node.func.attr
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        else:
            continue
        if owner in MODULES:
            reads = (owner, name) == ("os", "open") and not any(
                flag in ast.dump(node) for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND", "O_TRUNC")
            )
            if name in MODULES[owner] and not reads:
                yield node.lineno, f"{owner}.{name}"
        elif name in METHODS or (name in ("open", "fdopen", "GzipFile", "FileIO") and opens_to_write(node)):
            yield node.lineno, name
        # `str.replace` takes two arguments, `dataclasses.replace` keywords, `Path.replace` one
        elif name == "replace" and isinstance(node.func, ast.Attribute) and len(node.args) == 1 and not node.keywords:
            yield node.lineno, "replace"


def opens_to_write(call: ast.Call) -> bool:
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg in (None, "mode", "flags"))]
    texts = [it.value for it in given if isinstance(it, ast.Constant) and isinstance(it.value, str)]
    return any(len(text) <= 4 and set(text) <= set("rwxabt+") and set(text) & set("wxa+") for text in texts)


def test_no_other_module_writes() -> None:
    used, others = set(), []
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE).as_posix()
        if name.startswith(ROOMS):
            continue
        for line, call in writes(ast.parse(path.read_text("utf-8"))):
            if (name, call) in ALLOWED:
                used.add((name, call))
            else:
                others.append(f"{name}:{line}: {call}")
    assert not others, "written past layertap.files: " + ", ".join(others)
    assert used == set(ALLOWED), f"not needed any more: {set(ALLOWED) - used}"


@pytest.mark.parametrize(
    "code",
    [
        "open(path, 'w')", "open(path, mode='ab')", "path.open('x+b')", "io.open(path, 'r+')", "path.write_text('')",
        "os.replace(a, b)", "path.replace(other)", "path.rename(other)", "path.unlink(missing_ok=True)",
        "shutil.rmtree(path)", "tempfile.NamedTemporaryFile()", "gzip.open(path, 'wb')", "path.mkdir()",
        "os.open(path, os.O_CREAT | os.O_WRONLY)", "figure.savefig(path)", "np.save(path, a)",
    ],
)  # fmt: skip
def test_a_call_that_writes_is_noticed(code: str) -> None:
    assert list(writes(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    ["open(path)", "open(path, 'rb')", "path.open('rb')", "text.replace('a', 'b')", "replace(job, name='w')",
     "gzip.open(path, 'rt')", "os.open(path, os.O_RDONLY)", "file.write(b'')", "open_reader(path)"],
)  # fmt: skip
def test_a_call_that_reads_is_not(code: str) -> None:
    assert not list(writes(ast.parse(code)))
