"""Checks before every route, refusals in each dialect's JSON, and clients that misbehave."""

from __future__ import annotations

import asyncio
import json
import re
import select
import socket
import threading
import time
from urllib.parse import urlparse

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from layertap.engine.pipeline import Pipeline
from layertap.server.limits import Limits
from layertap.server.routes import Route

OPENAI, TEI = "/v1/embeddings", "/embed"
BODIES = {
    OPENAI: lambda texts, **more: {"input": texts, **more},
    TEI: lambda texts, **more: {"inputs": texts, **more},
    "/pooling": lambda texts, **more: {"input": texts, **more},
    "/v1/features": lambda texts, **more: {"texts": texts, **more},
    "/v1/predict": lambda texts, **more: {"texts": texts, **more},
    "/v1/rerank": lambda texts, **more: {"query": "x", "documents": texts, **more},
    "/similarity": lambda texts, **more: {"inputs": {"source_sentence": "x", "sentences": texts}, **more},
    "/predict": lambda texts, **more: {
        "inputs": [[text] for text in texts] if isinstance(texts, list) else texts,
        **more,
    },
    "/tokenize": lambda texts, **more: {"inputs": texts, **more},
}
POSTS = pytest.mark.parametrize("path", BODIES)


def refused(answer: httpx.Response, status: int, *, message: str = "") -> None:
    """The answer is the refusal of its dialect, and nothing else."""
    assert answer.status_code == status, answer.text[:300]
    assert answer.headers["content-type"] == "application/json"
    value = answer.json()
    if answer.request.url.path.startswith(("/v1/", "/pooling")):
        assert set(value) == {"error"}
        assert set(value["error"]) == {"message", "type", "param", "code"}
        assert message in value["error"]["message"]
    else:
        assert set(value) == {"error", "error_type"}
        assert message in value["error"]


def is_tei(path: str) -> bool:
    return not path.startswith(("/v1/", "/pooling"))


@POSTS
def test_bodies_that_are_no_json_object(tiny, path):
    for content in (b"", b"{", b'{"a":', b"[1]", b"nul", b'"x"', b"\xff\xfe", b'{"input": "\\ud800"}', b"{" * 5_000):
        answer = tiny.client.post(path, content=content, headers={"content-type": "application/json"})
        refused(answer, 400)
    refused(tiny.post(path, {}), 422 if is_tei(path) else 400)
    for wrong in (3, None, {"a": 1}, [3], [None], [["x"] * 3]):
        refused(tiny.post(path, BODIES[path](wrong)), 422 if is_tei(path) else 400)
    tiny.until_idle()


@POSTS
def test_content_types(tiny, path):
    body = json.dumps(BODIES[path](["x"])).encode()
    for headers in ({"content-type": "text/plain"}, {}, {"content-type": "application/x-www-form-urlencoded"}):
        refused(tiny.client.post(path, content=body, headers=headers), 415, message="application/json")
    encoded = {"content-type": "application/json", "content-encoding": "gzip"}
    refused(tiny.client.post(path, content=body, headers=encoded), 415, message="gzip")


@POSTS
def test_sizes(tiny, path):
    headers = {"content-type": "application/json"}
    content = json.dumps(BODIES[path](["x" * (10 << 20)])).encode()
    refused(tiny.client.post(path, content=content, headers=headers), 413, message="8.39 MB")
    if path not in ("/predict", "/v1/predict"):
        status = 422 if is_tei(path) else 413
        refused(tiny.post(path, BODIES[path](["x"] * 2_500)), status, message="at most 2,048")
    refused(tiny.post(path, BODIES[path]([])), 422 if path == "/predict" else 400)
    tiny.until_idle()


@POSTS
def test_methods(tiny, path):
    for method in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
        answer = tiny.client.request(method, path)
        refused(answer, 405, message="POST")
        assert answer.headers["allow"] == "POST"
        assert not [name for name in answer.headers if name.startswith("access-control")]
    refused(tiny.client.post(f"{path}x", json={}), 404, message="no route")
    refused(tiny.client.post(f"{path}/", json={}), 404, message="no route")


def test_empty_texts_are_what_each_dialect_makes_of_them(tiny):
    expected = tiny.extractor.extract([""])[0]
    np.testing.assert_array_equal(np.float32(tiny.post(OPENAI, {"input": ""}).json()["data"][0]["embedding"]), expected)
    refused(tiny.post(TEI, {"inputs": ""}), 400, message="empty")
    features = tiny.post("/v1/features", {"texts": [""]}).json()["data"][0]["features"]
    np.testing.assert_array_equal(np.float32(features["embedding"]), expected)


def test_unknown_features_are_told_with_the_nearest_name(tiny):
    for feature, near in (("hiden_states[1].mean", "hidden_states"), ("last_hidden_state.meen", "mean")):
        refused(tiny.post(OPENAI, {"input": "x", "model": f"tiny@{feature}"}), 400, message=near)
        refused(tiny.post("/v1/features", {"texts": "x", "features": [feature]}), 400, message=near)
    refused(tiny.post(OPENAI, {"input": "x", "model": "tiny@hidden_states[4].mean"}), 400, message="out of range")
    refused(tiny.post(TEI.replace("embed", "embed_all"), {"inputs": "x", "layer": -5}), 422, message="out of range")
    refused(tiny.post(OPENAI, {"input": "x", "model": "tny"}), 404, message="did you mean 'tiny'")


def test_hosts(tiny, serve):
    served = serve(tiny.extractor.reference.name, hosts=["localhost", "127.0.0.1", "models.example"])
    port = urlparse(served.url).port
    for host in ("localhost", "127.0.0.1", f"127.0.0.1:{port}", "LOCALHOST", "models.example"):
        assert served.client.post(OPENAI, json={"input": "x"}, headers={"host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "[::1", ""):
        for path in (OPENAI, TEI, "/health/live"):
            refused(served.client.post(path, json={}, headers={"host": host}), 421)


def test_keys(tiny, serve):
    served = serve(tiny.extractor.reference.name, api_key="sesame-123")
    for path, make in BODIES.items():
        for headers in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": "sesame-123"},
            {"authorization": "Basic sesame-123"},
            {"authorization": "Bearer s\xe9same".encode("latin-1")},
        ):
            answer = served.client.post(path, json=make(["x"]), headers=headers)
            refused(answer, 401, message="Authorization: Bearer KEY")
            assert "sesame" not in answer.text
            assert answer.headers["www-authenticate"] == "Bearer"
    assert served.post(OPENAI, {"input": "x"}, authorization="Bearer sesame-123").status_code == 200
    refused(served.client.get("/v1/models"), 401)
    refused(served.client.get("/info"), 401)
    for path in ("/", "/health/live", "/health/ready", "/health", "/ping", "/metrics"):
        assert served.client.get(path).status_code == 200


def test_results_that_are_not_finite_are_never_sent(serve, make_checkpoint, tmp_path):
    folder = make_checkpoint(tmp_path / "broken")
    weights = dict(load_file(folder / "model.safetensors"))
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    table = weights[name].copy()
    table[vocabulary["bank"]] = 3e38
    weights[name] = table
    save_file(weights, folder / "model.safetensors")
    served = serve(folder)
    good = served.post(OPENAI, {"input": ["the", "good"]})
    answers = {}

    def ask(path):
        answers[path] = served.post(path, BODIES[path](["the", "good bank", "good", "bank"]))

    threads = [threading.Thread(target=ask, args=(path,)) for path in (OPENAI, TEI, "/pooling", "/v1/features")]
    for thread in threads:
        thread.start()
    beside = [served.post(OPENAI, {"input": ["the", "good"]}) for _ in range(5)]
    for thread in threads:
        thread.join()
    for answer in answers.values():
        refused(answer, 424, message="text 1, 3")
    assert {answer.text for answer in beside} == {good.text}
    codes = {"texts": ["bank"], "features": {"b": "last_hidden_state.mean.astype(binary)"}}
    refused(served.post("/v1/features", codes), 424)
    served.until_idle()


def test_health_metrics_and_what_stands_at_the_root(tiny):
    assert tiny.client.get("/health/live").json() == {"status": "live"}
    assert tiny.client.get("/health/ready").json() == {"status": "ready"}
    tiny.post(OPENAI, {"input": "x", "model": "tiny@hidden_states[1].max"})
    text = tiny.client.get("/metrics").text
    assert 'layertap_requests_total{route="/v1/embeddings",status="200"}' in text
    assert re.search(r"layertap_tokens_total [1-9]", text)
    assert "hidden_states" not in text
    tiny.client.get("/no/such/route/hidden")
    assert "/no/such" not in tiny.client.get("/metrics").text
    assert tiny.client.get("/").json()["openapi"] == "/openapi.json"
    tiny.state.draining = True
    try:
        refused(tiny.client.get("/health/ready"), 503)
        assert tiny.client.get("/health/live").status_code == 200
        assert "layertap_ready 0.0" in tiny.client.get("/metrics").text
    finally:
        tiny.state.draining = False


def test_the_openapi_document_lists_all_routes(tiny):
    document = tiny.client.get("/openapi.json").json()
    assert {*BODIES, "/v1/models", "/info", "/decode", "/rerank", "/health/live", "/metrics", "/"} <= set(
        document["paths"]
    )
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], path
            assert ("requestBody" in operation) == (method == "post")
            assert {"200", "401", "415"} <= set(operation["responses"])


def test_a_page_can_be_mounted(tiny, serve):
    async def page(call):
        policy = {"content-security-policy": "default-src 'self'"}
        return await call.answer([b"<p>hello"], size=8, media_type="text/html", headers=policy)

    route = Route(method="GET", path="/", handler=page, dialect="tei", summary="A page", public=True)
    served = serve(tiny.extractor.reference.name, pages=[route])
    answer = served.client.get("/")
    assert (answer.text, answer.headers["content-security-policy"]) == ("<p>hello", "default-src 'self'")
    assert served.client.get("/health").headers["content-security-policy"].startswith("default-src 'none'")
    assert served.post("/", {"inputs": "x"}).status_code == 200


def connection(served) -> socket.socket:
    url = urlparse(served.url)
    return socket.create_connection((url.hostname, url.port), timeout=120)


def raw_request(path: str, body: bytes, *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    )
    return head.encode() + body


def test_a_slow_body_is_given_up(tiny, serve, monkeypatch):
    served = serve(tiny.extractor.reference.name, limits=Limits(read_seconds=0.3))
    waits, timeout = [], asyncio.timeout
    monkeypatch.setattr(asyncio, "timeout", lambda seconds: waits.append(seconds) or timeout(seconds))
    with connection(served) as slow:
        slow.sendall(raw_request(OPENAI, b'{"input": ', length=100))
        answer = b""
        while part := slow.recv(4096):
            answer += part
    assert 0.3 in waits
    assert answer.startswith(b"HTTP/1.1 408")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"] == "the body did not arrive in time"
    served.until_idle()


@pytest.mark.parametrize("length", [100_001, 10**19])
def test_a_body_that_states_too_large_a_size_is_refused_before_it_arrives(tiny, serve, length):
    # An answer that waited for the body would not come before the connection's own limit.
    served = serve(tiny.extractor.reference.name, limits=Limits(body_bytes=100_000, read_seconds=3600))
    with connection(served) as waiting:
        waiting.sendall(raw_request(OPENAI, b'{"input": ', length=length))
        answer = b""
        while part := waiting.recv(4096):
            answer += part
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"--max-body-size" in answer
    served.until_idle()


def test_clients_that_hang_up_leave_nothing_behind(tiny):
    body = json.dumps({"input": ["the good bank was " * 10] * 500, "model": "tiny@last_hidden_state.max"}).encode()
    for cut in (len(body), len(body) // 2, 0):
        with connection(tiny) as gone:
            gone.sendall(raw_request(OPENAI, body[:cut], length=len(body)))
            time.sleep(0.05)
    tiny.until_idle()
    assert tiny.post(OPENAI, {"input": "x"}).status_code == 200


def test_a_client_that_does_not_read_its_answer_is_cut_off(tiny, serve, caplog):
    served = serve(tiny.extractor.reference.name, limits=Limits(send_seconds=0.3))
    body = {"texts": ["the good bank was " * 10] * 1000, "features": {"s": "hidden_states[:]"}}
    with connection(served) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.sendall(raw_request("/v1/features", json.dumps(body).encode()))
        for _ in range(2400):  # dropped, with what it did not take
            if "did not take its answer" in caplog.text and not served.server.server_state.connections:
                break
            time.sleep(0.05)
        assert not served.server.server_state.connections
        served.until_idle()
    assert "did not take its answer within 0.3 seconds" in caplog.text
    assert served.post(OPENAI, {"input": "x"}).status_code == 200


def test_idle_connections_hold_nobody_up(tiny):
    idle = []
    try:
        for number in range(300):
            idle.append(connection(tiny))
            if number % 3 == 0:
                idle[-1].sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: local")
        assert tiny.post(OPENAI, {"input": "x"}).status_code == 200
    finally:
        for each in idle:
            each.close()


def test_the_head_of_a_request_that_never_ends(tiny, serve):
    served = serve(tiny.extractor.reference.name, idle_seconds=0.5)
    with connection(served) as slow:
        slow.sendall(b"POST /embed HTTP/1.1\r\nHost: loc")
        for _ in range(1200):
            assert served.post(OPENAI, {"input": "x"}).status_code == 200  # one that is used stays
            if select.select([slow], [], [], 0.1)[0]:
                break
        assert slow.recv(10) == b""


def test_what_a_client_that_has_gone_left_in_the_queue_is_not_run(tiny, serve, monkeypatch):
    served = serve(tiny.extractor.reference.name, limits=Limits(run_tokens=16))
    inner, runs = Pipeline.run_chunk, []

    def slowly(self, texts, on_batch=None):
        runs.append(len(texts))
        for _ in range(6000):  # until the server has noticed that the client is gone
            if not served.server.server_state.connections:
                break
            time.sleep(0.02)
        time.sleep(0.02)
        return inner(self, texts, on_batch)

    monkeypatch.setattr(Pipeline, "run_chunk", slowly)
    body = json.dumps({"input": [f"the good bank was {i}" for i in range(400)]}).encode()
    with connection(served) as gone:
        gone.sendall(raw_request(OPENAI, body))
        while not runs:
            time.sleep(0.01)
    served.until_idle()
    assert sum(runs) < 100


def test_a_full_queue_answers_429_with_retry_after(tiny, serve):
    served = serve(tiny.extractor.reference.name, limits=Limits(queue_seconds=1e-6))
    answers: list[httpx.Response] = []

    def ask(path):
        answers.append(served.post(path, BODIES[path](["the good bank was good"] * 60)))

    threads = [threading.Thread(target=ask, args=(path,)) for path in (OPENAI, TEI, "/pooling") * 6]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            refused(answer, 429, message="overloaded")
            assert int(answer.headers["retry-after"]) >= 1
    served.until_idle()


def test_requests_beyond_the_limits_of_one(tiny, serve):
    served = serve(tiny.extractor.reference.name, limits=Limits(tokens=100, answer_bytes=20_000))
    refused(served.post(OPENAI, {"input": ["the good bank"] * 40}), 413, message="--max-request-tokens")
    large = {"texts": ["the good bank"] * 15, "features": {"s": "hidden_states[:]"}}
    refused(served.post("/v1/features", large), 413, message="--max-answer-size")
    assert served.post(OPENAI, {"input": ["the good bank"] * 10}).status_code == 200
    served.until_idle()


def test_an_error_of_the_server_tells_no_text(tiny, monkeypatch, caplog):
    async def broken(_, records):
        raise RuntimeError(records[0].text)

    monkeypatch.setattr(tiny.state.tokenizing, "prepare", broken)
    refused(tiny.post(OPENAI, {"input": "secret text"}), 500, message="inside the server")
    refused(tiny.post(TEI, {"inputs": "secret text"}), 500)
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text
    tiny.until_idle()
