"""Rotary position embedding in standard operators."""

from __future__ import annotations

from hccs_onnx.graph.fused.parts import Parts


def rotate(
    parts: Parts, x: str, cosine: str, sine: str, *, heads: int, size: int, turned: int, interleaved: bool
) -> str:
    """Turn the first `turned` elements of each head.

    Parameters
    ----------
    parts : Parts
        Where the nodes go.
    x : str
        (batch, position, head, size).
    cosine, sine : str
        (batch, position, 1, turned / 2).
    heads, size, turned : int
        Sizes; `turned` is even and at most `size`.
    interleaved : bool
        Whether pairs that turn together are neighbours, or half of `turned` apart.
    """
    rest = ""
    if turned < size:
        x, rest = parts.split(x, [turned, size - turned], axis=3)
    if interleaved:
        pairs = parts.reshape(x, 0, 0, heads * turned // 2, 2)
        one, other = (parts.reshape(piece, 0, 0, heads, turned // 2) for piece in parts.split(pairs, [1, 1], axis=3))
    else:
        one, other = parts.split(x, [turned // 2] * 2, axis=3)
    left = parts.add("Sub", parts.add("Mul", one, cosine), parts.add("Mul", other, sine))
    right = parts.add("Add", parts.add("Mul", one, sine), parts.add("Mul", other, cosine))
    if interleaved:
        pair = parts.add("Concat", *(parts.unsqueeze(piece, 4) for piece in (left, right)), axis=4)
        result = parts.reshape(pair, 0, 0, heads, turned)
    else:
        result = parts.add("Concat", left, right, axis=3)
    return parts.add("Concat", result, rest, axis=3) if rest else result
