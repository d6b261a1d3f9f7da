from __future__ import annotations

import json
import re
from html import unescape

import pytest

from layertap.engine.extractor import Extractor
from layertap.errors import InputError, OptionError, UsageError
from layertap.learn import explore

TEXTS = [f"a good film {i}" if i % 2 else f"the dull movie {i}" for i in range(20)]
LABELS = [i % 2 for i in range(20)]


@pytest.fixture(scope="module")
def extractor(make_checkpoint, tmp_path_factory) -> Extractor:
    return Extractor.from_pretrained(make_checkpoint(tmp_path_factory.mktemp("page") / "m"))


def test_a_notebook_shows_the_page_in_a_frame(extractor, tmp_path):
    page = explore(TEXTS, LABELS, extractor=extractor, sentences=2, rows=[5])
    frame = page._repr_html_()
    assert 'sandbox="allow-scripts allow-downloads"' in frame
    assert unescape(re.search(r'srcdoc="([^"]*)"', frame)[1]).encode() == page.html  # type: ignore[index]
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', page.html.decode(), re.DOTALL)[1])  # type: ignore[index]
    assert facts["texts"] == TEXTS
    assert facts["columns"][0]["names"] == ["0", "1"]
    assert facts["probe"] is not None
    assert 5 in [sentence["index"] for sentence in facts["sentences"]]
    page.save(tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == page.html
    with pytest.raises(UsageError, match="exists"):
        page.save(tmp_path / "page.html")


def test_what_cannot_be_shown_is_refused(extractor):
    with pytest.raises(InputError, match="20 texts and 1 labels"):
        explore(TEXTS, ["up"], extractor=extractor)
    with pytest.raises(InputError, match="text 1 is a pair"):
        explore(["a", ("b", "c")], extractor=extractor)
    with pytest.raises(OptionError, match="max_texts 0"):
        explore(TEXTS, extractor=extractor, max_texts=0)
