"""Draw the pictures of docs/how_it_works.md: ``python -m tools.pictures`` writes docs/pictures/*.svg."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import hccs_onnx
from hccs_onnx.params import DATA_FREE
from tools.svg_plot import BLUE, GREEN, GREY, ORANGE, Axes, key, picture, text

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
GAPS = np.linspace(0, 8, 161)
"""Gaps to the row's maximum, in nats."""


def scores(gaps: np.ndarray, clip: float, floor: float) -> np.ndarray:
    """Score over B, before rounding, for a clip range in nats and a floor ratio F/B."""
    return np.asarray(1 - (1 - floor) * np.minimum(gaps, clip) / clip)


def exponential_and_line() -> str:
    """The exponential of Softmax beside the line that takes its place."""
    clip = DATA_FREE.Dmax * DATA_FREE.scale
    floor = (DATA_FREE.B - DATA_FREE.S * DATA_FREE.Dmax) / DATA_FREE.B
    axes = Axes(70, 40, 540, 240, x=(0, 8), y=(0, 1))
    end_x, end_y = axes.place(clip, floor)
    parts = [
        *axes.frame(range(9), [0, 0.25, 0.5, 0.75, 1], "gap to the row's maximum, nats", "score, largest = 1"),
        axes.curve(GAPS, np.exp(-GAPS), BLUE),
        axes.curve(GAPS, scores(GAPS, clip, floor), ORANGE),
        *key([(BLUE, "Softmax: exp(-gap)"), (ORANGE, "HCCS: B - S * min(gap, Dmax)")], 380, 70),
        text("clip range, then the floor", end_x + 6, end_y - 14, colour=GREY),
    ]
    return picture(640, 340, "exp(-gap) and the clipped line of HCCS with the data-free parameters", parts)


def what_parameters_do() -> str:
    """Clip range and floor, varied one at a time."""
    panels = [
        ("Clip range: Dmax * scale", [(1.5, 0.0), (3.3, 0.0), (6.0, 0.0)], "{0:g} nats"),
        ("Floor: (B - S * Dmax) / B", [(3.3, 0.0), (3.3, 0.05), (3.3, 0.2)], "{1:g} of B"),
    ]
    parts = []
    colours = BLUE, ORANGE, GREEN
    for column, (title, lines, label) in enumerate(panels):
        axes = Axes(60 + 320 * column, 60, 260, 200, x=(0, 8), y=(0, 1))
        parts += axes.frame([0, 2, 4, 6, 8], [0, 0.5, 1], "gap, nats")
        parts += [text(title, axes.left, 32, bold=True), axes.curve(GAPS, np.exp(-GAPS), GREY, 1.5, "5 4")]
        coloured = list(zip(colours, lines, strict=True))
        parts += [axes.curve(GAPS, scores(GAPS, *line), colour) for colour, line in coloured]
        entries = [(colour, label.format(*line)) for colour, line in coloured]
        parts += key(entries, axes.left + 170, 76)
    return picture(660, 320, "Lines of three clip ranges, and of three floors, with exp(-gap) dashed", parts)


def gap_codes() -> str:
    """Integers: a line of few steps, so that they can be seen."""
    head = hccs_onnx.HeadParams(B=300, S=29, Dmax=10, scale=0.33)
    codes = np.arange(13)
    values = head.B - head.S * np.minimum(codes, head.Dmax)
    edges = np.clip(np.repeat(codes, 2) + np.tile([-0.5, 0.5], len(codes)), 0, 12)
    axes = Axes(70, 40, 540, 220, x=(0, 12), y=(0, 300))
    parts = [
        *axes.frame(codes, [0, 100, 200, 300], "gap code: gap / scale, rounded", "score"),
        axes.curve(edges, np.repeat(values, 2), ORANGE),
        text("B = 300, the row's maximum", 170, 60),
        text("each code costs S = 29", 300, 130),
        text("from Dmax = 10 on: the floor B - S * Dmax = 10", 480, 252, anchor="end"),
    ]
    return picture(640, 320, "Scores of the codes 0 to 12 as a staircase from B down to the floor", parts)


def one_row() -> str:
    """One row of logits through Softmax and HCCS, the last four keys masked."""
    logits = np.array([[2.0, 0.3, 1.6, -0.5, 1.1, -2.0, 0.8, -1.2] + [-10000.0] * 4], np.float32)
    rows = [np.exp(logits) / np.exp(logits).sum()]
    rows += [
        hccs_onnx.hccs(logits, np.float32, B=[16000], S=[110], Dmax=[127], scale=[3.3 / 127], masked=masked)
        for masked in (True, False)
    ]
    names = ["Softmax", "HCCS", "HCCS without its mask: padding keeps the floor"]
    axes = Axes(70, 40, 540, 220, x=(0, 12), y=(0, 0.4))
    parts = axes.frame([], [0, 0.1, 0.2, 0.3, 0.4], "keys of one query; the last four are padding", "probability")
    for series, (colour, row) in enumerate(zip((BLUE, ORANGE, GREEN), rows, strict=True)):
        parts += [axes.bar(index + 0.1 + 0.27 * series, 0.25, float(p), colour) for index, p in enumerate(row[0])]
    parts += key(list(zip((BLUE, ORANGE, GREEN), names, strict=True)), 250, 62)
    return picture(640, 320, "Probabilities of twelve keys by Softmax, by HCCS and by HCCS without its mask", parts)


PICTURES = {
    "exponential_and_line.svg": exponential_and_line,
    "gap_codes.svg": gap_codes,
    "what_parameters_do.svg": what_parameters_do,
    "one_row.svg": one_row,
}
"""File names and what draws them."""


def main() -> None:
    """Write all pictures."""
    for name, draw in PICTURES.items():
        (FOLDER / name).write_text(draw())


if __name__ == "__main__":
    main()
