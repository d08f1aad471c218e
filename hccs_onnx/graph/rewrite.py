"""The rewrite: attention's Softmax nodes become ``hccs::HCCS`` nodes, and nothing else of the model changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import onnx
from onnx import helper

from hccs_onnx._version import __version__
from hccs_onnx.errors import ModelError
from hccs_onnx.graph.attention import AttentionSoftmax
from hccs_onnx.graph.dead import keep_entries, without_dead
from hccs_onnx.graph.names import NameGenerator, subgraphs
from hccs_onnx.graph.opset import raise_opset
from hccs_onnx.graph.replacement import Replacer
from hccs_onnx.graph.scopes import Place, defined, graph_at
from hccs_onnx.graph.view import DEFAULTS_IR_VERSION
from hccs_onnx.operator.body import function_body
from hccs_onnx.operator.schema import DOMAIN, OP_TYPE, VERSION
from hccs_onnx.params import HccsParams, LogitQuantizer, OutputType, Reciprocal

MIN_IR_VERSION = 8  # model-local functions
METADATA_PREFIX = "hccs_onnx."


def rewrite_graph(
    model: onnx.ModelProto,
    found: Sequence[AttentionSoftmax],
    params: Mapping[str, HccsParams],
    provenance: Mapping[str, str],
    *,
    output: OutputType = "float",
    quantizers: Mapping[str, LogitQuantizer] | None = None,
) -> None:
    """Replace Softmax nodes in `model`, in place.

    Parameters
    ----------
    model : onnx.ModelProto
        The model; external data need not be loaded.
    found : sequence of AttentionSoftmax
        What `find_attention` found in it; entries with a reason are left alone.
    params : mapping of str to HccsParams
        Parameters by logits tensor, in nats: in units of what the Softmax read.
    provenance : mapping of str to str
        Put into the model's ``metadata_props``, names prefixed ``hccs_onnx.``, beside tool version and parameter hash.
    output : {'float', 'uint8', 'int16'}
        What HCCS puts out; integers are dequantised for the nodes behind.
    quantizers : mapping of str to LogitQuantizer, optional
        For integer output: how logits in nats become codes, by logits tensor.

    Raises
    ------
    ModelError
        If the opset is too old, a name is no text, or the model carries another ``hccs::HCCS`` function.

    Examples
    --------
    >>> rewrite_graph(model, find_attention(model), params, {"calibration": "data-free"})  # doctest: +SKIP
    """
    targets = [item for item in found if item.reason is None]
    opset = raise_opset(model)
    _list_no_initializers(model)
    reciprocal: Reciprocal = params[targets[0].logits].reciprocal if targets else "norm"
    add_function(model, function_body(output, reciprocal, opset))
    replacer = Replacer(output, opset, NameGenerator(model.graph))
    by_place: dict[Place, list[AttentionSoftmax]] = {}
    for item in targets:
        by_place.setdefault(item.place, []).append(item)
    loose: list[str] = []  # what dropped nodes read of the graphs around theirs
    around = {place[:depth] for place in by_place for depth in range(len(place) + 1)} | {()}
    try:
        for place in sorted(around, key=len, reverse=True):  # inner graphs first: nodes are copied
            loose = _rewrite_in(graph_at(model, place), by_place.get(place, []), params, quantizers, replacer, loose)
    except UnicodeError as error:  # protobuf reads such names, but does not write them
        problem = "is not valid: a name is no text"
        raise ModelError(f"graph '{model.graph.name}'", problem, remedy="Run onnx.checker on it") from error
    model.graph.initializer.extend(replacer.constants)  # bodies see them as well
    listed = {item.logits: asdict(params[item.logits]) for item in targets}
    if quantizers:
        listed |= {f"quantizer of {item.logits}": asdict(quantizers[item.logits]) for item in targets}
    digest = hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
    stamp(model, {"version": __version__, "parameters_sha256": digest, **provenance})


def _list_no_initializers(model: onnx.ModelProto) -> None:
    """Take initializers off the inputs, where they had to be listed but could not be fed.

    In the new model's IR version they would be defaults, which runtimes do not optimise on.
    """
    if model.ir_version < DEFAULTS_IR_VERSION:
        constants = {tensor.name for tensor in model.graph.initializer}
        keep_entries(model.graph.input, [value.name not in constants for value in model.graph.input])


def _rewrite_in(
    graph: onnx.GraphProto,
    targets: Sequence[AttentionSoftmax],
    params: Mapping[str, HccsParams],
    quantizers: Mapping[str, LogitQuantizer] | None,
    replacer: Replacer,
    loose: list[str],
) -> list[str]:
    """Replace the Softmax nodes of one graph; returns what dropped nodes read, here and in bodies before (`loose`)."""
    before = _tensors(graph)
    replacements: dict[int, list[onnx.NodeProto]] = {}
    for item in targets:
        quantizer = quantizers[item.logits] if quantizers else None
        result = item.requantized.output if replacer.output != "float" and item.requantized else item.probabilities
        replacements[item.index] = replacer.nodes(graph.node[item.index], item, result, params[item.logits], quantizer)
    scales = [step for item in targets for step in item.scales]
    bypassed = {graph.node[step.node].output[0]: step.data for step in scales}
    dropped = {step.node for step in scales} | {node for item in targets if item.guard for node in item.guard.nodes}
    if replacer.output != "float":
        dropped |= {node for item in targets if item.requantized for node in item.requantized.nodes}
    nodes: list[onnx.NodeProto] = []
    for index, node in enumerate(graph.node):
        if index not in dropped:
            nodes += replacements.get(index, [node])
    for node in nodes:
        _rename_inputs(node, bypassed)
    unread = [*loose, *(name for index in dropped for name in graph.node[index].input)]
    kept = without_dead(graph, nodes, list(unread))
    alive = {id(node) for node in kept}
    unread += [name for node in nodes if id(node) not in alive for name in node.input]
    serialized = [node.SerializeToString() for node in kept]
    del graph.node[:]
    graph.node.extend(onnx.NodeProto.FromString(data) for data in serialized)
    _drop_descriptions(graph, before - _tensors(graph))
    return unread


def _rename_inputs(node: onnx.NodeProto, renamed: Mapping[str, str]) -> None:
    for position, name in enumerate(node.input):
        if name in renamed:
            node.input[position] = _follow(name, renamed)
    for graph in subgraphs(node):
        own = renamed.keys() & set(defined(graph))  # a body before may have a tensor of the same name
        visible = {name: new for name, new in renamed.items() if name not in own} if own else renamed
        for inner in graph.node:
            _rename_inputs(inner, visible)


def _follow(name: str, renamed: Mapping[str, str]) -> str:
    while name in renamed:
        name = renamed[name]
    return name


def add_function(model: onnx.ModelProto, body: onnx.FunctionProto) -> None:
    """Put the operator's function into `model`, with the opset import and IR version that it needs.

    Raises
    ------
    ModelError
        If the model carries another ``hccs::HCCS`` function.
    """
    present = [function for function in model.functions if (function.domain, function.name) == (DOMAIN, OP_TYPE)]
    if present and present[0] != body:
        remedy = "Rewrite the original model again, in one step"
        raise ModelError(f"graph '{model.graph.name}'", "carries another hccs::HCCS function already", remedy=remedy)
    if not present:
        model.functions.append(body)
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    model.ir_version = max(model.ir_version, MIN_IR_VERSION)


def _tensors(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}


def _drop_descriptions(graph: onnx.GraphProto, removed: set[str]) -> None:
    """Remove shapes and quantisation annotations of tensors that are no longer there."""
    keep_entries(graph.value_info, [value.name not in removed for value in graph.value_info])
    keep_entries(
        graph.quantization_annotation, [entry.tensor_name not in removed for entry in graph.quantization_annotation]
    )


def stamp(model: onnx.ModelProto, stamps: Mapping[str, str]) -> None:
    """Put entries into the model's ``metadata_props`` under ``hccs_onnx.`` names, replacing those that are there."""
    entries = {entry.key: entry for entry in model.metadata_props}
    for name, value in sorted(stamps.items()):
        key = METADATA_PREFIX + name
        if key in entries:
            entries[key].value = value
        else:
            model.metadata_props.append(onnx.StringStringEntryProto(key=key, value=value))
