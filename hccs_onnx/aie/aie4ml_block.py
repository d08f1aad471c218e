"""An attention block in numbers: weights of each head, and what runs through it on real data.

Weights are not read off the graph, which has many ways to write a projection (int8 weights, Gemm, fused queries, keys
and values, scales here and there). They are measured: a projection is linear, so its weights are its answers to unit
vectors. Whether it really is linear, and the same at every position, is then checked on the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from hccs_onnx.aie.aie4ml_cut import BlockCut
from hccs_onnx.backends import best_backend, open_session
from hccs_onnx.calibration.collect import run, with_outputs
from hccs_onnx.calibration.data import Feed, Samples
from hccs_onnx.errors import CodegenError
from hccs_onnx.params import PROBABILITY_UNIT
from hccs_onnx.progress import progress
from hccs_onnx.reference import Array

MOST_FEEDS = 16
"""Feeds that are read at most: they choose powers of two, and prove that weights were understood."""

_TOLERANCE = 1e-3  # of the largest value: sums in another order stay far below, what is not linear far above
_OBSERVED = ("source", "logits", "codes", "probabilities", "context", "result")


@dataclass(frozen=True)
class Projection:
    """``y = x @ weight + bias``, by head.

    Parameters
    ----------
    weight : ndarray of float64, shape (head, in, out)
        Weights.
    bias : ndarray of float64, shape (head, out)
        Bias.

    Examples
    --------
    >>> Projection(np.ones((2, 3, 4)), np.zeros((2, 4)))(np.ones((5, 3))).shape
    (2, 5, 4)
    """

    weight: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        """Rows (..., row, in) to (..., head, row, out)."""
        result: Array = x[..., None, :, :] @ self.weight + self.bias[:, None, :]
        return result


@dataclass(frozen=True)
class AttentionBlock:
    """Weights of an attention block, and its data.

    Parameters
    ----------
    cut : BlockCut
        Where it lies in the model.
    query, key, value : Projection
        By head.
    output : Projection
        Of the concatenated heads; it has one head.
    x : ndarray of float32, shape (sample, row, in)
        What the block reads.
    y : ndarray of float32, shape (sample, row, out)
        What it puts out in the model.
    codes, probabilities : ndarray of int8, and of uint8 or int16, shape (sample, head, row, row)
        What its HCCS node reads and puts out in the model.
    """

    cut: BlockCut
    query: Projection
    key: Projection
    value: Projection
    output: Projection
    x: Array
    y: Array
    codes: Array
    probabilities: Array

    @property
    def heads(self) -> int:
        """Number of heads."""
        return int(self.query.weight.shape[0])

    @property
    def rows(self) -> int:
        """Positions: so many queries, and so many keys of each."""
        return int(self.x.shape[1])


def read_blocks(model: onnx.ModelProto, path: Path, cuts: Sequence[BlockCut], samples: Samples) -> list[AttentionBlock]:
    """Run a model on data and measure its attention blocks.

    Parameters
    ----------
    model : onnx.ModelProto
        The rewritten model that the cuts were found in.
    path : pathlib.Path
        Where it was read from.
    cuts : sequence of BlockCut
        The blocks.
    samples : Samples
        The data; `MOST_FEEDS` are read.

    Raises
    ------
    CodegenError
        If sequences differ in length, or a block does more than aie4ml's graph can say: masks positions, adds position
        biases, rotates queries and keys.
    ModelError, DataError
        If the model cannot be run on the data.

    Examples
    --------
    >>> read_blocks(model, path, find_cuts(model, path), samples)[0].heads  # doctest: +SKIP
    12
    """
    feed, seen = _observe(model, path, cuts, samples)
    return [_measure(model, path, cut, feed, seen[cut.node]) for cut in cuts]


def _observe(
    model: onnx.ModelProto, path: Path, cuts: Sequence[BlockCut], samples: Samples
) -> tuple[Feed, dict[str, dict[str, list[Array]]]]:
    """The first feed, and by node what goes through the tensors of its block."""
    inputs = {value.name for value in model.graph.input}
    observed = dict.fromkeys(getattr(cut, role) for cut in cuts for role in _OBSERVED)
    names = [name for name in observed if name not in inputs]
    session: Any = open_session(with_outputs(_copy(model), names), path, best_backend())
    seen: dict[str, dict[str, list[Array]]] = {cut.node: {role: [] for role in _OBSERVED} for cut in cuts}
    first: Feed = {}
    shapes: dict[str, tuple[int, ...]] = {}
    count = min(len(samples), MOST_FEEDS)
    for number, feed in enumerate(progress(islice(samples, MOST_FEEDS), "observing", count)):
        first = first or feed
        values = {**feed, **dict(zip(names, run(session, names, feed), strict=True))}
        for name, value in values.items():
            if shapes.setdefault(name, value.shape) != value.shape:
                problem = f"sample {number} has another length than those before, and an AI Engine project has one"
                remedy = "Give samples of one length, without padding"
                raise CodegenError(samples.name, problem, remedy=remedy)
        for cut in cuts:
            for role, kept in seen[cut.node].items():
                kept.append(values[getattr(cut, role)])
    return first, seen


def _measure(
    model: onnx.ModelProto, path: Path, cut: BlockCut, feed: Feed, seen: Mapping[str, Sequence[Array]]
) -> AttentionBlock:
    x, context = seen["source"][0], seen["context"][0]
    rows = context.shape[-2]
    batch, rest = divmod(x.size, x.shape[-1] * rows)
    head_axis = cut.params.head_axis % seen["codes"][0].ndim
    if rest or context.ndim > 4 or (len(cut.params.heads) > 1 and head_axis != context.ndim - 3):
        problem = "heads do not lie in the axis before queries and keys"
        raise CodegenError(f"node '{cut.node}'", problem, found=list(context.shape), needs="[batch, head, row, depth]")

    def all_by_head(role: str) -> Array:
        return np.concatenate([_by_head(value, batch) for value in seen[role]])

    def all_by_row(role: str) -> Array:
        return np.concatenate([value.reshape(batch, -1, value.shape[-1]) for value in seen[role]])

    probe = _Probe(model, path, cut, feed, x, context)
    answers = [probe.ask(x=units.reshape(x.shape)) for units in _units(x.shape[-1], x.size // x.shape[-1])]
    _, heads, _, depth = _by_head(context, batch).shape
    ends = [
        probe.ask(context=units.reshape(batch, rows, heads, depth).swapaxes(1, 2).reshape(context.shape))[cut.result]
        for units in _units(heads * depth, batch * rows)
    ]
    block = AttentionBlock(
        cut,
        query=_projection([_by_head(answer[cut.query], batch) for answer in answers], x.shape[-1]),
        key=_projection([_by_head(answer[cut.key], batch).swapaxes(-1, -2) for answer in answers], x.shape[-1]),
        value=_projection([_by_head(answer[cut.value], batch) for answer in answers], x.shape[-1]),
        output=_projection([end.reshape(1, 1, -1, end.shape[-1]) for end in ends], heads * depth),
        x=all_by_row("source"),
        y=all_by_row("result"),
        codes=all_by_head("codes"),
        probabilities=all_by_head("probabilities"),
    )
    _check(block, all_by_head("logits"), all_by_head("context"))
    return block


def _check(block: AttentionBlock, logits: Array, context: Array) -> None:
    """Refuse a block that is not, on its data, what its projections and parameters say."""
    cut = block.cut
    subject = f"node '{cut.node}'"
    x = block.x.astype(np.float64)
    product = cut.factor * block.query(x) @ block.key(x).swapaxes(-1, -2)
    _check_equal(
        subject, "logits are more than products of queries and keys (a mask or a position bias)", product, logits
    )
    probabilities = block.probabilities * PROBABILITY_UNIT[cut.output]
    _check_equal(subject, "context is more than probabilities times values", probabilities @ block.value(x), context)
    joined = context.swapaxes(1, 2).reshape(*block.x.shape[:2], -1)
    _check_equal(subject, "what follows the context is no projection", block.output(joined)[:, 0], block.y)


def _check_equal(subject: str, problem: str, ours: Array, theirs: Array, slack: float | None = None) -> None:
    bound = float(_TOLERANCE * np.abs(ours).max()) if slack is None else slack
    difference = float(np.abs(ours - theirs).max())
    if not difference <= bound:
        remedy = "Give data without padding; what depends on the position cannot go through aie4ml"
        found, needs = f"off by {difference:.3g}", f"<= {bound:.2g} on the data"
        raise CodegenError(subject, problem, found=found, needs=needs, remedy=remedy)


class _Probe:
    """A block cut out of its model: source and context are inputs, whatever makes them there."""

    def __init__(self, model: onnx.ModelProto, path: Path, cut: BlockCut, feed: Feed, x: Array, context: Array) -> None:
        self._names = {"x": f"{cut.source}/probe", "context": f"{cut.context}/probe"}
        self._wanted = list(dict.fromkeys((cut.query, cut.key, cut.value, cut.result)))
        renamed = {cut.source: self._names["x"], cut.context: self._names["context"]}
        opened = _copy(model)
        for node in opened.graph.node:
            for position, name in enumerate(node.input):
                node.input[position] = renamed.get(name, name)
        _keep_makers(opened.graph, self._wanted)
        opened.graph.input.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in renamed.values()
        )
        del opened.graph.output[:]
        self._session: Any = open_session(with_outputs(opened, self._wanted), path)
        self._feed = {value.name: feed[value.name] for value in opened.graph.input if value.name in feed}
        self._feed |= {self._names["x"]: x, self._names["context"]: context}

    def ask(self, **probes: Array) -> dict[str, Array]:
        """Queries, keys, values and result by name, for another source or context."""
        given = {self._names[role]: value for role, value in probes.items()}
        return dict(zip(self._wanted, run(self._session, self._wanted, {**self._feed, **given}), strict=True))


def _keep_makers(graph: onnx.GraphProto, wanted: Sequence[str]) -> None:
    """Drop nodes and inputs that `wanted` does not depend on, and what is known of other tensors."""
    needed = set(wanted)
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
            # A subgraph reads tensors from outside by name.
            needed.update(name for a in node.attribute if a.HasField("g") for n in a.g.node for name in n.input)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(nodes)]
    inputs = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in graph.input if v.name in needed]
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.input.extend(inputs)


def _units(width: int, rows: int) -> Iterator[Array]:
    """0 and all unit vectors, in blocks of `rows` rows, the last one filled up with 0."""
    units = np.concatenate([np.zeros((1, width), np.float32), np.eye(width, dtype=np.float32)])
    units = np.concatenate([units, np.zeros((-len(units) % rows, width), np.float32)])
    return (units[start : start + rows] for start in range(0, len(units), rows))


def _projection(answers: Sequence[Array], width: int) -> Projection:
    """The projection that gives these answers (batch, head, row, out) to `_units`."""
    by_row = [answer.swapaxes(1, 2).reshape(-1, answer.shape[1], answer.shape[3]) for answer in answers]
    values = np.concatenate(by_row).astype(np.float64)[: width + 1]
    return Projection((values[1:] - values[0]).swapaxes(0, 1), values[0])


def _by_head(value: Array, batch: int) -> Array:
    """(batch * head, ...) or (batch, head, ...) to (batch, head, ...)."""
    result: Array = value.reshape(batch, -1, *value.shape[-2:])
    return result


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy
