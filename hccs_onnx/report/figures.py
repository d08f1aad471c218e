"""The larger figures, drawn by matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hccs_onnx.report.content import AttentionMap, Head, Sharing
from hccs_onnx.report.inline_svg import ACCENT, INK, MUTED, drawing, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = "viridis"  # reads the same to the colour-blind


def sharing_figure(items: Sequence[Sharing]) -> str:
    """KL of every head, a row of dots for each way of sharing parameters; the mean is a bar.

    Examples
    --------
    >>> sharing_figure([Sharing("per head", 2, (0.1, 0.2))]).startswith("<svg")  # doctest: +SKIP
    True
    """
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(5.0, 0.55 + 0.45 * len(items)), layout="constrained")
        axes = figure.subplots()
        for row, item in enumerate(items):
            places = row + 0.3 * _spread(item.kl)
            axes.plot(item.kl, places, "o", markersize=3.2, color=ACCENT, markeredgewidth=0, alpha=0.65)
            axes.plot([item.mean] * 2, [row - 0.42, row + 0.42], color=INK, linewidth=1.8, solid_capstyle="butt")
        axes.set_yticks(range(len(items)), [item.name for item in items])
        axes.set_ylim(len(items) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(left=0)
        axes.set_xlabel("KL of a head (nats)")
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        means = "; ".join(f"{item.name}: mean {item.mean:.3f}, worst {max(item.kl):.3f}" for item in items)
        return inline_svg(figure, "sharing", "KL of the heads by who shares parameters", f"In nats. {means}.")


def breadth_figure(heads: Sequence[Head]) -> str:
    """KL over how broad a head's attention is, a dot for each head; empty if there is nothing to draw.

    Examples
    --------
    >>> breadth_figure([])
    ''
    """
    from matplotlib.figure import Figure

    found = [(head.gaps.effective_keys, head) for head in heads if head.gaps is not None and math.isfinite(head.kl)]
    if not found:
        return ""
    with drawing():
        figure = Figure(figsize=(5.0, 2.5), layout="constrained")
        axes = figure.subplots()
        keys, kl = [item[0] for item in found], [item[1].kl for item in found]
        axes.plot(keys, kl, "o", markersize=4, color=ACCENT, markeredgewidth=0, alpha=0.7)
        _logarithmic(axes, max(keys))
        axes.set_ylim(0, 1.15 * max(kl))
        axes.set_xlabel("keys that a row spreads over, exp(entropy)")
        axes.set_ylabel("KL (nats)")
        axes.grid()
        worst = max((item[1] for item in found), key=lambda head: head.kl)
        spread = next(item[0] for item in found if item[1] is worst)
        above = worst.kl + 0.03 * max(kl)
        axes.text(spread, above, worst.name, ha="center", va="bottom", fontsize=8)
        text = f"{len(found)} heads; {worst.name} has most, {worst.kl:.3f} nats, and spreads over {spread:.1f} keys."
        return inline_svg(figure, "breadth", "KL of each head over the breadth of its attention", text)


def map_figure(shown: AttentionMap) -> str:
    """Probabilities of original and rewritten model side by side, in one scale of colours.

    Examples
    --------
    >>> map_figure(shown).count("<image")  # doctest: +SKIP
    3
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    highest = max(float(np.nan_to_num(rows).max()) for rows in (shown.original, shown.rewritten)) or 1.0
    queries, keys = shown.original.shape
    with drawing():
        figure = Figure(figsize=(4.6, 0.62 + 1.52 * min(1.3, max(0.5, queries / keys))), layout="constrained")
        pair = figure.subplots(1, 2, sharey=True)
        norm = PowerNorm(0.5, 0.0, highest)
        for axes, rows, name in zip(pair, (shown.original, shown.rewritten), ("original", "HCCS"), strict=True):
            image = axes.imshow(rows, norm=norm, cmap=_COLOURS, interpolation="none", aspect="auto")
            axes.set_title(name, fontsize=9)
            axes.set_xlabel("key position")
            axes.locator_params(nbins=5, integer=True)
            for spine in axes.spines.values():
                spine.set_visible(False)
        pair[0].set_ylabel("query position")
        bar = figure.colorbar(image, ax=pair, shrink=0.95, aspect=16, pad=0.02)
        bar.outline.set_visible(False)
        bar.set_label("probability (root scale)", color=INK)
        bar.ax.tick_params(color=MUTED)
        head = shown.head
        title = f"Attention of layer {head.layer}, head {head.index}: original beside HCCS"
        text = (
            f"Two maps of {queries} queries by {keys} keys. Highest probability {shown.original.max():.2f} in the "
            f"original, {shown.rewritten.max():.2f} with HCCS."
        )
        return inline_svg(figure, f"map-{head.layer}-{head.index}", title, text)


def _logarithmic(axes: Axes, highest: float) -> None:
    """Numbers of keys along x, each mark twice the one before."""
    axes.set_xscale("log", base=2)
    marks = [2.0**power for power in range(math.ceil(math.log2(max(2.0, highest))) + 1)]
    axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
    axes.set_xlim(0.9, marks[-1] * 1.1)


def _spread(values: Sequence[float]) -> np.ndarray:
    """Offsets in -1..1 that keep dots of near values apart, the same every time."""
    order = np.argsort(np.asarray(values), kind="stable")
    golden = 0.6180339887498949
    offsets = np.empty(len(values))
    offsets[order] = 2 * (np.arange(len(values)) * golden % 1.0) - 1
    return offsets
