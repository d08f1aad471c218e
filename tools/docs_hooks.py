"""What mkdocs does beside its own: pages that lie elsewhere, the notebook as a page, and nothing from other hosts."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent.parent))  # mkdocs loads this file by its path
from tools.offline import loaded_from_elsewhere

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

ROOT = Path(__file__).parent.parent
ELSEWHERE = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add CHANGELOG and CONTRIBUTING, and a page for each notebook."""
    for uri, name in ELSEWHERE.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            files.append(
                File.generated(config, _page_of(file.src_uri), content=_notebook(Path(str(file.abs_src_path))))
            )
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to a notebook lead to its page, and colour commands (without a prompt they would pass for output)."""
    markdown = re.sub(r"\]\(([^)#:]+)\.ipynb", r"](\1.md", markdown)
    return re.sub(r"^```console$", "```bash", markdown, flags=re.MULTILINE)


def on_post_build(config: MkDocsConfig) -> None:
    """Refuse a site that loads anything from another host."""
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css", ".svg"):
            found = loaded_from_elsewhere(path.read_text(encoding="utf-8"))
            if found:
                raise PluginError(f"{path}: loads from elsewhere ({found[:100]})")


def _page_of(notebook: str) -> str:
    return notebook.removesuffix(".ipynb") + ".md"


def _notebook(path: Path) -> str:
    """A notebook as Markdown, with the outputs that it holds."""
    from nbconvert import MarkdownExporter

    markdown, _ = MarkdownExporter().from_filename(str(path))
    return str(markdown)
