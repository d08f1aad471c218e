"""The report of a model, from files to a file."""

from __future__ import annotations

from pathlib import Path

from hccs_onnx.calibration.file import Calibration
from hccs_onnx.errors import HccsError
from hccs_onnx.graph.files import atomic_file, writing_errors
from hccs_onnx.report.content import Content
from hccs_onnx.report.gather import Request, gather
from hccs_onnx.report.page import render


def write_report(
    model: Path | str, calibration: Calibration | Path | str, output: Path | str, request: Request | None = None
) -> Content:
    """Write one HTML file that shows what HCCS does to a model.

    Parameters
    ----------
    model : path
        The original.
    calibration : Calibration or path of its file
        Made for it.
    output : path
        The page; replaced if it exists.
    request : Request, optional
        Samples, labels, target; without it the page shows what the calibration alone tells.

    Returns
    -------
    Content
        What the page tells.

    Raises
    ------
    HccsError
        If the packages of the extra ``report`` are missing, or as `gather`.

    Examples
    --------
    >>> write_report("encoder.onnx", "encoder.json", "report.html")  # doctest: +SKIP
    """
    check_packages()
    content, output = gather(Path(model), Calibration.of(calibration), request or Request()), Path(output)
    page = render(content).encode("utf-8", "backslashreplace")  # file names need not be text
    with writing_errors(output), atomic_file(output) as file:
        file.write(page)
    return content


def check_packages() -> None:
    """Refuse, before any long work, to make a report without the packages for it.

    Raises
    ------
    HccsError
        With how to install them.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401
    except ImportError as error:
        remedy = "Install the extra: pip install 'hccs-onnx[report]'"
        raise HccsError("report", f"needs the package {error.name}", remedy=remedy) from error
    del jinja2
