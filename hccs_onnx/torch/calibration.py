"""Calibration of a float torch model by way of its export."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from hccs_onnx import workflow
from hccs_onnx.calibration.data import DataSource
from hccs_onnx.calibration.file import Calibration
from hccs_onnx.errors import ModelError
from hccs_onnx.torch.exporters import evaluating, run_exporter
from hccs_onnx.torch.module import HCCSSoftmax
from hccs_onnx.torch.swap import find


def calibrate(
    model: nn.Module,
    args: tuple[Any, ...],
    data: DataSource,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamo: bool = True,
    export_options: Mapping[str, Any] | None = None,
    softmax: str | None = None,
    **options: Any,
) -> Calibration:
    """Fit head parameters of a float model: what `hccs_onnx.calibrate` finds for its export, in order of the modules.

    That order is `hccs_onnx.torch.swap`'s. Nodes of an export are in the order in which modules run, which differs in
    some models: CLIP has its text part first and runs its image part first.

    Parameters
    ----------
    model : torch.nn.Module
        The model, before the swap.
    args, kwargs, dynamo
        As for `export`.
    data : path, iterable of feeds, or CalibrationDataReader
        Samples by input names of the export.
    export_options : mapping, optional
        Further arguments of `torch.onnx.export`: dynamic axes, where samples differ in shape, and input names.
    softmax : str, optional
        As for `swap`, where `torch.nn.Softmax` modules are to be swapped.
    **options
        Those of `hccs_onnx.calibrate`: `to`, `granularity`, `reciprocal` and so on.

    Returns
    -------
    Calibration
        For `hccs_onnx.torch.swap`.

    Raises
    ------
    ModelError
        If HCCS is in the model already, or it cannot be told which node belongs to which module.
    ModelError, DataError, CalibrationError
        As `hccs_onnx.calibrate` does.

    Examples
    --------
    >>> calibrate(model, (tokens,), "samples.npz", to="uint8")  # doctest: +SKIP
    """
    if any(isinstance(module, HCCSSoftmax) for module in model.modules()):
        remedy = "Calibrate before the swap"
        raise ModelError(type(model).__name__, "holds HCCSSoftmax already", remedy=remedy)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "model.onnx"
        run_exporter(model, args, raw, kwargs, dynamo, export_options or {})
        calibration = workflow.calibrate(raw, data, **options)
    return _in_order_of_modules(calibration, model, args, kwargs or {}, softmax)


def _in_order_of_modules(
    calibration: Calibration, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], softmax: str | None
) -> Calibration:
    found = find(model, softmax)
    if len(found) != len(calibration.softmaxes):
        return calibration  # `swap` refuses it; modules that are not found may be set by hand
    ran = _run(model, [module for _, _, module in found], args, kwargs)
    for name, _, module in found:
        if ran.count(module) != 1:
            problem = "cannot tell which Softmax node is its own, as it does not run once"
            remedy = "Put HCCSSoftmax into its forward by hand"
            raise ModelError(f"module '{name}'", problem, found=f"{ran.count(module)} times", remedy=remedy)
    order = [ran.index(module) for _, _, module in found]
    return replace(calibration, softmaxes=tuple(calibration.softmaxes[index] for index in order))


def _run(
    model: nn.Module, modules: Sequence[nn.Module], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[nn.Module]:
    """Run a model; which of the modules ran, in order."""
    ran: list[nn.Module] = []
    hooks = [module.register_forward_pre_hook(lambda module, _: ran.append(module)) for module in modules]
    try:
        with evaluating(model):
            model(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return ran
