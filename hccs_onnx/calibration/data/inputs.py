"""What a model takes, and whether a feed is that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from hccs_onnx.errors import DataError
from hccs_onnx.reference import Array

Feed = Mapping[str, Array]


class Sample(dict[str, Array]):
    """A feed that knows what it is called in errors.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        The feed.
    subject : str
        File, if it is of one, and number.

    Examples
    --------
    >>> Sample({"x": np.zeros(1)}, "samples.npz: sample 3").subject
    'samples.npz: sample 3'
    """

    def __init__(self, arrays: Feed, subject: str) -> None:
        super().__init__(arrays)
        self.subject = subject


def subject_of(feed: Feed) -> str:
    """What a feed is called in errors."""
    return feed.subject if isinstance(feed, Sample) else "data"


@dataclass(frozen=True)
class InputSpec:
    """One model input that a feed has to give.

    Parameters
    ----------
    name : str
        Input name.
    dtype : numpy.dtype
        Element type.
    shape : tuple
        Sizes, with names or None for dynamic axes; None if the rank is not known.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str | None, ...] | None


def input_specs(model: onnx.ModelProto) -> list[InputSpec]:
    """The inputs of a model that are not initializers.

    Examples
    --------
    >>> model = onnx.parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[n,3] x) => (float y) {}')
    >>> input_specs(model)[0].shape
    ('n', 3)
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    specs = []
    for value in model.graph.input:
        if value.name in initializers:
            continue
        if not value.type.HasField("tensor_type"):
            raise DataError(
                f"input '{value.name}'", "is not a tensor", remedy="Only models with tensor inputs can be run"
            )
        tensor = value.type.tensor_type
        dims = [dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim]
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        specs.append(InputSpec(value.name, dtype, tuple(dims) if tensor.HasField("shape") else None))
    return specs


def batch_size(specs: Sequence[InputSpec]) -> int:
    """Fixed size of the inputs' first axis, else 1.

    Examples
    --------
    >>> batch_size([InputSpec("x", np.dtype(np.float32), (8, 4))])
    8
    """
    sizes = [spec.shape[0] for spec in specs if spec.shape]
    return next((size for size in sizes if isinstance(size, int) and size > 0), 1)


def whole_batches(samples: int, specs: Sequence[InputSpec], subject: str) -> int:
    """How many feeds so many samples make.

    Raises
    ------
    DataError
        If the last one would not be full.
    """
    batch = batch_size(specs)
    if samples % batch:
        needs = f"a multiple of {batch}"
        remedy = "Leave some out, or export the model with a dynamic batch"
        raise DataError(subject, "samples do not fill the model's batch", found=samples, needs=needs, remedy=remedy)
    return samples // batch


def check_names(given: Iterable[str], specs: Sequence[InputSpec], subject: str) -> None:
    """Refuse arrays that are not the model's inputs.

    Raises
    ------
    DataError
        Naming what is missing or too much.
    """
    wanted, given = {spec.name for spec in specs}, set(given)
    missing, extra = sorted(wanted - given), sorted(given - wanted)
    if missing or extra:
        problem = f"lacks input {', '.join(missing)}" if missing else f"has {', '.join(extra)}, which the model lacks"
        found = f"has {', '.join(sorted(given)) or 'nothing'}" if missing else None
        needs = f"exactly {', '.join(sorted(wanted))}"
        raise DataError(subject, problem, found=found, needs=needs, remedy="Name arrays as the model names its inputs")


def checked(feed: Feed, specs: Sequence[InputSpec], subject: str) -> Sample:
    """The feed as arrays, once its names, types, shapes and values fit the model.

    Raises
    ------
    DataError
        Naming the input.
    """
    if not hasattr(feed, "keys"):
        remedy = "Give dicts of input name to array"
        raise DataError(subject, "is not a mapping", found=type(feed).__name__, remedy=remedy)
    check_names(feed, specs, subject)
    arrays = {name: np.asarray(value) for name, value in feed.items()}
    for spec in specs:
        value = arrays[spec.name]
        what = f"{subject}: input '{spec.name}'"
        if value.dtype != spec.dtype:
            remedy = f"Convert it with .astype('{spec.dtype.name}')"
            raise DataError(what, "has the wrong type", found=value.dtype, needs=spec.dtype, remedy=remedy)
        if spec.shape is not None and not _fits(value.shape, spec.shape):
            needs = "[" + ", ".join("?" if dim is None else str(dim) for dim in spec.shape) + "]"
            remedy = "Pad or cut the data, or export the model with dynamic axes"
            if len(value.shape) != len(spec.shape):
                missing = len(value.shape) < len(spec.shape)
                remedy = "Add the axis that it lacks; the first is that of samples" if missing else "Reshape the data"
            raise DataError(what, "has the wrong shape", found=list(value.shape), needs=needs, remedy=remedy)
        if value.size == 0:
            raise DataError(what, "is empty", found=list(value.shape), remedy="Leave the sample out")
        # -inf is what additive masks hold
        if np.issubdtype(value.dtype, np.floating) and (np.isnan(value) | np.isposinf(value)).any():
            raise DataError(what, "holds NaN or +infinity", remedy="Clean the data or leave the sample out")
    return Sample(arrays, subject)


def _fits(shape: tuple[int, ...], wanted: tuple[int | str | None, ...]) -> bool:
    if len(shape) != len(wanted):
        return False
    return all(not isinstance(want, int) or have == want for have, want in zip(shape, wanted, strict=True))
