"""The page as a browser shows it: Debian's chromium, without a window.

The tests that scroll, press keys and change sizes drive it by playwright (`pip install playwright`;
it needs no browser of its own).
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_records import (
    WIDTHS,
    lines_of_widths,
    measured_deeply,
    metrics,
    write_comparison,
    write_pictures,
    write_run,
)

from tutelage.report.page import write_page
from tutelage.report.sources import read_source

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZES = ((400, 800), (1280, 900))


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("there is no chromium here: apt install chromium")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with every kind of figure, two parts, pictures, long names, and a hostile one."""
    folder = tmp_path_factory.mktemp("page")
    names = ["<img src=x onerror=alert(1)>", *(f"a rather long class name {n}" for n in range(9))]
    have = measured_deeply(lines_of_widths(hints=[0.72, 0.73, 0.735]), names)
    for one in have:
        kept = write_run(folder / one["record"]["name"], one["record"], metrics(200))
        write_pictures(kept, seed=one["seed"], number=12, size=32)
    claims = ["kd > label-only-long on accuracy", "kd < label-only on ece"]
    note = "A long note. " * 30
    path = write_comparison(folder / "made.jsonl", have, note=note, axes=WIDTHS, claims=claims)
    write_page(read_source([path]), folder / "made.html", pictures=True)
    return folder / "made.html"


def test_it_draws_all_for_paper_without_a_driver(chromium: str, page: Path, tmp_path: Path):
    printed = tmp_path / "printed.html"
    asked = '<script>window.dispatchEvent(new Event("beforeprint"))</script>'
    printed.write_text(page.read_text(encoding="utf-8") + asked, encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'user'}"]
    done = subprocess.run(
        [chromium, *flags, "--enable-logging=stderr", "--dump-dom", printed.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    plots = done.stdout.count('data-figure="')
    assert plots > 15
    assert done.stdout.count('data-drawn="yes"') == plots
    assert ":CONSOLE" not in done.stderr, done.stderr


class Seen:
    """A page in a browser, and what it complained about or asked for.

    Chromium without a screen now and then stops painting a page for good: no animation frame comes
    any more, so nothing that waits for one, a screenshot or an observer, ever happens. That is
    no fault of the page, which is then opened anew.
    """

    def __init__(self, browser: Any, page: Path, size: tuple[int, int]) -> None:
        self._browser, self._file = browser, page
        self._size = {"width": size[0], "height": size[1]}
        self.complaints: list[str] = []
        self._open()

    def _open(self) -> None:
        self._context = self._browser.new_context(viewport=self._size)
        self.page: Any = self._context.new_page()
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on(
            "console",
            lambda said: (
                self.complaints.append(said.text) if said.type in ("error", "warning") else None
            ),
        )
        self.page.goto(self._file.as_uri())

    def close(self) -> None:
        self._context.close()

    def _paints(self) -> bool:
        """Whether a frame comes within five seconds."""
        return self.page.evaluate(
            """new Promise(answer => {
                requestAnimationFrame(() => answer(true));
                setTimeout(() => answer(false), 5000);
            })"""
        )

    def scroll_through(self) -> None:
        """Opens what is folded, and goes down to the end as a reader would."""
        for _ in range(8):
            if self._scrolled_through():
                return
            self.close()
            self._open()
        raise AssertionError("this browser always stops painting")

    def _scrolled_through(self) -> bool:
        """False if the browser stopped painting on the way."""
        self.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        height = self.page.evaluate("document.documentElement.scrollHeight")
        for place in range(0, height + 1, 400):
            self.page.evaluate(f"window.scrollTo({{ top: {place}, behavior: 'instant' }})")
            self.page.wait_for_timeout(30)
        for tries in range(300):  # a slow machine draws nothing of what is passed too quickly
            if not self.page.evaluate("!!document.querySelector('.plot:not([data-drawn])')"):
                return True
            if tries % 50 == 49 and not self._paints():
                return False
            self.page.evaluate(
                "document.querySelector('.plot:not([data-drawn])')"
                ".scrollIntoView({ block: 'center', behavior: 'instant' })"
            )
            self.page.wait_for_timeout(100)
        raise AssertionError("some figures are never drawn")

    def wait(self, condition: str) -> None:
        """Waits for a condition; the page's policy forbids playwright's own way to do so."""
        for _ in range(300):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"never: {condition}")


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("there is no playwright here: pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]} px")
def seen(browser: Any, page: Path, request: pytest.FixtureRequest) -> Iterator[Seen]:
    looked = Seen(browser, page, request.param)
    yield looked
    looked.close()


def test_every_figure_is_drawn_and_nothing_is_asked_for(seen: Seen, page: Path):
    first = "document.querySelectorAll('.plot[data-drawn]').length"
    total = seen.page.evaluate("document.querySelectorAll('.plot').length")
    assert seen.page.evaluate(first) < total  # those below the window wait
    seen.scroll_through()
    assert total > 15
    empty = seen.page.evaluate(
        """[...document.querySelectorAll('.plot')].filter(plot =>
            !plot.querySelector('.scatterlayer path, .hm image, .hm path, .heatmaplayer image'))
            .map(plot => plot.dataset.figure)"""
    )
    assert empty == []
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith(("data:", "blob:"))] == [
        page.as_uri()
    ]


def test_the_page_is_never_wider_than_the_window(seen: Seen):
    seen.scroll_through()
    wide = seen.page.evaluate(
        """[...document.querySelectorAll('body *')].filter(one =>
            !one.closest('.scroll, pre, svg, .hidden, .skip')
            && one.getBoundingClientRect().right > window.innerWidth + 1)
            .map(one => one.tagName + '.' + one.className)"""
    )
    assert wide == []
    scrolls = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert not seen.page.evaluate(scrolls)


def test_all_of_it_can_be_reached_by_keyboard(seen: Seen):
    asked = {"A", "SUMMARY", "BUTTON", "PRE", "DIV"}
    reached = set()
    for number in range(60):
        seen.page.keyboard.press("Tab")
        tag = seen.page.evaluate("document.activeElement.tagName")
        if number == 0:
            assert seen.page.evaluate("document.activeElement.className") == "skip"
        reached.add(tag)
    assert {"A", "SUMMARY", "BUTTON", "DIV"} <= reached <= asked | {"BODY"}
    outline = seen.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


def test_a_legend_hides_and_shows(seen: Seen):
    seen.scroll_through()
    curves = "document.querySelectorAll('#figure-curve-loss .scatterlayer .trace').length"
    before = seen.page.evaluate(curves)
    button = seen.page.locator("#figure-curve-loss .legend button").first
    button.focus()
    seen.page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    seen.wait(f"{curves} === {before - 3}")
    seen.page.keyboard.press("Enter")
    seen.wait(f"{curves} === {before}")


def test_dark_follows_the_reader(seen: Seen):
    seen.scroll_through()
    ink = "getComputedStyle(document.querySelector('#figure-cost-macs .xtitle')).fill"
    light = seen.page.evaluate(ink)
    seen.page.emulate_media(color_scheme="dark")
    seen.wait(f"{ink} !== '{light}'")
    assert seen.complaints == []


def test_it_prints_with_all_figures(seen: Seen, tmp_path: Path):
    seen.page.emulate_media(color_scheme="dark")
    seen.page.pdf(path=str(tmp_path / "page.pdf"), format="A4")
    undrawn = "document.querySelectorAll('.plot:not([data-drawn])').length"
    seen.wait(f"{undrawn} === 0")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert seen.complaints == []
