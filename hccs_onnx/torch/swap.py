"""The swap: HCCS into the attention modules of a model, from a calibration or without data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from torch import nn

from hccs_onnx.calibration.file import Calibration, SoftmaxCalibration
from hccs_onnx.errors import CalibrationError, ModelError
from hccs_onnx.params import DATA_FREE, HccsParams
from hccs_onnx.torch import hugging_face, multihead
from hccs_onnx.torch.module import HCCSSoftmax


@dataclass(frozen=True)
class Swapped:
    """One attention that has HCCS now.

    Parameters
    ----------
    name : str
        Of its module in the model.
    kind : {'transformers', 'MultiheadAttention', 'Softmax'}
        What it is.
    softmax : HCCSSoftmax
        What took Softmax's place.
    node : str or None
        Node of the calibration that its parameters are from.
    """

    name: str
    kind: str
    softmax: HCCSSoftmax
    node: str | None = None


def swap(
    model: nn.Module,
    calibration: Calibration | Path | str | None = None,
    *,
    softmax: str | None = None,
    masked: bool = True,
    learn: bool = False,
) -> list[Swapped]:
    """Put HCCS into the attention of a model, in place.

    Found are attention modules of Hugging Face transformers that look their attention function up, modules
    `torch.nn.MultiheadAttention`, and `torch.nn.Softmax` modules where `softmax` says so. Weights stay the same
    objects; HCCS comes onto the device where they lie.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    calibration : Calibration or path of its file, optional
        Of this model, by `hccs_onnx.torch.calibrate`: its entries belong to the attention modules in order. Without it
        all heads get the data-free parameters, for float output.
    softmax : str, optional
        Regular expression, searched for in the names of `torch.nn.Softmax` modules: those that are attention's. Their
        `dim` is -1, their logits are (..., head, query, key).
    masked : bool
        Whether keys far below a row's maximum count as masked; of a calibration, what it says counts.
    learn : bool
        Train clip range and floor of each head as well, see `HCCSSoftmax`.

    Returns
    -------
    list of Swapped
        In order of the modules.

    Raises
    ------
    ModelError
        If there is no attention, or it cannot be swapped; the model is then as it was.
    CalibrationError
        If the calibration has another number of Softmax nodes, or of heads.

    Examples
    --------
    >>> [item.name for item in swap(nn.TransformerEncoderLayer(d_model=8, nhead=2))]
    ['self_attn']
    """
    calibration = None if calibration is None else Calibration.of(calibration)
    found = find(model, softmax)
    if not found:
        remedy = "Name its torch.nn.Softmax modules (softmax=REGEX), or put HCCSSoftmax into its forward by hand"
        raise ModelError(type(model).__name__, "holds no attention module that is known", remedy=remedy)
    entries: Sequence[SoftmaxCalibration | None] = [None] * len(found)
    if calibration is not None:
        entries = calibration.softmaxes
        _check_fit(found, entries)
    made = []
    for (name, kind, module), entry in zip(found, entries, strict=True):
        if entry is None or calibration is None:
            params = HccsParams((DATA_FREE,) * (_heads(kind, module) if learn else 1), masked=masked)
            made.append(Swapped(name, kind, HCCSSoftmax(params, learn=learn)))
        else:
            params = replace(entry.params, head_axis=-3, reciprocal=calibration.reciprocal)
            quantizer = None if calibration.output == "float" else entry.quantizer
            fresh = HCCSSoftmax(params, output=calibration.output, quantizer=quantizer, learn=learn)
            made.append(Swapped(name, kind, fresh, entry.node))
    for item, (_, _, module) in zip(made, found, strict=True):
        item.softmax.to(_device(module, model))
    _put(model, made)
    return made


def find(model: nn.Module, softmax: str | None) -> list[tuple[str, str, nn.Module]]:
    """Attention modules of a model.

    Parameters
    ----------
    model, softmax
        As for `swap`.

    Returns
    -------
    list of tuple
        Name, kind and module, in order of the modules.

    Raises
    ------
    ModelError
        If a `torch.nn.Softmax` may run along another axis than the last, or lies in several places.

    Examples
    --------
    >>> [(name, kind) for name, kind, _ in find(nn.TransformerEncoderLayer(d_model=8, nhead=2), None)]
    [('self_attn', 'MultiheadAttention')]
    """
    found: list[tuple[str, str, nn.Module]] = []
    own: set[str] = set()  # names of what an earlier swap has put into attention modules
    for name, module in model.named_modules():
        kind = _kind(module)
        if kind == "Softmax":
            if softmax is None or name in own or not re.search(softmax, name):
                continue
            _check_softmax(model, name, module)
        if kind is not None:
            found.append((name, kind, module))
            own.add(f"{name}.hccs".removeprefix("."))
    return found


def _kind(module: nn.Module) -> str | None:
    if hugging_face.is_attention(module):
        return "transformers"
    if multihead.is_attention(module):
        return "MultiheadAttention"
    return "Softmax" if isinstance(module, (nn.Softmax, HCCSSoftmax)) else None


def _check_softmax(model: nn.Module, name: str, module: nn.Module) -> None:
    places = sum(child is module for parent in model.modules() for child in parent._modules.values())
    if places > 1:
        remedy = "Give each attention a torch.nn.Softmax of its own"
        raise ModelError(f"module '{name}'", "is shared", found=f"{places} places", remedy=remedy)
    if isinstance(module, nn.Softmax) and module.dim != -1:
        problem, found = "may not run along the last axis", f"dim={module.dim}"
        remedy = "If that is the last axis, set dim to -1; HCCS runs along no other"
        raise ModelError(f"module '{name}'", problem, found=found, remedy=remedy)


def _heads(kind: str, module: nn.Module) -> int:
    if kind == "transformers":
        return hugging_face.head_count(module)
    return int(module.num_heads) if kind == "MultiheadAttention" else 1


def _device(module: nn.Module, model: nn.Module) -> torch.device:
    """Where a module computes."""
    device = next((tensor.device for tensor in chain(module.parameters(), model.parameters())), torch.device("cpu"))
    return torch.device("cpu") if device.type == "meta" else device  # meta tensors have no values to keep


def _check_fit(found: Sequence[tuple[str, str, nn.Module]], entries: Sequence[SoftmaxCalibration]) -> None:
    if len(found) != len(entries):
        counts = {"found": f"{len(entries)} Softmax nodes", "needs": f"{len(found)}, one a module"}
        problem = "calibration does not fit the attention modules"
        raise CalibrationError("swap", problem, **counts, remedy="Calibrate this model's float export")
    for (name, kind, module), entry in zip(found, entries, strict=True):
        heads = _heads(kind, module)
        if kind != "Softmax" and len(entry.heads) not in (1, heads):
            problem = f"calibration of node '{entry.node}' has a wrong number of heads"
            raise CalibrationError(f"module '{name}'", problem, found=len(entry.heads), needs=f"1 or {heads}")


def _put(model: nn.Module, made: Sequence[Swapped]) -> None:
    def pairs(kind: str) -> list[tuple[nn.Module, HCCSSoftmax]]:
        return [(model.get_submodule(item.name), item.softmax) for item in made if item.kind == kind]

    for module, _ in pairs("MultiheadAttention"):
        multihead.check(module)
    if attention := pairs("transformers"):
        hugging_face.use(model, attention)  # may refuse
    multihead.use(model, pairs("MultiheadAttention"))
    for item in made:
        if item.kind == "Softmax":
            model.set_submodule(item.name, item.softmax)
