"""Export of a torch model with HCCS by either of torch's exporters; calibration of a float one by way of its export."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from hccs_onnx import workflow
from hccs_onnx._version import __version__
from hccs_onnx.calibration.data import DataSource
from hccs_onnx.calibration.file import Calibration
from hccs_onnx.errors import ModelError
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.files import check_target, read_model, write_model
from hccs_onnx.graph.names import NameGenerator, nested_graphs
from hccs_onnx.graph.opset import raise_opset
from hccs_onnx.graph.replacement import Replacer
from hccs_onnx.graph.rewrite import add_function, stamp
from hccs_onnx.operator.body import function_body
from hccs_onnx.operator.schema import is_hccs, read_attributes
from hccs_onnx.params import LogitQuantizer
from hccs_onnx.torch.module import HCCSSoftmax
from hccs_onnx.torch.numerics import Profile
from hccs_onnx.torch.operator import QUALIFIED, dynamo_translation, torchscript_symbolic


def export(
    model: nn.Module,
    args: tuple[Any, ...],
    path: Path | str,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamo: bool = True,
    **options: Any,
) -> Path:
    """Write a model with `HCCSSoftmax` modules as ONNX with ``hccs::HCCS`` nodes, which runs on stock onnxruntime.

    For integer output each node stands between QuantizeLinear and DequantizeLinear, as ``rewrite`` writes them.

    Parameters
    ----------
    model : torch.nn.Module
        The model; exported in evaluation mode, and left as it was.
    args : tuple
        Example inputs.
    path : path
        New file.
    kwargs : mapping, optional
        Example inputs by name.
    dynamo : bool
        Which of torch's exporters: dynamo, or TorchScript.
    **options
        Further arguments of `torch.onnx.export`: `input_names`, `output_names`, `opset_version`, `dynamic_shapes`
        (dynamo) or `dynamic_axes` (TorchScript).

    Returns
    -------
    pathlib.Path
        `path`.

    Raises
    ------
    ModelError
        If the model holds no `HCCSSoftmax`, or some with different outputs or reciprocals, or the file cannot be
        written.
    ParameterError
        If learned or loaded parameters are illegal.

    Examples
    --------
    >>> export(model, (tokens,), "encoder.hccs.onnx", input_names=["tokens"])  # doctest: +SKIP
    PosixPath('encoder.hccs.onnx')
    """
    target = Path(path)
    softmaxes = [module for module in model.modules() if isinstance(module, HCCSSoftmax)]
    profile = _common_profile(type(model).__name__, softmaxes)
    check_target(target)
    with tempfile.TemporaryDirectory() as folder, _frozen(softmaxes):
        raw = Path(folder) / target.name
        _run_exporter(model, args, raw, kwargs, dynamo, options)
        proto = read_model(raw)
        opset = raise_opset(proto)
        add_function(proto, function_body(profile.output, profile.reciprocal, opset))
        _expand(proto, Replacer(profile.output, opset, NameGenerator(proto.graph)))
        stamp(proto, {"version": __version__, "calibration": "torch"})
        write_model(proto, raw, target)
    return target


def calibrate(
    model: nn.Module,
    args: tuple[Any, ...],
    data: DataSource,
    *,
    kwargs: Mapping[str, Any] | None = None,
    dynamo: bool = True,
    export_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Calibration:
    """Fit head parameters of a float model: what `hccs_onnx.calibrate` finds for its export.

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
    **options
        Those of `hccs_onnx.calibrate`: `to`, `granularity`, `reciprocal` and so on.

    Returns
    -------
    Calibration
        For `hccs_onnx.torch.swap`.

    Raises
    ------
    ModelError
        If HCCS is in the model already.
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
        _run_exporter(model, args, raw, kwargs, dynamo, dict(export_options or {}))
        return workflow.calibrate(raw, data, **options)


def _common_profile(subject: str, softmaxes: list[HCCSSoftmax]) -> Profile:
    if not softmaxes:
        raise ModelError(subject, "holds no HCCSSoftmax", remedy="Call hccs_onnx.torch.swap(model) first")
    kinds = sorted({(module.profile.output, module.profile.reciprocal) for module in softmaxes})
    if len(kinds) > 1:
        found = ", ".join(" ".join(kind) for kind in kinds)
        problem = "HCCSSoftmax modules differ in output or reciprocal"
        raise ModelError(subject, problem, found=found, needs="one for all, as the file carries one function")
    for module in softmaxes:
        module.check()
    return softmaxes[0].profile


@contextmanager
def _frozen(softmaxes: list[HCCSSoftmax]) -> Iterator[None]:
    """Modules call the operator that exporters see, with their parameters as they are now."""
    for module in softmaxes:
        module.frozen = module.params, module.quantizer
    try:
        yield
    finally:
        for module in softmaxes:
            module.frozen = None


def _run_exporter(
    model: nn.Module,
    args: tuple[Any, ...],
    path: Path,
    kwargs: Mapping[str, Any] | None,
    dynamo: bool,
    options: dict[str, Any],
) -> None:
    given = dict(options, kwargs=dict(kwargs or {}))
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both exporters warn of themselves
            if dynamo:
                table = {**dynamo_translation(), **given.pop("custom_translation_table", {})}
                program: Any = torch.onnx.export(
                    model, args, dynamo=True, verbose=False, custom_translation_table=table, **given
                )
                program.save(path)
            else:
                _by_torchscript(model, args, path, given)
    finally:
        for module, flag in training.items():  # the TorchScript exporter may have changed the others
            module.training = flag


def _by_torchscript(model: nn.Module, args: tuple[Any, ...], path: Path, given: dict[str, Any]) -> None:
    opset = given.setdefault("opset_version", 17)
    if named := given.pop("kwargs"):
        model, args = _ByName(model, len(args), tuple(named)).eval(), (*args, *named.values())
    torch.onnx.register_custom_op_symbolic(QUALIFIED, torchscript_symbolic, opset)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        torch.onnx.export(model, args, path, dynamo=False, **given)
    finally:
        logging.disable(level)
        torch.onnx.unregister_custom_op_symbolic(QUALIFIED, opset)


class _ByName(nn.Module):
    """Passes its last inputs on by name, and gives tensors: TorchScript's exporter knows neither names nor mappings."""

    def __init__(self, model: nn.Module, positional: int, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.positional, self.names = model, positional, names

    def forward(self, *inputs: Any) -> Any:
        named = dict(zip(self.names, inputs[self.positional :], strict=True))
        result = self.model(*inputs[: self.positional], **named)
        return tuple(result.values()) if isinstance(result, Mapping) else result


def _expand(model: onnx.ModelProto, replacer: Replacer) -> None:
    """Replace the exporters' nodes by what `rewrite` would have written."""
    for graph in nested_graphs(model.graph):
        nodes: list[onnx.NodeProto] = []
        for node in graph.node:
            nodes += _replaced(node, replacer) if is_hccs(node) else [node]
        serialized = [node.SerializeToString() for node in nodes]
        del graph.node[:]
        graph.node.extend(onnx.NodeProto.FromString(data) for data in serialized)
    model.graph.initializer.extend(replacer.constants)


def _replaced(node: onnx.NodeProto, replacer: Replacer) -> list[onnx.NodeProto]:
    params = read_attributes(node)
    item = AttentionSoftmax(
        node.name, -1, node.input[0], node.output[0], node.output[0], head_axis=params.head_axis, masked=params.masked
    )
    quantizer = None
    if replacer.output != "float":
        zero_points = tuple(next(entry.ints for entry in node.attribute if entry.name == "zero_point"))
        quantizer = _shortest(LogitQuantizer(tuple(head.scale for head in params.heads), zero_points))
    return replacer.nodes(node, item, node.output[0], params, quantizer)


def _shortest(quantizer: LogitQuantizer) -> LogitQuantizer:
    """One entry where all heads have the same."""
    if len({*zip(quantizer.scale, quantizer.zero_point, strict=True)}) == 1:
        return LogitQuantizer(quantizer.scale[:1], quantizer.zero_point[:1])
    return quantizer
