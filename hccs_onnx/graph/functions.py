"""Model-local functions that hold a Softmax: put in place of the nodes that call them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, helper

from hccs_onnx.errors import ModelError
from hccs_onnx.graph.fused import is_fused
from hccs_onnx.graph.names import CallKey, NameGenerator, all_nodes, call_key, plain_domain, subgraphs
from hccs_onnx.graph.scopes import rename_node
from hccs_onnx.operator.schema import DOMAIN

MAX_NODES = 1_000_000  # that functions may unfold to


def inline_functions(model: onnx.ModelProto, keep: Collection[str] = ()) -> dict[str, str]:
    """Replace calls of functions that hold a Softmax by the functions' nodes, in place; the model computes the same.

    Functions that nothing calls any more go. One that is written for other operator versions than the model is stays.

    Parameters
    ----------
    model : onnx.ModelProto
        External data need not be loaded.
    keep : collection of str
        First outputs of calls to leave as they are.

    Returns
    -------
    dict of str to str
        For each tensor that is now made in place of a call, the call's first output.

    Raises
    ------
    ModelError
        If functions call themselves, or unfold to more than a million nodes.

    Examples
    --------
    >>> inline_functions(model)  # doctest: +SKIP
    {'y/scores': 'y', 'y/probabilities': 'y', 'y': 'y'}
    """
    functions = {call_key(function): function for function in model.functions if function.domain != DOMAIN}
    if not functions:
        return {}
    chosen = _worth_inlining(functions, model)
    if not chosen:
        return {}
    inliner = _Inliner(model, {key: functions[key] for key in chosen}, keep)
    inliner.inline(model.graph, None)
    if inliner.made:
        _drop_uncalled(model, chosen)
        _import_domains(model, [functions[key] for key in chosen])
    return inliner.made


def may_hold_softmax(node: NodeProto) -> bool:
    """Whether a node is a Softmax, holds one, or may be a part of one that is written out."""
    return node.op_type in ("Softmax", "Exp") or is_fused(node)


def written_for_others(function: FunctionProto, model: onnx.ModelProto) -> bool:
    """Whether an operator of a function would mean something else under the versions that the model imports."""
    theirs = {plain_domain(entry.domain): entry.version for entry in function.opset_import}
    ours = {plain_domain(entry.domain): entry.version for entry in model.opset_import}
    for node in all_nodes(function.node):
        domain = plain_domain(node.domain)
        one, other = theirs.get(domain), ours.get(domain)
        if one is not None and other is not None and one != other and _since(node, one) != _since(node, other):
            return True
    return False


def _since(node: NodeProto, version: int) -> int:
    """First version in which an operator means what it means in this one; the version itself for unknown operators."""
    try:
        return int(onnx.defs.get_schema(node.op_type, version, plain_domain(node.domain)).since_version)
    except Exception:  # onnx's SchemaError is no public class in all versions
        return version


def _worth_inlining(functions: Mapping[CallKey, FunctionProto], model: onnx.ModelProto) -> set[CallKey]:
    """Functions that hold a Softmax, directly or through others."""
    calls = {
        key: {called for node in all_nodes(function.node) if (called := call_key(node)) in functions}
        for key, function in functions.items()
    }
    try:
        order = list(TopologicalSorter(calls).static_order())
    except CycleError as error:
        domain, name, _ = error.args[1][0]
        remedy = "Export the model again: ONNX has no recursion"
        raise ModelError(f"function {domain}::{name}", "calls itself", remedy=remedy) from error
    chosen: set[CallKey] = set()
    for key in order:  # what is called comes first
        holds = calls[key] & chosen or any(may_hold_softmax(node) for node in all_nodes(functions[key].node))
        if holds and not written_for_others(functions[key], model):
            chosen.add(key)
    _check_size(model, functions, chosen, order)
    return chosen


def _check_size(
    model: onnx.ModelProto, functions: Mapping[CallKey, FunctionProto], chosen: set[CallKey], order: list[CallKey]
) -> None:
    """Refuse functions that double at every level before they are unfolded."""
    sizes: dict[CallKey, int] = {}
    for key in order:
        if key in chosen:
            sizes[key] = sum(sizes.get(call_key(node), 1) for node in all_nodes(functions[key].node))
    total = sum(sizes.get(call_key(node), 1) for node in all_nodes(model.graph.node))
    if sizes and total > MAX_NODES + sum(1 for _ in all_nodes(model.graph.node)):
        problem = "functions unfold to too many nodes"
        remedy = "Export the model with fewer levels of functions"
        raise ModelError(f"graph '{model.graph.name}'", problem, found=total, needs=f"<= {MAX_NODES}", remedy=remedy)


class _Inliner:
    """Replaces calls in one model, and notes what is made in their place."""

    def __init__(
        self, model: onnx.ModelProto, functions: Mapping[CallKey, FunctionProto], keep: Collection[str]
    ) -> None:
        self.made: dict[str, str] = {}
        self._functions = functions
        self._keep = keep
        self._names = NameGenerator(model.graph)

    def inline(self, graph: onnx.GraphProto, call: str | None) -> None:
        """Replace calls in a graph and in those inside it.

        Parameters
        ----------
        graph : onnx.GraphProto
            Changed in place.
        call : str or None
            The outermost call in whose place the graph stands.
        """
        if not any(call_key(node) in self._functions for node in all_nodes(graph.node)):
            return
        pending = [(node, call) for node in reversed(graph.node)]
        nodes: list[NodeProto] = []
        while pending:
            node, origin = pending.pop()
            function = self._functions.get(call_key(node))
            first = next((name for name in node.output if name), "")
            if function is None or not first or (origin is None and first in self._keep):
                nodes.append(node)
                for inner in subgraphs(node):
                    self.inline(inner, origin)
                continue
            origin = origin or first
            body = self._instance(node, function, first)
            self.made |= {name: origin for inner in all_nodes(body) for name in inner.output if name}
            pending += [(inner, origin) for inner in reversed(body)]
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(kept)

    def _instance(self, call: NodeProto, function: FunctionProto, first: str) -> list[NodeProto]:
        """The function's nodes for one call."""
        renamed = {"": "", **dict.fromkeys(function.input, ""), **dict(zip(function.input, call.input, strict=False))}
        results = {formal: actual for formal, actual in zip(function.output, call.output, strict=False) if actual}
        made = {name for node in function.node for name in node.output}
        # A result that is an input of the function, or is put out twice, needs a node of its own.
        copies = [
            helper.make_node("Identity", [formal], [actual])
            for formal, actual in zip(function.output, call.output, strict=False)
            if actual and (formal not in made or results[formal] != actual)
        ]
        renamed |= {formal: actual for formal, actual in results.items() if formal in made}
        attributes = {entry.name: entry for entry in (*function.attribute_proto, *call.attribute)}

        def choose(name: str) -> str:
            return self._names.fresh(f"{first}/{name}")

        uses = Counter(inner.name for inner in function.node)
        nodes = []
        for inner in function.node:
            for name in inner.output:
                if name not in renamed:
                    renamed[name] = choose(name)
            name = (
                inner.name
                if inner.name and uses[inner.name] == 1
                else f"{inner.op_type}_{next(iter(inner.output), '')}"
            )
            nodes.append(_copy(inner, call, f"{call.name or first}/{name}", attributes))
        for node in nodes:
            rename_node(node, renamed, choose)
        for copy in copies:
            copy.input[0] = renamed[copy.input[0]]
        return nodes + copies


def _copy(inner: NodeProto, call: NodeProto, name: str, attributes: Mapping[str, AttributeProto]) -> NodeProto:
    node = NodeProto.FromString(inner.SerializeToString())
    node.name = name
    if hasattr(node, "metadata_props"):
        present = {entry.key for entry in node.metadata_props}
        node.metadata_props.extend(entry for entry in call.metadata_props if entry.key not in present)
    _fill_in(node, attributes)
    return node


def _fill_in(node: NodeProto, attributes: Mapping[str, AttributeProto]) -> None:
    """Put the call's attributes where the function's nodes refer to them."""
    for position in reversed(range(len(node.attribute))):
        attribute = node.attribute[position]
        if attribute.ref_attr_name:
            given = attributes.get(attribute.ref_attr_name)
            name = attribute.name
            if given is None:
                del node.attribute[position]
            else:
                attribute.CopyFrom(given)
                attribute.name = name
    for graph in subgraphs(node):
        for inner in graph.node:
            _fill_in(inner, attributes)


def _drop_uncalled(model: onnx.ModelProto, chosen: set[CallKey]) -> None:
    """Remove functions that were put in place of all their calls, and those that only they called."""
    functions = {call_key(function): function for function in model.functions}
    called: set[CallKey] = set()
    pending = [call_key(node) for node in all_nodes(model.graph.node)]
    pending += [call_key(node) for key, item in functions.items() if key not in chosen for node in all_nodes(item.node)]
    while pending:
        key = pending.pop()
        if key in functions and key not in called:
            called.add(key)
            pending += [call_key(node) for node in all_nodes(functions[key].node)]
    kept = [function for key, function in functions.items() if key not in chosen or key in called]
    del model.functions[:]
    model.functions.extend(kept)


def _import_domains(model: onnx.ModelProto, functions: Iterable[FunctionProto]) -> None:
    """Import what functions import and the model does not."""
    present = {plain_domain(entry.domain) for entry in model.opset_import}
    for function in functions:
        for entry in function.opset_import:
            if plain_domain(entry.domain) not in present:
                present.add(plain_domain(entry.domain))
                model.opset_import.append(entry)
