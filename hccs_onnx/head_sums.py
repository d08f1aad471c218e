"""Running comparison of each head's probabilities, Softmax against HCCS, over the rows that count."""

from __future__ import annotations

import numpy as np
import onnx

from hccs_onnx.calibration.live_rows import by_head, counted_rows, head_count
from hccs_onnx.calibration.model_sketch import check_heads
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.names import nested_graphs
from hccs_onnx.operator.schema import ELEMENT_TYPES, is_hccs
from hccs_onnx.params import PROBABILITY_UNIT
from hccs_onnx.reference import Array

_NEGLIGIBLE = 1e-20  # probability: a masked position's, whose loss costs nothing


def least_probability(rewritten: onnx.ModelProto) -> float:
    """What an integer probability of 0 counts as in logarithms; 0 for float output.

    Parameters
    ----------
    rewritten : onnx.ModelProto
        With HCCS nodes, all of one output type.

    Returns
    -------
    float
        A quarter of the output's unit, 2^-8 (uint8) or 2^-15 (int16).

    Examples
    --------
    >>> least_probability(onnx.ModelProto())
    0.0
    """
    graphs = list(nested_graphs(rewritten.graph))
    nodes = [node for graph in graphs for node in graph.node]
    types = {tensor.name: tensor.data_type for graph in graphs for tensor in graph.initializer}
    constants = (node for node in nodes if node.op_type == "Constant" and node.attribute)  # as other tools write them
    types |= {node.output[0]: node.attribute[0].t.data_type for node in constants}
    outputs = {types.get(node.input[1]) for node in nodes if is_hccs(node)}
    units = [unit for name, unit in PROBABILITY_UNIT.items() if name != "float" and ELEMENT_TYPES[name] in outputs]
    return 0.25 * min(units, default=0.0)


class HeadSums:
    """Sums over the rows of one node; without heads until it runs.

    Parameters
    ----------
    item : AttentionSoftmax
        The Softmax in the original.
    least : float
        From `least_probability`.

    Examples
    --------
    >>> item = AttentionSoftmax("n", 0, "x", "p", "p", heads=1)
    >>> sums = HeadSums(item, least=0.0)
    >>> sums.add(np.zeros((1, 1, 2)), np.array([[[0.5, 0.5]]]), np.array([[[0.5, 0.25]]]))
    >>> kl, deficit = sums.result()
    >>> round(float(kl[0]), 4), deficit
    (0.0589, array([0.25]))
    """

    def __init__(self, item: AttentionSoftmax, least: float) -> None:
        self._item, self._least = item, least
        self._kl, self._deficit, self._rows = np.zeros(0), np.zeros(0), np.zeros(0, np.int64)

    @property
    def ran(self) -> bool:
        """Whether there was anything to compare."""
        return self._rows.size > 0

    def add(self, logits: Array, expected: Array, actual: Array) -> None:
        """Compare the rows of one run.

        Parameters
        ----------
        logits, expected : ndarray of float, shape (batch..., head, query, key)
            What the original's Softmax reads, nats, and puts out.
        actual : ndarray of float, same shape
            What HCCS puts out.

        Raises
        ------
        CalibrationError
            If the number of heads has changed.
        """
        heads = head_count(self._item, logits)
        check_heads(self._item.node, self._rows.size, heads)
        if not self.ran:
            self._kl, self._deficit, self._rows = np.zeros(heads), np.zeros(heads), np.zeros(heads, np.int64)
        p, y = by_head(expected, heads), by_head(actual, heads)
        total = y.sum(axis=-1)
        # Integers of the original's own may leave nothing of a row to compare with.
        counted = counted_rows(self._item, logits) & (p.sum(axis=-1) > 0.5)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(
                p > _NEGLIGIBLE, p * (np.log(p) - np.log(np.maximum(y, self._least) / total[..., None])), 0.0
            )
        loss = np.where(total == 0, np.inf, terms.sum(axis=-1))  # a row of zeros cannot be brought to the sum 1
        self._kl += np.where(counted, loss, 0.0).sum(axis=(0, 2))
        self._deficit += np.where(counted, 1.0 - total, 0.0).sum(axis=(0, 2))
        self._rows += counted.sum(axis=(0, 2))

    def result(self) -> tuple[Array, Array]:
        """KL and deficit of each head, means over rows."""
        rows = np.maximum(self._rows, 1)
        return self._kl / rows, self._deficit / rows
