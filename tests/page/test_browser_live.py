"""The page that a server shows, in a real browser: texts are typed and computed. Needs Chromium and playwright."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from layertap.learn.exploring.contents import PageOptions, exploration
from layertap.learn.exploring.corpus import sampled
from layertap.learn.exploring.index import CorpusIndex
from layertap.learn.exploring.live import MOST_CHARACTERS, sentence_page
from layertap.learn.exploring.sentences import sentence_of
from layertap.records import Record
from layertap.server.page import Page
from tests.page.browser import MARKS, NARROW, WIDE, address, ink, opened, settle, slide
from tests.server.conftest import Served, starting

pytest.importorskip("playwright", reason="playwright is not installed (pip install playwright)")
pytest.importorskip("sklearn")
pytestmark = MARKS
TEXTS = [f"a good film {i}" if i % 2 else f"the dull movie {i} bank" for i in range(40)]
MARKUP = "the <img src=x onerror=\"document.title='broken'\"> bank"
ACCENT = (0x1F, 0x63, 0x89)
KEY = "sesame-123"


@pytest.fixture(scope="module")
def start() -> Iterator[Any]:
    with starting() as start:
        yield start


@pytest.fixture(scope="module")
def plain(start, make_checkpoint, tmp_path_factory) -> Served:
    """A server whose page has no texts of its own."""
    folder = make_checkpoint(tmp_path_factory.mktemp("live") / "tiny", pooler="untrained")
    extractor = start(folder).extractor
    return start(folder, pages=Page.of(sentence_page(extractor, "tiny", commands={}), extractor).routes)


@pytest.fixture(scope="module")
def page_of_texts(plain) -> Page:
    rows = [Record(row=i, text=text, columns={"mood": "ab"[i % 2]}) for i, text in enumerate(TEXTS)]
    corpus = sampled(rows, "texts", "mood", most=999, seed=0)
    made = exploration(plain.extractor, corpus, PageOptions(sentences=0), commands={})
    index = CorpusIndex.of(made.layers, made.planes)
    return Page.of(made.content, plain.extractor, index=index, neighbours=10)


@pytest.fixture(scope="module")
def explored(start, plain, page_of_texts) -> Served:
    return start(plain.extractor.reference.name, pages=page_of_texts.routes)


def type_in(page: Any, text: str) -> None:
    page.fill("#typed", text)
    page.press("#typed", "Enter")


def until(page: Any, holds: Callable[[], bool]) -> None:
    """Wait until something holds. The page's policy keeps playwright from evaluating a text for this."""
    for _ in range(4800):
        if holds():
            return
        page.wait_for_timeout(25)
    raise AssertionError(page.inner_text("body"))


def accents_at(page: Any, x: float, y: float) -> int:
    """Number of pixels of the accent colour in the map near a place."""
    near = page.evaluate(
        """([x, y]) => {
            const canvas = document.querySelector("#map");
            const box = canvas.getBoundingClientRect();
            const part = canvas.getContext("2d").getImageData(x - box.left - 8, y - box.top - 8, 16, 16);
            return Array.from(part.data);
        }""",
        [x, y],
    )
    pixels = np.array(near).reshape(-1, 4)[:, :3]
    return int((np.abs(pixels - ACCENT).max(axis=1) < 8).sum())


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_a_sentence_is_typed_into_a_page_without_texts(browser, plain, size):
    with opened(browser, f"{plain.url}/", size) as page:
        page.wait_for_selector("#tokens")
        assert page.locator("#map, #curve").count() == 0
        text = "the river bank \U0001f600"
        type_in(page, text)
        exact = sentence_of(plain.extractor, text)
        until(page, lambda: page.locator("#tokens button").count() == len(exact.tokens))
        assert page.locator("#tokens button").all_inner_texts() == list(exact.tokens)
        page.locator("#tokens button").nth(1).click()
        assert "characters 0 to 3" in page.inner_text("#token-says")
        page.locator("#strip").hover(position={"x": 30, "y": 5})
        assert f"{abs(exact.arrays['last'][0, 0]):.5f}" in page.inner_text("#tip")
        for output in exact.outputs:
            assert output["shape"] in page.inner_text("#outputs")
        assert ink(page, "#heads") > 500
        best = int(exact.arrays["attention"][0, 0, 1].argmax())
        assert f"{exact.arrays['attention'][0, 0, 1, best] / 65535:.3f}" in page.inner_text("#attention-says")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        state = address(page)
    with opened(browser, f"{plain.url}/", size, state=state.lstrip("#")) as page:
        page.wait_for_selector("#tokens")
        assert page.input_value("#typed") == text
        assert page.locator("#tokens button").all_inner_texts() == list(exact.tokens)
        assert page.get_attribute("#tokens button:nth-child(2)", "aria-pressed") == "true"


def test_a_typed_sentence_has_neighbours_and_a_place(browser, explored, page_of_texts):
    text = "the good river movie"
    layers = explored.extractor.extract(text, "hidden_states[:].mean")
    exact = page_of_texts.index.search(list(layers), 10)
    with opened(browser, f"{explored.url}/") as page:
        type_in(page, text)
        until(page, lambda: page.locator("#nearest li").count() == 10)
        for layer in (1, 0):
            slide(page, layer)
            settle(page, 500)
            shown = page.locator("#nearest li").all_inner_texts()
            expected = [f"{cosine:.3f}" for cosine in exact["cosine"][layer]]
            assert [line.split()[0].replace("\u2212", "-") for line in shown] == expected
            assert [line.split("\n")[-1] for line in shown] == [TEXTS[i] for i in exact["near"][layer]]
            box = page.locator("#map").bounding_box()
            rx, ry, cx, cy = page.evaluate("JSON.parse(document.querySelector('#facts').textContent).extent")
            scale = min(box["width"] / rx, box["height"] / ry) * 0.47
            x, y = exact["place"][layer].tolist()
            at = box["x"] + box["width"] / 2 + (x - cx) * scale, box["y"] + box["height"] / 2 - (y - cy) * scale
            assert accents_at(page, *at) > 60
        state = address(page)
        assert "typed=the+good" in state
    with opened(browser, f"{explored.url}/", state=state.lstrip("#")) as page:
        page.wait_for_selector("#nearest li")
        assert page.locator("#nearest li").all_inner_texts() == shown


def test_a_text_of_the_map_is_computed_when_it_is_chosen(browser, explored):
    with opened(browser, f"{explored.url}/") as page:
        page.wait_for_selector("#tokens")
        page.fill("#search", "film 7")
        page.locator("#results li button").first.click()
        expected = list(sentence_of(explored.extractor, "a good film 7").tokens)
        until(page, lambda: page.locator("#tokens button").count() == len(expected))
        assert page.locator("#tokens button").all_inner_texts() == expected
        assert page.inner_text("#chosen h3") == "a good film 7"
        type_in(page, "hello")
        until(page, lambda: page.inner_text("#chosen h3") == "hello")
        page.locator("#nearest button").first.click()
        assert page.inner_text("#chosen h3") in TEXTS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "There is no text. Type one."),
        ("   ", "There is no text. Type one."),
        ("bank " * 100, "The text has 102 tokens, and this page shows texts of at most 64. Shorten it."),
        ("x" * (MOST_CHARACTERS + 1), "This text has 20,001 characters, and the page shows texts of at most 20,000."),
    ],
)
def test_what_cannot_be_shown_is_said_below_the_field(browser, plain, text, said):
    with opened(browser, f"{plain.url}/") as page:
        page.wait_for_selector("#tokens")
        page.evaluate("text => { document.querySelector('#typed').value = text; }", text)
        page.click("#show")
        page.wait_for_selector("#typed-says.notice")
        assert said in page.inner_text("#typed-says")
        type_in(page, "the bank")
        page.wait_for_selector("#tokens")
        assert page.inner_text("#typed-says") == ""


def test_ten_million_characters_that_are_pasted_are_refused_at_once(browser, plain):
    permissions = ["clipboard-read", "clipboard-write"]
    with opened(browser, f"{plain.url}/", permissions=permissions) as page:
        page.wait_for_selector("#tokens")
        page.focus("#typed")
        page.evaluate("navigator.clipboard.writeText('x'.repeat(10 << 20))")
        page.keyboard.press("Control+v")
        page.wait_for_selector("#typed-says.notice")
        assert "This text has 10,485,760 characters" in page.inner_text("#typed-says")
        assert len(page.input_value("#typed")) < 100


def test_markup_that_is_typed_stays_text(browser, explored):
    with opened(browser, f"{explored.url}/") as page:
        type_in(page, MARKUP)
        until(page, lambda: page.locator("#nearest li").count() == 10)
        assert page.inner_text("#chosen h3") == MARKUP
        assert page.locator("main img").count() == 0
        assert "broken" not in page.title()


def test_a_server_that_has_gone_is_said(browser, plain):
    with opened(browser, f"{plain.url}/") as page:
        page.wait_for_selector("#tokens")
        page.route("**/page/sentence", lambda route: route.abort())
        type_in(page, "hello")
        page.wait_for_selector("#typed-says.notice")
        assert page.inner_text("#typed-says") == "The server does not answer. Is it still running?"


def test_a_server_that_is_full_says_so(browser, plain):
    refusal = '{"error": {"message": "the server is overloaded: the work that waits takes 2.0 seconds"}}'
    with opened(browser, f"{plain.url}/") as page:
        page.wait_for_selector("#tokens")
        page.route("**/page/sentence", lambda route: route.fulfill(status=429, body=refusal))
        type_in(page, "hello")
        page.wait_for_selector("#typed-says.notice")
        assert "the work that waits takes 2.0 seconds" in page.inner_text("#typed-says")


def test_the_browser_sends_the_key(browser, start, plain, page_of_texts):
    served = start(plain.extractor.reference.name, pages=page_of_texts.routes, api_key=KEY)
    with opened(browser, f"{served.url}/", http_credentials={"username": "any", "password": KEY}) as page:
        type_in(page, "the bank")
        until(page, lambda: page.locator("#nearest li").count() == 10)
    context = browser.new_context(http_credentials={"username": "any", "password": "wrong"})
    assert context.new_page().goto(served.url).status == 401
    context.close()
