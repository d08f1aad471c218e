"""Code in README and docs does what the pages say: each page is run from top to bottom."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import DIGITS

from docs.blocks import PAGES, ROOT, Block, blocks, commands, run_command, run_python
from docs.encoder import encoder, samples
from hccs_onnx import calibrate, rewrite

ON_DIGITS = {"aie4ml.md"}
"""Pages whose encoder must not mask."""


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what pages start from."""
    folder = tmp_path_factory.mktemp("prepared")
    onnx.save(encoder(), folder / "encoder.onnx")
    np.savez(folder / "samples.npz", **samples(12, seed=1))
    np.savez(folder / "test.npz", **samples(6, seed=2))
    fitted = calibrate(folder / "encoder.onnx", folder / "samples.npz")
    fitted.save(folder / "encoder.json")
    rewrite(folder / "encoder.onnx", folder / "encoder.hccs.onnx", calibration=fitted)
    shutil.copy(folder / "encoder.onnx", folder / "model.onnx")
    fitted = calibrate(folder / "model.onnx", folder / "samples.npz", to="uint8")
    rewrite(folder / "model.onnx", folder / "model.hccs.onnx", calibration=fitted)
    return folder


@pytest.fixture
def folder(request: pytest.FixtureRequest, prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working directory."""
    page: Path = request.getfixturevalue("page")
    target = tmp_path / "work"
    if page.name in ON_DIGITS:
        target.mkdir()
        shutil.copy(DIGITS / "digits_dynamo.onnx", target / "encoder.onnx")
        shutil.copy(DIGITS / "calibration.npz", target / "samples.npz")
    else:
        shutil.copytree(prepared, target)
    monkeypatch.chdir(target)
    return target


def run_page(page: Path, slow: bool) -> None:
    """Run the blocks of a page in order, those marked slow only where asked."""
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page.read_text()):
        if not block.is_run or (block.is_slow and not slow):
            continue
        for package in block.needs:
            pytest.importorskip(package)  # later blocks may build on this one
        try:
            if block.language == "python":
                run_python(block, names)
            else:
                for words in commands(block.code):
                    run_command(words)
        except (Exception, SystemExit) as error:
            pytest.fail(f"{page.relative_to(ROOT)}:{block.line}: {error!r}")


def having(slow: bool) -> list[Any]:
    """Pages that have blocks to run, marked slow or not."""
    return [
        pytest.param(page, id=page.relative_to(ROOT).as_posix())
        for page in PAGES
        if any(block.is_run and block.is_slow == slow for block in blocks(page.read_text()))
    ]


@pytest.mark.parametrize("page", having(slow=False))
def test_page_does_what_it_says(page: Path, folder: Path) -> None:
    run_page(page, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", having(slow=True))
def test_page_does_what_it_says_in_its_slow_blocks(page: Path, folder: Path) -> None:
    run_page(page, slow=True)


def test_blocks_are_found_with_their_comments_and_output() -> None:
    page = (
        "# A\n\n<!-- slow -->\n```python\nprint(1)\n```\n\n```text\n1\n```\n\n```cpp\nx\n```\n\n```console\nls\n```\n"
    )
    assert list(blocks(page)) == [
        Block("python", "print(1)\n", 4, "slow", "1\n"),
        Block("console", "ls\n", 16),
    ]


def test_block_is_what_its_comment_says() -> None:
    def block(comment: str) -> Block:
        return Block("python", "", 1, comment)

    assert [(b.is_run, b.is_slow, b.needs) for b in map(block, ("", "slow", "slow, needs ray", "not run: slow"))] == [
        (True, False, []),
        (True, True, []),
        (True, True, ["ray"]),
        (False, False, []),
    ]


def test_python_block_fails_when_it_prints_something_else() -> None:
    with pytest.raises(AssertionError):
        run_python(Block("python", "print(2)", 1, output="1\n"), {})


@pytest.mark.parametrize(
    "line", ["ls", "make no-such-target", "pip install 'hccs-onnx[no-such]'", "python -m hccs_onnx inspect none.onnx"]
)
def test_command_fails_when_it_cannot_be_run(line: str) -> None:
    with pytest.raises(AssertionError):
        run_command(next(commands(line)))


@pytest.mark.parametrize("line", ["make demo  # all of it", "pip install 'hccs-onnx[aie4ml,test]'", "pip install ."])
def test_command_that_installs_is_looked_up(line: str) -> None:
    run_command(next(commands(line)))
