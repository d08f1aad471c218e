"""HCCS for ``onnx.reference.ReferenceEvaluator``."""

from __future__ import annotations

from typing import Any

from onnx.reference.op_run import OpRun

from hccs_onnx.operator.evaluate import evaluate
from hccs_onnx.operator.schema import DOMAIN, params_from
from hccs_onnx.reference import Array


class HCCS(OpRun):
    """``hccs::HCCS`` for the ONNX reference evaluator, computed by `hccs_onnx.reference`.

    Given as one of `new_ops`, it takes precedence over the function body that a model carries.

    Raises
    ------
    ParameterError
        When run on illegal parameters or types.

    Examples
    --------
    >>> import numpy as np
    >>> from onnx import helper
    >>> from onnx.reference import ReferenceEvaluator
    >>> node = helper.make_node("HCCS", ["x", "z"], ["y"], domain="hccs", B=[300], S=[10], Dmax=[20])
    >>> ReferenceEvaluator(node, new_ops=[HCCS]).run(None, {"x": np.array([5, 5], "i1"), "z": np.uint8(0)})
    [array([128, 128], dtype=uint8)]
    """

    op_domain = DOMAIN

    def _run(self, x: Array, y_zero_point: Array, **attributes: Any) -> tuple[Array]:
        subject = f"node '{self.onnx_node.name}'"
        return (evaluate(x, y_zero_point, params_from(attributes, subject), subject),)
