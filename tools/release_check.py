"""Walk through the check-list of a release: ``python -m tools.release_check`` (``make release-check``).

Builds what would be published into dist/, installs each archive in a fresh environment and runs it there. ``--final``
also asks for what only a release has: a date in CHANGELOG, and a checkout without changes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
HEADING = re.compile(r"^## (?P<version>\S+) - (?P<date>unreleased|\d{4}-\d{2}-\d{2})$", re.MULTILINE)
"""A version in CHANGELOG.md; the first is the newest."""

IN_WHEEL = (
    "hccs_onnx/py.typed",
    "hccs_onnx/models/digits/digits_dynamo.onnx",
    "hccs_onnx/calibration/calibration.schema.json",
    "hccs_onnx/aie/kernels/hccs_kernel.h",
    "hccs_onnx/aie/templates/graph.h",
    "licenses/LICENSE",
)
IN_SDIST = ("CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "custom_ops/CMakeLists.txt", "tests/conftest.py")


class ReleaseError(Exception):
    """Something that must not be released."""


@dataclass(frozen=True)
class Release:
    """What is checked.

    Parameters
    ----------
    version : str
        As hccs_onnx/_version.py has it, the only place.
    dist : Path
        Folder for what would be published.
    work : Path
        Folder for environments, thrown away.
    final : bool
        Whether it is the release itself, not a rehearsal.
    """

    version: str
    dist: Path
    work: Path
    final: bool

    @property
    def sdist(self) -> Path:
        """The source archive."""
        return self.dist / f"hccs_onnx-{self.version}.tar.gz"

    @property
    def wheel(self) -> Path:
        """The wheel of this platform."""
        found = list(self.dist.glob(f"hccs_onnx-{self.version}-py3-none-*.whl"))
        if len(found) != 1:
            raise ReleaseError(f"dist/: not one wheel of {self.version} ({[path.name for path in found]})")
        return found[0]

    @property
    def sbom(self) -> Path:
        """The list of what an installation of the wheel holds, CycloneDX."""
        return self.dist / f"hccs_onnx-{self.version}.cdx.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all steps; the first that fails ends it."""
    parser = argparse.ArgumentParser(description="Walk through the check-list of a release; results are in dist/.")
    parser.add_argument("--final", action="store_true", help="ask for a date in CHANGELOG and a clean checkout, too")
    options = parser.parse_args(arguments)
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    with tempfile.TemporaryDirectory() as work:
        release = Release(source_version(ROOT), ROOT / "dist", Path(work), options.final)
        for number, step in enumerate(STEPS, 1):
            print(f"[{number}/{len(STEPS)}] {step.__doc__}", flush=True)
            try:
                step(release)
            except ReleaseError as error:
                print(f"error: {error}", file=sys.stderr)
                return 1
    print(f"hccs-onnx {release.version}: all checks passed; dist/ has what to publish")
    return 0


def source_version(root: Path) -> str:
    """The version in the sources, read without importing them."""
    found = re.search(r'^__version__ = "([^"]+)"$', (root / "hccs_onnx" / "_version.py").read_text(), re.MULTILINE)
    if found is None:
        raise ReleaseError("hccs_onnx/_version.py: has no __version__")
    return found[1]


def check_changes(release: Release) -> None:
    """CHANGELOG's newest version is that of the sources."""
    heading = HEADING.search((ROOT / "CHANGELOG.md").read_text())
    if heading is None or heading["version"] != release.version:
        found = heading["version"] if heading else "none"
        raise ReleaseError(f"CHANGELOG.md: another version on top (found {found}, needs {release.version})")
    if release.final and heading["date"] == "unreleased":
        raise ReleaseError("CHANGELOG.md: the version has no date. Write it in place of 'unreleased'")


def check_checkout(release: Release) -> None:
    """The checkout has no changes (asked for with --final)."""
    if release.final and _run("git", "status", "--porcelain"):
        raise ReleaseError("git: the checkout has changes. Commit them")


def build(release: Release) -> None:
    """Build source archive and wheel, the wheel from the archive."""
    _run(sys.executable, "-m", "build", "--outdir", str(release.dist), HCCS_REQUIRE_NATIVE="1")


def check_metadata(release: Release) -> None:
    """Metadata and description are what an index accepts."""
    _run(sys.executable, "-m", "twine", "check", "--strict", str(release.sdist), str(release.wheel))


def check_contents(release: Release) -> None:
    """The archives hold what they should, and nothing that belongs to one machine."""
    with zipfile.ZipFile(release.wheel) as wheel:
        names = wheel.namelist()
    _ask_for(release.wheel, names, IN_WHEEL)
    if not any(re.fullmatch(r"hccs_onnx/operator/\w+\.(so|dylib|dll)", name) for name in names):
        raise ReleaseError(f"{release.wheel.name}: has no native library")
    with tarfile.open(release.sdist) as sdist:
        sources = sdist.getnames()
    _ask_for(release.sdist, sources, IN_SDIST)
    stray = [name for name in names + sources if re.search(r"__pycache__|\.pyc$|/\.venv|\.egg-info", name)]
    if stray:
        raise ReleaseError(f"archives: hold what was left over ({', '.join(stray[:3])})")


def try_wheel(release: Release) -> None:
    """The wheel installs in a fresh environment, and doctor and demo pass there."""
    _try(release, release.wheel)


def try_sdist(release: Release) -> None:
    """So does the source archive."""
    _try(release, release.sdist)


def write_sbom(release: Release) -> None:
    """Write the bill of materials of the wheel's environment."""
    python = _python(release.work / release.wheel.name)
    project = release.work / "pyproject.toml"  # with the version, which the tool does not look for elsewhere
    text = (ROOT / "pyproject.toml").read_text()
    project.write_text(text.replace('dynamic = ["version"]', f'version = "{release.version}"'))
    arguments = ["environment", str(python), "--pyproject", str(project), "--mc-type", "library"]
    _run(sys.executable, "-m", "cyclonedx_py", *arguments, "--output-reproducible", "-o", str(release.sbom))
    check_sbom(release)


def check_sbom(release: Release) -> None:
    """The bill of materials is of this version and names what it needs."""
    content = json.loads(release.sbom.read_text())
    root = content["metadata"]["component"]
    found = root.get("version")
    if (root["name"], found) != ("hccs-onnx", release.version):
        raise ReleaseError(f"{release.sbom.name}: is of another version ({found}, needs {release.version})")
    missing = {"numpy", "onnx", "onnxruntime"} - {item["name"] for item in content["components"]}
    if missing:
        raise ReleaseError(f"{release.sbom.name}: lacks {', '.join(sorted(missing))}")


def write_sums(release: Release) -> None:
    """Write SHA256SUMS."""
    files = sorted(path for path in release.dist.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (release.dist / "SHA256SUMS").write_text("".join(lines))


STEPS: tuple[Callable[[Release], None], ...] = (
    check_changes,
    check_checkout,
    build,
    check_metadata,
    check_contents,
    try_wheel,
    try_sdist,
    write_sbom,
    write_sums,
)


def _try(release: Release, archive: Path) -> None:
    """Install an archive in an environment of its own, without pip in it, and run what it brings."""
    folder = release.work / archive.name
    venv.create(folder, with_pip=False)
    python = str(_python(folder))
    _run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", str(archive), HCCS_REQUIRE_NATIVE="1")
    version = _run(python, "-m", "hccs_onnx", "--version", cwd=folder).strip()
    if version != f"hccs-onnx {release.version}":
        raise ReleaseError(f"{archive.name}: installs another version ({version}, needs {release.version})")
    _run(python, "-m", "hccs_onnx", "doctor", "--require-native", cwd=folder)
    _run(python, "-m", "hccs_onnx", "demo", "-o", "demo", cwd=folder)


def _python(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _ask_for(archive: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise if a file is missing in an archive, whatever folder it is in."""
    missing = [want for want in wanted if not any(name.endswith(f"/{want}") or name == want for name in names)]
    if missing:
        raise ReleaseError(f"{archive.name}: lacks files ({', '.join(missing)})")


def _run(*command: str, cwd: Path = ROOT, **environment: str) -> str:
    """What a command prints; the checkout is not on Python's path."""
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HCCS_LIBRARY")}
    done = subprocess.run(command, cwd=cwd, env=variables | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise ReleaseError(f"{' '.join(command[:6])} ...: status {done.returncode}\n{tail}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
