"""What a release rests on: one version, the form of CHANGELOG and CITATION, and a check-list that refuses."""

from __future__ import annotations

import contextlib
import json
import re
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT

import hccs_onnx
from tools import release_check
from tools.release_check import HEADING, IN_SDIST, IN_WHEEL, Release, ReleaseError


@pytest.fixture
def release(tmp_path: Path) -> Release:
    (tmp_path / "dist").mkdir()
    return Release("9.8.7", tmp_path / "dist", tmp_path, final=False)


def archives(release: Release, wheel: list[str], sdist: list[str]) -> None:
    """Archives of empty files."""
    with zipfile.ZipFile(release.dist / "hccs_onnx-9.8.7-py3-none-any.whl", "w") as file:
        for name in wheel:
            file.writestr(name, "")
    with tarfile.open(release.sdist, "w:gz") as file:
        for name in sdist:
            file.addfile(tarfile.TarInfo(f"hccs_onnx-9.8.7/{name}"))


GOOD_WHEEL = [*IN_WHEEL, "hccs_onnx/operator/libhccs_onnx_ops.so"]


def test_version_is_written_in_one_place() -> None:
    assert release_check.source_version(ROOT) == hccs_onnx.__version__
    elsewhere = ("pyproject.toml", "CITATION.cff", "custom_ops/CMakeLists.txt", "mkdocs.yml", "hccs_onnx/__init__.py")
    for name in elsewhere:
        assert not re.search(rf"(?<![\d.=]){re.escape(hccs_onnx.__version__)}(?![\d.])", (ROOT / name).read_text()), (
            name
        )


def test_changes_begin_with_this_version_and_keep_their_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## .*$", text, re.MULTILINE)
    assert [match[0] for match in HEADING.finditer(text)] == headings
    versions = [match["version"] for match in HEADING.finditer(text)]
    assert versions[0] == hccs_onnx.__version__
    numbers = [tuple(map(int, version.split("."))) for version in versions]
    assert numbers == sorted(numbers, reverse=True)
    assert all(match["date"] != "unreleased" for match in list(HEADING.finditer(text))[1:])


def test_citation_names_the_paper() -> None:
    text = (ROOT / "CITATION.cff").read_text()
    assert "cff-version: 1.2.0" in text
    assert "2604.02292" in text
    assert re.findall(r"family-names: (\w+)", text) == ["Danopoulos", "Lupi", "Kagan", "Pierini"]


def extras() -> list[str]:
    pyproject = (ROOT / "pyproject.toml").read_text()
    table = pyproject.split("[project.optional-dependencies]")[1].split("[project.scripts]")[0]
    return re.findall(r"^([\w-]+) = \[", table, re.MULTILINE)


def test_readme_lists_every_extra_that_users_may_want() -> None:
    readme = (ROOT / "README.md").read_text()
    for extra in extras():
        assert f"`{extra}`" in readme, extra


def test_extras_that_messages_name_are_there() -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "hccs_onnx").rglob("*.py"))
    named = set(re.findall(r"hccs-onnx\[([\w-]+)\]", sources))
    assert {"report", "torch", "ray", "parquet", "aie4ml"} <= named
    assert named <= set(extras())


def test_release_is_refused_when_changes_name_another_version(release: Release) -> None:
    with pytest.raises(ReleaseError, match="another version"):
        release_check.check_changes(release)


def test_final_release_is_refused_without_a_date(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    (release.work / "CHANGELOG.md").write_text("# Changes\n\n## 9.8.7 - unreleased\n")
    monkeypatch.setattr(release_check, "ROOT", release.work)
    release_check.check_changes(release)
    with pytest.raises(ReleaseError, match="no date"):
        release_check.check_changes(replace(release, final=True))


def test_archives_are_accepted_when_they_hold_what_they_should(release: Release) -> None:
    archives(release, GOOD_WHEEL, list(IN_SDIST))
    release_check.check_contents(release)


@pytest.mark.parametrize(
    ("wheel", "sdist", "problem"),
    [
        (GOOD_WHEEL[1:], IN_SDIST, "lacks files"),
        (IN_WHEEL, IN_SDIST, "no native library"),
        (GOOD_WHEEL, IN_SDIST[1:], "lacks files"),
        ([*GOOD_WHEEL, "hccs_onnx/__pycache__/x.pyc"], IN_SDIST, "left over"),
    ],
)
def test_archives_are_refused(release: Release, wheel: list[str], sdist: list[str], problem: str) -> None:
    archives(release, list(wheel), list(sdist))
    with pytest.raises(ReleaseError, match=problem):
        release_check.check_contents(release)


@pytest.mark.parametrize(
    ("version", "names", "problem"),
    [
        ("9.8.7", ["numpy", "onnx", "onnxruntime"], None),
        ("9.8.6", ["numpy", "onnx", "onnxruntime"], "another version"),
        (None, ["numpy", "onnx", "onnxruntime"], "another version"),
        ("9.8.7", ["numpy"], "lacks onnx, onnxruntime"),
    ],
)
def test_bill_of_materials_is_of_the_wheel(
    release: Release, version: str | None, names: list[str], problem: str | None
) -> None:
    root = {"name": "hccs-onnx"} | ({"version": version} if version else {})
    content = {"metadata": {"component": root}, "components": [{"name": name} for name in names]}
    release.sbom.write_text(json.dumps(content))
    with pytest.raises(ReleaseError, match=problem) if problem else contextlib.nullcontext():
        release_check.check_sbom(release)


def test_sums_are_those_of_the_files(release: Release) -> None:
    (release.dist / "a").write_bytes(b"abc")
    release_check.write_sums(release)
    assert (release.dist / "SHA256SUMS").read_text() == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\n"
    )
