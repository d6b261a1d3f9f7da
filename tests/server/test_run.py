"""The command as a process: how it starts, and how it ends under load."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from layertap import Extractor
from layertap.errors import UsageError
from layertap.server.app import create_app
from layertap.server.model import ServedModel
from layertap.server.run import bind, serve
from layertap.server.state import State

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src"), "HF_HUB_OFFLINE": "1"}
MODEL = "the good bank was "


@dataclass
class Process:
    """A server that is a process of its own."""

    process: subprocess.Popen[str]
    url: str

    def end(self, number: int = signal.SIGTERM, *, seconds: float = 300) -> tuple[int, str]:
        self.process.send_signal(number)
        _, said = self.process.communicate(timeout=seconds)
        return self.process.returncode, said


@contextlib.contextmanager
def started(*arguments: str | Path, before: Sequence[str] = (), **environment: str) -> Iterator[Process]:
    process = subprocess.Popen(
        [*before, sys.executable, "-m", "layertap", "serve", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT | environment,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        while "note:" in line:  # nothing else comes ahead of the address
            line = process.stderr.readline()
        match = re.search(r"http://\S+:\d+", line)
        assert match is not None, line + process.stderr.read()
        yield Process(process, match[0])
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def folder(make_checkpoint, tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("served") / "tiny")


def test_one_command_serves_the_default_model_offline(minilm_folder):
    with started("--port", "0") as server:
        answer = httpx.post(f"{server.url}/v1/embeddings", json={"input": "Hello"}, timeout=120)
        vector = np.float32(answer.json()["data"][0]["embedding"])
        np.testing.assert_array_equal(vector, Extractor.from_pretrained().extract(["Hello"])[0])
        assert server.end(signal.SIGINT) == (0, "")


def test_a_signal_lets_what_is_under_way_end(folder):
    with started("--port", "0", "-m", folder) as server:
        answers: list[int | str] = []
        ending, stop = threading.Event(), threading.Event()

        def ask():
            with httpx.Client(timeout=120) as client:
                while not stop.is_set():
                    body = {"input": [MODEL * 8] * 200, "model": "tiny@last_hidden_state.max"}
                    try:
                        answer = client.post(f"{server.url}/v1/embeddings", json=body)
                    except httpx.ConnectError:
                        return  # the server takes no connections any more
                    answers.append(answer.status_code)
                    assert answer.status_code in (200, 429)
                    if answer.status_code == 200:
                        assert len(answer.json()["data"]) == 200

        failed: list[BaseException] = []

        def watched():
            try:
                ask()
            except (httpx.RemoteProtocolError, httpx.ReadError) as error:
                # A connection that was idle, or not accepted yet, when the server closed held nothing under way.
                closed = ("Server disconnected without sending", "Connection reset by peer")
                if not (ending.is_set() and any(reason in str(error) for reason in closed)):
                    failed.append(error)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=watched) for _ in range(6)]
        for thread in threads:
            thread.start()
        while len(answers) < 12:
            time.sleep(0.02)
        before = len(answers)
        ending.set()
        code, said = server.end()
        stop.set()
        for thread in threads:
            thread.join(120)
    assert len(answers) > before, "what was under way is answered"
    assert (code, said, failed) == (0, "", [])
    assert 200 in answers


def test_a_second_signal_ends_the_process_at_once(folder):
    with started("--port", "0", "-m", folder) as server:
        host, _, port = server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port))) as slow:
            slow.settimeout(120)
            head = "POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9"
            slow.sendall(f"{head}\r\nExpect: 100-continue\r\n\r\n".encode())
            assert slow.recv(4096).startswith(b"HTTP/1.1 100")  # the request is under way, and waits for its body
            server.process.send_signal(signal.SIGTERM)
            while listens(host, int(port)):  # until the first signal is noticed
                time.sleep(0.02)
            assert server.process.poll() is None
            code, _ = server.end()
            with contextlib.suppress(ConnectionResetError):
                assert slow.recv(4096) == b"", "it did not wait for the body, whose lateness has an answer of its own"
        assert code == 128 + signal.SIGTERM


def listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=120).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return False
    return True


@pytest.mark.slow
def test_a_thousand_idle_connections(folder):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4_096:
        pytest.skip("this system allows too few open files")
    limited = ["bash", "-c", 'ulimit -Sn 512; exec "$@"', "-"]
    idle: list[socket.socket] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4_096), hard))
    try:
        with started("--port", "0", "-m", folder, before=limited) as server:
            host, _, port = server.url.removeprefix("http://").partition(":")
            for number in range(1_000):
                idle.append(socket.create_connection((host, int(port)), timeout=120))
                if number % 2:
                    idle[-1].sendall(b"POST /embed HTTP/1.1\r\nHost: local")
            # Idle connections are closed after 75 seconds: neither the answer nor the end may wait for that.
            assert httpx.post(f"{server.url}/embed", json={"inputs": "x"}, timeout=60).status_code == 200
            assert server.end(seconds=60)[0] == 0
    finally:
        for each in idle:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_killed_server_is_started_again_on_its_port(folder):
    with started("--port", "0", "-m", folder) as server:
        port = server.url.rpartition(":")[2]
        with httpx.Client() as client:
            assert client.get(f"{server.url}/health/ready").status_code == 200
            server.process.kill()
            server.process.wait()
            with started("--port", port, "-m", folder) as again:
                assert httpx.get(f"{again.url}/health/ready").status_code == 200
                assert again.end()[0] == 0


def test_a_model_with_nan_is_not_served(folder, tmp_path, make_checkpoint):
    broken = make_checkpoint(tmp_path / "broken")
    weights = {name: array.copy() for name, array in load_file(broken / "model.safetensors").items()}
    name = next(name for name in weights if name.endswith("layer.2.output.dense.weight"))
    weights[name][0, 0] = np.nan
    save_file(weights, broken / "model.safetensors")
    ended = subprocess.run(
        [sys.executable, "-m", "layertap", "serve", "--port", "0", "-m", str(broken)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 1
    assert "expected finite" in ended.stderr
    assert "the server is not started" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_the_key_of_the_environment_and_other_hosts(folder):
    with started("--host", "0.0.0.0", "--port", "0", "-m", folder, LAYERTAP_API_KEY="sesame") as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1") + "/embed"
        assert httpx.post(url, json={"inputs": "x"}).status_code == 401
        headers = {"authorization": "Bearer sesame", "host": "models.example"}
        assert httpx.post(url, json={"inputs": "x"}, headers=headers).status_code == 200
        assert "sesame" not in json.dumps(server.end()[1])


@pytest.mark.parametrize(("host", "said"), [("no.such.host.invalid", "--host"), ("203.0.113.7", "cannot listen")])
def test_addresses_that_cannot_be_had(host, said):
    with pytest.raises(UsageError, match=said):
        bind(host, 0)


def test_a_port_in_use():
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        with pytest.raises(UsageError, match="choose another with --port"):
            bind("127.0.0.1", taken.getsockname()[1])


def test_a_port_that_another_process_took_meanwhile(folder):
    model = ServedModel(id="tiny", extractor=Extractor.from_pretrained(folder))
    state = State(model=model)
    with bind("127.0.0.1", 0) as taken, bind("127.0.0.1", taken.getsockname()[1]) as late:
        taken.listen()
        with pytest.raises(UsageError, match="choose another port"):
            serve(create_app(state), state, late, on_ready=pytest.fail)
    state.close()


def test_a_page_of_a_file_is_served(folder, tmp_path):
    pytest.importorskip("sklearn")
    rows = "".join(f"the good bank {i},up\nthe dull bank {i},down\n" for i in range(10))
    (tmp_path / "moods.csv").write_text("text,mood\n" + rows, encoding="utf-8")
    shown = ("--explore", tmp_path / "moods.csv", "--label", "mood", "--pooling", "cls", "--neighbours", "3")
    with started("-m", folder, "--port", "0", *shown) as server:
        page = httpx.get(server.url)
        facts = json.loads(re.search(r'id="facts">(.*?)</script>', page.text, re.DOTALL)[1])  # type: ignore[index]
        assert facts["count"] == 20
        assert facts["layers"][1]["feature"] == "hidden_states[1].cls"
        assert len(facts["probe"]["rows"]) == len(facts["layers"])
        assert facts["live"]["most_tokens"] > 0
        answer = httpx.post(f"{server.url}/page/sentence", json={"text": "the good bank 4"}).json()
        kind, *shape, near = answer["arrays"]["near"]
        assert (kind, shape) == ("u4", [len(facts["layers"]), 3])
        nearest = np.frombuffer(base64.b64decode(near), "<u4").reshape(shape)[:, 0]
        # The tiny vocabulary has no numbers, so that some texts have equal tokens.
        assert {facts["texts"][i].rpartition(" ")[0] for i in nearest} == {"the good bank"}
        assert server.end()[0] == 0
