# SPDX-License-Identifier: Apache-2.0
"""A read-only view of a float model after constant folding: who produces a tensor, what it holds, how it is shaped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.fold_constants import FoldConstants
from qonnx.transformation.infer_shapes import InferShapes

from codesign.errors import InputError
from codesign.frontend.load import first_line, label

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

QUANT = "Quant"
MOVEMENT = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
"""Nodes that move values and compute nothing; where each value ends up is followed, not guessed from attributes."""
ARITHMETIC = ("Conv", "MatMul", "Add", "Sub", "Mul", "Div", "Concat", "LayerNormalization", "Erf", "Gelu")
SOFTMAX = ("Exp", "ReduceMax", "ReduceSum")
CUSTOM = ("Router", "Experts")
SUPPORTED = (QUANT, *ARITHMETIC, *SOFTMAX, *CUSTOM, *MOVEMENT, "Identity")


@dataclass(frozen=True)
class FloatModel:
    """The nodes that the outputs need, and the constants and shapes beside them."""

    input: str
    outputs: tuple[str, ...]
    producers: Mapping[str, NodeProto]
    constants: Mapping[str, npt.NDArray[np.generic]]
    shapes: Mapping[str, tuple[int, ...]]

    def producer(self, tensor: str, op_type: str | None = None) -> NodeProto | None:
        """The node that computes a tensor (of that type, if one is given), or None."""
        node = self.producers.get(tensor)
        return node if node is not None and op_type in (None, node.op_type) else None

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The static shape of a tensor. Raises InputError if it has none."""
        found = self.shapes.get(tensor, ())
        if tensor in self.constants:
            return self.constants[tensor].shape
        if not found or min(found) <= 0:
            raise InputError(f"tensor {tensor} must have a static shape, not {list(found)}; export with fixed sizes")
        return found

    def describe(self, tensor: str) -> str:
        """What computes a tensor, for errors."""
        node = self.producers.get(tensor)
        if node is not None:
            return f"node {label(node)} ({node.op_type})"
        return f"constant {tensor}" if tensor in self.constants else f"input {tensor}"

    def constant(self, tensor: str) -> Floats | None:
        """The value of a constant tensor: an initializer, or one moved or quantized by nodes; else None."""
        if tensor in self.constants:
            return np.asarray(self.constants[tensor], dtype=np.float64)
        node = self.producers.get(tensor)
        if node is None or node.op_type not in MOVEMENT:
            return None
        source = self.constant(node.input[0])
        return None if source is None else np.asarray(move(self, node, source), dtype=np.float64)

    def scalar(self, tensor: str) -> float | None:
        """The value of a constant with one element, else None."""
        value = self.constant(tensor)
        return float(value.reshape(())) if value is not None and value.size == 1 else None

    def movement(self, tensor: str) -> tuple[str, Ints]:
        """Follow movement nodes back from `tensor` to what they move.

        Returns that tensor and, in the shape of `tensor`, for each element the flat index it came from.
        """
        node = self.producers.get(tensor)
        if node is None or node.op_type not in MOVEMENT:
            shape = self.shape(tensor)
            return tensor, np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
        base, index = self.movement(node.input[0])
        return base, np.asarray(move(self, node, index), dtype=np.int64)


def attribute(node: NodeProto, name: str) -> object:
    """The value of a node's attribute, or None."""
    for found in node.attribute:
        if found.name == name:
            return onnx.helper.get_attribute_value(found)
    return None


def int_attribute(node: NodeProto, name: str, default: int) -> int:
    """An integer attribute. Raises InputError if it is something else."""
    value = attribute(node, name)
    if value is None:
        return default
    if not isinstance(value, int):
        raise InputError(f"attribute {name} of node {label(node)} must be an integer, not {value!r}; export it again")
    return value


def ints_attribute(node: NodeProto, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An integer list attribute. Raises InputError if it is something else."""
    value = attribute(node, name)
    if value is None:
        return default
    if not isinstance(value, list) or not all(isinstance(v, int) for v in value):
        raise InputError(f"attribute {name} of node {label(node)} must be integers, not {value!r}; export it again")
    return tuple(value)


def float_attribute(node: NodeProto, name: str, default: float) -> float:
    """A float attribute. Raises InputError if it is something else or not finite."""
    value = attribute(node, name)
    if value is None:
        return default
    if not isinstance(value, float) or not np.isfinite(value):
        raise InputError(
            f"attribute {name} of node {label(node)} must be a finite number, not {value!r}; export it again"
        )
    return value


def move(model: FloatModel, node: NodeProto, values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """What a movement node does to its first input. Raises InputError if that does not fit."""
    try:
        if node.op_type == "Transpose":
            return values.transpose(ints_attribute(node, "perm", tuple(reversed(range(values.ndim)))))
        return values.reshape(model.shape(node.output[0]))  # the others keep the order of elements
    except ValueError:
        shape = list(values.shape)
        raise InputError(f"node {label(node)} ({node.op_type}) must suit the shape {shape}; export it again") from None


def fold(path: Path, model: ModelProto) -> FloatModel:
    """Infer shapes, fold constants (Quant nodes stay) and check that the machine has every operator that is left."""
    _store_constants(model.graph)
    graph = model.graph if _is_folded(model) else _folded(path, model).graph
    _bypass_identities(graph)
    producers = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    outputs = tuple(value.name for value in graph.output)
    needed = _needed(producers, outputs)
    for node in graph.node:
        if node.output[0] in needed and node.op_type not in SUPPORTED:
            raise InputError(
                f"node {label(node)} must be an operator that the machine has, not {node.op_type}; replace it by one of"
                f" {', '.join(SUPPORTED)}"
            )
    values = (*graph.input, *graph.value_info, *graph.output)
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in values}
    image = next((v.name for v in graph.input if v.name not in constants and v.name in needed), "")
    if not image:
        raise InputError(f"{path} must compute its outputs from the image, not from constants alone; export it again")
    kept = {name: node for name, node in producers.items() if name in needed}
    return FloatModel(image, outputs, MappingProxyType(kept), MappingProxyType(constants), MappingProxyType(shapes))


def _store_constants(graph: GraphProto) -> None:
    """Make initializers of Constant nodes."""
    kept = []
    for node in graph.node:
        value = attribute(node, "value") if node.op_type == "Constant" else None
        for name, kind in (("value_float", np.float32), ("value_floats", np.float32), ("value_ints", np.int64)):
            plain = attribute(node, name) if node.op_type == "Constant" else None
            value = value if plain is None else onnx.numpy_helper.from_array(np.array(plain, dtype=kind))
        if isinstance(value, TensorProto):
            graph.initializer.append(value)
            graph.initializer[-1].name = node.output[0]
        else:
            kept.append(NodeProto.FromString(node.SerializeToString()))
    del graph.node[:]
    graph.node.extend(kept)


def _is_folded(model: ModelProto) -> bool:
    """Whether all shapes are written down and only Quant nodes compute from constants alone, as in our own exports.

    qonnx' transformations take time quadratic in the number of nodes, so they run only where there is work.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    values = (*graph.input, *graph.value_info, *graph.output)
    shaped = {v.name for v in values if all(d.dim_value > 0 for d in v.type.tensor_type.shape.dim)}
    return all(
        shaped.issuperset(node.output) and (node.op_type == QUANT or not constants.issuperset(node.input))
        for node in graph.node
    )


def _folded(path: Path, model: ModelProto) -> ModelProto:
    wrapper = ModelWrapper(model)
    try:
        for transformation in (InferShapes(), FoldConstants(exclude_op_types=[QUANT]), InferShapes()):
            wrapper = wrapper.transform(transformation, make_deepcopy=False, cleanup=False)
    except Exception as error:  # qonnx and onnxruntime raise all kinds for a graph that contradicts itself
        raise InputError(f"{path} must have consistent shapes, not: {first_line(error)}; export it again") from None
    folded: ModelProto = wrapper.model
    return folded


def _bypass_identities(graph: GraphProto) -> None:
    """Let every node read what stands before its Identity nodes."""
    source: dict[str, str] = {}
    for node in graph.node:
        node.input[:] = [source.get(name, name) for name in node.input]
        if node.op_type == "Identity":
            source[node.output[0]] = node.input[0]


def _needed(producers: Mapping[str, NodeProto], outputs: tuple[str, ...]) -> set[str]:
    pending, needed = list(outputs), set(outputs)
    while pending:
        node = producers.get(pending.pop())
        fresh = [name for name in node.input if name not in needed] if node is not None else []
        needed.update(fresh)
        pending.extend(fresh)
    return needed
