"""The page that the server shows, and the route that computes its texts."""

from __future__ import annotations

import base64
import json
import re
import sys
from importlib import import_module

import numpy as np
import pytest

from layertap.cli.main import main
from layertap.learn.exploring.index import CorpusIndex
from layertap.learn.exploring.live import MOST_CHARACTERS, sentence_page, token_limit
from layertap.learn.exploring.planes import planes
from layertap.learn.exploring.sentences import sentence_of
from layertap.server.limits import Limits
from layertap.server.page import SENTENCES, Page

TEXTS = ["the good film", "a dull movie", "the river bank", "hello world"]
DTYPES = {"f4": "<f4", "u4": "<u4", "u2": "<u2"}


def arrays_of(answer):
    made = {}
    for name, (kind, *shape, text) in answer.json()["arrays"].items():
        made[name] = np.frombuffer(base64.b64decode(text), DTYPES[kind]).reshape(shape)
    return made


def plain_page(extractor) -> Page:
    return Page.of(sentence_page(extractor, "tiny", commands={"sentence": "{SENTENCE}"}), extractor)


def explored_page(extractor) -> Page:
    layers = list(np.stack(extractor.extract(TEXTS, "hidden_states[:].mean"), axis=1))
    content = sentence_page(extractor, "tiny", commands={})
    index = CorpusIndex.of(layers, planes(layers))
    return Page.of(content, extractor, index=index, neighbours=3)


@pytest.fixture(scope="module")
def paged(serve, tiny):
    return serve(tiny.extractor.reference.name, pages=plain_page(tiny.extractor).routes)


def test_the_page_is_one_file_under_its_own_policy(paged):
    answer = paged.client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', answer.text, re.DOTALL)[1])
    assert facts["live"] == {"most_tokens": 64, "most_characters": MOST_CHARACTERS}
    assert facts["layers"] == []
    assert paged.post("/", {"inputs": "x"}).status_code == 200, "the route of text-embeddings-inference stays"


def test_a_sentence_is_computed_as_in_a_file(paged):
    text = "the <b>river</b> bank \U0001f600"
    answer = paged.post(SENTENCES, {"text": text})
    exact = sentence_of(paged.extractor, text)
    assert answer.json()["sentence"] == exact.as_facts()
    arrays = arrays_of(answer)
    assert sorted(arrays) == sorted(exact.arrays)
    for name, array in exact.arrays.items():
        assert np.array_equal(arrays[name], array), name
    paged.until_idle()


def test_neighbours_and_places_of_a_sentence(serve, tiny):
    page = explored_page(tiny.extractor)
    served = serve(tiny.extractor.reference.name, pages=page.routes)
    arrays = arrays_of(served.post(SENTENCES, {"text": TEXTS[2]}))
    assert arrays["near"].shape == arrays["cosine"].shape
    assert (arrays["near"][:, 0] == 2).all()
    np.testing.assert_allclose(arrays["cosine"][:, 0], 1, atol=1e-6)
    places = [plane.points[2] for plane in page.index.planes]
    np.testing.assert_allclose(arrays["place"], places, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "status", "said"),
    [
        ("", 400, "The text is empty. Type one."),
        (" \n", 400, "The text is empty. Type one."),
        (3, 400, "text: expected a text; found 3"),
        ("x " * (MOST_CHARACTERS // 2 + 1), 413, "20,002 characters, and this page shows texts of at most 20,000"),
        ("bank " * 70, 413, "72 tokens, and this page shows texts of at most 64. Shorten it."),
        ("x" * (10 << 20), 413, "--max-body-size"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_words(paged, text, status, said):
    answer = paged.post(SENTENCES, {"text": text})
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]
    paged.until_idle()


def test_a_text_of_the_most_tokens_is_shown(paged):
    most = token_limit(paged.extractor)
    answer = paged.post(SENTENCES, {"text": "bank " * (most - 2)})
    assert len(answer.json()["sentence"]["tokens"]) == most


def test_limits_of_the_server_hold(serve, tiny):
    routes = plain_page(tiny.extractor).routes
    served = serve(tiny.extractor.reference.name, pages=routes, limits=Limits(answer_bytes=1000))
    answer = served.post(SENTENCES, {"text": "the bank"})
    assert answer.status_code == 413
    assert "--max-answer-size" in answer.json()["error"]["message"]
    served.until_idle()


def test_a_page_with_texts_asks_browsers_for_the_key(serve, tiny):
    name, extractor = tiny.extractor.reference.name, tiny.extractor
    served = serve(name, pages=explored_page(extractor).routes, api_key="sesame-123")
    for answer in (served.client.get("/"), served.post(SENTENCES, {"text": "x"})):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith('Basic realm="layertap')
    for wrong in (("any", "wrong"), ("sesame-123", "")):
        assert served.client.get("/", auth=wrong).status_code == 401
    assert served.client.get("/", headers={"authorization": "Basic !"}).status_code == 401
    assert served.client.get("/", auth=("any", "sesame-123")).status_code == 200
    assert served.client.get("/", headers={"authorization": "Bearer sesame-123"}).status_code == 200
    assert served.client.post(SENTENCES, json={"text": "x"}, auth=("", "sesame-123")).status_code == 200
    # A page without texts says nothing that the key protects.
    plain = serve(name, pages=plain_page(extractor).routes, api_key="sesame-123")
    assert plain.client.get("/").status_code == 200
    assert plain.post(SENTENCES, {"text": "x"}).status_code == 401


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--label", "mood"], 2, "--label is about the texts of --explore"),
        (["--no-header"], 2, "--no-header is about the texts of --explore"),
        (["--explore", "moods.csv", "--label", "moood"], 2, "no column 'moood' for labels"),
        (["--explore", "moods.csv", "--pooling", "median"], 2, "--pooling 'median': expected one of cls"),
        (["--explore", "moods.csv", "--explore-texts", "0"], 2, "--explore-texts 0: expected at least 1"),
        (["--explore", "moods.csv", "--neighbours", "0"], 2, "neighbours 0: expected at least 1"),
        (["--explore", "none.csv"], 1, "none.csv: no such file"),
        (["--explore", "."], 2, "is a folder; name the file of texts"),
    ],
)
def test_options_of_the_page_that_do_not_fit(tmp_path, monkeypatch, capsys, tiny, arguments, status, said):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "moods.csv").write_text("text,mood\na,b\n", encoding="utf-8")
    assert main(["serve", "-m", str(tiny.extractor.reference.name), "--port", "0", *arguments]) == status
    assert said in capsys.readouterr().err


def test_without_scikit_learn(capsys, monkeypatch):
    monkeypatch.setattr("layertap.cli.serve.find_spec", lambda _: None)
    monkeypatch.setattr(import_module("layertap.server.run"), "bind", lambda *_: pytest.fail("the port was bound"))
    assert main(["serve", "--explore", "x.csv"]) == 2
    assert "--explore needs scikit-learn: pip install 'layertap[learn]'" in capsys.readouterr().err


def test_the_page_needs_neither_torch_nor_scikit_learn():
    assert "layertap.server.page" in sys.modules
    import subprocess

    code = "import sys, layertap.server.page; print({'torch', 'sklearn'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
