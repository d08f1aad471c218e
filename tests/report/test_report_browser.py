"""The report in a real browser: nothing asked for, nothing on the console, no overflow, sorting, day and night, paper.

Needs playwright and a Chromium that is there (Debian: chromium-headless-shell); HCCS_CHROMIUM names another.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")
pytest.importorskip("playwright")

from hccs_onnx.report.page import render

from .conftest import Made
from .pages import made_up

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
WIDTHS = (390, 1280)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    path = os.environ.get("HCCS_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("needs Chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path)
        yield running
        running.close()


@pytest.fixture(scope="module", params=["digits", "12 layers of 12 heads"])
def report(request: pytest.FixtureRequest, made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "digits":
        return made.path
    path = tmp_path_factory.mktemp("large") / "report.html"
    path.write_text(render(made_up(12, 12, node="/encoder/layer.{}/attention/self/Softmax", positions=128)))
    return path


class Opened:
    """A page, and all that it said and asked for."""

    def __init__(self, browser: Browser, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page: Page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


def size(width: int) -> dict[str, dict[str, int]]:
    return {"viewport": {"width": width, "height": 800}}


@pytest.mark.parametrize("width", WIDTHS)
def test_page_fits_its_window_and_is_silent(browser: Browser, report: Path, width: int) -> None:
    with Opened(browser, report, **size(width)) as opened:
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        beyond = opened.page.evaluate(
            """width => [...document.querySelectorAll("body *")]
                .filter(e => !e.closest(".scroll, .hidden, svg") && e.getBoundingClientRect().right > width + 0.5)
                .map(e => e.outerHTML.slice(0, 80))""",
            width,
        )
        assert beyond == []
        assert opened.said == []
        assert [url for url in opened.asked if not url.startswith("data:")] == [report.as_uri()]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_plot_is_seen(browser: Browser, report: Path, width: int) -> None:
    with Opened(browser, report, **size(width)) as opened:
        sizes = opened.page.evaluate(
            """[...document.querySelectorAll("svg[role=img]")].map(e => e.getBoundingClientRect())
                .map(box => [box.width, box.height])"""
        )
        assert len(sizes) >= 10
        assert all(each[0] >= 130 and each[1] >= 60 for each in sizes)


def column(page: Page, heading: str) -> list[float]:
    """Values of a column of the table of heads, from top to bottom."""
    return page.evaluate(
        """heading => {
            const table = document.querySelector("table.sortable");
            const index = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === heading);
            return [...table.tBodies[0].rows].map(row => Number(row.cells[index].dataset.value));
        }""",
        heading,
    )


def test_headings_sort_the_table(browser: Browser, report: Path) -> None:
    with Opened(browser, report, **size(1280)) as opened:
        page = opened.page
        heading = page.locator("table.sortable thead th", has_text="measured KL")
        before = column(page, "measured KL (nats)")
        assert before != sorted(before, reverse=True)
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == "descending"  # the worst first
        assert column(page, "measured KL (nats)") == sorted(before, reverse=True)
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == "ascending"
        assert column(page, "measured KL (nats)") == sorted(before)
        first = page.locator("table.sortable thead th").first
        first.locator("button").focus()
        page.keyboard.press("Enter")
        assert page.locator("table.sortable [aria-sort]").count() == 1
        assert column(page, "measured KL (nats)") == before
        assert opened.said == []


def test_without_javascript_the_table_is_there_and_promises_nothing(browser: Browser, report: Path) -> None:
    with Opened(browser, report, java_script_enabled=False) as opened:
        assert opened.page.locator("table.sortable tbody tr").count() >= 8
        assert opened.page.locator("button").count() == 0
        assert "Choose a heading" not in opened.page.content().split("<script>")[0]


_CONTRASTS = """
() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const known = {};
  const channels = colour => {
    if (!(colour in known)) {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      known[colour] = [...canvas.getImageData(0, 0, 1, 1).data];
    }
    return known[colour];
  };
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = colour => {
    const [r, g, b] = channels(colour).map(v => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (channels(colour)[3] > 0) return colour;
    }
    return "white";
  };
  const worst = {};
  for (const element of document.querySelectorAll("h1, h2, p, a, th, td, dt, dd, code, figcaption, svg text")) {
    if (!element.textContent.trim() || element.closest(".hidden")) continue;
    const style = getComputedStyle(element);
    const front = element.tagName === "text" ? style.fill : style.color;
    const [a, b] = [light(front), light(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    worst[element.tagName] = Math.min(worst[element.tagName] ?? 99, ratio);
  }
  return worst;
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_by_day_and_by_night(browser: Browser, report: Path, scheme: str) -> None:
    with Opened(browser, report, color_scheme=scheme) as opened:
        contrasts = opened.page.evaluate(_CONTRASTS)
        assert len(contrasts) >= 9
        assert {name: ratio for name, ratio in contrasts.items() if ratio < 4.5} == {}  # WCAG AA


def background(opened: Opened) -> str:
    return str(opened.page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_night_has_colours_of_its_own_and_paper_is_white(browser: Browser, report: Path) -> None:
    with Opened(browser, report, color_scheme="light") as day, Opened(browser, report, color_scheme="dark") as night:
        assert background(day) == "rgb(253, 253, 252)"
        assert background(night) == "rgb(20, 23, 26)"
        line = "getComputedStyle(document.querySelector('.plot .line')).stroke"
        assert day.page.evaluate(line) != night.page.evaluate(line)
        night.page.emulate_media(media="print", color_scheme="dark")
        assert background(night) == "rgb(255, 255, 255)"
        assert not night.page.locator("nav").is_visible()


def test_paper_shows_the_whole_table(browser: Browser, report: Path) -> None:
    with Opened(browser, report, viewport={"width": 688, "height": 1000}) as opened:  # A4 less its margins
        opened.page.emulate_media(media="print")
        cut = opened.page.evaluate(
            """[...document.querySelectorAll(".scroll")]
                .filter(e => e.scrollWidth > e.clientWidth + 1 || e.scrollHeight > e.clientHeight + 1)
                .map(e => e.getAttribute("aria-labelledby") ?? e.getAttribute("aria-label"))"""
        )
        assert cut == []
        assert opened.page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
