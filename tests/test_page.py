"""The page: in a real browser, against what the reports say; its size; how it is made."""

from __future__ import annotations

import random
from bisect import bisect_left
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

import pytest
from playwright.sync_api import Browser

import drain_gdb
from drain_gdb.render.page.cells import cells_of
from drain_gdb.render.page.content import Content, content
from drain_gdb.render.page.document import document
from drain_gdb.snapshot import HeapView
from examples.redis.server import Redis
from tests.conftest import once
from tests.support.browser import SHADES, browser, looked_at
from tests.support.inputs import ROOT, debian_redis
from tests.support.lots import random_heap
from tests.support.runs import gdb, shell, sweep_json

RECORDING = ROOT / "tests" / "recordings" / "jemalloc-5.3.0.drain"
STATISTICS = ROOT / "tests" / "statistics" / "jemalloc-5.3.0.txt"
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m&amp;"
KEYS = 6_000
KEY = "key:#"
"""How drainpins calls them."""
MIB = 1 << 20
MILLION = 1_000_000


class Pages(NamedTuple):
    """Pages of a recording, of a hostile process, of a half emptied Redis, and emptied since.

    And of what jemalloc printed of itself.
    """

    recorded: Path
    hostile: Path
    redis: Path
    flushed: Path
    told: Path


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Pages:
    def make(folder: Path) -> Pages:
        made = Pages(*(folder / f"{name}.html" for name in Pages._fields))
        assert shell("report", RECORDING, "-o", made.recorded).status == 0
        ran = shell("report", STATISTICS, "-o", made.told)
        assert (ran.status, ran.err) == (0, "")
        assert "not verifiable (jemalloc's own figures, nothing was walked)" in ran.out
        made.hostile.write_text(document(_hostile()), encoding="utf-8")
        server = Redis(debian_redis(), folder)
        try:
            server.populate(KEYS)
            server.delete_odd(KEYS)
            half = folder / "half.drain"
            live = ("--pid", server.pid, "--debugger", "none")
            assert shell("record", *live, "-o", half).status == 0
            ran = shell("report", *live, "-o", made.redis)
            assert ran.status == 0, ran.err
            server.command("FLUSHALL")
            ran = shell("report", half, *live, "-o", made.flushed)
            assert ran.status == 0, ran.err
        finally:
            server.stop()
        return made

    return once(tmp_path_factory, "pages", make)


def _hostile() -> Content:
    """A process all of whose names are hostile."""
    with drain_gdb.open(RECORDING) as snapshot:
        found = content(snapshot)
    assert found.pins is not None
    groups = [replace(row, what=HOSTILE, kinds=((HOSTILE, 1),)) for row in found.pins.groups]
    plans = [
        replace(
            plan,
            sweep=replace(
                plan.sweep,
                process=replace(plan.sweep.process, name=HOSTILE),
                allocator=replace(plan.sweep.allocator, module=HOSTILE, others=(HOSTILE,)),
                coverage=replace(plan.sweep.coverage, anomalies=(HOSTILE,)),
                causes=tuple(replace(c, evidence=HOSTILE) for c in plan.sweep.causes),
            ),
        )
        for plan in found.plans
    ]
    return replace(
        found,
        process=replace(found.process, name=HOSTILE, executable=HOSTILE, taken_at=HOSTILE),
        plans=plans,
        cells=[replace(cells, groups=[HOSTILE] * 2) for cells in found.cells],
        pins=replace(found.pins, groups=tuple(groups), why_not_more=HOSTILE),
        refused=[HOSTILE],
    )


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def rows() -> Dict[str, Dict[str, Any]]:
    """The slabs of the recording as a sweep lists them, by address."""
    return {row["address"]: row for row in sweep_json(RECORDING, "--by", "slab")["slabs"]}


@pytest.fixture(scope="module")
def places() -> List[int]:
    """Addresses of all slabs and extents of the recording, ascending: where each cell is."""
    with drain_gdb.open(RECORDING) as snapshot:
        (heap,) = snapshot.heaps
    return sorted([*heap.slabs.address, *heap.extents.address])


def _agree(told: Dict[str, str], row: Dict[str, Any]) -> None:
    free = row["nregs"] - row["allocated"]
    assert told["address"] == row["address"]
    assert told["what"] == f"slab of class {row['size']:,}"
    assert told["arena"].split(" / ")[0] == str(row["arena"])
    figures = [told[name] for name in ("live", "cached", "free")]
    assert figures == [f"{n:,}" for n in (row["live"], row["cached"], free)]
    assert told["occupancy"] == f"{100 * row['live'] / row['nregs']:.1f} %"


# -- in a browser ------------------------------------------------------------------------


def test_it_is_open_to_all_in_both_themes(pages: Pages, chromium: Browser) -> None:
    with looked_at(chromium, pages.flushed) as looked:
        looked.shorten_tables()
        assert looked.violations() == []
        looked.page.emulate_media(color_scheme="dark")
        assert looked.violations("color-contrast") == []


@pytest.mark.parametrize("name", ["recorded", "hostile", "redis", "flushed", "told"])
def test_it_asks_for_nothing_and_is_as_wide_as_the_window(
    pages: Pages, chromium: Browser, name: str
) -> None:
    with looked_at(chromium, getattr(pages, name), narrow=True) as looked:
        assert looked.too_wide() == 0
        assert (looked.said, looked.asked) == ([], [])


def test_what_is_pointed_at_is_what_the_sweep_says(
    pages: Pages, chromium: Browser, rows: Dict[str, Dict[str, Any]], places: List[int]
) -> None:
    held = [row for row in rows.values() if row["cached"]]
    shared = [row for row in held if row["live"]]
    chosen = [held[0], shared[0], *random.Random(1).sample(list(rows.values()), 5)]
    with looked_at(chromium, pages.recorded) as looked:
        for row in chosen:
            looked.point(places.index(int(row["address"], 16)))
            _agree(looked.readout(), row)
        large = next(i for i, start in enumerate(places) if hex(start) not in rows)
        looked.point(large)
        assert looked.readout()["address"] == hex(places[large])
        assert looked.readout()["live"] == "–"


def test_keys_move_as_the_pointer_does(
    pages: Pages, chromium: Browser, rows: Dict[str, Dict[str, Any]], places: List[int]
) -> None:
    with looked_at(chromium, pages.recorded, "dark") as looked:
        view = looked.page.locator("[data-view]").first
        across = int(view.get_attribute("data-across") or 0)
        view.focus()
        row = next(row for row in rows.values() if places.index(int(row["address"], 16)) > across)
        place = places.index(int(row["address"], 16))
        looked.page.keyboard.press("Home")
        for _ in range(place // across):
            looked.page.keyboard.press("ArrowDown")
        for _ in range(place % across):
            looked.page.keyboard.press("ArrowRight")
        _agree(looked.readout(), row)
        spoken = looked.page.locator("[data-live]").first.text_content()
        assert spoken is not None and row["address"] in spoken and f"{row['live']} live" in spoken
        looked.page.keyboard.press("+")
        assert int(view.get_attribute("data-across") or 0) < across
        _agree(looked.readout(), row)
        looked.page.keyboard.press("End")
        assert looked.readout()["address"] == hex(places[-1])


def test_an_address_is_found_among_those_of_a_class(
    pages: Pages, chromium: Browser, rows: Dict[str, Dict[str, Any]]
) -> None:
    emptiest = min(
        (row for row in rows.values() if row["size"] == 1024),
        key=lambda row: (row["live"] / row["nregs"], int(row["address"], 16)),
    )
    with looked_at(chromium, pages.recorded) as looked:
        page = looked.page
        page.locator("[data-show]").first.select_option("1024")
        page.locator("[data-order]").first.select_option("occupancy")
        looked.point(0)
        _agree(looked.readout(), emptiest)
        other = next(row for row in rows.values() if row["size"] != 1024)
        looked.find(int(other["address"], 16) + 100)
        _agree(looked.readout(), other)
        page.locator("[data-address]").first.fill("0x10")
        page.keyboard.press("Enter")
        assert "holds 0x10" in (page.locator("[data-said]").first.text_content() or "")


def test_tables_are_sorted_and_the_theme_is_changed(pages: Pages, chromium: Browser) -> None:
    bins = sweep_json(RECORDING)["bins"]
    by_waste = sorted(bins, key=lambda row: row["waste_bytes"], reverse=True)
    with looked_at(chromium, pages.recorded) as looked:
        page = looked.page
        table = page.locator("#classes table.classes")
        head = table.locator("thead th", has_text="Waste")
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        shown = table.locator("tbody tr th").all_text_contents()
        assert shown == [f"{row['size']:,}" for row in by_waste]
        colours = [_ground(looked)]
        for _ in range(2):
            page.locator("[data-theme-button]").click()
            colours.append(_ground(looked))
        assert colours[0] == colours[1] != colours[2]
        page.emulate_media(media="print")
        assert len(page.pdf()) > 10_000
        assert looked.said == []


def _ground(looked: Any) -> str:
    found: str = looked.page.evaluate("getComputedStyle(document.body).backgroundColor")
    return found


def test_names_of_a_target_are_text(pages: Pages, chromium: Browser) -> None:
    with looked_at(chromium, pages.hostile) as looked:
        alerts: List[str] = []
        looked.page.on("dialog", lambda dialog: alerts.append(dialog.message))
        title = looked.page.locator("h1").text_content() or ""
        assert "</script><script>alert(1)</script>" in title
        assert "\\x1b[31m&amp;" in title
        assert looked.page.locator("img").count() == 0
        assert looked.page.locator("script").count() == 2
        assert alerts == []


def test_who_pins_a_slab_of_a_redis(pages: Pages, chromium: Browser) -> None:
    with looked_at(chromium, pages.redis) as looked:
        page = looked.page
        assert page.locator("#pins tbody tr").first.locator("b").text_content() == KEY
        page.locator("[data-show]").first.select_option("1024")
        looked.point(50)
        assert looked.readout()["pinners"] == KEY


def test_before_and_after_a_flush(pages: Pages, chromium: Browser) -> None:
    with looked_at(chromium, pages.flushed) as looked:
        page = looked.page
        assert page.locator("[data-map]").count() == 2
        assert looked.pictured() > SHADES
        said = page.locator("#moments .remarks").text_content() or ""
        assert "same process" in said
        row = page.locator("#moments tbody tr", has=page.locator('th[data-value="1024"]'))
        assert float(row.locator("td").nth(6).get_attribute("data-value") or 0) > 0.99


# -- as a file ---------------------------------------------------------------------------


def test_statistics_have_no_map_and_nobody_who_pins(pages: Pages, chromium: Browser) -> None:
    with looked_at(chromium, pages.told) as looked:
        assert looked.violations() == []
        text = looked.page.inner_text("main")
        heads = looked.page.locator("table.classes thead").inner_text().split()
        assert looked.page.locator("[data-map]").count() == 0
    assert "There is no map of what jemalloc's statistics alone tell of" in text
    assert heads == ["Size", "Slabs", "Allocated", "Utilization", "Free"]
    bins = sweep_json(STATISTICS)["bins"]
    assert all(f"{row['size']:,}" in text for row in bins)
    assert "Occupancy" not in text.split("Address space")[0]


def test_statistics_are_a_later_moment_too(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    ran = shell("report", RECORDING, STATISTICS, "-o", page)
    assert (ran.status, ran.err) == (0, "")
    shown = page.read_text(encoding="utf-8")
    assert "→ these statistics." in shown
    assert "<h3>Before</h3>" in shown and shown.count("<canvas") == 1


def test_its_policy_lets_nothing_in(pages: Pages) -> None:
    text = pages.recorded.read_text(encoding="utf-8")
    policy = text.split('http-equiv="Content-Security-Policy" content="', 1)[1].split('"', 1)[0]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy and "http" not in policy
    assert text.count("http://") + text.count("https://") == 0
    assert " style=" not in text and " onclick=" not in text


def _large_page(slabs: int) -> Tuple[str, HeapView]:
    """A page of the recording with the map of another, much larger heap."""
    view = random_heap(slabs, slabs // 10)
    pinners = {address: (f"group {address % 50}",) for address in view.slabs.address}
    with drain_gdb.open(RECORDING) as snapshot:
        found = content(snapshot)
    return document(replace(found, cells=[cells_of(view, 4096, pinners)])), view


def test_a_hundred_thousand_slabs_take_three_megabytes_at_most() -> None:
    text, _ = _large_page(100_000)
    assert len(text.encode()) < 3 * MIB


@pytest.mark.parametrize("number", [MILLION // 5, pytest.param(MILLION, marks=pytest.mark.long)])
def test_so_many_slabs_to_look_at(tmp_path: Path, chromium: Browser, number: int) -> None:
    text, view = _large_page(number)
    assert len(text.encode()) < 15 * MIB * number // MILLION
    path = tmp_path / "large.html"
    path.write_text(text, encoding="utf-8")
    order = sorted(range(number), key=view.slabs.address.__getitem__)
    places = sorted([*view.slabs.address, *view.extents.address])
    with looked_at(chromium, path) as looked:
        for row in (order[0], order[number // 2], order[-1]):
            looked.point(bisect_left(places, view.slabs.address[row]))
            told = looked.readout()
            assert told["address"] == hex(view.slabs.address[row])
            assert told["live"] == str(view.slabs.live[row])
            assert told["cached"] == str(view.slabs.cached[row])
            assert told["pinners"] == f"group {view.slabs.address[row] % 50}"
        assert looked.pictured() > SHADES
        assert looked.said == []


# -- how it is made ----------------------------------------------------------------------


@pytest.mark.long
def test_lldb_writes_the_page(small_core: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    ran = shell("report", small_core, "-o", page, "--debugger", "lldb")
    assert ran.status == 0, ran.err
    assert str(page) in ran.out
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert page.stat().st_mode & 0o077 == 0


def test_gdb_writes_the_page_or_a_recording(small_core: Path, tmp_path: Path) -> None:
    page, other, recording = (tmp_path / n for n in ("a.html", "b.html", "b.drain"))
    load = f"python import drain_gdb.debuggee.gdb as g; g.open_core({str(small_core)!r}, None)"
    hide = "python import sys; sys.modules['jinja2'] = None"
    ran = gdb(load, f"drainreport {page}", hide, f"drainreport {other}")
    assert page.exists() and recording.exists() and not other.exists(), ran.err
    assert f"drain-gdb report {recording} -o {other}" in ran.err


def test_what_cannot_be_written_is_refused_by_name(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    ran = shell("report", RECORDING, "-o", page)
    assert ran.status == 2 and "is there already" in ran.err
    assert page.read_text() == "mine"
    ran = shell("report", RECORDING, "-o", tmp_path / "nowhere" / "page.html")
    assert ran.status == 2 and "no directory" in ran.err
    ran = shell("report", RECORDING, RECORDING, RECORDING, "-o", page, "--force")
    assert ran.status == 1
