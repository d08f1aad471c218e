"""Export of a torch model with HCCS by either of torch's exporters."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from torch import nn

from hccs_onnx._version import __version__
from hccs_onnx.errors import ModelError
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.files import check_target, read_model, write_model
from hccs_onnx.graph.names import NameGenerator, nested_graphs
from hccs_onnx.graph.opset import raise_opset
from hccs_onnx.graph.replacement import PER_AXIS_OPSET, Replacer
from hccs_onnx.graph.rewrite import add_function, stamp
from hccs_onnx.operator.body import function_body
from hccs_onnx.operator.schema import is_hccs, read_attributes
from hccs_onnx.params import LogitQuantizer
from hccs_onnx.torch.exporters import run_exporter
from hccs_onnx.torch.module import HCCSSoftmax
from hccs_onnx.torch.numerics import Profile
from hccs_onnx.torch.operator import NOT_PER_HEAD, is_per_head


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
        If the model holds no `HCCSSoftmax`, or some with different outputs or reciprocals; if logits would have to be
        quantised per head where QuantizeLinear cannot; or if the file cannot be written.
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
        run_exporter(model, args, raw, kwargs, dynamo, options)
        proto = read_model(raw)
        opset = raise_opset(proto)
        add_function(proto, function_body(profile.output, profile.reciprocal, opset))
        _expand(proto, Replacer(profile.output, opset, NameGenerator(proto.graph)))
        stamp(proto, {"version": __version__, "calibration": "torch"})
        write_model(proto, raw, target)
    return target


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
        quantizer = LogitQuantizer(tuple(head.scale for head in params.heads), zero_points)
        if not is_per_head(quantizer):
            quantizer = LogitQuantizer(quantizer.scale[:1], quantizer.zero_point[:1])
        elif replacer.opset < PER_AXIS_OPSET:
            remedy = f"Export with opset_version={PER_AXIS_OPSET} or newer"
            raise ModelError(f"node '{node.name}'", f"{NOT_PER_HEAD} in opset {replacer.opset}", remedy=remedy)
    return replacer.nodes(node, item, node.output[0], params, quantizer)
