"""One evaluation of an ``hccs::HCCS`` node in NumPy, shared by the Python implementations of the operator."""

from __future__ import annotations

import numpy as np

from hccs_onnx import reference
from hccs_onnx.errors import ParameterError
from hccs_onnx.params import HccsParams, OutputType

_OUTPUT_TYPES: dict[np.dtype[np.generic], OutputType] = {
    np.dtype(np.float32): "float",
    np.dtype(np.uint8): "uint8",
    np.dtype(np.int16): "int16",
}


def evaluate(x: reference.Array, y_zero_point: reference.Array, params: HccsParams, subject: str) -> reference.Array:
    """Probabilities of one node, after checking that its parameters are legal for this input.

    Parameters
    ----------
    x : ndarray of int8 or float32, shape (..., n)
        Logits.
    y_zero_point : ndarray
        Its dtype (uint8, int16, float32) is the output type.
    params : HccsParams
        The node's attributes.
    subject : str
        What error messages call the node.

    Returns
    -------
    ndarray of `y_zero_point`'s dtype, shape (..., n)

    Raises
    ------
    ParameterError
        If types, parameters or shapes are illegal, with the reason.

    Examples
    --------
    >>> from hccs_onnx.params import DATA_FREE
    >>> evaluate(np.zeros((1, 2), np.float32), np.float32(0), HccsParams((DATA_FREE,)), "sm")
    array([[0.5, 0.5]], dtype=float32)
    """
    dtype = np.asarray(y_zero_point).dtype
    output = _OUTPUT_TYPES.get(dtype)
    if output is None:
        raise ParameterError(subject, "illegal output type", found=dtype, needs="uint8, int16 or float32")
    reasons = params.violations(output, n=x.shape[-1] if x.ndim else None)
    if reasons:
        by_length = "Calibrate for this row length, or use reciprocal norm"
        raise ParameterError(subject, reasons[0], remedy=by_length if "row sum" in reasons[0] else "Put it right")
    heads = params.heads
    try:
        return reference.hccs(
            x,
            dtype,
            B=[head.B for head in heads],
            S=[head.S for head in heads],
            Dmax=[head.Dmax for head in heads],
            scale=np.array([head.scale for head in heads], np.float32),
            head_axis=params.head_axis,
            reciprocal=params.reciprocal,
            masked=params.masked,
            mask_gap=params.mask_gap,
        )
    except (TypeError, ValueError) as error:
        raise ParameterError(subject, str(error)) from error
