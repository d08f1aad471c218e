"""What aie4ml's firmware of an attention block computes, in NumPy, and what its files say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hccs_onnx import reference
from hccs_onnx.operator.schema import is_hccs, read_attributes


@dataclass(frozen=True)
class Struct:
    """One ``struct L<k>Cfg`` of parameters.h."""

    name: str
    text: str

    def constant(self, name: str) -> int:
        found = re.search(rf"\b{name}\s*=\s*(\w+)", self.text)
        assert found is not None, (self.name, name)
        return {"true": 1, "false": 0}.get(found[1]) if found[1] in ("true", "false") else int(found[1])  # type: ignore[return-value]

    def values(self, name: str) -> list[int]:
        found = re.search(rf"\b{name}\[CAS_NUM\] = \{{([^}}]*)\}}", self.text)
        assert found is not None, (self.name, name)
        return [int(value) for value in found[1].split(",")]


def structs(firmware: Path) -> dict[str, Struct]:
    """The structs by the name of the layer that they are of."""
    parameters = (firmware / "src" / "parameters.h").read_text()
    parts = re.split(r"^struct (L\d+Cfg) \{$", parameters, flags=re.MULTILINE)[1:]
    texts = dict(zip(parts[::2], parts[1::2], strict=True))
    graph = (firmware / "src" / "top_graph.h").read_text()
    layers = re.findall(r"_graph<Cfg(\d+)>\s+(\w+)_aie;", graph)
    return {layer: Struct(f"L{number}Cfg", texts[f"L{number}Cfg"]) for number, layer in layers}


def rounded(sums: np.ndarray, shift: int) -> np.ndarray:
    """An accumulator shifted right, half to even, saturated to int8."""
    whole, rest = sums >> shift, sums & ((1 << shift) - 1)
    half = (1 << shift) >> 1
    up = (rest > half) | ((rest == half) & (whole & 1 == 1)) if shift else np.zeros(sums.shape, bool)
    return np.clip(whole + up, -128, 127)


def run_block(graph: onnx.ModelProto, firmware: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """Integers of a block for int8 codes `x`: weights from its graph, shifts from its firmware."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    layers = structs(firmware)

    def dense(codes: np.ndarray, name: str) -> np.ndarray:
        sums = codes.astype(np.int64) @ constants[f"{name}_weight_codes"] + constants[f"{name}_bias_codes"]
        assert np.abs(sums).max() < 2**31
        return rounded(sums, layers[name].constant("SHIFT"))

    results: dict[str, np.ndarray] = {}
    contexts = []
    nodes = [node for node in graph.graph.node if is_hccs(node)]
    for head, node in enumerate(nodes):
        query, key, value = (dense(x, f"head{head}_{role}") for role in ("query", "key", "value"))
        codes = rounded(query @ key.T, layers[f"head{head}_logits"].constant("SHIFT")).astype(np.int8)
        params = read_attributes(node)
        y = reference.hccs(
            codes,
            constants[node.input[1]].dtype,
            B=[params.heads[0].B],
            S=[params.heads[0].S],
            Dmax=[params.heads[0].Dmax],
            reciprocal=params.reciprocal,
        )
        results |= {f"head{head}_codes": codes, f"head{head}_hccs": y}
        contexts.append(rounded(y.astype(np.int64) @ value, layers[f"head{head}_context"].constant("SHIFT")))
    results["y"] = dense(np.concatenate(contexts, axis=1), "output")
    return results


def fraction(graph: onnx.ModelProto, tensor: str) -> int:
    """Fraction of the QuantizeLinear node that makes these codes."""
    node = next(node for node in graph.graph.node if tensor in node.output)
    scale = next(each for each in graph.graph.initializer if each.name == node.input[1])
    return -int(np.log2(numpy_helper.to_array(scale)))


def attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
