"""Small plots as SVG text: the same bytes on every machine, and nothing to install."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

INK, GREY, LIGHT = "#222222", "#6b6b6b", "#dddddd"
BLUE, ORANGE, GREEN = "#0b62a4", "#c2410c", "#047857"
"""Colours that differ in brightness as well, on white."""


@dataclass(frozen=True)
class Axes:
    """A rectangle of the picture with a range of numbers along each side.

    Parameters
    ----------
    left, top, width, height : float
        The rectangle, in pixels.
    x, y : tuple of float
        First and last number along the horizontal and the vertical axis.

    Examples
    --------
    >>> Axes(10, 10, 100, 50, x=(0, 1), y=(0, 1)).place(0.5, 1)
    (60.0, 10.0)
    """

    left: float
    top: float
    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where the point lies in the picture, in pixels."""
        right = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.left + right * self.width, self.top + (1 - up) * self.height

    def frame(self, x_ticks: Iterable[float], y_ticks: Iterable[float], x_label: str, y_label: str = "") -> list[str]:
        """Grid lines, numbers and labels."""
        parts = []
        for tick in y_ticks:
            _, y = self.place(self.x[0], tick)
            parts += [stroke([(self.left, y), (self.left + self.width, y)], LIGHT, 1)]
            parts += [text(f"{tick:g}", self.left - 8, y + 4, anchor="end", colour=GREY)]
        for tick in x_ticks:
            x, _ = self.place(tick, self.y[0])
            parts += [text(f"{tick:g}", x, self.top + self.height + 18, anchor="middle", colour=GREY)]
        middle = self.left + self.width / 2
        parts += [text(x_label, middle, self.top + self.height + 38, anchor="middle", colour=GREY)]
        parts += [text(y_label, self.left, self.top - 12, colour=GREY)] if y_label else []
        return parts

    def curve(self, xs: Iterable[float], ys: Iterable[float], colour: str, width: float = 2.5, dash: str = "") -> str:
        """A line through the points (x, y)."""
        return stroke([self.place(x, y) for x, y in zip(xs, ys, strict=True)], colour, width, dash)

    def bar(self, x: float, width: float, height: float, colour: str) -> str:
        """A bar from the axis up to `height`, `width` wide in numbers along x, from `x` to the right."""
        left, top = self.place(x, height)
        right, bottom = self.place(x + width, self.y[0])
        return (
            f'<rect x="{_px(left)}" y="{_px(top)}" width="{_px(right - left)}" height="{_px(bottom - top)}"'
            f' fill="{colour}"/>'
        )


def stroke(points: Sequence[tuple[float, float]], colour: str, width: float, dash: str = "") -> str:
    """A line through points of the picture; `dash` as SVG has it, e.g. ``6 4``."""
    listed = " ".join(f"{_px(x)},{_px(y)}" for x, y in points)
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline points="{listed}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashed}/>'


def text(words: str, x: float, y: float, anchor: str = "start", colour: str = INK, bold: bool = False) -> str:
    """Words at a place of the picture; `anchor` is what of them lies there: start, middle or end."""
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{_px(x)}" y="{_px(y)}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(words)}</text>'


def key(entries: Sequence[tuple[str, str]], x: float, y: float) -> list[str]:
    """A legend: one line for each (colour, words), from (x, y) down."""
    parts = []
    for row, (colour, words) in enumerate(entries):
        line = y + 20 * row
        parts += [stroke([(x, line - 4), (x + 22, line - 4)], colour, 4), text(words, x + 30, line)]
    return parts


def picture(width: int, height: int, description: str, parts: Sequence[str]) -> str:
    """The SVG file: `parts` on white, with a description for those who cannot see it."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return "\n".join(
        [
            f'{head} font-family="Helvetica, Arial, sans-serif" font-size="13" role="img">',
            f"<title>{escape(description)}</title>",
            f'<rect width="{width}" height="{height}" rx="6" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _px(value: float) -> str:
    """A length with one decimal: coarser than what mathematical libraries of two machines differ by."""
    return f"{value:.1f}"
