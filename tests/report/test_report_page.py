"""The page: whole, alone, accessible, the same bytes every time, and true to its content."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")


from hccs_onnx.report.content import Accuracy, Content, FoundSoftmax, Measured
from hccs_onnx.report.page import render

from .conftest import SAMPLES, Made
from .pages import Element, made_up, parse


@pytest.fixture(scope="module")
def page(made: Made) -> Element:
    return parse(made.html)


def test_report_holds_every_part(page: Element) -> None:
    parts = [section.attributes["id"] for section in page.all("section")]
    assert parts == ["agreement", "rewritten", "heads", "curves", "maps", "sharing", "estimate", "words"]
    assert [link.attributes["href"] for link in page.one("nav").all("a")] == [f"#{part}" for part in parts]
    assert not page.all(class_="missing")


def test_every_head_has_its_row_its_cell_and_its_plot(page: Element, made: Made) -> None:
    heads = made.content.heads
    assert len(heads) == 8
    for head in heads:
        row = page.one("tr", id=f"row-{head.layer}-{head.index}")
        shown = [cell.text for cell in row.all("td")]
        params = head.fit.params
        assert row.one("th").text == f"L{head.layer} H{head.index}"
        assert shown[:2] == [f"{head.fit.kl:.4f}", f"{head.measured.kl:.4f}"]
        assert shown[2:5] == [str(params.B), str(params.S), str(params.Dmax)]
        assert shown[5:7] == [f"{params.clip_range:.2f}", str(params.floor)]
        assert shown[-1] == "no"
        plot = page.one("figure", id=f"plot-{head.layer}-{head.index}")
        assert f"KL {head.kl:.3f}" in plot.one("figcaption").text
        for curve in ("bars", "exp", "line", "clip", "axis"):
            assert plot.one("path", class_=curve).attributes["d"].startswith("M")
        assert page.one("table", class_="matrix").all("a", href=f"#plot-{head.layer}-{head.index}")


def test_every_picture_says_what_it_shows(page: Element) -> None:
    pictures = [svg for svg in page.all("svg") if svg.attributes.get("aria-hidden") != "true"]
    assert len(pictures) == 8 + 2 + len(page.one("section", id="maps").all("figure"))
    for svg in pictures:
        assert svg.attributes["role"] == "img"
        assert len(svg.one("title").text) > 20
    assert "falls from 1 to" in page.one("figure", id="plot-0-0").one("title").text


def test_tables_have_names_and_headings(page: Element) -> None:
    ids = {element.attributes["id"] for element in page.all() if "id" in element.attributes}
    tables = page.all("table")
    assert len(tables) == 7
    for table in tables:
        assert table.all("th", scope="col")
        assert table.all("th", scope="row")
    for element in page.all():
        for name in element.attributes.get("aria-labelledby", "").split():
            assert name in ids


def test_ids_are_unique_and_links_lead_somewhere(page: Element) -> None:
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    links = [link.attributes.get("href", "") for link in page.all("a")]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_report_refers_to_nothing_outside(made: Made, page: Element) -> None:
    assert not re.search(r"https?://|@import|<(?:img|iframe|object|embed|base)\b|\bsrc\s*=", made.html)
    assert set(re.findall(r"url\((.)", made.html)) <= {"#"}
    for element in page.all():
        for name in ("href", "xlink:href"):
            assert element.attributes.get(name, "#")[:1] == "#" or element.attributes[name].startswith("data:")
    policy = page.one("meta", **{"http-equiv": "Content-Security-Policy"}).attributes["content"]
    assert policy.startswith("default-src 'none'")


def test_report_of_12_layers_of_12_heads_stays_below_5_mb() -> None:
    html = render(made_up(12, 12, positions=128))
    assert html.count('<figure class="plot"') == 144
    assert html.count("<image") >= 5 * 2
    assert len(html.encode()) < 5_000_000


def test_same_content_gives_the_same_bytes_whatever_the_user_has_set() -> None:
    import matplotlib as mpl

    content = made_up(2, 3, positions=8)
    first = render(content)
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "axes.facecolor": "red"}):
        assert render(content) == first
        assert mpl.rcParams["font.size"] == 30


def test_names_from_the_model_stay_text() -> None:
    content = made_up(1, 2, node="<script>alert({})</script>&\"'")
    content = replace(content, model="<img src=x>.onnx")
    page = parse(render(content))
    assert len(page.all("script")) == 1
    assert not page.all("img")
    assert page.one("h1").text == "<img src=x>.onnx"
    assert page.one("section", id="curves").one("code").text == "<script>alert(0)</script>&\"'"


def test_what_was_left_alone_is_listed_with_its_reason() -> None:
    content = made_up(1, 2)
    left = FoundSoftmax("gate", None, "8", False, "product with constant weights")
    page = parse(render(replace(content, found=(*content.found, left))))
    rows = [[cell.text for cell in row.children] for row in page.one("section", id="rewritten").one("tbody").children]
    assert rows == [
        ["rewritten", "softmax_0", "2", "dynamic", "yes", ""],
        ["left alone", "gate", "-", "8", "no", "product with constant weights"],
    ]
    assert "1 of 2 Softmax are replaced" in page.one("p", class_="lede").text


def test_accuracy_is_shown_before_and_after() -> None:
    page = parse(render(replace(made_up(1, 2), accuracy=Accuracy("scores", 90, 5, 2, 3))))
    text = page.one("section", id="agreement").text
    assert "original 95.0% 95 HCCS 92.0% 92" in text
    assert "HCCS loses 5 that the original reads right and gains 2; 3 both read wrong." in text
    assert "92.0% \N{MINUS SIGN}3.0 points from 95.0%" in page.one("dl", class_="figures").text


def test_without_data_the_report_says_what_is_left_out() -> None:
    content = made_up(2, 2)
    heads = tuple(replace(head, measured=None, gaps=None) for head in content.heads)
    page = parse(render(Content(content.model, content.calibration, content.found, heads)))
    notes = [note.text for note in page.all(class_="missing")]
    assert len(notes) == 5
    assert sum("--data" in note for note in notes) == 4
    assert len(page.all("figure", class_="plot")) == 4
    assert not page.one("section", id="curves").all("path", class_="bars")
    assert "each layer fed by the original model" in page.one("section", id="heads").text


def test_heads_that_were_not_measured_and_infinite_kl_are_shown_as_such() -> None:
    content = made_up(1, 3)
    first, second, third = content.heads
    heads = (replace(first, measured=None, gaps=None), replace(second, measured=Measured(float("inf"), 0.0)), third)
    page = parse(render(replace(content, heads=heads)))
    shown = [page.one("tr", id=f"row-0-{index}").all("td")[1] for index in range(3)]
    assert [cell.text for cell in shown] == ["-", "∞", f"{third.kl:.4f}"]
    assert shown[1].attributes["data-value"] == "inf"


def test_numbers_of_the_digits_report_are_those_of_its_content(page: Element, made: Made) -> None:
    (output,) = made.content.result.outputs
    rows = page.one("section", id="agreement").all("tbody")[1].children
    assert [cell.text for cell in rows[0].children][:3] == [
        "scores", f"{output.mean_cosine:.4f}", f"{output.worst_cosine:.4f}",
    ]  # fmt: skip
    assert f"{SAMPLES} samples" in page.one("p", id="accuracy-caption").text
    estimate = page.one("section", id="estimate")
    assert len(estimate.one("tbody").children) == 2
    assert "pixels [1, 64]" in estimate.text
    assert "Sample 3," in page.one("section", id="maps").text
