"""A headless browser, and pages in it that tell what they asked for and said."""

from __future__ import annotations

import base64
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
ROWS = 4
SHADES = 8
"""Colours on a picture of a map of which not all cells are alike, at least."""
COLOURS = """
async (picture) => {
  const bytes = Uint8Array.from(atob(picture), (letter) => letter.charCodeAt(0));
  const image = await createImageBitmap(new Blob([bytes]));
  const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const {data} = canvas.getImageData(0, 0, image.width, image.height);
  return new Set(new Uint32Array(data.buffer)).size;
}
"""
WIDE, NARROW = (1280, 900), (390, 800)


@contextmanager
def browser() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(OPTIONS))
        try:
            yield started
        finally:
            started.close()


class Looked:
    """A page that is open.

    Attributes:
        said: messages on its console, and errors of its scripts.
        asked: addresses that it asked for, its own aside.

    """

    def __init__(self, page: Page, path: Path) -> None:
        self.page = page
        self.said: List[str] = []
        self.asked: List[str] = []
        address = path.as_uri()
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(address)
        for place in page.locator("[data-map]").all():
            place.and_(page.locator("[data-ready]")).wait_for()
        self.asked.remove(address)

    def readout(self) -> Dict[str, str]:
        """What the first map says of the cell that is pointed at, or chosen."""
        found: Dict[str, str] = self.page.evaluate(
            "() => Object.fromEntries([...document.querySelector('[data-readout]')"
            ".querySelectorAll('[data-of]')].map((box) => [box.dataset.of, box.textContent]))"
        )
        return found

    def point(self, place: int) -> None:
        """Put the pointer on the cell with this number of the first map."""
        view = self.page.locator("[data-view]").first
        view.scroll_into_view_if_needed()
        across, cell = (int(view.get_attribute(f"data-{name}") or 0) for name in ("across", "cell"))
        y = place // across * cell
        view.evaluate("(view, y) => { view.scrollTop = y; }", y - cell)
        scrolled = view.evaluate("(view) => view.scrollTop")
        box = view.locator("canvas").bounding_box()
        assert box is not None
        x = place % across * cell
        self.page.mouse.move(box["x"] + x + cell / 2, box["y"] + y - scrolled + cell / 2)

    def find(self, address: int) -> None:
        """Ask the first map for an address; the pointer is on no cell."""
        self.page.locator("[data-address]").first.fill(hex(address))
        self.page.locator("[data-find] button").first.click()
        self.page.mouse.move(0, 0)

    def pictured(self) -> int:
        """How many colours there are on a picture of the first map."""
        view = self.page.locator("[data-view]").first
        view.scroll_into_view_if_needed()
        picture = base64.b64encode(view.locator("canvas").screenshot()).decode()
        number: int = self.page.evaluate(COLOURS, picture)
        return number

    def shorten_tables(self) -> None:
        """Leave a few rows of each table: the others are made alike."""
        self.page.evaluate(
            "() => document.querySelectorAll('tbody')"
            ".forEach((body) => [...body.rows].slice(ROWS).forEach((row) => row.remove()))".replace(
                "ROWS", str(ROWS)
            )
        )

    def violations(self, *rules: str) -> List[str]:
        """What axe-core finds wrong, by all of its rules or by ``rules``."""
        options = {"resultTypes": ["violations"], **({"runOnly": list(rules)} if rules else {})}
        found = Axe().run(self.page, options=options).response["violations"]
        return [
            f"{each['id']}: {node['html'][:200]} {node.get('failureSummary', '')[:300]}"
            for each in found
            for node in each["nodes"][:3]
        ]

    def too_wide(self) -> int:
        """By how many pixels it is wider than the window."""
        wider: int = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return max(0, wider)


@contextmanager
def looked_at(
    browser: Browser, path: Path, theme: str = "light", narrow: bool = False
) -> Iterator[Looked]:
    """The page at ``path``, opened in a window of its own."""
    width, height = NARROW if narrow else WIDE
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
    )
    try:
        yield Looked(context.new_page(), path)
    finally:
        context.close()
