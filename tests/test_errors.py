from __future__ import annotations

import pickle

import pytest

from hccs_onnx import errors
from hccs_onnx.errors import ExitStatus, HccsError


@pytest.mark.parametrize(
    ("details", "text"),
    [
        ({}, "a.onnx: is empty."),
        ({"found": 300}, "a.onnx: is empty (300)."),
        ({"needs": "0..127"}, "a.onnx: is empty (needs 0..127)."),
        ({"found": 0, "needs": ">= 1"}, "a.onnx: is empty (0, needs >= 1)."),
        ({"remedy": "Export it again"}, "a.onnx: is empty. Export it again."),
        ({"found": "", "needs": "a name", "remedy": "Name it"}, "a.onnx: is empty (, needs a name). Name it."),
    ],
)
def test_text_has_only_the_parts_given(details: dict[str, object], text: str) -> None:
    assert str(HccsError("a.onnx", "is empty", **details)) == text  # type: ignore[arg-type]


def test_error_comes_back_from_another_process_as_it_was() -> None:
    error = errors.DataError("a.npz", "is damaged", found=1, needs=2, remedy="Write it again")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is errors.DataError
    assert str(again) == str(error)


def test_text_is_one_line_when_the_cause_spans_several() -> None:
    assert str(HccsError("a.onnx", "refused:\n  [ShapeInferenceError]\n\tbad axis")) == (
        "a.onnx: refused: [ShapeInferenceError] bad axis."
    )


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("ModelError", ExitStatus.BAD_INPUT),
        ("UsageError", ExitStatus.USAGE),
        ("MatchError", ExitStatus.BAD_INPUT),
        ("ParameterError", ExitStatus.BAD_INPUT),
        ("DataError", ExitStatus.BAD_INPUT),
        ("CalibrationError", ExitStatus.BAD_INPUT),
        ("VerificationError", ExitStatus.NOT_VERIFIED),
    ],
)
def test_error_class_has_its_exit_status(name: str, status: ExitStatus) -> None:
    error = getattr(errors, name)("subject", "problem")
    assert isinstance(error, HccsError)
    assert error.exit_status == status


def test_exit_statuses_are_those_of_the_specification() -> None:
    assert {status.name: int(status) for status in ExitStatus} == {
        "OK": 0,
        "BAD_INPUT": 1,
        "USAGE": 2,
        "NOT_VERIFIED": 3,
        "INTERRUPTED": 130,
    }
