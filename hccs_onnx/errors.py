"""The errors that a user can meet, each a single line with a remedy, and the exit status that goes with it."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """Process exit statuses of ``python -m hccs_onnx``."""

    OK = 0
    BAD_INPUT = 1
    USAGE = 2
    NOT_VERIFIED = 3
    INTERRUPTED = 130  # 128 + SIGINT, what shells report for Ctrl-C


class HccsError(Exception):
    """Something the user can put right.

    The text reads ``<subject>: <problem> (<found>, needs <needs>). <remedy>.``

    Parameters
    ----------
    subject : str
        File, node or option that the error is about.
    problem : str
        What is wrong, without a full stop.
    found, needs : object, optional
        The offending value and the bound that it breaks.
    remedy : str, optional
        What to do about it, without a full stop.

    Examples
    --------
    >>> print(HccsError("node 'sm'", "slope out of range", found=300, needs="0..127", remedy="Recalibrate"))
    node 'sm': slope out of range (300, needs 0..127). Recalibrate.
    """

    exit_status = ExitStatus.BAD_INPUT

    def __init__(
        self, subject: str, problem: str, *, found: object = None, needs: object = None, remedy: str | None = None
    ) -> None:
        details = [str(found)] if found is not None else []
        if needs is not None:
            details.append(f"needs {needs}")
        text = f"{subject}: {problem}" + (f" ({', '.join(details)})" if details else "")
        # A library's message may span lines; the user gets one.
        super().__init__(" ".join(f"{text}. {remedy + '.' if remedy else ''}".split()))

    def __reduce__(self) -> tuple[object, ...]:
        """Errors come back from other processes as they are."""
        return _again, (type(self), str(self))


def _again(kind: type[HccsError], text: str) -> HccsError:
    error = kind.__new__(kind)
    error.args = (text,)
    return error


class UsageError(HccsError):
    """Choices that mean nothing, or do not go together; `subject` is a parameter's name or an option."""

    exit_status = ExitStatus.USAGE


class ModelError(HccsError):
    """The model cannot be read, written or is not valid ONNX."""


class MatchError(HccsError):
    """Strict mode: an attention-like Softmax could not be rewritten."""


class ParameterError(HccsError):
    """Illegal B, S, Dmax, scale or operator attributes."""


class DataError(HccsError):
    """DATA (calibration or verification samples) does not fit the model."""


class CalibrationError(HccsError):
    """A calibration file is unreadable, or belongs to another model."""


class CodegenError(HccsError):
    """No AI Engine project can be made of this model for this target, or a project cannot be used."""


class NativeLibraryError(HccsError):
    """The native library is not installed, or cannot be used here."""


class VerificationError(HccsError):
    """The rewritten model is further from the original than the user allows."""

    exit_status = ExitStatus.NOT_VERIFIED
