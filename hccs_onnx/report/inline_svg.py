"""matplotlib figures as SVG for a page: its fonts, its colours by day and by night, ids that clash with nothing."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Colours to draw with, each of which stands for one of the page.
INK, MUTED, ACCENT, GRID = "#010203", "#040506", "#070809", "#0a0b0c"
_ON_PAGE = {INK: "currentColor", MUTED: "var(--muted)", ACCENT: "var(--hccs)", GRID: "var(--line)"}
_STYLE = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "hccs-onnx",  # the same bytes every time
    "font.family": "DejaVu Sans",  # comes with matplotlib: the layout depends on nothing installed
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@contextmanager
def drawing() -> Iterator[None]:
    """While the block runs, matplotlib draws in the page's style."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()  # whatever the user's own style is
        mpl.rcParams.update(_STYLE)
        yield


def inline_svg(figure: Figure, name: str, title: str, description: str) -> str:
    """A figure as an SVG element.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Drawn within `drawing`.
    name : str
        Unique in the page: begins all ids.
    title, description : str
        Alternative text, short and long.

    Examples
    --------
    >>> inline_svg(figure, "sharing", "KL by granularity", "Four rows of dots.")[:4]  # doctest: +SKIP
    '<svg'
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"\s*<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    for drawn, shown in _ON_PAGE.items():
        text = text.replace(drawn, shown)
    text = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", text)
    body = text[text.index(">") + 1 :]
    box = re.search(r'viewBox="([^"]+)"', text)
    view = box.group(1) if box else "0 0 1 1"
    label = f"<title>{html.escape(title)}</title><desc>{html.escape(description)}</desc>"
    return f'<svg class="drawn" viewBox="{view}" role="img" aria-label="{html.escape(title)}">{label}{body}'.strip()
