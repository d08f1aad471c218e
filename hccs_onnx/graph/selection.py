"""What the user wants rewritten, of what was found."""

from __future__ import annotations

import re
from dataclasses import replace

from hccs_onnx.errors import HccsError, UsageError
from hccs_onnx.graph.attention import AttentionSoftmax


def chosen(
    found: list[AttentionSoftmax], include: str | None = None, exclude: str | None = None
) -> list[AttentionSoftmax]:
    """`found`, where what the user does not want rewritten has that as its reason.

    Parameters
    ----------
    found : list of AttentionSoftmax
        From `find_attention`.
    include, exclude : str, optional
        Regular expressions, searched for in node names.

    Raises
    ------
    UsageError
        If one is no regular expression.

    Examples
    --------
    >>> items = [AttentionSoftmax(name, 0, "logits", "p", "p") for name in ("encoder/Softmax", "decoder/Softmax")]
    >>> [item.reason for item in chosen(items, include="^encoder")]
    [None, "is not among those included by '^encoder'"]
    """
    wanted, unwanted = (_pattern(option, text) for option, text in (("include", include), ("exclude", exclude)))
    result = []
    for item in found:
        reason = item.reason
        if reason is None and wanted is not None and not wanted.search(item.node):
            reason = f"is not among those included by '{include}'"
        if reason is None and unwanted is not None and unwanted.search(item.node):
            reason = f"is excluded by '{exclude}'"
        result.append(item if reason == item.reason else replace(item, reason=reason, attention_like=False))
    return result


def check_chosen(found: list[AttentionSoftmax], include: str | None, exclude: str | None, subject: str) -> None:
    """Refuse patterns that leave none of the attention that was found.

    Raises
    ------
    HccsError
        Naming the patterns; `subject` names the model.
    """
    count = sum(item.reason is None for item in found)
    if count and all(item.reason is not None for item in chosen(found, include, exclude)):
        patterns = " and ".join(
            f"{option} '{text}'" for option, text in (("include", include), ("exclude", exclude)) if text is not None
        )
        remedy = "Their names: python -m hccs_onnx inspect"
        raise HccsError(subject, f"none of {count} attention Softmax is chosen by {patterns}", remedy=remedy)


def _pattern(option: str, text: str | None) -> re.Pattern[str] | None:
    try:
        return None if text is None else re.compile(text)
    except re.error as error:
        raise UsageError(option, f"is no regular expression: {error}", found=text, remedy="Put it right") from error
