"""What a page would load from other hosts. Links that a reader follows do not count."""

from __future__ import annotations

import re

_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|audio|video|embed)\b[^>]*\bsrc=["']?(?:https?:)?//[^>]*>
    |<link\b(?=[^>]*\brel=["']?(?:stylesheet|preconnect|preload|icon))[^>]*\bhref=["']?(?:https?:)?//[^>]*>
    |@import\s+(?:url\()?["']?(?:https?:)?//[^;]*
    |\burl\(["']?(?:https?:)?//[^)]*\)""",
    re.VERBOSE,
)


def loaded_from_elsewhere(text: str) -> str | None:
    """The first tag or rule of HTML, CSS or SVG that loads from another host; None if there is none.

    Examples
    --------
    >>> loaded_from_elsewhere('<script src="https://example.org/a.js"></script>')
    '<script src="https://example.org/a.js">'
    >>> loaded_from_elsewhere('<script src="a.js"></script> <a href="https://example.org">there</a>')
    """
    found = _LOADED.search(text)
    return found[0] if found else None
