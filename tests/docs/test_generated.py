"""Pages and pictures that are made from the code are as the code makes them, and links lead somewhere."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from docs.blocks import PAGES, ROOT
from hccs_onnx.operator.schema import ATTRIBUTES
from tools import pictures, reference_pages
from tools.offline import loaded_from_elsewhere

ADVICE = "run: python -m tools.reference_pages"


def test_cli_page_is_that_of_the_parser() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == reference_pages.cli_page(), ADVICE


def test_operator_page_has_the_tables_of_the_schema() -> None:
    page = (ROOT / "docs" / "operator.md").read_text()
    assert reference_pages.operator_tables() in page, ADVICE
    assert all(f"| `{name}` |" in page for name in ATTRIBUTES)


def test_operator_page_keeps_what_is_written_by_hand() -> None:
    page = "before\n<!-- begin schema -->\nold\n<!-- end schema -->\nafter\n"
    assert reference_pages.operator_page(page).startswith("before\n<!-- begin schema -->\n")
    assert reference_pages.operator_page(page).endswith("<!-- end schema -->\nafter\n")
    assert "old" not in reference_pages.operator_page(page)


@pytest.mark.parametrize("name", pictures.PICTURES)
def test_picture_is_what_the_script_draws(name: str) -> None:
    drawn = pictures.PICTURES[name]()
    ET.fromstring(drawn)  # is XML
    assert (ROOT / "docs" / "pictures" / name).read_text() == drawn, "run: python -m tools.pictures"


def test_every_picture_is_shown() -> None:
    files = {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    shown = {name for page in PAGES for name in re.findall(r"\(pictures/([\w.]+)\)", page.read_text())}
    assert files == shown == set(pictures.PICTURES)


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "text",
    [
        '<script src="https://example.org/a.js"></script>',
        "<img alt=x src=//example.org/a.png>",
        '<link href="https://example.org/a.css" rel="stylesheet">',
        '<link rel=preconnect href="https://example.org">',
        "@import 'https://example.org/a.css';",
        ".a { background: url(https://example.org/a.png) }",
    ],
)
def test_what_is_loaded_from_elsewhere_is_found(text: str) -> None:
    assert loaded_from_elsewhere(f"<p>before</p>{text}<p>after</p>") is not None


@pytest.mark.parametrize(
    "text",
    [
        '<a href="https://example.org">there</a>',
        '<script src="assets/a.js"></script><img src="pictures/a.svg">',
        '<link rel="canonical" href="https://example.org/">',
        '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
        '.a { background: url(data:image/svg+xml;charset=utf-8,x) } @import "a.css";',
    ],
)
def test_what_is_linked_or_lies_here_is_not(text: str) -> None:
    assert loaded_from_elsewhere(text) is None
