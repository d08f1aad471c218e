"""Reading a report as a browser does, strictly; and reports of made-up models."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np

from hccs_onnx import Calibration, HeadParams
from hccs_onnx.calibration.file import SoftmaxCalibration
from hccs_onnx.calibration.fit import HeadFit
from hccs_onnx.report.content import AttentionMap, Content, FoundSoftmax, Gaps, Head, Measured
from hccs_onnx.verify import OutputComparison, Verification

_VOID = {"meta", "link", "br", "img", "input", "hr"}


@dataclass
class Element:
    """An element with what it holds."""

    tag: str
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return " ".join(" ".join([*self.words, *(child.text for child in self.children)]).split())

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        """Elements below with this tag and these attributes (`class_` for class)."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        found = []
        for child in self.children:
            has = {**child.attributes}
            if (not tag or child.tag == tag) and all(
                value in has.get(name, "").split() for name, value in wanted.items()
            ):
                found.append(child)
            found += child.all(tag, **attributes)
        return found

    def one(self, tag: str = "", **attributes: str) -> Element:
        (found,) = self.all(tag, **attributes)
        return found


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("document", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"attribute given twice in <{tag}>"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].children.append(element)
        if tag not in _VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"<{self._open[-1].tag}> is ended by </{tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].words.append(data)


def parse(html: str) -> Element:
    """The document; an AssertionError if elements do not nest."""
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert parser._open == [parser.root], "an element is not ended"
    return parser.root


def made_up(layers: int, heads: int, *, node: str = "softmax_{}", positions: int = 0) -> Content:
    """Content of a model that there is not; attention maps in it if there are `positions`."""
    random = np.random.default_rng(0)
    fits = [
        [
            HeadFit(HeadParams(16259, 127, 127, random.uniform(2, 4) / 127), random.uniform(0, 0.3), 0.0)
            for _ in range(heads)
        ]
        for _ in range(layers)
    ]
    softmaxes = tuple(
        SoftmaxCalibration(node.format(layer), f"logits_{layer}", -3, positions, True, tuple(each))
        for layer, each in enumerate(fits)
    )
    calibration = Calibration("0" * 64, "0.0", "extended", "head", "float", "norm", "1" * 64, 1000, softmaxes)
    shares = random.dirichlet(np.ones(12), size=(layers, heads))
    every = tuple(
        Head(
            layer, index, softmaxes[layer].node, fit, True, Measured(fit.kl * 1.1, 0.0),
            Gaps(tuple(map(float, shares[layer, index])), 0.5, 0.3, 0.05, float(random.uniform(1, 16)), 16.0),
        )
        for layer, each in enumerate(fits)
        for index, fit in enumerate(each)
    )  # fmt: skip
    maps = tuple(
        AttentionMap(head, (role,), *random.dirichlet(np.ones(positions), size=(2, positions)), cut=False)
        for head, role in zip(every, ("best", "broadest", "median", "most focused", "worst"), strict=False)
        if positions
    )
    output = OutputComparison("hidden", 1.0, 0.1, 0.97, 0.9, None)
    found = tuple(FoundSoftmax(softmax.node, heads, "dynamic", True, None) for softmax in softmaxes)
    result = Verification((output,), (), 32, "function", ())
    return Content("made_up.onnx", calibration, found, every, result, maps=maps)
