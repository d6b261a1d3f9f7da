"""The page docs/serve.md: its requests are sent as printed, to a server as the page starts it."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from layertap.cli.main import main
from layertap.server.app import ROUTES
from tests.test_documentation import FILES, ROOT, blocks, run

PAGE = "docs/serve.md"


@pytest.fixture(scope="module")
def ports(serve, reranker, minilm_folder, tmp_path_factory):
    """Replace the addresses of the page by those of servers that are as it says."""
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")
    folder = tmp_path_factory.mktemp("page")
    (folder / "moods.csv").write_text(FILES["moods.csv"])
    assert main(["fit", str(folder / "moods.csv"), "--label", "mood", "-o", str(folder / "mood.head"), "-q"]) == 0
    heads = [str(folder / "mood.head")]
    served = serve(None, features={"v": "hidden_states[4].mean.normalize"}, heads=heads)
    return {"http://127.0.0.1:8080": served.url, "http://127.0.0.1:8081": reranker.url}


def placed(block: str, ports: dict[str, str]) -> str:
    for written, url in ports.items():
        block = block.replace(written, url)
    return block


def test_curl(ports, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    commands = [
        line
        for block in blocks(PAGE, "sh")
        for line in re.split(r"\n(?=curl )", block.strip())
        if line.startswith("curl")
    ]
    assert len(commands) > 15
    for command in commands:
        ended = subprocess.run(
            ["bash", "-c", placed(command.replace("curl -s", "curl -s --fail-with-body"), ports)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, (command, ended.stdout, ended.stderr)
        assert ended.stdout or (tmp_path / "words.npz").stat().st_size > 1000


def test_code(ports):
    names: dict[str, object] = {}
    for block in blocks(PAGE, "python"):
        run(placed(block, ports), names)


def test_every_route_has_an_example():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    examples = set(re.findall(r"http://127\.0\.0\.1:808\d(/[\w/.]*)", text))
    aliases = {"/embeddings", "/v2/rerank", "/invocations", "/health", "/ping"}
    assert {route.path for route in ROUTES} - aliases <= examples
