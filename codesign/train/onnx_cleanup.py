# SPDX-License-Identifier: Apache-2.0
"""Make a traced QONNX graph small and readable: merge what is equal, and name tensors after the model's modules."""

from __future__ import annotations

import re
from collections.abc import Iterable

import onnx
from onnx import GraphProto, NodeProto, TensorProto

# Names of a node's constant inputs, by position; where a type is not listed, the position itself is the name.
_CONSTANT_NAMES = {
    "Quant": ("float", "scale", "zero_point", "bit_width"),
    "LayerNormalization": ("x", "weight", "bias"),
    "Conv": ("x", "weight", "bias"),
    "Router": ("x", "weight", "bias"),
    "Experts": ("x", "gates", "w1", "b1", "w2", "b2"),
    "Add": ("bias", "bias"),
    "Reshape": ("x", "shape"),
}
_NOISE = re.compile(r"(^|/)(model(_\d+)?|inner|act_quant|weight_quant|export_handler(_\d+)?)(?=/|$)")
_PARAMETER = "model."
_SUFFIX = re.compile(r"_\d+(?=/|$)")


def merge_initializers(graph: GraphProto) -> None:
    """Keep one of several initializers with equal type, shape and content; parameters of the model stay apart."""
    first: dict[tuple[str, int, tuple[int, ...], bytes], str] = {}
    renamed: dict[str, str] = {}
    kept = []
    for tensor in graph.initializer:
        own = tensor.name if tensor.name.startswith(_PARAMETER) else ""
        key = (own, tensor.data_type, tuple(tensor.dims), onnx.numpy_helper.to_array(tensor).tobytes())
        renamed[tensor.name] = first.setdefault(key, tensor.name)
        if renamed[tensor.name] == tensor.name:
            kept.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    for node in graph.node:
        _rename(node, renamed)


def merge_nodes(graph: GraphProto) -> None:
    """Merge nodes with equal type, attributes and inputs (common subexpressions); nodes are sorted."""
    outputs = {value.name for value in graph.output}
    first: dict[bytes, NodeProto] = {}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        _rename(node, renamed)
        key = NodeProto(op_type=node.op_type, domain=node.domain, input=node.input, attribute=node.attribute)
        same = first.setdefault(key.SerializeToString(deterministic=True), node)
        if same is node or outputs.intersection(node.output):
            kept.append(node)
        else:
            renamed.update(zip(node.output, same.output, strict=True))
    copies = [NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:]
    graph.node.extend(copies)


def give_readable_names(graph: GraphProto) -> None:
    """Name each tensor after the module that computes it, e.g. `blocks.0.attn.q_quant`, and each node likewise.

    What only one of several tasks needs starts with that task's name. Parameters keep their names in the model, a
    quantized one is `<parameter>.quant`; other initializers are called after their first user, e.g. `<tensor>.scale`.
    """
    owner = _owners(graph)
    taken = {value.name for value in (*graph.input, *graph.output)}
    renamed = {name: name for name in taken}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for name in sorted(constants):
        if name.startswith(_PARAMETER):
            renamed[name] = _unused(name.removeprefix(_PARAMETER), taken)
    for node in graph.node:
        source = node.input[0]
        for output in node.output:
            if output in renamed:
                continue
            if node.op_type == "Quant" and source in constants:
                parameter = renamed.setdefault(source, source)
                renamed[output] = _unused(f"{parameter}.quant", taken)
            else:
                renamed[output] = _unused(owner.get(output, "") + _module_name(output), taken)
    for node in graph.node:
        result = renamed[node.output[0]].removesuffix(".quant")
        for i, name in enumerate(node.input):
            if name in constants and name not in renamed:
                renamed[name] = _unused(_constant_name(node, i, constants[name], result), taken)
        node.name = renamed[node.output[0]]
    for named in (*graph.initializer, *graph.value_info):
        named.name = renamed.get(named.name, named.name)
    for node in graph.node:
        _rename(node, renamed)
        node.output[:] = [renamed[name] for name in node.output]


def _rename(node: NodeProto, renamed: dict[str, str]) -> None:
    for i, name in enumerate(node.input):
        node.input[i] = renamed.get(name, name)


def _constant_name(node: NodeProto, position: int, tensor: TensorProto, result: str) -> str:
    names = _CONSTANT_NAMES.get(node.op_type, ())
    name = names[position] if position < len(names) else f"{node.op_type.lower()}_{position}"
    if name == "zero_point":
        return "quant.zero_point"  # the same for all
    if name == "bit_width":
        return f"quant.bit_width_{int(onnx.numpy_helper.to_array(tensor))}"
    return f"{result}.{name}"


def _module_name(traced: str) -> str:
    """`/model_1/blocks.0/attn/q_quant/inner/act_quant/export_handler/Quant_output_0` to `blocks.0.attn.q_quant`."""
    name = _NOISE.sub("", traced.removesuffix("_output_0"))
    name = re.sub(r"/Quant(_\d+)?$", "", name)
    return _SUFFIX.sub("", name).strip("/").replace("/", ".") or "tensor"


def _unused(name: str, taken: set[str]) -> str:
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}.{number}"
    taken.add(candidate)
    return candidate


def _owners(graph: GraphProto) -> dict[str, str]:
    """Tensor name to `<task>.` if exactly one of several outputs depends on it, else to the empty string."""
    users: dict[str, set[str]] = {value.name: {value.name} for value in graph.output}
    for node in reversed(graph.node):
        tasks = set().union(*(users.get(name, set()) for name in node.output))
        for name in node.input:
            users.setdefault(name, set()).update(tasks)
    several = len(graph.output) > 1
    return {name: f"{_only(tasks)}." if several and len(tasks) == 1 else "" for name, tasks in users.items()}


def _only(names: Iterable[str]) -> str:
    (name,) = names
    return name
