"""What the tests of the page in a browser share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layertap.page.content import PageContent

CHROMIUM = shutil.which("chromium")
MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (apt-get install chromium)"),
    # playwright leaves the transport of its driver to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
WIDE, NARROW = (1440, 900), (390, 844)


@contextmanager
def opened(
    browser: Any, where: Path | str, size: tuple[int, int] = WIDE, state: str = "", **options: Any
) -> Iterator[Any]:
    """A page, of a file or a server, whose errors and whose requests to anything else fail the test.

    A status of a server that is not 200 is no error of the page.
    """
    url = where if isinstance(where, str) else where.as_uri()
    context = browser.new_context(viewport={"width": size[0], "height": size[1]}, accept_downloads=True, **options)
    context.set_default_timeout(120_000)
    page = context.new_page()
    errors: list[str] = []
    requests: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if is_error(said) else None)
    page.on("request", lambda request: requests.append(request.url))
    page.goto(f"{url}#{state}")
    page.wait_for_selector("html[data-ready]", timeout=120_000)
    settle(page, 450)  # points have moved to their places
    yield page
    assert errors == []
    allowed = {url, f"{url}page/sentence"} if isinstance(where, str) else {url}
    assert {asked.partition("#")[0] for asked in requests if not asked.startswith("blob:")} <= allowed
    context.close()


def settle(page: Any, milliseconds: int) -> None:
    """Wait until the page has done what was due in so many milliseconds, on a busy machine, too.

    The wait is over in a frame after that time, behind all timers of the page that were due before.
    """
    page.evaluate(
        """async milliseconds => {
            const end = performance.now() + milliseconds;
            let frames = 0;
            while (performance.now() < end || frames < 3) {
                await new Promise(done => requestAnimationFrame(() => setTimeout(done)));
                frames += 1;
            }
        }""",
        milliseconds,
    )


def is_error(said: Any) -> bool:
    """Whether a line of the console is about the page, and not about a request that was refused in words."""
    return said.type == "error" and not said.text.startswith("Failed to load resource")


def ink(page: Any, selector: str) -> int:
    """Number of the pixels of a canvas that are drawn."""
    return int(
        page.evaluate(
            """selector => {
                const canvas = document.querySelector(selector);
                const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                let count = 0;
                for (let i = 3; i < pixels.length; i += 4) count += pixels[i] > 0;
                return count;
            }""",
            selector,
        )
    )


def address(page: Any) -> str:
    settle(page, 250)
    return str(page.evaluate("location.hash"))


def slide(page: Any, layer: int) -> None:
    page.evaluate(
        """layer => {
            const slider = document.querySelector("#layer");
            slider.value = layer;
            slider.dispatchEvent(new Event("input"));
        }""",
        layer,
    )


def place_of(page: Any, content: PageContent, text: int, layer: int) -> tuple[float, float]:
    box = page.locator("#map").bounding_box()
    x, y = content.arrays[f"points{layer}"][text].tolist()
    rx, ry, cx, cy = content.facts["extent"]
    scale = min(box["width"] / rx, box["height"] / ry) * 0.47
    return box["x"] + box["width"] / 2 + (x - cx) * scale, box["y"] + box["height"] / 2 - (y - cy) * scale


def farthest(content: PageContent, layer: int) -> int:
    """The text whose point stands most alone, within the map."""
    points = content.arrays[f"points{layer}"]
    within = (np.abs(points - content.facts["extent"][2:]) < np.array(content.facts["extent"][:2])).all(axis=1)
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1) + 99 * np.eye(len(points))
    return int(np.where(within, apart.min(axis=1), -1).argmax())
