"""Ways in which attention is written, one file each.

A pattern looks at one node and answers with what it found, nothing (``None``), or the reason why it cannot be attention
(`NoMatch`). Patterns between the query-key product and the Softmax return `Step` objects; `LOGIT_STEPS` lists them.
"""

from __future__ import annotations

from hccs_onnx.graph.patterns import (
    additive_mask,
    arithmetic_mask,
    limits,
    logit_scale,
    passthrough,
    quantize_pair,
    softcap,
    transposed,
    where_mask,
)

LOGIT_STEPS = (
    passthrough.match,
    quantize_pair.match,
    logit_scale.match,
    additive_mask.match,
    arithmetic_mask.match,
    where_mask.match,
    softcap.match,
    limits.match,
    transposed.match,
)
"""Patterns tried in turn on each node from the Softmax back to the query-key product."""
