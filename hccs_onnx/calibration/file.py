"""The calibration file: JSON with a published schema, the same bytes for the same calibration."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from hccs_onnx.calibration.fit import HeadFit
from hccs_onnx.errors import CalibrationError
from hccs_onnx.graph.files import atomic_file, writing_errors
from hccs_onnx.params import HccsParams, HeadParams, LogitQuantizer, OutputType, Profile, Reciprocal

FORMAT, VERSION = "hccs-calibration", 1
_INFINITE = "inf"  # a number that JSON has not
Granularity = Literal["head", "layer", "global"]


@dataclass(frozen=True)
class SoftmaxCalibration:
    """Parameters of one Softmax.

    Parameters
    ----------
    node, logits : str
        Its node name and the tensor it reads.
    head_axis : int
        Axis of the logits along which heads lie.
    longest : int
        Longest row met.
    masked : bool
        Whether positions can be masked.
    heads : tuple of HeadFit
        One entry a head, whatever the granularity.
    """

    node: str
    logits: str
    head_axis: int
    longest: int
    masked: bool
    heads: tuple[HeadFit, ...]

    @property
    def params(self) -> HccsParams:
        """Attributes of the node, for logits in nats."""
        heads = tuple(fit.params for fit in self.heads)
        return HccsParams(heads, head_axis=self.head_axis, masked=self.masked)

    @property
    def quantizer(self) -> LogitQuantizer:
        """How logits in nats become codes, for integer output: one entry where all heads have the same."""
        each = [(fit.params.scale, fit.zero_point) for fit in self.heads]
        scales, zero_points = zip(*(each[:1] if len(set(each)) == 1 else each), strict=True)
        return LogitQuantizer(scales, zero_points)


@dataclass(frozen=True)
class Calibration:
    """Calibrated parameters of a model.

    Parameters
    ----------
    model_sha256, data_fingerprint : str
        Hashes of the model file and of the samples; the latter does not depend on their order.
    tool_version : str
        Version of hccs-onnx that made it.
    profile, granularity, output, reciprocal : str
        What was calibrated for.
    rows : int
        Rows counted, over all nodes and heads.
    softmaxes : tuple of SoftmaxCalibration
        In node order.

    Examples
    --------
    >>> Calibration.load(Path("missing.json"))
    Traceback (most recent call last):
    hccs_onnx.errors.CalibrationError: missing.json: cannot be read (No such file or directory). Check --calibration.
    """

    model_sha256: str
    tool_version: str
    profile: Profile
    granularity: Granularity
    output: OutputType
    reciprocal: Reciprocal
    data_fingerprint: str
    rows: int
    softmaxes: tuple[SoftmaxCalibration, ...]

    def to_json(self) -> str:
        """Text of the file: keys sorted, floats that read back exactly, a newline at the end."""
        content = {"format": FORMAT, "version": VERSION, **asdict(self)}
        for head in (head for softmax in content["softmaxes"] for head in softmax["heads"]):
            head["kl"] = _INFINITE if head["kl"] == math.inf else head["kl"]
        return json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"

    @property
    def digest(self) -> str:
        """SHA-256 of the file's text, which rewritten models carry."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def save(self, path: Path | str) -> None:
        """Write the file, all or nothing.

        Raises
        ------
        ModelError
            If it cannot be written.
        """
        path = Path(path)
        with writing_errors(path), atomic_file(path) as file:
            file.write(self.to_json().encode())

    @classmethod
    def of(cls, given: Calibration | Path | str) -> Calibration:
        """`given`, read where it is the path of a file.

        Raises
        ------
        CalibrationError
            As `load`.

        Examples
        --------
        >>> Calibration.of("encoder.json").output  # doctest: +SKIP
        'float'
        """
        return given if isinstance(given, Calibration) else cls.load(given)

    @classmethod
    def load(cls, path: Path | str) -> Calibration:
        """Read a file and check it against the schema and the legal ranges.

        Raises
        ------
        CalibrationError
            If it cannot be read, is not a calibration file, or holds illegal parameters.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_finite, parse_float=_finite)
        except OSError as error:
            raise CalibrationError(
                str(path), f"cannot be read ({error.strerror})", remedy="Check --calibration"
            ) from error
        except (ValueError, RecursionError) as error:
            raise CalibrationError(str(path), "is not JSON", remedy="Calibrate again") from error
        _check_schema(content, str(path))
        softmaxes = tuple(_softmax(entry) for entry in content.pop("softmaxes"))
        del content["format"], content["version"]
        for softmax in softmaxes:
            params = replace(softmax.params, reciprocal=content["reciprocal"])
            reasons = params.violations(content["output"], profile=content["profile"], n=softmax.longest)
            if reasons:
                remedy = "Calibrate again, or put the number right"
                raise CalibrationError(f"{path}: node '{softmax.node}'", reasons[0], remedy=remedy)
        return cls(softmaxes=softmaxes, **content)


def _softmax(entry: dict[str, Any]) -> SoftmaxCalibration:
    heads = tuple(_head_fit(head) for head in entry["heads"])
    return SoftmaxCalibration(**{**entry, "heads": heads})


def _head_fit(entry: dict[str, Any]) -> HeadFit:
    params = entry["params"]  # JSON Schema takes 127.0 for an integer
    integers = {name: int(params[name]) for name in ("B", "S", "Dmax")}
    return HeadFit(
        HeadParams(**integers, scale=float(params["scale"])),
        math.inf if entry["kl"] == _INFINITE else entry["kl"],
        entry["deficit"],
        int(entry["zero_point"]),
    )


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


@cache
def schema() -> dict[str, Any]:
    """The file's JSON Schema (draft 2020-12), as published in the package."""
    text = resources.files(__package__).joinpath("calibration.schema.json").read_text()
    result: dict[str, Any] = json.loads(text)
    return result


def _check_schema(content: Any, subject: str) -> None:
    import jsonschema

    problem = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema()).iter_errors(content))
    if problem is not None:
        remedy = "Calibrate again with this version of hccs-onnx"
        raise CalibrationError(f"{subject}: {problem.json_path}", problem.message[:200], remedy=remedy)
