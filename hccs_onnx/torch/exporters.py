"""torch's two exporters, and the state in which a model is exported."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hccs_onnx.errors import HccsError
from hccs_onnx.torch.operator import QUALIFIED, dynamo_translation, torchscript_symbolic


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """A model in evaluation mode, without gradients and fused attention, and afterwards as it was.

    Examples
    --------
    >>> with evaluating(model):  # doctest: +SKIP
    ...     model(tokens)
    """
    training = {module: module.training for module in model.modules()}
    fused = torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)  # torch.nn.TransformerEncoder has one that TorchScript cannot export
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, flag in training.items():  # the TorchScript exporter may have changed the others
            module.training = flag


def run_exporter(
    model: nn.Module,
    args: tuple[Any, ...],
    path: Path,
    kwargs: Mapping[str, Any] | None,
    dynamo: bool,
    options: Mapping[str, Any],
) -> None:
    """Write a model as the exporter makes it.

    Parameters
    ----------
    model, args, path, kwargs, dynamo
        As for `hccs_onnx.torch.export`.
    options : mapping
        Further arguments of `torch.onnx.export`.

    Raises
    ------
    HccsError
        What the model raises of ours.

    Examples
    --------
    >>> run_exporter(model, (tokens,), Path("raw.onnx"), None, True, {})  # doctest: +SKIP
    """
    given = dict(options, kwargs=dict(kwargs or {}))
    with evaluating(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both exporters warn of themselves
        if dynamo:
            table = {**dynamo_translation(), **given.pop("custom_translation_table", {})}
            try:
                program: Any = torch.onnx.export(
                    model, args, dynamo=True, verbose=False, custom_translation_table=table, **given
                )
            except torch.onnx.OnnxExporterError as error:
                if isinstance(error.__cause__, HccsError):
                    raise error.__cause__ from None
                raise
            program.save(path)
        else:
            _by_torchscript(model, args, path, given)


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
