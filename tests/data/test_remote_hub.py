"""Inputs at hf://, against a server on this machine that answers as the hub does."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote

import pytest

from layertap.data.inputs import InputSet
from layertap.errors import InputError

pytest.importorskip("fsspec")
hub = pytest.importorskip("huggingface_hub")

REPOSITORY = "datasets/someone/corpus"
FILES = {
    "README.md": b"# Corpus\n",
    "data/a.txt": b"text 0\ntext 1\n",
    "data/more/b.jsonl": b'{"text": "text 0"}\n{"text": "text 1"}\n',
}
SHA = "0123456789" * 4


class Hub(http.server.BaseHTTPRequestHandler):
    """One data set with the files above; every other path is not found."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        api = f"/api/{REPOSITORY}"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{SHA}"):
            self._json({"id": "someone/corpus", "sha": SHA, "siblings": [], "private": False, "tags": []})
        elif path.startswith((f"{api}/tree/main", f"{api}/tree/{SHA}")):
            below = path.split("/tree/")[1].partition("/")[2]
            self._json([entry for entry in entries() if entry["path"].startswith(f"{below}/" if below else "")])
        elif path.startswith(f"/{REPOSITORY}/resolve/"):
            self._file(FILES[path.split("/resolve/")[1].partition("/")[2]])
        else:
            self._json({"error": "not found"}, 404, {"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        self._json([entry for entry in entries() if entry["path"] in asked])

    def _file(self, content: bytes) -> None:
        asked = self.headers.get("Range")
        begin, _, end = asked.removeprefix("bytes=").partition("-") if asked else ("0", "", "")
        part = content[int(begin) : int(end) + 1 if end else None]
        headers = {"Content-Range": f"bytes {begin}-{int(begin) + len(part) - 1}/{len(content)}"} if asked else {}
        self._send(206 if asked else 200, part, {"ETag": '"etag"', **headers})

    def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {}))

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def entries() -> list[dict[str, object]]:
    files = [{"type": "file", "path": p, "size": len(c), "oid": f"oid{len(c)}"} for p, c in FILES.items()]
    folders = [{"type": "directory", "path": path, "size": 0, "oid": path} for path in ("data", "data/more")]
    return [*folders, *files]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        system = hub.HfFileSystem
        create = system.__init__
        monkeypatch.setattr(
            system,
            "__init__",
            lambda self, *args, **options: create(
                self, *args, **(options | {"endpoint": f"http://127.0.0.1:{running.server_port}"})
            ),
        )
        system.clear_instance_cache()
        yield
        system.clear_instance_cache()
        running.shutdown()


def test_inputs_on_the_hub(server):
    inputs = InputSet.resolve([f"hf://{REPOSITORY}/data/"])
    assert [(file.name, file.size) for file in inputs] == [
        ("a.txt", len(FILES["data/a.txt"])),
        ("more/b.jsonl", len(FILES["data/more/b.jsonl"])),
    ]
    for file in inputs:
        with file.input.open() as reader:
            assert [record.text for record in reader] == ["text 0", "text 1"]
        file.check_unchanged()
    assert [file.name for file in InputSet.resolve([f"hf://{REPOSITORY}/**/*.jsonl"])] == ["data/more/b.jsonl"]
    with pytest.raises(InputError, match=r"there is no such|no such file or folder"):
        InputSet.resolve(["hf://datasets/someone/else/a.txt"])
