"""Hostile requests: an answer of the dialect, and never an error of the server or plain text."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.server.bodies import hostile_requests
from tests.server.test_app import is_tei

BINARY = ("application/vnd.safetensors", "application/vnd.apache.arrow.stream", "application/x-npz")


def check(answer: httpx.Response, path: str) -> None:
    if answer.status_code == 200:
        media = answer.headers["content-type"]
        assert media in ("application/json", *BINARY)
        if media == "application/json":
            value = json.loads(answer.content, parse_constant=lambda name: pytest.fail(name))
            assert "null" not in answer.text or path in ("/tokenize", "/v1/features", "/v1/predict"), value
        return
    assert answer.status_code in (400, 404, 406, 413, 415, 422, 424, 429), answer.text[:300]
    value = answer.json()
    assert set(value) == ({"error", "error_type"} if is_tei(path) else {"error"})
    message = value["error"] if is_tei(path) else value["error"]["message"]
    assert 5 < len(message) < 6_000
    assert "Traceback" not in message


@pytest.mark.parametrize(
    "count", [300, pytest.param(3_000, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.stress)]
)
def test_hostile_requests(tiny, count):
    statuses: dict[int, int] = {}
    for own in hostile_requests(count, seed=count):
        try:
            answer = tiny.client.post(own.path, content=own.content, headers=own.headers)
            check(answer, own.path)
        except Exception as error:
            error.add_note(f"request {own.number} of seed {count}: {own}")
            raise
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
    tiny.until_idle()
    assert statuses[200] > count / 40
    assert statuses[400] > count / 20
    assert statuses[422] > count / 20


def test_the_harness_notices_an_error_of_the_server(tiny, monkeypatch):
    async def broken(*_):
        raise RuntimeError

    monkeypatch.setattr(tiny.state.tokenizing, "prepare", broken)
    with pytest.raises(AssertionError):
        check(tiny.post("/embed", {"inputs": "x"}), "/embed")
    tiny.until_idle()


@pytest.mark.slow
def test_the_openapi_document_with_schemathesis(tiny):
    schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")
    from hypothesis import HealthCheck, given, settings

    quiet = {"suppress_health_check": list(HealthCheck)}
    schema = schemathesis.openapi.from_url(f"{tiny.url}/openapi.json")
    for result in schema.get_all_operations():
        check_operation(result.ok(), given, settings(max_examples=40, deadline=None, database=None, **quiet))


def check_operation(operation, given, settings):
    """Send what the document allows to one route, and much that it does not say."""

    @given(case=operation.as_strategy())
    @settings
    def sound(case):
        answer = case.call()
        assert answer.status_code < 500, (operation.path, answer.status_code)
        media = answer.headers["content-type"][0] if isinstance(answer.headers["content-type"], list) else ""
        assert operation.path == "/metrics" or "application/" in (media or answer.headers["content-type"])

    sound()
