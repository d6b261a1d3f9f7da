"""The page in a real browser: every view operated and read, at two sizes. Needs Chromium and playwright."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layertap.engine.extractor import Extractor
from layertap.learn.exploring.contents import PageOptions, exploration
from layertap.learn.exploring.corpus import sampled, sampled_units
from layertap.page.assemble import as_html
from layertap.page.content import PageContent
from layertap.records import Record
from tests.page.browser import MARKS, NARROW, address, farthest, ink, opened, place_of, settle, slide

pytest.importorskip("playwright", reason="playwright is not installed (pip install playwright)")
pytest.importorskip("sklearn")
pytestmark = MARKS
MARKUP = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script><b>bold</b>"
ARABIC = "\u0645\u0631\u062d\u0628\u0627 film \U0001f600"
TEXTS = [
    *(f"a good film {i}" if i % 2 else f"the dull movie {i} bank" for i in range(60)),
    MARKUP,
    ARABIC,
    "",
]
LABELS = ["up <i>x</i>" if i % 2 else "down" for i in range(len(TEXTS))]


@pytest.fixture(scope="module")
def content(make_checkpoint, tmp_path_factory) -> PageContent:
    extractor = Extractor.from_pretrained(make_checkpoint(tmp_path_factory.mktemp("model") / "m", pooler="untrained"))
    columns = [{"mood": label, "size": 100 + i} for i, label in enumerate(LABELS)]
    rows = [Record(row=i, id=f"t{i}", text=text, columns=columns[i]) for i, text in enumerate(TEXTS)]
    corpus = sampled(rows, "texts", "mood", most=999, seed=0)
    commands = {
        "extract": "layertap extract x -f '{FEATURE}'",
        "attention": 'extract({SENTENCE}, "attentions[{BLOCK}]")[{HEAD}]',
    }
    return exploration(extractor, corpus, PageOptions(sentences=5, rows=(60, 61)), commands=commands).content


@pytest.fixture(scope="module")
def file(content, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(as_html(content))
    return path


def test_points_are_drawn_and_move_with_the_slider(browser, file, content):
    layer = content.facts["start"]
    other = 0 if layer else 1
    with opened(browser, file) as page:
        assert ink(page, "#map") > 20 * len(TEXTS)
        before = page.evaluate("document.querySelector('#map').toDataURL()")
        slide(page, other)
        settle(page, 500)
        assert page.evaluate("document.querySelector('#map').toDataURL()") != before
        assert page.inner_text("#layer-name") == f"hidden_states[{other}]"
        assert f"layer={other}" in address(page)
        assert f"hidden_states[{other}].mean" in page.inner_text("[data-command=extract]")
        variance = 100 * sum(content.facts["layers"][other]["variance"])
        assert f"{variance:.1f} %" in page.inner_text("#map-note")


def test_hover_click_and_neighbours(browser, file, content):
    layer = content.facts["start"]
    text = farthest(content, layer)
    with opened(browser, file) as page:
        page.mouse.move(*place_of(page, content, text, layer))
        assert (TEXTS[text] or "(empty text)") in page.inner_text("#tip")
        page.mouse.click(*place_of(page, content, text, layer))
        assert page.inner_text("#chosen h3") == (TEXTS[text] or "(empty text)")
        assert f"text={text}" in address(page)
        shown = page.locator("#nearest li").all_inner_texts()
        cosines, near = content.arrays[f"cosine{layer}"][text], content.arrays[f"near{layer}"][text]
        assert [line.split()[0].replace("\u2212", "-") for line in shown] == [f"{cosine:.3f}" for cosine in cosines]
        assert [line.split("\n")[-1] for line in shown] == [TEXTS[i] or "(empty text)" for i in near]
        ranks = page.locator("#ranks tbody tr").first.locator("td.rank").all_inner_texts()
        expected = [list(content.arrays[f"near{i}"][text]) for i in range(len(content.facts["layers"]))]
        assert ranks == [str(row.index(near[0]) + 1) if near[0] in row else "·" for row in expected]
        page.locator("#nearest button").first.click()
        assert page.inner_text("#chosen h3") == (TEXTS[near[0]] or "(empty text)")


def test_zoom_and_keys(browser, file):
    with opened(browser, file) as page:
        drawn = ink(page, "#map")
        page.hover("#map")
        page.mouse.wheel(0, -600)
        settle(page, 200)
        assert "zoom=" in address(page)
        page.focus("#map")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("0")
        assert "zoom=" not in address(page)
        assert abs(ink(page, "#map") - drawn) < drawn / 10
        page.keyboard.press(",")
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "search"


@pytest.mark.parametrize("tool", ["Box", "Lasso"])
def test_a_selection_is_listed_and_downloaded(browser, file, content, tool):
    layer = content.facts["start"]
    with opened(browser, file) as page:
        box = page.locator("#map").bounding_box()
        left, top, right = box["x"] + 3, box["y"] + 3, box["x"] + box["width"] / 2
        page.get_by_role("button", name=tool).click()
        corners = [(left, top), (right, top), (right, top + box["height"] - 6), (left, top + box["height"] - 6)]
        page.mouse.move(*corners[0])
        page.mouse.down()
        for corner in corners[2:3] if tool == "Box" else corners[1:]:
            page.mouse.move(*corner, steps=4)
        page.mouse.up()
        places = [place_of(page, content, i, layer) for i in range(len(TEXTS))]
        inside = [i for i, (x, y) in enumerate(places) if left < x < right and top < y < corners[2][1]]
        assert inside
        assert f"Selected: {len(inside)} text" in page.inner_text("#selected").replace("SELECTED", "Selected").replace(
            "TEXT", "text"
        )
        of_each = Counter(LABELS[i] for i in inside)
        assert page.inner_text("#selected-labels").split(" · ") == [f"{one} {n}" for one, n in of_each.most_common()]
        with page.expect_download() as saved:
            page.get_by_role("button", name="Download JSONL").click()
        rows = [json.loads(line) for line in Path(saved.value.path()).read_text(encoding="utf-8").splitlines()]
        assert [row["row"] for row in rows] == inside
        assert rows[0]["text"] == TEXTS[inside[0]]
        assert rows[0]["mood"] == LABELS[inside[0]]
        assert rows[0]["id"] == f"t{inside[0]}"


def test_copied_ids_are_those_of_the_selection(browser, file):
    with opened(browser, file, state="selected=1,4", permissions=["clipboard-read", "clipboard-write"]) as page:
        page.get_by_role("button", name="Copy ids").click()
        settle(page, 100)
        assert page.evaluate("navigator.clipboard.readText()") == "t1\nt4\n"


def test_the_legend_filters_and_the_search_highlights(browser, file):
    with opened(browser, file) as page:
        drawn = ink(page, "#map")
        page.locator("#legend li button").first.click()
        assert "hidden=0" in address(page)
        assert ink(page, "#map") < drawn * 0.75
        page.get_by_role("button", name="Show all", exact=True).click()
        page.fill("#search", "MOVIE")
        settle(page, 300)
        assert page.locator("#results li").count() == sum("movie" in text for text in TEXTS)
        page.select_option("#colour", label="size")
        assert page.locator("#legend li").count() == 4


def test_the_curve_is_read_and_clicked(browser, file, content):
    rows = content.facts["probe"]["rows"]
    with opened(browser, file) as page:
        shown = page.locator("#curve li b").all_inner_texts()
        assert shown == [f"{row['value']:.3f}" for row in rows]
        page.locator("#curve button").nth(1).click()
        assert page.inner_text("#layer-name") == "hidden_states[1]"
        assert f"selectivity {rows[1]['selectivity']:.3f}".replace("-", "\u2212") in page.inner_text("#curve-says")
        assert ink(page, "#curve canvas") > 50
        assert ink(page, "#alike") > 500
        page.locator("#alike").hover(position={"x": 30, "y": 30})
        assert "1.00000" in page.inner_text("#tip")


def test_tokens_and_outputs(browser, file, content):
    number = next(i for i, one in enumerate(content.facts["sentences"]) if one["index"] == 61)
    sentence = content.facts["sentences"][number]
    with opened(browser, file, state="text=61") as page:
        assert page.locator("#tokens button").all_inner_texts() == sentence["tokens"]
        at = next(t for t, end in enumerate(sentence["ends"]) if end == len(ARABIC) and end > sentence["begins"][t])
        page.locator("#tokens button").nth(at).click()
        assert "\U0001f600" in page.inner_text("#token-says")
        assert ink(page, "#strip") > 1000
        page.locator("#strip").hover(position={"x": 22 + 34 + 5, "y": 5})
        value = content.arrays[f"s{number}-last"][0, 1]
        assert f"{abs(value):.5f}" in page.inner_text("#tip")
        page.select_option("#measure", "norm")
        page.locator("#strip").hover(position={"x": 22 + 34 + 6, "y": 6})
        assert f"{content.arrays[f's{number}-norm'][0, 1]:.5f}" in page.inner_text("#tip")
        assert "measure=norm" in address(page)
        outputs = page.inner_text("#outputs")
        assert "never trained" in outputs
        assert all(output["shape"] in outputs for output in sentence["outputs"])


def test_attention_by_grid_keys_and_hover(browser, file, content):
    number = next(i for i, one in enumerate(content.facts["sentences"]) if one["index"] == 61)
    maps = content.arrays[f"s{number}-attention"]
    with opened(browser, file, state="text=61") as page:
        page.focus("#heads")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowRight")
        assert "block=1" in address(page)
        assert 'attentions[1]")[1]' in page.inner_text("[data-command=attention]")
        best = int(maps[1, 1, 0].argmax())
        assert f"{maps[1, 1, 0, best] / 65535:.3f}" in page.inner_text("#attention-says")
        assert ink(page, "#head") > 2000
        page.locator("#head").hover(position={"x": 80, "y": 80})
        assert f"{maps[1, 1, 0, 0] / 65535:.3f}" in page.inner_text("#tip")


def test_words_are_shown_in_their_texts(browser, make_checkpoint, tmp_path):
    extractor = Extractor.from_pretrained(make_checkpoint(tmp_path / "m"))
    rows = [
        Record.of_words(i, ["\U0001f600", f"<b>film{i}</b>", "bank"], columns={"tag": list("xyz")}) for i in range(9)
    ]
    corpus = sampled_units(rows, "words", "tag", kind="word", most=99, seed=0)
    made = exploration(
        extractor, corpus, PageOptions(sentences=4), commands={"neighbours": "{VECTORS} r[{ROW}] + {UNIT}"}
    ).content
    path = tmp_path / "words.html"
    path.write_bytes(as_html(made))
    with opened(browser, path, state="text=4") as page:
        assert page.inner_text("#chosen h3") == "<b>film1</b>"
        assert page.inner_text("#chosen mark") == "<b>film1</b>"
        assert page.inner_text("#chosen .context") == "\U0001f600 <b>film1</b> bank"
        assert page.locator("main b b").count() == 0
        assert "r[1] + 1" in page.inner_text("[data-command=neighbours]")
        assert page.locator("#nearest li").first.locator("mark").count() == 1
        page.fill("#search", "film")
        settle(page, 300)
        assert "9 WORDS" in page.inner_text("#results").upper()
        index = made.facts["sentences"][2]["index"]
        page.select_option("#sentence", "2")
        assert page.inner_text("#chosen h3") == "\U0001f600"
        assert f"text={3 * index}" in address(page)
        page.mouse.move(*place_of(page, made, 3 * index, made.facts["start"]))
        assert "film" in page.inner_text("#tip .context")


def test_points_without_texts_are_shown_by_their_rows(browser, content, tmp_path):
    path = tmp_path / "stored.html"
    facts = {**content.facts, "texts": None, "sentences": [], "why_no_sentences": "The features hold no texts."}
    arrays = {name: values for name, values in content.arrays.items() if not name.startswith("s")}
    path.write_bytes(as_html(replace(content, facts=facts, arrays=arrays)))
    with opened(browser, path, state="text=4&query=film") as page:
        assert page.inner_text("#chosen h3") == "row 4, id t4"
        assert page.locator("#search").is_disabled()
        assert page.inner_text("#nearest li >> nth=0").startswith(("0.", "\u22120.", "1."))
        assert "The features hold no texts." in page.inner_text("#pane-text")


def test_markup_in_texts_and_labels_stays_text(browser, file):
    with opened(browser, file, state="text=60&query=img") as page:
        assert page.inner_text("#chosen h3") == MARKUP
        assert page.locator("main img, main b b, main i").count() == 0
        assert "broken" not in page.title()
        assert "up <i>x</i>" in page.inner_text("#legend")


def test_an_address_with_wrong_values_opens_the_page(browser, file):
    with opened(
        browser, file, state="layer=99&text=-7&zoom=abc&colour=40&selected=1,x,9999&measure=foo&head=500"
    ) as page:
        assert ink(page, "#map") > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_shows_one_part_at_a_time(browser, file, scheme):
    options: dict[str, Any] = {"color_scheme": scheme, "has_touch": True, "reduced_motion": "reduce"}
    with opened(browser, file, NARROW, **options) as page:
        assert ink(page, "#map") > 500
        for part, selector in (("Layers", "#curve"), ("Text", "#nearest"), ("Map", "#map")):
            page.get_by_role("button", name=part, exact=True).click()
            assert page.locator(selector).is_visible()
            assert page.locator(".pane:visible").count() == 1
            assert page.evaluate("document.documentElement.scrollWidth") <= NARROW[0]
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (background == "rgb(20, 23, 26)") == (scheme == "dark")


@pytest.fixture
def large(content, tmp_path) -> Path:
    """A page with 100,000 points."""
    number, layers = 100_000, len(content.facts["layers"])
    random = np.random.default_rng(0)
    arrays = {
        name: values
        for name, values in content.arrays.items()
        if not name.startswith(("points", "near", "cosine", "column"))
    }
    for layer in range(layers):
        arrays[f"points{layer}"] = random.normal(size=(number, 2)).astype(np.float32)
        arrays[f"near{layer}"] = random.integers(0, number, (number, 10), dtype=np.uint32)
        arrays[f"cosine{layer}"] = random.random((number, 10), dtype=np.float32)
    arrays["column0"] = random.integers(0, 2, number).astype(np.uint16)
    columns = content.facts["columns"][:1]
    facts = {
        **content.facts,
        "count": number,
        "texts": [f"text number {i}" for i in range(number)],
        "rows": list(range(number)),
        "ids": None,
        "columns": columns,
    }
    path = tmp_path / "large.html"
    path.write_bytes(as_html(replace(content, facts=facts, arrays=arrays)))
    return path


def test_a_hundred_thousand_points_are_drawn_and_move(browser, large, content):
    layer = content.facts["start"]
    with opened(browser, large) as page:
        assert ink(page, "#map") > 50_000
        before = page.evaluate(PICTURE)
        page.evaluate(MOVE, 0 if layer else 1)
        settle(page, 450)
        assert page.evaluate(PICTURE) != before
        assert ink(page, "#map") > 50_000


@pytest.mark.stress
def test_a_hundred_thousand_points_load_in_3_seconds_and_move_in_100_ms(browser, large, content):
    """Needs idle cores."""
    layers = len(content.facts["layers"])
    loads, moves = [], []
    for _ in range(3):
        begun = time.perf_counter()
        with opened(browser, large) as page:
            loads.append(time.perf_counter() - begun - 0.45)
            assert ink(page, "#map") > 50_000
            moves.append(sorted(page.evaluate(MOVE, layer) for layer in range(layers))[layers // 2])
    # The best of three rounds: what else runs on the machine makes the others slower.
    assert min(loads) < 3, loads
    assert min(moves) < 100, moves


MOVE = """async layer => {
    const slider = document.querySelector("#layer");
    const begun = performance.now();
    slider.value = layer;
    slider.dispatchEvent(new Event("input"));
    await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
    return performance.now() - begun;
}"""

PICTURE = """document.querySelector("#map").toDataURL()"""
