"""Contrast, motion, keys and missing abilities of the browser, in a real browser. Needs Chromium and playwright."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from layertap.engine.extractor import Extractor
from layertap.learn.exploring.contents import PageOptions, exploration
from layertap.learn.exploring.corpus import sampled
from layertap.page.assemble import as_html
from layertap.records import Record
from tests.page.browser import CHROMIUM, FLAGS, MARKS, NARROW, WIDE, ink, opened, settle

pytest.importorskip("playwright", reason="playwright is not installed (pip install playwright)")
pytest.importorskip("sklearn")
pytestmark = MARKS
TEXTS = [f"a good film {i}" if i % 2 else f"the dull movie {i} bank" for i in range(40)]

CONTRAST = """() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => {
        const [r, g, b] = colour.map((v) => (v <= 10 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const behind = (element) => {
        for (let one = element; one !== null; one = one.parentElement) {
            const [r, g, b, a = 1] = numbers(getComputedStyle(one).backgroundColor);
            if (a === 1) return [r, g, b];
        }
        return [255, 255, 255];
    };
    const ratio = (element, pseudo) => {
        const ink = numbers(getComputedStyle(element, pseudo).color).slice(0, 3);
        const [one, other] = [light(ink), light(behind(element))];
        return Math.max(one, other) / Math.min(one, other);
    };
    const [faults, walker] = [[], document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)];
    let count = 0;
    while (walker.nextNode()) {
        const [text, element] = [walker.currentNode.textContent.trim(), walker.currentNode.parentElement];
        if (text === "" || ["SCRIPT", "NOSCRIPT", "OPTION"].includes(element.tagName)) continue;
        if (!element.checkVisibility()) continue;
        count += 1;
        if (!element.checkVisibility({ opacityProperty: true })) faults.push(`${text}: invisible`);
        if (ratio(element) < 4.5) faults.push(`${text.slice(0, 40)}: ${ratio(element).toFixed(2)}`);
    }
    for (const element of document.querySelectorAll("[placeholder]")) {
        const contrast = ratio(element, "::placeholder");
        if (contrast < 4.5) faults.push(`placeholder: ${contrast.toFixed(2)}`);
    }
    return { count, faults };
}"""
MOVED = """async (layer) => {
    const drawn = () => document.querySelector("#map").toDataURL();
    const slider = document.querySelector("#layer");
    slider.value = layer;
    slider.dispatchEvent(new Event("input"));
    await new Promise((done) => requestAnimationFrame(done));
    const first = drawn();
    await new Promise((done) => setTimeout(done, 900));
    return drawn() !== first;
}"""
DRAWN = "document.querySelector('#map').toDataURL()"


@pytest.fixture(scope="module")
def file(make_checkpoint, tmp_path_factory) -> Path:
    extractor = Extractor.from_pretrained(make_checkpoint(tmp_path_factory.mktemp("model") / "m", pooler="untrained"))
    rows = [Record(row=i, text=text, columns={"mood": "ab"[i % 2]}) for i, text in enumerate(TEXTS)]
    content = exploration(
        extractor, sampled(rows, "x", "mood", most=99, seed=0), PageOptions(sentences=5), commands={}
    ).content
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(as_html(content))
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_contrast_of_all_text_is_at_least_that_of_wcag_aa(browser, file, scheme, size):
    with opened(browser, file, size, state="selected=1,2&query=film&hidden=1", color_scheme=scheme) as page:
        seen = 0
        for part in ("Layers", "Map", "Text") if size == NARROW else ("",):
            if part:
                page.get_by_role("button", name=part, exact=True).click()
            result = page.evaluate(CONTRAST)
            assert result["faults"] == []
            seen += result["count"]
        assert seen > 100


def test_points_move_unless_motion_is_unwanted(browser, file):
    moved = {}
    for motion in ("no-preference", "reduce"):
        with opened(browser, file, state="layer=1", reduced_motion=motion) as page:
            moved[motion] = page.evaluate(MOVED, 0)
    assert moved == {"no-preference": True, "reduce": False}


def test_the_page_follows_the_scheme_of_the_system_while_it_is_open(browser, file):
    with opened(browser, file, color_scheme="light") as page:
        before = page.evaluate(DRAWN)
        page.emulate_media(color_scheme="dark")
        settle(page, 200)
        assert page.evaluate(DRAWN) != before
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"


def test_a_browser_without_webgl_draws_the_points(browser, file):
    bare = browser.browser_type.launch(executable_path=CHROMIUM, args=[*FLAGS, "--disable-3d-apis"])
    with opened(bare, file) as page:
        assert page.evaluate("document.createElement('canvas').getContext('webgl')") is None
        assert ink(page, "#map") > 20 * len(TEXTS)
    bare.close()


def test_a_browser_without_canvas_says_so_and_shows_the_rest(browser, file):
    context = browser.new_context()
    context.add_init_script("HTMLCanvasElement.prototype.getContext = () => null;")
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-ready]")
    assert "This browser draws no canvas" in page.inner_text("#map-note")
    page.fill("#search", "film 7")
    page.locator("#results li button").first.click()
    assert page.inner_text("#chosen h3") == "a good film 7"
    assert page.locator("#nearest li").count() == 10
    page.locator("#curve button").first.click()
    assert page.locator("#curve button").first.get_attribute("aria-current") == "true"
    assert errors == []
    context.close()


def test_the_page_is_used_with_keys_alone(browser, file):
    with opened(browser, file) as page:
        page.keyboard.press("/")
        page.keyboard.type("film 7")
        page.wait_for_selector("#results li")
        assert focus_is_seen(page)
        reach(page, "#results li button")
        page.keyboard.press("Enter")
        assert page.inner_text("#chosen h3") == "a good film 7"
        reach(page, "#curve button")
        page.keyboard.press("Enter")
        assert page.inner_text("#layer-name") == "hidden_states[0]"
        reach(page, "#layer")
        page.keyboard.press("ArrowRight")
        assert page.inner_text("#layer-name") == "hidden_states[1]"
        reach(page, "#legend li button")
        page.keyboard.press("Space")
        assert page.get_attribute("#legend li button", "aria-label").endswith("hidden")
        page.keyboard.press("Escape")
        assert page.input_value("#search") == ""


def reach(page: Any, selector: str) -> None:
    """Move the focus with the tabulator until an element has it; every element on the way shows that it has it."""
    for _ in range(150):
        page.keyboard.press("Tab")
        assert focus_is_seen(page), page.evaluate("document.activeElement.outerHTML")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} is not reached")


def focus_is_seen(page: Any) -> bool:
    return bool(
        page.evaluate(
            """() => {
                if (document.activeElement === document.body) return true;
                const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
                return outlineStyle !== "none" && parseFloat(outlineWidth) >= 1;
            }"""
        )
    )
