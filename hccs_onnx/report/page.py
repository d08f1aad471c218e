"""From content to one HTML page that needs nothing else. Pure but for reading templates: same content, same bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hccs_onnx import words
from hccs_onnx._version import __version__
from hccs_onnx.report.attention_maps import POSITIONS
from hccs_onnx.report.content import Content
from hccs_onnx.report.figures import breadth_figure, map_figure, sharing_figure
from hccs_onnx.report.gaps import WIDTH as BIN_WIDTH
from hccs_onnx.report.gaps import reach_of
from hccs_onnx.report.head_table import columns
from hccs_onnx.report.small_plots import HEIGHT, WIDTH, head_plot
from hccs_onnx.report.text import FILTERS, count, fixed, percent, significant

_WORDS = (
    words.KL, words.OFFSET, words.SLOPE, words.CLIP_DISTANCE, words.CLIP_RANGE, words.FLOOR, words.DEFICIT, words.KEYS,
    words.MASKED, words.MEAN_COSINE, words.WORST_COSINE, words.MEAN_DIFFERENCE, words.LARGEST_DIFFERENCE,
    words.AGREEMENT,
)  # fmt: skip
_OUTPUT_WORDS = _WORDS[-5:]


@dataclass(frozen=True)
class Figure:
    """A number at the top of the page."""

    name: str
    value: str
    note: str = ""


def render(content: Content) -> str:
    """The page.

    Parameters
    ----------
    content : Content
        From `gather`.

    Returns
    -------
    str
        HTML.

    Examples
    --------
    >>> render(content).startswith("<!DOCTYPE html>")  # doctest: +SKIP
    True
    """
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("hccs_onnx.report"),
        autoescape=True,  # node names come from the model
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(FILTERS)
    reach = reach_of([head.fit for head in content.heads])
    has_gaps = any(head.gaps is not None for head in content.heads)
    page = {
        "version": __version__,
        "lede": _lede(content),
        "figures": _figures(content),
        "words": _WORDS,
        "output_words": _OUTPUT_WORDS,
        "mean_kl": words.MEAN_KL,
        "worst_kl_word": words.WORST_KL,
        "kl_source": _kl_source(content),
        "most_heads": max(len(layer) for layer in content.layers),
        "worst_kl": max((head.kl for head in content.heads if math.isfinite(head.kl)), default=0.0),
        "columns": columns(content),
        "breadth": Markup(breadth_figure(content.heads)),
        "has_gaps": has_gaps,
        "bin_width": f"{BIN_WIDTH:g}",
        "reach": reach,
        "plot_width": WIDTH,
        "plot_height": HEIGHT,
        "plots": [
            {"node": layer[0].node, "plots": [{"head": head, "plot": head_plot(head, reach)} for head in layer]}
            for layer in content.layers
        ],
        "maps": [{"map": item, "svg": Markup(map_figure(item))} for item in content.maps],
        "no_maps": _no_maps(content),
        "positions": POSITIONS,
        "sharing": Markup(sharing_figure(content.sharing)) if content.sharing else "",
        "estimate_lede": _estimate_lede(content),
    }
    return str(environment.get_template("report.html.j2").render(content=content, page=page))


def _lede(content: Content) -> str:
    text = (
        f"{content.rewritten} of {len(content.found)} Softmax are replaced by HCCS, the head-calibrated clipped-linear "
        f"Softmax: {len(content.heads)} heads with a few numbers each and no exponential."
    )
    if content.result is None or not content.result.outputs:
        return text
    output = content.result.outputs[0]
    return (
        f"{text} On {count(content.result.samples)} feeds the vectors of {output.name} keep a mean cosine of "
        f"{fixed(output.mean_cosine, 3)} to those of the original."
    )


def _figures(content: Content) -> list[Figure]:
    found = [Figure("Softmax rewritten", f"{content.rewritten} of {len(content.found)}", f"{len(content.heads)} heads")]
    if content.accuracy is not None:
        before, after = content.accuracy.original, content.accuracy.rewritten
        change = f"{fixed(100 * (after - before), 1, signed=True)} points"
        found.append(Figure("accuracy", percent(after), f"{change} from {percent(before)}"))
    if content.result is not None and content.result.outputs:
        output = content.result.outputs[0]
        note = f"worst {fixed(output.worst_cosine, 3)}"
        found.append(Figure(f"{words.MEAN_COSINE.heading}, {output.name}", fixed(output.mean_cosine, 4), note))
    worst = max(content.heads, key=lambda head: head.kl)
    mean = sum(head.kl for head in content.heads) / len(content.heads)
    found.append(Figure(words.MEAN_KL.heading, fixed(mean, 4), f"worst {fixed(worst.kl, 3)}, {worst.name}"))
    if content.estimate is not None and content.estimate.microseconds is not None:
        note = f"modelled, {content.estimate.target}"
        found.append(Figure("all HCCS nodes, AI Engine", f"{fixed(content.estimate.microseconds, 1)} µs", note))
    return found


def _kl_source(content: Content) -> str:
    if content.result is None:
        return "As fitted on the calibration data, each layer fed by the original model."
    return "Measured in the rewritten model on this report's data: what the layers below changed is part of it."


def _no_maps(content: Content) -> str:
    if content.result is None:
        return "Left out: they need samples. Run the report with --data."
    return "Left out: the attention lies in bodies of If, Loop or Scan."


def _estimate_lede(content: Content) -> str:
    if content.estimate is None:
        return ""
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in content.estimate.shapes.items())
    text = f"What the HCCS nodes would cost{f' for {shapes}' if shapes else ''}"
    if content.estimate.microseconds is None:
        return f"{text}."
    return f"{text}: {significant(content.estimate.microseconds)} µs one after the other, all their rows."
