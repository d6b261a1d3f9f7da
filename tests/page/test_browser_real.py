"""The page of real texts in a real browser: every view is operated and read, at two sizes, and shows the exact numbers.

Needs Chromium, playwright and the data sets beside the project.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layertap.engine.extractor import Extractor
from layertap.learn.exploring.contents import PageOptions, exploration
from layertap.learn.exploring.corpus import sampled
from layertap.page.assemble import as_html
from layertap.page.content import PageContent
from layertap.records import Record
from tests.page.browser import MARKS, NARROW, WIDE, address, farthest, ink, opened, place_of, settle, slide
from tests.selection import stress_except

pytest.importorskip("playwright", reason="playwright is not installed (pip install playwright)")
pytest.importorskip("sklearn")
SHARED = Path(__file__).parents[2].parent / "shared/data"
pytestmark = [*MARKS, pytest.mark.skipif(not SHARED.is_dir(), reason="real texts are not beside the project")]
SETS = {"sst2": ("sst/stsa.binary.train.txt", "utf-8"), "trec": ("trec_questions/train.txt", "latin-1")}
NUMBER = 2_000


class Explored:
    """A page of 2,000 texts of a data set, with what it is compared with."""

    def __init__(self, name: str, folder: Path) -> None:
        path, encoding = SETS[name]
        lines = (SHARED / path).read_text(encoding=encoding).splitlines()
        pairs = [line.split(" ", 1) for line in random.Random(0).sample(lines, NUMBER)]
        self.labels = [label.partition(":")[0] for label, _ in pairs]
        self.texts = [text for _, text in pairs]
        rows = [
            Record(row=i, text=text, columns={"label": label})
            for i, (text, label) in enumerate(zip(self.texts, self.labels, strict=True))
        ]
        self.extractor = Extractor.from_pretrained()
        corpus = sampled(rows, name, "label", most=NUMBER, seed=0)
        commands = {"extract": "layertap extract -f '{FEATURE}'", "attention": "[{BLOCK}][{HEAD}]"}
        self.content: PageContent = exploration(self.extractor, corpus, PageOptions(), commands=commands).content
        self.file = folder / f"{name}.html"
        self.file.write_bytes(as_html(self.content))


@pytest.fixture(scope="module", params=stress_except(SETS, usual=[], slow=["sst2"]))
def real(request, minilm_folder, tmp_path_factory) -> Explored:
    return Explored(request.param, tmp_path_factory.mktemp("real"))


def show(page: Any, size: tuple[int, int], part: str) -> None:
    """On a narrow screen, go to a part of the page."""
    if size == NARROW:
        page.get_by_role("button", name=part, exact=True).click()
        settle(page, 100)


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_map_colours_search_neighbours_and_selection(browser, real, size):
    content, start = real.content, real.content.facts["start"]
    with opened(browser, real.file, size) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
        drawn = ink(page, "#map")
        assert drawn > 8_000, "2,000 points of 2.8 pixels radius, many above each other"
        for layer in (3, 6, start):
            slide(page, layer)
            settle(page, 600)
            assert page.inner_text("#layer-name") == f"hidden_states[{layer}]"
            assert ink(page, "#map") > 8_000
        # Hover, click, and the numbers of the neighbours against float64.
        text = farthest(content, start)
        page.mouse.move(*place_of(page, content, text, start))
        if size == WIDE:
            assert real.texts[text][:200] in page.inner_text("#tip")
        page.mouse.click(*place_of(page, content, text, start))
        show(page, size, "Text")
        assert page.inner_text("#chosen h3") == real.texts[text]
        shown = page.locator("#nearest li").all_inner_texts()
        near = [real.texts.index(line.split("\n")[-1]) for line in shown]
        vectors = real.extractor.extract([real.texts[i] for i in [text, *near]], f"hidden_states[{start}].mean")
        units = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        assert [line.split()[0] for line in shown] == [f"{cosine:.3f}" for cosine in units[1:] @ units[0]]
        assert page.locator("#ranks tbody tr").count() == len(near) + 1
        # Legend and search.
        show(page, size, "Layers")
        names = page.locator("#legend li .text").all_inner_texts()
        counts = Counter(real.labels)
        totals = page.locator("#legend li .number").all_inner_texts()
        assert {name: int(total.replace(",", "")) for name, total in zip(names, totals, strict=True)} == counts
        page.locator("#legend li button").first.click()
        show(page, size, "Map")
        assert ink(page, "#map") < drawn
        page.fill("#search", "WHAT")
        settle(page, 400)
        found = sum("what" in text.lower() for text in real.texts)
        assert page.locator("#results h2").text_content() == f"Search: {found:,} text{'' if found == 1 else 's'}"
        page.fill("#search", "")
        # A box selects what is shown in it; the first class is hidden.
        box = page.locator("#map").bounding_box()
        left, top = box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.25
        right, bottom = box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.6
        hidden = names[0]
        places = [place_of(page, content, i, start) for i in range(0, NUMBER, 25) if real.labels[i] != hidden]
        inside = sum(left < x < right and top < y < bottom for x, y in places)
        page.get_by_role("button", name="Box").click()
        page.mouse.move(left, top)
        page.mouse.down()
        page.mouse.move(right, bottom, steps=3)
        page.mouse.up()
        show(page, size, "Text")
        with page.expect_download() as saved:
            page.locator("#selected").get_by_role("button", name="Download JSONL").click()
        rows = [json.loads(line) for line in Path(saved.value.path()).read_text(encoding="utf-8").splitlines()]
        assert inside <= sum(row["row"] % 25 == 0 for row in rows) <= len(rows)
        assert rows
        assert all(row["text"] == real.texts[row["row"]] and row["label"] != hidden for row in rows)
        assert page.locator("#selected h2").text_content() == f"Selected: {len(rows):,} texts"
        state = address(page)
    # The link shows the same again.
    with opened(browser, real.file, size, state=state.lstrip("#")) as page:
        assert page.inner_text("#chosen h3") == real.texts[text]
        assert "hidden=0" in address(page)


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_curve_tokens_and_attention(browser, real, size):
    content = real.content
    number = 3
    sentence = content.facts["sentences"][number]
    exact = real.extractor.extract(sentence["text"], {"a": "attentions[2]", "h": "hidden_states[:]"})
    with opened(browser, real.file, size, state=f"text={sentence['index']}&block=2&head=4&pane=layers") as page:
        shown = page.locator("#curve li b").all_inner_texts()
        assert shown == [f"{row['value']:.3f}" for row in content.facts["probe"]["rows"]]
        page.locator("#curve button").nth(6).click()
        assert page.locator("#curve button").nth(6).get_attribute("aria-current") == "true"
        assert "layer=6" in address(page)
        show(page, size, "Text")
        assert page.locator("#tokens button").all_inner_texts() == sentence["tokens"]
        page.locator("#tokens button").nth(1).click()
        assert ink(page, "#strip") > 1_000
        hidden = exact["h"].astype(np.float64)
        cosine = hidden[0, 0] @ hidden[0, -1] / np.linalg.norm(hidden[0, 0]) / np.linalg.norm(hidden[0, -1])
        page.locator("#strip").hover(position={"x": 30, "y": 5})
        assert float(page.inner_text("#tip").rpartition(":")[2].replace("\u2212", "-")) == pytest.approx(
            cosine, abs=1e-5
        )
        assert "never trained" in page.inner_text("#outputs")
        best = int(exact["a"][4, 1].argmax())
        assert f"{exact['a'][4, 1, best]:.3f}" in page.inner_text("#attention-says")
        page.locator("#head").scroll_into_view_if_needed()
        head = page.locator("#head").bounding_box()
        page.locator("#head").hover(position={"x": head["width"] - 3, "y": head["height"] - 3})
        assert page.inner_text("#tip").startswith("[SEP] attends to [SEP]: ")
        assert float(page.inner_text("#tip").rpartition(":")[2]) == pytest.approx(exact["a"][4, -1, -1], abs=6e-4)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
